from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks.boxes import BoxCases, Pointing
from cxrlab.heatmaps.checks.pointing import (
    OVERLAP_LEVELS,
    RANDOM,
    by_finding,
    by_size,
    check_pointing,
    compared,
    difference,
    measures,
)
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.random_networks import randomized_copy
from cxrlab.heatmaps.results import CaseCounts, PointingResult, RegionThresholds, UnusableBoxes
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate
from cxrlab.metrics.predictions import Floats

NAN = float("nan")
NOT_SHOWN = "not shown to be better than the box-frequency map"
FINDINGS = ["Mass", "Mass", "Mass", "Edema"]
PATIENTS = ["a", "a", "b", "c"]
SIDES = [0.125, 0.25, 0.5, 1.0]  # of square boxes; their areas are 1/64, 1/16, 1/4 and 1


def cases(findings: Sequence[str] = FINDINGS, patients: Sequence[str] = PATIENTS) -> BoxCases:
    number = len(findings)
    return BoxCases(
        rows=np.arange(number),
        findings=np.array(findings, dtype=object),
        patients=np.array(patients, dtype=object),
        boxes=tuple(np.array([[0.0, 0.0, side, side]]) for side in np.resize(SIDES, number)),
    )


def bootstrap(known: BoxCases) -> CaseBootstrap:
    return CaseBootstrap.of(known.patients, num_resamples=200, level=0.95, seed=0)


def pointing(
    hits: Sequence[float], ious: Sequence[float] | None = None, iobbs: Sequence[float] | None = None
) -> Pointing:
    """Heatmaps of which only some measures matter; the others are 0."""
    columns: list[Floats] = [
        np.zeros(len(hits)) if one is None else np.array(one, dtype=np.float64)
        for one in (hits, None, ious, iobbs)
    ]
    return Pointing(*columns)


def values(found: Mapping[str, Estimate]) -> dict[str, float | None]:
    return {name: one.value for name, one in found.items()}


def test_overlaps_are_told_as_means_and_as_shares_above_seven_levels() -> None:
    generator = np.random.default_rng(0)
    hits, energies, ious, iobbs = generator.random((4, 9))
    ious[:3], iobbs[0] = [0.1, 0.7, NAN], NAN  # at a level, which is not above it, and without a say
    names, found = measures(Pointing(hits, energies, ious, iobbs))
    assert names[:4] == ["pointing", "energy", "iou", "iobb"]
    assert sorted(names[4:]) == sorted(
        f"{kind}@0.{tenth}" for kind in ("iou", "iobb") for tenth in range(1, 8)
    )
    assert found.shape == (9, 18)
    np.testing.assert_array_equal(found[:, :4], np.stack([hits, energies, ious, iobbs], axis=1))
    for name, column in zip(names[4:], found[:, 4:].T, strict=True):
        kind, _, level = name.partition("@")
        given = (ious if kind == "iou" else iobbs).tolist()
        expected = [NAN if np.isnan(one) else float(one > float(level)) for one in given]
        np.testing.assert_array_equal(column, expected)


def test_the_levels_are_those_of_the_paper() -> None:
    assert OVERLAP_LEVELS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def test_sources_are_evaluated_by_finding_and_each_finding_counts_alike() -> None:
    known = cases()
    sources = {
        "gradcam": [pointing([1, 1, 0, 1], [0.9, 0.6, 0.3, 0.2], [0.8, 0.8, 0.8, 0.1])],
        "image_centre": [pointing([0, 0, 0, 0], [NAN, 0.5, 0.5, NAN], [0, 0, 0, NAN])],
    }
    found = by_finding(sources, known, bootstrap(known))
    assert list(found) == ["Mass", "Edema", MACRO]
    assert all(list(row) == ["gradcam", "image_centre"] for row in found.values())
    assert values(found["Mass"]["gradcam"]) == pytest.approx(
        {"pointing": 2 / 3, "energy": 0, "iou": 0.6, "iobb": 0.8}
        | {f"iou@0.{tenth}": share for tenth, share in zip(range(1, 8), [1, 1, 2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3], strict=True)}
        | {f"iobb@0.{tenth}": 1.0 for tenth in range(1, 8)}
    )  # fmt: skip
    assert values(found["Edema"]["gradcam"])["iou@0.1"] == 1
    assert values(found["Edema"]["gradcam"])["iobb@0.1"] == 0  # exactly at the level
    assert values(found[MACRO]["gradcam"])["pointing"] == pytest.approx((2 / 3 + 1) / 2)
    assert values(found[MACRO]["gradcam"])["iou"] == pytest.approx((0.6 + 0.2) / 2)
    assert values(found["Mass"]["image_centre"])["iou"] == 0.5
    assert values(found["Edema"]["image_centre"])["iou"] is None
    assert values(found[MACRO]["image_centre"])["iou"] == 0.5


