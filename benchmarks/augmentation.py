"""What augmentation costs, as a share of a MobileNetV3-small training step on the same batch.

Run ``python benchmarks/augmentation.py``; ``--figures docs/background`` writes the pictures of that folder's
``augmentation.md`` instead. Kornia is compared where it is installed.
"""

import argparse
import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from cxrlab.augment.geometry import inverse_matrices
from cxrlab.cli.config import build, config_dir, plain
from cxrlab.data.readers import synthetic

Task = Callable[[], object]

CHANGES = ("flip", "rotation", "blur", "gamma", "contrast", "brightness", "noise", "erasing")


def preset(name: str, *overrides: str) -> nn.Module:
    """Return a preset of conf/augment, with values changed."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return build(compose("train", overrides=[f"augment={name}", *overrides]).augment)


def alone(name: str) -> nn.Module:
    """Return one change of ``strong`` with all others switched off."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        strong = plain(compose("train", overrides=["augment=strong"]).augment)
    switches = (*CHANGES, "shift", "zoom", "shear")
    return preset("strong", *(f"augment.{one}=0" for one in switches if one != name and strong[one]))


def phantoms(count: int, size: int) -> Tensor:
    """Return one synthetic radiograph a patient, uint8, shape ``(count, 1, size, size)``."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = synthetic.read(Path(folder), num_patients=count, size=size, seed=0)
        images = manifest.table.groupby("patient")["image"].first().iloc[:count]
        arrays = [np.asarray(Image.open(manifest.root / image)) for image in images]
    return torch.from_numpy(np.stack(arrays))[:, None]


def training_step(images: Tensor) -> Task:
    """Return a step of MobileNetV3-small on a resident batch: fp32, channels last, AdamW."""
    network = timm.create_model("mobilenetv3_small_100", in_chans=1, num_classes=14)
    network = network.to(images.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    inputs = ((images.float() - 128) / 64).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 2, (len(images), 14), device=images.device).float()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(network(inputs), targets).backward()
        optimizer.step()

    return step


def light_matrices(count: int, size: int, device: torch.device) -> Tensor:
    """Draw the matrices of ``light``, in pixels from the middle."""
    signed = 2 * torch.rand(4, count, device=device) - 1
    zoom = torch.exp(signed[1] * math.log(1.1))
    return inverse_matrices(
        is_flipped=torch.rand(count, device=device) < 0.5,
        zoom=(zoom, zoom),
        shear=torch.zeros(count, device=device),
        angle=signed[0] * math.radians(7.0),
        shift=(signed[2] * 0.05 * size, signed[3] * 0.05 * size),
    )


def with_affine_grid(images: Tensor, dtype: torch.dtype) -> Task:
    """Return ``light`` by torch's own ``affine_grid``."""
    size = images.shape[-1]
    scale = torch.tensor([1.0, 1.0, 2.0 / size], device=images.device)

    def run() -> Tensor:
        matrices = light_matrices(len(images), size, images.device) * scale
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False).to(dtype)
        moved = F.grid_sample(images.to(dtype), grid, padding_mode="reflection", align_corners=False)
        return moved.float()

    return run


def with_opencv(images: Tensor) -> Task:
    """Return ``light`` by cv2.warpAffine on uint8, in as many threads as torch has."""
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(torch.get_num_threads())
    source, size = images.numpy(), images.shape[-1]
    flags, middle = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (size - 1) / 2

    def run() -> Tensor:
        matrices = light_matrices(len(images), size, images.device)
        matrices[:, :, 2] += middle - middle * matrices[:, :, :2].sum(2)
        forms, moved = matrices.double().numpy(), np.empty_like(source)

        def warp(rows: range) -> None:
            for row in rows:
                target = moved[row, 0]
                cv2.warpAffine(source[row, 0], forms[row], (size, size), target, flags, cv2.BORDER_REFLECT)

        parts = torch.get_num_threads()
        list(pool.map(warp, [range(part, len(source), parts) for part in range(parts)]))
        return torch.from_numpy(moved).float()

    return run


def peers(images: Tensor) -> dict[str, Task]:
    """Return ``light`` by other libraries and in other ways."""
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                7.0, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
            ),
        ]
    )
    tasks: dict[str, Task] = {
        "affine_grid + grid_sample": with_affine_grid(images, torch.float32),
        "the same in bfloat16": with_affine_grid(images, torch.bfloat16),
        "torchvision v2, image by image": lambda: torch.stack([transform(one) for one in images]).float(),
        "torchvision v2, one draw a batch": lambda: transform(images).float(),
    }
    if images.device.type == "cpu":
        tasks["cv2.warpAffine, uint8, threads"] = with_opencv(images)
    with contextlib.suppress(ImportError):
        from kornia import augmentation

        affine = augmentation.RandomAffine(
            7.0, translate=(0.05, 0.05), scale=(0.9, 1.1), padding_mode="reflection", p=1.0
        )
        both = nn.Sequential(augmentation.RandomHorizontalFlip(p=0.5), affine)
        tasks["Kornia, batch"] = lambda: both(images.float())
    return tasks


def seconds(tasks: dict[str, Task], rounds: int, device: torch.device) -> dict[str, float]:
    """Return each task's median; the tasks take turns, so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(rounds + 2):
        for name, task in tasks.items():
            wait()
            start = time.perf_counter()
            task()
            wait()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def measure(batch_size: int, size: int, rounds: int) -> None:
    """Print the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = phantoms(batch_size, size).to(device)
    generator = torch.Generator(device).manual_seed(0)
    modules = {"light": preset("light"), "strong": preset("strong")}
    modules |= {f"{name} of strong, alone": alone(name) for name in CHANGES}
    tasks: dict[str, Task] = {"training step (the baseline)": training_step(images)}
    tasks |= {name: (lambda module=module: module(images, generator)) for name, module in modules.items()}
    tasks |= {f"light by {name}": task for name, task in peers(images).items()}
    medians = seconds(tasks, rounds, device)
    baseline = next(iter(medians.values()))
    threads = torch.get_num_threads()
    print(f"{batch_size} images of {size} px on {device}, {threads} threads; medians of {rounds}")
    for name, median in medians.items():
        print(f"{name:44s}{median / baseline:8.4f}{1e3 * median:10.2f} ms")


def draw(folder: Path) -> None:
    """Write a picture for each preset: four phantoms, each as it is (left) and augmented six times."""
    images = phantoms(4, 192)
    for name in ("light", "strong"):
        copies = images.repeat_interleave(6, dim=0)
        augmented = preset(name)(copies, torch.Generator().manual_seed(0)).round().to(torch.uint8)
        cells = torch.cat([images[:, None], augmented.view(4, 6, *images.shape[1:])], dim=1)[:, :, 0]
        page = cells.permute(0, 2, 1, 3).reshape(4 * 192, 7 * 192)
        Image.fromarray(page.numpy()).save(folder / f"augment_{name}.jpg", quality=80, optimize=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--figures", type=Path, help="write the pictures to this folder and measure nothing")
    arguments = parser.parse_args()
    if arguments.figures:
        draw(arguments.figures)
    else:
        measure(arguments.batch_size, arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()
