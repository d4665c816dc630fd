"""A run and images that it judged become what is explained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cxrlab.data.boxes import framed
from cxrlab.data.file_images import FileImages, manifest_of
from cxrlab.errors import ConfigError
from cxrlab.explain.cases import case_table
from cxrlab.explain.material import Material
from cxrlab.explain.settings import ExplanationSettings

if TYPE_CHECKING:
    import pandas as pd

    from cxrlab.data.datamodule import DataModule
    from cxrlab.evaluation.of_run import Judged
    from cxrlab.models.classifier import Classifier
    from cxrlab.run import Run


def best_labels(results: "pd.DataFrame", labels: Sequence[str], number: int) -> list[str]:
    """Return the labels with the highest validation AUROC, in the order of the network's outputs.

    Args:
        results: As in ``results.csv``.
        labels: To choose from. Where the table tells no AUROC of any, the first ones are taken.
        number: How many, at most.
    """
    validation = results[(results["part"] == "val") & results["label"].isin(labels)]
    ranked = validation.dropna(subset="auroc").sort_values("auroc", ascending=False, kind="stable")
    chosen = ranked["label"].tolist()
    chosen += [label for label in labels if label not in chosen]
    return [label for label in labels if label in chosen[:number]]


def material_of(
    classifier: "Classifier",
    judged: "Judged",
    settings: ExplanationSettings,
    *,
    labels: Sequence[str],
    data: "DataModule | None",
    thresholds: "np.typing.NDArray[np.float64] | None",
) -> Material:
    """Return what is explained.

    Args:
        classifier: In evaluation mode, on the device where it is to be explained.
        judged: What it said of the images, with their manifest and pixels.
        settings: How.
        labels: Those of ``judged.table`` of which checks without boxes are made.
        data: The run's own, for training images to compare with and validation boxes; None where it is not
            there.
        thresholds: Of the labels of ``judged.table``; None for 0.5.

    Raises:
        ValueError: If ``judged`` has no pixels.
        ConfigError: If there is no such label.
    """
    manifest, images, table = judged.manifest, judged.images, judged.table
    if manifest is None or images is None or len(judged.rows) != len(table):
        raise ValueError(f"{table.source} comes without the pixels of its {len(table)} images.")
    unknown = [label for label in labels if label not in table.labels]
    if unknown:
        raise ConfigError(f"labels names {unknown[0]!r}; the labels at hand are {', '.join(table.labels)}.")
    outputs = np.array([classifier.labels.index(label) for label in table.labels])
    rows = np.asarray(judged.rows, dtype=np.int64)
    cases = case_table(rows, table.probabilities, table.targets, table.labels, thresholds)
    cases["label"] = outputs[cases["label"]]
    is_own = data is not None and judged.images is data.images
    return Material(
        classifier=classifier,
        settings=settings,
        images=images,
        manifest=framed(manifest, images),
        cases=cases,
        labels=[classifier.labels.index(label) for label in labels],
        background=None if data is None else training_images(data, settings.num_background, settings.seed),
        validation=data.rows("val") if data is not None and is_own and table.part != "val" else (),
    )


def files_judged(run: "Run", paths: Sequence[Path], batch_size: int, device: str) -> "Judged":
    """Return image files of any size with what a run says of them.

    Raises:
        MissingFileError: If a file does not exist.
        DataError: If a file is no image.
    """
    from cxrlab.evaluation.judgement import DataFacts
    from cxrlab.evaluation.of_run import Judged, predicted

    shape = run.model.preprocess
    images = FileImages(paths, image_size=shape.image_size, channels=shape.channels, resize=shape.resize)
    manifest = manifest_of(paths, run.labels)
    rows = list(range(len(paths)))
    same = {label: label for label in run.labels}
    table = predicted(run, manifest, images, rows, same, batch_size, device)
    return Judged(table, DataFacts("image files"), manifest, images, rows)


def training_images(data: "DataModule", number: int, seed: int) -> Tensor:
    """Return some images of the training part, drawn at random, uint8, shape ``(K, C, H, W)``."""
    rows = np.random.default_rng(seed).permutation(data.rows("train"))[:number]
    return torch.from_numpy(data.images[np.sort(rows)])
