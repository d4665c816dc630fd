from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cxrlab.data.manifest import BOX_COLUMNS, Manifest
from cxrlab.heatmaps.checks.boxes import GRID, BoxCases, box_mask, dilated

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
