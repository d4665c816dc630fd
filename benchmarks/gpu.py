"""What training, evaluation, prediction and heatmaps reach on a GPU, beside the bare passes they are made of.

Run ``python benchmarks/gpu.py`` on a machine with a CUDA device; ``--models densenet121 --compile eager``
does a part of it. ``--rehearse-nih`` goes through experiment=nih_speedrun with generated images in NIH's
numbers. A Markdown table is printed, with card, version and date. ``--device cpu --small`` shows that it
runs.

It needs neither Hydra nor grad-cam. Images are generated, decoded and cached as a training finds them. The
bare step has one batch on the device, normalised already: forward, loss, backward, clipping, AdamW. An epoch
has all that a training does between its start and its end, with ``augment=light``; it is the second one of a
training, so that what is compiled has been. ``data.image_device`` says where the images lie.
"""

import argparse
import datetime
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

from cxrlab.augment import RandomAugment
from cxrlab.data.datamodule import DataModule
from cxrlab.data.dataset import Dataset, Unreadable
from cxrlab.data.loader import ImageDevice
from cxrlab.data.manifest import Manifest
from cxrlab.data.pixel_file import PixelFile
from cxrlab.heatmaps.methods.cam import activation_maps
from cxrlab.heatmaps.methods.layers import target_layers, undisturbed
from cxrlab.losses import BCE, WeightedBCE
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.runs.predict import predict_images
from cxrlab.training.callbacks.finite_loss import FiniteLoss
from cxrlab.training.callbacks.resume import RandomState
from cxrlab.training.compilation import compiled
from cxrlab.training.module import Classifier
from cxrlab.training.schedules import one_cycle

MODELS = {
    "densenet121": "densenet121",
    "resnet50": "resnet50",
    "convnext_tiny": "convnext_tiny",
    "mobilenetv3": "mobilenetv3_large_100",
}
LABELS = [f"finding {number}" for number in range(14)]
# NIH ChestX-ray14's own lists; a tenth of the first is for validation.
NIH_IMAGES = {"train": 77_872, "val": 8_652, "test": 25_596}
RECIPE = Path(__file__).parents[1] / "conf" / "experiment" / "nih_speedrun.yaml"
_WRITTEN_AT_ONCE = 1024
_HEATMAP_LABELS = 4
_HEATMAP_BATCH = 16


class GeneratedData(DataModule):
    """Images of noise in a file as the cache has it, with labels and parts by chance.

    Args:
        folder: Where the file is written.
        counts: Images of each part.
        options: As :class:`cxrlab.DataModule` has them.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], **options: Any) -> None:
        super().__init__(folder, reader=lambda root: Manifest(root, pd.DataFrame()), **options)
        self.counts = counts

    def prepare(self) -> Manifest:
        """Write the file, once, and make up the rest."""
        if self._dataset is None:
            count, size = sum(self.counts.values()), self.settings.image_size
            path = self.root / f"{count}x{size}.npy"
            rng = np.random.default_rng(0)
            if not path.is_file():
                shape = (count, 1, size, size)
                pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
                noise = rng.integers(0, 256, (_WRITTEN_AT_ONCE, *shape[1:]), dtype=np.uint8)
                for start in range(0, count, _WRITTEN_AT_ONCE):
                    pixels[start : start + _WRITTEN_AT_ONCE] = noise[: count - start]
                pixels.flush()
            images: Any = _InFile(path, count)
            self._dataset = Dataset(self._made_up(count, rng), images, Unreadable(pd.DataFrame(), images))
        return self._dataset.manifest

    def _made_up(self, count: int, rng: np.random.Generator) -> Manifest:
        table = pd.DataFrame({"image": [f"{row:06d}.png" for row in range(count)]})
        table["patient"] = [f"{row // 4:05d}" for row in range(count)]
        table["split"] = ""
        table["part"] = list(itertools.chain(*([part] * number for part, number in self.counts.items())))
        targets = (rng.random((count, len(LABELS))) < 0.1).astype(np.float64)
        return Manifest(
            self.root, table.assign(**{f"label/{n}": targets[:, i] for i, n in enumerate(LABELS)})
        )


class _InFile:
    """Images as a data module reads them."""

    resize = "stretch"

    def __init__(self, path: Path, count: int) -> None:
        self.cache = SimpleNamespace(images=PixelFile(path))
        self.positions = np.arange(count)

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        return self.cache.images[rows]


class Clock(pl.Callback):
    """Takes the time of every epoch's training and validation, and of every step where it is asked to."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.training: list[float] = []
        self.validation: list[float] = []
        self._start = 0.0

    def _now(self) -> float:
        wait(self.device)
        return time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start."""
        self._start = self._now()

    def on_validation_start(self, *_: Any) -> None:
        """Stop what was trained, whose last step was checked before, and start anew."""
        now = self._now()
        self.training.append(now - self._start)
        self._start = now

    def on_validation_end(self, *_: Any) -> None:
        """Stop."""
        self.validation.append(self._now() - self._start)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return how long a call takes, once it was warmed up: the median of three rounds."""
    for _ in range(3):
        function()
    rounds = []
    for _ in range(3):
        wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        wait(device)
        rounds.append((time.perf_counter() - start) / repeats)
    return statistics.median(rounds)


