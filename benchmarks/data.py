"""How fast pixels reach the network: every row a ratio to a baseline that is taken in the same run.

Run ``python benchmarks/data.py --images <folder of 1024 x 1024 PNG files>``; without a folder, phantoms of
that size are drawn. ``--network densenet121`` or ``--network mobilenetv3_small`` chooses what trains,
``--rows`` what is measured.
"""

import argparse
import itertools
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from cxrlab.cli.config import config_dir
from cxrlab.data.cache import CacheSettings, fill, open_cache
from cxrlab.data.decode import read_image
from cxrlab.data.loader import ImageStore
from cxrlab.data.readers import synthetic
from cxrlab.train import train

SIZE = 224
BATCH_SIZE = 32
# Enough that starting the workers, half a second, does not count.
NUM_FILES = 2000
NUM_BATCHES = {"mobilenetv3_small": 24, "densenet121": 6}
TIMM_NAMES = {"mobilenetv3_small": "mobilenetv3_small_100", "densenet121": "densenet121"}
SETTINGS = CacheSettings(SIZE, 1, "stretch")


def seconds(task: Callable[[], object]) -> float:
    """Return how long a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def rate_of(decode: Callable[[Path], object], files: list[Path], rounds: int = 3) -> float:
    """Return images a second on one core: the fastest round, the files being in the page cache."""
    for file in files:
        file.read_bytes()
    return max(len(files) / seconds(lambda: [decode(file) for file in files]) for _ in range(rounds))


def show(what: str, ours: float, baseline: float, unit: str, target: float) -> None:
    """Print a row."""
    print(
        f"{what:64} {ours:10,.1f} {baseline:10,.1f} {unit:9} {ours / baseline:9.2f} (at least {target})",
        flush=True,
    )


def copies(originals: list[Path], folder: Path, count: int) -> list[Path]:
    """Write so many files, the originals by turns; each is a file of its own for the page cache."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.png" for number in range(count)]
    for path, original in zip(paths, itertools.cycle(originals)):
        shutil.copyfile(original, path)
    return paths


def pil_decode(path: Path) -> Any:
    """Decode and resize as most projects do."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def decoders() -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield every decoder of PNG files that is at hand; none of them resizes."""
    yield "Pillow", lambda path: np.asarray(Image.open(BytesIO(path.read_bytes())))
    yield "OpenCV", lambda path: cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return

    def rust(path: Path) -> object:
        data = path.read_bytes()
        image = Image.open(BytesIO(data))
        mode = {"L": "mono", "RGBA": "rgba"}[image.mode]
        return decode_image_png_u8(data, (image.height, image.width), mode)

    yield "kornia-rs", rust


def batches(files: list[Path], scratch: Path) -> None:
    """Random batches of 64 from a warm cache, against PIL on one core."""
    cache = open_cache(scratch / "cache", files[0].parent, [file.name for file in files], SETTINGS, "batches")
    fill(cache, np.arange(len(files)), num_workers=None, shows_progress=False)
    store = ImageStore(cache.images, np.arange(len(files)), image_device="disk", device=torch.device("cpu"))
    rng = np.random.default_rng(0)
    draws = [torch.from_numpy(rng.integers(0, len(files), 64)) for _ in range(200)]
    ours = [64 / seconds(lambda rows=rows: store.gather(rows)) for rows in draws]
    pil = rate_of(pil_decode, files[:20])
    show(
        "random batches of 64, warm cache / PIL decode + resize, 1 core",
        statistics.median(ours),
        pil,
        "images/s",
        500,
    )


def building(files: list[Path], scratch: Path) -> None:
    """Filling the cache on all cores, against the fastest decoder times the cores."""
    rates = {name: rate_of(decode, files[:20]) for name, decode in decoders()}
    whole = rate_of(lambda file: read_image(file, image_size=SIZE, channels=1, resize="stretch"), files[:20])
    ours = []
    for number in range(3):
        cache = open_cache(
            scratch / f"b{number}", files[0].parent, [file.name for file in files], SETTINGS, "b"
        )
        took = seconds(
            lambda cache=cache: fill(cache, np.arange(len(files)), num_workers=None, shows_progress=False)
        )
        ours.append(len(files) / took)
    cores = len(os.sched_getaffinity(0))
    print("    one core, decode only: " + ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()))
    best = max(rates, key=lambda name: rates[name])
    show(
        f"building the cache / {best} decode alone x {cores} cores",
        max(ours),
        rates[best] * cores,
        "images/s",
        0.85,
    )
    show(
        f"building the cache / our decode + resize x {cores} cores",
        max(ours),
        whole * cores,
        "images/s",
        0.85,
    )
    old = max(rates["Pillow"], rates["OpenCV"])
    show(
        f"building the cache / Pillow's or OpenCV's decode x {cores} cores",
        max(ours),
        old * cores,
        "images/s",
        0.85,
    )


def checking(files: list[Path], scratch: Path) -> None:
    """What trusting nothing costs: checksums once a day, and the files' digests after they were touched."""
    cache = open_cache(scratch / "c", files[0].parent, [file.name for file in files], SETTINGS, "c")
    rows = np.arange(len(files))
    took = seconds(lambda: fill(cache, rows, num_workers=None, shows_progress=False))
    built = len(files) / took
    for what, check in (
        ("comparing the cache with its checksums", lambda: (cache.damaged(rows), cache.unsealed(rows))),
        ("comparing files that were touched with the cache", lambda: cache.exchanged(rows)),
    ):
        rate = max(len(files) / seconds(check) for _ in range(3))
        show(f"{what} / building the cache", rate, built, "images/s", 10)


