"""``trainer.precision=auto``: fp32 or bf16, by measuring a few steps of the very network."""

import copy
import hashlib
import json
import logging
import time
from pathlib import Path

import torch
import yaml
from torch import Tensor

from cxrlab.files import write_text
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

FULL, HALF = "32-true", "bf16-mixed"
# bf16 rounds to three digits; it has to be worth it.
_LEAST_GAIN = 1.1
_BATCH_SIZE = 8
_NUM_STEPS = 2
# The first compute capability with bf16 arithmetic: Ampere.
_CAPABILITY = (8, 0)


def choose_precision(
    classifier: Classifier, images: Tensor, targets: Tensor, *, device: torch.device, record: Path | None
) -> str:
    """Return ``bf16-mixed`` where a training step is at least a tenth faster with it, else ``32-true``.

    On a GPU its generation decides. On a CPU two steps of each are measured, on a copy of the network, with
    the random state put back; the fastest counts.

    Args:
        classifier: The network with its loss.
        images: uint8, shape ``(B, C, H, W)``; at most 8 of them are used.
        targets: Shape ``(B, L)``.
        device: Where the training will be.
        record: A JSON file that keeps the choice by network and size, so that the jobs of a sweep train
            alike; None outside a sweep.
    """
    if device.type != "cpu":
        is_able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY
        return HALF if is_able else FULL
    key = _key(classifier, images)
    known = json.loads(record.read_text(encoding="utf-8")) if record is not None and record.is_file() else {}
    if key in known:
        log.info("Precision: %s, as measured by an earlier job of this sweep", known[key])
        return str(known[key])
    seconds = _measure(classifier, images[:_BATCH_SIZE], targets[:_BATCH_SIZE])
    gain = seconds[FULL] / seconds[HALF]
    chosen = HALF if gain >= _LEAST_GAIN else FULL
    log.info(
        "Precision: %s; with bf16 autocast a step of %d images takes %.0f ms, without %.0f ms",
        chosen, min(len(images), _BATCH_SIZE), 1000 * seconds[HALF], 1000 * seconds[FULL],
    )  # fmt: skip
    if record is not None:
        write_text(record, json.dumps(known | {key: chosen}, indent=2) + "\n")
    return chosen


def saved_precision(run_dir: Path) -> str | None:
    """Return the precision that a run was started with, or None where it says none."""
    path = run_dir / ".hydra" / "resolved.yaml"
    if not path.is_file():
        return None
    saved = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("trainer", {}).get("precision")
    return None if saved in (None, "auto") else str(saved)


def _key(classifier: Classifier, images: Tensor) -> str:
    described = [dict(classifier.hparams["network"]), list(images.shape[1:]), str(classifier.memory_format)]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _measure(classifier: Classifier, images: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the seconds of the fastest forward and backward pass, in either precision by turns."""
    model = copy.deepcopy(classifier).train()
    best = {FULL: float("inf"), HALF: float("inf")}
    with torch.random.fork_rng(devices=[]):
        for step in range(_NUM_STEPS + 1):
            for precision in best:
                start = time.perf_counter()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == HALF):
                    loss = model.measured_loss(images, targets)
                loss.backward()  # type: ignore[no-untyped-call]
                model.zero_grad()
                if step > 0:  # the first warms up
                    best[precision] = min(best[precision], time.perf_counter() - start)
    return best
