"""NIH ChestX-ray14 as distributed, or any part of it, as a manifest."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import BOX_COLUMNS, COVARIATE, LABEL, Manifest, is_utf8
from cxrlab.data.published import Published, compared
from cxrlab.data.readers._content import plain_or_gz, text_of
from cxrlab.data.readers._csv import read_cells
from cxrlab.data.readers._folder_images import Tally, entries_of, is_hidden, log_left_out
from cxrlab.data.readers._paths import check_root, listing, root_hint
from cxrlab.errors import DataError, MissingFileError

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
# As NIH names them, and as the sample and the 224 px copy on Kaggle do; each may be compressed (.gz).
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
BOXES = ("BBox_List_2017.csv", "BBox_List_2017_Official_NIH.csv")
LISTS = {
    "train": ("train_val_list.txt", "train_val_list_NIH.txt"),
    "test": ("test_list.txt", "test_list_NIH.txt"),
}
_MIN_IMAGES = 50
_ORIGINAL_SIZE = 1024.0  # boxes are in pixels of the original image
_OLDEST = 120.0  # the first edition of the table holds ages up to 414 years
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
_COLUMNS = {
    "Image Index": "image",
    "Finding Labels": "findings",
    "Patient ID": "patient",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view",
}

# Files that look like one of ours, so that one of another name is not overlooked without a word.
_LIKE_OURS = re.compile(r"(data_?entry|bbox|_list|labels).*\.(csv|txt)(\.gz)?$", re.IGNORECASE)

_log = logging.getLogger(__name__)


def read(root: Path, *, published: Published | None = None) -> Manifest:
    """Return the manifest of those images of ChestX-ray14 that lie under ``root``.

    The official lists give ``split`` ("train" for ``train_val_list.txt``, "test" for ``test_list.txt``) and
    ``BBox_List_2017.csv`` gives the boxes, each where it is present. All-zero labels mean "No Finding". Every
    file may be compressed (``.gz``), and those of Kaggle's copies are known by their names there. Others that
    look like a table, a list or boxes are named in a warning.

    Args:
        root: Folder with ``Data_Entry_2017_v2020.csv``, the older ``Data_Entry_2017.csv`` or the sample's
            ``sample_labels.csv``, and PNG files in ``images``, ``images_001/images`` to
            ``images_012/images``, ``images-224/images-224`` or ``sample/images``.
        published: Numbers to compare with, see :func:`cxrlab.data.published.compared`.

    Raises:
        MissingFileError: If the folder, the table, the image folders or one of the two lists is missing.
        DataError: If the table cannot be understood, or fewer than 50 of its images are present.
        ConfigError: If ``published`` is of another form.

    References:
        Wang et al., ChestX-ray8, CVPR 2017.
    """
    table_path = _find_table(root)
    table, raw = read_table(table_path)
    table.insert(2, "split", read_lists(root, table["image"]))
    tally = Tally()
    files = _scan(root, tally)
    log_left_out(root, tally.entries)
    _check_present(table["image"], files, table_path)
    paths = {name: files[name] for name in table["image"] if name in files}
    present = table.assign(image=table["image"].map(paths)).dropna(subset="image")
    listed = set(table["image"])
    boxes_path = _found(root, BOXES)
    _warn_of_unused(root, [table_path, boxes_path, *(_found(root, names) for names in LISTS.values())])
    manifest = Manifest(
        root,
        present,
        num_listed=len(table),
        name="nih",
        missing=tuple(sorted(listed - paths.keys())),
        extra=tuple(path for name, path in files.items() if name not in listed),
        left_out=tally.entries,
        raw=raw,
    )
    if boxes_path is not None:
        manifest = replace(manifest, boxes=read_boxes(boxes_path, paths))
    return compared(manifest, published)


def _found(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the files, plain or compressed, that is there."""
    return next((path for name in names if (path := plain_or_gz(root / name))), None)


def _warn_of_unused(root: Path, used: Sequence[Path | None]) -> None:
    kept = {path.name for path in used if path is not None}
    others = sorted(
        path.name for path in root.iterdir() if _LIKE_OURS.search(path.name) and path.name not in kept
    )
    if others:
        _log.warning(
            f"{root} also holds {', '.join(others)}, which data=nih does not use: it read "
            f"{', '.join(sorted(kept))}"
        )


