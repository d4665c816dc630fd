"""Jobs of a sweep under SLURM, of which a stand-in runs them for real: see slurm_stand_in.py."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrlab.cli import processes
from cxrlab.cli.config import config_dir
from cxrlab.errors import ConfigError
from cxrlab.sweeps import slurm
from cxrlab.sweeps.jobs import Job, read_row
from cxrlab.sweeps.slurm import SlurmSettings
from cxrlab.sweeps.slurm_task import Task
from cxrlab.sweeps.table import add_job

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SLURM is of Linux")

STAND_IN = Path(__file__).with_name("slurm_stand_in.py")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """SLURM's commands on the PATH, and where the stand-in keeps what it knows; jobs end with the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sacct"):
        (folder / name).write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(tmp_path / "cluster"))
    for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_STAND_IN"]:
        monkeypatch.delenv(name)
    yield tmp_path / "cluster"
    for path in (tmp_path / "cluster").glob("jobs/*"):
        (path / "lose").write_text("CANCELLED")
    until(lambda: not any(is_at_work(path) for path in (tmp_path / "cluster").glob("jobs/*/job.json")))


def is_at_work(path: Path) -> bool:
    job = json.loads(path.read_text())
    return job["state"] == "RUNNING" and "session" in job


def state(cluster: Path, job_id: str) -> dict[str, Any]:
    return json.loads((cluster / "jobs" / job_id / "job.json").read_text())


def until(condition: Callable[[], object], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def command(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cxrlab.train", "-m", "hydra/launcher=slurm", "hydra.launcher.poll_s=0.5", *words],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
    )  # fmt: skip


def test_the_values_of_conf_are_those_of_the_class():
    node = OmegaConf.to_container(OmegaConf.load(config_dir() / "hydra" / "launcher" / "slurm.yaml"))
    assert isinstance(node, dict)
    assert node.pop("_target_") == "hydra_plugins.cxrlab_sweeps.Slurm"
    defaults = {
        one.name: one.default if one.default is not MISSING else one.default_factory()  # type: ignore[misc]
        for one in fields(SlurmSettings)
    }
    assert node == defaults | {"setup": list(defaults["setup"])}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "hydra.launcher.workers=0"),
        ({"minutes": "two"}, "hydra.launcher.minutes='two' does not fit"),
        ({"max_requeues": -1}, "hydra.launcher.max_requeues=-1"),
        ({"gres": "gpu:1"}, r"hydra.launcher.additional_parameters=\{gres: gpu:1\}"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SlurmSettings.of_config(settings)


def test_what_is_not_set_is_left_to_the_cluster(cluster: Path, tmp_path: Path):
    import submitit

    def script(**settings: Any) -> list[str]:
        executor = submitit.SlurmExecutor(tmp_path / "jobs")
        executor.update_parameters(**SlurmSettings(**settings).of_submitit())
        lines = executor._make_submission_file_text("work", "1").splitlines()
        return [
            line.removeprefix("#SBATCH --") for line in lines if "output" not in line and "error" not in line
        ]

    given = {line.partition("=")[0] for line in script() if "=" in line and "export" not in line}
    assert given == {"job-name", "nodes", "ntasks-per-node", "open-mode", "signal"}
    full = script(
        partition="gpu", account="lab", qos="low", minutes=90, nodes=2, tasks_per_node=4, gpus_per_node=4,
        cpus_per_task=8, mem_gb=1.5, constraint="a100|h100", setup=["module load cuda"],
        additional_parameters={"mail-type": "FAIL"}, signal_delay_s=60,
    )  # fmt: skip
    assert {
        "partition=gpu", "account=lab", "qos=low", "time=90", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4",
        "cpus-per-task=8", "mem=1536M", "constraint='a100|h100'", "mail-type=FAIL", "signal=USR2@60", "module load cuda",
    } <= set(full)  # fmt: skip


# In place of a training: says what it received, and ends as a training would.
TRAINING = """
import os, signal, sys
if "cxrlab.train" in sys.orig_argv and any(word.startswith("hydra.job.num=") for word in sys.orig_argv):
    import time
    from pathlib import Path
    words = dict(word.partition("=")[::2] for word in sys.orig_argv)
    folder, number = Path(words["hydra.sweep.dir"].strip('"')), int(words["hydra.job.num"])
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    got = []
    for one in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(one, lambda received, _: got.append(received))
    (folder / f"started-{number}-{rank}").write_text(os.environ.get("SLURM_NTASKS", "none"))
    end = time.monotonic() + 60
    while not got and time.monotonic() < end and not (folder / "finish").exists():
        time.sleep(0.05)
    time.sleep(2 if got else 0)
    (folder / f"received-{number}-{rank}").write_text(" ".join(signal.Signals(one).name for one in got))
    if rank == 0:
        import json
        path = folder / ".jobs" / f"{number}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "preempted" if got else "completed"}))
    os._exit(128 + got[0] if got else 0)
"""


@pytest.fixture
def job(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of a sweep whose training is a few lines of Python."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "sitecustomize.py").write_text(TRAINING)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), str(Path(slurm.__file__).parents[2])])
    )
    sweep_dir = tmp_path / "sweep"
    job = Job(sweep_dir, 0, ("seed=0",), "0", (), str(tmp_path))
    job.save()
    row = {name: "" for name in ("error", "overrides")} | {
        "job": 0,
        "status": "waiting",
        "metric": None,
        "seconds": None,
    }
    add_job(
        sweep_dir / "sweep.csv",
        row | {"folder": "0", "monitor": "val/auroc", "task": ["seed=0"]},
        maximize=True,
    )
    return job


def started_task(job: Job, max_requeues: int = 20, **variables: str) -> subprocess.Popen[bytes]:
    code = (
        "from pathlib import Path\nfrom cxrlab.sweeps.slurm_task import Task\n"
        f"Task(Path({str(job.sweep_dir)!r}), {job.number}, {max_requeues})()\n"
    )
    own = {"SLURM_JOB_ID": "4711", "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"} | variables
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | own, stdout=subprocess.DEVNULL)
    rank = own.get("SLURM_PROCID", "0")
    until((job.sweep_dir / f"started-{job.number}-{rank}").exists)
    return process


