"""The one way from images and a trained classifier to probabilities or features, outside any training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, TrainingError
from cxrlab.metrics.predictions import PredictionTable, predictions_frame
from cxrlab.training.delayed import Delayed

if TYPE_CHECKING:
    from cxrlab.training.module import Classifier

_NUM_NAMED = 8


class ImageRows(Protocol):
    """Images by their rows, such as :class:`cxrlab.data.dataset.Images`."""

    def __getitem__(self, rows: list[int], /) -> npt.NDArray[np.uint8]:
        """Return images, shape ``(n, C, H, W)``."""


def predict_images(
    classifier: "Classifier",
    images: ImageRows,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: str,
    show_progress: bool = True,
) -> npt.NDArray[np.float64]:
    """Return probabilities as the test loop of a training in 32-bit precision gives them.

    The classifier is left in evaluation mode and on the device.

    Args:
        classifier: Says how images are preprocessed, and in which memory format.
        images: Decoded to the classifier's image size.
        rows: N of them.
        batch_size: Images at a time.
        device: Where it is computed, such as ``cpu`` or ``cuda``; ``auto`` is the GPU if there is one.
        show_progress: Whether to draw a progress bar on stderr.

    Returns:
        Values in [0, 1] in the order of ``rows``, shape ``(N, L)``.

    Raises:
        ConfigError: If ``batch_size`` is below 1, or there is no such device.
        DataError: If the images are not of the classifier's size.
        TrainingError: If the network's outputs are not finite.
    """
    probabilities = np.empty((len(rows), len(classifier.labels)))
    shown = "Predicting images" if show_progress else None
    predict = classifier.predict_probabilities
    for start, predicted in outputs(
        classifier, predict, images, rows, batch_size=batch_size, device=device, shown=shown
    ):
        probabilities[start : start + batch_size] = predicted.numpy()
    return probabilities


def outputs(
    classifier: "Classifier",
    compute: Callable[[Tensor], Tensor],
    images: ImageRows,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: str,
    shown: str | None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield what a classifier makes of images, batch by batch, with the place of each batch in ``rows``.

    The classifier is left in evaluation mode and on the device.

    Args:
        classifier: Who computes.
        compute: A method of it, from images ``(B, C, H, W)`` with values 0 to 255 to numbers ``(B, …)``.
        images: Decoded to the classifier's image size.
        rows: N of them.
        batch_size: Images at a time.
        device: As :func:`predict_images`.
        shown: What a progress bar on stderr says; None for none.

    Raises:
        ConfigError: As :func:`predict_images`.
        DataError: As :func:`predict_images`.
        TrainingError: As :func:`predict_images`.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1.")
    place = named_device(device)
    classifier.to(place).eval()
    # One batch behind, so that a GPU has the next one to work on while this one is read.
    ahead: tuple[int, list[int], Delayed] | None = None
    for start in _shown(range(0, len(rows), batch_size), shown):
        chunk = [int(row) for row in rows[start : start + batch_size]]
        with torch.inference_mode():
            computed = compute(_on_device(images[chunk], place))
        ready, ahead = ahead, (start, chunk, Delayed(computed))
        if ready is not None:
            yield ready[0], _finite(ready[2].read(), ready[1])
    if ahead is not None:
        yield ahead[0], _finite(ahead[2].read(), ahead[1])


def _on_device(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return images where they are wanted; a GPU is waited for with memory that is not pinned."""
    tensor = torch.from_numpy(images)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def predict_table(
    classifier: "Classifier",
    manifest: Manifest,
    images: ImageRows,
    rows: Sequence[int],
    *,
    matched: Mapping[str, str] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    source: str = "a classifier",
) -> PredictionTable:
    """Predict images of a manifest, and return them with what is known of them.

    Args:
        classifier: Who predicts.
        manifest: Of the images.
        images: Its pixels, decoded as the classifier's were.
        rows: Of the manifest, N of them.
        matched: The manifest's label of each of the classifier's that is wanted; None for the same.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        source: Where the predictions come from, for messages.

    Raises:
        ConfigError: As :func:`predict_images`.
        DataError: As :func:`predict_images`.
        TrainingError: As :func:`predict_images`.
    """
    matched = {label: label for label in classifier.labels} if matched is None else matched
    probabilities = predict_images(classifier, images, rows, batch_size=batch_size, device=device)
    outputs = [classifier.labels.index(label) for label in matched]
    columns = [manifest.labels.index(label) for label in matched.values()]
    frame = predictions_frame(
        manifest,
        rows,
        list(matched),
        probabilities[:, outputs],
        targets=manifest.targets[list(rows)][:, columns],
    )
    return PredictionTable.from_frame(frame, source)


def named_device(device: str) -> torch.device:
    """Return a device by its name; ``auto`` is the GPU if there is one.

    Raises:
        ConfigError: If there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={device} cannot be used: {reason} Set device=auto or device=cpu."
        ) from error


def _shown(starts: range, shown: str | None) -> Iterable[int]:
    return track(starts, shown or "", console=Console(stderr=True), disable=shown is None)


def _finite(computed: Tensor, rows: Sequence[int]) -> Tensor:
    """Return what was computed of some rows; refuse what is not finite."""
    is_wrong = ~torch.isfinite(computed).all(dim=1)
    if bool(is_wrong.any()):
        wrong = [rows[place] for place in is_wrong.nonzero().flatten().tolist()]
        raise TrainingError(
            f"The network's outputs are not finite on {len(wrong)} of the {len(rows)} images at hand (rows "
            f"{wrong[:_NUM_NAMED]} of their manifest): its weights or activations hold NaN or infinity. Use "
            "another checkpoint, or train with a lower optimizer.lr."
        )
    return computed
