"""Heatmaps for a page: read from the gallery of a run or drawn, and chosen within the page's room.

Of each finding a page shows the most confident errors beside the surest hits.
"""

import base64
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from cxrlab.data.boxes import framed
from cxrlab.heatmaps.cases import case_table, choose_cases, pick_cases
from cxrlab.heatmaps.drawing import INDEX_COLUMNS, draw_panels, num_sides, write_gallery
from cxrlab.heatmaps.methods.cam import Pair, activation_maps
from cxrlab.heatmaps.methods.layers import is_explainable
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.report.formatting import number
from cxrlab.report.model_info import Outcome, Panel

if TYPE_CHECKING:
    from cxrlab.evaluation.operating_point import Thresholds
    from cxrlab.runs.run import Run
    from cxrlab.runs.run_data import PredictedImages


log = logging.getLogger(__name__)

_SIDE = 260  # pixels of each side of a panel: of a network for 224 pixels as it is, and readable on a phone
_QUALITY = 80
_BATCH_SIZE = 8  # Grad-CAM keeps activations and their gradients: no more than fits a small GPU
_PER_KIND = 2  # errors, and hits, of each finding on a page
_MARKUP = 400  # bytes around a picture

# By whether the label is predicted positive, and whether it is.
_OUTCOMES: dict[tuple[bool, bool], Outcome] = {
    (True, True): "TP",
    (True, False): "FP",
    (False, True): "FN",
    (False, False): "TN",
}


def read_panels(folder: Path, *, budget_bytes: int) -> tuple[list[Panel], int]:
    """Return the panels of a gallery, within a budget.

    Where the budget is short every finding loses its last hit and its last error first, so that what is left
    shows both for as long as it can.

    Args:
        folder: Where :func:`cxrlab.heatmaps.drawing.write_gallery` wrote; it need not exist.
        budget_bytes: Of all JPEG files together; in a page each takes a third more.

    Returns:
        Panels by finding in the order of the gallery, hits first, then errors; and how many the budget left
        out. A picture that is missing or damaged is skipped.
    """
    panels = _ordered([panel for record in _index(folder) if (panel := _panel(folder, record)) is not None])
    seen: Counter[tuple[str, bool]] = Counter()
    rounds = []
    for panel in panels:
        kind = (panel.finding, panel.outcome == "TP")
        rounds.append(seen[kind])
        seen[kind] += 1
    by_round = np.argsort(rounds, kind="stable")
    total = np.cumsum([len(panels[place].jpeg) for place in by_round])
    kept = sorted(by_round[total <= budget_bytes].tolist())
    return [panels[place] for place in kept], len(panels) - len(kept)


