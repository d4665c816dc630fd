"""Reader of a data set that the project draws itself: phantoms with four findings and their boxes."""

import shutil
import uuid
from pathlib import Path

import pandas as pd
from PIL import Image
from rich.console import Console
from rich.progress import track

from cxrlab.data.manifest import BOX_COLUMNS, COVARIATE, LABEL, Manifest
from cxrlab.data.phantom.patients import FINDINGS, Radiograph, sample
from cxrlab.data.phantom.render import draw
from cxrlab.errors import DataError, OutputError, check_range

_COVARIATES = ("view", "sex", "age")
# Raised whenever the same numbers would give other images, so that an older set is not taken for a new one.
_VERSION = 1
_SMALLEST = 32


def _row(radiograph: Radiograph, image: str) -> dict[str, str | int]:
    return {
        "image": image,
        "patient": f"{radiograph.patient:05d}",
        "view": "AP" if radiograph.exposure.anteroposterior else "PA",
        "sex": "F" if radiograph.anatomy.female else "M",
        "age": radiograph.age,
        **{name: int(name in radiograph.findings) for name in FINDINGS},
    }


def _write(folder: Path, *, num_patients: int, size: int, seed: int) -> None:
    """Draw the images into ``folder/images`` and list them in ``labels.csv`` and ``boxes.csv``."""
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, str | int]] = []
    boxes: list[tuple[str | float, ...]] = []
    radiographs = sample(num_patients=num_patients, seed=seed)
    # Standard error, so that a program's own output stays clean.
    for radiograph in track(radiographs, "Drawing synthetic radiographs", console=Console(stderr=True)):
        image = f"images/{radiograph.patient:05d}_{radiograph.number}.png"
        pixels, drawn_boxes = draw(radiograph.anatomy, radiograph.exposure, radiograph.findings, size=size)
        # The noise does not compress, so a higher level costs time for nothing.
        Image.fromarray(pixels).save(folder / image, compress_level=1)
        rows.append(_row(radiograph, image))
        boxes.extend((image, name, *drawn_boxes[name]) for name in FINDINGS if name in drawn_boxes)
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    pd.DataFrame(boxes, columns=list(BOX_COLUMNS)).to_csv(folder / "boxes.csv", index=False)


def _is_complete(folder: Path) -> bool:
    return (folder / "labels.csv").is_file()


def _make(folder: Path, *, num_patients: int, size: int, seed: int) -> None:
    """Write the data set beside ``folder`` and rename it at the end: ``folder`` is whole or absent."""
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        _write(unfinished, num_patients=num_patients, size=size, seed=seed)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process that drew the same set was faster: its set is as good.
            if not _is_complete(folder):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _load(folder: Path) -> Manifest:
    try:
        table = pd.read_csv(folder / "labels.csv", dtype={"patient": str})
        boxes = pd.read_csv(folder / "boxes.csv", dtype={"image": str, "label": str})
        names = {name: COVARIATE + name for name in _COVARIATES} | {name: LABEL + name for name in FINDINGS}
        table = table[["image", "patient", *names]].rename(columns=names)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The synthetic data set in {folder} cannot be read: {error}. "
            "Delete that folder to have it drawn again."
        ) from error
    table.insert(2, "split", "")
    return Manifest(folder, table, boxes=boxes, name="synthetic")


def _folder(root: Path, num_patients: int, size: int, seed: int) -> Path:
    return root / f"{num_patients}-patients-{size}px-seed-{seed}-v{_VERSION}"


def is_drawn(root: Path, *, num_patients: int = 400, size: int = 256, seed: int = 0) -> bool:
    """Tell whether :func:`read` with these arguments would find the data set, and write nothing."""
    return _is_complete(_folder(root, num_patients, size, seed))


def read(root: Path, *, num_patients: int = 400, size: int = 256, seed: int = 0) -> Manifest:
    """Return a data set of phantoms, drawn below ``root`` at the first call and read from there ever after.

    The images are frontal radiographs in shape only: they show whether a pipeline learns what is there and
    points at it, and nothing about patients.

    Args:
        root: Folder that holds such data sets, one sub-folder for each choice of the numbers below.
        num_patients: Patients, with 1 to 6 images each, about 3 on average.
        size: Height and width of the PNG files in pixels.
        seed: The same seed gives the same files, to the byte, on the same versions of the libraries.

    Returns:
        A manifest whose root is the sub-folder, with the covariates view (PA or AP), sex (F or M) and age
        (years), the labels Effusion, Nodule, Opacity and Cardiomegaly, and a box for every positive.

    Raises:
        ConfigError: If a number is too small.
        OutputError: If the data set cannot be written.
        DataError: If what was written before cannot be read.
    """
    check_range("data.reader.num_patients", num_patients, 1)
    check_range("data.reader.size", size, _SMALLEST)
    check_range("data.reader.seed", seed, 0)
    folder = _folder(root, num_patients, size, seed)
    try:
        if not _is_complete(folder):
            _make(folder, num_patients=num_patients, size=size, seed=seed)
    except OSError as error:
        raise OutputError(
            f"The synthetic data set cannot be written to {folder}: {error}. "
            "Make room there, or set data.root to a folder that can be written."
        ) from error
    return _load(folder)
