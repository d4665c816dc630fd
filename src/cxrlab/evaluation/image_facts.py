"""What is known of the evaluated images themselves: brightness, contrast, and the size of the boxes.

Those of a run's own parts are kept beside its predictions: a later evaluation needs no image for them.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrlab.files import replacing
from cxrlab.metrics.bootstrap import Names
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.runs.run_data import PredictedImages, with_pixels

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

log = logging.getLogger(__name__)

_AT_ONCE = 256


@dataclass(frozen=True)
class ImageFacts:
    """Of N images and L labels.

    Attributes:
        brightness: Mean grey value, 0 to 255, shape ``(N,)``.
        contrast: Standard deviation of the grey values, shape ``(N,)``.
        box_areas: Area of the boxes around a finding together, as a share of the image; NaN where there is no
            box, shape ``(N, L)``.
    """

    brightness: Floats
    contrast: Floats
    box_areas: Floats


def run_image_facts(run: "Run", predicted: PredictedImages, *, keeps: bool = False) -> ImageFacts | None:
    """Return what images that a run predicted look like; None where neither they nor kept facts are at hand.

    Args:
        run: The run.
        predicted: The images.
        keeps: Whether to read the images of the run's own part, and keep the facts beside its predictions.
    """
    if keeps:
        facts = image_facts(with_pixels(predicted, run.data(None)))
        if facts is not None:
            _keep(run, predicted.table, facts)
        return facts
    return image_facts(predicted) if predicted.images is not None else _read_kept(run, predicted.table)


def image_facts(predicted: PredictedImages) -> ImageFacts | None:
    """Return what images that are at hand look like; None where they are not.

    Args:
        predicted: With manifest and pixels.
    """
    manifest, images, table = predicted.manifest, predicted.images, predicted.table
    if manifest is None or images is None:
        return None
    row_of_image = {image: row for row, image in enumerate(manifest.table["image"])}
    rows = [row_of_image[image] for image in table.images]
    brightness, contrast = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), _AT_ONCE):
        batch = images[rows[start : start + _AT_ONCE]]
        grey = batch[:, batch.shape[1] // 2].reshape(len(batch), -1).astype(np.float32)
        brightness[start : start + len(batch)] = grey.mean(axis=1)
        contrast[start : start + len(batch)] = grey.std(axis=1)
    return ImageFacts(brightness, contrast, _box_areas(manifest.boxes, table.images, table.labels))


def _keep(run: "Run", table: PredictionTable, facts: ImageFacts) -> None:
    path = run.files.image_facts(table.part)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                fingerprint=np.array(str(run.facts.fingerprint)),
                images=table.images.astype(str),
                labels=np.array(table.labels),
                brightness=facts.brightness,
                contrast=facts.contrast,
                box_areas=facts.box_areas,
            )
    except OSError as error:
        log.warning("What the images look like is not kept in %s: %s", path, error)


def _read_kept(run: "Run", table: PredictionTable) -> ImageFacts | None:
    """Return what a run kept of its part; None where there is nothing of these images."""
    path = run.files.image_facts(table.part)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["fingerprint"]) != str(run.facts.fingerprint):
                return None
            row_of_image = {image: row for row, image in enumerate(kept["images"].tolist())}
            column_of_label = {label: column for column, label in enumerate(kept["labels"].tolist())}
            rows = [row_of_image[image] for image in table.images.tolist()]
            columns = [column_of_label[label] for label in table.labels]
            return ImageFacts(
                kept["brightness"][rows], kept["contrast"][rows], kept["box_areas"][np.ix_(rows, columns)]
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        log.info("%s does not hold what these images look like: %s", path, error)
        return None


def _box_areas(boxes: pd.DataFrame, images: Names, labels: tuple[str, ...]) -> Floats:
    areas: Floats = np.full((len(images), len(labels)), np.nan)
    row_of_image = {image: row for row, image in enumerate(images)}
    column_of_label = {label: column for column, label in enumerate(labels)}
    for image, label, width, height in boxes[["image", "label", "width", "height"]].itertuples(index=False):
        if image in row_of_image and label in column_of_label:
            place = row_of_image[image], column_of_label[label]
            areas[place] = np.nan_to_num(areas[place]) + width * height
    return np.asarray(np.minimum(areas, 1.0))
