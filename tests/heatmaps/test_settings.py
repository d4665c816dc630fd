from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import get_args

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cxrlab.cli import config
from cxrlab.cli.validation import check_node
from cxrlab.errors import ConfigError
from cxrlab.heatmaps.settings import (
    CHECKS,
    METHOD_NAMES,
    METHODS,
    Baseline,
    ExplanationSettings,
    check_methods,
    named_checks,
)

SHIPPED = OmegaConf.load(config.config_dir() / "explanation" / "default.yaml")
SETTINGS: ExplanationSettings = instantiate(SHIPPED)

NUMBERS = (
    "batch_size", "num_steps", "num_background", "num_samples", "num_random_networks", "num_checked", "num_curve_steps"
)  # fmt: skip
SHARES = ("smoothing", "tolerance", "border", "corner", "most_outside", "window", "stride")


def test_the_shipped_values_fit_and_are_all_that_there_is() -> None:
    check_node({"explanation": config.plain(SHIPPED)})
    assert [str(name) for name in SHIPPED] == [
        "_target_",
        *(field.name for field in fields(ExplanationSettings)),
    ]
    assert isinstance(SETTINGS, ExplanationSettings)
    assert asdict(ExplanationSettings()) == {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.plain(SHIPPED).items()
        if name != "_target_"
    }
    assert (SETTINGS.layers, SETTINGS.num_steps, list(SETTINGS.size_edges)) == ("auto", 32, [0.01, 0.03, 0.1])


@pytest.mark.parametrize("kind", [*get_args(Baseline), "white"])
def test_the_config_takes_the_baselines_that_there_are(kind: str) -> None:
    node = {"explanation": {**config.plain(SHIPPED), "baseline": kind}}
    if kind != "white":
        check_node(node)
        return
    with pytest.raises(ConfigError, match=r"explanation\.baseline='white' does not fit: .*mean, blur, black"):
        check_node(node)


@pytest.mark.parametrize("layers", ["fused", "feature_map", ["backbone.layer3", "feature_map"]])
def test_the_config_takes_one_layer_or_several(layers: str | list[str]) -> None:
    node = OmegaConf.merge(SHIPPED, {"layers": layers})
    check_node({"explanation": config.plain(node)})
    assert instantiate(node).layers == layers


@pytest.mark.parametrize(
    "values",
    [
        *({name: 1} for name in NUMBERS),
        *({name: 0.0} for name in SHARES if name not in ("window", "stride")),
        *({name: 1.0} for name in SHARES if name not in ("border", "corner")),
        {"border": 0.5}, {"corner": 0.5}, {"window": 1e-3}, {"stride": 1e-3}, {"num_folds": 2}, {"num_resamples": 100},
        {"seed": 0}, {"level": 0.5}, {"level": 0.999}, {"size_edges": []}, {"size_edges": (0.5,)},
    ],
)  # fmt: skip
def test_limits_are_accepted(values: dict[str, object]) -> None:
    settings = replace(SETTINGS, **values)  # type: ignore[arg-type]
    assert {name: getattr(settings, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({name: 0}, rf"explanation\.{name}=0 must be at least 1\.") for name in NUMBERS),
        ({"num_folds": 1}, r"explanation\.num_folds=1 must be at least 2\."),
        ({"num_resamples": 99}, r"explanation\.num_resamples=99 must be at least 100\."),
        ({"seed": -1}, r"explanation\.seed=-1 must be at least 0\."),
        *(
            ({name: -0.1}, rf"explanation\.{name}=-0\.1 must be (above|at least) 0 and at most (1|0.5)")
            for name in SHARES
        ),
        *(
            ({name: 1.1}, rf"explanation\.{name}=1\.1 must be (above|at least) 0 and at most (1|0.5)")
            for name in SHARES
        ),
        *(
            ({name: float("nan")}, rf"explanation\.{name}=nan must be (above|at least) 0 and at most (1|0.5)")
            for name in SHARES
        ),
        ({"window": 0.0}, r"explanation\.window=0\.0 must be above 0 and at most 1"),
        ({"stride": 0.0}, r"explanation\.stride=0\.0 must be above 0 and at most 1"),
        ({"border": 0.51}, r"explanation\.border=0\.51 must be at least 0 and at most 0.5"),
        ({"corner": 0.51}, r"explanation\.corner=0\.51 must be at least 0 and at most 0.5"),
        ({"level": 95}, r"explanation\.level=95 must be at least 0.5 and below 1"),
        ({"level": 1.0}, r"explanation\.level=1\.0 must"),
        ({"level": 0.05}, r"explanation\.level=0\.05 must"),
        (
            {"size_edges": [0.1, 0.01]},
            r"explanation\.size_edges=\[0\.1, 0\.01\] must ascend, between 0 and 1",
        ),
        ({"size_edges": (0.1, 0.1)}, r"explanation\.size_edges=\[0\.1, 0\.1\] must ascend"),
        ({"size_edges": [0.0, 0.1]}, r"explanation\.size_edges=\[0\.0, 0\.1\] must"),
        ({"size_edges": [0.1, 1.0]}, r"explanation\.size_edges=\[0\.1, 1\.0\] must"),
    ],
)
def test_values_out_of_range_are_rejected(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **values)  # type: ignore[arg-type]


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SETTINGS.seed = 1  # type: ignore[misc]


