"""A search that survives: twelve trials on two workers, one killed, one failing, one preempted, then resumed.

``python benchmarks/sweep_survival.py`` runs the search twice on the embedded synthetic set, undisturbed and
not, and compares both tables, number by number. One seed of the twelve is no seed, and fails.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

SPACE = "seed=" + ",".join(map(str, [*range(1, 12), -1]))
SEARCH = (
    "hydra/sweeper=optuna", "hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=none",
    "hydra.sweeper.n_trials=12", "hydra.sweeper.n_jobs=2", "hydra.sweep.dir=sweep",
)  # fmt: skip
TRAINING = (
    "data.reader.num_patients=40", "data.reader.size=64", "data.image_size=32", "data.num_workers=1",
    "data.batch_size=16", "trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=12",
    "callbacks.early_stopping=null", "callbacks.interruption.minutes=1e-3", "callbacks.progress=null",
    "callbacks.heatmaps=null", "logger.tensorboard=null", "report.page=false", "evaluation.baselines=false",
)  # fmt: skip
SAME = ["job", "status", "metric", "seed"]


def started(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a search in a folder of its own."""
    with (folder / "output.log").open("ab") as log:
        command = [sys.executable, "-m", "cxrlab.train", "-m", *words]
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def at_work(run_dir: Path, search: "subprocess.Popen[bytes]") -> int:
    """Wait until a trial's first epoch is kept, and return the number of its process."""
    while search.poll() is None:
        claims = sorted(run_dir.glob(".in_use.*"))
        if claims and (run_dir / "metrics.csv").is_file():
            return int(json.loads(claims[-1].read_text())["pid"])
        time.sleep(0.05)
    raise SystemExit(f"{run_dir} was not at work: see {run_dir.parents[1] / 'output.log'}")


def first_at_work(sweep: Path, search: "subprocess.Popen[bytes]", count: int) -> list[Path]:
    """Return the folders of the trials that are at work first."""
    while search.poll() is None:
        paths = [path.parent for path in sorted(sweep.glob("*/metrics.csv"))]
        if len(paths) >= count:
            return paths[:count]
        time.sleep(0.05)
    raise SystemExit(f"No {count} trials were at work: see {sweep.parent / 'output.log'}")


def table(folder: Path) -> pd.DataFrame:
    """Return what the sweep's table says of each trial, by number."""
    return pd.read_csv(folder / "sweep" / "sweep.csv")[SAME].sort_values("job", ignore_index=True)


def printed(title: str, rows: pd.DataFrame) -> None:
    """Print a table as Markdown."""
    print(f"\n{title}\n\n| {' | '.join(rows)} |\n|{'---|' * rows.shape[1]}")
    for row in rows.itertuples(index=False):
        print(f"| {' | '.join('' if pd.isna(value) else str(value) for value in row)} |")


def main() -> None:
    """Run both searches, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to keep both; a temporary folder if not given")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="sweep_survival_"))
    quiet, rough = folder / "undisturbed", folder / "disturbed"
    for path in (quiet, rough):
        path.mkdir(parents=True)
    words = [*TRAINING, f"data.root={folder / 'synthetic'}", SPACE, *SEARCH]
    print(f"Undisturbed: status {started(quiet, *words).wait()}", flush=True)  # 1, for the trial that fails
    search = started(rough, *words)
    trials = first_at_work(rough / "sweep", search, 2)
    for path, number in zip(trials, (signal.SIGKILL, signal.SIGTERM), strict=True):
        os.kill(at_work(path, search), number)
        print(f"Trial {path.name}: {number.name}", flush=True)
    print(f"Disturbed: status {search.wait()}", flush=True)
    cut = table(rough)
    print(f"Resumed: status {started(rough, 'resume_sweep=sweep').wait()}")
    printed("Before it was resumed", cut)
    printed("Resumed", table(rough))
    pd.testing.assert_frame_equal(table(quiet), table(rough), check_exact=True)
    print("\nThe undisturbed search has the same table.")


if __name__ == "__main__":
    main()
