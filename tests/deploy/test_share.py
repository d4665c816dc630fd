"""Models as folders that can be passed on: what is in them, what is not, and what is read back."""

import json
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from huggingface_hub import ModelCard
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import nn

import cxrlab
from cxrlab.cli import config
from cxrlab.cli.config import config_dir
from cxrlab.deploy.record import record_of
from cxrlab.deploy.share import share
from cxrlab.deploy.shared_folder import FILES, is_shared_folder, read_shared_folder, write_shared_folder
from cxrlab.errors import CheckpointError, ConfigError, MissingFileError, OutputError, UserError
from cxrlab.models import TimmNetwork
from cxrlab.models.network import architecture
from cxrlab.report.html import plain_markdown
from cxrlab.runs.reference import Spread, TrainingReference, keep_reference
from cxrlab.runs.run import load_run
from cxrlab.share import checked
from cxrlab.share import share as share_command
from cxrlab.training.checkpoint import checkpoint_hash, model_hash
from cxrlab.training.module import Classifier

SIZES = {"layout": 64, "grey_levels": 16, "detail": 5}


def classifier(**options: object) -> Classifier:
    """A small one of random weights, with an operating point of its own."""
    torch.manual_seed(0)
    arguments: dict[str, object] = {"labels": ["Edema", "Nodule/Mass"], **options}
    made = Classifier(
        network=TimmNetwork("resnet10t", num_labels=len(arguments["labels"]), image_size=32), **arguments
    ).eval()  # fmt: skip
    point = made.operating_point
    point.thresholds[:], point.slopes[:], point.intercepts[:] = 0.3, 1.5, -0.25
    point.thresholds[-1] = torch.nan
    return made


def saved(made: Classifier, folder: Path) -> Path:
    """The same as a checkpoint."""
    path = folder / "a.ckpt"
    content = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    torch.save({**content, "pytorch-lightning_version": pl.__version__}, path)
    return path


def written(folder: Path, **options: object) -> Path:
    made = classifier(**options)
    write_shared_folder(made, folder, record=record_of(made, licence="MIT"), card="# A card\n")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared folder of a classifier that no run made."""
    return written(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(plain, tmp_path / "copied"))


@pytest.fixture(scope="module")
def shared(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, shared with everything that may go along."""
    folder = tmp_path_factory.mktemp("shared") / "edema_resnet"
    paths = share(finished_run, folder, licence="Apache-2.0", sample=7)
    assert [path.name for path in paths] == list(FILES)
    return folder


def test_a_run_s_folder_reads_back_as_the_same_model(shared: Path, finished_run: Path):
    run = load_run(finished_run)
    record, read, _ = read_shared_folder(shared)
    assert is_shared_folder(shared)
    assert not read.training
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8))
    with torch.inference_mode():
        assert torch.equal(read.predict_probabilities(images), run.model.predict_probabilities(images))
    assert read.labels == run.labels
    assert record.thresholds == pytest.approx(run.thresholds)
    assert record.licence == "Apache-2.0"
    assert record.checkpoint == checkpoint_hash(run.files.best_checkpoint)
    assert record.trained_on["data"] == "synthetic"
    assert dict(read.hparams) == dict(run.model.hparams)


