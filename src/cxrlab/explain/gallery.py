"""A folder of panels, one for each case, and an index of them."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, MissingFileError, OutputError
from cxrlab.explain.activation_maps import grad_cam
from cxrlab.explain.cases import Case
from cxrlab.explain.overlay import Box, panel

if TYPE_CHECKING:
    from torch import nn

    from cxrlab.models.classifier import Classifier

log = logging.getLogger(__name__)

INDEX_COLUMNS = ("file", "image", "finding", "probability", "target", "outcome")


def draw_panels(
    cases: pd.DataFrame,
    manifest: Manifest,
    *,
    read_image: Callable[[int], Tensor],
    explain: Callable[[Tensor, list[int]], Tensor],
    batch_size: int,
) -> Iterator[tuple[Case, Image.Image]]:
    """Yield each case with its panel; an image that cannot be read is left out with a warning.

    Args:
        cases: As of ``cxrlab.explain.cases.case_table``.
        manifest: Knows the boxes.
        read_image: Gives the image of a row of the manifest, uint8, shape ``(C, H, W)``.
        explain: Gives heatmaps ``(N, H, W)`` of N such images and label indices.
        batch_size: Images read and explained at once.
    """
    for start in range(0, len(cases), batch_size):
        readable = list(_read(cases.iloc[start : start + batch_size], read_image))
        if not readable:
            continue
        images = torch.stack([image for _, image in readable])
        heatmaps = explain(images, [case.label for case, _ in readable])
        for (case, image), heatmap in zip(readable, heatmaps, strict=True):
            picture = panel(
                image,
                heatmap,
                finding=case.finding,
                probability=case.probability,
                target=case.target,
                boxes=_boxes(manifest, case),
            )
            yield case, picture


def is_explainable(network: "nn.Module") -> bool:
    """Tell whether a network has what an activation map needs.

    See :class:`cxrlab.explain.activation_maps.SpatialNetwork`.
    """
    return hasattr(network, "feature_layer") and hasattr(network, "to_grid")


def grad_cam_panels(
    classifier: "Classifier",
    cases: pd.DataFrame,
    manifest: Manifest,
    *,
    read_image: Callable[[int], Tensor],
    batch_size: int,
) -> Iterator[tuple[Case, Image.Image]]:
    """Yield each case with its panel by Grad-CAM, on the classifier's device.

    Args:
        classifier: Its network must be explainable; ``label`` in ``cases`` counts its outputs.
        cases: As of ``cxrlab.explain.cases.case_table``.
        manifest: Knows the boxes.
        read_image: Gives the image of a row of the manifest, uint8, shape ``(C, H, W)``.
        batch_size: Images read and explained at once.
    """

    def explain(images: Tensor, labels: list[int]) -> Tensor:
        preprocessed = classifier.preprocess(images.to(classifier.device))
        return grad_cam(classifier.network, preprocessed, labels, batch_size=batch_size)

    return draw_panels(cases, manifest, read_image=read_image, explain=explain, batch_size=batch_size)


def write_gallery(folder: Path, panels: Iterable[tuple[Case, Image.Image]], manifest: Manifest) -> None:
    """Write ``<finding>_<row>_<outcome>.png`` for each panel, and ``index.csv``.

    The panels that an earlier call left in the folder are removed.

    Raises:
        OutputError: If the folder cannot be written to.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("*_[0-9]*_[TF][PN].png"):
            earlier.unlink()
    images = manifest.table["image"]
    records = []
    for case, picture in panels:
        # What a file system may refuse becomes an underscore; letters of any script stay.
        finding = re.sub(r"[^\w.+-]", "_", case.finding)[:80]
        name = f"{finding}_{case.row}_{case.outcome}.png"
        with _writing(folder):
            picture.save(folder / name)
        values = (case.finding, case.probability, case.target, case.outcome)
        records.append((name, images.iloc[case.row], *values))
    with _writing(folder):
        pd.DataFrame(records, columns=list(INDEX_COLUMNS)).to_csv(folder / "index.csv", index=False)


def _read(cases: pd.DataFrame, read_image: Callable[[int], Tensor]) -> Iterator[tuple[Case, Tensor]]:
    for values in cases[list(Case._fields)].itertuples(index=False, name=None):
        case = Case(*values)
        try:
            yield case, read_image(case.row)
        except (DataError, MissingFileError) as error:
            log.warning("No heatmap of %s: %s", case.finding, error)


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
            f"Heatmaps could not be written to {folder}: {error}. Make room there, or draw none: "
            "callbacks.heatmaps=null in training, heatmaps_per_label=0 in evaluation."
        ) from error
