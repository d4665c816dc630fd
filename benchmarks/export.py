"""Milliseconds an image of a network, and of the files that it is exported to, on one thread and on two.

Run ``python benchmarks/export.py``, with ``--model densenet121 --size 224`` for another network. Weights are
random, which changes no time; ``int8`` takes the ranges of activations from random images. Ratios are to
torch in 32 bits on one thread, in the same run; of ``--rounds`` rounds, all taken in turn, the fastest
counts, since other work on the machine only ever slows one down.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cxrlab import Classifier
from cxrlab.deploy.backend import Backend, TorchBackend
from cxrlab.deploy.graph import trace
from cxrlab.deploy.metadata import texts_of
from cxrlab.deploy.onnx_file import add_metadata, read_onnx, write_onnx
from cxrlab.deploy.quantization import quantize_onnx
from cxrlab.deploy.record import record_of
from cxrlab.models import TimmNetwork


def written(classifier: Classifier, folder: Path, name: str, images: np.ndarray) -> Path:
    """Return an ONNX file of one of four kinds."""
    path = folder / f"{name}.onnx"
    write_onnx(trace(classifier, "fp16" if name == "fp16" else "fp32"), path)
    if name.startswith("int8"):
        quantize_onnx(path, images if name == "int8" else None)
    add_metadata(path, texts_of(record_of(classifier)))
    return path


def seconds(backend: Backend, images: np.ndarray) -> float:
    """Return how long a backend takes for all images at once."""
    start = time.perf_counter()
    backend(images)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet10t", help="a timm backbone")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = TimmNetwork(options.model, num_labels=14, image_size=options.size)
    classifier = Classifier(labels=[f"label {n}" for n in range(14)], network=network).eval()
    shape = (options.batch, 1, options.size, options.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    own = TorchBackend(classifier)
    makers: dict[tuple[str, int], Callable[[], Backend]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: written(classifier, Path(folder), name, images)
            for name in ("fp32", "fp16", "int8", "int8_dynamic")
        }
        for threads in (1, 2):
            makers["torch fp32", threads] = lambda: own
            for name, path in files.items():
                makers[f"onnxruntime {name}", threads] = lambda path=path: read_onnx(path, "cpu")[1]
        fastest, differences = measured(makers, images, options.rounds)
        sizes = {f"onnxruntime {name}": path.stat().st_size / 1e6 for name, path in files.items()}
    base = fastest["torch fp32", 1]
    print(f"{options.model}, {options.size} pixels, batches of {options.batch}, torch {torch.__version__}")
    print("| what | MB | threads | ms an image | ratio | largest difference |\n|---|---|---|---|---|---|")
    for (name, threads), best in fastest.items():
        size = f"{sizes[name]:.1f}" if name in sizes else ""
        cells = (f"{1000 * best / options.batch:.1f}", f"{best / base:.2f}", f"{differences[name]:.0e}")
        print(f"| {name} | {size} | {threads} | {' | '.join(cells)} |")


def measured(
    makers: dict[tuple[str, int], Callable[[], Backend]], images: np.ndarray, rounds: int
) -> tuple[dict[tuple[str, int], float], dict[str, float]]:
    """Return the fastest round of each, and how far its probabilities lie from torch's."""
    backends = {}
    for (name, threads), make in makers.items():
        torch.set_num_threads(threads)  # onnxruntime takes the same when a file is read
        backends[name, threads] = make()
    fastest = dict.fromkeys(makers, float("inf"))
    expected = backends["torch fp32", 1](images).probabilities
    differences = {}
    for _ in range(rounds + 1):  # the first warms up
        for (name, threads), backend in backends.items():
            torch.set_num_threads(threads)
            fastest[name, threads] = min(fastest[name, threads], seconds(backend, images))
            differences[name] = float(np.abs(backend(images[:1]).probabilities - expected[:1]).max())
    return fastest, differences


if __name__ == "__main__":
    main()
