import importlib.util
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from optuna import Study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from torch import Tensor

from cxrlab.cli.config import config_dir
from cxrlab.errors import ConfigError, UserError
from cxrlab.sweeps.jobs import JobPruned
from cxrlab.sweeps.search import Plan, promoted
from cxrlab.sweeps.search_pruning import Pruning
from cxrlab.sweeps.search_results import experiment_yaml, read_result, write_results
from cxrlab.sweeps.search_space import parse_space
from cxrlab.sweeps.search_study import JOURNAL, SearchSettings, check_same_search, open_storage
from cxrlab.sweeps.search_sweeper import launcher_of
from cxrlab.training.callbacks.resume import Interruption

MONITOR = "val/auroc"

SPACES = [
    ("a=interval(0,0.5)", FloatDistribution(0.0, 0.5)),
    ("a=interval(1,10)", FloatDistribution(1.0, 10.0)),
    ("a=interval(1e-5,1e-2)", FloatDistribution(1e-5, 1e-2, log=True)),
    ("a=interval(1,100)", FloatDistribution(1.0, 100.0, log=True)),
    ("a=interval(1,99)", FloatDistribution(1.0, 99.0)),
    ("a=interval(0,1000)", FloatDistribution(0.0, 1000.0)),
    ("a=tag(linear,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2)),
    ("a=tag(log,interval(0.1,0.5))", FloatDistribution(0.1, 0.5, log=True)),
    ("a=int(interval(1,10))", IntDistribution(1, 10)),
    ("a=int(interval(1,256))", IntDistribution(1, 256, log=True)),
    ("a=tag(log,int(interval(2,64)))", IntDistribution(2, 64, log=True)),
    ("a=range(1,10,2)", IntDistribution(1, 9, step=2)),
    ("a=range(3)", IntDistribution(0, 2)),
    ("a=range(10,1,-3)", IntDistribution(4, 10, step=3)),
    ("a=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ("a=tag(log,range(1,17))", IntDistribution(1, 16, log=True)),
    ("a=choice(x,y)", CategoricalDistribution(["x", "y"])),
    ("a=x,y,x", CategoricalDistribution(["x", "y"])),
    ("a=null,0.1", CategoricalDistribution(["null", "0.1"])),
    ("a=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
]


@pytest.mark.parametrize(("text", "distribution"), SPACES)
def test_spaces_are_written_as_hydra_writes_them(text: str, distribution: object):
    fixed, (parameter,) = parse_space([text])
    assert parameter.distribution == distribution
    assert (fixed, parameter.name, parameter.text) == ([], "a", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=interval(5,1)", r"a=interval\(5,1\): it ends at 1, below its start 5. Write interval\(1,5\)"),
        ("a=tag(log,interval(0,1))", "0 has no logarithm. Start above 0"),
        ("a=tag(log,range(0,5))", "0 has no logarithm"),
        ("a=interval(nan,1)", "two finite ends"),
        ("a=glob(*)", r"takes no glob. Name what to choose from: choice\(a,b\)"),
        ("a=range(5,1)", "holds no number: it starts at 5 and stops before 1"),
        ("a=range(1,5,0)", "its step is 0"),
        ("a=tag(log,range(1,17,2))", "on a log scale there are no steps"),
        ("a=tag(logarithmic,interval(1,2))", "has the tags logarithmic: it takes one of log, linear"),
        ("a=tag(log,choice(1,2))", "a choice has no scale"),
    ],
)
def test_what_is_no_space_is_said_in_words(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_space([text])


def test_what_is_not_searched_is_the_same_in_every_trial():
    fixed, space = parse_space(["data=nih", "+model.a='x y'", "~callbacks.heatmaps", "++b=1,2"])
    assert fixed == ["data=nih", "+model.a='x y'", "~callbacks.heatmaps"]
    assert [(one.name, one.override("2")) for one in space] == [("b", "++b=2")]


def test_a_space_of_yaml_gives_way_to_the_command_line():
    params = {"lr": "interval(0,1)", "seed": 3, "size": [32, 64], "model": "choice(a,b)"}
    fixed, space = parse_space(["lr=0.5", "seed=1,2"], params)
    assert fixed == ["lr=0.5"]
    assert [(one.name, one.text) for one in space] == [
        ("size", "size=choice(32,64)"),
        ("model", "model=choice(a,b)"),
        ("seed", "seed=1,2"),
    ]


def test_values_of_an_interval_have_four_digits_and_stay_inside():
    _, (lr, size, step) = parse_space(
        ["lr=interval(0.12344,0.98765)", "n=int(interval(1,9))", "s=range(0.1,0.5,0.1)"]
    )
    assert lr.override(0.2222222) == "lr=0.2222"
    assert lr.override(0.12344) == "lr=0.12344"
    assert lr.override(0.98765) == "lr=0.98765"
    assert size.override(4) == "n=4"
    assert step.override(0.1 + 2 * 0.1) == "s=0.3"


def test_a_grid_has_every_value_and_an_interval_has_none():
    _, space = parse_space(["a=x,y", "b=range(1,8,3)", "c=range(0.1,0.4,0.1)", "d=interval(0,1)"])
    assert space[0].grid() == ["x", "y"]
    assert space[1].grid() == [1, 4, 7]
    assert space[2].grid() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match=r"d=interval\(0,1\): an interval has no grid"):
        space[3].grid()


def _search_jobs() -> ModuleType:
    """The module beside this one, which processes of their own import too."""
    spec = importlib.util.spec_from_file_location("search_jobs", Path(__file__).with_name("search_jobs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["search_jobs"] = module
    spec.loader.exec_module(module)
    return module


search_jobs = _search_jobs()
Jobs, bowl, plan, searched = (getattr(search_jobs, name) for name in ("Jobs", "bowl", "plan", "searched"))


def table(study: Study) -> list[tuple[int, str, dict[str, Any], float | None]]:
    return [(trial.number, trial.state.name, trial.params, trial.value) for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_finds_what_is_best(tmp_path: Path, sampler: str):
    launcher, study = searched(plan(tmp_path, sampler=sampler, n_trials=25))
    assert [number for number, _ in launcher.ran] == list(range(25))
    assert all(values["seed"] == "3" for _, values in launcher.ran)
    assert study.best_value > 0.98
    # What ran is what the study knows, to four digits.
    number, values = launcher.ran[7]
    assert float(values["lr"]) == pytest.approx(study.trials[number].params["lr"], rel=1e-3)
    assert study.trials[7].user_attrs["seconds"] == 2.0


def test_a_sampler_that_learns_beats_chance(tmp_path: Path):
    chosen = {}
    for sampler in ("tpe", "random"):
        _, study = searched(plan(tmp_path / sampler, sampler=sampler, n_trials=26))
        chosen[sampler] = [abs(trial.params["lr"] - 0.3) for trial in study.trials[13:]]
    assert sum(chosen["tpe"]) < 0.5 * sum(chosen["random"])


def test_a_grid_tries_each_combination_once_and_no_more(tmp_path: Path):
    grid = plan(tmp_path, "lr=range(0.1,0.4,0.1)", "size=32,64", sampler="grid", n_trials=50)
    launcher, _ = searched(grid)
    pairs = [(values["lr"], values["size"]) for _, values in launcher.ran]
    assert sorted(pairs) == sorted(itertools.product(("0.1", "0.2", "0.3"), ("32", "64")))


def test_the_seed_decides(tmp_path: Path):
    def lrs(folder: str, seed: int) -> list[float]:
        _, study = searched(plan(tmp_path / folder, sampler="random", seed=seed, n_trials=4))
        return [trial.params["lr"] for trial in study.trials]

    assert lrs("a", 1) == lrs("b", 1)
    assert lrs("a", 1) != lrs("c", 2)


def test_a_trial_that_fails_is_told_and_survived(tmp_path: Path):
    def objective(number: int, values: dict[str, str]) -> float | BaseException:
        return (
            UserError("no such thing")
            if number == 1
            else float("nan")
            if number == 2
            else bowl(number, values)
        )

    _, study = searched(plan(tmp_path, n_trials=4), objective)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "no such thing"
    assert study.trials[2].user_attrs["error"] == "its val/auroc is nan"


def test_what_does_not_compose_fails_alone(tmp_path: Path):
    class Picky(Jobs):
        def launch(self, job_overrides, initial_job_idx):
            if initial_job_idx == 1:
                raise ConfigCompositionException("lr and size do not go together")
            return super().launch(job_overrides, initial_job_idx)

    _, study = searched(plan(tmp_path, n_trials=3), launcher=Picky(tmp_path, bowl))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "do not go together" in study.trials[1].user_attrs["error"]


def test_what_no_trial_can_be_run_with_ends_the_search_and_costs_no_trial(tmp_path: Path):
    class NoPartition(Jobs):
        def launch(self, job_overrides, initial_job_idx):
            raise ConfigError("no such partition")

    with pytest.raises(ConfigError, match="no such partition"):
        searched(plan(tmp_path, n_trials=3), launcher=NoPartition(tmp_path, bowl))
    launcher, study = searched(plan(tmp_path, n_trials=3))
    assert [number for number, _ in launcher.ran] == [0, 1, 2]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


def test_a_search_waits_for_its_jobs():
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "hydra_plugins.x.Slurm", "wait": False}}})
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.wait=false"):
        launcher_of({"n_jobs": 1}, None, None, config)


def killed_after(tmp_path: Path, plan: Plan, number: int) -> None:
    """Search until a process is killed while a trial is at work."""

    class Killed(BaseException):
        pass

    def objective(job: int, values: dict[str, str]) -> float:
        if job == number:
            raise Killed
        return bowl(job, values)

    with pytest.raises(Killed):
        searched(plan, objective)
    # The process of a killed search is not this one.
    journal = plan.sweep_dir / JOURNAL
    journal.write_text(journal.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194304'))


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_an_interrupted_search_ends_as_an_undisturbed_one(tmp_path: Path, sampler: str):
    space = (
        ("lr=range(0.05,1,0.05)", "size=32,64") if sampler == "grid" else ("lr=interval(0,1)", "size=32,64")
    )
    _, undisturbed = searched(plan(tmp_path / "whole", *space, sampler=sampler, n_trials=16))
    cut = plan(tmp_path / "cut", *space, sampler=sampler, n_trials=16)
    killed_after(tmp_path, cut, 12)
    again, study = searched(cut)
    assert [number for number, _ in again.ran] == [12, 13, 14, 15]
    assert table(study) == table(undisturbed)


def test_what_a_dead_process_did_not_tell_is_told_from_the_row(tmp_path: Path):
    cut = plan(tmp_path, n_trials=4)
    killed_after(tmp_path, cut, 2)
    Jobs(tmp_path, bowl).row(2, 0.75)  # the job ended after the search was killed
    again, study = searched(cut)
    assert [number for number, _ in again.ran] == [3]
    assert study.trials[2].value == 0.75


def test_more_trials_go_on_with_the_old_ones(tmp_path: Path):
    searched(plan(tmp_path, n_trials=3))
    again, _ = searched(plan(tmp_path, n_trials=5))
    assert [number for number, _ in again.ran] == [3, 4]
    nothing, _ = searched(plan(tmp_path, n_trials=5))
    assert nothing.ran == []


def test_a_study_is_not_gone_on_with_for_something_else(tmp_path: Path):
    study = plan(tmp_path).study(open_storage(None, tmp_path))
    record = {"monitor_mode": "max", "space": ["lr=interval(0,1)"], "settings": ["seed=1"]}
    check_same_search(study, record)
    check_same_search(study, record)
    with pytest.raises(ConfigError, match=r"begun with space lr=interval\(0,1\), not lr=interval\(0,2\)"):
        check_same_search(study, record | {"space": ["lr=interval(0,2)"]})
    with pytest.raises(ConfigError, match="is of monitor_mode=max, this search of monitor_mode=min"):
        check_same_search(study, record | {"monitor_mode": "min"})


def test_several_trials_at_the_same_time(tmp_path: Path):
    together = threading.Barrier(2, timeout=300)

    def objective(number: int, values: dict[str, str]) -> float:
        together.wait()  # is passed by two at a time only
        return bowl(number, values)

    launcher, study = searched(plan(tmp_path, sampler="random", n_trials=6, n_jobs=2), objective)
    assert sorted(number for number, _ in launcher.ran) == list(range(6))
    _, one_by_one = searched(plan(tmp_path / "other", sampler="random", n_trials=6))
    assert table(study) == table(one_by_one)


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from search_jobs import plan, searched
launcher, _ = searched(plan(Path({folder!r}), sampler="random", n_trials=12, join=True, storage={storage!r}))
print(*(number for number, _ in launcher.ran))
"""


@pytest.mark.slow
@pytest.mark.parametrize("has_url", [False, True])
def test_two_processes_work_at_one_study(tmp_path: Path, has_url: bool):
    if has_url:
        pytest.importorskip("sqlalchemy")
    storage = f"sqlite:///{tmp_path}/study.db" if has_url else None
    code = WORKER.format(tests=str(Path(__file__).parent), folder=str(tmp_path), storage=storage)
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ran = [process.communicate(timeout=300)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(int(number) for numbers in ran for number in numbers) == list(range(12))
    _, alone = searched(plan(tmp_path / "alone", sampler="random", n_trials=12))
    study = plan(tmp_path, storage=storage).study(open_storage(storage, tmp_path))
    assert table(study) == table(alone)


def test_a_rung_keeps_the_best_third():
    trials = [
        create_trial(state=TrialState.COMPLETE, value=value) for value in (0.5, 0.9, 0.7, 0.9, 0.1, 0.2)
    ] + [create_trial(state=TrialState.FAIL)]
    for number, trial in enumerate(trials):
        trial.number = number
    assert [trial.number for trial in promoted(trials, 1 / 3, mode="max")] == [1, 3, 2]
    assert [trial.number for trial in promoted(trials, 1 / 3, mode="min")] == [4, 5, 0]
    assert promoted(trials[-1:], 1 / 3, mode="max") == []


RUNGS = [{"epochs": 1, "fraction": 0.1}, {"epochs": 3, "fraction": 0.3}, {"epochs": 9, "fraction": 1}]


def of_rungs(number: int, values: dict[str, str]) -> float:
    return bowl(number, values) - 1 / int(values["epochs"])


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_halving_runs_the_best_again_with_more(tmp_path: Path, n_jobs: int):
    halving = plan(tmp_path, sampler="random", pruner="none", n_trials=9, rungs=RUNGS, n_jobs=n_jobs)
    launcher, study = searched(halving, of_rungs)
    ran = dict(sorted(launcher.ran))
    assert [values["epochs"] for values in ran.values()] == ["1"] * 9 + ["3"] * 3 + ["9"]
    order = sorted(range(9), key=lambda number: -of_rungs(number, ran[number]))
    assert [study.trials[number].user_attrs["source"] for number in (9, 10, 11)] == order[:3]
    assert [ran[9][key] for key in ("lr", "size")] == [ran[order[0]][key] for key in ("lr", "size")]
    assert study.trials[12].user_attrs == study.trials[12].user_attrs | {"rung": 2, "source": 9}
    result = read_result(halving, study)
    assert result.best is not None
    assert (result.best.number, result.best.rung) == (12, 2)
    assert len(result.parameters) == 2
    assert sum(one.importance or 0 for one in result.parameters) == pytest.approx(1)


def test_halving_ends_where_a_trial_of_a_rung_was_cut_off(tmp_path: Path):
    class CutOff(Jobs):
        def launch(self, job_overrides, initial_job_idx):
            if initial_job_idx != 1:
                return super().launch(job_overrides, initial_job_idx)
            self.row(1, "interrupted", job_overrides[0])
            result = JobReturn(status=JobStatus.FAILED)
            result._return_value = UserError("Job 1 interrupted: killed by SIGKILL")
            return [result]

    halving = plan(tmp_path, sampler="random", pruner="none", n_trials=3, rungs=RUNGS)
    launcher, _ = searched(halving, launcher=CutOff(tmp_path, of_rungs))
    assert [number for number, _ in launcher.ran] == [0, 2]  # and no later rung before it is known


def test_halving_goes_on_where_it_was_killed(tmp_path: Path):
    def halving(folder: str) -> Plan:
        return plan(tmp_path / folder, sampler="random", pruner="none", n_trials=6, rungs=RUNGS, keep=0.5)

    _, undisturbed = searched(halving("whole"))
    killed_after(tmp_path, halving("cut"), 7)
    again, study = searched(halving("cut"))
    assert [number for number, _ in again.ran] == [7, 8, 9, 10]
    assert table(study) == table(undisturbed)


def finished(study: Study, *curves: Sequence[float]) -> None:
    """Add completed trials with a metric after each epoch."""
    for curve in curves:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=max(curve), intermediate_values=dict(enumerate(curve))
            )
        )


class Training:
    """What the callback sees of a Lightning trainer."""

    is_global_zero, world_size, max_epochs = True, 1, 3

    def __init__(self) -> None:
        self.current_epoch = 0
        self.callback_metrics: dict[str, Tensor] = {}
        self.error = JobPruned("")

    def run(self, callback: Pruning, curve: Sequence[float], start: int = 0) -> int | None:
        """Return after which epoch the training was pruned; None where it was not."""
        callback.on_fit_start(self, None)
        for epoch, value in enumerate(curve, start):
            self.current_epoch = epoch
            for _ in range(2):
                callback.on_train_batch_end(self, None, None, {"index": torch.arange(5)}, 0)
            self.callback_metrics[MONITOR] = torch.tensor(value, dtype=torch.float64)
            try:
                callback.on_train_epoch_end(self, None)
            except JobPruned as error:
                self.error = error
                return epoch
        return None


def with_pruner(tmp_path: Path, pruner: str, **options: object) -> Study:
    study = plan(tmp_path).study(open_storage(None, tmp_path))
    study.set_user_attr("pruning", {"pruner": pruner, "pruner_options": options, "max_epochs": 3})
    finished(study, (0.5, 0.6, 0.8), (0.7, 0.7, 0.7), (0.4, 0.9, 0.9))
    return study


@pytest.mark.parametrize(
    ("curve", "pruned_after"),
    [
        # Medians of the three: 0.5, 0.7 and 0.8. What counts is a trial's best epoch so far.
        ((0.49, 0.9, 0.9), 0),
        ((0.5, 0.69, 0.9), 1),
        ((0.75, 0.1, 0.79), 2),
        ((0.5, 0.7, 0.8), None),
        ((0.81, 0.1, 0.1), None),
    ],
)
def test_a_trial_below_the_median_of_the_others_is_pruned(tmp_path: Path, curve, pruned_after):
    study = with_pruner(tmp_path, "median", n_startup_trials=3)
    number = study.ask().number
    callback = Pruning(sweep_dir=str(tmp_path), study="search", trial=number, monitor=MONITOR)
    training = Training()
    assert training.run(callback, curve) == pruned_after
    num_epochs = 3 if pruned_after is None else pruned_after + 1
    if pruned_after is not None:
        assert str(training.error) == f"pruned after epoch {num_epochs}"
        assert training.error.metric == max(curve[:num_epochs])
    trial = study.trials[number]
    assert list(trial.intermediate_values.values()) == list(curve[:num_epochs])
    assert trial.user_attrs["images"] == 10 * num_epochs


def test_median_is_calculated_as_by_hand():
    """The medians of the test above, by another library."""
    curves = np.array([(0.5, 0.6, 0.8), (0.7, 0.7, 0.7), (0.4, 0.9, 0.9)])
    best_so_far = np.maximum.accumulate(curves, axis=1)
    assert np.median(curves, axis=0).tolist() == [0.5, 0.7, 0.8]
    assert np.median(best_so_far, axis=0).tolist() == [0.5, 0.7, 0.8]


def test_without_a_pruner_epochs_are_reported_and_nothing_is_pruned(tmp_path: Path):
    study = with_pruner(tmp_path, "none")
    number = study.ask().number
    callback = Pruning(sweep_dir=str(tmp_path), study="search", trial=number, monitor=MONITOR)
    assert Training().run(callback, (0.1, 0.1, 0.1)) is None
    assert len(study.trials[number].intermediate_values) == 3


def test_an_interrupted_training_reports_no_epoch_twice(tmp_path: Path):
    study = with_pruner(tmp_path, "none")
    number = study.ask().number
    callback = Pruning(sweep_dir=str(tmp_path), study="search", trial=number, monitor=MONITOR)
    Training().run(callback, (0.5, 0.6))
    state = {"num_images": 10}  # of last.ckpt after the first epoch
    journal = (tmp_path / JOURNAL).read_text().count("intermediate_value")
    resumed = Pruning(sweep_dir=str(tmp_path), study="search", trial=number, monitor=MONITOR)
    resumed.load_state_dict(state)
    Training().run(resumed, (0.6, 0.7), start=1)
    assert study.trials[number].intermediate_values == {0: 0.5, 1: 0.6, 2: 0.7}
    assert (tmp_path / JOURNAL).read_text().count("intermediate_value") == journal + 1
    assert study.trials[number].user_attrs["images"] == 30
    assert resumed.state_dict() == {"num_images": 30}


def test_a_trial_that_has_ended_is_not_told_of_again(tmp_path: Path):
    study = with_pruner(tmp_path, "median")
    callback = Pruning(sweep_dir=str(tmp_path), study="search", trial=0, monitor=MONITOR)
    assert Training().run(callback, (0.0, 0.0, 0.0)) is None
    assert study.trials[0].intermediate_values == {0: 0.5, 1: 0.6, 2: 0.8}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": "cmaes"}, "hydra.sweeper.sampler=cmaes must be one of tpe, random, grid"),
        ({"pruner": "mean"}, "hydra.sweeper.pruner=mean must be one of median, hyperband"),
        ({"n_trials": 0}, "hydra.sweeper.n_trials=0 must be at least 1"),
        ({"n_trials": 2.5}, "hydra.sweeper.n_trials=2.5 must be a whole number"),
        ({"timeout": 0}, "hydra.sweeper.timeout=0 must be above 0, in minutes"),
        ({"keep": 3}, "hydra.sweeper.keep=3 must lie between 0 and 1"),
        ({"rungs": ["data.fraction=0.1"]}, "must be a list of mappings"),
    ],
)
def test_settings_that_do_not_fit_are_said_in_words(settings: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        SearchSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"sampler_options": {"n_startup": 3}},
            "sampler_options.n_startup is no option of TPESampler, which takes .*n_startup_trials",
        ),
        ({"pruner_options": {"n_min_trials": -1}}, "pruner_options={'n_min_trials': -1} does not fit: "),
        ({"pruner": "none", "pruner_options": {"a": 1}}, "pruner_options.a is no option of NopPruner"),
        ({"storage": "nosuch://x"}, "hydra.sweeper.storage cannot be opened"),
    ],
)
def test_options_of_optuna_that_do_not_fit_are_said_in_words(tmp_path: Path, settings, words):
    with pytest.raises(ConfigError, match=words):
        searched(plan(tmp_path, n_trials=2, **settings))


def test_the_best_trial_becomes_an_experiment():
    overrides = [
        "experiment=transfer", "model=vgg_like", "optimizer.lr=0.01", "data.labels=[A,'B C']", "~callbacks.heatmaps",
        "++model.options.rate=0.1", "data.root='/a b'", "debug=null",
    ]  # fmt: skip
    text, left = experiment_yaml(overrides, {"model", "debug", "experiment"}.__contains__)
    assert left == ["~callbacks.heatmaps"]
    assert yaml.safe_load(text) == {
        "defaults": ["transfer", "_self_", {"override /model": "vgg_like"}, {"override /debug": None}],
        "optimizer": {"lr": 0.01},
        "data": {"labels": ["A", "B C"], "root": "/a b"},
        "model": {"options": {"rate": 0.1}},
    }


def test_the_files_of_a_search(tmp_path: Path, composed):
    def objective(number: int, values: dict[str, str]) -> float | BaseException:
        return UserError("no such thing") if number == 2 else bowl(number, {"lr": values["optimizer.lr"]})

    search = plan(tmp_path, "optimizer.lr=interval(1e-3,1)", "model=vgg_like,resnet10t", "seed=3", n_trials=6)
    _, study = searched(search, objective)
    result = read_result(search, study)
    write_results(result, search, lambda key: key == "model")
    table = pd.read_csv(tmp_path / "trials.csv")
    assert table["state"].tolist() == ["completed"] * 2 + ["failed"] + ["completed"] * 3
    assert table["seconds"].sum() == result.seconds == 12.0
    best = result.best
    assert best is not None
    assert best.value == table["value"].max()
    page = (tmp_path / "search.html").read_text()
    assert f"The best is trial {best.number}" in page
    assert "1 trial failed" in page
    assert "no such thing" in page
    comment = (tmp_path / "experiment" / "best.yaml").read_text()
    assert f"# val/auroc {best.value:.4f} on validation" in comment
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(
            "train",
            overrides=["experiment=best", f"hydra.searchpath=[file://{tmp_path}]"],
        )
    assert (cfg.seed, cfg.optimizer.lr) == (3, best.parameters["optimizer.lr"])
    assert cfg.model == composed(f"model={best.parameters['model']}").model


def test_no_radiograph_no_name_on_a_page_without_names(tmp_path: Path):
    search = plan(tmp_path, n_trials=2)
    _, study = searched(search)
    write_results(read_result(search, study), search, lambda key: False, images=False)
    page = (tmp_path / "search.html").read_text()
    assert str(tmp_path) not in page
    assert "<pre>" not in page


@pytest.mark.parametrize("option", ["optuna", "halving"])
def test_the_yaml_lists_the_defaults_of_the_signature(option: str):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[f"hydra/sweeper={option}"], return_hydra_config=True)
    node = OmegaConf.to_container(cfg.hydra.sweeper)
    assert node.pop("_target_") == "hydra_plugins.cxrlab_search.Search"
    assert cfg.hydra.launcher._target_ == "hydra_plugins.cxrlab_sweeps.Processes"
    settings = SearchSettings(**node)
    assert {field.name for field in fields(SearchSettings)} == set(node)
    if option == "optuna":
        assert settings == SearchSettings(rungs=[])
    else:
        assert (settings.sampler, len(settings.rungs)) == ("random", 3)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxrlab.train", "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["seed=1"],
            "There is nothing to search: give what may vary, such as 'optimizer.lr=interval(1e-5,1e-2)'",
        ),
        (["optimizer.lr=interval(1,0.1)"], "it ends at 0.1, below its start 1"),
        (["optimizer.lrr=interval(0,1)"], "optimizer.lrr"),
        (["model=resnet10t,nosuch"], "nosuch"),
        (["seed=1,2", "hydra.sweeper.sampler=best"], "hydra.sweeper.sampler=best must be one of"),
        (["seed=1,2", "hydra.sweeper.n_trial=2"], "n_trial"),
        (
            ["seed=1,2", "hydra/launcher=basic", "hydra.sweeper.n_jobs=2"],
            "n_jobs=2 with hydra/launcher=basic",
        ),
        (["seed=1,2", "hydra.sweeper.join=true"], "hydra.sweeper.join=true: which search?"),
    ],
)
@pytest.mark.slow
def test_a_slip_is_said_before_the_first_trial(tmp_path: Path, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("hydra/sweeper=optuna", *arguments)
    assert done.returncode == 1
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_help_knows_nothing_of_optuna():
    code = "import sys\nfrom cxrlab.train import main\ntry:\n    main()\nfinally:\n    print('IMPORTED', 'optuna' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "IMPORTED False False" in done.stdout


@pytest.mark.slow
def test_a_missing_package_is_named(tmp_path: Path):
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('optuna')")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "cxrlab.train", "-m", "hydra/sweeper=optuna", "seed=1,2"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "A search needs the package optuna: pip install 'cxrlab[sweeps]'." in done.stderr
    assert "Traceback" not in done.stderr


def test_two_workers_search_trainings_and_go_on(tmp_path: Path, tiny_command: list[str], monkeypatch):
    """Pruned, failed and completed trials of real trainings; then more of them, by resume_sweep."""
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "sweep"
    done = run(
        *tiny_command, "trainer.max_epochs=2", "optimizer.lr=interval(1e-5,1e-2)", "data.batch_size=16,1000000",
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler=random",
        "hydra.sweeper.pruner_options={n_startup_trials: 1}", "loss=bce,weighted_bce", f"hydra.sweep.dir={sweep}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    before = pd.read_csv(sweep / "trials.csv")
    assert len(before) == 4
    assert set(before["state"]) <= {"completed", "pruned"}
    assert (before["images"] > 0).all()
    rows = pd.read_csv(sweep / "sweep.csv")
    assert "callbacks.pruning" not in " ".join([*rows.columns, *rows["overrides"]])
    assert set(rows["status"]) <= {"completed", "pruned"}
    assert not list(sweep.glob("*/predictions/test.csv"))
    done = run(f"resume_sweep={sweep}", "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr + done.stdout
    after = pd.read_csv(sweep / "trials.csv")
    pd.testing.assert_frame_equal(after[:4], before, check_dtype=False)
    assert len(after) == 5


def test_jobs_of_a_search_that_goes_on_lie_in_its_folder(tmp_path: Path, monkeypatch):
    """Hydra composes the config of each job anew, without ``resume_sweep``."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        arguments = ["hydra/sweeper=optuna", "resume_sweep=outputs/mine", "hydra.job.chdir=false"]
        loader = GlobalHydra.instance().hydra.config_loader
        cfg = loader.load_configuration("train", arguments, run_mode=RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=None)
        launcher_of({"n_jobs": 2}, context, print, cfg)
        job = loader.load_sweep_config(cfg, ["seed=1"])
    assert job.hydra.sweep.dir == str(tmp_path / "outputs" / "mine")
    assert cfg.hydra.launcher.workers == 2


def test_what_a_search_ended_is_not_to_be_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("")
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    interruption = Interruption(run_dir=str(tmp_path))
    interruption.on_exception(trainer, pl.LightningModule(), JobPruned("pruned after epoch 3", 0.5))
    assert "Resume with" not in caplog.text
    interruption.on_exception(trainer, pl.LightningModule(), UserError("no memory"))
    assert "Resume with" in caplog.text
