"""The folder that ``cxrlab predict`` fills: rows as they come, so that a run that was killed goes on."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cxrlab.deploy.model import ImagePrediction, Model
from cxrlab.errors import ConfigError, DataError, OutputError, UserError
from cxrlab.files import read_json, write_json

TABLE, SETTINGS = "predictions.csv", "predict.json"
FEATURES, FEATURE_INDEX = "features.npy", "features.csv"
_DIGITS = 7  # what a probability in 32-bit precision has


@dataclass(frozen=True)
class PredictionSettings:
    """What decides which predictions stand in a folder.

    Attributes:
        model: Digits by which it is told from others.
        labels: Of the model.
        inputs: As they were named.
        views: Whose probabilities are averaged.
        on_unlike: What is done with images unlike those of the training.
        extras: What is written beside the table, such as ``heatmaps by gradcam``.
    """

    model: str
    labels: Sequence[str]
    inputs: Sequence[str]
    views: Sequence[str]
    on_unlike: str
    extras: Sequence[str] = ()

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {
            "model": self.model,
            "labels": list(self.labels),
            "inputs": list(self.inputs),
            "views": list(self.views),
            "on_unlike": self.on_unlike,
            "extras": list(self.extras),
        }


class PredictionFolder:
    """A folder of predictions, opened to be filled.

    Args:
        folder: It is made if it is not there.
        model: Whose predictions.
        settings: What decides them.
        num_features_rows: Rows of ``features.npy``, one a file; None where no features are wanted.

    Attributes:
        done: Files whose rows are there already, from a run that was cut off.
        counts: Rows by their status.

    Raises:
        ConfigError: If it holds other predictions, or finished ones.
        OutputError: If it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        settings: PredictionSettings,
        *,
        num_features_rows: int | None = None,
    ) -> None:
        self.folder, self._model, self._settings = folder, model, settings
        self._num_rows = num_features_rows
        self._features: npt.NDArray[np.float32] | None = None
        self.counts: Counter[str] = Counter()
        self.done: set[str] = set()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._check_owner()
            write_json(folder / SETTINGS, self._record(is_finished=False))
            self._resume()
            self._file = (folder / TABLE).open("a", encoding="utf-8", newline="")
            if not self._file.tell():
                self._write([model.columns])

    @property
    def table(self) -> Path:
        """The table of predictions."""
        return self.folder / TABLE

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the table."""
        self._file.close()

    def _record(self, *, is_finished: bool) -> dict[str, Any]:
        return {
            "settings": self._settings.plain(),
            "is_finished": is_finished,
            "counts": dict(self.counts),
            "model": self._model.record.plain(),
        }

    def _check_owner(self) -> None:
        path = self.folder / SETTINGS
        if not path.is_file():
            if (self.folder / TABLE).exists():
                raise ConfigError(
                    f"output={self.folder} holds a {TABLE} that is not of cxrlab predict: choose another "
                    "folder."
                )
            return
        kept = read_json(path)
        if kept.get("settings") != self._settings.plain():
            changed = _changed(kept.get("settings"), self._settings.plain())
            raise ConfigError(
                f"output={self.folder} holds other predictions ({changed} differ): choose another folder."
            )
        if kept.get("is_finished"):
            raise ConfigError(
                f"output={self.folder} holds these predictions already, to the end. Read {TABLE} there, or "
                "choose another folder to make them again."
            )

    def _resume(self) -> None:
        """Find the rows that were finished; what was cut off in the midst of one is taken away."""
        path = self.folder / TABLE
        if not path.is_file():
            return
        with path.open("rb+") as file:
            end = 0
            for line in file:  # a row is a line: no name holds a line end
                if not line.endswith(b"\n"):
                    break
                end += len(line)
            file.truncate(end)
        with path.open(encoding="utf-8", newline="") as text:
            rows = csv.reader(text)
            header = next(rows, None)
            if header is not None and header != self._model.columns:
                raise DataError(f"{path} has other columns than this model's: choose another output folder.")
            for row in rows:
                self.done.add(row[0])
                self.counts[row[1]] += 1

    def add(self, predictions: Iterable[ImagePrediction]) -> None:
        """Write rows, and have them on disk.

        Raises:
            OutputError: If the disk is full, say; what was written before is kept.
        """
        listed = list(predictions)
        with writing(self.folder):
            self._add_features(listed)
            self._write(self._cells(prediction) for prediction in listed)
        for prediction in listed:
            self.counts[prediction.status] += 1

    def _add_features(self, predictions: Sequence[ImagePrediction]) -> None:
        """Write features to the rows that the images have in the table; NaN where there are none."""
        if self._num_rows is None:
            return
        first = self.counts.total()
        for row, prediction in enumerate(predictions, start=first):
            if prediction.features is None:
                continue
            if self._features is None:
                self._features = self._open_features(len(prediction.features))
            self._features[row] = prediction.features

    def _open_features(self, size: int) -> npt.NDArray[np.float32]:
        path, shape = self.folder / FEATURES, (self._num_rows or 0, size)
        if path.is_file():
            kept: npt.NDArray[np.float32] = np.lib.format.open_memmap(path, mode="r+")
            if kept.shape != shape:
                raise DataError(
                    f"{path} has the shape {kept.shape}, where {shape} is needed: the input has other files "
                    "than before. Choose another output folder."
                )
            return kept
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        made[:] = np.nan
        return made

    def _cells(self, prediction: ImagePrediction) -> list[str]:
        cells = self._model.row(prediction)
        return [cell if isinstance(cell, str) else _number(cell) for cell in cells]

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue())
        self._file.flush()

    def finish(self) -> None:
        """Note that all rows are there.

        Raises:
            OutputError: If it cannot be written.
        """
        with writing(self.folder):
            if self._num_rows is not None:
                self._write_index()
            write_json(self.folder / SETTINGS, self._record(is_finished=True))

    def _write_index(self) -> None:
        """Say which row of the features is which file's."""
        with (self.folder / FEATURE_INDEX).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "file", "status"])
            writer.writerows([number, *row[:2]] for number, row in enumerate(read_rows(self.table)))


def read_rows(table: Path) -> Iterator[list[str]]:
    """Yield the rows of a table of predictions, without its header."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from rows


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.{_DIGITS}g}"


def _changed(kept: object, now: Mapping[str, Any]) -> str:
    """Return the names of settings that differ."""
    before = kept if isinstance(kept, Mapping) else {}
    return ", ".join(name for name, value in now.items() if before.get(name) != value)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a message.

    Args:
        folder: That it is in.

    Raises:
        OutputError: If the disk is full, say.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise OutputError(
            f"output={folder} cannot be written: {error.strerror or error}. What was written is kept: make "
            "room there, and the same command with this output= goes on."
        ) from error
