"""A folder that can be passed on: weights, what describes them, thresholds, and a model card.

Weights are safetensors and everything else is text, so that reading it runs no code. No patient, path or
image is in it.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import cxrlab
from cxrlab.deploy.private_names import check_no_names
from cxrlab.deploy.record import ModelRecord, record_of
from cxrlab.errors import CheckpointError, ConfigError, MissingFileError, OutputError, UserError
from cxrlab.files import read_json, write_json, write_text
from cxrlab.models.lora import merged
from cxrlab.models.weights.files import load_weight_file
from cxrlab.runs.predict import named_device
from cxrlab.runs.reference import KEY, TrainingReference
from cxrlab.training.checkpoint import check_model, model_hash
from cxrlab.training.module import Classifier

FORMAT = 1

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
THRESHOLDS = "thresholds.json"
CARD = "README.md"
SAMPLE = "predictions_sample.csv"
FILES = (WEIGHTS, CONFIG, THRESHOLDS, CARD, SAMPLE)
"""Every name in such a folder; the last is there only where a sample was asked for."""

_REFERENCE = f"{KEY}."
_REMEDY = "It was cut short or edited: fetch the folder again."
_DESCRIPTION = (
    "labels", "preprocess", "network", "task", "views", "threshold", "calibration",
    "initial_weights", "trained_on",
)  # fmt: skip
_CHECK_SEED = 0
_NUM_CHECKED = 4
_MOST_CHARACTERS = 500


def write_shared_folder(
    classifier: Classifier,
    folder: Path,
    *,
    record: ModelRecord,
    card: str,
    reference: TrainingReference | None = None,
    sample: pd.DataFrame | None = None,
    images: Tensor | None = None,
    names: Collection[str] = (),
) -> list[Path]:
    """Write a classifier as a folder, once it was read back and found to predict the same, bit by bit.

    Args:
        classifier: On the CPU, in evaluation mode.
        folder: Where to; it is made. One that holds this model already is written anew.
        record: What goes with it.
        card: The text of its ``README.md``.
        reference: What images of its training look like; None for none.
        sample: Predictions without names; None for none.
        images: Beside random ones, images that both must predict the same of, uint8 ``(N, C, H, W)``.
        names: What must not stand in a file, see :mod:`cxrlab.deploy.private_names`.

    Returns:
        The files, in the order of :data:`FILES`.

    Raises:
        ConfigError: If the folder holds something else, a value of the description is no plain one, or a
            name would stand in a file.
        CheckpointError: If what is read back predicts something else; nothing is written then.
        OutputError: If a file cannot be written.
    """
    description = _plain_description(classifier)
    weights = _weights(classifier)
    kept = {} if reference is None else {f"{_REFERENCE}{k}": _own(v) for k, v in reference.tensors().items()}
    digest = model_hash(description, weights)
    _check_unused(folder, digest)
    content = {
        "format": FORMAT,
        "library_name": "cxrlab",
        "cxrlab_version": cxrlab.__version__,
        "model_hash": digest,
        "reference_hash": model_hash({}, kept),
        "hyper_parameters": description,
        "record": record.plain(),
    }
    with _staged(folder) as stage:
        write_json(stage / THRESHOLDS, _thresholds(classifier))
        save_file(weights | kept, stage / WEIGHTS, metadata={"format": "pt"})
        (stage / WEIGHTS).chmod((stage / THRESHOLDS).stat().st_mode)  # it would be for its owner alone
        write_text(stage / CARD, card)
        if sample is not None:
            write_text(stage / SAMPLE, sample.to_csv(index=False))
        write_json(stage / CONFIG, content)
        check_no_names(stage, names)
        _check_same(classifier, stage, images)
    return [folder / name for name in FILES if (folder / name).is_file()]


def read_shared_folder(
    folder: Path, device: str = "cpu", trust: Sequence[str] = ()
) -> tuple[ModelRecord, Classifier, TrainingReference | None]:
    """Read a folder that :func:`write_shared_folder` wrote; no code in it is run.

    Args:
        folder: The folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        trust: Packages besides cxrlab whose networks may be built.

    Returns:
        What goes with the model, the model in evaluation mode, and what images of its training look like;
        None for the last where the folder does not say.

    Raises:
        MissingFileError: If a file is missing.
        CheckpointError: If one was cut short or edited, or is of another program.
        ConfigError: If its network is of a package that is not trusted, or there is no such device.
    """
    content = read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_REFERENCE)}
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(_REFERENCE)}
    description = content["hyper_parameters"]
    _check_hash(model_hash(description, weights), content, "model_hash", folder)
    _check_hash(model_hash({}, kept), content, "reference_hash", folder)
    check_model(description, weights, folder / CONFIG)
    classifier = _built(description, weights, folder, trust).to(named_device(device)).eval()
    _check_thresholds(classifier, folder / THRESHOLDS)
    return _record(classifier, content, folder / CONFIG), classifier, _reference(kept, folder / WEIGHTS)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a shared folder, of which the other files need not be there.

    Raises:
        MissingFileError: If there is no such folder or file.
        CheckpointError: If it was cut short or edited, or is of another program.
    """
    if not folder.is_dir():
        raise MissingFileError(f"There is no folder {folder}.")
    path = folder / CONFIG
    if not path.is_file():
        raise MissingFileError(f"{folder} is no shared model of cxrlab: it has no {CONFIG}.")
    try:
        content = read_json(path, _REMEDY)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if content.get("library_name") != "cxrlab" or not isinstance(content.get("hyper_parameters"), Mapping):
        raise CheckpointError(
            f"{path} is of another program: it describes no model of cxrlab. Its weights can start a "
            "training by model.checkpoint_path."
        )
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format={content.get('format')!r} is not {FORMAT}, the one that cxrlab "
            f"{cxrlab.__version__} reads. Another version wrote it: pip install --upgrade cxrlab."
        )
    unknown = sorted(set(content["hyper_parameters"]) - set(_DESCRIPTION))
    if unknown:
        raise CheckpointError(f"{path}: hyper_parameters has {unknown[0]}, which is unknown. {_REMEDY}")
    return content


