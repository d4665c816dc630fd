from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cxrlab.errors import DataError
from cxrlab.evaluation.comparison import compare
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.external_predictions import read_external
from cxrlab.evaluation.out_of_fold import WITHIN_FOLDS, delong_within_folds, within_folds
from cxrlab.evaluation.terminal import terminal_table
from cxrlab.metrics.bootstrap import estimate, patient_counts
from cxrlab.metrics.delong import delong
from cxrlab.metrics.predictions import PredictionTable

NUM_FOLDS = 5


def with_folds(table: PredictionTable, *, shift: float = 0.0) -> PredictionTable:
    """Give patients folds in turn, and the logits of each fold a shift."""
    numbers = table.patients % NUM_FOLDS
    logits = np.log(table.probabilities / (1 - table.probabilities)) + shift * numbers[:, None]
    folds = numbers.astype(str).astype(object)
    return replace(table, probabilities=1 / (1 + np.exp(-logits)), folds=folds)


def reference(table, column, weights=None):
    """Mean over the folds of scikit-learn's AUROC; a fold of one class keeps its own value of the whole."""
    values = []
    for fold in sorted(set(table.folds)):
        rows = (table.folds == fold) & table.known[:, column]
        given = None if weights is None else weights[rows]
        targets = table.targets[rows, column]
        drawn = targets if given is None else targets[given > 0]
        if len(set(drawn)) < 2:
            given = None
        values.append(roc_auc_score(targets, table.probabilities[rows, column], sample_weight=given))
    return np.mean(values)


def test_within_folds_is_the_mean_of_scikit_learns(make_predictions, make_settings):
    table = with_folds(make_predictions(), shift=1.0)
    counts = patient_counts(table.num_patients, 20, 1)
    within = within_folds(table, counts)
    for column in range(len(table.labels)):
        assert within.values[column] == pytest.approx(reference(table, column))
        drawn = [reference(table, column, weights[table.patients]) for weights in counts.T]
        np.testing.assert_allclose(within.samples[column], drawn, atol=1e-6)


def test_a_shift_of_the_folds_changes_the_pooled_value_only(make_predictions, make_settings):
    plain, shifted = (
        evaluate(with_folds(make_predictions(), shift=shift), settings=make_settings())
        for shift in (0.0, 1.5)
    )
    for label in plain.labels:
        assert plain.labels[label][WITHIN_FOLDS].value == pytest.approx(
            shifted.labels[label][WITHIN_FOLDS].value
        )
        assert shifted.labels[label]["auroc"].value < plain.labels[label]["auroc"].value - 0.03
    assert shifted.main_auroc == WITHIN_FOLDS
    assert (
        shifted.macro[WITHIN_FOLDS].low < shifted.macro[WITHIN_FOLDS].value < shifted.macro[WITHIN_FOLDS].high
    )
    assert shifted.out_of_fold.images.keys() == set("01234")
    assert shifted.out_of_fold.shared_patients == 0
    assert "out_of_fold" in [caveat.kind for caveat in shifted.flags]
    assert terminal_table(shifted).index("AUROC within folds") < terminal_table(shifted).index(
        "AUROC, pooled"
    )
    assert shifted.to_json()["out_of_fold"]["aurocs"]["Edema"]["0"] == pytest.approx(
        plain.out_of_fold.aurocs["Edema"]["0"]
    )


def test_a_fold_of_one_class_is_left_out(make_predictions):
    table = with_folds(make_predictions())
    targets = table.targets.copy()
    targets[table.folds == "2", 0] = 0.0
    within = within_folds(replace(table, targets=targets), patient_counts(table.num_patients, 30, 0))
    assert np.isnan(within.folds[0, 2])
    assert within.values[0] == pytest.approx(np.nanmean(within.folds[0]))
    assert not np.isnan(within.samples).any()


def test_a_table_without_folds_is_as_before(make_predictions, make_settings):
    result = evaluate(make_predictions(), settings=make_settings())
    assert result.out_of_fold is None
    assert result.main_auroc == "auroc"
    assert WITHIN_FOLDS not in result.macro
    assert "fold" not in terminal_table(result)


def test_patients_in_several_folds_are_flagged(make_predictions, make_settings):
    table = make_predictions()
    folds = (np.arange(len(table)) % 2).astype(str).astype(object)
    result = evaluate(replace(table, folds=folds), settings=make_settings())
    flag = next(caveat for caveat in result.flags if caveat.kind == "patients_in_folds")
    shared = pd.DataFrame({"patient": table.patients, "fold": folds}).groupby("patient")["fold"].nunique()
    assert flag.message.startswith(f"{(shared > 1).sum()} patients")


