"""The manifest: one row an image. Readers make it, every later step reads only this."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.patients import named_spellings, unified
from cxrlab.errors import ConfigError, DataError
from cxrlab.files import reading

if TYPE_CHECKING:
    from cxrlab.data.published import PublishedComparison

PARTS = ("train", "val", "test")
LABEL = "label/"
COVARIATE = "covariate/"
BOX_COLUMNS = ("image", "label", "x", "y", "width", "height")

_OVERHANG = 0.01
_NAMED = 3

_log = logging.getLogger(__name__)


def read_table(path: Path) -> pd.DataFrame:
    """Read a manifest or predictions table; names stay text, and only numbers can be missing.

    An image may be called NA, and a number such as 0012 keeps its zeros.
    """
    columns = read_csv(path, nrows=0).columns
    text = {name: str for name in ("image", "patient", "split", "part") if name in columns}
    numbers = {name: [""] for name in columns if name not in text}
    return read_csv(path, dtype=text, keep_default_na=False, na_values=numbers)


def images_digest(table: pd.DataFrame) -> str:
    """Return 12 hex digits that depend on images and patients, whatever their labels; empty for no rows.

    By those of two test parts it is told whether two trainings were kept from the same images.

    Args:
        table: With the columns ``image`` and ``patient``.
    """
    rows = table[["image", "patient"]].sort_values("image").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()[:12] if len(table) else ""


def read_csv(path: Path, remedy: str = "", **options: Any) -> pd.DataFrame:
    """Read a table that cxrlab wrote; whatever is wrong with it is said with its name.

    Args:
        path: The file.
        remedy: What to do where it is damaged, a sentence.
        options: Of ``pandas.read_csv``.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it is empty, cut short, or no table.
    """
    with reading(path, remedy):
        table: pd.DataFrame = pd.read_csv(path, **options)
        return table


def escaped(name: str) -> str:
    r"""Return a file's name for a message: bytes of it that are no UTF-8 as ``\xe4``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(text: str) -> bool:
    """Tell whether a text can be written as UTF-8; names of files may hold bytes that cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class LeftOut:
    """Files of a data set's folder that are not used, of one reason and suffix.

    Attributes:
        reason: Why, as a person is told: "masks, which are no class".
        suffix: Of their names, with its point, in lower case; "" where they have none.
        count: How many.
        examples: Up to three of them, relative to the root.
        is_loss: Whether they may be images that should be there: a warning, and no mere note.
    """

    reason: str
    suffix: str
    count: int
    examples: tuple[str, ...] = ()
    is_loss: bool = False

    def __str__(self) -> str:
        return f"{self.count:,} {self.suffix or 'without suffix'} ({self.reason})"


def _no_boxes() -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series(dtype=object if name in {"image", "label"} else float) for name in BOX_COLUMNS}
    )


def usable_boxes(boxes: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the boxes that can be used, and what is wrong with the others, each by its image and label.

    A side that reaches beyond the image by a hundredth of it or less, as a reader's hand does, is cut off at
    its edge.

    Args:
        boxes: With the columns of ``BOX_COLUMNS``.
    """
    sides = boxes[list(BOX_COLUMNS[2:])].to_numpy(dtype=np.float64)
    low, high = sides[:, :2], sides[:, :2] + sides[:, 2:]
    faults = {
        "has no place": np.isnan(sides).any(axis=1),
        "has no area": (sides[:, 2:] <= 0).any(axis=1),
        "lies outside the image": (low < -_OVERHANG).any(axis=1) | (high > 1 + _OVERHANG).any(axis=1),
    }
    fault = np.select(list(faults.values()), list(faults), default="")
    records = boxes.assign(fault=fault)[fault != ""].to_dict("records")
    unusable = tuple(
        f"{box['label']} in {box['image']} {box['fault']} (x={box['x']:g}, y={box['y']:g}, "
        f"width={box['width']:g}, height={box['height']:g})"
        for box in records
    )
    low, high = low.clip(0, 1), high.clip(0, 1)
    cut = np.concatenate([low, high - low], axis=1)
    is_over = (sides[:, :2] < 0).any(axis=1) | (sides[:, :2] + sides[:, 2:] > 1).any(axis=1)
    mended = np.where(is_over[:, None], cut, sides)
    kept = boxes.assign(**dict(zip(BOX_COLUMNS[2:], mended.T, strict=True)))
    return kept[fault == ""].reset_index(drop=True), unusable


