"""What each step of ``experiment=pneumonia_better`` gives, on validation and on children of other numbers.

Run ``python benchmarks/pneumonia_steps.py <root>``, root being the chest-xray-pneumonia set; its test
folder is not read. In the published set the children of the test folder have lower numbers than those of
train, in each of the three series of names (IM, NORMAL2-IM, person), and networks do worse on them. So here
the fifth of each series with the lowest numbers is put away, and a tenth of the other patients is the
validation part. Every row is one training from the same seed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from cxrlab.data.readers.folders import read_pneumonia
from cxrlab.run import Run, load_run

LABEL = "Pneumonia"
AUGMENT = ["augment=strong"]
EMA = [
    *("callbacks=ema", "callbacks.early_stopping=null"),
    *("optimizer.lr=2e-3", "optimizer.weight_decay=0.05", "decay_norms_and_biases=false"),
]
STEPS = {
    "experiment=pneumonia": [],
    "+ augment=strong": AUGMENT,
    "+ callbacks=ema, 2e-3, decay of kernels": [*AUGMENT, *EMA],
    "+ normalize=equalize": [*AUGMENT, *EMA, "preprocess.normalize=equalize"],
    "augment=shift instead": ["augment=shift", *EMA, "preprocess.normalize=equalize"],
}


def parts(root: Path) -> pd.DataFrame:
    """Return the columns image and part: the lowest numbers apart, a tenth of the other patients is val."""
    table = read_pneumonia(root).table
    table = table[table["split"] == "train"]
    number = table["patient"].str.extract(r"(\d+)$", expand=False).astype(int)
    series = table["patient"].str.extract(r"/(.*?)-?\d+$", expand=False)
    rank = number.groupby(series).rank(pct=True)
    rng = np.random.default_rng(0)
    patients = sorted(table["patient"][rank > 0.2].unique())
    chosen = set(rng.permutation(patients)[: len(patients) // 10])
    part = np.where(rank <= 0.2, "test", np.where(table["patient"].isin(chosen), "val", "train"))
    return pd.DataFrame({"image": table["image"], "part": part})


def score(run: Run, part: str, root: Path, views: list[str]) -> tuple[float, float, float]:
    """Return AUROC, and accuracy at the thresholds of Youden and of specificity 0.98 on validation."""
    run.model.views = views
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in ("val", part):
        table = run.manifest[run.manifest["part"] == name]
        paths = [root / image for image in table["image"]]
        found[name] = (
            table[f"label/{LABEL}"].to_numpy(),
            run.predict(paths, batch_size=64)[f"probability/{LABEL}"].to_numpy(),
        )
    targets, scores = found["val"]
    order = np.unique(scores)
    sensitivity = np.array([(scores[targets == 1] >= cut).mean() for cut in order])
    specificity = np.array([(scores[targets == 0] < cut).mean() for cut in order])
    cuts = (order[np.argmax(sensitivity + specificity)], order[np.argmax(specificity >= 0.98)])
    targets, scores = found[part]
    accuracy = [float(((scores >= cut) == (targets == 1)).mean()) for cut in cuts]
    return float(roc_auc_score(targets, scores)), accuracy[0], accuracy[1]


def main() -> None:
    """Train one step after another and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--precision", default="bf16-mixed")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pneumonia-steps-"))
    parts(arguments.root).to_csv(folder / "parts.csv", index=False)
    print(
        f"{arguments.size} px, {arguments.epochs} epochs, {torch.get_num_threads()} threads; runs in {folder}"
    )
    print(
        "| step | validation AUROC | other numbers: AUROC | accuracy, Youden "
        "| accuracy, specificity 0.98 | minutes |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for number, (name, overrides) in enumerate(STEPS.items()):
        run_dir = folder / str(number)
        start = time.perf_counter()
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "cxrlab.train",
                    "experiment=pneumonia",
                    f"data.root={arguments.root}",
                ),
                *("data.split.method=file", f"data.split.file={folder / 'parts.csv'}", "test=false"),
                *(f"data.image_size={arguments.size}", f"trainer.max_epochs={arguments.epochs}"),
                *(f"trainer.precision={arguments.precision}", "callbacks.heatmaps=null", "report.page=false"),
                *(f"hydra.run.dir={run_dir}", *overrides),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        minutes = (time.perf_counter() - start) / 60
        run = load_run(run_dir)
        rows = {name: ["identity"]}
        if number == len(STEPS) - 1:
            rows["+ views=[identity, flip]"] = ["identity", "flip"]
        for row, views in rows.items():
            inside = score(run, "val", arguments.root, views)[0]
            auroc, youden, few_alarms = score(run, "test", arguments.root, views)
            print(
                f"| {row} | {inside:.4f} | {auroc:.4f} | {youden:.3f} | {few_alarms:.3f} | {minutes:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
