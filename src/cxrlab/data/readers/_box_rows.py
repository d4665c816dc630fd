"""Boxes around findings as tables write them, a row each or lists in a cell, as fractions of the image."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, UnidentifiedImageError

from cxrlab.data.dicom import is_dicom
from cxrlab.data.manifest import BOX_COLUMNS, LABEL
from cxrlab.data.readers._classes import Classes, listed, plain
from cxrlab.data.readers._settings import one_of, section
from cxrlab.data.readers._sheets import Sheet
from cxrlab.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]

_SIDES = ("x", "y", "width", "height")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_KEYS = {
    "table": None,
    "image_column": None,
    "label": None,
    "label_column": None,
    **dict.fromkeys((*_SIDES, *_CORNERS)),
    "column": None,
    "corners": False,
    "units": "pixels",
    "size": None,
}
# Keys of a box that is a mapping, whatever stands between their words.
_SPELLED = {"xmin": 0, "x1": 0, "left": 0, "x": 0, "ymin": 1, "y1": 1, "top": 1, "y": 1}
_ENDS = {"xmax": 0, "x2": 0, "right": 0, "ymax": 1, "y2": 1, "bottom": 1}
_LENGTHS = {"width": 0, "w": 0, "height": 1, "h": 1}
_THREADS = 8
_NAMED = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoxRows:
    """Where boxes stand; the settings of ``data.reader.boxes``, checked.

    Attributes:
        tables: Files of their own; () where they stand in the tables of the images.
        image_column: Column with the images in tables of their own; None for that of the images.
        label: The label of all boxes; None where ``label_column`` holds it.
        label_column: Column with a word for each box, or a list of them.
        columns: Four columns; () where ``column`` holds whole boxes.
        column: Column with a box, a list of boxes or of polygons.
        is_corners: Whether the last two numbers are the other corner, not width and height.
        units: "pixels", or "fractions" of the image.
        size: Width and height of the images, each a number or a column; None to look into each image's file.
    """

    tables: tuple[str, ...]
    image_column: str | None
    label: str | None
    label_column: str | None
    columns: tuple[str, ...]
    column: str | None
    is_corners: bool
    units: str
    size: tuple[float | str, ...] | None

    @classmethod
    def read(cls, setting: object) -> "BoxRows":
        """Read ``data.reader.boxes``.

        Raises:
            ConfigError: If a setting does not fit.
        """
        key = "data.reader.boxes"
        settings = section(setting, key, _KEYS)
        sides = [name for name in _SIDES if settings[name] is not None]
        corners = [name for name in _CORNERS if settings[name] is not None]
        wholes = [sides == list(_SIDES), corners == list(_CORNERS), settings["column"] is not None]
        if sum(wholes) != 1 or (len(sides), len(corners)) not in {(0, 0), (4, 0), (0, 4)}:
            raise ConfigError(
                f"{key} needs x, y, width and height, or x_min, y_min, x_max and y_max, or column: one of "
                f"these, whole; it has {[*sides, *corners, *(['column'] if wholes[2] else [])]}."
            )
        if (settings["label"] is None) == (settings["label_column"] is None):
            raise ConfigError(f"{key} needs either label, the name of a label, or label_column.")
        size = settings["size"]
        if size is not None and (isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2):
            raise ConfigError(f"{key}.size={size} must be [width, height], each a number or a column.")
        tables = [settings["table"]] if isinstance(settings["table"], str) else settings["table"] or []
        return cls(
            tables=tuple(tables),
            image_column=settings["image_column"],
            label=settings["label"],
            label_column=settings["label_column"],
            columns=tuple(str(settings[name]) for name in (*sides, *corners)),
            column=settings["column"],
            is_corners=bool(corners) or bool(settings["corners"]),
            units=one_of(settings["units"], f"{key}.units", ("pixels", "fractions")),
            size=None if size is None else tuple(size),
        )

    def boxes(self, sheet: Sheet, images: "pd.Series[str]", classes: Classes | None) -> pd.DataFrame:
        """Return the boxes of a table in its own units, one row each.

        Args:
            sheet: The table.
            images: The image of each row, path under the root.
            classes: What words mean; None where a word is its label.

        Returns:
            The columns of a manifest's boxes, and ``image_width`` and ``image_height`` where ``size`` gives
            them.

        Raises:
            DataError: If a column is missing, or a cell holds no box.
        """
        rows, sides = self._columns(sheet) if self.columns else self._cells(sheet)
        if not len(rows):
            return pd.DataFrame({name: [] for name in BOX_COLUMNS})
        places = np.array([row for row, _ in rows])
        if self.is_corners and self.columns:
            sides = np.column_stack([sides[:, :2], sides[:, 2:] - sides[:, :2]])
        table = pd.DataFrame(sides, columns=list(BOX_COLUMNS[2:]))
        table.insert(0, "image", images.to_numpy()[places])
        table.insert(1, "label", self._labels(sheet, rows, classes))
        if self.size is not None:
            for name, side in zip(("image_width", "image_height"), self.size, strict=True):
                table[name] = self._size_of(sheet, side)[places] if isinstance(side, str) else float(side)
        return table.explode("label", ignore_index=True).dropna(subset="label").reset_index(drop=True)

    def _size_of(self, sheet: Sheet, column: str) -> Floats:
        cells = sheet.column(column, "data.reader.boxes.size")
        return np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)

    def _columns(self, sheet: Sheet) -> tuple[list[tuple[int, int]], Floats]:
        """Return row and number of each box within its row, and its four numbers, shape ``(K, 4)``."""
        cells = pd.DataFrame({name: sheet.column(name, "data.reader.boxes") for name in self.columns})
        numbers = cells.apply(pd.to_numeric, errors="coerce")
        is_empty = cells.apply(lambda column: column.str.lower().isin(["", "nan", "none", "null"]))
        wrong = (numbers.isna() & ~is_empty).any(axis=1) | (is_empty.any(axis=1) & ~is_empty.all(axis=1))
        if wrong.any():
            line = cells.index[wrong][0]
            raise DataError(
                f"Line {line} of {sheet.path} holds {cells[wrong].iloc[0].tolist()} in {list(self.columns)}: "
                "a box is four numbers, or four empty cells where there is none."
            )
        rows = np.flatnonzero(~is_empty.to_numpy().any(axis=1))
        return [(int(row), 0) for row in rows], numbers.to_numpy(dtype=np.float64)[rows]

    def _cells(self, sheet: Sheet) -> tuple[list[tuple[int, int]], Floats]:
        cells = sheet.column(str(self.column), "data.reader.boxes.column")
        rows: list[tuple[int, int]] = []
        sides: list[list[float]] = []
        for row, cell in enumerate(cells):
            try:
                boxes = boxes_in(str(cell), is_corners=self.is_corners)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"Line {cells.index[row]} of {sheet.path} holds {cell[:80]!r} in {self.column!r}, which "
                    f"is no box: {error}."
                ) from error
            rows += [(row, number) for number in range(len(boxes))]
            sides += boxes
        return rows, np.array(sides, dtype=np.float64).reshape(-1, 4)

    def _labels(
        self, sheet: Sheet, rows: Sequence[tuple[int, int]], classes: Classes | None
    ) -> list[list[str]]:
        if self.label is not None or self.label_column is None:
            return [[str(self.label)] for _ in rows]
        cells = sheet.column(self.label_column, "data.reader.boxes.label_column")
        meanings: dict[str, Sequence[str]] = {}
        words_of: dict[int, list[str]] = {}
        number_of: dict[int, int] = {}
        for row, _ in rows:
            number_of[row] = number_of.get(row, 0) + 1
        labels = []
        for row, number in rows:
            if row not in words_of:
                words_of[row] = _words(str(cells.iloc[row]))
            words = words_of[row]
            if len(words) not in (1, number_of[row]):
                raise DataError(
                    f"Line {cells.index[row]} of {sheet.path} has {number_of[row]} boxes and {len(words)} "
                    f"words in {self.label_column!r}: one for each is needed."
                )
            word = words[number if len(words) > 1 else 0]
            if word not in meanings:
                meanings[word] = classes.of_word(word) if classes else (word,)
            labels.append(list(meanings[word]))
        return labels

    def fractions(self, boxes: pd.DataFrame, root: Path) -> pd.DataFrame:
        """Return boxes as fractions of their images, whose size comes from the table or from the files.

        Raises:
            ConfigError: If they are fractions already.
        """
        if self.units == "fractions" or not len(boxes):
            return boxes[list(BOX_COLUMNS)]
        if boxes[list(_SIDES)].to_numpy(dtype=np.float64).max() <= 1:
            raise ConfigError(
                f"No number of the {len(boxes)} boxes below {root} is above 1: they are no pixels. Set "
                "data.reader.boxes.units=fractions."
            )
        if self.size is None:
            images = boxes["image"].unique().tolist()
            with ThreadPoolExecutor(_THREADS) as threads:
                sizes = dict(
                    zip(images, threads.map(lambda image: size_of(root / image), images), strict=True)
                )
            size = np.array([sizes[image] for image in boxes["image"]], dtype=np.float64)
        else:
            size = boxes[["image_width", "image_height"]].to_numpy(dtype=np.float64)
        sides = boxes[list(_SIDES)].to_numpy(dtype=np.float64) / np.tile(size, 2)
        ends = sides[:, :2] + sides[:, 2:]
        if np.mean(ends.max(axis=1) > 1.01) > 0.5:
            _log.warning(
                f"Most of the {len(boxes)} boxes reach beyond their images, such as that of "
                f"{boxes['image'].iloc[0]} with {size[0].tolist()} pixels. If the images were made smaller: "
                "data.reader.boxes.size=[width, height] of the originals. If the last two numbers are a "
                "corner: x_max and y_max, or corners: true."
            )
        return boxes[list(BOX_COLUMNS)].assign(**dict(zip(_SIDES, sides.T, strict=True)))


def known_boxes(boxes: pd.DataFrame, table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the boxes of images and labels at hand that the table calls present, the label's name as there.

    Args:
        boxes: With the columns ``image`` and ``label``.
        table: Of a manifest.
        where: For messages.
    """
    columns = [str(name).removeprefix(LABEL) for name in table if str(name).startswith(LABEL)]
    labels = {plain(name): name for name in columns}
    boxes = boxes[boxes["image"].isin(table["image"])]
    named = boxes["label"].map(lambda label: labels.get(plain(str(label))))
    others = boxes["label"][named.isna()]
    if len(others):
        _log.info(
            f"{len(others)} boxes of {where} are of other labels, such as {sorted(set(others))[:_NAMED]}"
        )
    boxes = boxes.assign(label=named).dropna(subset="label")
    rows = pd.Index(table["image"]).get_indexer(pd.Index(boxes["image"]))
    places = np.array([columns.index(label) for label in boxes["label"]], dtype=np.intp)
    is_present = table[[LABEL + name for name in columns]].to_numpy(dtype=np.float64)[rows, places] == 1
    lost = boxes[~is_present]
    if len(lost):
        _log.warning(
            f"{len(lost)} of {len(boxes)} boxes of {where} are left out, for their image's label does not "
            f"call the finding present, such as {lost['label'].iloc[0]} in {lost['image'].iloc[0]}"
        )
    kept: pd.DataFrame = boxes[is_present]
    return kept.drop_duplicates().reset_index(drop=True)