def test_folds_are_read_from_the_predictions_and_written_again(tmp_path: Path, make_predictions):
    frame = with_folds(make_predictions()).to_frame()
    assert list(frame)[:4] == ["image", "patient", "part", "fold"]
    path = tmp_path / "out_of_fold.csv"
    frame.to_csv(path, index=False)
    table = read_external(path, path, [])
    assert table.labels == ("Edema", "Mass")
    assert table.folds.tolist() == frame["fold"].tolist()
    assert PredictionTable.from_frame(pd.read_csv(path), "it").folds.tolist() == frame["fold"].tolist()
    assert table.rows(np.arange(3)).folds.tolist() == frame["fold"].tolist()[:3]
    frame.drop(columns="fold").to_csv(path, index=False)
    assert read_external(path, path, []).folds is None
    frame.assign(fold=["", *frame["fold"][1:]]).to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"1 rows of .*out_of_fold\.csv have nothing in the column 'fold', such as row 1"
    ):
        read_external(path, path, [])


def test_folds_of_the_targets_say_nothing_of_the_network(tmp_path: Path, make_predictions):
    frame = with_folds(make_predictions()).to_frame()
    frame.drop(columns="fold").to_csv(tmp_path / "predictions.csv", index=False)
    frame.to_csv(tmp_path / "targets.csv", index=False)
    assert read_external(tmp_path / "predictions.csv", tmp_path / "targets.csv", []).folds is None


def test_delong_within_folds_is_the_mean_of_independent_folds(make_predictions):
    table = with_folds(make_predictions())
    scores = np.stack([table.probabilities[:, 0], table.probabilities[:, 1]])
    aurocs, covariance = delong_within_folds(scores, table.targets[:, 0], table)
    parts = [
        delong(scores[:, rows], table.targets[rows, 0], table.patients[rows])
        for rows in (table.folds == fold for fold in "01234")
    ]
    np.testing.assert_allclose(aurocs, np.mean([values for values, _ in parts], axis=0))
    np.testing.assert_allclose(covariance, sum(matrix for _, matrix in parts) / NUM_FOLDS**2)


def test_models_are_compared_within_folds(make_predictions, make_settings):
    table = with_folds(make_predictions(), shift=1.5)
    noise = np.random.default_rng(5).normal(size=table.probabilities.shape)
    logits = np.log(table.probabilities / (1 - table.probabilities))
    other = replace(table, probabilities=1 / (1 + np.exp(-(logits + noise))))
    whole = replace(other, folds=None)  # of one network: it is ranked within the other's folds
    result = compare({"folds": table, "whole": whole}, make_settings())
    assert result.num_folds == NUM_FOLDS
    best = result.models[0]
    assert best.name == "folds"
    assert best.macro_auroc.value == pytest.approx(np.mean([reference(table, column) for column in (0, 1)]))
    assert best.pooled_macro_auroc.value == pytest.approx(
        np.mean(
            [roc_auc_score(table.targets[:, column], table.probabilities[:, column]) for column in (0, 1)]
        )
    )
    pair = result.pairs[0]
    expected = reference(table, 0) - reference(other, 0)
    assert pair.labels["Edema"].difference.value == pytest.approx(expected)
    deviation = (
        (pair.labels["Edema"].difference.high - pair.labels["Edema"].difference.low) / 2 / norm.ppf(0.975)
    )
    assert pair.labels["Edema"].p == pytest.approx(2 * norm.sf(abs(expected) / deviation))
    drawn = [
        np.mean([reference(table, column, weights[table.patients]) for column in (0, 1)])
        - np.mean([reference(other, column, weights[table.patients]) for column in (0, 1)])
        for weights in patient_counts(table.num_patients, 200, 0).T
    ]
    assert pair.difference.low == pytest.approx(estimate(0.1, drawn, 0.95).low, abs=1e-6)
    assert next(flag.kind for flag in result.flags) == "out_of_fold"


def test_models_of_other_folds_are_compared_pooled(make_predictions, make_settings):
    first = with_folds(make_predictions())
    renamed = replace(first, folds=np.array([f"f{fold}" for fold in first.folds], dtype=object))
    other = replace(first, folds=((first.patients // 7) % 3).astype(str).astype(object))
    assert compare({"a": first, "b": renamed}, make_settings()).num_folds == NUM_FOLDS
    result = compare({"a": first, "b": other}, make_settings())
    assert result.num_folds == 0
    assert "folds_differ" in [flag.kind for flag in result.flags]
    assert result.models[0].macro_auroc.value == pytest.approx(
        np.mean(
            [roc_auc_score(first.targets[:, column], first.probabilities[:, column]) for column in (0, 1)]
        )
    )
