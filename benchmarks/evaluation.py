"""What an evaluation with intervals costs: the NIH test part in size, 14 labels, resamples of its patients.

Run ``python benchmarks/evaluation.py``. Every row runs in a process of its own, whose peak memory is given.
Processor seconds, of all threads, hold on a busy machine too; the ratio is of those. The table and drawing
the patients are not timed, except in the row that says so.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.evaluation.curves import label_curves
from cxrlab.evaluation.operating_point import from_validation
from cxrlab.metrics.bootstrap import Counts, patient_counts
from cxrlab.metrics.delong import delong_estimate
from cxrlab.metrics.estimates import metric_estimates
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.metrics.ranking import label_rankings, micro_ranking
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report.evaluation_page import Evaluation, write_evaluation
from cxrlab.report.model_info import ModelInfo

Task = Callable[[PredictionTable, Counts], object]

# Shares of the 112,120 images of NIH ChestX-ray14.
PREVALENCES = {
    "Atelectasis": 0.103,
    "Cardiomegaly": 0.025,
    "Effusion": 0.119,
    "Infiltration": 0.177,
    "Mass": 0.052,
    "Nodule": 0.056,
    "Pneumonia": 0.013,
    "Pneumothorax": 0.047,
    "Consolidation": 0.042,
    "Edema": 0.021,
    "Emphysema": 0.022,
    "Fibrosis": 0.015,
    "Pleural_Thickening": 0.030,
    "Hernia": 0.002,
}
DISTANCE = 1.2  # between positives and negatives, in standard deviations: an AUROC of 0.80
NUM_COMPARED = 3  # resamples that scikit-learn is given

SETTINGS = EvaluationSettings()


def sample_table(num_images: int, num_patients: int) -> PredictionTable:
    """Return predictions of patients whose images resemble one another, in findings and in scores."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(num_patients, 0.7))  # most patients have few images, some have many
    others = generator.choice(num_patients, size=num_images - num_patients, p=shares)
    patients = np.concatenate([np.arange(num_patients), others])
    prevalences = np.array(list(PREVALENCES.values()))
    of_patient = generator.beta(0.5 * prevalences, 0.5 * (1 - prevalences), (num_patients, len(prevalences)))
    targets = (generator.random((num_images, len(prevalences))) < of_patient[patients]).astype(float)
    shared, own = generator.normal(size=of_patient.shape), generator.normal(size=targets.shape)
    logits = np.sqrt(0.3) * shared[patients] + np.sqrt(0.7) * own + DISTANCE * targets
    probabilities = 1 / (1 + np.exp(3 - logits))
    images = np.array([f"{index:08d}.png" for index in range(num_images)], dtype=object)
    names = np.array([str(index) for index in range(num_patients)], dtype=object)
    covariates = pd.DataFrame(
        {
            "view": generator.choice(["PA", "AP"], num_images),
            "sex": generator.choice(["F", "M"], num_patients)[patients],
            "age": generator.integers(0, 95, num_patients)[patients].astype(float),
        }
    )
    return PredictionTable(
        images, patients, tuple(PREVALENCES), targets, probabilities, covariates, names, part="test"
    )


def with_scikit_learn(table: PredictionTable, counts: Counts) -> list[list[float]]:
    """Return both metrics of every label in a few resamples, by a loop over scikit-learn."""
    areas = (roc_auc_score, average_precision_score)
    found = []
    for drawn in counts[:, :NUM_COMPARED].T:
        weights = drawn[table.patients]
        for targets, scores in zip(table.targets.T, table.probabilities.T, strict=True):
            found.append([area(targets, scores, sample_weight=weights) for area in areas])
    return found


def disagreement(table: PredictionTable, counts: Counts) -> float:
    """Return the largest difference between ours and scikit-learn's, in the resamples that it was given."""
    ours = label_rankings(table, counts[:, :NUM_COMPARED])
    both = np.stack([ours.auroc_samples.T, ours.average_precision_samples.T], axis=2)
    return float(np.abs(both.reshape(-1, 2) - with_scikit_learn(table, counts)).max())


