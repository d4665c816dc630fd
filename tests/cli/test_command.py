"""The command line, as a user meets it: in processes of its own, in an empty folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

COMMAND = [sys.executable, "-m", "cxrlab.train"]

pytestmark = pytest.mark.slow  # each starts a command of its own


def run(*arguments: str, cwd: Path, timeout: int = 240) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False, env=env
    )


def only(pattern: str, folder: Path) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def refused(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert done.returncode == 1
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_outputs_among_the_images_are_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "data" / "TB").mkdir(parents=True)
    (tmp_path / "data" / "TB" / "1.png").touch()
    done = run("data=folder", "data.root=data", "hydra.run.dir=data/TB/run", cwd=tmp_path)
    refused(done, "hydra.run.dir=data/TB/run lies in")
    done = run("-m", "data=folder", "data.root=data", "hydra.sweep.dir=data", "seed=1,2", cwd=tmp_path)
    refused(done, "hydra.sweep.dir=data is data.root itself")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["TB", "1.png"]


def test_help_lists_the_groups_and_writes_nothing(tmp_path: Path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("densenet121", "synthetic", "weighted_bce", "resume=", "experiment"):
        assert word in done.stdout
    assert not list(tmp_path.iterdir())


def test_cfg_job_prints_the_config(tmp_path: Path):
    done = run("model=densenet121", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "backbone: densenet121" in done.stdout


def test_neither_help_nor_the_config_import_torch(tmp_path: Path):
    code = (
        "import sys; sys.argv = ['train', '--cfg', 'job']\n"
        "import runpy\n"
        "try: runpy.run_module('cxrlab.train', run_name='__main__')\n"
        "finally: print('IMPORTED', [name for name in ('torch', 'pandas', 'numpy', 'timm') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "IMPORTED []" in done.stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=0.1", "optimizer.lrr"),
        ("model=densenet211", "densenet211"),
        ("optimizer.lr=fast", "optimizer.lr='fast' does not fit"),
        ("data=nih", "data.root is not set"),
        ("resume=outputs/none", "resume=outputs/none is no run directory"),
        ("hydra.run.dir=/dev/null/run", "outputs go elsewhere with hydra.run.dir="),
    ],
)
def test_a_slip_is_a_message_and_not_a_traceback(override: str, words: str, tmp_path: Path):
    refused(run(override, cwd=tmp_path), words)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_folder_that_holds_a_run_is_left_as_it_is(finished_run: Path, tmp_path: Path):
    """Hydra would have written its config over the run's before any of our code runs."""
    run_dir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run_dir / "train.log").write_text("what was said\n")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    refused(run(f"hydra.run.dir={run_dir}", "loss=bce", cwd=tmp_path), f"Go on with it by resume={run_dir}")
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    done = run(f"resume={run_dir / 'checkpoints' / 'last.ckpt'}", cwd=tmp_path)
    refused(done, f"Did you mean resume={run_dir}?")


def test_a_machine_without_a_gpu_says_so(tiny_command: list[str], tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    rest = [one for one in tiny_command if not one.startswith("trainer")]
    refused(run(*rest, "trainer=gpu", cwd=tmp_path), "but no GPU is found. Set trainer=auto")


def test_a_full_disk_is_a_message_and_keeps_what_is_there(tiny_command: list[str], tmp_path: Path):
    """A limit on the size of a file stands in for the full disk: the checkpoint is the first to hit it."""
    import resource

    done = subprocess.run(
        [*COMMAND, *tiny_command], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000)),
    )  # fmt: skip
    refused(done, "outputs go elsewhere with hydra.run.dir=")
    run_dir = only("outputs/*/*", tmp_path)
    assert (run_dir / "manifest.csv").is_file()
    assert not list(run_dir.glob("checkpoints/*.ckpt"))


@pytest.fixture(scope="module")
def sweep(tiny_command: list[str], tmp_path_factory: pytest.TempPathFactory):
    """Two learning rates by two weight decays, of which one is refused when the optimizer is built."""
    folder = tmp_path_factory.mktemp("sweep")
    done = run("-m", *tiny_command, "optimizer.lr=1e-3,1e-4", "optimizer.weight_decay=0.01,-1", cwd=folder)
    return folder, done


def test_a_sweep_goes_on_after_a_failed_job_and_ends_non_zero(sweep):
    folder, done = sweep
    assert done.returncode != 0
    table = pd.read_csv(only("outputs/multirun/*/*/sweep.csv", folder))
    swept = ["optimizer.lr", "optimizer.weight_decay"]
    named = ["job", "status", "metric", "seconds", *swept, "overrides", "error"]
    assert list(table.columns) == [*named, "val/loss"]
    assert table["status"].tolist() == ["completed", "completed", "failed", "failed"]
    assert sorted(table["job"][:2]) == [0, 2]
    assert table["metric"][:2].is_monotonic_decreasing
    assert table["error"][2:].str.contains("weight_decay").all()
    assert "4 jobs, 2 failed or interrupted" in done.stdout


