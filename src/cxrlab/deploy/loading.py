"""A model from whatever form it was kept or passed on in: a run, a checkpoint, an exported file, a folder."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from cxrlab.deploy.backend import TorchBackend
from cxrlab.deploy.model import Member, Model
from cxrlab.deploy.record import ModelRecord, record_of
from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.evaluation.ensemble import check_same_task, ensemble_validation
from cxrlab.evaluation.operating_point import from_validation
from cxrlab.files import RunDir
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.models.views import check_views
from cxrlab.runs.reference import TrainingReference, read_reference
from cxrlab.runs.run import Run, load_classifier, load_run
from cxrlab.training.module import Classifier

_Value = TypeVar("_Value")
_SUFFIXES = (".ckpt", ".onnx", ".pt2", ".pt", ".pth", ".safetensors")
FORMS = (
    "a run directory, a checkpoint (.ckpt), an exported file (.onnx), a shared folder, or owner/name of the "
    "Hugging Face Hub"
)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def load_model(
    source: Path | str | Sequence[Path | str],
    *,
    device: str = "cpu",
    trust: Sequence[str] = (),
    views: Sequence[str] | None = None,
) -> Model:
    """Load a model from a run, a checkpoint, an exported file or a shared folder; nothing in it runs code.

    Args:
        source: A run directory, a checkpoint, an ``.onnx`` file, a shared folder, or ``owner/name`` of the
            Hugging Face Hub; several of them are an ensemble.
        device: ``auto``, ``cpu`` or ``cuda``.
        trust: Packages besides cxrlab whose networks may be built.
        views: Of an image, whose probabilities are averaged; None for those of the training.

    Raises:
        MissingFileError: If there is nothing of that name.
        CheckpointError: If a file cannot be loaded.
        ConfigError: If its network is of a package that is not trusted, or a view is unknown.
        DataError: If the members of an ensemble do not fit one another.

    Example:
        >>> model = load_model("outputs/2026-01-31/12-00-00")  # doctest: +SKIP
        >>> model.predict(["a.png", "b.dcm"])  # doctest: +SKIP
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise ConfigError(f"run=[] names no model: give {FORMS}.")
    loaded = [_load(one, device, trust, views) for one in sources]
    members = [member for member, _ in loaded]
    if len(members) == 1:
        return Model(members)
    return _ensemble(members, [run for _, run in loaded], changes_views=views is not None)


def _load(
    source: Path | str, device: str, trust: Sequence[str], views: Sequence[str] | None
) -> tuple[Member, Run | None]:
    path = Path(source).expanduser()
    if not path.exists():
        if _may_be_of_hub(str(source)):
            from cxrlab.deploy.hub import download

            return _load(download(str(source)), device, trust, views)
        raise MissingFileError(f"run={source}: there is no such file or folder. Give {FORMS}.")
    if path.is_dir() and RunDir(path).checkpoints.is_dir():
        run = load_run(path, trust=trust)
        return _of_checkpoint(run.model, RunDir(path).best_checkpoint, device, views), run
    if path.is_dir():
        return _of_folder(path, device, trust, views), None
    if path.suffix == ".onnx":
        return _of_onnx(path, device, views), None
    if path.suffix == ".pt2":
        raise ConfigError(
            f"run={source}: torch unpickles a program of torch.export, and that can run code. Give the ONNX "
            "file, or load one of your own by cxrlab.deploy.program_file.read_program."
        )
    return _of_checkpoint(load_classifier(path, trust=trust), path, device, views), None


def _may_be_of_hub(source: str) -> bool:
    """Tell whether a name is asked for at the Hub: not where it looks like a local path that is misspelt."""
    from cxrlab.deploy.hub import is_hub_name

    return (
        is_hub_name(source)
        and not source.lower().endswith(_SUFFIXES)
        and not Path(source.partition("/")[0]).exists()
    )


def _of_checkpoint(classifier: Classifier, path: Path, device: str, views: Sequence[str] | None) -> Member:
    return _of_classifier(path, classifier, record_of(classifier, path), read_reference(path), device, views)