def make_classifier(backbone: str, options: argparse.Namespace, loss: nn.Module | None = None) -> Classifier:
    """Return a classifier with random weights, as a training builds it."""
    torch.manual_seed(0)
    network = TimmNetwork(backbone, num_labels=len(LABELS), image_size=options.size)
    statistics_ = {"normalize": "training", "mean": [0.5], "std": [0.25]}
    preprocess = {**statistics_, "image_size": options.size, "channels": 1}
    optimizer = partial(torch.optim.AdamW, lr=1e-4, fused=True)
    return Classifier(
        labels=LABELS,
        network=network,
        preprocess=preprocess,
        loss=loss or BCE(),
        optimizer=optimizer,
        monitor="val/loss",
        channels_last=True,
    )


def make_data(
    folder: Path, options: argparse.Namespace, image_device: ImageDevice, counts: Mapping[str, int]
) -> GeneratedData:
    """Return generated data with ``augment=light``."""
    batch_size, augment = options.batch_size, RandomAugment()
    return GeneratedData(
        folder,
        counts,
        image_size=options.size,
        batch_size=batch_size,
        image_device=image_device,
        augment=augment,
    )


def make_trainer(options: argparse.Namespace, clock: Clock, folder: Path, **settings: Any) -> pl.Trainer:
    """Return a trainer as trainer=gpu and callbacks=default set it, without what is written."""
    is_gpu = options.device == "cuda"
    return pl.Trainer(
        accelerator="gpu" if is_gpu else "cpu",
        devices=1,
        precision=options.precision,
        benchmark=True if is_gpu else None,
        gradient_clip_val=1.0,
        callbacks=[RandomState(), FiniteLoss(), clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **settings,
    )


@contextmanager
def autocast(options: argparse.Namespace) -> Iterator[None]:
    """Compute as the trainer does."""
    with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16-mixed"):
        yield


def resident(classifier: Classifier, options: argparse.Namespace, count: int) -> Tensor:
    """Return a normalised batch on the device."""
    shape = (count, 1, options.size, options.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=options.device)
    return classifier.preprocess(pixels).contiguous(memory_format=classifier.memory_format)


def bare(backbone: str, options: argparse.Namespace, choice: bool | str) -> tuple[float, float]:
    """Return images a second of the bare step, and of the bare forward pass."""
    device = torch.device(options.device)
    classifier = make_classifier(backbone, options).to(device)
    network, loss = classifier.network, BCE()
    images = resident(classifier, options, options.batch_size)
    targets = torch.zeros(len(images), len(LABELS), device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with autocast(options):
            value = loss(network(images), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        with torch.inference_mode(), autocast(options):
            network(images)

    with compiled(network, choice):
        network.train()
        trained = seconds(step, device, options.repeats)
        network.eval()
        return len(images) / trained, len(images) / seconds(forward, device, options.repeats)


def epoch(
    backbone: str, options: argparse.Namespace, choice: bool | str, folder: Path, image_device: ImageDevice
) -> tuple[float, float]:
    """Return images a second of the second epoch of a training, and of its validation."""
    counts = {"train": options.images, "val": options.images // 4, "test": 1}
    data, classifier = make_data(folder, options, image_device, counts), make_classifier(backbone, options)
    clock = Clock(torch.device(options.device))
    trainer = make_trainer(options, clock, folder, max_epochs=2)
    with compiled(classifier.network, choice):
        trainer.fit(classifier, datamodule=data)
    return counts["train"] / clock.training[-1], counts["val"] / clock.validation[-1]


def prediction(backbone: str, options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Return images a second of ``predict_images`` from the cache, and of the forward pass, in 32 bits."""
    counts = {"train": options.images, "val": options.images // 4, "test": 1}
    data, device = make_data(folder, options, "disk", counts), torch.device(options.device)
    data.prepare()
    classifier = make_classifier(backbone, options).to(device).eval()
    images = resident(classifier, options, options.batch_size)
    rows, size = list(range(options.images)), options.batch_size

    def predict() -> None:
        predict_images(
            classifier, data.images, rows, batch_size=size, device=options.device, show_progress=False
        )

    def forward() -> None:
        with torch.inference_mode():
            classifier.network(images)

    return len(rows) / seconds(predict, device, 1), size / seconds(forward, device, options.repeats)


def heatmaps(backbone: str, options: argparse.Namespace) -> tuple[float, float]:
    """Return maps a second of Grad-CAM, and of the passes alone that it cannot do without, in 32 bits."""
    device = torch.device(options.device)
    classifier = make_classifier(backbone, options).to(device).eval()
    network, images = classifier.network, resident(classifier, options, min(128, options.images))
    pairs = list(itertools.product(range(len(images)), range(_HEATMAP_LABELS)))
    (layer,) = target_layers(network, "auto", images[:1])

    def maps() -> None:
        for start in range(0, len(images), _HEATMAP_BATCH):
            batch = images[start : start + _HEATMAP_BATCH]
            activation_maps(
                network, batch, pairs[: len(batch) * _HEATMAP_LABELS], method="gradcam", layers="auto",
                batch_size=_HEATMAP_BATCH,
            )  # fmt: skip

    def passes() -> None:
        with undisturbed(network):
            for start in range(0, len(images), _HEATMAP_BATCH):
                kept: list[Tensor] = []

                def keep(_: nn.Module, __: object, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
                    kept.append(output.detach().requires_grad_())
                    return kept[-1] * 1

                handle = layer.register_forward_hook(keep)
                logits = network(images[start : start + _HEATMAP_BATCH])
                handle.remove()
                for label in range(_HEATMAP_LABELS):
                    torch.autograd.grad(
                        logits[:, label].sum(), kept, retain_graph=label + 1 < _HEATMAP_LABELS
                    )

    return len(pairs) / seconds(maps, device, 1), len(pairs) / seconds(passes, device, 1)


def rehearse(options: argparse.Namespace, folder: Path) -> None:
    """Train and evaluate as experiment=nih_speedrun says, on noise, and print the minutes that it takes.

    Where fewer steps are taken than an epoch has, the rest is reckoned from them.
    """
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    device, counts = torch.device(options.device), dict(NIH_IMAGES)
    choice: bool | str = (
        recipe["trainer"].get("compile", False) if options.compile is None else options.choices[0]
    )
    if options.small:
        counts = {part: max(number // 2000, 8) for part, number in counts.items()}
    else:
        options.batch_size, options.size = recipe["data"]["batch_size"], recipe["data"].get("image_size", 224)
    num_epochs = recipe["trainer"]["max_epochs"]
    data = make_data(folder, options, "gpu" if device.type == "cuda" else "disk", counts)
    data.prepare()
    steps_per_epoch = recipe["data"]["steps_per_epoch"] if not options.small else 4
    data.steps_per_epoch = steps_per_epoch
    steps = min(options.steps or steps_per_epoch, steps_per_epoch)
    is_whole = steps == steps_per_epoch
    backbone = recipe["defaults"][1]["override /model"]
    classifier = make_classifier(backbone, options, WeightedBCE(frequencies=[0.1] * len(LABELS)))
    classifier._scheduler = one_cycle
    clock = Clock(device)
    settings = {} if is_whole else {"limit_train_batches": steps}
    trainer = make_trainer(options, clock, folder, max_epochs=num_epochs if is_whole else 2, **settings)
    started = time.perf_counter()
    with compiled(classifier.network, choice):
        trainer.fit(classifier, datamodule=data)
    fitted = time.perf_counter() - started
    started = time.perf_counter()
    trainer.test(classifier, datamodule=data, verbose=False)
    wait(device)
    tested = time.perf_counter() - started
    start = fitted - sum(clock.training) - sum(clock.validation)
    of_epoch = clock.training[-1] / steps * steps_per_epoch
    first = max(0.0, clock.training[0] / steps - clock.training[-1] / steps) * steps
    whole = start + first + num_epochs * (of_epoch + clock.validation[-1]) + clock.validation[-1] + tested
    print(f"\n### experiment=nih_speedrun on generated images: {heading(options)}\n")
    print(f"{counts} images, {backbone}, {num_epochs} epochs of {steps_per_epoch} steps, compile={choice}; "
          f"{'all of them' if is_whole else f'{steps} of each epoch'} measured, AUROC not.\n")  # fmt: skip
    print("| start and first steps, s | an epoch, s | its validation, s | test, s | whole, minutes |")
    print("|---|---|---|---|---|")
    values = (start + first, of_epoch, clock.validation[-1], tested)
    print(f"| {' | '.join(f'{value:.1f}' for value in values)} | {whole / 60:.2f} |")


def heading(options: argparse.Namespace) -> str:
    """Return card, versions, settings and date."""
    threads = f"{torch.get_num_threads()} threads of a CPU"
    card = torch.cuda.get_device_name() if options.device == "cuda" else threads
    shape = f"{options.size} px, batch {options.batch_size}, {options.precision}, channels-last"
    return f"{card}, torch {torch.__version__}, {shape}, {datetime.date.today().isoformat()}"


def table(options: argparse.Namespace, folder: Path) -> None:
    """Print a row a network, eager and compiled, as it is measured."""
    places: list[ImageDevice] = ["gpu", "host", "disk"] if options.device == "cuda" else ["host", "disk"]
    print(f"\n### Images a second: {heading(options)}\n")
    epochs = " | ".join(f"epoch, {place}" for place in places)
    print(f"| network | compile | bare step | {epochs} | epoch / step | "
          "forward | validation | validation / forward |")  # fmt: skip
    print("|" + "---|" * (7 + len(places)))
    for name, choice in itertools.product(options.models, options.choices):
        step, forward = bare(MODELS[name], options, choice)
        rates = [epoch(MODELS[name], options, choice, folder, place) for place in places]
        trained = " | ".join(f"{rate:,.0f}" for rate, _ in rates)
        best, validation = rates[0][0], max(rate for _, rate in rates)
        print(f"| {name} | {choice} | {step:,.0f} | {trained} | {best / step:.2f} | {forward:,.0f} | "
              f"{validation:,.0f} | {validation / forward:.2f} |", flush=True)  # fmt: skip
    print("\n| network | prediction, images/s | forward in 32 bits | ratio | Grad-CAM, maps/s | its passes | "
          "passes / Grad-CAM |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        predicted, forward = prediction(MODELS[name], options, folder)
        maps, passes = heatmaps(MODELS[name], options)
        print(f"| {name} | {predicted:,.0f} | {forward:,.0f} | {predicted / forward:.2f} | {maps:,.0f} | "
              f"{passes:,.0f} | {passes / maps:.2f} |", flush=True)  # fmt: skip


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=None)
    parser.add_argument(
        "--compile", nargs="+", choices=["eager", "true", "reduce-overhead", "max-autotune"], default=None,
        help="default: eager true",
    )  # fmt: skip
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, default=25_600, help="of a training epoch")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=20, help="steps in a row, three times")
    parser.add_argument("--rehearse-nih", action="store_true")
    parser.add_argument("--steps", type=int, default=None, help="of the rehearsal's epochs; all by default")
    parser.add_argument(
        "--folder", type=Path, default=None, help="for generated images; a temporary one by default"
    )
    parser.add_argument("--small", action="store_true", help="a minute on a CPU, to see that it runs")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --small shows that it runs")
    if options.small:
        options.images, options.batch_size, options.size, options.repeats = 32, 8, 64, 1
        options.models, options.compile = options.models or ["mobilenetv3"], options.compile or ["eager"]
    options.models = options.models or list(MODELS)
    named = {"eager": False, "true": True}
    options.choices = [named.get(name, name) for name in options.compile or ["eager", "true"]]
    options.precision = "bf16-mixed" if options.device == "cuda" else "32-true"
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or the rehearsal."""
    options = parsed(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if options.device == "cuda":  # as train.py and trainer=gpu set them
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (rehearse if options.rehearse_nih else table)(options, folder)


if __name__ == "__main__":
    main()
