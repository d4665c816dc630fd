"""A finished run, read back: model, labels, config, tables and data. Needs no Hydra."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from cxrlab.data.datamodule import DataModule
from cxrlab.data.decode import decode
from cxrlab.data.manifest import LABEL, read_csv, read_table
from cxrlab.errors import CheckpointError, ConfigError, DataError, MissingFileError
from cxrlab.files import RunDir, read_json, read_yaml
from cxrlab.metrics.predictions import DataFacts, prediction_columns
from cxrlab.runs.features import embed_images
from cxrlab.runs.predict import ImageRows, predict_images
from cxrlab.runs.run_data import build_data, data_facts, run_facts
from cxrlab.training.checkpoint import checkpoint_hash
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)


def load_classifier(
    path: Path | str,
    device: str = "cpu",
    trust: Sequence[str] = (),
    *,
    labels: Sequence[str] | None = None,
) -> Classifier:
    """Load a classifier in eval mode from a checkpoint; no code in the file is run.

    Args:
        path: The checkpoint.
        device: Where it goes.
        trust: Packages besides cxrlab whose networks may be built.
        labels: What its labels must be, where another file says it; None where none does.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is cut short, belongs to another program, does not fit its own network, or
            holds a value that cannot be meant: the message names the key.
        ConfigError: If its network is of a package that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"There is no checkpoint {path}. Was an epoch finished, and is this a run directory?"
        )
    try:
        return Classifier.load_from_checkpoint(path, map_location=device, trust=trust, labels=labels)
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # a file of anybody's may fail in any way
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be loaded: it is no checkpoint of cxrlab, or of "
            f"another architecture than it says. {type(error).__name__}: {reason}"
        ) from error


class Run:
    """A run directory, and the model that it trained.

    Args:
        run_dir: The folder that a training wrote, such as ``outputs/2026-01-31/12-00-00``.
        model: Its classifier, in eval mode.
        trust: Packages besides cxrlab whose readers, splits, filters and augmentations may be built again.
        data: Its data, prepared, where they are at hand; else they are built from its config when they are
            needed.
        cache_dir: Folder of the decoded images of its data; None for the user's own cache, whatever folder
            the training had.

    Attributes:
        files: Where each file of the run stands.
        has_own_weights: Whether the model's weights are, as far as is known, those that the training wrote.
    """

    def __init__(
        self,
        run_dir: Path,
        model: Classifier,
        *,
        trust: Sequence[str] = (),
        data: DataModule | None = None,
        cache_dir: Path | str | None = None,
    ) -> None:
        self.files = RunDir(run_dir)
        self.model = model
        self.trust = tuple(trust)
        self.cache_dir = cache_dir
        self.has_own_weights = True
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
        return read_yaml(self._existing(self.files.resolved_config))

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Every image with the part it was given."""
        return read_table(self._existing(self.files.manifest))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Learning curves: one row an epoch."""
        return read_csv(self._existing(self.files.metrics))

    @cached_property
    def results(self) -> pd.DataFrame:
        """The best checkpoint's metrics by part and label."""
        return read_csv(self._existing(self.files.results))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The numbers of ``evaluation.json``, with their intervals: ``["labels"][<label>]["auroc"]``."""
        return read_json(self._existing(self.files.evaluation))

    @property
    def facts(self) -> DataFacts:
        """What it was trained and tested on."""
        data = self._data.get(None)
        if data is not None:
            return data_facts(data)
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
        source = f"The config of {self.run_dir}"
        data = build_data(
            self.config["data"], trust=self.trust, source=source, root=root, cache_dir=self.cache_dir
        )
        try:
            manifest = data.prepare()
        except (TypeError, AttributeError) as error:  # a value of another type than the reader takes
            raise ConfigError(f"{source} does not describe data: {error}.") from error
        trained_on = self.facts.fingerprint
        if trained_on is not None and manifest.fingerprint() != trained_on:
            raise DataError(
                f"The data below {manifest.root} are not those that {self.run_dir} was trained "
                f"on (fingerprint {manifest.fingerprint()} for {trained_on}), so its parts cannot be told. "
                "Bring them back as they were (root=<folder> where they were moved)."
            )
        content = self.files.data_record().get("content")
        if content is not None and data.dataset.content != content:
            raise DataError(
                f"Images below {manifest.root} have another content than those that {self.run_dir} was "
                f"trained on, under the same names (fingerprint {data.dataset.content} for {content}). Bring "
                "them back as they were (root=<folder> where they were moved)."
            )
        return data

    def image_path(self, image: str, root: Path | str | None = None) -> Path:
        """Return the file of one of the images of ``manifest``, which are named from the data set's folder.

        Args:
            image: As in the manifest.
            root: Folder of the data set, where it was moved; None for where it was.

        Raises:
            MissingFileError: If the file is not there.
        """
        folder = Path(root).expanduser() if root else Path(str(read_json(self.files.audit).get("root", "")))
        path = folder / image
        if image not in set(self.manifest["image"]) or not path.is_file():
            raise MissingFileError(
                f"{image} of {self.run_dir} is not below {folder}. Where the data were moved, give "
                "root=<folder>."
            )
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

    def embed(
        self,
        images: Iterable[Path | str] | Path | str | Tensor | npt.NDArray[np.uint8],
        *,
        batch_size: int = 32,
    ) -> npt.NDArray[np.float32]:
        """Return what the network makes of images before its head, preprocessed as in training.

        Args:
            images: Files of any size; or images that are decoded, of the network's size, values 0 to 255,
                shape ``(N, C, H, W)``, as :meth:`images` gives them.
            batch_size: Images at a time.

        Returns:
            Pooled features, float32, shape ``(N, F)``, in the order of the images.

        Raises:
            MissingFileError: If a file does not exist.
            DataError: If a file is no image, or decoded images are not of the network's size.
            ConfigError: If the network does not tell its features from its head.

        Example:
            >>> run = load_run("outputs/2026-01-31/12-00-00")  # doctest: +SKIP
            >>> run.embed(["a.png", "b.dcm"]).shape  # doctest: +SKIP
            (2, 512)
        """
        rows: ImageRows
        if isinstance(images, Tensor | np.ndarray):
            rows, count = _as_pixels(images), len(images)
        else:
            files = [Path(images)] if isinstance(images, str | Path) else [Path(path) for path in images]
            rows, count = _DecodedFiles(self, files), len(files)
        return embed_images(
            self.model,
            rows,
            range(count),
            batch_size=batch_size,
            device=str(self.model.device),
            show_progress=False,
        )


def _as_pixels(images: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return decoded images, refusing what would be taken for values 0 to 255 and is on another scale."""
    pixels: npt.NDArray[np.uint8] = images.cpu().numpy() if isinstance(images, Tensor) else images
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise DataError(
            f"Decoded images of the shape {pixels.shape} and type {pixels.dtype} were given, not uint8 of "
            "(N, C, H, W): run.images(<paths>) decodes files so."
        )
    return pixels


