from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from cxrlab.data.manifest import BOX_COLUMNS, LABEL, Manifest
from cxrlab.data.readers import nih
from cxrlab.heatmaps.checks.boxes import (
    GRID,
    THRESHOLDS,
    BoxCases,
    Floats,
    Mask,
    Overlaps,
    Pointing,
    best_threshold,
    box_frequency,
    box_mask,
    crossfitted_thresholds,
    dilated,
    hottest,
    image_centre,
    on_grid,
    overlaps,
    uniform_chance,
)

Line = tuple[str, str, float, float, float, float]


def manifest(patients: Sequence[str], lines: Sequence[Line]) -> Manifest:
    """Images ``0.png``, ``1.png`` … with the labels Mass, Edema and Nodule, and boxes."""
    table = pd.DataFrame(
        {"image": [f"{row}.png" for row in range(len(patients))], "patient": patients, "split": ""}
    ).assign(**{"label/Mass": 1.0, "label/Edema": np.nan, "label/Nodule": 0.0})
    return Manifest(Path("/data"), table, pd.DataFrame(lines, columns=list(BOX_COLUMNS)))


def touched(start: int, end: int, num_pixels: int) -> npt.NDArray[np.bool_]:
    """Which cells share more than an edge with pixels ``start`` to ``end``; in whole numbers, hence exact."""
    cells = range(GRID)
    return np.array(
        [cell * num_pixels < end * GRID and (cell + 1) * num_pixels > start * GRID for cell in cells]
    )


@pytest.mark.parametrize("num_pixels", [1024, 1000, 2500, 2021])
def test_a_box_covers_each_cell_that_it_touches(num_pixels: int) -> None:
    generator = np.random.default_rng(num_pixels)
    for _ in range(60):
        left, right, top, bottom = (
            int(place)
            for pair in (
                generator.choice(num_pixels + 1, 2, replace=False),
                generator.choice(num_pixels + 1, 2, replace=False),
            )
            for place in np.sort(pair)
        )
        sides = np.array([left, top, right - left, bottom - top]) / num_pixels
        expected = np.outer(touched(top, bottom, num_pixels), touched(left, right, num_pixels))
        np.testing.assert_array_equal(box_mask(sides), expected)


def test_an_edge_between_two_cells_is_found_in_spite_of_rounding() -> None:
    left = 8 / 768 - 5 / 768  # 3 pixels of 768 are a cell, but the difference is a little less
    top, height = 0.5, 0.25 + 2**-53
    assert left * 256 < 1
    assert (top + height) * 256 > 192
    mask = box_mask([[left, top, 0.25, height]])
    assert np.flatnonzero(mask.any(axis=0)).tolist() == list(range(1, 65))
    assert np.flatnonzero(mask.any(axis=1)).tolist() == list(range(128, 192))


def test_several_boxes_are_one_mask_and_none_are_empty() -> None:
    boxes = [[0.0, 0.0, 0.5, 0.25], [0.25, 0.0, 0.5, 0.5], [0.75, 0.75, 0.25, 0.25]]
    expected = np.zeros((256, 256), dtype=bool)
    expected[:64, :128] = expected[:128, 64:192] = expected[192:, 192:] = True
    np.testing.assert_array_equal(box_mask(boxes), expected)
    assert box_mask([[0.0, 0.0, 1.0, 1.0]]).all()
    assert box_mask(np.zeros((0, 4))).sum() == 0


@pytest.mark.parametrize(("tolerance", "radius"), [(1 / 256, 1), (0.03, 8), (0.05, 13)])
def test_dilation_reaches_as_far_on_all_sides_and_stops_at_the_image_s_edge(
    tolerance: float, radius: int
) -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[100:103, 90:97] = mask[0, 40] = mask[250, 255] = True
    y, x = np.mgrid[:256, :256]
    squares = [(y - row) ** 2 + (x - column) ** 2 for row, column in np.argwhere(mask)]
    expected = np.min(squares, axis=0) <= radius**2
    np.testing.assert_array_equal(dilated(mask, tolerance), expected)


