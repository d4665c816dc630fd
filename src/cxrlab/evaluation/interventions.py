"""What a model still tells when part of the image is taken away, or its greys are changed.

Images are changed before they are preprocessed, and predicted by the same loop as always. Blanked pixels get
the mean grey of their image.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cxrlab.data.lung_region import LEAST_FOUND, Mask, border_mask, corner_mask
from cxrlab.errors import ConfigError
from cxrlab.evaluation.baseline_features import SIDE, lung_regions
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, macro_mean, patient_counts, ratio
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.runs.predict import ImageRows, predict_images

if TYPE_CHECKING:
    from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

InterventionName = Literal[
    "no_lungs",
    "lungs_only",
    "no_border",
    "half_resolution",
    "gamma_down",
    "gamma_up",
    "contrast_down",
    "contrast_up",
    "equal_histograms",
]

TITLES: Mapping[InterventionName, str] = {
    "no_lungs": "without lungs",
    "lungs_only": "lungs only",
    "no_border": "without border and corners",
    "half_resolution": "half resolution",
    "gamma_down": "gamma 0.7 (brighter)",
    "gamma_up": "gamma 1.4 (darker)",
    "contrast_down": "contrast 0.7",
    "contrast_up": "contrast 1.3",
    "equal_histograms": "equal histograms",
}

_OF_LUNGS: tuple[InterventionName, ...] = ("no_lungs", "lungs_only")
_BORDER, _CORNER = 0.05, 0.15  # of the side, as in the checks of heatmaps
_AT_ONCE = 64
_MUCH_KEPT = 0.5
"""A model that surely keeps so much of its AUROC above 0.5 without the lungs is flagged."""


@dataclass(frozen=True)
class InterventionValue:
    """What a change of the images does to an AUROC.

    Attributes:
        auroc: On the changed images.
        kept: Its share above 0.5, of that of the unchanged images, on paired resamples; None where the model
            is not above chance on these.
    """

    auroc: Estimate
    kept: Estimate


@dataclass(frozen=True)
class InterventionRow:
    """One change of the images.

    Attributes:
        name: One of :data:`TITLES`.
        labels: By label; those with too few positives, or negatives, are not there.
        macro: Mean over these labels.
    """

    name: InterventionName
    labels: Mapping[str, InterventionValue]
    macro: InterventionValue


@dataclass(frozen=True)
class InterventionResult:
    """What changes of the images do.

    Attributes:
        images: That were drawn.
        patients: Of these; None where they are unknown.
        available: Images that were evaluated.
        regions_found: Share of the drawn images in which lungs were found.
        unchanged: AUROC of the images as they are, by label.
        unchanged_macro: Mean over these labels.
        rows: The changes.
        left_out: Why others are not there, by name.
        seconds: It took.
    """

    images: int
    patients: int | None
    available: int
    regions_found: float
    unchanged: Mapping[str, Estimate]
    unchanged_macro: Estimate
    rows: Sequence[InterventionRow]
    left_out: Mapping[InterventionName, str]
    seconds: float

    def row(self, name: InterventionName) -> InterventionRow | None:
        """Return one of the changes; None where it is left out."""
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Interventions:
    """The result, and what the changes look like.

    Attributes:
        result: The numbers.
        examples: One image as it is and changed, shapes ``(C, H, W)``, by title.
    """

    result: InterventionResult
    examples: Mapping[str, Pixels] = field(repr=False)


def intervene(
    classifier: "Classifier",
    table: PredictionTable,
    images: ImageRows,
    rows: Sequence[int],
    settings: EvaluationSettings,
    *,
    most: int,
    batch_size: int = 64,
    device: str = "auto",
) -> Interventions:
    """Predict images as they are and changed in several ways, and return what is left of the AUROC.

    Args:
        classifier: Who predicts.
        table: What it predicted, N images; of the labels, some of the classifier's.
        images: Their pixels, decoded as the classifier's were.
        rows: Of the images, N of them.
        settings: Of the resamples and their level; labels with fewer than ``min_positives`` positives or
            negatives among the drawn images are left out.
        most: Images at most, of patients drawn at random.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If no label has enough positives and negatives among the drawn images.
    """
    start = time.perf_counter()
    chosen = _drawn(table, most, settings.seed)
    drawn, drawn_rows = table.rows(chosen), [int(rows[place]) for place in chosen]
    labels = _labels(drawn, settings)
    changes, regions_found, left_out = _changes(images, drawn_rows)
    predict = partial(_probabilities, classifier, images, drawn_rows, batch_size=batch_size, device=device)
    _say_cost(predict, drawn, len(changes) + 1)
    outputs = [classifier.labels.index(label) for label in labels]
    passes: dict[str, Change] = {"unchanged": _unchanged, **{str(name): changes[name] for name in changes}}
    shown = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    with shown:
        task = shown.add_task("Images changed", total=(len(changes) + 1) * len(drawn_rows))
        advance = partial(_advance, shown, task)
        predicted = {name: predict(change, advance)[:, outputs] for name, change in passes.items()}
    result = _evaluated(drawn.select_labels(labels), predicted, settings)
    return Interventions(
        InterventionResult(
            images=len(drawn),
            patients=drawn.num_patients if drawn.patients_known else None,
            available=len(table),
            regions_found=regions_found,
            unchanged=result.unchanged,
            unchanged_macro=result.unchanged_macro,
            rows=result.rows,
            left_out=left_out,
            seconds=round(time.perf_counter() - start, 1),
        ),
        _examples(images, drawn, drawn_rows, changes),
    )


Change = Callable[[Pixels, Sequence[int]], Pixels]
"""Returns changed images, given images ``(n, C, H, W)`` and their rows."""


def _drawn(table: PredictionTable, most: int, seed: int) -> npt.NDArray[np.intp]:
    """Return at most so many rows: all images of patients drawn at random."""
    if len(table) <= most:
        return np.arange(len(table))
    places = np.random.default_rng(seed).permutation(table.num_patients)[table.patients]
    order = np.argsort(places, kind="stable")
    ends = np.flatnonzero(np.diff(places[order], append=-1)) + 1  # of whole patients
    return np.sort(order[: int(ends[ends <= most].max(initial=0))])


def _labels(table: PredictionTable, settings: EvaluationSettings) -> list[str]:
    positives, negatives = (table.targets == 1).sum(axis=0), (table.targets == 0).sum(axis=0)
    enough = np.minimum(positives, negatives) >= max(settings.min_positives, 1)
    if not enough.any():
        raise ConfigError(
            f"interventions: none of the labels {list(table.labels)[:8]} has {settings.min_positives} "
            f"positives and negatives (evaluation.min_positives) among the {len(table)} images drawn. Draw "
            "more images, or leave interventions out."
        )
    return [table.labels[column] for column in np.flatnonzero(enough)]


class _Changed:
    """Images that are changed as they are read."""

    def __init__(self, images: ImageRows, change: Change, advance: Callable[[int], None]) -> None:
        self._images, self._change, self._advance = images, change, advance

    def __getitem__(self, rows: list[int]) -> Pixels:
        changed = self._change(self._images[rows], rows)
        self._advance(len(rows))
        return changed


def _probabilities(
    classifier: "Classifier",
    images: ImageRows,
    rows: Sequence[int],
    change: Change,
    advance: Callable[[int], None],
    *,
    batch_size: int,
    device: str,
    most: int | None = None,
) -> Floats:
    changed = _Changed(images, change, advance)
    chosen = rows[:most]
    return predict_images(
        classifier, changed, chosen, batch_size=batch_size, device=device, show_progress=False
    )


def _say_cost(predict: Callable[..., Floats], table: PredictionTable, num_passes: int) -> None:
    """Predict a few images, and say how long all will take."""
    timings = []
    for _ in range(3):  # the first time is longer, and others may be at work
        start = time.perf_counter()
        few = predict(_unchanged, lambda _: None, most=_AT_ONCE)
        timings.append(time.perf_counter() - start)
    total = min(timings) / len(few) * len(table) * num_passes
    log.info(
        "Interventions: %d images predicted %d times, about %s.",
        len(table),
        num_passes,
        f"{total / 60:.1f} min" if total >= 60 else f"{total:.0f} s",
    )


def _advance(shown: Progress, task: TaskID, count: int) -> None:
    shown.advance(task, count)


def _changes(
    images: ImageRows, rows: Sequence[int]
) -> tuple[dict[InterventionName, Change], float, dict[InterventionName, str]]:
    """Return the changes by name, the share of images with lungs, and why some changes are left out."""
    regions: dict[int, Mask] = {}
    histogram, num_found = np.zeros(256), 0
    for start in range(0, len(rows), _AT_ONCE):
        some = list(rows[start : start + _AT_ONCE])
        pixels = images[some]
        masks, is_found = lung_regions(pixels)
        regions |= dict(zip(some, masks, strict=True))
        num_found += int(is_found.sum())
        histogram += np.bincount(pixels.ravel(), minlength=256)
    changes: dict[InterventionName, Change] = {
        "no_lungs": lambda pixels, some: blanked(pixels, np.stack([regions[row] for row in some])),
        "lungs_only": lambda pixels, some: blanked(pixels, ~np.stack([regions[row] for row in some])),
        "no_border": lambda pixels, _: blanked(pixels, np.broadcast_to(_frame(), (len(pixels), SIDE, SIDE))),
        "half_resolution": lambda pixels, _: half_resolution(pixels),
        "gamma_down": lambda pixels, _: gamma(pixels, 0.7),
        "gamma_up": lambda pixels, _: gamma(pixels, 1.4),
        "contrast_down": lambda pixels, _: contrast(pixels, 0.7),
        "contrast_up": lambda pixels, _: contrast(pixels, 1.3),
        "equal_histograms": lambda pixels, _: with_histogram(pixels, histogram),
    }
    regions_found = num_found / len(rows)
    left_out: dict[InterventionName, str] = {}
    if regions_found < LEAST_FOUND:
        reason = f"lungs were found in {100 * regions_found:.0f} % of the images only"
        left_out = dict.fromkeys(_OF_LUNGS, reason)
    return {name: change for name, change in changes.items() if name not in left_out}, regions_found, left_out


def _frame() -> Mask:
    return border_mask(_BORDER, SIDE) | corner_mask(_CORNER, SIDE)


def _unchanged(images: Pixels, rows: Sequence[int]) -> Pixels:
    return images


def blanked(images: Pixels, masks: Mask) -> Pixels:
    """Return images in which a mask has the mean grey of its image.

    Args:
        images: Shape ``(n, C, H, W)``.
        masks: What is blanked, shape ``(n, S, S)``; each cell stands for the pixels that it covers.
    """
    height, width = images.shape[2:]
    side = masks.shape[1]
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    covered = masks[:, rows[:, None], columns[None, :]][:, None]
    means = images.mean(axis=(2, 3), keepdims=True).round().astype(np.uint8)
    return np.asarray(np.where(covered, means, images), dtype=np.uint8)


def half_resolution(images: Pixels) -> Pixels:
    """Return images reduced to half their height and width by the mean of pixels, and stretched again."""
    tensor = torch.from_numpy(images).float()
    height, width = images.shape[2:]
    small = F.interpolate(tensor, size=(max(1, height // 2), max(1, width // 2)), mode="area")
    large = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return _as_pixels(large.numpy())


def gamma(images: Pixels, exponent: float) -> Pixels:
    """Return images whose greys, on the scale 0 to 1, are raised to a power."""
    table = _as_pixels(255 * (np.arange(256) / 255) ** exponent)
    return np.asarray(table[images], dtype=np.uint8)


def contrast(images: Pixels, factor: float) -> Pixels:
    """Return images whose greys lie as many times as far from the mean of their image."""
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    return _as_pixels(means + factor * (images - means))


def with_histogram(images: Pixels, histogram: Floats) -> Pixels:
    """Return images whose greys are exchanged, in their order, for those of one histogram, as far as can be.

    Pixels of one grey stay of one grey: they get the middle of the greys that their ranks have in the
    histogram.

    Args:
        images: Shape ``(n, C, H, W)``.
        histogram: How often each grey is wanted, shape ``(256,)``.
    """
    wanted = np.cumsum(histogram) / histogram.sum()
    changed = np.empty_like(images)
    for image, result in zip(images, changed, strict=True):
        counts = np.bincount(image.ravel(), minlength=256) / image.size
        ranks = np.cumsum(counts) - counts / 2
        result[:] = np.minimum(np.searchsorted(wanted, ranks), 255).astype(np.uint8)[image]
    return changed


def _as_pixels(values: npt.NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


@dataclass(frozen=True)
class _Evaluated:
    unchanged: dict[str, Estimate]
    unchanged_macro: Estimate
    rows: list[InterventionRow]


def _evaluated(
    table: PredictionTable, predicted: Mapping[str, Floats], settings: EvaluationSettings
) -> _Evaluated:
    counts = patient_counts(table.num_patients, settings.num_resamples, settings.seed)
    aurocs = {name: _aurocs(table, probabilities, counts) for name, probabilities in predicted.items()}
    values, samples = aurocs["unchanged"]
    before = [*zip(values.tolist(), samples, strict=True), macro_mean(values, samples)]
    *by_label, macro = (estimate(value, drawn, settings.level) for value, drawn in before)
    rows = []
    names: tuple[InterventionName, ...] = get_args(InterventionName)
    for name in names:
        if name in aurocs:
            values, samples = aurocs[name]
            after = [*zip(values.tolist(), samples, strict=True), macro_mean(values, samples)]
            *labels, mean = (
                _value(one, other, settings.level) for one, other in zip(before, after, strict=True)
            )
            rows.append(InterventionRow(name, dict(zip(table.labels, labels, strict=True)), mean))
    return _Evaluated(dict(zip(table.labels, by_label, strict=True)), macro, rows)


def _aurocs(table: PredictionTable, probabilities: Floats, counts: Counts) -> tuple[Floats, Floats]:
    ranked = label_rankings(replace(table, probabilities=probabilities), counts)
    return ranked.auroc, ranked.auroc_samples


def _value(before: tuple[float, Floats], after: tuple[float, Floats], level: float) -> InterventionValue:
    """Return the AUROC of changed images, and the share that it keeps above 0.5."""
    unchanged = estimate(*before, level)
    auroc = estimate(*after, level)
    least = before[0] if unchanged.low is None else unchanged.low  # of a perfect ranking nothing varies
    if least <= 0.5:
        return InterventionValue(auroc, Estimate(None))
    kept = (after[0] - 0.5) / (before[0] - 0.5)
    return InterventionValue(auroc, estimate(kept, ratio(after[1] - 0.5, before[1] - 0.5), level))


def _examples(
    images: ImageRows,
    table: PredictionTable,
    rows: Sequence[int],
    changes: Mapping[InterventionName, Change],
) -> dict[str, Pixels]:
    """Return the first image with a finding, as it is and changed."""
    place = int(np.argmax((table.targets == 1).any(axis=1)))
    row = [rows[place]]
    pixels = images[row]
    return {"unchanged": pixels[0]} | {
        TITLES[name]: change(pixels, row)[0] for name, change in changes.items()
    }


def intervention_caveat(result: InterventionResult | None) -> list[str]:
    """Return what to beware of where the model keeps much without the lungs; nothing where it does not."""
    row = None if result is None else result.row("no_lungs")
    if row is None or row.macro.kept.value is None:
        return []
    least = row.macro.kept.value if row.macro.kept.low is None else row.macro.kept.low
    if least < _MUCH_KEPT:
        return []
    return [f"{kept_without_lungs(row)} Much of what it has learnt lies outside the lungs."]


def kept_without_lungs(row: InterventionRow) -> str:
    """Return what is kept without the lungs, in a sentence.

    Example:
        >>> value = InterventionValue(Estimate(0.92, 0.9, 0.94), Estimate(0.85, 0.78, 0.91))
        >>> kept_without_lungs(InterventionRow("no_lungs", {}, value)).partition("model ")[2]
        'keeps 0.85 of its AUROC above 0.5 (0.78 to 0.91).'
    """
    kept = row.macro.kept
    if kept.value is None:
        return (
            "What the model keeps without the lungs cannot be told: on the unchanged images its AUROC is not "
            "above 0.5."
        )
    around = "" if kept.low is None else f" ({_number(kept.low)} to {_number(kept.high)})"
    return (
        f"Without the lungs (a box around them blanked) the model keeps {_number(kept.value)} of its AUROC "
        f"above 0.5{around}."
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}".replace("-", "\u2212")
