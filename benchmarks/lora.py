"""What fine-tuning a vision transformer costs with LoRA, as ratios to fine-tuning all of it.

Run ``python benchmarks/lora.py``: ViT-B on a GPU where there is one, else ViT-S. All variants take their
steps in turn, in one process, on one batch of noise, and the median of the turns' ratios is printed. Time is
the clock's on a GPU; elsewhere it is the processor's, so that other work on the machine does not count.

Memory is the peak that torch allocated on the GPU. Elsewhere it is counted, each storage once: weights,
gradients, the optimizer's state, and what the forward pass keeps for the backward pass.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cxrlab.models import LoRA, TimmNetwork

LABELS = 14


@dataclass
class Variant:
    """A network on its way through a training."""

    name: str
    network: TimmNetwork
    optimizer: torch.optim.Optimizer
    peak: int = 0

    @property
    def num_trainable(self) -> int:
        """Parameters that learn."""
        return sum(parameter.numel() for parameter in self.network.parameters() if parameter.requires_grad)


class Storages:
    """Counts the bytes of storages, each once."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.kept: list[Tensor] = []  # so that no other storage gets the address of one that is gone

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor's storage, and return the tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.sizes:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.kept.append(tensor)
        return tensor

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.sizes.values())


def variants(options: argparse.Namespace) -> list[Variant]:
    """Return networks of the same weights: all of it learns, LoRA, and the head alone."""
    shape = {"num_labels": LABELS, "image_size": options.size, "channels": 1}
    lora = LoRA(rank=options.rank, targets=options.targets)
    learning = {"all": {}, f"LoRA {options.rank}": {"lora": lora}, "head": {"freeze": "backbone"}}
    found = []
    for name, arguments in learning.items():
        torch.manual_seed(0)
        network = TimmNetwork(options.backbone, **shape, **arguments).to(options.device).train()
        found.append(Variant(name, network, torch.optim.AdamW(network.parameters(), lr=1e-4)))
    return found


def step(variant: Variant, images: Tensor, targets: Tensor, options: argparse.Namespace) -> None:
    """Take a step of training."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=options.bf16):
        loss = binary_cross_entropy_with_logits(variant.network(images).float(), targets)
    loss.backward()
    variant.optimizer.step()
    variant.optimizer.zero_grad()


def seconds_of(variant: Variant, images: Tensor, targets: Tensor, options: argparse.Namespace) -> float:
    """Return what a step takes, in seconds."""
    is_gpu = images.device.type == "cuda"
    clock = time.perf_counter if is_gpu else time.process_time
    if is_gpu:
        torch.cuda.synchronize()
    start = clock()
    step(variant, images, targets, options)
    if is_gpu:
        torch.cuda.synchronize()
    return clock() - start


def memory_of(variant: Variant, images: Tensor, targets: Tensor, options: argparse.Namespace) -> int:
    """Return the bytes that a step needs at most, after a first one that made the optimizer's state."""
    if images.device.type == "cuda":
        others = torch.cuda.memory_allocated() - own_bytes(variant)
        torch.cuda.reset_peak_memory_stats()
        step(variant, images, targets, options)
        return torch.cuda.max_memory_allocated() - others
    counted = Storages()
    for tensor in (*variant.network.parameters(), *variant.network.buffers()):
        counted.add(tensor)
    with (
        torch.autograd.graph.saved_tensors_hooks(counted.add, lambda tensor: tensor),
        torch.autocast(images.device.type, torch.bfloat16, enabled=options.bf16),
    ):
        loss = binary_cross_entropy_with_logits(variant.network(images).float(), targets)
    loss.backward()
    for parameter in variant.network.parameters():
        if parameter.grad is not None:
            counted.add(parameter.grad)
    variant.optimizer.zero_grad()
    return counted.total + state_bytes(variant)


def state_bytes(variant: Variant) -> int:
    """Return the size of the optimizer's state."""
    states = variant.optimizer.state.values()
    return sum(value.nbytes for state in states for value in state.values() if isinstance(value, Tensor))


def own_bytes(variant: Variant) -> int:
    """Return what a network and its optimizer hold between steps."""
    tensors = (*variant.network.parameters(), *variant.network.buffers())
    return sum(tensor.nbytes for tensor in tensors) + state_bytes(variant)


def main() -> None:
    """Print a row a variant."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_base_patch16_224" if gpu else "vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64 if gpu else 8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=["qkv", "proj"])
    parser.add_argument("--steps", type=int, default=20 if gpu else 3)
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=gpu)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(options.batch, 1, options.size, options.size, device=options.device)
    targets = torch.randint(0, 2, (options.batch, LABELS), device=options.device).float()
    trained = variants(options)
    for variant in trained:
        step(variant, images, targets, options)
        variant.peak = memory_of(variant, images, targets, options)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in trained}
    for _ in range(options.steps):
        for variant in trained:
            seconds[variant.name].append(seconds_of(variant, images, targets, options))
    where = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU, a processor second"
    kind = "bf16" if options.bf16 else "fp32"
    print(f"{options.backbone}, {options.size} px, batches of {options.batch}, {kind}; {where}")
    print(f"{'learns':12}{'parameters':>14}{'images/s':>12}{'ratio':>8}{'MiB':>10}{'ratio':>8}")
    baseline = trained[0]
    for variant in trained:
        own = seconds[variant.name]
        ratio = statistics.median(a / b for a, b in zip(seconds[baseline.name], own, strict=True))
        speed = options.batch / statistics.median(own)
        print(
            f"{variant.name:12}{variant.num_trainable:>14,}{speed:>12.1f}{ratio:>8.2f}"
            f"{variant.peak / 2**20:>10.0f}{variant.peak / baseline.peak:>8.2f}"
        )


if __name__ == "__main__":
    main()
