"""What cached features save: a linear probe, twice, against gradient training of the same head.

Run ``python benchmarks/linear_probe.py <root of NIH ChestX-ray14, or a part of it>``. Seconds are those of
fit, validation and test, with what features cost; reading, decoding and the evaluation are the same for all.
The caches are made in a temporary folder, and images are decoded before the first row.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

import pandas as pd
import torch
from hydra import compose, initialize_config_dir

from cxrlab.cli.config import config_dir
from cxrlab.train import train

PHASES = ("features", "fit", "validate", "test")
QUIET = (
    "data=nih",
    "model.freeze=backbone",
    "augment=none",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.heatmaps=null",
    "logger.tensorboard=null",
    "report.page=false",
    "evaluation.baselines=false",
    "evaluation.num_resamples=100",
)
STEPS = ("callbacks.early_stopping=null", "optimizer.lr=1e-3")


def measured(root: str, folder: Path, name: str, overrides: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a training, and its macro AUROC on validation and test."""
    run_dir = folder / name
    options = [*QUIET, f"data.root={root}", f"data.cache_dir={folder / 'cache'}", f"run_dir={run_dir}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[*options, *overrides])
    train(cfg)
    seconds = json.loads((run_dir / "provenance.json").read_text())["sessions"][-1]["seconds"]
    results = pd.read_csv(run_dir / "results.csv").set_index(["label", "part"])["auroc"]["macro mean"]
    return sum(seconds.get(phase, 0.0) for phase in PHASES), results["val"], results["test"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--epochs", type=int, default=8, help="of the gradient training")
    parser.add_argument("--network", nargs="*", default=["model=of_weights", "weights=efficientnet_lite0"])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    epochs = f"trainer.max_epochs={arguments.epochs}"
    rows = {
        "decoding": ["test=false", "trainer.max_epochs=1"],
        "gradient": [*STEPS, epochs],
        "probe": ["solver=logistic"],
        "probe_again": ["solver=logistic"],
        "gradient_cached": [*STEPS, epochs, "solver.caches_features=true"],
    }
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: measured(arguments.root, Path(folder), name, [*arguments.network, *overrides])
            for name, overrides in rows.items()
        }
    baseline = found["gradient"][0]
    print(f"torch {torch.__version__}, threads: {torch.get_num_threads()}, epochs: {arguments.epochs}")
    print(f"{'':<18}{'seconds':>9}{'ratio':>8}{'val':>8}{'test':>8}")
    for name, (seconds, val, test) in found.items():
        if name != "decoding":
            print(f"{name:<18}{seconds:>9.1f}{baseline / seconds:>8.1f}{val:>8.3f}{test:>8.3f}")


if __name__ == "__main__":
    main()
