"""Tables of what the checks of heatmaps found."""

from collections.abc import Iterator
from typing import Any

from cxrlab.heatmaps.checks.case_bootstrap import MACRO
from cxrlab.heatmaps.checks.pointing import OVERLAP_LEVELS, RANDOM
from cxrlab.heatmaps.checks.randomization import RANDOM_ORDER
from cxrlab.heatmaps.checks.shortcuts import ZONES
from cxrlab.report.formatting import count, number
from cxrlab.report.tables import Cell, Row, Table, estimated

Numbers = dict[str, Any]

PRIOR_NAMES = {
    "box_frequency": "box-frequency map",
    "image_centre": "image centre",
    "uniform_chance": "uniform chance",
}
_DIGITS = 2


def source_names(numbers: Numbers) -> dict[str, str]:
    """Return what each source of pointing is called on a page."""
    methods: dict[str, str] = numbers["methods"]
    random = {RANDOM + method: f"{name}, random weights" for method, name in methods.items()}
    return methods | random | PRIOR_NAMES


def finding_name(finding: str) -> str:
    """Return what a row is called: the mean over the findings has no name of its own."""
    return "mean of the findings" if finding == MACRO else finding


def pointing_table(numbers: Numbers) -> Table | None:
    """Return how often each method points at each finding, beside what it must beat; None without boxes."""
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return None
    columns = ["finding", "cases", "method", "points at it", "random weights", *PRIOR_NAMES.values()]
    columns += ["minus box-frequency map", "in words"]
    rows = [
        Row(finding_name(finding), list(_pointing_cells(numbers, finding, method)), strong=finding == MACRO)
        for finding in _findings(pointing)
        for method in numbers["methods"]
    ]
    return Table(columns, rows, texts=frozenset({2, len(columns) - 1}))


def _findings(pointing: Numbers) -> list[str]:
    """Return the rows of a table: of a single finding the mean over findings would be the same again."""
    return [*pointing["cases"], *([MACRO] if len(pointing["cases"]) > 1 else [])]


def _pointing_cells(numbers: Numbers, finding: str, method: str) -> Iterator[Cell]:
    pointing = numbers["pointing"]
    found, differences = pointing["findings"][finding], pointing["differences"][method]
    counts = pointing["cases"]
    yield Cell(
        count(counts[finding]["cases"] if finding in counts else sum(one["cases"] for one in counts.values()))
    )
    yield Cell(numbers["methods"][method])
    for source in (method, RANDOM + method, *PRIOR_NAMES):
        yield estimated(found[source], "pointing", _DIGITS)
    yield estimated(differences["box_frequency"], finding, _DIGITS)
    yield Cell(differences["words"][finding])


def difference_table(numbers: Numbers) -> Table | None:
    """Return how much more often methods point than with random weights, and the first than each other one.

    None without boxes.
    """
    pointing, names = numbers["pointing"], numbers["methods"]
    if not pointing["cases"]:
        return None
    first = next(iter(names.values()))
    differences = {
        f"{name} minus the same with random weights": pointing["differences"][method]["random_network"]
        for method, name in names.items()
    }
    against_first = pointing.get("against_first", {})  # runs of earlier versions have none
    differences |= {f"{first} minus {names[method]}": found for method, found in against_first.items()}
    findings = _findings(pointing)
    rows = [
        Row(name, [estimated(found, finding, _DIGITS) for finding in findings])
        for name, found in differences.items()
    ]
    return Table(["difference", *(finding_name(finding) for finding in findings)], rows)


def overlap_tables(numbers: Numbers) -> list[tuple[str, Table]]:
    """Return tables of overlap, IoU and IoBB, for all sources of all findings."""
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return []
    names = source_names(numbers)
    tables = []
    for measure, title in (("iou", "IoU"), ("iobb", "IoBB")):
        keys = [f"{measure}@{level}" for level in OVERLAP_LEVELS]
        columns = ["finding", "source", f"mean {title}", *(f"above {level}" for level in OVERLAP_LEVELS)]
        columns += ["energy inside"] if measure == "iou" else []
        extra = ["energy"] if measure == "iou" else []
        rows = [
            Row(
                finding_name(finding),
                [Cell(names[source]), *(estimated(one, key, _DIGITS) for key in (measure, *keys, *extra))],
                strong=finding == MACRO,
            )
            for finding in _findings(pointing)
            for source, one in pointing["findings"][finding].items()
        ]
        tables.append((f"Overlap of regions and boxes: {title}", Table(columns, rows, texts=frozenset({1}))))
    return tables


def size_table(numbers: Numbers) -> Table | None:
    """Return how often each source points at findings of each size; None without boxes."""
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return None
    names = source_names(numbers)
    rows = [
        Row(
            f"{100 * size['from']:g} % to {100 * size['to']:g} % of the image",
            [
                Cell(count(size["cases"])),
                Cell(count(size["patients"])),
                *(estimated(size["pointing"], source, _DIGITS) for source in size["pointing"]),
            ],
        )
        for size in pointing["sizes"]
    ]
    sources = [names[source] for source in pointing["sizes"][0]["pointing"]]
    return Table(["boxes cover", "cases", "patients", *sources], rows)


def faithfulness_table(numbers: Numbers) -> Table:
    """Return the areas under the deletion and insertion curves of each method, beside a random order."""
    columns = ["order of pixels", "deletion (low is good)", f"minus {RANDOM_ORDER}"]
    columns += ["insertion (high is good)", f"minus {RANDOM_ORDER}"]
    rows = [
        Row(
            numbers["methods"].get(method, method),
            [
                cell
                for kind in ("deletion", "insertion")
                for cell in (estimated(found[kind], "area"), estimated(found[kind], "difference"))
            ],
        )
        for method, found in numbers["faithfulness"]["methods"].items()
    ]
    return Table(columns, rows)


def agreement_table(numbers: Numbers) -> Table | None:
    """Return how alike each two methods' maps of an image are; None for a single method."""
    pairs = numbers["agreement"]["pairs"]
    if not pairs:
        return None
    names = numbers["methods"]
    rows = [
        Row(
            " and ".join(names[one] for one in pair["methods"]),
            [estimated(pair, "rank_correlation", _DIGITS)],
        )
        for pair in pairs
    ]
    return Table(["methods", "rank correlation of their maps"], rows)


def shortcut_table(numbers: Numbers) -> Table:
    """Return the share of each method's energy in places where no lung is."""
    shortcuts = numbers["shortcuts"]
    titles = {"outside": "outside the lungs' region", "border": "at the border", "corners": "in the corners"}
    rows = [
        Row(
            numbers["methods"][method],
            [Cell("all" if label == MACRO else label), *(estimated(one, zone, _DIGITS) for zone in ZONES)],
            mark=_mark(shortcuts, method) if label == MACRO else "",
            strong=label == MACRO,
        )
        for method, labels in shortcuts["methods"].items()
        for label, one in labels.items()
        if label == MACRO or len(labels) > 2
    ]
    even = [Cell(number(shortcuts["areas"][zone], _DIGITS)) for zone in ZONES]
    rows.append(Row("a map that is the same everywhere", [Cell(""), *even]))
    return Table(["method", "label", *(titles[zone] for zone in ZONES)], rows, texts=frozenset({1}))


def _mark(shortcuts: Numbers, method: str) -> str:
    zones = [one["zone"] for one in shortcuts["unlike"] if one["method"] == method]
    return f"High: {', '.join(zones)}" if zones else ""
