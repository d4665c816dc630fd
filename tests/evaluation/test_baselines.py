from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.evaluation.baseline_features import SIDE, batch_features, image_features, oriented_gradients
from cxrlab.evaluation.baselines import (
    Baseline,
    Baselines,
    Fitted,
    Part,
    baseline_caveat,
    evaluate_baselines,
    fit_baselines,
)
from cxrlab.evaluation.covariate_features import CovariateFeatures
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.run_baselines import _drawn, external_baselines
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

MakePredictions = Callable[..., PredictionTable]
MakeSettings = Callable[..., EvaluationSettings]

FITTED = Fitted("training", 100, 50, 100)


def lungs(size: int = 96) -> np.ndarray:
    """A bright square with two dark ellipses."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.full((size, size), 200.0)
    for middle in (0.3, 0.7):
        image[((x - middle) / 0.13) ** 2 + ((y - 0.48) / 0.26) ** 2 <= 1] = 60
    return image


def radiographs(targets: np.ndarray, place: str, size: int = 96) -> np.ndarray:
    """Images whose one label is written at a place: a bright spot in a lung, or at the left border."""
    generator = np.random.default_rng(0)
    images = np.stack([lungs(size)] * len(targets)) + generator.normal(0, 6, (len(targets), size, size))
    spot = slice(40, 52), slice(22, 34) if place == "lung" else slice(0, 6)
    images[targets == 1, spot[0], spot[1]] += 40
    return np.clip(images, 0, 255).astype(np.uint8)[:, None]


def parts_of(images: np.ndarray, targets: np.ndarray, covariates: pd.DataFrame | None = None) -> list[Part]:
    found = batch_features(images)
    features = {"grey": found.grey, "margin": found.margin, "features": found.whole}
    thirds = np.array_split(np.arange(len(targets)), 3)
    frame = pd.DataFrame(index=range(len(targets))) if covariates is None else covariates
    return [
        Part(
            {name: rows[third] for name, rows in features.items()},
            frame.iloc[third].reset_index(drop=True),
            targets[third, None],
            third,
            len(third),
        )
        for third in thirds
    ]


def aurocs(models: dict, evaluated: Part) -> dict[str, float]:
    truth = evaluated.targets[:, 0]
    return {
        name: np.mean([roc_auc_score(truth, one[:, 0]) for one in model.scores])
        for name, model in models.items()
    }


@pytest.mark.parametrize("place", ["lung", "border"])
def test_the_margin_sees_what_is_written_there_and_not_what_is_in_the_lungs(place: str) -> None:
    targets = (np.random.default_rng(1).random(300) < 0.4).astype(float)
    training, validation, evaluated = parts_of(radiographs(targets, place), targets)
    found = aurocs(fit_baselines(training, validation, evaluated, least=10, seed=0), evaluated)
    assert set(found) == {"grey", "margin", "features", "shuffled"}
    assert found["features"] > 0.95
    assert (found["margin"] > 0.95) == (place == "border")
    assert found["margin"] > 0.95 or found["margin"] < 0.68
    assert 0.3 < found["shuffled"] < 0.7


def test_covariates_alone_are_a_baseline_with_pairs_of_values() -> None:
    generator = np.random.default_rng(0)
    view, sex = (generator.choice(values, 900) for values in (["AP", "PA"], ["F", "M"]))
    age = generator.integers(0, 90, 900)
    likely = np.where((view == "AP") == (sex == "F"), 0.8, 0.1)  # neither says anything alone
    targets = (generator.random(900) < likely).astype(float)
    covariates = pd.DataFrame({"view": view, "sex": sex, "age": age})
    training, validation, evaluated = parts_of(np.zeros((900, 1, 8, 8), np.uint8), targets, covariates)
    models = fit_baselines(training, validation, evaluated, least=10, seed=0)
    assert models["covariates"].inputs == ("view", "sex", "age")
    assert aurocs(models, evaluated)["covariates"] > 0.75
    assert models["covariates"].fitted == Fitted("training", 300, 300, 300)


def test_a_covariate_that_only_positives_have_is_part_of_the_label() -> None:
    targets = np.array([[1.0]] * 6 + [[0.0]] * 6)
    covariates = pd.DataFrame(
        {"germ": ["virus", "bacterium"] * 3 + [""] * 6, "site": ["A", "B"] * 6, "constant": ["x"] * 12}
    )
    encoded = CovariateFeatures.of(covariates, targets)
    assert (encoded.names, encoded.left_out) == (("site",), ("germ",))


def test_covariates_become_indicators_that_hold_for_other_images() -> None:
    fitted = pd.DataFrame({"view": ["AP", "PA", "AP", None], "count": [1, 2, 1, 2]})
    encoded = CovariateFeatures.of(fitted, np.array([[1.0], [0.0], [0.0], [1.0]]))
    others = pd.DataFrame({"view": ["PA", "LL", "unknown"], "count": ["1.0", "2", None]})
    expected = [  # AP, PA, other; 1, 2, other; and their products
        [0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1],
    ]  # fmt: skip
    features = encoded.features(others)
    np.testing.assert_array_equal(features[:, :6], expected)
    np.testing.assert_array_equal(features[:, 6:].sum(axis=1), [1, 1, 1])
    ages = pd.DataFrame({"age": np.arange(100.0)})
    tenths = CovariateFeatures.of(ages, np.tile([[0.0], [1.0]], (50, 1))).features(ages)
    np.testing.assert_array_equal(tenths.sum(axis=0), [10] * 10 + [0])


def test_unknown_labels_are_masked_and_rare_ones_left_out() -> None:
    targets = (np.random.default_rng(1).random(300) < 0.4).astype(float)
    images = radiographs(targets, "border")
    training, validation, evaluated = parts_of(images, targets)
    rare = np.zeros((100, 1))
    rare[:3] = 1
    unknown = training.targets.copy()
    unknown[::3] = np.nan
    training = replace(training, targets=np.column_stack([unknown, rare]))
    validation = replace(validation, targets=np.column_stack([validation.targets, rare]))
    models = fit_baselines(training, validation, evaluated, least=10, seed=0)
    assert aurocs(models, evaluated)["margin"] > 0.9
    assert all(np.isnan(model.scores[:, :, 1]).all() for model in models.values())


def test_the_difference_is_paired_and_agrees_with_scikit_learn(
    make_predictions: MakePredictions, make_settings: MakeSettings
) -> None:
    table = make_predictions(("Edema", "Mass"))
    noise = np.random.default_rng(0).normal(0, 2.0, (1, *table.targets.shape))
    scores = (np.log(table.probabilities / (1 - table.probabilities)) + noise).astype(np.float32)
    settings = make_settings()
    counts = patient_counts(table.num_patients, 200, 0)
    baselines = Baselines({"features": Baseline(scores, 0.1, FITTED)}, {"margin": "no lungs"}, 0.9, 1.0)
    result = evaluate_baselines(table, baselines, counts, settings)
    (row,) = result.rows
    for number, label in enumerate(table.labels):
        truth = table.targets[:, number]
        expected = [
            roc_auc_score(truth, one) for one in (scores[0, :, number], table.probabilities[:, number])
        ]
        value = row.labels[label]
        assert (value.auroc.value, value.model.value) == pytest.approx(expected)
        drawn = [
            roc_auc_score(np.repeat(truth, times), np.repeat(table.probabilities[:, number], times))
            - roc_auc_score(np.repeat(truth, times), np.repeat(scores[0, :, number], times))
            for times in (counts.T[:, table.patients]).astype(int)
        ]
        assert (value.difference.low, value.difference.high) == pytest.approx(
            tuple(np.quantile(drawn, [0.025, 0.975]))
        )
    assert row.macro.difference.value == pytest.approx(
        np.mean([value.difference.value for value in row.labels.values()])
    )
    assert (result.left_out, result.regions_found) == ({"margin": "no lungs"}, 0.9)


@pytest.mark.parametrize(
    ("noise", "name", "says"),
    [
        (0.0, "margin", "A baseline that sees no lung (the margin outside the lungs' region)"),
        (0.0, "grey", "A baseline that sees no anatomy (the distribution of grey values alone)"),
        (0.0, "features", "A baseline (simple features of the whole image)"),
        (0.0, "shuffled", None),
        (20.0, "margin", None),
    ],
)
def test_a_baseline_within_reach_is_a_caveat(
    make_predictions: MakePredictions, make_settings: MakeSettings, noise: float, name: str, says: str | None
) -> None:
    table = make_predictions(("Edema",), signal=3.0)
    generator = np.random.default_rng(0)
    logits = np.log(table.probabilities / (1 - table.probabilities))
    scores = (logits + generator.normal(0, 0.1 + noise, logits.shape)).astype(np.float32)[None]
    result = evaluate(
        table, settings=make_settings(), baselines=Baselines({name: Baseline(scores, 0.1, FITTED)})
    )
    messages = [caveat.message for caveat in result.flags if caveat.kind == "baseline"]
    assert messages == baseline_caveat(result.baselines)
    assert result.baselines is not None
    assert result.baselines.rows[0].within_reach == (says is not None)
    assert len(messages) == (says is not None)
    if says is not None:
        assert says in messages[0]
        assert "reaches an AUROC of 0.9" in messages[0]
        assert ("without any lung" in messages[0]) == (name == "margin")
        assert ("without looking at where anything is" in messages[0]) == (name == "grey")
    assert result.to_json()["baselines"]["rows"][0]["name"] == name


def test_a_model_that_learnt_nothing_is_not_said_to_be_reached(
    make_predictions: MakePredictions, make_settings: MakeSettings
) -> None:
    table = make_predictions(("Edema",), signal=0.0)
    table = replace(table, probabilities=np.random.default_rng(0).random(table.probabilities.shape))
    scores = np.random.default_rng(1).random((1, *table.targets.shape)).astype(np.float32)
    result = evaluate(
        table, settings=make_settings(), baselines=Baselines({"margin": Baseline(scores, 0.1, FITTED)})
    )
    assert not [caveat for caveat in result.flags if caveat.kind == "baseline"]


def test_labels_with_too_few_positives_are_left_out_with_the_reason(
    make_predictions: MakePredictions, make_settings: MakeSettings
) -> None:
    table = make_predictions(("Edema", "Mass"))
    targets = table.targets.copy()
    targets[:, 1] = np.arange(len(targets)) < 4
    scores = np.random.default_rng(1).random((1, *table.targets.shape)).astype(np.float32)
    baselines = Baselines({"grey": Baseline(scores, 0.1, FITTED)})
    counts = patient_counts(table.num_patients, 100, 0)
    result = evaluate_baselines(replace(table, targets=targets), baselines, counts, make_settings())
    assert set(result.rows[0].labels) == {"Edema"}
    result = evaluate_baselines(
        replace(table, targets=np.zeros_like(targets)), baselines, counts, make_settings()
    )
    assert (result.rows, set(result.left_out)) == ([], {"grey"})


def test_other_programs_predictions_have_that_of_covariates_alone(
    make_predictions: MakePredictions, make_settings: MakeSettings
) -> None:
    table, validation = make_predictions(seed=0), make_predictions(seed=1, part="val")
    baselines = external_baselines(validation, table, make_settings())
    assert baselines is not None
    assert set(baselines.models) == {"covariates"}
    assert baselines.models["covariates"].fitted.part == "validation"
    assert external_baselines(None, table, make_settings()) is None
    bare = replace(validation, covariates=pd.DataFrame(index=range(len(validation))))
    assert external_baselines(bare, table, make_settings()) is None


def test_oriented_gradients_tell_directions_and_not_brightness() -> None:
    steps = np.linspace(0, 200, SIDE, dtype=np.float32)
    across, down = np.tile(steps, (SIDE, 1)), np.tile(steps[:, None], (1, SIDE))
    found = oriented_gradients(np.stack([across, across * 0.5 + 20, 255 - across, down]))
    assert found.shape == (4, 324)
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    np.testing.assert_allclose(found[0], found[2], atol=1e-3)
    bins = found.reshape(4, -1, 9).sum(axis=1)
    assert (bins[0].argmax() in (0, 8), bins[3].argmax()) == (True, 4)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (64, 3), (100, 1)])
def test_features_are_of_any_size_and_number_of_channels(size: int, channels: int) -> None:
    generator = np.random.default_rng(0)
    images = np.repeat(generator.integers(0, 256, (70, 1, size, size), dtype=np.uint8), channels, axis=1)
    found = image_features(images, list(range(70)), "some images")
    np.testing.assert_allclose(found.grey[:, 0], images[:, 0].mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.grey[:, 1], images[:, 0].std(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found.whole[:, :32].sum(axis=1), 1, rtol=1e-5)
    assert (found.margin.shape, found.whole.shape) == ((70, 96), (70, 420))
    again = batch_features(images[64:])
    np.testing.assert_array_equal(found.whole[64:], again.whole)


def test_the_margin_does_not_change_with_what_is_inside_the_lungs_region() -> None:
    images = np.stack([lungs(), lungs()]).astype(np.uint8)[:, None]
    images[1, 0, 44:50, 25:31] = 90
    found = batch_features(images)
    assert found.has_lungs.all()
    np.testing.assert_array_equal(found.margin[0], found.margin[1])
    assert (found.whole[0] != found.whole[1]).any()


def test_a_sample_of_training_images_is_of_whole_patients() -> None:
    patients = np.repeat([f"p{number}" for number in range(30)], 3)
    manifest = pd.DataFrame({"patient": patients, "part": ["train"] * 84 + ["val"] * 6})
    rows, available = _drawn(manifest, "train", 40, 0)
    assert (len(rows), available) == (39, 84)
    assert set(manifest["patient"].iloc[rows].value_counts()) == {3}
    assert len(_drawn(manifest, "val", 40, 0)[0]) == 6
