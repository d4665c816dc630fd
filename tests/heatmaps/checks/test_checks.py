import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks.pointing import check_pointing
from cxrlab.heatmaps.checks.randomization import check_model
from cxrlab.heatmaps.checks.run_checks import check_heatmaps, flags
from cxrlab.heatmaps.checks.shortcuts import check_shortcuts
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
Numbers = dict[str, Any]
NAN = float("nan")
TARGETS = [(1, 0), (1, 1), (0, 1), (NAN, 0), (1, 1)]
BOXES = [
    (0, "Mass", 0.25, 0.25, 0.25, 0.25),
    (1, "Mass", 0.5, 0.25, 0.25, 0.5),
    (4, "Mass", 0.0, 0.5, 0.5, 0.5),
]
BETTER = "better than the box-frequency map"
NOT_BETTER = f"not shown to be {BETTER}"
WORSE = "worse than the box-frequency map"
ALONE = "not compared: no other patient has a box of it"


def of(value: float | None, low: float | None = None, high: float | None = None) -> Numbers:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def spotless() -> Numbers:
    """The numbers of one method on two boxed findings of which there is nothing to beware."""
    shares = {"gradcam": 0.75, "random: gradcam": 0.25, "box_frequency": 0.5}
    pointing = {source: {"pointing": of(share)} for source, share in shares.items()}
    words = {"Mass": BETTER, "Edema": BETTER, "macro": BETTER}
    random_words = dict.fromkeys(words, "better than networks with random weights")
    zones = {"outside": of(0.71), "border": of(0.26), "corners": of(0.125)}
    return {
        "methods": {"gradcam": "Grad-CAM"},
        "pointing": {
            "cases": {"Mass": {"cases": 9, "patients": 8}, "Edema": {"cases": 9, "patients": 8}},
            "without_boxes": {},
            "unusable": {"boxes": 0, "such_as": []},
            "findings": {name: copy.deepcopy(pointing) for name in ("Mass", "Edema", "macro")},
            "differences": {"gradcam": {"words": words, "random_words": random_words}},
            "empty": {"gradcam": 1, "random: gradcam": 18},
        },
        "randomization": {
            "methods": {
                "gradcam": {"rank_correlation": [of(0.9), of(0.2)], "empty": 0.05, "random_empty": 0.1}
            }
        },
        "faithfulness": {
            "methods": {
                "gradcam": {
                    "deletion": {"difference": of(-0.2, -0.3, -0.1)},
                    "insertion": {"difference": of(0.2, 0.1, 0.3)},
                },
                "random order": {"deletion": {"difference": None}, "insertion": {"difference": None}},
            }
        },
        "shortcuts": {
            "areas": {"outside": 0.54, "border": 0.19, "corners": 0.09},
            "methods": {"gradcam": {"macro": zones}},
            "unlike": [],
        },
    }


def told(numbers: Numbers) -> list[tuple[str, str]]:
    found = list(flags(numbers))
    assert all(set(one) == {"kind", "message"} for one in found)
    return [(one["kind"], one["message"]) for one in found]


def test_where_nothing_is_wrong_nothing_is_told(spotless: Numbers) -> None:
    assert told(spotless) == []


@pytest.mark.parametrize("words", [NOT_BETTER, WORSE])
def test_a_method_that_is_not_better_than_the_prior_is_told(spotless: Numbers, words: str) -> None:
    spotless["pointing"]["differences"]["gradcam"]["words"] |= {"Mass": words, "macro": words}
    message = (
        f"Grad-CAM is {words}: it points at the finding in 75.0% of the cases on average over the findings, "
        "the map in 50.0%."
    )
    assert told(spotless) == [("pointing", message)]


def test_the_shares_told_are_of_the_findings_that_were_compared(spotless: Numbers) -> None:
    words = spotless["pointing"]["differences"]["gradcam"]["words"]
    words |= {"Mass": WORSE, "Edema": ALONE, "macro": WORSE}
    findings = spotless["pointing"]["findings"]
    findings["Mass"] = {"gradcam": {"pointing": of(0.0)}, "box_frequency": {"pointing": of(1.0)}}
    findings["Edema"] = {"gradcam": {"pointing": of(1.0)}, "box_frequency": {"pointing": of(None)}}
    message = f"Grad-CAM is {WORSE}: it points at the finding in 0.0% of the cases, the map in 100.0%."
    assert told(spotless) == [("pointing", message)]


