"""What a search found, as its page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

TrialState = Literal["completed", "pruned", "failed", "running"]


@dataclass(frozen=True)
class SearchParameter:
    """One thing that was searched.

    Attributes:
        name: Its key.
        space: As it was given, such as ``interval(1e-5,1e-2)``.
        is_log: Whether it was searched on a log scale.
        choices: What there was to choose from; None for numbers.
        importance: Share of the metric's variance over the trials that it explains, 0 to 1; None where not
            known.
    """

    name: str
    space: str
    is_log: bool = False
    choices: Sequence[str] | None = None
    importance: float | None = None


@dataclass(frozen=True)
class SearchTrial:
    """One trial.

    Attributes:
        number: Of the trial, its job and its folder.
        state: How it ended; of one that did not, ``running``.
        value: The monitored metric of its best epoch, of one that was pruned that of its last; None without.
        parameters: What it had, by name.
        by_epoch: The metric after each epoch, the first one is 0.
        seconds: Of its job; of one that was interrupted since it was started last.
        images: Training images that it has seen, each as often as it was seen.
        rung: Of a successive halving, the first one is 0; else None.
        source: The trial of the rung before that had the same parameters.
        error: Why it failed.
    """

    number: int
    state: TrialState
    value: float | None
    parameters: Mapping[str, str | float | int]
    by_epoch: Mapping[int, float] = field(default_factory=dict)
    seconds: float | None = None
    images: int | None = None
    rung: int | None = None
    source: int | None = None
    error: str = ""


@dataclass(frozen=True)
class SearchResult:
    """A search.

    Attributes:
        monitor: Name of the metric.
        maximize: Whether the best is the highest.
        parameters: What was searched.
        trials: By number.
        rungs: What each rung of a successive halving sets.
        settings: Who chose and who pruned, in words, by name.
        fixed: Overrides of every trial.
    """

    monitor: str
    maximize: bool
    parameters: Sequence[SearchParameter]
    trials: Sequence[SearchTrial]
    rungs: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    fixed: Sequence[str] = ()

    @property
    def best(self) -> SearchTrial | None:
        """The best completed trial, the first of equals; of a successive halving in the last rung."""
        completed = [trial for trial in self.trials if trial.state == "completed" and trial.value is not None]
        if not completed:
            return None
        last = max(trial.rung or 0 for trial in completed)
        sign = -1 if self.maximize else 1
        return min(
            (trial for trial in completed if (trial.rung or 0) == last),
            key=lambda trial: (sign * (trial.value or 0.0), trial.number),
        )

    @property
    def seconds(self) -> float:
        """Of all jobs together."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    @property
    def images(self) -> int:
        """Training images that all trials have seen together."""
        return sum(trial.images or 0 for trial in self.trials)

    def count(self, state: TrialState) -> int:
        """Return how many trials ended so."""
        return sum(trial.state == state for trial in self.trials)
