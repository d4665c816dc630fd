"""What a page is about, apart from the numbers: the model, its data, its training, its heatmaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit import Finding
from cxrlab.data.manifest import PARTS, read_csv, read_table
from cxrlab.data.public import public_name
from cxrlab.data.splits import METHODS
from cxrlab.evaluation.results import EvaluatedData, EvaluationResult
from cxrlab.files import PROVENANCE_REMEDY, RunDir, read_json, reading
from cxrlab.heatmaps.results import ExplanationResult
from cxrlab.models.weights import InitialWeights

Kind = Literal["run", "ensemble", "predictions"]
Outcome = Literal["TP", "FP", "FN", "TN", "unknown"]

_METRICS_REMEDY = "Bring it back from a copy, or remove it: the page then has no learning curves."
_AUDIT_REMEDY = "Bring it back from a copy, or remove it: the page then has no audit."


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A radiograph with its heatmap.

    Attributes:
        finding: The label that the heatmap is about.
        outcome: At the label's threshold.
        probability: Predicted.
        target: 1 present, 0 absent, NaN unknown.
        image: Name of the image; a page without images does not show it.
        jpeg: The picture.
    """

    finding: str
    outcome: Outcome
    probability: float
    target: float
    image: str
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a model was trained on.

    Attributes:
        name: Of the data set; empty where it is not known, or not told.
        parts: Images and patients by part (``train``, ``val``, …); None where patients are unknown.
        split: How it was split.
        fingerprint: Of its manifest.
        is_named: Whether a person gave the name.
    """

    name: str
    parts: Mapping[str, tuple[int, int | None]]
    split: str | None = None
    fingerprint: str | None = None
    is_named: bool = False


@dataclass(frozen=True)
class NetworkInfo:
    """A network in figures.

    Attributes:
        name: Of the architecture or the class.
        image_size: Height and width of its images, in pixels.
        channels: 1 for grey images, 3 for colour.
        num_parameters: All of them.
        num_trainable: Those that were trained.
        num_lora: Of low-rank updates (LoRA), which were merged after the training: in the two figures above,
            and no longer in the network.
    """

    name: str
    image_size: int | None = None
    channels: int | None = None
    num_parameters: int | None = None
    num_trainable: int | None = None
    num_lora: int = 0


@dataclass(frozen=True, kw_only=True)
class Session:
    """With what something was computed: a session of ``provenance.json``.

    Attributes:
        command: The command line, in words.
        started: When, in ISO 8601.
        commit: Of the sources; None for an installed package.
        versions: Of packages, by name.
        hardware: Such as ``processor``, ``cores``, ``gpu``, ``precision``.
        data_name: Of the data set.
        data_is_named: Whether a person gave that name.
        data_fingerprint: Of its manifest.
        split: How it was split, by the name of the option.
        network: ``parameters`` and ``trainable`` parameters of what was trained, and those of ``lora``.
        features: ``number`` of an image, ``images``, and of how many of them they were ``computed``; {} where
            a training read images.
        solver: ``name``, ``strength`` and ``strengths`` of a head that was solved for; {} for gradients.
        seconds: By phase.
        epochs: That were trained, all sessions together.
        peak_gpu_gib: GPU memory at most, in GiB.
    """

    command: Sequence[str] = ()
    started: str | None = None
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, str | int] = field(default_factory=dict)
    data_name: str = ""
    data_is_named: bool = False
    data_fingerprint: str | None = None
    split: Mapping[str, object] = field(default_factory=dict)
    network: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    solver: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    epochs: int | None = None
    peak_gpu_gib: float | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what a record says; what this class does not know is left out."""
        names = {attribute.name for attribute in fields(cls)}
        known = {name: value for name, value in record.items() if name in names and value is not None}
        data, seconds = record.get("data") or {}, record.get("seconds") or {}
        known |= {
            "data_name": data.get("name") or "",
            "data_is_named": data.get("is_named") is True,
            "data_fingerprint": data.get("fingerprint"),
            "split": data.get("split") or {},
            "seconds": {phase: time for phase, time in seconds.items() if isinstance(time, int | float)},
        }
        return cls(**known)

    def without_names(self) -> Self:
        """Return the same without the command, and without names of files and folders."""
        split = {
            name: value
            for name, value in self.split.items()
            if isinstance(value, int | float) or (name == "method" and value in METHODS)
        }
        data_name = public_name(self.data_name, self.data_is_named)
        return replace(self, command=(), data_name=data_name, split=split)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What was evaluated. The page leaves out what is None or empty.

    Attributes:
        title: Of the page; None for one that is made of the networks and the data.
        kind: A run of ours, an ensemble of runs, or predictions of another program.
        networks: One for a run; those of an ensemble.
        trained_on: The data of the training.
        initial_weights: What the training started from, of each network; None among them where that is not
            recorded. Empty where nothing is known of the model.
        is_external: Whether the evaluated images are of another data set than that of the training.
        unseen: Whether the evaluated patients are known to be none of the training's; None: they are if a run
            or ensemble is evaluated on a test part.
        config: The resolved config.
        audit: What the audit of the evaluated data found; None where there was none.
        metrics: Learning curves, as in ``metrics.csv``.
        network: The network drawn, a PNG; None where there is none.
        inputs: Training images as the network sees them, a PNG; None where there is none.
        provenance: The session that trained it.
        resumed: The sessions that went on with it.
        evaluated: The session of a later evaluation; None where the training itself evaluated.
        panels: Heatmaps to choose from.
        explanation: What the checks of heatmaps found on the same images.
        examples: Heatmaps that show what the checks flag.
        changed: A radiograph as it is and as interventions change it, shapes ``(C, H, W)``, by title.
        notes: Sentences that belong beside the result; no name of a file, folder, patient or image may stand
            in them, for a page without names shows them too. What may hold one is a ``note`` of the result.
    """

    title: str | None = None
    kind: Kind = "predictions"
    networks: Sequence[NetworkInfo] = ()
    trained_on: TrainingData | None = None
    initial_weights: Sequence[InitialWeights | None] = ()
    is_external: bool = False
    unseen: bool | None = None
    config: Mapping[str, Any] | None = None
    audit: Sequence[Finding] | None = None
    metrics: pd.DataFrame | None = None
    network: bytes | None = field(default=None, repr=False)
    inputs: bytes | None = field(default=None, repr=False)
    provenance: Session | None = None
    resumed: Sequence[Session] = ()
    evaluated: Session | None = None
    panels: Sequence[Panel] = ()
    explanation: ExplanationResult | None = None
    examples: Sequence[Panel] = ()
    changed: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    notes: Sequence[str] = ()

    @property
    def sessions(self) -> dict[str, Session | None]:
        """The sessions by the title that a page gives them."""
        resumed = {f"Training, resumed ({number})": session for number, session in enumerate(self.resumed, 1)}
        return {"Training": self.provenance, **resumed, "Evaluation": self.evaluated}


def without_names(result: EvaluationResult, model_info: ModelInfo) -> tuple[EvaluationResult, ModelInfo]:
    """Return both without what a data-use agreement may protect: for a page, or a model card, that is shared.

    Left out are commands, the config, radiographs, and names of files, folders, images and patients. Notes of
    the evaluation are free text that may hold one: only those stay that ``model_info`` vouches for.
    """
    notes = set(model_info.notes)
    flags = [caveat for caveat in result.flags if caveat.kind != "note" or caveat.message in notes]
    trained_on, audit = model_info.trained_on, model_info.audit
    return replace(without_folder_names(result), flags=flags), replace(
        model_info,
        title=None,
        inputs=None,
        trained_on=trained_on and replace(trained_on, name=public_name(trained_on.name, trained_on.is_named)),
        config=None,
        audit=None if audit is None else [_without_message(finding) for finding in audit],
        provenance=model_info.provenance and model_info.provenance.without_names(),
        resumed=[session.without_names() for session in model_info.resumed],
        evaluated=model_info.evaluated and model_info.evaluated.without_names(),
        panels=(),
        examples=(),
        changed={},
    )


def without_folder_name(data: EvaluatedData) -> EvaluatedData:
    """Return the same without a name that may be a folder's, and without its source."""
    return replace(data, name=public_name(data.name, data.is_named), source="")


