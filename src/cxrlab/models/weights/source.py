"""A set of weights by its name: where it is, how it wants images, its licence, and what it has seen.

Each stands in a YAML file of ``conf/weights`` and is chosen by ``weights=<name>``.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SeenData:
    """A data set, or a part of one, that weights were trained on.

    Attributes:
        data: Its name, as ``conf/data`` has it where it is there, such as ``nih``; else such as ``imagenet``.
        parts: Of its official split, such as ``train`` and ``test``; empty where it is not known which.
        note: How it is known, or what is uncertain about it, in a sentence.
    """

    data: str
    parts: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Published weights, described.

    Attributes:
        name: By which they are chosen.
        title: For pages and messages, such as ``ImageNet-1k (torchvision's recipe)``.
        backbone: The timm architecture that they are of.
        timm: Tag of timm's own weights of it, such as ``tv_in1k``; None where they are not timm's.
        hub: Repository of the Hugging Face Hub, such as ``microsoft/rad-dino``; None for none.
        file: In the repository or in the package.
        package: Python package that carries the file, by its name on the package index; None for none.
        image_size: Height and width in pixels that they were trained at.
        channels: That they were trained with.
        mean: Of the images that they expect, by channel, on the scale 0 to 1.
        std: Their standard deviation.
        licence: SPDX identifier, or the licence in words; ``unknown`` where none is given.
        is_non_commercial: Whether the licence excludes commercial use.
        source: Paper and address.
        seen: What they were trained on; None where it is unknown.
    """

    name: str
    title: str
    backbone: str
    timm: str | None = None
    hub: str | None = None
    file: str | None = None
    package: str | None = None
    image_size: int
    channels: int = 3
    mean: Sequence[float]
    std: Sequence[float]
    licence: str
    is_non_commercial: bool = False
    source: str
    seen: Sequence[SeenData] | None
