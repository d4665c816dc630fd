"""Other data sets, evaluated by a run: never on what it was trained on, labels matched by their names."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxrlab.data.audit import AuditReport
from cxrlab.data.datamodule import DataModule
from cxrlab.data.dataset import Dataset, audit_dataset, find_copies
from cxrlab.data.duplicates.overlap import find_shared, read_other, read_root
from cxrlab.data.manifest import Manifest
from cxrlab.data.patients import patient_keys, shared_patients
from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.external_comparison import LOOKS, OwnPart
from cxrlab.evaluation.synonyms import match_labels
from cxrlab.files import RunDir, read_json, reading
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.runs.own_predictions import read_own_predictions
from cxrlab.runs.predict import predict_table
from cxrlab.runs.run import Run
from cxrlab.runs.run_data import PredictedImages

log = logging.getLogger(__name__)


SEEN = ("train", "val")

_EVALUATION_REMEDY = (
    "Bring it back from a copy, or remove it: nothing of the run's own part is then set beside."
)


_UNCHECKED = (
    "Whether the network was trained on some of these images could not be checked in full: {} of its own "
    "images are there to be compared."
)


def check_not_trained_on(run: Run, patients: Sequence[str], seen: Sequence[str] = SEEN) -> None:
    """Refuse patients that a run was trained or validated on, however their ids are written.

    Args:
        run: The run.
        patients: Patient of each image that it is to be evaluated on, of the run's own data set: those of
            another have other numbers.
        seen: Parts of the run whose patients are refused.

    Raises:
        DataError: Naming some of them.
    """
    seen_keys = set(patient_keys(run.manifest.loc[run.manifest["part"].isin(seen), "patient"]))
    shared = [name for name, key in zip(patients, patient_keys(patients), strict=True) if key in seen_keys]
    if shared:
        names = shared_patients(sorted(set(shared)), shared)
        raise DataError(
            f"{len(shared)} of the {len(patients)} images are of {len(names)} patients that "
            f"{run.run_dir} was trained or validated on, such as {names[:3]}: no evaluation of "
            "it could be believed. Its own test part is evaluated by run=<the run> alone."
        )


def own_images(run: Run, decode: Callable[[Manifest], Dataset]) -> tuple[Manifest, Dataset] | None:
    """Return the images of a run's own data set as listed, and those that can be read; None without any.

    Args:
        run: The run.
        decode: Reads the images of its manifest.
    """
    try:
        other = read_other(run.run_dir, None)
    except (MissingFileError, DataError) as error:
        log.warning("Whether the run was trained on some of these images cannot be told: %s", error)
        return None
    return other, decode(other)


def without_shared(
    run: Run, dataset: Dataset, rows: Sequence[int], own: tuple[Manifest, Dataset] | None
) -> tuple[list[int], str, bool]:
    """Leave out the images that a run was trained on, found by their content, and all of their patients.

    Args:
        run: The run.
        dataset: The data set to evaluate it on.
        rows: Those of its rows that are evaluated.
        own: The run's own images, of :func:`own_images`.

    Returns:
        The rows that are left, what the reader must be told, and whether all of the run's images were there
        to be compared.

    Raises:
        DataError: If none is left.
    """
    if own is None:
        return list(rows), _UNCHECKED.format("none"), False
    other, decoded = own
    known = other.table.loc[other.table["part"].isin(SEEN), "image"]
    num_there = sum((other.root / image).is_file() for image in known)
    is_complete = num_there == len(known)
    shared = find_shared(dataset, decoded)
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
            "threshold chosen on the images that it is evaluated on flatters. Give another validation part, "
            "or threshold=<a number>."
        )
    if validation.patient_names is None or table.patient_names is None:
        return ()
    patients = shared_patients(validation.patient_names, table.patient_names)
    if not patients:
        return ()
    return (
        f"{len(patients)} patients are in the validation part and among those evaluated: thresholds and "
        "calibration are flattered.",
    )


def _have_folders(names: Sequence[str]) -> bool:
    return any("/" in name for name in names)


def other_data(
    run: Run,
    data: DataModule,
    part: str,
    groups: Sequence[Sequence[str]],
    batch_size: int,
    device: str,
    *,
    audits: bool = False,
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
        audits: Whether to audit the data set, for a page that is about it.

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
        notes: tuple[str, ...] = ()
    else:
        notes = _same_ids(run, manifest, rows)
    num_asked = len(rows)
    own = own_images(run, data.decode)
    rows, note, unseen = without_shared(run, dataset, rows, own)
    notes = (note, *notes)
    log.info("Labels: %s", ", ".join(f"{own} = {other}" for own, other in matched.items()))
    if len(matched) < len(run.labels):
        left = [label for label in run.labels if label not in matched]
        notes += (f"The data set has no label for {', '.join(left)}: left out.",)
    table = predict_table(
        run.model,
        manifest,
        dataset.images,
        rows,
        matched=matched,
        batch_size=batch_size,
        device=device,
        source=f"{manifest.name or manifest.root} predicted by {run.run_dir}",
    )
    own_name = {other: own for own, other in matched.items()}
    manifest = replace(manifest, boxes=manifest.boxes.replace({"label": own_name}))  # for the heatmaps
    split = "all images" if part == "all" else f"{data.split.method}, its part {part}"
    facts = DataFacts(
        manifest.name, split, manifest.fingerprint(), data.is_named, manifest.negative, data.public_name
    )
    # Its parts are not those of the run's training.
    table = replace(table, part="")
    return PredictedImages(
        table,
        facts,
        manifest,
        dataset.images,
        rows,
        notes,
        is_external=True,
        audit=_audited(dataset, data, looked_for_copies=part != "all") if audits else None,
        unseen=unseen,
        num_asked=num_asked,
        looks=_looks(dataset).iloc[list(rows)].reset_index(drop=True),
        own_looks=None if own is None else _looks(own[1]),
    )


def _looks(dataset: Dataset) -> pd.DataFrame:
    """Return what the images look like, with their names and parts."""
    table = dataset.manifest.table[["image", "part"]].reset_index(drop=True)
    return pd.concat([table, dataset.images.facts[list(LOOKS)].reset_index(drop=True)], axis=1)


def own_part(run: Run, predicted: PredictedImages) -> OwnPart | None:
    """Return what a run found on its own test part, or on validation where it has not read that.

    Args:
        run: The run.
        predicted: Images of another data set.

    Returns:
        None where there are no predictions of such a part, the weights are others than those that made them,
        or the other data are predicted in another way (``views``).

    Raises:
        ConfigError: If the run's ``evaluation.json`` cannot be read.
        DataError: If its predictions are not its own.
    """
    part = next((part for part in ("test", "val") if run.files.predictions(part).is_file()), None)
    if part is None or not run.has_own_weights or predicted.validation is not None:
        return None
    table = read_own_predictions(run.files, part)
    looks = predicted.own_looks
    if looks is not None:
        looks = looks[looks["image"].isin(table.images)].reset_index(drop=True)
    content = read_json(run.files.evaluation) if run.files.evaluation.is_file() else {}
    with reading(run.files.evaluation, _EVALUATION_REMEDY):
        if content.get("data", {}).get("part") != part:
            content = {}
        return OwnPart(
            part=part,
            labels={label: _estimates(metrics) for label, metrics in content.get("labels", {}).items()},
            macro=_estimates(content.get("macro", {})),
            num_macro_labels=int(content.get("num_macro_labels", 0)),
            thresholds={label: entry["value"] for label, entry in content.get("thresholds", {}).items()},
            table=table,
            looks=looks if looks is not None and len(looks) else None,
            other_looks=predicted.looks,
        )


def _estimates(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Estimate]:
    return {
        name: Estimate(estimate["value"], estimate["low"], estimate["high"])
        for name, estimate in metrics.items()
    }


def _audited(dataset: Dataset, data: DataModule, *, looked_for_copies: bool) -> AuditReport:
    report = audit_dataset(
        dataset if looked_for_copies else replace(dataset, copies=find_copies(dataset.images))
    )
    return replace(report, flow=data.flow)


def _same_ids(run: Run, manifest: Manifest, rows: Sequence[int]) -> tuple[str, ...]:
    """Return what the reader must be told of patients of another data set whose id the training has too."""
    seen = run.manifest[run.manifest["part"].isin(SEEN)]
    table = manifest.table.iloc[list(rows)]
    table = table[table["patient"] != table["image"]]  # where nothing is known of them
    shared = shared_patients(table["patient"], seen["patient"])
    if not shared:
        return ()
    note = (
        f"{len(shared)} of the {table['patient'].nunique()} patients have an id that a patient of the "
        "training or validation has too. If both data sets number the same people alike, the numbers flatter."
    )
    log.warning("%s Such ids are %s.", note, shared[:3])
    return (note,)


def _is_own(run: Run, manifest: Manifest, rows: Sequence[int]) -> bool:
    """Tell whether a data set is the run's own: of the same folder, or by its name and those of most images.

    Two data sets may have one name, but not the names of most images.
    """
    with contextlib.suppress(MissingFileError, OSError):
        if read_root(RunDir(run.run_dir).manifest).resolve() == manifest.root.resolve():
            return True
    images = manifest.table["image"].iloc[list(rows)]
    is_of_run = images.isin(run.manifest["image"])
    return run.facts.name == manifest.name and bool(is_of_run.mean() > 0.5)
