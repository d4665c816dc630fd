"""What each step of ``pneumonia_better`` and ``pneumonia_transfer`` gives, on children of other numbers too.

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
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision.transforms.v2.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cxrlab.data.readers.folders import read_pneumonia
from cxrlab.runs.run import Run, load_run

LABEL = "Pneumonia"
AUGMENT = ["augment=strong"]
EMA = [
    *("callbacks=ema", "callbacks.early_stopping=null"),
    *("optimizer.lr=2e-3", "optimizer.weight_decay=0.05", "decay_norms_and_biases=false"),
]
TRANSFER = ["experiment=pneumonia_transfer", "views=[identity]"]
FROM_RANDOM = [
    *("weights=none", "model=timm", "model.backbone=tf_efficientnet_lite0", "model.freeze=null"),
    *("model.unfreeze_epoch=null", "optimizer.lr=2e-3", "layer_rates.stage_decay=1.0"),
    *("preprocess.normalize=given", "preprocess.mean=[0.5]", "preprocess.std=[0.5]"),
]
# Overrides of a training, and its rows: the views that are averaged.
STEPS: list[tuple[list[str], dict[str, list[str]]]] = [
    ([], {"experiment=pneumonia": ["identity"]}),
    (AUGMENT, {"+ augment=strong": ["identity"]}),
    (
        [*AUGMENT, *EMA],
        {"+ callbacks=ema, 2e-3, decay of kernels": ["identity"], "+ views": ["identity", "flip"]},
    ),
    ([*AUGMENT, *EMA, "preprocess.normalize=equalize"], {"+ normalize=equalize": ["identity"]}),
    (
        ["augment=shift", *EMA, "preprocess.normalize=equalize"],
        {"augment=shift instead": ["identity"], "+ views": ["identity", "flip"]},
    ),
    ([*AUGMENT, *EMA, "preprocess.normalize=image"], {"normalize=image instead": ["identity"]}),
    (
        TRANSFER,
        {"experiment=pneumonia_transfer": ["identity"], "pneumonia_transfer, + views": ["identity", "flip"]},
    ),
    ([*TRANSFER, *FROM_RANDOM], {"its network from random weights": ["identity"]}),
]


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


def changes(images: Tensor) -> dict[str, Tensor]:
    """Return images as other machines and habits might have made them, uint8, shape ``(N, 1, H, W)``."""
    side = images.shape[-1]
    inner, margin = round(0.8 * side), round(0.1 * side)
    return {
        "gamma 0.6": F.adjust_gamma(images, 0.6),
        "gamma 1.6": F.adjust_gamma(images, 1.6),
        "contrast 0.6": F.adjust_contrast(images, 0.6),
        "cropped to 0.8": F.resize(F.center_crop(images, [inner, inner]), [side, side]),
        "black border of 0.1": F.resize(F.pad(images, [margin]), [side, side]),
        "blur": F.gaussian_blur(images, [9, 9], [1.5, 1.5]),
    }


def stronger_changes(images: Tensor) -> dict[str, Tensor]:
    """Return images changed further than the augmentation of any step goes."""
    side = images.shape[-1]
    inner = round(0.7 * side)
    return {
        "gamma 0.4": F.adjust_gamma(images, 0.4),
        "gamma 2.2": F.adjust_gamma(images, 2.2),
        "contrast 0.4": F.adjust_contrast(images, 0.4),
        "cropped to 0.7": F.resize(F.center_crop(images, [inner, inner]), [side, side]),
        "blur of 2.5": F.gaussian_blur(images, [15, 15], [2.5, 2.5]),
    }


def global_numbers(image: np.ndarray) -> list[float]:
    """Return mean, deviation, sharpness, direction of edges, grey percentiles and the border of an image."""
    values = image.astype(np.float64) / 255.0
    across, down = (np.abs(np.diff(values, axis=axis)) for axis in (1, 0))
    border = np.concatenate(
        [values[:6].ravel(), values[-6:].ravel(), values[:, :6].ravel(), values[:, -6:].ravel()]
    )
    return [
        *(values.mean(), values.std(), across.std(), down.std(), np.log(across.mean() / down.mean())),
        *((values < 0.05).mean(), (values > 0.95).mean(), border.mean(), border.std()),
        *np.percentile(values, [5, 25, 50, 75, 95]),
    ]


def shortcut(run: Run, root: Path) -> float:
    """Return the AUROC on the other children of a logistic regression on global numbers of the image."""
    numbers, targets = {}, {}
    for part in ("train", "test"):
        table = run.manifest[run.manifest["part"] == part]
        images = run.images([root / image for image in table["image"]])[:, 0].numpy()
        numbers[part] = np.array([global_numbers(image) for image in images])
        targets[part] = table[f"label/{LABEL}"].to_numpy() == 1
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    regression.fit(numbers["train"], targets["train"])
    return float(roc_auc_score(targets["test"], regression.predict_proba(numbers["test"])[:, 1]))


def probabilities(run: Run, images: Tensor) -> np.ndarray:
    """Return the probabilities of uint8 images, shape ``(N,)``."""
    with torch.inference_mode():
        chunks = [run.model.predict_probabilities(chunk)[:, 0] for chunk in images.split(64)]
    return torch.cat(chunks).numpy()


def score(run: Run, root: Path) -> list[float]:
    """Return AUROC of validation, of the other children, of the same changed; accuracy at three thresholds.

    The thresholds are Youden's and those of a specificity of 0.98 and a sensitivity of 0.9, on validation.
    """
    images, targets = {}, {}
    for part in ("val", "test"):
        table = run.manifest[run.manifest["part"] == part]
        images[part] = run.images([root / image for image in table["image"]])
        targets[part] = table[f"label/{LABEL}"].to_numpy() == 1
    scores = {part: probabilities(run, of_part) for part, of_part in images.items()}
    order = np.unique(scores["val"])
    sensitivity = np.array([(scores["val"][targets["val"]] >= cut).mean() for cut in order])
    specificity = np.array([(scores["val"][~targets["val"]] < cut).mean() for cut in order])
    cuts = (
        order[np.argmax(sensitivity + specificity)],
        order[np.argmax(specificity >= 0.98)],
        order[sensitivity >= 0.9][-1],
    )
    changed = [
        roc_auc_score(targets["test"], probabilities(run, one)) for one in changes(images["test"]).values()
    ]
    return [
        *(float(roc_auc_score(targets[part], scores[part])) for part in ("val", "test")),
        *(float(np.mean(changed)), float(np.min(changed))),
        *(float(((scores["test"] >= cut) == targets["test"]).mean()) for cut in cuts),
    ]


def save_tables(run: Run, root: Path, folder: Path) -> None:
    """Write predictions of validation, of the other children, and of these changed, for thresholds.py."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("val", "test"):
        table = run.manifest[run.manifest["part"] == part]
        images = run.images([root / image for image in table["image"]])
        versions = {"val": images}
        if part == "test":
            versions = {"lower numbers": images, **changes(images), **stronger_changes(images)}
        for name, version in versions.items():
            scores = probabilities(run, version)
            columns = {f"target/{LABEL}": table[f"label/{LABEL}"], f"probability/{LABEL}": scores}
            frame = table[["image", "patient", "part"]].assign(**columns)
            frame.to_csv(folder / f"{name}.csv", index=False)


