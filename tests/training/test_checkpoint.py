"""What a checkpoint may hold, and by what it is known again."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cxrlab
from cxrlab.errors import CheckpointError, UserError
from cxrlab.files import RunDir, write_json
from cxrlab.metrics.predictions import prediction_columns
from cxrlab.models import SequentialNetwork
from cxrlab.models.weights import read_weights
from cxrlab.runs.run import load_classifier
from cxrlab.runs.writing import _check_best
from cxrlab.training.checkpoint import check_resumable, checkpoint_hash
from cxrlab.training.module import Classifier

Change = Callable[[dict[str, Any]], None]


def checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    network = SequentialNetwork([{"conv": 2}, "norm", "pool"], num_labels=2, image_size=32)
    preprocess = {"normalize": "training", "mean": [0.5], "std": [0.25], "image_size": 32, "channels": 1}
    classifier = Classifier(labels=["Edema", "Mass"], network=network, preprocess=preprocess)
    classifier.operating_point.thresholds.copy_(torch.tensor([0.4, math.nan]))
    return {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "epoch_loss": [0.0, 0],
        "pytorch-lightning_version": "2.5.0",
    }


def saved(path: Path, change: Change = lambda content: None) -> Path:
    content = checkpoint()
    change(content)
    torch.save(content, path)
    return path


def put(key: str, value: object) -> Change:
    def change(content: dict[str, Any]) -> None:
        *above, last = key.split(".")
        node = content["hyper_parameters"]
        for name in above:
            node[name] = dict(node[name])
            node = node[name]
        node[last] = value

    return change


def fill(name: str, *values: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        tensor = content["state_dict"][name].clone()
        tensor.view(-1)[: len(values)] = torch.tensor(values)
        content["state_dict"][name] = tensor

    return change


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda tensor: tensor.to(torch.complex64) * math.nan, "no plain array"),
        (lambda tensor: tensor.to_sparse(), "no plain array"),
        (lambda tensor: tensor.to("meta"), "no plain array"),
        (lambda tensor: tensor.flatten()[:1].expand(10**13), "repeats .* bytes to the shape"),
    ],
)
@pytest.mark.parametrize("name", ["network.features.0.weight", "operating_point.thresholds", "more"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_are_plain_arrays_that_the_file_holds(
    name: str, make: Callable[[torch.Tensor], torch.Tensor], fault: str, tmp_path: Path
):
    def change(content: dict[str, Any]) -> None:
        content["state_dict"][name] = make(torch.ones(2))

    path = saved(tmp_path / "best.ckpt", change)
    with pytest.raises(CheckpointError, match=rf"best.ckpt: state_dict.{name} .*{fault}"):
        load_classifier(path)
    with pytest.raises(CheckpointError, match=rf"{name} .*{fault}"):
        read_weights(path)


def test_a_checkpoint_for_use_is_nothing_to_go_on_from(tmp_path: Path):
    path = saved(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"no optimizer_states, .*copy of best.ckpt.*checkpoint_path="):
        check_resumable(path)
    training = {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "callbacks": {}}
    check_resumable(saved(path, lambda content: content.update(training)))
    with pytest.raises(CheckpointError, match=r"last.ckpt holds no callbacks, so"):
        check_resumable(saved(path, lambda content: content.update(training | {"callbacks": 7})))


def test_a_checkpoint_that_is_whole_is_loaded(tmp_path: Path):
    classifier = load_classifier(saved(tmp_path / "best.ckpt"))
    assert classifier.labels == ["Edema", "Mass"]
    assert classifier.operating_point.thresholds[0] == pytest.approx(0.4)


@pytest.mark.parametrize(
    "size", [100_000, -1, 0, 3, "64", "${oc.env:HOME}", 64.0, math.nan, None, True, [64, 64], 2**70]
)
@pytest.mark.parametrize("group", ["preprocess", "network"])
def test_an_image_size_is_a_number_that_images_have(group: str, size: object, tmp_path: Path):
    path = saved(tmp_path / "best.ckpt", put(f"{group}.image_size", size))
    with pytest.raises(CheckpointError, match=rf"best.ckpt: hyper_parameters.{group}.image_size="):
        load_classifier(path)
    with pytest.raises(CheckpointError, match=rf"hyper_parameters.{group}.image_size="):
        Classifier.load_from_checkpoint(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["<script>alert(1)</script>", "Mass"], r"labels\[0\]"),
        (["Edema", "<img src=x onerror=alert(1)>"], r"labels\[1\]"),
        (["Edema", "</td>"], r"labels\[1\]"),
        (["Edema", "a\x1b[31m"], r"labels\[1\]"),
        (["Edema", "Edema"], "labels names 'Edema' twice"),
        (["Edema", 3], r"labels\[1\]=3"),
        (["Edema", None], r"labels\[1\]"),
        (["Edema", " "], r"labels\[1\]"),
        (["Edema", {"_target_": "os.system"}], r"labels\[1\]"),
        (["Edema"], "num_labels=2 must be 1"),
        (["Edema", "Mass", "Nodule"], "num_labels=2 must be 3"),
        ("Edema", "labels='Edema' is no list"),
        ([], "labels"),
        (None, "labels"),
    ],
)
def test_labels_are_names_one_for_each_output(labels: object, message: str, tmp_path: Path):
    path = saved(tmp_path / "best.ckpt", put("labels", labels))
    with pytest.raises(CheckpointError, match=rf"best.ckpt: hyper_parameters.*{message}"):
        load_classifier(path)


def test_a_label_may_compare(tmp_path: Path):
    path = saved(tmp_path / "best.ckpt", put("labels", ["Nodule < 3 cm", "a<b"]))
    assert load_classifier(path).labels == ["Nodule < 3 cm", "a<b"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("preprocess.channels", [2, 0, -1, "1", True, None, 10**9]),
        ("network.channels", [3, "1", None, True]),
        ("preprocess.mean", [None, [], [0.5, 0.5], [math.nan], [math.inf], [-3], [128.0], ["0.5"], 0.5]),
        ("preprocess.std", [None, [-0.1], [math.inf], [[0.2]], "0.2"]),
        ("preprocess.normalize", ["mine", None, 3, ["image"]]),
        ("preprocess.resize", ["squash", None, 3]),
        ("preprocess.path", ["/etc/passwd"]),
        ("preprocess", [None, [], "none", 3]),
        ("network", [None, [], "none", 3]),
        ("task", ["regression", None, 3, ["multilabel"]]),
        ("views", ["flip", [], ["identity", "upside_down"], [3], None, 5]),
    ],
)
def test_every_other_value_is_one_that_can_be_meant(key: str, values: list[object], tmp_path: Path):
    for value in values:
        path = saved(tmp_path / "best.ckpt", put(key, value))
        with pytest.raises(
            CheckpointError, match=rf"best.ckpt: hyper_parameters.{key.rpartition('.')[0] or key}"
        ):
            load_classifier(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_are_finite(value: float, tmp_path: Path):
    for name in ("network.features.0.weight", "network.head.1.bias", "network.features.2.running_mean"):
        path = saved(tmp_path / "best.ckpt", fill(name, value))
        with pytest.raises(
            CheckpointError, match=rf"best.ckpt: 1 of the \d+ values of state_dict.{name} are NaN or inf"
        ):
            load_classifier(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.features.2.running_var", -1.0),
        ("operating_point.thresholds", math.inf),
        ("operating_point.thresholds", -0.1),
        ("operating_point.thresholds", 1.5),
        ("operating_point.slopes", math.inf),
        ("operating_point.intercepts", -math.inf),
        ("preprocess.mean", 77.0),
        ("preprocess.std", 0.0),
        ("preprocess.std", -1.0),
    ],
)
def test_values_that_decide_are_in_range(name: str, value: float, tmp_path: Path):
    path = saved(tmp_path / "best.ckpt", fill(name, value))
    with pytest.raises(CheckpointError, match=rf"best.ckpt: .*state_dict.{name}"):
        load_classifier(path)


def test_what_was_not_chosen_is_no_fault(tmp_path: Path):
    def change(content: dict[str, Any]) -> None:
        fill("operating_point.slopes", math.nan, math.nan)(content)
        fill("operating_point.thresholds", 1.0000001, 0.0)(content)

    assert load_classifier(saved(tmp_path / "best.ckpt", change))


@pytest.mark.parametrize("content", [[], "text", {}, {"state_dict": {}}, {"state_dict": {}, "hyper_parameters": []}, {"state_dict": {"a": 1}, "hyper_parameters": {}}])  # fmt: skip
def test_another_program_s_file_is_no_checkpoint(content: object, tmp_path: Path):
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"best.ckpt"):
        load_classifier(tmp_path / "best.ckpt")


def test_any_single_value_of_another_kind_gives_a_message(tmp_path: Path):
    """Whatever stands at any place of the description: a classifier that predicts, or an error of cxrlab's."""
    odd = [None, -1, 10**12, 1e400, math.nan, "x", [], {}, [None], {"_target_": "os.system"}, b"x", True]
    description = checkpoint()["hyper_parameters"]
    places = [*description] + [
        f"{group}.{name}" for group in ("preprocess", "network") for name in description[group]
    ]
    for place in places:
        for value in odd:
            path = saved(tmp_path / "best.ckpt", put(place, value))
            try:
                classifier = load_classifier(path)
            except UserError:
                continue
            size = classifier.preprocess.image_size
            images = torch.zeros(1, classifier.preprocess.channels, size, size, dtype=torch.uint8)
            with torch.no_grad():
                assert torch.isfinite(classifier.predict_probabilities(images)).all()


