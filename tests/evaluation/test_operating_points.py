import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from cxrlab.evaluation.operating_points import operating_points
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.thresholds import choose_thresholds

RULES = ("youden", "sensitivity@0.9", "specificity@0.95", "npv@0.9", "ppv@0.8")


@pytest.fixture
def found(make_predictions, make_settings):
    table, validation = make_predictions(), make_predictions(seed=1, part="val")
    settings = make_settings(operating_points=RULES)
    counts = patient_counts(table.num_patients, 200, 0)
    return table, validation, operating_points(table, validation, counts, settings)


def test_thresholds_are_those_of_validation_and_numbers_those_of_scikit_learn(found):
    table, validation, result = found
    assert result.left_out == ""
    for column, (label, points) in enumerate(result.labels.items()):
        assert [point.rule for point in points.points] == list(RULES)
        for point in points.points:
            chosen = choose_thresholds(validation.probabilities, validation.targets, point.rule)[column]
            assert point.threshold == chosen
            called = table.probabilities[:, column] >= chosen
            tn, fp, fn, tp = confusion_matrix(table.targets[:, column], called).ravel()
            n = tn + fp + fn + tp
            assert point.sensitivity.value == pytest.approx(tp / (tp + fn))
            assert point.specificity.value == pytest.approx(tn / (tn + fp))
            assert point.ppv.value == pytest.approx(tp / (tp + fp))
            assert point.npv.value == pytest.approx(tn / (tn + fn))
            assert point.predicted_positive.value == pytest.approx(1000 * (tp + fp) / n)
            assert point.false_positives.value == pytest.approx(1000 * fp / n)
            assert point.misses.value == pytest.approx(1000 * fn / n)
            for estimate in (point.sensitivity, point.ppv, point.misses):
                assert estimate.low < estimate.value < estimate.high
        positive = validation.targets[:, column] == 1
        assert points.validation.positives == positive.sum()
        assert points.validation.positive_patients == len(np.unique(validation.patients[positive]))
        assert points.validation.images == len(validation)
        assert not points.validation.is_few
        assert label in table.labels


def test_what_no_threshold_reaches_says_so(make_predictions, make_settings):
    table, validation = make_predictions(signal=0.0), make_predictions(seed=1, signal=0.0)
    validation.targets[:, 0] = np.arange(len(validation)) % 3 == 0
    validation.targets[:, 1] = 0.0
    settings = make_settings(operating_points=("npv@0.999", "ppv@0.999", "npv@0.5"))
    counts = patient_counts(table.num_patients, 200, 0)
    result = operating_points(table, validation, counts, settings)
    # The lowest scores are of positives, the highest of negatives.
    order = np.argsort(validation.probabilities[:, 0])
    validation.targets[order[0], 0], validation.targets[order[-1], 0] = 1.0, 0.0
    result = operating_points(table, validation, counts, settings)
    npv, ppv, easy = result.labels["Edema"].points
    assert (npv.threshold, npv.note) == (None, "no threshold reaches an NPV of 0.999 on validation")
    assert (ppv.threshold, ppv.note) == (None, "no threshold reaches a PPV of 0.999 on validation")
    assert npv.sensitivity.value is None
    assert npv.predicted_positive.value is None
    assert easy.note == "reached on validation by predicting nobody positive"
    assert easy.sensitivity.value == 0.0
    assert result.labels["Mass"].points[0].note == "validation holds one class only"
    assert result.labels["Mass"].validation.is_few


def test_without_validation_they_are_left_out_with_the_reason(make_predictions, make_settings):
    table = make_predictions()
    counts = patient_counts(table.num_patients, 200, 0)
    assert (
        "no predictions of a validation part"
        in operating_points(table, None, counts, make_settings()).left_out
    )
    of_validation = operating_points(make_predictions(part="val"), None, counts, make_settings())
    assert "the very images evaluated here" in of_validation.left_out
    nobody_asked = operating_points(table, table, counts, make_settings(operating_points=()))
    assert nobody_asked.left_out == ""
    assert nobody_asked.labels == {}