def test_findings_that_stay_behind_a_good_mean_are_named(spotless: Numbers) -> None:
    words = spotless["pointing"]["differences"]["gradcam"]["words"]
    message = f"Grad-CAM points {BETTER} on average, but that is not shown for "
    words |= {"Edema": NOT_BETTER}
    assert told(spotless) == [("pointing", message + "Edema.")]
    words |= {"Mass": ALONE}
    assert told(spotless) == [("pointing", message + "Mass, Edema.")]


def test_a_method_without_a_prior_is_told_to_be_uncompared(spotless: Numbers) -> None:
    spotless["pointing"]["differences"]["gradcam"]["words"] = dict.fromkeys(("Mass", "Edema", "macro"), ALONE)
    for found in spotless["pointing"]["findings"].values():
        found["box_frequency"]["pointing"] = of(None)
    message = f"Grad-CAM could not be compared with a box-frequency map; {ALONE}."
    assert told(spotless) == [("pointing", message)]


def test_a_method_that_untrained_networks_equal_is_told(spotless: Numbers) -> None:
    words = spotless["pointing"]["differences"]["gradcam"]["random_words"]
    words["Mass"] = "not shown to be better than networks with random weights"
    assert told(spotless) == []
    words["macro"] = "not shown to be better than networks with random weights"
    message = (
        f"Grad-CAM is {words['macro']}: it points at the finding in 75.0% of the cases on average over the "
        "findings, with random weights in 25.0%."
    )
    assert told(spotless) == [("random_pointing", message)]


def test_many_empty_maps_are_told(spotless: Numbers) -> None:
    spotless["pointing"]["empty"]["gradcam"] = 9  # of 18 cases
    counted = "nothing in these speaks for the finding; they count as not pointing at it."
    assert told(spotless) == [("empty", f"Grad-CAM is empty in 50% of the cases: {counted}")]
    spotless["pointing"] = {
        "cases": {}, "without_boxes": {}, "unusable": {"boxes": 0, "such_as": []}
    }  # fmt: skip
    assert told(spotless) == []  # of the sample few are
    spotless["randomization"]["methods"]["gradcam"] |= {"empty": 0.2, "random_empty": 0.3}
    assert [message.split(":")[0] for _, message in told(spotless)] == [
        "Grad-CAM is empty in 20% of the cases",
        "Grad-CAM is empty in 30% of the cases on networks with random weights",
    ]


def test_without_boxes_nothing_is_told_of_pointing(spotless: Numbers) -> None:
    unusable = {"boxes": 0, "such_as": []}
    spotless["pointing"] = {"cases": {}, "without_boxes": {"Mass": 3}, "unusable": unusable}
    assert told(spotless) == []


@pytest.mark.parametrize(
    ("last", "is_told"), [(0.5, True), (1.0, True), (0.49, False), (-0.9, False), (None, False)]
)
def test_maps_that_random_weights_hardly_change_are_told(
    spotless: Numbers, last: float | None, is_told: bool
) -> None:
    spotless["randomization"]["methods"]["gradcam"]["rank_correlation"][-1] = of(last)
    expected = [
        (
            "randomization",
            "Grad-CAM hardly depends on what was learnt: with random weights in every layer its maps still "
            f"resemble those of the trained network (rank correlation {last or 0:.2f}).",
        )
    ]
    assert told(spotless) == (expected if is_told else [])


