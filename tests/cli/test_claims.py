"""One process at a time writes to a folder; a run whose folder is taken gets another."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxrlab.cli.claims import FolderInUseError, claim, claimed, release, warn_if_in_use
from cxrlab.cli.output_folder import claim_free

HOLD = """
import sys, time
from pathlib import Path
from cxrlab.cli.claims import claim
claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def others_environment() -> dict[str, str]:
    """Return the environment of a process that is none of ours."""
    return {name: value for name, value in os.environ.items() if name != "CXRLAB_CLAIMS"}


@contextmanager
def held_elsewhere(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=others_environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def owner_of(folder: Path) -> dict[str, object]:
    (path,) = folder.glob(".in_use.*")
    owner: dict[str, object] = json.loads(path.read_text())
    return owner


def change_owner(folder: Path, **values: object) -> None:
    (path,) = folder.glob(".in_use.*")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_in_use_is_refused_and_says_by_whom(tmp_path: Path):
    with held_elsewhere(tmp_path / "run") as process:
        with pytest.raises(FolderInUseError, match=rf"process {process.pid} on .* since 20.*hydra.run.dir="):
            claim(tmp_path / "run")
        process.kill()
        process.wait()
        claim(tmp_path / "run")  # its owner is dead
    assert owner_of(tmp_path / "run")["pid"] == os.getpid()
    release(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_what_is_held_is_claimed_again_and_kept(tmp_path: Path):
    claim(tmp_path)
    with claimed(tmp_path):
        claim(tmp_path)
    assert owner_of(tmp_path)["pid"] == os.getpid()
    release(tmp_path)
    with claimed(tmp_path):
        assert owner_of(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_that_the_owner_starts_may_write_too(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from cxrlab.cli.claims import claim; claim(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with claimed(tmp_path):
        assert subprocess.run(command, check=False).returncode == 0
        assert owner_of(tmp_path)["pid"] == os.getpid()
        done = subprocess.run(command, env=others_environment(), check=False, capture_output=True, text=True)
    assert "FolderInUseError" in done.stderr


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path: Path):
    """After a restart of the machine, a process of today has the number of one that made the claim."""
    claim(tmp_path)
    change_owner(tmp_path, start="another boot 123")
    claims = subprocess.run(
        [sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), str(tmp_path)],
        env=others_environment(), check=False,
    )  # fmt: skip
    assert claims.returncode == 0
    release(tmp_path)


def test_of_another_machine_nobody_knows(tmp_path: Path):
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        change_owner(tmp_path, host="node17")
        with pytest.raises(
            FolderInUseError, match=r"on node17 since .*If that process has ended, remove .*in_use\.1"
        ):
            claim(tmp_path)
        (tmp_path / ".in_use.1").write_text("")  # written by nobody, or cut short
        with pytest.raises(FolderInUseError, match=r"an unknown process.*remove .*in_use\.1"):
            claim(tmp_path)


def test_a_run_that_is_still_written_is_read_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    warn_if_in_use(tmp_path / "nothing")
    with claimed(tmp_path):
        warn_if_in_use(tmp_path)
    assert not caplog.records
    with held_elsewhere(tmp_path) as process:
        warn_if_in_use(tmp_path)
        assert f"is in use by process {process.pid}" in caplog.text
        caplog.clear()
        change_owner(tmp_path, pid="7")
        warn_if_in_use(tmp_path)
    warn_if_in_use(tmp_path)
    (tmp_path / ".in_use.1").unlink()
    os.mkfifo(tmp_path / ".in_use.1")  # a stranger's
    warn_if_in_use(tmp_path)
    assert not caplog.records


def test_an_earlier_start_of_the_same_job_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        for other in ("", "4712 0", "4711 1", "4711 2", "4711 x", 7):
            change_owner(tmp_path, host="node17", job=other)
            with pytest.raises(FolderInUseError, match="on node17 since"):
                claim(tmp_path)
        change_owner(tmp_path, job="4711 0")
        claim(tmp_path)
        assert owner_of(tmp_path)["job"] == "4711 1"
        release(tmp_path)


RACE = """
import sys, time
from pathlib import Path
from cxrlab.cli.claims import FolderInUseError, claim
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    claim(Path(sys.argv[1]))
except FolderInUseError:
    sys.exit(3)
time.sleep(1.5)
"""


def test_of_many_that_take_over_a_dead_claim_one_gets_it(tmp_path: Path):
    with held_elsewhere(tmp_path):
        pass
    start = str(time.time() + 1.5)
    command = [sys.executable, "-c", RACE, str(tmp_path), start]
    processes = [subprocess.Popen(command, env=others_environment()) for _ in range(5)]
    assert sorted(process.wait() for process in processes) == [0, 3, 3, 3, 3]


APP = """
import os, signal, sys, time
import hydra
from pathlib import Path
from cxrlab.cli.console import run_command
from cxrlab.cli.claims import claimed

class SIGTERMException(SystemExit):
    "As Lightning's."

@hydra.main(version_base="1.3", config_path=".", config_name="app")
def main(cfg):
    folder = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    with claimed(folder):
        (folder / "seed.txt").write_text(str(cfg.seed))
        if cfg.stop == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if cfg.stop == "lightning":
            raise SIGTERMException
        time.sleep(cfg.seconds)
    return 0.5

run_command(main)
"""
APP_CONFIG = """
monitor: val/auroc
monitor_mode: max
seed: 0
stop: null
seconds: 2
hydra:
  run: {dir: "out/${hydra:job.name}"}
  job: {name: run}
  sweep: {dir: out/sweep, subdir: "${hydra.job.num}"}
  output_subdir: "${output_subdir:null}"
  callbacks:
    output_folder: {_target_: cxrlab.cli.output_folder.OutputFolder}
    sweep_table: {_target_: cxrlab.sweeps.callback.SweepTable}
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app.yaml").write_text(APP_CONFIG)
    return tmp_path


def start(app: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "app.py", *arguments], cwd=app, env=others_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.slow
def test_runs_of_one_name_get_folders_of_their_own(app: Path):
    processes = [start(app, f"seed={seed}") for seed in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    folders = sorted(path.name for path in (app / "out").iterdir())
    assert folders == ["run", "run_2", "run_3"]
    seeds = sorted((app / "out" / folder / "seed.txt").read_text() for folder in folders)
    assert seeds == ["0", "1", "2"]
    assert sum("out/run is another run's: this one goes to out/run_" in text for text in outputs) == 2
    assert not list(app.rglob(".in_use*"))


@pytest.mark.slow
def test_sweeps_of_one_name_get_folders_of_their_own_and_a_named_one_is_refused(app: Path):
    processes = [start(app, "-m", "seed=1,2", "seconds=0.5") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for folder in ("sweep", "sweep_2"):
        assert (app / "out" / folder / "1" / "seed.txt").read_text() == "2"
        assert (app / "out" / folder / "sweep.csv").is_file()
    again = start(app, "-m", "seed=1,2", "hydra.sweep.dir=out/sweep")
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 1
    assert "out/sweep holds a sweep already" in output
    with held_elsewhere(app / "out" / "mine"):
        named = start(app, "-m", "seed=1,2", "hydra.sweep.dir=out/mine")
        output, _ = named.communicate(timeout=60)
    assert named.returncode == 1
    assert "out/mine is in use by process" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["signal", "lightning"])
def test_sigterm_is_status_143_also_in_a_sweep(stop: str, app: Path):
    single = start(app, f"stop={stop}")
    sweep = start(app, "-m", f"stop={stop}", "seed=1,2")
    assert "Stopped by SIGTERM." in single.communicate(timeout=60)[0]
    output, _ = sweep.communicate(timeout=60)
    assert (single.returncode, sweep.returncode) == (143, 143)
    assert "interrupted" in output
    assert "interrupted" in (app / "out" / "sweep" / "sweep.csv").read_text()
    assert not list(app.rglob(".in_use*"))


@pytest.mark.slow
def test_ctrl_c_is_status_130(app: Path):
    process = start(app, "seconds=30")
    while not (app / "out" / "run" / "seed.txt").is_file():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "Stopped by Ctrl-C." in process.communicate(timeout=60)[0]
    assert process.returncode == 130


LAUNCHER = """
import os
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus

class ForkLauncher(BasicLauncher):
    "Runs each job in a process of its own, as launchers of clusters do."

    def launch(self, job_overrides, initial_job_idx):
        returns = []
        for number, overrides in enumerate(job_overrides):
            pid = os.fork()
            if pid == 0:
                super().launch([overrides], initial_job_idx + number)
                os._exit(0)
            os.waitpid(pid, 0)
            returns.append(JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=0.5))
        return returns
"""


@pytest.mark.slow
def test_the_table_of_a_sweep_is_printed_where_jobs_run_elsewhere(app: Path):
    """The sweep's own process imports nothing of the table until it ends, when Python lets no thread start."""
    plugin = app / "hydra_plugins" / "fork_launcher"
    plugin.mkdir(parents=True)
    (plugin / "fork_launcher.py").write_text(LAUNCHER)
    (plugin / "__init__.py").touch()
    (app / "hydra" / "launcher").mkdir(parents=True)
    (app / "hydra" / "launcher" / "fork.yaml").write_text(
        "_target_: hydra_plugins.fork_launcher.fork_launcher.ForkLauncher\n"
    )
    (app / "app.yaml").write_text("defaults: [_self_, override hydra/launcher: fork]\n" + APP_CONFIG)
    process = start(app, "seed=1,2", "seconds=0", "-m")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "2 jobs, 0 failed or interrupted" in output
    assert "Traceback" not in output


def test_a_folder_below_a_run_gets_the_next_number(tmp_path: Path):
    evaluations = tmp_path / "run" / "evaluations"
    with held_elsewhere(evaluations / "test"):
        assert claim_free(evaluations / "test") == evaluations / "test-2"
        (evaluations / "test-2" / "evaluation.json").touch()
        release(evaluations / "test-2")
        assert claim_free(evaluations / "test-2") == evaluations / "test-3"
        release(evaluations / "test-3")
    assert claim_free(evaluations / "test") == evaluations / "test"
    release(evaluations / "test")
    assert claim_free(tmp_path / "12-00-00") == tmp_path / "12-00-00"
    release(tmp_path / "12-00-00")
    (tmp_path / "12-00-00" / "train.log").touch()
    assert claim_free(tmp_path / "12-00-00") == tmp_path / "12-00-00_2"
    release(tmp_path / "12-00-00_2")
