"""AUROC within groups against pairs counted one by one, and where the view alone ranks the images."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.evaluation.stratified import stratified_auroc
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings()
P, N = 200, 600


def make(*, of_view=0.0, of_finding=1.0, labels=("A", "B"), seed=0):
    """Three images a patient; AP views have more findings, and scores that are higher by ``of_view``."""
    rng = np.random.default_rng(seed)
    patients = np.arange(N) % P
    is_ap = rng.random(N) < 0.4
    targets = (rng.random((N, len(labels))) < np.where(is_ap, 0.4, 0.1)[:, None]).astype(float)
    targets[rng.random(targets.shape) < 0.1] = np.nan
    known = np.nan_to_num(targets)
    logits = rng.normal(size=targets.shape) + of_finding * known + of_view * is_ap[:, None]
    covariates = pd.DataFrame({
        "view": np.where(rng.random(N) < 0.1, "", np.where(is_ap, "AP", "PA")),
        "age": rng.integers(0, 90, N).astype(float),
    })  # fmt: skip
    return PredictionTable(
        images=np.array([f"{row}.png" for row in range(N)], dtype=object),
        patients=patients,
        labels=labels,
        targets=targets,
        probabilities=np.round(1 / (1 + np.exp(-logits)), 2),
        covariates=covariates,
        patient_names=np.arange(P).astype(str).astype(object),
    )


def rows_of(table, settings=SETTINGS):
    rows = stratified_auroc(table, settings)
    json.dumps([asdict(row) for row in rows], allow_nan=False)
    return {(row.covariate, row.label): row for row in rows}


def test_pairs_within_a_group_are_counted_one_by_one():
    table = make(of_view=1.0)
    rows = rows_of(table)
    view = table.covariates["view"].to_numpy()
    for column, label in enumerate(table.labels):
        targets, scores = table.targets[:, column], table.probabilities[:, column]
        won, within, pairs = 0.0, 0, 0
        for i in np.flatnonzero((targets == 1) & (view != "")):
            others = np.flatnonzero((targets == 0) & (view != ""))
            same = others[view[others] == view[i]]
            won += (scores[i] > scores[same]).sum() + 0.5 * (scores[i] == scores[same]).sum()
            within, pairs = within + len(same), pairs + len(others)
        row = rows["view", label]
        assert row.within.value == pytest.approx(won / within)
        assert row.share_of_pairs == pytest.approx(within / pairs)
        kept = ~np.isnan(targets) & (view != "")
        assert row.auroc.value == pytest.approx(roc_auc_score(targets[kept], scores[kept]))
        assert row.difference.value == pytest.approx(row.auroc.value - row.within.value)
        assert row.num_groups == 2
    mean = rows["view", "macro"]
    assert mean.within.value == pytest.approx(np.mean([rows["view", label].within.value for label in "AB"]))


def test_what_the_view_alone_ranks_is_gone_within_views():
    rows = rows_of(make(of_view=3.0, of_finding=0.0))
    for label in ("A", "B", "macro"):
        row = rows["view", label]
        assert row.auroc.value > 0.65
        assert row.within.low < 0.5 < row.within.high
        assert row.is_shown
        assert not rows["age", label].is_shown


def test_a_model_that_sees_the_finding_keeps_its_auroc_within_ages():
    row = rows_of(make(of_finding=2.0))["age", "macro"]
    assert abs(row.difference.value) < 0.02
    assert row.within.low < row.auroc.value < row.within.high
    assert not row.is_shown


def test_a_label_of_few_patients_is_given_and_not_tested():
    table = make(of_view=3.0)
    few = np.isin(table.patients, range(15)) | (table.targets[:, 0] == 0)
    table.targets[~few, 0] = np.nan
    row = rows_of(table)["view", "A"]
    assert row.patients < SETTINGS.min_gap_patients
    assert row.within.value is not None
    assert (row.p, row.p_holm, row.is_shown) == (None, None, False)


def test_a_covariate_of_the_positives_only_has_no_pairs():
    table = make(labels=("A",))
    cause = np.where(table.targets[:, 0] == 1, np.where(np.arange(N) % 2, "virus", "bacteria"), "")
    assert rows_of(replace(table, covariates=pd.DataFrame({"cause": cause}))) == {}


def test_one_value_is_no_strata():
    table = make(labels=("A",))
    assert rows_of(replace(table, covariates=pd.DataFrame({"view": ["PA"] * N}))) == {}
    assert rows_of(replace(table, covariates=pd.DataFrame())) == {}
