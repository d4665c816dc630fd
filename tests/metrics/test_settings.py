from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import pytest
import yaml

from cxrlab.errors import ConfigError
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings()


def test_the_defaults_are_those_of_the_yaml():
    path = Path(__file__).parents[2] / "conf" / "evaluation" / "default.yaml"
    values = yaml.safe_load(path.read_text())
    assert values.pop("_target_") == "cxrlab.metrics.settings.EvaluationSettings"
    defaults = asdict(EvaluationSettings())
    assert values == {
        key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()
    }


@pytest.mark.parametrize(
    "values",
    [{"num_resamples": 100}, {"level": 0.5}, {"level": 0.999}, {"prevalence": 0.01}, {"age_bands": []}],
)
def test_limits_are_accepted(values):
    settings = replace(SETTINGS, **values)
    assert {name: getattr(settings, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_resamples": 99}, "evaluation.num_resamples=99 must be at least 100"),
        ({"level": 95}, "evaluation.level=95 must be at least 0.5 and below 1, such as 0.95"),
        ({"level": 1.0}, "evaluation.level=1.0 must"),
        ({"level": 0.05}, "evaluation.level=0.05 must"),
        ({"prevalence": 0.0}, "evaluation.prevalence=0.0 must lie between 0 and 1, or be null"),
        ({"prevalence": 1.0}, "evaluation.prevalence=1.0 must"),
        ({"age_bands": [60, 40]}, r"evaluation.age_bands=\[60, 40\] must ascend"),
        ({"age_bands": (40, 40)}, r"evaluation.age_bands=\[40, 40\] must ascend"),
    ],
)
def test_values_out_of_range_are_rejected(values, message):
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **values)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        SETTINGS.level = 0.9
