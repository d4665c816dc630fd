"""Files that are unreadable, missing or left over, and images that look wrong."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cxrlab.data.audit.finding import NUM_EXAMPLES, Evidence, Finding, Mask, Severity, counted
from cxrlab.data.duplicates.search import mostly_alike

# The flattest of some 5,500 real radiographs spreads over 85 grey levels; one filled with noise over a few.
FLAT_SPREAD = 20
# Of the same, at most 0.64 are black and 0.11 white; a text mark on a black image takes a few hundredths.
EMPTY_SHARE = 0.90
# Of the same, one that truly is inverted is at -0.70 and all others are above -0.15; with black and white
# exchanged, all others but one are below -0.2.
INVERTED_POLARITY = -0.2
# Narrower than 2 % (4 pixels of 224), and every resized or tilted edge would count.
BORDER_SHARE = 0.02
# Of the same radiographs none has more than 0.11 of its pixels at full white.
SATURATED_SHARE = 0.25

# A picture of 12 bits that was scaled by 16 keeps 15; none of 1,500 radiographs and blood cells has below 80.
FEW_LEVELS = 32


def unreadable(evidence: Evidence) -> Iterator[Finding]:
    """Find files that could not be decoded, and those decoded with a warning."""
    bad = ~evidence.readable
    if bad.any():
        count = int(bad.sum())
        why = evidence.facts["error"][bad].head(NUM_EXAMPLES).astype(str).tolist()
        message = f"{counted(count, 'file')} cannot be read."
        yield Finding("unreadable", "warning", message, count, evidence.images(bad), details=why)
    warned = (evidence.facts["warning"].fillna("") != "").to_numpy()
    if warned.any():
        count = int(warned.sum())
        texts = evidence.facts["warning"][warned].value_counts().head(NUM_EXAMPLES)
        message = f"{counted(count, 'file')} decoded with a warning: {texts.index[0]}"
        details = [f"{number} x {text}" for text, number in texts.items()]
        yield Finding("decoding_warning", "warning", message, count, evidence.images(warned), details=details)


def missing_and_extra(evidence: Evidence) -> Iterator[Finding]:
    """Find images that are listed but not on disk, and those on disk that no table lists."""
    missing, extra = evidence.missing, evidence.extra
    names = [] if isinstance(missing, int) else [str(name) for name in missing[:NUM_EXAMPLES]]
    absent = missing if isinstance(missing, int) else len(missing)
    if absent:
        listed = max(evidence.manifest.num_listed, absent)
        message = f"{absent:,} of {counted(listed, 'listed image')} not on disk."
        yield Finding("missing", "note", message, absent, names)
    if extra:
        message = f"{counted(len(extra), 'image')} on disk that no table lists."
        yield Finding("extra", "note", message, len(extra), [str(name) for name in extra[:NUM_EXAMPLES]])


def left_out(evidence: Evidence) -> Iterator[Finding]:
    """Find files that the reader passed over: a warning where they may be images that should be there."""
    for is_loss in (True, False):
        entries = [entry for entry in evidence.manifest.left_out if entry.is_loss is is_loss]
        if not entries:
            continue
        count = sum(entry.count for entry in entries)
        verb = "is" if count == 1 else "are"
        reasons = "; ".join(dict.fromkeys(entry.reason for entry in entries))
        yield Finding(
            "left_out_images" if is_loss else "left_out_files",
            "warning" if is_loss else "note",
            f"{counted(count, 'file')} {verb} left out: {reasons}.",
            count,
            [name for entry in entries for name in entry.examples][:NUM_EXAMPLES],
            details=[str(entry) for entry in entries][:NUM_EXAMPLES],
        )


def published(evidence: Evidence) -> Iterator[Finding]:
    """Tell whether this is the whole published data set, a part of it, or something else."""
    outcome = evidence.manifest.published
    if outcome is not None:
        severity: Severity = "warning" if outcome.kind == "differs_from_published" else "note"
        message = outcome.message[0].upper() + outcome.message[1:]
        yield Finding(
            outcome.kind, severity, message, outcome.count, details=list(outcome.details[:NUM_EXAMPLES])
        )


def looks(evidence: Evidence) -> Iterator[Finding]:
    """Find images that are empty, inverted, framed or saturated."""
    facts, seen = evidence.facts, evidence.readable
    values = {name: facts[name].to_numpy(dtype=float) for name in _LOOKS}
    empty = seen & (
        (values["spread"] < FLAT_SPREAD) | (np.maximum(values["black"], values["white"]) >= EMPTY_SHARE)
    )
    yield from _look(evidence, empty, "empty", "warning", "black, white or nearly of one grey")
    full = seen & ~empty
    inverted = full & (values["polarity"] <= INVERTED_POLARITY)
    yield from _look(evidence, inverted, "inverted", "warning", "seemingly inverted (black for white)")
    few = full & (facts["levels"].to_numpy(dtype=float) < FEW_LEVELS)
    what = f"with fewer than {FEW_LEVELS} grey levels: no radiographs, or decoded wrongly"
    yield from _look(evidence, few, "few_levels", "warning", what)
    yield from _alike(evidence)
    border = full & (values["border"] >= BORDER_SHARE)
    bright = int((border & (values["border_grey"] > 127)).sum())
    framed = f"with a burnt-in border ({bright:,} of them bright)"
    yield from _look(evidence, border, "border", "note", framed)
    saturated = full & (values["white"] >= SATURATED_SHARE)
    yield from _look(
        evidence, saturated, "saturated", "note", f"with {SATURATED_SHARE:.0%} or more of the pixels white"
    )


_LOOKS = ("spread", "black", "white", "polarity", "border", "border_grey")


def _look(evidence: Evidence, mask: Mask, kind: str, severity: str, what: str) -> Iterator[Finding]:
    if mask.any():
        count = int(mask.sum())
        message = f"{counted(count, 'image')} {what}."
        yield Finding(
            kind, "warning" if severity == "warning" else "note", message, count, evidence.images(mask)
        )


def _alike(evidence: Evidence) -> Iterator[Finding]:
    """Find that most images are near-identical to one another, which no radiographs are."""
    rows = mostly_alike(evidence.pairs, len(evidence.manifest))
    if count := int(rows.sum()):
        message = (
            f"{counted(count, 'image')} of {len(rows):,} are near-identical to one another: they were "
            "decoded wrongly, or are no radiographs. They are not taken for copies."
        )
        yield Finding("mostly_alike", "fault", message, count, evidence.images(rows))


def formats(evidence: Evidence) -> Iterator[Finding]:
    """Find several sizes, several pixel modes or several depths of 16-bit files."""
    yield from _depths(evidence)
    facts = evidence.facts[evidence.readable]
    sizes = sizes_of(evidence)
    if len(sizes) > 1:
        area = sizes[:, 0] * sizes[:, 1]
        small, large = sizes[area.argmin()], sizes[area.argmax()]
        message = f"{len(sizes):,} sizes, from {small[0]}x{small[1]} to {large[0]}x{large[1]} pixels."
        yield Finding("several_sizes", "note", message, len(sizes))
    modes = facts["mode"].value_counts()
    if len(modes) > 1:
        named = ", ".join(f"{mode} {count:,}" for mode, count in modes.items())
        rare = evidence.readable & (evidence.facts["mode"] != modes.index[0]).to_numpy()
        message = f"{len(modes)} pixel modes: {named}."
        yield Finding("several_modes", "note", message, len(modes), evidence.images(rare))


def _depths(evidence: Evidence) -> Iterator[Finding]:
    facts = evidence.facts
    is_deep = evidence.readable & facts["mode"].astype(str).str.startswith("I").to_numpy()
    depths = facts["depth"][is_deep].astype(int).value_counts()
    if len(depths) > 1:
        named = ", ".join(f"{depth} bits {count:,}" for depth, count in depths.items())
        message = (
            f"Files of 16 bits hold values of {len(depths)} depths: {named}. Each is scaled by its own. "
            "Where they come from one detector, set data.bit_depth."
        )
        rare = is_deep & (facts["depth"] != depths.index[0]).to_numpy()
        yield Finding("several_depths", "warning", message, int(rare.sum()), evidence.images(rare))


def sizes_of(evidence: Evidence) -> npt.NDArray[np.int64]:
    """Return width, height and number of images of each size, the most frequent first, shape ``(K, 3)``."""
    facts = evidence.facts.loc[evidence.readable, ["width", "height"]]
    counts = facts.groupby(["width", "height"]).size().sort_values(ascending=False).reset_index()
    return counts.to_numpy(dtype=np.int64)
