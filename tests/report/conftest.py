"""Results for the pages: the real ``evaluate`` and ``compare`` on simulated predictions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers.nih import LABELS as NIH
from cxrlab.evaluation.comparison import compare
from cxrlab.evaluation.evaluate import DataFacts, evaluate
from cxrlab.evaluation.operating_point import from_validation
from cxrlab.evaluation.results import ComparisonResult, EvaluationResult
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

IMAGES, PATIENTS, FEW = 240, 80, 7
SETTINGS = EvaluationSettings(
    threshold="youden", calibration="platt", num_resamples=100, level=0.95, prevalence=0.1,
    age_bands=(0, 40, 60), min_positives=10, min_group_images=20, seed=0,
)  # fmt: skip

DATA = DataFacts("nih", "official", "5f2c9a01d3e4")

Evaluated = Callable[..., EvaluationResult]


def simulated_table(
    labels: Sequence[str],
    *,
    missing: Sequence[str] = (),
    exclusive: bool = False,
    patients: bool = True,
    steepness: float = 1.0,
    skill: float = 1.0,
    seed: int = 0,
    part: str = "test",
    source: str = "the predictions",
) -> PredictionTable:
    """Return predictions for 240 images of 80 patients.

    Args:
        labels: Names, ever rarer; the last of several has 7 positives in all.
        missing: Labels without a positive.
        exclusive: Whether every image has one label.
        patients: Whether they are known.
        steepness: Of the logits; those of 1 are calibrated.
        skill: How far apart positives and negatives lie.
        seed: Of the probabilities; the targets are always the same ones.
        part: Of the data set.
        source: Where the table comes from.
    """
    truth, num_labels = np.random.default_rng(7 if part == "test" else 8), len(labels)
    targets = (truth.random((IMAGES, num_labels)) < np.linspace(0.4, 0.15, num_labels)).astype(float)
    if exclusive:
        targets = np.eye(num_labels)[truth.integers(num_labels, size=IMAGES)]
    elif num_labels > 1:
        targets[:, -1] = np.arange(IMAGES) < FEW
    targets[:, [labels.index(label) for label in missing]] = 0.0
    noise = np.random.default_rng((seed, part == "test")).normal(size=targets.shape)
    # Of two normal distributions of variance 1 the log odds are linear: with the prior odds, calibrated.
    shift = skill * np.linspace(1.2, 2.4, num_labels)
    prevalence = np.clip(targets.mean(axis=0), 0.01, 0.99)
    logits = shift * (targets * shift + noise - shift / 2) + np.log(prevalence / (1 - prevalence))
    covariates = {
        "view": truth.choice(["AP", "PA"], IMAGES),
        "sex": np.repeat(truth.choice(["F", "M"], PATIENTS), IMAGES // PATIENTS),
        "age": np.repeat(truth.integers(1, 90, PATIENTS), IMAGES // PATIENTS).astype(float),
    }
    return PredictionTable(
        images=np.array([f"{row // 3:08d}_{row % 3:03d}.png" for row in range(IMAGES)], dtype=object),
        patients=np.arange(IMAGES) // (IMAGES // PATIENTS) if patients else np.arange(IMAGES),
        labels=tuple(labels),
        targets=targets,
        probabilities=1 / (1 + np.exp(-steepness * logits)),
        covariates=pd.DataFrame(covariates),
        patient_names=np.array([f"p{row}" for row in range(PATIENTS)], dtype=object) if patients else None,
        part=part,
        source=source,
    )


@cache
def _evaluated(
    labels: tuple[str, ...],
    validation: bool,
    data: DataFacts,
    notes: tuple[str, ...],
    settings: EvaluationSettings,
    options: tuple[tuple[str, object], ...],
) -> EvaluationResult:
    thresholds, calibrator, chosen_on = None, None, None
    if validation:
        alike = {name: value for name, value in options if name in ("exclusive", "steepness")}
        chosen_on = simulated_table(labels, **alike, part="val")
        thresholds, calibrator = from_validation(chosen_on, settings)
    table = simulated_table(labels, **dict(options))
    return evaluate(
        table,
        settings=settings,
        thresholds=thresholds,
        calibrator=calibrator,
        data=data,
        notes=notes,
        validation=chosen_on,
    )


@pytest.fixture(scope="session")
def evaluated() -> Evaluated:
    """Evaluate a simulated table: ``evaluated(labels, validation=…, data=…, notes=…, missing=…, …)``.

    ``validation=False`` is of a table without validation part: no threshold, no recalibration. All else goes
    to ``simulated_table``.
    """

    def function(
        labels: Sequence[str] = NIH,
        *,
        validation: bool = True,
        data: DataFacts = DATA,
        notes: Sequence[str] = (),
        settings: EvaluationSettings = SETTINGS,
        **options: object,
    ) -> EvaluationResult:
        named = tuple(
            (name, tuple(value) if isinstance(value, list) else value) for name, value in options.items()
        )
        return _evaluated(tuple(labels), validation, data, tuple(notes), settings, named)

    return function


@cache
def _compared(
    labels: tuple[str, ...],
    models: tuple[str, ...],
    data: DataFacts | None,
    threshold: float | None,
    margin: float | None,
) -> ComparisonResult:
    tables = {
        name: simulated_table(labels, skill=0.5**place, seed=place) for place, name in enumerate(models)
    }
    if threshold is not None:
        tables = {
            name: replace(table, decisions=(table.probabilities >= threshold).astype(float))
            for name, table in tables.items()
        }
    return compare(tables, SETTINGS, data, margin=margin)


@pytest.fixture(scope="session")
def compared() -> Callable[..., ComparisonResult]:
    """Compare simulated models, the first the best: ``compared(labels, models=…, data=…, threshold=…, …)``."""

    def function(
        labels: Sequence[str] = NIH,
        *,
        models: Sequence[str] = ("densenet121", "resnet50", "mobilenetv3"),
        data: DataFacts | None = DATA,
        threshold: float | None = None,
        margin: float | None = None,
    ) -> ComparisonResult:
        return _compared(tuple(labels), tuple(models), data, threshold, margin)

    return function