def _checked_label(values: "pd.Series[float]") -> "pd.Series[float]":
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    wrong = values[~numbers.isin([0.0, 1.0]) & values.notna()].unique()
    if len(wrong):
        raise DataError(
            f"{values.name} holds {wrong.tolist()[:3]}; labels are 1 (present), 0 (absent) or empty."
        )
    return numbers


@dataclass(frozen=True)
class Manifest:
    """A data set as a table, with the folder its images lie in.

    Attributes:
        root: Folder that every ``image`` is relative to.
        table: Columns ``image`` (path under the root, with forward slashes), ``patient``, ``split`` (the
            data set's own part, ``""`` where it has none), ``part`` (``train``, ``val`` or ``test``; ``""``
            until it is split), ``covariate/<name>`` and ``label/<name>`` as float: 1 present, 0 absent,
            NaN unknown. Labels stand in the order that the network's outputs have.
        boxes: Columns ``image, label, x, y, width, height``, the last four as fractions of the image,
            ``x, y`` being the upper left corner. Empty where the data set has none.
        num_listed: Images that the data set's own table lists, present or not.
        name: What the data set is called in reports.
        unusable_boxes: What is wrong with boxes that were left out, a sentence each.
        missing: Images that are listed but not on disk.
        extra: Images on disk that no table lists.
        left_out: Files that the reader passed over, by reason.
        spellings: Ways in which patients are written who are written in more than one way, the one that
            ``patient`` holds first; see :func:`cxrlab.data.patients.patient_key`.
        raw: For the audit: ``image`` and, where the data set has them, ``findings`` (text with ``|``) and
            ``age`` (years) as its own table lists them, before anything was mended; None where it has none.
        published: How its numbers stand to the published ones; None where none are known.
        negative: What the data set calls images without its one label, such as ``Normal``; ``""`` where it
            has no word for them, or several labels.

    Raises:
        DataError: If a column is missing, an image stands twice, has no patient (a word such as ``nan`` is
            none) or a name that is no UTF-8, a part is unknown, a label is not 0, 1 or NaN, or the boxes lack
            a column. Boxes outside the image or without area are left
            out with a warning.

    Example:
        >>> table = pd.DataFrame({"image": ["a.png"], "patient": ["1"], "split": [""], "label/Edema": [1.0]})
        >>> Manifest(Path("/data"), table).labels
        ['Edema']
    """

    root: Path
    table: pd.DataFrame
    boxes: pd.DataFrame = field(default_factory=_no_boxes)
    num_listed: int = 0
    name: str = ""
    unusable_boxes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    spellings: tuple[tuple[str, ...], ...] = ()
    raw: pd.DataFrame | None = None
    published: "PublishedComparison | None" = None
    negative: str = ""

    def __post_init__(self) -> None:
        table = self.table.reset_index(drop=True)
        missing = [name for name in ("image", "patient", "split") if name not in table]
        if missing:
            raise DataError(f"The manifest of {self.root} lacks the columns {missing}; it has {list(table)}.")
        if "part" not in table:
            table.insert(3, "part", "")
        for column in table.columns[table.columns.str.startswith(LABEL)]:
            table[column] = _checked_label(table[column])
        given = table["patient"]
        several: tuple[tuple[str, ...], ...] = ()
        if not given.equals(table["image"]):  # else nobody is known, and a file may be called nan
            table["patient"], several = unified(given)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "num_listed", self.num_listed or len(table))
        self._check_rows(given)
        self._check_boxes()
        if several:
            object.__setattr__(self, "spellings", (*self.spellings, *several))
            _log.warning(
                "%s of %s %s written in more than one way, such as %s: each counts as one",
                "1 patient" if len(several) == 1 else f"{len(several)} patients", self.root,
                "is" if len(several) == 1 else "are", named_spellings(several),
            )  # fmt: skip

    def _check_rows(self, given: "pd.Series[Any]") -> None:
        """Refuse rows that cannot be used; ``given`` are the patients as they were written."""
        table = self.table
        if not is_utf8("\n".join(map(str, table["image"]))):
            wrong_names = [escaped(name) for name in table["image"] if not is_utf8(str(name))]
            raise DataError(
                f"{len(wrong_names)} images of {self.root} have names that are no UTF-8, for instance "
                f"{wrong_names[0]}. Rename them; convmv -f latin1 -t utf8 does so."
            )
        twice = table["image"][table["image"].duplicated()].unique()
        if len(twice):
            raise DataError(
                f"{len(twice)} images of {self.root} stand twice in its manifest: {list(twice[:3])}."
            )
        nobody = table["image"][table["patient"] == ""]
        if len(nobody):
            words = sorted({str(word) for word in given[nobody.index].dropna()} - {""})
            raise DataError(
                f"{len(nobody)} images of {self.root} have no patient, for instance {list(nobody[:3])}"
                + (f"; {', '.join(map(repr, words[:3]))} names nobody" if words else "")
                + ". They may be of people who have other images too, in another part: fill in who they are, "
                "or leave them out"
                + (" (or, if this is somebody's id, write it otherwise)." if words else ".")
            )
        wrong = table["part"][~table["part"].isin(["", *PARTS])].unique()
        if len(wrong):
            raise DataError(
                f"The manifest of {self.root} has the parts {list(wrong[:3])}; parts are {PARTS}."
            )

    def _check_boxes(self) -> None:
        missing = [name for name in BOX_COLUMNS if name not in self.boxes]
        if missing:
            raise DataError(f"The boxes of {self.root} lack the columns {missing}.")
        usable, unusable = usable_boxes(self.boxes)
        if unusable:
            object.__setattr__(self, "boxes", usable)
            object.__setattr__(self, "unusable_boxes", (*self.unusable_boxes, *unusable))
            _log.warning(
                "%d boxes of %s are left out, for they must lie in the image, in fractions of it: %s.",
                len(unusable), self.root, "; ".join(unusable[:_NAMED]),
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of the network's outputs."""
        return [name.removeprefix(LABEL) for name in self.table.columns if name.startswith(LABEL)]

    @property
    def covariates(self) -> list[str]:
        """Names of the covariates."""
        return [name.removeprefix(COVARIATE) for name in self.table.columns if name.startswith(COVARIATE)]

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """Labels as an array of shape ``(N, L)``: 1 present, 0 absent, NaN unknown."""
        return self.table[[LABEL + name for name in self.labels]].to_numpy(dtype=np.float32)

    def part(self, name: str) -> "Manifest":
        """Return the rows whose part is ``name``, with their boxes."""
        return self.rows(self.table["part"] == name)

    def rows(self, mask: "pd.Series[bool]") -> "Manifest":
        """Return the rows where ``mask`` holds, with their boxes."""
        table = self.table[mask]
        boxes = self.boxes[self.boxes["image"].isin(table["image"])]
        return replace(self, table=table, boxes=boxes.reset_index(drop=True))

    def select_labels(self, labels: Sequence[str] | None) -> "Manifest":
        """Keep ``labels`` only, in the order given; all of them where ``labels`` is None.

        Raises:
            ConfigError: If a name is unknown, stands twice, or none is given.
        """
        if labels is None:
            return self
        unknown = [name for name in labels if name not in self.labels]
        if unknown:
            raise ConfigError(
                f"data.labels names {unknown}, which this data set lacks; it has {self.labels}."
            )
        if not labels or len(set(labels)) != len(labels):
            raise ConfigError(f"data.labels={list(labels)} must name at least one label, and none twice.")
        others = [name for name in self.table.columns if not name.startswith(LABEL)]
        table = self.table[others + [LABEL + name for name in labels]]
        boxes = self.boxes[self.boxes["label"].isin(labels)].reset_index(drop=True)
        return replace(self, table=table, boxes=boxes)

    def named(self, rows: Sequence[int]) -> str:
        """Return the images of up to eight rows for a message, and how many more there are."""
        images = self.table["image"].iloc[list(rows)]
        return ", ".join(images.head(8)) + (f" and {len(images) - 8} more" if len(images) > 8 else "")

    def fingerprint(self) -> str:
        """Return 12 hex digits that depend on images, patients, parts and labels, not on the row order."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        columns = ["image", "patient", "part", *(LABEL + name for name in self.labels)]
        rows = self.table[columns].sort_values("image").to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(rows.encode()).hexdigest()[:12]

    def to_csv(self, path: Path) -> None:
        """Write the table; the root is left out, so that the file can be shared."""
        self.table.to_csv(path, index=False)