def without_folder_names(result: EvaluationResult) -> EvaluationResult:
    """Return the same without such a name, and without what was asked of the data on the command line."""
    cohort = None if result.cohort is None else result.cohort.without_details()
    return replace(result, data=without_folder_name(result.data), cohort=cohort)


def _without_message(finding: Finding) -> Finding:
    """Return a finding with kind and count in place of its message, which may quote a file's own words."""
    message = f"{finding.kind.replace('_', ' ')}: {finding.count:,}"
    return replace(finding, message=message, images=[], patients=[], details=[])


def run_model_info(
    folder: Path, config: Mapping[str, Any], *, panels: Sequence[Panel], notes: Sequence[str]
) -> ModelInfo:
    """Return what is known of a run; what it did not write is left out.

    Args:
        folder: The run directory.
        config: Its resolved config.
        panels: Heatmaps of the images that are evaluated.
        notes: Sentences for the reader, without names of files, patients or images.
    """
    run_dir = RunDir(folder)
    session, *resumed = _sessions(run_dir)
    return ModelInfo(
        kind="run",
        networks=[_network(config, session)],
        trained_on=_training_data(run_dir, session),
        config=config,
        audit=_audit(run_dir),
        metrics=read_csv(run_dir.metrics, _METRICS_REMEDY) if run_dir.metrics.is_file() else None,
        network=run_dir.network.read_bytes() if run_dir.network.is_file() else None,
        inputs=run_dir.inputs.read_bytes() if run_dir.inputs.is_file() else None,
        provenance=session if run_dir.provenance.is_file() else None,
        resumed=resumed,
        panels=panels,
        notes=notes,
    )


