"""A run's network adapted, without any label, to the images that it is to be evaluated on."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from cxrlab.errors import ConfigError
from cxrlab.models.batch_norm import adapt_batch_norm, check_batch_norm
from cxrlab.runs.predict import named_device, predict_images
from cxrlab.runs.run_data import PredictedImages

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

log = logging.getLogger(__name__)

Adaptation = Literal["batch_norm"]

_LEAST_IMAGES = 32
"""Of fewer the statistics of batch normalisation are mostly chance."""


def check_adaptation(name: str | None) -> None:
    """Check that there is an adaptation of this name.

    Raises:
        ConfigError: If there is none.

    Example:
        >>> check_adaptation("batch_norm")
    """
    if name is not None and name not in get_args(Adaptation):
        raise ConfigError(f"adapt={name} must be null or one of {', '.join(get_args(Adaptation))}.")


def adapted(run: "Run", predicted: PredictedImages, *, batch_size: int, device: str) -> PredictedImages:
    """Give a run's network the batch normalisation of some images, and predict them again.

    Only the statistics of its layers change, in memory: not the weights, not the files of the run. Thresholds
    and calibration stay those of the training.

    Args:
        run: The run; its model is changed.
        predicted: The images, with their pixels.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If the network has no batch normalisation, or there are fewer than 32 images.
        ValueError: If ``predicted`` has no pixels.
    """
    model, images, table = run.model, predicted.images, predicted.table
    check_batch_norm(model.network)
    if images is None or len(predicted.rows) != len(table):
        raise ValueError(f"{table.source} comes without the pixels of its {len(table)} images.")
    if len(table) < _LEAST_IMAGES:
        raise ConfigError(
            f"adapt=batch_norm takes statistics from the images that are evaluated, and {len(table)} are "
            "too few: "
            f"{_LEAST_IMAGES} at least."
        )
    place = named_device(device)
    model.to(place).eval()
    order = np.random.default_rng(0).permutation(np.asarray(predicted.rows))

    def batches() -> Iterator[list[int]]:
        size = max(batch_size, _LEAST_IMAGES)
        for chunk in np.array_split(order, max(1, len(order) // size)):
            yield chunk.tolist()

    def show() -> None:
        for rows in track(list(batches()), "Adapting", console=Console(stderr=True)):
            model.predict_probabilities(torch.from_numpy(images[rows]).to(place))

    log.info("Batch normalisation takes its statistics from the %d images to be evaluated ...", len(table))
    adapt_batch_norm(model.network, show)
    rows = [int(row) for row in predicted.rows]
    outputs = [model.labels.index(label) for label in table.labels]
    probabilities = predict_images(model, images, rows, batch_size=batch_size, device=device)[:, outputs]
    note = (
        f"Batch normalisation took its statistics from the {len(table):,} images evaluated here, without "
        "their labels (adapt=batch_norm): what an image is given depends on the others. Thresholds and "
        "calibration are those of the training."
    )
    return replace(
        predicted,
        table=replace(table, probabilities=probabilities, decisions=None),
        notes=(*predicted.notes, note),
    )
