from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from cxrlab.evaluation.classification import classification_report
from cxrlab.metrics.bootstrap import Estimate, patient_counts, proportion
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(
    threshold="youden",
    calibration="none",
    num_resamples=200,
    level=0.95,
    prevalence=0.1,
    age_bands=[],
    min_positives=10,
    min_group_images=20,
    seed=0,
)
COUNTS = patient_counts(30, 120, seed=1)


def table_of(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> PredictionTable:
    count = len(targets)
    patients = np.r_[np.arange(30), np.random.default_rng(5).integers(30, size=count - 30)]
    return PredictionTable(
        images=np.array([str(row) for row in range(count)], dtype=object),
        patients=patients,
        labels=labels,
        targets=targets,
        probabilities=probabilities,
    )


def binary(seed: int = 0) -> PredictionTable:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 11, (90, 1)) / 10
    targets = (generator.random((90, 1)) < 0.2 + 0.6 * scores).astype(float)
    targets[generator.random((90, 1)) < 0.1] = np.nan
    return table_of(targets, scores, ("Pneumonia",))


def exclusive(seed: int = 0, num_labels: int = 3) -> PredictionTable:
    generator = np.random.default_rng(seed)
    truth = generator.integers(num_labels, size=90)
    scores = generator.integers(0, 11, (90, num_labels)) / 10
    scores[np.arange(90), truth] = np.maximum(scores[np.arange(90), truth], 0.6)
    return table_of(np.eye(num_labels)[truth], scores, tuple(f"class {row}" for row in range(num_labels)))


def check(report, truth, called, patients) -> None:
    names = [row.class_ for row in report.classes]
    numbers = list(range(len(names)))
    expected = metrics.classification_report(
        truth, called, labels=numbers, target_names=names, output_dict=True, zero_division=0
    )
    for row in report.classes:
        reference = expected[row.class_]
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert getattr(row, ours).value == pytest.approx(reference[theirs])
        assert row.support == reference["support"]
    assert report.accuracy.value == pytest.approx(metrics.accuracy_score(truth, called))
    assert report.matrix == metrics.confusion_matrix(truth, called, labels=numbers).tolist()
    for mean, kind in ((report.macro, "macro"), (report.weighted, "weighted")):
        reference = metrics.precision_recall_fscore_support(
            truth, called, labels=numbers, average=kind, zero_division=np.nan
        )
        assert (mean.precision.value, mean.recall.value, mean.f1.value) == pytest.approx(reference[:3])
        assert mean.support == len(truth)
    samples, means = [], []
    for resample in COUNTS.T:
        weights = resample[patients]
        shares = metrics.precision_recall_fscore_support(
            truth, called, labels=numbers, sample_weight=weights, zero_division=np.nan
        )
        samples.append(np.stack(shares[:3]))
        means.append(
            [
                metrics.precision_recall_fscore_support(
                    truth, called, labels=numbers, sample_weight=weights, average=kind, zero_division=np.nan
                )[:3]
                for kind in ("macro", "weighted")
            ]
        )
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    for row, mean in enumerate((report.macro, report.weighted)):
        for column, name in enumerate(("precision", "recall", "f1")):
            found = (getattr(mean, name).low, getattr(mean, name).high)
            assert found == pytest.approx((low[row, column], high[row, column]), abs=1e-6)
    low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
    for index, row in enumerate(report.classes):
        assert (row.f1.low, row.f1.high) == pytest.approx((low[2, index], high[2, index]), abs=1e-6)
        for metric, (name, images) in enumerate((("precision", called == index), ("recall", truth == index))):
            found = getattr(row, name)
            behind = {"units": len(set(patients[images])), "trials": int(images.sum())}
            expected = proportion(found.value, np.array(samples)[:, metric, index], 0.95, **behind)
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_one_label_equals_scikit_learn():
    table = binary()
    report = classification_report(table, np.array([0.5]), COUNTS, SETTINGS)
    assert report is not None
    assert report.kind == "binary"
    assert [row.class_ for row in report.classes] == ["no Pneumonia", "Pneumonia"]
    known = table.known[:, 0]
    called = (table.probabilities[known, 0] >= 0.5).astype(int)
    check(report, table.targets[known, 0].astype(int), called, table.patients[known])


@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_exclusive_labels_equal_scikit_learn(num_labels: int):
    table = exclusive(num_labels=num_labels)
    report = classification_report(table, np.full(num_labels, np.nan), COUNTS, SETTINGS)
    assert report is not None
    assert report.kind == "exclusive"
    check(report, table.targets.argmax(axis=1), table.probabilities.argmax(axis=1), table.patients)


def test_a_class_that_is_never_called_has_no_precision():
    table = exclusive()
    scores = table.probabilities.copy()
    scores[:, 1] = 0.0
    report = classification_report(replace(table, probabilities=scores), np.full(3, np.nan), COUNTS, SETTINGS)
    assert report is not None
    assert report.classes[1].precision == Estimate(None)
    assert report.classes[1].recall.value == 0.0
    assert report.classes[1].recall.high > 0  # 0 of a few patients is not 0 of all
    others = [report.classes[0].precision.value, report.classes[2].precision.value]
    assert report.macro.precision.value == pytest.approx(np.mean(others))


def test_images_without_the_label_are_called_as_the_data_set_calls_them():
    report = classification_report(binary(), np.array([0.5]), COUNTS, SETTINGS, negative="Normal")
    assert report is not None
    assert [row.class_ for row in report.classes] == ["Normal", "Pneumonia"]


@pytest.mark.parametrize("fault", ["two", "none", "unknown"])
def test_images_with_another_number_of_labels_have_no_classes(fault: str):
    table = exclusive()
    targets = table.targets.copy()
    targets[7] = {"two": [1, 1, 0], "none": [0, 0, 0], "unknown": [1, 0, np.nan]}[fault]
    assert classification_report(replace(table, targets=targets), np.full(3, 0.5), COUNTS, SETTINGS) is None


def test_one_label_without_threshold_or_target_has_no_report():
    table = binary()
    assert classification_report(table, np.array([np.nan]), COUNTS, SETTINGS) is None
    unknown = replace(table, targets=np.full_like(table.targets, np.nan))
    assert classification_report(unknown, np.array([0.5]), COUNTS, SETTINGS) is None


def test_classes_without_error_have_the_intervals_of_their_patients():
    table = exclusive()
    report = classification_report(
        replace(table, probabilities=table.targets), np.full(3, np.nan), COUNTS, SETTINGS
    )
    assert report is not None
    z2 = 1.959964**2
    for column, row in enumerate(report.classes):
        patients = len(np.unique(table.patients[table.targets[:, column] == 1]))
        for name in ("precision", "recall"):
            assert getattr(row, name).low == pytest.approx(patients / (patients + z2), abs=1e-5)
        share = patients / (patients + z2)
        assert row.f1.low == pytest.approx(2 * share / (1 + share), abs=1e-5)
        assert row.f1.high == 1.0
    fewest = min(len(np.unique(table.patients[column == 1])) for column in table.targets.T)
    for mean in (report.macro, report.weighted):
        assert mean.recall.low == pytest.approx(fewest / (fewest + z2), abs=1e-5)
    assert report.accuracy.low == pytest.approx(30 / (30 + z2), abs=1e-5)