class Stopwatch(pl.Callback):
    """Times each epoch's training, and after it the bare step on one resident batch, in the same settings."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.steps: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock at the epoch's last batch, before validation."""
        if batch_idx + 1 == trainer.num_training_batches:
            count = len(trainer.datamodule.rows("train"))
            self.ours.append(count / (time.perf_counter() - self.start))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the baseline."""
        data = trainer.datamodule
        rows = data.rows("train")[:BATCH_SIZE]
        images, targets = torch.from_numpy(data.images[rows]), data.targets[rows]
        optimizer = trainer.optimizers[0]
        pl_module.train()

        def step() -> None:
            optimizer.zero_grad()
            with trainer.precision_plugin.forward_context():
                loss = pl_module.measured_loss(images, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(pl_module.parameters(), 1.0)
            optimizer.step()

        step()
        count = max(3, trainer.num_training_batches // 2)
        with torch.enable_grad():
            self.steps.append(BATCH_SIZE * count / seconds(lambda: [step() for _ in range(count)]))


def our_training(root: Path, network: str, scratch: Path, epochs: int) -> tuple[Stopwatch, float]:
    """Train through the whole program; return the stopwatch, and the seconds until the cache was filled."""
    overrides = [
        "data=folder", f"data.root={root}", "data.split.method=official",
        f"data.image_size={SIZE}",
        f"data.batch_size={BATCH_SIZE}", f"data.cache_dir={scratch / 'train'}",
        f"run_dir={scratch / network}",
        f"model={network}", f"trainer.max_epochs={epochs}", "trainer=cpu", "test=false",
        "callbacks.heatmaps=null", "callbacks.progress=null", "logger.tensorboard=null",
        "trainer.enable_progress_bar=false",
        "monitor=val/loss", "monitor_mode=min",
    ]  # fmt: skip
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    watch = Stopwatch()
    original = pl.Trainer.__init__

    def with_watch(self: pl.Trainer, *args: Any, callbacks: Any = None, **kwargs: Any) -> None:
        original(self, *args, callbacks=[*(callbacks or []), watch], **kwargs)

    pl.Trainer.__init__ = with_watch  # type: ignore[method-assign]
    try:
        train(cfg)
    finally:
        pl.Trainer.__init__ = original  # type: ignore[method-assign]
    spent = json.loads((scratch / network / "provenance.json").read_text())["sessions"][0]["seconds"]
    return watch, float(spent["cache"])


def tutorial_epoch(root: Path, network: str, epochs: int = 2) -> float:
    """Return images a second of ImageFolder, PIL and per-image transforms, as the tutorials have it."""
    changes = [v2.RandomHorizontalFlip(), v2.RandomAffine(7, translate=(0.05, 0.05), scale=(0.9, 1.1))]
    scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    data = ImageFolder(root / "train", v2.Compose([v2.Resize((SIZE, SIZE)), *changes, *scale]))
    loader = DataLoader(data, BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)
    model = timm.create_model(TIMM_NAMES[network], num_classes=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def epoch() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(images)[:, 0], labels.float()).backward()
            optimizer.step()

    return max(len(data) / seconds(epoch) for _ in range(epochs))


def training(originals: list[Path], network: str, scratch: Path) -> None:
    """An epoch of training, against the bare step and against the tutorials' way."""
    root, count = scratch / f"{network}-data", NUM_BATCHES[network] * BATCH_SIZE
    for part, number in (("train", count // 2), ("val", 4), ("test", 4)):
        for kind in ("a", "b"):
            copies(originals, root / part / kind, number)
    watch, cache_seconds = our_training(root, network, scratch, epochs=4)
    ratios = [ours / step for ours, step in zip(watch.ours, watch.steps, strict=True)]
    middle = sorted(range(1, len(ratios)), key=lambda epoch: ratios[epoch])[(len(ratios) - 1) // 2]
    show(f"{network}: a later epoch / bare step on a resident batch", watch.ours[middle], watch.steps[middle],
         "images/s", 0.95)  # fmt: skip
    tutorial = tutorial_epoch(root, network)
    target = 1.4 if network == "mobilenetv3_small" else 3
    later = watch.ours[middle]
    show(f"{network}: a later epoch / ImageFolder, PIL, 2 workers, fp32", later, tutorial, "images/s", target)
    first = count / (count / watch.ours[0] + cache_seconds)
    show(f"{network}: the first epoch, cache included / the same", first, tutorial, "images/s", target)


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of 1024 x 1024 PNG files")
    parser.add_argument("--network", nargs="*", default=list(NUM_BATCHES), choices=list(NUM_BATCHES))
    parser.add_argument(
        "--rows", nargs="*", default=["batches", "building", "checking", "training", "augmentation"]
    )
    options = parser.parse_args()
    logging.getLogger("cxrlab").setLevel(logging.ERROR)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = options.images or synthetic.read(scratch, num_patients=4, size=1024, seed=0).root / "images"
        originals = sorted(root.glob("*.png"))
        threads = torch.get_num_threads()
        print(f"{len(originals)} originals of {root}; {threads} threads, torch {torch.__version__}")
        print(f"{'':64} {'ours':>10} {'baseline':>10} {'':9} {'ratio':>9}")
        files = copies(originals, scratch / "files", NUM_FILES)
        for name, row in (("batches", batches), ("building", building), ("checking", checking)):
            if name in options.rows:
                row(files, scratch)
        for network in options.network if "training" in options.rows else ():
            training(originals, network, scratch)
    if "augmentation" in options.rows:
        subprocess.run([sys.executable, str(Path(__file__).with_name("augmentation.py"))], check=True)


if __name__ == "__main__":
    main()
