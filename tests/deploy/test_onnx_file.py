"""ONNX files: the same numbers as the classifier, the same record, and nothing of the machine that wrote them."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import cxrlab
from cxrlab import Classifier
from cxrlab.deploy.backend import TorchBackend
from cxrlab.deploy.graph import trace
from cxrlab.deploy.metadata import texts_of
from cxrlab.deploy.onnx_file import add_metadata, read_onnx, write_onnx
from cxrlab.deploy.parity import agreement, check_agreement
from cxrlab.deploy.record import ModelRecord, record_of
from cxrlab.deploy.record_reading import _RULES, read_record
from cxrlab.errors import CheckpointError, ConfigError, DataError, ExportError
from cxrlab.models import TimmNetwork
from cxrlab.runs.reference import Spread, TrainingReference

LABELS = ["Edema", "Mass", "Nodule"]
SIZE = 32


def classifier(network: nn.Module | None = None, **options: Any) -> Classifier:
    """Return a tiny classifier with thresholds and a calibration, random weights."""
    torch.manual_seed(0)
    if network is None:
        network = TimmNetwork("resnet10t", num_labels=3, image_size=SIZE)
    options = {"preprocess": {"normalize": "image", "image_size": SIZE}, **options}
    made = Classifier(labels=LABELS, network=network, **options).eval()
    point = made.operating_point
    point.thresholds.copy_(torch.tensor([0.5, torch.nan, 0.3]))
    point.slopes.copy_(torch.tensor([1.4, 0.7, torch.nan]))
    point.intercepts.copy_(torch.tensor([-0.5, 0.2, torch.nan]))
    return made


def pixels(number: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 1, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier()


@pytest.fixture(scope="module")
def written(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of a classifier, with a reference."""
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    write_onnx(trace(model), path)
    add_metadata(path, texts_of(record_of(model, licence="CC-BY-4.0"), some_reference()))
    return path


def some_reference(num_features: int = 512) -> TrainingReference:
    """Return a reference of random numbers, of the right shapes."""
    layout, grey_levels, detail = (Spread.of(torch.randn(100, size)) for size in (64, 16, 7))
    features = nn.functional.normalize(torch.randn(8, num_features)).half()
    return TrainingReference(features, layout, grey_levels, detail, torch.ones(4))


def edited(path: Path, target: Path, key: str, text: str | None) -> Path:
    """Return a copy of an ONNX file whose metadata say something else; None takes a key away."""
    content = onnx.load(str(path))
    kept = [(one.key, one.value) for one in content.metadata_props if one.key != key]
    del content.metadata_props[:]
    for name, value in [*kept, *([] if text is None else [(key, text)])]:
        content.metadata_props.add(key=name, value=value)
    onnx.save(content, str(target))
    return target


class Plain(nn.Module):
    """A person's own network, which tells no features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Bessel(Plain):
    """Uses an operator that ONNX does not have."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().forward(images))


