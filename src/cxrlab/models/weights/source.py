"""A set of weights by its name: where it is, how it wants images, its licence, and what it has seen.

Each stands in a YAML file of ``conf/weights`` and is chosen by ``weights=<name>``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxrlab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SeenData:
    """A data set, or a part of one, that weights were trained on.

    Attributes:
        data: Its name, as ``conf/data`` has it where it is there, such as ``nih``; else such as ``imagenet``.
        parts: Of its official split, such as ``train`` and ``test``; ``all`` for all of its images; empty
            where it is not known which.
        note: How it is known, or what is uncertain about it, in a sentence.
        held_out: Digits of the test part that was kept from them, see
            :func:`cxrlab.data.manifest.images_digest`; empty where there was none.
    """

    data: str
    parts: Sequence[str] = ()
    note: str = ""
    held_out: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Published weights, described.

    Attributes:
        name: By which they are chosen.
        title: For pages and messages, such as ``ImageNet-1k (torchvision's recipe)``.
        backbone: The timm architecture that they are of.
        options: timm's own keywords that make it theirs, such as ``{"patch_size": 16}``; None for none.
        timm: Tag of timm's own weights of it, such as ``tv_in1k``; None where they are not timm's.
        hub: Repository of the Hugging Face Hub, such as ``microsoft/rad-dino``, with ``@<revision>`` for
            another than its newest; None for none.
        package: Python package that carries the file, by its name on the package index; None for none.
        file: In the repository, or in the folder that the package is installed to.
        fetch: Where nothing above is given, what to do to have a file for ``path``, in a sentence.
        path: A local file, which is taken instead; None for none.
        image_size: Height and width in pixels that they were trained at.
        channels: That they were trained with.
        mean: Of the images that they expect, by channel, on the scale 0 to 1.
        std: Their standard deviation.
        licence: SPDX identifier, or the licence in words; ``unknown`` where none is given.
        is_non_commercial: Whether the licence excludes commercial use.
        terms: What else has to be agreed to before use, in a few words, such as ``research use only``; empty
            for nothing.
        source: Paper and address.
        seen: What they were trained on; None where it is unknown.

    Raises:
        ConfigError: If the statistics do not fit the channels, or the place is not told in one way.
    """

    name: str
    title: str
    backbone: str
    options: Mapping[str, object] | None = None
    timm: str | None = None
    hub: str | None = None
    package: str | None = None
    file: str | None = None
    fetch: str | None = None
    path: str | None = None
    image_size: int
    channels: int = 3
    mean: Sequence[float]
    std: Sequence[float]
    licence: str
    is_non_commercial: bool = False
    terms: str = ""
    source: str
    seen: Sequence[SeenData] | None

    def __post_init__(self) -> None:
        key = f"weights={self.name}"
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise ConfigError(
                f"{key}: mean={list(self.mean)} and std={list(self.std)} must be one number for each of its "
                f"channels={self.channels}, std above 0."
            )
        places = {"timm": self.timm, "hub": self.hub, "package": self.package}
        given = [name for name, place in places.items() if place]
        if len(given) > 1 or not (given or self.fetch or self.path):
            raise ConfigError(
                f"{key} must say in one way where it is: timm, hub, package, or fetch for a file that people "
                f"bring themselves; given is {given or 'nothing'}."
            )
        if given and given != ["timm"] and not self.file:
            raise ConfigError(f"{key}: {given[0]}={places[given[0]]} needs file, the file in it.")

    @property
    def conditions(self) -> str:
        """What a user has to accept before these weights are used, in words; empty for nothing."""
        return " and ".join(
            words for words in ("no commercial use" if self.is_non_commercial else "", self.terms) if words
        )


def for_channels(values: Sequence[float], channels: int) -> list[float]:
    """Return statistics by channel for images of another number of channels: their average, or as they are.

    They are averaged as the first layer's weights are summed over the channels that a grey image lacks.

    Args:
        values: A mean or a standard deviation of each channel.
        channels: Of the images.

    Example:
        >>> for_channels([0.5], 3), for_channels([0.25, 0.5], 2), for_channels([0.25, 0.75], 1)
        ([0.5, 0.5, 0.5], [0.25, 0.5], [0.5])
    """
    if len(values) == channels:
        return [float(value) for value in values]
    return [sum(values) / len(values)] * channels
