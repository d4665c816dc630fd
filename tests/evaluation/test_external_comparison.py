from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import ks_2samp

from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.external_comparison import Beside, OwnPart, shift_estimate, stability_index
from cxrlab.evaluation.operating_point import given
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.calibration import Calibrator
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.external_section import drift_summary, summary


def own_part(table, result, **changes):
    generator = np.random.default_rng(0)
    looks = pd.DataFrame(
        {name: generator.normal(120, 10, len(table)) for name in ("brightness", "contrast", "spread")}
    )
    values = {
        "part": "test", "labels": result.labels, "macro": result.macro, "num_macro_labels": result.num_macro_labels,
        "thresholds": {label: threshold.value for label, threshold in result.thresholds.items()}, "table": table,
        "looks": looks, "other_looks": looks,
    }  # fmt: skip
    return OwnPart(**(values | changes))


@pytest.fixture
def own(make_predictions, make_settings):
    table = make_predictions(num_patients=300)
    return own_part(table, evaluate(table, settings=make_settings(), thresholds=given(0.5, 2)))


@pytest.fixture
def evaluated(make_settings):
    def run(table, own, threshold=0.5, calibrator=None):
        return evaluate(
            replace(table, part=""),
            settings=make_settings(),
            thresholds=given(threshold, 2),
            own=own,
            calibrator=calibrator,
        )

    return run


def test_a_data_set_beside_itself_shows_nothing(own, evaluated):
    result = evaluated(own.table, own)
    external = result.external
    assert external.left_out == []
    for label, row in external.labels.items():
        for name in ("auroc", "sensitivity", "specificity", "average_precision", "brier"):
            beside = row.metrics[name]
            assert beside.own == beside.here == result.labels[label][name]
            assert beside.difference.low < 0 == beside.difference.value < beside.difference.high
        assert row.scores.stability_index == 0
        assert row.scores.description == "no more apart than by chance"
        assert row.prevalence.here.value == pytest.approx(
            np.nanmean(own.table.targets[:, own.table.labels.index(label)])
        )
    assert not any(row.is_flagged for row in external.drift)
    assert external.macro["auroc"].own == result.macro["auroc"]
    assert "no difference shown: 0.000" in summary(external)
    assert (
        drift_summary(external)
        == "No covariate and nothing of the pixels is apart by more than chance and a small effect."
    )


def test_a_difference_is_as_sure_as_both_values(make_predictions, own, evaluated):
    other = make_predictions(num_patients=200, seed=5, signal=0.4)
    external = evaluated(other, own).external
    auroc = external.labels["Edema"].metrics["auroc"]
    assert auroc.difference.value == pytest.approx(auroc.here.value - auroc.own.value)
    wide = (auroc.here.high - auroc.here.low) ** 2 + (auroc.own.high - auroc.own.low) ** 2
    assert auroc.difference.high - auroc.difference.low == pytest.approx(wide**0.5, rel=0.05)
    assert auroc.difference.high < 0
    assert "lower here: \u2212" in summary(external)


def test_newcombes_example():
    """Newcombe, Stat Med 17:873, 1998, method 10, example (a): 56/70 against 48/80, 0.0524 to 0.3339."""
    first, second = Estimate(0.8, 0.6918, 0.8771), Estimate(0.6, 0.4905, 0.7001)
    difference = Beside.of(second, first).difference
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=2e-3
    )
    assert Beside.of(Estimate(0.5), Estimate(0.7)).difference == Estimate(pytest.approx(0.2))
    assert Beside.of(Estimate(None), Estimate(0.7)).difference == Estimate(None)


def test_the_shift_is_that_of_the_likelihood_with_a_clustered_error():
    generator = np.random.default_rng(2)
    patients = np.repeat(np.arange(400), 3)
    logits = generator.normal(-1, 1, 400)[patients] + generator.normal(0, 0.3, 1200)
    probabilities = 1 / (1 + np.exp(-logits))
    targets = (generator.random(1200) < 1 / (1 + np.exp(-(logits + 0.7)))).astype(float)
    result = shift_estimate(probabilities, targets, patients, 0.95)

    def loss(shift):
        p = 1 / (1 + np.exp(-(logits + shift)))
        return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum()

    assert result.value == pytest.approx(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x, abs=1e-4)
    drawn = []
    for _ in range(300):
        chosen = generator.integers(400, size=400)
        rows = (chosen[:, None] * 3 + np.arange(3)).ravel()
        drawn.append(shift_estimate(probabilities[rows], targets[rows], np.arange(1200), 0.95).value)
    assert result.high - result.low == pytest.approx(2 * 1.97 * np.std(drawn), rel=0.12)
    assert result.low < 0.7 < result.high
    assert shift_estimate(probabilities, np.zeros(1200), patients, 0.95) == Estimate(None)


