"""A run directory may be a stranger's: none of its files chooses what code runs, what is imported or overwritten."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import random
import re
import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

import cxrlab
from cxrlab.cli import config
from cxrlab.cli import resume as resume_config
from cxrlab.data import BUILDABLE
from cxrlab.errors import ConfigError, UserError
from cxrlab.evaluate import evaluate
from cxrlab.evaluation.evaluate import evaluate as evaluate_table
from cxrlab.explain import explain
from cxrlab.files import RunDir, check_links, read_yaml, user_cache_dir, write_text
from cxrlab.metrics.predictions import read_predictions
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.models.network import OWN_NETWORKS, build_network
from cxrlab.report.evaluation_page import write_report
from cxrlab.runs.run_data import build_data
from cxrlab.sweeps.cross_validation import Configuration
from cxrlab.train import train
from cxrlab.training.callbacks.checkpoints import Checkpoint
from cxrlab.trust import locate

Compose = Callable[..., DictConfig]

PACKAGE = """
from pathlib import Path
Path({imported!r}).touch()
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from cxrlab.data.readers import synthetic

class Network(nn.Module):
    def __init__(self, num_labels, channels):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=4), nn.ReLU())
        self.head = nn.Linear(4, num_labels)

    def forward(self, images):
        return self.head(self.features(images).mean(dim=(2, 3)))

class Quiet(Callback):
    def __init__(self, path):
        Path(path).touch()

def read(root, **options):
    return synthetic.read(root, **options)
"""


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be tampered with."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once the package ``their_lab`` has been imported."""
    marker = tmp_path / "imported"
    (tmp_path / "packages" / "their_lab").mkdir(parents=True)
    (tmp_path / "packages" / "their_lab" / "__init__.py").write_text(PACKAGE.format(imported=str(marker)))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield marker
    sys.modules.pop("their_lab", None)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def put(content: dict, key: str, value: object) -> None:
    *above, last = key.split(".")
    for name in above:
        if not isinstance(content.get(name), dict):
            content[name] = {}
        content = content[name]
    content[last] = value


def harmful(victim: Path) -> list[tuple[str, object]]:
    """What a stranger may write into a config, and the key where."""
    write = {"_target_": "cxrlab.files.write_text", "path": {"_target_": "pathlib.Path", "_args_": [str(victim)]}, "text": "x"}  # fmt: skip
    return [
        ("{}", {"_target_": "os.system", "command": f"touch {victim}"}),
        ("{}", write),
        ("{}", {"_target_": "cxrlab.data.manifest.Path.touch", "self": str(victim)}),
        ("{}", {"_target_": "hydra.utils.get_method", "path": "their_lab.read"}),
        ("{}", {"_target_": "hydra.utils.instantiate", "config": write}),
        ("{}", {"_target_": "${oc.decode:\"'os.system'\"}", "command": f"touch {victim}"}),
        ("{}", {"_target_": "their_lab.read", "_partial_": True}),
        ("{}.inner", write),
        ("{}.inner", [{"deeper": write}]),
        ("{}.inner", "${oc.create:'{_target_: os.system, command: touch " + str(victim) + "}'}"),
    ]


PLACES = (
    "data.reader",
    "data.split",
    "data.filter",
    "data.augment",
    "data",
    "model",
    "loss",
    "optimizer",
    "scheduler",
)
GROUPS = ("callbacks.best", "callbacks.mine", "logger.csv", "logger.mine", "trainer", "trainer.profiler", "evaluation", "mine")  # fmt: skip


@pytest.mark.parametrize("place", [*PLACES, *GROUPS])
def test_a_resume_runs_nothing_that_the_run_names(
    place: str, run: Path, tiny: Compose, tmp_path: Path, imported: Path
):
    victim = tmp_path / "victim"
    config = run / ".hydra" / "config.yaml"
    original = config.read_text()
    for key, value in harmful(victim):
        config.write_text(original)
        edit(config, lambda content, key=key, value=value: put(content, key.format(place), value))
        try:
            resumed = resume_config.resumed_config(tiny(run, f"resume={run}"))
        except UserError:
            pass
        else:  # a function is not called, and what it gave when the run was started is harmless
            assert "${oc." in str(value)
            assert "os.system" not in str(OmegaConf.to_container(resumed, resolve=True))
        assert not victim.exists()
        assert not imported.exists()


