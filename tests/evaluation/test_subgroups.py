import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.evaluation.subgroups import subgroup_numbers
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(
    threshold=0.5,
    calibration="none",
    num_resamples=200,
    level=0.95,
    prevalence=None,
    age_bands=[0, 18, 40, 60, 80],
    min_positives=10,
    min_group_images=20,
    seed=0,
)
P = 300


def make(covariates, labels=("A", "B"), separation=1.5, known=True, rng_seed=0):
    """Three images a patient; ``separation`` between positives and negatives, one number or one an image."""
    rng = np.random.default_rng(rng_seed)
    number = 3 * P
    targets = (rng.random((number, len(labels))) < 0.3).astype(float)
    shift = np.broadcast_to(np.reshape(separation, (-1, 1)), (number, 1))
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=targets.shape) + shift * (targets - 0.5))))
    return PredictionTable(
        images=np.array([f"{row}.png" for row in range(number)], dtype=object),
        patients=np.arange(number) % P,
        labels=tuple(labels),
        targets=targets,
        probabilities=probabilities,
        covariates=pd.DataFrame(covariates),
        patient_names=np.arange(P).astype(str).astype(object) if known else None,
    )


def numbers(table, thresholds=0.5, settings=SETTINGS):
    found = subgroup_numbers(table, np.full(len(table.labels), thresholds), settings)
    json.dumps(asdict(found), allow_nan=False)
    return found


def evaluate(table, thresholds=0.5):
    found = numbers(table, thresholds)
    return found.rows, found.gaps


def test_every_group_has_a_row_for_each_label_and_the_mean():
    view = np.array(["PA", "AP", "PA"]).repeat(P)
    table = make({"view": view, "age": np.linspace(1, 60, 3 * P)})
    rows, _ = evaluate(table)
    names = [(row.covariate, row.group, row.label) for row in rows]
    groups = [
        ("view", "AP"),
        ("view", "PA"),
        ("age", "0-17 years"),
        ("age", "18-39 years"),
        ("age", "40-59 years"),
    ]
    assert [(*group, label) for group in groups for label in ("macro", "A", "B")] == names[:15]
    row = next(row for row in rows if (row.group, row.label) == ("AP", "B"))
    targets, scores = table.targets[view == "AP", 1], table.probabilities[view == "AP", 1]
    assert (row.images, row.patients, row.positives) == (P, P, targets.sum())
    assert row.auroc.value == pytest.approx(roc_auc_score(targets, scores))
    assert row.auroc.low < row.auroc.value < row.auroc.high
    assert row.sensitivity.value == pytest.approx((scores[targets == 1] >= 0.5).mean())
    assert row.specificity.value == pytest.approx((scores[targets == 0] < 0.5).mean())
    mean = next(row for row in rows if (row.group, row.label) == ("AP", "macro"))
    both = [row.auroc.value for row in rows if row.group == "AP" and row.label != "macro"]
    assert mean.auroc.value == pytest.approx(np.mean(both))
    assert (mean.images, mean.positives, mean.num_labels) == (P, None, 2)


def test_a_true_gap_is_shown_and_none_is_invented():
    rng = np.random.default_rng(5)
    sex = np.tile(rng.choice(["F", "M"], P), 3)
    table = make(
        {"sex": sex, "coin": rng.choice(["heads", "tails"], 3 * P)}, separation=np.where(sex == "F", 0.5, 2.5)
    )
    gaps = {(gap.covariate, gap.label, gap.metric): gap for gap in evaluate(table)[1]}
    shown = gaps["sex", "macro", "auroc"]
    assert shown.groups == ("F", "M")
    assert shown.difference.high < 0
    assert shown.p_holm < 0.001
    assert shown.description.endswith("a difference is shown")
    assert gaps["coin", "macro", "auroc"].p_holm > 0.05
    assert len(gaps) == 2 * 3 * 3


def test_patients_in_both_groups_are_drawn_together():
    """A gap between two views of the same patients varies less than one between two kinds of patients."""
    number, rng = 3 * P, np.random.default_rng(0)
    base = make({"view": np.array(["PA", "AP", "PA"]).repeat(P)}, labels=("A",))
    ease = np.tile(rng.random(P) < 0.5, 3)  # patients who are all easy or all hard
    targets = np.tile((rng.random(P) < 0.5).astype(float), 3)[:, None]
    called = ease ^ (rng.random(number) < 0.05)
    scores = np.where(called, 0.9, 0.1)[:, None]
    paired = PredictionTable(
        base.images, base.patients, ("A",), targets, scores, base.covariates, base.patient_names
    )
    alone = PredictionTable(base.images, np.arange(number), ("A",), targets, scores, base.covariates)
    widths = []
    for table in (paired, alone):
        gap = next(gap for gap in evaluate(table)[1] if gap.metric == "sensitivity")
        widths.append(gap.difference.high - gap.difference.low)
    assert widths[0] < 0.8 * widths[1]


