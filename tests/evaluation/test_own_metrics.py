"""A person's own metrics in evaluations, comparisons and what the terminal shows of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cxrlab.evaluation import DataFacts, compare, evaluate, given
from cxrlab.evaluation.comparison import run_tables
from cxrlab.evaluation.paired_tests import describe, outcome
from cxrlab.evaluation.terminal import leaderboard, terminal_table
from cxrlab.metrics import load_metrics, metric, register
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import PredictionTable, decisions_at


@pytest.fixture(autouse=True)
def own_metrics():
    @register
    @metric(title="Squared error", higher_is_better=False, needs="scores")
    def squared_error(scores, targets):
        return float(np.square(scores - targets).mean())

    @register
    @metric(title="Alarms", higher_is_better=False, needs="decisions")
    def alarms(decisions, targets):
        return float(decisions.mean())

    yield
    load_metrics([])


def test_an_evaluation_has_them_with_intervals(make_predictions, make_settings, tmp_path):
    table = make_predictions()
    result = evaluate(
        table, settings=make_settings(), thresholds=given(0.4, 2), calibrator=None, data=DataFacts("x")
    )
    for column, label in enumerate(table.labels):
        ours, theirs = (result.labels[label][name] for name in ("squared_error", "brier"))
        assert (ours.value, ours.low, ours.high) == pytest.approx(
            (theirs.value, theirs.low, theirs.high), abs=1e-6
        )
        assert result.labels[label]["alarms"].value == pytest.approx(
            (table.probabilities[:, column] >= 0.4).mean()
        )
    result.save(tmp_path)
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved["macro"]["squared_error"]["value"] == pytest.approx(saved["macro"]["brier"]["value"])
    assert saved["micro"]["alarms"]["low"] is not None
    text = terminal_table(result)
    assert "Squared error" in text
    assert "Alarms" in text


def test_models_are_compared_by_them_in_their_direction(make_predictions, make_settings):
    good, bad = make_predictions(signal=3.0), make_predictions(signal=0.5)
    result = compare({"bad": bad, "good": good}, make_settings())
    assert [model.name for model in result.models] == ["good", "bad"]
    errors = [model.metrics["squared_error"] for model in result.models]
    assert errors[0].value < errors[1].value
    (pair,) = result.pairs
    difference = pair.metrics["squared_error"]
    assert difference.difference.value == pytest.approx(errors[0].value - errors[1].value)
    assert difference.difference.high < 0
    assert difference.outcome == pair.outcome == "better"
    assert difference.description.startswith("good is better by 0.")
    assert "Alarms left out" in next(c.message for c in result.flags if c.kind == "decisions_left_out")
    assert "alarms" not in result.models[0].metrics
    text = leaderboard(result)
    assert "macro Squared error" in text
    assert "good against bad, Squared error: good is better by 0." in text
    json.dumps(result.to_json(), allow_nan=False)


def decided(table, *thresholds):
    return replace(table, decisions=decisions_at(table.probabilities, np.array(thresholds)))


@pytest.fixture
def youden():
    @register
    @metric(title="Youden's J", higher_is_better=True, needs="decisions")
    def youden(decisions, targets):
        return float(decisions[targets == 1].mean() - decisions[targets == 0].mean())

    return youden


@pytest.mark.usefixtures("youden")
def test_models_with_decisions_are_compared_by_them(make_predictions, make_settings):
    good, bad = (decided(make_predictions(signal=signal), 0.5, 0.6) for signal in (3.0, 0.5))
    result = compare({"bad": bad, "good": good}, make_settings())
    assert not [caveat for caveat in result.flags if "left_out" in caveat.kind]
    assert list(result.models[0].metrics) == ["squared_error", "alarms", "youden"]
    values = {model.name: model.metrics["youden"] for model in result.models}
    for name, table in {"good": good, "bad": bad}.items():
        alone = evaluate(
            table, settings=make_settings(), thresholds=given(0.5, 2), calibrator=None, data=DataFacts("x")
        )
        assert values[name].low < values[name].value < values[name].high
        by_label = [
            np.mean(table.decisions[table.targets[:, column] == 1, column])
            - np.mean(table.decisions[table.targets[:, column] == 0, column])
            for column in (0, 1)
        ]
        assert values[name].value == pytest.approx(np.mean(by_label))
        assert by_label[0] == pytest.approx(alone.labels["Edema"]["youden"].value)
    (pair,) = result.pairs
    difference = pair.metrics["youden"]
    assert difference.difference.value == pytest.approx(values["good"].value - values["bad"].value)
    assert difference.difference.low > 0
    assert difference.outcome == "better"
    assert difference.p_holm == difference.p < 0.05
    text = leaderboard(result)
    assert "macro Youden's J" in text
    assert "good against bad, Youden's J: good is better by 0." in text


def test_differences_of_decisions_are_paired_and_corrected_over_the_pairs(make_predictions, make_settings):
    table = make_predictions(signal=2.0)
    tables = {
        "low": decided(table, 0.5, 0.5),
        "same": decided(table, 0.5, 0.5),
        "high": decided(table, 0.7, 0.7),
    }
    pairs = {pair.models: pair.metrics["alarms"] for pair in compare(tables, make_settings()).pairs}
    same, apart = pairs["low", "same"], pairs["low", "high"]
    assert same.difference.value == 0
    assert same.outcome not in ("better", "worse")
    assert apart.outcome == "worse"  # more alarms
    assert apart.p_holm > apart.p
    assert apart.difference.high - apart.difference.low < 0.1


@pytest.mark.parametrize("lacking", ["column", "threshold"])
def test_without_decisions_of_every_model_they_are_left_out(make_predictions, make_settings, lacking):
    table = make_predictions()
    other = table if lacking == "column" else decided(table, np.nan, np.nan)
    result = compare({"a": decided(table, 0.5, 0.5), "b": other}, make_settings())
    assert list(result.models[0].metrics) == ["squared_error"]
    assert list(result.pairs[0].metrics) == ["squared_error"]
    assert "Alarms left out" in next(c.message for c in result.flags if c.kind == "decisions_left_out")


def test_models_are_compared_over_the_labels_that_all_of_them_decide(make_predictions, make_settings):
    table = make_predictions()
    tables = {"a": decided(table, 0.5, 0.5), "b": decided(table, 0.5, np.nan)}
    result = compare(tables, make_settings())
    assert result.pairs[0].metrics["alarms"].difference.value == 0
    share = (table.probabilities[:, 0] >= 0.5).mean()
    assert [model.metrics["alarms"].value for model in result.models] == pytest.approx([share, share])
    assert "Mass left out" in next(c.message for c in result.flags if c.kind == "metric_labels_left_out")


def test_models_are_compared_over_the_images_that_all_of_them_decide(make_predictions, make_settings):
    table = decided(make_predictions(), 0.5, 0.5)
    holes = table.decisions.copy()
    holes[::3, 0] = np.nan
    result = compare({"a": table, "b": replace(table, decisions=holes)}, make_settings())
    assert result.pairs[0].metrics["alarms"].difference.value == 0
    assert not [caveat for caveat in result.flags if "left_out" in caveat.kind]


def test_tables_that_runs_wrote_are_compared_by_their_decisions(make_predictions, make_settings, tmp_path):
    tables = {}
    for name, signal in {"good": 3.0, "bad": 0.5}.items():
        folder = tmp_path / name / "predictions"
        folder.mkdir(parents=True)
        frame = make_predictions(signal=signal).to_frame(np.array([0.5, 0.6]))
        frame.to_csv(folder / "test.csv", index=False)
        tables[name] = PredictionTable.from_frame(frame, name)
    read = run_tables([tmp_path / name for name in tables], None)
    results = [compare(held, make_settings()) for held in (read, tables)]
    assert "alarms" in results[0].models[0].metrics
    assert results[0].models == results[1].models


@pytest.mark.parametrize(
    ("value", "low", "high", "expected", "words"),
    [
        (-0.02, -0.03, -0.01, "better", "a is better by 0.020 (0.010 to 0.030)"),
        (0.02, 0.01, 0.03, "worse", "b is better by 0.020 (0.010 to 0.030)"),
    ],
)
def test_the_smaller_of_two_errors_is_the_better(value, low, high, expected, words):
    difference = Estimate(value, low, high)
    found = outcome(difference, 0.001, 0.95, higher_is_better=False)
    assert found == expected
    assert describe(("a", "b"), difference, found, higher_is_better=False) == words
    assert outcome(difference, 0.2, 0.95, higher_is_better=False) == "unclear"