@pytest.mark.parametrize("tolerance", [0.0, 0.001])
def test_a_tolerance_below_half_a_cell_changes_nothing(tolerance: float) -> None:
    mask = box_mask([[0.1, 0.2, 0.3, 0.1]])
    np.testing.assert_array_equal(dilated(mask, tolerance), mask)


def test_no_cell_is_near_an_empty_mask() -> None:
    assert not dilated(np.zeros((GRID, GRID), dtype=bool), 0.05).any()


def test_cases_are_pairs_of_image_and_finding_by_label_and_row() -> None:
    lines: list[Line] = [
        ("3.png", "Edema", 0.1, 0.2, 0.3, 0.4),
        ("2.png", "Mass", 0.5, 0.5, 0.1, 0.1),
        ("0.png", "Mass", 0.0, 0.0, 0.2, 0.2),
        ("3.png", "Edema", 0.6, 0.7, 0.2, 0.3),
        ("3.png", "Mass", 0.3, 0.3, 0.3, 0.3),
    ]
    cases = BoxCases.of(manifest(["a", "b", "b", "c"], lines), [3, 0, 1, 2], ["Nodule", "Mass", "Edema"])
    assert len(cases) == 4
    assert cases.rows.tolist() == [0, 2, 3, 3]
    assert cases.findings.tolist() == ["Mass", "Mass", "Mass", "Edema"]
    assert cases.patients.tolist() == ["a", "b", "c", "c"]
    assert [boxes.tolist() for boxes in cases.boxes] == [
        [[0.0, 0.0, 0.2, 0.2]],
        [[0.5, 0.5, 0.1, 0.1]],
        [[0.3, 0.3, 0.3, 0.3]],
        [[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.2, 0.3]],
    ]
    assert cases.names == ["Mass", "Edema"]


def test_the_labels_order_is_the_one_given_and_not_the_alphabet_s() -> None:
    lines: list[Line] = [("0.png", name, 0.1, 0.1, 0.2, 0.2) for name in ("Edema", "Mass", "Nodule")]
    cases = BoxCases.of(manifest(["a"], lines), [0], ["Nodule", "Edema", "Mass"])
    assert cases.names == ["Nodule", "Edema", "Mass"]


def test_other_rows_and_other_labels_have_no_cases() -> None:
    lines: list[Line] = [
        ("0.png", "Mass", 0.1, 0.1, 0.2, 0.2),
        ("1.png", "Mass", 0.1, 0.1, 0.2, 0.2),
        ("1.png", "Edema", 0.1, 0.1, 0.2, 0.2),
        ("elsewhere.png", "Mass", 0.1, 0.1, 0.2, 0.2),
    ]
    known = manifest(["a", "b"], lines)
    cases = BoxCases.of(known, [1], ["Mass", "Nodule"])
    assert list(zip(cases.rows.tolist(), cases.findings.tolist(), strict=True)) == [(1, "Mass")]
    for none in (BoxCases.of(known, [], ["Mass"]), BoxCases.of(known, [0, 1], ["Nodule"])):
        assert (len(none), none.names, none.areas.shape, len(none.counts())) == (0, [], (0,), 0)


def test_a_case_s_area_counts_what_its_boxes_share_once() -> None:
    lines: list[Line] = [
        ("0.png", "Mass", 0.0, 0.0, 0.5, 0.5),
        ("0.png", "Mass", 0.25, 0.25, 0.5, 0.5),
        ("1.png", "Mass", 0.0, 0.0, 1.0, 0.125),
    ]
    cases = BoxCases.of(manifest(["a", "b"], lines), [0, 1], ["Mass"])
    assert cases.areas.tolist() == [0.25 + 0.25 - 0.0625, 0.125]
    assert int(cases.mask(1).sum()) == 256 * 32
    assert cases.mask(1)[:32].all()


