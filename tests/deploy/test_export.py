"""``cxrlab export``: a run becomes a file that computes the same, or no file at all."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cxrlab import load_model, load_run
from cxrlab.deploy.backend import TorchBackend
from cxrlab.deploy.export import ExportSettings, Format, export_model
from cxrlab.deploy.onnx_file import read_onnx, write_onnx
from cxrlab.deploy.program_file import read_program
from cxrlab.deploy.quantization import MetricChange, ValidationChange, check_change
from cxrlab.deploy.record import record_of
from cxrlab.errors import CheckpointError, ConfigError, DataError, ExportError, MissingFileError
from cxrlab.export import checked, export
from cxrlab.runs.reference import read_reference


@pytest.fixture(scope="module")
def radiographs(synthetic_root: Path, finished_run: Path) -> Path:
    """A folder of more radiographs than the tiny run's test part has."""
    return Path(json.loads((finished_run / "audit.json").read_text())["root"])


@pytest.fixture(scope="module")
def images(finished_run: Path, radiographs: Path) -> list[str]:
    return [f"run={finished_run}", f"images={radiographs}", "num_images=64"]


@pytest.fixture
def words(images: list[str], tmp_path: Path) -> list[str]:
    return [*images, f"run_dir={tmp_path}"]


@pytest.fixture(scope="module")
def onnx_file(composed, images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    return export(composed(*images, f"run_dir={folder}", "licence=CC-BY-4.0", config_name="export"))


@pytest.fixture(scope="module")
def program(composed, images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    return export(composed(*images, f"run_dir={folder}", "format=torch", config_name="export"))


@pytest.fixture
def checkpoint(finished_run: Path) -> Path:
    return finished_run / "checkpoints" / "best.ckpt"


def test_a_run_becomes_an_onnx_file_with_what_is_known_of_it(
    onnx_file: Path, finished_run: Path, checkpoint: Path
):
    run = load_run(finished_run)
    record, backend, reference = read_onnx(onnx_file)
    assert record == record_of(run.model, checkpoint, licence="CC-BY-4.0")
    assert record.trained_on is not None
    assert record.checkpoint
    assert (reference is None) == (read_reference(checkpoint) is None)
    rows = run.data().rows("test")[:5]
    table = run.predictions("test").set_index("image")
    named = run.data().manifest.table["image"].iloc[rows]
    evaluated = table.loc[named, [f"probability/{label}" for label in run.labels]].to_numpy()
    assert np.abs(backend(run.data().images[rows]).probabilities - evaluated).max() < 1e-4


def test_it_predicts_files_as_the_run_does(onnx_file: Path, finished_run: Path, radiographs: Path):
    paths = [radiographs / image for image in load_run(finished_run).manifest["image"][:3]]
    expected, found = (load_model(source).predict(paths) for source in (finished_run, onnx_file))
    assert list(expected) == list(found)
    numbers = expected.select_dtypes("number").columns
    assert np.allclose(expected[numbers], found[numbers], atol=1e-4, equal_nan=True)
    others = expected.columns.difference(numbers)
    assert expected[others].equals(found[others])


def test_the_example_of_the_page_runs_without_cxrlab(onnx_file: Path, finished_run: Path, tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "export.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    run = load_run(finished_run)
    np.save(tmp_path / "images.npy", run.data().images[[0, 1, 2]])
    shutil.copy(onnx_file, tmp_path / "model.onnx")
    code = (
        f"import sys, numpy\nimages = numpy.load('images.npy')\n{example}\n"
        "print([name for name in ('cxrlab', 'torch') if name in sys.modules], positive.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    decisions = TorchBackend(run.model)(run.data().images[[0, 1, 2]]).probabilities[:, 0]
    expected = (decisions >= run.thresholds[run.labels[0]]).tolist()
    assert done.stdout.strip() == f"[] {expected}"


def test_how_far_the_file_lies_from_the_model_is_kept_in_it_and_beside_it(onnx_file: Path):
    found = json.loads((onnx_file.parent / "export.json").read_text())
    metadata = {one.key: one.value for one in onnx.load(str(onnx_file)).metadata_props}
    assert json.loads(metadata["agreement"]) == found["agreement"]
    assert found["agreement"]["num_images"] == 64
    assert found["agreement"]["num_flipped"] == 0
    assert 0 < found["agreement"]["probabilities"] < 1e-5
    written = sorted(path.name for path in onnx_file.parent.glob("[!.]*"))
    assert written == ["export.json", "model.onnx"]


@pytest.mark.parametrize("kind", ["onnx_file", "program"])
def test_no_name_of_a_patient_an_image_or_a_folder_is_in_the_file(
    kind: str, request: pytest.FixtureRequest, finished_run: Path, radiographs: Path
):
    content = request.getfixturevalue(kind).read_bytes()
    manifest = load_run(finished_run).manifest
    for name in (str(radiographs), str(finished_run), sys.prefix, *manifest["image"], *manifest["patient"]):
        assert len(name) < 4 or name.encode() not in content


def test_a_program_of_torch_computes_the_same_and_says_the_same(
    program: Path, finished_run: Path, checkpoint: Path, tmp_path: Path
):
    model = load_run(finished_run).model
    record, backend, _ = read_program(program)
    assert record == record_of(model, checkpoint)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *backend.shape), dtype=np.uint8)
    expected, found = TorchBackend(model)(pixels), backend(pixels)
    for one, other in zip(expected, found, strict=True):
        assert one is not None
        assert other is not None
        assert np.abs(one - other).max() < 1e-5
    with pytest.raises(DataError, match="were given to an exported model"):
        backend(pixels[..., :8])
    (tmp_path / "junk.pt2").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"junk.pt2 is no program of torch.export"):
        read_program(tmp_path / "junk.pt2")
    with pytest.raises(CheckpointError, match=r"best.ckpt is no model of cxrlab"):
        read_program(checkpoint)


def test_a_checkpoint_alone_is_exported_too(composed, checkpoint: Path, radiographs: Path, tmp_path: Path):
    lone = shutil.copy(checkpoint, tmp_path / "lone.ckpt")
    output = tmp_path / "deep" / "er" / "lone.onnx"
    options = [f"run={lone}", f"output={output}", f"run_dir={tmp_path / 'log'}"]
    (tmp_path / "log").mkdir()
    with pytest.raises(ConfigError, match="is a checkpoint alone.* give images="):
        export(composed(*options, config_name="export"))
    assert not output.exists()
    export(composed(*options, f"images={radiographs}", "precision=fp16", config_name="export"))
    found = json.loads((tmp_path / "log" / "export.json").read_text())
    assert found["path"] == str(output)
    assert found["agreement"]["tolerance"] == 1e-2
    assert found["change"] is None
    with pytest.raises(ConfigError, match="needs training images|needs the validation images"):
        export(composed(*options, f"images={radiographs}", "quantize=int8", config_name="export"))


def test_eight_bits_are_measured_on_validation(
    composed, words: list[str], onnx_file: Path, finished_run: Path, tmp_path: Path
):
    for quantize in ("int8", "int8_dynamic"):
        path = export(composed(*words, f"quantize={quantize}", "max_drop=1", config_name="export"))
        assert path.stat().st_size < 0.35 * onnx_file.stat().st_size
        found = json.loads((tmp_path / "export.json").read_text())
        assert found["agreement"]["tolerance"] is None
        change = found["change"]
        assert change["num_images"] == int((load_run(finished_run).manifest["part"] == "val").sum())
        names = {metric["metric"] for metric in change["metrics"]}
        assert names <= {"auroc", "sensitivity", "specificity"}
        assert "auroc" in names
        assert read_onnx(path)[0].labels == tuple(load_run(finished_run).labels)


def test_what_costs_too_much_is_refused():
    lost = MetricChange(metric="auroc", before=0.9, after=0.87, worst_label="Mass", worst=-0.1)
    change = ValidationChange(num_images=100, num_flipped=7, metrics=[lost])
    check_change(change, 0.05)
    with pytest.raises(ExportError, match=r"loses 0.0300 of the auroc, and max_drop=0.01 .* Mass -0.1000"):
        check_change(change, 0.01)


def test_a_graph_that_was_tampered_with_is_not_written(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An exporter that errs: the last bias of what it writes is another."""

    def write_wrong(program, path: Path) -> None:
        write_onnx(program, path)
        model = onnx.load(str(path))
        biases = [one for one in model.graph.initializer if one.name.endswith("head.1.bias")]
        for bias in biases:
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
        onnx.save(model, str(path))

    monkeypatch.setattr("cxrlab.deploy.export.write_onnx", write_wrong)
    run = load_run(finished_run)
    pixels = run.data().images[list(range(64))]
    output = tmp_path / "model.onnx"
    output.write_bytes(b"an earlier one")
    with pytest.raises(ExportError, match=r"does not compute what the model does: .* Nothing was written"):
        export_model(run.model, output, record=record_of(run.model), images=pixels)
    assert output.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_full_disk_leaves_the_file_that_was_there(form: Format, finished_run: Path, tmp_path: Path):
    run = load_run(finished_run)
    pixels = run.data().images[list(range(64))]
    output = tmp_path / "model"
    output.write_bytes(b"an earlier one")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            export_model(
                run.model,
                output,
                record=record_of(run.model),
                images=pixels,
                settings=ExportSettings(format=form),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.filename == str(output)
    assert output.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [output]


def test_the_model_is_left_as_it_was(finished_run: Path, tmp_path: Path):
    run = load_run(finished_run)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    pixels = run.data().images[list(range(64))]
    settings = ExportSettings(precision="fp16")
    export_model(
        run.model, tmp_path / "a.onnx", record=record_of(run.model), images=pixels, settings=settings
    )
    after = run.model.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {tensor.dtype for tensor in before.values()}


def test_few_images_are_told(composed, finished_run: Path, tmp_path: Path):
    """The tiny run has fewer test and validation images than a comparison needs."""
    with pytest.raises(ConfigError, match=r"\d+ images are too few .* 64 at least. Give images="):
        export(composed(f"run={finished_run}", f"run_dir={tmp_path}", config_name="export"))
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "Give run=<a run directory, or a checkpoint>"),
        (["run=a", "format=tflite"], "format=tflite must be one of onnx, torch"),
        (
            ["run=a", "format=folder"],
            "format=folder must be one of onnx, torch; cxrlab share writes a folder",
        ),
        (["run=a", "precision=bf16"], "precision=bf16 must be one of fp32, fp16"),
        (["run=a", "quantize=int4"], "quantize=int4 must be one of int8, int8_dynamic"),
        (["run=a", "quantize=int8", "format=torch"], "quantize=int8 needs format=onnx, not torch"),
        (["run=a", "quantize=int8", "precision=fp16"], "do not go together"),
        (["run=a", "max_drop=-1"], "max_drop=-1 must lie between 0.0 and 1.0"),
        (["run=a", "num_images=63"], "num_images=63 must be at least 64"),
        (["run=a", "batch_size=1"], "batch_size=1 must be at least 2"),
        (["run=a", "calibration_images=0"], "calibration_images=0 must be at least 1"),
        (["run=a", "output=/tmp"], "output=/tmp is a folder: name a file in it, such as model.onnx"),
        (["run=a", "output=a.pt2"], r"output=a.pt2: a file of format=onnx ends in .onnx"),
    ],
)
def test_what_is_checked_before_anything_is_read(composed, overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        checked(composed(*overrides, "run_dir=/nowhere", config_name="export"))


def test_what_is_no_run_is_told(composed, finished_run: Path, tmp_path: Path):
    def exported(run: Path) -> Path:
        return export(composed(f"run={run}", f"run_dir={tmp_path}", config_name="export"))

    with pytest.raises(MissingFileError, match="there is no such run directory or checkpoint"):
        exported(tmp_path / "nothing")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="is exported already: name the run, or its checkpoint"):
        exported(tmp_path / "model.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"There is no checkpoint .*best.ckpt. Was an epoch finished"):
        exported(tmp_path / "empty")


def test_a_command_line_says_what_it_compared(words: list[str], tmp_path: Path):
    command = [sys.executable, "-m", "cxrlab", "export", *words[:3], f"hydra.run.dir={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The file agrees: on 64 images, in batches of 1 and 16, the largest difference" in done.stdout
    assert "Warning" not in done.stdout + done.stderr
    assert "Removed" not in done.stdout  # what an optimiser tells its makers
    assert len(done.stdout.splitlines()) < 8
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert (tmp_path / "out" / "export.log").is_file()


def test_a_reference_goes_along_where_it_may(
    composed, finished_run: Path, radiographs: Path, tmp_path: Path, caplog
):
    from cxrlab.runs.reference import Spread, TrainingReference, keep_reference

    path = tmp_path / "best.ckpt"
    path.write_bytes((finished_run / "checkpoints" / "best.ckpt").read_bytes())
    spreads = [Spread(torch.zeros(size), torch.eye(size)) for size in (64, 16, 5)]
    keep_reference(path, TrainingReference(torch.zeros(2, 512), *spreads, torch.ones(4)))

    def has_one(name: str, *overrides: str) -> bool:
        given = [f"run={path}", f"images={radiographs}", f"output={tmp_path / name}", f"run_dir={tmp_path}"]
        export(composed(*given, *overrides, config_name="export"))
        return read_onnx(tmp_path / name)[2] is not None

    assert has_one("a.onnx")
    assert not has_one("b.onnx", "reference=false")
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["trained_on"] = {"data": "mimic", "parts": [], "note": "", "held_out": ""}
    torch.save(content, path)
    assert not has_one("c.onnx")
    assert "mimic is under an agreement" in caplog.text
    assert has_one("d.onnx", "reference=true")


def test_images_are_spread_over_all_rows():
    from cxrlab.export import _spread

    assert _spread(list(range(250)), 128)[0] == 0
    assert _spread(list(range(250)), 128)[-1] == 249
    assert len(set(_spread(list(range(250)), 128))) == 128
    assert _spread([5, 3], 64) == [3, 5]
