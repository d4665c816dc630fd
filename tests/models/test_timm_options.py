from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cxrlab.cli.config import config_dir
from cxrlab.cli.overrides import appended
from cxrlab.errors import ConfigError
from cxrlab.models import TimmNetwork, build_network
from cxrlab.models.network import describe
from cxrlab.models.timm_options import checked_options

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def network(backbone: str = "vit_tiny_patch16_224", image_size: int = 64, **options: object) -> TimmNetwork:
    return TimmNetwork(backbone, num_labels=2, image_size=image_size, options=options or None)


def test_options_reach_the_architecture():
    vit = network(**SMALL, drop_path_rate=0.2, global_pool="avg")
    assert len(vit.backbone.blocks) == 2
    assert vit.backbone.blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    assert vit.backbone.global_pool == "avg"
    assert network("resnet10t", drop_path_rate=0.1).backbone.layer4[0].drop_path.drop_prob == pytest.approx(
        0.1
    )


def test_an_image_of_another_size_passes_where_the_option_says_so():
    vit = network(**SMALL, dynamic_img_size=True).eval()
    with torch.no_grad():
        assert vit(torch.zeros(1, 1, 96, 96)).shape == (1, 2)


def test_a_list_of_a_config_is_a_tuple_to_timm():
    options = OmegaConf.create({"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]})
    swin = TimmNetwork("swin_tiny_patch4_window7_224", num_labels=2, image_size=64, options=options)
    assert swin.arguments()["options"] == {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}


def test_a_network_is_built_again_from_its_description_with_its_options():
    first = network(**SMALL, global_pool="avg").eval()
    description = describe(first, num_labels=2)
    second = build_network(description).eval()
    second.load_state_dict(first.state_dict())
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(images), second(images))
    assert "options" not in description or description["options"] == {**SMALL, "global_pool": "avg"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_path": 0.1}, r"model.options.drop_path=0.1: .* takes no such keyword. Did you mean .*drop_path_rate"),
        ({"frobnicate": 1}, r"model.options.frobnicate=1: .* It takes .*global_pool"),
        ({"global_pool": "sum"}, r"model.options.global_pool='sum' is none of avg.* token"),
        ({"drop_path_rate": "much"}, r"model.options.drop_path_rate='much' does not fit: timm takes float"),
        ({"drop_path_rate": 1.5}, r"model.options.drop_path_rate=1.5 must lie between 0 and 1"),
        ({"dynamic_img_size": "yes"}, r"model.options.dynamic_img_size='yes' does not fit: timm takes bool"),
        ({"num_heads": 7}, r"timm cannot build .*'num_heads': 7"),
        ({"global_pool": ""}, r"features of the shape \(1, 17, 192\) .* needs \(1, 192\): choose another global_pool"),
        ({"num_classes": 5}, r"model.options.num_classes=5 is no option of its own: the labels of the data"),
        ({"in_chans": 1}, r"set data.channels"),
        ({"img_size": 96}, r"set data.image_size"),
        ({"pretrained": True}, r"set model.pretrained"),
        ({"checkpoint_path": "a.pth"}, r"set model.checkpoint_path"),
        ({"pretrained_cfg_overlay": {"file": "a.pth"}}, r"set model.checkpoint_path for weights of your own"),
        ({"norm_layer": {"_target_": "os.system"}}, r"is no plain value"),
        ({"features_only": True}, r"needs the architecture's own pooling"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(options: Mapping[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        network(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True},
        {"checkpoint_path": "/etc/passwd"},
        {"pretrained_cfg": {"url": "https://example.org/x.pth"}},
        {"cache_dir": "/tmp"},
        {"norm_layer": "https://example.org/x"},
        {"act_layer": {"_target_": "os.system", "command": "touch it-ran"}},
        {"weight_init": ["x", {"_target_": "os.system"}]},
    ],
)
def test_a_stranger_s_checkpoint_chooses_no_file_and_no_code(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    description = {
        "_target_": "cxrlab.models.TimmNetwork", "backbone": "vit_tiny_patch16_224", "num_labels": 2, "channels": 1,
        "image_size": 64, "options": options,
    }  # fmt: skip
    with pytest.raises(ConfigError):
        build_network(description)
    assert not list(tmp_path.iterdir())


def test_options_of_nothing_are_nothing():
    assert checked_options("resnet10t", None) == checked_options("resnet10t", {}) == {}
    assert network("resnet10t").arguments()["options"] is None


def test_the_command_line_adds_an_option_without_a_plus():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(
            "train",
            overrides=[
                *map(appended, ["data=synthetic", "model=vit_small", "model.options.global_pool=avg"])
            ],
        )
    assert cfg.model.options == {"global_pool": "avg"}
