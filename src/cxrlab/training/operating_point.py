"""The operating point: thresholds and calibration, chosen on validation and kept with the weights."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cxrlab.metrics.calibration import Calibrator, fit_calibrator
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.metrics.thresholds import choose_thresholds

_SOURCE = "validation"


class OperatingPoint(nn.Module):
    """Threshold, and slope and intercept of the recalibrated logit, of each label.

    They are chosen on validation, and are buffers, so that a checkpoint carries what belongs to its own
    weights. NaN stands for what was not chosen: validation held one class only of the label, or there
    was none yet.

    Args:
        num_labels: L.

    Attributes:
        thresholds: A label is predicted positive where its probability is at least this, shape ``(L,)``.
        slopes: Of the logit, shape ``(L,)``.
        intercepts: Added to it, shape ``(L,)``.
    """

    thresholds: Tensor
    slopes: Tensor
    intercepts: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        for name in ("thresholds", "slopes", "intercepts"):
            self.register_buffer(name, torch.full((num_labels,), torch.nan, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to its device but never into half precision, which would move the thresholds."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer).device)
        return self

    def fit(
        self, probabilities: Tensor, targets: Tensor, threshold: str | float, calibration: CalibrationMethod
    ) -> None:
        """Choose thresholds and calibration.

        Args:
            probabilities: Of the validation part, shape ``(N, L)``.
            targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
            threshold: How thresholds are chosen, see :func:`cxrlab.metrics.thresholds.choose_thresholds`.
            calibration: What is fitted, see :func:`cxrlab.metrics.calibration.fit_calibrator`.
        """
        scores, present = (values.detach().double().cpu().numpy() for values in (probabilities, targets))
        self._set("thresholds", _rounded_up(choose_thresholds(scores, present, threshold)))
        calibrator = fit_calibrator(scores, present, calibration, _SOURCE)
        unfitted = np.full(len(self.thresholds), np.nan)
        self._set("slopes", unfitted if calibrator is None else calibrator.slopes)
        self._set("intercepts", unfitted if calibrator is None else calibrator.intercepts)

    def _set(self, name: str, values: npt.NDArray[np.floating]) -> None:
        buffer = getattr(self, name)
        buffer.copy_(torch.from_numpy(values.astype(np.float32)))

    def threshold_values(self) -> npt.NDArray[np.float64]:
        """Return the thresholds of all labels, shape ``(L,)``; NaN where none was chosen."""
        values: npt.NDArray[np.float64] = self.thresholds.double().cpu().numpy()
        return values

    def calibrator(self, method: str, columns: Sequence[int] | None = None) -> Calibrator | None:
        """Return the calibration of all labels, or of those at ``columns``; None where none was fitted."""
        slopes, intercepts = (values.double().cpu().numpy() for values in (self.slopes, self.intercepts))
        if columns is not None:
            slopes, intercepts = slopes[list(columns)], intercepts[list(columns)]
        if np.isnan(slopes).all():
            return None
        return Calibrator(
            slopes=np.where(np.isnan(slopes), 1.0, slopes),
            intercepts=np.where(np.isnan(intercepts), 0.0, intercepts),
            method=method,
            source=_SOURCE,
        )


def _rounded_up(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return thresholds in float32 that call the same float32 probabilities present."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded < thresholds, np.nextafter(rounded, np.float32(np.inf)), rounded)
