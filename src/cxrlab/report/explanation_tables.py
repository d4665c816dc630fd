"""Tables of what the checks of heatmaps found."""

from collections.abc import Iterator, Mapping

from cxrlab.heatmaps.checks import OVERLAP_LEVELS, RANDOM, RANDOM_ORDER, ZONES
from cxrlab.heatmaps.results import (
    AgreementResult,
    ExplanationResult,
    FaithfulnessResult,
    LungsResult,
    PointingResult,
)
from cxrlab.metrics.bootstrap import MACRO
from cxrlab.report.formatting import count, number
from cxrlab.report.tables import Cell, Row, Table, estimated

PRIOR_NAMES = {
    "box_frequency": "box-frequency map",
    "image_centre": "image centre",
    "uniform_chance": "uniform chance",
}
_DIGITS = 2
_ZONE_TITLES = {
    "outside": "outside the lungs' region",
    "border": "at the border",
    "corners": "in the corners",
}


def source_names(result: ExplanationResult) -> dict[str, str]:
    """Return what each source of pointing is called on a page."""
    random = {RANDOM + method: f"{name}, random weights" for method, name in result.methods.items()}
    return {**result.methods, **random, **PRIOR_NAMES}


def finding_name(finding: str) -> str:
    """Return what a row is called: the mean over the findings has no name of its own."""
    return "mean of the findings" if finding == MACRO else finding


def boxed_pointing(result: ExplanationResult) -> PointingResult | None:
    """Return what was measured against boxes; None where that was not checked, or no box is known."""
    return result.pointing if result.pointing is not None and result.pointing.cases else None


def findings_of(pointing: PointingResult) -> list[str]:
    """Return the rows of a table: of a single finding the mean over findings would be the same again."""
    return [*pointing.cases, *([MACRO] if len(pointing.cases) > 1 else [])]


def pointing_table(result: ExplanationResult) -> Table | None:
    """Return how often each method points at each finding, beside what it must beat; None without boxes."""
    pointing = boxed_pointing(result)
    if pointing is None:
        return None
    columns = ["finding", "cases", "method", "points at it", "random weights", *PRIOR_NAMES.values()]
    columns += ["minus box-frequency map", "in words"]
    rows = [
        Row(
            finding_name(finding),
            list(_pointing_cells(result, pointing, finding, method)),
            strong=finding == MACRO,
        )
        for finding in findings_of(pointing)
        for method in result.methods
    ]
    return Table(columns, rows, texts=frozenset({2, len(columns) - 1}))


def _pointing_cells(
    result: ExplanationResult, pointing: PointingResult, finding: str, method: str
) -> Iterator[Cell]:
    sources, differences = pointing.findings[finding], pointing.differences[method].box_frequency
    yield Cell(count(pointing.num_cases if finding == MACRO else pointing.cases[finding].cases))
    yield Cell(result.methods[method])
    for source in (method, RANDOM + method, *PRIOR_NAMES):
        yield estimated(sources[source], "pointing", _DIGITS)
    yield estimated(differences, finding, _DIGITS)
    yield Cell(differences[finding].description)


def difference_table(result: ExplanationResult) -> Table | None:
    """Return how much more often methods point than with random weights, and the first than each other one.

    None without boxes.
    """
    pointing, names = boxed_pointing(result), result.methods
    if pointing is None:
        return None
    first = next(iter(names.values()))
    differences = {
        f"{name} minus the same with random weights": pointing.differences[method].random_network
        for method, name in names.items()
    }
    differences |= {
        f"{first} minus {names[method]}": of_method for method, of_method in pointing.against_first.items()
    }
    findings = findings_of(pointing)
    rows = [
        Row(name, [estimated(by_finding, finding, _DIGITS) for finding in findings])
        for name, by_finding in differences.items()
    ]
    return Table(["difference", *(finding_name(finding) for finding in findings)], rows)


