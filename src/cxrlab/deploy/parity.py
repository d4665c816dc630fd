"""Whether an exported file computes what the classifier does, on real images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxrlab.deploy.backend import Backend, BatchOutput, Pixels
from cxrlab.errors import ConfigError, ExportError
from cxrlab.metrics.predictions import decisions_at

Floats = npt.NDArray[np.float64]

LEAST_IMAGES = 64
"""On fewer images two networks may agree by chance."""

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2}
"""Largest difference of a probability that is let pass, by the precision of the file."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an exported file lies from the classifier that it was made of.

    Attributes:
        num_images: That were compared.
        batch_sizes: Images at a time, in each of which all were predicted.
        probabilities: Largest difference of a probability before calibration.
        calibrated: Largest difference of a calibrated one.
        num_flipped: Decisions at the thresholds that are others, of images times labels.
        tolerance: That the differences were compared with; None where metrics on validation decide.
    """

    num_images: int
    batch_sizes: Sequence[int]
    probabilities: float
    calibrated: float
    num_flipped: int
    tolerance: float | None

    @property
    def largest(self) -> float:
        """The largest difference, before or after calibration; infinite where one of two is no number."""
        return max(self.probabilities, self.calibrated)

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.batch_sizes))
        return (
            f"on {self.num_images} images, in batches of {sizes}, the largest difference of a probability is "
            f"{self.largest:.1e} and {self.num_flipped} decisions are others"
        )


def agreement(
    classifier: Backend,
    exported: Backend,
    images: Pixels,
    thresholds: Floats,
    *,
    tolerance: float | None,
    batch_size: int = 16,
) -> Agreement:
    """Compare two backends on images, one at a time and several at a time.

    Args:
        classifier: What is right.
        exported: What was made of it.
        images: Decoded to its size, ``(N, C, H, W)``.
        thresholds: On the scale of the probabilities before calibration, shape ``(L,)``; NaN where none was
            chosen.
        tolerance: Kept beside the result.
        batch_size: Images at a time, beside one.

    Raises:
        ConfigError: If there are fewer than :data:`LEAST_IMAGES` images.
    """
    check_enough(images)
    expected = outputs_of(classifier, images, batch_size)
    sizes = (1, batch_size)
    found = [outputs_of(exported, images, size) for size in sizes]
    decided = decisions_at(expected.probabilities, thresholds)
    return Agreement(
        num_images=len(images),
        batch_sizes=sizes,
        probabilities=max(_difference(expected.probabilities, each.probabilities) for each in found),
        calibrated=max(_difference(expected.calibrated, each.calibrated) for each in found),
        num_flipped=max(num_flipped(decided, decisions_at(each.probabilities, thresholds)) for each in found),
        tolerance=tolerance,
    )


def check_enough(images: Pixels) -> None:
    """Refuse to compare on fewer images than :data:`LEAST_IMAGES`.

    Raises:
        ConfigError: With their number.
    """
    if len(images) < LEAST_IMAGES:
        raise ConfigError(
            f"{len(images)} images are too few to compare an exported file with the model: {LEAST_IMAGES} at "
            "least. Give images=<more files, or a folder of radiographs>."
        )


def check_agreement(found: Agreement, *, flips: bool = False) -> None:
    """Refuse a file that disagrees with its classifier.

    Args:
        found: As :func:`agreement` gives it.
        flips: Whether decisions may be others, where the probabilities are close enough.

    Raises:
        ExportError: With the difference.
    """
    tolerance = 1.0 if found.tolerance is None else found.tolerance
    if found.largest <= tolerance and (flips or not found.num_flipped):
        return
    allowed = f"at most {tolerance:g}" + ("" if flips else " and none")
    raise ExportError(
        f"The exported file does not compute what the model does: {found}; allowed are {allowed}. Nothing "
        "was written. Try another format=, or precision=fp32 without quantize=; where that does not help it "
        "is a fault of the exporter on this network, worth an issue."
    )


def outputs_of(backend: Backend, images: Pixels, batch_size: int) -> BatchOutput:
    """Return what a backend makes of images, some at a time; of features nothing is kept."""
    parts = [backend(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
    return BatchOutput(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.calibrated for part in parts]),
        None,
    )


def num_flipped(expected: Floats, found: Floats) -> int:
    """Return how many decisions are others; two that are not made are the same, ``(N, L)`` both."""
    is_same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return int(np.sum(~is_same))


def _difference(expected: Floats, found: Floats) -> float:
    """Return the largest difference, where two NaN are the same and one is as far as can be."""
    gaps = np.where(np.isnan(expected) & np.isnan(found), 0.0, np.abs(expected - found))
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))
