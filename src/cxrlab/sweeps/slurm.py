"""Runs the jobs of a sweep on a cluster with SLURM: one array of it, submitted by submitit.

SLURM starts :class:`cxrlab.sweeps.slurm_task.Task` of each. Here jobs are submitted, and waited for by what
the queue says: many clusters keep no accounting, without which submitit waits for a lost job for ever.
"""

import contextlib
import io
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.claims import forget_claim
from cxrlab.errors import ConfigError, check_range
from cxrlab.files import write_text
from cxrlab.sweeps.callback import SweepTable
from cxrlab.sweeps.jobs import DONE, Job, job_return, mark, read_row
from cxrlab.sweeps.processes import ending_of, is_done, prepared_job, short_titles
from cxrlab.sweeps.slurm_task import Task, queue_states, requeue

log = logging.getLogger(__name__)

# States that a job leaves by a requeue only. Others: https://slurm.schedmd.com/job_state_codes.html
_STATUS_OF_STATE = {
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "preempted",
    "TIMEOUT": "preempted",
    "BOOT_FAIL": "interrupted",
    "CANCELLED": "interrupted",
    "DEADLINE": "interrupted",
    "NODE_FAIL": "interrupted",
}
_ENDED = frozenset((*_STATUS_OF_STATE, "COMPLETED", "FAILED", "REVOKED"))


@dataclass(frozen=True)
class SlurmSettings:
    """Settings of ``hydra/launcher=slurm``, see ``conf/hydra/launcher/slurm.yaml``.

    Attributes:
        workers: Jobs that run at the same time.
        wait: Wait for the jobs' end, instead of submitting them only.
        poll_s: Seconds from one look at the queue to the next.
        name: What the queue calls the jobs.
        partition: SLURM's; None, here and below, for what the cluster gives by itself.
        account: SLURM's.
        qos: SLURM's.
        minutes: Time limit of one start of a job.
        nodes: Machines of a job.
        tasks_per_node: Processes of a training on each.
        gpus_per_node: GPUs on each.
        cpus_per_task: Cores of each process.
        mem_gb: Memory on each node.
        constraint: Features that a node must have.
        additional_parameters: Other options of sbatch, by their long names.
        setup: Lines of shell that each job begins with.
        signal_delay_s: Seconds before the time limit at which a training is told.
        max_requeues: How often a job may have been started again where it is queued again after that.

    Raises:
        ConfigError: If a number is out of its range.
    """

    workers: int = 16
    wait: bool = True
    poll_s: float = 30
    name: str = "cxrlab"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: int | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    constraint: str | None = None
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)
    setup: Sequence[str] = ()
    signal_delay_s: int = 120
    max_requeues: int = 100

    def __post_init__(self) -> None:
        least = {"poll_s": 0.1, "gpus_per_node": 0, "mem_gb": 0, "signal_delay_s": 0, "max_requeues": 0}
        for name in ("workers", "minutes", "nodes", "tasks_per_node", "cpus_per_task", *least):
            check_range(f"hydra.launcher.{name}", getattr(self, name), least.get(name, 1))

    @classmethod
    def of_config(cls, node: Mapping[str, Any]) -> "SlurmSettings":
        """Return the settings of ``hydra.launcher``.

        Raises:
            ConfigError: Naming a key that there is not, or a value that does not fit.
        """
        from cxrlab.cli.validation import check_value

        values: dict[str, Any] = {
            key: OmegaConf.to_container(one) if OmegaConf.is_config(one) else one for key, one in node.items()
        }
        hints = get_type_hints(cls)
        for key, value in values.items():
            if key not in hints:
                raise ConfigError(
                    f"hydra.launcher.{key}={value} is no setting of hydra/launcher=slurm. Other options of "
                    f"sbatch: hydra.launcher.additional_parameters={{{key}: {value}}}."
                )
            check_value(value, hints[key], f"hydra.launcher.{key}")
        return cls(**values)

    @property
    def num_tasks(self) -> int:
        """Processes of one job."""
        return self.nodes * self.tasks_per_node

    def of_submitit(self) -> dict[str, Any]:
        """Return them by the names of ``submitit.SlurmExecutor``."""
        srun = ["--kill-on-bad-exit=1"]  # a training without one of its processes would wait for it for ever
        if self.cpus_per_task is not None:
            srun.append(f"--cpus-per-task={self.cpus_per_task}")  # since 22.05 srun does not take sbatch's
        optional = {
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": self.gpus_per_node,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
            "setup": list(self.setup) or None,
            "additional_parameters": dict(self.additional_parameters) or None,
        }
        names = ("partition", "account", "qos", "constraint")
        optional |= {name: getattr(self, name) for name in names}
        return {name: value for name, value in optional.items() if value is not None} | {
            "job_name": self.name,
            "time": self.minutes,  # None too, or submitit asks for five minutes
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "array_parallelism": self.workers,
            "signal_delay_s": self.signal_delay_s,
            "srun_args": srun,
            "wckey": None,
        }