def test_an_image_without_probability_is_not_called_normal():
    columns = prediction_columns(["Edema", "Mass"], [[np.nan, 0.9], [0.9, np.nan]], thresholds=[0.5, np.nan])
    np.testing.assert_array_equal(columns["prediction/Edema"], [np.nan, 1.0])
    np.testing.assert_array_equal(columns["prediction/Mass"], [np.nan, np.nan])


def test_a_checkpoint_is_known_by_what_it_predicts_with(tmp_path: Path):
    first = checkpoint_hash(saved(tmp_path / "a.ckpt"))

    def grown(content: dict[str, Any]) -> None:
        content["optimizer_states"] = [torch.zeros(1000)]
        content["state_dict"] = dict(reversed(content["state_dict"].items())) | {
            "loss.pos_weight": torch.ones(2)
        }

    assert checkpoint_hash(saved(tmp_path / "b.ckpt", grown)) == first
    changes = [
        fill("network.head.1.bias", 0.5),
        fill("operating_point.thresholds", 0.41),
        put("labels", ["Mass", "Edema"]),
    ]
    assert len({first, *(checkpoint_hash(saved(tmp_path / "c.ckpt", change)) for change in changes)}) == 4


def run_of(folder: Path, noted: str | None) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    saved(folder / "checkpoints" / "best.ckpt")
    session = {} if noted is None else {"checkpoints": {"best": noted}}
    write_json(
        folder / "provenance.json",
        {"sessions": [{"checkpoints": {"best": "of an earlier session"}}, session]},
    )
    return folder