def _of_classifier(
    path: Path,
    classifier: Classifier,
    record: ModelRecord,
    reference: TrainingReference | None,
    device: str,
    views: Sequence[str] | None,
) -> Member:
    if views is not None:
        classifier.views = check_views(views)
        record = replace(record, views=tuple(classifier.views), caveats=(*record.caveats, _OTHER_VIEWS))
    return _checked(Member(record, TorchBackend(classifier, device), reference, classifier), path)


_OTHER_VIEWS = (
    "Probabilities are the mean over other views than those of the training; thresholds and calibration were "
    "chosen with the training's."
)


def _runs_below(path: Path) -> str:
    """Return a sentence on the run directories below a folder, the latest first; "" where there are none."""
    runs = sorted(
        {found.parent for depth in range(1, 4) for found in path.glob("*/" * depth + "checkpoints")},
        reverse=True,
    )
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f" Run directories below it: {', '.join(map(str, runs[:3]))}{more}." if runs else ""


def _of_folder(path: Path, device: str, trust: Sequence[str], views: Sequence[str] | None) -> Member:
    if not (path / "config.json").is_file():
        raise MissingFileError(
            f"run={path} holds neither checkpoints nor config.json: it is no run directory and no shared "
            f"folder.{_runs_below(path)} Give {FORMS}."
        )
    from cxrlab.deploy.shared_folder import read_shared_folder

    record, classifier, reference = read_shared_folder(path, device, trust)
    return _of_classifier(path, classifier, record, reference, device, views)


def _of_onnx(path: Path, device: str, views: Sequence[str] | None) -> Member:
    if views is not None:
        raise ConfigError(f"views={list(views)}: those of an exported file such as {path} are part of it.")
    from cxrlab.deploy.onnx_file import read_onnx

    record, backend, reference = read_onnx(path, device)
    return _checked(Member(record, backend, reference, digest=_digest(path.read_bytes())), path)


def _checked(member: Member, path: Path) -> Member:
    """Return a member whose reference is of its own network and images.

    Raises:
        CheckpointError: If it is of others.
    """
    if member.reference is not None:
        member.reference.check_fits(member.record.image_size, member.num_features, str(path))
    return member


def _ensemble(members: Sequence[Member], runs: Sequence[Run | None], *, changes_views: bool) -> Model:
    """Return several networks as one; thresholds are chosen on their validation predictions."""
    records = [member.record for member in members]
    first = records[0]
    record = replace(
        first,
        title=f"an ensemble of {len(members)}: {', '.join(member.record.title for member in members)}",
        checkpoint=hashlib.sha256("+".join(record.checkpoint for record in records).encode()).hexdigest()[
            :16
        ],
        licence=_shared(record.licence for record in records) or "",
        trained_on=_shared(record.trained_on for record in records),
        initial_weights=_shared(record.initial_weights for record in records),
        thresholds=dict.fromkeys(first.labels),
        calibration="",
        threshold_rule="",
        caveats=tuple(dict.fromkeys(caveat for member in members for caveat in member.record.caveats)),
    )
    Model(members, record)  # refuses members that do not fit
    of_runs = [run for run in runs if run is not None]
    validation = None
    if len(of_runs) == len(members) and not changes_views:
        check_same_task(of_runs)
        validation = ensemble_validation(of_runs, first.labels, [None] * len(of_runs))
    if validation is None:
        return Model(members, replace(record, caveats=(*record.caveats, _NO_THRESHOLD)))
    model = of_runs[0].model
    settings = EvaluationSettings(threshold=model.threshold_rule, calibration=model.calibration)
    thresholds, calibrator = from_validation(validation, settings)
    values = {
        label: None if np.isnan(value) else float(value)
        for label, value in zip(first.labels, thresholds.values, strict=True)
    }
    record = replace(
        record,
        thresholds=values,
        threshold_rule=thresholds.rule,
        calibration="" if calibrator is None else calibrator.method,
    )
    return Model(members, record, calibrator)


def _shared(values: Iterable[_Value]) -> _Value | None:
    """Return what all values are; None where they differ."""
    first, *others = values
    return first if all(value == first for value in others) else None


_NO_THRESHOLD = (
    "No thresholds could be chosen for the ensemble, whose members have no validation predictions of the "
    "same images: nothing is predicted positive or negative."
)
