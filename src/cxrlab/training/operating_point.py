"""The operating point: thresholds and calibration, chosen on validation and kept with the weights."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cxrlab.metrics.calibration import Calibrator, fit_calibrator
from cxrlab.metrics.referral import ReferralRules, ReferralTargets, choose_referral
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.metrics.thresholds import choose_thresholds

_SOURCE = "validation"
_REFERRAL = ("rule_in", "rule_out", "referral_targets")


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
        rule_in: A label is ruled in where its probability is at least this, shape ``(L,)``.
        rule_out: And ruled out where it is below this, shape ``(L,)``; what lies between is to be referred.
        referral_targets: The PPV and NPV that these two keep, and with which confidence, shape ``(3,)``.
    """

    thresholds: Tensor
    slopes: Tensor
    intercepts: Tensor
    rule_in: Tensor
    rule_out: Tensor
    referral_targets: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        for name in ("thresholds", "slopes", "intercepts", *_REFERRAL):
            size = 3 if name == "referral_targets" else num_labels
            self.register_buffer(name, torch.full((size,), torch.nan, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to its device but never into half precision, which would move the thresholds."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer).device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the state of an earlier version too, which had no rules for referring."""
        for name in _REFERRAL:
            state_dict.setdefault(prefix + name, torch.full_like(getattr(self, name), torch.nan))
        super()._load_from_state_dict(state_dict, prefix, *args)

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

    def fit_referral(
        self,
        probabilities: Tensor,
        targets: Tensor,
        patients: npt.NDArray[np.int64] | None,
        aims: ReferralTargets,
    ) -> None:
        """Choose from where on a label is ruled in, and below what it is ruled out.

        Args:
            probabilities: Of the validation part, shape ``(N, L)``.
            targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
            patients: Number of each image's patient, shape ``(N,)``; None where they are unknown.
            aims: What is guaranteed, see :func:`cxrlab.metrics.referral.choose_referral`.
        """
        scores, present = (values.detach().double().cpu().numpy() for values in (probabilities, targets))
        rule_in, rule_out = choose_referral(scores, present, patients, aims)
        self._set("rule_in", _rounded_up(rule_in))
        self._set("rule_out", _rounded_up(rule_out))
        wanted = (np.nan if value is None else value for value in (aims.ppv, aims.npv, aims.confidence))
        self._set("referral_targets", np.array([*wanted], dtype=np.float32))

    def referral(self, columns: Sequence[int] | None = None) -> ReferralRules | None:
        """Return the rules of all labels, or of those at ``columns``; None where none were ever chosen."""
        ppv, npv, confidence = (None if np.isnan(x) else round(x, 6) for x in self.referral_targets.tolist())
        if confidence is None:
            return None
        rule_in, rule_out = (values.double().cpu().numpy() for values in (self.rule_in, self.rule_out))
        if columns is not None:
            rule_in, rule_out = rule_in[list(columns)], rule_out[list(columns)]
        return ReferralRules(rule_in, rule_out, ReferralTargets(ppv, npv, confidence), _SOURCE)

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