def test_each_job_of_a_sweep_has_its_own_directory_and_leaves_the_test_part_alone(sweep):
    folder, _ = sweep
    sweep_dir = only("outputs/multirun/*/*", folder)
    table = pd.read_csv(sweep_dir / "sweep.csv")
    for row in table[:2].itertuples():
        job = sweep_dir / str(row.job)
        assert (job / "checkpoints" / "best.ckpt").is_file()
        assert pd.read_csv(job / "metrics.csv")["val/auroc"].max() == pytest.approx(row.metric)
        assert not (job / "predictions" / "test.csv").exists()
        assert "optimizer.lr=" in row.overrides


FOLDS = """
import hydra
from pathlib import Path
from cxrlab.cli.console import run_command

@hydra.main(version_base="1.3", config_path=".", config_name="folds")
def main(cfg):
    fold = cfg.data.split.fold
    if cfg.rate == 0.2 and fold == 1:
        raise ArithmeticError("the loss is nan")
    folder = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    (folder / "predictions").mkdir()
    rows = [f"{fold}{i}.png,{fold}{i},test,{i % 2}.0,0.{i + 1}" for i in range(4)]
    header = "image,patient,part,target/Mass,probability/Mass"
    (folder / "predictions" / "test.csv").write_text("\\n".join([header, *rows]))
    results = ["part,label,images,positives,auroc", f"test,macro mean,4,,0.{5 + fold}"]
    (folder / "results.csv").write_text("\\n".join(results))
    return 0.7 + fold / 10

run_command(main)
"""
FOLDS_CONFIG = """
monitor: val/auroc
monitor_mode: max
rate: 0.1
data: {split: {method: grouped, fold: null, num_folds: 2}}
hydra:
  sweep: {dir: "sweep", subdir: "job ${hydra.job.num}"}
  callbacks: {sweep_table: {_target_: cxrlab.sweeps.callback.SweepTable}}
"""