@pytest.mark.parametrize(
    ("deletion", "insertion", "failed"),
    [
        (of(-0.2, -0.3, 0.0), of(0.2, 0.1, 0.3), "deletion"),
        (of(0.2, 0.1, 0.3), of(0.2, 0.1, 0.3), "deletion"),
        (of(-0.2, -0.3, -0.1), of(0.2, 0.0, 0.3), "insertion"),
        (of(-0.2, -0.3, -0.1), of(-0.2, -0.3, -0.1), "insertion"),
        (of(-0.2, -0.3, 0.1), of(0.2, -0.1, 0.3), "deletion, insertion"),
        (of(-0.2), of(0.2), "deletion, insertion"),  # of a single patient there is no interval
        (of(None), of(None), "deletion, insertion"),
    ],
)
def test_curves_that_are_not_shown_to_beat_a_random_order_are_told(
    spotless: Numbers, deletion: Numbers, insertion: Numbers, failed: str
) -> None:
    curves = spotless["faithfulness"]["methods"]["gradcam"]
    curves["deletion"]["difference"], curves["insertion"]["difference"] = deletion, insertion
    message = (
        "Grad-CAM is not shown to tell where the score comes from better than a random order of pixels "
        f"({failed})."
    )
    assert told(spotless) == [("faithfulness", message)]


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (
            "outside",
            "71% of the heat of Grad-CAM lies outside the lungs' bounding region, which is 54% of the image",
        ),
        ("border", "26% of the heat of Grad-CAM lies at the image's border, which is 19% of the image"),
        (
            "corners",
            "12% of the heat of Grad-CAM lies in the corners, where text marks sit, which is 9% of the image",
        ),
    ],
)
def test_heat_where_no_lung_is_is_told(spotless: Numbers, zone: str, words: str) -> None:
    spotless["shortcuts"]["unlike"] = [{"method": "gradcam", "zone": zone}]
    assert told(spotless) == [("shortcut", f"{words}: does the network use what is no sign of disease?")]


def test_labels_without_boxes_are_named(spotless: Numbers) -> None:
    spotless["pointing"]["without_boxes"] = {"Hernia": 4, "Nodule": 1}
    message = "There are no boxes of Hernia, Nodule: not checked where it points."
    assert told(spotless) == [("without_boxes", message)]


def test_boxes_that_could_not_be_used_are_told_with_the_first_two(spotless: Numbers) -> None:
    such_as = ["Mass in a.png has no area", "Mass in b.png has no place", "Edema in c.png has no area"]
    spotless["pointing"]["unusable"] = {"boxes": 9, "such_as": such_as}
    message = "9 boxes could not be used, such as Mass in a.png has no area; Mass in b.png has no place."
    assert told(spotless) == [("unusable_boxes", message)]
    spotless["pointing"] = {"cases": {}, "without_boxes": {}, "unusable": {"boxes": 9, "such_as": such_as}}
    assert told(spotless) == [("unusable_boxes", message)]  # also where no box is left


def test_each_method_is_told_by_its_name_and_in_the_order_of_the_checks(spotless: Numbers) -> None:
    spotless["methods"] = {"layercam": "LayerCAM", "gradcam": "Grad-CAM"}
    for numbers in (
        spotless["pointing"]["differences"],
        spotless["pointing"]["findings"]["macro"],
        spotless["randomization"]["methods"],
        spotless["faithfulness"]["methods"],
        spotless["shortcuts"]["methods"],
    ):
        numbers["layercam"] = copy.deepcopy(numbers["gradcam"])
    spotless["pointing"]["empty"]["layercam"] = 0
    spotless["pointing"]["findings"]["macro"]["random: layercam"] = {"pointing": of(0.2)}
    spotless["randomization"]["methods"]["gradcam"]["rank_correlation"][-1] = of(0.8)
    spotless["faithfulness"]["methods"]["layercam"]["insertion"]["difference"] = of(0.1, -0.1, 0.2)
    spotless["pointing"]["differences"]["gradcam"]["words"]["macro"] = WORSE
    spotless["shortcuts"]["unlike"] = [{"method": "layercam", "zone": "border"}]
    spotless["pointing"]["without_boxes"] = {"Hernia": 4}
    spotless["pointing"]["unusable"] = {"boxes": 1, "such_as": ["Mass in a.png has no area"]}
    found = told(spotless)
    assert [kind for kind, _ in found] == [
        "faithfulness", "pointing", "randomization", "shortcut", "without_boxes", "unusable_boxes"
    ]  # fmt: skip
    assert [message.split()[0] for _, message in found[:3]] == ["LayerCAM", "Grad-CAM", "Grad-CAM"]
    assert "heat of LayerCAM" in found[3][1]


@pytest.fixture(scope="module")
def checked(make_material: MakeMaterial) -> tuple[ExplainTask, Numbers, list[Pair]]:
    explain_task = make_material(TARGETS, BOXES, methods=["gradcam", "layercam"])
    return explain_task, *check_heatmaps(explain_task)


