"""A search's study in Optuna: its settings, where it is kept, and who chooses."""

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from filelock import FileLock

from cxrlab.errors import ConfigError, MissingPackageError, check_range, quoted
from cxrlab.sweeps.table import PRUNING

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from cxrlab.sweeps.search_space import Parameter

SamplerName = Literal["tpe", "random", "grid"]
PrunerName = Literal["median", "hyperband", "successive_halving", "none"]

JOURNAL = "study.journal"
"""The study's file in the sweep's folder, where no other storage is given."""

LOCK = ".search.lock"
"""The file in the sweep's folder that a process holds while it asks for a trial."""


@dataclass(frozen=True)
class SearchSettings:
    """The settings of ``hydra.sweeper``.

    Attributes:
        sampler: Who chooses: ``tpe`` learns from finished trials, ``random`` does not, ``grid`` tries all.
        sampler_options: Keywords of Optuna's sampler, such as ``n_startup_trials``.
        pruner: What ends a trial early, by the monitored metric of its epochs.
        pruner_options: Keywords of Optuna's pruner, such as ``n_warmup_steps``; steps are epochs.
        seed: Of the sampler.
        n_trials: Trials of the whole search, with those of other processes; with rungs those of the first.
        n_jobs: Trials of this process at the same time.
        timeout: Minutes after which it starts no more trials; None for no limit.
        storage: URL of Optuna; None for a file in the sweep's folder.
        study_name: Its name there.
        join: Whether to take part in a search that other processes are at.
        params: The space by key, besides that of the command line.
        rungs: What each rung of a successive halving sets, by key; empty for none.
        keep: Share of a rung's trials that go on to the next one.

    Raises:
        ConfigError: If one does not fit.
    """

    sampler: SamplerName = "tpe"
    sampler_options: Mapping[str, Any] | None = None
    pruner: PrunerName = "median"
    pruner_options: Mapping[str, Any] | None = None
    seed: int = 0
    n_trials: int = 20
    n_jobs: int = 1
    timeout: float | None = None
    storage: str | None = None
    study_name: str = "search"
    join: bool = False
    params: Mapping[str, Any] | None = None
    rungs: Sequence[Mapping[str, Any]] = ()
    keep: float = 1 / 3

    def __post_init__(self) -> None:
        for name in ("sampler_options", "pruner_options", "params"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise ConfigError(
                    f"hydra.sweeper.{name}={getattr(self, name)} must be a mapping, such as {{name: value}}."
                )
        for name, known in (("sampler", get_args(SamplerName)), ("pruner", get_args(PrunerName))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"hydra.sweeper.{name}={getattr(self, name)} must be one of {', '.join(known)}."
                )
        for name, least in (("seed", 0), ("n_trials", 1), ("n_jobs", 1)):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"hydra.sweeper.{name}={getattr(self, name)} must be a whole number.")
            check_range(f"hydra.sweeper.{name}", getattr(self, name), least)
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"hydra.sweeper.timeout={self.timeout} must be above 0, in minutes.")
        if not 0 < self.keep < 1:
            raise ConfigError(f"hydra.sweeper.keep={self.keep} must lie between 0 and 1, such as 0.33.")
        if any(not isinstance(rung, Mapping) or not rung for rung in self.rungs):
            raise ConfigError(
                f"hydra.sweeper.rungs={list(self.rungs)} must be a list of mappings, such as "
                "[{data.fraction: 0.1}, {data.fraction: 1}]."
            )


def pruning_override(settings: SearchSettings, sweep_dir: Path, trial: int) -> str:
    """Return the override that puts :class:`cxrlab.sweeps.search_pruning.Pruning` into a trial's training.

    Example:
        >>> pruning_override(SearchSettings(), Path("/sweep"), 3)
        'callbacks.pruning={_target_:cxrlab.sweeps.search_pruning.Pruning,sweep_dir:"/sweep",...}'
    """
    url = "null" if settings.storage is None else quoted(settings.storage)
    return (
        f"{PRUNING}={{_target_:cxrlab.sweeps.search_pruning.Pruning,sweep_dir:{quoted(str(sweep_dir))},"
        f'study:{quoted(settings.study_name)},trial:{trial},storage:{url},monitor:"${{monitor}}"}}'
    )