def test_it_predicts_what_the_run_predicted_of_its_test_part(shared: Path, finished_run: Path):
    run = load_run(finished_run)
    table = run.predictions("test")
    images = run.images([run.image_path(name) for name in table["image"]])
    _, read, _ = read_shared_folder(shared)
    with torch.inference_mode():
        found = read.predict_probabilities(images).numpy()
    expected = table[[f"probability/{label}" for label in read.labels]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_load_model_gives_the_same_table_for_the_run_and_its_folder(shared: Path, finished_run: Path):
    run = load_run(finished_run)
    paths = [run.image_path(image) for image in run.manifest["image"].head(5)]
    expected, found = (cxrlab.load_model(source) for source in (finished_run, shared))
    pd.testing.assert_frame_equal(found.predict(paths), expected.predict(paths))
    assert found.thresholds == pytest.approx(expected.thresholds)
    np.testing.assert_array_equal(found.heatmaps(paths[:1]), expected.heatmaps(paths[:1]))


def test_no_byte_of_it_names_a_patient_an_image_or_a_folder(shared: Path, finished_run: Path):
    run = load_run(finished_run)
    root = json.loads(run.files.audit.read_text())["root"]
    names = {root, str(finished_run), Path.home().as_posix() + "/", sys.executable, "cxrlab.train"}
    for image in run.manifest["image"]:
        names |= {image, Path(image).name, Path(image).stem}
    names |= set(run.manifest["patient"].astype(str))
    names |= {platform.node()} if len(platform.node()) > 8 else set()
    assert len(names) > 150
    for path in shared.iterdir():
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content], path.name


def test_its_card_has_the_hub_s_header_with_metrics_and_intervals(shared: Path, finished_run: Path):
    evaluation = load_run(finished_run).evaluation
    card = ModelCard.load(shared / "README.md")
    header = card.data.to_dict()
    assert (header["license"], header["library_name"]) == ("apache-2.0", "cxrlab")
    assert header["pipeline_tag"] == "image-classification"
    assert header["datasets"] == ["synthetic"]
    assert "base_model" not in header
    assert card.data.model_name == "edema_resnet"
    by_name = {result.metric_name: result for result in card.data.eval_results}
    for label, metrics in evaluation["labels"].items():
        result = by_name[f"AUROC, {label}"]
        assert result.metric_type == "roc_auc"
        assert result.metric_value == pytest.approx(metrics["auroc"]["value"], abs=1e-4)
        expected = [metrics["auroc"]["low"], metrics["auroc"]["high"]]
        assert result.metric_args["interval"] == pytest.approx(expected, abs=1e-4)
        assert (result.dataset_name, result.dataset_split) == ("synthetic", "test")
    assert by_name["AUROC, macro mean"].metric_value == pytest.approx(
        evaluation["macro"]["auroc"]["value"], abs=1e-4
    )


def test_its_card_says_what_a_user_needs_and_holds_the_run_s_sections(shared: Path, finished_run: Path):
    text = (shared / "README.md").read_text()
    record, _, _ = read_shared_folder(shared)
    for words in (
        "For research only",
        "no medical device",
        "cxrlab.load_model",
        "Licence: Apache-2.0",
        "32 x 32",
    ):
        assert words in text
    for label, threshold in record.thresholds.items():
        assert f"| {label} | {threshold:.4f} | 0." in text
    sections = re.findall(r"^## .*", (finished_run / "model_card.md").read_text(), flags=re.MULTILINE)
    assert len(sections) == 9
    assert [line for line in re.findall(r"^## .*", text, flags=re.MULTILINE) if line in sections] == sections
    assert text.count("\n# ") == 1
    for file in FILES:
        assert f"- `{file}`: " in text


def test_a_sample_holds_targets_and_probabilities_alone_and_in_no_order(
    shared: Path, finished_run: Path, tmp_path
):
    table = load_run(finished_run).predictions("test")
    sample = pd.read_csv(shared / "predictions_sample.csv")
    assert len(sample) == 7
    assert all(re.fullmatch(r"(target|probability|prediction)/.+", column) for column in sample)
    share(finished_run, tmp_path / "again", sample=len(table))
    columns = list(sample)
    again = pd.read_csv(tmp_path / "again" / "predictions_sample.csv")
    ordered = table[columns].round(4).reset_index(drop=True)
    assert not again.equals(ordered)
    by = {"by": columns, "ignore_index": True}
    pd.testing.assert_frame_equal(again.sort_values(**by), ordered.sort_values(**by))


