from dataclasses import replace

import numpy as np
import pytest

from cxrlab.data.phantom.patients import FINDINGS, Radiograph, sample
from cxrlab.data.phantom.render import Phantom, draw, heart_half_width

SIZE = 96


@pytest.fixture(scope="module")
def radiographs() -> list[Radiograph]:
    return [image for image in sample(num_patients=12, seed=3) if image.number == 0]


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_is_brighter_inside_its_box(radiographs: list[Radiograph], name: str):
    for image in radiographs:
        healthy, none = draw(image.anatomy, image.exposure, (), size=SIZE)
        sick, boxes = draw(image.anatomy, image.exposure, (name,), size=SIZE)
        assert none == {}
        assert list(boxes) == [name]
        x, y, width, height = (round(value * SIZE) for value in boxes[name])
        change = sick.astype(float) - healthy
        inside = change[y : y + height, x : x + width]
        assert inside.mean() > 5
        # The box holds nearly all of what the finding adds, and what it adds stands out in it.
        assert inside.sum() > 0.75 * change[change > 0].sum()


def test_the_rest_of_the_image_does_not_depend_on_a_finding(radiographs: list[Radiograph]):
    image = radiographs[0]
    healthy, _ = draw(image.anatomy, image.exposure, (), size=SIZE)
    sick, boxes = draw(image.anatomy, image.exposure, ("Nodule",), size=SIZE)
    x, y, width, height = (round(value * SIZE) for value in boxes["Nodule"])
    outside = np.ones((SIZE, SIZE), dtype=bool)
    outside[y - 3 : y + height + 3, x - 3 : x + width + 3] = False
    np.testing.assert_array_equal(sick[outside], healthy[outside])


def test_nodule_radius_is_two_to_five_percent_of_the_image(radiographs: list[Radiograph]):
    for image in radiographs:
        _, boxes = draw(image.anatomy, image.exposure, ("Nodule",), size=512)
        assert 0.02 < boxes["Nodule"][2] / 2 < 0.055


@pytest.mark.parametrize("enlarged", [False, True])
@pytest.mark.parametrize("anteroposterior", [False, True])
def test_the_heart_has_the_width_it_is_said_to_have(
    radiographs: list[Radiograph], *, enlarged: bool, anteroposterior: bool
):
    for image in radiographs:
        upright = replace(image.exposure, angle=0.0, scale=1.0, anteroposterior=anteroposterior)
        phantom = Phantom(image.anatomy, upright, 400)
        columns = np.flatnonzero((phantom.heart(enlarged=enlarged) > 0).any(axis=0))
        width = (columns[-1] - columns[0] + 1) / 400
        expected = heart_half_width(image.anatomy, upright, enlarged=enlarged)
        assert width == pytest.approx(expected, abs=0.012)
        assert (expected / image.anatomy.half_width > 0.5) == enlarged


def test_lungs_are_darker_than_abdomen_and_air_is_darkest(radiographs: list[Radiograph]):
    for image in radiographs:
        still = replace(image.exposure, angle=0.0, scale=1.0, shift=(0.0, 0.0))
        pixels, _ = draw(image.anatomy, still, (), size=SIZE)
        lung = pixels[SIZE // 3 : SIZE // 2, round(0.66 * SIZE) : round(0.72 * SIZE)].mean()
        abdomen = pixels[-8:, SIZE // 3 : 2 * SIZE // 3].mean()
        assert pixels.dtype == np.uint8
        assert pixels[0, 0] < lung < abdomen - 60


def test_images_of_a_patient_differ_by_exposure_only(radiographs: list[Radiograph]):
    first, second = (image for image in radiographs[:2])
    pixels, _ = draw(first.anatomy, first.exposure, (), size=SIZE)
    again, _ = draw(first.anatomy, first.exposure, (), size=SIZE)
    other, _ = draw(first.anatomy, second.exposure, (), size=SIZE)
    np.testing.assert_array_equal(pixels, again)
    assert (pixels != other).mean() > 0.5
