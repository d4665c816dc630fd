from collections.abc import Callable

import numpy as np
import pytest
import torch

from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.random_networks import randomized_copy
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
NAN = float("nan")
# Of Mass six images are positive, of Edema two; the last one is unknown.
TARGETS = [(1, 0), (1, 1), (0, 1), (1, 0), (1, NAN), (1, 0), (1, 0), (NAN, NAN)]
POSITIVES = ({0, 1, 3, 4, 5, 6}, {1, 2})


def test_names_are_those_of_the_outputs(make_material: MakeMaterial) -> None:
    assert make_material(TARGETS).names == ["Mass", "Edema"]


def test_images_and_patients_are_told_by_row(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, patients=list("aabbccdd"))
    image = explain_task.image(5)
    assert (image.shape, image.dtype) == ((1, 16, 16), torch.uint8)
    assert image[0, 0, 0] == 5
    assert [explain_task.patient(row) for row in (0, 5, 7)] == ["a", "c", "d"]


def test_a_number_of_a_patient_becomes_text(make_material: MakeMaterial) -> None:
    assert make_material(TARGETS[:2], patients=[12, 13]).patient(1) == "13"


@pytest.mark.parametrize("num_images", [1, 2, 4])
def test_a_sample_is_of_positives_as_many_of_each_label(make_material: MakeMaterial, num_images: int) -> None:
    each = -(-num_images // 2)
    pairs = make_material(TARGETS).sample(num_images)
    assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    for label, positives in enumerate(POSITIVES):
        rows = [row for row, of in pairs if of == label]
        assert len(rows) == len(set(rows)) == min(each, len(positives))
        assert set(rows) <= positives


def test_a_sample_takes_what_there_is(make_material: MakeMaterial) -> None:
    pairs = make_material(TARGETS).sample(100)
    assert pairs == [(row, label) for label in (0, 1) for row in sorted(POSITIVES[label])]
    assert all(type(row) is int for row, _ in pairs)


def test_a_sample_is_of_the_chosen_labels(make_material: MakeMaterial) -> None:
    assert make_material(TARGETS, labels=[1]).sample(1)[0] in {(1, 1), (2, 1)}
    assert len(make_material(TARGETS, labels=[0]).sample(3)) == 3
    assert make_material(TARGETS, labels=[]).sample(3) == []


def test_the_seed_decides_which_positives_are_drawn(make_material: MakeMaterial) -> None:
    drawn = [tuple(make_material(TARGETS, labels=[0], seed=seed).sample(3)) for seed in range(12)]
    assert drawn == [tuple(make_material(TARGETS, labels=[0], seed=seed).sample(3)) for seed in range(12)]
    assert len(set(drawn)) > 4
    assert {row for pairs in drawn for row, _ in pairs} == POSITIVES[0]


def test_without_a_known_positive_any_image_may_be_drawn(make_material: MakeMaterial) -> None:
    pairs = make_material([(NAN, 0), (NAN, 0), (1, NAN)]).sample(6)
    assert pairs == [(2, 0), (0, 1), (1, 1), (2, 1)]


def test_known_positives_among_cases_are_counted(make_material: MakeMaterial) -> None:
    explain_task = make_material([(1, 0), (0, 1), (float("nan"), 1)])
    assert explain_task.num_positive([(0, 0), (0, 1), (2, 0), (2, 1)]) == 2
    assert explain_task.num_positive([]) == 0


def test_a_sample_is_of_the_evaluated_images_and_not_of_validation(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, validation=[0, 1, 2, 3])
    assert explain_task.sample(100)[:3] == [(4, 0), (5, 0), (6, 0)]
    assert {row for row, _ in explain_task.sample(100)} == {
        4,
        5,
        6,
        7,
    }  # no positive of Edema is left: any image


@pytest.mark.parametrize("method", ["gradcam", "gradient_shap"])
def test_explaining_passes_the_classifier_settings_and_background_on(
    make_material: MakeMaterial, method: str
) -> None:
    background = torch.full((2, 1, 16, 16), 90, dtype=torch.uint8)
    explain_task = make_material(TARGETS, background=background, num_samples=4)
    images, pairs = torch.from_numpy(explain_task.images[[0, 1]]), [(0, 0), (1, 1), (1, 0)]
    expected = Explainer(method, explain_task.settings, background)(explain_task.classifier, images, pairs)
    assert expected.any()
    torch.testing.assert_close(explain_task.explain(method)(images, pairs), expected)
    copy_ = randomized_copy(explain_task.classifier, 99)
    other = Explainer(method, explain_task.settings, background)(
        explain_task.classifier, images, pairs, copy_
    )
    assert not torch.equal(other, expected)
    torch.testing.assert_close(explain_task.explain(method, copy_)(images, pairs), other)


def test_there_is_a_way_to_a_random_network_for_each_seed(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, num_random_networks=3, seed=20)
    weights = explain_task.classifier.network.head[1].weight.clone()
    found = [list(networks) for networks in explain_task.random_networks()]
    assert [[part for part, _ in steps] for steps in found] == [["head.1", "features.0"]] * 3
    for number, steps in enumerate(found):
        copy_ = randomized_copy(explain_task.classifier, 20 + number)
        for name, value in steps[-1][1].state_dict().items():
            assert torch.equal(value, copy_.state_dict()[name]), name
    assert torch.equal(explain_task.classifier.network.head[1].weight, weights)


@pytest.mark.parametrize("has_background", [True, False])
def test_random_networks_are_settled_on_the_background_or_on_evaluated_images(
    make_material: MakeMaterial, has_background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    background = torch.full((2, 1, 16, 16), 90, dtype=torch.uint8)
    explain_task = make_material(
        TARGETS,
        background=background if has_background else None,
        validation=[0],
        num_background=3,
        batch_size=2,
    )
    given = []
    monkeypatch.setattr(
        "cxrlab.heatmaps.task.randomised", lambda *of, **options: given.append((of, options)) or iter(())
    )
    list(explain_task.random_networks())
    (classifier, images), options = given[0]
    assert classifier is explain_task.classifier
    expected = background if has_background else torch.from_numpy(explain_task.images[[1, 2, 3]])
    assert torch.equal(images, expected)
    assert [one["seed"] for _, one in given] == [0, 1]
    assert options["batch_size"] == 2
    assert np.unique(explain_task.cases["row"]).tolist() == [1, 2, 3, 4, 5, 6, 7]
