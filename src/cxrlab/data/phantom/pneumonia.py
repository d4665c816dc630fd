"""A drawn folder in the manner of the paediatric pneumonia set, for lessons without the set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cxrlab.data.phantom.new_folder import make_empty
from cxrlab.data.phantom.patients import Anatomy, Exposure
from cxrlab.data.phantom.render import draw
from cxrlab.errors import check_range

_CAUSES = ("bacteria", "virus")
_ILL = 0.6
_TEST = 0.3
_NUM_IMAGES = (0.35, 0.30, 0.35)
_FIRST_NORMAL = 101
_QUALITY = 92


def draw_pneumonia_folder(root: Path, *, num_patients: int = 120, size: int = 128, seed: int = 0) -> Path:
    """Draw chest radiographs into ``train`` and ``test``, each with ``NORMAL`` and ``PNEUMONIA``.

    Names are made as in the published set: ``person12_bacteria_34.jpeg`` is image 34 of child 12, whose
    pneumonia is bacterial, ``IM-0115-0001.jpeg`` is the first image of the healthy child 115. As there, the
    numbers of children start again in ``test``. Three children in five are ill: a bacterial pneumonia is a
    patch in one lung, a viral one a larger and fainter patch. That is a drawing, no teaching of radiology.

    Args:
        root: The folder, new or empty.
        num_patients: Children, three in ten of them in ``test``, with 1 to 3 images each.
        size: The mean width of the images in pixels; widths and heights vary by a fifth.
        seed: The same seed gives the same images on the same versions of the libraries.

    Returns:
        ``root``, as ``data=pneumonia`` and ``data=pneumonia_classes`` read it.

    Raises:
        ConfigError: If a number is too small.
        OutputError: If ``root`` holds anything, or is a file.
    """
    check_range("num_patients", num_patients, 10)
    check_range("size", size, 32)
    make_empty(root)
    rng = np.random.default_rng(seed)
    num_test = round(_TEST * num_patients)
    for part, count in (("train", num_patients - num_test), ("test", num_test)):
        num_ill = round(_ILL * count)
        for name in ("NORMAL", "PNEUMONIA"):
            (root / part / name).mkdir(parents=True)
        image = 0
        for person in range(1, num_ill + 1):
            cause = _CAUSES[rng.random() < 0.4]
            for pixels in _images(rng, cause, size):
                image += 1
                _save(pixels, root / part / "PNEUMONIA" / f"person{person}_{cause}_{image}.jpeg")
        for person in range(_FIRST_NORMAL, _FIRST_NORMAL + count - num_ill):
            for number, pixels in enumerate(_images(rng, None, size), start=1):
                _save(pixels, root / part / "NORMAL" / f"IM-{person:04d}-{number:04d}.jpeg")
    return root


def _images(rng: np.random.Generator, cause: str | None, size: int) -> list[np.ndarray]:
    """Draw the images of a child, who lies much the same in all of them."""
    anatomy = Anatomy.sample(rng, female=False)
    density = float(rng.uniform(0.15, 1.2))
    if cause == "virus":
        anatomy = replace(anatomy, opacity_radius=1.5 * anatomy.opacity_radius)
        density *= 0.8
    usual = Exposure.sample(rng, anteroposterior=True)
    width, cut = size * rng.uniform(0.85, 1.15), rng.uniform(0.82, 0.98)
    findings = () if cause is None else ("Opacity",)
    images = []
    for _ in range(1 + int(rng.choice(len(_NUM_IMAGES), p=_NUM_IMAGES))):
        other = Exposure.sample(rng, anteroposterior=True)
        x, y = usual.shift
        exposure = replace(
            usual,
            shift=(x + float(rng.normal(0, 0.006)), y + float(rng.normal(0, 0.006))),
            middle=0.7 * usual.middle + 0.3 * other.middle,
            severity=density * float(rng.uniform(0.85, 1.15)),
            seed=other.seed,
        )
        side = round(width * rng.uniform(0.97, 1.03))
        pixels, _ = draw(anatomy, exposure, findings, size=side)
        height = round(side * cut * rng.uniform(0.98, 1.02))
        top = (side - height) // 2
        images.append(pixels[top : top + height])
    return images


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, quality=_QUALITY)
