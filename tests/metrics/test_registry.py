import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.errors import ConfigError
from cxrlab.metrics import METRICS, Metric, PredictionTable, load_metrics, metric, metric_estimates, register
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.streaming import LabelMetrics, check_monitor, label_metrics

KEYS = ("monitor", "monitor_mode")
LABELS = ("Edema", "Mass")


@metric(title="Squared error", higher_is_better=False, needs="scores")
def squared_error(scores, targets):
    return float(np.square(scores - targets).mean())


@metric(title="Youden's J", higher_is_better=True, needs="decisions")
def youden(decisions, targets):
    return float(decisions[targets == 1].mean() - decisions[targets == 0].mean())


@metric(title="scikit-learn's AUROC", higher_is_better=True, needs="scores", name="their_auroc")
def of_scikit_learn(scores, targets):
    if len(np.unique(targets)) < 2:
        raise ValueError("Only one class present in y_true.")
    return roc_auc_score(targets, scores)


@pytest.fixture(autouse=True)
def my_lab(monkeypatch):
    """A package with metrics of its own; afterwards nothing of it is left in the registry."""
    package = ModuleType("my_lab_metrics")
    package.squared_error, package.youden, package.their_auroc = squared_error, youden, of_scikit_learn
    package.plain = lambda scores, targets: 0.0
    monkeypatch.setitem(sys.modules, "my_lab_metrics", package)
    yield
    load_metrics([])


def table_of(count=240, missing=0.2, seed=0):
    generator = np.random.default_rng(seed)
    probabilities = generator.integers(0, 21, (count, 2)) / 20
    targets = (generator.random((count, 2)) < 0.2 + 0.5 * probabilities).astype(float)
    targets[generator.random((count, 2)) < missing] = np.nan
    return PredictionTable(
        images=np.array([str(row) for row in range(count)], dtype=object),
        patients=np.arange(count) // 2,
        labels=LABELS,
        targets=targets,
        probabilities=probabilities,
    )


def test_cxrlabs_own_metrics_have_titles_and_directions():
    assert METRICS["auroc"].title == "AUROC"
    assert [name for name, own in METRICS.items() if not own.higher_is_better] == ["brier", "log_loss"]
    assert [own.name for own in METRICS.in_training] == ["auroc", "average_precision", "accuracy"]
    assert METRICS.added == ()


def test_the_plain_functions_of_our_own_metrics_are_their_resampled_forms():
    table = table_of()
    estimates = metric_estimates(table, np.array([0.4, 0.6]), patient_counts(120, 2, 0), level=0.95)
    for column, label in enumerate(LABELS):
        known = table.known[:, column]
        scores, targets = table.probabilities[known, column], table.targets[known, column]
        decisions = (scores >= (0.4, 0.6)[column]).astype(float)
        for name, value in estimates.labels[label].items():
            predictions = scores if METRICS[name].needs == "scores" else decisions
            assert METRICS[name](predictions, targets) == pytest.approx(value.value), name


def test_what_a_config_names_takes_the_place_of_what_an_earlier_one_named():
    assert load_metrics(["my_lab_metrics.squared_error"]) == (squared_error,)
    load_metrics(["my_lab_metrics.youden", "brier"])
    assert METRICS.added == (youden,)
    assert [item.name for item in METRICS.in_training][3:] == ["youden", "brier"]
    assert "squared_error" not in METRICS
    load_metrics([])
    assert METRICS.added == ()
    assert len(METRICS.in_training) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_lab_metrics.missing", r"metrics=my_lab_metrics.missing cannot be imported"),
        ("no_such_package.metric", r"Is the package no_such_package installed"),
        ("my_lab_metrics.plain", r"is a function, no metric: put @cxrlab.metrics.metric"),
        ("kappa", r"none of cxrlab's own metrics, \['auroc', .*dotted path"),
    ],
)
def test_what_is_no_metric_is_told(path, message):
    load_metrics(["my_lab_metrics.youden"])
    with pytest.raises(ConfigError, match=message):
        load_metrics([path])
    assert METRICS.added == (youden,)


@pytest.mark.parametrize("name", ["auroc", "loss", "two words"])
def test_names_that_are_taken_or_no_names_are_rejected(name):
    with pytest.raises(ConfigError, match="auroc|loss|two words"):
        register(Metric(name, "x", True, "scores", lambda scores, targets: 0.0))


