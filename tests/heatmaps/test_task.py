from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlab.data.decode import decode
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.random_networks import randomized_copy
from cxrlab.heatmaps.task import ExplainTask, best_labels, explain_task_of, predict_files, training_images
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.runs.run_data import PredictedImages

MakeTask = Callable[..., ExplainTask]
NAN = float("nan")
# Of Mass six images are positive, of Edema two; the last one is unknown.
TARGETS = [(1, 0), (1, 1), (0, 1), (1, 0), (1, NAN), (1, 0), (1, 0), (NAN, NAN)]
POSITIVES = ({0, 1, 3, 4, 5, 6}, {1, 2})


def test_names_are_those_of_the_outputs(make_task: MakeTask) -> None:
    assert make_task(TARGETS).names == ["Mass", "Edema"]


def test_images_and_patients_are_told_by_row(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, patients=list("aabbccdd"))
    image = explain_task.image(5)
    assert (image.shape, image.dtype) == ((1, 16, 16), torch.uint8)
    assert image[0, 0, 0] == 5
    assert [explain_task.patient(row) for row in (0, 5, 7)] == ["a", "c", "d"]


def test_a_number_of_a_patient_becomes_text(make_task: MakeTask) -> None:
    assert make_task(TARGETS[:2], patients=[12, 13]).patient(1) == "13"


@pytest.mark.parametrize("num_images", [1, 2, 4])
def test_a_sample_is_of_positives_as_many_of_each_label(make_task: MakeTask, num_images: int) -> None:
    each = -(-num_images // 2)
    pairs = make_task(TARGETS).sample(num_images)
    assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    for label, positives in enumerate(POSITIVES):
        rows = [row for row, of in pairs if of == label]
        assert len(rows) == len(set(rows)) == min(each, len(positives))
        assert set(rows) <= positives


def test_a_sample_takes_what_there_is(make_task: MakeTask) -> None:
    pairs = make_task(TARGETS).sample(100)
    assert pairs == [(row, label) for label in (0, 1) for row in sorted(POSITIVES[label])]
    assert all(type(row) is int for row, _ in pairs)


def test_a_sample_is_of_the_chosen_labels(make_task: MakeTask) -> None:
    assert make_task(TARGETS, labels=[1]).sample(1)[0] in {(1, 1), (2, 1)}
    assert len(make_task(TARGETS, labels=[0]).sample(3)) == 3
    assert make_task(TARGETS, labels=[]).sample(3) == []


def test_the_seed_decides_which_positives_are_drawn(make_task: MakeTask) -> None:
    drawn = [tuple(make_task(TARGETS, labels=[0], seed=seed).sample(3)) for seed in range(12)]
    assert drawn == [tuple(make_task(TARGETS, labels=[0], seed=seed).sample(3)) for seed in range(12)]
    assert len(set(drawn)) > 4
    assert {row for pairs in drawn for row, _ in pairs} == POSITIVES[0]


def test_without_a_known_positive_any_image_may_be_drawn(make_task: MakeTask) -> None:
    pairs = make_task([(NAN, 0), (NAN, 0), (1, NAN)]).sample(6)
    assert pairs == [(2, 0), (0, 1), (1, 1), (2, 1)]


def test_known_positives_among_cases_are_counted(make_task: MakeTask) -> None:
    explain_task = make_task([(1, 0), (0, 1), (float("nan"), 1)])
    assert explain_task.num_positive([(0, 0), (0, 1), (2, 0), (2, 1)]) == 2
    assert explain_task.num_positive([]) == 0


def test_a_sample_is_of_the_evaluated_images_and_not_of_validation(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, validation=[0, 1, 2, 3])
    assert explain_task.sample(100)[:3] == [(4, 0), (5, 0), (6, 0)]
    assert {row for row, _ in explain_task.sample(100)} == {
        4,
        5,
        6,
        7,
    }  # no positive of Edema is left: any image


@pytest.mark.parametrize("method", ["gradcam", "gradient_shap"])
def test_explaining_passes_the_classifier_settings_and_background_on(
    make_task: MakeTask, method: str
) -> None:
    background = torch.full((2, 1, 16, 16), 90, dtype=torch.uint8)
    explain_task = make_task(TARGETS, background=background, num_samples=4)
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


def test_there_is_a_way_to_a_random_network_for_each_seed(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, num_random_networks=3, seed=20)
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
    make_task: MakeTask, has_background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    background = torch.full((2, 1, 16, 16), 90, dtype=torch.uint8)
    explain_task = make_task(
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


LABELS = ("Mass", "Edema")
PREDICTED_TARGETS = [(1, 0), (0, 1), (1, NAN), (0, 0), (1, 1)]
BOX = (1, "Mass", 0.0, 0.25, 0.5, 0.5)


def results(**aurocs: float) -> pd.DataFrame:
    """A table as results.csv, in which the test part has the opposite order."""
    rows = [{"part": "val", "label": label, "auroc": auroc} for label, auroc in aurocs.items()]
    rows += [{"part": "test", "label": label, "auroc": 1 - auroc} for label, auroc in aurocs.items()]
    return pd.DataFrame([*rows, {"part": "val", "label": "macro", "auroc": 0.99}])


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, ["C"]), (2, ["A", "C"]), (3, ["A", "C", "D"]), (4, list("ABCD")), (9, list("ABCD"))],
)
def test_the_best_labels_are_those_of_the_highest_validation_auroc(number: int, expected: list[str]) -> None:
    assert best_labels(results(A=0.7, B=0.5, C=0.9, D=0.6), list("ABCD"), number) == expected


