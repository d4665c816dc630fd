"""The audit: one look over a manifest and what was seen of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd

from cxrlab.data.audit import drift, file_checks, label_checks, leakage_checks, tables
from cxrlab.data.audit.drift import Drift
from cxrlab.data.audit.finding import Evidence, Finding
from cxrlab.data.audit.leakage_checks import ShownPair
from cxrlab.data.flow import FlowStep
from cxrlab.data.image_statistics import Appearance
from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError

_CHECKS = (
    leakage_checks.shared_patients,
    leakage_checks.patient_ids,
    file_checks.unreadable,
    leakage_checks.duplicates,
    file_checks.looks,
    file_checks.missing_and_extra,
    file_checks.left_out,
    file_checks.published,
    label_checks.no_finding,
    label_checks.ages,
    label_checks.duplicate_rows,
    label_checks.sexes,
    label_checks.constant_and_rare,
    label_checks.small_parts,
    label_checks.unknown_names,
    label_checks.unknown_covariates,
    file_checks.formats,
)
_ORDER = ("fault", "warning", "note")
FACTS = ("error", "warning", "digest", "width", "height", "mode", "depth", "levels", *Appearance._fields)


_COVARIATES: dict[str, type[tables.CovariateSummary]] = {
    "number": tables.NumberSummary,
    "text": tables.TextSummary,
    "category": tables.CategorySummary,
}


@dataclass(frozen=True)
class DataSummary:
    """The data set in short; ``listed`` counts the images of its own table, present or not."""

    name: str
    images: int
    patients: int
    listed: int
    fingerprint: str
    labels: list[str]


@dataclass(frozen=True)
class AuditReport:
    """Everything that is odd about a data set, and its counts; ``dataclasses.asdict`` of it is audit.json.

    Attributes:
        data: The data set in short.
        findings: What is odd, faults first.
        parts: Counts by part; where the manifest is not split, the only part is called "all".
        labels: Counts by part and label.
        without_label: Share of images without any label, by part.
        cooccurrence: Pairs of labels on one image.
        images_per_patient: By part.
        sizes: Of the files.
        modes: Files of each pixel mode.
        covariates: By covariate and part.
        drift: How far the parts are apart.
        duplicates: Pairs of images to look at.
        root: Folder of the images; empty where that is not known.
        flow: Images that were left out before and after what is audited, by reason; empty where that was not
            recorded.
    """

    data: DataSummary
    findings: list[Finding]
    parts: list[tables.PartCounts]
    labels: list[tables.LabelCounts]
    without_label: list[tables.WithoutLabel]
    cooccurrence: tables.Cooccurrence
    images_per_patient: list[tables.ImagesPerPatient]
    sizes: tables.Sizes
    modes: dict[str, int]
    covariates: list[tables.CovariateSummary]
    drift: list[Drift]
    duplicates: list[ShownPair]
    root: str = ""
    flow: list[FlowStep] = field(default_factory=list)

    @classmethod
    def from_json(cls, loaded: Mapping[str, Any]) -> Self:
        """Return the report that an audit.json holds.

        Raises:
            KeyError: If a key is missing.
            TypeError: If an entry lacks a key, or has one that is unknown.
        """
        sizes = loaded["sizes"]
        return cls(
            data=DataSummary(**loaded["data"]),
            findings=[Finding(**entry) for entry in loaded["findings"]],
            parts=[tables.PartCounts(**entry) for entry in loaded["parts"]],
            labels=[tables.LabelCounts(**entry) for entry in loaded["labels"]],
            without_label=[tables.WithoutLabel(**entry) for entry in loaded["without_label"]],
            cooccurrence=tables.Cooccurrence(**loaded["cooccurrence"]),
            images_per_patient=[tables.ImagesPerPatient(**entry) for entry in loaded["images_per_patient"]],
            sizes=tables.Sizes(
                sizes["num_sizes"], [tables.SizeCount(**entry) for entry in sizes["most_frequent"]]
            ),
            modes=loaded["modes"],
            covariates=[_COVARIATES[entry["kind"]](**entry) for entry in loaded["covariates"]],
            drift=[Drift(**entry) for entry in loaded["drift"]],
            duplicates=[ShownPair(**entry) for entry in loaded["duplicates"]],
            root=loaded.get("root", ""),
            flow=[FlowStep(**entry) for entry in loaded.get("flow", [])],
        )


def audit(
    manifest: Manifest,
    facts: pd.DataFrame,
    *,
    identical: list[list[int]],
    pairs: pd.DataFrame,
    missing: int | Sequence[str],
    extra: Sequence[str],
    raw: pd.DataFrame | None,
) -> AuditReport:
    """Return everything that is odd about a data set, and its counts.

    Args:
        manifest: The data set; ``part`` may be set or not.
        facts: One row for each row of the manifest, in its order: ``error`` and ``warning`` ("" for none),
            ``digest`` (of the bytes), ``width``, ``height`` (of the file), ``mode``, ``depth`` and ``levels``
            (see :class:`cxrlab.data.decode.DecodedImage`) and the fields of
            :class:`cxrlab.data.image_statistics.Appearance`. Rows with an error may hold NaN.
        identical: Groups of row numbers whose files are equal to the byte.
        pairs: Columns ``one`` and ``other``, row numbers of pictures that are nearly the same.
        missing: Images that are listed but not on disk: their names, or only how many.
        extra: Images on disk that no table lists.
        raw: The data set's own table as it was listed, before anything was refused or mended: ``image`` and,
            where there are any, ``findings`` (text with ``|``) and ``age`` (years); None where there is none.

    Raises:
        DataError: If the facts do not fit the manifest, or a row number is outside of it.
    """
    _check(manifest, facts, identical, pairs)
    evidence = Evidence(manifest, facts, identical, pairs, missing, extra, raw)
    differences = drift.drift(evidence)
    findings = [finding for check in _CHECKS for finding in check(evidence)]
    findings += drift.drifted(differences)
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    data = DataSummary(
        name=manifest.name,
        images=len(manifest),
        patients=int(manifest.table["patient"].nunique()),
        listed=manifest.num_listed,
        fingerprint=manifest.fingerprint(),
        labels=manifest.labels,
    )
    return AuditReport(
        data=data,
        findings=findings,
        parts=tables.parts(evidence),
        labels=tables.labels(evidence),
        without_label=tables.without_label(evidence),
        cooccurrence=tables.cooccurrence(evidence),
        images_per_patient=tables.images_per_patient(evidence),
        sizes=tables.sizes(evidence),
        modes=tables.modes(evidence),
        covariates=tables.covariates(evidence),
        drift=differences,
        duplicates=leakage_checks.shown_pairs(evidence),
    )


def _check(manifest: Manifest, facts: pd.DataFrame, identical: list[list[int]], pairs: pd.DataFrame) -> None:
    if len(manifest) == 0:
        raise DataError(f"The manifest of {manifest.root} has no rows; there is nothing to audit.")
    lacking = [name for name in FACTS if name not in facts]
    if lacking or len(facts) != len(manifest):
        raise DataError(
            f"The facts of {len(facts)} images lack the columns {lacking}, or their number is not that of "
            f"the {len(manifest)} rows of the manifest of {manifest.root}. Build the cache again."
        )
    rows = [row for group in identical for row in group]
    rows += pairs[["one", "other"]].to_numpy(dtype=int).ravel().tolist()
    outside = [row for row in rows if not 0 <= row < len(manifest)]
    if outside:
        raise DataError(
            f"Duplicates name the rows {outside[:3]}; the manifest of {manifest.root} has {len(manifest)}."
        )
