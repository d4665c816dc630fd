from dataclasses import replace

import numpy as np

from cxrlab.evaluation.comparison import compare
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.operating_point import given
from cxrlab.evaluation.terminal import leaderboard, terminal_table
from cxrlab.metrics.predictions import DataFacts


def test_the_table_has_each_label_its_interval_and_the_reservations(make_predictions, make_settings):
    table = make_predictions(part="val")
    numbers = evaluate(
        table, settings=make_settings(), thresholds=given(0.5, 2), calibrator=None, data=DataFacts("x")
    )
    text = terminal_table(numbers)
    auroc = numbers.labels["Edema"]["auroc"]
    assert f"{auroc.value:.3f} ({auroc.low:.3f}-{auroc.high:.3f})" in text
    assert f"{int(table.targets[:, 0].sum())} of {len(table)}" in text
    assert "macro mean of 2" in text
    assert "95% intervals, by patient." in text
    assert "Note: The network was evaluated on the images that its best epoch" in text


def test_without_a_threshold_its_columns_are_left_out(make_predictions, make_settings):
    numbers = evaluate(
        make_predictions(("Edema",)),
        settings=make_settings(),
        thresholds=None,
        calibrator=None,
        data=DataFacts("x"),
    )
    text = terminal_table(numbers)
    assert "sensitivity  " not in text.split("Note:")[0]
    assert "macro" not in text


def test_the_leaderboard_names_both_models_of_a_difference(make_predictions, make_settings):
    table = make_predictions()
    unknown = replace(table, patients=np.arange(len(table)), patient_names=None)
    result = compare({"a": unknown, "b": unknown}, make_settings())
    text = leaderboard(result)
    auroc = result.models[0].macro_auroc
    assert f"{auroc.value:.3f} ({auroc.low:.3f}-{auroc.high:.3f})" in text
    assert "a against b: no difference shown" in text
    assert "Note: Patients are unknown" in text
