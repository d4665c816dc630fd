from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.interventions import (
    TITLES,
    InterventionResult,
    Interventions,
    blanked,
    contrast,
    gamma,
    half_resolution,
    intervene,
    intervention_caveat,
    kept_without_lungs,
    with_histogram,
)
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

MakeSettings = Callable[..., EvaluationSettings]

SIDE = 96
PLACES = {"lung": (slice(40, 52), slice(22, 34)), "border": (slice(0, 8), slice(0, 8))}


class Looks(nn.Module):
    """Predicts by the mean grey of one place of the image."""

    labels = ("Edema", "Mass")

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = PLACES[place]

    def predict_probabilities(self, images: Tensor) -> Tensor:
        rows, columns = self.place
        score = torch.sigmoid((images.float()[:, :, rows, columns].mean(dim=(1, 2, 3)) - 128) / 32)
        return torch.stack([1 - score, score], dim=1)


def radiographs(targets: np.ndarray, place: str, *, channels: int = 1) -> np.ndarray:
    """Images with two dark lungs, whose label Mass is a bright spot at a place."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    image = np.full((SIDE, SIDE), 170.0)
    for middle in (0.3, 0.7):
        image[((x - middle) / 0.13) ** 2 + ((y - 0.48) / 0.26) ** 2 <= 1] = 60
    generator = np.random.default_rng(0)
    images = (
        image
        + generator.normal(0, 6, (len(targets), 1, 1))
        + generator.normal(0, 3, (len(targets), SIDE, SIDE))
    )
    images[targets == 1, PLACES[place][0], PLACES[place][1]] += 40
    return np.repeat(np.clip(images, 0, 255).astype(np.uint8)[:, None], channels, axis=1)


def table_of(targets: np.ndarray, patients: np.ndarray) -> PredictionTable:
    return PredictionTable(
        images=np.array([f"{row}.png" for row in range(len(targets))], dtype=object),
        patients=patients,
        labels=("Mass",),
        targets=targets[:, None],
        probabilities=np.full((len(targets), 1), 0.5),
        covariates=pd.DataFrame(index=range(len(targets))),
        patient_names=np.array([f"p{number}" for number in range(patients.max() + 1)], dtype=object),
        part="test",
        source="a test",
    )


def intervened(
    place: str, settings: EvaluationSettings, *, most: int = 1000, channels: int = 1
) -> Interventions:
    targets = (np.random.default_rng(1).random(240) < 0.4).astype(float)
    table = table_of(targets, np.arange(240) // 2)
    images = radiographs(targets, place, channels=channels)
    return intervene(
        Looks(place), table, images, range(240), settings, most=most, batch_size=50, device="cpu"
    )


def kept(result: InterventionResult) -> dict[str, float]:
    return {row.name: row.macro.kept.value for row in result.rows}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_looks_at_a_corner_keeps_its_auroc_without_lungs(
    make_settings: MakeSettings, channels: int
) -> None:
    result = intervened("border", make_settings(), channels=channels).result
    assert result.unchanged_macro.value > 0.95
    shares = kept(result)
    assert shares["no_lungs"] == pytest.approx(1)
    assert shares["half_resolution"] > 0.95
    assert abs(shares["lungs_only"]) < 0.3
    assert abs(shares["no_border"]) < 0.3
    (message,) = intervention_caveat(result)
    assert message.startswith(
        "Without the lungs (a box around them blanked) the model keeps 1.00 of its AUROC"
    )


def test_a_network_that_looks_at_a_lung_loses_it(make_settings: MakeSettings) -> None:
    result = intervened("lung", make_settings()).result
    shares = kept(result)
    assert abs(shares["no_lungs"]) < 0.3
    assert shares["lungs_only"] == pytest.approx(1, abs=0.05)
    assert shares["no_border"] == pytest.approx(1, abs=0.05)
    assert intervention_caveat(result) == []
    row = result.row("no_lungs")
    assert row is not None
    low, value, high = row.macro.kept.low, row.macro.kept.value, row.macro.kept.high
    assert low is not None
    assert low < value < high
    assert result.regions_found > 0.95
    assert set(shares) == set(TITLES)


def test_it_is_the_same_each_time_and_patients_are_drawn_whole(make_settings: MakeSettings) -> None:
    one, other = (intervened("lung", make_settings(), most=101).result for _ in range(2))
    assert one.rows == other.rows
    assert (one.images, one.patients, one.available) == (100, 50, 240)


def test_the_shares_and_a_caveat_are_part_of_the_evaluation(make_settings: MakeSettings) -> None:
    found = intervened("border", make_settings())
    targets = (np.random.default_rng(1).random(240) < 0.4).astype(float)
    table = table_of(targets, np.arange(240) // 2)
    result = evaluate(table, settings=make_settings(), interventions=found.result)
    assert [
        caveat.message for caveat in result.flags if caveat.kind == "intervention"
    ] == intervention_caveat(found.result)
    assert result.to_json()["interventions"]["rows"][0]["name"] == "no_lungs"
    assert list(found.examples) == ["unchanged", *TITLES.values()]


def test_a_model_at_chance_keeps_nothing_that_could_be_told(make_settings: MakeSettings) -> None:
    targets = (np.random.default_rng(1).random(240) < 0.4).astype(float)
    images = radiographs(np.zeros(240), "lung")
    result = intervene(
        Looks("lung"),
        table_of(targets, np.arange(240)),
        images,
        range(240),
        make_settings(),
        most=1000,
        device="cpu",
    ).result
    assert result.rows[0].macro.kept.value is None
    assert "cannot be told" in kept_without_lungs(result.rows[0])
    assert intervention_caveat(result) == []


def test_images_without_lungs_leave_out_what_is_about_lungs(make_settings: MakeSettings) -> None:
    targets = (np.arange(60) % 3 == 0).astype(float)
    images = np.full((60, 1, SIDE, SIDE), 100, np.uint8)
    images[:, 0, 0, 0] = 255
    result = intervene(
        Looks("border"),
        table_of(targets, np.arange(60)),
        images,
        range(60),
        make_settings(),
        most=60,
        device="cpu",
    ).result
    assert set(result.left_out) == {"no_lungs", "lungs_only"}
    assert len(result.rows) == len(TITLES) - 2


def test_too_few_positives_are_an_error(make_settings: MakeSettings) -> None:
    targets = (np.arange(60) < 3).astype(float)
    with pytest.raises(ConfigError, match="10 positives and negatives"):
        intervene(
            Looks("lung"),
            table_of(targets, np.arange(60)),
            radiographs(targets, "lung"),
            range(60),
            make_settings(),
            most=60,
        )


@pytest.mark.parametrize("size", [7, 32])
def test_half_resolution_keeps_means_and_takes_detail_away(size: int) -> None:
    even = np.full((2, 3, size, size), 77, np.uint8)
    np.testing.assert_array_equal(half_resolution(even), even)
    board = ((np.indices((32, 32)).sum(axis=0) % 2) * 255).astype(np.uint8)[None, None]
    assert np.ptp(half_resolution(board)) == 0
    assert half_resolution(board).mean() == pytest.approx(board.mean(), abs=1)


def test_gamma_and_contrast_change_greys_as_they_say() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(gamma(images, 1.0), images)
    assert (gamma(images, 0.7)[0, 0, 8, 0], gamma(images, 1.4)[0, 0, 8, 0]) == (157, 97)
    np.testing.assert_array_equal(contrast(images, 1.0), images)
    low, high = contrast(images, 0.7), contrast(images, 1.3)
    assert low.std() == pytest.approx(0.7 * images.std(), rel=0.01)
    assert (high.min(), high.max()) == (0, 255)


def test_blanked_pixels_have_the_mean_of_their_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 10, 10), dtype=np.uint8)
    masks = np.zeros((2, 5, 5), bool)
    masks[1, :, 4] = True
    changed = blanked(images, masks)
    np.testing.assert_array_equal(changed[0], images[0])
    np.testing.assert_array_equal(changed[1, 0, :, 8:], round(images[1].mean()))
    np.testing.assert_array_equal(changed[1, 0, :, :8], images[1, 0, :, :8])


def test_all_images_get_one_histogram_and_keep_the_order_of_their_greys() -> None:
    generator = np.random.default_rng(0)
    images = np.stack([generator.integers(0, high, (1, 64, 64), dtype=np.uint8) for high in (90, 250)])
    histogram = np.bincount(images.ravel(), minlength=256).astype(float)
    changed = with_histogram(images, histogram)
    quantiles = [np.quantile(image, [0.1, 0.5, 0.9]) for image in changed]
    np.testing.assert_allclose(quantiles[0], quantiles[1], atol=4)
    order = np.argsort(images[1].ravel(), kind="stable")
    assert (np.diff(changed[1].ravel()[order].astype(int)) >= 0).all()
    np.testing.assert_allclose(
        with_histogram(images[:1], np.bincount(images[0].ravel(), minlength=256)), images[:1], atol=1
    )