def test_in_a_training_it_stands_beside_the_others_and_can_be_monitored_in_its_direction():
    with pytest.raises(ConfigError, match="monitor=val/squared_error is no metric of validation"):
        check_monitor("val/squared_error", "min", LABELS, keys=KEYS)
    with pytest.raises(ConfigError, match=r"brier is computed during a training with metrics=\[brier\]"):
        check_monitor("val/brier", "min", LABELS, keys=KEYS)
    load_metrics(["my_lab_metrics.squared_error", "my_lab_metrics.youden", "brier"])
    for monitor in ("val/squared_error", "val/squared_error/Mass", "val/brier"):
        check_monitor(monitor, "min", LABELS, keys=KEYS)
        with pytest.raises(ConfigError, match="monitor_mode=max would choose the worst .*monitor_mode=min"):
            check_monitor(monitor, "max", LABELS, keys=KEYS)
    check_monitor("val/youden", "max", LABELS, keys=KEYS)
    table, streamed = table_of(), LabelMetrics(LABELS)
    streamed.update(torch.tensor(table.probabilities), torch.tensor(table.targets))
    results = {name: float(value) for name, value in streamed.compute().items()}
    known = table.known[:, 0]
    scores, targets = table.probabilities[known, 0], table.targets[known, 0]
    assert results["squared_error/Edema"] == pytest.approx(np.square(scores - targets).mean(), abs=1e-6)
    assert results["brier"] == pytest.approx(results["squared_error"])
    expected = (scores[targets == 1] > 0.5).mean() - (scores[targets == 0] > 0.5).mean()
    assert results["youden/Edema"] == pytest.approx(expected, abs=1e-6)
    assert list(results)[:3] == ["auroc", "auroc/Edema", "auroc/Mass"]


def test_without_ones_own_metrics_nothing_is_added():
    table = table_of()
    names = label_metrics(torch.tensor(table.probabilities), torch.tensor(table.targets), LABELS)
    assert [name for name in names if "/" not in name] == ["auroc", "average_precision", "accuracy"]


def test_its_interval_is_that_of_cxrlabs_own_form():
    load_metrics(["my_lab_metrics.squared_error", "my_lab_metrics.youden", "my_lab_metrics.their_auroc"])
    table, counts = table_of(), patient_counts(120, 100, 1)
    estimates = metric_estimates(table, np.array([0.5, 0.3]), counts, level=0.9)
    for block in (*estimates.labels.values(), estimates.macro, estimates.micro):
        for end in ("value", "low", "high"):
            ours = getattr(block["brier"], end)
            assert getattr(block["squared_error"], end) == pytest.approx(ours, abs=1e-6)
        assert block["their_auroc"].value == pytest.approx(block["auroc"].value)
        expected = block["sensitivity"].value + block["specificity"].value - 1
        if block is not estimates.macro:
            assert block["youden"].value == pytest.approx(expected)
        assert block["youden"].low < block["youden"].value < block["youden"].high
    for label, auroc in estimates.bootstrapped.items():
        theirs = estimates.labels[label]["their_auroc"]
        assert (theirs.value, theirs.low, theirs.high) == pytest.approx((auroc.value, auroc.low, auroc.high))


def test_of_one_class_or_without_threshold_it_is_undefined():
    load_metrics(["my_lab_metrics.youden", "my_lab_metrics.their_auroc"])
    table = table_of()
    table.targets[:, 0] = np.where(table.known[:, 0], 1.0, np.nan)
    estimates = metric_estimates(table, np.array([0.5, np.nan]), patient_counts(120, 50, 0), level=0.95)
    assert estimates.labels["Edema"]["their_auroc"].value is None
    assert estimates.labels["Mass"]["youden"].value is None
    assert estimates.macro["their_auroc"] == estimates.labels["Mass"]["their_auroc"]
    assert math.isnan(squared_error(np.empty(0), np.empty(0)))


def test_a_function_that_fails_is_named():
    broken = Metric("broken", "x", True, "scores", lambda scores, targets: [1.0, 2.0])
    with pytest.raises(ConfigError, match="The metric broken failed on 2 images.*NaN where undefined"):
        broken(np.array([0.1, 0.2]), np.array([0.0, 1.0]))


def test_average_precision_needs_no_library():
    table = table_of(missing=0.0)
    scores, targets = table.probabilities[:, 0], table.targets[:, 0]
    assert METRICS["average_precision"](scores, targets) == pytest.approx(
        average_precision_score(targets, scores)
    )
