"""The registry of metrics: what each is called, which direction is better, and how it is computed.

cxrlab's own metrics stand in it from the start. A person's own is a function with :func:`metric` above it,
named in the config as ``metrics: [my_lab.metrics.squared_error]``.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cxrlab.errors import ConfigError
from cxrlab.metrics.predictions import Floats
from cxrlab.trust import import_path

if TYPE_CHECKING:
    from cxrlab.metrics.estimates import Bootstrapped, Sums

Needs = Literal["scores", "decisions"]

Function = Callable[[Floats, Floats], float]


@dataclass(frozen=True)
class Metric:
    """A metric of one label.

    Attributes:
        name: As in ``val/<name>`` and in ``evaluation.json``: letters, digits and underscores.
        title: As a reader sees it.
        higher_is_better: Its direction; False for an error.
        needs: ``scores`` for the probabilities; ``decisions`` for 1 where the label is predicted positive and
            0 where it is not: at the label's threshold, or during a training above the probability 0.5.
        function: Of these and of the targets, 1 present and 0 absent, each of shape ``(N,)``, over the images
            whose target is known; NaN where it is undefined, as with one class only.
        resampling: How one of cxrlab's own is computed for all labels and resamples at once; None for a
            person's, whose ``function`` is called for each resample.
    """

    name: str
    title: str
    higher_is_better: bool
    needs: Needs
    function: Function
    resampling: "Callable[[Sums], Bootstrapped | None] | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise ConfigError(f"The metric {self.name!r} must be named by letters, digits and underscores.")
        if self.needs not in ("scores", "decisions"):
            raise ConfigError(f"The metric {self.name} needs {self.needs!r}; it can be scores or decisions.")

    def __call__(self, predictions: Floats, targets: Floats) -> float:
        """Return the metric of one label's known images; NaN where it is undefined.

        Functions of other libraries often raise where there is one class only; that is undefined too.

        Args:
            predictions: Scores or decisions, as it needs, shape ``(N,)``.
            targets: 1 present, 0 absent, shape ``(N,)``.

        Raises:
            ConfigError: If the function fails, or returns no number.
        """
        if not len(targets):
            return float("nan")
        is_one_class = bool((targets == targets[0]).all())
        try:
            with warnings.catch_warnings():
                if is_one_class:  # numpy warns of the mean of nothing
                    warnings.simplefilter("ignore", RuntimeWarning)
                return float(self.function(predictions, targets))
        except (ValueError, ZeroDivisionError, TypeError) as error:
            if is_one_class and not isinstance(error, TypeError):
                return float("nan")
            raise ConfigError(
                f"The metric {self.name} failed on {len(targets)} images of a label: {error}. It must return "
                f"a number from two arrays of shape (N,), {self.needs} and targets; NaN where undefined."
            ) from error


IN_TRAINING = ("auroc", "average_precision", "accuracy")
"""What every training computes."""


class MetricRegistry(Mapping[str, Metric]):
    """Metrics by name: cxrlab's own, and those that a person added."""

    def __init__(self) -> None:
        self._own: dict[str, Metric] = {}
        self._added: dict[str, Metric] = {}
        self._in_training = list(IN_TRAINING)

    def __getitem__(self, name: str) -> Metric:
        return self._added[name] if name in self._added else self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *self._added])

    def __len__(self) -> int:
        return len(self._own) + len(self._added)

    @property
    def added(self) -> tuple[Metric, ...]:
        """A person's metrics."""
        return tuple(self._added.values())

    @property
    def in_training(self) -> tuple[Metric, ...]:
        """What is computed after every epoch, and can be monitored."""
        return tuple(self[name] for name in self._in_training)

    def add_own(self, metric: Metric) -> None:
        """Add one of cxrlab's own."""
        self._own[metric.name] = metric

    def add(self, metric: Metric) -> None:
        """Add a person's metric, or have one of cxrlab's own computed in training too.

        Raises:
            ConfigError: If it bears the name of one of cxrlab's own.
        """
        if self._own.get(metric.name, metric) is not metric:
            raise ConfigError(f"The metric {metric.name} bears the name of cxrlab's own: give it another.")
        if metric.name == "loss":
            raise ConfigError("A metric cannot be called loss: val/loss is that of the training.")
        if metric.name not in self._own:
            self._added[metric.name] = metric
        if metric.name not in self._in_training:
            self._in_training.append(metric.name)

    def reset(self) -> None:
        """Forget what was added."""
        self._added.clear()
        self._in_training = list(IN_TRAINING)


METRICS = MetricRegistry()


def register(metric: Metric) -> Metric:
    """Add a metric to all trainings, evaluations and comparisons of this process, and return it.

    Raises:
        ConfigError: If it bears the name of one of cxrlab's own.
    """
    METRICS.add(metric)
    return metric


def metric(
    *, title: str, higher_is_better: bool, needs: Needs, name: str | None = None
) -> Callable[[Function], Metric]:
    """Make a metric of a function, to be named in ``metrics=`` or given to :func:`register`.

    Args:
        title: As a reader sees it.
        higher_is_better: Its direction.
        needs: ``scores`` or ``decisions``, see :class:`Metric`.
        name: By default that of the function.

    Example:
        >>> import numpy as np
        >>> @metric(title="Squared error", higher_is_better=False, needs="scores")
        ... def squared_error(scores, targets):
        ...     return float(((scores - targets) ** 2).mean())
        >>> squared_error(np.array([0.5, 0.0]), np.array([1.0, 0.0]))
        0.125
    """

    def decorate(function: Function) -> Metric:
        own_name = str(getattr(function, "__name__", ""))
        return Metric(name or own_name, title, higher_is_better, needs, function)

    return decorate


def load_metrics(paths: Sequence[str]) -> tuple[Metric, ...]:
    """Add the metrics that a config names, in place of those of an earlier config.

    Args:
        paths: Dotted paths of a person's metrics; or names of cxrlab's own, such as ``brier``, which a
            training is to compute too.

    Raises:
        ConfigError: If one cannot be imported, is no metric, or bears the name of one of cxrlab's own.
    """
    loaded = tuple(METRICS[path] if path in METRICS else _imported(path) for path in paths)
    METRICS.reset()
    for item in loaded:
        METRICS.add(item)
    return loaded


def _imported(path: str) -> Metric:
    if "." not in path:
        own = [known for known in METRICS if METRICS[known] not in METRICS.added]
        raise ConfigError(
            f"metrics={path} is none of cxrlab's own metrics, {own}; one of yours is named by its dotted "
            "path, such as my_lab.metrics.squared_error."
        )
    loaded = import_path(path, f"metrics={path}")
    if not isinstance(loaded, Metric):
        raise ConfigError(
            f"metrics={path} is a {type(loaded).__name__}, no metric: put @cxrlab.metrics.metric(title=..., "
            "higher_is_better=..., needs=...) above the function."
        )
    return loaded
