from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from cxrlab.heatmaps.checks.boxes import (
    THRESHOLDS,
    BoxCases,
    Floats,
    Overlaps,
    Pointing,
    best_threshold,
    crossfitted_thresholds,
    hottest,
    on_grid,
    overlaps,
)

NUM_CASES = 24
CENTS = range(5, 100, 5)


def cases_with(
    boxes: Sequence[Floats], patients: Sequence[str] | None = None, findings: Sequence[str] | None = None
) -> BoxCases:
    number = len(boxes)
    return BoxCases(
        rows=np.arange(number),
        findings=np.array(["Mass"] * number if findings is None else findings, dtype=object),
        patients=np.array(
            [str(row) for row in range(number)] if patients is None else patients, dtype=object
        ),
        boxes=tuple(boxes),
    )


def random_boxes(generator: np.random.Generator) -> Floats:
    """One to three boxes with their sides on pixels of a 1024 by 1024 image."""
    start = generator.integers(0, 900, (generator.integers(1, 4), 2))
    end = start + generator.integers(1, 1025 - start)
    return np.concatenate([start, end - start], axis=1) / 1024


def drawn(boxes: Floats) -> Floats:
    """The boxes drawn in 1024 by 1024 pixels and reduced to 256 by 256 cells; 1 where a pixel is in a box."""
    pixels = np.zeros((1024, 1024))
    for x, y, width, height in (boxes * 1024).astype(int):
        pixels[y : y + height, x : x + width] = 1
    return pixels.reshape(256, 4, 256, 4).max(axis=(1, 3))


def random_heat(generator: np.random.Generator) -> Floats:
    """Between 0 and 1 in whole hundredths, so that many cells stand exactly at a threshold."""
    coarse = np.kron(generator.random((8, 8)) ** 3, np.ones((32, 32)))
    heat = coarse * generator.random((256, 256))
    return np.asarray(np.round(heat / heat.max(), 2))


