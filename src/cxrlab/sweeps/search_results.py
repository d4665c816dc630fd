"""What a search found, as files: ``trials.csv``, ``search.html`` and the best trial as an experiment."""

import datetime
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cxrlab.files import write_text
from cxrlab.report.formatting import count, counted, seconds
from cxrlab.report.model_info import Session
from cxrlab.report.search_page import write_search
from cxrlab.report.search_result import SearchParameter, SearchResult, SearchTrial, TrialState
from cxrlab.sweeps.search_space import as_overrides

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from cxrlab.sweeps.search import Plan

log = logging.getLogger(__name__)

_STATES: Mapping[str, TrialState] = {
    "COMPLETE": "completed",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "running",
}


def read_result(plan: "Plan", study: "Study") -> SearchResult:
    """Return what a study holds."""
    trials = study.get_trials(deepcopy=False)
    importance = importances(study, trials)
    parameters = [
        SearchParameter(
            name=parameter.name,
            space=parameter.text.partition("=")[2],
            is_log=bool(getattr(parameter.distribution, "log", False)),
            choices=getattr(parameter.distribution, "choices", None),
            importance=importance.get(parameter.name),
        )
        for parameter in plan.space
    ]
    settings = plan.settings
    return SearchResult(
        monitor=plan.monitor,
        maximize=plan.mode == "max",
        parameters=parameters,
        trials=[_trial(trial, plan) for trial in trials],
        rungs=[" ".join(as_overrides(rung)) for rung in settings.rungs],
        settings={"sampler": f"{settings.sampler}, seed {settings.seed}", "pruner": settings.pruner},
        fixed=plan.fixed,
    )


def _trial(trial: "FrozenTrial", plan: "Plan") -> SearchTrial:
    notes = trial.user_attrs
    state = _STATES[trial.state.name]
    value = trial.value if state in ("completed", "pruned") else None
    return SearchTrial(
        number=trial.number,
        state=state,
        value=None if value is None or math.isnan(value) else value,
        parameters={
            parameter.name: parameter.value(trial.params[parameter.name])
            for parameter in plan.space
            if parameter.name in trial.params
        },
        by_epoch=dict(trial.intermediate_values),
        seconds=notes.get("seconds"),
        images=notes.get("images"),
        rung=notes.get("rung", 0) if plan.settings.rungs else None,
        source=notes.get("source"),
        error=str(notes.get("error", "")),
    )


def importances(study: "Study", trials: Sequence["FrozenTrial"]) -> dict[str, float]:
    """Return Optuna's importance of each parameter by fANOVA; empty where the trials do not tell.

    Of a successive halving the first rung counts: the values of different rungs are not comparable.
    """
    import optuna

    alone = optuna.create_study(direction=study.direction)
    alone.add_trials(
        [trial for trial in trials if trial.state.name == "COMPLETE" and not trial.user_attrs.get("rung")]
    )
    if len({trial.value for trial in alone.trials}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(alone, evaluator=evaluator)
    except (ValueError, RuntimeError) as error:
        log.info("The importance of parameters is left out: %s", error)
        return {}
    return dict(found) if sum(found.values()) > 0 else {}


def trials_table(result: SearchResult) -> pd.DataFrame:
    """Return one row a trial, in their order, with what it cost."""
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "state": trial.state,
                "value": trial.value,
                **({"rung": (trial.rung or 0) + 1} if result.rungs else {}),
                **{parameter.name: trial.parameters.get(parameter.name) for parameter in result.parameters},
                "epochs": len(trial.by_epoch) or None,
                "seconds": trial.seconds,
                "images": trial.images,
                "error": trial.error,
            }
            for trial in result.trials
        ]
    ).astype({"epochs": "Int64", "images": "Int64"})