def test_without_asking_no_sample_and_of_data_under_an_agreement_never(finished_run: Path, tmp_path: Path):
    paths = share(finished_run, tmp_path / "model")
    assert "predictions_sample.csv" not in [path.name for path in paths]
    content = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["trained_on"]["data"] = "mimic"
    checkpoint = tmp_path / "mimic.ckpt"
    torch.save(content, checkpoint)
    with pytest.raises(ConfigError, match="sample=10: mimic is given only to those who agreed"):
        share(checkpoint, tmp_path / "other", sample=10)
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_alone_is_shared_without_results(finished_run: Path, tmp_path: Path):
    checkpoint = tmp_path / "my.ckpt"
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", checkpoint)
    share(checkpoint, tmp_path / "model", name="Ours", licence="only with us")
    text = (tmp_path / "model" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["license"], header["license_name"]) == ("other", "only with us")
    assert "model-index" not in header
    assert "# Ours" in text
    assert "No evaluation came with the model." in text
    with pytest.raises(
        MissingFileError, match=r"sample=3 needs the predictions of a test part, and .*my\.ckpt"
    ):
        share(checkpoint, tmp_path / "other", sample=3)


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run to change, without its pictures."""
    ignored = shutil.ignore_patterns(
        "heatmaps", "figures", "tensorboard", "*.png", "last.ckpt", "report.html"
    )
    return Path(shutil.copytree(finished_run, tmp_path / "run", ignore=ignored))


def test_a_run_without_a_model_card_has_its_results_all_the_same(run_copy: Path, tmp_path: Path):
    (run_copy / "model_card.md").unlink()
    share(run_copy, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert len(card.data.eval_results) > 2
    assert "images of synthetic, part test; in brackets intervals of 95 %" in card.text
    assert "## Ethical considerations" not in card.text


def test_weights_that_were_changed_bring_no_results_of_others(run_copy: Path, tmp_path: Path):
    path = run_copy / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"]["operating_point.thresholds"][:] = 0.5
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="set check_weights=false"):
        share(run_copy, tmp_path / "model")
    with pytest.raises(
        ConfigError, match=r"sample=2: the predictions of .*run are of the weights that its training wrote"
    ):
        share(run_copy, tmp_path / "model", sample=2, check_weights=False)
    assert not (tmp_path / "model").exists()
    share(run_copy, tmp_path / "model", check_weights=False)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert "model-index" not in card.data.to_dict()
    assert "No evaluation came with the model." in card.text
    assert set(read_shared_folder(tmp_path / "model")[0].thresholds.values()) == {0.5}


def test_an_evaluation_that_is_damaged_is_named(run_copy: Path, tmp_path: Path):
    path = run_copy / "evaluation.json"
    path.write_text(path.read_text().replace('"labels"', '"lables"'))
    with pytest.raises(ConfigError, match=r"evaluation\.json cannot be read \(KeyError: 'labels'\)"):
        share(run_copy, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_weights_that_started_from_others_name_them(tmp_path: Path):
    start = {
        "name": "resnet10t.c3_in1k", "title": "timm's resnet10t.c3_in1k", "licence": "apache-2.0",
        "source": "https://huggingface.co/timm/resnet10t.c3_in1k", "seen": [{"data": "imagenet-1k", "parts": []}],
    }  # fmt: skip
    made = classifier(initial_weights=start, trained_on={"data": "nih", "parts": ["train"]})
    share(saved(made, tmp_path), tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.base_model == "timm/resnet10t.c3_in1k"
    assert card.data.datasets == ["nih", "imagenet-1k"]
    assert {"chest-x-ray", "radiology"} <= set(card.data.tags)
    assert "It started from timm's resnet10t.c3\\_in1k (licence: apache-2.0)." in card.text
    assert "No licence was given" in card.text


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_both_tasks_views_and_thresholds_come_back(task: str, tmp_path: Path):
    folder = written(
        tmp_path / "model", task=task, views=["identity", "flip"], threshold=0.3, calibration="temperature"
    )
    record, read, _ = read_shared_folder(folder)
    assert (record.task, record.views, record.calibration) == (task, ("identity", "flip"), "temperature")
    assert record.thresholds == {"Edema": pytest.approx(0.3), "Nodule/Mass": None}
    assert (read.views, read.threshold_rule) == (["identity", "flip"], 0.3)
    noted = json.loads((folder / "thresholds.json").read_text())["labels"]
    assert noted["Edema"]["slope"] == 1.5
    assert noted["Nodule/Mass"]["threshold"] is None


class Own(nn.Module):
    """Somebody's network."""

    def __init__(self, num_labels: int, bias: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Linear(1, num_labels)
        self.bias = bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean((1, 2, 3)).unsqueeze(1)) + self.bias