class Choosing(Plain):
    """Takes another way for dark images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.mean() > 0 else -images)


OPTIONS = {
    "multiclass": {"task": "multiclass", "preprocess": {"normalize": "imagenet", "image_size": SIZE}},
    "views": {"views": ["flip", "zoom_in", "rotate_left", "shift_up"]},
    "equalize": {"views": ["identity", "flip"], "preprocess": {"normalize": "equalize", "image_size": SIZE}},
    "channels_last": {"channels_last": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_computes_what_the_classifier_does(options: dict[str, Any], tmp_path: Path):
    network = Plain() if "views" in options else None  # each view is a network of its own in the graph
    compare(classifier(network, **options), tmp_path)


@pytest.mark.parametrize("kind", ["attention", "plain"])
def test_so_do_other_heads_and_networks_without_features(kind: str, tmp_path: Path):
    attention = TimmNetwork("resnet10t", num_labels=3, image_size=SIZE, head="attention")
    compare(classifier(attention if kind == "attention" else Plain()), tmp_path)


def compare(made: Classifier, folder: Path) -> None:
    write_onnx(trace(made), folder / "a.onnx")
    add_metadata(folder / "a.onnx", texts_of(record_of(made)))
    record, backend, reference = read_onnx(folder / "a.onnx")
    assert record == record_of(made)
    assert reference is None
    found = agreement(
        TorchBackend(made), backend, pixels(), made.operating_point.threshold_values(), tolerance=1e-4
    )
    check_agreement(found)
    assert found.largest < 1e-5
    own = TorchBackend(made)(pixels(3))
    expected = made.predict_probabilities(torch.from_numpy(pixels(3))).detach().numpy()
    assert np.abs(own.probabilities - expected).max() < 1e-6
    given = backend(pixels(3)).features
    assert (given is None) == (own.features is None)
    if given is not None and own.features is not None:
        assert np.abs(given - own.features).max() < 1e-4


def test_certain_probabilities_are_calibrated_as_elsewhere(tmp_path: Path):
    """The logit of a probability of 1 ends at 1e-7 from it, which is no float32."""
    made = classifier(Plain())
    made.network.module.layers[-1].bias.data.copy_(torch.tensor([60.0, -60.0, 20.0]))
    made.operating_point.slopes.fill_(0.2)
    made.operating_point.intercepts.fill_(0.0)
    write_onnx(trace(made), tmp_path / "a.onnx")
    add_metadata(tmp_path / "a.onnx", texts_of(record_of(made)))
    found, own = read_onnx(tmp_path / "a.onnx")[1](pixels(2)), TorchBackend(made)(pixels(2))
    assert own.probabilities.max() == 1.0
    assert np.abs(found.calibrated - own.calibrated).max() < 1e-6


def test_half_precision_halves_the_file_and_moves_probabilities_little(
    model: Classifier, written: Path, tmp_path: Path
):
    path = tmp_path / "half.onnx"
    write_onnx(trace(model, "fp16"), path)
    add_metadata(path, texts_of(record_of(model)))
    assert path.stat().st_size < 0.55 * written.stat().st_size
    found = read_onnx(path)[1](pixels(4))
    assert 0 < np.abs(found.probabilities - TorchBackend(model)(pixels(4)).probabilities).max() < 5e-3
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_record_reference_and_words_for_people_come_back(model: Classifier, written: Path):
    record, _, reference = read_onnx(written)
    assert record == record_of(model, licence="CC-BY-4.0")
    assert record.thresholds == {"Edema": 0.5, "Mass": None, "Nodule": pytest.approx(0.3)}
    assert reference is not None
    assert reference.features.shape == (8, 512)
    assert all(reference.reasons(pixels(2), np.ones((2, 512), np.float32)))
    content = onnx.load(str(written))
    words = {one.key: one.value for one in content.metadata_props}
    assert words["labels"] == "Edema; Mass; Nodule"
    assert words["thresholds"].startswith("Edema: 0.5; Mass: none; Nodule: 0.3 (of probabilities, ")
    assert words["licence"] == "CC-BY-4.0"
    assert content.opset_import[0].version == 18
    assert content.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    onnx.checker.check_model(content)


def test_no_folder_of_the_machine_is_in_it(written: Path):
    content = written.read_bytes()
    for folder in (Path(cxrlab.__file__).parent, Path(torch.__file__).parents[1], Path.home(), Path.cwd()):
        assert str(folder).encode() not in content


def test_images_of_another_size_or_scale_are_refused(written: Path):
    backend = read_onnx(written)[1]
    with pytest.raises(DataError, match=r"shape \(1, 64, 64\).*of \(1, 32, 32\)"):
        backend(np.zeros((2, 1, 64, 64), dtype=np.uint8))
    with pytest.raises(DataError, match="type float32"):
        backend(pixels(2).astype(np.float32))


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path):
    with pytest.raises(ExportError, match=r"its operator \w+\.\w*bessel_j0\S* cannot be exported"):
        write_onnx(trace(classifier(Bessel())), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_chooses_by_values_is_said_to():
    with pytest.raises(ExportError, match="Choosing cannot be traced: .* written with tensors"):
        trace(classifier(Choosing()))


def test_files_of_others_and_damaged_ones_are_refused(written: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is no model of cxrlab: its metadata have no key cxrlab"):
        read_onnx(edited(written, tmp_path / "other.onnx", "cxrlab", None))
    for content in (b"", b"no network", written.read_bytes()[:5000]):
        (tmp_path / "junk.onnx").write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"junk.onnx \(\d+ bytes\) cannot be loaded as an ONNX file"
        ):
            read_onnx(tmp_path / "junk.onnx")
    with pytest.raises(CheckpointError, match=r"nowhere.onnx cannot be read: No such file"):
        read_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(ConfigError, match=r"device=tpu must be auto, cpu or cuda"):
        read_onnx(written, "tpu")


def test_metadata_that_do_not_fit_are_refused(model: Classifier, written: Path, tmp_path: Path):
    target = tmp_path / "edited.onnx"
    for record, message in (
        (replace(record_of(model), image_size=64), "the graph takes .* the file was edited"),
        (replace(record_of(model), labels=("A", "B"), thresholds={"A": 0.5, "B": 0.5}), "speak of 2 labels"),
    ):
        text = json.dumps(record.plain())
        with pytest.raises(CheckpointError, match=message):
            read_onnx(edited(written, target, "cxrlab", text))
    with pytest.raises(CheckpointError, match="cxrlab is no JSON"):
        read_onnx(edited(written, target, "cxrlab", "{"))
    add_metadata(shutil.copy(written, target), texts_of(record_of(model), some_reference(7)))
    with pytest.raises(CheckpointError, match="holds 7 features an image, and the graph gives 512"):
        read_onnx(target)
    for text in ("%", "AAAA"):
        with pytest.raises(CheckpointError, match="cxrlab_reference holds no tensors"):
            read_onnx(edited(written, target, "cxrlab_reference", text))


RECORD = {
    "task": "regression",
    "labels": ["Edema", "Edema", "Nodule"],
    "thresholds": {"Edema": 1.5, "Mass": None, "Nodule": 0.3},
    "calibration": "magic",
    "image_size": True,
    "channels": 2,
    "resize": "squeeze",
    "views": ["upside_down"],
    "trained_on": {"data": 7},
    "initial_weights": {"name": "x"},
    "licence": "<script>alert(1)</script>",
    "checkpoint": "no hash",
    "caveats": "none",
    "title": "a" * 3000,
    "version": None,
    "threshold_rule": 3,
    "surprise": 1,
}


@pytest.mark.parametrize("key", RECORD)
def test_a_record_of_anybody_is_checked_key_by_key(key: str):
    plain = record_of(classifier(Plain())).plain()
    assert read_record(plain, Path("a.onnx"), "cxrlab").labels == tuple(LABELS)
    with pytest.raises(CheckpointError, match=rf"a\.onnx: cxrlab\.{key}"):
        read_record({**plain, key: RECORD[key]}, Path("a.onnx"), "cxrlab")
    if key in plain:
        with pytest.raises(CheckpointError, match=rf"a\.onnx: cxrlab\.{key}=None must be"):
            read_record({name: plain[name] for name in plain if name != key}, Path("a.onnx"), "cxrlab")


def test_every_key_of_a_record_has_a_rule():
    assert set(_RULES) == {field.name for field in fields(ModelRecord)}


def test_a_file_that_disagrees_is_refused(written: Path, tmp_path: Path):
    """Its record is right, its weights are another network's."""
    other = classifier()
    other.network.head[-1].bias.data += 0.01
    backend = read_onnx(written)[1]
    thresholds = other.operating_point.threshold_values()
    found = agreement(TorchBackend(other), backend, pixels(), thresholds, tolerance=1e-4)
    assert 1e-3 < found.largest < 5e-3
    with pytest.raises(
        ExportError, match=r"does not compute what the model does: on 64 images, in batches of 1 and 16"
    ):
        check_agreement(found)
    near = replace(found, tolerance=1e-2)
    check_agreement(replace(near, num_flipped=0))
    with pytest.raises(ExportError, match="and none"):
        check_agreement(replace(near, num_flipped=1))
    check_agreement(replace(near, num_flipped=1), flips=True)


def test_one_of_two_that_is_no_number_is_as_far_as_can_be(written: Path):
    other = classifier()
    other.network.head[-1].bias.data[0] = torch.nan
    thresholds = other.operating_point.threshold_values()
    found = agreement(TorchBackend(other), read_onnx(written)[1], pixels(), thresholds, tolerance=1e-4)
    assert found.largest == np.inf


def test_too_few_images_prove_nothing(model: Classifier):
    backend = TorchBackend(model)
    with pytest.raises(ConfigError, match=r"63 images are too few .* 64 at least. Give images="):
        agreement(backend, backend, pixels(63), model.operating_point.threshold_values(), tolerance=1e-4)