@pytest.fixture(scope="module")
def random_cases() -> tuple[BoxCases, list[Floats]]:
    generator = np.random.default_rng(0)
    boxes = [random_boxes(generator) for _ in range(NUM_CASES)]
    patients = [str(number) for number in np.sort(generator.integers(0, 9, NUM_CASES))]
    findings = ["Mass", "Edema", "Mass", "Nodule"] * (NUM_CASES // 4)
    heatmaps = [random_heat(generator) for _ in range(NUM_CASES)]
    for heat, mine in zip(heatmaps[:8], boxes, strict=False):
        heat *= drawn(mine)  # so that some do point
    heatmaps[5][:] = 0
    return cases_with(boxes, patients, findings), heatmaps


def test_thresholds_are_the_twentieths_between_0_and_1() -> None:
    assert THRESHOLDS.tolist() == [number / 100 for number in CENTS]


def test_a_heatmap_is_stretched_to_the_grid_bilinearly() -> None:
    heatmaps = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    found = on_grid(heatmaps)
    assert (found.shape, found.dtype) == ((2, 256, 256), np.float64)
    for heat, given in zip(found, heatmaps.numpy().astype(float), strict=True):
        # Centres of cells in pixels of the heatmap; outside its own centres the next pixel's value goes on.
        rows, columns = ((np.arange(256) + 0.5) * side / 256 - 0.5 for side in given.shape)
        along = np.array([np.interp(columns, np.arange(9), line) for line in given])
        expected = np.array([np.interp(rows, np.arange(7), column) for column in along.T]).T
        np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_a_heatmap_of_256_pixels_stays_and_none_give_none() -> None:
    heatmaps = torch.rand(2, 256, 256, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(on_grid(heatmaps), heatmaps.numpy())
    assert on_grid(torch.zeros(0, 7, 7)).shape == (0, 256, 256)
    assert on_grid(torch.ones(1, 7, 7).bfloat16()).tolist() == np.ones((1, 256, 256)).tolist()


@pytest.mark.parametrize(("tolerance", "radius"), [(0.0, 0), (0.05, 13)])
def test_overlaps_equal_plain_counting(
    random_cases: tuple[BoxCases, list[Floats]], tolerance: float, radius: int
) -> None:
    cases, heatmaps = random_cases
    found = overlaps(cases, heatmaps, tolerance)
    assert (found.ious.shape, found.iobbs.shape) == ((NUM_CASES, 19), (NUM_CASES, 19))
    assert found.num_empty == 1
    assert 4 < found.hits.sum() < NUM_CASES - 4
    for case, heat in enumerate(heatmaps):
        boxes = drawn(cases.boxes[case]) == 1
        highest = np.argwhere(heat == heat.max())
        peak = min(highest.tolist(), key=lambda cell: ((highest.mean(axis=0) - cell) ** 2).sum())
        hit = heat.any() and distance_transform_edt(~boxes)[tuple(peak)] <= radius
        assert found.hits[case] == hit
        assert found.areas[case] == boxes.sum()
        assert found.energies[case] == pytest.approx((heat * boxes).sum() / max(heat.sum(), 1e-9))
        for place, cents in enumerate(CENTS):
            region = np.round(heat * 100) >= cents
            common, union = (region & boxes).sum(), (region | boxes).sum()
            assert (found.regions[case, place], found.common[case, place]) == (region.sum(), common)
            assert found.ious[case, place] == pytest.approx(common / union)
            assert found.iobbs[case, place] == pytest.approx(common / region.sum() if region.any() else 0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (3, 6), (6, 6), (2, 4), (6, 0)])
def test_the_point_of_a_coarse_map_lies_in_its_hottest_cell_as_seen_from_any_side(
    row: int, column: int
) -> None:
    """Stretched bilinearly, a cell at the edge becomes a plateau, whose middle is the point."""
    coarse = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)) / 2
    coarse[row, column] = 1.0
    found = hottest(on_grid(coarse[None])[0])
    for place, cell in zip(found, (row, column), strict=True):
        middle, edge = (cell + 0.5) * 256 / 7 - 0.5, (cell + 0.5) * 256 / 14 - 0.5
        expected = edge if cell == 0 else 255 - (6 - cell + 0.5) * 256 / 14 + 0.5 if cell == 6 else middle
        assert abs(place - expected) <= 1
    mirrored = hottest(on_grid(coarse.flip(1)[None])[0])
    assert (mirrored[0], 255 - mirrored[1]) == pytest.approx(found, abs=1)


def test_the_point_of_several_places_is_a_highest_cell_near_their_middle() -> None:
    heat = np.zeros((256, 256))
    heat[10, 200] = heat[20, 5] = heat[60, 90] = 1
    assert hottest(heat) == (60, 90)
    assert hottest(np.ones((256, 256))) in {(row, column) for row in (127, 128) for column in (127, 128)}
    first, second = np.array([[200, 10, 1, 1]]) / 256, np.array([[90, 60, 1, 1]]) / 256
    assert overlaps(cases_with([first, second]), [heat, heat], 0.0).hits.tolist() == [0, 1]


def test_a_point_within_the_tolerance_is_a_hit() -> None:
    heat = np.zeros((256, 256))
    heat[100, 100] = 1
    boxes = np.array([[110, 96, 20, 20]]) / 256
    cases = cases_with([boxes])
    hits = [overlaps(cases, [heat], cells / 256).hits[0] for cells in (0, 9, 10, 11)]
    assert hits == [0, 0, 1, 1]


def test_an_empty_heatmap_has_no_point_no_heat_and_no_region() -> None:
    everywhere = np.array([[0.0, 0.0, 1.0, 1.0]])
    found = overlaps(cases_with([everywhere] * 2), [np.zeros((256, 256)), np.ones((256, 256))], 0.05)
    assert found.num_empty == 1
    assert found.hits.tolist() == found.energies.tolist() == [0, 1]
    for values in (found.common, found.regions, found.ious, found.iobbs):
        assert not values[0].any()
    assert found.ious[1].tolist() == found.iobbs[1].tolist() == [1] * 19
    assert found.areas.tolist() == [256 * 256] * 2


