"""The page of a comparison: a leaderboard, and which differences are shown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cxrlab
from cxrlab.errors import OutputError
from cxrlab.files import write_text
from cxrlab.report import text as sentences
from cxrlab.report.figures import groups
from cxrlab.report.formatting import MINUS, counted, p
from cxrlab.report.html import Redaction, inline, pages, save_figures
from cxrlab.report.tables import Cell, Row, Table, estimated
from cxrlab.report.text import records

Numbers = dict[str, Any]

_MINUS = f" {MINUS} "
_DESCRIPTIONS = {
    "leaderboard": "Mean AUROC of each model, with its interval.",
    "auroc_by_model": "AUROC of each label by each model, with intervals.",
    "differences": "Differences of mean AUROC between the models, with their intervals.",
}


def write_comparison(
    folder: Path, numbers: Numbers, provenance: Mapping[str, Any] | None, *, images: bool
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` of a comparison, and return the page's path.

    Args:
        folder: Where to; it is made if it is not there.
        numbers: As in ``comparison.json``.
        provenance: The session of ``provenance.json``, or None.
        images: False leaves out the names of files and folders; models that bear one are numbered instead.

    Raises:
        OutputError: If a file cannot be written.
    """
    labels = list(numbers["models"][0]["labels"])
    redaction = Redaction(labels, active=not images)
    numbers = _without_paths(numbers, redaction)
    drawn = _figures(numbers)
    context = {
        **_words(numbers, redaction),
        "tables": _tables(numbers),
        "figures": inline(drawn, _DESCRIPTIONS),
        "descriptions": _DESCRIPTIONS,
        "sessions": records({"Comparison": provenance}, redaction),
        "hidden": redaction.active,
        "version": cxrlab.__version__,
        "sections": [("leaderboard", "Leaderboard"), ("differences", "Differences")]
        + ([("repeat", "How to repeat it")] if provenance else []),
    }
    try:
        save_figures(folder / "figures", drawn, _DESCRIPTIONS)
        write_text(folder / "report.html", pages().get_template("comparison.html.jinja").render(context))
    except OSError as error:
        raise OutputError(f"The comparison cannot be written to {folder}: {error}.") from error
    return folder / "report.html"


def _title(numbers: Numbers) -> str:
    models, name = counted(len(numbers["models"]), "model"), numbers["data"]["name"]
    return f"{models} on {name}" if name else f"{models} compared"


def _figures(numbers: Numbers) -> dict[str, Any]:
    drawn = {
        "leaderboard": groups.leaderboard(numbers),
        "auroc_by_model": groups.auroc_by_model(numbers),
        "differences": groups.differences(numbers),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _without_paths(numbers: Numbers, redaction: Redaction) -> Numbers:
    """Return the numbers with a number for the name of each model that is a path or a file."""
    if not redaction.active:
        return numbers
    names = [model["name"] for model in numbers["models"]]
    renamed = {
        name: f"model {place}" for place, name in enumerate(names, start=1) if redaction.text(name) != name
    }
    text = json.dumps(numbers, ensure_ascii=False)
    for name in sorted(renamed, key=len, reverse=True):
        inside = json.dumps(name, ensure_ascii=False)[1:-1]
        text = text.replace(inside, renamed[name])
    replaced: Numbers = json.loads(text)
    return replaced


def _words(numbers: Numbers, redaction: Redaction) -> dict[str, Any]:
    return {
        "title": redaction.text(_title(numbers)),
        "headline": headline(numbers),
        "flags": [redaction.text(message) for message in _flags(numbers)],
        "evaluated": [(name, redaction.text(value)) for name, value in sentences.predicted(numbers)],
    }


def headline(numbers: Numbers) -> str:
    """Return who came first, and whether the second is shown to be worse.

    Args:
        numbers: As in ``comparison.json``.
    """
    data, models = numbers["data"], numbers["models"]
    images = counted(data["images"], "image")
    if data["patients"] is not None:
        images += f" of {counted(data['patients'], 'patient')}"
    best, num_labels = models[0], len(models[0]["labels"])
    mean = f"; mean of {numbers.get('num_macro_labels', num_labels)} findings" if num_labels > 1 else ""
    rated = sentences.bracketed(best["macro_auroc"], numbers["interval"])
    told = f"On {images}, {best['name']} came first ({rated}{mean})."
    nearest = next((pair for pair in numbers["pairs"] if best["name"] in pair["models"]), None)
    if nearest is None:
        return told
    one, other = nearest["models"]
    return f"{told} Compared with {other if one == best['name'] else one}, {nearest['description']}."


def _flags(numbers: Numbers) -> list[str]:
    """Return what to beware of, each once, with what was left out if nothing else says it."""
    told = [flag["message"] for flag in numbers["flags"]]
    left_out = numbers["left_out"]
    if left_out["images"] and not any(flag["kind"].startswith("left_out") for flag in numbers["flags"]):
        told.append(f"{counted(left_out['images'], 'image')} that not all models evaluated were left out.")
    return list(dict.fromkeys(told))


def _tables(numbers: Numbers) -> dict[str, Any]:
    models, pairs = numbers["models"], numbers["pairs"]
    labels = list(models[0]["labels"])
    several = len(labels) > 1
    by_label = [Row(label, [estimated(model["labels"], label) for model in models]) for label in labels]
    return {
        "models": _leaderboard(numbers),
        "by_label": Table(["label", *(model["name"] for model in models)], by_label) if several else None,
        "pairs": _differences({_MINUS.join(pair["models"]): pair for pair in pairs}, "models"),
        "pairs_by_label": [
            (f"By label: {_MINUS.join(pair['models'])}", _differences(pair["labels"], "label"))
            for pair in pairs
            if several
        ],
    }


def _leaderboard(numbers: Numbers) -> Table:
    rows = [
        Row(model["name"], [estimated(model, "macro_auroc"), estimated(model, "macro_average_precision")])
        for model in numbers["models"]
    ]
    mean = "mean " if len(numbers["models"][0]["labels"]) > 1 else ""
    return Table(["model", f"{mean}AUROC", f"{mean}average precision"], rows)


def _differences(pairs: Mapping[str, Any], first: str) -> Table:
    rows = [
        Row(
            name,
            [
                estimated(pair, "difference"),
                Cell(p(pair["p"])),
                Cell(p(pair["p_holm"])),
                Cell(pair["description"]),
            ],
        )
        for name, pair in pairs.items()
    ]
    return Table([first, "difference of AUROC", "p", "p, Holm", "in words"], rows, texts=frozenset({4}))