def accounted_state(slurm_id: str) -> str:
    """Return the state in which a job ended, as the cluster's accounting has it; empty without one."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={slurm_id}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(answer.split()), "")  # CANCELLED by 1000


class SlurmJobs:
    """Submits the jobs of a sweep, all that are submitted together as one array, and waits for them.

    Jobs that the sweep's table has as done are left alone, those that wait or run in SLURM's queue since an
    earlier command are waited for, those that were cut off go on, and those that failed are run anew.

    Args:
        settings: Resources, and how to wait.
        hydra_context: Of the sweep.
        config: Of the sweep.

    Raises:
        ConfigError: If SLURM or submitit is not here.
    """

    def __init__(self, settings: SlurmSettings, hydra_context: HydraContext, config: DictConfig) -> None:
        for program in ("sbatch", "srun"):
            if shutil.which(program) is None:
                raise ConfigError(
                    f"hydra/launcher=slurm: there is no {program} on this machine's PATH. Start the sweep "
                    "where SLURM's commands are, on a login node; hydra/launcher=processes runs it here."
                )
        _import_submitit()
        self.settings = settings
        self._context, self._config = hydra_context, config
        self._is_stopped = threading.Event()
        self._submitting = threading.Lock()  # Hydra has one config at a time, and this process one stderr
        self._open: dict[str, Job] = {}
        self._requeued: Counter[str] = Counter()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Submit jobs, and return once all have ended, or at once without ``wait``; from any thread.

        Args:
            job_overrides: What each job sets.
            initial_job_idx: Number of the first.

        Returns:
            The metric of each, or why it has none; without ``wait`` None of those that are not done.

        Raises:
            ConfigError: If SLURM refuses them, in its words, or one has other settings in the sweep's table.
        """
        numbered = [(initial_job_idx + n, list(words)) for n, words in enumerate(job_overrides)]
        with self._submitting:
            queued = self._still_queued([number for number, _ in numbered])
            jobs = [self._prepared(words, number, is_queued=number in queued) for number, words in numbered]
            found = {queued[job.number]: job for job in jobs if job.number in queued}
            waiting = [job for job in jobs if job.number not in queued and not is_done(job)]
            opened = found | self._submit(waiting)
        if not self.settings.wait:
            SweepTable.is_open = True
            self._say_how_to_go_on(jobs, opened)
        else:
            self._wait_for(opened, jobs)
        return [self._returned(job) for job in jobs]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Cancel the jobs that are not done, and submit no others.

        Args:
            number: The signal that stops the sweep; SLURM sends its own.
        """
        self._is_stopped.set()
        if opened := sorted(self._open):
            with contextlib.suppress(OSError):
                subprocess.run(["scancel", *opened], capture_output=True, check=False)

    def _sweep_dir(self) -> Path:
        return Path(str(self._config.hydra.sweep.dir)).absolute()

    def _prepared(self, overrides: list[str], number: int, *, is_queued: bool) -> Job:
        sweep_dir = self._sweep_dir()
        if not is_queued and read_id(sweep_dir, number):
            known = sweep_dir / ".jobs" / f"{number}.command.json"
            if known.is_file():  # SLURM has ended it, on whatever machine
                forget_claim(Job.load(sweep_dir, number).path)
        self._check_tasks(overrides)
        return prepared_job(self._context, self._config, overrides, number, is_at_work=is_queued)

    def _check_tasks(self, overrides: list[str]) -> None:
        """Refuse a training that has not one process for each of SLURM's tasks.

        Raises:
            ConfigError: Naming both numbers.
        """
        trainer = self._context.config_loader.load_sweep_config(self._config, overrides).trainer
        nodes, devices = trainer.get("num_nodes") or 1, trainer.get("devices")
        if self.settings.num_tasks == 1 and nodes == 1:
            return  # one task may train on several devices: Lightning starts the other processes
        wanted = {"nodes": (nodes, "num_nodes"), "tasks_per_node": (devices, "devices")}
        for key, (value, name) in wanted.items():
            own = getattr(self.settings, key)
            if isinstance(value, int) and value > 0 and value != own:
                raise ConfigError(
                    f"hydra.launcher.{key}={own} with trainer.{name}={value}: SLURM starts one process "
                    "a device. Give both the same number."
                )

    def _still_queued(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return the jobs that wait or run since an earlier command; those that are ending are waited for."""
        ids = {number: read_id(self._sweep_dir(), number) for number in numbers}
        known = {number: slurm_id for number, slurm_id in ids.items() if slurm_id}
        while known:
            states = self._states()
            ending = [number for number, slurm_id in known.items() if states.get(slurm_id) == "COMPLETING"]
            if not ending:
                return {
                    number: slurm_id
                    for number, slurm_id in known.items()
                    if states.get(slurm_id, "COMPLETED") not in _ENDED
                }
            log.info("Waiting for %d jobs of before that SLURM is ending.", len(ending))
            self._is_stopped.wait(min(self.settings.poll_s, 5))
        return {}

    def _states(self) -> dict[str, str]:
        states = queue_states()
        if states is None:
            raise ConfigError(
                "hydra/launcher=slurm: squeue does not answer, so it cannot be seen which jobs of this sweep "
                "are still at work. Try again when it does."
            )
        return states

    def _submit(self, jobs: Sequence[Job]) -> dict[str, Job]:
        """Submit jobs, and return them by SLURM's ids."""
        if not jobs or self._is_stopped.is_set():
            return {}
        submitit = _import_submitit()
        folder = jobs[0].sweep_dir / ".slurm"
        tasks = [Task(job.sweep_dir, job.number, self.settings.max_requeues) for job in jobs]
        for job in jobs:
            mark(job.sweep_dir, job.number, "waiting")
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**self.settings.of_submitit())
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints sbatch's words too
                submitted = executor.submit_array(tasks)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            words = " ".join(line.removeprefix("sbatch: error: ") for line in str(error).strip().splitlines())
            raise ConfigError(
                f"SLURM does not take the jobs: {words} Change hydra.launcher.<option>."
            ) from error
        opened = {str(handle.job_id): job for handle, job in zip(submitted, jobs, strict=True)}
        for slurm_id, job in opened.items():
            write_text(_id_path(job.sweep_dir, job.number), slurm_id)
        log.info(
            "SLURM has %d jobs as %s; %d at once.",
            len(jobs),
            _shown(opened),
            min(len(jobs), self.settings.workers),
        )
        return opened

    def _say_how_to_go_on(self, jobs: Sequence[Job], opened: Mapping[str, Job]) -> None:
        log.info(
            "%d of %d jobs are done, the others in SLURM's queue, which squeue shows. Wait for them, run "
            "again what failed, and see the table with: cxrlab train -m resume_sweep=%s",
            len(jobs) - len(opened), len(jobs), self._sweep_dir(),
        )  # fmt: skip

    def _wait_for(self, opened: Mapping[str, Job], jobs: Sequence[Job]) -> None:
        self._open |= opened
        left = dict(opened)
        titles = short_titles(jobs)
        ended_once: Counter[str] = Counter()
        shown, is_silent = "", False
        try:
            while left and not self._is_stopped.is_set():
                states = queue_states()
                if states is None:
                    if not is_silent:
                        log.warning(
                            "squeue does not answer; it is asked again every %g s.", self.settings.poll_s
                        )
                    is_silent = True
                else:
                    is_silent = False
                    for slurm_id in [
                        one for one in left if self._has_ended(one, left[one], states, ended_once)
                    ]:
                        job = left.pop(slurm_id)
                        self._open.pop(slurm_id, None)
                        self._say_end(job, titles[job.number], len(jobs) - len(left), len(jobs))
                    line = _progress(left, states, len(jobs))
                    if left and len(jobs) > 1 and line != shown:
                        log.info("%s", line)
                        shown = line
                if left:
                    self._is_stopped.wait(self.settings.poll_s)
        except (KeyboardInterrupt, SystemExit):
            self.stop()
            SweepTable.is_open = True  # they write their own ends
            log.warning(
                "\nThe %d jobs that were not done are cancelled; those at work write a checkpoint first. "
                "Go on with: cxrlab train -m resume_sweep=%s",
                len(left), self._sweep_dir(),
            )  # fmt: skip
            raise

    def _say_end(self, job: Job, title: str, number: int, num_jobs: int) -> None:
        row = read_row(job.sweep_dir, job.number)
        if num_jobs > 1 and row is not None:
            log.info("%s %s (%d of %d)", title, ending_of(row), number, num_jobs)

    def _has_ended(
        self, slurm_id: str, job: Job, states: Mapping[str, str], ended_once: Counter[str]
    ) -> bool:
        """Tell whether a job has come to its end, and write down how where it could not itself.

        SLURM may show a state that ends a job for a moment before it queues that job again: it is believed
        the second time.
        """
        row = read_row(job.sweep_dir, job.number)
        if row is not None and row["status"] in (*DONE, "failed"):
            return True
        state = states.get(slurm_id, "")
        if state and state not in _ENDED:
            ended_once[slurm_id] = 0
            return False
        ended_once[slurm_id] += 1
        if ended_once[slurm_id] < 2:
            return False
        state = state or accounted_state(slurm_id)
        if state == "PREEMPTED" and self._requeued[slurm_id] < self.settings.max_requeues:
            self._requeued[slurm_id] += 1
            if not requeue(slurm_id):
                return False
        _mark_lost(job, row, slurm_id, state)
        return True

    def _returned(self, job: Job) -> JobReturn:
        row = read_row(job.sweep_dir, job.number) or {"status": "waiting", "error": ""}
        if not self.settings.wait and row["status"] not in (*DONE, "failed"):
            result = JobReturn(overrides=job.overrides, working_dir=str(job.path))
            result.status, result._return_value = JobStatus.COMPLETED, None
            return result
        return job_return(job, row)