def test_the_best_labels_stand_in_the_order_of_the_outputs() -> None:
    assert best_labels(results(A=0.7, B=0.5, C=0.9), ["C", "B", "A"], 2) == ["C", "A"]


def test_labels_without_an_auroc_come_last() -> None:
    table = results(A=NAN, B=0.2, C=NAN, D=0.3)
    assert best_labels(table, list("ABCD"), 2) == ["B", "D"]
    assert best_labels(table, list("ABCD"), 3) == ["A", "B", "D"]
    assert best_labels(results(B=0.2), list("ABC"), 1) == ["B"]
    assert best_labels(results(B=0.2), list("ABC"), 2) == ["A", "B"]


def test_where_no_auroc_is_known_the_first_labels_are_taken() -> None:
    assert best_labels(results(A=NAN, B=NAN, C=NAN), list("ABC"), 2) == ["A", "B"]
    assert best_labels(results(), list("ABC"), 2) == ["A", "B"]
    assert best_labels(results(X=0.9), list("ABC"), 1) == ["A"]


def test_labels_that_are_not_at_hand_are_not_chosen() -> None:
    assert best_labels(results(A=0.7, B=0.9, C=0.8), ["A", "C"], 1) == ["C"]


def test_of_equal_labels_the_first_of_the_table_is_taken() -> None:
    assert best_labels(results(A=0.7, B=0.7, C=0.7), list("ABC"), 2) == ["A", "B"]


@dataclass
class Rows:
    """What explain_task_of asks of a data module: images of rows 3 and later are for training, 1 for validation."""

    images: Any

    def rows(self, part: str) -> list[int]:
        return {"train": [3, 4], "val": [1], "test": [0, 2]}[part]


def table_of(
    rows: Sequence[int], labels: Sequence[str] = LABELS, part: str = "test", **changes: Any
) -> PredictionTable:
    columns = [LABELS.index(label) for label in labels]
    return PredictionTable(
        images=np.array([f"{row}.png" for row in rows], dtype=object),
        patients=np.arange(len(rows)),
        labels=tuple(labels),
        targets=np.array(PREDICTED_TARGETS)[list(rows)][:, columns],
        probabilities=np.array([[row / 10, 0.9 - row / 10] for row in rows])[:, columns],
        part=part,
        **changes,
    )


@dataclass
class Scene:
    """What is evaluated, and what is needed beside."""

    shown: ExplainTask
    predicted: PredictedImages

    def explain_task(
        self,
        *,
        labels: Sequence[str] = LABELS,
        data: Any = None,
        thresholds: npt.NDArray[np.float64] | None = None,
        **changes: Any,
    ) -> ExplainTask:
        settings = replace(self.shown.settings, num_background=1)
        predicted = replace(self.predicted, **changes)
        return explain_task_of(
            self.shown.classifier, predicted, settings, labels=labels, data=data, thresholds=thresholds
        )


@pytest.fixture
def scene(make_task: MakeTask) -> Scene:
    """Five images, of which rows 4, 0 and 2 were evaluated in this order."""
    shown = make_task(PREDICTED_TARGETS, [BOX])
    rows = [4, 0, 2]
    return Scene(
        shown, PredictedImages(table_of(rows), DataFacts("drawn"), shown.manifest, shown.images, rows)
    )


