"""A run directory may be a stranger's: none of its files chooses what code runs, what is imported or overwritten."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig

import cxrlab
from cxrlab.cli import resume as resume_config
from cxrlab.errors import ConfigError, UserError
from cxrlab.evaluate import evaluate
from cxrlab.explain import explain
from cxrlab.train import train
from cxrlab.training.callbacks.checkpoints import Checkpoint

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
        with pytest.raises(UserError):
            resume_config.resumed_config(tiny(run, f"resume={run}"))
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


def test_a_resume_builds_what_was_checked(run: Path, tiny: Compose, imported: Path):
    def change(content: dict) -> None:
        content["t"] = {"at_auto": content["model"]["_target_"], "at_True": "their_lab.Network"}
        content["model"]["_target_"] = "${oc.select:t.at_${test}}"
        content["test"] = "auto"

    edit(run / ".hydra" / "config.yaml", change)
    with pytest.raises(ConfigError, match=r"model._target_=their_lab.Network"):
        train(tiny(run, f"resume={run}"))
    assert not imported.exists()


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
    with pytest.raises(ConfigError, match=r"callbacks.best.filename=.*elsewhere, a path outside of the run"):
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
