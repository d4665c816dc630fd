import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from cxrlab.metrics.bootstrap import Estimate, patient_counts
from cxrlab.metrics.confusion import (
    confusion_counts,
    ppv_npv_at,
    resampled_confusion_counts,
    threshold_metrics,
)
from cxrlab.metrics.estimates import metric_estimates
from cxrlab.metrics.predictions import PredictionTable

LABELS = ("Edema", "Mass", "Nodule")
THRESHOLDS = np.array([0.5, 0.3, 0.6])


def draw(count: int = 120, seed: int = 0) -> PredictionTable:
    """Repeated patients, ties, some of them at a threshold, and unknown targets."""
    generator = np.random.default_rng(seed)
    probabilities = generator.integers(0, 21, (count, 3)) / 20
    targets = (generator.random((count, 3)) < 0.2 + 0.5 * probabilities).astype(float)
    targets[generator.random((count, 3)) < 0.2] = np.nan
    return PredictionTable(
        images=np.array([f"{row}.png" for row in range(count)], dtype=object),
        patients=np.r_[np.arange(40), generator.integers(40, size=count - 40)],
        labels=LABELS,
        targets=targets,
        probabilities=probabilities,
        patient_names=np.array([str(row) for row in range(40)], dtype=object),
    )


def known_of(table: PredictionTable, column: int):
    known = table.known[:, column]
    return table.targets[known, column].astype(int), table.probabilities[known, column]


REFERENCES = {
    "accuracy": metrics.accuracy_score,
    "sensitivity": metrics.recall_score,
    "specificity": lambda y, called: metrics.recall_score(y, called, pos_label=0),
    "ppv": metrics.precision_score,
    "npv": lambda y, called: metrics.precision_score(y, called, pos_label=0),
    "f1": metrics.f1_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "mcc": metrics.matthews_corrcoef,
}


def test_metrics_of_each_label_macro_and_micro_equal_scikit_learn():
    table = draw()
    counts = patient_counts(40, 100, seed=0)
    numbers = metric_estimates(table, THRESHOLDS, counts, level=0.95, prevalence=0.1)
    pooled_targets, pooled_calls, pooled_scores = [], [], []
    for column, label in enumerate(LABELS):
        targets, scores = known_of(table, column)
        called = (scores >= THRESHOLDS[column]).astype(int)
        for name, function in REFERENCES.items():
            assert numbers.labels[label][name].value == pytest.approx(function(targets, called)), name
        brier = numbers.labels[label]["brier"].value
        assert brier == pytest.approx(metrics.brier_score_loss(targets, scores))
        loss = numbers.labels[label]["log_loss"].value
        assert loss == pytest.approx(metrics.log_loss(targets, np.clip(scores, 1e-7, 1 - 1e-7)))
        pooled_targets += targets.tolist()
        pooled_calls += called.tolist()
        pooled_scores += scores.tolist()
    for name, function in REFERENCES.items():
        assert numbers.micro[name].value == pytest.approx(function(pooled_targets, pooled_calls)), name
        mean = np.mean([numbers.labels[label][name].value for label in LABELS])
        assert numbers.macro[name].value == pytest.approx(mean), name
    brier = metrics.brier_score_loss(pooled_targets, pooled_scores)
    assert numbers.micro["brier"].value == pytest.approx(brier)


def test_counts_equal_scikit_learn_in_the_sample_and_in_each_resample():
    table = draw()
    counts = patient_counts(40, 30, seed=2)
    whole = np.stack(confusion_counts(table, THRESHOLDS))
    drawn = np.stack(resampled_confusion_counts(table, THRESHOLDS, counts))
    assert whole.dtype == np.int64
    for column in range(3):
        targets, scores = known_of(table, column)
        called = scores >= THRESHOLDS[column]
        tn, fp, fn, tp = metrics.confusion_matrix(targets, called).ravel()
        assert whole[:, column].tolist() == [tp, fp, tn, fn]
        patients = table.patients[table.known[:, column]]
        for resample in range(30):
            weights = counts[patients, resample]
            tn, fp, fn, tp = metrics.confusion_matrix(targets, called, sample_weight=weights).ravel()
            assert drawn[:, column, resample].tolist() == [tp, fp, tn, fn]


def test_intervals_equal_a_loop_over_resamples():
    table = draw()
    counts = patient_counts(40, 40, seed=4)
    numbers = metric_estimates(table, THRESHOLDS, counts, level=0.95, prevalence=0.1)
    samples = {name: np.full((3, 40), np.nan) for name in ("f1", "mcc", "brier", "log_loss")}
    for resample in range(40):
        for column in range(3):
            targets, scores = known_of(table, column)
            weights = counts[table.patients[table.known[:, column]], resample]
            called = scores >= THRESHOLDS[column]
            samples["f1"][column, resample] = metrics.f1_score(targets, called, sample_weight=weights)
            samples["mcc"][column, resample] = metrics.matthews_corrcoef(
                targets, called, sample_weight=weights
            )
            samples["brier"][column, resample] = np.average((scores - targets) ** 2, weights=weights)
            samples["log_loss"][column, resample] = metrics.log_loss(
                targets, np.clip(scores, 1e-7, 1 - 1e-7), sample_weight=weights
            )
    for name, values in samples.items():
        for column, label in enumerate(LABELS):
            low, high = np.quantile(values[column], [0.025, 0.975])
            found = numbers.labels[label][name]
            assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
        low, high = np.quantile(values.mean(axis=0), [0.025, 0.975])
        assert (numbers.macro[name].low, numbers.macro[name].high) == pytest.approx((low, high), abs=1e-6)


