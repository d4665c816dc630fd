"""metrics.csv: one row an epoch, kept when a run is resumed."""

from pathlib import Path
from typing import Any

import pandas as pd
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from cxrlab.data.manifest import read_csv
from cxrlab.files import reading, write_text

_REMEDY = (
    "Bring it back from a copy, or rename it: the run goes on with a new one, without the curves of its "
    "first epochs."
)

_NOT_OF_EPOCHS = {"epoch", "train/loss_step"}


class MetricsTable(Logger):
    """A Lightning logger that writes one row an epoch.

    Lightning's own CSV logger writes a row at every call, so that training and validation stand in different
    rows, and deletes the rows of the run that is resumed.

    Args:
        path: The CSV file. Rows that it already holds are kept; an epoch that runs again replaces its row.
    """

    has_rows_of_epochs = True

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, dict[str, object]] = {}
        if self.path.is_file():
            rows = read_csv(self.path, _REMEDY).to_dict("records")
            with reading(self.path, _REMEDY):
                self._rows = {int(row["epoch"]): {str(name): row[name] for name in row} for row in rows}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """A run directory holds one version."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Leave the config to .hydra/."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of their epoch; the latest value of a name stays."""
        if "epoch" not in metrics:
            return
        epoch = int(metrics["epoch"])
        if metrics.keys() <= _NOT_OF_EPOCHS:
            return
        row = self._rows.setdefault(epoch, {"epoch": epoch})
        of_epoch = {name: value for name, value in metrics.items() if name not in _NOT_OF_EPOCHS}
        row["step"] = step
        row.update(of_epoch)

    @rank_zero_only
    def save(self) -> None:
        """Write the table, replacing the file in one step."""
        if not self._rows:
            return
        table = pd.DataFrame([self._rows[epoch] for epoch in sorted(self._rows)])
        write_text(self.path, table.to_csv(index=False))