def test_cases_and_patients_are_counted_by_finding() -> None:
    lines: list[Line] = [
        (f"{row}.png", name, 0.1, 0.1, 0.2, 0.2)
        for row, name in [(0, "Mass"), (1, "Mass"), (1, "Mass"), (2, "Mass"), (2, "Edema")]
    ]
    cases = BoxCases.of(manifest(["a", "a", "b"], lines), range(3), ["Edema", "Mass"])
    counts = cases.counts()
    assert counts.to_dict("index") == {
        "Edema": {"cases": 1, "patients": 1},
        "Mass": {"cases": 3, "patients": 2},
    }
    assert list(counts.index) == ["Edema", "Mass"]


MEASURES = ("hits", "energies", "ious", "iobbs")


def cases_with(boxes: Sequence[Floats], patients: Sequence[str], findings: Sequence[str]) -> BoxCases:
    return BoxCases(
        rows=np.arange(len(boxes)),
        findings=np.array(findings, dtype=object),
        patients=np.array(patients, dtype=object),
        boxes=tuple(boxes),
    )


def tenths(*boxes: tuple[int, int, int, int]) -> Floats:
    return np.array(boxes) / 10


def random_cases(seed: int) -> BoxCases:
    """40 cases, of Mass mostly; boxes lie on pixels of a 1024 by 1024 image, and Nodule is a single patient's."""
    generator = np.random.default_rng(seed)
    boxes = []
    for _ in range(40):
        centre = generator.normal(512, 150, (generator.integers(1, 4), 2)).clip(150, 874)
        half = generator.uniform(10, 140, centre.shape)
        start, end = np.floor(centre - half), np.ceil(centre + half)
        boxes.append(np.concatenate([start, end - start], axis=1) / 1024)
    findings = ["Nodule", "Nodule", *generator.choice(["Mass", "Mass", "Edema"], 38).tolist()]
    patients = ["lonely", "lonely", *(f"patient {number}" for number in generator.integers(0, 12, 38))]
    return cases_with(boxes, patients, findings)


def drawn(boxes: Floats) -> Mask:
    """The boxes drawn in 1024 by 1024 pixels, and the cells of 4 by 4 that have a pixel of them."""
    pixels = np.zeros((1024, 1024), dtype=bool)
    for x, y, width, height in (boxes * 1024).round().astype(int):
        pixels[y : y + height, x : x + width] = True
    return np.asarray(pixels.reshape(256, 4, 256, 4).any(axis=(1, 3)))


def within(mask: Mask, radius: int) -> Mask:
    return np.asarray(distance_transform_edt(~mask) <= radius)


def others_of(cases: BoxCases, case: int) -> list[int]:
    """The cases of the same finding of all patients but the case's own."""
    pairs = list(zip(cases.findings, cases.patients, strict=True))
    finding, patient = pairs[case]
    return [other for other, (one, whose) in enumerate(pairs) if one == finding and whose != patient]


def by_frequency(cases: BoxCases, radius: int) -> list[list[float]]:
    counts = [np.sum([drawn(box[None]) for box in boxes], axis=0) for boxes in cases.boxes]
    rows = []
    for case, boxes in enumerate(cases.boxes):
        others = others_of(cases, case)
        if not others:
            rows.append([np.nan] * 4)
            continue
        frequency = np.sum([counts[other] for other in others], axis=0)
        mask, region = drawn(boxes), frequency / frequency.max() >= 0.5
        highest = np.argwhere(frequency == frequency.max())
        peak = tuple(min(highest.tolist(), key=lambda cell: ((highest.mean(axis=0) - cell) ** 2).sum()))
        common = np.sum(mask & region)
        energy = frequency[mask].sum() / frequency.sum()
        rows.append(
            [within(mask, radius)[peak], energy, common / np.sum(mask | region), common / np.sum(region)]
        )
    return rows