def received(job: Job, rank: int = 0) -> str:
    return (job.sweep_dir / f"received-{job.number}-{rank}").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "is_cancelled", "error"),
    [
        (["SIGUSR2"], False, "stopped by SIGUSR2; queued again"),
        (["SIGUSR1", "SIGTERM"], False, "stopped by SIGUSR1; queued again"),
        (["SIGTERM", "SIGTERM", "SIGUSR2"], False, "stopped by SIGTERM; queued again"),
        (["SIGTERM"], True, "stopped by SIGTERM"),
    ],
)
def test_a_signal_of_slurm_reaches_the_training_once_and_is_never_a_success(
    cluster: Path, job: Job, sent: list[str], is_cancelled: bool, error: str
):
    (cluster / "jobs" / "4700_3").mkdir(parents=True)
    (cluster / "jobs" / "4700_3" / "job.json").write_text('{"state": "RUNNING"}')
    task = started_task(job)
    if is_cancelled:
        (cluster / "jobs" / "4700_3" / "cancel").touch()
    for name in sent:
        task.send_signal(signal.Signals[name])
        time.sleep(0.1)
    assert task.wait(300) == 143
    assert received(job) == "SIGTERM"
    row = read_row(job.sweep_dir, 0)
    assert row is not None
    assert (row["status"], row["error"]) == ("preempted", error)
    assert (cluster / "jobs" / "4700_3" / "requeue").exists() == error.endswith("queued again")


@pytest.mark.slow
def test_a_signal_that_slurm_sends_to_all_processes_is_not_sent_again(cluster: Path, job: Job):
    task = started_task(job)
    children = Path(f"/proc/{task.pid}/task/{task.pid}/children").read_text().split()
    assert len(children) == 2
    for pid in [*map(int, children), task.pid]:
        os.kill(pid, signal.SIGTERM)
    assert task.wait(300) == 143
    assert received(job) == "SIGTERM"


@pytest.mark.slow
def test_after_so_many_requeues_a_job_stays_cut_off(cluster: Path, job: Job):
    task = started_task(job, max_requeues=2, SLURM_RESTART_COUNT="2")
    task.send_signal(signal.SIGUSR2)
    assert task.wait(300) == 143
    row = read_row(job.sweep_dir, 0)
    assert row is not None
    assert row["error"] == "stopped by SIGUSR2; not queued again: hydra.launcher.max_requeues=2"


@pytest.mark.slow
def test_a_queue_that_does_not_take_it_again_is_told(cluster: Path, job: Job):
    task = started_task(job)
    task.send_signal(signal.SIGUSR2)
    assert task.wait(300) == 143
    row = read_row(job.sweep_dir, 0)
    assert row is not None
    assert row["status"] == "preempted"
    assert "not queued again: Invalid job id" in row["error"]


@pytest.mark.slow
def test_of_several_processes_the_first_alone_writes(cluster: Path, job: Job):
    several = {"SLURM_NTASKS": "2"}
    first = started_task(job, **several, SLURM_PROCID="0")
    second = started_task(job, **several, SLURM_PROCID="1")
    assert (job.sweep_dir / "started-0-0").read_text() == "2"
    second.send_signal(signal.SIGUSR2)
    assert second.wait(300) == 143
    assert read_row(job.sweep_dir, 0)["status"] == "waiting"  # type: ignore[index]
    first.send_signal(signal.SIGUSR2)
    assert first.wait(300) == 143


@pytest.mark.slow
def test_submitit_runs_a_job_that_knows_of_no_other_tasks(cluster: Path, job: Job):
    import submitit

    (job.sweep_dir / "finish").touch()
    executor = submitit.LocalExecutor(job.sweep_dir / ".slurm")
    submitted = executor.submit(Task(job.sweep_dir, 0, 20))
    assert submitted.result() is None
    assert read_row(job.sweep_dir, 0)["status"] == "completed"  # type: ignore[index]
    assert (job.sweep_dir / "started-0-0").read_text() == "none"


