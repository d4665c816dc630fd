import importlib
import math
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.attribution import gradient_shap, integrated_gradients, occlusion
from cxrlab.heatmaps.methods.perturbation import as_heatmaps, baseline, blurred

Attribution = Callable[..., Tensor]
SHAPE = (2, 12, 20)
PAIRS = [(1, 0), (0, 2), (1, 2)]  # two labels of one image, one of another, none of the third
METHODS = {
    "integrated_gradients": partial(integrated_gradients, kind="mean", num_steps=3, batch_size=8),
    "occlusion": partial(occlusion, kind="mean", window=0.25, stride=0.25, batch_size=8),
    "gradient_shap": partial(
        gradient_shap, background=torch.ones(1, *SHAPE), num_samples=3, batch_size=8, seed=0
    ),
}


class Corner(nn.Module):
    """Sees the upper left corner only: its first label the sum, its second the largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :4, :6].flatten(1)
        return self.scale * torch.stack([corner.sum(dim=1), corner.amax(dim=1)], dim=1)


def some_images() -> Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 3))


def weights(network: nn.Sequential) -> Tensor:
    layer = network[1]
    assert isinstance(layer, nn.Linear)
    return layer.weight.detach().view(3, *SHAPE)


def curved() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 10 * 18, 3))


def grey(images: Tensor) -> Tensor:
    return torch.stack([torch.stack([plane.mean().expand(plane.shape) for plane in one]) for one in images])


@pytest.mark.parametrize("batch_size", [3, 4, 100])
def test_integrated_gradients_of_a_linear_network_are_weight_times_distance(batch_size: int) -> None:
    network, images = linear(), some_images()
    found = integrated_gradients(network, images, PAIRS, kind="mean", num_steps=5, batch_size=batch_size)
    expected = torch.stack([(images - grey(images))[one] * weights(network)[label] for one, label in PAIRS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mean", "black"])
def test_integrated_gradients_sum_to_the_difference_of_the_logits(kind: str) -> None:
    network, images = curved(), some_images()
    start = grey(images) if kind == "mean" else images.amin(dim=(2, 3), keepdim=True).expand_as(images)
    found = integrated_gradients(network, images, PAIRS, kind=kind, num_steps=20, batch_size=7)
    difference = (network(images) - network(start)).detach()
    expected = torch.stack([difference[pair] for pair in PAIRS])
    assert expected.abs().max() > 0.2
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), expected, atol=1e-3, rtol=0)


def test_integrated_gradients_are_the_mean_gradient_on_a_fine_straight_way() -> None:
    network, images = curved(), some_images()
    found = integrated_gradients(network, images, [(1, 2)], kind="mean", num_steps=20, batch_size=20)
    start, image = grey(images)[1].double(), images[1].double()
    shares = ((torch.arange(400) + 0.5) / 400).double().view(-1, 1, 1, 1)
    points = (start + shares * (image - start)).requires_grad_()
    (gradients,) = torch.autograd.grad(network.double()(points)[:, 2].sum(), points)
    expected = (gradients.mean(dim=0) * (image - start)).float()
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=0)


def occluded_by_hand(
    network: nn.Module, image: Tensor, label: int, size: tuple[int, int], step: tuple[int, int]
) -> Tensor:
    """Window by window, from the upper left corner on; the last ones hang over the edge."""
    base = grey(image[None])[0]
    drops, counts = torch.zeros(SHAPE), torch.zeros(SHAPE)
    tops, lefts = (
        [number * by for number in range(math.ceil((side - long) / by) + 1)]
        for side, long, by in zip(SHAPE[1:], size, step, strict=True)
    )
    with torch.no_grad():
        for top in tops:
            for left in lefts:
                place = (..., slice(top, top + size[0]), slice(left, left + size[1]))
                hidden = image.clone()
                hidden[place] = base[place]
                drops[place] += (network(image[None]) - network(hidden[None]))[0, label]
                counts[place] += 1
    return drops / counts


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize(
    # Of 12 rows and 20 columns; a stride beyond the window would leave gaps, so it is cut to the window.
    ("window", "stride", "size", "step"),
    [(0.25, 0.1, (3, 5), (1, 2)), (0.3, 0.25, (4, 6), (3, 5)), (0.25, 0.9, (3, 5), (3, 5)), (0.01, 0.5, (1, 1), (1, 1))],
)  # fmt: skip
def test_occlusion_is_the_mean_fall_of_the_logit_under_the_windows(
    batch_size: int, window: float, stride: float, size: tuple[int, int], step: tuple[int, int]
) -> None:
    if size == (1, 1) and batch_size == 1:
        batch_size = 7  # a pass for each pixel would take long
    images, pairs = some_images(), [(1, 0), (0, 1), (1, 1)]
    network = Corner()
    found = occlusion(
        network, images, pairs, kind="mean", window=window, stride=stride, batch_size=batch_size
    )
    expected = torch.stack(
        [occluded_by_hand(network, images[one], label, size, step) for one, label in pairs]
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_occlusion_finds_nothing_where_the_network_does_not_look() -> None:
    found = occlusion(
        Corner(), some_images().abs(), [(0, 0), (2, 1)], kind="black", window=0.25, stride=0.1, batch_size=16
    )
    assert (found[0, :, :4, :6] > 0).all()
    assert (found[:, :, 4 + 2 :] == 0).all()  # no window of 3 rows and 5 columns reaches the corner from here
    assert (found[:, :, :, 6 + 4 :] == 0).all()


def test_shap_of_a_linear_network_and_one_background_image_is_weight_times_distance() -> None:
    network, images = linear(), some_images()
    found = gradient_shap(network, images, PAIRS, background=images[2:], num_samples=5, batch_size=2, seed=3)
    expected = torch.stack([(images[one] - images[2]) * weights(network)[label] for one, label in PAIRS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_shap_sums_to_the_distance_from_the_mean_logit_of_the_background() -> None:
    network, images = curved(), some_images()
    background = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = gradient_shap(
        network, images, PAIRS, background=background, num_samples=3000, batch_size=500, seed=0
    )
    logits, mean = network(images).detach(), network(background).detach().mean(dim=0)
    expected = torch.stack([logits[one, label] - mean[label] for one, label in PAIRS])
    assert expected.abs().max() > 0.2
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), expected, atol=0.03, rtol=0)


def test_shap_depends_on_the_seed_alone_and_leaves_the_random_states() -> None:
    explain = partial(
        gradient_shap, curved(), some_images(), PAIRS, background=some_images(), num_samples=4, batch_size=4
    )
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the package draws from it
    states = torch.get_rng_state(), random.getstate()
    first = explain(seed=5)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(numpy_state, dict)
    assert isinstance(after, dict)
    np.testing.assert_equal(after, numpy_state)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.random.rand(3)  # noqa: NPY002
    torch.rand(3)
    assert torch.equal(explain(seed=5), first)
    assert not torch.allclose(explain(seed=6), first, atol=1e-3)


def test_shap_leaves_the_random_state_where_the_network_fails() -> None:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    calls: list[int] = []

    def fail_later(_: nn.Module, __: object, ___: object) -> None:
        calls.append(1)
        if len(calls) > 1:  # the first is a look at the background
            raise KeyError("later")

    network = linear()
    network.register_forward_hook(fail_later)
    with pytest.raises(KeyError, match="later"):
        METHODS["gradient_shap"](network, some_images(), PAIRS)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("method", METHODS)
def test_the_network_and_the_images_stay_as_they_were(method: str) -> None:
    network, images = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), *linear()).train(), some_images()
    network(images).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    values = [gradient.clone() for gradient in gradients if gradient is not None]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found = METHODS[method](network, images, PAIRS)
    assert torch.equal(images, some_images())
    assert not images.requires_grad
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(one is parameter.grad for one, parameter in zip(gradients, network.parameters(), strict=True))
    assert all(
        torch.equal(one, other) for one, other in zip(gradients, values, strict=True) if one is not None
    )
    assert found.dtype == torch.float32
    assert found.shape == (3, *SHAPE)
    assert not found.requires_grad
    # Dropout would give other numbers each time.
    assert torch.equal(METHODS[method](network, images, PAIRS), found)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_work_under_no_grad(method: str) -> None:
    network = curved()
    expected = METHODS[method](network, some_images(), PAIRS)
    with torch.no_grad():
        assert torch.equal(METHODS[method](network, some_images(), PAIRS), expected)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_work_in_inference_mode(method: str) -> None:
    network = curved()
    expected = METHODS[method](network, some_images(), PAIRS)
    with torch.inference_mode():
        images = some_images() * 1
        assert torch.equal(METHODS[method](network, images, PAIRS), expected)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_of_a_network_in_half_precision(method: str) -> None:
    expected = METHODS[method](linear(), some_images(), PAIRS)
    found = METHODS[method](linear().bfloat16(), some_images(), PAIRS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_no_pairs_give_no_maps(method: str) -> None:
    assert METHODS[method](linear(), some_images(), []).shape == (0, *SHAPE)


@pytest.mark.parametrize("method", METHODS)
def test_more_pairs_than_go_through_at_once_are_done_in_turns(method: str) -> None:
    network, images = curved(), some_images()
    passed: list[int] = []
    network.register_forward_hook(lambda _, __, logits: passed.append(len(logits)))
    explain = METHODS[method]
    found = explain(network, images, PAIRS, batch_size=2)
    assert max(passed) <= 2
    torch.testing.assert_close(found, explain(curved(), images, PAIRS, batch_size=50), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_each_pair_is_explained_as_if_alone(method: str) -> None:
    network, images = curved(), some_images()
    pairs = [(1, 0), (1, 1), (1, 2), (2, 0), (0, 0)]
    together = METHODS[method](network, images, pairs)
    for place, (image, label) in enumerate(pairs):
        alone = METHODS[method](network, images[image : image + 1], [(0, label)])
        torch.testing.assert_close(together[place], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("method", "package"),
    [("integrated_gradients", "captum"), ("occlusion", "captum"), ("gradient_shap", "shap")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without(name: str, parent: str | None = None) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'")
        return found(name, parent)

    monkeypatch.setattr(importlib, "import_module", without)
    message = rf"The method {method} needs the package {package}, .*No module named.* pip install 'cxrlab\[explain\]'"
    with pytest.raises(ConfigError, match=message):
        METHODS[method](linear(), some_images(), PAIRS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("image", [3, -1])
def test_an_unknown_image_is_rejected(method: str, image: int) -> None:
    with pytest.raises(ValueError, match=str(image)):
        METHODS[method](linear(), some_images(), [(0, 1), (image, 0)])


def float_images(height: int = 20, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, height, width, generator=generator)


def by_scipy(images: Tensor, sigma: float, radius: int) -> Tensor:
    planes = images.flatten(0, -3).double().numpy()
    smooth = [gaussian_filter(plane, sigma, mode="mirror", radius=radius) for plane in planes]
    return torch.from_numpy(np.stack(smooth)).float().view(images.shape)


@pytest.mark.parametrize(
    ("deviation", "radius"),
    # Three deviations of 0.02 * 24 and 0.1 * 24 pixels; but no kernel is wider than the smaller side, 20.
    [(0.02, 1), (0.1, 7), (0.2, 9)],
)
def test_blurring_is_a_gaussian_of_a_share_of_the_width(deviation: float, radius: int) -> None:
    images = float_images()
    expected = by_scipy(images, deviation * 24, radius)
    torch.testing.assert_close(blurred(images, deviation), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("deviation", "side"), [(0.0, 20), (0.001, 20), (0.5, 2)])
def test_a_blur_below_a_pixel_or_of_a_tiny_image_changes_nothing(deviation: float, side: int) -> None:
    images = float_images(side, side)
    assert torch.equal(blurred(images, deviation), images)


def test_mean_is_each_image_s_mean_grey_and_black_its_darkest_value() -> None:
    images = float_images()
    grey, black = baseline(images, "mean"), baseline(images, "black")
    assert grey.shape == black.shape == images.shape
    for number in range(3):
        for channel in range(2):
            values = images[number, channel].flatten().tolist()
            place = (number, channel)
            torch.testing.assert_close(grey[place], torch.full((20, 24), math.fsum(values) / len(values)))
            assert torch.equal(black[place], torch.full((20, 24), min(values)))


def test_a_baseline_can_be_written_in_and_the_images_stay() -> None:
    images = float_images()
    for kind in ("mean", "black", "blur"):
        values = baseline(images, kind)
        values[:, :, 3, 5] = 7.0
        assert (values == 7.0).sum() == 6
    assert torch.equal(images, float_images())


def test_blur_leaves_only_what_is_larger_than_eight_hundredths_of_the_width() -> None:
    images = float_images(50, 50)
    torch.testing.assert_close(baseline(images, "blur"), by_scipy(images, 4.0, 12), atol=1e-5, rtol=0)


def test_an_unknown_baseline_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"explanation\.baseline='white' must be one of mean, blur, black"):
        baseline(float_images(), "white")


def test_a_heatmap_sums_the_channels_and_scales_what_is_positive() -> None:
    values = torch.tensor([[[[1.0, -3.0], [0.5, 2.0]], [[3.0, 1.0], [0.5, -1.0]]]])
    assert torch.equal(as_heatmaps(values, 0.0), torch.tensor([[[1.0, 0.0], [0.25, 0.25]]]))


def test_each_heatmap_has_its_own_scale_however_small() -> None:
    values = torch.ones(3, 1, 2, 2) * torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1, 1)
    values[:, :, 0, 0] /= 2
    expected = torch.tensor([[0.5, 1.0], [1.0, 1.0]]).expand(3, -1, -1)
    torch.testing.assert_close(as_heatmaps(values, 0.0), expected)


def test_a_heatmap_is_smoothed_before_its_negative_part_is_cut_off() -> None:
    values = float_images()
    smooth = by_scipy(values.sum(dim=1, keepdim=True), 2.4, 7)[:, 0].clamp(min=0)
    expected = torch.stack([one / one.max() for one in smooth])
    torch.testing.assert_close(as_heatmaps(values, 0.1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_heatmap_is_empty_where_nothing_is_positive(value: float) -> None:
    assert torch.equal(as_heatmaps(torch.full((2, 3, 4, 5), value), 0.1), torch.zeros(2, 4, 5))


def test_heatmaps_are_single_precision_and_may_be_none() -> None:
    assert as_heatmaps(float_images().bfloat16(), 0.02).dtype == torch.float32
    assert as_heatmaps(torch.zeros(0, 1, 4, 5), 0.02).shape == (0, 4, 5)
