from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cxrlab.errors import DataError
from cxrlab.evaluation.ensemble import check_same_task, ensemble, shared_images


def test_the_mean_is_taken_image_by_image_and_label_by_label(make_predictions):
    first = make_predictions()
    generator = np.random.default_rng(1)
    second = replace(first, probabilities=generator.random(first.probabilities.shape), source="b")
    order = generator.permutation(len(first))
    shuffled = second.rows(order).select_labels(("Mass", "Edema"))
    mean = ensemble([first, shuffled])
    np.testing.assert_allclose(mean.probabilities, (first.probabilities + second.probabilities) / 2)
    np.testing.assert_array_equal(mean.targets, first.targets)
    assert mean.images.tolist() == first.images.tolist()


def test_members_of_other_images_labels_or_targets_are_rejected(make_predictions):
    first = make_predictions()
    with pytest.raises(DataError, match="not of the same images: 1 are in one of them only"):
        ensemble([first, first.rows(np.arange(1, len(first)))])
    with pytest.raises(DataError, match="the members of an ensemble have the same"):
        ensemble([first, first.select_labels(("Edema",))])
    with pytest.raises(DataError, match="1 images have another target for 'Edema'"):
        targets = first.targets.copy()
        targets[0, 0] = 1 - targets[0, 0]
        ensemble([first, replace(first, targets=targets)])


def test_classes_stay_a_distribution(make_predictions):
    first = make_predictions()
    generator = np.random.default_rng(2)
    members = [
        replace(first, probabilities=generator.dirichlet([1.0, 1.0], size=len(first)), source=name)
        for name in "ab"
    ]
    np.testing.assert_allclose(ensemble(members).probabilities.sum(axis=1), 1.0)


def test_runs_of_different_tasks_are_rejected():
    runs = [
        SimpleNamespace(run_dir=Path(name), model=SimpleNamespace(task=task))
        for name, task in (("a", "multilabel"), ("b", "multiclass"))
    ]
    with pytest.raises(DataError, match="a is task=multilabel, b is task=multiclass: .* share their task"):
        check_same_task(runs)
    check_same_task(runs[:1] * 2)


def test_members_that_left_out_different_images_share_the_rest(make_predictions):
    table = make_predictions()
    tables = shared_images([table.rows(np.arange(1, len(table))), table.rows(np.arange(len(table) - 1))])
    assert [len(one) for one in tables] == [len(table) - 2] * 2
    with pytest.raises(DataError, match="no image"):
        shared_images([table.rows(np.arange(3)), table.rows(np.arange(3, 6))])
