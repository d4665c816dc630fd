"""The record that goes with a model, read back from a file of anybody's."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from cxrlab.data.decode import RESIZES
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.models.views import check_views
from cxrlab.models.weights import read_initial_weights, read_seen
from cxrlab.task import Task

_MOST_CHARACTERS = 2000
_MOST_LABELS = 10_000
_LARGEST, _SMALLEST = 8192, 8  # pixels a side
_MOST = 1.0 + 1e-6  # thresholds are rounded up to float32
_TAG = re.compile(r"<\s*/?\s*[a-z!][^>]*>", re.IGNORECASE)


def read_record(value: object, path: Path, key: str) -> ModelRecord:
    """Read a record that :meth:`cxrlab.deploy.record.ModelRecord.plain` gave.

    Args:
        value: As JSON holds it.
        path: The file, for messages.
        key: Where it stands there.

    Raises:
        CheckpointError: Naming the key and the value that cannot be meant.
    """
    known = [field.name for field in fields(ModelRecord)]
    if not isinstance(value, Mapping):
        raise _fault(path, key, value, f"an object with {', '.join(known)}")
    if unknown := [name for name in value if name not in known]:
        raise _fault(
            path, f"{key}.{unknown[0]}", value[unknown[0]], "left out: this version knows no such key"
        )
    record: dict[str, Any] = dict(value)
    for name, (fits, wanted) in _RULES.items():
        if name not in record:
            raise _fault(path, f"{key}.{name}", None, wanted)
        if not fits(record[name]):
            raise _fault(path, f"{key}.{name}", record[name], wanted)
    _check_thresholds(record["thresholds"], record["labels"], path, f"{key}.thresholds")
    try:
        check_views(record["views"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {key}.views: {error}") from error
    read_seen(record["trained_on"], path, f"{key}.trained_on")
    read_initial_weights(record["initial_weights"], path, f"{key}.initial_weights")
    for name in ("labels", "views", "caveats"):
        record[name] = tuple(record[name])
    return ModelRecord(**record)


def parse_json(text: str, path: Path, key: str) -> object:
    """Return what JSON in a file holds.

    Raises:
        CheckpointError: If it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {key} is no JSON ({error}): the file was edited, or is damaged."
        ) from error


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= _MOST_CHARACTERS
        and value.isprintable()
        and not _TAG.search(value)
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _are_labels(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and _are_texts(value)
        and 0 < len(value) <= _MOST_LABELS
        and all(label.strip() for label in value)
        and len(set(value)) == len(value)
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _SMALLEST <= value <= _LARGEST


_TEXT = (_is_text, f"a text of at most {_MOST_CHARACTERS} characters without HTML")
_ANY = (lambda _: True, "a record or null")


def _one_of(*words: object) -> tuple[Callable[[Any], bool], str]:
    # True is 1 for Python, and no number of channels.
    return (
        lambda value: any(value == word and type(value) is type(word) for word in words),
        f"one of {', '.join(map(repr, words))}",
    )


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "title": _TEXT,
    "task": _one_of(*get_args(Task)),
    "labels": (_are_labels, "a list of names, each once, without HTML or control characters"),
    "thresholds": (lambda value: isinstance(value, Mapping), "an object with a number or null a label"),
    "threshold_rule": _TEXT,
    "calibration": _one_of("", *get_args(CalibrationMethod)),
    "image_size": (_is_size, f"a whole number from {_SMALLEST} to {_LARGEST}"),
    "channels": _one_of(1, 3),
    "resize": _one_of(*RESIZES),
    "views": (_are_texts, "a list of names"),
    "trained_on": _ANY,
    "initial_weights": _ANY,
    "licence": _TEXT,
    "version": _TEXT,
    "checkpoint": (
        lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]{0,64}", value) is not None,
        "hexadecimal digits",
    ),
    "caveats": (_are_texts, "a list of sentences"),
}


def _check_thresholds(thresholds: Mapping[str, object], labels: list[str], path: Path, key: str) -> None:
    if list(thresholds) != list(labels):
        raise _fault(path, key, dict(thresholds), f"of the labels {', '.join(labels)}, in their order")
    for label, value in thresholds.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (is_number and 0.0 <= float(str(value)) <= _MOST):
            raise _fault(path, f"{key}[{label!r}]", value, "a number from 0 to 1, or null")


def _fault(path: Path, key: str, value: object, wanted: str) -> CheckpointError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return CheckpointError(
        f"{path}: {key}={shown} must be {wanted}: the file was edited, is damaged, or is of another version "
        "of cxrlab."
    )
