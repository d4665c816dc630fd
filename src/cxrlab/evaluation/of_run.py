"""What a run says of images: of its own parts as it predicted them, and of other data sets, predicted now."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrlab.data.file_images import FramedImages
from cxrlab.data.manifest import COVARIATE, Manifest
from cxrlab.errors import DataError
from cxrlab.evaluation.calibration import Calibrator
from cxrlab.evaluation.decisions import Thresholds, from_validation, threshold_source
from cxrlab.evaluation.inference import ImageRows, predict_images
from cxrlab.evaluation.judgement import DataFacts
from cxrlab.evaluation.leakage import refuse_trained_on, without_shared
from cxrlab.evaluation.prediction_table import PROBABILITY, TARGET, PredictionTable, read_predictions
from cxrlab.evaluation.settings import EvaluationSettings
from cxrlab.evaluation.synonyms import match_labels
from cxrlab.run import Run

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
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
    run: Run, part: str, build: Callable[[], "DataModule"], batch_size: int, device: str, *, anew: bool
) -> Judged:
    """Return the predictions of one of the run's own parts: those it wrote, else new ones.

    Args:
        run: The run.
        part: ``train``, ``val`` or ``test``.
        build: Makes its data module.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        anew: Predict them also where the run wrote predictions: with other views of the images, say.

    Raises:
        DataError: If its data are no longer those that it was trained on.
    """
    path = run.run_dir / "predictions" / f"{part}.csv"
    if path.is_file() and not anew:
        return Judged(read_predictions(path), run_facts(run.run_dir))
    why = "Views are others than the run's" if anew else f"The run has no predictions/{part}.csv"
    log.info("%s: the images of its part %s are predicted now.", why, part)
    data = own_data(run, build)
    rows = data.rows(part)
    same = {label: label for label in run.labels}
    table = predicted(run, data.manifest, data.images, rows, same, batch_size, device)
    return Judged(table, run_facts(run.run_dir), data.manifest, data.images, rows)


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


def with_pixels(judged: Judged, data: "DataModule") -> Judged:
    """Add manifest and pixels to predictions of one of a run's own parts that were read from its table.

    Args:
        judged: Its images are among those of ``data``.
        data: Prepared.
    """
    if judged.images is not None:
        return judged
    row_of = {image: row for row, image in enumerate(data.manifest.table["image"])}
    rows = [row_of[image] for image in judged.table.images]
    return replace(judged, manifest=data.manifest, images=data.images, rows=rows)


def with_validation(
    run: Run, judged: Judged, build: Callable[[], "DataModule"], batch_size: int, device: str
) -> Judged:
    """Add the run's validation part, predicted with the views that its model has now.

    The thresholds and the calibration of its checkpoint are of probabilities with the views it was trained
    with. Arguments and errors are those of :func:`own_part`.
    """
    is_it = judged.table.part == "val" and not judged.is_external
    own = judged if is_it else own_part(run, "val", build, batch_size, device, anew=True)
    note = (
        f"Probabilities are the mean over the views {', '.join(run.model.views)}, which are not those of the "
        "training; thresholds and calibration were chosen anew, on validation images predicted so."
    )
    return replace(judged, validation=own.table, notes=(*judged.notes, note))


def other_data(
    run: Run, data: "DataModule", part: str, groups: Sequence[Sequence[str]], batch_size: int, device: str
) -> Judged:
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
        data.manifest, data.images, data.unreadable = data.gather()
        rows = list(range(len(data.manifest)))
    else:
        data.prepare()
        rows = data.rows(part)
    manifest = data.manifest
    matched = match_labels(run.labels, manifest.labels, groups)
    if not matched:
        raise DataError(
            f"No label of {run.run_dir} {run.labels} is one of {manifest.name or manifest.root} "
            f"{manifest.labels}. Name those that mean the same in synonyms.groups."
        )
    if _is_own(run, manifest, rows):
        refuse_trained_on(run, manifest.table["patient"].iloc[rows].tolist())
    rows, note, unseen = without_shared(run, data, rows)
    notes: tuple[str, ...] = (note,)
    log.info("Labels: %s", ", ".join(f"{own} = {other}" for own, other in matched.items()))
    if len(matched) < len(run.labels):
        left = [label for label in run.labels if label not in matched]
        notes += (f"{manifest.name} has no label for {', '.join(left)}: left out.",)
    table = predicted(run, manifest, data.images, rows, matched, batch_size, device)
    spelled = {other: own for own, other in matched.items()}
    manifest = replace(manifest, boxes=manifest.boxes.replace({"label": spelled}))  # for the heatmaps
    method = getattr(data.split, "keywords", {}).get("method")
    split = "all images" if part == "all" else f"{method}, its part {part}"
    facts = DataFacts(manifest.name, split, manifest.fingerprint())
    # Its parts are not those of the run's training.
    table = replace(table, part="")
    return Judged(table, facts, manifest, data.images, rows, notes, is_external=True, unseen=unseen)


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
    others than it was trained with, and from ``validation`` where that is given, see :class:`Judged`.
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
    values = run.model.decision.thresholds.double().cpu().numpy()[columns]
    if np.isnan(values).all() and path.is_file():  # a checkpoint from before it kept thresholds
        return from_validation(read_predictions(path).select_labels(labels), settings)
    thresholds = Thresholds(
        values, str(settings.threshold), threshold_source(settings.threshold, "validation")
    )
    return thresholds, run.model.decision.calibrator(settings.calibration, columns)