def test_several_networks_are_one_source_their_mean() -> None:
    known = cases()
    several = [
        pointing([1, 0, 0, 1], [0.4, 0.0, 0.0, 0.2]),
        pointing([1, 1, 0, 0], [0.0, 0.2, 0.0, 0.6]),
        pointing([1, 0, 0, 0], [0.2, 0.1, 0.0, 0.7]),
    ]
    found = by_finding({"random": several}, known, bootstrap(known))
    assert values(found["Mass"]["random"])["pointing"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert values(found["Mass"]["random"])["iou"] == pytest.approx((0.2 + 0.1 + 0.0) / 3)
    assert values(found["Edema"]["random"])["iou@0.3"] == pytest.approx(2 / 3)
    assert values(found[MACRO]["random"])["pointing"] == pytest.approx((4 / 9 + 1 / 3) / 2)


def test_a_difference_is_taken_case_by_case_where_both_have_a_say() -> None:
    known = cases()
    one, prior = pointing([1, 1, 0, 1]), pointing([NAN, 0, 1, NAN])
    found = difference([one], [prior], known, bootstrap(known), than="the prior")
    assert values(found) == {"Mass": 0, "Edema": None, MACRO: 0}  # (1 - 1) / 2; the first case stays out
    assert {name: row.discordant for name, row in found.items()} == {"Mass": 2, "Edema": 0, MACRO: 2}
    several = [pointing([0, 1, 0, 0]), pointing([0, 0, 0, 1])]
    against = difference([one], several, known, bootstrap(known), than="several")
    assert values(against) == pytest.approx({"Mass": 1.5 / 3, "Edema": 0.5, MACRO: 0.5})
    assert {name: row.discordant for name, row in against.items()} == {"Mass": 1, "Edema": 1, MACRO: 2}


def test_the_interval_of_a_difference_is_of_pairs_and_by_patient() -> None:
    generator = np.random.default_rng(5)
    known = cases(["Mass"] * 40, [str(number) for number in generator.integers(0, 12, 40)])
    one, other = (generator.integers(0, 2, 40).astype(float) for _ in range(2))
    drawn = bootstrap(known)
    found = difference([pointing(one.tolist())], [pointing(other.tolist())], known, drawn, than="another")[
        "Mass"
    ]
    samples = []
    for counts in drawn.counts.T:
        weights = counts[drawn.patients]
        samples.append(sum(weights * (one - other)) / sum(weights))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-6)


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome", "description"),
    [
        (0.2, 0.01, 0.4, "better", "better than the box-frequency map"),
        (0.2, 0.0, 0.4, "unclear", NOT_SHOWN),
        (0.2, -0.1, 0.4, "unclear", NOT_SHOWN),
        (-0.2, -0.3, -0.1, "worse", "worse than the box-frequency map"),
        (-0.2, -0.3, 0.0, "unclear", NOT_SHOWN),
        (0.5, None, None, "unclear", NOT_SHOWN),
        (-0.5, None, None, "unclear", NOT_SHOWN),
        (0.0, 0.0, 0.0, "unclear", NOT_SHOWN),
        (None, None, None, "not_compared", "not compared: no other patient has a box of it"),
    ],
)
def test_only_an_interval_beside_0_is_a_verdict(
    value: float | None, low: float | None, high: float | None, outcome: str, description: str
) -> None:
    difference = compared(Estimate(value, low, high), 6, level=0.95, than="the box-frequency map")
    assert (difference.outcome, difference.description) == (outcome, description)


@pytest.mark.parametrize(("level", "least"), [(0.95, 6), (0.9, 5), (0.99, 8), (0.5, 2), (0.875, 4)])
@pytest.mark.parametrize("sign", [1, -1])
def test_few_discordant_patients_show_nothing(level: float, least: int, sign: int) -> None:
    """What a sign test of patients who all differ in the same way would not show either."""
    ends = sorted([0.5 * sign, 0.9 * sign])
    estimate = Estimate(0.7 * sign, ends[0], ends[1])
    for number in range(1, 12):
        is_shown = binomtest(number, number).pvalue <= 1 - level + 1e-9
        assert is_shown == (number >= least)
        words = compared(estimate, number, level=level, than="the map").description
        known = f"{'better' if sign > 0 else 'worse'} than the map"
        few = "not shown to be better than the map" + (" (too few patients to tell)" if sign > 0 else "")
        assert words == (known if is_shown else few)