def test_the_heatmaps_may_come_one_by_one_and_must_be_as_many_as_the_cases(
    random_cases: tuple[BoxCases, list[Floats]],
) -> None:
    cases, heatmaps = random_cases
    as_they_come: Iterator[Floats] = iter(heatmaps)
    np.testing.assert_array_equal(
        overlaps(cases, as_they_come, 0.0).common, overlaps(cases, heatmaps, 0.0).common
    )
    for wrong in (heatmaps[1:], [*heatmaps, heatmaps[0]]):
        with pytest.raises(ValueError, match="argument"):
            overlaps(cases, wrong, 0.0)


def test_no_cases_overlap_nothing() -> None:
    found = overlaps(cases_with([]), [], 0.05)
    assert found.ious.shape == found.iobbs.shape == (0, 19)
    assert (found.hits.shape, found.num_empty) == ((0,), 0)


def of_ious(ious: Floats) -> Overlaps:
    """Regions of 1000 cells, as boxes are, with these IoUs."""
    common = 2000 * ious / (1 + ious)
    nothing = np.zeros(len(ious))
    return Overlaps(nothing, nothing, common, np.full(ious.shape, 1000.0), np.full(len(ious), 1000.0), 0)


def best_of(ious: Floats, findings: Sequence[str]) -> int:
    """The threshold with the highest mean of the findings' mean IoUs, the lowest of several."""
    means = []
    for place in range(ious.shape[1]):
        of_finding: dict[str, list[float]] = {}
        for finding, values in zip(findings, ious.tolist(), strict=True):
            of_finding.setdefault(finding, []).append(values[place])
        means.append(sum(sum(values) / len(values) for values in of_finding.values()) / len(of_finding))
    return max(range(len(means)), key=lambda place: (round(means[place], 9), -place))


def test_each_finding_counts_the_same_for_the_best_threshold() -> None:
    ious = np.zeros((5, 19))
    ious[:4, 3], ious[:4, 11] = 0.4, 0.2  # four cases of one finding are best at one height
    ious[4, 3], ious[4, 11] = 0.1, 0.5  # and one of another finding at another
    findings = np.array(["Mass"] * 4 + ["Edema"], dtype=object)
    found = of_ious(ious)
    np.testing.assert_allclose(found.ious, ious)
    assert best_threshold(found, np.array(["Mass"] * 5, dtype=object)) == 3
    assert best_threshold(found, findings) == best_of(ious, findings.tolist()) == 11


def test_the_lowest_of_equally_good_thresholds_is_the_best() -> None:
    ious = np.zeros((2, 19))
    ious[:, [6, 9]] = 0.5
    assert best_threshold(of_ious(ious), np.array(["Mass", "Edema"], dtype=object)) == 6


def some_ious(seed: int) -> tuple[BoxCases, Floats]:
    """IoUs of 30 cases of 3 findings and 10 patients; each patient has a height at which it is best."""
    generator = np.random.default_rng(seed)
    patients = [f"patient {number}" for number in [*range(10), *generator.integers(0, 10, 20)]]
    findings = generator.choice(["Mass", "Edema", "Nodule"], 30).tolist()
    favourite = {name: int(generator.integers(19)) for name in patients}
    ious = 0.1 * generator.random((30, 19))
    ious[np.arange(30), [favourite[name] for name in patients]] += 0.6 * generator.random(30)
    return cases_with([np.array([[0.1, 0.1, 0.2, 0.2]])] * 30, patients, findings), ious


@pytest.mark.parametrize("num_folds", [10, 11, 500])
def test_with_a_fold_a_patient_the_threshold_is_the_best_of_all_other_patients(num_folds: int) -> None:
    cases, ious = some_ious(0)
    chosen = crossfitted_thresholds(of_ious(ious), cases, num_folds, seed=3)
    expected = []
    for patient in cases.patients:
        others = np.flatnonzero([other != patient for other in cases.patients])
        expected.append(best_of(ious[others], [cases.findings[other] for other in others]))
    assert chosen.tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
