"""Logistic regression against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cxrlab.metrics.logistic import fit_logistic

PENALTIES = (1.0, 0.01, 1e-4)


def simulated(num_images: int, num_features: int, prevalences: tuple[float, ...], seed: int = 0):
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(num_features, num_features)) / np.sqrt(num_features)
    features = (
        generator.normal(size=(num_images, num_features)) @ mix + generator.normal(size=num_features) * 50
    ).astype(np.float32)
    logits = (
        (features - features.mean(0))
        @ generator.normal(size=(num_features, len(prevalences)))
        / np.sqrt(num_features)
    )
    shift = np.quantile(logits, 1 - np.array(prevalences), axis=0).diagonal()
    targets = (logits + 0.5 * generator.logistic(size=logits.shape) > shift).astype(float)
    return features, targets


@pytest.mark.parametrize(("num_images", "num_features"), [(400, 12), (60, 150)])
def test_it_is_that_of_scikit_learn_for_each_label_and_penalty(num_images: int, num_features: int) -> None:
    features, targets = simulated(num_images, num_features, (0.5, 0.1))
    targets[::7, 1] = np.nan
    models = fit_logistic(features, targets, PENALTIES)
    scores = models.scores(features)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    for number, penalty in enumerate(PENALTIES):
        for label in range(2):
            known = ~np.isnan(targets[:, label])
            reference = LogisticRegression(C=1 / (penalty * known.sum()), tol=1e-8, max_iter=10_000)
            expected = reference.fit(standard[known], targets[known, label]).decision_function(standard)
            np.testing.assert_allclose(scores[number, :, label], expected, atol=0.1 * expected.std())


def test_what_does_not_vary_or_is_unknown_counts_nothing() -> None:
    features, targets = simulated(200, 4, (0.3,))
    more = np.column_stack([features, np.full(200, 7.0), np.full(200, np.nan)]).astype(np.float32)
    plain, padded = fit_logistic(features, targets, [0.01]), fit_logistic(more, targets, [0.01])
    np.testing.assert_allclose(plain.scores(features), padded.scores(more), atol=1e-3)
    more[:, 5] = np.arange(200)  # unknown in training
    assert np.isfinite(padded.scores(more)).all()


def test_one_penalty_can_be_selected() -> None:
    features, targets = simulated(100, 3, (0.3, 0.5))
    models = fit_logistic(features, targets, PENALTIES)
    np.testing.assert_array_equal(models.select(1).scores(features)[0], models.scores(features)[1])


def test_separable_and_very_rare_labels_have_finite_weights() -> None:
    features = np.linspace(-1, 1, 500, dtype=np.float32)[:, None]
    targets = np.column_stack([features[:, 0] > 0, np.arange(500) == 499]).astype(float)
    scores = fit_logistic(features, targets, [1e-4]).scores(features)
    assert np.isfinite(scores).all()
    assert (np.diff(scores[0], axis=0) > 0).all()