def own_classifier(
    monkeypatch: pytest.MonkeyPatch, description: dict[str, object], bias: float
) -> Classifier:
    """One of a network of the package ``their_lab``, which is trusted."""
    module = type(sys)("their_lab")
    monkeypatch.setitem(sys.modules, "their_lab", module)
    monkeypatch.setattr(Own, "__module__", "their_lab")
    module.Own = Own
    described = {"_target_": "their_lab.Own", "num_labels": 1, "channels": 1, "image_size": 32, **description}
    return Classifier(
        labels=["Edema"], network=described, module=Own(1, bias), trust=["their_lab"],
        preprocess={"normalize": "image", "image_size": 32, "channels": 1},
    ).eval()  # fmt: skip


def test_a_network_of_a_package_needs_trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = own_classifier(monkeypatch, {"bias": 0.5}, 0.5)
    write_shared_folder(made, tmp_path / "model", record=record_of(made), card="# Card\n")
    with pytest.raises(
        ConfigError, match=r"their_lab.Own, which is none of cxrlab's own .*trust=\[their_lab\]"
    ):
        read_shared_folder(tmp_path / "model")
    _, read, _ = read_shared_folder(tmp_path / "model", trust=["their_lab"])
    assert read.network.module.bias == 0.5


def test_the_card_of_such_a_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = own_classifier(monkeypatch, {"bias": 0.5}, 0.5)
    checkpoint = saved(made, tmp_path)
    with pytest.raises(ConfigError, match=r"their_lab.Own, .*trust=\[their_lab\]"):
        share(checkpoint, tmp_path / "model")
    share(checkpoint, tmp_path / "model", trust=["their_lab"])
    text = (tmp_path / "model" / "README.md").read_text()
    assert "Network: Own." in text
    assert "Its network is of a package of its authors." in text


MODELS = sorted({path.stem for path in (config_dir() / "model").glob("*.yaml")} - {"timm", "of_weights"})


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_configuration_can_be_shared(
    name: str, composed: Callable[..., DictConfig], tmp_path: Path
):
    size = 224 if name == "vit_small" else 64
    words = ["data=synthetic", f"model={name}", "run_dir=/nowhere", f"data.image_size={size}"]
    described = config.plain(composed(*words).model) | {"num_labels": 2, "channels": 1, "image_size": size}
    made = Classifier(
        labels=["Edema", "Mass"],
        network=architecture(described),
        preprocess={"normalize": "image", "image_size": size, "channels": 1},
    ).eval()
    write_shared_folder(made, tmp_path / "model", record=record_of(made), card="# Card\n")
    assert read_shared_folder(tmp_path / "model")[1].labels == ["Edema", "Mass"]


def test_a_folder_that_would_predict_otherwise_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    made = own_classifier(monkeypatch, {}, 0.5)  # its description lacks the bias
    with pytest.raises(CheckpointError, match=r"gives other probabilities, by up to .* Nothing was written"):
        write_shared_folder(made, tmp_path / "model", record=record_of(made), card="# Card\n")
    assert not list(tmp_path.iterdir())


def test_a_value_that_is_not_plain_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = own_classifier(monkeypatch, {"bias": float("inf")}, float("inf"))
    with pytest.raises(ConfigError, match="neither number nor text"):
        write_shared_folder(made, tmp_path / "model", record=record_of(made), card="# Card\n")