def test_small_groups_are_counted_but_not_evaluated():
    site = np.where(np.arange(3 * P) < 19, "small", "large")
    rows, gaps = evaluate(make({"site": site}))
    nothing = Estimate(None)
    small = [row for row in rows if row.group == "small"]
    assert [row.images for row in small] == [19, 19, 19]
    assert all(
        getattr(row, metric) == nothing for row in small for metric in ("auroc", "sensitivity", "specificity")
    )
    assert gaps == []


def test_unknown_values_are_named_but_not_compared():
    view = np.array(["PA", "AP", ""]).repeat(P)
    rows, gaps = evaluate(make({"view": view}))
    assert {row.group for row in rows} == {"AP", "PA", "unknown"}
    assert all(row.auroc.value is not None for row in rows)
    assert all("unknown" not in gap.groups for gap in gaps)


def test_causes_known_of_positives_only_are_compared_with_all_negatives():
    table = make({}, labels=("Pneumonia",))
    cause = np.where(table.targets[:, 0] == 1, np.where(np.arange(3 * P) % 2, "virus", "bacteria"), "")
    table.covariates["cause"] = cause
    rows, gaps = evaluate(table)
    assert [(row.group, row.negatives_from) for row in rows] == [
        ("bacteria", "all"),
        ("virus", "all"),
        ("unknown", "group"),
    ]
    chosen = (cause == "virus") | (table.targets[:, 0] == 0)
    expected = roc_auc_score(table.targets[chosen, 0], table.probabilities[chosen, 0])
    assert rows[1].auroc.value == pytest.approx(expected)
    assert rows[1].specificity.value is None
    assert {(gap.label, gap.metric) for gap in gaps} == {
        ("Pneumonia", "auroc"),
        ("Pneumonia", "sensitivity"),
    }


def test_without_thresholds_there_is_auroc_only():
    rows, gaps = evaluate(make({"view": np.array(["PA", "AP", "PA"]).repeat(P)}), np.nan)
    assert all(row.sensitivity.value is None and row.auroc.value is not None for row in rows)
    assert {gap.metric for gap in gaps} == {"auroc"}


def test_unknown_patients_are_not_counted():
    rows, _ = evaluate(make({"view": np.array(["PA", "AP", "PA"]).repeat(P)}, known=False))
    assert {row.patients for row in rows} == {None}


@pytest.mark.parametrize(
    "values", [["PA"] * 3 * P, [f"study {row}" for row in range(3 * P)], [np.nan] * 3 * P]
)
def test_a_covariate_that_tells_no_groups_is_left_out(values):
    assert evaluate(make({"it": values})) == ([], [])


def test_no_covariates_give_nothing():
    assert evaluate(make({})) == ([], [])


def test_the_number_of_tests_is_that_of_all_pairs_metrics_labels_and_covariates():
    rng = np.random.default_rng(1)
    covariates = {
        "sex": np.tile(rng.choice(["F", "M"], P), 3),
        "site": np.tile(rng.choice(["a", "b", "c"], P), 3),
    }
    found = numbers(make(covariates))
    assert found.num_tested == (1 + 3) * 3 * 3  # pairs, metrics, two labels and their mean
    assert len(found.gaps) == 2 * 3 * 3
    factors = [gap.p_holm / gap.p for gap in found.gaps if gap.p_holm < 1]
    assert max(factors, default=0) <= found.num_tested


def test_few_patients_behind_a_value_are_not_tested():
    """19 patients with the finding, of 57 images: they are in the table, and in no test of sensitivity."""
    table = make({"site": np.tile(np.where(np.arange(P) < 60, "small", "large"), 3)}, labels=("A",))
    table.targets[:, 0] = np.tile(np.isin(np.arange(P), [*range(19), *range(100, 200)]), 3)
    assert {gap.metric for gap in evaluate(table)[1]} == {"specificity"}
    table.targets[:, 0] = np.tile(np.isin(np.arange(P), [*range(20), *range(100, 200)]), 3)
    gaps = {gap.metric: gap for gap in evaluate(table)[1]}
    assert set(gaps) == {"auroc", "sensitivity", "specificity"}
    assert gaps["sensitivity"].patients == (100, 20)
    assert gaps["sensitivity"].images == (300, 60)
    assert "of 60 positives" in gaps["sensitivity"].description