def by_centre(cases: BoxCases, radius: int) -> list[list[float]]:
    rows = []
    for case, boxes in enumerate(cases.boxes):
        mask, others = drawn(boxes), [box for other in others_of(cases, case) for box in cases.boxes[other]]
        row = [within(mask, radius)[128, 128], np.nan, np.nan, np.nan]
        if others:
            # In pixels of 256; a cell is in the region where it begins before its end and ends after its start.
            width, height = (256 * sum(box[side] for box in others) / len(others) for side in (2, 3))
            cell = np.arange(256)
            along, down = ((cell < 128 + side / 2) & (cell + 1 > 128 - side / 2) for side in (width, height))
            region = down[:, None] & along[None, :]
            common = (mask & region).sum()
            row[1:] = [common / region.sum(), common / (mask | region).sum(), common / region.sum()]
        rows.append(row)
    return rows


def by_chance(cases: BoxCases, radius: int) -> list[list[float]]:
    masks = [drawn(boxes) for boxes in cases.boxes]
    return [[within(mask, radius).sum() / 65536, *[mask.sum() / 65536] * 3] for mask in masks]


def measures(pointing: Pointing) -> Floats:
    return np.stack([getattr(pointing, name) for name in MEASURES], axis=1)


@pytest.mark.parametrize(("tolerance", "radius"), [(0.0, 0), (0.05, 13)])
@pytest.mark.parametrize(
    ("prior", "plain"),
    [(box_frequency, by_frequency), (image_centre, by_centre), (uniform_chance, by_chance)],
)
def test_what_points_without_an_image_equals_a_plain_computation(
    prior: Callable[[BoxCases, float], Pointing],
    plain: Callable[[BoxCases, int], list[list[float]]],
    tolerance: float,
    radius: int,
) -> None:
    cases = random_cases(0)
    found, expected = measures(prior(cases, tolerance)), np.array(plain(cases, radius), dtype=float)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (np.nanstd(expected, axis=0) > 0.02).all()


def test_the_most_frequent_place_is_that_of_other_patients() -> None:
    # In tenths of the image: two patients on the left, and one, with two images, on the right.
    left, right = tenths((1, 1, 3, 3)), tenths((6, 5, 2, 4))
    cases = cases_with([left, left, right, right], ["a", "b", "c", "c"], ["Mass"] * 4)
    pointing = box_frequency(cases, 0.0)
    # For a and b the right is twice as frequent as the other's left; for c only the left is left.
    assert pointing.hits.tolist() == [0, 0, 0, 0]
    areas = cases.areas * 256**2
    assert pointing.energies[2:].tolist() == pointing.ious[2:].tolist() == [0, 0]
    assert pointing.energies[0] == pointing.energies[1] == pytest.approx(areas[0] / (areas[0] + 2 * areas[2]))
    # Half of the maximum belongs to the region.
    for values in (pointing.ious, pointing.iobbs):
        assert values[0] == values[1] == pytest.approx(areas[0] / (areas[0] + areas[2]))


def test_of_several_most_frequent_cells_the_point_is_as_a_heatmap_s() -> None:
    """The middle of what two patients' boxes share; the first in reading order lies at its edge."""
    shared = tenths((2, 2, 6, 2))
    for own, by_the_middle, by_the_first in (
        (tenths((4, 2, 2, 2)), 1, 0),
        (tenths((2, 2, 1, 1)), 0, 1),
        (tenths((7, 3, 1, 1)), 0, 0),
    ):
        cases = cases_with([shared, shared, own], ["a", "b", "c"], ["Mass"] * 3)
        assert box_frequency(cases, 0.0).hits[2] == by_the_middle
        assert box_frequency(cases, 0.0, first).hits[2] == by_the_first


