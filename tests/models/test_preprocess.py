import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from cxrlab.errors import ConfigError, DataError
from cxrlab.models.preprocess import Preprocess, equalize

IMAGES = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_training_statistics_bring_mean_0_and_deviation_1():
    scaled = IMAGES.double() / 255
    mean = scaled.mean(dim=(0, 2, 3)).tolist()
    std = scaled.std(dim=(0, 2, 3), unbiased=False).tolist()
    out = Preprocess(normalize="training", image_size=8, channels=3, mean=mean, std=std)(IMAGES)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)


def test_imagenet_is_the_published_normalisation():
    out = Preprocess(normalize="imagenet", image_size=8, channels=3)(IMAGES)
    expected = (IMAGES[:, 0].float() / 255 - 0.485) / 0.229
    torch.testing.assert_close(out[:, 0], expected)
    grey = Preprocess(normalize="imagenet", image_size=8, channels=1)
    assert float(grey.mean) == pytest.approx((0.485 + 0.456 + 0.406) / 3)


def test_image_standardises_each_image_whatever_its_exposure():
    darker = (IMAGES.float() * 0.5 + 20).round()
    module = Preprocess(normalize="image", image_size=8, channels=3)
    torch.testing.assert_close(module(IMAGES), module(darker), atol=0.02, rtol=0)


def test_a_constant_image_stays_finite():
    module = Preprocess(normalize="image", image_size=8, channels=1)
    assert bool(torch.isfinite(module(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))).all())
    constant = Preprocess(normalize="training", image_size=8, channels=1, mean=[0.5], std=[0.0])
    assert bool(torch.isfinite(constant(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))).all())


@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 8, 8), (3, 8, 9)])
def test_another_shape_is_rejected(shape: tuple[int, ...]):
    module = Preprocess(normalize="imagenet", image_size=8, channels=3)
    with pytest.raises(DataError, match=r"network made for \(3, 8, 8\)"):
        module(torch.zeros(2, *shape, dtype=torch.uint8))


def test_statistics_must_be_there_and_the_kind_known():
    with pytest.raises(ConfigError, match="needs 3 means"):
        Preprocess(normalize="training", image_size=8, channels=3, mean=[0.5], std=[0.5])
    with pytest.raises(ConfigError, match="preprocess.normalize='batch'"):
        Preprocess(normalize="batch", image_size=8, channels=1)  # type: ignore[arg-type]


def test_statistics_are_in_the_state():
    state = Preprocess(normalize="training", image_size=8, channels=1, mean=[0.4], std=[0.2]).state_dict()
    assert sorted(state) == ["mean", "std"]


def test_equalized_greys_are_mid_ranks():
    images = torch.randint(0, 256, (3, 2, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    ranks = np.stack([rankdata(image.numpy().ravel(), method="average") for image in images])
    expected = ((ranks - 0.5) / 512 - 0.5) * math.sqrt(12)
    torch.testing.assert_close(
        equalize(images), torch.from_numpy(expected).float().view(images.shape), atol=1e-6, rtol=0
    )


def test_exposure_window_and_gamma_do_not_change_an_equalized_image():
    module = Preprocess(normalize="equalize", image_size=8, channels=3)
    greys = IMAGES.clamp(0, 63).float()  # so few that no two of them are mapped to one
    for changed in (greys * 4 + 3, 255 * (greys / 63) ** 0.7, greys.double()):
        torch.testing.assert_close(module(changed.round()), module(greys), atol=0, rtol=0)


def test_an_equalized_constant_or_absent_image_is_finite():
    module = Preprocess(normalize="equalize", image_size=8, channels=1)
    assert module(torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)).abs().max() == 0
    assert module(torch.zeros(0, 1, 8, 8, dtype=torch.uint8)).shape == (0, 1, 8, 8)


def test_none_divides_by_255():
    module = Preprocess(normalize="none", image_size=8, channels=3)
    torch.testing.assert_close(module(IMAGES), IMAGES.float() / 255)


def test_the_published_slip_differs_between_training_and_evaluation():
    slip = Preprocess(normalize="image_then_sample", image_size=8, channels=3, mean=[0.4] * 3, std=[0.2] * 3)
    own = Preprocess(normalize="image", image_size=8, channels=3)
    sample = Preprocess(normalize="training", image_size=8, channels=3, mean=[0.4] * 3, std=[0.2] * 3)
    torch.testing.assert_close(slip.train()(IMAGES), own(IMAGES), rtol=0, atol=0)
    torch.testing.assert_close(slip.eval()(IMAGES), sample(IMAGES), rtol=0, atol=0)


def test_values_that_are_given_are_used():
    module = Preprocess(normalize="given", image_size=8, channels=3, mean=[0.5] * 3, std=[0.5] * 3)
    torch.testing.assert_close(module(IMAGES), IMAGES.float() / 127.5 - 1)
    with pytest.raises(ConfigError, match="preprocess.normalize=given needs 3 means"):
        Preprocess(normalize="given", image_size=8, channels=3, mean=[0.5], std=[0.5])
