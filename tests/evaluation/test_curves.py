import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from cxrlab.evaluation import curves
from cxrlab.evaluation.curves import label_curves
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(
    threshold="youden",
    calibration="temperature",
    num_resamples=1000,
    level=0.95,
    prevalence=None,
    age_bands=[40, 60],
    min_positives=10,
    min_group_images=100,
    seed=3,
)
GRID = np.arange(101) / 100


def reference(curve, scores, targets, weights):
    """One curve on the grid, straight from scikit-learn's points; NaN for one class only."""
    drawn = weights > 0
    scores, targets, weights = scores[drawn], targets[drawn], weights[drawn]
    if len(np.unique(targets)) < 2:
        return np.full(101, np.nan)
    if curve == "roc":
        rates, sensitivities, _ = roc_curve(targets, scores, sample_weight=weights, drop_intermediate=False)
        # Between two rates the line starts at the upper end of a step and ends at the lower end of the next.
        values = []
        for x in GRID:
            if np.isclose(rates, x, atol=1e-9).any():
                values.append(sensitivities[np.isclose(rates, x, atol=1e-9)].max())
            else:
                after = np.flatnonzero(rates > x)[0]
                share = (x - rates[after - 1]) / (rates[after] - rates[after - 1])
                values.append(sensitivities[after - 1] * (1 - share) + sensitivities[after] * share)
        return np.array(values)
    precisions, recalls, _ = precision_recall_curve(targets, scores, sample_weight=weights)
    precisions, recalls = precisions[:-1][::-1], recalls[:-1][::-1]  # by falling threshold, ascending recall
    return np.array([precisions[recalls >= max(x - 1e-9, 1e-12)][0] for x in GRID])


def made_table(decimals, num_images=300, num_patients=60):
    generator = np.random.default_rng(5)
    patients = np.r_[
        np.arange(num_patients), generator.integers(num_patients, size=num_images - num_patients)
    ]
    targets = (generator.random((num_images, 3)) < [0.3, 0.05, 0.0]).astype(float)
    scores = 1 / (1 + np.exp(-generator.normal(size=targets.shape) - 1.5 * targets))
    targets[generator.random(num_images) < 0.3, 0] = np.nan
    images = np.arange(num_images).astype(str).astype(object)
    return PredictionTable(images, patients, ("Mass", "Hernia", "Never"), targets, scores.round(decimals))


def one_label(scores, targets):
    count = len(targets)
    images = np.arange(count).astype(str).astype(object)
    columns = np.array(targets, dtype=float)[:, None], np.array(scores, dtype=float)[:, None]
    return PredictionTable(images, np.arange(count), ("Mass",), *columns)


def points(frame, curve, label="Mass"):
    rows = frame[(frame["curve"] == curve) & (frame["label"] == label)]
    np.testing.assert_array_equal(rows["x"], GRID)
    return rows


@pytest.mark.parametrize("decimals", [0, 1, 2, 16])
@pytest.mark.parametrize("curve", ["roc", "pr"])
def test_value_and_band_are_those_of_scikit_learn(curve, decimals, monkeypatch):
    monkeypatch.setattr(curves, "NUM_RESAMPLES", 12)
    table = made_table(decimals)
    counts = patient_counts(table.num_patients, 12, SETTINGS.seed)
    frame = label_curves(table, SETTINGS)
    for column, label in enumerate(table.labels[:2]):
        known = table.known[:, column]
        scores, targets = table.probabilities[known, column], table.targets[known, column]
        rows = points(frame, curve, label)
        expected = reference(curve, scores, targets, np.ones(len(scores)))
        np.testing.assert_allclose(rows["y"], expected, atol=1e-6)
        owners = table.patients[known]
        samples = np.stack([reference(curve, scores, targets, one[owners]) for one in counts.T])
        low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
        varies = np.ptp(samples[~np.isnan(samples[:, 0])], axis=0) > 1e-12
        np.testing.assert_allclose(rows["low"], np.where(varies, low, np.nan), atol=1e-6)
        np.testing.assert_allclose(rows["high"], np.where(varies, high, np.nan), atol=1e-6)


def test_columns_and_labels():
    frame = label_curves(made_table(2), SETTINGS)
    assert list(frame.columns) == ["label", "curve", "x", "y", "low", "high"]
    assert frame.groupby(["label", "curve"], sort=False).size().to_dict() == {
        ("Mass", "roc"): 101,
        ("Mass", "pr"): 101,
        ("Hernia", "roc"): 101,
        ("Hernia", "pr"): 101,
    }
    varies = frame["low"].notna()
    assert varies.mean() > 0.7
    assert (frame["low"] <= frame["high"])[varies].all()
    assert frame["y"].between(0, 1).all()


def test_no_label_with_both_classes():
    frame = label_curves(made_table(2).select_labels(["Never"]), SETTINGS)
    assert frame.empty
    assert list(frame.columns) == ["label", "curve", "x", "y", "low", "high"]


def test_areas_are_auroc_and_average_precision(monkeypatch):
    monkeypatch.setattr(curves, "NUM_STEPS", 20_000)
    table = made_table(2).select_labels(["Hernia"])
    frame = label_curves(table, SETTINGS)
    targets, scores = table.targets[:, 0], table.probabilities[:, 0]
    area = {curve: rows["y"].iloc[1:].mean() for curve, rows in frame.groupby("curve")}
    assert area["roc"] == pytest.approx(roc_auc_score(targets, scores), abs=1e-4)
    assert area["pr"] == pytest.approx(average_precision_score(targets, scores), abs=1e-4)


def test_precision_is_no_straight_line():
    # Half of the positives come first, then 8 negatives, then the other half: precision drops at once.
    frame = label_curves(one_label(np.linspace(0.9, 0.1, 12), [1, 1, *[0] * 8, 1, 1]), SETTINGS)
    precision = points(frame, "pr")["y"].to_numpy()
    np.testing.assert_array_equal(precision[:51], 1)
    np.testing.assert_allclose(precision[51:76], 3 / 11)
    np.testing.assert_allclose(precision[76:], 4 / 12)


def test_tied_positives_and_negatives_are_a_slope():
    # One group of 2 positives and 4 negatives below a positive: from (0, 1/3) straight to (1, 1).
    frame = label_curves(one_label([0.9] + [0.5] * 6, [1, 1, 1, 0, 0, 0, 0]), SETTINGS)
    np.testing.assert_allclose(points(frame, "roc")["y"], 1 / 3 + GRID * 2 / 3)


def test_a_step_at_a_point_of_the_grid_is_taken():
    # 0.29 * 100 is below 29 in floating point; the 29th of 100 negatives must be allowed at x = 0.29.
    targets = [0] * 29 + [1] + [0] * 71
    frame = label_curves(one_label(np.linspace(1, 0, 101), targets), SETTINGS)
    np.testing.assert_array_equal(points(frame, "roc")["y"], GRID >= 0.29)


def test_no_band_where_nothing_varies():
    frame = label_curves(one_label([0.9, 0.8, 0.7, 0.2, 0.1, 0.05], [1, 1, 1, 0, 0, 0]), SETTINGS)
    np.testing.assert_array_equal(frame["y"], 1)
    assert frame[["low", "high"]].isna().all(axis=None)