def ensemble_model_info(
    folders: Sequence[Path], configs: Sequence[Mapping[str, Any]], *, notes: Sequence[str]
) -> ModelInfo:
    """Return what is known of several runs whose probabilities are averaged.

    Args:
        folders: The run directories.
        configs: Their resolved configs.
        notes: Sentences for the reader, without names of files, patients or images.
    """
    run_dirs = [RunDir(folder) for folder in folders]
    sessions = [_sessions(run_dir)[0] for run_dir in run_dirs]
    trained_on, *others = map(_training_data, run_dirs, sessions)
    return ModelInfo(
        kind="ensemble",
        networks=list(map(_network, configs, sessions)),
        trained_on=trained_on if all(other == trained_on for other in others) else None,
        audit=_audit(run_dirs[0]),
        provenance=sessions[0] if run_dirs[0].provenance.is_file() else None,
        notes=notes,
    )


def _sessions(run_dir: RunDir) -> list[Session]:
    if not run_dir.provenance.is_file():
        return [Session()]
    with reading(run_dir.provenance, PROVENANCE_REMEDY):
        return [Session.from_json(record) for record in run_dir.sessions()]


def _audit(run_dir: RunDir) -> list[Finding] | None:
    if not run_dir.audit.is_file():
        return None
    with reading(run_dir.audit, _AUDIT_REMEDY):
        return [Finding(**entry) for entry in read_json(run_dir.audit, _AUDIT_REMEDY)["findings"]]


def network_name(config: Mapping[str, Any]) -> str:
    """Return the name of the architecture, or of the class, that a run's config describes."""
    model = config.get("model", {})
    return str(model.get("backbone") or str(model.get("_target_", "a network")).rpartition(".")[2])


def _network(config: Mapping[str, Any], session: Session) -> NetworkInfo:
    data = config.get("data", {})
    return NetworkInfo(
        name=network_name(config),
        image_size=data.get("image_size"),
        channels=data.get("channels"),
        num_parameters=session.network.get("parameters"),
        num_trainable=session.network.get("trainable"),
        num_lora=session.network.get("lora", 0),
    )


def _training_data(run_dir: RunDir, session: Session) -> TrainingData | None:
    if not run_dir.manifest.is_file():
        return None
    table = read_table(run_dir.manifest)
    parts = {
        part: (int((table["part"] == part).sum()), int(table.loc[table["part"] == part, "patient"].nunique()))
        for part in PARTS
    }
    method = session.split.get("method")
    return TrainingData(
        name=session.data_name,
        parts=parts,
        split=None if method is None else str(method),
        fingerprint=session.data_fingerprint,
        is_named=session.data_is_named,
    )
