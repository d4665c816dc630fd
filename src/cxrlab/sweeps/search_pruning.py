"""What a trial's training tells the search: its metric after each epoch, and how many images it has seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from cxrlab.sweeps.jobs import JobPruned
from cxrlab.sweeps.search_study import build_pruner, open_storage

if TYPE_CHECKING:
    from optuna import Study, Trial


class Pruning(Callback):
    """Reports the monitored metric of each epoch to the study, and ends the training where that prunes it.

    Of a trial that the study has as finished, as of one that is resumed by hand later, nothing is reported.
    An epoch that was reported before the training was interrupted is not reported again.

    Args:
        sweep_dir: The sweep's folder, which holds the study where there is no other storage.
        study: Its name.
        trial: The trial's number.
        storage: URL of Optuna, or None.
        monitor: Name of the metric.

    Raises:
        JobPruned: After the epoch at which the trial is pruned.
    """

    def __init__(
        self,
        *,
        sweep_dir: str,
        study: str,
        trial: int,
        storage: str | None = None,
        monitor: str = "val/auroc",
    ) -> None:
        self.sweep_dir, self.study, self.number = Path(sweep_dir), study, trial
        self.storage, self.monitor = storage, monitor
        self.num_images = 0
        self._trial: Trial | None = None
        self._best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training counts on from."""
        return {"num_images": self.num_images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.num_images = int(state_dict["num_images"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the trial in the study."""
        if trainer.is_global_zero:
            self._trial = _running_trial(self, trainer.max_epochs)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the batch."""
        self.num_images += len(batch["index"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch, and end the training where the study prunes it."""
        value = trainer.callback_metrics.get(self.monitor)
        is_pruned = False
        if self._trial is not None and value is not None:
            is_pruned = self._report(float(value), trainer.current_epoch)
        if trainer.world_size > 1:
            is_pruned = trainer.strategy.broadcast(is_pruned)
        if is_pruned:
            raise JobPruned(f"pruned after epoch {trainer.current_epoch + 1}", self._best)

    def _report(self, value: float, epoch: int) -> bool:
        """Report an epoch's metric, and tell whether the study prunes the trial."""
        from optuna.study import StudyDirection

        trial = self._trial
        if trial is None:
            return False
        study: Study = trial.study
        known = study.trials[trial.number].intermediate_values
        if epoch not in known:
            trial.report(value, epoch)
        trial.set_user_attr("images", self.num_images)
        best = max if study.direction is StudyDirection.MAXIMIZE else min
        values = [number for number in [*known.values(), value] if number == number]
        self._best = best(values) if values else None
        return trial.should_prune()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Note the images of an epoch that did not come to its end."""
        if self._trial is not None and not isinstance(exception, JobPruned):
            self._trial.set_user_attr("images", self.num_images)


def _running_trial(callback: Pruning, max_epochs: int | None) -> "Trial | None":
    """Return the trial in the study; None where it has ended there already.

    Raises:
        ConfigError: If the storage cannot be opened.
    """
    storage = open_storage(callback.storage, callback.sweep_dir)
    import optuna

    study = optuna.load_study(
        study_name=callback.study,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(),  # it chooses nothing here
    )
    frozen = study.trials[callback.number]
    if frozen.state.is_finished():
        return None
    settings = study.user_attrs.get("pruning", {})
    study.pruner = build_pruner(
        settings.get("pruner", "none"),
        settings.get("pruner_options", {}),
        settings.get("max_epochs") or max_epochs,
    )
    return optuna.Trial(study, frozen._trial_id)
