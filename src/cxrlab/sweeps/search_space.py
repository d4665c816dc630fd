"""What a search may choose: the space in the words of Hydra's command line, as Optuna's distributions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
    Transformer,
)

from cxrlab.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

_LOG_FROM = 100.0  # an interval whose ends are this factor apart is searched on a log scale
_DIGITS = 4  # of a value from an interval: what runs is what the tables show
_TAGS = ("log", "linear")


@dataclass(frozen=True)
class Parameter:
    """One thing that a search chooses.

    Attributes:
        name: Its key, such as ``optimizer.lr``.
        key: As it stands in an override: with ``+`` or ``++`` where it was given so.
        text: The whole override that was given.
        distribution: Optuna's.
    """

    name: str
    key: str
    text: str
    distribution: "BaseDistribution"

    def value(self, chosen: Any) -> Any:
        """Return what is run of a value that the sampler chose: of an interval four digits.

        Example:
            >>> lr = parse_space(["optimizer.lr=interval(1e-5,1e-2)"])[1][0]
            >>> lr.value(0.00123456)
            0.001235
        """
        if not isinstance(chosen, float):
            return chosen
        low, high, step = (getattr(self.distribution, name) for name in ("low", "high", "step"))
        digits = _DIGITS if step is None else 12
        return min(max(float(f"{chosen:.{digits}g}"), low), high)

    def override(self, chosen: Any) -> str:
        """Return the override that sets a value which the sampler chose.

        Example:
            >>> parse_space(["model=resnet10t,vgg_like"])[1][0].override("vgg_like")
            'model=vgg_like'
        """
        return f"{self.key}={self.value(chosen)}"

    def suggest(self, trial: "Trial") -> Any:
        """Let the study's sampler choose a value for a trial; one that was chosen before stays."""
        distribution: Any = self.distribution
        if hasattr(distribution, "choices"):
            return trial.suggest_categorical(self.name, distribution.choices)
        low, high, step, log = (getattr(distribution, name) for name in ("low", "high", "step", "log"))
        if isinstance(low, int):
            return trial.suggest_int(self.name, low, high, step=step, log=log)
        return trial.suggest_float(self.name, low, high, step=step, log=log)

    def grid(self) -> list[Any]:
        """Return its values, in order.

        Raises:
            ConfigError: If it is an interval.
        """
        distribution: Any = self.distribution
        if hasattr(distribution, "choices"):
            return list(distribution.choices)
        if distribution.step is None or (distribution.log and isinstance(distribution.low, float)):
            raise ConfigError(
                f"{self.text}: an interval has no grid. Give its values, {self.key}=range(...) or "
                f"{self.key}=choice(...), or take hydra.sweeper.sampler=random."
            )
        low, high, step = (Decimal(str(getattr(distribution, name))) for name in ("low", "high", "step"))
        values = [low + number * step for number in range(int((high - low) / step) + 1)]
        return [type(distribution.low)(value) for value in values]


def parse_space(
    overrides: Sequence[str], params: Mapping[str, object] | None = None
) -> tuple[list[str], list[Parameter]]:
    """Return what every trial sets, and what the search chooses.

    Args:
        overrides: Of the command line, such as ``seed=3`` and ``optimizer.lr=interval(1e-5,1e-2)``.
        params: The same by key, as ``hydra.sweeper.params`` has them; a list is a choice. What the command
            line sets takes its place.

    Returns:
        Overrides that are the same in each trial; and the parameters, in their order.

    Raises:
        ConfigError: If what is to be searched is no space, naming the override.
        HydraException: If one cannot be read.

    Example:
        >>> fixed, space = parse_space(["seed=3", "model.dropout=interval(0,0.5)"], {"seed": 1})
        >>> fixed, space[0].distribution
        (['seed=3'], FloatDistribution(high=0.5, log=False, low=0.0, step=None))
    """
    given = _parsed(list(overrides))
    keys = {override.get_key_element().lstrip("+~") for override in given}
    of_file = _parsed([_as_override(key, value) for key, value in (params or {}).items()])
    of_file = [override for override in of_file if override.get_key_element().lstrip("+~") not in keys]
    fixed: dict[str, str] = {}
    parameters: dict[str, Parameter] = {}
    for override in [*of_file, *given]:
        name = override.get_key_element().lstrip("+~")
        fixed.pop(name, None)
        parameters.pop(name, None)
        if override.is_sweep_override():
            parameters[name] = Parameter(
                name, override.get_key_element(), str(override.input_line), _distribution(override)
            )
        else:
            fixed[name] = str(override.input_line)
    return list(fixed.values()), list(parameters.values())