def write_results(
    result: SearchResult,
    plan: "Plan",
    is_group: Callable[[str], bool],
    *,
    images: bool = True,
    started: str | None = None,
) -> None:
    """Write the table, the page and ``experiment/best.yaml``, and say where they are.

    Args:
        result: With at least one completed trial.
        plan: Of the search.
        is_group: Tells whether a key is a group of conf/.
        images: False leaves commands and names of files out of the page.
        started: When this process began to search, in ISO 8601.

    Raises:
        OSError: If a file cannot be written.
    """
    from cxrlab.training.callbacks.provenance import environment

    best, folder = result.best, plan.sweep_dir
    if best is None:
        return
    write_text(folder / "trials.csv", trials_table(result).to_csv(index=False))
    record = environment("cxrlab.train")
    overrides = plan.overrides(best.parameters, best.rung)
    content, left = experiment_yaml(overrides, is_group)
    again = ["cxrlab", "train", f"--config-dir={_shown(folder)}", "experiment=best", *left]
    comment = _comment(result, best, again, record["hardware"])
    (folder / "experiment").mkdir(exist_ok=True)
    write_text(folder / "experiment" / "best.yaml", f"# @package _global_\n{comment}{content}")
    write_search(
        folder / "search.html",
        result,
        Session.from_json(record | {"started": started}),
        command=shlex.join([*again, "seed=1"]),
        images=images,
    )
    _log(result, folder, again)


def _comment(
    result: SearchResult, best: SearchTrial, again: Sequence[str], hardware: Mapping[str, Any]
) -> str:
    """Return what an experiment opens with: the command, the score, the hardware, the time and the date."""
    machine = f"{hardware['cores']} cores, {hardware.get('gpu', 'no GPU')}"
    lines = [
        f"The best of {counted(len(result.trials), 'trial')} of a search is trial {best.number}:",
        f"{result.monitor} {best.value:.4f} on validation, flattered by the choice. Its test part is unread.",
        shlex.join(again),
        f"Found by: {shlex.join(['cxrlab', 'train', *sys.argv[1:]])}",
        f"{machine}, {seconds(result.seconds)} for all, {datetime.datetime.now().astimezone():%Y-%m-%d}.",
    ]
    return "".join(f"# {' '.join(line.splitlines())}\n" for line in lines)


def _log(result: SearchResult, folder: Path, again: Sequence[str]) -> None:
    best = result.best
    if best is None:
        return
    states: tuple[TrialState, ...] = ("completed", "pruned", "failed", "running")
    counts = ", ".join(f"{result.count(state)} {state}" for state in states if result.count(state))
    values = " ".join(f"{name}={value}" for name, value in best.parameters.items())
    log.info("The best of %d trials (%s): %d, %s %.4f: %s",
             len(result.trials), counts, best.number, result.monitor, best.value, values)  # fmt: skip
    log.info("They took %s and %s training images. The page: %s",
             seconds(result.seconds), count(result.images), _shown(folder / "search.html"))  # fmt: skip
    log.info("Train the best again: %s", shlex.join(again))


def _shown(path: Path) -> str:
    """Return a path as it is typed here: relative where it lies below the folder at work."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else os.fspath(path)


def experiment_yaml(overrides: Sequence[str], is_group: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Return overrides as the content of an experiment, and those that no YAML file can hold.

    Args:
        overrides: Such as ``model=vgg_like`` and ``optimizer.lr=0.01``.
        is_group: Tells whether a key is a group of conf/.

    Example:
        >>> text, left = experiment_yaml(["model=vgg_like", "a.b=0.5", "~c"], {"model"}.__contains__)
        >>> print(text, left)
        defaults:
        - _self_
        - override /model: vgg_like
        a:
          b: 0.5
         ['~c']
    """
    first: list[Any] = []
    chosen: dict[str, Any] = {}
    left: list[str] = []
    values = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if key == "experiment" and not override.is_delete() and override.package is None:
            first = [] if value is None else [value]
        elif is_group(key) and override.package is None and not (override.is_delete() or override.is_add()):
            chosen[f"override /{key}"] = value
        elif override.is_delete() or override.package is not None or is_group(key):
            left.append(str(override.input_line))
        else:
            OmegaConf.update(values, key, value, merge=False, force_add=True)
    defaults = [*first, "_self_", *({name: value} for name, value in chosen.items())]
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if first or chosen else ""
    return head + (OmegaConf.to_yaml(values) if values else ""), left