def overlap_tables(result: ExplanationResult) -> list[tuple[str, Table]]:
    """Return tables of overlap, IoU and IoBB, for all sources of all findings; none without boxes."""
    pointing = boxed_pointing(result)
    if pointing is None:
        return []
    names = source_names(result)
    tables = []
    for measure, title in (("iou", "IoU"), ("iobb", "IoBB")):
        keys = [measure, *(f"{measure}@{level}" for level in OVERLAP_LEVELS)]
        columns = ["finding", "source", f"mean {title}", *(f"above {level}" for level in OVERLAP_LEVELS)]
        if measure == "iou":
            keys, columns = [*keys, "energy"], [*columns, "energy inside"]
        rows = [
            Row(
                finding_name(finding),
                [Cell(names[source]), *(estimated(estimates, key, _DIGITS) for key in keys)],
                strong=finding == MACRO,
            )
            for finding in findings_of(pointing)
            for source, estimates in pointing.findings[finding].items()
        ]
        tables.append((f"Overlap of regions and boxes: {title}", Table(columns, rows, texts=frozenset({1}))))
    return tables


def size_table(result: ExplanationResult) -> Table | None:
    """Return how often each source points at findings of each size; None without boxes."""
    pointing = boxed_pointing(result)
    if pointing is None:
        return None
    names = source_names(result)
    rows = [
        Row(
            f"{100 * size.from_:g} % to {100 * size.to:g} % of the image",
            [
                Cell(count(size.cases)),
                Cell(count(size.patients)),
                *(estimated(size.pointing, source, _DIGITS) for source in size.pointing),
            ],
        )
        for size in pointing.sizes
    ]
    sources = [names[source] for source in pointing.sizes[0].pointing]
    return Table(["boxes cover", "cases", "patients", *sources], rows)


def faithfulness_table(faithfulness: FaithfulnessResult, names: Mapping[str, str]) -> Table:
    """Return the areas under the deletion and insertion curves of each method, beside a random order."""
    columns = ["order of pixels", "deletion (low is good)", f"minus {RANDOM_ORDER}"]
    columns += ["insertion (high is good)", f"minus {RANDOM_ORDER}"]
    rows = []
    for method, curves in faithfulness.methods.items():
        estimates = [
            estimate
            for curve in (curves.deletion, curves.insertion)
            for estimate in (curve.area, curve.difference)
        ]
        cells = [estimated({} if estimate is None else {method: estimate}, method) for estimate in estimates]
        rows.append(Row(names.get(method, method), cells))
    return Table(columns, rows)


def agreement_table(agreement: AgreementResult, names: Mapping[str, str]) -> Table | None:
    """Return how alike each two methods' maps of an image are; None for a single method."""
    if not agreement.pairs:
        return None
    rows = [
        Row(
            " and ".join(names[method] for method in pair.methods),
            [estimated({"rank_correlation": pair.rank_correlation}, "rank_correlation", _DIGITS)],
        )
        for pair in agreement.pairs
    ]
    return Table(["methods", "rank correlation of their maps"], rows)


def shortcut_table(shortcuts: LungsResult, names: Mapping[str, str]) -> Table:
    """Return the share of each method's energy in places where no lung is."""
    rows = [
        Row(
            names[method],
            [
                Cell("all" if label == MACRO else label),
                *(estimated(by_zone, zone, _DIGITS) for zone in ZONES),
            ],
            mark=_mark(shortcuts, method) if label == MACRO else "",
            strong=label == MACRO,
        )
        for method, labels in shortcuts.methods.items()
        for label, by_zone in labels.items()
        if label == MACRO or len(labels) > 2
    ]
    even = [Cell(number(shortcuts.areas[zone], _DIGITS)) for zone in ZONES]
    rows.append(Row("a map that is the same everywhere", [Cell(""), *even]))
    return Table(["method", "label", *(_ZONE_TITLES[zone] for zone in ZONES)], rows, texts=frozenset({1}))


def _mark(shortcuts: LungsResult, method: str) -> str:
    zones = [flag.zone for flag in shortcuts.unlike if flag.method == method]
    return f"High: {', '.join(zones)}" if zones else ""