def check_optuna() -> None:
    """Say how to install Optuna where it is missing, and keep its log lines off the terminal.

    Raises:
        MissingPackageError: With what to type.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError(
            "A search needs the package optuna: pip install 'cxrlab[sweeps]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(storage: str | None, sweep_dir: Path) -> "BaseStorage":
    """Return where a study is kept.

    Args:
        storage: URL of Optuna, such as ``sqlite:////shared/search.db``; None for a file in the folder.
        sweep_dir: The sweep's folder.

    Raises:
        ConfigError: If it cannot be opened.
    """
    check_optuna()
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    sweep_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(sweep_dir / LOCK):  # two that make a database at once are in each other's way
            if storage is None:
                return JournalStorage(JournalFileBackend(str(sweep_dir / JOURNAL)))
            return optuna.storages.get_storage(storage)
    except Exception as error:  # of whatever database
        reason = str(error).strip().splitlines()
        raise ConfigError(
            f"hydra.sweeper.storage cannot be opened: {type(error).__name__}: {reason[0] if reason else ''}"
        ) from error


def open_study(
    settings: SearchSettings,
    storage: "BaseStorage",
    space: Sequence["Parameter"],
    *,
    mode: str,
    max_epochs: int | None,
) -> "Study":
    """Return the study, which is made where there is none; each thread has one of its own."""
    import optuna

    return optuna.create_study(
        study_name=settings.study_name,
        storage=storage,
        sampler=build_sampler(settings, space),
        pruner=build_pruner(settings.pruner, settings.pruner_options or {}, max_epochs),
        direction="maximize" if mode == "max" else "minimize",
        load_if_exists=True,
    )


def check_same_search(study: "Study", record: Mapping[str, Any]) -> None:
    """Write down what is searched, or refuse to go on with a study that searches something else.

    Args:
        study: New or old.
        record: Texts by name, such as the space.

    Raises:
        ConfigError: Naming what differs.
    """
    from optuna.study import StudyDirection

    direction = "max" if study.direction is StudyDirection.MAXIMIZE else "min"
    if direction != record["monitor_mode"]:
        raise ConfigError(
            f"The study {study.study_name} is of monitor_mode={direction}, this search of "
            f"monitor_mode={record['monitor_mode']}: choose another hydra.sweeper.study_name or folder."
        )
    before = study.user_attrs.get("search")
    if before is None:
        study.set_user_attr("search", dict(record))
        return
    for name, value in record.items():
        if name in before and before[name] != value:
            raise ConfigError(
                f"The study {study.study_name} was begun with {name} {_words(before[name])}, not "
                f"{_words(value)}: give the same, or choose another hydra.sweeper.study_name or folder."
            )


def _words(value: object) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def build_sampler(settings: SearchSettings, space: Sequence["Parameter"]) -> "BaseSampler":
    """Return Optuna's sampler, made anew for each trial from the seed and the trial's number.

    What it draws is so no matter of how many trials this process had before, and a search that was
    interrupted goes on as it would have. ``tpe`` depends on which trials have finished too.

    Raises:
        ConfigError: If an option is none of the sampler's, or the space has no grid.
    """
    from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler

    options = dict(settings.sampler_options or {})
    key = "hydra.sweeper.sampler_options"
    _check_options(
        options, {"tpe": TPESampler, "random": RandomSampler, "grid": GridSampler}[settings.sampler], key
    )

    class OfTrial(BaseSampler):
        """Delegates to a sampler of its own for each trial."""

        def __init__(self) -> None:
            self._inner: BaseSampler = self._fresh(0, "")

        def _fresh(self, number: int, name: str) -> BaseSampler:
            words = [settings.seed, number, zlib.crc32(name.encode())]
            seed = int(np.random.SeedSequence(words).generate_state(1)[0])
            if settings.sampler == "grid":
                grid = {parameter.name: parameter.grid() for parameter in space}
                return GridSampler(grid, seed=settings.seed)
            if settings.sampler == "random":
                return RandomSampler(seed=seed)
            with _fits(key, options):
                return TPESampler(seed=seed, **options)

        def before_trial(self, study: "Study", trial: Any) -> None:
            self._inner = self._fresh(trial.number, "")
            self._inner.before_trial(study, trial)

        def infer_relative_search_space(self, study: "Study", trial: Any) -> dict[str, Any]:
            return self._inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: "Study", trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            return self._inner.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: "Study", trial: Any, param_name: str, param_distribution: Any
        ) -> Any:
            # A seed by parameter too: one that a killed process had chosen already is not drawn again.
            inner = self._inner if settings.sampler == "grid" else self._fresh(trial.number, param_name)
            return inner.sample_independent(study, trial, param_name, param_distribution)

    return OfTrial()


def num_grid_points(space: Sequence["Parameter"]) -> int:
    """Return how many trials a grid has."""
    return int(np.prod([len(parameter.grid()) for parameter in space]))


def build_pruner(name: str, options: Mapping[str, Any], max_epochs: int | None) -> "BasePruner":
    """Return Optuna's pruner.

    Args:
        name: One of ``PrunerName``.
        options: Its keywords.
        max_epochs: Of a training, the most that Hyperband plans for; None where not known.

    Raises:
        ConfigError: If an option is none of its, or does not fit.
    """
    from optuna import pruners

    classes: dict[str, Callable[..., BasePruner]] = {
        "median": pruners.MedianPruner,
        "hyperband": pruners.HyperbandPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
        "none": pruners.NopPruner,
    }
    key, keywords = "hydra.sweeper.pruner_options", dict(options)
    _check_options(keywords, classes[name], key)
    if name == "hyperband" and max_epochs is not None:
        keywords.setdefault("max_resource", max_epochs)
    with _fits(key, keywords):
        return classes[name](**keywords)


def _check_options(options: Mapping[str, Any], function: Callable[..., Any], key: str) -> None:
    known = [name for name in inspect.signature(function).parameters if name not in ("seed", "search_space")]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{key}.{name} is no option of {getattr(function, '__name__', function)}, which takes "
                f"{', '.join(known) or 'none'}."
            )


@contextmanager
def _fits(key: str, options: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}={dict(options)} does not fit: {error}") from error
