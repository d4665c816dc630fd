"""What a report is about, apart from the numbers: the model, its data, its training, its heatmaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from cxrlab.heatmaps.results import ExplanationResult

Kind = Literal["run", "ensemble", "predictions"]
Outcome = Literal["TP", "FP", "FN", "TN", "unknown"]


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
        name: Of the data set.
        parts: Images and patients by part (``train``, ``val``, …); None where patients are unknown.
        split: How it was split.
        fingerprint: Of its manifest.
    """

    name: str
    parts: Mapping[str, tuple[int, int | None]]
    split: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What was evaluated. The page leaves out what is None or empty.

    Attributes:
        title: Of the page.
        kind: A run of ours, an ensemble of runs, or predictions of another program.
        network: Such as "resnet10t, 1 channel, 128 px".
        trained_on: The data of the training.
        unseen: Whether the evaluated patients are known to be none of the training's; None: they are if a run or
            ensemble is evaluated on a test part.
        config: The resolved config.
        audit: ``audit.json`` of the data.
        metrics: Learning curves, as in ``metrics.csv``.
        provenance: The session of ``provenance.json`` that trained it (:mod:`cxrlab.training.callbacks.provenance`).
        resumed: The sessions that went on with it.
        evaluated: The same of a later evaluation; None where the training itself evaluated.
        panels: Heatmaps to choose from.
        explanation: What the checks of heatmaps found on the same images.
        examples: Heatmaps that show what the checks flag.
        notes: Sentences that belong beside the result; no patient or image may stand in them.
    """

    title: str | None = None
    kind: Kind = "predictions"
    network: str | None = None
    trained_on: TrainingData | None = None
    unseen: bool | None = None
    config: Mapping[str, Any] | None = None
    audit: dict[str, Any] | None = None
    metrics: pd.DataFrame | None = None
    provenance: Mapping[str, Any] | None = None
    resumed: Sequence[Mapping[str, Any]] = ()
    evaluated: Mapping[str, Any] | None = None
    panels: Sequence[Panel] = ()
    explanation: ExplanationResult | None = None
    examples: Sequence[Panel] = ()
    notes: Sequence[str] = ()
