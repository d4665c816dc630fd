import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from cxrlab.augment import NoAugment, RandomAugment
from cxrlab.cli import config
from cxrlab.errors import ConfigError

Compose = Callable[..., DictConfig]

NOTHING = {
    **dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "fill_value", "brightness"), 0.0),
    **dict.fromkeys(("contrast", "gamma", "noise", "blur", "erasing"), 0.0),
    **{"zoom_per_axis": False, "zoom_of_field": False, "fill": "border", "erasing_place": "anywhere"},
    **{"erasing_area": 0.03, "erasing_aspect": 4.0},
}
EACH = {
    **{"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.2, "shear": 10.0},
    **{"brightness": 0.2, "contrast": 0.3, "gamma": 0.3, "noise": 0.05, "blur": 1.0, "erasing": 1.0},
}


def augmented(images: torch.Tensor, *, seed: int = 0, **amounts: object) -> torch.Tensor:
    generator = torch.Generator(images.device).manual_seed(seed)
    return RandomAugment(**{**NOTHING, **amounts})(images, generator)


def images(count: int = 4, channels: int = 1, side: int = 32) -> torch.Tensor:
    """The same image without symmetry, `count` times, uint8."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    one = 200 * torch.exp(-((x - 0.3) ** 2 + (y - 0.4) ** 2) / 0.05) + 40 * x + 5
    return one.to(torch.uint8).expand(count, channels, side, side).clone()


@pytest.fixture(params=["light", "strong"])
def preset(request: pytest.FixtureRequest, composed: Compose) -> RandomAugment:
    return config.build(composed(f"augment={request.param}").augment)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_no_amount_leaves_the_image_as_it_is_in_memory_of_its_own(dtype: torch.dtype):
    given = images().to(dtype)
    result = augmented(given)
    assert result.dtype is torch.float32
    assert torch.equal(result, given.float())
    assert result.data_ptr() != given.data_ptr()


def test_none_takes_the_same_arguments_and_changes_nothing(composed: Compose):
    none = config.build(composed("augment=none").augment)
    assert isinstance(none, NoAugment)
    result = none(images(), torch.Generator())
    assert result.dtype is torch.float32
    assert torch.equal(result, images().float())
    assert torch.equal(none(images()), result)


@pytest.mark.parametrize("name", EACH)
def test_each_change_alone_gives_each_image_its_own_and_the_same_for_the_same_seed(name: str):
    first = augmented(images(8), **{name: EACH[name]})
    assert torch.equal(first, augmented(images(8), **{name: EACH[name]}))
    assert not torch.equal(first, augmented(images(8), seed=1, **{name: EACH[name]}))
    assert len({one.numpy().tobytes() for one in first}) == (2 if name == "flip" else 8)


def test_without_a_generator_torchs_own_seed_decides():
    augment = RandomAugment(**{**NOTHING, **EACH})
    torch.manual_seed(3)
    first = augment(images())
    torch.manual_seed(3)
    assert torch.equal(first, augment(images()))
    assert not torch.equal(first, augment(images()))


def test_a_generator_leaves_torchs_own_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    augmented(images(), **EACH)
    assert torch.equal(torch.rand(()), expected)


def test_one_more_change_leaves_the_others_draws_as_they_were():
    flat = augmented(images(), rotation=20.0)
    torch.testing.assert_close(augmented(images(), rotation=20.0, brightness=0.01), flat, atol=2.6, rtol=0)


def test_half_the_images_are_flipped_whether_they_are_resampled_or_not():
    given = images(1000, side=16)
    exact = augmented(given, flip=0.5)
    is_flipped = (exact != given).flatten(1).any(dim=1)
    assert 450 < int(is_flipped.sum()) < 550
    assert torch.equal(exact[is_flipped], given[is_flipped].flip(-1).float())
    resampled = augmented(given, flip=0.5, rotation=1e-6)
    torch.testing.assert_close(resampled, exact, atol=0.01, rtol=0)


def test_shifts_fill_their_range_along_both_axes():
    given = torch.zeros(300, 1, 40, 40)
    given[:, :, 19:21, 19:21] = 255.0
    total = augmented(given, shift=0.2).squeeze(1)
    axis = torch.arange(40) + 0.5
    for reduced in (total.sum(1), total.sum(2)):
        offsets = (reduced * axis).sum(1) / reduced.sum(1) - 20.0
        assert float(offsets.abs().max()) == pytest.approx(8.0, abs=0.2)
        assert float(offsets.std()) == pytest.approx(8.0 / math.sqrt(3), rel=0.1)
        assert abs(float(offsets.mean())) < 1.0


def test_rotations_fill_their_range():
    given = torch.zeros(300, 1, 61, 61)
    given[:, :, 29:32, 50:54] = 255.0  # to the right of the middle
    turned = augmented(given, rotation=30.0).squeeze(1)
    axis = torch.arange(61) - 30.0
    x = (turned.sum(1) * axis).sum(1)
    y = (turned.sum(2) * axis).sum(1)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert float(angles.abs().max()) == pytest.approx(30.0, abs=0.7)
    assert float(angles.std()) == pytest.approx(30.0 / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("per_axis", [False, True])
def test_zoom_is_as_often_in_as_out_and_joint_unless_asked(per_axis: bool):
    given = torch.zeros(300, 1, 80, 80)
    given[:, :, 30:50, 30:50] = 255.0
    grown = augmented(given, zoom=0.5, zoom_per_axis=per_axis).squeeze(1) / 255.0
    width, height = (grown[:, 40].sum(1) / 20).log(), (grown[:, :, 40].sum(1) / 20).log()
    assert float(width.abs().max()) == pytest.approx(math.log(1.5), abs=0.02)
    assert abs(float(width.mean())) < 0.05
    together = float(torch.corrcoef(torch.stack([width, height]))[0, 1])
    assert abs(together) < 0.2 if per_axis else together > 0.99


def test_brightness_contrast_and_gamma_fill_their_ranges():
    given = torch.full((500, 1, 4, 4), 100.0)
    given[:, :, :, :2] = 140.0
    added = (augmented(given, brightness=0.1) - given).mean((1, 2, 3))
    assert float(added.abs().max()) == pytest.approx(25.5, rel=0.02)
    factors = (augmented(given, contrast=0.5)[:, 0, 0, 0] - 120.0) / 20.0
    assert float(factors.min()) == pytest.approx(1 / 1.5, rel=0.02)
    assert float(factors.max()) == pytest.approx(1.5, rel=0.02)
    exponents = (augmented(given, gamma=0.5)[:, 0, 0, 0] / 255).log() / math.log(140 / 255)
    assert float(exponents.min()) == pytest.approx(1 / 1.5, rel=0.02)
    assert float(exponents.max()) == pytest.approx(1.5, rel=0.02)


def test_noise_goes_up_to_its_deviation():
    deviations = augmented(torch.full((200, 1, 40, 40), 128.0), noise=0.1).std((1, 2, 3))
    assert float(deviations.max()) == pytest.approx(25.5, rel=0.05)
    assert float(deviations.mean()) == pytest.approx(12.75, rel=0.1)


def test_rectangles_cover_their_area_as_often_as_asked():
    erased = augmented(
        torch.full((1000, 1, 64, 64), 300.0), erasing=0.3, erasing_area=0.2, erasing_aspect=2.0
    )
    shares = (erased < 255.0).float().mean((1, 2, 3))
    is_erased = shares > 0.001
    assert 0.25 < float(is_erased.float().mean()) < 0.34
    assert 0.17 < float(shares.max()) < 0.22
    assert float(shares[is_erased].mean()) == pytest.approx(0.1, rel=0.15)


def test_rectangles_near_corners_keep_out_of_the_middle():
    options = {"erasing": 1.0, "erasing_area": 0.03, "erasing_aspect": 1.0}
    given = torch.full((500, 1, 64, 64), 300.0)
    near = (augmented(given, **options, erasing_place="corners") < 255.0).float().mean((0, 1))
    assert float(near[20:44, :].max()) == float(near[:, 20:44].max()) == 0.0
    for corner in (near[:16, :16], near[:16, -16:], near[-16:, :16], near[-16:, -16:]):
        assert float(corner.max()) > 0.05
    anywhere = (augmented(given, **options) < 255.0).float().mean((0, 1))
    assert float(anywhere[20:44, 20:44].min()) > 0.0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_presets_keep_shape_and_range_and_leave_their_input_alone(
    preset: RandomAugment, count: int, channels: int
):
    noise = torch.randint(0, 256, (count, channels, 48, 40), dtype=torch.uint8)
    for given in (noise, noise.float()):
        kept = given.clone()
        result = preset(given, torch.Generator().manual_seed(0))
        assert result.shape == given.shape
        assert result.dtype is torch.float32
        assert torch.equal(given, kept)
        assert float(result.min()) >= 0.0
        assert float(result.max()) <= 255.001


def test_presets_keep_grey_images_grey_and_treat_uint8_and_float_alike(preset: RandomAugment):
    grey = images(channels=3)
    result = preset(grey, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result[:, 0], result[:, 2], atol=1e-3, rtol=0)
    assert torch.equal(result, preset(grey.float(), torch.Generator().manual_seed(0)))


def test_presets_change_an_image_by_a_bounded_amount(preset: RandomAugment):
    """The mean absolute change stays below the third of white that separates unrelated images."""
    given = images(64)
    change = (preset(given, torch.Generator().manual_seed(0)) - given).abs().mean((1, 2, 3))
    assert 2.0 < float(change.mean()) < 50.0
    assert float(change.max()) < 85.0


def test_autocast_around_it_does_not_round(preset: RandomAugment):
    expected = preset(images(), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(preset(images(), torch.Generator().manual_seed(0)), expected)


def test_an_empty_batch_passes(preset: RandomAugment):
    assert preset(torch.zeros(0, 1, 16, 16, dtype=torch.uint8)).shape == (0, 1, 16, 16)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flip", 1.5),
        ("rotation", -1.0),
        ("rotation", math.nan),
        ("shift", math.inf),
        ("zoom", 1.2),
        ("shear", 46.0),
        ("fill_value", 256.0),
        ("brightness", -0.1),
        ("contrast", math.nan),
        ("gamma", math.inf),
        ("noise", 1.1),
        ("blur", 11.0),
        ("erasing", -0.5),
        ("erasing_area", 1.1),
        ("erasing_aspect", 0.5),
    ],
)
def test_an_amount_out_of_range_is_rejected(name: str, value: float):
    with pytest.raises(ConfigError, match=rf"^augment.{name}={value} must lie between \d+ and \d+\.$"):
        RandomAugment(**{**NOTHING, name: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
def test_on_a_gpu_nothing_waits_and_the_picture_is_the_cpus(
    preset: RandomAugment, monkeypatch: pytest.MonkeyPatch
):
    given = images(8)
    numbers, noise = torch.rand(100, 8), torch.randn(8, 1, 32, 32)
    monkeypatch.setattr(torch, "rand", lambda rows, count, device, generator: numbers[:rows].to(device))
    monkeypatch.setattr(torch, "randn", lambda *shape, device, generator: noise.to(device))
    on_gpu = preset(given.cuda())
    torch.testing.assert_close(on_gpu.cpu(), preset(given), atol=0.3, rtol=0)
    monkeypatch.undo()
    generator, image_device = torch.Generator("cuda"), given.cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        first = preset(image_device, generator.manual_seed(0))
        second = preset(image_device, generator.manual_seed(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, second)


def test_the_visible_field_is_drawn_evenly_as_keras_does():
    amounts = {**NOTHING, "zoom": 0.8, "zoom_of_field": True}
    draws = torch.tensor([0.0, 0.25, 0.5, 1.0])
    factors = RandomAugment(**amounts)._zoom_factor(draws, 0.8)
    torch.testing.assert_close(1 / factors, torch.tensor([0.2, 0.6, 1.0, 1.8]))
    with pytest.raises(ConfigError, match=r"augment\.zoom=1\.0 with augment\.zoom_of_field=true"):
        RandomAugment(**{**NOTHING, "zoom": 1.0, "zoom_of_field": True})
