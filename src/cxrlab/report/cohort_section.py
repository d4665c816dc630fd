"""The section on images and patients: their flow into the parts, and their characteristics by part."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from cxrlab.evaluation.cohort import (
    CategoryCharacteristic,
    Characteristic,
    Cohort,
    LabelCharacteristic,
    NumberCharacteristic,
)
from cxrlab.report import text
from cxrlab.report.figures import flow
from cxrlab.report.formatting import DASH, count, counted, number, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table

_MOST_LABELS = 6  # that stand in the table; those of more are folded
_UNITS = {"patient": "patients", "image": "images"}


def cohort_section(context: PageContext) -> Markup | None:
    """Return the flow, the characteristics by part, and whether a patient is in two parts."""
    cohort = context.result.cohort
    if cohort is None:
        return None
    sentences = [paragraph_html(sentence) for sentence in sentences_of(cohort)]
    drawn = context.figure(
        "flow",
        flow.flow(cohort),
        alt="Flow of the images: how many there were, were left out and why, and are in each part.",
        caption="Images and patients. Blue: what this page evaluates.",
    )
    labels = label_table(cohort)
    is_short = len(labels.rows) <= _MOST_LABELS
    return Markup("\n").join(
        [
            part("how", text.HOW_TO_READ["cohort"]),
            *sentences,
            drawn,
            table_html(characteristics_table(cohort)),
            table_html(labels) if is_short else folded_html("Images with each finding, by part", labels),
        ]
    )


def sentences_of(cohort: Cohort) -> list[str]:
    """Return what was checked of the parts, what is unknown, and what is not recorded."""
    sentences = [disjoint(cohort), unknown_labels(cohort)]
    if cohort.source == "predictions":
        sentences.append(
            "Only tables of predictions are known: how many images there were before, and why any were left "
            "out, is not recorded here."
        )
    return [sentence for sentence in sentences if sentence]


def disjoint(cohort: Cohort) -> str:
    """Return whether a patient is in two parts, as counted; empty where there is one part only.

    Example:
        >>> disjoint(Cohort("predictions", None, [], [], [], [], None))
        ''
    """
    if len(cohort.parts) < 2:
        return ""
    if cohort.shared_patients is None:
        return (
            "Whose images they are is not known, so whether a patient is in two parts could not be checked."
        )
    names = _listed([flow.PART_NAMES[part.part].lower() for part in cohort.parts])
    if cohort.shared_patients == 0:
        num_patients = sum(part.patients or 0 for part in cohort.parts)
        return f"No patient is in two parts: checked for all {counted(num_patients, 'patient')} of {names}."
    verb = "is" if cohort.shared_patients == 1 else "are"
    return (
        f"{counted(cohort.shared_patients, 'patient')} {verb} in more than one of {names}: results flatter."
    )


def unknown_labels(cohort: Cohort) -> str:
    """Return how many labels are unknown in each part; such entries count neither for nor against."""
    shares = []
    for each in cohort.parts:
        rows = [row for row in cohort.labels if row.part == each.part]
        missing = sum(row.unknown for row in rows)
        if missing:
            total = sum(row.unknown + row.positives + row.negatives for row in rows)
            shares.append(f"{flow.PART_NAMES[each.part].lower()} {missing:,} of {total:,}")
    if not shares:
        return "Every label is known of every image." if cohort.labels else ""
    of_training = "training and " if any(each.part == "train" for each in cohort.parts) else ""
    return (
        f"Labels that are unknown: {'; '.join(shares)}. They are left out of {of_training}every number on "
        "this page; nothing is filled in for them."
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def characteristics_table(cohort: Cohort) -> Table:
    """Return images, patients and covariates, a column a part."""
    parts = cohort.parts
    rows = [Row("images", [Cell(count(each.images)) for each in parts])]
    if cohort.patients_known:
        rows.append(Row("patients", [Cell(count(each.patients)) for each in parts]))
        rows.append(
            Row(
                "images per patient, mean",
                [
                    Cell(number(each.images_per_patient, 1), f"at most {count(each.most_images)}")
                    for each in parts
                ],
            )
        )
    for covariate in dict.fromkeys(each.covariate for each in cohort.covariates):
        rows += _covariate_rows([each for each in cohort.covariates if each.covariate == covariate])
    columns = ["", *(flow.PART_NAMES[each.part].lower() for each in parts)]
    return Table(columns, rows)


def _covariate_rows(columns: Sequence[Characteristic]) -> Iterator[Row]:
    """Yield the lines of a covariate from its summaries by part."""
    numbers = [each for each in columns if isinstance(each, NumberCharacteristic)]
    categories = [each for each in columns if isinstance(each, CategoryCharacteristic)]
    name, unit = columns[0].covariate, _UNITS[columns[0].unit]
    if numbers:
        yield Row(
            f"{name}, median and quartiles ({unit})",
            [Cell(_short(each.median), _between(each.q25, each.q75)) for each in numbers],
        )
        yield Row(
            f"{name}, mean and standard deviation ({unit})",
            [Cell(_short(each.mean), "" if each.sd is None else f"SD {_short(each.sd)}") for each in numbers],
        )
        yield Row(f"{name}, range", [Cell(_between(each.minimum, each.maximum) or DASH) for each in numbers])
    if categories and not categories[0].counts:
        yield Row(f"{name}, different values", [Cell(count(each.num_values)) for each in categories])
    for value in categories[0].counts if categories else ():
        yield Row(
            f"{name} {value} ({unit})",
            [_share(each.counts[value], each.known + each.unknown) for each in categories],
        )
    if any(each.unknown for each in columns):
        yield Row(
            f"{name} unknown ({unit})",
            [_share(each.unknown, each.known + each.unknown) for each in columns],
        )


def _short(value: float | None) -> str:
    """Return a number as short as it is exact: ages are whole, a score between 0 and 1 is not."""
    if value is None:
        return DASH
    return number(value, 0 if value == round(value) else 1 if abs(value) >= 10 else 2)


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_short(low)} to {_short(high)}"


def _share(part_of: int, whole: int) -> Cell:
    return Cell(count(part_of), percent(part_of / whole) if whole else "")


def label_table(cohort: Cohort) -> Table:
    """Return images and patients with each finding, and of how many it is unknown, a column a part."""
    names = list(dict.fromkeys(row.label for row in cohort.labels))
    rows = [Row(name, [_label_cell(row) for row in cohort.labels if row.label == name]) for name in names]
    columns = ["images with", *(flow.PART_NAMES[each.part].lower() for each in cohort.parts)]
    return Table(columns, rows)


def _label_cell(row: LabelCharacteristic) -> Cell:
    known = row.positives + row.negatives
    details = [f"{percent(row.positives / known)} of {count(known)}" if known else "unknown of all"]
    if row.positive_patients is not None:
        details.append(counted(row.positive_patients, "patient"))
    if row.unknown and known:
        details.append(f"{count(row.unknown)} unknown")
    return Cell(count(row.positives) if known else DASH, ", ".join(details))
