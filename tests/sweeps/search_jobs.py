"""A search without trainings: its jobs are calls of a function."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from optuna import Study

from cxrlab.sweeps.jobs import JobPruned
from cxrlab.sweeps.search import Plan, Search
from cxrlab.sweeps.search_space import parse_space
from cxrlab.sweeps.search_study import PRUNING, SearchSettings, open_storage
from cxrlab.sweeps.table import add_job


class Jobs:
    """A launcher whose jobs are calls of a function, with the rows that the sweep's callback would write."""

    def __init__(
        self, sweep_dir: Path, objective: Callable[[int, dict[str, str]], float | BaseException]
    ) -> None:
        self.sweep_dir, self.objective = sweep_dir, objective
        self.ran: list[tuple[int, dict[str, str]]] = []
        self.is_killed = False

    def launch(self, job_overrides, initial_job_idx):
        returns = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            values = dict(word.split("=", 1) for word in overrides if not word.startswith(PRUNING))
            self.ran.append((number, values))
            result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            outcome = self.objective(number, values)
            if isinstance(outcome, BaseException):
                result.status = JobStatus.FAILED
            result._return_value = outcome
            self.row(number, outcome, overrides)
            returns.append(result)
        return returns

    def row(self, number: int, outcome: float | BaseException | str, overrides: Sequence[str] = ()) -> None:
        is_number = isinstance(outcome, float)
        status = "completed" if is_number else "pruned" if isinstance(outcome, JobPruned) else "failed"
        row = {
            "job": number,
            "status": outcome if isinstance(outcome, str) else status,
            "metric": outcome if is_number else None,
            "seconds": 2.0,
            "overrides": " ".join(overrides),
            "error": str(outcome) if isinstance(outcome, BaseException) else "",
            "folder": str(number),
        }
        add_job(self.sweep_dir / "sweep.csv", row, maximize=True)


def bowl(number: int, values: dict[str, str]) -> float:
    """Best at lr=0.3 and size=32."""
    return 1 - (float(values["lr"]) - 0.3) ** 2 - (0.1 if values.get("size") == "64" else 0)


def plan(sweep_dir: Path, *space: str, **settings: Any) -> Plan:
    fixed, parameters = parse_space(space or ("seed=3", "lr=interval(0,1)", "size=32,64"))
    return Plan(sweep_dir, tuple(fixed), tuple(parameters), SearchSettings(**settings))


def searched(plan: Plan, objective: Callable = bowl, launcher: Jobs | None = None) -> tuple[Jobs, Study]:
    launcher = launcher or Jobs(plan.sweep_dir, objective)
    storage = open_storage(plan.settings.storage, plan.sweep_dir)
    Search(plan, storage, launcher).run()
    return launcher, plan.study(storage)
