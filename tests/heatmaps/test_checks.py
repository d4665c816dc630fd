import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError, OutputError, TrainingError
from cxrlab.evaluation.results import DataFacts, Outcome
from cxrlab.heatmaps import checks
from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks import check_heatmaps, explain_training
from cxrlab.heatmaps.checks.flags import flags, unusable_boxes
from cxrlab.heatmaps.checks.pointing import check_pointing
from cxrlab.heatmaps.checks.shortcuts import check_shortcuts
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import (
    CaseCounts,
    CurveResult,
    ExplainedData,
    ExplanationResult,
    FaithfulnessResult,
    FlaggedZone,
    IntervalLevel,
    LungsResult,
    MethodDifferences,
    MethodFaithfulness,
    MethodRandomization,
    PointingDifference,
    PointingResult,
    RandomizationResult,
    UnusableBoxes,
    read_explanation,
)
from cxrlab.heatmaps.settings import CHECKS, ExplanationSettings
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, Estimate

MakeTask = Callable[..., ExplainTask]
NAN = float("nan")
TARGETS = [(1, 0), (1, 1), (0, 1), (NAN, 0), (1, 1)]
BOXES = [
    (0, "Mass", 0.25, 0.25, 0.25, 0.25),
    (1, "Mass", 0.5, 0.25, 0.25, 0.5),
    (4, "Mass", 0.0, 0.5, 0.5, 0.5),
]
ALONE = "not compared: no other patient has a box of it"


def clear(than: str, outcome: Outcome = "better") -> PointingDifference:
    """A difference whose outcome is set, whatever its numbers."""
    description = {
        "better": f"better than {than}",
        "worse": f"worse than {than}",
        "unclear": f"not shown to be better than {than}",
        "not_compared": ALONE,
    }[outcome]
    return PointingDifference(0.2, 0.1, 0.3, 9, outcome, description)


def prior(outcome: Outcome) -> PointingDifference:
    return clear("the box-frequency map", outcome)


def random(outcome: Outcome) -> PointingDifference:
    return clear("networks with random weights", outcome)


def curve(value: float | None, low: float | None = None, high: float | None = None) -> CurveResult:
    return CurveResult([1.0, 0.0], Estimate(0.5), Estimate(value, low, high))


def shares_of(gradcam: float, box_frequency: float | None) -> dict[str, dict[str, Estimate]]:
    shares = {"gradcam": gradcam, "random: gradcam": 0.25, "box_frequency": box_frequency}
    return {source: {"pointing": Estimate(share)} for source, share in shares.items()}


FINDINGS = ("Mass", "Edema", MACRO)
UNUSABLE = UnusableBoxes(0, [])
WITHOUT_BOXES = PointingResult({}, {}, UNUSABLE)


@pytest.fixture
def spotless() -> ExplanationResult:
    """What is found of one method on two boxed findings of which there is nothing to beware."""
    zones = {"outside": Estimate(0.71), "border": Estimate(0.26), "corners": Estimate(0.125)}
    order = CurveResult([1.0, 0.0], Estimate(0.5), None)
    return ExplanationResult(
        data=ExplainedData(),
        checks=CHECKS,
        methods={"gradcam": "Grad-CAM"},
        labels=["Mass", "Edema"],
        images=20,
        interval=IntervalLevel(0.95, 1000),
        settings=ExplanationSettings(),
        pointing=PointingResult(
            cases={"Mass": CaseCounts(9, 8), "Edema": CaseCounts(9, 8)},
            without_boxes={},
            unusable=UNUSABLE,
            empty={"gradcam": 1, "random: gradcam": 18},
            findings=dict.fromkeys(FINDINGS, shares_of(0.75, 0.5)),
            differences={
                "gradcam": MethodDifferences(
                    box_frequency=dict.fromkeys(FINDINGS, prior("better")),
                    random_network=dict.fromkeys(FINDINGS, random("better")),
                )
            },
        ),
        randomization=RandomizationResult(
            8, 8, 3, ["head", "stem"],
            {"gradcam": MethodRandomization([Estimate(0.9), Estimate(0.2)], [], 0.05, 0.1)},
        ),
        faithfulness=FaithfulnessResult(
            8, 8, [0.0, 1.0],
            {
                "gradcam": MethodFaithfulness(curve(-0.2, -0.3, -0.1), curve(0.2, 0.1, 0.3)),
                "random order": MethodFaithfulness(order, order),
            },
        ),
        shortcuts=LungsResult(
            8, 8, 1.0,
            {"outside": 0.54, "border": 0.19, "corners": 0.09},
            {"gradcam": {MACRO: zones}},
            empty={"gradcam": 0.15},
        ),
    )  # fmt: skip