def test_a_folder_that_holds_something_else_is_named(plain: Path, tmp_path: Path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"output=.*taken holds notes\.txt, which is none of the files"):
        written(taken)
    with pytest.raises(ConfigError, match=r"output=.*notes\.txt is a file, not a folder"):
        written(taken / "notes.txt")
    other = Path(shutil.copytree(plain, tmp_path / "other"))
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(ConfigError, match="holds another model"):
        written(other, labels=["Edema", "Mass"])
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "my notes"),
        ("model.safetensors", "my weights"),
        ("config.json", '{"model_type": "vit", "model_hash": "0"}'),
    ],
)
def test_a_file_of_one_s_own_by_a_name_of_ours_is_kept(name: str, text: str, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text(text)
    with pytest.raises(
        ConfigError, match=rf"output=.*mine holds {re.escape(name)}, and no config\.json of a model of cxrlab"
    ):
        written(tmp_path / "mine")
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == [text]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_same_model_is_written_anew_without_what_is_no_longer_asked_for(
    finished_run: Path, tmp_path: Path
):
    share(finished_run, tmp_path / "model", sample=2)
    share(finished_run, tmp_path / "model", licence="MIT")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(
        set(FILES) - {"predictions_sample.csv"}
    )
    assert read_shared_folder(tmp_path / "model")[0].licence == "MIT"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_disk_that_is_full_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = classifier()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(OutputError, match=r"The model cannot be written to .*model"):
            write_shared_folder(made, tmp_path / "model", record=record_of(made), card="# Card\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["two\nlines", "x" * 501])
def test_a_licence_is_a_line_of_text(text: str, finished_run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="licence=.* must be a line of at most 500 characters"):
        share(finished_run, tmp_path / "model", licence=text)


@pytest.mark.parametrize("key", ["name", "licence"])
def test_a_patient_s_image_in_a_text_is_refused(key: str, finished_run: Path, tmp_path: Path):
    image = load_run(finished_run).manifest["image"][3]
    with pytest.raises(
        ConfigError, match=rf"would hold .*{re.escape(Path(image).stem)}.*nothing was written"
    ):
        share(finished_run, tmp_path / "model", **{key: f"as in {image}"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "scan(17).png", "scan[17]_<a>.png", "person=17,a", "a\\b 17.png", "Müller17.png", "Mu\u0308ller17.png",
        "Ann  & Bob 17", "study+17.png", "person17", "18/person17.png", "/data/ours",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["as in {}.", "“{}”!"])
def test_a_name_is_found_however_it_is_spelt_or_escaped(name: str, text: str, tmp_path: Path):
    made = classifier()
    record = replace(record_of(made), licence=text.format(name))
    card = f"# Card\n\nLicence: {plain_markdown(record.licence)}\n"
    for change in ({"record": record, "card": "# Card\n"}, {"record": record_of(made), "card": card}):
        with pytest.raises(ConfigError, match="would hold .*, the name of an image, a patient or a folder"):
            write_shared_folder(made, tmp_path / "model", names=[name], **change)
    assert not list(tmp_path.iterdir())


def test_what_only_resembles_a_name_is_written(tmp_path: Path):
    made = classifier()
    card = "# Card\n\nOf 117 images, scan (17), person170, 00000001_0001.\n"
    names = ["scan(17).png", "person17", "00000001_000", "17.png"]
    write_shared_folder(made, tmp_path / "model", record=record_of(made), card=card, names=names)
    assert is_shared_folder(tmp_path / "model")


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, copied: Path):
    (copied / name).unlink()
    assert not is_shared_folder(copied)
    with pytest.raises(MissingFileError, match=re.escape(name)):
        read_shared_folder(copied)
    with pytest.raises(MissingFileError, match="There is no folder"):
        read_shared_folder(copied / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "thresholds.json"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_file_that_was_cut_short_is_named(name: str, size: int, copied: Path):
    (copied / name).write_bytes((copied / name).read_bytes()[:size])
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_shared_folder(copied)


def test_a_pointer_in_place_of_the_weights_says_what_to_do(copied: Path):
    (copied / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(CheckpointError, match="Git LFS pointer.*git lfs pull"):
        read_shared_folder(copied)


def test_weights_of_another_model_are_noticed(copied: Path):
    tensors = load_file(copied / "model.safetensors")
    tensors["operating_point.thresholds"] = tensors["operating_point.thresholds"] + 0.1
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"do not belong together, or one was edited: the model_hash is \w{16}"
    ):
        read_shared_folder(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["hyper_parameters"]["labels"].reverse(), "do not belong together"),
        (lambda content: content.update(format=2), r"format=2 is not 1, .* pip install --upgrade cxrlab"),
        (lambda content: content.update(library_name="transformers"), "is of another program"),
        (lambda content: content.update(hyper_parameters=3), "is of another program"),
        (lambda content: content["hyper_parameters"].update(trust=["os"]), "has trust, which is unknown"),
        (lambda content: content["record"].update(licence="a\nb"), "record.licence='a.*is no line of text"),
        (lambda content: content["record"].update(caveats=[3]), "record.caveats='3' is no line of text"),
    ],
)  # fmt: skip
def test_a_config_that_was_edited_is_refused(change: Callable[[dict], object], message: str, copied: Path):
    edit_config(copied, change)
    with pytest.raises(CheckpointError, match=message):
        read_shared_folder(copied)


def test_thresholds_that_were_edited_beside_the_weights_are_refused(copied: Path):
    path = copied / "thresholds.json"
    path.write_text(path.read_text().replace("1.5", "1.25"))
    with pytest.raises(CheckpointError, match="thresholds.json says something else than the weights"):
        read_shared_folder(copied)
    path.unlink()
    assert read_shared_folder(copied)[1].labels == ["Edema", "Nodule/Mass"]


def resealed(folder: Path, change: Callable[[dict], object]) -> None:
    """Edit a description as somebody would who computes the hash anew."""
    edit_config(folder, change)
    content = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    edit_config(
        folder, lambda content: content.update(model_hash=model_hash(content["hyper_parameters"], tensors))
    )
    del content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"_target_": "os.system", "command": "true"}}, "network.num_labels|os.system"),
        ({"network": {"_target_": "os.system", "num_labels": 2, "channels": 1, "image_size": 32}}, "os.system"),
        ({"preprocess": {"normalize": "image", "image_size": 100_000}}, "image_size=100000"),
        ({"labels": ["Edema", "<script>alert(1)</script>"]}, "HTML"),
        ({"labels": ["Edema"]}, "one a label"),
        ({"task": "regression"}, "task='regression' must be one of"),
        ({"views": ["upside_down"]}, "views"),
    ],
)  # fmt: skip
def test_a_folder_of_a_stranger_chooses_no_code_and_no_size(change: dict, message: str, copied: Path):
    resealed(copied, lambda content: content["hyper_parameters"].update(change))
    with pytest.raises((CheckpointError, ConfigError), match=message):
        read_shared_folder(copied)


