"""The solver of a linear probe against scikit-learn's pipeline, and against the optimum's own conditions."""

import logging

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlab.errors import DataError
from cxrlab.training.logistic import LogisticProblem

LABELS = ["Edema", "Mass", "Nodule"]
RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(200, 12)) * RNG.uniform(0.01, 40, 12) + RNG.normal(size=12) * 5).astype(
    np.float32
)
SCORES = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0) @ RNG.normal(size=(12, 3))
TARGETS = (SCORES + 2 * RNG.normal(size=(200, 3)) > 0.5).astype(np.float32)
UNKNOWN = np.where(RNG.random((200, 3)) < 0.2, np.nan, TARGETS).astype(np.float32)


def pipeline(strength: float):
    """Another of scikit-learn's solvers, which comes to the optimum by Newton's method."""
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    )


@pytest.mark.parametrize("strength", [1e-4, 0.03, 10.0])
def test_each_label_is_that_of_scikit_learn_on_standardised_features(strength: float):
    solution = LogisticProblem(FEATURES, TARGETS, LABELS).solve(strength)
    found = expit(FEATURES.astype(float) @ solution.weights.T + solution.biases)
    for column in range(3):
        model = pipeline(strength).fit(FEATURES.astype(float), TARGETS[:, column])
        np.testing.assert_allclose(
            found[:, column], model.predict_proba(FEATURES.astype(float))[:, 1], atol=1e-5
        )


def test_unknown_targets_are_left_out_label_by_label():
    """Features are standardised over all images, as the network will see them."""
    solution = LogisticProblem(FEATURES, UNKNOWN, LABELS).solve(0.1)
    scaled = StandardScaler().fit_transform(FEATURES.astype(float))
    for column in range(3):
        known = ~np.isnan(UNKNOWN[:, column])
        model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10)
        model.fit(scaled[known], UNKNOWN[known, column])
        found = expit(FEATURES.astype(float) @ solution.weights[column] + solution.biases[column])
        np.testing.assert_allclose(found, model.predict_proba(scaled)[:, 1], atol=1e-5)


def test_the_weights_of_a_loss_are_those_of_the_images():
    weights = {
        "positive": np.array([0.9, 0.7, 0.2], np.float32),
        "negative": np.array([0.1, 0.3, 0.8], np.float32),
    }
    solution = LogisticProblem(FEATURES, UNKNOWN, LABELS, class_weights=weights).solve(0.1)
    scaled = StandardScaler().fit_transform(FEATURES.astype(float))
    for column in range(3):
        known = ~np.isnan(UNKNOWN[:, column])
        positive, negative = weights["positive"][column], weights["negative"][column]
        of_image = np.where(UNKNOWN[known, column] == 1, positive, negative).astype(float)
        model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10)
        model.fit(scaled[known], UNKNOWN[known, column], sample_weight=of_image / of_image.mean())
        found = expit(FEATURES.astype(float) @ solution.weights[column] + solution.biases[column])
        np.testing.assert_allclose(found, model.predict_proba(scaled)[:, 1], atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_exclusive_classes_are_one_multinomial_regression(num_classes: int):
    classes = SCORES[:, :num_classes].argmax(1)
    targets = np.eye(num_classes, dtype=np.float32)[classes]
    targets[:7] = np.nan
    solution = LogisticProblem(FEATURES, targets, LABELS[:num_classes], "multiclass").solve(0.1)
    scaled = StandardScaler().fit_transform(FEATURES.astype(float))
    model = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-10).fit(scaled[7:], classes[7:])
    found = softmax(FEATURES.astype(float) @ solution.weights.T + solution.biases, axis=1)
    np.testing.assert_allclose(found, model.predict_proba(scaled), atol=1e-5)


def test_classes_weigh_as_the_loss_says():
    classes = SCORES.argmax(1)
    weights = np.array([0.5, 2.0, 1.0], np.float32)
    problem = LogisticProblem(
        FEATURES, np.eye(3, dtype=np.float32)[classes], LABELS, "multiclass", {"class": weights}
    )
    solution = problem.solve(0.1)
    scaled = StandardScaler().fit_transform(FEATURES.astype(float))
    of_image = weights[classes].astype(float)
    model = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-10)
    model.fit(scaled, classes, sample_weight=of_image / of_image.mean())
    found = softmax(FEATURES.astype(float) @ solution.weights.T + solution.biases, axis=1)
    np.testing.assert_allclose(found, model.predict_proba(scaled), atol=1e-5)


def test_a_feature_that_varies_by_rounding_only_has_no_weight():
    """Its deviation would divide the weight, which would then be of rounding."""
    dead = np.full((200, 1), 3.0, np.float32) + RNG.integers(0, 2, (200, 1)).astype(np.float32) * 2.4e-7
    never = np.zeros((200, 1), np.float32)
    solution = LogisticProblem(np.hstack([FEATURES, dead, never]), TARGETS, LABELS).solve(1.0)
    assert (solution.weights[:, -2:] == 0).all()
    without = LogisticProblem(FEATURES, TARGETS, LABELS).solve(1.0)
    np.testing.assert_allclose(solution.weights[:, :-2], without.weights, atol=1e-6)
    assert np.isfinite(solution.biases).all()


def test_a_label_of_one_value_is_named():
    targets = TARGETS.copy()
    targets[:, 1] = np.where(targets[:, 1] == 1, np.nan, 0)
    with pytest.raises(DataError, match=r"Nothing can be learnt of Mass: the 200 training images"):
        LogisticProblem(FEATURES, targets, LABELS)
    with pytest.raises(DataError, match=r"Nothing can be learnt of Nodule"):
        LogisticProblem(FEATURES, np.eye(3, dtype=np.float32)[RNG.integers(0, 2, 200)], LABELS, "multiclass")


def test_a_solver_that_does_not_come_to_an_end_says_so(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        LogisticProblem(FEATURES, TARGETS, LABELS, max_iterations=2).solve(10.0)
    assert "solver.max_iterations=2 were not enough for the strength 10" in caplog.text
    assert caplog.text.count("not enough") == 1
