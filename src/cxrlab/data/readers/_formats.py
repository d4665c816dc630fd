"""Files of any format as a table of text: CSV, Excel, JSON, JSON lines, Parquet."""

import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.readers._content import MOST_BYTES, as_text, as_utf8, content_of, kind_of
from cxrlab.data.readers._csv import read_cells, table_of
from cxrlab.data.readers._settings import PART_WORDS
from cxrlab.errors import ConfigError, DataError, MissingPackageError

SUFFIXES = (".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".ndjson", ".parquet", ".npz")
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_RECORD_LISTS = ("images", "annotations", "categories")


def read_file(
    path: Path, *, columns: Sequence[str] | str | None = None, separator: str | None = None
) -> pd.DataFrame:
    r"""Read a table of any format but npz, by its content, with every cell as text and empty ones as ``""``.

    JSON may be a list of records, such a list for each part (which becomes the column ``split``), a list
    beside facts about it, records by name of the image, columns of lists, or COCO's lists of images,
    annotations and categories. What lies deeper becomes ``outer.inner``; lists stay lists, as text.

    Args:
        path: Plain or gzip.
        columns: Names of the columns of a table without a header; or a regular expression of one line, whose
            named groups are the columns: ``(?P<patient>\S+) (?P<image>.+) (?P<class>\S+)``.
        separator: Of a file of text; None to find it.

    Returns:
        The index is the line, or in JSON and Parquet the number of the record from 1.

    Raises:
        ConfigError: If ``columns`` or ``separator`` do not fit.
        DataError: If the file cannot be read.
        MissingPackageError: If a package for this format is not installed.
    """
    if separator is not None and len(separator) != 1:
        raise ConfigError(f"data.reader.separator={separator!r} must be one character, such as ';' or ' '.")
    if isinstance(columns, str):
        return _matched(path, columns)
    content = content_of(path)
    kind = kind_of(content)
    if kind == "an Excel file (.xlsx)":
        return table_of(_excel_rows(content, path), path, columns)
    if kind == "a Parquet file":
        return _parquet(content, path)
    if _is_json(text := as_utf8(content, path), path):
        return _json(as_text(text, path), path)
    del content, text
    return read_cells(path, columns=columns, separator=separator)


def _is_json(content: bytes, path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    is_bracketed = start[:1] in (b"[", b"{") and not name.endswith(_TEXT_SUFFIXES)
    return is_bracketed or re.match(rb'\[\s*{\s*"|{\s*"', start) is not None


def _matched(path: Path, pattern: str) -> pd.DataFrame:
    """Read a file of text by a regular expression of its lines."""
    try:
        line_pattern = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.reader.columns={pattern} is no regular expression: {error}.") from error
    if not line_pattern.groupindex:
        raise ConfigError(
            f"data.reader.columns={pattern} must be a list of names, or a regular expression with groups "
            "that have names: (?P<image>.+)."
        )
    rows: dict[int, dict[str, str]] = {}
    text = as_text(as_utf8(content_of(path), path), path)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = line_pattern.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"Line {number} of {path}, {line[:80]!r}, does not fit data.reader.columns={pattern}."
            )
        rows[number] = {name: (cell or "").strip() for name, cell in match.groupdict().items()}
    return _text_table(
        pd.DataFrame.from_dict(rows, orient="index", columns=list(line_pattern.groupindex)), "line"
    )


def _text_table(table: pd.DataFrame, index: str) -> pd.DataFrame:
    return table.astype(str).rename_axis(index=index)


def package(name: str, what: str) -> Any:
    """Import an optional package.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs {name.partition('.')[0]}, which is not installed: pip install 'cxrlab[tables]'. "
            "Or save it as CSV."
        ) from error


def _excel_rows(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the first sheet that has any, from the header on."""
    openpyxl = package("openpyxl", f"The Excel file {path}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise DataError(f"The table {path} cannot be read: it unpacks to {size:,} bytes. Save it as CSV.")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = {
            sheet.title: [list(map(_word, row)) for row in sheet.iter_rows(values_only=True)]
            for sheet in book
        }
    except DataError:
        raise
    except Exception as error:  # of a damaged file, openpyxl raises whatever its parts do
        raise DataError(f"The Excel file {path} cannot be read: {error}. Save it anew, or as CSV.") from error
    filled = {title: rows for title, rows in sheets.items() if any(map(any, rows))}
    if len(filled) > 1:
        raise DataError(
            f"The Excel file {path} has {len(filled)} sheets, {list(filled)}: save the one with the images "
            f"alone."
        )
    rows = [(number, row) for number, row in enumerate(next(iter(filled.values()), []), start=1) if any(row)]
    width = max((sum(map(bool, row)) for _, row in rows[:8]), default=0)
    start = next(
        (i for i, (_, row) in enumerate(rows) if sum(map(bool, row)) > width // 2), 0
    )  # below a title
    columns = len(rows[start][1]) if rows else 0
    return ((number, (row + [""] * columns)[: max(columns, len(row))]) for number, row in rows[start:])


def _word(value: object) -> str:
    """Return a value of a record as text: whole numbers without decimals, nothing as "", a list as JSON."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()


def _parquet(content: bytes, path: Path) -> pd.DataFrame:
    parquet = package("pyarrow.parquet", f"The Parquet file {path}")
    try:
        table = parquet.read_table(io.BytesIO(content))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except Exception as error:  # pyarrow's errors have no common class of their own
        raise DataError(f"The Parquet file {path} cannot be read: {error}.") from error
    rows = ({name: values[row] for name, values in columns.items()} for row in range(table.num_rows))
    return _of_records(rows, path)


def _json(text: str, path: Path) -> pd.DataFrame:
    try:
        value = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            value = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            raise DataError(f"The JSON file {path} cannot be read: {error}.") from error
    except RecursionError as error:
        raise DataError(f"The JSON file {path} cannot be read: it is nested too deeply.") from error
    return _of_records(_records_in(value, path), path)


def _records_in(value: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of whatever a JSON file holds."""
    if isinstance(value, Mapping):
        if all(isinstance(value.get(name), list) for name in _RECORD_LISTS):
            return _coco(value)
        return _in_mapping(value, path)
    if not isinstance(value, list) or not all(isinstance(record, Mapping) for record in value):
        raise DataError(
            f"The JSON file {path} holds no table: a list of records, {{column: [values]}} or "
            "{image: record} is needed."
        )
    return iter(value)


def _in_mapping(value: Mapping[str, Any], path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a mapping: of columns, of images, or around a list."""
    items = list(value.values())
    lists = [item for item in items if isinstance(item, list)]
    tables = {
        name: item
        for name, item in value.items()
        if isinstance(item, list) and item and all(isinstance(record, Mapping) for record in item)
    }
    if tables and set(map(str.casefold, value)) <= set(PART_WORDS):
        return ({**record, "split": name} for name, item in tables.items() for record in item)
    if len(tables) == 1 and len(lists) == 1:
        return iter(lists[0])
    if {"columns", "data"} <= set(value) <= {"columns", "data", "index", "index_names", "column_names"}:
        return (dict(zip(value["columns"], row, strict=True)) for row in value["data"])
    are_images = all(
        re.search(r"\.(png|jpe?g|dcm|dicom|tiff?|bmp|webp)$", name, re.IGNORECASE) for name in value
    )
    if items and len(lists) == len(items) and not are_images:
        return _of_columns(value, path)
    if items and all(isinstance(item, Mapping) for item in items):
        if all(
            str(name).isdigit() for item in items for name in item
        ):  # columns by row, as pandas writes them
            return _of_columns({name: list(item.values()) for name, item in value.items()}, path)
        return ({"image": name, **record} for name, record in value.items())
    if are_images and items:
        return ({"image": name, "label": item} for name, item in value.items())
    return iter([value])


def _of_columns(columns: Mapping[str, list[Any]], path: Path) -> Iterator[dict[str, Any]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns of the JSON file {path} differ in length: {lengths}.")
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _coco(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record for each annotation, with what is said of its image, and for each bare image."""
    images = {image.get("id"): image for image in value["images"]}
    categories = {category.get("id"): category.get("name") for category in value["categories"]}
    annotated = {annotation.get("image_id") for annotation in value["annotations"]}
    found = (
        {
            **images.get(annotation.get("image_id"), {}),
            "category": categories.get(annotation.get("category_id")),
            "bbox": annotation.get("bbox"),
        }
        for annotation in value["annotations"]
        if annotation.get("image_id") in images
    )
    bare = (
        {**image, "category": None, "bbox": None} for key, image in images.items() if key not in annotated
    )
    return chain(found, bare)


def _of_records(records: Iterator[Mapping[str, Any]], path: Path) -> pd.DataFrame:
    rows = [{str(name).strip(): _word(value) for name, value in _flat(record)} for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        raise DataError(f"The table {path} cannot be read: it is empty.")
    table = {name: [row.get(name, "") for row in rows] for name in columns}
    return _text_table(pd.DataFrame(table, index=pd.RangeIndex(1, len(rows) + 1)), "record")


def _flat(record: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, bytes | bytearray):
            continue  # an image inside the table
        if isinstance(value, Mapping):
            yield from _flat(value, f"{outer}{name}.")
        else:
            yield f"{outer}{name}", value