def places(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values stand in what a JSON file holds."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*place, name))


def test_any_value_of_another_kind_gives_a_message_or_a_model(copied: Path):
    content = json.loads((copied / "config.json").read_text())
    tensors = load_file(copied / "model.safetensors")
    refused = 0
    for *above, last in filter(None, places(content)):
        for odd in ([[]], {"_target_": "os.system"}):
            edited = json.loads(json.dumps(content))
            node = edited
            for name in above:
                node = node[name]
            node[last] = odd
            if isinstance(edited["hyper_parameters"], dict) and last != "model_hash":
                edited["model_hash"] = model_hash(edited["hyper_parameters"], tensors)
            (copied / "config.json").write_text(json.dumps(edited))
            try:
                read_shared_folder(copied)
            except UserError:
                refused += 1
    assert refused > 40


def test_another_architecture_than_that_of_the_weights_is_told(copied: Path):
    resealed(copied, lambda content: content["hyper_parameters"]["network"].update(backbone="resnet18"))
    with pytest.raises(CheckpointError, match=r"weights are of another architecture than config\.json says"):
        read_shared_folder(copied)


def test_the_command_lists_the_files_and_writes_nowhere_else(finished_run: Path, tmp_path: Path):
    command = [sys.executable, "-m", "cxrlab", "share", f"run={finished_run}", "output=ours", "licence=MIT"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "ours").iterdir():
        assert re.search(
            rf"^{re.escape(path.name)} +{path.stat().st_size:,} bytes$", done.stdout, re.MULTILINE
        )
    assert "it predicts the same, bit by bit" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give run="),
        (["run=a"], "Give output="),
        (["run=a", "output=b", "sample=-1"], "sample=-1 must be at least 0"),
        (["run=a", "output=b", "licence=' '"], "licence=' ' says nothing"),
        (["run=a", "output=b", "push=c/d"], "push=c/d needs licence="),
    ],
)
def test_values_are_checked_before_anything_is_read(
    words: list[str], message: str, composed: Callable[..., DictConfig]
):
    with pytest.raises(ConfigError, match=message):
        checked(composed(*words, config_name="share"))


