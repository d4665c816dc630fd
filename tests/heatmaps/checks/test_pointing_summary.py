from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from cxrlab.heatmaps.checks.boxes import BoxCases, Pointing
from cxrlab.metrics.predictions import Floats
from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate
from cxrlab.heatmaps.checks.pointing import (
    OVERLAP_LEVELS,
    by_finding,
    by_size,
    compared,
    difference,
    measures,
)

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
    found = difference(
        [pointing(one.tolist())], [pointing(other.tolist())], known, drawn, than="another"
    )["Mass"]
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