def test_a_label_without_threshold_is_undefined_and_left_out_of_the_means():
    table = draw()
    counts = patient_counts(40, 100, seed=0)
    thresholds = np.array([0.5, np.nan, 0.6])
    numbers = metric_estimates(table, thresholds, counts, level=0.95, prevalence=0.1)
    assert numbers.labels["Mass"]["f1"] == Estimate(None)
    assert numbers.labels["Mass"]["brier"].value is not None
    others = metric_estimates(
        table.select_labels(["Edema", "Nodule"]), thresholds[[0, 2]], counts, level=0.95, prevalence=0.1
    )
    for name in REFERENCES:
        assert numbers.macro[name] == others.macro[name]
        assert numbers.micro[name] == others.micro[name]
    assert [int(values[1]) for values in confusion_counts(table, thresholds)] == [0, 0, 0, 0]


def test_without_any_threshold_what_needs_scores_is_left():
    table = draw()
    numbers = metric_estimates(
        table, np.full(3, np.nan), patient_counts(40, 100, seed=0), level=0.95, prevalence=0.1
    )
    for block in (numbers.macro, numbers.micro, *numbers.labels.values()):
        known = [name for name, one in block.items() if one.value is not None]
        assert known == ["auroc", "average_precision", "brier", "log_loss"]


def test_one_class_only_leaves_what_it_defines():
    table = draw()
    targets = table.targets.copy()
    targets[:, 0] = np.where(np.isnan(targets[:, 0]), np.nan, 0.0)
    numbers = metric_estimates(
        replace(table, targets=targets),
        THRESHOLDS,
        patient_counts(40, 100, seed=0),
        level=0.95,
        prevalence=0.1,
    )
    edema = numbers.labels["Edema"]
    undefined = {name for name, one in edema.items() if one.value is None}
    assert undefined == {
        "auroc", "average_precision", "sensitivity", "balanced_accuracy", "mcc", "ppv_at_prevalence", "npv_at_prevalence",
    }  # fmt: skip
    assert edema["ppv"].value == 0.0
    means = [numbers.labels[label]["sensitivity"].value for label in LABELS[1:]]
    assert numbers.macro["sensitivity"].value == pytest.approx(np.mean(means))


def test_a_label_that_is_nowhere_known_is_undefined():
    table = draw()
    targets = table.targets.copy()
    targets[:, 1] = np.nan
    numbers = metric_estimates(
        replace(table, targets=targets),
        THRESHOLDS,
        patient_counts(40, 100, seed=0),
        level=0.95,
        prevalence=0.1,
    )
    assert all(one.value is None for one in numbers.labels["Mass"].values())


def test_a_perfect_proportion_has_the_interval_of_the_patients_behind_it():
    # 3 patients with 2 positive images each, all found; 5 with negatives, all but 1 left alone
    patients = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7])
    targets = np.array([1.0] * 6 + [0.0] * 5)[:, None]
    table = PredictionTable(
        images=np.array([str(row) for row in range(11)], dtype=object),
        patients=patients,
        labels=("Mass",),
        targets=targets,
        probabilities=np.array([0.9] * 7 + [0.1] * 4)[:, None],
    )
    numbers = metric_estimates(
        table, np.array([0.5]), patient_counts(8, 100, seed=0), level=0.95, prevalence=0.1
    )
    z2 = 1.959964**2
    for block in ("macro", "micro"):
        assert getattr(numbers, block)["sensitivity"] == numbers.labels["Mass"]["sensitivity"]
    sensitivity = numbers.labels["Mass"]["sensitivity"]
    assert (sensitivity.value, sensitivity.high) == (1.0, 1.0)
    assert sensitivity.low == pytest.approx(3 / (3 + z2), abs=1e-5)
    assert numbers.labels["Mass"]["npv"].low == pytest.approx(4 / (4 + z2), abs=1e-5)
    assert numbers.labels["Mass"]["specificity"].value == pytest.approx(0.8)


def test_undefined_metrics_are_nan_where_scikit_learn_says_0():
    values = {name: float(value) for name, value in threshold_metrics(0, 0, 5, 3).items()}
    assert math.isnan(values["ppv"])
    assert math.isnan(values["mcc"])
    assert values["f1"] == 0.0
    assert math.isnan(threshold_metrics(0, 0, 5, 0)["f1"])
    assert all(math.isnan(value) for value in threshold_metrics(0, 0, 0, 0).values())


def test_large_counts_do_not_overflow():
    mcc = threshold_metrics(*np.array([10**6, 10**6, 10**6, 10**6]))["mcc"]
    assert float(mcc) == 0.0


def test_predictive_values_at_the_samples_own_prevalence_are_its_own():
    values = threshold_metrics(30, 20, 900, 50)
    ppv, npv = ppv_npv_at(values["sensitivity"], values["specificity"], 80 / 1000)
    assert float(ppv) == pytest.approx(30 / 50)
    assert float(npv) == pytest.approx(900 / 950)


def test_no_prevalence_leaves_its_metrics_out():
    numbers = metric_estimates(draw(), THRESHOLDS, patient_counts(40, 100, seed=0), level=0.95)
    assert (
        set(numbers.labels["Mass"])
        == {"auroc", "average_precision", "brier", "log_loss", *REFERENCES}
        == set(numbers.macro)
    )
