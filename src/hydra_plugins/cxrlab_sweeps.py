"""What cxrlab adds to Hydra, which takes launchers and sweepers from this package only.

Hydra imports this file for every command: what the classes need is imported once they are used.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from cxrlab.sweeps.processes import JobProcesses
    from cxrlab.sweeps.slurm import SlurmJobs


class Processes(Launcher):
    """``hydra/launcher=processes``, see :class:`cxrlab.sweeps.processes.JobProcesses`."""

    _jobs: "JobProcesses"

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the sweep's config."""
        from cxrlab.sweeps.processes import JobProcesses

        self._jobs = JobProcesses(self.workers, hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and return once all have ended."""
        return self._jobs.launch(job_overrides, initial_job_idx)

    def stop(self, number: int) -> None:
        """Send a signal to the jobs at work, and start no others."""
        self._jobs.stop(number)


class Slurm(Launcher):
    """``hydra/launcher=slurm``, see :class:`cxrlab.sweeps.slurm.SlurmJobs`."""

    _jobs: "SlurmJobs"

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the sweep's config."""
        from cxrlab.sweeps.slurm import SlurmJobs, SlurmSettings

        self._jobs = SlurmJobs(SlurmSettings.of_config(self.settings), hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit jobs, and return once all have ended."""
        return self._jobs.launch(job_overrides, initial_job_idx)

    def stop(self, number: int) -> None:
        """Cancel the jobs that are not done, and submit no others."""
        self._jobs.stop(number)
