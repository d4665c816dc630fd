"""A folder of panels, one for each case, and an index of them."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, MissingFileError, OutputError
from cxrlab.explain.cases import Case
from cxrlab.explain.heatmap_stream import Explain, batches
from cxrlab.explain.overlay import Box, panel

log = logging.getLogger(__name__)

INDEX_COLUMNS = ("file", "image", "finding", "probability", "target", "outcome")


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
        cases: As of ``cxrlab.explain.cases.case_table``; ``label`` counts the network's outputs.
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
        found = {name: method(stacked, pairs) for name, method in explain.items()}
        for number, case in enumerate(readable):
            yield _drawn(
                case, images[case.row], {name: maps[number] for name, maps in found.items()}, manifest
            )


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
    known = {other.casefold() for other in taken}
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one.casefold() not in known)


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
