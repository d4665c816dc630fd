"""What is explained: a classifier, images with what it predicted of them, and whose boxes are known.

It is built in one way from predicted images, at the end of a training and by the command.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from cxrlab.data.boxes import framed
from cxrlab.data.datamodule import DataModule
from cxrlab.data.dataset import FileImages, manifest_of
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError
from cxrlab.heatmaps.cases import Explain, case_table
from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.random_networks import randomised
from cxrlab.heatmaps.results import ExplainedData
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.metrics.predictions import DataFacts
from cxrlab.runs.predict import ImageRows, predict_table
from cxrlab.runs.run import Run
from cxrlab.runs.run_data import PredictedImages
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
            networks with random weights take statistics from; None where there are none.
        validation: Rows of validation images.
        data: What the images are.
    """

    classifier: Classifier
    settings: ExplanationSettings
    images: ImageRows
    manifest: Manifest
    cases: pd.DataFrame
    labels: Sequence[int]
    background: Tensor | None = None
    validation: Sequence[int] = ()
    data: ExplainedData = field(default_factory=ExplainedData)

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


def explain_task_of(
    classifier: Classifier,
    images: PredictedImages,
    settings: ExplanationSettings,
    *,
    labels: Sequence[str],
    data: DataModule | None,
    thresholds: npt.NDArray[np.float64] | None,
) -> ExplainTask:
    """Return what is explained.

    Args:
        classifier: In evaluation mode, on the device where it is to be explained.
        images: With its predictions, their manifest and pixels.
        settings: How.
        labels: Those of ``images.table`` of which checks without boxes are made.
        data: The run's own, for training images to compare with and validation boxes; None where it is not
            there.
        thresholds: Of the labels of ``images.table``; None for 0.5.

    Raises:
        ValueError: If ``images`` has no pixels.
        ConfigError: If there is no such label.
    """
    manifest, pixels, table = images.manifest, images.images, images.table
    if manifest is None or pixels is None or len(images.rows) != len(table):
        raise ValueError(f"{table.source} comes without the pixels of its {len(table)} images.")
    unknown = [label for label in labels if label not in table.labels]
    if unknown:
        raise ConfigError(f"labels names {unknown[0]!r}; the labels at hand are {', '.join(table.labels)}.")
    outputs = np.array([classifier.labels.index(label) for label in table.labels])
    rows = np.asarray(images.rows, dtype=np.int64)
    cases = case_table(rows, table.probabilities, table.targets, table.labels, thresholds)
    cases["label"] = outputs[cases["label"]]
    is_own = data is not None and images.images is data.images
    return ExplainTask(
        classifier=classifier,
        settings=settings,
        images=pixels,
        manifest=framed(manifest, pixels),
        cases=cases,
        labels=[classifier.labels.index(label) for label in labels],
        background=None if data is None else training_images(data, settings.num_background, settings.seed),
        validation=data.rows("val") if data is not None and is_own and table.part != "val" else (),
        data=ExplainedData(images.facts.name, table.part, images.facts.fingerprint),
    )


def best_labels(results: pd.DataFrame, labels: Sequence[str], number: int) -> list[str]:
    """Return the labels with the highest validation AUROC, in the order of the network's outputs.

    Args:
        results: As in ``results.csv``.
        labels: To choose from. Where the table has no AUROC of any, the first ones are taken.
        number: How many, at most.
    """
    validation = results[(results["part"] == "val") & results["label"].isin(labels)]
    ranked = validation.dropna(subset="auroc").sort_values("auroc", ascending=False, kind="stable")
    chosen = ranked["label"].tolist()
    chosen += [label for label in labels if label not in chosen]
    return [label for label in labels if label in chosen[:number]]


def predict_files(run: Run, paths: Sequence[Path], batch_size: int, device: str) -> PredictedImages:
    """Return image files of any size with a run's predictions.

    Raises:
        MissingFileError: If a file does not exist.
        DataError: If a file is no image.
    """
    shape = run.model.preprocess
    images = FileImages(paths, image_size=shape.image_size, channels=shape.channels, resize=shape.resize)
    manifest = manifest_of(paths, run.labels)
    rows = list(range(len(paths)))
    source = f"{manifest.name} predicted by {run.run_dir}"
    table = predict_table(
        run.model, manifest, images, rows, batch_size=batch_size, device=device, source=source
    )
    return PredictedImages(table, DataFacts("image files"), manifest, images, rows)


def training_images(data: DataModule, number: int, seed: int) -> Tensor:
    """Return some images of the training part, drawn at random, uint8, shape ``(K, C, H, W)``."""
    rows = np.random.default_rng(seed).permutation(data.rows("train"))[:number]
    return torch.from_numpy(data.images[np.sort(rows)])
