"""A search: trials are asked from a study, run as jobs of a sweep, and told to the study.

Every process of a search does the same, so that several work at one study: what a process that died had begun
is run again under its number, then new trials, up to the number that is wanted.
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cxrlab.cli.claims import Owner, user_of
from cxrlab.cli.console import message
from cxrlab.errors import UserError
from cxrlab.sweeps.jobs import DONE, JobPruned, read_row
from cxrlab.sweeps.search_space import as_overrides
from cxrlab.sweeps.search_study import LOCK, SearchSettings, num_grid_points, open_study, pruning_override

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from cxrlab.sweeps.search_space import Parameter

log = logging.getLogger(__name__)

_SECONDS_TO_LOOK_AGAIN = 2.0


class JobLauncher(Protocol):
    """What runs the jobs: a launcher of Hydra."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and return once all have ended."""


@dataclass(frozen=True)
class Plan:
    """What is searched, and where.

    Attributes:
        sweep_dir: The sweep's folder, absolute.
        fixed: Overrides of every trial.
        space: What is chosen.
        settings: Of the search.
        monitor: Name of the metric.
        mode: ``max`` or ``min``.
        max_epochs: Of a training; None where not known.
        is_first: Whether this process has the folder for itself, but for those that join it: it takes over
            what processes of other machines left.
    """

    sweep_dir: Path
    fixed: tuple[str, ...]
    space: tuple["Parameter", ...]
    settings: SearchSettings
    monitor: str = "val/auroc"
    mode: str = "max"
    max_epochs: int | None = None
    is_first: bool = True

    @property
    def num_trials(self) -> int:
        """Trials that are wanted; of a grid no more than it has."""
        wanted = self.settings.n_trials
        return min(wanted, num_grid_points(self.space)) if self.settings.sampler == "grid" else wanted

    def overrides(self, params: Mapping[str, Any], rung: int | None = None) -> list[str]:
        """Return what a trial sets, without what tells it of the study.

        Args:
            params: Values that the sampler chose, by name.
            rung: Of a successive halving.
        """
        chosen = [parameter.override(params[parameter.name]) for parameter in self.space]
        of_rung = as_overrides(self.settings.rungs[rung]) if rung is not None else []
        return [*self.fixed, *chosen, *of_rung]

    def study(self, storage: "BaseStorage") -> "Study":
        """Open the study."""
        return open_study(self.settings, storage, self.space, mode=self.mode, max_epochs=self.max_epochs)


