"""The weights of a linear layer by scikit-learn's logistic regression: the solver of a linear probe."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cxrlab.errors import DataError
from cxrlab.task import Task

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

# A feature that deviates less than this share of its mean does not vary: what is left is rounding of float32.
_LEAST_DEVIATION = 1e-5
# Of the gradient, where the solver stops; scikit-learn's own 1e-4 leaves a probability's third digit open.
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class LinearWeights:
    """A linear layer.

    Attributes:
        weights: Shape ``(L, F)``.
        biases: Shape ``(L,)``.
    """

    weights: Floats
    biases: Floats


@dataclass(frozen=True)
class LogisticProblem:
    """Features and targets of the training part, to be solved for several strengths.

    Features are standardised with their mean and deviation, and the solution is brought back to features as
    they are: the deviation divides its weights, the mean moves its bias.

    Attributes:
        features: Shape ``(N, F)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        labels: L names.
        task: ``multilabel``: each label by itself, on the images where it is known. ``multiclass``: one
            multinomial regression, on the images whose class is known.
        class_weights: As a loss declares them: ``positive`` and ``negative`` by label, or ``class``, each
            ``(L,)``; {} where all images weigh alike. They are scaled to a mean of 1 over the images.
        max_iterations: Of the solver (L-BFGS).

    Raises:
        DataError: If a label does not vary, or a class is missing.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    labels: Sequence[str]
    task: Task = "multilabel"
    class_weights: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if self.task == "multiclass":
            known = self.targets[~np.isnan(self.targets).any(axis=1)]
            constant = [label for label, one in zip(self.labels, known.T, strict=True) if not one.any()]
        else:
            pairs = zip(self.labels, self.targets.T, strict=True)
            constant = [label for label, column in pairs if len({*column[~np.isnan(column)].tolist()}) < 2]
        if constant:
            raise DataError(
                f"Nothing can be learnt of {', '.join(constant)}: the {len(self.targets)} training images "
                "show one value of it. Leave it out with data.labels, or use more images."
            )

    @cached_property
    def means(self) -> Floats:
        """Of each feature, shape ``(F,)``."""
        means: Floats = self.features.mean(axis=0, dtype=np.float64)
        return means

    @cached_property
    def scales(self) -> Floats:
        """The standard deviation of each feature, infinite where it does not vary, shape ``(F,)``."""
        deviations = self.features.std(axis=0, dtype=np.float64)
        varies = deviations > _LEAST_DEVIATION * np.abs(self.means)
        return np.where(varies, deviations, np.inf)

    @cached_property
    def _standardized(self) -> Floats:
        return (self.features - self.means) / self.scales

    def solve(self, strength: float) -> LinearWeights:
        """Return the layer that minimises the cross-entropy plus a penalty on the squared weights.

        Args:
            strength: scikit-learn's ``C``: the sum of the cross-entropy over the images counts this much
                against half the sum of the squared weights, so that a smaller one draws them towards 0.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            if self.task == "multiclass":
                weights, biases = self._multinomial(strength)
            else:
                solutions = [self._binary(column, strength) for column in range(len(self.labels))]
                weights, biases = (np.stack(parts) for parts in zip(*solutions, strict=True))
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            log.warning(
                "solver.max_iterations=%d were not enough for the strength %g: its weights are not the last "
                "word. Raise them, or leave it out of solver.strengths.", self.max_iterations, strength,
            )  # fmt: skip
        weights = weights / self.scales
        return LinearWeights(weights, biases - weights @ self.means)

    def _binary(self, column: int, strength: float) -> tuple[Floats, npt.NDArray[np.float64]]:
        known = ~np.isnan(self.targets)[:, column]
        targets = self.targets[known, column]
        sample_weights = None
        if self.class_weights:
            of_value = [self.class_weights[name][column] for name in ("negative", "positive")]
            sample_weights = np.array(of_value)[targets.astype(int)]
        fitted = self._fitted(known, targets, sample_weights, strength)
        return fitted.coef_[0], fitted.intercept_[0]

    def _multinomial(self, strength: float) -> tuple[Floats, Floats]:
        known = np.isfinite(self.targets.sum(axis=1))
        classes = self.targets[known].argmax(axis=1)
        sample_weights = self.class_weights["class"][classes] if self.class_weights else None
        fitted = self._fitted(known, classes, sample_weights, strength)
        if len(self.labels) == 2:  # one logit: the second class against the first
            return np.vstack([np.zeros_like(fitted.coef_), fitted.coef_]), np.r_[0.0, fitted.intercept_]
        return fitted.coef_, fitted.intercept_

    def _fitted(
        self,
        known: npt.NDArray[np.bool_],
        targets: npt.NDArray[np.generic],
        sample_weights: npt.NDArray[np.floating] | None,
        strength: float,
    ) -> LogisticRegression:
        if sample_weights is not None:
            sample_weights = sample_weights.astype(np.float64) / sample_weights.mean(dtype=np.float64)
        features = self._standardized if known.all() else self._standardized[known]
        regression = LogisticRegression(C=strength, tol=_TOLERANCE, max_iter=self.max_iterations)
        return regression.fit(features, targets, sample_weight=sample_weights)
