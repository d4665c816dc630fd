"""What a network started from, and what those weights had been trained on: a plain record.

It stands in the checkpoint and in ``provenance.json``, so that an evaluation can say which of its images the
weights had seen before the training began. No path and no private name is in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import timm

from cxrlab.data.public import EVERY
from cxrlab.errors import CheckpointError
from cxrlab.models.weights.files import load_weight_file
from cxrlab.models.weights.source import SeenData, WeightSource

UNKNOWN_DATA = "unknown"
"""In place of a data set: besides those that are named there were others, and it is not known which."""

_PARTS = ("train", "val", "test", EVERY)
_MOST_SEEN = 100
_MOST_CHARACTERS = 500
_TAG = re.compile(r"<\s*/?\s*[a-z!][^>]*>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a network started from.

    Attributes:
        name: By which they are chosen, such as ``resnet10t.c3_in1k``; ``random``; ``file`` for a local file
            and ``checkpoint`` for one of this package.
        title: For pages, beginning a noun phrase, such as ``timm's resnet10t.c3_in1k``.
        licence: SPDX identifier, or the licence in words; empty where there is none, or it is not known.
        source: Paper and address; empty where there is none.
        seen: What they were trained on; None where it is unknown.
    """

    name: str
    title: str
    licence: str = ""
    source: str = ""
    seen: Sequence[SeenData] | None = field(default=None)

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values, as a checkpoint and ``provenance.json`` keep it."""
        return {
            **asdict(self),
            "seen": None if self.seen is None else [plain_seen(data) for data in self.seen],
        }


RANDOM = InitialWeights(name="random", title="random weights", seen=())
"""Weights that have seen nothing."""

UNKNOWN_FILE = InitialWeights(name="file", title="weights of a local file")
"""Weights of a file that does not say what it is."""


def plain_seen(data: SeenData) -> dict[str, Any]:
    """Return a data set that was seen as plain values; what is empty is left out but for name and parts.

    Data of a folder have no name that may be told.

    Example:
        >>> plain_seen(SeenData(data="", parts=("train",)))
        {'data': '', 'parts': ['train']}
    """
    plain = {name: value for name, value in asdict(data).items() if value}
    return {"data": data.data, **plain, "parts": list(data.parts)}


def initial_weights(
    backbone: str,
    *,
    pretrained: bool = False,
    checkpoint_path: str | None = None,
    weights: WeightSource | None = None,
) -> InitialWeights:
    """Return what a timm network starts from.

    Args:
        backbone: Its architecture.
        pretrained: Whether from the weights that timm publishes for it.
        checkpoint_path: A local file to start from; it is there.
        weights: A named set to start from.

    Raises:
        CheckpointError: If the file is a checkpoint of this package with a record that cannot be meant.
    """
    if weights is not None:
        return InitialWeights(
            name=weights.name,
            title=weights.title,
            licence=weights.licence,
            source=weights.source,
            seen=None if weights.seen is None else tuple(_plain_parts(data) for data in weights.seen),
        )
    if pretrained:
        return timm_weights(backbone)
    return file_weights(Path(checkpoint_path).expanduser()) if checkpoint_path else RANDOM


def _plain_parts(data: SeenData) -> SeenData:
    return replace(data, parts=tuple(map(str, data.parts)))


# What the words of timm's tags say of the data. Recipes (a1, ra2, augreg, ft) are no data; of a tag without
# any of these, such as that of a language model's image tower, nothing is known.
_DATA_OF_TAG: Mapping[str, SeenData] = {
    tag: SeenData(data=data, note=note)
    for tag, data, note in (
        ("in1k", "imagenet-1k", ""),
        ("mae", "imagenet-1k", ""),
        ("fcmae", "imagenet-1k", ""),
        ("dino", "imagenet-1k", ""),
        ("in12k", "imagenet-12k", ""),
        ("in21k", "imagenet-21k", ""),
        ("in22k", "imagenet-22k", ""),
        ("inw21k", "imagenet-21k", ""),
        ("lvd142m", "lvd-142m", "photographs from the web, chosen to resemble ImageNet and others (DINOv2)"),
        ("lvd1689m", "lvd-1689m", "photographs from the web (DINOv3)"),
        ("sat493m", "sat-493m", "satellite images (DINOv3)"),
        ("laion2b", "laion-2b", "pictures with captions from the web"),
        ("laion400m", "laion-400m", "pictures with captions from the web"),
        ("laiona", "laion-aesthetics", "pictures with captions from the web"),
        ("openai", "wit-400m", "OpenAI's pictures with captions from the web, which are not published"),
        ("webli", "webli", "Google's pictures with captions from the web, which are not published"),
        ("metaclip", "metaclip", "pictures with captions from the web"),
        ("metaclip2", "metaclip", "pictures with captions from the web"),
        ("datacomp1b", "datacomp-1b", "pictures with captions from the web"),
        ("datacompxl", "datacomp-xl", "pictures with captions from the web"),
        ("dfn2b", "dfn-2b", "pictures with captions from the web"),
        ("dfn5b", "dfn-5b", "pictures with captions from the web"),
        ("dfndr2b", "dfn-2b", "pictures with captions from the web"),
        ("merged2b", "merged-2b", "pictures with captions from the web"),
        ("cc12m", "cc-12m", "pictures with captions from the web"),
        ("yfcc15m", "yfcc-15m", "photographs of Flickr"),
        ("yfcc100m", "yfcc-100m", "photographs of Flickr"),
        ("m38m", "merged-38m", "ImageNet-22k, CC12M, CC3M, COCO, ADE20K, Object365 and OpenImages"),
        ("m30m", "merged-30m", "ImageNet-22k, CC12M, CC3M, COCO, ADE20K, Object365 and OpenImages"),
        ("ig1b", "instagram-1b", "Facebook's photographs of Instagram, which are not published"),
        ("swag", "instagram-3.6b", "Facebook's photographs of Instagram, which are not published"),
        ("seer", "instagram", "Facebook's photographs of Instagram, which are not published"),
        ("jft", "jft-300m", "Google's photographs from the web, which are not published"),
        ("sa1b", "sa-1b", "photographs"),
    )
}


def timm_weights(backbone: str) -> InitialWeights:
    """Return what the weights are that timm publishes for an architecture, by their tag.

    Args:
        backbone: Such as ``resnet10t``, whose default tag is taken, or ``resnet50.tv_in1k``.

    Example:
        >>> weights = timm_weights("vit_small_patch16_224")
        >>> weights.title, weights.licence
        ("timm's vit_small_patch16_224.augreg_in21k_ft_in1k", 'apache-2.0')
        >>> [seen.data for seen in weights.seen]
        ['imagenet-21k', 'imagenet-1k']
    """
    try:
        config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    except RuntimeError:  # a tag that this version of timm does not have
        config = None
    base, _, given = backbone.partition(".")
    tag = given or str(getattr(config, "tag", None) or "")
    name = f"{base}.{tag}" if tag else base
    repository = getattr(config, "hf_hub_id", None)
    seen = list(dict.fromkeys(_DATA_OF_TAG[word] for word in tag.split("_") if word in _DATA_OF_TAG))
    return InitialWeights(
        name=name,
        title=f"timm's {name}",
        licence=str(getattr(config, "license", None) or ""),
        source=f"https://huggingface.co/{repository}" if repository else "",
        seen=seen or None,
    )


def torchvision_weights(name: str) -> InitialWeights:
    """Return what torchvision's weights are, by the name that its networks take.

    Args:
        name: Such as ``DEFAULT`` or ``IMAGENET1K_V1``.
    """
    photographs = None
    if name.endswith("DEFAULT") or "IMAGENET1K" in name:
        photographs = (SeenData(data="imagenet-1k"),)
    return InitialWeights(
        name=f"torchvision.{name}",
        title=f"torchvision's {name}",
        licence="BSD-3-Clause",
        source="https://pytorch.org/vision/stable/models.html",
        seen=photographs,
    )


def file_weights(path: Path) -> InitialWeights:
    """Return what the weights of a local file are: of a checkpoint of this package what it says itself.

    Of any other file nothing is known. Its name is not kept, which may be private.

    Raises:
        CheckpointError: If it is a checkpoint of this package with a record that cannot be meant.
    """
    content = None if path.suffix == ".safetensors" else load_weight_file(path)
    description = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(description, Mapping) or not {"labels", "network", "preprocess"} <= set(description):
        return UNKNOWN_FILE
    return checkpoint_weights(
        read_seen(description.get("trained_on"), path, "hyper_parameters.trained_on"),
        read_initial_weights(description.get("initial_weights"), path, "hyper_parameters.initial_weights"),
    )


def checkpoint_weights(trained_on: SeenData | None, start: InitialWeights | None) -> InitialWeights:
    """Return what the weights of a checkpoint of this package have seen: its data, and what it started from.

    Args:
        trained_on: Its training data; None where they are not recorded.
        start: What it started from; None where that is not recorded.
    """
    own = [SeenData(data=UNKNOWN_DATA, note="its own training data are not recorded")]
    own = own if trained_on is None else [trained_on]
    before: Sequence[SeenData] = (
        [SeenData(data=UNKNOWN_DATA, note="what it started from is not known")]
        if start is None or start.seen is None
        else start.seen
    )
    licence = "" if start is None else start.licence
    seen = unique([*own, *before])
    return InitialWeights(name="checkpoint", title="a checkpoint of cxrlab", licence=licence, seen=seen)


def unique(seen: Sequence[SeenData]) -> tuple[SeenData, ...]:
    """Return each data set once, in order."""
    by_value = {(data.data, tuple(data.parts), data.note, data.held_out): data for data in seen}
    return tuple(by_value.values())


def read_initial_weights(value: object, path: Path, key: str) -> InitialWeights | None:
    """Read the record of what a network started from; None where there is none.

    Args:
        value: Plain, as :meth:`InitialWeights.plain` gives it.
        path: The file that it is from.
        key: Where it stands there.

    Raises:
        CheckpointError: Naming the key and the value, if it is anything else.
    """
    if value is None:
        return None
    record = _checked_keys(value, [attribute.name for attribute in fields(InitialWeights)], path, key)
    for name in ("name", "title", "licence", "source"):
        _check_text(record.get(name, ""), path, f"{key}.{name}", is_needed=name in ("name", "title"))
    if "seen" not in record:
        raise _fault(path, f"{key}.seen", None, "a list of data sets, or null where it is not known")
    seen = record["seen"]
    if seen is None:
        return InitialWeights(**{**record, "seen": None})
    if not isinstance(seen, list | tuple) or len(seen) > _MOST_SEEN:
        raise _fault(path, f"{key}.seen", seen, f"a list of at most {_MOST_SEEN} data sets, or null")
    read = [read_seen(data, path, f"{key}.seen[{place}]") for place, data in enumerate(seen)]
    if None in read:
        raise _fault(path, f"{key}.seen[{read.index(None)}]", None, "a data set")
    return InitialWeights(**{**record, "seen": tuple(data for data in read if data is not None)})


def read_seen(value: object, path: Path, key: str) -> SeenData | None:
    """Read the record of a data set that was seen; None where there is none.

    Args:
        value: Plain, as :func:`plain_seen` gives it.
        path: The file that it is from.
        key: Where it stands there.

    Raises:
        CheckpointError: Naming the key and the value, if it is anything else.
    """
    if value is None:
        return None
    record = _checked_keys(value, [attribute.name for attribute in fields(SeenData)], path, key)
    for name in ("data", "note", "held_out"):
        # Data of a folder have no name that may be told.
        _check_text(record.get(name, ""), path, f"{key}.{name}", is_needed=False)
    if "data" not in record:
        raise _fault(path, f"{key}.data", None, "the name of a data set")
    parts = record.get("parts", ())
    if not isinstance(parts, list | tuple) or not all(part in _PARTS for part in parts):
        raise _fault(path, f"{key}.parts", parts, f"a list of {', '.join(_PARTS)}")
    return SeenData(**{**record, "parts": tuple(parts)})


def _checked_keys(value: object, known: Sequence[str], path: Path, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise _fault(path, key, value, f"an object with {', '.join(known)}")
    unknown = [name for name in value if name not in known]
    if unknown:
        raise _fault(
            path, f"{key}.{unknown[0]}", value[unknown[0]], f"left out: {key} has {', '.join(known)}"
        )
    return dict(value)


def _check_text(value: object, path: Path, key: str, *, is_needed: bool) -> None:
    is_text = isinstance(value, str) and len(value) <= _MOST_CHARACTERS
    if not is_text or (is_needed and not str(value).strip()):
        raise _fault(path, key, value, f"a text of at most {_MOST_CHARACTERS} characters")
    if _TAG.search(str(value)) or not str(value).isprintable():
        raise _fault(path, key, value, "a text without HTML or control characters")


def _fault(path: Path, key: str, value: object, wanted: str) -> CheckpointError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return CheckpointError(
        f"{path}: {key}={shown} must be {wanted}: the file was edited, or is damaged. It says what the "
        "weights have seen, which an evaluation has to know."
    )
