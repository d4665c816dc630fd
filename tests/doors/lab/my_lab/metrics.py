import numpy as np

from cxrlab.metrics import metric


@metric(title="Squared error", higher_is_better=False, needs="scores")
def squared_error(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared difference: the smaller the better."""
    return float(np.square(scores - targets).mean())


@metric(title="Youden's J", higher_is_better=True, needs="decisions")
def youden(decisions: np.ndarray, targets: np.ndarray) -> float:
    """Return sensitivity + specificity - 1; NaN where there is only one class."""
    positives, negatives = targets == 1, targets == 0
    if not positives.any() or not negatives.any():
        return float("nan")
    return float(decisions[positives].mean() - decisions[negatives].mean())
