"""Says what is kept and how to go on when training is stopped by Ctrl-C or an error."""

import logging
from pathlib import Path

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Callback

log = logging.getLogger(__name__)


class Interruption(Callback):
    """Logs where the last finished epoch's checkpoint is.

    Args:
        run_dir: The run directory.
    """

    def __init__(self, *, run_dir: str) -> None:
        self.run_dir = Path(run_dir)

    @rank_zero_only
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Tell the user; the exception goes on its way."""
        reason = "Ctrl-C" if isinstance(exception, KeyboardInterrupt) else type(exception).__name__
        last = self.run_dir / "checkpoints" / "last.ckpt"
        if not last.is_file():
            if isinstance(exception, KeyboardInterrupt):
                log.warning(
                    "\nStopped by Ctrl-C before an epoch was finished: there is nothing to go on from."
                )
            return
        log.warning(
            "\nStopped by %s. The last finished epoch is kept in %s. To go on: "
            "python -m cxrlab.train resume=%s",
            reason, last, self.run_dir,
        )  # fmt: skip
