"""Baselines of a run: fitted on its training part; those of its own parts are kept beside its predictions.

Where they are kept, a later evaluation needs no image for them.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.lung_region import LEAST_FOUND
from cxrlab.data.manifest import COVARIATE, LABEL
from cxrlab.errors import OutputError, UserError
from cxrlab.evaluation.baseline_features import ImageFeatures, image_features
from cxrlab.evaluation.baselines import (
    SEES,
    Baseline,
    BaselineName,
    Baselines,
    Fitted,
    Part,
    fit_baselines,
)
from cxrlab.evaluation.covariate_features import CovariateFeatures
from cxrlab.files import replacing
from cxrlab.metrics.logistic import Features
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.runs.predict import ImageRows
from cxrlab.runs.run_data import PredictedImages, with_pixels

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

log = logging.getLogger(__name__)

_MOST_TRAINING, _MOST_VALIDATION = 20_000, 10_000  # images, of patients drawn at random
_NO_IMAGES = "the images of the training could not be read"
_OF_IMAGES: tuple[BaselineName, ...] = ("grey", "margin", "features", "shuffled")


def run_baselines(
    run: "Run",
    predicted: PredictedImages,
    settings: EvaluationSettings,
    *,
    root: Path | str | None = None,
    keeps: bool = False,
) -> Baselines:
    """Return baselines for images that a run predicted: those it kept, else new ones.

    What goes wrong is said in a warning, and the reason stands in the result: no evaluation is lost for its
    baselines.

    Args:
        run: The run.
        predicted: The images.
        settings: ``min_positives``: labels with fewer positives in training are not fitted; ``seed``.
        root: Folder of the run's data, where it was moved; None for where it was.
        keeps: Whether to write them beside the run's predictions.
    """
    kept = None if predicted.is_external else _read_kept(run, predicted.table)
    if kept is not None:
        return kept
    start = time.perf_counter()
    try:
        baselines = _fitted(run, predicted, settings, root)
    except UserError as error:
        log.warning("There are no baselines: %s", error)
        return Baselines(left_out=dict.fromkeys(get_args(BaselineName), "they could not be computed"))
    baselines = replace(baselines, seconds=round(time.perf_counter() - start, 1))
    if keeps and not predicted.is_external:
        _keep(run, predicted.table, baselines)
    return baselines


def external_baselines(
    validation: PredictionTable | None, table: PredictionTable, settings: EvaluationSettings
) -> Baselines | None:
    """Return the baseline of covariates for another program's predictions, fitted on their validation part.

    Returns:
        None without a validation part, or without covariates.
    """
    if validation is None or not len(validation.covariates.columns):
        return None
    start = time.perf_counter()
    chosen = validation.select_labels(table.labels)
    parts = [
        Part({}, one.covariates, one.targets, one.patients if one.patients_known else None, len(one))
        for one in (chosen, table)
    ]
    models = fit_baselines(
        parts[0], None, parts[1], least=settings.min_positives, seed=settings.seed, part="validation"
    )
    if not models:
        return None
    return Baselines(models, seconds=round(time.perf_counter() - start, 1))


def _fitted(
    run: "Run", predicted: PredictedImages, settings: EvaluationSettings, root: Path | str | None
) -> Baselines:
    labels = predicted.table.labels
    sampled = {
        part: _drawn(run.manifest, part, most, settings.seed)
        for part, most in (("train", _MOST_TRAINING), ("val", _MOST_VALIDATION))
    }
    features: dict[str, Mapping[BaselineName, Features]] = {"train": {}, "val": {}, "evaluated": {}}
    left_out: dict[BaselineName, str] = {}
    regions_found = None
    try:
        found = _image_features(run, predicted, sampled, root)
    except (UserError, OSError) as error:
        log.warning("The baselines of images are left out: %s", error)
        left_out |= dict.fromkeys(_OF_IMAGES, _NO_IMAGES)
    else:
        regions_found = float(found["evaluated"].has_lungs.mean())
        has_margin = regions_found >= LEAST_FOUND
        if not has_margin:
            left_out["margin"] = (
                f"lungs were found in {100 * regions_found:.0f} % of the images only, so there is no margin "
                "around them"
            )
        features |= {part: _by_name(one, has_margin=has_margin) for part, one in found.items()}
    training, validation = (
        _part(run.manifest, rows, labels, features[part], available)
        for part, (rows, available) in sampled.items()
    )
    table = predicted.table
    evaluated = Part(features["evaluated"], table.covariates, table.targets, table.patients, len(table))
    models = fit_baselines(training, validation, evaluated, least=settings.min_positives, seed=settings.seed)
    if "covariates" not in models:
        left_out["covariates"] = _without_covariates(training)
    reason = f"no label has {settings.min_positives} positives and negatives in training"
    left_out |= {name: reason for name in get_args(BaselineName) if name not in (models | left_out)}
    return Baselines(models, left_out, regions_found)


def _without_covariates(training: Part) -> str:
    """Return why there is no baseline of covariates."""
    part_of_label = CovariateFeatures.of(training.covariates, training.targets).left_out
    if part_of_label:
        return f"{', '.join(part_of_label)} is known of images with the finding only"
    return "there are no covariates that vary"


def _drawn(manifest: pd.DataFrame, part: str, most: int, seed: int) -> tuple[npt.NDArray[np.intp], int]:
    """Return rows of a part, all images of patients drawn at random, and how many rows it has."""
    rows = np.flatnonzero((manifest["part"] == part).to_numpy())
    if len(rows) <= most:
        return rows, len(rows)
    _, owners = np.unique(manifest["patient"].to_numpy(dtype=str)[rows], return_inverse=True)
    places = np.random.default_rng(seed).permutation(int(owners.max()) + 1)[owners]
    order = np.argsort(places, kind="stable")
    is_whole = np.flatnonzero(np.diff(places[order[: most + 1]], append=-1)) + 1  # ends of patients
    end = int(is_whole[is_whole <= most].max(initial=0))
    return np.sort(rows[order[:end]]), len(rows)


def _image_features(
    run: "Run",
    predicted: PredictedImages,
    sampled: Mapping[str, tuple[npt.NDArray[np.intp], int]],
    root: Path | str | None,
) -> dict[str, ImageFeatures]:
    data = run.data(None if root is None else root)
    row_of_image = {image: row for row, image in enumerate(data.manifest.table["image"])}
    found = {}
    for part, (rows, _) in sampled.items():
        images = [row_of_image[image] for image in run.manifest["image"].iloc[rows]]
        found[part] = image_features(data.images, images, "training" if part == "train" else "validation")
    own_images, own_rows = _evaluated_rows(with_pixels(predicted, data))
    found["evaluated"] = image_features(own_images, own_rows, "the images evaluated")
    return found


def _evaluated_rows(predicted: PredictedImages) -> tuple[ImageRows, Sequence[int]]:
    """Return the pixels of the table's images, which may be fewer than those that were predicted."""
    manifest, images = predicted.manifest, predicted.images
    if manifest is None or images is None:
        raise OutputError("The images that were predicted are not at hand.")
    row_of_image = {image: row for row, image in enumerate(manifest.table["image"])}
    return images, [row_of_image[image] for image in predicted.table.images]