def _index(folder: Path) -> list[dict[Any, Any]]:
    """Return the lines of a gallery's index; none where there is no gallery."""
    path = folder / "index.csv"
    if not path.is_file():
        return []
    text = {name: str for name in INDEX_COLUMNS if name not in ("probability", "target")}
    try:
        # A finding may be called NA; and pandas may read the last digit of a number wrong, which can take a
        # probability across its own threshold.
        table = pd.read_csv(
            path,
            usecols=list(INDEX_COLUMNS),
            dtype=text,
            keep_default_na=False,
            converters={"probability": float, "target": lambda cell: float(cell or "nan")},
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("The heatmaps in %s are left out: index.csv cannot be read: %s", folder, error)
        return []
    return table.to_dict("records")


def _panel(folder: Path, record: Mapping[Any, Any]) -> Panel | None:
    if record["outcome"] not in get_args(Outcome):
        return None
    # A gallery that was edited must not bring in pictures from elsewhere.
    path = folder / Path(record["file"]).name
    try:
        with Image.open(path) as picture:
            jpeg = _jpeg(picture)
    except (OSError, ValueError, SyntaxError) as error:  # all three are Pillow's for a damaged file
        log.warning("The heatmap %s is left out: %s", path, error)
        return None
    names = ("finding", "outcome", "probability", "target", "image")
    return Panel(jpeg=jpeg, **{name: record[name] for name in names})


def _jpeg(picture: Image.Image) -> bytes:
    picture = picture.convert("RGB")
    width = _SIDE * max(2, num_sides(picture))
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _ordered(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels by finding in the order in which these appear, hits first."""
    findings = dict.fromkeys(panel.finding for panel in panels)
    place = {finding: number for number, finding in enumerate(findings)}
    return sorted(panels, key=lambda panel: (place[panel.finding], panel.outcome != "TP"))


def outcomes_at(panels: Sequence[Panel], thresholds: Mapping[str, float]) -> list[Panel]:
    """Return panels with their outcomes at other thresholds than they were drawn at, in the order of these.

    Args:
        panels: As of ``read_panels``.
        thresholds: By finding; where one is missing or NaN the outcome stays.
    """
    moved = []
    for panel in panels:
        threshold = thresholds.get(panel.finding, np.nan)
        if not np.isnan([threshold, panel.target, panel.probability]).any():
            is_predicted = bool(panel.probability >= threshold)
            panel = replace(panel, outcome=_OUTCOMES[is_predicted, panel.target == 1])
        moved.append(panel)
    return _ordered(moved)


def draw_run_panels(
    run: "Run", predicted: "PredictedImages", thresholds: "Thresholds | None", folder: Path, *, per_label: int
) -> None:
    """Draw the best hits and the worst errors of a run on images that it predicted just now.

    A network that no heatmap can be made of is passed over with a warning.

    Args:
        run: Its network is explained, on the device where it is.
        predicted: What it predicted of the images, with their manifest and pixels.
        thresholds: Of the labels of ``predicted.table``; None for the probability 0.5.
        folder: Where the gallery is written.
        per_label: Hits of each label, and errors.

    Raises:
        ValueError: If ``predicted`` has no pixels.
        OutputError: If the folder cannot be written to.
    """
    manifest, images, table = predicted.manifest, predicted.images, predicted.table
    if manifest is None or images is None or len(predicted.rows) != len(table):
        raise ValueError(f"{table.source} comes without the pixels of its {len(table)} images.")
    network = run.model.network
    if not is_explainable(network):
        log.warning("No heatmaps: %s lacks feature_layer and to_grid.", type(network).__name__)
        return
    values = None if thresholds is None else thresholds.values
    rows = np.asarray(predicted.rows, dtype=np.int64)
    cases = case_table(rows, table.probabilities, table.targets, table.labels, values)
    # The table may hold some of the network's labels only.
    cases["label"] = np.array([run.labels.index(label) for label in table.labels])[cases["label"]]
    chosen = choose_cases(cases, manifest, images_per_label=per_label, errors_per_label=per_label)

    def read_image(row: int) -> Tensor:
        return torch.from_numpy(images[[row]][0])

    def grad_cam(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
        ready = run.model.preprocess(images.to(run.model.device))
        return activation_maps(network, ready, pairs, method="gradcam", layers="auto", batch_size=_BATCH_SIZE)

    panels = draw_panels(
        pick_cases(cases, chosen),
        framed(manifest, images),
        read_image=read_image,
        explain={METHOD_NAMES["gradcam"]: grad_cam},
        num_images=_BATCH_SIZE,
    )
    write_gallery(folder, panels, manifest)


class Shown(NamedTuple):
    """A picture as the template takes it."""

    source: str
    words: str
    image: str


class Group(NamedTuple):
    """The pictures of a finding, the most telling first."""

    finding: str
    errors: list[Shown]
    hits: list[Shown]


def gallery(
    panels: Sequence[Panel], budget: int, thresholds: Mapping[str, float | None] | None = None
) -> tuple[list[Group], int]:
    """Choose pictures, and return them by finding with how many were left out for want of room.

    Each finding's most confident errors (false alarms and misses in turn) and its surest hits are taken one
    rank after another, so that a small budget leaves every finding some.

    Args:
        panels: All there are.
        budget: Bytes for them in the page.
        thresholds: By finding, for the captions, which say nothing of those that are missing; None for none.
    """
    thresholds = thresholds or {}
    findings = dict.fromkeys(panel.finding for panel in panels)
    chosen = {finding: _ranked(panels, finding) for finding in findings}
    shown: set[int] = set()
    for panel in chain.from_iterable(zip_longest(*chosen.values())):
        if panel is not None and (cost := 4 * len(panel.jpeg) // 3 + _MARKUP) <= budget:
            budget -= cost
            shown.add(id(panel))
    groups = [
        _group(finding, [panel for panel in ranked if id(panel) in shown], thresholds.get(finding))
        for finding, ranked in chosen.items()
    ]
    num_chosen = sum(map(len, chosen.values()))
    return [group for group in groups if group.errors or group.hits], num_chosen - len(shown)


def _group(finding: str, panels: Sequence[Panel], threshold: float | None) -> Group:
    errors = [_shown(panel, threshold) for panel in panels if panel.outcome != "TP"]
    return Group(finding, errors, [_shown(panel, threshold) for panel in panels if panel.outcome == "TP"])


def _ranked(panels: Sequence[Panel], finding: str) -> list[Panel]:
    """Return errors and hits of a finding in turn, the most telling first."""

    def of(outcome: Outcome) -> list[Panel]:
        chosen = [panel for panel in panels if panel.finding == finding and panel.outcome == outcome]
        return sorted(chosen, key=lambda panel: panel.probability, reverse=outcome != "FN")

    errors = _in_turn(of("FP"), of("FN"))[:_PER_KIND]
    return _in_turn(errors, of("TP")[:_PER_KIND])


def _in_turn(first: Sequence[Panel], second: Sequence[Panel]) -> list[Panel]:
    return [panel for pair in zip_longest(first, second) for panel in pair if panel is not None]


def _shown(panel: Panel, threshold: float | None) -> Shown:
    outcome = {"FP": "False positive", "FN": "False negative", "TP": "True positive"}[panel.outcome]
    truth = "present" if panel.target == 1 else "absent"
    return Shown(
        source=embedded(panel.jpeg),
        words=f"{outcome}: {truth}, predicted {_beside(panel, threshold)}.",
        image=panel.image,
    )


def _beside(panel: Panel, threshold: float | None) -> str:
    """Return the probability, and on which side of the threshold it is where that agrees with the outcome."""
    if threshold is None or (panel.probability >= threshold) != (panel.outcome in ("TP", "FP")):
        return number(panel.probability, 2)
    side = "below" if panel.probability < threshold else "at or above"
    return f"{number(panel.probability)}, {side} the threshold {number(threshold)}"


def embedded(jpeg: bytes) -> str:
    """Return a picture as the source of an element of a page that needs no other file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
