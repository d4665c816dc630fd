"""What a reader must know of thresholds: chosen on few patients, or at the edge of a class."""

from collections.abc import Callable, Sequence

from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.results import Caveat
from cxrlab.metrics.margin import ThresholdBasis, margin_fault


def threshold_caveats(
    labels: Sequence[str], thresholds: Thresholds | None, min_threshold_patients: int
) -> list[Caveat]:
    """Return what weakens thresholds that were chosen on images that are at hand.

    Several labels of one kind share a sentence, or a page of fourteen labels would begin with twenty.

    Args:
        labels: L names.
        thresholds: Of the same labels; None for none.
        min_threshold_patients: Thresholds chosen on fewer patients of either class are flagged.
    """
    if thresholds is None or not thresholds.basis:
        return []
    few, edge = {}, {}
    for label, value, basis in zip(labels, thresholds.values.tolist(), thresholds.basis, strict=True):
        if basis.low is None:
            continue
        rarer = _rarer(basis)
        if rarer[0] < min_threshold_patients:
            few[label] = rarer[1]
        if fault := margin_fault(basis.low, value, basis.high):
            edge[label] = _MARGINS[fault](value, basis)
    return [
        *_caveat(
            "few_threshold_positives",
            few,
            "chosen on few validation images",
            "On other images sensitivity and specificity may lie far from those of validation: have more "
            "validation images (data.split.val_fraction, or data.split.method=folds), or give a threshold.",
        ),
        *_caveat(
            "narrow_margin",
            edge,
            "left with little margin",
            "Where another machine or exposure moves the probabilities, sensitivity or specificity falls at "
            "once: compare them with those of validation before use; evaluation.threshold=midpoint lies as "
            "far from one class as from the other.",
        ),
    ]


def _rarer(basis: ThresholdBasis) -> tuple[int, str]:
    """Return how many patients, or images where patients are unknown, the rarer class has, and in words."""
    classes = (
        (basis.positives, basis.positive_patients, "with the finding"),
        (basis.negatives, basis.negative_patients, "without it"),
    )
    images, patients, which = min(
        classes, key=lambda of_class: of_class[0] if of_class[1] is None else of_class[1]
    )
    if patients is None:
        return images, f"{images} images {which}"
    return patients, f"{images} images {which}, of {patients} patients"


_MARGINS: dict[str, Callable[[float, ThresholdBasis], str]] = {
    "narrow": lambda value, basis: f"{value:.3g}, and from {basis.low:.3g} to {basis.high:.3g} only",
    "one_sided": lambda value, basis: f"{value:.3g}, at the end of {basis.low:.3g} to {basis.high:.3g}",
}


def _caveat(kind: str, found: dict[str, str], what: str, advice: str) -> list[Caveat]:
    if not found:
        return []
    listed = "; ".join(f"{label} ({why})" for label, why in found.items())
    if len(found) == 1:
        (label,) = found
        return [Caveat(kind, label, f"The threshold of {listed} was {what}. {advice}")]
    return [Caveat(kind, None, f"{len(found)} thresholds were {what}: {listed}. {advice}")]
