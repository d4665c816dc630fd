"""LoRA against its algebra: what it computes, what of it learns, and what it is once merged."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.heatmaps.methods.cam import grad_cam
from cxrlab.models import LoRA, TimmNetwork, build_network
from cxrlab.models.lora import LoRALinear, lora_parameters, merge_lora, merged
from cxrlab.models.network import describe
from cxrlab.models.timm_network import layer_table
from cxrlab.training.optim import LayerRates, parameter_groups

BLOCKS, WIDTH = 6, 64  # of test_vit


def network(lora: LoRA | None = None, backbone: str = "test_vit", **changes: object) -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(backbone, **{"num_labels": 3, "image_size": 64, "lora": lora, **changes})


def trained(one: TimmNetwork, steps: int = 3) -> TimmNetwork:
    """Train on noise."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.03, weight_decay=0.1)
    one.train()
    for _ in range(steps):
        optimizer.zero_grad()
        one(torch.randn(8, one.channels, one.image_size, one.image_size)).square().mean().backward()
        optimizer.step()
    return one


def images(size: int = 64) -> Tensor:
    return torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_unchanged_at_the_start_to_the_bit(training: bool):
    plain, low_rank = network().train(training), network(LoRA(rank=8)).train(training)
    assert torch.equal(plain(images()), low_rank(images()))
    first = low_rank.backbone.blocks[0].attn.qkv
    bound = 1 / math.sqrt(WIDTH)  # Kaiming's with a = sqrt(5), as nn.Linear has it
    assert 0.9 * bound < first.lora_A.abs().max() <= bound
    assert not first.lora_B.any()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_multiplies_with_the_weight_and_the_scaled_product_of_its_matrices(
    training: bool, bias: bool
):
    torch.manual_seed(0)
    linear = nn.Linear(10, 6, bias=bias)
    layer = LoRALinear(linear, rank=4, alpha=6.0, dropout=0.0).train(training)
    nn.init.normal_(layer.lora_B)
    inputs = torch.randn(5, 7, 10)
    weight = linear.weight + 6 / 4 * layer.lora_B @ layer.lora_A
    expected = inputs @ weight.T + (linear.bias if bias else 0)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight, weight)
    assert torch.equal(layer.frozen_weight, linear.weight)
    assert layer.lora_A.shape == (4, 10)
    assert layer.lora_B.shape == (6, 4)
    assert list(layer.state_dict()) == [
        "weight", *(["bias"] if bias else []), "lora_A", "lora_B", "lora_scaling"
    ]  # fmt: skip


def test_the_gradients_of_the_matrices_are_those_of_the_product():
    torch.manual_seed(0)
    linear = nn.Linear(10, 6).requires_grad_(False)
    layer = LoRALinear(linear, rank=2, alpha=3.0, dropout=0.0)
    nn.init.normal_(layer.lora_B)
    inputs = torch.randn(5, 10)
    layer(inputs).square().sum().backward()
    outer = 2 * layer(inputs).detach().T @ inputs  # of the sum of squares with respect to W'
    torch.testing.assert_close(layer.lora_A.grad, 1.5 * layer.lora_B.T @ outer, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.lora_B.grad, 1.5 * outer @ layer.lora_A.T, rtol=1e-4, atol=1e-4)
    assert linear.weight.grad is None
    assert linear.bias.grad is None


def test_dropout_is_of_the_updates_inputs_alone_and_in_training_alone():
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(10, 6), rank=2, alpha=2.0, dropout=0.5)
    nn.init.normal_(layer.lora_B)
    inputs = torch.ones(1, 10)
    mean = torch.stack([layer(inputs) for _ in range(4000)]).mean(dim=0)
    assert not torch.equal(layer(inputs), layer(inputs))
    layer.eval()
    assert torch.equal(layer(inputs), layer(inputs))
    torch.testing.assert_close(mean, layer(inputs), rtol=0.1, atol=0.1)