def _by_name(found: ImageFeatures, *, has_margin: bool) -> dict[BaselineName, Features]:
    features: dict[BaselineName, Features] = {"grey": found.grey}
    if has_margin:
        features["margin"] = found.margin
    return features | {"features": found.whole}


def _part(
    manifest: pd.DataFrame,
    rows: npt.NDArray[np.intp],
    labels: Sequence[str],
    features: Mapping[BaselineName, Features],
    available: int,
) -> Part:
    chosen = manifest.iloc[rows].reset_index(drop=True)
    names = [str(name) for name in chosen if str(name).startswith(COVARIATE)]
    _, owners = np.unique(chosen["patient"].to_numpy(dtype=str), return_inverse=True)
    return Part(
        features,
        chosen[names].rename(columns=lambda name: str(name).removeprefix(COVARIATE)),
        chosen[[LABEL + label for label in labels]].to_numpy(dtype=np.float64),
        owners.astype(np.int64),
        available,
    )


def _keep(run: "Run", table: PredictionTable, baselines: Baselines) -> None:
    """Write baselines of one of a run's parts."""
    about = {
        "fingerprint": run.facts.fingerprint,
        "models": {
            name: {"penalty": one.penalty, "inputs": one.inputs, "fitted": asdict(one.fitted)}
            for name, one in baselines.models.items()
        },
        "left_out": baselines.left_out,
        "regions_found": baselines.regions_found,
        "seconds": baselines.seconds,
    }
    arrays: dict[str, Any] = {f"scores_{name}": one.scores for name, one in baselines.models.items()}
    path = run.files.baselines(table.part)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                about=np.array(json.dumps(about)),
                images=table.images.astype(str),
                labels=np.array(table.labels),
                **arrays,
            )
    except OSError as error:
        log.warning("The baselines are not kept in %s: %s", path, error)


def _read_kept(run: "Run", table: PredictionTable) -> Baselines | None:
    """Return the baselines that a run kept of its part; None where there are none of these images."""
    path = run.files.baselines(table.part)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            if about["fingerprint"] != run.facts.fingerprint or not set(about["models"]) <= set(SEES):
                return None
            row_of_image = {image: row for row, image in enumerate(kept["images"].tolist())}
            column_of_label = {label: column for column, label in enumerate(kept["labels"].tolist())}
            rows = [row_of_image[image] for image in table.images.tolist()]
            columns = [column_of_label[label] for label in table.labels]
            models: dict[BaselineName, Baseline] = {
                name: Baseline(
                    kept[f"scores_{name}"][:, rows][:, :, columns],
                    float(one["penalty"]),
                    Fitted(**one["fitted"]),
                    tuple(one["inputs"]),
                )
                for name, one in about["models"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        log.info("%s does not hold the baselines of these images, which are computed: %s", path, error)
        return None
    return Baselines(models, about["left_out"], about["regions_found"], about["seconds"])
