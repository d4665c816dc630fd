from cxrlab.evaluation.evaluate import DataFacts, evaluate
from cxrlab.evaluation.operating_point import given
from cxrlab.evaluation.terminal import leaderboard, terminal_table


def test_the_table_has_each_label_its_interval_and_the_reservations(make_predictions, make_settings):
    table = make_predictions(part="val")
    numbers = evaluate(
        table, settings=make_settings(), thresholds=given(0.5, 2), calibrator=None, data=DataFacts("x")
    ).numbers
    text = terminal_table(numbers)
    auroc = numbers["labels"]["Edema"]["auroc"]
    assert f"{auroc['value']:.3f} ({auroc['low']:.3f}-{auroc['high']:.3f})" in text
    assert f"{int(table.targets[:, 0].sum())} of {len(table)}" in text
    assert "macro mean of 2" in text
    assert "95% intervals, by the patient bootstrap" in text
    assert "Note: The network was evaluated on the images that its best epoch" in text


def test_without_a_threshold_its_columns_are_left_out(make_predictions, make_settings):
    numbers = evaluate(
        make_predictions(("Edema",)),
        settings=make_settings(),
        thresholds=None,
        calibrator=None,
        data=DataFacts("x"),
    ).numbers
    text = terminal_table(numbers)
    assert "sensitivity  " not in text.split("Note:")[0]
    assert "macro" not in text


def test_the_leaderboard_names_both_models_of_a_difference():
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95}
    numbers = {
        "models": [{"name": "a", "macro_auroc": estimate, "macro_average_precision": estimate}],
        "pairs": [{"models": ["a", "b"], "words": "no difference shown: 0.004"}],
        "flags": [{"message": "Patients are unknown."}],
    }
    text = leaderboard(numbers)
    assert "0.900 (0.800-0.950)" in text
    assert "a against b: no difference shown" in text
    assert "Note: Patients are unknown." in text