def test_the_shift_covers_the_truth_with_few_positives():
    generator = np.random.default_rng(4)
    covered = []
    for _ in range(400):
        logits = generator.normal(-3, 1, 400)
        targets = (generator.random(400) < 1 / (1 + np.exp(-(logits + 0.4)))).astype(float)
        shift = shift_estimate(1 / (1 + np.exp(-logits)), targets, np.arange(400), 0.95)
        if shift.low is not None:
            covered.append(shift.low < 0.4 < shift.high)
    assert 0.92 < np.mean(covered) < 0.985


def test_probabilities_that_are_too_high_elsewhere(own, evaluated):
    logits = np.log(own.table.probabilities / (1 - own.table.probabilities))
    brighter = replace(own.table, probabilities=1 / (1 + np.exp(-(logits + 1.0))))
    row = evaluated(brighter, own).external.labels["Edema"]
    assert row.log_odds_shift.difference.value == pytest.approx(-1.0)
    assert row.metrics["auroc"].difference.value == pytest.approx(0)
    assert row.scores.description in ("apart", "far apart")
    assert row.scores.distance == pytest.approx(
        ks_2samp(own.table.probabilities[:, 0], brighter.probabilities[:, 0]).statistic
    )
    present = own.table.targets[:, 0] == 1
    assert row.scores.distance_positives == pytest.approx(
        ks_2samp(own.table.probabilities[present, 0], brighter.probabilities[present, 0]).statistic
    )
    # What the run fitted on validation is applied to both sides first.
    calibrator = Calibrator(np.full(2, 2.0), np.zeros(2), "platt", "validation")
    steeper = evaluated(brighter, own, calibrator=calibrator).external.labels["Edema"]
    assert steeper.log_odds_shift.difference.value == pytest.approx(-2.0)
    assert "too high here: multiply the odds by 0." in steeper.description


def test_drift_of_covariates_and_pixels(own, evaluated):
    is_kept = (own.table.covariates["sex"] == "F").to_numpy() | (np.arange(len(own.table)) % 5 == 0)
    other = own.table.rows(is_kept)
    looks = own.looks[is_kept].assign(brightness=own.looks["brightness"][is_kept] + 20)
    external = evaluated(other, replace(own, other_looks=looks)).external
    rows = {row.variable: row for row in external.drift}
    assert rows["sex F"].here == pytest.approx((other.covariates["sex"] == "F").mean())
    assert rows["sex F"].own == pytest.approx((own.table.covariates["sex"] == "F").mean())
    assert "sex M" not in rows  # it mirrors the other
    assert rows["sex F"].is_flagged
    assert rows["brightness"].is_flagged
    assert rows["brightness"].smd == pytest.approx(2, abs=0.3)
    assert not rows["contrast"].is_flagged
    assert "brightness 119.8 there, 139.6 here; sex F 48.3 % there" in drift_summary(external)


def test_what_is_left_out_has_its_reason(own, evaluated):
    other = replace(own.table, covariates=own.table.covariates[["sex"]])
    bare = replace(own, labels={}, macro={}, looks=None)
    external = evaluated(other, bare).external
    assert [sentence.split(",")[0] for sentence in external.left_out] == [
        "The run has no evaluation.json of its own part",
        "This data set does not tell age",
        "The run's own images could not be read",
    ]
    other_threshold = evaluated(own.table, own, threshold=0.3).external
    assert "sensitivity" not in other_threshold.labels["Edema"].metrics
    assert "which is another here for Edema, Mass" in other_threshold.left_out[0]


def test_the_stability_index_by_hand():
    own, here = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    expected = ((here - own) * np.log(here / own)).sum()
    assert stability_index(own * 1e6, here * 1e6) == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(stability_index(np.array([10, 0]), np.array([0, 10])))


def test_the_section_on_the_page(tmp_path, own, evaluated, make_predictions):
    other = make_predictions(num_patients=200, seed=5, signal=0.4)
    page = write_report(tmp_path, evaluated(other, own)).read_text(encoding="utf-8")
    assert "Beside the run" in page
    assert "AUROC, own" in page
    assert "log-odds shift, own" in page
    assert (tmp_path / "figures" / "external.png").is_file()