def against_boxes(result: ExplanationResult, **outcomes: Outcome) -> ExplanationResult:
    """The same with other outcomes against the box-frequency map, by finding."""
    assert result.pointing is not None
    differences = result.pointing.differences["gradcam"]
    changed = {**differences.box_frequency, **{name: prior(outcome) for name, outcome in outcomes.items()}}
    differences = replace(differences, box_frequency=changed)
    return replace(result, pointing=replace(result.pointing, differences={"gradcam": differences}))


def with_pointing(result: ExplanationResult, **changes: Any) -> ExplanationResult:
    assert result.pointing is not None
    return replace(result, pointing=replace(result.pointing, **changes))


def with_likeness(
    result: ExplanationResult, last: float | None, empty: float = 0.0, random_empty: float = 0.0
) -> ExplanationResult:
    assert result.randomization is not None
    likeness = MethodRandomization([Estimate(0.9), Estimate(last)], [], empty, random_empty)
    return replace(result, randomization=replace(result.randomization, methods={"gradcam": likeness}))


def told(result: ExplanationResult) -> list[tuple[str, str]]:
    return [(flag.kind, flag.message) for flag in flags(result)]


def test_where_nothing_is_wrong_nothing_is_told(spotless: ExplanationResult) -> None:
    assert told(spotless) == []


@pytest.mark.parametrize(
    ("outcome", "description"),
    [
        ("unclear", "not shown to be better than the box-frequency map"),
        ("worse", "worse than the box-frequency map"),
    ],
)
def test_a_method_that_is_not_better_than_the_prior_is_told(
    spotless: ExplanationResult, outcome: Outcome, description: str
) -> None:
    message = (
        f"Grad-CAM is {description}: it points at the finding in 75.0% of the cases on average over the "
        "findings, the map in 50.0%."
    )
    assert told(against_boxes(spotless, Mass=outcome, macro=outcome)) == [("pointing", message)]


def test_outcomes_decide_and_not_the_sentences_that_are_made_of_them(spotless: ExplanationResult) -> None:
    assert spotless.pointing is not None
    differences = spotless.pointing.differences["gradcam"]
    besser = {
        name: replace(difference, description="besser als die Karte")
        for name, difference in differences.box_frequency.items()
    }
    translated = {"gradcam": replace(differences, box_frequency=besser)}
    assert told(with_pointing(spotless, differences=translated)) == []


def test_the_shares_told_are_of_the_findings_that_were_compared(spotless: ExplanationResult) -> None:
    result = against_boxes(spotless, Mass="worse", Edema="not_compared", macro="worse")
    findings = {"Mass": shares_of(0.0, 1.0), "Edema": shares_of(1.0, None), MACRO: shares_of(0.5, 1.0)}
    message = (
        "Grad-CAM is worse than the box-frequency map: it points at the finding in 0.0% of the cases, the map "
        "in 100.0%."
    )
    assert told(with_pointing(result, findings=findings)) == [("pointing", message)]


def test_findings_that_stay_behind_a_good_mean_are_named(spotless: ExplanationResult) -> None:
    message = "Grad-CAM points better than the box-frequency map on average, but that is not shown for "
    result = against_boxes(spotless, Edema="unclear")
    assert told(result) == [("pointing", message + "Edema.")]
    assert told(against_boxes(result, Mass="not_compared")) == [("pointing", message + "Mass, Edema.")]


