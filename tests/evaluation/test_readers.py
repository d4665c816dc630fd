"""Readers beside the model: agreement, and the model at each reader's specificity."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_curve

from cxrlab.errors import DataError
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.external_predictions import read_external
from cxrlab.evaluation.readers import reader_study
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.settings import EvaluationSettings


def with_readers(table, seed=0):
    """Three readers: two that err independently, and one who has read the first half of the images."""
    rng = np.random.default_rng(seed)
    readers = {}
    for name, right in (("Ann", 0.9), ("Bob", 0.75), ("Cleo", 0.85)):
        is_right = rng.random(table.targets.shape) < right
        readers[name] = np.where(is_right, table.targets, 1 - table.targets)
    readers["Cleo"][len(table) // 2 :] = np.nan
    return replace(table, readers=readers)


@pytest.fixture
def table(make_predictions):
    return with_readers(make_predictions())


@pytest.fixture
def study(table):
    return reader_study(table, patient_counts(table.num_patients, 400, seed=0), 0.95)


def test_agreement_and_kappa_are_those_of_scikit_learn(table, study):
    assert [of_label.label for of_label in study.labels] == list(table.labels)
    for column, of_label in enumerate(study.labels):
        assert [pair.readers for pair in of_label.pairs] == [("Ann", "Bob"), ("Ann", "Cleo"), ("Bob", "Cleo")]
        for pair in of_label.pairs:
            first, second = (table.readers[name][:, column] for name in pair.readers)
            both = ~np.isnan(first) & ~np.isnan(second)
            assert pair.images == both.sum()
            assert pair.agreement.value == pytest.approx((first == second)[both].mean())
            assert pair.kappa.value == pytest.approx(cohen_kappa_score(first[both], second[both]))
            assert pair.kappa.low < pair.kappa.value < pair.kappa.high


def test_the_model_is_compared_where_it_has_the_reader_s_specificity(table, study):
    for column, of_label in enumerate(study.labels):
        for row in of_label.rows:
            reading = table.readers[row.reader][:, column]
            known = ~np.isnan(reading)
            targets, scores = table.targets[known, column], table.probabilities[known, column]
            said = reading[known] == 1
            assert row.images == known.sum()
            assert row.sensitivity.value == pytest.approx(said[targets == 1].mean())
            assert row.specificity.value == pytest.approx(1 - said[targets == 0].mean())
            alarms, hits, _ = roc_curve(targets, scores, drop_intermediate=False)
            wanted = 1 - row.specificity.value
            there = hits[alarms <= wanted + 1e-12].max()  # scores have no ties: the curve has steps only
            assert row.model_sensitivity.value == pytest.approx(there, abs=1e-9)
            assert row.difference.value == pytest.approx(there - row.sensitivity.value)
            assert row.difference.low < row.difference.value < row.difference.high


def test_a_reader_as_good_as_the_model_is_not_told_apart_from_it(make_predictions):
    """The reader calls all that the model ranks above a certain negative: the difference is 0 in every resample."""
    table = make_predictions()
    limits = [
        np.quantile(scores[targets == 0], 0.7, method="nearest")
        for scores, targets in zip(table.probabilities.T, table.targets.T, strict=True)
    ]
    own = (table.probabilities > limits).astype(float)
    table = replace(table, readers={"model": own})
    study = reader_study(table, patient_counts(table.num_patients, 200, seed=0), 0.95)
    for of_label in study.labels:
        (row,) = of_label.rows
        assert row.difference.value == pytest.approx(0, abs=1e-9)
        assert row.difference.low is None or row.difference.low == pytest.approx(0, abs=1e-9)
        assert row.model_sensitivity.value == pytest.approx(row.sensitivity.value)


def test_ties_are_crossed_in_a_straight_line():
    from cxrlab.evaluation.readers import _sensitivity_at

    scores, present = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([True, True, False, True, False])
    once = np.ones((5, 1))
    found = [
        float(_sensitivity_at(scores, present, np.arange(5), once, np.array([specificity]))[0])
        for specificity in (1.0, 0.75, 0.5, 0.0)
    ]
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


def test_readings_follow_their_images_and_labels(table):
    some = table.rows(np.array([5, 3])).select_labels(["Mass"])
    for name, values in table.readers.items():
        np.testing.assert_array_equal(some.readers[name][:, 0], values[[5, 3], 1])


def test_evaluation_has_them_or_none(table, make_predictions):
    settings = EvaluationSettings(num_resamples=100)
    assert evaluate(table, settings=settings).readers.readers == ["Ann", "Bob", "Cleo"]
    assert evaluate(make_predictions(), settings=settings).readers is None


def test_nobody_who_has_read_one_class_only_is_compared(make_predictions):
    table = make_predictions(labels=("Edema",))
    reading = np.where(table.targets == 1, 1.0, np.nan)
    study = reader_study(
        replace(table, readers={"Ann": reading}), patient_counts(table.num_patients, 100, seed=0), 0.95
    )
    assert study.labels == []


def test_columns_of_a_file_are_readings(tmp_path):
    predictions, targets = tmp_path / "theirs.csv", tmp_path / "labels.csv"
    predictions.write_text("image,patient,Edema,Pleural Effusion\na,1,0.5,0.1\nb,2,0.6,0.2\n")
    targets.write_text(
        "image,Edema,Pleural Effusion,reader/Ann/pleural_effusion,reader/Bob/Edema\nb,0,1,1,-1\na,1,0,0,1\n"
    )
    table = read_external(predictions, targets, [])
    assert table.labels == ("Edema", "Pleural Effusion")
    np.testing.assert_array_equal(table.readers["Ann"], [[np.nan, 0], [np.nan, 1]])
    np.testing.assert_array_equal(table.readers["Bob"], [[1, np.nan], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "reader/Ann/Oedema",
            "1",
            r"'reader/Ann/Oedema' of .*labels\.csv must be called reader/<name>/<label>",
        ),
        ("reader/Ann", "1", "must be called reader/<name>/<label>"),
        (
            "reader/Ann/Edema",
            "2",
            r"Line 2 of .*labels\.csv has '2' in 'reader/Ann/Edema': a reading is 1, 0",
        ),
    ],
)
def test_wrong_readings_are_named(tmp_path, column, value, message):
    predictions, targets = tmp_path / "theirs.csv", tmp_path / "labels.csv"
    predictions.write_text("image,patient,Edema\na,1,0.5\n")
    targets.write_text(f"image,Edema,{column}\na,1,{value}\n")
    with pytest.raises(DataError, match=message):
        read_external(predictions, targets, [])