def test_the_cases_are_what_the_network_said_of_the_evaluated_rows(scene: Scene) -> None:
    explain_task = scene.explain_task()
    assert explain_task.classifier is scene.shown.classifier
    assert explain_task.images is scene.predicted.images
    assert explain_task.manifest is scene.predicted.manifest
    found = {
        (case.row, case.label, case.finding): (case.probability, case.target, case.outcome)
        for case in explain_task.cases.itertuples()
    }
    assert found == {
        (4, 0, "Mass"): (0.4, 1, "FN"),
        (4, 1, "Edema"): (0.5, 1, "TP"),
        (0, 0, "Mass"): (0.0, 1, "FN"),
        (0, 1, "Edema"): (0.9, 0, "FP"),
        (2, 0, "Mass"): (0.2, 1, "FN"),
        (2, 1, "Edema"): (0.7, pytest.approx(NAN, nan_ok=True), "unknown"),
    }


def test_labels_are_called_present_at_the_thresholds(scene: Scene) -> None:
    cases = scene.explain_task(thresholds=np.array([0.2, NAN])).cases.set_index(["row", "finding"])["outcome"]
    assert cases[:, "Mass"].to_dict() == {0: "FN", 2: "TP", 4: "TP"}
    assert cases[:, "Edema"].to_dict() == {0: "FP", 2: "unknown", 4: "TP"}


def test_labels_of_other_tables_are_counted_as_the_network_s_outputs(scene: Scene) -> None:
    for labels, outputs in ((["Edema"], {"Edema": 1}), (["Edema", "Mass"], {"Edema": 1, "Mass": 0})):
        explain_task = scene.explain_task(table=table_of([4, 0, 2], labels), labels=labels[:1])
        assert dict(zip(explain_task.cases["finding"], explain_task.cases["label"], strict=True)) == outputs
        assert explain_task.labels == [1]
        edema = explain_task.cases[explain_task.cases["finding"] == "Edema"].set_index("row")["probability"]
        assert edema.to_dict() == {0: 0.9, 2: 0.7, 4: 0.5}


def test_the_labels_of_the_checks_are_outputs_in_the_order_given(scene: Scene) -> None:
    assert scene.explain_task(labels=["Edema", "Mass"]).labels == [1, 0]
    assert scene.explain_task(labels=["Edema"]).labels == [1]


@pytest.mark.parametrize("at_hand", [["Mass"], list(LABELS)])
def test_an_unknown_label_is_named_with_those_at_hand(scene: Scene, at_hand: list[str]) -> None:
    message = rf"^labels names 'Hernia'; the labels at hand are {', '.join(at_hand)}\.$"
    with pytest.raises(ConfigError, match=message):
        scene.explain_task(table=table_of([4, 0, 2], at_hand), labels=[at_hand[0], "Hernia", "Scar"])


def test_an_output_that_was_not_evaluated_is_not_at_hand(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="labels names 'Edema'; the labels at hand are Mass"):
        scene.explain_task(table=table_of([4, 0, 2], ["Mass"]), labels=["Edema"])


@pytest.mark.parametrize("changes", [{"manifest": None}, {"images": None}, {"rows": []}, {"rows": [4, 0]}])
def test_predictions_without_pixels_are_rejected(scene: Scene, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="test.csv comes without the pixels of its 3 images"):
        scene.explain_task(table=table_of([4, 0, 2], source="test.csv"), **changes)


def test_without_the_run_s_data_there_is_nothing_to_compare_with(scene: Scene) -> None:
    explain_task = scene.explain_task()
    assert explain_task.background is None
    assert len(explain_task.validation) == 0


def test_of_the_run_s_own_data_validation_boxes_are_known(scene: Scene) -> None:
    explain_task = scene.explain_task(data=Rows(scene.shown.images))
    assert list(explain_task.validation) == [1]
    assert explain_task.background is not None
    assert explain_task.background.shape == (1, 1, 16, 16)
    assert int(explain_task.background[0, 0, 0, 0]) in {3, 4}


def test_the_validation_part_does_not_choose_its_own_thresholds(scene: Scene) -> None:
    explain_task = scene.explain_task(table=table_of([4, 0, 2], part="val"), data=Rows(scene.shown.images))
    assert len(explain_task.validation) == 0
    assert explain_task.background is not None


def test_rows_of_another_data_set_s_validation_part_are_not_taken(scene: Scene, make_task: MakeTask) -> None:
    explain_task = scene.explain_task(data=Rows(make_task(PREDICTED_TARGETS).images))
    assert len(explain_task.validation) == 0
    assert explain_task.background is not None  # the run's training images can be compared with all the same