def test_findings_do_not_help_each_other() -> None:
    cases = cases_with([tenths((1, 1, 3, 3))] * 3, ["a", "b", "b"], ["Mass", "Edema", "Edema"])
    assert np.isnan(measures(box_frequency(cases, 0.05))).all()
    centre = measures(image_centre(cases, 0.0))
    assert centre[:, 0].tolist() == [0, 0, 0]
    assert np.isnan(centre[:, 1:]).all()


def test_a_patient_s_own_boxes_change_nothing_in_what_it_is_measured_by() -> None:
    cases = random_cases(1)
    own = cases.patients == cases.patients[20]
    assert own.sum() > 2
    # A further image of the same patient with a huge box of the same finding.
    more = cases_with(
        [*cases.boxes, tenths((0, 0, 10, 10))],
        [*cases.patients, cases.patients[20]],
        [*cases.findings, cases.findings[20]],
    )
    for prior in (box_frequency, image_centre):
        before, after = measures(prior(cases, 0.0)), measures(prior(more, 0.0))[:-1]
        np.testing.assert_array_equal(after[own], before[own])
        assert (after[~own] != before[~own])[:, 2].sum() > 10


def test_no_cases_have_nothing_to_point_at() -> None:
    for prior in (box_frequency, image_centre, uniform_chance):
        assert measures(prior(cases_with([], [], []), 0.05)).shape == (0, 4)


def first(heat: Floats) -> tuple[int, int]:
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(row), int(column)


def by_finding(pointing: Pointing, cases: BoxCases) -> dict[str, float]:
    hits = pd.Series(pointing.hits).groupby(cases.findings).mean()
    found: dict[str, float] = hits.round(3).to_dict()
    return found | {"macro": round(hits.mean(), 3)}


@pytest.mark.real_data
def test_pointing_at_the_984_boxes_of_nih_without_the_images(real_data: Path) -> None:
    path = real_data / "nih" / "BBox_List_2017.csv"
    names = pd.read_csv(path)["Image Index"].unique()
    boxes = nih.read_boxes(path, {name: name for name in names})
    assert (len(boxes), len(names)) == (984, 880)
    table = pd.DataFrame({"image": names, "patient": [name[:8] for name in names], "split": "test"})
    manifest = Manifest(path.parent, table.assign(**{LABEL + name: 1.0 for name in nih.LABELS}), boxes)
    cases = BoxCases.of(manifest, range(len(table)), nih.LABELS)
    assert sum(len(one) for one in cases.boxes) == 984

    found = {}
    for prior in (box_frequency, image_centre, uniform_chance):
        found[prior.__name__] = by_finding(prior(cases, 0.0), cases)
    found["by the first"] = by_finding(box_frequency(cases, 0.0, first), cases)
    assert found["by the first"] == {
        "Atelectasis": 0.178,
        "Cardiomegaly": 0.986,
        "Effusion": 0.359,
        "Infiltration": 0.504,
        "Mass": 0.306,
        "Nodule": 0.0,
        "Pneumonia": 0.492,
        "Pneumothorax": 0.316,
        "macro": 0.393,
    }
    assert found["box_frequency"] == {
        "Atelectasis": 0.194,
        "Cardiomegaly": 1.0,
        "Effusion": 0.34,
        "Infiltration": 0.48,
        "Mass": 0.306,
        "Nodule": 0.063,
        "Pneumonia": 0.483,
        "Pneumothorax": 0.296,
        "macro": 0.395,
    }
    assert (found["image_centre"]["macro"], found["uniform_chance"]["macro"]) == (0.196, 0.073)


NUM_CASES = 24
CENTS = range(5, 100, 5)


