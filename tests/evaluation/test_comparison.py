import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.evaluation.comparison import compare, describe, outcome
from cxrlab.evaluation.results import Difference, LeftOut
from cxrlab.metrics.bootstrap import Estimate, estimate, holm, p_value, patient_counts
from cxrlab.metrics.delong import delong_test
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

LABELS = ("edema", "mass", "hernia")


SETTINGS = EvaluationSettings(
    threshold="youden", calibration="platt", num_resamples=200, level=0.95, prevalence=None, age_bands=(),
    min_positives=10, min_group_images=20, seed=3,
)  # fmt: skip


def settings(**changes):
    return replace(SETTINGS, **changes)


def model(skill, seed, *, num=300, part="test", patient=True, noise=1.0):
    """Predictions of a model; targets, patients and what is hard go by the image alone."""
    truth = np.random.default_rng(99)
    owners = np.sort(truth.integers(0, num // 3, num))
    hard = truth.normal(size=(num, 3))
    targets = (truth.random((num, 3)) < (0.4, 0.2, 0.0)).astype(float)  # hernia is absent
    targets[truth.random((num, 3)) < 0.1] = np.nan
    signal = hard + skill * np.nan_to_num(targets, nan=0.5)
    scores = signal + noise * np.random.default_rng(seed).normal(size=(num, 3))
    frame = pd.DataFrame({"image": [f"{number}.png" for number in range(num)], "part": part})
    if patient:
        frame["patient"] = [f"p{owner}" for owner in owners]
    for column, label in enumerate(LABELS):
        frame[f"target/{label}"] = targets[:, column]
        frame[f"probability/{label}"] = (1 / (1 + np.exp(-scores[:, column]))).round(3)
    return PredictionTable.from_frame(frame, f"{seed}.csv")


TABLES = {"weak": model(0.5, 1), "strong": model(2.0, 2), "strong too": model(1.95, 3)}


@pytest.fixture(scope="module")
def numbers():
    return compare(TABLES, settings())


def weighted_auroc(targets, scores, weights):
    """All pairs of each resample; weights of shape (N, B)."""
    pairs = (np.sign(scores[targets == 1][:, None] - scores[targets == 0]) + 1) / 2
    positives, negatives = weights[targets == 1], weights[targets == 0]
    return (positives * (pairs @ negatives)).sum(axis=0) / (positives.sum(axis=0) * negatives.sum(axis=0))


def weighted_average_precision(targets, scores, weights):
    """Precision at the score of each positive, in each resample."""
    positives = weights * (targets == 1)[:, None]
    called = (scores >= scores[:, None]).astype(float)
    precision = (called @ positives) / np.maximum(called @ weights, 1e-9)
    return (positives * precision).sum(axis=0) / positives.sum(axis=0)


WEIGHTED = {roc_auc_score: weighted_auroc, average_precision_score: weighted_average_precision}


def resampled(table, metric):
    """Macro means of the resamples, each written out."""
    weights = patient_counts(table.num_patients, 200, 3)[table.patients].astype(float)
    by_label = [
        WEIGHTED[metric](table.targets[known, column], table.probabilities[known, column], weights[known])
        for column, known in enumerate(table.known.T[:2])
    ]
    return np.mean(by_label, axis=0)


def whole(table, metric):
    return np.mean(
        [
            metric(table.targets[known, column], table.probabilities[known, column])
            for column, known in enumerate(table.known.T[:2])
        ]
    )


def test_the_reference_is_scikit_learn_with_weights():
    table, known = TABLES["strong"], TABLES["strong"].known[:, 0]
    targets, scores = table.targets[known, 0], table.probabilities[known, 0]
    weights = patient_counts(table.num_patients, 3, 0)[table.patients][known].astype(float)
    for metric, reference in WEIGHTED.items():
        expected = [metric(targets, scores, sample_weight=drawn) for drawn in weights.T]
        np.testing.assert_allclose(reference(targets, scores, weights), expected)


def ends(interval):
    return interval.value, interval.low, interval.high


def test_leaderboard(numbers):
    values = {name: whole(table, roc_auc_score) for name, table in TABLES.items()}
    assert [one.name for one in numbers.models] == sorted(values, key=values.get, reverse=True)
    assert numbers.num_macro_labels == 2
    for one in numbers.models:
        table = TABLES[one.name]
        for key, metric in (
            ("macro_auroc", roc_auc_score),
            ("macro_average_precision", average_precision_score),
        ):
            expected = estimate(whole(table, metric), resampled(table, metric), 0.95)
            assert ends(getattr(one, key)) == pytest.approx(ends(expected), abs=1e-6)
        assert one.labels["hernia"] == Estimate(None)
        known = table.known[:, 0]
        auroc = roc_auc_score(table.targets[known, 0], table.probabilities[known, 0])
        assert one.labels["edema"].value == pytest.approx(auroc)


def test_macro_differences_are_paired(numbers):
    assert [pair.models for pair in numbers.pairs] == [
        pair for pair in combinations([one.name for one in numbers.models], 2)
    ]
    raw = []
    for pair in numbers.pairs:
        first, second = (TABLES[name] for name in pair.models)
        samples = resampled(first, roc_auc_score) - resampled(second, roc_auc_score)
        value = whole(first, roc_auc_score) - whole(second, roc_auc_score)
        assert ends(pair.difference) == pytest.approx(ends(estimate(value, samples, 0.95)), abs=1e-6)
        low = p_value(samples) <= 2 / 201
        assert low or pair.p == p_value(samples)
        assert pair.p <= p_value(samples)
        raw.append(pair.p)
    assert [pair.p_holm for pair in numbers.pairs] == holm(raw)
    assert numbers.pairs[0].description.startswith("no difference shown: 0.0")
    assert numbers.pairs[2].description.startswith(f"{numbers.models[1].name} is better by 0.")


def test_labels_are_tested_by_delong_within_patients(numbers):
    for pair in numbers.pairs:
        first, second = (TABLES[name] for name in pair.models)
        raw = []
        for column, label in enumerate(LABELS[:2]):
            scores = first.probabilities[:, column], second.probabilities[:, column]
            expected = delong_test(*scores, first.targets[:, column], first.patients, 0.95)
            got = pair.labels[label]
            assert ends(got.difference) == pytest.approx(ends(expected.difference))
            assert got.p == pytest.approx(expected.p)
            raw.append(got.p)
        assert [pair.labels[label].p_holm for label in LABELS[:2]] == holm(raw)
        assert pair.labels["hernia"] == Difference(
            Estimate(None), None, None, "not_compared", "cannot be compared: one class only"
        )


def test_what_is_said_of_the_whole(numbers):
    content = numbers.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    patients = TABLES["weak"].num_patients
    assert (numbers.data.name, numbers.data.fingerprint, numbers.data.split) == ("", None, None)
    assert (numbers.data.images, numbers.data.patients) == (300, patients)
    assert (numbers.data.part, numbers.data.source) == ("test", "1.csv, 2.csv, 3.csv")
    interval = {
        "level": 0.95,
        "unit": "patient",
        "resamples": 200,
        "seed": 3,
        "method": "percentile bootstrap",
    }
    assert content["interval"] == interval
    assert numbers.left_out == LeftOut(0, [])
    assert [(one.kind, one.label) for one in numbers.flags] == [("one_class", "hernia")]


def test_a_model_does_not_differ_from_itself():
    table = TABLES["strong"]
    pair = compare({"a": table, "b": table}, settings()).pairs[0]
    assert pair.models == ("a", "b")
    assert pair.difference == Estimate(0.0)
    assert (pair.p, pair.p_holm) == (1.0, 1.0)
    assert pair.description == pair.labels["edema"].description == "no difference shown: 0.000"


def test_no_label_with_both_classes():
    tables = {name: table.select_labels(["hernia"]) for name, table in TABLES.items()}
    result = compare(tables, settings())
    assert result.num_macro_labels == 0
    assert [one.name for one in result.models] == list(tables)
    assert {one.macro_auroc.value for one in result.models} == {None}
    assert {pair.description for pair in result.pairs} == {"cannot be compared: one class only"}
    assert {pair.p_holm for pair in result.pairs} == {None}
    json.dumps(result.to_json(), allow_nan=False)


def test_of_many_models_the_pairs_with_the_best_are_shown():
    six = {f"m{number}": model(number / 5, number, num=120) for number in range(6)}
    all_pairs = compare(six, settings())
    assert len(all_pairs.pairs) == 15
    assert "pairs_left_out" not in {one.kind for one in all_pairs.flags}
    result = compare(six | {"m6": model(2.0, 6, num=120)}, settings())
    names = [one.name for one in result.models]
    assert [pair.models for pair in result.pairs] == [(names[0], name) for name in names[1:]]
    flags = {one.kind: one.message for one in result.flags}
    assert "Of 7 models only the pairs with the best one are shown" in flags["pairs_left_out"]
    # All 21 pairs count: the smallest p-value is worth 21 times itself.
    smallest = min(result.pairs, key=lambda pair: pair.p)
    assert smallest.p_holm == pytest.approx(21 * smallest.p)
    assert smallest.p_holm < 0.05


def test_clear_differences_are_not_lost_to_the_number_of_resamples():
    tables = {"good": model(4.0, 1, noise=0.1), "bad": model(0.0, 2)}
    pair = compare(tables, settings()).pairs[0]
    samples = resampled(tables["good"], roc_auc_score) - resampled(tables["bad"], roc_auc_score)
    assert p_value(samples) == 2 / 201
    assert pair.p == pytest.approx(2 * norm.sf(pair.difference.value / samples.std()))
    assert pair.p < 1e-6


@pytest.mark.slow
def test_equal_models_are_rarely_told_apart():
    """Seven equal models: the chance that any difference is shown is the level of all pairs together."""
    shown = 0
    for trial in range(100):
        generator = np.random.default_rng(trial)
        targets = (generator.random(150) < 0.4).astype(float)
        hard = generator.normal(size=150) + targets
        frame = pd.DataFrame({"image": [str(number) for number in range(150)], "target/x": targets})
        frame["patient"] = np.arange(150) // 2
        tables = {}
        for number in range(7):
            frame["probability/x"] = 1 / (1 + np.exp(-hard - generator.normal(size=150)))
            tables[str(number)] = PredictionTable.from_frame(frame, "x")
        result = compare(tables, settings(num_resamples=100))
        shown += any(pair.p_holm < 0.05 for pair in result.pairs)
    assert shown / 100 < 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5


def test_flags():
    unknown, other = (model(1.0, 1, num=40, patient=False, part=part) for part in ("val", ""))
    fewer = other.rows(np.arange(38)).select_labels(["mass", "edema"])
    result = compare({"a": unknown, "b": fewer}, settings())
    flags = {(one.kind, one.label): one.message for one in result.flags}
    assert {kind for kind, _ in flags} == {"val_part", "patients_unknown", "few_positives", "parts_differ", "images_left_out", "labels_left_out"}  # fmt: skip
    assert "{'a': 'val', 'b': 'unknown'}" in flags["parts_differ", None]
    assert "2 images are not in every table; 38 are compared" in flags["images_left_out", None]
    assert "hernia" in flags["labels_left_out", None]
    assert ("few_positives", "mass") in flags
    assert result.left_out == LeftOut(2, ["hernia"])
    assert (result.data.part, result.data.images, result.data.patients) == ("val", 38, None)
    assert result.interval.unit == "image"


def closed_test(p_values):
    """Holm's adjusted p-values from their definition: Bonferroni's test of every subset of hypotheses."""
    numbers = range(len(p_values))
    subsets = [subset for size in range(1, len(p_values) + 1) for subset in combinations(numbers, size)]
    bonferroni = {subset: min(1.0, len(subset) * min(p_values[one] for one in subset)) for subset in subsets}
    return [max(p for subset, p in bonferroni.items() if one in subset) for one in numbers]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test(seed):
    p_values = np.random.default_rng(seed).random(7).round(1 + seed % 2) ** (
        1 + seed
    )  # ties, 0 and small ones
    assert holm(list(p_values)) == pytest.approx(closed_test(list(p_values)))


def test_holm_leaves_out_what_was_not_tested():
    # By hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([np.nan, 0.01, 0.04, np.nan, 0.03, 0.005])
    assert np.isnan([adjusted[0], adjusted[3]]).all()
    assert [adjusted[index] for index in (1, 2, 4, 5)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert np.isnan(holm([np.nan])).all()


@pytest.mark.parametrize(
    ("value", "low", "high", "p_holm", "expected"),
    [
        (0.021, 0.0104, 0.0316, 0.004, "a is better by 0.021 (0.010 to 0.032)"),
        (-0.021, -0.0316, -0.0104, 0.004, "b is better by 0.021 (0.010 to 0.032)"),
        (0.004, -0.01, 0.018, 0.5, "no difference shown: 0.004 (-0.010 to 0.018)"),
        (-0.0001, -0.01, 0.0001, 0.5, "no difference shown: 0.000 (-0.010 to 0.000)"),
        (0.02, 0.001, 0.04, 0.12, "no difference shown after correction for several tests: 0.020 (0.001 to 0.040)"),
        (0.02, 0.001, 0.04, 0.05, "no difference shown after correction for several tests: 0.020 (0.001 to 0.040)"),
        (0.0, None, None, 1.0, "no difference shown: 0.000"),
        (-0.5, None, None, 0.002, "b is better by 0.500"),
        (1.0, None, None, np.nan, "cannot be tested: 1.000, too little varies"),
        (None, None, None, np.nan, "cannot be compared: one class only"),
    ],
)  # fmt: skip
def test_descriptions(value, low, high, p_holm, expected):
    difference = Estimate(value, low, high)
    assert describe(("a", "b"), difference, outcome(difference, p_holm, 0.95)) == expected
