"""What cached features save: a linear probe, twice, against gradient training of the same head.

Run ``python benchmarks/linear_probe.py <root of NIH ChestX-ray14, or a part of it>``. Seconds are the
processor's, of features, fit, validation and test; reading, decoding and the evaluation are the same for all
and left out. The caches are made in a temporary folder, and images are decoded before the first row.
"""

import argparse
import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from cxrlab.cli import build
from cxrlab.cli.config import config_dir
from cxrlab.train import train

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


@contextlib.contextmanager
def clock() -> Iterator[list[float]]:
    """Give the processor's seconds of each phase, as they end."""
    seconds: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds.append(time.process_time() - start)

        return call

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(build, "use_features", timed(build.use_features)))
        for name in ("fit", "validate", "test"):
            patches.enter_context(mock.patch.object(pl.Trainer, name, timed(getattr(pl.Trainer, name))))
        yield seconds


def measured(root: str, folder: Path, name: str, overrides: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a training, and its macro AUROC on validation and test."""
    run_dir = folder / name
    options = [*QUIET, f"data.root={root}", f"data.cache_dir={folder / 'cache'}", f"run_dir={run_dir}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[*options, *overrides])
    with clock() as seconds:
        train(cfg)
    results = pd.read_csv(run_dir / "results.csv").set_index(["label", "part"])["auroc"]["macro mean"]
    return sum(seconds), results["val"], results.get("test", float("nan"))


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
        "decoding": ["test=false", "trainer.max_epochs=1", "trainer.limit_train_batches=1"],
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
