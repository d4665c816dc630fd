"""A run and images that it evaluated become what is explained.

The heatmaps of a training's best network, checked at its end.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxrlab.data.boxes import framed
from cxrlab.data.dataset import FileImages, manifest_of
from cxrlab.errors import ConfigError, UserError
from cxrlab.files import write_text
from cxrlab.heatmaps.cases import case_table, pick_cases
from cxrlab.heatmaps.checks.run_checks import check_heatmaps
from cxrlab.heatmaps.drawing import draw_panels, write_gallery
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.names import METHOD_NAMES
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.predictions import DataFacts, read_predictions
from cxrlab.runs.predict import predict_table
from cxrlab.runs.run_data import PredictedImages, with_pixels

if TYPE_CHECKING:
    import pandas as pd

    from cxrlab.data.datamodule import DataModule
    from cxrlab.runs.run import Run
    from cxrlab.training.module import Classifier


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


def explain_task_of(
    classifier: "Classifier",
    predicted: "PredictedImages",
    settings: ExplanationSettings,
    *,
    labels: Sequence[str],
    data: "DataModule | None",
    thresholds: "np.typing.NDArray[np.float64] | None",
) -> ExplainTask:
    """Return what is explained.

    Args:
        classifier: In evaluation mode, on the device where it is to be explained.
        predicted: What it said of the images, with their manifest and pixels.
        settings: How.
        labels: Those of ``evaluated.table`` of which checks without boxes are made.
        data: The run's own, for training images to compare with and validation boxes; None where it is not
            there.
        thresholds: Of the labels of ``evaluated.table``; None for 0.5.

    Raises:
        ValueError: If ``predicted`` has no pixels.
        ConfigError: If there is no such label.
    """
    manifest, images, table = predicted.manifest, predicted.images, predicted.table
    if manifest is None or images is None or len(predicted.rows) != len(table):
        raise ValueError(f"{table.source} comes without the pixels of its {len(table)} images.")
    unknown = [label for label in labels if label not in table.labels]
    if unknown:
        raise ConfigError(f"labels names {unknown[0]!r}; the labels at hand are {', '.join(table.labels)}.")
    outputs = np.array([classifier.labels.index(label) for label in table.labels])
    rows = np.asarray(predicted.rows, dtype=np.int64)
    cases = case_table(rows, table.probabilities, table.targets, table.labels, thresholds)
    cases["label"] = outputs[cases["label"]]
    is_own = data is not None and predicted.images is data.images
    return ExplainTask(
        classifier=classifier,
        settings=settings,
        images=images,
        manifest=framed(manifest, images),
        cases=cases,
        labels=[classifier.labels.index(label) for label in labels],
        background=None if data is None else training_images(data, settings.num_background, settings.seed),
        validation=data.rows("val") if data is not None and is_own and table.part != "val" else (),
    )


def predict_files(run: "Run", paths: Sequence[Path], batch_size: int, device: str) -> "PredictedImages":
    """Return image files of any size with what a run says of them.

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


def training_images(data: "DataModule", number: int, seed: int) -> Tensor:
    """Return some images of the training part, drawn at random, uint8, shape ``(K, C, H, W)``."""
    rows = np.random.default_rng(seed).permutation(data.rows("train"))[:number]
    return torch.from_numpy(data.images[np.sort(rows)])


log = logging.getLogger(__name__)


def explain_training(
    run_dir: Path,
    classifier: "Classifier",
    data: "DataModule",
    facts: DataFacts,
    *,
    part: str,
    settings: ExplanationSettings,
) -> None:
    """Write ``explanation.json``, and ``heatmaps/flagged/`` where something is flagged.

    What goes wrong is said in a warning: an evaluation must not be lost for its heatmaps, whether these do
    not fit the network, are not finite, cannot be written, or need more memory than a GPU has.

    Args:
        run_dir: With ``results.csv`` and the predictions of the part.
        classifier: With the weights of the best epoch.
        data: Prepared.
        facts: What the images are.
        part: ``val`` or ``test``.
        settings: How.
    """
    log.info("Checking heatmaps ...")
    with _told_only(settings.batch_size):
        table = read_predictions(run_dir / "predictions" / f"{part}.csv")
        predicted = with_pixels(PredictedImages(table, facts), data)
        labels = best_labels(pd.read_csv(run_dir / "results.csv"), classifier.labels, settings.num_labels)
        classifier.eval()
        explain_task = explain_task_of(
            classifier,
            predicted,
            settings,
            labels=labels,
            data=data,
            thresholds=classifier.operating_point.thresholds.double().cpu().numpy(),
        )
        numbers, examples = check_heatmaps(explain_task)
        save_checks(run_dir / "explanation.json", numbers, predicted)
        draw_examples(run_dir / "heatmaps" / "flagged", explain_task, examples)


@contextmanager
def _told_only(batch_size: int) -> Iterator[None]:
    """Turn what may go wrong with heatmaps into a warning."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        log.warning(
            "The heatmaps were not checked to the end: %s. With a smaller explanation.batch_size, now %d, "
            "cxrlab.explain does it afterwards.",
            str(error).split(". ")[0],
            batch_size,
        )
    except (UserError, OSError) as error:
        log.warning("The heatmaps were not checked to the end: %s", error)


def save_checks(path: Path, numbers: dict[str, Any], predicted: PredictedImages) -> None:
    """Write what the checks found, and on which images."""
    facts = {
        "name": predicted.facts.name,
        "part": predicted.table.part,
        "fingerprint": predicted.facts.fingerprint,
    }
    write_text(path, json.dumps({"data": facts, **numbers}, indent=1, allow_nan=False) + "\n")


def draw_examples(folder: Path, explain_task: ExplainTask, examples: list[Pair]) -> None:
    """Draw what the checks flag, by the first method; nothing where there is nothing."""
    if not examples:
        return
    method = explain_task.settings.methods[0]
    panels = draw_panels(
        pick_cases(explain_task.cases, examples),
        explain_task.manifest,
        read_image=explain_task.image,
        explain={METHOD_NAMES[method]: explain_task.explain(method)},
        num_images=explain_task.settings.batch_size,
    )
    write_gallery(folder, panels, explain_task.manifest)