def read_lists(root: Path, images: "pd.Series[str]") -> "pd.Series[str]":
    """Return the official part of each of ``images`` (bare file names): "train", "test", or "" for neither.

    Raises:
        MissingFileError: If only one of the two lists is there.
        DataError: If an image is in both.
    """
    split = pd.Series("", index=images.index, dtype=images.dtype)
    paths = {part: _found(root, names) for part, names in LISTS.items()}
    there = {part: path for part, path in paths.items() if path is not None}
    if not there:
        return split
    if len(there) < len(LISTS):
        lacking = next(names[0] for part, names in LISTS.items() if part not in there)
        raise MissingFileError(
            f"{root} holds {next(iter(there.values())).name} but not {lacking}; put both official lists "
            "there, or remove the one."
        )
    listed = {part: set(text_of(path).split()) for part, path in there.items()}
    both = sorted(listed["train"] & listed["test"])
    if both:
        raise DataError(f"{len(both)} images are in both official lists of {root}, among them {both[:3]}.")
    for part, names in listed.items():
        split[images.isin(names)] = part
    return split


def _find_table(root: Path) -> Path:
    check_root(root)
    path = _found(root, TABLES)
    if path is None:
        raise MissingFileError(
            f"data.root={root} holds none of {list(TABLES)}, the table of ChestX-ray14, plain or as .gz; it "
            f"holds {listing(root)}."
            + (
                root_hint(root, TABLES)
                or " Set data.root to the folder with the table and the image folders."
            )
        )
    return path


def _scan(root: Path, tally: Tally) -> dict[str, str]:
    """Return the path under ``root`` of every PNG file by its name, and count all others in its folder.

    No PNG file is opened or even stat-ed.
    """
    folders = _image_folders(root)
    if not folders:
        raise MissingFileError(
            f"data.root={root} holds neither images/ nor images_001/ ..._012/; it holds {listing(root)}."
        )
    paths: dict[str, str] = {}
    twice: dict[str, str] = {}
    for folder in folders:
        for entry in entries_of(root / folder):
            name = entry.name
            if not name.lower().endswith(".png") or is_hidden(name) or not is_utf8(name):
                if not entry.is_dir():
                    tally.add_file(f"{folder}/{name}", entry, "images that are not PNG as those of the table")
            elif name in paths:
                twice[name] = folder
            else:
                paths[name] = f"{folder}/{name}"
    if twice:
        name, folder = next(iter(twice.items()))
        _log.warning(
            f"{len(twice)} images of {root} stand in two folders, for instance {paths[name]} and "
            f"{folder}/{name}: the first is used"
        )
    return paths


def _image_folders(root: Path) -> list[str]:
    """Return the folders that images may lie in, such as ``images_001/images`` and ``sample/images``."""
    outer = sorted(path.name for path in root.glob("images*") if path.is_dir())
    inner = [f"{name}/{below}" for name in outer for below in ("images", name)]
    sample = ["sample", "sample/images", "sample/sample/images"]
    return [folder for folder in [*outer, *inner, *sample] if (root / folder).is_dir()]


def _check_present(images: "pd.Series[str]", paths: dict[str, str], table: Path) -> None:
    absent = images[~images.isin(paths.keys())]
    present = len(images) - len(absent)
    example = list(absent[:3])
    if present < _MIN_IMAGES:
        raise DataError(
            f"{present} of the {len(images)} images listed in {table} are in the image folders beside it; "
            f"at least {_MIN_IMAGES} are needed."
            + (f" Missing are, for instance, {example}." if example else " For so few: data=table.")
        )
    if example:
        _log.warning(
            f"{len(absent)} of {len(images)} images listed in {table} are missing, for instance {example}; "
            f"using the {present} that are there"
        )


