import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as t_distribution

from cxrlab.evaluation.failures import _scores, failure_analysis
from cxrlab.evaluation.image_facts import ImageFacts
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(num_resamples=100)
LABELS = ("Edema", "Mass", "Hernia")


def simulated(num_patients=300, per_patient=2, seed=0):
    """Return predictions without any pattern: covariates and images have nothing to do with errors."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), per_patient)
    num_images, num_labels = len(patients), len(LABELS)

    def latent():
        shared = generator.normal(size=(num_patients, num_labels))[patients]
        return 0.5**0.5 * shared + 0.5**0.5 * generator.normal(size=(num_images, num_labels))

    targets = (latent() > norm.isf([0.3, 0.15, 0.08])).astype(float)
    scores = latent() + 1.3 * targets
    covariates = pd.DataFrame(
        {
            "view": generator.choice(["AP", "PA"], num_patients)[patients],
            "age": generator.integers(1, 90, num_patients)[patients].astype(float),
        }
    )
    table = PredictionTable(
        images=np.array([f"{row}.png" for row in range(num_images)], dtype=object),
        patients=patients,
        labels=LABELS,
        targets=targets,
        probabilities=1 / (1 + np.exp(1.0 - scores)),
        covariates=covariates,
        patient_names=np.array([f"p{row}" for row in range(num_patients)], dtype=object),
    )
    facts = ImageFacts(
        generator.normal(100, 20, num_images),
        generator.normal(50, 10, num_images),
        np.where(targets == 1, generator.random((num_images, num_labels)), np.nan),
    )
    return table, facts


def analysed(table, facts=None, thresholds=(0.5, 0.5, 0.5)):
    counts = patient_counts(table.num_patients, SETTINGS.num_resamples, 0)
    return failure_analysis(table, np.array(thresholds), counts, SETTINGS, facts)


def with_scores(table, label, where, probability):
    probabilities = table.probabilities.copy()
    probabilities[where, LABELS.index(label)] = probability
    return replace(table, probabilities=probabilities)


def found(analysis):
    return {(one.label, one.error, one.by, one.group) for one in analysis.patterns}


def test_planted_patterns_are_found_and_nothing_else():
    table, facts = simulated()
    edema, mass = table.targets[:, 0] == 1, table.targets[:, 1] == 1
    is_ap = (table.covariates["view"] == "AP").to_numpy()
    changed = with_scores(table, "Edema", edema & is_ap, 0.1)  # Edema is missed in AP
    changed = with_scores(changed, "Hernia", mass & (table.targets[:, 2] == 0), 0.9)  # Mass passes for Hernia
    small = facts.box_areas[:, 1] < np.nanquantile(facts.box_areas[:, 1], 0.3)
    changed = with_scores(changed, "Mass", small, 0.1)  # and is missed where it is small
    changed = with_scores(changed, "Mass", mass & ~small, 0.9)
    analysis = analysed(changed, facts)
    low = next(one.group for one in analysis.patterns if one.by == "box")
    assert low.startswith("up to 0.")
    assert found(analysis) == {
        ("Edema", "missed", "view", "AP"),
        ("Hernia", "false positive", "co-finding", "with Mass"),
        ("Mass", "missed", "box", low),
    }
    assert [one.p_holm for one in analysis.patterns] == sorted(one.p_holm for one in analysis.patterns)
    assert analysis.compared == ["co-finding", "view", "age", "brightness", "contrast", "box"]
    json.dumps(asdict(analysis), allow_nan=False)


def test_the_numbers_of_a_pattern_are_those_of_its_images():
    table, _ = simulated()
    edema = table.targets[:, 0] == 1
    is_ap = (table.covariates["view"] == "AP").to_numpy()
    changed = with_scores(table, "Edema", edema & is_ap, 0.1)
    (pattern,) = analysed(changed).patterns
    missed = changed.probabilities[:, 0] < 0.5
    assert pattern.images == (edema & is_ap).sum()
    assert pattern.patients == len(set(table.patients[edema & is_ap]))
    assert pattern.rate.value == 1.0
    assert pattern.rate.low == pytest.approx(
        pattern.patients / (pattern.patients + norm.ppf(0.975) ** 2), abs=0.03
    )
    assert pattern.others.value == pytest.approx(missed[edema & ~is_ap].mean())
    assert pattern.others.low < pattern.others.value < pattern.others.high
    assert pattern.p < pattern.p_holm < 1e-3


def test_a_score_equals_the_one_computed_image_by_image():
    generator = np.random.default_rng(3)
    inside = (generator.random((60, 2)) < [0.4, 0.2]).astype(float)
    errors = (generator.random(60) < 0.3).astype(float)
    patients = generator.integers(20, size=60)
    for column, score in enumerate(_scores(inside, errors, patients, 20)):
        group = inside[:, column]
        terms = (group - group.mean()) * (errors - errors.mean())
        variance = errors.mean() * (1 - errors.mean()) * ((group - group.mean()) ** 2).sum()
        for patient in range(20):
            own = terms[patients == patient]
            variance += own.sum() ** 2 - (own**2).sum()
        alone = errors.mean() * (1 - errors.mean()) * ((group - group.mean()) ** 2).sum()
        assert score == pytest.approx(terms.sum() / max(variance, alone) ** 0.5)


def test_p_is_students_of_the_smallest_cell():
    table, _ = simulated()
    edema = table.targets[:, 0] == 1
    is_ap = (table.covariates["view"] == "AP").to_numpy()
    changed = with_scores(table, "Edema", edema & is_ap, 0.1)
    (pattern,) = analysed(changed).patterns
    rows = np.flatnonzero(edema)
    errors = changed.probabilities[rows, 0] < 0.5
    rarer = errors if errors.mean() <= 0.5 else ~errors
    owners = table.patients[rows]
    cells = [owners[is_ap[rows]], owners[~is_ap[rows]], owners[rarer]]
    freedom = min(len(set(cell)) for cell in cells) - 1
    _, numbers = np.unique(owners, return_inverse=True)
    (score,) = _scores(is_ap[rows][:, None].astype(float), errors.astype(float), numbers, numbers.max() + 1)
    assert pattern.p == pytest.approx(2 * t_distribution.sf(abs(score), freedom))


def test_unknown_targets_and_values_are_left_out():
    table, _ = simulated()
    targets = table.targets.copy()
    targets[:, 1] = np.nan
    view = table.covariates["view"].where(np.arange(len(table)) % 3 > 0, None)
    without = replace(table, targets=targets, covariates=pd.DataFrame({"view": view}))
    counts = patient_counts(table.num_patients, 100, 0)
    others = failure_analysis(without.select_labels(["Edema", "Hernia"]), np.full(2, 0.5), counts, SETTINGS)
    assert analysed(without) == others
    known = without.rows(view.notna().to_numpy())  # every patient has an image with a view
    by_view = {
        one.by for one in analysed(with_scores(without, "Edema", view.isna().to_numpy(), 0.1)).patterns
    }
    assert (known.num_patients, "view" in by_view) == (table.num_patients, False)


def test_few_patients_or_errors_are_not_compared():
    table, _ = simulated(num_patients=30)
    assert analysed(table).num_tests < 10
    tiny, _ = simulated(num_patients=12)
    assert (analysed(tiny).num_tests, analysed(tiny).patterns) == (0, [])
    exact = replace(table, probabilities=table.targets.copy())
    assert analysed(exact).num_tests == 0


def test_without_threshold_there_is_nothing():
    table, facts = simulated()
    assert analysed(table, facts, [np.nan] * 3) is None
    some = analysed(table, facts, [np.nan, 0.5, np.nan])
    assert {one.label for one in some.patterns} <= {"Mass"}
    assert some.num_tests < analysed(table, facts).num_tests


@pytest.mark.slow
def test_without_a_pattern_hardly_ever_one_is_shown():
    shown = [bool(analysed(*simulated(300, 3, seed)).patterns) for seed in range(300)]
    assert np.mean(shown) <= 0.07