def cases_of_boxes(
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


def rasterized(boxes: Floats) -> Floats:
    """The boxes rasterized in 1024 by 1024 pixels and reduced to 256 by 256 cells; 1 where a pixel is in a box."""
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
def cases_and_heatmaps() -> tuple[BoxCases, list[Floats]]:
    generator = np.random.default_rng(0)
    boxes = [random_boxes(generator) for _ in range(NUM_CASES)]
    patients = [str(number) for number in np.sort(generator.integers(0, 9, NUM_CASES))]
    findings = ["Mass", "Edema", "Mass", "Nodule"] * (NUM_CASES // 4)
    heatmaps = [random_heat(generator) for _ in range(NUM_CASES)]
    for heat, mine in zip(heatmaps[:8], boxes, strict=False):
        heat *= rasterized(mine)  # so that some do point
    heatmaps[5][:] = 0
    return cases_of_boxes(boxes, patients, findings), heatmaps


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
    cases_and_heatmaps: tuple[BoxCases, list[Floats]], tolerance: float, radius: int
) -> None:
    cases, heatmaps = cases_and_heatmaps
    found = overlaps(cases, heatmaps, tolerance)
    assert (found.ious.shape, found.iobbs.shape) == ((NUM_CASES, 19), (NUM_CASES, 19))
    assert found.num_empty == 1
    assert 4 < found.hits.sum() < NUM_CASES - 4
    for case, heat in enumerate(heatmaps):
        boxes = rasterized(cases.boxes[case]) == 1
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
    assert overlaps(cases_of_boxes([first, second]), [heat, heat], 0.0).hits.tolist() == [0, 1]


def test_a_point_within_the_tolerance_is_a_hit() -> None:
    heat = np.zeros((256, 256))
    heat[100, 100] = 1
    boxes = np.array([[110, 96, 20, 20]]) / 256
    cases = cases_of_boxes([boxes])
    hits = [overlaps(cases, [heat], cells / 256).hits[0] for cells in (0, 9, 10, 11)]
    assert hits == [0, 0, 1, 1]


def test_an_empty_heatmap_has_no_point_no_heat_and_no_region() -> None:
    everywhere = np.array([[0.0, 0.0, 1.0, 1.0]])
    found = overlaps(cases_of_boxes([everywhere] * 2), [np.zeros((256, 256)), np.ones((256, 256))], 0.05)
    assert found.num_empty == 1
    assert found.hits.tolist() == found.energies.tolist() == [0, 1]
    for values in (found.common, found.regions, found.ious, found.iobbs):
        assert not values[0].any()
    assert found.ious[1].tolist() == found.iobbs[1].tolist() == [1] * 19
    assert found.areas.tolist() == [256 * 256] * 2


def test_the_heatmaps_may_come_one_by_one_and_must_be_as_many_as_the_cases(
    cases_and_heatmaps: tuple[BoxCases, list[Floats]],
) -> None:
    cases, heatmaps = cases_and_heatmaps
    as_they_come: Iterator[Floats] = iter(heatmaps)
    np.testing.assert_array_equal(
        overlaps(cases, as_they_come, 0.0).common, overlaps(cases, heatmaps, 0.0).common
    )
    for wrong in (heatmaps[1:], [*heatmaps, heatmaps[0]]):
        with pytest.raises(ValueError, match="argument"):
            overlaps(cases, wrong, 0.0)


def test_no_cases_overlap_nothing() -> None:
    found = overlaps(cases_of_boxes([]), [], 0.05)
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
    return cases_of_boxes([np.array([[0.1, 0.1, 0.2, 0.2]])] * 30, patients, findings), ious


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
    cases = cases_of_boxes(
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
    cases = cases_of_boxes([np.array([[0.1, 0.1, 0.2, 0.2]])] * 2, ["a", "a"])
    assert crossfitted_thresholds(of_ious(ious), cases, 5, seed=0).tolist() == [4, 4]


def test_pointing_takes_each_case_s_region_at_its_own_threshold(
    cases_and_heatmaps: tuple[BoxCases, list[Floats]],
) -> None:
    found = overlaps(*cases_and_heatmaps, 0.0)
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
