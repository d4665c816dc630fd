"""``hydra/sweeper=optuna`` and ``halving``: a search in the place of a grid.

Hydra imports this file for every command: what the class needs is imported once it is used.
"""

from collections.abc import Sequence
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Search(Sweeper):
    """A sweep whose jobs a sampler chooses; see :class:`cxrlab.sweeps.search_study.SearchSettings`."""

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the sweep's config, and prepare what runs its jobs."""
        from cxrlab.sweeps.search_sweeper import launcher_of

        self.hydra_context, self.config = hydra_context, config
        self.launcher = launcher_of(self.settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """Search."""
        from cxrlab.sweeps.search_sweeper import sweep

        sweep(self.settings, self.config, self.hydra_context, self.launcher, arguments)
        return []