def as_overrides(values: Mapping[str, object]) -> list[str]:
    """Return the overrides that set values by key.

    Example:
        >>> as_overrides({"data.fraction": 0.1, "trainer.max_epochs": 3})
        ['data.fraction=0.1', 'trainer.max_epochs=3']
    """
    return [f"{key}={Transformer.str(value)}" for key, value in values.items()]  # type: ignore[arg-type]


def _parsed(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


def _as_override(key: str, value: object) -> str:
    if isinstance(value, str):
        return f"{key}={value}"
    if isinstance(value, list | tuple):
        return f"{key}=choice({','.join(map(Transformer.str, value))})"
    return f"{key}={Transformer.str(value)}"  # type: ignore[arg-type]


def _distribution(override: Override) -> "BaseDistribution":
    """Return the distribution of an override that is to be searched.

    Raises:
        ConfigError: If it is none.
    """
    from optuna.distributions import CategoricalDistribution

    sweep: Any = override.value()
    if not isinstance(sweep, Sweep):
        raise ConfigError(
            f"{override.input_line}: a search takes no glob. Name what to choose from: choice(a,b)."
        )
    unknown = sorted(sweep.tags - set(_TAGS))
    if unknown or len(sweep.tags) > 1:
        raise ConfigError(
            f"{override.input_line} has the tags {', '.join(sorted(sweep.tags))}: it takes one of "
            f"{', '.join(_TAGS)}."
        )
    if isinstance(sweep, ChoiceSweep):
        if sweep.tags:
            raise ConfigError(f"{override.input_line}: a choice has no scale, so no tag. Take an interval.")
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    if isinstance(sweep, RangeSweep):
        return _of_range(sweep, str(override.input_line))
    if isinstance(sweep, IntervalSweep):
        return _of_interval(sweep, str(override.input_line))
    raise ConfigError(f"{override.input_line} cannot be searched: take interval, choice or range.")


def _of_interval(sweep: IntervalSweep, text: str) -> "BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = sweep.start, sweep.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{text}: an interval has two finite ends.")
    if low > high:
        raise ConfigError(
            f"{text}: it ends at {high:g}, below its start {low:g}. Write interval({high:g},{low:g})."
        )
    is_whole = isinstance(low, int) and isinstance(high, int)
    is_log = "log" in sweep.tags or ("linear" not in sweep.tags and low > 0 and high >= _LOG_FROM * low)
    _check_log(low, text, is_log=is_log)
    if is_whole:
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _of_range(sweep: RangeSweep, text: str) -> "BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    if step == 0:
        raise ConfigError(f"{text}: its step is 0.")
    count = math.ceil((stop - start) / step)
    if count < 1:
        raise ConfigError(f"{text} holds no number: it starts at {start} and stops before {stop}.")
    low, high = sorted((start, start + (count - 1) * step))
    is_log = "log" in sweep.tags
    _check_log(float(low), text, is_log=is_log)
    if is_log and (step != 1 or not isinstance(sweep.start, int)):
        raise ConfigError(
            f"{text}: on a log scale there are no steps. Write tag(log,int(interval({low},{high})))."
        )
    if all(number == int(number) for number in (start, step)) and isinstance(sweep.start, int):
        return IntDistribution(int(low), int(high), step=abs(int(step)), log=is_log)
    return FloatDistribution(float(low), float(high), step=abs(float(step)))


def _check_log(low: float, text: str, *, is_log: bool) -> None:
    if is_log and low <= 0:
        raise ConfigError(f"{text}: {low:g} has no logarithm. Start above 0, or leave the tag log out.")