def test_sizes_are_told_apart_at_edges_which_belong_to_the_smaller_ones() -> None:
    known = cases()
    sources = {"gradcam": [pointing([1, 0, 1, 0])], "prior": [pointing([NAN, 1, 0, 1])]}
    found = by_size(sources, [1 / 64, 0.0625, 0.5], known, bootstrap(known))
    assert [(one.from_, one.to, one.cases, one.patients) for one in found] == [
        (0.0, 1 / 64, 1, 1),
        (1 / 64, 0.0625, 1, 1),
        (0.0625, 0.5, 1, 1),
        (0.5, 1.0, 1, 1),
    ]
    assert [values(one.pointing) for one in found] == [
        {"gradcam": 1, "prior": None},
        {"gradcam": 0, "prior": 1},
        {"gradcam": 1, "prior": 0},
        {"gradcam": 0, "prior": 1},
    ]


def test_a_size_without_cases_is_left_out_and_cases_of_a_size_are_averaged() -> None:
    known = cases()
    networks = [pointing([1, 1, 1, 0]), pointing([0, 1, 0, 0])]
    found = by_size({"random": networks}, [0.001, 0.3], known, bootstrap(known))
    assert [(one.from_, one.to, one.cases, one.patients) for one in found] == [
        (0.001, 0.3, 3, 2),
        (0.3, 1.0, 1, 1),
    ]
    assert [one.pointing["random"].value for one in found] == pytest.approx([2 / 3, 0])


def test_without_edges_there_is_one_size() -> None:
    known = cases()
    (one,) = by_size({"gradcam": [pointing([1, 0, 0, 0])]}, [], known, bootstrap(known))
    assert (one.from_, one.to, one.cases, one.patients) == (0.0, 1.0, 4, 3)
    assert one.pointing["gradcam"].value == 0.25


MakeTask = Callable[..., ExplainTask]
Line = tuple[int, str, float, float, float, float]
LABELS = ("Mass", "Edema")
BETTER = "better than the box-frequency map"
CELLS = 64 * 64  # of a box that is a quarter of the image wide and high