class _DecodedFiles:
    """Image files by their place in a list, decoded when they are asked for."""

    def __init__(self, run: Run, files: Sequence[Path]) -> None:
        self.run = run
        self.files = files

    def __getitem__(self, rows: list[int]) -> npt.NDArray[np.uint8]:
        pixels: npt.NDArray[np.uint8] = self.run.images([self.files[row] for row in rows]).numpy()
        return pixels


def load_run(
    run_dir: Path | str,
    *,
    device: str = "cpu",
    checkpoint: str = "best",
    trust: Sequence[str] = (),
    check_weights: bool = True,
    cache_dir: Path | str | None = None,
) -> Run:
    """Read a run directory back; nothing in it chooses what code runs.

    Args:
        run_dir: The folder that a training wrote.
        device: Where the model goes, such as ``cpu`` or ``cuda``.
        checkpoint: ``best`` (by the validation metric) or ``last``.
        trust: Packages besides cxrlab whose classes and functions may be built from the run's files, such as
            ``("my_lab",)``.
        check_weights: Refuse a checkpoint whose weights are not those that the training noted; False takes
            them, with a warning, for weights that you changed yourself.
        cache_dir: Folder of the decoded images of its data; None for the user's own cache.

    Raises:
        MissingFileError: If the folder, or the checkpoint in it, does not exist.
        CheckpointError: If the checkpoint cannot be loaded, or is another run's.
        ConfigError: If its network is of a package that is not trusted.
    """
    folder = Path(run_dir).expanduser()
    if not folder.is_dir():
        raise MissingFileError(f"There is no run directory {folder}.")
    files = RunDir(folder)
    path = files.checkpoints / f"{checkpoint}.ckpt"
    model = load_classifier(path, device, trust, labels=manifest_labels(files))
    run = Run(folder, model, trust=trust, cache_dir=cache_dir)
    try:
        check_noted(files, path)
    except CheckpointError as error:
        if check_weights:
            raise
        log.warning("check_weights=false: %s", error)
        run.has_own_weights = False
    return run


def manifest_labels(files: RunDir) -> list[str] | None:
    """Return the labels of a run's manifest, in their order; None where it has none."""
    if not files.manifest.is_file():
        return None
    columns = [str(name) for name in read_csv(files.manifest, nrows=0).columns]
    return [name.removeprefix(LABEL) for name in columns if name.startswith(LABEL)]


_USE = "if you changed the weights on purpose, set check_weights=false, and the part is predicted anew"


def check_noted(files: RunDir, path: Path, advice: str = _USE) -> None:
    """Compare a checkpoint of a run with what the run's training noted of it.

    Args:
        files: Of the run.
        path: One of its checkpoints.
        advice: What else can be done than to bring it back.

    Raises:
        CheckpointError: If it is another than the training wrote.
    """
    sessions = files.sessions()
    noted = sessions[-1].get("checkpoints") if sessions else None
    expected = noted.get(path.stem) if isinstance(noted, Mapping) else None
    if expected is None:
        log.info(
            "%s does not say what weights %s ended with (a training that was stopped, or an older version): "
            "they are taken as they are.",
            files.provenance.name, path.name,
        )  # fmt: skip
        return
    found = checkpoint_hash(path)
    if found != expected:
        raise CheckpointError(
            f"{path} is not the checkpoint that this run's training wrote: its weights and description have "
            f"the hash {found}, and provenance.json noted {expected}. Bring the run's own back; {advice}."
        )