def test_a_sweep_over_folds_is_a_cross_validation(tmp_path: Path):
    (tmp_path / "folds.py").write_text(FOLDS)
    (tmp_path / "folds.yaml").write_text(FOLDS_CONFIG)
    words = ["-m", "data.split.method=folds", "rate=0.1,0.2", "+data.split.fold=0,1"]
    done = subprocess.run(
        [sys.executable, "folds.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "4 jobs, 1 failed" in done.stdout, done.stderr
    assert "WARNING: rate=0.2 has 1 of 2 folds (fold 1 failed)" in done.stdout
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert table["job"].tolist() == ["1", "0", "2", "3", *["mean", "std", "pooled"] * 2]
    means = table[table["job"] == "mean"]
    assert means["overrides"].tolist() == [
        "data.split.method=folds rate=0.1",
        "data.split.method=folds rate=0.2",
    ]
    assert means["metric"].tolist() == pytest.approx([0.75, 0.7])
    assert means["test/auroc"].tolist() == pytest.approx([0.55, 0.5])
    pooled = pd.read_csv(tmp_path / "sweep" / "out_of_fold_0.csv", dtype=str)
    assert pooled["image"].tolist() == [f"{fold}{i}.png" for fold in range(2) for i in range(4)]
    assert pooled["fold"].tolist() == ["0"] * 4 + ["1"] * 4


SEEDS = """
import hydra
from cxrlab.cli.console import run_command

@hydra.main(version_base="1.3", config_path=".", config_name="seeds")
def main(cfg):
    if cfg.seed == 4:
        raise ArithmeticError("the loss is nan")
    return cfg.rate + cfg.seed / 10

run_command(main)
"""
SEEDS_CONFIG = """
monitor: val/auroc
monitor_mode: max
rate: 0.1
seed: 0
hydra:
  sweep: {dir: "sweep"}
  callbacks: {sweep_table: {_target_: cxrlab.sweeps.callback.SweepTable}}
"""


def test_a_sweep_over_seeds_ends_with_their_mean_and_spread(tmp_path: Path):
    (tmp_path / "seeds.py").write_text(SEEDS)
    (tmp_path / "seeds.yaml").write_text(SEEDS_CONFIG)
    done = subprocess.run(
        [sys.executable, "seeds.py", "-m", "seed=1,2,3,4", "rate=0.1,0.2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "8 jobs, 2 failed" in done.stdout, done.stderr
    table = pd.read_csv(tmp_path / "sweep" / "sweep_seeds.csv").set_index("overrides")
    assert table.loc["rate=0.1", ["mean", "std_over_seeds", "min", "max"]].tolist() == [0.3, 0.1, 0.2, 0.4]
    assert table["seeds"].tolist() == [3, 3]
    assert table["left_out"].tolist() == ["seed 4 failed"] * 2
    shown = " ".join(done.stdout.split("Over seeds:\n")[1].split())
    assert "rate=0.2 val/auroc 3 0.4000 0.1000 0.3000 0.5000 seed 4 failed" in shown


@contextmanager
def started(*arguments: str, cwd: Path) -> "Iterator[subprocess.Popen[str]]":
    """Start a training that is stopped at the end, whatever happens.

    A shell's background job ignores Ctrl-C, and so would what it starts; hence the handler is set back.
    """
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_epoch(process: "subprocess.Popen[str]", cwd: Path, epoch: int) -> Path:
    """Wait until the table of epochs shows that one was finished."""
    for _ in range(1200):
        for metrics in cwd.glob("outputs/*/*/metrics.csv"):
            if len(pd.read_csv(metrics)) > epoch and (metrics.parent / "checkpoints" / "last.ckpt").exists():
                return metrics.parent
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.1)
    raise AssertionError("no epoch was finished in two minutes")


@pytest.mark.slow
def test_a_run_killed_with_nine_goes_on_in_its_directory(tiny_command: list[str], tmp_path: Path):
    options = [*tiny_command, "trainer.max_epochs=60", "callbacks.early_stopping=null"]
    with started(*options, cwd=tmp_path) as process:
        run_dir = wait_for_epoch(process, tmp_path, 2)
        process.send_signal(signal.SIGKILL)
    done_before = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert 2 <= done_before < 60
    done = run(
        f"resume={run_dir.relative_to(tmp_path)}", f"trainer.max_epochs={done_before + 2}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(run_dir / "metrics.csv")["epoch"].tolist() == list(range(done_before + 2))
    assert (run_dir / "predictions" / "test.csv").is_file()
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1
    refused(run(f"resume={run_dir}", "model=resnet50", cwd=tmp_path), "model=resnet50 cannot change a run")


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_epoch_and_says_where(tiny_command: list[str], tmp_path: Path):
    options = [*tiny_command, "trainer.max_epochs=500", "callbacks.early_stopping=null"]
    with started(*options, cwd=tmp_path) as process:
        run_dir = wait_for_epoch(process, tmp_path, 0)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "\nStopped by Ctrl-C" in output
    assert f"cxrlab train resume={run_dir}" in output
    assert "Traceback" not in output
    torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_two_processes_train_together_and_evaluate_each_image_once(tiny_command: list[str], tmp_path: Path):
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    options += ["trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    rest = [one for one in tiny_command if not one.startswith("trainer")]
    done = run(*rest, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    run_dir = only("outputs/*/*", tmp_path)
    manifest = pd.read_csv(run_dir / "manifest.csv")
    results = pd.read_csv(run_dir / "results.csv")
    for part in ("val", "test"):
        table = pd.read_csv(run_dir / "predictions" / f"{part}.csv")
        assert table["image"].tolist() == manifest[manifest["part"] == part]["image"].tolist()
        macro = results[(results["part"] == part) & (results["label"] == "macro mean")]
        assert macro["images"].item() == len(table)
        from sklearn.metrics import roc_auc_score

        one = results[(results["part"] == part) & (results["label"] == "Effusion")]["auroc"].item()
        assert one == pytest.approx(
            roc_auc_score(table["target/Effusion"], table["probability/Effusion"]), abs=1e-5
        )
    assert done.stdout.count("Everything is in") == 1


@pytest.mark.slow
def test_sigterm_to_the_first_of_two_processes_stops_both(tiny_command: list[str], tmp_path: Path):
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    options += [
        "trainer.max_epochs=500",
        "callbacks.early_stopping=null",
        "trainer.enable_progress_bar=false",
    ]
    rest = [one for one in tiny_command if not one.startswith("trainer")]
    with started(*rest, *options, cwd=tmp_path) as process:
        run_dir = wait_for_epoch(process, tmp_path, 0)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)  # until both have closed what they write to
    assert process.returncode == 143
    kept = r"(The last finished epoch|Epoch \d+, batch \d+ of \d+) is kept"
    assert re.search(rf"Stopped by SIGTERM\. {kept}", output)
    assert f"cxrlab train resume={run_dir}" in output
