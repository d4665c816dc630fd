"""Trackers of experiments, with their own stores: what each run holds, what goes on, what fails."""

import logging
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from omegaconf import DictConfig

from cxrlab.cli import resume
from cxrlab.errors import ConfigError, MissingPackageError, TrainingError
from cxrlab.files import RunDir, read_json
from cxrlab.train import train
from cxrlab.training.trackers import MlflowTracker, WandbTracker, tracked
from cxrlab.training.trackers.tracker import saved_ids

Compose = Callable[..., DictConfig]

# https://github.com/mlflow/mlflow: its mappings use noload, which SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

BOTH = ("logger=[wandb,mlflow]", "logger.tensorboard=null", "logger.wandb.mode=offline")
PAGE = ("report.page=true", "report.images=false", "report.check_heatmaps=false")
FILES = {"resolved.yaml", "results.csv", "evaluation.json", "model_card.md", "report.html"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with its experiment: to make one takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("cxrlab", artifact_location=str(folder / "files"))
    return uri


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is named by MLflow's variable; nobody is logged in to W&B."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)


def records(path: Path) -> Iterator[Any]:
    """Read W&B's file of a run: LevelDB's log, blocks of 32 KiB of chunks, each with a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last part
            yield Record.FromString(parts)
            parts = b""


def wandb_run(run_dir: Path) -> SimpleNamespace:
    """What the latest offline run of a run directory holds."""
    path = max((run_dir / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    found = SimpleNamespace(text=path.read_bytes(), metrics={}, config={}, files=set(), exit=None, path=path)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.id, found.project, found.name = (
                record.run.run_id,
                record.run.project,
                record.run.display_name,
            )
        elif kind == "config":
            found.config |= {item.key or item.nested_key[0]: item.value_json for item in record.config.update}
        elif kind == "history":
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                found.metrics.setdefault(name, []).append(item.value_json)
        elif kind == "files":
            found.files |= {item.path for item in record.files.files}
        elif kind == "exit":
            found.exit = record.exit.exit_code
    return found


def mlflow_run(run_dir: Path, database: str) -> Any:
    """The run of a run directory."""
    return MlflowClient(database).get_run(read_json(RunDir(run_dir).trackers)["mlflow"])


def artefacts(run: Any) -> dict[str, str]:
    root = Path(run.info.artifact_uri)
    return {path.name: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_run_is_in_both_trackers_and_a_resume_goes_on_with_it(
    tiny: Compose, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir = tmp_path / "2026-01-31" / "12-00-00"
    train(tiny(run_dir, *BOTH, *PAGE))
    table = pd.read_csv(run_dir / "metrics.csv")

    of_wandb = wandb_run(run_dir)
    assert (of_wandb.project, of_wandb.name, of_wandb.exit) == ("cxrlab", "2026-01-31/12-00-00", 0)
    assert [float(value) for value in of_wandb.metrics["val/auroc"]] == pytest.approx(table["val/auroc"])
    assert {"test/auroc", "val/auroc_by_label/Nodule"} <= of_wandb.metrics.keys()
    assert of_wandb.config["learning_rate"] == "0.001"
    assert of_wandb.files >= FILES

    run = mlflow_run(run_dir, database)
    assert (run.info.run_name, run.info.status) == ("2026-01-31/12-00-00", "FINISHED")
    assert run.data.metrics["val/auroc"] == pytest.approx(table["val/auroc"].iloc[-1])
    assert "test/auroc_by_label/Nodule" in run.data.metrics
    assert (run.data.params["max_epochs"], run.data.params["data"]) == ("1", "synthetic")
    assert set(artefacts(run)) == FILES
    assert "max_epochs: 1" in artefacts(run)["resolved.yaml"]
    ids = read_json(RunDir(run_dir).trackers)
    assert ids == {"wandb": of_wandb.id, "mlflow": run.info.run_id}

    # None of them may name a patient or a file; folders stand in the config alone.
    manifest = pd.read_csv(run_dir / "manifest.csv", dtype=str)
    kept = of_wandb.text + str(run.data.to_dictionary()).encode()
    kept += b"".join(text.encode() for name, text in artefacts(run).items() if name != "resolved.yaml")
    for name in (*manifest["image"], str(tmp_path)):
        assert name.encode() not in kept

    command = [f"resume={run_dir}", "trainer.max_epochs=2"]
    monkeypatch.setattr(resume, "task_overrides", lambda: command)
    train(tiny(run_dir, *command))  # the trackers are the run's own, and need not be named again
    again = wandb_run(run_dir)
    assert (again.id, again.exit) == (of_wandb.id, 0)
    assert again.path != of_wandb.path
    run = mlflow_run(run_dir, database)
    assert ids == read_json(RunDir(run_dir).trackers)
    history = MlflowClient(database).get_metric_history(run.info.run_id, "val/loss")
    resumed_table = pd.read_csv(run_dir / "metrics.csv")
    assert {metric.value for metric in history} >= set(resumed_table["val/loss"])
    assert run.data.params["max_epochs"] == "1"
    assert run.data.tags["resumed/max_epochs"] == "2"
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_of_its_own(
    tiny_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    words = [one for one in tiny_command if not one.startswith("logger")]
    command = [sys.executable, "-m", "cxrlab.train", "-m", *words, *BOTH, "optimizer.lr=0.01,0.02"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    (sweep_dir,) = tmp_path.glob("outputs/multirun/*/*")
    jobs = {job: wandb_run(sweep_dir / job) for job in ("0", "1")}
    assert jobs["0"].id != jobs["1"].id
    assert {job.config["learning_rate"] for job in jobs.values()} == {"0.01", "0.02"}
    assert all(len(list((sweep_dir / job / "wandb").iterdir())) == 1 for job in jobs)
    for job, rate in (("0", "0.01"), ("1", "0.02")):
        run = mlflow_run(sweep_dir / job, f"sqlite:///{tmp_path}/mlflow.db")
        assert (run.info.run_name, run.data.params["learning_rate"]) == (f"{sweep_dir.name}/{job}", rate)
        metrics = pd.read_csv(sweep_dir / job / "metrics.csv")
        assert run.data.metrics["val/auroc"] == pytest.approx(metrics["val/auroc"].iloc[-1])
        assert not any(name.startswith("test/") for name in run.data.metrics)


def test_the_page_goes_along_where_it_holds_no_image(database: str, tmp_path: Path):
    files = RunDir(tmp_path / "run")
    for page, names in ((False, {"model_card.md"}), (True, {"model_card.md", "report.html"})):
        tracker = MlflowTracker(run_dir=str(files))
        files.path.mkdir(exist_ok=True)
        files.model_card.write_text("card")
        files.report.write_text("page")
        files.inputs.write_text("radiographs")
        with tracked(SimpleNamespace(loggers=[tracker]), files, page=page):
            tracker.log_metrics({"val/auroc": 0.5}, 1)
        assert artefacts(mlflow_run(files.path, database)).keys() == names


@pytest.mark.parametrize(
    ("error", "status"),
    [(TrainingError("the loss is not finite"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_run_says_how_it_ended(error: BaseException, status: str, database: str, tmp_path: Path):
    tracker = MlflowTracker(run_dir=str(tmp_path / "run"), files=False)
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(type(error)),
        tracked(SimpleNamespace(loggers=[tracker]), tracker.run_dir, page=False),
    ):
        tracker.log_metrics({"val/auroc": 0.5}, 1)
        raise error
    assert mlflow_run(tmp_path / "run", database).info.status == status


def test_a_store_that_fails_does_not_end_the_training(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "run").mkdir()
    tracker = MlflowTracker(run_dir=str(tmp_path / "run"), tracking_uri=database)
    tracker.log_metrics({"val/auroc": 0.5}, 1)
    MlflowClient(database).delete_run(tracker.version)  # a deleted run takes nothing
    with caplog.at_level(logging.WARNING):
        tracker.log_metrics({"val/auroc": 0.6}, 2)
        tracker.log_metrics({"val/auroc": 0.7}, 3)
    tracker.close("finished")
    assert caplog.text.count("logger.mlflow: the tracker failed (MlflowException: ") == 1
    assert f"all of it is kept in {tmp_path / 'run'}" in caplog.text


def test_a_run_that_the_store_does_not_have_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trackers.json").write_text('{"mlflow": "0123abcd"}')
    tracker = MlflowTracker(run_dir=str(tmp_path / "run"))
    tracker.start()
    assert "the run 0123abcd of an earlier session is not in sqlite:///" in caplog.text
    assert read_json(RunDir(tmp_path / "run").trackers) == {"mlflow": tracker.version}


def test_a_run_that_cannot_be_started_is_said(database: str, tmp_path: Path):
    (tmp_path / "run").mkdir()
    tracker = MlflowTracker(run_dir=str(tmp_path / "run"), experiment="gone")
    client = MlflowClient(database)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(
        ConfigError, match=r"starts no run \(MlflowException: .* train without it: logger.mlflow=null"
    ):
        tracker.start()


@pytest.mark.parametrize("run_id", ["../../x", "a b", "", 3])
def test_an_id_that_is_none_is_refused(run_id: object, tmp_path: Path):
    (tmp_path / "run").mkdir()
    text = f'"{run_id}"' if isinstance(run_id, str) else str(run_id)
    (tmp_path / "run" / "trackers.json").write_text(f'{{"mlflow": {text}}}')
    with pytest.raises(
        ConfigError, match=r"trackers.json holds mlflow: .*, which is no id of a run. Remove it"
    ):
        saved_ids(RunDir(tmp_path / "run"))


@pytest.mark.parametrize("uri", ["mlruns", "nonsense://x", "sqlite:///table.csv"])
def test_a_store_that_cannot_be_had_is_said_at_once(uri: str, tmp_path: Path):
    (tmp_path / "table.csv").write_text("image,label\n" * 100)
    with pytest.raises(ConfigError, match=rf"logger.mlflow.*{uri}.* cannot be (used|had)"):
        MlflowTracker(run_dir=str(tmp_path), tracking_uri=uri)


def test_wandb_without_a_login_says_so_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"Run wandb login, or set logger.wandb.mode=offline"):
        WandbTracker(run_dir=str(tmp_path))


@pytest.mark.parametrize(("kind", "package"), [(WandbTracker, "wandb"), (MlflowTracker, "mlflow")])
def test_a_missing_package_is_named(
    kind: Callable[..., object], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingPackageError, match=rf"needs the package {package}.*: pip install 'cxrlab\[{package}\]'"
    ):
        kind(run_dir=str(tmp_path))


def test_nothing_of_the_command_or_the_machine_goes_to_wandb(tmp_path: Path):
    tracker = WandbTracker(run_dir=str(tmp_path / "run"), mode="offline")
    tracker.log_metrics({"val/auroc": 0.5}, 1)
    print("patient 4711 is in train and val")
    tracker.close("finished")
    of_wandb = wandb_run(tmp_path / "run")
    assert not any(secret in of_wandb.text for secret in (b"4711", str(tmp_path).encode()))
    assert not any(path.is_symlink() for path in (tmp_path / "run").rglob("*"))
