"""What a training started from, in sentences: whose weights, their licence, and what they had seen."""

from cxrlab.evaluation.contamination import seen_words
from cxrlab.models.weights import RANDOM, InitialWeights, SeenData
from cxrlab.models.weights.seen import UNKNOWN_DATA
from cxrlab.report.model_info import ModelInfo


def started_from(model_info: ModelInfo) -> list[str]:
    """Return what the training started from, what those weights had seen, and their licence.

    Returns:
        A sentence for each of an ensemble's kinds of weights; none where nothing is recorded.
    """
    subject = "Members" if model_info.kind == "ensemble" else "The training"
    kinds = _kinds_of_start(model_info)
    return [f"{subject} started from {_start_words(weights)}." for weights in kinds]


def _start_words(weights: InitialWeights | None) -> str:
    if weights is None:
        return "weights that are not recorded"
    if weights == RANDOM:
        return "random weights"
    licence = f", licence {weights.licence}" if weights.licence else ""
    if weights.seen is None:
        return f"{weights.title}{licence}; what they were trained on is not known"
    known = list(dict.fromkeys(seen_words(seen) for seen in weights.seen if seen.data != UNKNOWN_DATA))
    more = ["others that are not known"] if len(known) < len(weights.seen) and _has_unknown(weights) else []
    named = [*known, *more]
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return f"{weights.title}{licence}, trained on {listed or 'nothing'}"


def seen_at_start(model_info: ModelInfo) -> list[str]:
    """Return what the weights that the training started from had been trained on, with how that is known."""
    lines = []
    for weights in _kinds_of_start(model_info):
        title = "weights that are not recorded" if weights is None else weights.title
        if weights is None or weights.seen is None:
            lines.append(f"What the training started from, {title}, had seen is not known.")
        elif weights.seen:
            seen = "; ".join(map(_seen_in_detail, weights.seen))
            lines.append(f"What the training started from, {title}, had seen: {seen}.")
        if weights is not None and weights.source:
            lines.append(f"Source of these weights: {weights.source.rstrip('.')}.")
    return lines


def _seen_in_detail(seen: SeenData) -> str:
    what = "others, which are not known" if seen.data == UNKNOWN_DATA else seen_words(seen)
    note = seen.note.rstrip(".")
    return f"{what} [{note}]" if note else what


def _kinds_of_start(model_info: ModelInfo) -> list[InitialWeights | None]:
    kinds: list[InitialWeights | None] = []
    for weights in model_info.initial_weights:
        if weights not in kinds:
            kinds.append(weights)
    return kinds


def _has_unknown(weights: InitialWeights) -> bool:
    return any(seen.data == UNKNOWN_DATA for seen in weights.seen or ())