def test_only_the_matrices_and_the_head_have_gradients_and_change():
    one = network(LoRA(rank=4))
    before = copy.deepcopy(one.state_dict())
    trained(one)
    changed = {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    layers = [f"backbone.blocks.{n}.attn.{name}" for n in range(BLOCKS) for name in ("qkv", "proj")]
    matrices = {f"{layer}.{name}" for layer in layers for name in ("lora_A", "lora_B")}
    assert changed == matrices | {"head.1.weight", "head.1.bias"}
    assert {name for name, one in one.named_parameters() if one.grad is not None} == changed
    assert {name for name, one in one.named_parameters() if one.requires_grad} == changed


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["qkv"], BLOCKS * 4 * (WIDTH + 3 * WIDTH)),
        (["qkv", "proj"], BLOCKS * 4 * (WIDTH + 3 * WIDTH + WIDTH + WIDTH)),
        (["attn.proj"], BLOCKS * 4 * 2 * WIDTH),
        (["mlp.fc1", "fc2"], BLOCKS * 4 * 2 * (WIDTH + 3 * WIDTH)),
        (["blocks.0.attn.qkv"], 4 * (WIDTH + 3 * WIDTH)),
    ],
)
def test_the_number_of_trainable_parameters(targets: list[str], count: int):
    one = network(LoRA(rank=4, targets=targets))
    assert sum(parameter.numel() for parameter in lora_parameters(one)) == count
    trainable = sum(parameter.numel() for parameter in one.parameters() if parameter.requires_grad)
    assert trainable == count + 3 * WIDTH + 3
    assert f"parameters, {trainable:,} of them trainable" in layer_table(one, 64, 1)
    row = next(line for line in layer_table(one, 64, 1).splitlines() if "LoRALinear" in line)
    path = row.split()[0]
    assert f"{sum(p.numel() for p in one.get_submodule(path).parameters()):,}" == row.split()[-1]


def test_the_matrices_are_of_the_stage_of_their_layer_and_decay_as_matrices_do():
    one = network(LoRA(rank=4))
    stages = [{id(parameter) for parameter in stage} for stage in one.stages()]
    for number, block in enumerate(one.backbone.blocks, start=1):
        assert {id(parameter) for parameter in lora_parameters(block)} <= stages[number]
    groups = parameter_groups(one, rates=LayerRates(stage_decay=0.5), lr=1.0, decay_norms_and_biases=False)
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(one.parameters()))
    for number, block in enumerate(one.backbone.blocks):
        group = group_of[id(block.attn.qkv.lora_B)]
        assert "weight_decay" not in group
        # From the head: the last norm's stage with the last block, and so on down.
        assert group["lr"] == group_of[id(block.attn.qkv.frozen_weight)]["lr"]
        assert group["lr"] == pytest.approx(0.5 ** (BLOCKS - number), rel=1e-9)


def test_merging_gives_an_ordinary_network_with_the_same_logits():
    one = trained(network(LoRA(rank=4, alpha=5.0, targets=["qkv", "proj", "fc1"])))
    assert one.training
    before = one(images()).detach()
    evaluated = one.eval()(images()).detach()
    weights = merged(one.state_dict())
    plain = network().eval()
    assert list(weights) == list(plain.state_dict())
    plain.load_state_dict(weights)
    assert torch.equal(plain(images()), evaluated)
    torch.testing.assert_close(evaluated, before, rtol=0, atol=1e-5)
    assert not torch.allclose(network().eval()(images()), evaluated, atol=1e-3)
    random_state = torch.get_rng_state()
    merge_lora(one)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(isinstance(layer, LoRALinear) for layer in one.modules())
    assert not lora_parameters(one)
    assert torch.equal(one(images()), evaluated)
    assert [type(layer) for layer in one.modules()] == [type(layer) for layer in plain.modules()]
    for name, value in plain.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name


