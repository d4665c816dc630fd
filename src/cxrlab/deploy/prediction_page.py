"""``predictions.html``: what a model says of image files, picture by picture."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import cxrlab
from cxrlab.data.decode_files import DecodedFile, decode_files
from cxrlab.data.inputs import ImageFile
from cxrlab.deploy.model import ImagePrediction, Model
from cxrlab.deploy.prediction_folder import TABLE, read_rows
from cxrlab.files import write_text
from cxrlab.heatmaps.drawing import overlay, panel, radiograph_picture
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.report.formatting import counted, number
from cxrlab.report.html import pages
from cxrlab.report.panels import embedded
from cxrlab.report.tables import Cell, Row, Table

PAGE = "predictions.html"
_SIDE, _QUALITY = 320, 80
_MOST_LISTED = 200  # rows that are not ok
_STATUS = {
    "ok": "predicted",
    "warned": "predicted with a warning",
    "rejected": "rejected",
    "unreadable": "not readable",
}
_HOW = (
    "Whether a finding is predicted is decided on the probability before calibration: it is positive where "
    "that reaches the threshold. The calibrated probability is the one to read as a chance: it is corrected "
    "on validation images, where the model has such a calibration, and holds for images like those. Without "
    "a threshold nothing is decided. No prediction is a diagnosis."
)
_DECISIONS = {"1": "positive", "0": "negative"}
_COLD = "Brighter and warmer is what spoke for the finding."


def write_page(
    folder: Path,
    model: Model,
    files: Iterable[ImageFile],
    counts: Mapping[str, int],
    *,
    num_images: int,
    method: str | None,
) -> Path:
    """Write the page from the finished table, and return its path.

    Args:
        folder: With ``predictions.csv``.
        model: Whose predictions they are.
        files: Those of the table.
        counts: Rows by status.
        num_images: Pictures at most, of the first rows.
        method: Of the heatmaps; None for none.

    Raises:
        OSError: If it cannot be written.
    """
    row_of_file = {row[0]: row for row in islice(read_rows(folder / TABLE), num_images)}
    wanted = islice((file for file in files if file.name in row_of_file), len(row_of_file))
    shown = [
        _case(model, file, row_of_file[file.file.name], method)
        for file in decode_files(wanted, model.decoding, num_workers=1)
    ]
    page = pages().get_template("predictions.html.jinja").render(
        title=f"Predictions of {counted(sum(counts.values()), 'image file')}",
        headline=_headline(counts),
        caveats=model.record.caveats,
        how_to_read=_HOW,
        facts=_facts(model),
        thresholds=_thresholds(model),
        not_ok=_not_ok(folder),
        cases=shown,
        num_left_out=max(0, sum(counts.values()) - len(shown)),
        heatmap_note=_COLD if method else "",
        version=cxrlab.__version__,
    )  # fmt: skip
    path = folder / PAGE
    write_text(path, page)
    return path


def _headline(counts: Mapping[str, int]) -> str:
    parts = [f"{counts[status]:,} {words}" for status, words in _STATUS.items() if counts.get(status)]
    return ", ".join(parts) + "."


def _facts(model: Model) -> list[tuple[str, str]]:
    record = model.record
    trained_on = record.trained_on
    data = (
        ""
        if trained_on is None
        else ", ".join(
            str(words)
            for words in (trained_on.get("data") or "name not kept", trained_on.get("note"))
            if words
        )
    )
    facts = [
        ("model", record.title),
        ("weights", record.checkpoint),
        ("training data", data),
        ("views", ", ".join(record.views)),
        ("calibration", record.calibration or "none"),
        ("licence", record.licence),
        (
            "check for images unlike the training's",
            "made" if model.knows_its_images else "not made: the checkpoint has no record of its images",
        ),
    ]
    return [(name, value) for name, value in facts if value]


def _thresholds(model: Model) -> Table:
    rows = [Row(label, [Cell(number(value))]) for label, value in model.thresholds.items()]
    rule = model.record.threshold_rule
    return Table(["Finding", f"Threshold ({rule} on validation)" if rule else "Threshold"], rows)


def _not_ok(folder: Path) -> list[tuple[str, str, str]]:
    """Return name, status and reason of the first rows that are not ok."""
    found = (row for row in read_rows(folder / TABLE) if row[1] != "ok")
    return [(row[0], _STATUS.get(row[1], row[1]), row[2]) for row in islice(found, _MOST_LISTED)]


class _Finding(NamedTuple):
    label: str
    probability: float
    threshold: float
    calibrated: float
    decision: str

    @property
    def is_positive(self) -> bool:
        return self.decision == "positive"


def _case(model: Model, file: DecodedFile, row: Sequence[str], method: str | None) -> dict[str, object]:
    """Return what the template shows of a file."""
    cells = dict(zip(model.columns, row, strict=True))
    findings = [
        _Finding(
            label,
            float(cells[f"probability/{label}"]),
            float(cells[f"threshold/{label}"] or "nan"),
            float(cells[f"calibrated/{label}"]),
            _DECISIONS.get(cells[f"prediction/{label}"], "none"),
        )
        for label in model.labels
        if cells[f"calibrated/{label}"]
    ]
    findings.sort(key=lambda finding: (not finding.is_positive, -finding.calibrated))
    return {
        "name": cells["file"],
        "status": "" if cells["status"] == "ok" else _STATUS[cells["status"]],
        "reason": cells["reason"],
        "findings": findings,
        "pictures": list(_pictures(model, file, findings, method)) if file.images else [],
    }


def _pictures(
    model: Model, file: DecodedFile, findings: Sequence[_Finding], method: str | None
) -> Iterator[tuple[str, str]]:
    """Yield pictures as sources of an element, each with what it shows."""
    pixels = file.images[0].pixels
    radiograph = radiograph_picture(torch.from_numpy(pixels))
    yield _embedded(radiograph), "the image as the network sees it"
    if method is not None and findings:
        label = findings[0].label
        (heatmap,) = model.explain(pixels, [model.labels.index(label)], method)
        yield _embedded(overlay(radiograph, heatmap)), f"{METHOD_NAMES[method]} of {label}"


def _embedded(picture: Image.Image) -> str:
    picture.thumbnail((_SIDE, _SIDE))
    memory = io.BytesIO()
    picture.save(memory, "JPEG", quality=_QUALITY, optimize=True)
    return embedded(memory.getvalue())


def write_heatmaps(
    folder: Path, model: Model, file: DecodedFile, prediction: ImagePrediction, row: int, method: str
) -> list[Path]:
    """Write a PNG of the image and the heatmap of each label that is predicted positive, and return them.

    Args:
        folder: It is made if it is not there.
        model: Whose heatmaps.
        file: Decoded.
        prediction: Of it; without one nothing is written.
        row: In the table, by which the files are named.
        method: See :data:`cxrlab.heatmaps.settings.METHODS`.
    """
    columns = [int(column) for column in np.flatnonzero(prediction.decisions == 1)]
    if not columns:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    pixels = file.images[0].pixels
    written = []
    for column, heatmap in zip(columns, model.explain(pixels, columns, method), strict=True):
        label = model.labels[column]
        picture = panel(
            torch.from_numpy(pixels),
            {METHOD_NAMES[method]: heatmap},
            finding=label,
            probability=float(prediction.probabilities[column]),
            target=math.nan,
            boxes=(),
        )
        stem = "_".join(re.findall(r"\w+", f"{Path(file.file.name).stem[:60]} {label}", re.ASCII))
        path = folder / f"{row:06d}_{stem}.png"
        picture.save(path)
        written.append(path)
    return written
