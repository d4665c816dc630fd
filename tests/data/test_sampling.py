import numpy as np
import pytest

from cxrlab.data.loader import balanced_weights


def test_a_single_label_gives_as_many_positives_as_negatives():
    targets = np.array([[1.0]] + [[0.0]] * 9)
    weights = balanced_weights(targets)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(0.5)
    np.testing.assert_allclose(weights[1:], 0.5 / 9)


def test_exclusive_classes_come_equally_often():
    targets = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
    weights = balanced_weights(targets)
    np.testing.assert_allclose([weights[:6].sum(), weights[6:9].sum(), weights[9]], 1 / 3)


def test_a_finding_is_drawn_first_then_an_image_that_shows_it():
    # Two images show A, one of them B too; two show nothing. A, B and "none" are each drawn a third of the time.
    targets = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, np.nan], [0.0, 0.0]])
    np.testing.assert_allclose(balanced_weights(targets), [1 / 6, 1 / 6 + 1 / 3, 1 / 6, 1 / 6])


def test_a_finding_that_nobody_has_takes_no_share():
    targets = np.array([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(balanced_weights(targets), [0.5, 0.5])