def test_the_update_is_rounded_once():
    one = trained(network(LoRA(rank=4, alpha=5.0)))
    layer, weights = one.backbone.blocks[2].attn.qkv, merged(one.state_dict())
    A, B = layer.lora_A.double(), layer.lora_B.double()
    expected = (layer.frozen_weight.double() + 5 / 4 * B @ A).float()
    assert torch.equal(weights["backbone.blocks.2.attn.qkv.weight"], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(merged(one.state_dict())["backbone.blocks.2.attn.qkv.weight"], expected)


def test_merged_weights_are_loaded_into_a_network_with_lora_as_they_are():
    one = trained(network(LoRA(rank=4)))
    logits = one.eval()(images())
    other = trained(network(LoRA(rank=4)), steps=5)
    other.load_state_dict(merged(one.state_dict()))
    assert torch.equal(other.eval()(images()), logits)
    assert torch.equal(other.train()(images()), network_of(one).train()(images()))
    assert not any(layer.lora_B.any() for layer in other.modules() if isinstance(layer, LoRALinear))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.eval()(images()), logits)


def network_of(one: TimmNetwork) -> TimmNetwork:
    plain = network()
    plain.load_state_dict(merged(one.state_dict()))
    return plain


def test_a_state_dict_with_half_of_an_update_is_rejected():
    one = network(LoRA(rank=4))
    weights = one.state_dict()
    del weights["backbone.blocks.1.attn.qkv.lora_B"]
    with pytest.raises(RuntimeError, match="Missing.*blocks.1.attn.qkv.lora_B"):
        one.load_state_dict(weights)
    with pytest.raises(CheckpointError, match=r"w.pth hold .*of backbone.blocks.1.attn.qkv without lora_B"):
        merged(weights, "w.pth")
    weights = one.state_dict() | {"backbone.blocks.1.attn.qkv.lora_A": torch.zeros(4, 5)}
    with pytest.raises(CheckpointError, match=r"qkv that does not fit it: A \(4, 5\) and B \(192, 4\) for a"):
        merged(weights)


def test_weights_without_updates_are_merged_to_themselves():
    weights = network().state_dict()
    assert merged(weights) is weights


@pytest.mark.parametrize(
    ("backbone", "size", "targets"),
    [
        ("swinv2_tiny_window8_256", 64, ["qkv", "proj"]),
        ("eva02_tiny_patch14_224", 28, ["qkv", "proj", "fc1"]),
        ("convnext_tiny", 64, ["fc1", "fc2"]),
    ],
)
def test_layers_learn_in_other_families_also_where_their_weight_is_read_and_they_are_not_called(
    backbone: str, size: int, targets: list[str]
):
    one = network(LoRA(rank=2, targets=targets), backbone, image_size=size)
    for layer in one.modules():  # Swin V2 starts with 0, behind which nothing would learn
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
    trained(one, steps=2)
    assert all(bool(layer.lora_B.any()) for layer in one.modules() if isinstance(layer, LoRALinear))
    before = one.eval()(images(size)).detach()
    merge_lora(one)
    assert torch.equal(one(images(size)), before)


def test_batch_normalisation_of_the_backbone_keeps_its_statistics():
    one = network(LoRA(rank=2, targets=["linear"]), "levit_128s", image_size=224)
    before = {name: value.clone() for name, value in one.backbone.named_buffers() if "running" in name}
    assert before
    one.train()(torch.randn(4, 1, 224, 224))
    assert all(
        torch.equal(value, before[name]) for name, value in one.backbone.named_buffers() if "running" in name
    )


@pytest.mark.parametrize("training", [True, False])
def test_bf16_and_channels_last(training: bool):
    one = trained(network(LoRA(rank=4))).train(training).to(memory_format=torch.channels_last)
    full = one(images())
    with torch.autocast("cpu", torch.bfloat16):
        half = one(images().contiguous(memory_format=torch.channels_last))
        assert half.dtype is torch.bfloat16
        if not training:  # the saved network gives the same numbers in this precision too
            assert torch.equal(half, network_of(one).eval()(images()))
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)
    half.float().square().mean().backward()
    assert all(parameter.grad.dtype is torch.float32 for parameter in lora_parameters(one))
    assert one.to(torch.bfloat16)(images().bfloat16()).dtype is torch.bfloat16