def main() -> None:
    """Train one step after another and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--folder", type=Path, help="of an earlier call: its trainings are not done again")
    parser.add_argument("--tables", type=Path, help="folder for predictions, for thresholds.py")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="pneumonia-steps-"))
    parts(arguments.root).to_csv(folder / "parts.csv", index=False)
    print(f"{arguments.size} px, {arguments.epochs} epochs, {torch.get_num_threads()} threads; {folder}")
    print(
        "| step | validation AUROC | other numbers: AUROC | changed, mean | changed, worst "
        "| accuracy, Youden | accuracy, specificity 0.98 | accuracy, sensitivity 0.9 |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for number, (overrides, rows) in enumerate(STEPS):
        run_dir = folder / str(number)
        if not (run_dir / "evaluation.json").is_file():
            train(arguments, folder / "parts.csv", run_dir, overrides)
        run = load_run(run_dir)
        for row, views in rows.items():
            run.model.views = views
            values = " | ".join(f"{value:.4f}" for value in score(run, arguments.root))
            print(f"| {row} | {values} |", flush=True)
            if arguments.tables is not None:
                save_tables(run, arguments.root, arguments.tables / row.replace("/", "_"))
    run = load_run(folder / "0")
    print(f"AUROC of global numbers, without any lung, on the others: {shortcut(run, arguments.root):.3f}")


def train(arguments: argparse.Namespace, split: Path, run_dir: Path, overrides: list[str]) -> None:
    """Run one training; of experiment=pneumonia, where the overrides name no other."""
    experiment = [] if any(one.startswith("experiment=") for one in overrides) else ["experiment=pneumonia"]
    subprocess.run(
        [
            *(sys.executable, "-m", "cxrlab.train", *experiment, f"data.root={arguments.root}"),
            *("data.split.method=file", f"data.split.file={split}", "test=false", "report.page=false"),
            *(f"data.image_size={arguments.size}", f"trainer.max_epochs={arguments.epochs}"),
            *(f"trainer.precision={arguments.precision}", "callbacks.heatmaps=null"),
            *(f"hydra.run.dir={run_dir}", *overrides),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
