"""A finished run, read back: model, labels, config, tables and data. Needs no Hydra."""

import pickle
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml
from torch import Tensor

from cxrlab.data.datamodule import DataModule
from cxrlab.data.decode import decode
from cxrlab.data.manifest import read_table
from cxrlab.errors import CheckpointError, ConfigError, DataError, MissingFileError
from cxrlab.files import RunDir, read_json
from cxrlab.metrics.predictions import DataFacts, prediction_columns
from cxrlab.runs.predict import predict_images
from cxrlab.runs.run_data import build_data, run_facts
from cxrlab.training.module import Classifier


def load_classifier(path: Path | str, device: str = "cpu", trust: Sequence[str] = ()) -> Classifier:
    """Load a classifier in eval mode from a checkpoint; no code in the file is run.

    Args:
        path: The checkpoint.
        device: Where it goes.
        trust: Packages besides cxrlab whose networks may be built.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is cut short, belongs to another program, or does not fit its own network.
        ConfigError: If its network is of a package that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"There is no checkpoint {path}. Was an epoch finished, and is this a run directory?"
        )
    try:
        return Classifier.load_from_checkpoint(path, map_location=device, trust=trust)
    except (CheckpointError, ConfigError):
        raise
    except (
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be loaded: it is cut short, no checkpoint of "
            f"cxrlab, or of another architecture than it says. {type(error).__name__}: {str(error)[:300]}"
        ) from error


class Run:
    """A run directory, and the model that it trained.

    Args:
        run_dir: The folder that a training wrote, such as ``outputs/2026-01-31/12-00-00``.
        model: Its classifier, in eval mode.
        trust: Packages besides cxrlab whose readers, splits, filters and augmentations may be built again.
        data: Its data, prepared, where they are at hand; else they are built from its config when they are
            needed.

    Attributes:
        files: Where each file of the run stands.
    """

    def __init__(
        self, run_dir: Path, model: Classifier, *, trust: Sequence[str] = (), data: DataModule | None = None
    ) -> None:
        self.files = RunDir(run_dir)
        self.model = model
        self.trust = tuple(trust)
        self._data: dict[Path | str | None, DataModule] = {} if data is None else {None: data}

    @property
    def run_dir(self) -> Path:
        """The folder."""
        return self.files.path

    def __repr__(self) -> str:
        return f"Run({str(self.run_dir)!r}, labels={self.labels})"

    @property
    def labels(self) -> list[str]:
        """Names of the outputs."""
        return list(self.model.labels)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config, references followed."""
        loaded: dict[str, Any] = yaml.safe_load(
            self._existing(self.files.resolved_config).read_text(encoding="utf-8")
        )
        return loaded

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Every image with the part it was given."""
        return read_table(self._existing(self.files.manifest))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Learning curves: one row an epoch."""
        return pd.read_csv(self._existing(self.files.metrics))

    @cached_property
    def results(self) -> pd.DataFrame:
        """The best checkpoint's metrics by part and label."""
        return pd.read_csv(self._existing(self.files.results))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The numbers of ``evaluation.json``, with their intervals: ``["labels"][<label>]["auroc"]``."""
        return read_json(self._existing(self.files.evaluation))

    @property
    def facts(self) -> DataFacts:
        """What it was trained and tested on."""
        data = self._data.get(None)
        if data is not None:
            manifest = data.manifest
            return DataFacts(manifest.name, data.split.method, manifest.fingerprint(), manifest.negative)
        return run_facts(self.files)

    @property
    def thresholds(self) -> dict[str, float]:
        """Where each label is predicted positive, chosen on validation; NaN where none could be chosen."""
        return dict(zip(self.labels, self.model.operating_point.thresholds.tolist(), strict=True))

    def predictions(self, part: str) -> pd.DataFrame:
        """Return the predictions table of ``val`` or ``test``."""
        if part not in ("val", "test"):
            raise ConfigError(f"There are predictions of the parts val and test, not of {part!r}.")
        return read_table(self._existing(self.files.predictions(part)))

    def _existing(self, path: Path) -> Path:
        if not path.is_file():
            raise MissingFileError(
                f"The run {self.run_dir} has no {path.relative_to(self.run_dir)}; did it finish?"
            )
        return path

    def data(self, root: Path | str | None = None) -> DataModule:
        """Return the data that it was trained on, prepared; read and decoded again where they must be.

        Args:
            root: Folder of the data, where it was moved; None for where it was.

        Raises:
            ConfigError: If its config names a reader, split, filter or augmentation that is neither of cxrlab
                nor of a trusted package.
            DataError: If the data are no longer those that it was trained on.
        """
        if root not in self._data:
            self._data[root] = self._built_data(root)
        return self._data[root]

    def _built_data(self, root: Path | str | None) -> DataModule:
        if not isinstance(self.config, dict) or not isinstance(self.config.get("data"), dict):
            raise ConfigError(f"{self.files.resolved_config} describes no data.")
        description = dict(self.config["data"]) | ({} if root is None else {"root": str(root)})
        data = build_data(description, trust=self.trust, source=f"The config of {self.run_dir}")
        manifest = data.prepare()
        trained_on = self.facts.fingerprint
        if trained_on is not None and manifest.fingerprint() != trained_on:
            raise DataError(
                f"The data below {manifest.root} are not those that {self.run_dir} was trained "
                f"on (fingerprint {manifest.fingerprint()} for {trained_on}), so its parts cannot be told. "
                "Bring them back as they were (root=<folder> where they were moved)."
            )
        return data

    def images(self, paths: Sequence[Path | str]) -> Tensor:
        """Decode image files as in training, uint8, shape ``(N, C, H, W)``.

        Raises:
            MissingFileError: If a file does not exist.
            DataError: If a file is no image.
        """
        shape = self.model.preprocess
        arrays = [
            decode(Path(path), image_size=shape.image_size, channels=shape.channels, resize=shape.resize)
            for path in paths
        ]
        return torch.from_numpy(np.stack(arrays))

    def predict(self, paths: Iterable[Path | str], *, batch_size: int = 32) -> pd.DataFrame:
        """Return one row an image file: ``image``, ``probability/<label>…`` and ``prediction/<label>…``.

        A prediction is 1 where the probability reaches the label's threshold, 0 elsewhere, and NaN where no
        threshold could be chosen.

        Args:
            paths: Image files of any size.
            batch_size: Images at a time.

        Raises:
            MissingFileError: If a file does not exist.
            DataError: If a file is no image.
        """
        files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        probabilities = predict_images(
            self.model,
            _DecodedFiles(self, files),
            range(len(files)),
            batch_size=batch_size,
            device=str(self.model.device),
            show_progress=False,
        )
        thresholds = self.model.operating_point.thresholds.double().cpu().numpy()
        columns = prediction_columns(self.labels, probabilities, thresholds=thresholds)
        return pd.DataFrame({"image": [str(path) for path in files], **columns})


class _DecodedFiles:
    """Image files by their place in a list, decoded when they are asked for."""

    def __init__(self, run: Run, files: Sequence[Path]) -> None:
        self.run = run
        self.files = files

    def __getitem__(self, rows: list[int]) -> npt.NDArray[np.uint8]:
        pixels: npt.NDArray[np.uint8] = self.run.images([self.files[row] for row in rows]).numpy()
        return pixels


def load_run(
    run_dir: Path | str, *, device: str = "cpu", checkpoint: str = "best", trust: Sequence[str] = ()
) -> Run:
    """Read a run directory back; nothing in it chooses what code runs.

    Args:
        run_dir: The folder that a training wrote.
        device: Where the model goes, such as ``cpu`` or ``cuda``.
        checkpoint: ``best`` (by the validation metric) or ``last``.
        trust: Packages besides cxrlab whose classes and functions may be built from the run's files, such as
            ``("my_lab",)``.

    Raises:
        MissingFileError: If the folder, or the checkpoint in it, does not exist.
        CheckpointError: If the checkpoint cannot be loaded.
        ConfigError: If its network is of a package that is not trusted.
    """
    folder = Path(run_dir).expanduser()
    if not folder.is_dir():
        raise MissingFileError(f"There is no run directory {folder}.")
    model = load_classifier(RunDir(folder).checkpoints / f"{checkpoint}.ckpt", device, trust)
    return Run(folder, model, trust=trust)
