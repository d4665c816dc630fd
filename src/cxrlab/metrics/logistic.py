"""Logistic regression of many labels and several penalties at once: models to compare a network with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

_LEAST_SHARE = 1e-6  # of the largest variance: directions below are rounding
_MAX_STEPS = 200
_TOLERANCE = 1e-6  # of the gradient, by image


@dataclass(frozen=True)
class LogisticModels:
    """Linear scores of L labels for each of K penalties.

    Attributes:
        means: Of each feature, shape ``(F,)``.
        scales: Its standard deviation, 1 where it does not vary, shape ``(F,)``.
        weights: Of the standardised features, shape ``(F, K, L)``.
        intercepts: Shape ``(K, L)``.
    """

    means: Features
    scales: Features
    weights: Features
    intercepts: Features

    def scores(self, features: Features) -> Features:
        """Return the log odds, shape ``(K, N, L)``, of features ``(N, F)``; NaN counts as the mean."""
        flat = self.weights.reshape(len(self.means), -1)
        scores = standardized(features, self.means, self.scales) @ flat + self.intercepts.reshape(-1)
        return np.ascontiguousarray(scores.reshape(len(features), *self.intercepts.shape).transpose(1, 0, 2))

    def select(self, penalty: int) -> "LogisticModels":
        """Return those of one penalty alone, by its number."""
        chosen = slice(penalty, penalty + 1)
        return LogisticModels(self.means, self.scales, self.weights[:, chosen], self.intercepts[chosen])


def standardized(features: Features, means: Features, scales: Features) -> Features:
    """Return features less their mean and over their deviation; 0 where one is NaN."""
    rows = np.nan_to_num((features - means) / scales, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(rows, dtype=np.float32)


def fit_logistic(features: Features, targets: Floats, penalties: Sequence[float]) -> LogisticModels:
    """Fit the logistic regression of each label under each penalty.

    Minimised is the mean log loss of the images whose target is known, plus half the penalty times the sum of
    the squared weights of the standardised features; the intercept is free. scikit-learn's ``C`` is
    ``1 / (penalty * N)``. All labels and penalties are one problem, in the features' principal components
    scaled so that its curvature is about 1 in every direction: it then takes some tens of steps.

    Args:
        features: Shape ``(N, F)``; NaN counts as the mean.
        targets: 1, 0, or NaN for unknown, shape ``(N, L)``; each label needs both classes.
        penalties: K of them, above 0.
    """
    is_defined = np.isfinite(features)
    counts = np.maximum(is_defined.sum(axis=0), 1)
    means = np.where(is_defined, features, 0.0).sum(axis=0, dtype=np.float64) / counts
    spread = np.where(is_defined, features - means, 0.0)
    scales = np.sqrt((spread**2).sum(axis=0, dtype=np.float64) / counts)
    scales = np.where(scales > 1e-9 * np.maximum(np.abs(means), 1.0), scales, 1.0)
    means, scales = means.astype(np.float32), scales.astype(np.float32)
    rows = standardized(features, means, scales)
    directions, variances = _principal(rows)
    components = (rows @ directions) / np.sqrt(variances).astype(np.float32)  # (N, r), of variance 1
    known = ~np.isnan(targets)
    shares = known / known.sum(axis=0)  # each label's weights of the images
    prevalence = np.nansum(targets * shares, axis=0)
    curvature = np.maximum(prevalence * (1 - prevalence), 1e-4)
    num_penalties, num_labels = len(penalties), targets.shape[1]
    shrinkage = np.multiply.outer(1 / variances, np.asarray(penalties))  # (r, K)
    scale = 1 / np.sqrt(curvature + shrinkage[:, :, None])  # (r, K, L)
    intercept_scale = np.broadcast_to(1 / np.sqrt(curvature), (num_penalties, num_labels))
    truth = np.where(known, targets, 0.0).astype(np.float32)[:, None]  # (N, 1, L)
    share = shares.astype(np.float32)[:, None]
    size = (len(variances) + 1, num_penalties, num_labels)

    def split(flat: Floats) -> tuple[Floats, Floats]:
        scaled = flat.reshape(size)
        return scaled[:-1] * scale, scaled[-1] * intercept_scale

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights, intercepts = split(flat)
        columns = weights.reshape(len(variances), num_penalties * num_labels).astype(np.float32)
        logits = (components @ columns).reshape(-1, *size[1:]) + intercepts.astype(np.float32)
        losses = np.logaddexp(0, logits) - truth * logits
        loss = float(np.einsum("nkl,nl->", losses, share[:, 0], dtype=np.float64, optimize=False))
        residuals = (expit(logits) - truth) * share
        pull = shrinkage[:, :, None] * weights
        by_weight = (components.T @ residuals.reshape(len(residuals), -1)).reshape(weights.shape) + pull
        gradient = np.concatenate([by_weight * scale, (residuals.sum(axis=0) * intercept_scale)[None]])
        return loss + 0.5 * float((pull * weights).sum()), gradient.astype(np.float64).ravel()

    start = np.zeros(size)
    start[-1] = np.log(prevalence / (1 - prevalence)) / intercept_scale
    options = {"maxiter": _MAX_STEPS, "gtol": _TOLERANCE, "ftol": 1e-9, "maxcor": 20}
    fitted = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights, intercepts = split(fitted.x)
    back = directions / np.sqrt(variances)  # (F, r)
    by_feature = (back @ weights.reshape(len(variances), num_penalties * num_labels)).reshape(-1, *size[1:])
    return LogisticModels(means, scales, by_feature.astype(np.float32), intercepts.astype(np.float32))


def _principal(rows: Features) -> tuple[Features, Floats]:
    """Return the directions in which standardised features vary, ``(F, r)``, and the variances, ``(r,)``."""
    num_images, num_features = rows.shape
    is_wide = num_features > num_images
    gram = (rows @ rows.T if is_wide else rows.T @ rows).astype(np.float64) / num_images
    variances, vectors = np.linalg.eigh(gram)
    kept = variances > _LEAST_SHARE * max(float(variances[-1]), 1e-12)
    variances, vectors = variances[kept], vectors[:, kept]
    if is_wide:
        vectors = (rows.T @ vectors) / np.sqrt(variances * num_images)
    return vectors.astype(np.float32), variances