def is_shared_folder(folder: Path) -> bool:
    """Tell whether a folder has the files of one that can be read by :func:`read_shared_folder`."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _plain_description(classifier: Classifier) -> dict[str, Any]:
    """Return what describes a classifier as JSON gives it back."""
    description = {name: classifier.hparams[name] for name in _DESCRIPTION if name in classifier.hparams}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(description, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The network is described by a value that is neither number nor text ({error}), so that it "
            "cannot be built from a text file. Give its constructor plain values."
        ) from error
    return plain


def _weights(classifier: Classifier) -> dict[str, Tensor]:
    """Return what predicts."""
    weights = merged(dict(classifier.state_dict()))
    return {name: _own(tensor) for name, tensor in weights.items() if not name.startswith("loss.")}


def _own(tensor: Tensor) -> Tensor:
    """Return a tensor with memory of its own, as safetensors wants it."""
    return tensor.detach().cpu().contiguous().clone()


def _thresholds(classifier: Classifier) -> dict[str, Any]:
    """Return the operating point as plain values, for other programs."""
    point = classifier.operating_point

    def plain(value: float) -> float | None:
        return None if isnan(value) else value

    columns = ("thresholds", "slopes", "intercepts", "rule_in", "rule_out")
    rows = zip(*(getattr(point, name).tolist() for name in columns), strict=True)
    names = ("threshold", "slope", "intercept", "rule_in", "rule_out")
    return {
        "rule": classifier.threshold_rule,
        "scale": "threshold, rule_in and rule_out are on the scale of the probabilities before calibration; "
        "calibrated = sigmoid(slope * logit(probability) + intercept)",
        "labels": {
            label: {name: plain(value) for name, value in zip(names, row, strict=True)}
            for label, row in zip(classifier.labels, rows, strict=True)
        },
    }


def _check_unused(folder: Path, digest: str) -> None:
    """Refuse a folder that holds anything but this model."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output={folder} is a file, not a folder. Choose another name.")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in FILES]
    if others:
        raise ConfigError(
            f"output={folder} holds {others[0]}, which is none of the files of a shared model. Choose a "
            "folder of its own, new or empty."
        )
    if names:
        _check_holds(folder, names[0], digest)