def test_a_method_without_a_prior_is_told_to_be_uncompared(spotless: ExplanationResult) -> None:
    result = against_boxes(spotless, Mass="not_compared", Edema="not_compared", macro="not_compared")
    result = with_pointing(result, findings=dict.fromkeys(FINDINGS, shares_of(0.75, None)))
    message = f"Grad-CAM could not be compared with a box-frequency map; {ALONE}."
    assert told(result) == [("pointing", message)]


def test_a_method_that_untrained_networks_equal_is_told(spotless: ExplanationResult) -> None:
    assert spotless.pointing is not None
    differences = spotless.pointing.differences["gradcam"]

    def changed(**outcomes: Outcome) -> ExplanationResult:
        of_random = {name: random(outcomes.get(name, "better")) for name in FINDINGS}
        return with_pointing(
            spotless, differences={"gradcam": replace(differences, random_network=of_random)}
        )

    assert told(changed(Mass="unclear")) == []
    message = (
        "Grad-CAM is not shown to be better than networks with random weights: it points at the finding in "
        "75.0% of the cases on average over the findings, with random weights in 25.0%."
    )
    assert told(changed(Mass="unclear", macro="unclear")) == [("random_pointing", message)]


def test_many_empty_maps_are_told(spotless: ExplanationResult) -> None:
    counted = "nothing in these speaks for the finding"
    result = with_pointing(spotless, empty={"gradcam": 9})  # of 18 cases
    message = f"Grad-CAM is empty in 50% of the cases: {counted}; they count as not pointing at it."
    assert told(result) == [("empty", message)]
    result = replace(spotless, pointing=WITHOUT_BOXES)
    assert told(result) == []  # of the sample few are
    assert [message.split(":")[0] for _, message in told(with_likeness(result, 0.2, 0.2, 0.3))] == [
        "Grad-CAM is empty in 20% of the cases",
        "Grad-CAM is empty in 30% of the cases on networks with random weights",
    ]
    result = replace(result, randomization=None)  # of those on the lungs' check
    assert told(result) == [("empty", f"Grad-CAM is empty in 15% of the cases: {counted}.")]


def test_without_boxes_nothing_is_told_of_pointing(spotless: ExplanationResult) -> None:
    result = replace(spotless, pointing=PointingResult({}, {"Mass": 3}, UNUSABLE))
    assert told(result) == []


def test_of_checks_that_were_not_made_nothing_is_told(spotless: ExplanationResult) -> None:
    none = dict.fromkeys(("pointing", "randomization", "faithfulness", "agreement", "shortcuts"))
    assert told(replace(spotless, **none)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("last", "is_told"), [(0.5, True), (1.0, True), (0.49, False), (-0.9, False), (None, False)]
)
def test_maps_that_random_weights_hardly_change_are_told(
    spotless: ExplanationResult, last: float | None, is_told: bool
) -> None:
    message = (
        "Grad-CAM hardly depends on what was learnt: with random weights in every layer its maps still "
        f"resemble those of the trained network (rank correlation {last or 0:.2f})."
    )
    assert told(with_likeness(spotless, last)) == ([("randomization", message)] if is_told else [])


@pytest.mark.parametrize(
    ("deletion", "insertion", "failed"),
    [
        (curve(-0.2, -0.3, 0.0), curve(0.2, 0.1, 0.3), "deletion"),
        (curve(0.2, 0.1, 0.3), curve(0.2, 0.1, 0.3), "deletion"),
        (curve(-0.2, -0.3, -0.1), curve(0.2, 0.0, 0.3), "insertion"),
        (curve(-0.2, -0.3, -0.1), curve(-0.2, -0.3, -0.1), "insertion"),
        (curve(-0.2, -0.3, 0.1), curve(0.2, -0.1, 0.3), "deletion, insertion"),
        (curve(-0.2), curve(0.2), "deletion, insertion"),  # of a single patient there is no interval
        (curve(None), curve(None), "deletion, insertion"),
    ],
)
def test_curves_that_are_not_shown_to_beat_a_random_order_are_told(
    spotless: ExplanationResult, deletion: CurveResult, insertion: CurveResult, failed: str
) -> None:
    assert spotless.faithfulness is not None
    methods = {"gradcam": MethodFaithfulness(deletion, insertion)}
    message = (
        "Grad-CAM is not shown to tell where the score comes from better than a random order of pixels "
        f"({failed})."
    )
    result = replace(spotless, faithfulness=replace(spotless.faithfulness, methods=methods))
    assert told(result) == [("faithfulness", message)]


