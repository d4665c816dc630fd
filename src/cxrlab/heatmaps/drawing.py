"""Pictures for a reader: the radiograph, heatmaps over it, and what was predicted; and folders of them."""

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, MissingFileError, OutputError
from cxrlab.heatmaps.cases import Case, Explain, batches
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]

INDEX_COLUMNS = ("file", "image", "finding", "probability", "target", "outcome")

_MIN_SIDE = 256  # below this the text would not fit
_GAP = 4
_FONT_SIZE = 14
_STRIP_HEIGHT = 26
_MAX_ALPHA = 0.65
# Perceptually uniform, so that no step in the colours suggests an edge that the heat does not have.
_COLOURS = "inferno"
_BOX_COLOUR = (0, 255, 255)  # cyan is not in the colour map


def radiograph_picture(image: Tensor) -> Image.Image:
    """Return an RGB image whose shorter side is at least 256 pixels; the aspect ratio is kept."""
    values = image.cpu().numpy()
    picture = Image.fromarray(np.repeat(values, 3 // len(values), axis=0).transpose(1, 2, 0))
    factor = max(1.0, _MIN_SIDE / min(picture.size))
    if factor == 1.0:
        return picture
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC)


def overlay(radiograph: Image.Image, heatmap: Tensor) -> Image.Image:
    """Lay the heatmap over the radiograph; the colder a pixel, the more of the radiograph shows."""
    heat = Image.fromarray(heatmap.cpu().float().numpy()).resize(radiograph.size, Image.Resampling.BILINEAR)
    values: npt.NDArray[np.float32] = np.asarray(heat, dtype=np.float32).clip(0.0, 1.0)
    colours = colormaps[_COLOURS](values)[..., :3] * 255.0
    alpha = _MAX_ALPHA * values[..., None]
    mixed = (1.0 - alpha) * np.asarray(radiograph, dtype=np.float32) + alpha * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def _draw_boxes(picture: Image.Image, boxes: Sequence[Box]) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y, width, height in boxes:
        left, top = x * picture.width, y * picture.height
        right, bottom = left + width * picture.width, top + height * picture.height
        draw.rectangle(
            (left, top, min(right, picture.width - 1), min(bottom, picture.height - 1)), outline=_BOX_COLOUR
        )


def _cut(name: str, room: float, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """Return as much of a name as there is room for."""
    while name and draw.textlength(name, font=font) > room:
        name = name[:-2].rstrip("…") + "…" if len(name) > 2 else ""
    return name


def _caption(finding: str, probability: float, target: float, width: int) -> Image.Image:
    """Return the strip of text; a name that is too long is cut."""
    truth = "unknown" if math.isnan(target) else "present" if target else "absent"
    text = f"probability {probability:.2f}   target {truth}"
    strip = Image.new("RGB", (width, _STRIP_HEIGHT), "black")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(_FONT_SIZE)
    room = width - 4 * _GAP - draw.textlength(text, font=font)
    name = _cut(finding, room, draw, font)
    middle = _STRIP_HEIGHT / 2
    draw.text((_GAP, middle), name, font=font, fill="white", anchor="lm")
    draw.text((width - _GAP, middle), text, font=font, fill="white", anchor="rm")
    return strip


def panel(
    image: Tensor,
    heatmaps: Mapping[str, Tensor],
    *,
    finding: str,
    probability: float,
    target: float,
    boxes: Sequence[Box],
) -> Image.Image:
    """Return the radiograph and, to its right, each heatmap over it, under a strip of text.

    Args:
        image: Values 0 to 255, uint8, shape ``(C, H, W)`` with C 1 or 3.
        heatmaps: By the name of the method: values in [0, 1], shape ``(h, w)``; they are stretched to the
            image. Where there are several, the names stand above them.
        finding: Name of the label that the heatmaps explain.
        probability: Its predicted probability.
        target: 1 present, 0 absent, NaN unknown.
        boxes: Known places of the finding, ``(x, y, width, height)`` as fractions of the image; they are
            outlined on all sides.

    Returns:
        An RGB image; each side is at least 256 pixels wide.
    """
    radiograph = radiograph_picture(image)
    sides = [radiograph, *(overlay(radiograph, heatmap) for heatmap in heatmaps.values())]
    for side in sides:
        _draw_boxes(side, boxes)
    is_empty = [not bool((heatmap > 0).any()) for heatmap in heatmaps.values()]
    note = " (empty map)" if any(is_empty) and len(is_empty) == 1 else ""
    strips = [_caption(finding + note, probability, target, _width(sides))]
    if len(heatmaps) > 1:
        notes = [" (empty map)" if empty else "" for empty in is_empty]
        names = [name + note for name, note in zip(heatmaps, notes, strict=True)]
        strips.append(_names(["radiograph", *names], radiograph.width, _width(sides)))
    height = sum(strip.height for strip in strips)
    picture = Image.new("RGB", (_width(sides), height + radiograph.height), "black")
    for number, strip in enumerate(strips):
        picture.paste(strip, (0, number * _STRIP_HEIGHT))
    for number, side in enumerate(sides):
        picture.paste(side, (number * (side.width + _GAP), height))
    return picture


def num_sides(picture: Image.Image) -> int:
    """Return how many pictures of a square image stand side by side in a panel.

    Args:
        picture: As of :func:`panel`.
    """
    with_one_strip, with_two = (
        round((picture.width + _GAP) / (picture.height - strips * _STRIP_HEIGHT + _GAP)) for strips in (1, 2)
    )
    return with_one_strip if with_one_strip <= 2 else with_two


def _width(sides: Sequence[Image.Image]) -> int:
    return len(sides) * (sides[0].width + _GAP) - _GAP


def _names(names: Sequence[str], side: int, width: int) -> Image.Image:
    """Return a strip with a name above each side."""
    strip = Image.new("RGB", (width, _STRIP_HEIGHT), "black")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_FONT_SIZE)
    for number, name in enumerate(names):
        left = number * (side + _GAP) + _GAP
        draw.text(
            (left, _STRIP_HEIGHT / 2),
            _cut(name, side - _GAP, draw, font),
            font=font,
            fill="white",
            anchor="lm",
        )
    return strip


class Drawn(NamedTuple):
    """A case with its picture, and the heatmaps in it by the name of their method, shapes ``(H, W)``."""

    case: Case
    picture: Image.Image
    heatmaps: Mapping[str, Tensor]


def draw_panels(
    cases: pd.DataFrame,
    manifest: Manifest,
    *,
    read_image: Callable[[int], Tensor],
    explain: Mapping[str, Explain],
    num_images: int,
) -> Iterator[Drawn]:
    """Yield each case with its panel; an image that cannot be read is left out with a warning.

    Consecutive cases of one image go through the network together.

    Args:
        cases: As of ``cxrlab.heatmaps.cases.case_table``; ``label`` counts the network's outputs.
        manifest: Knows the boxes, as fractions of the images that ``read_image`` gives.
        read_image: Gives the image of a row of the manifest, uint8, shape ``(C, H, W)``.
        explain: Methods by the names that stand in the picture.
        num_images: Images read and explained at once.
    """
    listed = [Case(*values) for values in cases[list(Case._fields)].itertuples(index=False, name=None)]
    by_pair = {(case.row, case.label): case for case in listed}
    for batch in batches(list(by_pair), num_images):
        images = dict(_read([by_pair[pair] for pair in batch], read_image))
        readable = [by_pair[pair] for pair in batch if pair[0] in images]
        if not readable:
            continue
        place = {row: number for number, row in enumerate(images)}
        pairs = [(place[case.row], case.label) for case in readable]
        stacked = torch.stack(list(images.values()))
        maps = {name: method(stacked, pairs) for name, method in explain.items()}
        for number, case in enumerate(readable):
            of_case = {name: of_method[number] for name, of_method in maps.items()}
            yield _drawn(case, images[case.row], of_case, manifest)


def _drawn(case: Case, image: Tensor, heatmaps: Mapping[str, Tensor], manifest: Manifest) -> Drawn:
    picture = panel(
        image,
        heatmaps,
        finding=case.finding,
        probability=case.probability,
        target=case.target,
        boxes=_boxes(manifest, case),
    )
    return Drawn(case, picture, heatmaps)


def draw_task(explain_task: ExplainTask, cases: pd.DataFrame, methods: Sequence[str]) -> Iterator[Drawn]:
    """Yield some cases of what is explained with their panels, by several methods side by side."""
    return draw_panels(
        cases,
        explain_task.manifest,
        read_image=explain_task.image,
        explain={METHOD_NAMES[method]: explain_task.explain(method) for method in methods},
        num_images=explain_task.settings.batch_size,
    )


def write_gallery(folder: Path, panels: Iterable[Drawn], manifest: Manifest) -> None:
    """Write ``<finding>_<row>_<outcome>.png`` for each panel, and ``index.csv``.

    The panels that an earlier call left in the folder are removed.

    Raises:
        OutputError: If the folder cannot be written to.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("*.png"):
            if re.fullmatch(r".*_\d+_([TF][PN]|unknown)", earlier.stem):
                earlier.unlink()
    images = manifest.table["image"]
    records = []
    findings: dict[str, str] = {}
    for case, picture, _ in panels:
        finding = findings.setdefault(case.finding, _file_name(case.finding, set(findings.values())))
        name = f"{finding}_{case.row}_{case.outcome}.png"
        with _writing(folder):
            picture.save(folder / name)
        values = (case.finding, case.probability, case.target, case.outcome)
        records.append((name, images.iloc[case.row], *values))
    with _writing(folder):
        pd.DataFrame(records, columns=list(INDEX_COLUMNS)).to_csv(folder / "index.csv", index=False)


def _file_name(finding: str, taken: Collection[str]) -> str:
    """Return what a finding is called in names of files, unlike those taken, in capitals or not."""
    # What a file system may refuse becomes an underscore; letters of any script stay.
    name = re.sub(r"[^\w.+-]", "_", finding)[:80]
    taken = {other.casefold() for other in taken}
    numbered = (f"{name}-{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if free.casefold() not in taken)


def _read(cases: Sequence[Case], read_image: Callable[[int], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Yield the row and the image of each image among some cases that can be read."""
    for row in dict.fromkeys(case.row for case in cases):
        try:
            yield row, read_image(row)
        except (DataError, MissingFileError) as error:
            findings = ", ".join(case.finding for case in cases if case.row == row)
            log.warning("No heatmap of %s: %s", findings, error)


def _boxes(manifest: Manifest, case: Case) -> list[Box]:
    boxes = manifest.boxes
    image = manifest.table["image"].iloc[case.row]
    of_case = boxes[(boxes["image"] == image) & (boxes["label"] == case.finding)]
    return list(of_case[["x", "y", "width", "height"]].itertuples(index=False, name=None))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Heatmaps could not be written to {folder}: {error}. Make room there, or draw fewer: "
            "callbacks.heatmaps=null report.check_heatmaps=false in training, heatmaps_per_label=0 in "
            "evaluation, limit=1 in explanation."
        ) from error