def test_heatmaps_are_those_of_the_merged_network():
    one = trained(network(LoRA(rank=4))).eval()
    maps = [grad_cam(each, images(), [0, 1, 2, 0], batch_size=4) for each in (one, network_of(one).eval())]
    assert maps[0].max() > 0
    torch.testing.assert_close(*maps)
    assert not any(parameter.requires_grad for parameter in one.backbone.blocks[0].norm1.parameters())


def test_a_description_has_no_lora_for_a_checkpoint_is_merged():
    description = describe(network(LoRA(rank=4)), 3)
    assert not description.get("lora")
    assert list(build_network(description).state_dict()) == list(network().state_dict())
    with_lora = {**description, "lora": {"_target_": "os.system", "rank": 8}}
    assert not any(isinstance(layer, LoRALinear) for layer in build_network(with_lora).modules())


@pytest.mark.parametrize("rank", [None, 0])
def test_no_rank_is_no_lora(rank: int | None):
    one = network(LoRA(rank=rank))
    assert not lora_parameters(one)
    assert all(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": -1}, "model.lora.rank=-1 must be a whole number from 1 on"),
        ({"rank": 2.5}, "model.lora.rank=2.5 must be a whole number"),
        ({"rank": True}, "model.lora.rank=True must be a whole number"),
        ({"rank": 8, "alpha": 0.0}, "model.lora.alpha=0.0 must be above 0"),
        ({"rank": 8, "alpha": math.inf}, "model.lora.alpha=inf must be above 0 and finite"),
        ({"rank": 8, "alpha": math.nan}, "model.lora.alpha=nan must be above 0"),
        ({"rank": 8, "dropout": 1.0}, "model.lora.dropout=1.0 must be at least 0 and below 1"),
        ({"rank": 8, "dropout": -0.1}, "model.lora.dropout=-0.1 must be"),
        ({"rank": 8, "targets": "qkv"}, "model.lora.targets='qkv' must list names of layers"),
        ({"rank": 8, "targets": []}, r"model.lora.targets=\[\] must list names"),
        ({"targets": ["fc1"]}, "have no effect without model.lora.rank: set it, such as 8"),
        ({"alpha": 8.0}, "have no effect without model.lora.rank"),
    ],
)
def test_values_out_of_range_are_rejected(arguments: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        LoRA(**arguments)


@pytest.mark.parametrize(
    ("backbone", "lora", "message"),
    [
        (
            "densenet121", LoRA(rank=8),
            r"model.lora.targets=\[qkv,proj\]: densenet121 has no linear layers, .* leave model.lora.rank out",
        ),
        (
            "test_vit", LoRA(rank=8, targets=["qkv", "query", "value"]),
            r"model.lora.targets=\[qkv,query,value\]: no linear layer of test_vit is called query or value. Those "
            "that it has are qkv, proj, fc1, fc2.",
        ),
        (
            "test_vit", LoRA(rank=65),
            r"model.lora.rank=65 is more than the layer blocks.0.attn.qkv of test_vit has, with 64 inputs and 192 "
            "outputs: give at most 64",
        ),
    ],
)  # fmt: skip
def test_layers_that_are_not_there_or_too_small_are_rejected(backbone: str, lora: LoRA, message: str):
    with pytest.raises(ConfigError, match=message):
        network(lora, backbone)


@pytest.mark.parametrize(
    ("freeze", "unfreeze_epoch"), [("backbone", None), (2, None), ("backbone", 3), (None, 3)]
)
def test_freezing_beside_lora_is_rejected(freeze: object, unfreeze_epoch: int | None):
    with pytest.raises(
        ConfigError,
        match=f"model.lora.rank with model.freeze={freeze} and model.unfreeze_epoch={unfreeze_epoch}: with LoRA",
    ):
        network(LoRA(rank=8), freeze=freeze, unfreeze_epoch=unfreeze_epoch)
