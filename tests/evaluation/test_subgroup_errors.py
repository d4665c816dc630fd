"""How often reports show gaps that are not there, and those that are; benchmarks/subgroups.py has the tables."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cxrlab.evaluation.stratified import stratified_auroc
from cxrlab.evaluation.subgroups import subgroup_numbers
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(subgroup_pairs=[])
PREVALENCES = (
    0.103,
    0.025,
    0.119,
    0.177,
    0.052,
    0.056,
    0.013,
    0.047,
    0.042,
    0.021,
    0.022,
    0.015,
    0.03,
    0.002,
)
PLANTED = 2


def simulated_table(num_patients, seed, distance_in_women=1.2):
    """Patients of several images that resemble one another, of labels as frequent as those of NIH."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.geometric(1 / 3.5, num_patients))
    shape, of_patients = (len(patients), len(PREVALENCES)), (num_patients, len(PREVALENCES))
    tendency = (rng.normal(size=of_patients)[patients] + rng.normal(size=shape)) / 2**0.5
    targets = (tendency < norm.ppf(PREVALENCES)).astype(float)
    sex, distance = rng.choice(["F", "M"], num_patients)[patients], np.full(shape, 1.2)
    distance[sex == "F", PLANTED] = distance_in_women
    noise = (rng.normal(size=of_patients)[patients] + rng.normal(size=shape)) / 2**0.5
    is_ap = rng.random(len(patients)) < rng.beta(0.6, 0.9, num_patients)[patients]
    ages = rng.choice([10.0, 30.0, 50.0, 70.0, 85.0], num_patients, p=[0.05, 0.27, 0.4, 0.25, 0.03])
    return PredictionTable(
        images=np.arange(len(patients)).astype(str).astype(object),
        patients=patients,
        labels=tuple("ABCDEFGHIJKLMN"),
        targets=targets,
        probabilities=1 / (1 + np.exp(0.6 - distance * targets - noise)),
        covariates=pd.DataFrame({"view": np.where(is_ap, "AP", "PA"), "sex": sex, "age": ages[patients]}),
        patient_names=np.arange(num_patients).astype(str).astype(object),
    )


def shown(table):
    found = subgroup_numbers(table, np.full(len(table.labels), 0.5), SETTINGS)
    return [
        (gap.covariate, gap.label, gap.metric) for gap in found.gaps if gap.outcome in ("better", "worse")
    ]


@pytest.mark.slow
def test_where_no_group_differs_few_reports_show_a_difference():
    """Two covariates of two groups and one of five, 14 labels and their mean: some 250 tests a report."""
    num_reports = 100
    tables = [simulated_table(800, seed) for seed in range(num_reports)]
    assert sum(bool(shown(table)) for table in tables) <= 0.07 * num_reports
    within = [any(row.is_shown for row in stratified_auroc(table, SETTINGS)) for table in tables[:40]]
    assert sum(within) <= 0.07 * len(within)


@pytest.mark.slow
def test_a_real_gap_is_shown():
    """A sensitivity of 0.53 against 0.73, among some 470 patients with the finding in each sex."""
    distance = 0.6 + norm.ppf(norm.cdf(0.6) - 0.2)
    found = [shown(simulated_table(4000, seed, distance)) for seed in range(10)]
    assert sum(("sex", "C", "sensitivity") in gaps for gaps in found) >= 9
