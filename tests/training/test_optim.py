from functools import partial

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.models.network import wrap
from cxrlab.models.sequential import SequentialNetwork
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.training.optim import LayerRates, allow_clipping, parameter_groups, without_decay_of_vectors

NEUTRAL = {"stage_decay": 1.0, "floor": 0.0, "head_factor": 1.0}
RESNET = partial(
    TimmNetwork, backbone="resnet10t", pretrained=False, checkpoint_path=None, hidden=None, dropout=0.0,
    feature_dropout=0.0, freeze=None, unfreeze_epoch=None, num_labels=2, channels=1, image_size=32,
)  # fmt: skip
SMALL = partial(
    SequentialNetwork, layers=[{"conv": 4}, {"dense": 5}], padding="same", output_dropout=0.0, num_labels=2,
    channels=1, image_size=8,
)  # fmt: skip


def rate_of(groups: list, parameter: nn.Parameter) -> float:
    (found,) = [group for group in groups if any(one is parameter for one in group["params"])]
    return found.get("lr", 0.1)


def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(without_decay_of_vectors(network.parameters()), lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        share = 0.95 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * share)


def test_every_parameter_is_in_one_group_and_no_group_is_empty():
    network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    groups = without_decay_of_vectors(network.parameters())
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert len(without_decay_of_vectors(nn.LayerNorm(2).parameters())) == 1


def test_neutral_rates_make_one_group_or_two_as_before():
    network = RESNET()
    group = partial(parameter_groups, network, rates=LayerRates(**NEUTRAL), lr=0.1)
    (only,) = group(decay_norms_and_biases=True)
    assert list(only) == ["params"]
    assert [id(one) for one in only["params"]] == [id(one) for one in network.parameters()]
    assert [group.get("weight_decay") for group in group(decay_norms_and_biases=False)] == [None, 0.0]


@pytest.mark.parametrize("decays", [True, False])
def test_rates_fall_from_the_head_to_the_stem_but_not_below_the_floor(decays: bool):
    network = RESNET()
    rates = LayerRates(stage_decay=0.5, floor=0.1, head_factor=10.0)
    groups = parameter_groups(network, rates=rates, lr=0.1, decay_norms_and_biases=decays)
    backbone = network.backbone
    expected = {
        network.head[1].weight: 1.0,
        network.head[1].bias: 1.0,
        backbone.layer4[0].conv1.weight: 0.05,
        backbone.layer3[0].conv1.weight: 0.025,
        backbone.layer2[0].bn1.bias: 0.0125,
        backbone.layer1[0].conv1.weight: 0.01,  # 0.1 * 0.5**4 lies below the floor
        backbone.conv1[0].weight: 0.01,
    }
    for parameter, rate in expected.items():
        assert rate_of(groups, parameter) == pytest.approx(rate)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    torch.optim.AdamW(groups, lr=0.1)  # takes each parameter once
    if not decays:
        assert all(
            (group.get("weight_decay") == 0) == (one.ndim < 2) for group in groups for one in group["params"]
        )


def test_schedules_keep_the_ratios_of_the_groups():
    groups = parameter_groups(
        RESNET(),
        rates=LayerRates(stage_decay=0.5, floor=0.0, head_factor=1.0),
        lr=0.1,
        decay_norms_and_biases=True,
    )
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.05 * 0.5**distance for distance in (5, 4, 3, 2, 1, 0)]
    )


def test_a_network_without_stages_can_give_its_head_a_rate_but_no_decay():
    rates = partial(LayerRates, floor=0.0)
    network, plain = SMALL(), wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 2, 1)
    assert plain.title == "Sequential"
    assert len(parameter_groups(plain, rates=LayerRates(**NEUTRAL), lr=0.1)) == 1
    groups = parameter_groups(
        network, rates=rates(stage_decay=1.0, head_factor=2.0), lr=0.1, decay_norms_and_biases=True
    )
    assert rate_of(groups, network.head[1].weight) == pytest.approx(0.2)
    assert rate_of(groups, network.features[0].weight) == 0.1
    for one, values in ((network, {"stage_decay": 0.5}), (plain, {"head_factor": 2.0})):
        with pytest.raises(ConfigError, match=rf"layer_rates: {one.title} has no stages.*head_parameters"):
            LayerRates(**{**NEUTRAL, **values}).factors(one)


@pytest.mark.parametrize(
    ("name", "value"), [("stage_decay", 0.0), ("stage_decay", 1.1), ("floor", 2.0), ("head_factor", 0.0)]
)
def test_rates_out_of_range_are_rejected(name: str, value: float):
    with pytest.raises(ConfigError, match=rf"layer_rates\.{name}={value} must"):
        LayerRates(**{**NEUTRAL, name: value})


def test_factors_need_a_rate():
    rates = LayerRates(**{**NEUTRAL, "head_factor": 2.0})
    with pytest.raises(ConfigError, match=r"layer_rates needs optimizer\.lr"):
        parameter_groups(RESNET(), rates=rates, lr=None, decay_norms_and_biases=True)
    assert parameter_groups(RESNET(), rates=LayerRates(**NEUTRAL), lr=None, decay_norms_and_biases=True)


FUSED = {
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "adam": partial(torch.optim.Adam, lr=1e-2, eps=1e-7),
    "sgd": partial(torch.optim.SGD, lr=1e-2, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_takes_the_same_steps_and_goes_on_from_the_others_state(name: str):
    def trained(switch_to: bool | None) -> tuple[nn.Module, dict]:
        torch.manual_seed(0)
        network, choice = SMALL(), None
        optimizer = FUSED[name](network.parameters())
        for step in range(6):
            if step == 3 and switch_to is not choice:
                state = optimizer.state_dict()
                optimizer = FUSED[name](network.parameters(), fused=switch_to)
                optimizer.load_state_dict(state)
                optimizer.param_groups[0]["fused"] = switch_to
            optimizer.zero_grad()
            network(torch.ones(2, 1, 8, 8) * step).square().sum().backward()
            optimizer.step()
        return network, optimizer.state_dict()

    (plain, state), (fused, state_of_fused) = trained(None), trained(True)
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert [sorted(one) for one in state["state"].values()] == [
        sorted(one) for one in state_of_fused["state"].values()
    ]


def test_gradients_are_clipped_for_a_fused_optimizer_in_mixed_precision():
    plugin = MixedPrecision("bf16-mixed", "cpu")
    network = SMALL()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        plugin.clip_gradients(optimizer, 1.0)
    allow_clipping(optimizer)
    network(torch.ones(2, 1, 8, 8)).mul(1000).sum().backward()
    plugin.clip_gradients(optimizer, 1.0)
    norm = torch.stack([parameter.grad.norm() for parameter in network.parameters()]).norm()
    assert float(norm) == pytest.approx(1.0, abs=1e-3)
    optimizer.step()
