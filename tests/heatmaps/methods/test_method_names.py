import pytest

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.settings import METHOD_NAMES, METHODS, check_methods


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
        rf"integrated_gradients, occlusion, gradient_shap\. Did you mean {near}\?$"
    )
    with pytest.raises(ConfigError, match=message):
        check_methods(names, "explain.methods")


@pytest.mark.parametrize("names", ["attention", "", "gradcam,"])
def test_nothing_is_suggested_where_nothing_is_near(names: str) -> None:
    with pytest.raises(ConfigError, match=r"^method=(attention)? is no method; .*, gradient_shap\.$"):
        check_methods(names, "method")


@pytest.mark.parametrize("names", [[], ["gradcam", "gradcam"], "occlusion, gradcam, occlusion"])
def test_methods_stand_once_and_there_is_one(names: str | list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"^methods=\[.*\] must name at least one method, and none twice\.$"
    ):
        check_methods(names, "methods")