@pytest.mark.parametrize(
    ("zone", "sentence"),
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
def test_heat_where_no_lung_is_is_told(spotless: ExplanationResult, zone: str, sentence: str) -> None:
    assert spotless.shortcuts is not None
    shortcuts = replace(spotless.shortcuts, unlike=[FlaggedZone("gradcam", zone)])
    message = f"{sentence}: does the network use what is no sign of disease?"
    assert told(replace(spotless, shortcuts=shortcuts)) == [("shortcut", message)]


def test_labels_without_boxes_are_named(spotless: ExplanationResult) -> None:
    message = "There are no boxes of Hernia, Nodule: not checked where it points."
    result = with_pointing(spotless, without_boxes={"Hernia": 4, "Nodule": 1})
    assert told(result) == [("without_boxes", message)]


def test_boxes_that_could_not_be_used_are_told_with_the_first_two(spotless: ExplanationResult) -> None:
    unusable = UnusableBoxes(
        9, ["Mass in a.png has no area", "Mass in b.png has no place", "Edema in c.png has no area"]
    )
    message = "9 boxes could not be used, such as Mass in a.png has no area; Mass in b.png has no place."
    assert told(with_pointing(spotless, unusable=unusable)) == [("unusable_boxes", message)]
    result = replace(spotless, pointing=PointingResult({}, {}, unusable))
    assert told(result) == [("unusable_boxes", message)]  # also where no box is left
    assert unusable_boxes(unusable, name_images=False) == "9 boxes could not be used."


def test_each_method_is_told_by_its_name_and_in_the_order_of_the_checks(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, BOXES, draw=empty, methods=["layercam", "gradcam"])
    result, _ = check_heatmaps(explain_task)
    expected = [
        (kind, name)
        for name in ("LayerCAM", "Grad-CAM")
        for kind in ("empty", "pointing", "random_pointing", "random_empty", "faithfulness")
    ]
    of_methods = [flag for flag in result.flags if flag.kind not in ("without_boxes", "unusable_boxes")]
    assert [(flag.kind, flag.message.split()[0]) for flag in of_methods] == expected


@pytest.fixture(scope="module")
def checked(make_task: MakeTask) -> tuple[ExplainTask, ExplanationResult, list[Pair]]:
    explain_task = make_task(TARGETS, BOXES, methods=["gradcam", "layercam"])
    return explain_task, *check_heatmaps(explain_task)


Checked = tuple[ExplainTask, ExplanationResult, list[Pair]]


def test_all_checks_stand_in_the_result(checked: Checked) -> None:
    explain_task, result, examples = checked
    assert result.checks == list(CHECKS)
    assert result.pointing == check_pointing(explain_task)
    expected, worst = check_shortcuts(explain_task)
    assert result.shortcuts == expected
    assert examples == worst
    for check in ("randomization", "faithfulness", "agreement"):
        alone, _ = check_heatmaps(explain_task, [check])  # type: ignore[list-item]
        assert getattr(alone, check) == getattr(result, check)
    assert result.flags == list(flags(result))


def test_what_was_checked_is_told(checked: Checked) -> None:
    explain_task, result, _ = checked
    assert list(result.methods.items()) == [("gradcam", "Grad-CAM"), ("layercam", "LayerCAM")]
    assert result.labels == ["Mass", "Edema"]
    assert result.images == len(TARGETS)
    assert result.interval == IntervalLevel(0.95, 100)
    assert result.settings.methods == ["gradcam", "layercam"]
    assert result.settings.size_edges == [0.01, 0.03, 0.1]
    assert result.settings.num_random_networks == explain_task.settings.num_random_networks
    assert list(result.seconds) == [
        "pointing", "maps", "randomization", "faithfulness", "agreement", "lungs", "everything",
    ]  # fmt: skip


def test_only_the_checks_that_are_named_are_made(make_task: MakeTask) -> None:
    result, _ = check_heatmaps(make_task(TARGETS, BOXES), ["lungs", "pointing"])
    assert result.checks == ["pointing", "lungs"]
    assert None not in (result.pointing, result.shortcuts)
    assert result.randomization is result.faithfulness is result.agreement is None
    assert list(result.seconds) == ["pointing", "lungs", "everything"]


def is_json(result: ExplanationResult) -> bool:
    """Tell whether a result is what its JSON is read back as; NaN would be an error."""
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    return set(content) == {field.name for field in fields(result)}


def test_a_file_gives_the_result_back(checked: Checked, tmp_path: Path) -> None:
    _, result, _ = checked
    assert is_json(result)
    result.save(tmp_path / "explanation.json")
    assert read_explanation(tmp_path / "explanation.json") == result
    sizes = result.to_json()["pointing"]["sizes"]
    assert {"from", "to", "cases", "patients", "pointing"} == set(sizes[0])
    part, _ = check_heatmaps(make_part(checked), ["lungs"])
    part.save(tmp_path / "explanation.json")
    assert read_explanation(tmp_path / "explanation.json") == part


def make_part(checked: Checked) -> ExplainTask:
    explain_task, _, _ = checked
    return replace(explain_task, settings=replace(explain_task.settings, layers=["features.0"]))


def test_where_there_is_no_file_there_is_no_result_and_another_s_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "explanation.json"
    assert read_explanation(path) is None
    path.write_text('{"methods": {}}')
    with pytest.raises(
        ConfigError, match=r"explanation\.json cannot be read \(KeyError: 'data'\)\. Remove it"
    ):
        read_explanation(path)


def empty(method: str, network: nn.Module | None) -> Explain:
    return lambda images, pairs: torch.zeros(len(pairs), 16, 16)


def test_empty_heatmaps_give_json_without_nan(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, BOXES, draw=empty, methods=["gradcam", "layercam"])
    result, examples = check_heatmaps(explain_task)
    assert is_json(result)
    assert examples == []
    assert result.pointing is not None
    assert result.pointing.empty["gradcam"] == 3
    assert result.randomization is not None
    assert result.randomization.methods["gradcam"].rank_correlation[-1].value is None
    kinds = {flag.kind for flag in result.flags}
    assert "pointing" in kinds
    assert not kinds & {"randomization", "shortcut"}


def test_a_single_image_gives_json_without_nan(make_task: MakeTask) -> None:
    result, _ = check_heatmaps(make_task([(1, NAN)], BOXES[:1]))
    assert is_json(result)
    pointing = [flag.message for flag in result.flags if flag.kind == "pointing"]
    assert pointing == [f"Grad-CAM could not be compared with a box-frequency map; {ALONE}."]


def test_without_boxes_everything_else_is_checked(make_task: MakeTask) -> None:
    result, _ = check_heatmaps(make_task(TARGETS, labels=[1]))
    assert is_json(result)
    assert None not in (result.pointing, result.faithfulness, result.shortcuts)
    assert result.pointing.cases == {}  # type: ignore[union-attr]
    assert result.labels == ["Edema"]
    assert result.faithfulness.cases == result.shortcuts.cases == 3  # type: ignore[union-attr]
    assert not {"pointing", "without_boxes"} & {flag.kind for flag in result.flags}


def test_heat_in_a_corner_whatever_the_weights_is_flagged_with_examples(make_task: MakeTask) -> None:
    def corner(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            maps = torch.zeros(len(pairs), 16, 16)
            for one, (image, _) in zip(maps, pairs, strict=True):
                one[:2, :2] = 1 + images[image, 0, 0, 0] / 100
                one[8, 8] = 1
            return maps

        return explain

    explain_task = make_task(TARGETS, BOXES, draw=corner, num_located=6, most_outside=1.0)
    result, examples = check_heatmaps(explain_task)
    kinds = [flag.kind for flag in result.flags]
    assert result.shortcuts is not None
    assert [flag.zone for flag in result.shortcuts.unlike] == ["border", "corners"]
    assert kinds.count("shortcut") == 2
    assert {"pointing", "randomization", "without_boxes"} <= set(kinds)
    assert examples == [(4, 0), (4, 1), (2, 1), (1, 0)]  # those of the hottest corners


def test_without_an_image_there_is_nothing_to_check(make_task: MakeTask) -> None:
    with pytest.raises(ConfigError, match=r"^There is no image to explain\.$"):
        check_heatmaps(make_task(np.zeros((0, 2))))


Train = Callable[..., None]


@pytest.fixture
def ended(make_task: MakeTask, tmp_path: Path) -> Callable[..., None]:
    """Explain a training of 6 images, whose run directory is ``tmp_path``; settings may be changed."""
    explain_task = make_task([(1, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 1)])
    table = explain_task.manifest.table
    predictions = pd.DataFrame({"image": table["image"], "patient": table["patient"], "part": "test"})
    for place, label in enumerate(explain_task.names):
        predictions[f"target/{label}"] = table[f"label/{label}"]
        predictions[f"probability/{label}"] = 0.25 + place / 4
    (tmp_path / "predictions").mkdir()
    predictions.to_csv(tmp_path / "predictions" / "test.csv", index=False)
    results = pd.DataFrame({"part": "val", "label": ["Mass", "Edema"], "auroc": [0.6, 0.8]})
    results.to_csv(tmp_path / "results.csv", index=False)
    rows = {"train": [4, 5], "val": [3], "test": range(6)}
    data = SimpleNamespace(
        images=explain_task.images, manifest=explain_task.manifest, rows=lambda part: np.array(rows[part])
    )

    def function(**changes: Any) -> None:
        settings = replace(explain_task.settings, **changes)
        explain_training(
            tmp_path, explain_task.classifier, data, DataFacts("drawn"), part="test", settings=settings  # type: ignore[arg-type]
        )  # fmt: skip

    return function


def test_the_checks_stand_in_the_run_directory(
    ended: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ended(num_labels=1, most_outside=0.0)
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert numbers["data"] == {"name": "drawn", "part": "test", "fingerprint": None}
    assert numbers["labels"] == ["Edema"]  # that with the higher validation AUROC
    assert numbers["images"] == 6
    assert numbers["checks"] == ["pointing", "lungs"]  # the others are made by the command
    assert numbers["randomization"] is numbers["faithfulness"] is numbers["agreement"] is None
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("no such layer"), "not checked to the end: no such layer"),
        (TrainingError("not finite"), "not checked to the end: not finite"),
        (OutputError("no room"), "not checked to the end: no room"),
        (OSError(28, "No space left on device"), "not checked to the end: .* No space left on device"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
            r"not checked to the end: CUDA out of memory\. With a smaller explanation\.batch_size, now 4, cxrlab explain",
        ),
    ],
)
def test_what_goes_wrong_is_a_warning_and_no_evaluation_is_lost(
    ended: Train,
    error: Exception,
    told: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(explain_task: ExplainTask, checks: Sequence[str]) -> None:
        raise error

    monkeypatch.setattr(checks, "check_heatmaps", fail)
    ended()
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert re.search(told, record.getMessage())


def test_weights_that_are_not_finite_are_told(
    ended: Train, tmp_path: Path, make_task: MakeTask, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def broken(classifier: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            next(iter(classifier.network.parameters())).fill_(torch.nan)
        return kept(classifier, *_, **__)

    kept = checks.explain_task_of
    monkeypatch.setattr(checks, "explain_task_of", broken)
    ended()
    assert "The heatmaps were not checked" in caplog.text
    assert "not finite" in caplog.text
    assert not (tmp_path / "explanation.json").exists()


def test_another_error_is_no_warning(ended: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(explain_task: ExplainTask, checks: Sequence[str]) -> nn.Module:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(checks, "check_heatmaps", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        ended()
