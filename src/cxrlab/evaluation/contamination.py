"""Whether the weights that a training started from had seen the images that it is evaluated on.

Decided by names: of the data sets that the weights were trained on, of the one that is evaluated, and of
those whose images either holds (:mod:`cxrlab.data.public`). The images themselves cannot be compared, for
nobody has those of the weights at hand; those of a run's own training are compared by
:mod:`cxrlab.evaluation.external_data`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd

from cxrlab.data.manifest import PARTS, images_digest
from cxrlab.data.public import EVERY, RADIOGRAPHS, WITHOUT_PARTS, Traced, canonical, traced
from cxrlab.errors import ConfigError
from cxrlab.metrics.predictions import DataFacts
from cxrlab.models.weights import InitialWeights, SeenData
from cxrlab.models.weights.seen import UNKNOWN_DATA

Overlap = Literal["certain", "possible", "unknown", "none"]
"""The worst first."""

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


@dataclass(frozen=True, kw_only=True)
class EvaluatedImages:
    """What images are, as far as names tell.

    Attributes:
        data: Name of the public data set, or one that a person gave; empty for none that may be told.
        parts: Of its official split that they are of; "" among them for images of which it is not known.
        digest: That tells them from others, see :func:`cxrlab.data.manifest.images_digest`.
    """

    data: str
    parts: frozenset[str]
    digest: str = ""

    @classmethod
    def of(cls, table: pd.DataFrame, facts: DataFacts) -> "EvaluatedImages":
        """Describe rows of a manifest.

        Args:
            table: With ``image``, ``patient`` and ``split``.
            facts: Of their data set.
        """
        parts = frozenset(map(str, table["split"].fillna("").unique()) if "split" in table else [""])
        return cls(data=facts.known_as, parts=parts, digest=images_digest(table))


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """Whether start weights had seen the images that are evaluated.

    Attributes:
        overlap: What is known of it.
        weights: What the weights are called.
        reasons: Why, a sentence each.
        is_allowed: Whether a certain overlap was accepted (``evaluation.allow_seen``).
        validation_reasons: Why the validation part, on which best epoch and thresholds were chosen, was
            certainly seen; empty where it was not, as far as is known.
    """

    overlap: Overlap
    weights: Sequence[str] = ()
    reasons: Sequence[str] = ()
    is_allowed: bool = False
    validation_reasons: Sequence[str] = ()


def contamination(starts: Iterable[InitialWeights | None], images: EvaluatedImages) -> Contamination:
    """Return what is known of weights and images: of several weights, as in an ensemble, the worst.

    Args:
        starts: What the networks started from; None for one of which that is not recorded.
        images: That are evaluated.
    """
    found: dict[str, Overlap] = {}
    names: list[str] = []
    for start in starts:
        title = "weights that are not recorded" if start is None else start.title
        names.append(title)
        subject = f"The training started from {title}, which had seen"
        if start is None or start.seen is None:
            found[f"The training started from {title}; what these had seen is not known."] = "unknown"
            continue
        for seen in start.seen:
            overlap, reason = _of_seen(seen, images, subject)
            if overlap != "none":
                found[reason] = overlap
    worst: Overlap = "none"
    for overlap in found.values():
        worst = min(worst, overlap, key=OVERLAPS.index)
    reasons = [reason for reason, overlap in found.items() if overlap == worst]
    return Contamination(overlap=worst, weights=tuple(dict.fromkeys(names)), reasons=tuple(reasons))


def training_overlap(trained_on: SeenData, images: EvaluatedImages) -> Contamination:
    """Return whether a network's own training images may be among others, by their names.

    Args:
        trained_on: The data of its training.
        images: Of another data set, whose content could not be compared.
    """
    overlap, reason = _of_seen(trained_on, images, "The network itself was trained on")
    if overlap in ("none", "unknown"):
        return Contamination(overlap="none")
    reason = f"{reason} They were not all at hand to be compared by content."
    return Contamination(overlap="possible", reasons=(reason,))


def _of_seen(seen: SeenData, images: EvaluatedImages, subject: str) -> tuple[Overlap, str]:
    """Return how one data set that was seen meets the images, and why, in a sentence of such a beginning."""
    if seen.held_out and seen.held_out == images.digest:
        return "none", ""  # the very images that were kept from them
    if seen.data == UNKNOWN_DATA:
        return "unknown", f"{subject} more than is known: {seen.note.rstrip('.')}."
    if not seen.data:
        detail = f" ({seen.note.rstrip('.')})" if seen.note else ""
        return "unknown", f"{subject} data without a public name{detail}."
    if not images.data:
        return "none", ""
    were, are = traced(seen.data, seen.parts), traced(images.data, images.parts - {""})
    worst: tuple[Overlap, str] = "none", ""
    shared = sorted(were.keys() & are.keys(), key=lambda name: len(were[name].steps) + len(are[name].steps))
    for name in shared:
        is_unlisted = "" in images.parts and not are[name].steps
        overlap = _meeting(name, were[name], are[name], is_unlisted=is_unlisted)
        if OVERLAPS.index(overlap) < OVERLAPS.index(worst[0]):
            worst = overlap, _reason(subject, seen, images, name, were[name], are[name], overlap)
    return worst


def _meeting(name: str, were: Traced, are: Traced, *, is_unlisted: bool) -> Overlap:
    """Return whether images of one data set that were seen are among those that are evaluated.

    Args:
        name: Of the data set.
        were: Its images that were seen.
        are: Its images that are evaluated.
        is_unlisted: Whether some of these are in no official part, as far as is known.
    """
    if were.steps and are.steps and not (were.is_whole or are.is_whole):
        # Two selections from one data set: without a part in common they cannot meet, with one they may.
        shared = not were.parts or not are.parts or bool(were.parts & are.parts)
        return "possible" if shared or EVERY in were.parts | are.parts else "none"
    if name in WITHOUT_PARTS:
        were, are = (
            found if found.steps else replace(found, parts=frozenset([EVERY])) for found in (were, are)
        )
    if not were.parts or not (are.parts or is_unlisted):
        return "possible"
    if EVERY in were.parts | are.parts or were.parts & are.parts:
        return "certain"
    if is_unlisted:  # drawn from all of it, as far as is known, and most of that is for training
        return "certain" if "train" in were.parts and not were.steps else "possible"
    return "none"


def _reason(
    subject: str,
    seen: SeenData,
    images: EvaluatedImages,
    name: str,
    were: Traced,
    are: Traced,
    overlap: Overlap,
) -> str:
    sentence = f"{subject} {seen_words(seen)}"
    if were.steps:
        sentence += f", which holds images of {name} ({were.steps[-1].note})"
    if are.steps:
        sentence += f"; those evaluated, {images.data}, are of {name} too ({are.steps[-1].note})"
    elif were.steps:
        sentence += ", of which those evaluated are"
    else:
        sentence += f"; those evaluated are of {parts_words(images.data, images.parts)}"
    return sentence + (". Which images it were is not known." if overlap == "possible" else ".")


def seen_words(seen: SeenData) -> str:
    """Return a data set that was seen in words.

    Example:
        >>> seen_words(SeenData(data="nih", parts=("train", "test"))), seen_words(SeenData(data="imagenet"))
        ('nih (train and test)', 'imagenet')
    """
    return parts_words(seen.data or "data without a public name", seen.parts)


def parts_words(data: str, parts: Collection[str]) -> str:
    """Return a data set with those of its official parts that are meant.

    Example:
        >>> parts_words("nih", {"test", "train"}), parts_words("rsna", {""})
        ('nih (train and test)', 'rsna')
    """
    named = [part for part in (*PARTS, EVERY) if part in parts]
    return f"{data} ({' and '.join(named)})" if named else data


def check_unseen(found: Contamination, *, allow_seen: bool, what: str, advice: str) -> None:
    """Refuse an evaluation on images that start weights had certainly seen.

    Args:
        found: What is known of it.
        allow_seen: Whether it was accepted.
        what: The images, such as ``the test part of nih``.
        advice: What to do else, a sentence.

    Raises:
        ConfigError: Naming weights, data and key.
    """
    if found.overlap != "certain" or allow_seen:
        return
    raise ConfigError(
        " ".join(
            filter(
                None,
                [
                    f"Images of {what} had been seen before the training began.",
                    *found.reasons,
                    "A result on them would say little about new patients.",
                    advice,
                    "To evaluate on them all the same, set evaluation.allow_seen=true: the page then says so "
                    "in its first sentence.",
                ],
            )
        )
    )


def is_worth_a_caveat(found: Contamination, data: str) -> bool:
    """Tell whether weights of which nothing is known are a reason for doubt.

    They are where public radiographs are evaluated: other people's weights for radiographs were mostly
    trained on those, and photographs that a file may hold instead do no harm. Of one's own images nobody
    else's weights have seen any.

    Args:
        found: What is known.
        data: The data set's public name, or empty.
    """
    return found.overlap == "unknown" and canonical(data) in RADIOGRAPHS
