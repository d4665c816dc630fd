"""Jobs of a sweep in processes of their own: how they end, and how a sweep goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.files import RunDir
from cxrlab.sweeps.jobs import Job, check_same, job_return, main, mark, of_sweep, outcome_of, read_row
from cxrlab.sweeps.resume import with_sweep
from cxrlab.sweeps.table import add_job, printed


def row(number: int, status: str = "running", metric: float | None = None) -> dict[str, object]:
    return {
        "job": number, "status": status, "metric": metric, "seconds": 1.0, "overrides": f"seed={number}",
        "task": [f"seed={number}"], "error": "", "folder": str(number), "monitor": "val/auroc",
    }  # fmt: skip


def job(sweep_dir: Path, number: int = 0) -> Job:
    return Job(sweep_dir, number, (f"seed={number}",), str(number), ("hydra.verbose=true",), str(sweep_dir))


@pytest.mark.parametrize(
    ("returncode", "status"),
    [
        (-15, "preempted"),
        (143, "preempted"),
        pytest.param(138, "preempted", marks=pytest.mark.skipif(os.name == "nt", reason="no such signal")),
        (130, "interrupted"),
        (-9, "interrupted"),
        (1, "failed"),
        (0, "failed"),
    ],
)
def test_a_process_that_left_no_result_is_no_success(tmp_path: Path, returncode: int, status: str):
    add_job(tmp_path / "sweep.csv", row(0), maximize=True)
    assert outcome_of(job(tmp_path), returncode)["status"] == status
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert table["status"].tolist() == [status]
    with pytest.raises(Exception, match=f"Job 0 {status}"):
        _ = job_return(job(tmp_path), read_row(tmp_path, 0)).return_value


def test_what_the_process_wrote_itself_stands(tmp_path: Path):
    add_job(tmp_path / "sweep.csv", row(0, "completed", 0.8), maximize=True)
    assert outcome_of(job(tmp_path), -9)["status"] == "completed"
    assert job_return(job(tmp_path), read_row(tmp_path, 0)).return_value == 0.8


def test_a_job_goes_on_from_its_checkpoint_and_else_starts(tmp_path: Path):
    fresh = job(tmp_path, 3).command()
    assert fresh[1:3] == ["-m", "cxrlab.train"]
    assert f'hydra.run.dir="{tmp_path / "3"}"' in fresh
    assert fresh[-1] == "hydra.job.num=3"
    assert {"seed=3", "hydra.verbose=true", f'hydra.sweep.dir="{tmp_path}"'} <= set(fresh)
    files = RunDir(tmp_path / "3")
    files.checkpoints.mkdir(parents=True)
    files.config.parent.mkdir()
    files.last_checkpoint.write_text("")
    files.config.write_text("")
    assert f'resume="{tmp_path / "3"}"' in job(tmp_path, 3).command()


def test_a_failed_attempt_is_kept_under_another_name(tmp_path: Path):
    for attempt in (1, 2):
        checkpoints = RunDir(tmp_path / "0").checkpoints
        checkpoints.mkdir(parents=True)
        (checkpoints / "last.ckpt").write_text(str(attempt))
        job(tmp_path).set_aside()
        assert not (tmp_path / "0").exists()
        assert (tmp_path / f"0.failed-{attempt}" / "checkpoints" / "last.ckpt").read_text() == str(attempt)


def test_a_job_is_read_back_as_it_was_saved(tmp_path: Path):
    job(tmp_path, 7).save()
    assert Job.load(tmp_path, 7) == job(tmp_path, 7)
    with pytest.raises(MissingFileError, match="no job 8"):
        Job.load(tmp_path, 8)


@pytest.mark.parametrize("status", ["completed", "pruned"])
def test_a_job_that_is_done_is_not_run_again(tmp_path: Path, status: str):
    job(tmp_path).save()
    add_job(tmp_path / "sweep.csv", row(0, status, 0.8), maximize=True)
    assert main([str(tmp_path), "0"]) == 0


def test_other_settings_under_the_same_number_are_refused(tmp_path: Path):
    check_same(job(tmp_path), row(0))
    with pytest.raises(ConfigError, match="has the settings seed=1, not seed=0"):
        check_same(job(tmp_path), row(1))


def test_where_a_job_goes_on_is_not_of_what_it_computes():
    assert of_sweep(["seed=1", "resume='a b'", "resume_sweep=x", "data.resume_x=1"]) == [
        "seed=1",
        "data.resume_x=1",
    ]


def test_a_job_that_is_marked_changes_its_row_alone(tmp_path: Path):
    for number in range(2):
        add_job(tmp_path / "sweep.csv", row(number, "completed", number / 2), maximize=False)
    mark(tmp_path, 1, "preempted", "stopped by SIGTERM")
    table = pd.read_csv(tmp_path / "sweep.csv").set_index("job")
    assert table["status"].to_dict() == {0: "completed", 1: "preempted"}
    assert "1 failed or interrupted" in (text := printed(tmp_path / "sweep.csv", "val/auroc"))
    assert f"resume_sweep={tmp_path}" in text


def sweep_folder(folder: Path, task: list[str], hydra: list[str]) -> Path:
    node = {"hydra": {"overrides": {"task": task, "hydra": ["hydra.mode=MULTIRUN", *hydra]}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(node))
    return folder


def test_a_sweep_goes_on_with_its_own_settings(tmp_path: Path):
    sweep_folder(
        tmp_path, ["seed=1,2", "resume_sweep=old"], ["hydra/launcher=slurm", "hydra.launcher.workers=2"]
    )
    words = ["-m", f"resume_sweep={tmp_path}"]
    assert with_sweep(words) == [*words, "seed=1,2", "hydra/launcher=slurm", "hydra.launcher.workers=2"]
    more = [*words, "hydra.launcher.workers=4", "seed=1,2"]
    assert with_sweep(more) == [*more, "hydra/launcher=slurm"]


def test_a_sweep_in_one_process_goes_on_in_processes_of_its_jobs(tmp_path: Path):
    sweep_folder(tmp_path, ["seed=1,2"], ['hydra.sweep.dir="x"'])
    words = ["-m", f"resume_sweep={tmp_path}"]
    assert with_sweep(words) == [*words, "seed=1,2", "hydra/launcher=processes"]


def test_a_command_without_a_sweep_stays_as_it_is():
    assert with_sweep(["seed=1"]) == ["seed=1"]
    assert with_sweep(["resume_sweep=x"]) == ["resume_sweep=x"]  # refused later: it needs -m


def test_another_sweep_s_settings_are_refused(tmp_path: Path):
    sweep_folder(tmp_path, ["seed=1,2"], [])
    with pytest.raises(ConfigError, match="optimizer.lr=1 is not of the sweep"):
        with_sweep(["-m", f"resume_sweep={tmp_path}", "optimizer.lr=1"])
    with pytest.raises(MissingFileError, match=r"no multirun\.yaml"):
        with_sweep(["-m", f"resume_sweep={tmp_path / 'none'}"])


@pytest.mark.parametrize(
    ("task", "hydra"),
    [
        (["loss._target_=evil.Loss"], []),
        (["trust=[evil]"], []),
        (["metrics=[evil.run]"], []),
        (["data.root=${oc.env:SECRET}"], []),
        ([], ["hydra.searchpath=[file:///evil]"]),
        ([], ["+hydra.callbacks.x._target_=evil.X"]),
        ([], ["hydra.launcher.setup=[rm]"]),
        (["+callbacks.mine={_target_:evil.Callback}"], []),
        (["report={sections:[evil.section]}"], []),
        (["trust.0=evil"], []),
        ([], ["hydra.sweeper.params={a:{_target_:evil.run}}"]),
        ([], ["hydra.launcher.workers={_target_:joblib.load,filename:x.pkl}"]),
        ([], ["hydra.sweep.subdir=../../other"]),
        ([], ["hydra.launcher.additional_parameters={wrap: rm}"]),
    ],
)
def test_a_folder_does_not_choose_what_code_runs(tmp_path: Path, task: list[str], hydra: list[str]):
    sweep_folder(tmp_path, task, hydra)
    words = ["-m", f"resume_sweep={tmp_path}"]
    with pytest.raises(ConfigError, match="give it on the command line again"):
        with_sweep(words)
    again = [*words, *task, *hydra]
    assert with_sweep(again)[: len(again)] == again


def test_a_folder_of_configs_is_given_again(tmp_path: Path):
    sweep_folder(tmp_path, ["experiment=mine"], [])
    node = yaml.safe_load((tmp_path / "multirun.yaml").read_text())
    node["hydra"]["runtime"] = {"config_sources": [{"path": "/my/conf", "provider": "command-line"}]}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(node))
    words = ["-m", f"resume_sweep={tmp_path}"]
    with pytest.raises(ConfigError, match="--config-dir=/my/conf: give it on the command line again"):
        with_sweep(words)
    assert "experiment=mine" in with_sweep([*words, "--config-dir=/my/conf"])


def test_features_of_a_node_are_combined_as_slurm_has_it(tmp_path: Path):
    sweep_folder(tmp_path, [], ["hydra/launcher=slurm", "hydra.launcher.constraint=a100|h100"])
    assert "hydra.launcher.constraint=a100|h100" in with_sweep(["-m", f"resume_sweep={tmp_path}"])


def sweep(words: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cxrlab.train", "-m", *words],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def at_work(run_dir: Path, process: subprocess.Popen[str]) -> int:
    """Wait until a job's first epoch is kept, and return its process's number."""
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        claims = sorted(run_dir.glob(".in_use.*"))
        if claims and (run_dir / "metrics.csv").is_file():
            return int(json.loads(claims[-1].read_text())["pid"])
        time.sleep(0.05)
    raise AssertionError(f"{run_dir} has no epoch; the sweep's status: {process.poll()}")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_a_sweep_survives_what_befalls_its_jobs_and_ends_as_if_nothing_had(
    tiny_command: list[str], tmp_path: Path
):
    """One is preempted, one killed, one fails; the others go on, and the rest is run when the sweep resumes."""
    words = [*tiny_command, "trainer.max_epochs=12", "callbacks.early_stopping=null"]
    words += ["callbacks.interruption.minutes=1e-3", "seed=1,2,3,none"]
    launcher = ["hydra/launcher=processes", "hydra.launcher.workers=2"]
    (tmp_path / "quiet").mkdir()
    (tmp_path / "rough").mkdir()
    quiet = sweep([*words, *launcher, "hydra.sweep.dir=sweep"], tmp_path / "quiet")
    assert quiet.communicate(timeout=600)[0] is not None
    assert quiet.returncode == 1
    rough = sweep([*words, *launcher, "hydra.sweep.dir=sweep"], tmp_path / "rough")
    folder = tmp_path / "rough" / "sweep"
    try:
        preempted, killed = at_work(folder / "0", rough), at_work(folder / "1", rough)
        os.kill(preempted, signal.SIGTERM)
        os.kill(killed, signal.SIGKILL)
        output, _ = rough.communicate(timeout=600)
    finally:
        rough.terminate()  # where it has ended, nothing happens
    assert rough.returncode == 1
    assert "Traceback" not in output
    status = pd.read_csv(folder / "sweep.csv").set_index("job")["status"].to_dict()
    assert status == {0: "preempted", 1: "interrupted", 2: "completed", 3: "failed"}
    before = (folder / "2" / "results.csv").stat().st_mtime_ns
    again = sweep(["resume_sweep=sweep"], tmp_path / "rough")
    output, _ = again.communicate(timeout=600)
    assert "4 jobs, 1 of them done before" in output
    assert (folder / "2" / "results.csv").stat().st_mtime_ns == before
    same = ["job", "status", "metric", "overrides"]
    tables = [pd.read_csv(tmp_path / name / "sweep" / "sweep.csv")[same] for name in ("quiet", "rough")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert not list(folder.glob("*/predictions/test.csv"))
    for number in range(3):
        quiet_weights, rough_weights = (
            torch.load(RunDir(tmp_path / name / "sweep" / str(number)).best_checkpoint, weights_only=True)
            for name in ("quiet", "rough")
        )
        for key, value in quiet_weights[
            "state_dict"
        ].items():  # what no label has, such as a threshold, is NaN
            torch.testing.assert_close(
                rough_weights["state_dict"][key], value, rtol=0, atol=0, equal_nan=True
            )