def test_rows_of_few_patients_say_so():
    table = make({"site": np.tile(np.where(np.arange(P) < 100, "small", "large"), 3)}, labels=("A",))
    table.targets[:, 0] = np.tile(np.isin(np.arange(P), [*range(9), *range(100, 200)]), 3)
    rows = {row.group: row for row in evaluate(table)[0]}
    assert (rows["small"].positives, rows["small"].positive_patients) == (27, 9)
    assert (rows["small"].negatives, rows["small"].negative_patients) == (273, 91)
    assert rows["small"].caveat == "Only 27 images with the finding, of 9 patients: this says little."
    assert rows["large"].caveat == ""
    unknown = replace(table, patients=np.arange(3 * P), patient_names=None)
    assert {row.caveat for row in evaluate(unknown)[0]} == {""}  # each image is its own patient


def test_the_mean_of_all_images_is_of_the_labels_that_the_groups_have_in_common():
    table = make({"site": np.tile(np.where(np.arange(P) < 100, "small", "large"), 3)}, labels=("A", "B", "C"))
    rare = np.tile(np.isin(np.arange(P), [*range(9), *range(100, 200)]), 3)
    table.targets[:, 2] = rare
    found = numbers(table)
    (mean,) = found.means
    assert (mean.group, mean.mean_of, mean.num_labels) == ("all images", ("A", "B"), 2)
    expected = [roc_auc_score(table.targets[:, label], table.probabilities[:, label]) for label in range(2)]
    assert mean.auroc.value == pytest.approx(np.mean(expected))
    of_groups = [row for row in found.rows if row.label == "macro"]
    assert {row.mean_of for row in of_groups} == {("A", "B")}


def test_pairs_of_covariates_are_evaluated_where_large_enough_and_not_tested():
    rng = np.random.default_rng(1)
    sex, age = np.tile(rng.choice(["F", "M"], P), 3), np.tile(rng.choice([10.0, 30.0, 50.0], P), 3)
    age[np.tile(np.arange(P) < 15, 3)] = 90.0
    table = make({"sex": sex, "age": age, "site": rng.choice(["a", "b"], 3 * P)})
    found = numbers(table)
    assert {row.covariate for row in found.pairs} == {"sex and age"}
    groups = dict.fromkeys(row.group for row in found.pairs)
    assert list(groups) == [
        f"{sex}, {age} years" for sex in ("F", "M") for age in ("0-17", "18-39", "40-59")
    ]  # nobody of the 15 above 80
    row = next(row for row in found.pairs if (row.group, row.label) == ("M, 18-39 years", "B"))
    chosen = (sex == "M") & (age == 30)
    assert row.images == chosen.sum()
    assert row.auroc.value == pytest.approx(
        roc_auc_score(table.targets[chosen, 1], table.probabilities[chosen, 1])
    )
    assert found.num_tested == numbers(table, settings=replace(SETTINGS, subgroup_pairs=[])).num_tested


def test_pairs_can_be_chosen_and_those_that_are_not_there_are_named(caplog):
    rng = np.random.default_rng(1)
    table = make({"sex": np.tile(rng.choice(["F", "M"], P), 3), "site": rng.choice(["a", "b"], 3 * P)})
    assert numbers(table).pairs == []
    chosen = replace(SETTINGS, subgroup_pairs=[["site", "sex"], ["sex", "scanner"]])
    assert {row.covariate for row in numbers(table, settings=chosen).pairs} == {"site and sex"}
    assert "no covariate 'scanner'" in caplog.text


def test_equalised_odds_are_those_of_the_mean():
    rng = np.random.default_rng(5)
    sex = np.tile(rng.choice(["F", "M"], P), 3)
    (odds,) = numbers(make({"sex": sex}, separation=np.where(sex == "F", 0.5, 2.5))).equalised_odds
    assert odds.label == "macro"
    assert odds.sensitivity.high < 0 < odds.false_positive_rate.low
    assert odds.is_difference_shown
    assert ("macro", "sensitivity") in odds.shown
