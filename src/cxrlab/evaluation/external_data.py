"""What a run says of images: of its own parts as it predicted them, and of other data sets, predicted now.

Images and patients that a network was trained on, among those it is to be evaluated on.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrlab.data.dataset import Dataset, FramedImages
from cxrlab.data.duplicates.overlap import find_shared, read_other
from cxrlab.data.manifest import COVARIATE, Manifest
from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.evaluation.operating_point import Thresholds, from_validation, threshold_source
from cxrlab.evaluation.synonyms import match_labels
from cxrlab.metrics.calibration import Calibrator
from cxrlab.metrics.predictions import PROBABILITY, TARGET, PredictionTable, read_predictions
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.runs.predict import ImageRows, predict_images
from cxrlab.runs.run import Run

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule


log = logging.getLogger(__name__)


SEEN = ("train", "val")


_UNCHECKED = (
    "Whether the network was trained on some of these images could not be checked in full: {} of its own "
    "images are there to be compared."
)


def check_not_trained_on(run: Run, patients: Sequence[str], seen: Sequence[str] = SEEN) -> None:
    """Refuse patients that a run was trained or validated on.

    Args:
        run: The run.
        patients: Patient of each image that it is to be evaluated on, of the run's own data set: those of
            another have other numbers.
        seen: Parts of the run whose patients are refused.

    Raises:
        DataError: Naming some of them.
    """
    known = set(run.manifest.loc[run.manifest["part"].isin(seen), "patient"])
    shared = [patient for patient in patients if patient in known]
    if shared:
        raise DataError(
            f"{len(shared)} of the {len(patients)} images are of {len(set(shared))} patients that "
            f"{run.run_dir} was trained or validated on, such as {sorted(set(shared))[:3]}: no evaluation of "
            "it could be believed. Its own test part is evaluated by run=<the run> alone."
        )


def without_shared(
    run: Run, dataset: Dataset, rows: Sequence[int], decode: Callable[[Manifest], Dataset]
) -> tuple[list[int], str, bool]:
    """Leave out the images that a run was trained on, found by their content, and all of their patients.

    Args:
        run: The run.
        dataset: The data set to evaluate it on.
        rows: Those of its rows that are evaluated.
        decode: Reads the images of the run's own manifest.

    Returns:
        The rows that are left, what the reader must be told, and whether all of the run's images were there
        to be compared.

    Raises:
        DataError: If none is left.
    """
    try:
        other = read_other(run.run_dir, None)
    except (MissingFileError, DataError) as error:
        log.warning("Whether the run was trained on some of these images cannot be told: %s", error)
        return list(rows), _UNCHECKED.format("none"), False
    known = other.table.loc[other.table["part"].isin(SEEN), "image"]
    num_there = sum((other.root / image).is_file() for image in known)
    is_complete = num_there == len(known)
    shared = find_shared(dataset, decode(other))
    shared = shared[shared["other_part"].isin(SEEN)]
    table = dataset.manifest.table
    patients = set(table.loc[table["image"].isin(shared["image"]), "patient"])
    predicted = zip(rows, table["patient"].iloc[list(rows)], strict=True)
    left = [row for row, patient in predicted if patient not in patients]
    if not left:
        raise DataError(f"{run.run_dir} was trained on these very images: nothing is left to evaluate it on.")
    if len(left) < len(rows):
        note = (
            f"{len(rows) - len(left)} images of {len(patients)} patients are left out: the network was "
            "trained on images of them (found by content)."
        )
        log.warning("%s", note)
    else:
        note = "None of these images is among those that the network was trained on (compared by content)."
    return left, note if is_complete else f"{note} {_UNCHECKED.format(num_there)}", is_complete


def check_validation_differs(validation: PredictionTable, table: PredictionTable) -> tuple[str, ...]:
    """Refuse to choose thresholds on images that are then evaluated by them.

    Args:
        validation: What thresholds and calibration are chosen on.
        table: What is evaluated.

    Returns:
        What the reader must be told: that patients are in both, where they are.

    Raises:
        DataError: Naming some of the images that are in both.
    """
    ours, theirs = list(validation.images), list(table.images)
    if not (_have_folders(ours) and _have_folders(theirs)):  # one is written without: files tell
        ours, theirs = ([str(name).rpartition("/")[2] for name in names] for names in (ours, theirs))
    shared = sorted(set(ours) & set(theirs))
    if shared:
        raise DataError(
            f"{len(shared)} images are in {validation.source} and in {table.source}, such as {shared[:3]}: a "
            "threshold chosen on the images that it is evaluated on flatters. Give another validation part, or "
            "threshold=<a number>."
        )
    if validation.patient_names is None or table.patient_names is None:
        return ()
    patients = set(validation.patient_names) & set(table.patient_names)
    if not patients:
        return ()
    return (
        f"{len(patients)} patients are in the validation part and among those evaluated: thresholds and "
        "calibration are flattered.",
    )


def _have_folders(names: Sequence[str]) -> bool:
    return any("/" in name for name in names)


@dataclass(frozen=True)
class PredictedImages:
    """Images with predictions, and what is known of them.

    Attributes:
        table: The predictions.
        facts: What the images are.
        manifest: Their manifest, whose rows ``rows`` they are; None where nothing was read from disk.
        images: The pixels of the manifest.
        rows: Shape ``(N,)``.
        notes: What the reader must be told.
        is_external: Whether they are of another data set than the run's own.
        unseen: Whether it is known that the run was trained on none of them; None where the part tells.
        validation: The run's validation part, predicted as the table was where that is not as in training:
            its own thresholds and calibration do not fit then. None where they do.
    """

    table: PredictionTable
    facts: DataFacts
    manifest: Manifest | None = None
    images: FramedImages | None = None
    rows: Sequence[int] = ()
    notes: tuple[str, ...] = ()
    is_external: bool = False
    unseen: bool | None = None
    validation: PredictionTable | None = None


def run_data(run_dir: Path) -> dict[str, Any]:
    """Return what provenance.json says of the data: ``name``, ``fingerprint``, ``split``; or nothing."""
    path = run_dir / "provenance.json"
    if not path.is_file():
        return {}
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["sessions"][-1]["data"]
    return data


def run_facts(run_dir: Path) -> DataFacts:
    """Return what a run was trained and tested on."""
    data = run_data(run_dir)
    split = data.get("split", {}).get("method")
    return DataFacts(str(data.get("name", "")), split, data.get("fingerprint"))


def own_part(
    run: Run, part: str, build: Callable[[], "DataModule"], batch_size: int, device: str, *, recompute: bool
) -> PredictedImages:
    """Return the predictions of one of the run's own parts: those it wrote, else new ones.

    Args:
        run: The run.
        part: ``train``, ``val`` or ``test``.
        build: Makes its data module.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        recompute: Predict them also where the run wrote predictions: with other views of the images, say.

    Raises:
        DataError: If its data are no longer those that it was trained on.
    """
    path = run.run_dir / "predictions" / f"{part}.csv"
    if path.is_file() and not recompute:
        return PredictedImages(read_predictions(path), run_facts(run.run_dir))
    why = "Views are others than the run's" if recompute else f"The run has no predictions/{part}.csv"
    log.info("%s: the images of its part %s are predicted now.", why, part)
    data = own_data(run, build)
    rows = data.rows(part)
    same = {label: label for label in run.labels}
    table = predicted(run, data.manifest, data.images, rows, same, batch_size, device)
    return PredictedImages(table, run_facts(run.run_dir), data.manifest, data.images, rows)


def own_data(run: Run, build: Callable[[], "DataModule"]) -> "DataModule":
    """Return a run's own data, prepared.

    Raises:
        DataError: If they are no longer those that it was trained on.
    """
    data = build()
    manifest = data.prepare()
    wanted = run_facts(run.run_dir).fingerprint
    if wanted is not None and manifest.fingerprint() != wanted:
        raise DataError(
            f"The data below {manifest.root} are not those that {run.run_dir} was trained on (fingerprint "
            f"{manifest.fingerprint()} for {wanted}), so its parts cannot be told. Bring them back as they "
            "were (root=<folder> where they were moved)."
        )
    return data


def with_pixels(predicted: PredictedImages, data: "DataModule") -> PredictedImages:
    """Add manifest and pixels to predictions of one of a run's own parts that were read from its table.

    Args:
        predicted: Its images are among those of ``data``.
        data: Prepared.
    """
    if predicted.images is not None:
        return predicted
    row_of = {image: row for row, image in enumerate(data.manifest.table["image"])}
    rows = [row_of[image] for image in predicted.table.images]
    return replace(predicted, manifest=data.manifest, images=data.images, rows=rows)


def with_validation(
    run: Run, predicted: PredictedImages, build: Callable[[], "DataModule"], batch_size: int, device: str
) -> PredictedImages:
    """Add the run's validation part, predicted with the views that its model has now.

    The thresholds and the calibration of its checkpoint are of probabilities with the views it was trained
    with. Arguments and errors are those of :func:`own_part`.
    """
    is_it = predicted.table.part == "val" and not predicted.is_external
    own = predicted if is_it else own_part(run, "val", build, batch_size, device, recompute=True)
    note = (
        f"Probabilities are the mean over the views {', '.join(run.model.views)}, which are not those of the "
        "training; thresholds and calibration were chosen anew, on validation images predicted so."
    )
    return replace(predicted, validation=own.table, notes=(*predicted.notes, note))


def other_data(
    run: Run, data: "DataModule", part: str, groups: Sequence[Sequence[str]], batch_size: int, device: str
) -> PredictedImages:
    """Return a run's predictions of another data set: an external evaluation.

    Images that the run was trained on are left out where its own images can still be read.

    Args:
        run: The run.
        data: The other data set, decoded as the run's images were.
        part: ``all``, or one of the parts that ``data`` is split into.
        groups: Names of labels that mean the same.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DataError: If no label is shared, or patients of the training are among its images.
    """
    if part == "all":
        dataset = data.gather()
        rows = list(range(len(dataset)))
    else:
        data.prepare()
        dataset, rows = data.dataset, data.rows(part)
    manifest = dataset.manifest
    matched = match_labels(run.labels, manifest.labels, groups)
    if not matched:
        raise DataError(
            f"No label of {run.run_dir} {run.labels} is one of {manifest.name or manifest.root} "
            f"{manifest.labels}. Name those that mean the same in synonyms.groups."
        )
    if _is_own(run, manifest, rows):
        check_not_trained_on(run, manifest.table["patient"].iloc[rows].tolist())
    rows, note, unseen = without_shared(run, dataset, rows, data.decode)
    notes: tuple[str, ...] = (note,)
    log.info("Labels: %s", ", ".join(f"{own} = {other}" for own, other in matched.items()))
    if len(matched) < len(run.labels):
        left = [label for label in run.labels if label not in matched]
        notes += (f"{manifest.name} has no label for {', '.join(left)}: left out.",)
    table = predicted(run, manifest, dataset.images, rows, matched, batch_size, device)
    spelled = {other: own for own, other in matched.items()}
    manifest = replace(manifest, boxes=manifest.boxes.replace({"label": spelled}))  # for the heatmaps
    split = "all images" if part == "all" else f"{data.split.method}, its part {part}"
    facts = DataFacts(manifest.name, split, manifest.fingerprint())
    # Its parts are not those of the run's training.
    table = replace(table, part="")
    return PredictedImages(
        table, facts, manifest, dataset.images, rows, notes, is_external=True, unseen=unseen
    )


def _is_own(run: Run, manifest: Manifest, rows: Sequence[int]) -> bool:
    """Tell whether a data set is the run's own: two may have one name, but not the names of most images."""
    images = manifest.table["image"].iloc[list(rows)]
    is_known = images.isin(run.manifest["image"])
    return run_data(run.run_dir).get("name") == manifest.name and bool(is_known.mean() > 0.5)


