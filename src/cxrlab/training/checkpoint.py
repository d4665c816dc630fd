"""A checkpoint of this package, checked before anything is made of it, and known again by its weights."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from cxrlab.data.decode import Resize
from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.metrics.thresholds import check_rule
from cxrlab.models.preprocess import STATISTICS_IMAGES, Normalization
from cxrlab.models.views import check_views
from cxrlab.models.weights import (
    check_finite_weights,
    check_plain_weights,
    read_initial_weights,
    read_seen,
)
from cxrlab.models.weights.files import load_weight_file
from cxrlab.task import Task

# Radiographs have 5,000 pixels a side at most; the network's memory goes with the square.
_LARGEST = 8192
_SMALLEST = 8
# Thresholds are rounded up to float32, and one may lie just above the highest probability.
_MOST = 1.0 + 1e-6
# Statistics on the scale 0 to 1; a person's own may lie beside it, but those of 0 to 255 are a slip.
_STATISTICS = (-10.0, 10.0)
_TAG = re.compile(r"<\s*/?\s*[a-z!][^>]*>", re.IGNORECASE)
_PREPROCESS = ("normalize", "image_size", "channels", "mean", "std", "resize")
_HASH_DIGITS = 16


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that a training of this package wrote; no code in it is run.

    Raises:
        CheckpointError: If it is another file, or lacks what such a checkpoint has.
    """
    try:
        content = load_weight_file(path)
    except CheckpointError as error:
        size = f"{path} ({path.stat().st_size} bytes)"
        reason = str(error).removeprefix(f"{size} cannot be read as weights: ").replace(str(path), "it")
        raise CheckpointError(f"{size} cannot be loaded: {reason}") from error
    for key in ("state_dict", "hyper_parameters"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise CheckpointError(
                f"{path} is no checkpoint of cxrlab: it has no {key}. Weights of other programs go into a "
                "training by model.checkpoint_path."
            )
    checked: dict[str, Any] = content
    return checked


def check_checkpoint(path: Path, *, labels: list[str] | None = None) -> None:
    """Read a checkpoint and refuse what could not be used, or would make predictions meaningless.

    Args:
        path: The file.
        labels: What its labels must be, as another file of the same run says; None where nothing else says.

    Raises:
        CheckpointError: Naming the key and the value.
    """
    checkpoint = read_checkpoint(path)
    check_model(checkpoint["hyper_parameters"], checkpoint["state_dict"], path, labels=labels)


def check_model(
    description: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    path: Path,
    *,
    labels: list[str] | None = None,
) -> None:
    """Refuse what no classifier could be built from, or would make its predictions meaningless.

    Args:
        description: Plain, as ``hyper_parameters`` of a checkpoint.
        weights: A ``state_dict`` of a classifier.
        path: Where both are from.
        labels: What its labels must be, as another file of the same run says; None where nothing else says.

    Raises:
        CheckpointError: Naming the key and the value.
    """
    _check_labels(description.get("labels"), path, labels)
    _check_description(description, path)
    check_weights(weights, path)


def check_resumable(path: Path) -> None:
    """Refuse to go on from a checkpoint that holds no more than use needs, such as a copy of ``best.ckpt``.

    Raises:
        CheckpointError: If it cannot be read, or lacks what only a training needs.
    """
    checkpoint = read_checkpoint(path)
    wanted: dict[str, type] = {
        "optimizer_states": list,
        "lr_schedulers": list,
        "loops": dict,
        "callbacks": dict,
    }
    lacking = [key for key, kind in wanted.items() if not isinstance(checkpoint.get(key), kind)]
    if lacking:
        raise CheckpointError(
            f"{path} holds no {', '.join(lacking)}, so that no training can go on from it: is it a copy of "
            "best.ckpt, which holds the weights alone? Bring the run's own last.ckpt back, or start a new "
            f"run from these weights by model.checkpoint_path={path}."
        )


def check_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights, statistics, thresholds and calibration that are not finite or out of range.

    Args:
        weights: A ``state_dict`` of a classifier.
        path: Where it is from.

    Raises:
        CheckpointError: Naming the key.
    """
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: state_dict[{name!r}] is a {type(tensor).__name__}, no tensor.")
    check_plain_weights(weights, path, "state_dict.")
    own = {
        name: tensor for name, tensor in weights.items() if not name.startswith(("operating_point.", "loss."))
    }
    check_finite_weights(own, path, "state_dict.")
    limits: dict[str, tuple[float, float]] = {
        "preprocess.mean": _STATISTICS,
        "preprocess.std": (1e-7, _STATISTICS[1]),
        "operating_point.thresholds": (0.0, _MOST),
        "operating_point.slopes": (-math.inf, math.inf),
        "operating_point.intercepts": (-math.inf, math.inf),
        "operating_point.rule_in": (0.0, _MOST),
        "operating_point.rule_out": (0.0, _MOST),
        "operating_point.referral_targets": (0.0, 1.0),
    }
    for name, (least, most) in limits.items():
        if name not in weights:
            continue
        values = weights[name].double().flatten()
        values = values[~torch.isnan(values)] if name.startswith("operating_point.") else values  # not chosen
        wrong = values[(values < least) | (values > most) | torch.isinf(values)]
        if len(wrong):
            between = "be finite" if least == -math.inf else f"lie between {least:.0f} and {most:.0f}"
            raise CheckpointError(
                f"{path}: state_dict.{name} holds {float(wrong[0]):g}, which must {between}: the file was "
                "edited, or is damaged."
            )


def _check_labels(labels: object, path: Path, expected: list[str] | None) -> None:
    if not isinstance(labels, list | tuple) or not labels:
        raise CheckpointError(f"{path}: hyper_parameters.labels={_short(labels)} is no list of names.")
    for place, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise CheckpointError(f"{path}: hyper_parameters.labels[{place}]={_short(label)} is no name.")
        if labels.index(label) < place:
            raise CheckpointError(f"{path}: hyper_parameters.labels names {_short(label)} twice.")
    if expected is not None:
        if list(labels) != expected:
            raise CheckpointError(
                f"{path}: hyper_parameters.labels={_short(list(labels))} are not the labels of the run's "
                f"manifest.csv, {_short(expected)}: the checkpoint is another run's, or one was edited."
            )
        return
    for place, label in enumerate(labels):
        if _TAG.search(label) or not label.isprintable():
            raise CheckpointError(
                f"{path}: hyper_parameters.labels[{place}]={_short(label)} is no name of a finding but HTML "
                "or control characters. A run's own folder with its manifest.csv would confirm it."
            )


def _check_description(description: Mapping[str, Any], path: Path) -> None:
    """Check the plain values that a classifier is built from."""
    for group in ("preprocess", "network"):
        _check_mapping(description.get(group), group, path)
    unknown = [name for name in description["preprocess"] if name not in _PREPROCESS]
    if unknown:
        raise CheckpointError(f"{path}: hyper_parameters.preprocess has {_short(unknown)}, which is unknown.")

    def check(key: str, default: object, fits: Callable[[Any], bool], wanted: str) -> Any:
        group, _, name = key.rpartition(".")
        value = (description[group] if group else description).get(name, default)
        if not fits(value):
            raise CheckpointError(
                f"{path}: hyper_parameters.{key}={_short(value)} must be {wanted}: the file was edited, or "
                "is damaged."
            )
        return value

    size = f"a whole number from {_SMALLEST} to {_LARGEST}"
    for group in ("preprocess", "network"):
        check(f"{group}.image_size", 224, lambda value: _is_whole(value, _SMALLEST, _LARGEST), size)
    channels = check("preprocess.channels", 1, lambda value: _is_whole(value) and value in (1, 3), "1 or 3")
    check(
        "network.channels",
        channels,
        lambda value: _is_whole(value, channels, channels),
        f"{channels}, as of preprocess",
    )
    num_labels = len(description["labels"])
    check(
        "network.num_labels",
        num_labels,
        lambda value: _is_whole(value, num_labels, num_labels),
        f"{num_labels}, one a label",
    )
    normalizations, resizes, tasks = get_args(Normalization), get_args(Resize), get_args(Task)
    normalize = check(
        "preprocess.normalize", "training", normalizations.__contains__, _one_of(normalizations)
    )
    check("preprocess.resize", "stretch", resizes.__contains__, _one_of(resizes))
    methods = get_args(CalibrationMethod)
    check("calibration", "platt", methods.__contains__, _one_of(methods))
    check("task", "multilabel", tasks.__contains__, _one_of(tasks))
    if normalize in (*STATISTICS_IMAGES, "given"):
        least, most = _STATISTICS if normalize == "given" else (0.0, 1.0)
        wanted = f"{channels} numbers from {least:.0f} to {most:.0f}"
        for name in ("mean", "std"):
            check(
                f"preprocess.{name}", None, lambda values: _are_within(values, channels, least, most), wanted
            )
    read_seen(description.get("trained_on"), path, "hyper_parameters.trained_on")
    read_initial_weights(description.get("initial_weights"), path, "hyper_parameters.initial_weights")
    for name, check_value, default in (
        ("views", check_views, ["identity"]),
        ("threshold", check_rule, "youden"),
    ):
        try:
            check_value(description.get(name, default))
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{path}: hyper_parameters.{name}: {error}") from error


def _check_mapping(value: object, key: str, path: Path) -> None:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: hyper_parameters.{key}={_short(value)} describes nothing.")


def _one_of(words: tuple[str, ...]) -> str:
    return f"one of {', '.join(words)}"


def _is_whole(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_within(values: object, number: int, least: float, most: float) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == number
        and all(isinstance(value, int | float) and least <= value <= most for value in values)
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def checkpoint_hash(path: Path) -> str:
    """Return digits that tell a checkpoint by what it predicts with: its weights and its description.

    What only a training needs, such as an optimizer's state, does not count, so that a checkpoint may be
    written anew without it.

    Raises:
        CheckpointError: If it cannot be read.
    """
    checkpoint = read_checkpoint(path)
    return model_hash(checkpoint["hyper_parameters"], checkpoint["state_dict"])


def model_hash(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the digits of :func:`checkpoint_hash` for what such a file holds.

    Args:
        description: Plain, as ``hyper_parameters`` of a checkpoint.
        weights: A ``state_dict`` of a classifier, on the CPU.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode())
    for name, tensor in sorted(weights.items()):
        if name.startswith("loss."):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:_HASH_DIGITS]