@pytest.mark.parametrize("place", PLACES[:5])
def test_an_evaluation_runs_nothing_that_the_run_names(
    place: str, run: Path, composed: Compose, tmp_path: Path, imported: Path
):
    victim = tmp_path / "victim"
    config = run / ".hydra" / "resolved.yaml"
    original = config.read_text()
    for key, value in harmful(victim):
        config.write_text(original)
        edit(config, lambda content, key=key, value=value: put(content, key.format(place), value))
        with pytest.raises(UserError):
            evaluate(composed(f"run={run}", "part=train", f"run_dir={tmp_path}/out", config_name="evaluate"))
        with pytest.raises(UserError):
            explain(composed(f"run={run}", "limit=1", f"run_dir={tmp_path}/out", config_name="explain"))
        assert not victim.exists()
        assert not imported.exists()


@pytest.mark.parametrize(
    "target", ["os.system", "their_lab.Network", "cxrlab.files.write_text", "cxrlab.runs.run.load_run"]
)
def test_a_checkpoint_runs_nothing(target: str, run: Path, imported: Path):
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["network"] = {"_target_": target, "num_labels": 4, "channels": 1}
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=target):
        cxrlab.load_run(run)
    assert not imported.exists()


@pytest.mark.parametrize("key", ["metrics", "report.sections"])
def test_a_resume_imports_no_metric_and_no_section_that_the_run_names(
    key: str, run: Path, tiny: Compose, imported: Path
):
    edit(run / ".hydra" / "config.yaml", lambda content: put(content, key, ["their_lab.read"]))
    with pytest.raises(ConfigError, match=r"their_lab.read.*trust=\[their_lab\]"):
        resume_config.resumed_config(tiny(run, f"resume={run}"))
    assert not imported.exists()


def test_a_run_cannot_trust_itself(run: Path, tiny: Compose, imported: Path):
    def change(content: dict) -> None:
        content["trust"] = ["their_lab"]
        content["data"]["reader"]["_target_"] = "their_lab.read"

    edit(run / ".hydra" / "config.yaml", change)
    with pytest.raises(ConfigError, match=r"data.reader._target_=their_lab.read.*trust=\[their_lab\]"):
        train(tiny(run, f"resume={run}"))
    assert not imported.exists()


