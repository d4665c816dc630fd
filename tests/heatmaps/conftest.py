from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from cxrlab.cli import config
from cxrlab.data.manifest import BOX_COLUMNS, LABEL, Manifest
from cxrlab.heatmaps.cases import Explain, case_table
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.training.module import Classifier

LABELS = ("Mass", "Edema")
SIDE = 16
NETWORK: Mapping[str, Any] = {
    "_target_": "cxrlab.models.sequential.SequentialNetwork",
    "layers": [{"conv": 3}, "pool"],
    "padding": "same",
    "output_dropout": 0.0,
    "num_labels": len(LABELS),
    "channels": 1,
    "image_size": SIDE,
}
# As little as the checks can do with.
SMALL: Mapping[str, Any] = {
    "methods": ["gradcam"],
    "batch_size": 4,
    "num_random_networks": 2,
    "num_checked": 4,
    "num_located": 4,
    "num_curve_steps": 4,
    "num_resamples": 100,
}


@dataclass(frozen=True, kw_only=True)
class DrawnTask(ExplainTask):
    """What is explained, by heatmaps that are drawn by hand.

    Attributes:
        draw: Gives the heatmaps of a method and a network, None for the classifier's own; None for real ones.
    """

    draw: Callable[[str, nn.Module | None], Explain] | None = None

    def explain(self, method: str, network: nn.Module | None = None) -> Explain:
        return super().explain(method, network) if self.draw is None else self.draw(method, network)


class NumberedImages:
    """Images that are told by their first pixel, which is their row; the rest is noise of a pattern each."""

    resize = "stretch"

    def __init__(self, num_images: int) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, (num_images, 1, SIDE, SIDE), dtype=np.uint8)
        self._pixels[:, 0, 0, 0] = np.arange(num_images)
        self.facts = pd.DataFrame({"width": [SIDE] * num_images, "height": [SIDE] * num_images})

    def __getitem__(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        return np.asarray(self._pixels[np.asarray(rows, dtype=np.intp)])


def small_classifier(module: nn.Module | None = None) -> Classifier:
    torch.manual_seed(7)
    return Classifier(
        labels=list(LABELS),
        preprocess={"normalize": "none", "image_size": SIDE, "channels": 1},
        network=NETWORK if module is None else {"_target_": "elsewhere.Network"},
        module=module,
    ).eval()


MakeTask = Callable[..., DrawnTask]


@pytest.fixture(scope="session")
def make_task() -> MakeTask:
    """Make what is explained of targets ``(N, 2)`` by image: ``make_task(targets, boxes, methods=[…])``."""
    shipped: ExplanationSettings = instantiate(
        OmegaConf.load(config.config_dir() / "explanation" / "default.yaml")
    )

    def function(
        targets: Sequence[Sequence[float]],
        boxes: Sequence[tuple[int, str, float, float, float, float]] = (),
        *,
        patients: Sequence[str] | None = None,
        validation: Sequence[int] = (),
        labels: Sequence[int] = (0, 1),
        draw: Callable[[str, nn.Module | None], Explain] | None = None,
        module: nn.Module | None = None,
        background: Tensor | None = None,
        probabilities: npt.NDArray[np.float64] | None = None,
        **changes: Any,
    ) -> DrawnTask:
        count = len(targets)
        known = np.array(targets, dtype=np.float64).reshape(count, len(LABELS))
        names = [str(row) for row in range(count)] if patients is None else list(patients)
        table = pd.DataFrame({"image": [f"{row}.png" for row in range(count)], "patient": names, "split": ""})
        table = table.assign(**{LABEL + name: known[:, place] for place, name in enumerate(LABELS)})
        lines = pd.DataFrame([(f"{row}.png", *rest) for row, *rest in boxes], columns=list(BOX_COLUMNS))
        rows = np.array([row for row in range(count) if row not in set(validation)], dtype=np.int64)
        said = np.full(known.shape, 0.5) if probabilities is None else probabilities
        return DrawnTask(
            classifier=small_classifier(module),
            settings=replace(shipped, **(SMALL | changes)),
            images=NumberedImages(count),
            manifest=Manifest(Path("/data"), table, lines),
            cases=case_table(rows, said[rows], known[rows], LABELS),
            labels=labels,
            background=background,
            validation=validation,
            draw=draw,
        )

    return function