def refused(done: subprocess.Popen[str], words: str) -> None:
    output, _ = done.communicate(timeout=400)
    assert done.returncode == 1
    assert words in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_what_slurm_refuses_is_told_in_its_words(
    cluster: Path, tiny_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refused(
        command(*tiny_command, "hydra.launcher.partition=nowhere", "seed=1,2", cwd=tmp_path),
        "SLURM does not take the jobs: invalid partition specified: nowhere",
    )
    several = ["hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2"]
    refused(
        command(*tiny_command, *several, "seed=1,2", cwd=tmp_path),
        "hydra.launcher.nodes=2 with trainer.num_nodes=1",
    )
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    refused(command(*tiny_command, "seed=1,2", cwd=tmp_path), "there is no sbatch on this machine's PATH")


@pytest.mark.slow
def test_a_sweep_survives_what_slurm_does_to_its_jobs(cluster: Path, tiny_command: list[str], tmp_path: Path):
    """One fails, one is preempted and goes on, one is lost with its node; what is missing runs when it resumes."""
    words = [*tiny_command, "callbacks.early_stopping=null", "callbacks.interruption.minutes=1e-3"]
    words += ["trainer.max_epochs=0,15,16", "hydra.launcher.workers=3", "hydra.sweep.dir=sweep"]
    sweep = command(*words, cwd=tmp_path)
    last = [tmp_path / "sweep" / str(number) / "checkpoints" / "last.ckpt" for number in range(3)]
    until(last[1].exists)
    subprocess.run(["scancel", "--signal=USR2", "1001_1"], check=True)
    until(last[2].exists)
    (cluster / "jobs" / "1001_2" / "lose").write_text("NODE_FAIL")
    output, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 1
    assert "Traceback" not in output
    assert "SLURM has 3 jobs as 1001; 3 at once." in output
    assert "(3 of 3)" in output
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv", keep_default_na=False).set_index("job")
    assert table["status"].to_dict() == {0: "failed", 1: "completed", 2: "interrupted"}
    assert "trainer.max_epochs=0 trains nothing" in table["error"][0]
    assert "SLURM: NODE_FAIL (1001_2)" in table["error"][2]
    assert state(cluster, "1001_1")["restarts"] == 1
    assert state(cluster, "1001_0")["state"] == "FAILED"
    epochs = pd.read_csv(tmp_path / "sweep" / "1" / "metrics.csv")["epoch"]
    assert epochs.tolist() == list(range(15))  # none trained twice
    again = subprocess.run(
        [sys.executable, "-m", "cxrlab.train", "-m", "resume_sweep=sweep", "hydra.launcher.poll_s=0.5"],
        cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert "SLURM has 2 jobs as 1002" in again.stdout + again.stderr
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv", keep_default_na=False).set_index("job")
    assert table["status"].to_dict() == {0: "failed", 1: "completed", 2: "completed"}
    assert pd.read_csv(tmp_path / "sweep" / "2" / "metrics.csv")["epoch"].tolist() == list(range(16))


@pytest.mark.slow
def test_a_sweep_that_does_not_wait_is_found_again_and_ctrl_c_cancels_it(
    cluster: Path, tiny_command: list[str], tmp_path: Path
):
    words = [
        *tiny_command,
        "trainer.max_epochs=500",
        "callbacks.early_stopping=null",
        "hydra.launcher.workers=1",
        "hydra.sweep.dir=sweep",
        "seed=1,2",
    ]
    first = command(*words, "hydra.launcher.wait=false", cwd=tmp_path)
    output, _ = first.communicate(timeout=400)
    assert first.returncode == 0, output
    assert "-m resume_sweep=" in output
    again = command("resume_sweep=sweep", "hydra.launcher.wait=true", cwd=tmp_path)
    assert again.stdout is not None
    assert any(" of 2 done, " in line for line in again.stdout)  # it has found them, and waits
    until((tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt").exists)
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 130
    assert "The 2 jobs that were not done are cancelled" in output
    until(lambda: {state(cluster, f"1001_{number}")["state"] for number in (0, 1)} == {"CANCELLED"})
    assert not list((cluster / "jobs").glob("1002*"))  # nothing was submitted twice
    row = read_row(tmp_path / "sweep", 0)
    assert row is not None
    assert row["status"] == "preempted"


def test_the_first_of_srun_s_processes_tells_the_others_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    node = {"hydra": {"run": {"dir": "outputs/one"}, "job": {"name": "train"}, "output_subdir": ".hydra"}}
    first, second = OmegaConf.create(node), OmegaConf.create(node)
    processes.tell_folder(first)
    monkeypatch.setenv("SLURM_PROCID", "1")
    processes.take_folder(second)
    assert second.hydra.run.dir == str(tmp_path / "outputs" / "one")
