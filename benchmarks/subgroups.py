"""How often a report shows differences between groups that are not there, and how often those that are.

Run ``python benchmarks/subgroups.py``. Patients have several images, whose findings and scores resemble one
another; 14 labels have the prevalences of NIH ChestX-ray14. View, sex and age are drawn without any regard to
findings and scores, so no group differs from another, and AUROC within groups is that of all images. Then one
label is made harder in women.
"""

import argparse
import time

import numpy as np
import pandas as pd
from evaluation import PREVALENCES
from scipy.stats import norm

from cxrlab.evaluation.stratified import stratified_auroc
from cxrlab.evaluation.subgroups import SubgroupNumbers, subgroup_numbers
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(subgroup_pairs=[])
DISTANCE = 1.2  # between positives and negatives, in standard deviations: an AUROC of 0.80
THRESHOLD = 0.6  # midway, the point of Youden: sensitivity and specificity of 0.73
IMAGES_A_PATIENT = 3.5
AGES = {10.0: 0.05, 30.0: 0.27, 50.0: 0.40, 70.0: 0.25, 85.0: 0.03}  # years, and share of the patients
PLANTED = "Effusion"
GAPS = {  # what is planted: distance in women
    "sensitivity": DISTANCE / 2 + norm.ppf(norm.cdf(DISTANCE / 2) - 0.2),
    "auroc": 2**0.5 * norm.ppf(norm.cdf(DISTANCE / 2**0.5) - 0.1),
}


def simulated_table(num_patients: int, seed: int, distance_in_women: float = DISTANCE) -> PredictionTable:
    """Return predictions in which groups differ at most in the planted label."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.geometric(1 / IMAGES_A_PATIENT, num_patients))
    shape, of_patients = (len(patients), len(PREVALENCES)), (num_patients, len(PREVALENCES))
    tendency = rng.normal(size=of_patients)[patients] + rng.normal(size=shape)
    targets = (tendency < 2**0.5 * norm.ppf(list(PREVALENCES.values()))).astype(float)
    sex = rng.choice(["F", "M"], num_patients)[patients]
    distance = np.full(shape, DISTANCE)
    distance[sex == "F", list(PREVALENCES).index(PLANTED)] = distance_in_women
    noise = (rng.normal(size=of_patients)[patients] + rng.normal(size=shape)) / 2**0.5
    is_ap = rng.random(len(patients)) < rng.beta(0.6, 0.9, num_patients)[patients]
    covariates = {
        "view": np.where(is_ap, "AP", "PA"),
        "sex": sex,
        "age": rng.choice(list(AGES), num_patients, p=list(AGES.values()))[patients],
    }
    return PredictionTable(
        images=np.arange(len(patients)).astype(str).astype(object),
        patients=patients,
        labels=tuple(PREVALENCES),
        targets=targets,
        probabilities=1 / (1 + np.exp(THRESHOLD - distance * targets - noise)),
        covariates=pd.DataFrame(covariates),
        patient_names=np.arange(num_patients).astype(str).astype(object),
    )


def report(table: PredictionTable) -> SubgroupNumbers:
    """Return what the page says of groups, at thresholds of 0.5."""
    return subgroup_numbers(table, np.full(len(table.labels), 0.5), SETTINGS)


def print_false_differences(num_patients: int, num_reports: int, stratified: int) -> None:
    """Print in how many reports anything is shown, where nothing is there."""
    start, num_shown, num_tested, num_odds, num_within = time.perf_counter(), [], [], 0, 0
    for seed in range(num_reports):
        table = simulated_table(num_patients, seed)
        found = report(table)
        num_shown.append(sum(gap.outcome in ("better", "worse") for gap in found.gaps))
        num_tested.append(found.num_tested)
        num_odds += any(
            odds.sensitivity.low > 0 or odds.sensitivity.high < 0 or odds.false_positive_rate.low > 0
            or odds.false_positive_rate.high < 0 for odds in found.equalised_odds
        )  # fmt: skip
        if seed < stratified:
            num_within += any(row.is_shown for row in stratified_auroc(table, SETTINGS))
    print(
        f"{num_patients:8,d} patients: {np.mean(num_tested):4.0f} tests; a false difference in "
        f"{100 * np.mean(np.array(num_shown) > 0):4.1f} % of {num_reports} reports, "
        f"{np.mean(num_shown):.3f} a report; intervals of equalised odds leave 0 out in "
        f"{100 * num_odds / num_reports:4.1f} % (three covariates); AUROC within groups is said to differ in "
        f"{100 * num_within / stratified:4.1f} % of {stratified}; {time.perf_counter() - start:.0f} s",
        flush=True,
    )


def print_power(metric: str, num_patients: int, num_reports: int) -> None:
    """Print in how many reports a planted gap is shown."""
    num_shown, behind, sizes = 0, [], []
    for seed in range(num_reports):
        found = report(simulated_table(num_patients, seed, GAPS[metric]))
        gap = next(
            gap for gap in found.gaps
            if (gap.covariate, gap.label, gap.metric) == ("sex", PLANTED, metric)
        )  # fmt: skip
        num_shown += gap.outcome == "worse"
        behind.append(min(gap.patients))
        sizes.append(gap.difference.value)
    print(
        f"{num_patients:8,d} patients, {np.mean(behind):4.0f} with the finding in the smaller group: a gap "
        f"of {metric} of {-np.mean(sizes):.2f} is shown in {100 * num_shown / num_reports:3.0f} % of "
        f"{num_reports} reports",
        flush=True,
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=200)
    parser.add_argument("--power-reports", type=int, default=50)
    arguments = parser.parse_args()
    print("No difference anywhere:")
    for num_patients in (800, 1500):
        print_false_differences(num_patients, arguments.reports, arguments.reports)
    print(f"{PLANTED} is harder in women:")
    for metric in GAPS:
        for num_patients in (500, 1000, 2000, 4000):
            print_power(metric, num_patients, arguments.power_reports)


if __name__ == "__main__":
    main()
