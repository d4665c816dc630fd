import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cxrlab.models
from cxrlab.errors import ConfigError, TrainingError
from cxrlab.heatmaps.methods.cam import Pair, activation_maps, grad_cam
from cxrlab.heatmaps.methods.layers import target_layers
from cxrlab.heatmaps.settings import CAM_METHODS
from cxrlab.models.sequential import Layer, SequentialNetwork
from cxrlab.models.timm_network import TimmNetwork

BACKBONES = [
    "densenet121",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "resnet10t",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small_patch16_224",
]


class TinyNetwork(cxrlab.models.Network):
    """Convolution, batch norm, feature layer, dropout and a head; no timm."""

    def __init__(
        self, num_labels: int = 3, *, after: nn.Module | None = None, first: nn.Module | None = None
    ):
        super().__init__()
        self.first = first or nn.Identity()
        self.conv = nn.Conv2d(1, 6, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.feature_map = nn.Identity()
        self.after = after or nn.GELU()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 16, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        features = self.feature_map(self.norm(self.conv(self.first(images))))
        logits: Tensor = self.head(self.dropout(self.after(features)).flatten(1))
        return logits

    @property
    def feature_layer(self) -> nn.Module:
        return self.feature_map

    def to_grid(self, activations: Tensor) -> Tensor:
        return activations


class FunctionalInPlace(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.relu_()


def tiny(num_labels: int = 3, **layers: nn.Module) -> TinyNetwork:
    torch.manual_seed(0)
    network = TinyNetwork(num_labels, **layers)
    network.norm.get_buffer("running_mean").normal_()
    return network


def some_images(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def by_hand(network: TinyNetwork, images: Tensor, labels: list[int]) -> Tensor:
    """Selvaraju et al., ICCV 2017, equations 1 and 2, image by image."""
    network.eval()
    maps = []
    for image, label in zip(images, labels, strict=True):
        activations = network.norm(network.conv(image[None])).detach().requires_grad_()
        score = network.head(network.after(activations.clone()).flatten(1))[0, label]
        (gradient,) = torch.autograd.grad(score, activations)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        heat = F.relu((weights * activations).sum(dim=1, keepdim=True))
        maps.append(F.interpolate(heat, size=image.shape[-2:], mode="bilinear", align_corners=False)[0, 0])
    return torch.stack([heat / heat.max() for heat in maps]).nan_to_num(0).detach()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_grad_cam_equals_a_computation_by_hand(batch_size: int) -> None:
    network, images, labels = tiny(), some_images(), [2, 0, 1]
    expected = by_hand(network, images, labels)
    maps = grad_cam(network, images, labels, batch_size=batch_size)
    torch.testing.assert_close(maps, expected, atol=2e-5, rtol=0)
    assert float(maps.std(dim=(1, 2)).min()) > 0.05


def test_shape_range_and_labels_as_a_tensor() -> None:
    network = tiny()
    maps = grad_cam(network, some_images(), torch.tensor([2, 0, 1]), batch_size=2)
    assert maps.shape == (3, 16, 16)
    assert maps.dtype == torch.float32
    assert maps.device.type == "cpu"
    assert not maps.requires_grad
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1
    assert torch.equal(maps, grad_cam(network, some_images(), [2, 0, 1], batch_size=2))


def test_each_label_has_its_own_map() -> None:
    image = some_images(1).expand(3, -1, -1, -1)
    maps = grad_cam(tiny(), image, [0, 1, 2], batch_size=3)
    assert not torch.allclose(maps[0], maps[1], atol=0.05)
    assert not torch.allclose(maps[1], maps[2], atol=0.05)


def test_a_single_logit_is_explained_by_what_raises_it() -> None:
    network = tiny(1)
    maps = grad_cam(network, some_images(), [0, 0, 0], batch_size=3)
    torch.testing.assert_close(maps, by_hand(network, some_images(), [0, 0, 0]), atol=2e-5, rtol=0)
    with torch.no_grad():
        network.head.weight.neg_()
    assert not torch.allclose(maps, grad_cam(network, some_images(), [0, 0, 0], batch_size=3), atol=0.05)


def test_no_images_give_no_maps() -> None:
    assert grad_cam(tiny(), some_images(0), [], batch_size=2).shape == (0, 16, 16)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, nullcontext])
def test_grad_cam_works_where_gradients_are_off(
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    network = tiny()
    expected = grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    with context():
        images = some_images() * 1
        assert images.is_inference() == (context is torch.inference_mode)
        maps = grad_cam(network, images, [2, 0, 1], batch_size=2)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert torch.is_grad_enabled() == (context is nullcontext)
    assert torch.equal(maps, expected)
    assert not images.requires_grad
    # A step of training is still possible.
    network.train()(some_images()).sum().backward()


def test_autocast_around_the_call_changes_nothing() -> None:
    network = tiny()
    expected = grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(maps, expected)


def test_a_network_in_half_precision() -> None:
    network = tiny()
    expected = grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    maps = grad_cam(network.bfloat16(), some_images(), [2, 0, 1], batch_size=2)
    torch.testing.assert_close(maps, expected, atol=0.1, rtol=0)


def test_a_frozen_backbone_is_explained_and_stays_frozen() -> None:
    network = tiny()
    expected = grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    network.requires_grad_(False)
    assert torch.equal(grad_cam(network, some_images(), [2, 0, 1], batch_size=2), expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_modes_statistics_gradients_and_random_state_stay() -> None:
    network = tiny().train()
    network.norm.eval()  # a mixture that train() or eval() would not give back
    network.conv.weight.requires_grad_(False)
    network(some_images()).sum().backward()
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    gradients = [parameter.grad for parameter in network.parameters()]
    values = [None if gradient is None else gradient.clone() for gradient in gradients]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()

    grad_cam(network, some_images(), [2, 0, 1], batch_size=2)

    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    for parameter, gradient, value in zip(network.parameters(), gradients, values, strict=True):
        assert parameter.grad is gradient
        assert (gradient is None) == (value is None)
        if gradient is not None and value is not None:
            assert torch.equal(gradient, value)
    assert any(gradient is None for gradient in gradients)
    assert any(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("after", [nn.ReLU(inplace=True), FunctionalInPlace()])
def test_an_in_place_activation_behind_the_layer_does_not_change_the_map(after: nn.Module) -> None:
    network = tiny(after=after)
    maps = grad_cam(network, some_images(), [2, 0, 1], batch_size=3)
    network.after = nn.ReLU()
    torch.testing.assert_close(maps, by_hand(network, some_images(), [2, 0, 1]), atol=2e-5, rtol=0)


def test_a_first_layer_that_works_in_place_leaves_the_images_alone() -> None:
    images = some_images()
    maps = grad_cam(tiny(first=nn.ReLU(inplace=True)), images, [2, 0, 1], batch_size=3)
    assert torch.equal(images, some_images())
    assert torch.equal(maps, grad_cam(tiny(first=nn.ReLU()), images, [2, 0, 1], batch_size=3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "2 labels were given for 3 images"), ([0, 1, 3], "no label 3: the network has 3 logits"),
     ([0, -1, 1], "no label -1")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_rejected(labels: list[int], message: str) -> None:
    network = tiny()
    with pytest.raises(ValueError, match=message):
        grad_cam(network, some_images(), labels, batch_size=3)
    assert num_hooks(network) == 0
    assert network.training


def test_no_gradient_is_computed_for_the_parameters() -> None:
    # Hooks of a distributed training sit on these gradients; our backward pass must not fire them.
    network = tiny()
    fired: list[Tensor] = []
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(fired.append)  # type: ignore[no-untyped-call]
    grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    assert not fired


def num_hooks(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in network.modules()
    )


def test_hooks_are_removed_also_when_the_network_fails() -> None:
    network = tiny().train()
    grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    assert num_hooks(network) == 0
    network.head = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as failure:
        grad_cam(network, some_images(), [2, 0, 1], batch_size=2)
    assert num_hooks(network) == 0
    assert failure.traceback  # its frames keep the package's object alive, which must not matter
    assert network.training
    assert network.conv.weight.requires_grad


def test_the_graph_is_released() -> None:
    network = tiny()
    graphs: list[weakref.ref[Tensor]] = []
    handle = network.register_forward_hook(lambda _, __, logits: graphs.append(weakref.ref(logits)))
    gc.disable()  # nothing may wait for the collector: memory of the device would pile up
    try:
        grad_cam(network, some_images(), [2, 0, 1], batch_size=1)
        assert len(graphs) == 4  # the first pass measures the grids
        assert all(graph() is None for graph in graphs)
    finally:
        gc.enable()
        handle.remove()


def test_a_map_that_is_not_finite_is_an_error() -> None:
    network, images = tiny(), some_images()
    images[1, 0, 5, 5] = torch.inf
    with pytest.raises(TrainingError, match=r"1 of 3 heatmaps are not finite \(images \[1\]\)"):
        grad_cam(network, images, [2, 0, 1], batch_size=3)
    with torch.no_grad():
        network.head.weight[1, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"3 of 3 .* NaN or infinity"):
        grad_cam(network, some_images(), [2, 0, 1], batch_size=3)


def timm(backbone: str) -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(
        backbone=backbone,
        pretrained=False,
        checkpoint_path=None,
        hidden=None,
        dropout=0.0,
        feature_dropout=0.0,
        freeze=None,
        unfreeze_epoch=None,
        num_labels=2,
        channels=1,
        image_size=64,
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_family_has_a_map(backbone: str) -> None:
    network = timm(backbone)
    # What speaks against one label speaks for the other, so one of the two maps at least is not empty.
    with torch.no_grad():
        weights = list(network.head.parameters())[-2]
        weights[1] = -weights[0]
    images = torch.randn(1, 1, 64, 64).repeat(2, 1, 1, 1)
    maps = grad_cam(network, images, [0, 1], batch_size=2)
    assert maps.shape == (2, 64, 64)
    assert maps.isfinite().all()
    assert float(maps.max()) > 0.99
    assert float(maps.std(dim=(1, 2)).max()) > 0.05


# Several labels of an image, an image without any, images out of order.
PAIRS = [(3, 1), (0, 2), (3, 0), (1, 1), (3, 2), (0, 0)]


def three_grids() -> SequentialNetwork:
    """Grids of 16, 8 and 4 pixels; ``features.4`` ends the second."""
    torch.manual_seed(0)
    layers: list[Layer] = [
        {"conv": 4},
        "pool",
        {"conv": 6},
        "pool",
        {"conv": 8, "linear": True},
        {"dense": 8},
    ]
    return SequentialNetwork(
        layers=layers, padding="same", output_dropout=0.0, num_labels=3, channels=1, image_size=16
    )


def from_the_least(maps: Tensor) -> Tensor:
    """Return maps as the package scales them: their smallest value becomes 0."""
    above = maps - maps.amin(dim=(1, 2), keepdim=True)
    return above / above.amax(dim=(1, 2), keepdim=True).clamp_min(1e-9)


def by_package(
    network: nn.Module,
    images: Tensor,
    pairs: Sequence[Pair],
    method: str,
    layers: list[nn.Module],
    grid: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the maps of the grad-cam package used as its own documentation does, one call a pair."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    names = {
        "gradcam": "GradCAM",
        "gradcam++": "GradCAMPlusPlus",
        "hirescam": "HiResCAM",
        "layercam": "LayerCAM",
        "eigencam": "EigenCAM",
    }
    maps = []
    for image, label in pairs:
        explainer = getattr(pytorch_grad_cam, names[method])(
            model=network, target_layers=layers, reshape_transform=grid
        )
        found = explainer(
            input_tensor=images[image : image + 1].clone(), targets=[ClassifierOutputTarget(label)]
        )
        explainer.activations_and_grads.release()
        maps.append(torch.from_numpy(found[0]))
    return torch.stack(maps)


explain = partial(activation_maps, layers="auto", batch_size=4)


def test_heat_that_is_everywhere_stays() -> None:
    """A map is divided by its maximum; what it has everywhere stays."""
    network, images = three_grids(), some_images(4)
    maps = explain(network, images, PAIRS, method="gradcam++", layers="auto")
    warm = maps[maps.amax(dim=(1, 2)) > 0]
    assert float(warm.amin(dim=(1, 2)).max()) > 0.02
    torch.testing.assert_close(warm.amax(dim=(1, 2)), torch.ones(len(warm)))


@pytest.mark.parametrize("layers", ["auto", "features.1", "feature_map", "fused"])
@pytest.mark.parametrize("method", sorted(set(CAM_METHODS) - {"eigencam"}))
def test_maps_are_those_of_the_package(method: str, layers: str) -> None:
    network, images = three_grids(), some_images(4)
    finest, finer, last = network.features[1], network.features[4], network.feature_map
    known: dict[str, list[nn.Module]] = {
        "auto": [finer],
        "features.1": [finest],
        "feature_map": [last],
        "fused": [finest, finer, last],
    }
    maps = explain(network, images, PAIRS, method=method, layers=layers)
    if layers == "fused":  # the package scales each layer's map from its least value on
        names = ["features.1", "features.4", "feature_map"]
        each = [explain(network, images, PAIRS, method=method, layers=name) for name in names]
        expected = torch.stack(each).mean(dim=0)
        expected /= expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-9)
        torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)
    else:
        expected = by_package(network, images, PAIRS, method, known[layers])
        torch.testing.assert_close(from_the_least(maps), expected, atol=1e-5, rtol=0)
    assert (maps.std(dim=(1, 2)) > 0.05).sum() >= 4  # few are empty


@pytest.mark.parametrize("method", sorted(set(CAM_METHODS) - {"eigencam"}))
def test_maps_of_a_transformer_are_those_of_the_package(method: str) -> None:
    network, images = timm("vit_small_patch16_224"), torch.randn(2, 1, 64, 64)
    pairs = [(1, 0), (0, 1), (1, 1)]

    def grid(tokens: Tensor) -> Tensor:  # the first is the class token
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    maps = explain(network, images, pairs, method=method)
    expected = by_package(network, images, pairs, method, [network.backbone.blocks[-1].norm1], grid)
    torch.testing.assert_close(from_the_least(maps), expected, atol=1e-4, rtol=0)
    assert float(maps.std(dim=(1, 2)).max()) > 0.05


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_of_every_family_are_those_of_the_package(backbone: str, method: str) -> None:
    """In a batch, of several labels an image; the package has one image and one label at a time."""
    network, images = timm(backbone), torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    if method == "gradcam++":  # of features below 0 its quotient has poles, which magnify rounding
        network, images = network.double(), images.double()
    pairs = [(2, 1), (0, 0), (2, 0), (1, 1)]
    # A layer before ConvNeXt's layer norm has gradients at right angles to its features: HiResCAM of it is 0.
    wanted = "feature_map" if backbone == "convnext_tiny" else "auto"
    maps = explain(network, images, pairs, method=method, layers=wanted)
    layers = target_layers(network, wanted, images[:1])
    if method == "eigencam":
        expected = by_singular_values(network, layers[0], images)[[image for image, _ in pairs]]
    else:
        expected = by_package(network, images, pairs, method, layers, network.to_grid)
    rounding = 1e-4 if method == "gradcam++" else 1e-5
    torch.testing.assert_close(from_the_least(maps), from_the_least(expected), atol=rounding, rtol=0)
    assert (maps.amax(dim=(1, 2)) > 0.9).sum() >= 2
    assert float(maps.std(dim=(1, 2)).max()) > 0.05


@torch.no_grad()
def by_singular_values(network: TimmNetwork, layer: nn.Module, images: Tensor) -> Tensor:
    """Return the package's projection of what a layer gives, its larger extreme up, in the images' size."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction

    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(network.to_grid(output)))
    network.eval()(images)
    handle.remove()
    heat = torch.from_numpy(get_2d_projection_with_sign_correction(kept[0].numpy()))
    return F.interpolate(heat[:, None].clamp_min(0), size=images.shape[-2:], mode="bilinear")[:, 0]


@pytest.mark.parametrize("size", [64, 96])
def test_the_grids_of_a_network_are_measured_once_for_a_size(size: int) -> None:
    network, passed = timm("resnet10t"), []
    network.head.register_forward_hook(lambda _, __, logits: passed.append(len(logits)))
    for images in (torch.randn(3, 1, 64, 64), torch.randn(3, 1, size, size), torch.randn(2, 1, size, size)):
        explain(network, images, [(0, 1), (1, 0)], method="gradcam")
    assert passed == ([1, 3, 3, 2] if size == 64 else [1, 3, 1, 3, 2])
    layers = target_layers(network, "auto", torch.randn(1, 1, 224, 224))
    assert layers == [network.feature_map]
    assert target_layers(network, "auto", torch.randn(1, 1, 64, 64)) != layers


def first_component(features: Tensor) -> Tensor:
    """Return how far each place of ``(F, h, w)`` lies along the features' first principal axis."""
    places = features.flatten(1).T.double().numpy()
    centred = places - places.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return torch.from_numpy(centred @ axis).view(features.shape[1:])


def as_map(heat: Tensor) -> Tensor:
    heat = F.relu(heat) / heat.max()
    large = F.interpolate(heat[None, None].float(), size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
    return (large - large.min()) / (large.max() - large.min())


def test_eigen_cam_is_the_first_component_with_its_larger_extreme_up() -> None:
    network, images = three_grids(), some_images(12)
    pairs = [(image, 1) for image in range(12)]
    maps = explain(network, images, pairs, method="eigencam", layers="feature_map")
    packaged = by_package(network, images, pairs, "eigencam", [network.feature_map])
    with torch.no_grad():
        components = [first_component(features) for features in network.features(images)]
    num_turned = 0
    for one, other, component in zip(maps, packaged, components, strict=True):
        up = component if component.max() > -component.min() else -component
        torch.testing.assert_close(one, as_map(up), atol=1e-4, rtol=0)
        is_turned = not torch.allclose(other, as_map(up), atol=1e-4)
        num_turned += is_turned
        torch.testing.assert_close(other, as_map(-up if is_turned else up), atol=1e-4, rtol=0)
    assert 0 < num_turned < 12  # the package leaves the side to chance


def test_eigen_cam_does_not_depend_on_the_sign_of_the_features() -> None:
    network = three_grids()
    maps = explain(network, some_images(4), PAIRS, method="eigencam")
    assert torch.equal(maps[0], maps[2])  # nor on the label
    assert not torch.allclose(maps[0], maps[1], atol=0.05)
    last = network.features[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.neg_()
        last.bias.neg_()
    turned = explain(network, some_images(4), PAIRS, method="eigencam")
    torch.testing.assert_close(turned, maps, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_neither_the_batch_size_nor_the_other_pairs_matter(batch_size: int, method: str) -> None:
    network, images = three_grids(), some_images(4)
    maps = activation_maps(network, images, PAIRS, method=method, layers="fused", batch_size=batch_size)
    assert maps.shape == (6, 16, 16)
    for one, (image, label) in zip(maps, PAIRS, strict=True):
        alone = explain(network, images[image : image + 1], [(0, label)], method=method, layers="fused")
        torch.testing.assert_close(one, alone[0], atol=1e-5, rtol=0)


def test_an_image_goes_forward_once_however_many_labels_it_has() -> None:
    network, passed = three_grids(), []
    network.head.register_forward_hook(lambda _, __, logits: passed.append(len(logits)))
    explain(network, some_images(4), PAIRS, method="layercam", layers="feature_map", batch_size=3)
    assert passed == [3, 1]
    passed.clear()
    explain(network, some_images(4), PAIRS[:1], method="layercam", layers="feature_map", batch_size=3)
    assert passed == [1]  # the first three have no label to explain
    passed.clear()
    explain(network, some_images(4), PAIRS, method="layercam", layers="auto", batch_size=3)
    assert passed == [1, 3, 1]  # the grids are measured with one image, once


def test_gradients_go_back_no_farther_than_to_the_layers_that_are_read() -> None:
    network = three_grids()
    recorded: dict[str, bool] = {}

    def record(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        recorded[name] = output.requires_grad

    for name in ("features.0", "features.3", "features.5", "head"):
        network.get_submodule(name).register_forward_hook(partial(record, name))
    explain(network, some_images(4), PAIRS, method="gradcam", layers="features.4")
    assert recorded == {"features.0": False, "features.3": False, "features.5": True, "head": True}


def test_no_pairs_give_no_maps_of_any_method() -> None:
    for method in CAM_METHODS:
        assert explain(three_grids(), some_images(4), [], method=method).shape == (0, 16, 16)


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("label", [3, -1])
def test_an_unknown_label_is_rejected(label: int, method: str) -> None:
    network = three_grids().train()
    with pytest.raises(ValueError, match=rf"no label {label}: the network has 3 logits, counted from 0"):
        explain(network, some_images(4), [(0, 1), (2, label)], method=method)
    assert num_hooks(network) == 0
    assert network.training


@pytest.mark.parametrize("batch_size", [2, 3, 4])
@pytest.mark.parametrize("image", [4, -1])
def test_an_unknown_image_is_rejected(image: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"{image}"):
        explain(three_grids(), some_images(4), [(0, 1), (image, 0)], method="gradcam", batch_size=batch_size)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("method", CAM_METHODS)
def test_a_map_that_is_not_finite_is_an_error_of_every_method(method: str, value: float) -> None:
    network, images = three_grids(), some_images(4)
    images[3] = value
    with pytest.raises(TrainingError, match=r"1 of \d heatmaps are not finite"):
        explain(network, images, [(0, 1), (3, 1)], method=method)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [("head", r"\(3,\)"), ("head.0", r"\(128,\)"), (["feature_map", "head.1"], r"\(8,\)")],
)
def test_a_layer_without_places_is_rejected(layers: str | list[str], shape: str) -> None:
    network = three_grids()
    with pytest.raises(
        ConfigError, match=rf"whose output has the shape {shape} for each image: there are no places"
    ):
        explain(network, some_images(4), PAIRS, method="gradcam", layers=layers)
    assert num_hooks(network) == 0


class Pairing(nn.Module):
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, features


def test_a_layer_that_gives_no_single_tensor_is_rejected() -> None:
    class Network(TinyNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.pairing = Pairing()

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(self.pairing(images)[0])

    network = Network()
    with pytest.raises(ConfigError, match=r"explanation\.layers: a Pairing gives a tuple, no features"):
        explain(network, some_images(), [(0, 0)], method="gradcam", layers="pairing")
    assert num_hooks(network) == 0


def test_a_layer_that_the_network_does_not_call_is_rejected() -> None:
    network = tiny()
    network.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(ConfigError, match=r"explanation\.layers.*unused"):
        explain(network, some_images(), [(0, 0)], method="gradcam", layers="unused")


def test_a_layer_of_a_single_place_gives_empty_maps_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    network = SequentialNetwork(
        layers=[{"conv": 4}, *["pool"] * 4],
        padding="same",
        output_dropout=0.0,
        num_labels=3,
        channels=1,
        image_size=16,
    )
    with caplog.at_level(logging.WARNING):
        maps = explain(network, some_images(4), PAIRS, method="gradcam", layers="feature_map")
        assert (
            "single place for an image of 16 pixels. Choose an earlier one by explanation.layers"
            in caplog.text
        )
        assert not maps.any()
        caplog.clear()
        assert explain(network, some_images(4), PAIRS, method="gradcam", layers="features.1").any()
        assert not caplog.records


@pytest.mark.parametrize("layer", ["feature_map", "backbone.blocks.11", "backbone.norm"])
@pytest.mark.parametrize("method", sorted(set(CAM_METHODS) - {"eigencam"}))
def test_a_layer_of_which_only_the_class_token_is_read_is_rejected(method: str, layer: str) -> None:
    network, images = timm("vit_small_patch16_224"), torch.randn(2, 1, 64, 64)
    message = rf"names '{layer}', of which only the class token .* read is backbone\.blocks\.11\.norm1\.$"
    with pytest.raises(ConfigError, match=message):
        activation_maps(network, images, [(0, 1), (1, 0)], method=method, layers=layer, batch_size=2)
    assert num_hooks(network) == 0


def test_eigen_cam_may_read_behind_the_last_attention() -> None:
    network, images = timm("vit_small_patch16_224"), torch.randn(1, 1, 64, 64)
    pairs = [(0, 1)]
    maps = activation_maps(network, images, pairs, method="eigencam", layers="feature_map", batch_size=2)
    assert float(maps.std()) > 0.05