def quarters(count: int, findings: Sequence[str] = LABELS) -> list[Line]:
    """A box of each finding in each image; images put it in 16 places in turn."""
    return [
        (row, finding, (row % 4) / 4, (row // 4 % 4) / 4, 0.25, 0.25)
        for finding in findings
        for row in range(count)
    ]


def heat_of(lines: Sequence[Line], row: int, label: int, levels: tuple[float, float]) -> Tensor:
    """A map of 256 by 256 cells, of one height in the boxes and another outside, with a peak inside of 1."""
    heat = torch.full((256, 256), levels[1])
    for image, finding, x, y, width, height in lines:
        if (image, finding) == (row, LABELS[label]):
            left, top = round(256 * x), round(256 * y)
            heat[top : top + round(256 * height), left : left + round(256 * width)] = levels[0]
            heat[top + 3, left + 5] = 1.0
    return heat


def drawing(
    one_map: Callable[[int, int], Tensor], of_random: Callable[[int, int], Tensor] | None = None
) -> Callable[[str, nn.Module | None], Explain]:
    """Heatmaps by row and label; those of random networks are all zero, or others."""

    def draw(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            rows = [(int(images[image, 0, 0, 0]), label) for image, label in pairs]
            if network is None:
                return torch.stack([one_map(*pair) for pair in rows])
            if of_random is None:
                return torch.zeros(len(rows), 256, 256)
            return torch.stack([of_random(*pair) for pair in rows])

        return explain

    return draw


def at_boxes(lines: Sequence[Line], *levels: float) -> Callable[[int, int], Tensor]:
    height, outside = levels or (1.0, 0.0)
    return lambda row, label: heat_of(lines, row, label, (height, outside))


def never(method: str, network: nn.Module | None) -> Explain:
    raise AssertionError(f"{method} was asked for")


def value(result: PointingResult, *keys: str) -> float | None:
    """Return the value of an estimate by the keys of the JSON that lead to it."""
    place: Any = result
    for key in keys:
        place = place[key] if isinstance(place, Mapping) else getattr(place, key)
    found: float | None = place.value
    return found


def descriptions(result: PointingResult, method: str, against: str = "box_frequency") -> dict[str, str]:
    differences = getattr(result.differences[method], against)
    return {finding: difference.description for finding, difference in differences.items()}


@pytest.fixture(scope="module")
def exact(make_task: MakeTask) -> PointingResult:
    """Two findings, whose heatmaps are their boxes; random networks have empty ones."""
    lines = quarters(16)
    return check_pointing(make_task([(1, 1)] * 16, lines, draw=drawing(at_boxes(lines))))


def test_heatmaps_that_are_the_boxes_point_at_them(exact: PointingResult) -> None:
    assert exact.cases == {name: CaseCounts(16, 16) for name in LABELS}
    for name in (*LABELS, MACRO):
        measured = exact.findings[name]["gradcam"]
        assert {key: one.value for key, one in measured.items()} == dict.fromkeys(measured, 1.0)
        # Other patients' boxes are anywhere but here.
        assert value(exact, "findings", name, "box_frequency", "pointing") == 0
        assert value(exact, "differences", "gradcam", "box_frequency", name) == 1
        assert descriptions(exact, "gradcam")[name] == BETTER
    assert exact.empty == {"gradcam": 0, RANDOM + "gradcam": 32}


def test_every_source_stands_beside_the_methods(exact: PointingResult) -> None:
    sources = {"gradcam", RANDOM + "gradcam", "box_frequency", "image_centre", "uniform_chance"}
    assert all(set(row) == sources for row in exact.findings.values())
    assert all(set(size.pointing) == sources for size in exact.sizes)
    assert list(exact.differences) == ["gradcam"]
    assert exact.against_first == {}
    assert value(exact, "findings", MACRO, "uniform_chance", "pointing") == pytest.approx(1 / 16)
    assert value(exact, "findings", "Mass", "image_centre", "pointing") == pytest.approx(1 / 16)


def test_maps_of_random_networks_that_are_empty_point_nowhere(exact: PointingResult) -> None:
    assert value(exact, "findings", MACRO, RANDOM + "gradcam", "pointing") == 0
    assert value(exact, "differences", "gradcam", "random_network", MACRO) == 1
    assert descriptions(exact, "gradcam", "random_network") == dict.fromkeys(
        (*LABELS, MACRO), "better than networks with random weights"
    )


@pytest.mark.parametrize(("num_patients", "is_shown"), [(2, False), (5, False), (6, True)])
def test_a_few_patients_show_nothing(num_patients: int, is_shown: bool, make_task: MakeTask) -> None:
    lines = quarters(num_patients, ["Mass"])
    found = check_pointing(make_task([(1, 0)] * num_patients, lines, draw=drawing(at_boxes(lines))))
    assert value(found, "differences", "gradcam", "box_frequency", "Mass") == 1
    assert (found.differences["gradcam"].box_frequency["Mass"].outcome == "better") == is_shown


def test_sizes_are_those_of_the_settings(exact: PointingResult, make_task: MakeTask) -> None:
    assert [(one.from_, one.to, one.cases) for one in exact.sizes] == [(0.03, 0.1, 32)]
    lines = [(0, "Mass", 0.0, 0.0, 0.5, 0.5), (1, "Mass", 0.0, 0.0, 0.25, 0.25)]
    explain_task = make_task([(1, 0)] * 2, lines, draw=drawing(at_boxes(lines)), size_edges=[0.1])
    found = check_pointing(explain_task).sizes
    assert [(one.from_, one.to, one.cases) for one in found] == [(0.0, 0.1, 1), (0.1, 1.0, 1)]


def test_random_maps_point_about_as_often_as_chance(make_task: MakeTask) -> None:
    lines = [(row, "Mass", (row % 2) / 2, (row // 2 % 2) / 2, 0.5, 0.5) for row in range(48)]
    generator = torch.Generator().manual_seed(0)
    noise = drawing(at_boxes(lines), lambda row, label: torch.rand(256, 256, generator=generator))
    found = check_pointing(make_task([(1, 0)] * 48, lines, draw=noise))
    assert value(found, "findings", "Mass", "uniform_chance", "pointing") == pytest.approx(0.25)
    assert value(found, "findings", "Mass", RANDOM + "gradcam", "pointing") == pytest.approx(0.25, abs=0.13)
    assert value(found, "findings", "Mass", RANDOM + "gradcam", "energy") == pytest.approx(0.25, abs=0.01)
    assert value(found, "findings", "Mass", "gradcam", "pointing") == 1


def test_random_networks_count_as_their_mean_and_have_nothing_learnt(make_task: MakeTask) -> None:
    lines = quarters(4, ["Mass"])
    networks: list[dict[str, Tensor]] = []

    def draw(method: str, network: nn.Module | None) -> Explain:
        is_second = len(networks) > 0
        if network is not None:
            networks.append({name: one.clone() for name, one in network.state_dict().items()})
        which = 0.0 if network is not None and is_second else 1.0
        return lambda images, pairs: torch.stack(
            [which * heat_of(lines, int(images[image, 0, 0, 0]), label, (1.0, 0.0)) for image, label in pairs]
        )

    explain_task = make_task([(1, 0)] * 4, lines, draw=draw)
    found = check_pointing(explain_task)
    assert value(found, "findings", "Mass", RANDOM + "gradcam", "pointing") == 0.5
    assert value(found, "differences", "gradcam", "random_network", "Mass") == 0.5
    assert found.empty == {"gradcam": 0, RANDOM + "gradcam": 2}
    assert len(networks) == 2
    for number, state in enumerate(networks):
        copy_ = randomized_copy(explain_task.classifier, number).state_dict()
        assert all(torch.equal(one, copy_[name]) for name, one in state.items())


def test_a_map_that_is_no_better_than_where_boxes_usually_are_is_told_so(make_task: MakeTask) -> None:
    lines = [(row, "Mass", 0.25, 0.5, 0.25, 0.25) for row in range(12)]
    corner = torch.zeros(256, 256)
    corner[0, 0] = 1
    found = check_pointing(make_task([(1, 0)] * 12, lines, draw=drawing(lambda row, label: corner)))
    assert value(found, "findings", "Mass", "box_frequency", "pointing") == 1
    assert value(found, "findings", "Mass", "gradcam", "pointing") == 0
    assert descriptions(found, "gradcam")["Mass"] == "worse than the box-frequency map"
    same = check_pointing(make_task([(1, 0)] * 12, lines, draw=drawing(at_boxes(lines))))
    assert descriptions(same, "gradcam")[MACRO] == f"not shown to be {BETTER}"


def test_a_single_patient_s_boxes_are_compared_with_nothing(make_task: MakeTask) -> None:
    lines = quarters(2, ["Mass"])
    explain_task = make_task([(1, 0)] * 2, lines, patients=["a", "a"], draw=drawing(at_boxes(lines)))
    found = check_pointing(explain_task)
    assert value(found, "differences", "gradcam", "box_frequency", "Mass") is None
    assert descriptions(found, "gradcam")["Mass"] == "not compared: no other patient has a box of it"
    assert value(found, "findings", "Mass", "gradcam", "pointing") == 1
    assert found.thresholds is not None
    assert found.thresholds.folds == 1


def test_without_boxes_nothing_is_drawn(make_task: MakeTask) -> None:
    found = check_pointing(make_task([(1, 0), (1, 1), (NAN, 1), (1, 0)], draw=never))
    assert found == PointingResult({}, {"Mass": 3, "Edema": 2}, UnusableBoxes(0, []))


def test_boxes_of_images_that_were_not_evaluated_are_no_cases(make_task: MakeTask) -> None:
    lines = quarters(3, ["Mass"])
    found = check_pointing(make_task([(1, 0)] * 5, lines, validation=[0, 1, 2], draw=never))
    assert found.cases == {}
    assert found.without_boxes == {"Mass": 2}


def test_labels_with_positives_and_no_box_are_told(make_task: MakeTask) -> None:
    lines = quarters(4, ["Mass"])
    explain_task = make_task([(1, 1), (1, 0), (1, NAN), (1, 1)], lines, draw=drawing(at_boxes(lines)))
    assert check_pointing(explain_task).without_boxes == {"Edema": 2}
    explain_task = make_task([(1, 0)] * 4, lines, draw=drawing(at_boxes(lines)))
    assert check_pointing(explain_task).without_boxes == {}


def test_a_box_makes_a_case_whatever_the_target_and_the_network_say(make_task: MakeTask) -> None:
    lines = quarters(3, ["Mass"])
    said = np.zeros((3, 2))
    explain_task = make_task(
        [(0, 0), (NAN, 0), (1, 0)], lines, draw=drawing(at_boxes(lines)), probabilities=said
    )
    assert check_pointing(explain_task).cases == {"Mass": CaseCounts(3, 3)}


def test_boxes_that_cannot_be_used_are_counted(make_task: MakeTask) -> None:
    lines = quarters(2, ["Mass"])
    wrong = [(0, "Edema", 0.5, 0.5, float(-number), 0.1) for number in range(7)]
    found = check_pointing(make_task([(1, 0)] * 2, [*lines, *wrong], draw=drawing(at_boxes(lines))))
    assert found.unusable.boxes == 7
    assert len(found.unusable.such_as) == 5
    assert "Edema in 0.png has no area" in found.unusable.such_as[0]
    assert found.cases == {"Mass": CaseCounts(2, 2)}


def test_the_tolerance_is_that_of_the_settings(make_task: MakeTask) -> None:
    lines = [(row, "Mass", 0.25, 0.25, 0.25, 0.25) for row in range(3)]
    beside = torch.zeros(256, 256)
    beside[100, 140] = 1  # 13 cells to the right of the box
    for tolerance, hit in ((0.0, 0), (12 / 256, 0), (13 / 256, 1)):
        explain_task = make_task(
            [(1, 0)] * 3, lines, draw=drawing(lambda row, label: beside), tolerance=tolerance
        )
        found = check_pointing(explain_task)
        assert found.tolerance == tolerance
        assert value(found, "findings", "Mass", "gradcam", "pointing") == hit


def judged_and_validation(make_task: MakeTask, num_validation: int) -> PointingResult:
    """Boxes of evaluated images are best at a threshold of 0.35, those of validation images at 0.75."""
    lines = quarters(8 + num_validation, ["Mass"])

    def one_map(row: int, label: int) -> Tensor:
        return heat_of(lines, row, label, (0.62, 0.32) if row < 8 else (0.82, 0.72))

    validation = range(8, 8 + num_validation)
    explain_task = make_task(
        [(1, 0)] * len(lines), lines, validation=validation, draw=drawing(one_map), num_folds=3
    )
    return check_pointing(explain_task)


def test_thresholds_are_chosen_on_validation_where_it_has_ten_cases(make_task: MakeTask) -> None:
    found = judged_and_validation(make_task, 10)
    assert found.cases["Mass"].cases == 8
    assert found.thresholds is not None
    assert (found.thresholds.on, found.thresholds.cases) == ("validation", 10)
    assert found.thresholds.values["gradcam"] == [0.75]
    # At 0.75 nothing of a evaluated heatmap is left but its peak.
    assert value(found, "findings", "Mass", "gradcam", "iou") == pytest.approx(1 / CELLS)
    assert value(found, "findings", "Mass", "gradcam", "iobb") == 1


@pytest.mark.parametrize("num_validation", [0, 9])
def test_thresholds_are_chosen_on_other_patients_where_it_has_fewer(
    make_task: MakeTask, num_validation: int
) -> None:
    found = judged_and_validation(make_task, num_validation)
    assert found.cases["Mass"].cases == 8
    values = {"gradcam": [0.35], RANDOM + "gradcam": [0.05]}
    assert found.thresholds == RegionThresholds("other patients", values, folds=3)
    assert value(found, "findings", "Mass", "gradcam", "iou") == 1


def test_each_method_has_its_own_threshold_and_verdict(make_task: MakeTask) -> None:
    lines = quarters(16, ["Mass"])

    def draw(method: str, network: nn.Module | None) -> Explain:
        good = drawing(at_boxes(lines, 0.62, 0.32))
        empty = drawing(lambda row, label: torch.zeros(256, 256))
        return (good if method == "layercam" else empty)(method, network)

    found = check_pointing(make_task([(1, 0)] * 16, lines, draw=draw, methods=["gradcam", "layercam"]))
    assert found.thresholds is not None
    values = found.thresholds.values
    assert (values["gradcam"], values["layercam"]) == ([0.05], [0.35])
    assert found.empty["gradcam"] == 16
    words = {method: descriptions(found, method)["Mass"] for method in found.differences}
    assert words == {"gradcam": f"not shown to be {BETTER}", "layercam": BETTER}
    assert list(found.against_first) == ["layercam"]
    assert value(found, "against_first", "layercam", "Mass") == -1  # the first one minus this one
    assert found.against_first["layercam"][MACRO].outcome == "worse"
    assert found.against_first["layercam"][MACRO].description == "worse than LayerCAM"
    assert (
        descriptions(found, "gradcam", "random_network")["Mass"]
        == "not shown to be better than networks with random weights"
    )
