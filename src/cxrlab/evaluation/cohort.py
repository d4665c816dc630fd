"""Who was studied: the flow of images and patients into the parts, and their characteristics by part.

What a paper shows as flow diagram and table 1. Numbers come from the manifest of a run, from that of another
data set, or from tables of predictions alone, of which less is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit import AuditReport
from cxrlab.data.audit.label_checks import unknown
from cxrlab.data.audit.tables import MOST_CATEGORIES
from cxrlab.data.flow import FlowStep
from cxrlab.data.manifest import COVARIATE, LABEL, PARTS
from cxrlab.data.patients import patient_keys
from cxrlab.files import RunDir, read_json
from cxrlab.metrics.predictions import PredictionTable

Unit = Literal["patient", "image"]
Mask = npt.NDArray[np.bool_]

EVALUATED = "evaluated"
"""The part of a table of which no part is known."""

_AUDIT_REMEDY = "Bring it back from a copy, or remove it: the page then says less of the data."


@dataclass(frozen=True)
class CohortPart:
    """Images and patients of a part.

    Attributes:
        part: ``train``, ``val``, ``test``, or ``evaluated`` where only that is known.
        images: How many.
        patients: How many; None where they are unknown.
        images_per_patient: Mean; None where patients are unknown.
        most_images: Of one patient; None where patients are unknown.
        without_label: Images on which no label is known.
        evaluated: Images of it that the page is about; 0 for the other parts.
    """

    part: str
    images: int
    patients: int | None
    images_per_patient: float | None
    most_images: int | None
    without_label: int
    evaluated: int


@dataclass(frozen=True)
class NumberCharacteristic:
    """A covariate in numbers, in one part; statistics are None where none is known there.

    Attributes:
        covariate: Its name.
        part: The part.
        unit: What is counted: patients, each with the mean over the images, or images.
        known: Patients or images with a value.
        unknown: Without.
        mean: Of what is counted, as are ``sd``, the quartiles and the median.
        sd: Standard deviation; None for fewer than two.
        minimum: Least value of an image.
        q25: First quartile.
        median: Median.
        q75: Third quartile.
        maximum: Largest value of an image.
        kind: ``number``.
    """

    covariate: str
    part: str
    unit: Unit
    known: int
    unknown: int
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    maximum: float | None = None
    kind: Literal["number"] = "number"


@dataclass(frozen=True)
class CategoryCharacteristic:
    """A covariate of a few values, in one part.

    Attributes:
        covariate: Its name.
        part: The part.
        unit: Patients where each has one value only in the whole data set; else images.
        counts: By value, the most frequent of all parts first; empty where there are too many to be named.
        known: Patients or images with a value.
        unknown: Without.
        num_values: Different values in the part.
        kind: ``category``.
    """

    covariate: str
    part: str
    unit: Unit
    counts: Mapping[str, int]
    known: int
    unknown: int
    num_values: int
    kind: Literal["category"] = "category"


Characteristic = NumberCharacteristic | CategoryCharacteristic


@dataclass(frozen=True)
class LabelCharacteristic:
    """A label in a part.

    Attributes:
        label: Its name.
        part: The part.
        positives: Images with it.
        negatives: Images without it.
        unknown: Images of which that is not known.
        positive_patients: Patients with such images; None where patients are unknown.
    """

    label: str
    part: str
    positives: int
    negatives: int
    unknown: int
    positive_patients: int | None


@dataclass(frozen=True)
class Cohort:
    """Images and patients by part.

    Attributes:
        source: Where the numbers come from: a run's or a data set's ``manifest``, or ``predictions`` alone.
        listed: Images in the data set's own table; None where that is not known.
        steps: What was left out of them before the parts, by reason.
        parts: In the order train, val, test.
        covariates: By covariate and part.
        labels: By label and part.
        shared_patients: Patients in more than one part; None where patients are unknown or there is one part.
    """

    source: Literal["manifest", "predictions"]
    listed: int | None
    steps: Sequence[FlowStep]
    parts: Sequence[CohortPart]
    covariates: Sequence[Characteristic]
    labels: Sequence[LabelCharacteristic]
    shared_patients: int | None

    @property
    def images(self) -> int:
        """Images of all parts."""
        return sum(part.images for part in self.parts)

    @property
    def patients_known(self) -> bool:
        """Whether it is known whose images they are."""
        return all(part.patients is not None for part in self.parts)

    def without_details(self) -> "Cohort":
        """Return the same without what was asked for on the command line, which may hold a name."""
        return replace(self, steps=[replace(step, detail="") for step in self.steps])


def manifest_cohort(
    table: pd.DataFrame,
    *,
    evaluated: Mapping[str, int],
    audit: AuditReport | None = None,
) -> Cohort:
    """Describe a manifest.

    Args:
        table: Its rows; those without a part are taken for one part, ``evaluated``.
        evaluated: Images that the page is about, by part.
        audit: What was recorded of the images that are not in the manifest; None where nothing was.
    """
    named = table["part"].where(table["part"].isin(PARTS), EVALUATED)
    patients_known = not table["patient"].equals(table["image"])
    recorded = [] if audit is None else _recorded_steps(audit, len(table))
    return _cohort(
        table.assign(part=named),
        source="manifest",
        patients_known=patients_known,
        evaluated=evaluated,
        listed=None if audit is None else audit.data.listed,
        steps=recorded,
    )


def external_cohort(
    table: pd.DataFrame, rows: Sequence[int], num_asked: int, audit: AuditReport | None
) -> Cohort:
    """Describe the images of another data set than that of the training, which are all evaluated.

    Args:
        table: The manifest of that data set.
        rows: Of it, those that are evaluated.
        num_asked: Rows of the part that was asked for, before those that the training had were left out.
        audit: Of that data set, or None.
    """
    kept = table.iloc[list(rows)].assign(part="")
    lost = [FlowStep("part", len(table) - num_asked), FlowStep("trained_on", num_asked - len(rows))]
    steps = [step for step in lost if step.images]
    cohort = manifest_cohort(kept, evaluated={EVALUATED: len(rows)})
    if audit is None:
        return replace(cohort, steps=steps)
    recorded = _recorded_steps(audit, len(table))
    return replace(cohort, listed=audit.data.listed, steps=[*recorded, *steps])


def run_cohort(files: RunDir, manifest: pd.DataFrame, part: str, num_evaluated: int) -> Cohort:
    """Describe the data of a run, as its training wrote them down.

    Args:
        files: The run directory.
        manifest: Its ``manifest.csv``.
        part: That is evaluated.
        num_evaluated: Images of it.

    Raises:
        ConfigError: If ``audit.json`` is damaged.
    """
    report = None
    if files.audit.is_file():
        report = AuditReport.from_json(read_json(files.audit, _AUDIT_REMEDY))
    return manifest_cohort(manifest, evaluated={part: num_evaluated}, audit=report)


def _recorded_steps(report: AuditReport, num_used: int) -> list[FlowStep]:
    """Return what a data set lost; of an audit that did not record it, what its findings tell."""
    if report.flow:
        return list(report.flow)
    counts = {finding.kind: finding.count for finding in report.findings}
    missing, unreadable = counts.get("missing", 0), counts.get("unreadable", 0)
    rest = report.data.listed - missing - unreadable - num_used
    steps = [FlowStep("missing", missing), FlowStep("unreadable", unreadable)]
    return [*steps, FlowStep("other", rest)] if rest > 0 else steps


def predictions_cohort(tables: Mapping[str, PredictionTable]) -> Cohort:
    """Describe tables of predictions, of which nothing else is known.

    Args:
        tables: By part, the evaluated one last; ``val`` is what thresholds were chosen on.
    """
    *_, evaluated = tables
    frames = [_frame(table).assign(part=part) for part, table in tables.items()]
    names = list(dict.fromkeys(name for frame in frames for name in frame))
    return _cohort(
        pd.concat(frames, ignore_index=True)[names],
        source="predictions",
        patients_known=all(table.patients_known for table in tables.values()),
        evaluated={evaluated: len(tables[evaluated])},
        listed=None,
        steps=[],
    )


def table_cohort(table: PredictionTable) -> Cohort:
    """Describe the only table of predictions there is."""
    return predictions_cohort({table.part or EVALUATED: table})


def _frame(table: PredictionTable) -> pd.DataFrame:
    """Return a table with the columns of a manifest."""
    names = table.patient_names
    patients: Any = table.patients if names is None else np.array(_keys(names), dtype=object)[table.patients]
    columns: dict[str, Any] = {"image": table.images, "patient": patients}
    columns |= {COVARIATE + str(name): table.covariates[name].to_numpy() for name in table.covariates}
    columns |= {LABEL + label: table.targets[:, place] for place, label in enumerate(table.labels)}
    return pd.DataFrame(columns)


def _keys(names: npt.NDArray[np.object_]) -> list[str]:
    """Return what names of patients are compared by: one patient may be written in two ways in two tables."""
    return [key or str(name) for key, name in zip(patient_keys(names.tolist()), names, strict=True)]


def _cohort(
    table: pd.DataFrame,
    *,
    source: Literal["manifest", "predictions"],
    patients_known: bool,
    evaluated: Mapping[str, int],
    listed: int | None,
    steps: Sequence[FlowStep],
) -> Cohort:
    parts = [part for part in (*PARTS, EVALUATED) if (table["part"] == part).any()]
    rows = {part: (table["part"] == part).to_numpy() for part in parts}
    patients = pd.factorize(table["patient"])[0] if patients_known else None
    columns = [str(name) for name in table]
    labels = [name for name in columns if name.startswith(LABEL)]
    targets = table[labels].to_numpy(dtype=np.float64)
    return Cohort(
        source=source,
        listed=listed,
        steps=list(steps),
        parts=[_part(part, rows[part], targets, patients, evaluated.get(part, 0)) for part in parts],
        covariates=[
            characteristic
            for name in columns
            if name.startswith(COVARIATE)
            for characteristic in _characteristics(name.removeprefix(COVARIATE), table[name], rows, patients)
        ],
        labels=[
            _label(label.removeprefix(LABEL), part, targets[rows[part], place], _of(patients, rows[part]))
            for place, label in enumerate(labels)
            for part in parts
        ],
        shared_patients=_num_shared(rows, patients),
    )


def _part(
    part: str, rows: Mask, targets: npt.NDArray[np.float64], patients: Any, num_evaluated: int
) -> CohortPart:
    numbers = None if patients is None else np.bincount(pd.factorize(patients[rows])[0])
    known = ~np.isnan(targets[rows])
    return CohortPart(
        part=part,
        images=int(rows.sum()),
        patients=None if numbers is None else len(numbers),
        images_per_patient=None if numbers is None else float(numbers.mean()),
        most_images=None if numbers is None else int(numbers.max()),
        without_label=int((~known.any(axis=1)).sum()),
        evaluated=num_evaluated,
    )


def _num_shared(rows: Mapping[str, Mask], patients: Any) -> int | None:
    """Return how many patients are in more than one part."""
    if patients is None or len(rows) < 2:
        return None
    present = np.zeros(int(patients.max()) + 1, dtype=int)
    for mask in rows.values():
        present[np.unique(patients[mask])] += 1
    return int((present > 1).sum())


def _label(label: str, part: str, values: npt.NDArray[np.float64], patients: Any) -> LabelCharacteristic:
    positives = values == 1
    return LabelCharacteristic(
        label=label,
        part=part,
        positives=int(positives.sum()),
        negatives=int((values == 0).sum()),
        unknown=int(np.isnan(values).sum()),
        positive_patients=None if patients is None else len(np.unique(patients[positives])),
    )


def _characteristics(
    name: str, values: "pd.Series[Any]", rows: Mapping[str, Mask], patients: Any
) -> list[Characteristic]:
    """Return a covariate in each part; what kind it is, and what is counted, its values in all parts tell."""
    blank = unknown(values).to_numpy()
    known = values[~blank]
    if pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        numbers = np.where(blank, np.nan, numbers)
        return [_number(name, part, numbers[mask], _of(patients, mask)) for part, mask in rows.items()]
    words = values.astype(object).astype(str).where(~blank, other=np.nan)
    has_one = patients is not None and bool((words.groupby(patients).nunique() <= 1).all())
    frequent = [str(word) for word in words.value_counts().index]
    named = frequent if len(frequent) <= MOST_CATEGORIES else []
    return [
        _category(name, part, words[mask], _of(patients, mask) if has_one else None, named)
        for part, mask in rows.items()
    ]


def _of(patients: Any, mask: Mask) -> Any:
    return None if patients is None else patients[mask]


def _number(name: str, part: str, values: npt.NDArray[np.float64], patients: Any) -> NumberCharacteristic:
    """Summarise numbers: each patient once, with the mean over the images; the range is of the images."""
    unit: Unit = "image" if patients is None else "patient"
    counted = values if patients is None else pd.Series(values).groupby(patients).mean().to_numpy()
    there, num_unknown = counted[~np.isnan(counted)], int(np.isnan(counted).sum())
    if not len(there):
        return NumberCharacteristic(name, part, unit, 0, num_unknown)
    q25, median, q75 = (float(value) for value in np.quantile(there, (0.25, 0.5, 0.75)))
    return NumberCharacteristic(
        name,
        part,
        unit,
        known=len(there),
        unknown=num_unknown,
        mean=float(there.mean()),
        sd=float(there.std(ddof=1)) if len(there) > 1 else None,
        minimum=float(np.nanmin(values)),
        q25=q25,
        median=median,
        q75=q75,
        maximum=float(np.nanmax(values)),
    )


def _category(
    name: str, part: str, words: "pd.Series[Any]", patients: Any, named: Sequence[str]
) -> CategoryCharacteristic:
    counted = words if patients is None else words.groupby(patients).first()
    counts = counted.value_counts()
    return CategoryCharacteristic(
        name,
        part,
        "image" if patients is None else "patient",
        counts={word: int(counts.get(word, 0)) for word in named},
        known=int(counted.notna().sum()),
        unknown=int(counted.isna().sum()),
        num_values=len(counts),
    )
