"""What heatmaps cost, as multiples of the forward and backward passes that they cannot do without.

Run ``python benchmarks/explain.py`` (``--model densenet121 --size 224`` for another network). The baseline is
the network alone on the same images in the same batches: one forward pass of each image, and one backward
pass of each of its labels, from the logits to the layer that is read. Everything is timed in one process, in
turn, several times; on a GPU with ``--device cuda``.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from cxrlab.cli.config import build, config_dir
from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.methods.layers import target_layers
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.training.module import Classifier

LABELS = ("Effusion", "Nodule", "Opacity", "Cardiomegaly")


def classifier(model: str, size: int, device: str) -> tuple[Classifier, ExplanationSettings]:
    """Return a classifier of random weights as a training builds it, and the shipped settings."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[f"model={model}"])
    torch.manual_seed(0)
    network = build(cfg.model)(num_labels=len(LABELS), image_size=size, channels=1)
    preprocess = {"normalize": "training", "mean": [0.5], "std": [0.25], "image_size": size, "channels": 1}
    found = Classifier(
        labels=list(LABELS),
        preprocess=preprocess,
        network={"_target_": "benchmark"},
        module=network,
        channels_last=True,
    )
    return found.eval().to(device), build(cfg.explanation)


def passes(evaluate: Classifier, settings: ExplanationSettings, images: Tensor) -> Callable[[], None]:
    """Return what Grad-CAM cannot do without: activations, and their gradients for each label."""
    ready = evaluate.preprocess(images.to(evaluate.device)).contiguous(memory_format=evaluate.memory_format)
    (layer,) = target_layers(evaluate.network, settings.layers, ready[:1])
    for parameter in evaluate.network.parameters():
        parameter.requires_grad_(False)

    def run() -> None:
        for start in range(0, len(ready), settings.batch_size):
            kept: list[Tensor] = []

            def keep(_: torch.nn.Module, __: object, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
                kept.append(output.detach().requires_grad_())
                return kept[-1] * 1

            handle = layer.register_forward_hook(keep)
            logits = evaluate.network(ready[start : start + settings.batch_size])
            handle.remove()
            for label in range(len(LABELS)):
                torch.autograd.grad(logits[:, label].sum(), kept, retain_graph=label + 1 < len(LABELS))

    return run


def timed(function: Callable[[], object]) -> float:
    """Return seconds."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print a line a method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--methods", nargs="+", default=["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"]
    )
    options = parser.parse_args()
    evaluate, settings = classifier(options.model, options.size, options.device)
    shape = (options.images, 1, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = list(itertools.product(range(options.images), range(len(LABELS))))
    baseline = passes(evaluate, settings, images)
    tasks = {method: Explainer(method, settings) for method in options.methods}
    for warm in (baseline, *(lambda one=one: one(evaluate, images, pairs) for one in tasks.values())):
        warm()
    rows: dict[str, list[float]] = {method: [] for method in tasks}
    seconds = []
    for _ in range(options.repeats):
        alone = timed(baseline)
        seconds.append(alone)
        for method, explainer in tasks.items():
            rows[method].append(timed(lambda one=explainer: one(evaluate, images, pairs)) / alone)
    threads = f"{torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else threads
    what = f"{options.images} images x {len(LABELS)} labels, {where}"
    print(f"{options.model}, {options.size} px, {what}")
    print(f"needed passes: {statistics.median(seconds):.2f} s")
    for method, ratios in rows.items():
        print(f"{method:24s}{statistics.median(ratios):6.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