def test_a_run_s_own_checkpoint_is_loaded(tmp_path: Path):
    assert cxrlab.load_run(
        run_of(tmp_path / "run", checkpoint_hash(saved(tmp_path / "same.ckpt")))
    ).has_own_weights


def test_another_run_s_checkpoint_is_not_taken_for_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = run_of(tmp_path / "run", checkpoint_hash(saved(tmp_path / "same.ckpt")))
    saved(run / "checkpoints" / "best.ckpt", fill("network.head.1.bias", 0.5))
    with pytest.raises(
        CheckpointError,
        match=r"best.ckpt is not the checkpoint .* hash [0-9a-f]{16}, and provenance.json noted [0-9a-f]{16}.*check_weights=false",
    ):
        cxrlab.load_run(run)
    assert not cxrlab.load_run(run, check_weights=False).has_own_weights
    assert "check_weights=false" in caplog.text


def test_the_last_epoch_may_stand_for_a_best_that_is_gone(tmp_path: Path):
    run = run_of(tmp_path / "run", checkpoint_hash(saved(tmp_path / "same.ckpt")))
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    saved(last, fill("network.head.1.bias", 0.5))
    _check_best(RunDir(run))
    best.write_bytes(last.read_bytes())
    _check_best(RunDir(run))
    saved(best, fill("network.head.1.bias", 0.25))
    with pytest.raises(CheckpointError, match=r"best.ckpt is not the checkpoint .*start a new run by"):
        _check_best(RunDir(run))


def test_a_run_that_noted_nothing_is_loaded_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    assert cxrlab.load_run(run_of(tmp_path / "run", None)).has_own_weights
    assert "provenance.json does not say what weights best.ckpt ended with" in caplog.text


def test_labels_of_a_run_are_those_of_its_manifest(tmp_path: Path):
    run = run_of(tmp_path / "run", None)
    (run / "manifest.csv").write_text("image,patient,split,part,label/Edema,label/Nodule\n")
    with pytest.raises(
        CheckpointError, match=r"labels=\['Edema', 'Mass'\] are not the labels of the run's manifest.csv"
    ):
        cxrlab.load_run(run)
    (run / "manifest.csv").write_text("image,patient,split,part,label/Edema,label/Mass\n")
    assert cxrlab.load_run(run).labels == ["Edema", "Mass"]
