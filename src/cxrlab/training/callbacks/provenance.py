"""provenance.json: with what a run was made: command, versions, commit, data, network, hardware, seconds.

And what it made: hashes of checkpoints and predictions, by which others that took their place are noticed.
"""

import datetime
import hashlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

import cxrlab
from cxrlab.files import DataRecord, FeaturesRecord, RunDir, SolverRecord, read_sessions, write_json
from cxrlab.models.freezing import num_parameters
from cxrlab.models.lora import lora_parameters
from cxrlab.training.checkpoint import checkpoint_hash
from cxrlab.training.solvers import LogisticProbe

_PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "hydra-core", "timm", "torchmetrics", "pandas", "numpy",
    "scikit-learn", "pillow", "grad-cam",
)  # fmt: skip


class HardwareRecord(TypedDict):
    """On what it ran; what a Lightning trainer decides is only there where one ran."""

    processor: str
    cores: int | None
    gpu: NotRequired[str]
    accelerator: NotRequired[str]
    processes: NotRequired[int]
    precision: NotRequired[str]


class NetworkRecord(TypedDict):
    """How many parameters a network has while it is trained, and how many of them learn.

    Those of LoRA are in both figures, though merging takes them away.
    """

    parameters: int
    trainable: int
    lora: NotRequired[int]


class SessionRecord(TypedDict):
    """A session of ``provenance.json``; what only a training knows is only there in one of a training."""

    command: list[str]
    started: str
    versions: dict[str, str]
    commit: str | None
    hardware: HardwareRecord
    data: NotRequired[DataRecord]
    network: NotRequired[NetworkRecord]
    features: NotRequired[FeaturesRecord]
    solver: NotRequired[SolverRecord]
    initial_weights: NotRequired[dict[str, Any] | None]
    seconds: NotRequired[dict[str, float]]
    epochs: NotRequired[int]
    peak_gpu_gib: NotRequired[float]
    checkpoints: NotRequired[dict[str, str]]
    predictions: NotRequired[dict[str, str]]


def table_hash(path: Path) -> str:
    """Return digits that tell a table by its content; the kind of its line ends does not count."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:16]


def environment(program: str) -> SessionRecord:
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
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _commit() -> str | None:
    """Return the commit of the sources in use, marked -dirty where changed; None for an installed wheel."""
    checkout = Path(__file__).resolve().parents[4]
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


def _hardware() -> HardwareRecord:
    hardware: HardwareRecord = {
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


class Provenance(Callback):
    """Writes and updates the record; a resumed run adds a session to it.

    Args:
        path: The JSON file.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self._session: SessionRecord | None = None
        self._starts: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note the start of a phase: fit, validate or test."""
        self._starts[stage] = time.perf_counter()
        if self._session is not None:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        network = cast("nn.Module", pl_module.network)
        session = environment("cxrlab.train")
        session["hardware"]["accelerator"] = type(trainer.accelerator).__name__
        session["hardware"]["processes"] = trainer.world_size
        session["hardware"]["precision"] = str(trainer.precision)
        session["data"] = {
            "name": data.manifest.name,
            "is_named": bool(getattr(data, "is_named", False)),
            "images": len(data.manifest),
            "patients": int(data.manifest.table["patient"].nunique()),
            "fingerprint": data.manifest.fingerprint(),
            "content": data.dataset.content,
            "split": data.split.record(),
            "negative": data.manifest.negative,
            "public": str(getattr(data, "public_name", "")),
        }
        start = getattr(pl_module, "initial_weights", None)
        session["initial_weights"] = None if start is None else start.plain()
        total, trainable = num_parameters(network)
        session["network"] = {"parameters": total, "trainable": trainable}
        if (features := getattr(data, "features", None)) is not None:
            images, number = features.shape
            session["features"] = {"number": number, "images": images, "computed": features.num_computed}
        if updates := lora_parameters(network):
            session["network"]["lora"] = sum(parameter.numel() for parameter in updates)
        session["seconds"] = dict(data.seconds)
        self._session = session
        self._write(trainer, session)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note the seconds that a phase took."""
        session = self._session
        if session is None:  # it was never set up
            return
        session["seconds"][stage] = round(time.perf_counter() - self._starts[stage], 1)
        session["epochs"] = trainer.current_epoch
        if stage == "fit":  # what was frozen at first may have learnt later
            record, network = session["network"], cast("nn.Module", pl_module.network)
            record["trainable"] = max(record["trainable"], num_parameters(network)[1])
        if torch.cuda.is_available():
            session["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if trainer.is_global_zero:
            self._note_hashes(session, stage)
            best = RunDir(self.path.parent).best_checkpoint
            if stage == "fit" and isinstance(pl_module, LogisticProbe) and best.is_file():
                session["solver"] = pl_module.record(best)
        self._write(trainer, session)

    def _note_hashes(self, session: SessionRecord, stage: str) -> None:
        """Note what a phase wrote: a training its checkpoints, an evaluation its predictions."""
        files = RunDir(self.path.parent)
        if stage == "fit":
            paths = {"best": files.best_checkpoint, "last": files.last_checkpoint}
            session["checkpoints"] = {
                name: checkpoint_hash(path) for name, path in paths.items() if path.is_file()
            }
        part = {"validate": "val", "test": "test"}.get(stage)
        if part is not None and files.predictions(part).is_file():
            session["predictions"] = {
                **session.get("predictions", {}),
                part: table_hash(files.predictions(part)),
            }

    def _write(self, trainer: pl.Trainer, session: SessionRecord) -> None:
        if not trainer.is_global_zero:
            return
        earlier = read_sessions(self.path) if self.path.is_file() else []
        if earlier and earlier[-1].get("started") == session["started"]:
            earlier = earlier[:-1]
        write_json(self.path, {"sessions": [*earlier, session]}, indent=2)
