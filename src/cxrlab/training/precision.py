"""``trainer.precision=auto``: fp32 or bf16, by the processor and the kind of network, never by a clock."""

from pathlib import Path

import torch
from torch import nn

from cxrlab.files import read_yaml, reading

FULL, HALF = "32-true", "bf16-mixed"

# Where Linux describes its processors.
CPU_INFO = Path("/proc/cpuinfo")
# The first compute capability with bf16 arithmetic: Ampere.
_CAPABILITY = (8, 0)
# Flags of processors that multiply matrices in bf16: AMX (Sapphire Rapids), AVX512-BF16 (Cooper Lake, Zen 4).
_CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
# Of the convolutions wider than one pixel; it is a tenth or less, or three quarters or more.
_DEPTHWISE_SHARE = 0.5


def choose_precision(network: nn.Module, device: torch.device) -> str:
    """Return ``bf16-mixed`` where it pays, else ``32-true``.

    On a GPU its generation decides. On a CPU it takes AMX or AVX512-BF16, and a network that is not made of
    depthwise convolutions: these do little arithmetic for each number that they read, and converting the
    numbers costs more than is gained.

    Args:
        network: What is to be trained.
        device: Where.
    """
    if device.type == "cuda":
        return HALF if torch.cuda.get_device_capability(device) >= _CAPABILITY else FULL
    if device.type != "cpu" or not cpu_flags() & _CPU_FLAGS:
        return FULL
    return FULL if is_depthwise(network) else HALF


def is_depthwise(network: nn.Module) -> bool:
    """Tell whether a network is of the depthwise kind: MobileNet, EfficientNet, ConvNeXt.

    Example:
        >>> is_depthwise(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1)))
        True
        >>> is_depthwise(nn.Conv2d(1, 8, 3))
        False
    """
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    wide = [layer for layer in convolutions if max(layer.kernel_size) > 1]
    depthwise = [layer for layer in wide if 1 < layer.groups == layer.in_channels]
    return len(depthwise) > _DEPTHWISE_SHARE * len(wide)


def cpu_flags() -> set[str]:
    """Return the names of the instruction sets of this processor, as Linux spells them; empty elsewhere."""
    if not CPU_INFO.is_file():
        return set()
    lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def saved_precision(run_dir: Path) -> str | None:
    """Return the precision that a run was started with, or None where it says none."""
    path = run_dir / ".hydra" / "resolved.yaml"
    if not path.is_file():
        return None
    with reading(path):
        saved = read_yaml(path).get("trainer", {}).get("precision")
    return None if saved in (None, "auto") else str(saved)