def predicted(
    run: Run,
    manifest: Manifest,
    images: ImageRows,
    rows: Sequence[int],
    matched: Mapping[str, str],
    batch_size: int,
    device: str,
) -> PredictionTable:
    """Predict images, and return them with what is known of them.

    Args:
        run: Whose model predicts.
        manifest: Of the images.
        images: Its pixels, decoded as the run's were.
        rows: Of the manifest, N of them.
        matched: The manifest's label of each of the run's that is wanted.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    probabilities = predict_images(run.model, images, rows, batch_size=batch_size, device=device)
    known = ["image", "patient", "part", *(COVARIATE + name for name in manifest.covariates)]
    frame = manifest.table.iloc[list(rows)][known].reset_index(drop=True)
    own = [run.labels.index(label) for label in matched]
    other = [manifest.labels.index(label) for label in matched.values()]
    targets = manifest.targets[list(rows)][:, other].astype(np.float64)
    blocks = [
        pd.DataFrame(values, columns=[prefix + label for label in matched])
        for prefix, values in ((TARGET, targets), (PROBABILITY, probabilities[:, own]))
    ]
    return PredictionTable.from_frame(
        pd.concat([frame, *blocks], axis=1), f"{manifest.name or manifest.root} predicted by {run.run_dir}"
    )


def run_decisions(
    run: Run, settings: EvaluationSettings, labels: Sequence[str], validation: PredictionTable | None
) -> tuple[Thresholds | None, Calibrator | None]:
    """Return a run's thresholds and calibration for some of its labels.

    They are those of its checkpoint; chosen anew from its validation predictions where the settings are
    others than it was trained with, and from ``validation`` where that is given, see :class:`PredictedImages`.
    """
    if validation is not None:
        return from_validation(validation.select_labels(labels), settings)
    trained_with = run.config.get("evaluation", {})
    asked = (settings.threshold, settings.calibration)
    columns = [run.labels.index(label) for label in labels]
    path = run.run_dir / "predictions" / "val.csv"
    if asked != (trained_with.get("threshold"), trained_with.get("calibration")):
        if not path.is_file():
            log.warning(
                "%s is not there: evaluation.threshold=%s cannot be chosen.", path, settings.threshold
            )
            return None, None
        return from_validation(read_predictions(path).select_labels(labels), settings)
    values = run.model.operating_point.thresholds.double().cpu().numpy()[columns]
    if np.isnan(values).all() and path.is_file():  # a checkpoint from before it kept thresholds
        return from_validation(read_predictions(path).select_labels(labels), settings)
    thresholds = Thresholds(
        values, str(settings.threshold), threshold_source(settings.threshold, "validation")
    )
    return thresholds, run.model.operating_point.calibrator(settings.calibration, columns)