def test_boxes_are_those_of_the_images_as_they_were_decoded(scene: Scene) -> None:
    images = SimpleNamespace(
        resize="pad", facts=pd.DataFrame({"width": [200] * 5, "height": [100] * 5})
    )  # twice as wide as high: padding halves heights, and a quarter of the square lies above
    box = scene.explain_task(images=images).manifest.boxes.iloc[0]
    assert [box["x"], box["y"], box["width"], box["height"]] == pytest.approx([0.0, 0.375, 0.5, 0.25])
    assert scene.explain_task().manifest.boxes.iloc[0]["y"] == 0.25


@pytest.fixture
def run(scene: Scene, tmp_path: Path) -> Any:
    return SimpleNamespace(model=scene.shown.classifier, labels=list(LABELS), run_dir=tmp_path / "run")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three image files of different sizes, not in the order of their names."""
    generator, found = np.random.default_rng(0), []
    for name, shape in (("b.png", (24, 40)), ("a.png", (16, 16)), ("c.jpg", (50, 20))):
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
        found.append(tmp_path / name)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_files_come_with_what_the_run_says_of_them(run: Any, paths: list[Path], batch_size: int) -> None:
    predicted = predict_files(run, paths, batch_size, "cpu")
    pixels = np.stack([decode(path, image_size=16, channels=1, resize="stretch") for path in paths])
    with torch.inference_mode():
        expected = run.model.predict_probabilities(torch.from_numpy(pixels)).numpy()
    assert np.ptp(expected[:, 0]) > 1e-4
    np.testing.assert_allclose(predicted.table.probabilities, expected, atol=1e-6)
    assert predicted.table.labels == LABELS
    assert predicted.table.images.tolist() == [str(path) for path in paths]
    assert np.isnan(predicted.table.targets).all()
    assert predicted.table.num_patients == 3
    assert predicted.facts.name == "image files"
    assert list(predicted.rows) == [0, 1, 2]
    assert predicted.images is not None
    np.testing.assert_array_equal(predicted.images[[2, 0]], pixels[[2, 0]])
    assert predicted.images.facts.to_dict("list") == {"width": [40, 16, 20], "height": [24, 16, 50]}


def test_files_can_be_explained(run: Any, scene: Scene, paths: list[Path]) -> None:
    predicted = predict_files(run, paths, 2, "cpu")
    explain_task = explain_task_of(
        run.model, predicted, scene.shown.settings, labels=["Edema"], data=None, thresholds=None
    )
    assert explain_task.cases["row"].unique().tolist() == [0, 1, 2]
    assert set(explain_task.cases["outcome"]) == {"unknown"}
    assert explain_task.patient(1) == str(paths[1])
    maps = explain_task.explain("gradcam")(
        torch.stack([explain_task.image(row) for row in (0, 1, 2)]), [(2, 1)]
    )
    assert maps.shape == (1, 16, 16)


def test_a_file_that_is_gone_or_no_image_is_named(run: Any, paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"There is no image .*gone\.png"):
        predict_files(run, [*paths, tmp_path / "gone.png"], 2, "cpu")
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(DataError, match=r"notes\.png \(8 bytes\) cannot be read"):
        predict_files(run, [*paths, tmp_path / "notes.png"], 2, "cpu")


class ManyRows:
    """Of 40 images the odd ones are for training; each is told by its value."""

    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 1, 2, 2))

    def rows(self, part: str) -> list[int]:
        return list(range(1, 40, 2)) if part == "train" else list(range(0, 40, 2))


def drawn(number: int, seed: int) -> list[int]:
    data: Any = ManyRows()
    found = training_images(data, number, seed)
    assert found.dtype == torch.uint8
    assert found.shape[1:] == (1, 2, 2)
    return found[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (6, 6), (20, 20), (99, 20)])
def test_training_images_are_some_of_the_training_part_none_twice(number: int, expected: int) -> None:
    rows = drawn(number, 0)
    assert len(rows) == len(set(rows)) == expected
    assert set(rows) <= set(range(1, 40, 2))


def test_the_seed_decides_which_training_images_are_drawn() -> None:
    several = [drawn(5, seed) for seed in range(30)]
    assert several == [drawn(5, seed) for seed in range(30)]
    assert len({tuple(rows) for rows in several}) > 20
    assert {row for rows in several for row in rows} == set(range(1, 40, 2))