def label_table(table: PredictionTable, counts: Counts) -> None:
    """Compute every metric by label, macro and micro, with intervals; DeLong's too, clustered by patient."""
    thresholds = np.full(len(table.labels), 0.1)
    metric_estimates(table, thresholds, counts, level=SETTINGS.level, prevalence=SETTINGS.prevalence)
    for column in range(len(table.labels)):
        scores, targets = table.probabilities[:, column], table.targets[:, column]
        delong_estimate(scores, targets, table.patients, SETTINGS.level)


def everything(table: PredictionTable, counts: Counts) -> None:
    """Choose thresholds and calibration, evaluate all images, write the page and its figures."""
    is_validation = table.patients % 2 == 0
    validation = table.rows(is_validation)
    thresholds, calibrator = from_validation(validation, SETTINGS)
    model_info = ModelInfo(title="A benchmark")
    evaluation = Evaluation(
        table, thresholds, calibrator, DataFacts("synthetic scores"), model_info, validation=validation
    )
    with tempfile.TemporaryDirectory() as folder:
        write_evaluation(evaluation, SETTINGS, Path(folder), images=True)


RANKINGS = "AUROC and average precision by label"
SCIKIT_LEARN = f"the same by a loop over scikit-learn, extrapolated from {NUM_COMPARED} resamples"
TASKS: dict[str, Task] = {
    "draw the patients": lambda table, counts: patient_counts(table.num_patients, counts.shape[1], 0),
    RANKINGS: label_rankings,
    "the same of all labels pooled": micro_ranking,
    "curves with bands (200 resamples)": lambda table, _: label_curves(table, SETTINGS),
    "every metric by label, macro and micro": label_table,
    "everything, with the page and its figures": everything,
    SCIKIT_LEARN: with_scikit_learn,
}


def measured(name: str, num_images: int, num_patients: int, rounds: int) -> tuple[float, float, float]:
    """Return a task's median seconds, its median processor seconds, and this process's peak memory in MB."""
    table = sample_table(num_images, num_patients)
    counts = patient_counts(table.num_patients, SETTINGS.num_resamples, SETTINGS.seed)
    taken = []
    for _ in range(rounds):
        start, processor_start = time.perf_counter(), time.process_time()
        TASKS[name](table, counts)
        taken.append((time.perf_counter() - start, time.process_time() - processor_start))
    wall, processor = (statistics.median(times) for times in zip(*taken, strict=True))
    times = SETTINGS.num_resamples / NUM_COMPARED if name == SCIKIT_LEARN else 1
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return wall * times, processor * times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def alone(task: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float]:
    """Run a task in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(task).result()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=22_433)
    parser.add_argument("--patients", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size = (arguments.images, arguments.patients)
    print(
        f"{size[0]} images of {size[1]} patients, {len(PREVALENCES)} labels, {os.cpu_count()} cores; ", end=""
    )
    print(f"{SETTINGS.num_resamples} resamples; medians of {arguments.rounds}")
    print(f"{'':76s}{'seconds':>11s}{'processor':>11s}{'ratio':>9s}{'peak':>11s}")
    rows = {name: alone(partial(measured, name, *size, arguments.rounds)) for name in TASKS}
    for name, (wall, processor, megabytes) in rows.items():
        ratio = processor / rows[RANKINGS][1]
        print(f"{name:76s}{wall:9.2f} s{processor:9.2f} s{ratio:9.2f}{megabytes:8.0f} MB")
    table = sample_table(*size)
    counts = patient_counts(table.num_patients, NUM_COMPARED, SETTINGS.seed)
    print(f"largest difference to scikit-learn: {disagreement(table, counts):.1e}")


if __name__ == "__main__":
    main()
