from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cxrlab.cli import config
from cxrlab.errors import ConfigError, TrainingError
from cxrlab.heatmaps import settings as all_settings
from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.methods.cam import activation_maps
from cxrlab.heatmaps.settings import ATTENTION_METHODS, CAM_METHODS, ExplanationSettings
from cxrlab.models.sequential import SequentialNetwork
from cxrlab.training.module import Classifier

Compose = Callable[..., DictConfig]
SIDE = 16
MEAN, STD = 0.4, 0.2
PAIRS = [(2, 0), (0, 1), (2, 1)]
# Those that suit every network with spatial features; the others are in test_attention.py.
METHODS = [method for method in all_settings.METHODS if method not in ATTENTION_METHODS]
BY_PIXEL = ["integrated_gradients", "occlusion", "gradient_shap"]
SHIPPED: ExplanationSettings = instantiate(
    OmegaConf.load(config.config_dir() / "explanation" / "default.yaml")
)
# As few passes as a method can do with; occlusion hides one pixel at a time.
SETTINGS = replace(SHIPPED, smoothing=0.0, num_steps=2, num_samples=4, window=1 / SIDE, stride=1 / SIDE)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))


def sequential() -> SequentialNetwork:
    torch.manual_seed(0)
    return SequentialNetwork(
        layers=[{"conv": 4}, "pool", {"conv": 8}, "pool"], padding="same", output_dropout=0.0, num_labels=2,
        channels=1, image_size=SIDE,
    )  # fmt: skip


def classifier(network: nn.Module, *, side: int = SIDE, channels_last: bool = False) -> Classifier:
    return Classifier(
        labels=["Edema", "Mass"],
        preprocess={"normalize": "training", "mean": [MEAN], "std": [STD], "image_size": side, "channels": 1},
        network={"_target_": "elsewhere.Network"},
        module=network,
        channels_last=channels_last,
    ).eval()


def some_images(count: int = 3, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=generator)


def ready(images: Tensor) -> Tensor:
    """Return what the network sees, ``(N, H, W)``."""
    return (images[:, 0].float() / 255 - MEAN) / STD


def of_linear_network(network: nn.Module, distances: Tensor, sigma: float = 0.0) -> Tensor:
    """Return weight times distance from the baseline, smoothed, its positive part scaled to 1, for ``PAIRS``."""
    weights = next(network.parameters()).detach().view(2, SIDE, SIDE)
    maps = []
    for image, label in PAIRS:
        values = (weights[label] * distances[image]).numpy()
        if sigma:
            values = gaussian_filter(values, sigma, mode="mirror", radius=round(3 * sigma))
        maps.append(torch.from_numpy(np.maximum(values, 0) / values.max()))
    return torch.stack(maps)


@pytest.mark.parametrize("method", BY_PIXEL)
def test_maps_of_a_linear_network_are_weight_times_what_departs_from_the_mean_grey(method: str) -> None:
    network, images = linear(), some_images(3)
    greys = ready(images)
    # Without a background SHAP compares with the mean grey of all images given.
    means = greys.mean() if method == "gradient_shap" else greys.mean(dim=(1, 2), keepdim=True)
    maps = Explainer(method, SETTINGS)(classifier(network), images, PAIRS)
    torch.testing.assert_close(maps, of_linear_network(network, greys - means), atol=1e-4, rtol=0)


def test_shap_compares_with_the_background() -> None:
    network, images = linear(), some_images(4)
    maps = Explainer("gradient_shap", SETTINGS, images[3:])(classifier(network), images[:3], PAIRS)
    greys = ready(images)
    torch.testing.assert_close(maps, of_linear_network(network, greys[:3] - greys[3]), atol=1e-4, rtol=0)


def test_the_baseline_is_that_of_the_settings() -> None:
    network, images = linear(), some_images(3)
    expected = of_linear_network(network, ready(images) - ready(images).amin(dim=(1, 2), keepdim=True))
    for method in ("integrated_gradients", "occlusion"):
        maps = Explainer(method, replace(SETTINGS, baseline="black"))(classifier(network), images, PAIRS)
        torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)