def test_a_resume_writes_where_todays_config_says(run: Path, tiny: Compose, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def change(content: dict) -> None:
        content["callbacks"]["provenance"]["path"] = str(victim)
        content["callbacks"]["predictions"]["dirpath"] = str(tmp_path / "elsewhere")
        content["logger"]["csv"]["path"] = str(victim)
        content["run_dir"] = str(tmp_path / "elsewhere")

    edit(run / ".hydra" / "config.yaml", change)
    train(tiny(run, f"resume={run}"))
    assert victim.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()
    assert len(json.loads((run / "provenance.json").read_text())["sessions"]) == 2


def test_a_resume_overwrites_no_file_that_a_reference_hides(
    run: Path, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").write_text("precious")

    def change(content: dict) -> None:
        provenance = content["callbacks"]["provenance"]
        content["t"] = {"target": provenance["_target_"]}
        content["callbacks"]["provenance"] = {"_target_": "${t.target}", "path": "victim"}

    edit(run / ".hydra" / "config.yaml", change)
    with pytest.raises(ConfigError, match=r"callbacks.provenance.path=victim"):
        train(tiny(run, f"resume={run}"))
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("reference", ["${oc.select:t.at_${test}}", "${t.at_${test}}"])
def test_a_resume_builds_what_was_checked(reference: str, run: Path, tiny: Compose):
    def change(content: dict) -> None:
        content["t"] = {"at_auto": content["model"]["_target_"], "at_True": "their_lab.Network"}
        content["model"]["_target_"] = reference
        content["test"] = "auto"

    edit(run / ".hydra" / "config.yaml", change)
    resumed = resume_config.resumed_config(tiny(run, f"resume={run}"))
    assert resumed.model._target_ == "cxrlab.models.timm_network.TimmNetwork"


def test_no_function_of_a_run_s_config_is_called(run: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch):
    called = []
    OmegaConf.register_new_resolver("spy", lambda *words: called.append(words) or "0.5", replace=True)
    monkeypatch.setenv("MY_SECRET", "precious")

    def change(content: dict) -> None:
        content["optimizer"]["lr"] = "${spy:lr}"
        content["data"]["split"]["file"] = "${oc.env:MY_SECRET}"
        content["mine"] = "${spy:${spy:inner}}"
        content["data"]["labels"] = ["${hydra:runtime.cwd}"]

    edit(run / ".hydra" / "config.yaml", change)
    edit(
        run / ".hydra" / "resolved.yaml",
        lambda content: put(content, "data.split.file", "${oc.env:MY_SECRET}"),
    )
    with pytest.raises(ConfigError, match=r"data.labels\[0\] is not set"):
        resume_config.resumed_config(tiny(run, f"resume={run}"))
    edit(run / ".hydra" / "resolved.yaml", lambda content: put(content, "data.split.file", None))
    edit(run / ".hydra" / "resolved.yaml", lambda content: put(content, "mine", "as it was"))
    edit(run / ".hydra" / "resolved.yaml", lambda content: put(content, "data.labels", ["Nodule"]))
    resumed = resume_config.resumed_config(tiny(run, f"resume={run}"))
    assert not called
    assert "precious" not in OmegaConf.to_yaml(resumed)
    assert (resumed.mine, resumed.data.labels) == ("as it was", ["Nodule"])


def test_a_sweep_s_summary_calls_no_function_of_a_job_s_config(tmp_path: Path):
    called = []
    OmegaConf.register_new_resolver("spy", lambda *words: called.append(words) or "multiclass", replace=True)
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "config.yaml").write_text("task: ${spy:it}\n")
    job = {"fold": 0, "status": "completed", "job": 0, "num_folds": 2, "folder": "0"}
    assert Configuration("", (job,), tmp_path, True).task == "multilabel"
    assert not called


def test_a_run_does_not_choose_where_images_are_cached(run: Path, tiny: Compose, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    for name in ("config.yaml", "resolved.yaml"):
        edit(run / ".hydra" / name, lambda content: put(content, "data.cache_dir", str(elsewhere)))
    today = tiny(run, f"resume={run}")
    assert resume_config.resumed_config(today).data.cache_dir == today.data.cache_dir
    assert cxrlab.load_run(run).data().cache_dir == user_cache_dir() / "images"
    assert not elsewhere.exists()
    assert cxrlab.load_run(run, cache_dir=tmp_path / "mine").data().cache_dir == tmp_path / "mine"


def test_a_run_draws_no_data_set_into_a_folder_of_its_choice(run: Path, tiny: Compose, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    for name in ("config.yaml", "resolved.yaml"):
        edit(run / ".hydra" / name, lambda content: put(content, "data.root", str(elsewhere)))
    with pytest.raises(ConfigError, match=r"data.root=.*elsewhere on the command line"):
        resume_config.resumed_config(tiny(run, f"resume={run}"))
    with pytest.raises(ConfigError, match=r"synthetic radiographs written below .*give root=.*elsewhere"):
        cxrlab.load_run(run).data()
    assert not elsewhere.exists()
    assert len(cxrlab.load_run(run).data(root=elsewhere).manifest)


def test_a_run_unpacks_no_images_into_a_folder_of_its_choice(tmp_path: Path):
    (tmp_path / "data" / "theirs_images").mkdir(parents=True)
    np.savez(tmp_path / "theirs.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros((2, 1), np.uint8))
    np.savez(
        tmp_path / "data" / "new.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros((2, 1), np.uint8)
    )
    data = {"_target_": "cxrlab.data.datamodule.DataModule", "root": str(tmp_path / "data")}
    for tables in ("new.npz", "../theirs.npz", str(tmp_path / "theirs.npz"), {"train": ["new.npz"]}, None):
        reader = {"_target_": "cxrlab.data.readers.table.read", "_partial_": True, "tables": tables}
        with pytest.raises(ConfigError, match=r"the images in \w+.npz written below .*give root="):
            build_data(data | {"reader": reader}, trust=(), source="a run")
    for more in (
        {"join": {"table": "new.npz", "on": "image"}},
        {"join": [{"table": [str(tmp_path / "theirs.npz")], "on": "image"}]},
        {"boxes": {"tables": ["NEW.npz"]}},
    ):
        reader = {"_target_": "cxrlab.data.readers.table.read", "_partial_": True, "tables": "x.csv", **more}
        with pytest.raises(ConfigError, match=r"the images in \w+.npz written below .*give root="):
            build_data(data | {"reader": reader}, trust=(), source="a run")
    reader = {"_target_": "cxrlab.data.readers.table.read", "_partial_": True, "tables": "x.csv"}
    build_data(data | {"reader": reader}, trust=(), source="a run")  # writes nothing
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["new.npz", "theirs_images"]


@pytest.mark.parametrize(
    "address",
    ["https://example.org/x.csv", "s3://bucket/x.csv", "file:///etc/passwd", "FILE:/etc/passwd", " http://example.org/x", "simplecache::https://example.org/x", "gcs://x", "ftp://x"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["data.reader.tables", "data.reader.boxes", "data.root", "data.split.file", "data.reader.tables.train"])  # fmt: skip
def test_nothing_is_fetched_for_a_run(
    key: str, address: str, run: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: pytest.fail(f"looked up {words}"))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *words, **more: pytest.fail(f"opened {words}"))
    for name in ("config.yaml", "resolved.yaml"):
        edit(run / ".hydra" / name, lambda content: put(content, key, address))
    with pytest.raises(ConfigError, match=r"nothing is fetched"):
        resume_config.resumed_config(tiny(run, f"resume={run}"))
    with pytest.raises(ConfigError, match=r"nothing is fetched"):
        cxrlab.load_run(run).data()


LINKS = ("evaluations", "evaluations/test", "evaluations/test/evaluate.log", "evaluations/test/figures/roc.png", "explanations", "explanations/test/explain.log")  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
def test_no_command_writes_through_a_link(link: str, run: Path, composed: Compose, tmp_path: Path):
    victim = tmp_path / "victim"
    if "." in link:
        victim.write_text("precious")
    else:
        victim.mkdir()
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(victim)
    function = config.evaluation_dir if link.startswith("eval") else config.explanation_dir
    more = () if link.startswith("eval") else (None,)
    for name in ("test", None):
        with pytest.raises(ConfigError, match="is a link that leads out of"):
            function(str(run), name, None, None, *more)
    with pytest.raises(ConfigError, match="is a link that leads out of"):
        config._run_or_resumed(str(run), "fresh")


def test_links_within_a_run_and_plain_ones_are_let_be(tmp_path: Path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "latest.ckpt").symlink_to("checkpoints/best.ckpt")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    check_links(tmp_path / "link" / "evaluations", tmp_path / "link")
    check_links(tmp_path / "link", tmp_path / "link")


def test_a_file_is_written_in_the_place_of_a_link(tmp_path: Path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "results.csv").symlink_to(tmp_path / "victim")
    (tmp_path / f".results.csv.{os.getpid()}.part").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "results.csv", "new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "results.csv").read_text() == "new"
    assert not (tmp_path / "results.csv").is_symlink()


@pytest.mark.parametrize("package", ["os", "cxrlab", "pandas", "torch", "builtins", "hydra", "pickle"])
def test_what_holds_dangerous_functions_is_not_to_be_trusted(package: str):
    with pytest.raises(ConfigError, match=rf"trust=\[{package}\]"):
        locate(f"{package}.anything", (), [package], source="a file")
    with pytest.raises(ConfigError) as error:
        locate(f"{package}.anything", (), [], source="a file")
    assert "trust=" not in str(error.value)  # no advice to do so


def test_trust_is_for_what_a_package_defines_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lab_of_trust").mkdir()
    (tmp_path / "lab_of_trust" / "__init__.py").write_text(
        "import os\nfrom pandas import read_pickle\ndef own(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trust = ["lab_of_trust"]
    assert locate("lab_of_trust.own", (), trust, source="a file").__name__ == "own"
    for target in ("lab_of_trust.read_pickle", "lab_of_trust.os.system", "lab_of_trust.os"):
        with pytest.raises(ConfigError, match=target):
            locate(target, (), trust, source="a file")


def test_a_yaml_file_unfolds_nothing_and_builds_nothing(tmp_path: Path):
    path = tmp_path / "config.yaml"
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text in (bomb, "!!python/object/apply:os.system [true]", "[" * 5000, "data: [", "- 1", "", "\x00"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="config.yaml"):
            read_yaml(path)


def importable(package: Any) -> list[str]:
    """Dotted paths of all functions and classes of a package and of its modules, and of their methods."""
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    paths = set()
    for name in [package.__name__, *names]:
        if name.rpartition(".")[2] == "__main__":
            continue
        for key, value in vars(importlib.import_module(name)).items():
            if callable(value):
                paths.add(f"{name}.{key}")
            if inspect.isclass(value):
                paths |= {
                    f"{name}.{key}.{inner}" for inner, method in vars(value).items() if callable(method)
                }
    return sorted(paths)


OTHERS = [
    "os.system", "os.popen", "subprocess.run", "subprocess.Popen", "builtins.eval", "builtins.exec", "eval", "shutil.rmtree",
    "pathlib.Path.write_text", "pickle.load", "importlib.import_module", "runpy.run_path", "webbrowser.open", "code.interact",
    "pandas.read_pickle", "pandas.read_csv", "pandas.DataFrame.to_csv", "numpy.load", "numpy.save", "numpy.fromfile", "torch.load",
    "torch.hub.load", "torch.save", "torch.utils.cpp_extension.load", "torch.nn.Linear", "hydra.utils.instantiate", "hydra.utils.call",
    "hydra.utils.get_method", "omegaconf.OmegaConf.save", "timm.create_model", "pytorch_lightning.Trainer", "joblib.load",
    "", ".", "..", "cxrlab", "cxrlab.", "None", "cxrlab.data.readers.table.read ", "cxrlab.data.readers.table.read.__globals__",
]  # fmt: skip


@pytest.fixture(scope="module")
def targets() -> list[str]:
    return [*importable(cxrlab), *OTHERS]


@pytest.fixture
def no_import(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is imported on a file's account."""
    names: list[str] = []

    class Spy:
        def import_module(self, name: str) -> Any:
            names.append(name)
            return importlib.import_module(name)

    monkeypatch.setattr(cxrlab.trust, "importlib", Spy())
    return names


def test_of_all_that_can_be_imported_a_run_s_data_are_built_from_what_is_listed(
    targets: list[str], no_import: list[str], tmp_path: Path
):
    assert set(BUILDABLE) <= set(targets)
    data = {"_target_": "cxrlab.data.datamodule.DataModule", "root": str(tmp_path)}
    table = {"_target_": "cxrlab.data.readers.table.read", "_partial_": True}
    chance = random.Random(0)
    for target in sorted(set(targets) - set(BUILDABLE)):
        with pytest.raises(ConfigError, match="not built"):
            locate(target, BUILDABLE, (), source="a run")
        described = {"_target_": target, "_partial_": True}
        nested = chance.choice([described, [described], {"a": {"b": [described]}}])
        changes = [{place: described} for place in ("reader", "split", "filter", "augment")]
        changes += [{"reader": table | {"labels": nested}}, {"labels": nested}, {"cache": nested}]
        changes += [] if target == data["_target_"] else [{"_target_": target}]
        with pytest.raises(ConfigError, match="not built"):
            build_data(data | chance.choice(changes), trust=(), source="a run")
    listed = {path.rpartition(".")[0] for path in (*BUILDABLE, data["_target_"])}
    assert set(no_import) <= listed


def test_of_all_that_can_be_imported_a_checkpoint_s_network_is_one_of_the_listed(
    targets: list[str], no_import: list[str]
):
    assert set(OWN_NETWORKS) <= set(targets)
    shape = {"num_labels": 1, "channels": 1, "image_size": 32}
    chance = random.Random(0)
    for target in set(targets) - set(OWN_NETWORKS):
        with pytest.raises(ConfigError, match="not built"):
            build_network({"_target_": target, **shape})
        if chance.random() < 0.1:
            with pytest.raises(ConfigError, match="not built"):
                build_network({"_target_": OWN_NETWORKS[0], "backbone": {"_target_": target}, **shape})
    assert set(no_import) <= {path.rpartition(".")[0] for path in OWN_NETWORKS}


def test_of_all_that_can_be_imported_a_resume_builds_what_todays_conf_names_there(
    targets: list[str], composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    today = composed(f"run_dir={tmp_path}", "data.root=x")
    run = RunDir(tmp_path)
    imported = []
    monkeypatch.setattr(resume_config, "locate", lambda target, *words, **more: imported.append(target))
    places = [*PLACES, *GROUPS, "data.reader.labels", "layer_rates", "explanation", "report", "mine.deeper"]
    chance = random.Random(0)
    for target in [*OTHERS, *chance.sample(targets, 300)]:
        for place in chance.sample(places, 2):
            node = {
                "run_dir": str(tmp_path),
                "data": {"root": "x"},
                "metrics": [],
                "report": {"sections": []},
            }
            put(node, place, {"_target_": target})
            if target in resume_config._todays_targets(place, today):
                continue
            with pytest.raises(ConfigError, match="not built"):
                resume_config._check(OmegaConf.create(node), today, run)
    assert not imported
    for place in places:  # what may be built is what stands in conf/, no more
        listed = resume_config._todays_targets(place, today)
        assert all(f"_target_: {target}\n" in CONF for target in listed), place
    everything = set().union(*(resume_config._todays_targets(place, today) for place in places))
    assert not everything & set(OTHERS) - {"pytorch_lightning.Trainer"}


CONF = "".join(path.read_text() for path in config.config_dir().rglob("*.yaml"))


def test_a_label_names_no_file_outside(run: Path, composed: Compose, tmp_path: Path):
    label = "../../../evil"
    for path in (run / "predictions").glob("*.csv"):
        path.write_text(path.read_text().replace("Nodule", label))
    for path in (run / "manifest.csv",):
        path.write_text(path.read_text().replace("label/Nodule", f"label/{label}"))
    table = read_predictions(run / "predictions" / "test.csv")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}
    write_report(tmp_path / "out", evaluate_table(table, settings=EvaluationSettings(num_resamples=100)))
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")} == before


def test_a_checkpoint_deletes_no_file(run: Path, tmp_path: Path):
    victim = tmp_path / "victim"
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    states = [state for state in checkpoint["callbacks"].values() if "best_k_models" in state]
    assert states
    for state in states:
        state["best_k_models"] = {str(victim): torch.tensor(0.0), "../../victim": torch.tensor(0.0)}
        state["best_model_path"] = state["kth_best_model_path"] = state["last_model_path"] = str(victim)
        callback = Checkpoint(dirpath=run / "checkpoints", monitor="val/auroc")
        callback.load_state_dict(state)
        paths = [callback.best_model_path, callback.kth_best_model_path, callback.last_model_path]
        assert {Path(path).parent for path in [*paths, *callback.best_k_models]} == {run / "checkpoints"}


@pytest.mark.parametrize("value", ["/etc/elsewhere", "../../elsewhere", "~/elsewhere", "file:///elsewhere"])
def test_a_file_name_that_leads_out_of_the_run_is_rejected(value: str, run: Path, tiny: Compose):
    edit(run / ".hydra" / "config.yaml", lambda content: put(content, "callbacks.best.filename", value))
    with pytest.raises(ConfigError, match=r"callbacks.best.filename=.*elsewhere"):
        resume_config.resumed_config(tiny(run, f"resume={run}"))


def test_what_conf_itself_offers_is_resumed_without_any_trust(
    composed: Compose, tiny: Compose, tmp_path: Path
):
    words = ["optimizer=sgd", "scheduler=plateau", "callbacks=ema", "callbacks.heatmaps=null", "loss=focal"]
    cfg = tiny(tmp_path, *words, "debug=profile", "trainer.limit_train_batches=2", "optimizer.lr=3e-3")
    train(cfg)
    resumed = resume_config.resumed_config(tiny(tmp_path, f"resume={tmp_path}"))
    assert resumed.optimizer._target_ == "torch.optim.SGD"
    assert resumed.optimizer.lr == 3e-3
    assert resumed.scheduler._target_ == cfg.scheduler._target_
    assert resumed.callbacks.ema.decay == 0.99
    assert resumed.callbacks.heatmaps is None
    assert resumed.trainer.profiler.dirpath == str(tmp_path)
    assert resumed.trainer.limit_train_batches == 2


def test_a_package_that_is_trusted_works_in_all_three_ways(
    composed: Compose, tiny: Compose, tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir, made = tmp_path / "run", tmp_path / "made"
    overrides = [
        "data.reader._target_=their_lab.read",
        f"+callbacks.mine={{_target_:their_lab.Quiet,path:{made}}}",
    ]
    cfg = tiny(run_dir, *overrides)
    cfg.model = {"_target_": "their_lab.Network", "_partial_": True}
    train(cfg)
    assert imported.exists()
    with pytest.raises(UserError, match=r"their_lab.Network.*trust=\[their_lab\]"):
        cxrlab.load_run(run_dir)
    assert cxrlab.load_run(run_dir, trust=["their_lab"]).labels
    numbers: Any = ["device=cpu", "evaluation.num_resamples=100", "heatmaps_per_label=0", "part=train"]
    again = [f"run={run_dir}", f"run_dir={tmp_path}/out", *numbers]
    with pytest.raises(UserError, match=r"their_lab.*trust=\[their_lab\]"):
        evaluate(composed(*again, config_name="evaluate"))
    evaluate(composed(*again, "trust=[their_lab]", config_name="evaluate"))
    assert (tmp_path / "out" / "evaluation.json").is_file()
    with pytest.raises(ConfigError, match=r"their_lab"):
        train(tiny(run_dir, f"resume={run_dir}"))
    more = [f"resume={run_dir}", "trust=[their_lab]", "trainer.max_epochs=2", f"+callbacks.mine.path={made}"]
    changed = [word for word in more if not word.startswith("resume")]
    monkeypatch.setattr(resume_config, "task_overrides", lambda: changed)
    train(tiny(run_dir, *more))
    assert len((run_dir / "metrics.csv").read_text().splitlines()) == 3


SOURCES = [path for path in Path(cxrlab.__file__).parent.rglob("*.py")]
UNSAFE = {
    "pickle.load", "pickle.loads", "pd.read_pickle", "pandas.read_pickle", "joblib.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load",
    "OmegaConf.load", "eval", "exec", "os.system", "os.popen", "shutil.unpack_archive", "shelve.open", "marshal.loads",
}  # fmt: skip


def test_no_pickle_is_read_anywhere():
    for path in SOURCES:
        text = path.read_text()
        assert "weights_only=False" not in text, path  # not in a message either
        for call in ast.walk(ast.parse(text)):
            if not isinstance(call, ast.Call):
                continue
            name, keywords = (
                ast.unparse(call.func),
                {word.arg: ast.unparse(word.value) for word in call.keywords},
            )
            assert name not in UNSAFE or "config_dir()" in ast.unparse(call), (path, name)
            assert name.rpartition(".")[2] not in ("extractall", "unsafe_load"), (path, name)
            if name == "torch.load":
                assert keywords.get("weights_only") == "True", path
            if name in ("np.load", "numpy.load"):
                assert keywords.get("allow_pickle", "False") == "False", path
            if (
                name in ("trainer.fit", "trainer.test", "trainer.validate", "trainer.predict")
                and "ckpt_path" in keywords
            ):
                assert keywords.get("weights_only") == "True", path


ROOT = Path(__file__).parents[1]


def test_each_row_of_the_threat_model_is_kept_by_a_test():
    section = (ROOT / "SECURITY.md").read_text().split("\n## ")[1]
    assert section.startswith("What a stranger may send")
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        (named,) = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row) or [None]
        assert named, row
        path, test = named
        assert f"def {test}(" in (ROOT / path).read_text(), named


def test_the_threat_model_is_linked():
    for page in ("README.md", "docs/howto/own_code.md"):
        assert "SECURITY.md" in (ROOT / page).read_text()
