"""A file of a run or sweep that was cut short or edited: a message that names it, and nothing else is lost."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import cxrlab
from cxrlab.cli import resume as resume_config
from cxrlab.data.manifest import read_table
from cxrlab.errors import CheckpointError, ConfigError, UserError
from cxrlab.evaluation.comparison import run_tables
from cxrlab.files import RunDir, read_json, read_sessions, read_yaml
from cxrlab.heatmaps.results import read_explanation
from cxrlab.metrics.predictions import read_predictions
from cxrlab.report.model_info import run_model_info
from cxrlab.sweeps.seeds import macro_means
from cxrlab.sweeps.table import add_job, close
from cxrlab.training.callbacks.metrics_csv import MetricsTable
from cxrlab.training.callbacks.provenance import Provenance
from cxrlab.training.precision import saved_precision

PROVENANCES = ["", "{", '{"sessions": [', "[]", "3", "{}", '{"sessions": []}', '{"sessions": {}}', '{"sessions": [3]}', "\0", "[" * 5000]  # fmt: skip


@pytest.mark.parametrize("text", PROVENANCES)
def test_a_damaged_provenance_is_named(text: str, tmp_path: Path):
    files = RunDir(tmp_path)
    files.provenance.write_text(text)
    for read in (
        lambda: read_sessions(files.provenance),
        lambda: run_model_info(tmp_path, {}, panels=[], notes=[]),
        files.data_record,
        lambda: Provenance(path=str(files.provenance))._write(FirstProcess(), {"started": "now"}),
    ):
        with pytest.raises(ConfigError, match=r"provenance.json .*rename it"):
            read()


class FirstProcess:
    is_global_zero = True


@pytest.mark.parametrize("session", [{}, {"data": None}, {"data": []}, {"data": "nih"}])
def test_a_session_without_its_data_is_named(session: dict, tmp_path: Path):
    RunDir(tmp_path).provenance.write_text(json.dumps({"sessions": [session]}))
    with pytest.raises(ConfigError, match=r"provenance.json: its last session"):
        RunDir(tmp_path).data_record()


@pytest.mark.parametrize("session", [{"data": {"split": "grouped"}}, {"seconds": 3}, {"data": []}])
def test_a_session_with_other_entries_is_named(session: dict, tmp_path: Path):
    RunDir(tmp_path).provenance.write_text(
        json.dumps({"sessions": [session | {"data": session.get("data", 3)}]})
    )
    with pytest.raises(ConfigError, match=r"provenance.json"):
        run_model_info(tmp_path, {}, panels=[], notes=[])
        cxrlab.runs.run_data.run_facts(RunDir(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"findings": 3}', '{"findings": [{"kind": "leak", "mine": 1}]}']
)
def test_a_damaged_audit_is_named(text: str, tmp_path: Path):
    RunDir(tmp_path).audit.write_text(text)
    with pytest.raises(ConfigError, match=r"audit.json .*remove it"):
        run_model_info(tmp_path, {}, panels=[], notes=[])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"mine": 1}', '{"method": 3, "labels": 4}'])
def test_a_damaged_explanation_is_named(text: str, tmp_path: Path):
    (tmp_path / "explanation.json").write_text(text)
    with pytest.raises(ConfigError, match=r"explanation.json .*cxrlab explain makes them again"):
        read_explanation(tmp_path / "explanation.json")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b'"a,b\n1'])
def test_a_damaged_table_is_named(content: bytes, tmp_path: Path):
    files = RunDir(tmp_path)
    files.predictions_dir.mkdir()
    for path in (files.manifest, files.predictions("test"), files.metrics, files.results):
        path.write_bytes(content)
    for path, read in (
        (files.manifest, lambda: read_table(files.manifest)),
        (files.predictions("test"), lambda: read_predictions(files.predictions("test"))),
        (files.predictions("test"), lambda: run_tables([tmp_path], "test")),
        (files.metrics, lambda: MetricsTable(path=str(files.metrics))),
    ):
        with pytest.raises(UserError, match=path.name):
            read()
    assert macro_means(tmp_path, {"job": 0, "folder": "."}) == {}


def test_learning_curves_without_epochs_are_named(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(ConfigError, match=r"metrics.csv .*the run goes on with a new one"):
        MetricsTable(path=str(tmp_path / "metrics.csv"))


@pytest.mark.parametrize("text", ["", "trainer: [", "- 1", "trainer: 3", "trainer: {precision: [1]}\n  x"])
def test_damaged_configs_are_named(text: str, tmp_path: Path, composed):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    files = RunDir(tmp_path)
    files.last_checkpoint.write_bytes(b"")
    for path in (files.config, files.resolved_config):
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"resolved.yaml"):
        saved_precision(tmp_path)
    with pytest.raises(ConfigError, match=r"config.yaml .*start a new run"):
        resume_config.resumed_config(composed(f"resume={tmp_path}"))


def test_overrides_that_are_cut_are_named(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text("- 'seed=1\n")
    with pytest.raises(ConfigError, match=r"overrides.yaml"):
        run_tables([tmp_path / "a", tmp_path / "b"], "test")


ROW = {"status": "completed", "metric": 0.8, "seconds": 1.0, "overrides": "seed=1", "error": ""}
CUT = [
    "",
    '{"job": 1, "status"',
    "[]",
    "{}",
    '{"job": 2}',
    '{"job": 1, "status": "completed", "metric": "high"}',
]


@pytest.mark.parametrize("text", CUT)
def test_a_sweep_s_table_is_written_though_a_job_s_record_is_damaged(text: str, tmp_path: Path):
    path = tmp_path / "sweep.csv"
    for job in range(3):
        add_job(path, {"job": job, **ROW}, maximize=True)
    (tmp_path / ".jobs" / "1.json").write_text(text)
    close(path)
    table = pd.read_csv(path).set_index("job")
    assert table.loc[[0, 2], "metric"].tolist() == [0.8, 0.8]
    assert table.loc[1, "status"] == "unknown"
    assert "1.json" in table.loc[1, "error"]


def test_a_job_s_record_names_no_file_elsewhere(tmp_path: Path):
    path = tmp_path / "sweeps" / "sweep.csv"
    (tmp_path / "sweeps" / ".jobs").mkdir(parents=True)
    record = {"job": "../../victim", "folder": None, "maximize": True, **ROW, "status": "running"}
    (tmp_path / "sweeps" / ".jobs" / "0.json").write_text(json.dumps(record))
    close(path)
    assert not list(tmp_path.glob("victim*"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0", "[" * 5000, "nul"])
def test_the_general_readers_name_file_and_remedy(text: str, tmp_path: Path):
    path = tmp_path / "some.file"
    path.write_text(text)
    for read in (read_json, read_yaml):
        with pytest.raises(ConfigError, match=r"some.file .*Ask for it again\."):
            read(path, "Ask for it again.")
    with pytest.raises(UserError, match=r"some.file"):
        read_json(tmp_path / "absent" / "some.file")


def test_a_resume_says_that_the_best_checkpoint_is_gone(finished_run: Path, tmp_path: Path, tiny):
    from cxrlab.train import train

    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(
        UserError, match=r"best.ckpt, the checkpoint of its best epoch, is gone.*copy last.ckpt"
    ):
        train(tiny(run, f"resume={run}"))


def test_a_state_of_another_training_is_named_and_costs_no_result(finished_run: Path, tmp_path: Path, tiny):
    from cxrlab.train import train

    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    optimizer = checkpoint["optimizer_states"][0]
    random_state = checkpoint["callbacks"]["RandomState"]
    words = [random_state["python"][0], random_state["python"][1][:-1], None]
    for part, reason in (
        (
            {"optimizer_states": [optimizer | {"param_groups": 2 * optimizer["param_groups"]}]},
            "number of parameter groups",
        ),
        (
            {"callbacks": checkpoint["callbacks"] | {"RandomState": random_state | {"python": words}}},
            "state vector is the wrong size",
        ),
    ):
        torch.save(checkpoint | part, last)
        with pytest.raises(CheckpointError, match=rf"last.ckpt cannot be gone on from .*{reason}"):
            train(tiny(run, f"resume={run}", "trainer.max_epochs=3"))
        for kept in ("results.csv", "evaluation.json", "predictions/test.csv"):
            assert (run / kept).read_bytes() == (finished_run / kept).read_bytes()
    shutil.copy(run / "checkpoints" / "best.ckpt", last)
    with pytest.raises(CheckpointError, match=r"last.ckpt holds no optimizer_states, "):
        train(tiny(run, f"resume={run}", "trainer.max_epochs=3"))
