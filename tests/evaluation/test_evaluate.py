import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from cxrlab.errors import OutputError
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.operating_point import from_validation, given
from cxrlab.evaluation.results import LabelCounts
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import DataFacts, PredictionTable


@pytest.fixture
def predicted(make_predictions, make_settings):
    def function(table=None, thresholds="validation", **changes):
        settings = make_settings(**changes)
        chosen, calibrator = from_validation(make_predictions(seed=1, part="val"), settings)
        return evaluate(
            make_predictions() if table is None else table,
            settings=settings,
            thresholds=chosen if thresholds == "validation" else thresholds,
            calibrator=calibrator,
            data=DataFacts("simulated", "grouped", "abc"),
        )

    return function


def test_every_number_of_a_label_agrees_with_scikit_learn(predicted, make_predictions):
    table: PredictionTable = make_predictions()
    targets = table.targets.copy()
    targets[::7, 0] = np.nan
    table = replace(table, targets=targets)
    numbers = predicted(table)
    for column, label in enumerate(table.labels):
        known = table.known[:, column]
        wanted, scores = table.targets[known, column], table.probabilities[known, column]
        metrics = numbers.labels[label]
        assert metrics["auroc"].value == pytest.approx(roc_auc_score(wanted, scores))
        assert metrics["average_precision"].value == pytest.approx(average_precision_score(wanted, scores))
        assert metrics["brier"].value == pytest.approx(brier_score_loss(wanted, scores))
        called = scores >= numbers.thresholds[label].value
        assert metrics["sensitivity"].value == pytest.approx(called[wanted == 1].mean())
        assert metrics["specificity"].value == pytest.approx((~called[wanted == 0]).mean())
        assert numbers.counts[label] == LabelCounts(
            images=known.sum(), positives=wanted.sum(), negatives=(1 - wanted).sum(),
            positive_patients=len(set(table.patients[known][wanted == 1])),
            tp=called[wanted == 1].sum(), fp=called[wanted == 0].sum(),
            tn=(~called[wanted == 0]).sum(), fn=(~called[wanted == 1]).sum(),
            negative_patients=len(set(table.patients[known][wanted == 0])),
        )  # fmt: skip
    macro = np.mean([numbers.labels[label]["auroc"].value for label in table.labels])
    assert numbers.macro["auroc"].value == pytest.approx(macro)


def test_in_python_everything_but_the_table_has_a_default(make_predictions):
    result = evaluate(make_predictions())
    assert (result.interval.resamples, result.interval.level) == (2000, 0.95)
    assert result.data.name == ""
    assert result.thresholds == {}


def test_each_interval_holds_its_value(predicted):
    numbers = predicted()
    estimates = [*numbers.macro.values(), *numbers.micro.values()]
    estimates += [one for metrics in numbers.labels.values() for one in metrics.values()]
    assert len(estimates) > 50
    for one in estimates:
        assert one.low <= one.value <= one.high


def test_intervals_by_patient_are_wider_than_by_image_where_images_resemble_one_another(
    predicted, make_predictions
):
    table = make_predictions()
    again = np.repeat(np.arange(len(table)), 3)
    table = replace(
        table,
        images=np.array([f"{row}-{copy}" for copy, row in enumerate(again)], dtype=object),
        patients=table.patients[again],
        targets=table.targets[again],
        probabilities=table.probabilities[again],
        covariates=pd.DataFrame(index=range(len(again))),
    )
    unknown = replace(table, patients=np.arange(len(table)), patient_names=None)

    def width(one: PredictionTable) -> float:
        auroc = predicted(one).labels["Edema"]["auroc"]
        return auroc.high - auroc.low

    assert width(table) > 1.4 * width(unknown)


def test_a_label_with_one_class_is_left_out_and_named(predicted, make_predictions):
    table = make_predictions()
    targets = table.targets.copy()
    targets[:, 1] = 0.0
    numbers = predicted(replace(table, targets=targets))
    assert numbers.labels["Mass"]["auroc"] == Estimate(None)
    assert numbers.num_macro_labels == 1
    assert numbers.macro["auroc"].value == numbers.labels["Edema"]["auroc"].value
    assert ("one_class", "Mass") in [(one.kind, one.label) for one in numbers.flags]


def test_without_thresholds_what_needs_them_is_left_out(predicted):
    numbers = predicted(thresholds=None)
    assert numbers.thresholds == {}
    assert numbers.labels["Edema"]["sensitivity"].value is None
    assert numbers.labels["Edema"]["auroc"].value is not None
    assert numbers.counts["Edema"].tp is None


def test_the_same_seed_gives_the_same_numbers_and_another_other_intervals(predicted):
    first, again, other = (predicted(seed=seed).labels for seed in (0, 0, 1))
    assert first == again
    assert first["Edema"]["auroc"].value == other["Edema"]["auroc"].value
    assert first["Edema"]["auroc"] == other["Edema"]["auroc"]  # in closed form
    for name in ("auroc_bootstrap", "sensitivity", "brier"):
        assert first["Edema"][name].low != other["Edema"][name].low


def test_the_files_hold_the_numbers_and_the_curves(predicted, tmp_path):
    result = predicted(thresholds=given(0.5, 2))
    result.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text()) == result.to_json()
    curves = pd.read_csv(tmp_path / "new" / "curves.csv")
    assert set(zip(curves.label, curves["curve"], strict=True)) == {
        (label, curve)
        for label in ("Edema", "Mass")
        for curve in ("roc", "pr", "net_benefit", "net_benefit_all")
    }


def test_a_folder_that_cannot_be_written_is_named(predicted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="evaluation cannot be written to .*file"):
        predicted().save(tmp_path / "file")
