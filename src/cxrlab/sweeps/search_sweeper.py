"""A search as Hydra's sweeper: from its settings and the command line to what it found, as files."""

import datetime
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from cxrlab.cli.overrides import key_of
from cxrlab.errors import ConfigError, TrainingError, quoted
from cxrlab.sweeps.jobs import of_sweep
from cxrlab.sweeps.search import Plan, Search
from cxrlab.sweeps.search_space import as_overrides, parse_space
from cxrlab.sweeps.search_study import SearchSettings, check_optuna, check_same_search, open_storage

log = logging.getLogger(__name__)

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def launcher_of(
    settings: Mapping[str, Any], context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Launcher:
    """Return the launcher of a search, which runs as many jobs at once as the search has trials.

    Raises:
        ConfigError: If it runs jobs in this process, one at a time, and several are wanted.
    """
    n_jobs, node = settings.get("n_jobs", 1), config.hydra.launcher
    if node.get("_target_") == _BASIC and n_jobs != 1:
        raise ConfigError(
            f"hydra.sweeper.n_jobs={n_jobs} with hydra/launcher=basic, which runs jobs in one process: leave "
            "it out, or take hydra/launcher=processes."
        )
    if node.get("wait") is False:
        raise ConfigError(
            "hydra.launcher.wait=false: a search chooses each trial from what others gave, and waits for "
            "them. Leave it out."
        )
    if isinstance(node.get("workers"), int) and isinstance(n_jobs, int) and node.workers < n_jobs:
        with read_write(config), open_dict(config):
            node.workers = n_jobs
    _pin_folder(config)
    return Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task_function, config=config
    )


def _pin_folder(config: DictConfig) -> None:
    """Have the config of each job, which Hydra composes anew, name the folder of this search.

    Where ``resume_sweep`` chose it, that is no override of the jobs.
    """
    folder = str(Path(str(config.hydra.sweep.dir)).absolute())
    with read_write(config), open_dict(config):
        others = [
            str(word) for word in config.hydra.overrides.hydra if key_of(str(word)) != "hydra.sweep.dir"
        ]
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra = [*others, f"hydra.sweep.dir={quoted(folder)}"]


