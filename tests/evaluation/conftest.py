from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings


@pytest.fixture
def make_settings() -> Callable[..., EvaluationSettings]:
    def make(**changes: object) -> EvaluationSettings:
        values = {
            "threshold": "youden", "calibration": "platt", "num_resamples": 200, "level": 0.95, "prevalence": 0.1,
            "age_bands": [0, 40, 80], "min_positives": 10, "min_group_images": 20, "seed": 0,
        }  # fmt: skip
        return EvaluationSettings(**{**values, **changes})

    return make


@pytest.fixture
def make_predictions() -> Callable[..., PredictionTable]:
    """Predictions of simulated patients; findings and scores of one patient resemble one another."""

    def make(
        labels: tuple[str, ...] = ("Edema", "Mass"),
        num_patients: int = 120,
        *,
        seed: int = 0,
        part: str = "test",
        signal: float = 1.5,
    ) -> PredictionTable:
        generator = np.random.default_rng(seed)
        patients = np.repeat(np.arange(num_patients), generator.integers(1, 5, num_patients)).astype(np.int64)
        shape = (len(patients), len(labels))
        own = generator.normal(size=(num_patients, len(labels)))[patients]
        targets = (own + generator.normal(size=shape) > 0.8).astype(float)
        logits = signal * targets + 0.5 * own + generator.normal(size=shape)
        sexes = np.array(["F", "M"])[generator.integers(2, size=num_patients)][patients]
        return PredictionTable(
            images=np.array([f"{row:04d}.png" for row in range(len(patients))], dtype=object),
            patients=patients,
            labels=labels,
            targets=targets,
            probabilities=1 / (1 + np.exp(-logits)),
            covariates=pd.DataFrame(
                {"sex": sexes, "age": generator.integers(0, 90, len(patients)).astype(float)}
            ),
            patient_names=np.array([f"p{number}" for number in range(num_patients)], dtype=object),
            part=part,
            source="simulated predictions",
        )

    return make
