"""A description to start from of a folder that is none of the known data sets: which table, which columns."""

import csv
import io
import os
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cxrlab.data.decode import SUFFIXES, image_format
from cxrlab.data.readers._class_folders import class_root
from cxrlab.data.readers._classes import is_none_word, look_alikes, plain, split_words
from cxrlab.data.readers._csv import BLANKS
from cxrlab.data.readers._formats import read_file
from cxrlab.data.recognise import head_of
from cxrlab.errors import UserError

# Looked at, so that a folder of 100,000 images takes seconds.
_MOST_FOLDERS = 300
_MOST_ENTRIES = 2000
_MOST_TABLES = 30
_ROWS = 200
_SAMPLE = 12
_MOST_CLASSES = 40
_SHOWN = 6

_TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_OTHERS = (".xlsx", ".json", ".jsonl", ".parquet", ".json.gz", ".jsonl.gz")
_MOST_BYTES = 2**26
_MASKS = re.compile(r"mask|segment|annotation", re.IGNORECASE)
_PATIENT = re.compile(
    r"(patient|subject|subj|person|case|mrn)[\W_]*(id|no|number|name|key)?s?$|^pid$", re.IGNORECASE
)
_SPLIT = re.compile(r"split|fold|part|subset|phase|^set", re.IGNORECASE)
_COVARIATES = {
    "view": re.compile(r"view|projection|position", re.IGNORECASE),
    "sex": re.compile(r"^(patient\W*)?(sex|gender)", re.IGNORECASE),
    "age": re.compile(r"\bage\b|^age|age$|patientage", re.IGNORECASE),
}
_CLASSES = re.compile(
    r"label|class|finding|diagnos|patholog|disease|target|category|condition", re.IGNORECASE
)
# Columns of 0 and 1 that say something else than what an image shows.
_NO_LABEL = re.compile(
    r"^unnamed|^index$|^id$|_id$|sex|gender|male|female|fold|split|age|view|frontal|lateral|rows|columns|width|height"
    r"|^b?box|^[xywh]$|^[xy]_?(min|max|\d)$|^(min|max)_?[xy]$|^(left|top|right|bottom)$",
    re.IGNORECASE,
)
_LABEL_WORDS = {"0", "1", "-1", "0.0", "1.0", "-1.0", "", "true", "false", "yes", "no", "nan"}
_PART_NAMES = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation", "validate", "dev", "development"},
    "test": {"test", "testing"},
}
_PARTS = {name for names in _PART_NAMES.values() for name in names}
_PATIENT_PATTERNS = (r"patient(\d+)", r"(\d{8})_\d{3}\.", r"(person\d+)_", r"([A-Za-z]+\d+)_")
# The same of files in class folders, whose names start as anything: P017 chest (2).png, 0017-1.png.
_NAME_STARTS = (r"^([A-Za-z]+[0-9]+)", r"^([0-9]+)[^0-9.]")
_MOST_NAMES = 1000
_FITTING = 0.9


@dataclass
class Guess:
    """What was found in a folder.

    Attributes:
        lines: The YAML file.
        seen: What it rests on, a sentence each.
        needed: What a person must fill in or check.
        classes: Names of class folders, where it has these instead of a table; then there is no YAML file.
        root: The folder that these lie in, or the parts that hold them; None where there are no such.
        name: A file in the class folders.
        patient_pattern: What may find the patient in the names of these files; None where nothing does.
    """

    lines: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    root: Path | None = None
    name: str = ""
    patient_pattern: str | None = None


@dataclass(frozen=True)
class _Table:
    name: str
    rows: list[dict[str, str]]

    def column(self, name: str) -> list[str]:
        return [row.get(name, "") for row in self.rows]

    @property
    def names(self) -> list[str]:
        return list(self.rows[0])


@dataclass(frozen=True)
class _Images:
    """Where images lie, as far as was looked.

    Attributes:
        root: The folder that was given.
        folders: Folders below it that hold images, with one of each.
        suffixes: Of these images.
    """

    root: Path
    folders: Mapping[str, str]
    suffixes: Sequence[str]