def _words(cell: str) -> list[str]:
    values = listed(cell) if cell.startswith(("[", "(")) else None
    return [str(value).strip() for value in values] if values else [cell]


def boxes_in(cell: str, *, is_corners: bool) -> list[list[float]]:
    """Return the boxes of a cell as x, y, width and height.

    A cell holds a box, a list of boxes or a list of polygons, whose bounding boxes are taken; nothing, or a
    word such as none, means no box.

    Args:
        cell: Text, as JSON or Python write lists and mappings.
        is_corners: Whether the last two of four numbers are the other corner.

    Raises:
        ValueError: If it holds something else.

    Example:
        >>> boxes_in("[[237, 660, 260, 702]]", is_corners=True)
        [[237.0, 660.0, 23.0, 42.0]]
        >>> boxes_in("{'xmin': 1.0, 'ymin': 2.0, 'width': 3.0, 'height': 4.0}", is_corners=False)
        [[1.0, 2.0, 3.0, 4.0]]
        >>> boxes_in("[[[0, 1], [4, 2], [1, 9]]]", is_corners=False), boxes_in("none", is_corners=False)
        ([[0.0, 1.0, 4.0, 8.0]], [])
    """
    text = cell.strip()
    if text.lower() in {"", "none", "nan", "null", "-1", "[]"}:
        return []
    value = listed(text) if text.startswith(("[", "(", "{")) else text.replace(",", " ").split()
    if value is None:
        raise ValueError("it is no list")
    if value and (_are_numbers(value) or _are_points(value)):
        value = [value]
    return [_box(item, is_corners) for item in value]