def read_boxes(path: Path, paths: dict[str, str]) -> pd.DataFrame:
    """Read the boxes on the images of ``paths``, which holds the path of each by its file name.

    Columns go by their position, for the header ``Bbox [x,y,w,h]`` splits at its own commas.

    Raises:
        DataError: If there are too few columns, a finding is unknown, or a side is not a number.
    """
    raw = read_cells(path).iloc[:, : len(BOX_COLUMNS)]
    if raw.shape[1] < len(BOX_COLUMNS):
        raise DataError(
            f"The boxes {path} have {raw.shape[1]} columns; image, finding, x, y, w and h are needed."
        )
    boxes = raw.set_axis(list(BOX_COLUMNS), axis=1)
    boxes["label"] = boxes["label"].replace("Infiltrate", "Infiltration")
    unknown = sorted(set(boxes["label"]) - set(LABELS))
    if unknown:
        raise DataError(f"The boxes {path} name the findings {unknown}, which are none of {list(LABELS)}.")
    try:
        pixels = boxes[list(BOX_COLUMNS[2:])].astype(float)
    except ValueError as error:
        raise DataError(f"A box of {path} is not in numbers: {error}.") from error
    boxes[list(BOX_COLUMNS[2:])] = pixels / _ORIGINAL_SIZE
    return boxes.assign(image=boxes["image"].map(paths)).dropna(subset="image").reset_index(drop=True)


def read_table(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the table of ChestX-ray14, either edition, plain or ``.gz``; the images need not be there.

    Returns:
        One row an image: ``image`` (bare file name), ``patient``, ``covariate/view``, ``covariate/sex``,
        ``covariate/age`` (years; NaN where absent or above 120) and the 14 labels, all 0 for "No Finding".
        And the columns ``image``, ``findings`` and ``age`` as they are listed, ages in years, for the audit.

    Raises:
        DataError: If a column is missing, a name or patient is empty, or a finding or an age is unknown.
    """
    raw = read_cells(path)
    missing = [name for name in _COLUMNS if name not in raw]
    if missing:
        raise DataError(f"The table {path} lacks the columns {missing}; it has {list(raw)}.")
    raw = raw.rename(columns=_COLUMNS)
    for name in ("Image Index", "Patient ID"):
        if empty := int((raw[_COLUMNS[name]] == "").sum()):
            raise DataError(f"{empty} rows of {path} have nothing in the column {name!r}.")
    columns: dict[str, object] = {"image": raw["image"], "patient": raw["patient"]}
    columns |= {COVARIATE + name: raw[name] for name in ("view", "sex")}
    ages = _parse_ages(raw["age"], path)
    columns[COVARIATE + "age"] = ages.where(ages <= _OLDEST)
    findings = _parse_findings(raw["findings"], path)
    columns |= {LABEL + name: findings[:, index] for index, name in enumerate(LABELS)}
    return pd.DataFrame(columns), raw[["image", "findings"]].assign(age=ages)


def _parse_findings(findings: "pd.Series[str]", path: Path) -> npt.NDArray[np.float64]:
    """Return 0 and 1, shape ``(N, 14)``; each of the some 800 combinations is taken apart once."""
    codes, combinations = pd.factorize(findings)
    rows = np.zeros((len(combinations), len(LABELS)))
    for row, combination in zip(rows, combinations, strict=True):
        # "No Finding" beside a finding is a contradiction that the audit names; the finding counts.
        for name in set(combination.split("|")) - {"No Finding"}:
            if name not in LABELS:
                raise DataError(
                    f"The column 'Finding Labels' of {path} holds {combination!r}; {name!r} is none of "
                    f"the 14 findings {list(LABELS)}."
                )
            row[LABELS.index(name)] = 1.0
    return rows[codes]


def _parse_ages(ages: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    """Return years from ``58``, ``058Y`` or ``011M``: the two editions of the table differ."""
    parts = ages.str.extract(r"^(?P<number>\d+)(?P<unit>[YMD]?)$")
    wrong = ages[parts["number"].isna() & (ages != "")].unique()
    if len(wrong):
        raise DataError(
            f"The column 'Patient Age' of {path} holds {list(wrong[:3])}; ages look like 58 or 058Y."
        )
    return parts["number"].astype(float) * parts["unit"].map(_YEARS).astype(float)
