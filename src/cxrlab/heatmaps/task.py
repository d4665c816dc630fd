"""What is explained: a classifier, images with what it said of them, and whose boxes are known."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxrlab.data.manifest import Manifest
from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.dispatch import Explainer
from cxrlab.heatmaps.random_networks import randomised
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.runs.predict import ImageRows

if TYPE_CHECKING:
    from cxrlab.training.module import Classifier


@dataclass(frozen=True, kw_only=True)
class ExplainTask:
    """What heatmaps are made of, and checked against.

    Attributes:
        classifier: In evaluation mode, on the device where it is to be explained.
        settings: How.
        images: By rows of the manifest.
        manifest: Its boxes are fractions of the images as they were decoded.
        cases: Predictions, as of :func:`cxrlab.heatmaps.cases.case_table`; ``label`` counts the network's
            outputs.
        labels: Indices of the outputs of which checks without boxes are made.
        background: Decoded training images, uint8, shape ``(K, C, H, W)``: what SHAP compares with, and what
            networks with random weights are settled on; None where there are none.
        validation: Rows of validation images.
    """

    classifier: "Classifier"
    settings: ExplanationSettings
    images: ImageRows
    manifest: Manifest
    cases: pd.DataFrame
    labels: Sequence[int]
    background: Tensor | None = None
    validation: Sequence[int] = ()

    @property
    def names(self) -> list[str]:
        """Names of the network's outputs."""
        return list(self.classifier.labels)

    def explain(self, method: str, network: nn.Module | None = None) -> Explain:
        """Return a method with all it needs but images; of another network where one is given."""
        explainer = Explainer(method, self.settings, self.background)
        return functools.partial(explainer, self.classifier, network=network)

    def image(self, row: int) -> Tensor:
        """Return one image, uint8, shape ``(C, H, W)``."""
        return torch.from_numpy(self.images[[row]][0])

    def patient(self, row: int) -> str:
        """Return the patient of a row."""
        return str(self.manifest.table["patient"].iloc[row])

    def sample(self, num_images: int) -> list[Pair]:
        """Return pairs of a row and a label: positives drawn at random, as many of each of the labels.

        Where a label has no known positive, any image may be drawn. No image is drawn twice for a label.

        Args:
            num_images: Rounded up to as many for each label, where there are so many.
        """
        generator = np.random.default_rng(self.settings.seed)
        each = -(-num_images // max(len(self.labels), 1))
        drawn: list[Pair] = []
        for label in self.labels:
            of_label = self.cases[self.cases["label"] == label]
            positives = of_label[of_label["target"] == 1]
            rows = (positives if len(positives) else of_label)["row"].to_numpy()
            chosen = generator.permutation(rows)[:each]
            drawn += [(int(row), label) for row in np.sort(chosen)]
        return drawn

    def num_positive(self, cases: Sequence[Pair]) -> int:
        """Return of how many pairs of a row and a label the finding is known to be there."""
        targets = self.cases.set_index(["row", "label"])["target"]
        return int((targets.loc[list(cases)] == 1).sum())

    def random_networks(self) -> Iterator[Iterator[tuple[str, nn.Module]]]:
        """Yield, for each seed, the networks on the way from the trained one to one with random weights."""
        fitted_on = self.background
        if fitted_on is None:
            rows = self.cases["row"].drop_duplicates().tolist()[: self.settings.num_background]
            fitted_on = torch.from_numpy(self.images[rows])
        for number in range(self.settings.num_random_networks):
            yield randomised(
                self.classifier,
                fitted_on,
                seed=self.settings.seed + number,
                batch_size=self.settings.batch_size,
            )
