"""A person's own metrics in evaluations, comparisons and what the terminal shows of them."""

import json

import numpy as np
import pytest

from cxrlab.evaluation import DataFacts, compare, evaluate, given
from cxrlab.evaluation.comparison import describe, outcome
from cxrlab.evaluation.terminal import leaderboard, terminal_table
from cxrlab.metrics import load_metrics, metric, register
from cxrlab.metrics.bootstrap import Estimate


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