def test_no_patient_s_threshold_depends_on_its_own_heatmaps(num_folds: int) -> None:
    cases, ious = some_ious(1)
    before = crossfitted_thresholds(of_ious(ious), cases, num_folds, seed=0)
    num_changed = 0
    for patient in sorted(set(cases.patients)):
        own = cases.patients == patient
        for favourite in (0, 7, 18):
            changed = ious.copy()
            changed[own] = 0
            changed[own, favourite] = 1
            after = crossfitted_thresholds(of_ious(changed), cases, num_folds, seed=0)
            np.testing.assert_array_equal(after[own], before[own])
            num_changed += int((after[~own] != before[~own]).any())
    assert num_changed > 10  # other patients' thresholds do depend on them


def test_a_patient_s_cases_are_in_one_fold_and_folds_are_of_equal_size() -> None:
    # Patient k is best at height k and nowhere else, the lower the better: whoever has height 0 is the best
    # for all folds but its own, which get the lowest height among the other folds.
    patients = [f"{number:02d}" for number in range(12) for _ in range(1 + number % 3)]
    heights = np.array([int(name) for name in patients])
    ious = np.zeros((len(patients), 19))
    ious[np.arange(len(patients)), heights] = 1 - heights / 100
    cases = cases_with(
        [np.array([[0.1, 0.1, 0.2, 0.2]])] * len(patients),
        patients,
        patients,  # a finding of its own for each patient, so that each counts the same
    )
    sizes = set()
    for seed in range(5):
        chosen = crossfitted_thresholds(of_ious(ious), cases, 3, seed)
        for name in set(patients):
            assert len(set(chosen[cases.patients == name].tolist())) == 1
        fold_of_first = {name for name, height in zip(patients, chosen.tolist(), strict=True) if height != 0}
        assert "00" in fold_of_first
        sizes.add(len(fold_of_first))
    assert sizes == {4}


def test_the_seed_deals_the_patients() -> None:
    cases, ious = some_ious(2)
    chosen = [crossfitted_thresholds(of_ious(ious), cases, 2, seed).tolist() for seed in (0, 0, 1, 2, 3, 4)]
    assert chosen[0] == chosen[1]
    assert len({tuple(one) for one in chosen}) > 1


def test_a_single_patient_has_nothing_but_its_own_cases_to_choose_by() -> None:
    ious = np.zeros((2, 19))
    ious[:, 4] = 0.5
    cases = cases_with([np.array([[0.1, 0.1, 0.2, 0.2]])] * 2, ["a", "a"])
    assert crossfitted_thresholds(of_ious(ious), cases, 5, seed=0).tolist() == [4, 4]


def test_pointing_takes_each_case_s_region_at_its_own_threshold(
    random_cases: tuple[BoxCases, list[Floats]],
) -> None:
    found = overlaps(*random_cases, 0.0)
    thresholds = np.arange(NUM_CASES) % 19
    pointing = Pointing.at(found, thresholds)
    np.testing.assert_array_equal(pointing.hits, found.hits)
    np.testing.assert_array_equal(pointing.energies, found.energies)
    for case, place in enumerate(thresholds):
        assert pointing.ious[case] == found.ious[case, place]
        assert pointing.iobbs[case] == found.iobbs[case, place]
    assert len(set(pointing.iobbs.tolist())) > NUM_CASES // 2


def test_a_single_region_is_measured() -> None:
    region, mask = np.zeros((2, 256, 256), dtype=bool)
    region[:4, :10] = mask[2:4, :30] = True
    assert Pointing.of_region(region, mask, True, 0.25) == (1.0, 0.25, 20 / 80, 20 / 40)
    nothing = np.zeros_like(mask)
    assert Pointing.of_region(nothing, mask, False, 0.0) == (0.0, 0.0, 0.0, 0.0)
    assert Pointing.of_region(nothing, nothing, False, 0.0) == (0.0, 0.0, 0.0, 0.0)