def test_every_method_has_a_name_of_its_own_for_pages() -> None:
    assert tuple(METHOD_NAMES) == METHODS
    assert len(set(METHOD_NAMES.values())) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_named(name: str) -> None:
    assert check_methods(name, "method") == [name]
    assert check_methods([name], "method") == [name]


@pytest.mark.parametrize(
    "names",
    ["gradcam++, occlusion", "gradcam++,occlusion", ["gradcam++", "occlusion"], ("gradcam++", "occlusion")],
)
def test_several_methods_keep_their_order(names: str | list[str]) -> None:
    assert check_methods(names, "methods") == ["gradcam++", "occlusion"]


@pytest.mark.parametrize(
    ("names", "wrong", "near"),
    [
        ("Grad-CAM", "Grad-CAM", "gradcam"),
        ("GradCAM++", r"GradCAM\+\+", r"gradcam\+\+"),
        ("grad_cam", "grad_cam", "gradcam"),
        (["occlusion", "Layer-CAM"], "Layer-CAM", "layercam"),
        ("gradcam, integrated-gradients", "integrated-gradients", "integrated_gradients"),
        ("gradientshap", "gradientshap", "gradient_shap"),
        ("eigencamm", "eigencamm", "eigencam"),
    ],
)
def test_an_unknown_method_is_rejected_with_the_nearest_one(
    names: str | list[str], wrong: str, near: str
) -> None:
    message = (
        rf"^explain\.methods={wrong} is no method; choose from gradcam, gradcam\+\+, hirescam, layercam, eigencam, "
        rf"attention, rollout, integrated_gradients, occlusion, gradient_shap\. Did you mean {near}\?$"
    )
    with pytest.raises(ConfigError, match=message):
        check_methods(names, "explain.methods")


@pytest.mark.parametrize("names", ["saliency", "", "gradcam,"])
def test_nothing_is_suggested_where_nothing_is_near(names: str) -> None:
    with pytest.raises(ConfigError, match=r"^method=(saliency)? is no method; .*, gradient_shap\.$"):
        check_methods(names, "method")


@pytest.mark.parametrize("names", [[], ["gradcam", "gradcam"], "occlusion, gradcam, occlusion"])
def test_methods_stand_once_and_there_is_one(names: str | list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"^methods=\[.*\] must name at least one method, and none twice\.$"
    ):
        check_methods(names, "methods")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("auto", list(CHECKS)),
        (True, list(CHECKS)),
        (False, []),
        ("lungs", ["lungs"]),
        ("agreement, pointing", ["pointing", "agreement"]),
        (["lungs", "pointing"], ["pointing", "lungs"]),
    ],
)
def test_checks_are_named_all_or_none(names: bool | str | list[str], expected: list[str]) -> None:
    assert named_checks(names, "checks") == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "pointting",
            r"^checks=pointting is no check; choose from pointing, lungs, .* Did you mean pointing\?$",
        ),
        (["lungs", "lungs"], r"^checks=\['lungs', 'lungs'\] must name at least one check, and none twice\.$"),
        ([], "must name at least one check"),
    ],
)
def test_an_unknown_check_is_rejected(names: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_checks(names, "checks")
