"""A run of Weights & Biases."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only

from cxrlab.errors import ConfigError, MissingPackageError
from cxrlab.training.trackers.tracker import Status, Tracker, one_line


class WandbTracker(Tracker):
    """A run of Weights & Biases.

    It gets settings, metrics and files, and nothing that W&B would find out by itself: neither the command
    and what it prints, which name folders and patients, nor the host, git and the code.

    Args:
        run_dir: The run directory, which gets W&B's own files in ``wandb/``.
        project: Of the runs.
        entity: Of whom the project is; None for the account's default.
        name: Of the run; None for the last two parts of its folder.
        mode: ``online`` or ``offline``; None for what ``WANDB_MODE`` says, else online.
        files: Whether the run gets files.

    Raises:
        MissingPackageError: If W&B is not installed.
        ConfigError: If it is online and nobody has logged in, or it cannot be reached.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        project: str = "cxrlab",
        entity: str | None = None,
        name: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        files: bool = True,
    ) -> None:
        super().__init__("wandb", run_dir=run_dir, title=name, files=files)
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                "logger=wandb needs the package wandb: pip install 'cxrlab[wandb]'."
            ) from error
        self.project, self.entity = project, entity
        self.mode = mode or os.environ.get("WANDB_MODE", "online")
        self._run: Any = None
        if self.mode == "online":
            _log_in()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``wandb.Run``, for callbacks of one's own; started where it is not."""
        self.start()
        return self._run

    def _start(self, run_id: str | None) -> str:
        import wandb

        run_id = run_id or secrets.token_hex(4)
        self.run_dir.path.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.title,
            id=run_id,
            resume="allow",
            mode=self.mode,  # type: ignore[arg-type]  # what WANDB_MODE may say, wandb checks
            dir=self.run_dir.path,
            reinit="create_new",  # a job of a sweep is a run of its own
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                silent=True,
                symlink=False,
                x_disable_meta=True,
                x_disable_machine_info=True,
                host="",
            ),
        )
        self._remove_links()
        self._run.define_metric("*", step_metric="trainer/global_step")
        return str(self._run.id)

    def _log_settings(self, settings: dict[str, Any]) -> None:
        self._run.config.update(settings, allow_val_change=True)

    def _log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._run.log({**metrics, "trainer/global_step": step})

    def _add_file(self, path: Path) -> None:
        copy = Path(self._run.dir) / path.name
        shutil.copyfile(path, copy)
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def _close(self, status: Status) -> None:
        self._run.finish(exit_code={"finished": 0, "failed": 1, "stopped": 130}[status])
        self._remove_links()

    def _remove_links(self) -> None:
        """Remove W&B's links to its log in the person's cache: a resume accepts none that leads out."""
        for path in (self.run_dir.path / "wandb").rglob("*"):
            if path.is_symlink():
                path.unlink()


@rank_zero_only
def _log_in() -> None:
    """Log in before hours are spent; on a terminal W&B asks for the key."""
    import wandb

    try:
        wandb.login()
    except wandb.Error as error:
        raise ConfigError(
            f"logger=wandb: Weights & Biases cannot be logged in to ({one_line(error)}). Run wandb login, or "
            "set logger.wandb.mode=offline; wandb sync sends such a run later."
        ) from error