def guess(root: Path) -> Guess | None:
    """Return a description to start from; None where there are neither images nor tables.

    Args:
        root: Folder of the data set.
    """
    images = _find_images(root)
    tables = list(_tables(root))
    best = max(
        (found for table in tables if (found := _image_column(table, images))),
        key=lambda found: found.share * len(found.table.rows),
        default=None,
    )
    if best is not None:
        return _described(best, tables, images)
    if (folders := class_root(root)) is not None and len(folders[1]) <= _MOST_CLASSES:
        place, classes = folders
        names = _names_below(place, images)
        pattern = _start_of_names(names)
        return Guess(
            classes=classes,
            root=place,
            seen=[f"images in the folders {', '.join(classes)}"],
            name=next((name for name in names if re.search(pattern or "", name)), ""),
            patient_pattern=pattern,
        )
    if not images.folders and not tables:
        return None
    return _template(images, tables)


def _names_below(place: Path, images: _Images) -> list[str]:
    """Return names of images below a folder, as many of each of its folders."""
    folders = [
        path
        for folder in images.folders
        if not _MASKS.search(folder) and place in (path := images.root / folder).parents
    ]
    names: list[str] = []
    for folder in folders:
        with os.scandir(folder) as scanned:
            here = [
                entry.name
                for entry in islice(scanned, _MOST_ENTRIES)
                if Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith(".")
            ]
        names += sorted(here)[: max(1, _MOST_NAMES // len(folders))]
    return names


def _start_of_names(names: Sequence[str]) -> str | None:
    """Return the pattern that finds starts which several names share, in nearly all of them."""
    for pattern in _NAME_STARTS:
        starts = [match[1].casefold() for name in names if (match := re.search(pattern, name))]
        if len(starts) >= _FITTING * len(names) and 1 < len(set(starts)) < len(starts):
            return pattern
    return None


def _find_images(root: Path) -> _Images:
    """Walk through folders, the nearer first, and look for an image in each."""
    folders: dict[str, str] = {}
    suffixes: Counter[str] = Counter()
    looked_into: Counter[str] = Counter()
    waiting = deque([""])
    looked = 0
    while waiting and looked < _MOST_FOLDERS:
        folder = waiting.popleft()
        looked += 1
        try:
            with os.scandir(root / folder) as scanned:
                entries = list(islice(scanned, _MOST_ENTRIES))
        except OSError:
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                waiting.append(f"{folder}/{entry.name}".lstrip("/"))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                suffixes[Path(entry.name).suffix] += 1
                folders.setdefault(folder, entry.name)
            elif folder not in folders and looked_into[folder] < _SAMPLE:  # DICOM often has no suffix
                looked_into[folder] += 1
                if image_format(Path(entry.path)) is not None:
                    folders[folder] = entry.name
    return _Images(root, folders, [suffix for suffix, _ in suffixes.most_common(4)])


def _tables(root: Path) -> Sequence[_Table]:
    """Return the start of each table in the folder and in those of it."""
    paths = sorted(
        path for path in root.iterdir() if path.name.lower().endswith(_TABLES + _OTHERS) and path.is_file()
    )
    for folder in sorted(path for path in root.iterdir() if path.is_dir())[:50]:
        with os.scandir(folder) as scanned:
            names = [entry.name for entry in islice(scanned, _MOST_ENTRIES)]
        paths += [folder / name for name in sorted(names) if name.lower().endswith(_TABLES + _OTHERS)]
    tables = (_table(path, root) for path in paths[:_MOST_TABLES])
    return [table for table in tables if table is not None]


def _table(path: Path, root: Path) -> _Table | None:
    name = path.relative_to(root).as_posix()
    if not path.name.lower().endswith(_TABLES):
        try:
            cells = read_file(path).head(_ROWS) if path.stat().st_size <= _MOST_BYTES else None
        except (UserError, OSError):
            return None
        if cells is None or cells.empty:
            return None
        return _Table(
            name,
            [dict(zip(map(str, cells), map(str, row), strict=True)) for row in cells.itertuples(index=False)],
        )
    text = head_of(path)
    if len(text) >= 2**15:
        text = text[: text.rfind("\n") + 1]  # without the line that was cut
    header = text.partition("\n")[0]
    separator = max(",;\t|", key=header.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        rows = [
            {str(name).strip(): str(cell or "").strip() for name, cell in row.items() if name}
            for row in islice(reader, _ROWS)
        ]
    except csv.Error:
        return None
    if not rows or len(rows[0]) < 2:
        return None
    return _Table(name, rows)


@dataclass(frozen=True)
class _ImageColumn:
    """The column of a table that names images, and how: folder and suffix complete its cells."""

    table: _Table
    column: str
    folder: str
    suffix: str
    prefix: str
    search: bool
    share: float


def _image_column(table: _Table, images: _Images) -> _ImageColumn | None:
    if not images.folders:
        return None
    found = [candidate for name in table.names if (candidate := _as_images(table, name, images))]
    return max(found, key=lambda one: (one.share, -len(one.folder)), default=None)


def _as_images(table: _Table, name: str, images: _Images) -> _ImageColumn | None:
    cells = [cell.replace("\\", "/") for cell in dict.fromkeys(table.column(name)) if cell]
    are_numbers = all(re.fullmatch(r"-?\d{1,4}(\.\d+)?", cell) for cell in cells[:_SAMPLE])
    if len(cells) < 2 or (are_numbers and len(cells) < max(len(table.rows), _SAMPLE) / 2):
        return None
    sample = cells[:: max(1, len(cells) // _SAMPLE)][:_SAMPLE]
    suffixes = ["", *images.suffixes] if not sample[0].lower().endswith(SUFFIXES) else [""]
    best: _ImageColumn | None = None
    part = _part_of(table.name)  # the tables of two parts may name images alike
    for prefix in _prefixes(sample):
        for folder in _near(images):
            for suffix in suffixes:
                there = sum(
                    (images.root / folder / (cell.removeprefix(prefix) + suffix)).is_file() for cell in sample
                )
                share = there / len(sample)
                is_nearer = best is not None and share == best.share and _part_of(best.folder) != part
                if share and (
                    best is None or share > best.share or (is_nearer and part and _part_of(folder) == part)
                ):
                    best = _ImageColumn(table, name, folder, suffix, prefix, search=False, share=share)
        if best is not None and best.share >= 0.5:
            return best
    known = {first for first in images.folders.values()} | {
        Path(first).stem for first in images.folders.values()
    }
    bare = {cell.rpartition("/")[2] for cell in cells}
    if best is None and bare & known:  # one image of each folder was seen
        suffix = "" if sample[0].lower().endswith(SUFFIXES) else images.suffixes[0]
        return _ImageColumn(table, name, "", suffix, "", search=True, share=0.4)
    return best


def _near(images: _Images) -> list[str]:
    """Return the folders that a table's paths may be relative to: those with images, and those above them."""
    near = {"": None}
    for folder in images.folders:
        if _MASKS.search(folder):
            continue
        parts = folder.split("/")
        near |= {"/".join(parts[:number]): None for number in range(1, len(parts) + 1)}
    return list(near)[:_MOST_FOLDERS]


def _prefixes(cells: Sequence[str]) -> list[str]:
    """Return what may be taken off paths: nothing, or their first one or two folders where all share them."""
    parts = cells[0].split("/")
    starts = ["", *("/".join(parts[:number]) + "/" for number in (1, 2) if number < len(parts))]
    return [start for start in starts if all(cell.startswith(start) for cell in cells)]


def _part_of(name: str) -> str:
    """Return the part that a name tells by one of its words; "" where it tells none."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((part for part, names in _PART_NAMES.items() if words & names), "")


def _by_part(table: _Table, tables: Sequence[_Table]) -> dict[str, str]:
    """Return the tables with the same columns whose names tell their parts, where there are several."""
    parts: dict[str, str] = {}
    for other in tables:
        part = _part_of(other.name.rpartition("/")[2])
        if part and set(other.names) == set(table.names):
            parts.setdefault(part, other.name)
    ordered = {part: parts[part] for part in _PART_NAMES if part in parts}
    return ordered if len(ordered) > 1 and table.name in ordered.values() else {}


def _described(found: _ImageColumn, tables: Sequence[_Table], images: _Images) -> Guess:
    """Return the description of a table whose images were found."""
    table, result = found.table, Guess()
    parts = _by_part(table, tables)
    of_parts = {
        other.name: _as_images(other, found.column, images)
        for other in tables
        if other.name in parts.values()
    }
    places = list(dict.fromkeys(one.folder for one in of_parts.values() if one is not None))
    result.seen.append(
        f"{table.name} names images in the column {found.column!r}"
        + (f", in {found.folder}/" if found.folder else "")
        + (f", without {found.suffix}" if found.suffix else "")
    )
    reader = {"image_column": found.column}
    if found.folder and len(places) < 2:
        reader["image_folder"] = found.folder
    if found.prefix:
        reader["path_prefix"] = re.escape(found.prefix)
    if found.suffix:
        reader["image_suffix"] = found.suffix
    lines = _head(result)
    lines += ["  tables:", *(f"    {part}: {_quoted(name)}" for part, name in parts.items())] if parts else []
    lines += [] if parts else [f"  tables: {_quoted(table.name)}"]
    lines += [f"  {key}: {_quoted(value)}" for key, value in reader.items()]
    if len(places) > 1:
        result.needed.append(f"whether no image of one name lies in two of {', '.join(places)}")
        lines += ["  image_folder:", *(f"    - {_quoted(place)}" for place in places)]
    lines += ["  search: true"] if found.search else []
    taken = {found.column}
    lines += _patient_lines(found, result, taken)
    lines += _split_lines(table, result, taken) if not parts else []
    lines += _covariate_lines(table, taken)
    lines += _label_lines(table, result, taken)
    has_split = any(line.startswith("  split_column:") for line in lines)
    lines += [
        "split:",
        f"  method: {'official' if parts or has_split else 'grouped'}",
    ]
    result.lines = lines
    return result


def _head(result: Guess) -> list[str]:
    return [
        "# A description to start from: fill in what is marked with ???, and check the rest.",
        "# The keys are those of data=table; conf/data/table.yaml explains each.",
        *(f"# Seen: {line}." for line in result.seen),
        "defaults:",
        "  - table",
        "  - _self_",
        "reader:",
    ]


def _patient_lines(found: _ImageColumn, result: Guess, taken: set[str]) -> list[str]:
    table = found.table
    for name in table.names:
        if name not in taken and _PATIENT.search(name) and table.column(name) != table.column(found.column):
            taken.add(name)
            return [f"  patient_column: {_quoted(name)}"]
    cells = table.column(found.column)
    for pattern in _PATIENT_PATTERNS:
        matches = [re.search(pattern, cell + found.suffix) for cell in cells]
        people = {match[1] for match in matches if match}
        if all(matches) and 1 < len(people) < len(cells):
            result.needed.append(f"whether {pattern!r} finds the patient in an image's path")
            return ["  patient_column: null", f"  patient_pattern: {_quoted(pattern)}"]
    result.needed.append("who the patients are: no column or name tells them, so every image counts as one")
    return [
        "  # No column was taken for the patient. Name one, or patient_pattern: 'P(\\d+)_' for the path;",
        "  # with null every image is a patient of its own, and images of one may be in both train and test.",
        "  patient_column: null",
    ]


def _split_lines(table: _Table, result: Guess, taken: set[str]) -> list[str]:
    for name in table.names:
        words = {cell.lower() for cell in table.column(name) if cell}
        if name not in taken and words and words <= _PARTS:
            taken.add(name)
            return [f"  split_column: {_quoted(name)}"]
        if name not in taken and _SPLIT.search(name) and 1 < len(words) <= 10:
            taken.add(name)
            result.needed.append(
                f"whether {name!r} ({', '.join(sorted(words)[:4])}) gives the parts: part_words says how"
            )
            return [
                f"  # {name} may give the parts: split_column: {_quoted(name)}, and part_words for its words."
            ]
    return []


def _covariate_lines(table: _Table, taken: set[str]) -> list[str]:
    found = {}
    for key, pattern in _COVARIATES.items():
        column = next((name for name in table.names if name not in taken and pattern.search(name)), None)
        if column is not None:
            found[key] = column
            taken.add(column)
    return (
        [f"  covariates: {{{', '.join(f'{key}: {_quoted(name)}' for key, name in found.items())}}}"]
        if found
        else []
    )


def _label_lines(table: _Table, result: Guess, taken: set[str]) -> list[str]:
    free = [name for name in table.names if name not in taken and not _NO_LABEL.search(name)]
    labels = [
        name
        for name in free
        if {cell.lower() for cell in table.column(name)} <= _LABEL_WORDS and any(table.column(name))
    ]
    if labels:
        result.needed.append("whether these are all findings: " + ", ".join(labels))
        return ["  labels:", *(f"    - {_quoted(name)}" for name in labels)]
    for name in sorted(free, key=lambda name: not _CLASSES.search(name)):
        words = Counter(table.column(name))
        if 1 < len(words) <= _MOST_CLASSES and len(words) < len(table.rows) and not _is_number(words):
            result.needed.append(f"what the words of {name!r} mean: {_shown(words)}")
            return [
                "  # Words as labels: each word but those for no finding is a label of its own. Once words",
                "  # is given, it must name every word but those for no finding (others: ignore takes the",
                "  # rest for no finding). null: the image has no finding. unknown: [word, word] lists words",
                "  # that say nothing about an image.",
                "  classes:",
                f"    columns: {_quoted(name)}",
                *_word_lines(words, len(table.rows)),
            ]
    result.needed.append("labels: no column was taken for them")
    return [f"  # No column was taken for labels; there are {', '.join(table.names)}.", "  labels: ???"]


def _shown(words: Mapping[str, int]) -> str:
    """Return the first words as cells hold them, and how many are left out."""
    shown = [word or "(empty)" for word in sorted(words)]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f", ... and {more} more" if more > 0 else "")


def _word_lines(cells: Mapping[str, int], rows: int) -> list[str]:
    """Return each word with its count as a comment that says what it means now, to be changed."""
    spellings: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for cell, count in sorted(cells.items(), key=lambda one: (-one[1], one[0])):
        for word in dict.fromkeys(map(plain, split_words(cell))):
            spellings.setdefault(word, word)
            counts[word] += count
        for word in split_words(cell):
            if spellings[plain(word)] == plain(word):
                spellings[plain(word)] = " ".join(word.split())
    blank = sum(counts.pop(word, 0) for word in BLANKS) + cells.get("", 0)
    named = {word: spellings[word] for word in counts}
    alike = look_alikes([name for word, name in named.items() if not is_none_word(word)])
    lines = [
        f"    # The words of the first {rows} rows, with counts. Case does not count. To say what they mean,",
        "    # change these lines and take away the # that each begins with:",
        "    #words:",
    ]
    for word, name in named.items():
        meaning, note = ("null" if is_none_word(word) else _quoted(name)), ""
        if name in alike:
            meant = alike[name]
            note = f"; like {_quoted(meant)}?" if meant is not None else "; no finding (null)?"
        lines.append(f"    #  {_quoted(name)}: {meaning}  # {counts[word]}{note}")
    if blank:
        lines.append(
            f"    # (empty): {blank}, unknown; if an empty cell means no finding: data.reader.blank=negative"
        )
    return lines


def _is_number(words: Mapping[str, int]) -> bool:
    return all(re.fullmatch(r"-?\d*\.?\d*", word) for word in words)


def _template(images: _Images, tables: Sequence[_Table]) -> Guess:
    """Return what can be said of images that no table of text names."""
    result = Guess()
    if images.folders:
        folder, name = next(iter(images.folders.items()))
        result.seen.append(f"images such as {f'{folder}/{name}'.lstrip('/')}")
    for table in tables[:5]:
        result.seen.append(f"{table.name} with {', '.join(table.names[:8])}")
    lines = _head(result)
    if tables:
        lines += [
            f"  tables: {_quoted(tables[0].name)}",
            "  # The column that names the images, and the folder and suffix that complete its paths.",
            "  image_column: ???",
            "  image_folder: ''",
            "  image_suffix: ''",
            "  patient_column: ???",
            "  labels: ???",
        ]
        result.needed.append("image_column, patient_column and labels: no column names images that are there")
    else:
        folder, name = next(iter(images.folders.items()))
        suffix = Path(name).suffix
        lines += [
            "  # No table: the images are those that fit files; labels come from their names or folders.",
            f"  files: {_quoted(f'{folder}/*{suffix}'.lstrip('/'))}",
            "  derive:",
            "    # Its first group must be 0 or 1, or a word that classes: {columns: finding} maps.",
            "    finding:",
            "      from: image",
            "      pattern: ???",
            "  patient_column: null",
            "  labels: [finding]",
        ]
        result.needed.append(f"derive.finding.pattern: how a name such as {name} tells what the image shows")
    result.lines = lines
    return result


def _quoted(text: str) -> str:
    """Return a text as YAML writes it."""
    if re.fullmatch(r"[A-Za-z_./][\w ./+-]*", text) and text.lower() not in {
        "null",
        "true",
        "false",
        "yes",
        "no",
        "y",
        "n",
        "on",
        "off",
    }:
        return text
    return "'" + text.replace("'", "''") + "'"