def _import_submitit() -> Any:
    """Import submitit, without its handlers of the log: it would close those that are there.

    Raises:
        ConfigError: If it is not installed.
    """
    before = os.environ.get("SUBMITIT_LOG_LEVEL")
    os.environ["SUBMITIT_LOG_LEVEL"] = before or "NOCONFIG"
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'cxrlab[sweeps]'") from error
    finally:
        if before is None:
            del os.environ["SUBMITIT_LOG_LEVEL"]
    return submitit


def _id_path(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / ".slurm" / f"{number}.id"


def read_id(sweep_dir: Path, number: int) -> str:
    """Return SLURM's id of a job of a sweep; empty where it was not submitted."""
    path = _id_path(sweep_dir, number)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _shown(ids: Mapping[str, Job]) -> str:
    return ", ".join(sorted({slurm_id.partition("_")[0] for slurm_id in ids}))


def _progress(left: Mapping[str, Job], states: Mapping[str, str], num_jobs: int) -> str:
    of_left = Counter(states.get(slurm_id, "gone") for slurm_id in left)
    waiting = of_left.pop("PENDING", 0)
    return (
        f"{num_jobs - len(left)} of {num_jobs} done, {sum(of_left.values())} running, {waiting} in the queue"
    )


def _mark_lost(job: Job, row: Mapping[str, Any] | None, slurm_id: str, state: str) -> None:
    """Write down how a job ended that could not write it, or not all of it."""
    known = row is not None and row["status"] in ("preempted", "interrupted")
    status = _STATUS_OF_STATE.get(state) or (str(row["status"]) if row is not None and known else "failed")
    words = [str(row["error"])] if row is not None and known and row["error"] else []
    if state in _STATUS_OF_STATE or not known:
        words.append(f"SLURM: {state or 'no longer known'} ({slurm_id})")
    if status == "failed" and state != "OUT_OF_MEMORY":
        words.append(f"see {job.log} and {job.sweep_dir / '.slurm'}")
    mark(job.sweep_dir, job.number, status, "; ".join(words))