def test_all_checks_stand_in_the_numbers(checked: tuple[ExplainTask, Numbers, list[Pair]]) -> None:
    explain_task, numbers, examples = checked
    assert set(numbers) == {
        "methods", "labels", "images", "interval", "settings", "pointing", "randomization", "faithfulness",
        "agreement", "shortcuts", "seconds", "flags",
    }  # fmt: skip
    assert numbers["pointing"] == check_pointing(explain_task)
    expected, worst = check_shortcuts(explain_task)
    assert numbers["shortcuts"] == expected
    assert examples == worst
    model = check_model(explain_task)
    assert {key: numbers[key] for key in model} == model
    assert numbers["flags"] == list(flags(numbers))


def test_what_was_checked_is_told(checked: tuple[ExplainTask, Numbers, list[Pair]]) -> None:
    explain_task, numbers, _ = checked
    assert numbers["methods"] == {"gradcam": "Grad-CAM", "layercam": "LayerCAM"}
    assert list(numbers["methods"]) == ["gradcam", "layercam"]
    assert numbers["labels"] == ["Mass", "Edema"]
    assert numbers["images"] == len(TARGETS)
    assert numbers["interval"] == {"level": 0.95, "resamples": 100}
    settings = numbers["settings"]
    assert settings["methods"] == ["gradcam", "layercam"]
    assert settings["size_edges"] == [0.01, 0.03, 0.1]
    assert settings["num_random_networks"] == explain_task.settings.num_random_networks
    seconds = numbers["seconds"]
    assert set(seconds) == {"pointing", "model", "everything"}
    assert 0 <= seconds["pointing"] + seconds["model"] <= seconds["everything"] + 0.2


def test_the_numbers_are_json_without_nan(checked: tuple[ExplainTask, Numbers, list[Pair]]) -> None:
    _, numbers, _ = checked
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def empty(method: str, network: nn.Module | None) -> Explain:
    return lambda images, pairs: torch.zeros(len(pairs), 16, 16)


def test_empty_heatmaps_give_json_without_nan(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, BOXES, draw=empty, methods=["gradcam", "layercam"])
    numbers, examples = check_heatmaps(explain_task)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert examples == []
    assert numbers["pointing"]["empty"]["gradcam"] == 3
    assert numbers["randomization"]["methods"]["gradcam"]["rank_correlation"][-1]["value"] is None
    kinds = {one["kind"] for one in numbers["flags"]}
    assert "pointing" in kinds
    assert not kinds & {"randomization", "shortcut"}


def test_a_single_image_gives_json_without_nan(make_material: MakeMaterial) -> None:
    numbers, _ = check_heatmaps(make_material([(1, NAN)], BOXES[:1]))
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    pointing = [one["message"] for one in numbers["flags"] if one["kind"] == "pointing"]
    assert pointing == [f"Grad-CAM could not be compared with a box-frequency map; {ALONE}."]


def test_without_boxes_everything_else_is_checked(make_material: MakeMaterial) -> None:
    numbers, _ = check_heatmaps(make_material(TARGETS, labels=[1]))
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["pointing"]["cases"] == {}
    assert numbers["labels"] == ["Edema"]
    assert numbers["faithfulness"]["cases"] == numbers["shortcuts"]["cases"] == 3
    assert not {"pointing", "without_boxes"} & {one["kind"] for one in numbers["flags"]}


def test_heat_in_a_corner_whatever_the_weights_is_flagged_with_examples(make_material: MakeMaterial) -> None:
    def corner(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            maps = torch.zeros(len(pairs), 16, 16)
            for one, (image, _) in zip(maps, pairs, strict=True):
                one[:2, :2] = 1 + images[image, 0, 0, 0] / 100
                one[8, 8] = 1
            return maps

        return explain

    explain_task = make_material(TARGETS, BOXES, draw=corner, num_located=6, most_outside=1.0)
    numbers, examples = check_heatmaps(explain_task)
    kinds = [one["kind"] for one in numbers["flags"]]
    assert kinds.count("shortcut") == len(numbers["shortcuts"]["unlike"]) > 0
    assert [one["zone"] for one in numbers["shortcuts"]["unlike"]] == ["border", "corners"]
    assert {"pointing", "randomization", "without_boxes"} <= set(kinds)
    assert examples == [(4, 0), (4, 1), (2, 1), (1, 0)]  # those of the hottest corners


def test_without_an_image_there_is_nothing_to_check(make_material: MakeMaterial) -> None:
    with pytest.raises(ConfigError, match=r"^There is no image to explain\.$"):
        check_heatmaps(make_material(np.zeros((0, 2))))