def test_what_is_no_run_is_told(plain: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run=.*model is a shared folder already: pass it on as it is"):
        share(plain, tmp_path / "out")
    (tmp_path / "a.onnx").write_text("somebody's")
    with pytest.raises(CheckpointError, match=r"a\.onnx .* cannot be loaded: it is a text"):
        share(tmp_path / "a.onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_one_stands_in_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = saved(classifier(), tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert {path.parent for path in share(checkpoint, ".")} == {tmp_path / "here"}
    assert "# here" in Path("README.md").read_text()


def test_a_run_without_a_best_checkpoint_is_told(composed: Callable[..., DictConfig], tmp_path: Path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for run, message in (
        ("run", r"There is no checkpoint .*best\.ckpt"),
        ("nowhere", "run=.*nowhere: there is no such"),
    ):
        words = [f"run={tmp_path / run}", f"output={tmp_path / 'out'}"]
        with pytest.raises(MissingFileError, match=message):
            share_command(composed(*words, config_name="share"))
    assert not (tmp_path / "out").exists()


def some_reference() -> TrainingReference:
    """One of features of three images."""
    spreads = {name: Spread(torch.zeros(size), torch.eye(size)) for name, size in SIZES.items()}
    return TrainingReference(features=torch.eye(3, 512).half(), limits=torch.ones(4), **spreads)


def with_reference(folder: Path, data: str) -> Path:
    """A checkpoint that says what images of its training look like."""
    checkpoint = saved(classifier(trained_on={"data": data, "parts": ["train"]}), folder)
    keep_reference(checkpoint, some_reference())
    return checkpoint


def test_what_the_training_s_images_look_like_goes_along(tmp_path: Path):
    checkpoint = with_reference(tmp_path, "nih")
    share(checkpoint, tmp_path / "model")
    _, _, read = read_shared_folder(tmp_path / "model")
    assert read is not None
    expected = some_reference().tensors()
    assert read.tensors().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.tensors().items())
    assert "unlike those of the training is told" in (tmp_path / "model" / "README.md").read_text()
    share(checkpoint, tmp_path / "without", reference=False)
    assert read_shared_folder(tmp_path / "without")[2] is None
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["reference.limits"] = tensors["reference.limits"] * 100
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match="the reference_hash is"):
        read_shared_folder(tmp_path / "model")


def test_of_data_under_an_agreement_it_goes_along_only_where_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    checkpoint = with_reference(tmp_path, "chexpert")
    share(checkpoint, tmp_path / "model")
    assert "chexpert is under an agreement" in caplog.text
    assert read_shared_folder(tmp_path / "model")[2] is None
    share(checkpoint, tmp_path / "with", reference=True)
    assert read_shared_folder(tmp_path / "with")[2] is not None