class Search:
    """The process's part in a search.

    Args:
        plan: What is searched.
        storage: Of the study.
        launcher: What runs a trial's job; called from several threads where ``n_jobs`` is above 1.
    """

    def __init__(self, plan: Plan, storage: "BaseStorage", launcher: JobLauncher) -> None:
        self.plan, self.storage, self.launcher = plan, storage, launcher
        self.cut_off: list[int] = []
        self._owner = Owner.of_this_process()
        self._at_work: set[int] = set()
        self._is_stopped = threading.Event()
        self._end = math.inf
        study = plan.study(storage)
        self._found = {trial.number for trial in study.get_trials(deepcopy=False) if _is_open(trial)}

    def run(self) -> None:
        """Run trials until as many have ended as are wanted, or the time is up.

        Raises:
            KeyboardInterrupt: Where Ctrl-C stops it; trials at work stay open in the study.
            SystemExit: Where SIGTERM does.
        """
        if self.plan.settings.timeout is not None:
            self._end = time.monotonic() + 60 * self.plan.settings.timeout
        if self.plan.settings.n_jobs == 1:
            self._work()
            return
        with ThreadPoolExecutor(self.plan.settings.n_jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(self.plan.settings.n_jobs)]
            try:
                wait(workers)
            except (KeyboardInterrupt, SystemExit) as stop:
                self._is_stopped.set()
                number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
                getattr(self.launcher, "stop", lambda number: None)(number)
                raise
        for worker in workers:
            worker.result()

    def _work(self) -> None:
        """Run one trial after another."""
        study = self.plan.study(self.storage)  # of each thread its own, for the sampler's sake
        try:
            while (task := self._next(study)) is not None:
                self._run(study, *task)
        except BaseException:
            self._is_stopped.set()  # the other threads end after the trials that they are at
            raise

    def _next(self, study: "Study") -> "tuple[Trial, list[str]] | None":
        """Return the next trial with its overrides; None where there is none for this process."""
        while not self._is_stopped.is_set() and time.monotonic() < self._end:
            with FileLock(self.plan.sweep_dir / LOCK):
                trial, is_to_come = self._claimed(study)
                if trial is not None:
                    self._at_work.add(trial.number)
                    trial.set_user_attr("worker", asdict(self._owner))
                    for parameter in self.plan.space:
                        parameter.suggest(trial)
                    return trial, self.plan.overrides(trial.params, trial.user_attrs.get("rung"))
            if not is_to_come:
                return None
            self._is_stopped.wait(_SECONDS_TO_LOOK_AGAIN)
        return None

    def _claimed(self, study: "Study") -> "tuple[Trial | None, bool]":
        """Return a trial for this process, or whether there may be one later."""
        import optuna

        is_to_come = False
        for frozen in study.get_trials(deepcopy=False):
            if not _is_open(frozen) or not self._is_left(frozen):
                continue
            row = read_row(self.plan.sweep_dir, frozen.number) or {}
            if user_of(self.plan.sweep_dir / str(row.get("folder") or frozen.number)) is not None:
                is_to_come = True  # its job goes on without the process that started it
            elif row.get("status") in (*DONE, "failed"):
                self._tell_row(study, frozen.number, row)
            else:
                return optuna.Trial(study, frozen._trial_id), True
        trial, is_rung_open = self._new(study)
        return trial, is_to_come or is_rung_open

    def _is_left(self, trial: "FrozenTrial") -> bool:
        """Tell whether no process is at a trial any more."""
        worker = trial.user_attrs.get("worker")
        if worker is None:  # killed before it said so: it would have held the lock
            return True
        owner = Owner(**worker)
        if owner == self._owner or (owner.pid, owner.start) == (self._owner.pid, self._owner.start):
            return trial.number not in self._at_work and trial.number not in self.cut_off
        if owner.is_dead():
            return True
        return self.plan.is_first and trial.number in self._found and not owner.is_here()

    def _new(self, study: "Study") -> "tuple[Trial | None, bool]":
        """Return a new trial where one is wanted, and whether one may be wanted later."""
        trials = study.get_trials(deepcopy=False)
        if any(trial.state.name == "WAITING" for trial in trials):
            return study.ask(), True
        if not self.plan.settings.rungs:
            return (study.ask(), True) if len(trials) < self.plan.num_trials else (None, False)
        wanted: list[FrozenTrial | None] = [None] * self.plan.num_trials
        for rung in range(len(self.plan.settings.rungs)):
            here = [trial for trial in trials if trial.user_attrs.get("rung", 0) == rung]
            if len(here) < len(wanted):
                return self._of_rung(study, rung, wanted[len(here)]), True
            if left := [trial.number for trial in here if _is_open(trial)]:
                return None, any(number not in self.cut_off for number in left)
            wanted = list(promoted(here, self.plan.settings.keep, mode=self.plan.mode))
        return None, False

    def _of_rung(self, study: "Study", rung: int, source: "FrozenTrial | None") -> "Trial":
        if source is None:
            trial = study.ask()
            trial.set_user_attr("rung", rung)
            return trial
        study.enqueue_trial(source.params, user_attrs={"rung": rung, "source": source.number})
        return study.ask()

    def _run(self, study: "Study", trial: "Trial", overrides: list[str]) -> None:
        """Run a trial's job, and tell the study how it ended."""
        number = trial.number
        pruning = pruning_override(self.plan.settings, self.plan.sweep_dir, number)
        chosen = overrides[len(self.plan.fixed) :]
        wanted = max(self.plan.num_trials, len(study.get_trials(deepcopy=False)))
        log.info("Trial %d (%d of %d): %s", number, number + 1, wanted, " ".join(chosen))
        started = time.monotonic()
        try:
            (result,) = self.launcher.launch([[*overrides, pruning]], number)
        except UserError:  # of the launcher, such as a partition that there is not: no trial can be run
            self.cut_off.append(number)
            raise
        except (HydraException, OmegaConfBaseException) as error:  # it does not even compose
            result = JobReturn(status=JobStatus.FAILED)
            result._return_value = UserError(message(error))
        row = read_row(self.plan.sweep_dir, number) or {}
        if result.status is JobStatus.COMPLETED:
            row = row | {"status": "completed", "metric": result._return_value}
        elif isinstance(result._return_value, JobPruned):
            row = row | {"status": "pruned"}
        elif row.get("status") not in ("interrupted", "preempted", "waiting", "running"):
            row = row | {"status": "failed", "error": str(row.get("error") or result._return_value)}
        row = {"seconds": round(time.monotonic() - started, 1)} | row
        if row["status"] in (*DONE, "failed"):
            self._tell_row(study, number, row)
            self._at_work.discard(number)
        else:
            self.cut_off.append(number)

    def _tell_row(self, study: "Study", number: int, row: Mapping[str, Any]) -> None:
        """Tell the study how a trial's job ended."""
        from optuna.trial import TrialState

        status, metric, error = row["status"], row.get("metric"), str(row.get("error") or "")
        if status == "completed" and not (isinstance(metric, float | int) and math.isfinite(metric)):
            status, error = "failed", f"its {self.plan.monitor} is {metric}"
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        self.storage.set_trial_user_attr(trial_id, "seconds", row.get("seconds"))
        if status == "failed":
            self.storage.set_trial_user_attr(trial_id, "error", error)
        with suppress(ValueError):  # another process was faster
            if status == "completed":
                study.tell(number, float(metric or 0.0))
            else:
                study.tell(number, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL)
        value = f": {self.plan.monitor} {metric:.4f}" if isinstance(metric, float) else ""
        log.info("Trial %d %s%s%s", number, status, value, f": {error}" if status == "failed" else "")


def promoted(trials: Sequence["FrozenTrial"], keep: float, *, mode: str) -> list["FrozenTrial"]:
    """Return the trials of a rung that go on to the next one, the best first.

    Args:
        trials: All of the rung, finished. Those that failed or were pruned do not go on.
        keep: Share of the rung's trials that goes on, rounded up: at least one.
        mode: ``max`` or ``min``.
    """
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    sign = -1 if mode == "max" else 1
    completed.sort(key=lambda trial: (sign * float(trial.value or 0.0), trial.number))
    return completed[: math.ceil(round(keep * len(trials), 6))]


def _is_open(trial: "FrozenTrial") -> bool:
    return not trial.state.is_finished() and trial.state.name != "WAITING"
