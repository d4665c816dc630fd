"""With what something was computed: command, versions, commit, hardware."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import cxrlab

_PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "hydra-core", "timm", "torchmetrics", "pandas", "numpy",
    "scikit-learn", "pillow", "grad-cam",
)  # fmt: skip


def environment(program: str) -> dict[str, Any]:
    """Return ``command``, ``started``, ``versions``, ``commit`` and ``hardware`` of this process.

    Args:
        program: Module of the entry point, such as ``cxrlab.train``.
    """
    return {
        "command": ["python", "-m", program, *sys.argv[1:]],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "cxrlab": cxrlab.__version__, **_versions()},
        "commit": _commit(),
        "hardware": _hardware(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _commit() -> str | None:
    """Return the commit of the sources in use, marked -dirty where changed; None for an installed wheel."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file() or not (checkout / ".git").exists():
        return None  # an installed wheel, perhaps inside another project's checkout
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