def _are_numbers(value: Sequence[Any]) -> bool:
    return all(isinstance(item, int | float | str) for item in value)


def _are_points(value: Sequence[Any]) -> bool:
    is_pair = (isinstance(item, Sequence) and len(item) == 2 and _are_numbers(item) for item in value)
    return len(value) > 1 and all(is_pair)


def _box(item: Any, is_corners: bool) -> list[float]:
    if isinstance(item, Mapping):
        return _spelled(item)
    if _are_numbers(item) and len(item) == 4:
        x, y, third, fourth = map(float, item)
        return [x, y, third - x, fourth - y] if is_corners else [x, y, third, fourth]
    points = item
    if _are_numbers(item) and len(item) > 4 and len(item) % 2 == 0:  # a polygon, as COCO writes it
        points = list(pairwise(item))[::2]
    if not points or not all(isinstance(point, Sequence) and len(point) == 2 for point in points):
        raise ValueError(f"{str(item)[:40]} is neither four numbers nor a polygon")
    corners = np.array(points, dtype=np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [float(side) for side in (*low, *(high - low))]


def _spelled(item: Mapping[str, Any]) -> list[float]:
    low, size = [np.nan, np.nan], [np.nan, np.nan]
    named = {str(name).lower().replace("_", "").replace("-", ""): value for name, value in item.items()}
    for name, axis in _SPELLED.items():
        if name in named:
            low[axis] = float(named[name])
    for name, axis in _LENGTHS.items():
        if name in named:
            size[axis] = float(named[name])
    for name, axis in _ENDS.items():
        if name in named:
            size[axis] = float(named[name]) - low[axis]
    if np.isnan([*low, *size]).any():
        raise ValueError(f"of {sorted(named)} a place and a size cannot be told")
    return [*low, *size]


def size_of(path: Path) -> tuple[float, float]:
    """Return width and height that the header of an image tells, in pixels; NaN where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(132 + 4)
        if is_dicom(head):
            from pydicom import dcmread

            dataset = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["Rows", "Columns"])
            return float(dataset.Columns), float(dataset.Rows)
        with Image.open(path) as image:
            return float(image.width), float(image.height)
    except (
        OSError,
        ImportError,
        AttributeError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ):
        return np.nan, np.nan
