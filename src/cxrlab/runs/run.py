"""A finished run, read back: model, labels, config and tables. Needs neither the data nor Hydra."""

import json
import pickle
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from cxrlab.data.decode import decode
from cxrlab.data.manifest import read_table
from cxrlab.errors import CheckpointError, ConfigError, MissingFileError
from cxrlab.training.module import Classifier


def load_classifier(path: Path | str, device: str = "cpu") -> Classifier:
    """Load a classifier in eval mode from a checkpoint; no code in the file is run.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is cut short, belongs to another program, or does not fit its own network.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"There is no checkpoint {path}. Was an epoch finished, and is this a run directory?"
        )
    try:
        return Classifier.load_from_checkpoint(path, map_location=device)
    except CheckpointError:
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
    """A run directory.

    Args:
        run_dir: The folder that a training wrote, such as ``outputs/2026-01-31/12-00-00``.
        device: Where the model goes.
        checkpoint: ``best`` or ``last``.
    """

    def __init__(self, run_dir: Path, device: str, checkpoint: str) -> None:
        self.run_dir = run_dir
        self.model = load_classifier(run_dir / "checkpoints" / f"{checkpoint}.ckpt", device)

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
            self._file(".hydra/resolved.yaml").read_text(encoding="utf-8")
        )
        return loaded

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Every image with the part it was given."""
        return read_table(self._file("manifest.csv"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Learning curves: one row an epoch."""
        return pd.read_csv(self._file("metrics.csv"))

    @cached_property
    def results(self) -> pd.DataFrame:
        """The best checkpoint's metrics by part and label."""
        return pd.read_csv(self._file("results.csv"))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The numbers of ``evaluation.json``, with their intervals: ``["labels"][<label>]["auroc"]``."""
        loaded: dict[str, Any] = json.loads(self._file("evaluation.json").read_text(encoding="utf-8"))
        return loaded

    @property
    def thresholds(self) -> dict[str, float]:
        """Where each label is predicted positive, chosen on validation; NaN where none could be chosen."""
        return dict(zip(self.labels, self.model.operating_point.thresholds.tolist(), strict=True))

    def predictions(self, part: str) -> pd.DataFrame:
        """Return the predictions table of ``val`` or ``test``."""
        if part not in ("val", "test"):
            raise ConfigError(f"There are predictions of the parts val and test, not of {part!r}.")
        return read_table(self._file(f"predictions/{part}.csv"))

    def _file(self, name: str) -> Path:
        path = self.run_dir / name
        if not path.is_file():
            raise MissingFileError(f"The run {self.run_dir} has no {name}; did it finish?")
        return path

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
        files = [paths] if isinstance(paths, (str, Path)) else list(paths)
        blocks = [torch.empty(0, len(self.labels))]
        for start in range(0, len(files), batch_size):
            images = self.images(files[start : start + batch_size]).to(self.model.device)
            with torch.inference_mode():
                blocks.append(self.model.predict_probabilities(images).cpu())
        probabilities, thresholds = torch.cat(blocks), self.model.operating_point.thresholds.cpu()
        called = torch.where(torch.isnan(thresholds), torch.nan, (probabilities >= thresholds).double())
        columns: dict[str, Any] = {"image": [str(path) for path in files]}
        for prefix, values in (("probability", probabilities), ("prediction", called)):
            columns |= {f"{prefix}/{x}": values[:, k].double().numpy() for k, x in enumerate(self.labels)}
        return pd.DataFrame(columns)

    def heatmaps(
        self,
        paths: Sequence[Path | str],
        label: str,
        *,
        method: str = "gradcam",
        layers: str | Sequence[str] = "auto",
        batch_size: int = 8,
    ) -> Tensor:
        """Return a heatmap of each image for one label: what speaks for the finding, and where.

        Args:
            paths: Image files of any size.
            label: One of ``labels``.
            method: ``gradcam``, ``gradcam++``, ``hirescam``, ``layercam`` or ``eigencam``; the command
                ``python -m cxrlab.explain`` has others.
            layers: See :func:`cxrlab.heatmaps.methods.layers.target_layers`.
            batch_size: Images at a time.

        Returns:
            Values in [0, 1], shape ``(N, H, W)``, H and W being the network's input size.

        Raises:
            ConfigError: If there is no such label, method or layer.
            MissingFileError: If a file does not exist.
            DataError: If a file is no image.
        """
        if label not in self.labels:
            raise ConfigError(f"The run {self.run_dir} has no label {label!r}; it has {self.labels}.")
        from cxrlab.heatmaps.methods.cam import activation_maps
        from cxrlab.heatmaps.settings import CAM_METHODS

        if method not in CAM_METHODS:
            raise ConfigError(
                f"method={method} is none of {', '.join(CAM_METHODS)}; python -m cxrlab.explain has others."
            )
        images = self.model.preprocess(self.images(paths).to(self.model.device))
        pairs = [(place, self.labels.index(label)) for place in range(len(images))]
        network = self.model.network
        return activation_maps(network, images, pairs, method=method, layers=layers, batch_size=batch_size)


def load_run(run_dir: Path | str, *, device: str = "cpu", checkpoint: str = "best") -> Run:
    """Read a run directory back.

    Args:
        run_dir: The folder that a training wrote.
        device: Where the model goes, such as ``cpu`` or ``cuda``.
        checkpoint: ``best`` (by the validation metric) or ``last``.

    Raises:
        MissingFileError: If the folder, or the checkpoint in it, does not exist.
        CheckpointError: If the checkpoint cannot be loaded.
    """
    folder = Path(run_dir).expanduser()
    if not folder.is_dir():
        raise MissingFileError(f"There is no run directory {folder}.")
    return Run(folder, device, checkpoint)
