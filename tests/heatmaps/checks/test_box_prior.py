from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt

from cxrlab.data.manifest import LABEL, Manifest
from cxrlab.data.readers import nih
from cxrlab.heatmaps.checks.boxes import (
    BoxCases,
    Floats,
    Mask,
    Pointing,
    box_frequency,
    image_centre,
    uniform_chance,
)

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