def sweep(
    settings: Mapping[str, Any],
    config: DictConfig,
    context: HydraContext,
    launcher: Launcher,
    arguments: Sequence[str],
) -> None:
    """Search, and write what was found.

    Args:
        settings: Of ``hydra.sweeper``.
        config: The composed config, ``hydra`` included.
        context: Of Hydra.
        launcher: Runs the jobs.
        arguments: Overrides of the command line that are not Hydra's.

    Raises:
        ConfigError: If the space, a setting or the study does not fit.
        MissingPackageError: If Optuna is missing.
        TrainingError: At the end, if a trial failed or was cut off.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    check_optuna()
    plan = plan_of(settings, config, arguments)
    check_composes(plan, config, context)
    plan.sweep_dir.mkdir(parents=True, exist_ok=True)
    storage = open_storage(plan.settings.storage, plan.sweep_dir)
    study = plan.study(storage)
    check_same_search(study, _record(plan))
    study.set_user_attr("pruning", _pruning(plan))
    path = plan.sweep_dir / "multirun.yaml"
    if plan.is_first or not path.is_file():
        OmegaConf.save(config, path)
    search = Search(plan, storage, launcher)
    try:
        search.run()
    finally:
        # What was found before Ctrl-C is worth a page too; drawing needs what is slow to import.
        from cxrlab.sweeps.search_results import read_result, write_results

        result = read_result(plan, plan.study(storage))
        if any(trial.state == "completed" for trial in result.trials):
            images = bool(OmegaConf.select(config, "report.images", default=True))
            write_results(result, plan, lambda key: _is_group(context, key), images=images, started=started)
    failed = [trial.number for trial in result.trials if trial.state == "failed"]
    if failed or search.cut_off:
        raise TrainingError(_left(failed, search.cut_off, plan))


def plan_of(settings: Mapping[str, Any], config: DictConfig, arguments: Sequence[str]) -> Plan:
    """Return what a command line asks for.

    Raises:
        ConfigError: If there is nothing to be searched, or a setting does not fit.
    """
    checked = SearchSettings(**{name: _plain(value) for name, value in settings.items()})
    fixed, space = parse_space(of_sweep(arguments), checked.params)
    if not space:
        raise ConfigError(
            "There is nothing to search: give what may vary, such as 'optimizer.lr=interval(1e-5,1e-2)' or "
            "model=resnet10t,densenet121."
        )
    of_rungs = {key_of(key) for rung in checked.rungs for key in rung}
    given = {key_of(word) for word in fixed} | {parameter.name for parameter in space}
    if both := sorted(of_rungs & given):
        raise ConfigError(
            f"{both[0]} is set by hydra.sweeper.rungs and by the command line: change it in the rungs."
        )
    max_epochs = OmegaConf.select(config, "trainer.max_epochs")
    plan = Plan(
        sweep_dir=Path(str(config.hydra.sweep.dir)).absolute(),
        fixed=tuple(fixed),
        space=tuple(space),
        settings=checked,
        monitor=str(config.monitor),
        mode=str(config.monitor_mode),
        max_epochs=max_epochs if isinstance(max_epochs, int) and max_epochs > 0 else None,
        is_first=not checked.join,
    )
    if checked.sampler == "grid":
        _ = plan.num_trials  # says where an interval has no grid
    return plan


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def check_composes(plan: Plan, config: DictConfig, context: HydraContext) -> None:
    """Compose the config with every option of each choice, and one value of what is no choice.

    A misspelt key or option ends the search before its first trial.

    Raises:
        HydraException: As Hydra says it.
    """
    values = {parameter.name: _few(parameter.distribution) for parameter in plan.space}
    first = {name: options[0] for name, options in values.items()}
    rung = 0 if plan.settings.rungs else None
    tried = [plan.overrides(first, rung)]
    tried += [
        plan.overrides(first | {name: option}, rung)
        for name, options in values.items()
        for option in options[1:]
    ]
    tried += [plan.overrides(first, number) for number in range(1, len(plan.settings.rungs))]
    for overrides in tried:
        context.config_loader.load_sweep_config(config, overrides)


def _few(distribution: Any) -> list[Any]:
    return list(distribution.choices) if hasattr(distribution, "choices") else [distribution.low]


def _record(plan: Plan) -> dict[str, Any]:
    """Return what must be the same of all processes of a search, and when it goes on."""
    return {
        "monitor": plan.monitor,
        "monitor_mode": plan.mode,
        "space": [parameter.text for parameter in plan.space],
        "settings": list(plan.fixed),
        "sampler": plan.settings.sampler,
        "sampler_options": dict(plan.settings.sampler_options or {}),
        "seed": plan.settings.seed,
        "keep": plan.settings.keep,
        "rungs": [" ".join(as_overrides(rung)) for rung in plan.settings.rungs],
    }


def _pruning(plan: Plan) -> dict[str, Any]:
    return {
        "pruner": plan.settings.pruner,
        "pruner_options": dict(plan.settings.pruner_options or {}),
        "max_epochs": plan.max_epochs,
    }


def _is_group(context: HydraContext, key: str) -> bool:
    return bool(context.config_loader.get_group_options(key, results_filter=ObjectType.CONFIG))


def _left(failed: Sequence[int], cut_off: Sequence[int], plan: Plan) -> str:
    words = []
    if failed:
        numbers = ", ".join(map(str, failed[:5])) + (" ..." if len(failed) > 5 else "")
        words.append(f"{len(failed)} trials failed ({numbers}): the table says why.")
    if cut_off:
        words.append(
            f"{len(cut_off)} trials were cut off. Go on with them: cxrlab train -m "
            f"resume_sweep={plan.sweep_dir}"
        )
    return " ".join(words)