def test_what_is_said_of_single_pixels_is_smoothed_and_occlusion_is_not() -> None:
    network, images = linear(), some_images(3)
    greys = ready(images)
    distances = greys - greys.mean(dim=(1, 2), keepdim=True)
    settings = replace(SETTINGS, smoothing=0.1)
    found = {name: Explainer(name, settings)(classifier(network), images, PAIRS) for name in BY_PIXEL[:2]}
    smooth, sharp = of_linear_network(network, distances, 0.1 * SIDE), of_linear_network(network, distances)
    torch.testing.assert_close(found["integrated_gradients"], smooth, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["occlusion"], sharp, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("layers", ["auto", "fused", "features.1"])
def test_activation_maps_are_of_the_preprocessed_images_and_the_layers_of_the_settings(
    layers: str, method: str
) -> None:
    network, images = sequential(), some_images()
    maps = Explainer(method, replace(SETTINGS, layers=layers))(classifier(network), images, PAIRS)
    normalised = ready(images)[:, None]
    expected = activation_maps(network, normalised, PAIRS, method=method, layers=layers, batch_size=3)
    assert expected.any()
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_format_and_the_batch_size_do_not_matter(method: str) -> None:
    plain = classifier(sequential())
    expected = Explainer(method, SETTINGS)(plain, some_images(), PAIRS)
    other = classifier(sequential(), channels_last=True)
    for size in (1, 2):
        maps = Explainer(method, replace(SETTINGS, batch_size=size))(other, some_images(), PAIRS)
        torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_another_network_can_be_explained_in_the_classifier_s_place(method: str) -> None:
    other = sequential()
    nn.init.normal_(next(other.head.parameters()))
    explainer, images = Explainer(method, SETTINGS), some_images()
    maps = explainer(classifier(sequential()), images, PAIRS, other)
    torch.testing.assert_close(maps, explainer(classifier(other), images, PAIRS))
    if method != "eigencam":  # whatever the label, and so whatever the head
        assert not torch.allclose(maps, explainer(classifier(sequential()), images, PAIRS), atol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_no_pairs_give_no_maps_of_any_method(method: str) -> None:
    maps = Explainer(method, SETTINGS)(classifier(linear()), some_images(0, 24), [])
    assert maps.shape == (0, 24, 24)


@pytest.mark.parametrize("method", CAM_METHODS)
def test_a_network_without_spatial_features_needs_another_method(method: str) -> None:
    with pytest.raises(ConfigError, match=r"Sequential has none .*explanation\.methods=\[occlusion\]"):
        Explainer(method, SETTINGS)(classifier(linear()), some_images(), PAIRS)


@pytest.mark.parametrize("method", METHODS)
def test_broken_weights_are_an_error_and_no_empty_map(method: str) -> None:
    network = sequential()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"3 of 3 heatmaps are not finite"):
        Explainer(method, SETTINGS)(classifier(network), some_images(), PAIRS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_in_inference_mode(method: str) -> None:
    explainer, evaluate = Explainer(method, SETTINGS, some_images(1)), classifier(sequential())
    expected = explainer(evaluate, some_images(), PAIRS)
    with torch.inference_mode():
        maps = explainer(evaluate, some_images() * 1, PAIRS)
    assert torch.equal(maps, expected)


def everything(network: nn.Module) -> list[Any]:
    """Return modes, flags, hooks, weights and statistics; there are no gradients."""
    modules = list(network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    return [
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        [parameter.requires_grad for parameter in network.parameters()],
        {name: value.clone() for name, value in network.state_dict().items()},
    ]


@pytest.mark.parametrize("model", ["densenet121", "mobilenetv3", "convnext_tiny", "vit_small"])
def test_every_method_explains_every_family_and_leaves_it_as_it_was(model: str, composed: Compose) -> None:
    """The families of one network each: dense, inverted residuals, modern convolutions, a transformer."""
    torch.manual_seed(0)
    cfg = composed(f"model={model}", "data.root=/nowhere", "run_dir=/nowhere/run")
    network = instantiate(cfg.model)(num_labels=2, channels=1, image_size=64)
    with (
        torch.no_grad()
    ):  # what speaks against one label speaks for the other, so one map of the two is not empty
        weight = network.head[-1].weight
        weight[1] = -weight[0]
    network.train()
    next(network.parameters()).requires_grad_(False)
    settings = replace(SHIPPED, num_steps=4, num_samples=4, window=0.5, stride=0.25)
    evaluate, images, pairs = (
        classifier(network, side=64).train(),
        some_images(2, 64),
        [(0, 0), (0, 1), (1, 0)],
    )
    before = everything(network)
    for method in METHODS:
        maps = Explainer(method, settings, some_images(3, 64))(evaluate, images, pairs)
        assert maps.shape == (3, 64, 64), method
        assert maps.dtype == torch.float32, method
        assert maps.device.type == "cpu", method
        assert maps.isfinite().all(), method
        assert float(maps.min()) >= 0, method
        assert float(maps.max()) <= 1, method
        assert float(maps[:2].amax()) > 0.99, method
        assert float(maps[:2].std(dim=(1, 2)).max()) > 0.02, method
    after = everything(network)
    assert after[:3] == before[:3]
    assert all(torch.equal(value, before[3][name]) for name, value in after[3].items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("model", ["densenet121", "mobilenetv3", "convnext_tiny", "vit_small"])
def test_the_gpu_agrees_with_the_cpu(model: str, composed: Compose) -> None:
    torch.manual_seed(0)
    cfg = composed(f"model={model}", "data.root=/nowhere", "run_dir=/nowhere/run")
    evaluate = classifier(instantiate(cfg.model)(num_labels=2, channels=1, image_size=64), side=64)
    settings = replace(SHIPPED, num_steps=4, num_samples=4, window=0.5, stride=0.25)
    images, pairs = some_images(2, 64), [(0, 0), (0, 1), (1, 0), (1, 1)]
    explainers = {method: Explainer(method, settings, some_images(3, 64)) for method in METHODS}
    expected = {method: explain(evaluate, images, pairs) for method, explain in explainers.items()}
    evaluate.cuda()
    for method, explain in explainers.items():
        maps = explain(evaluate, images, pairs)
        assert maps.device.type == "cpu", method
        assert expected[method].any(), method
        assert float((maps - expected[method]).abs().mean()) < 0.02, method  # convolutions in TF32