def _check_holds(folder: Path, name: str, digest: str) -> None:
    """Refuse a folder that is not empty and holds no model of cxrlab, or another than this."""
    path = folder / CONFIG
    content = read_json(path, "Choose another folder.") if path.is_file() else {}
    if content.get("library_name") != "cxrlab":
        raise ConfigError(
            f"output={folder} holds {name}, and no {CONFIG} of a model of cxrlab: it would be lost. Choose a "
            "folder of its own, new or empty."
        )
    if content.get("model_hash") != digest:
        raise ConfigError(
            f"output={folder} holds another model (hash {content.get('model_hash')}; this one has {digest}). "
            "Choose another folder, or remove that one."
        )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a folder to write to, whose files move to ``folder`` at the end, unless something fails."""
    stage = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        yield stage
        folder.mkdir(exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for path in stage.iterdir():
            path.replace(folder / path.name)
    except UserError:
        raise
    except (OSError, SafetensorError) as error:  # the latter where the disk is full
        raise OutputError(f"The model cannot be written to {folder}: {error}.") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _check_same(classifier: Classifier, folder: Path, images: Tensor | None) -> None:
    """Refuse a folder that predicts something else than the classifier it was written from."""
    _, other, _ = read_shared_folder(folder, trust=classifier.trust)
    for batch in (_random_images(classifier), *([] if images is None else [images])):
        with torch.inference_mode():
            expected, found = (model.predict_probabilities(batch) for model in (classifier, other))
        if not torch.equal(expected, found):
            difference = float((expected - found).abs().max())
            raise CheckpointError(
                f"The model that was read back gives other probabilities, by up to {difference:.1e}: its "
                "network keeps something that is neither a parameter, a buffer nor an argument of its "
                "constructor. Nothing was written."
            )


def _random_images(classifier: Classifier) -> Tensor:
    shape = classifier.preprocess
    rng = np.random.default_rng(_CHECK_SEED)
    size = (_NUM_CHECKED, shape.channels, shape.image_size, shape.image_size)
    return torch.from_numpy(rng.integers(0, 256, size, dtype=np.uint8))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"There is no {path}. {_REMEDY}")
    content = load_weight_file(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} ({path.stat().st_size} bytes) is no file of tensors alone. {_REMEDY}")
    return content


def _check_hash(found: str, content: Mapping[str, Any], key: str, folder: Path) -> None:
    if found != content.get(key):
        raise CheckpointError(
            f"{folder}: {WEIGHTS} and {CONFIG} do not belong together, or one was edited: the {key} is "
            f"{found}, and {CONFIG} says {content.get(key)}. Fetch the folder again."
        )


def _reference(kept: Mapping[str, Tensor], path: Path) -> TrainingReference | None:
    if not kept:
        return None
    tensors = {name.removeprefix(_REFERENCE): tensor for name, tensor in kept.items()}
    return TrainingReference.from_tensors(tensors, str(path))


def _built(
    description: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path, trust: Sequence[str]
) -> Classifier:
    try:
        classifier = Classifier(**description, trust=trust)
        classifier.load_state_dict(dict(weights))
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # a folder of anybody's may fail in any way
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder} cannot be loaded: its weights are of another architecture than {CONFIG} says. "
            f"{type(error).__name__}: {reason}"
        ) from error
    return classifier


def _check_thresholds(classifier: Classifier, path: Path) -> None:
    """Refuse thresholds that a person changed beside the weights, where they would have no effect."""
    if not path.is_file():
        return
    try:
        noted = read_json(path, _REMEDY).get("labels")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if noted != _thresholds(classifier)["labels"]:
        raise CheckpointError(
            f"{path} says something else than the weights, whose thresholds are those that are used. "
            f"{_REMEDY}"
        )


def _record(classifier: Classifier, content: Mapping[str, Any], path: Path) -> ModelRecord:
    """Return the record of what was built, with what only the file says, such as the licence."""
    said = content.get("record")
    said = said if isinstance(said, Mapping) else {}
    texts = {name: said.get(name, "") for name in ("licence", "version", "checkpoint")}
    caveats = said.get("caveats", [])
    caveats = caveats if isinstance(caveats, list) else [caveats]
    for name, value in [*texts.items(), *(("caveats", value) for value in caveats)]:
        if not isinstance(value, str) or len(value) > _MOST_CHARACTERS or not value.isprintable():
            raise CheckpointError(f"{path}: record.{name}={str(value)[:80]!r} is no line of text. {_REMEDY}")
    return replace(record_of(classifier), **texts, caveats=tuple(caveats))
