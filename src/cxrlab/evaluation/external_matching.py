"""Another program's predictions and their targets put together: row by row, and label by label."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import LABEL
from cxrlab.data.readers._csv import holds_labels, parse_labels
from cxrlab.data.readers.nih import LABELS
from cxrlab.errors import DataError
from cxrlab.evaluation.external_table import ExternalTable
from cxrlab.evaluation.synonyms import match_labels
from cxrlab.metrics.predictions import PREDICTION, PROBABILITY, TARGET, Floats

_log = logging.getLogger(__name__)

Names = npt.NDArray[np.object_]
Rows = npt.NDArray[np.intp]

_MOST_MISSING = 0.1
_NUM_NIH_IMAGES = 112_120
_PROBABILITIES = (PROBABILITY, "prob_")
_TARGETS = (TARGET, LABEL)
_PREFIXES = (*_PROBABILITIES, *_TARGETS, PREDICTION)
_NO_FINDING = "No Finding"
_MOST_WORDS = 10  # labels are written in four words or so: 1, 0, -1, empty


def match_images(predictions: ExternalTable, targets: ExternalTable, elsewhere: Names) -> Rows:
    """Return the row of ``targets`` that belongs to each row of ``predictions``, shape ``(N,)``.

    Names are compared as they are written. Where one of the files gives no folders, and no file name stands
    twice in either, the file names decide. Names that differ in more, such as their endings, are an error: it
    would be a guess.

    Images of the targets without a prediction are left out with a warning; more than a tenth of them are an
    error. Of targets with a column ``part`` or ``split`` only the parts that the predictions touch are meant
    to be complete; and NIH's whole table names all its images, whichever part is evaluated.

    Args:
        predictions: The predictions.
        targets: Their targets, and perhaps others.
        elsewhere: Images that other predictions are of, shape ``(M,)``: they are not missed here.

    Raises:
        DataError: If an image has a prediction but no target, or more than a tenth have none.
    """
    rows = _rows(predictions.images, targets.images)
    if (rows < 0).any() and (by_file := _rows_by_file(predictions.images, targets.images)) is not None:
        _log.info(f"{predictions.path} and {targets.path} are matched by file name, whatever their folders")
        rows = by_file
    if (rows < 0).any():
        lacking = predictions.images[rows < 0]
        raise DataError(
            f"{len(lacking)} of {len(rows)} images of {predictions.path} have no target in {targets.path}: "
            f"{list(lacking[:3])}, where the targets name {list(targets.images[:3])}."
            + _hint(lacking, targets.images)
        )
    _check_complete(predictions, targets, rows, elsewhere)
    return rows


def _rows(wanted: Names, there: Names) -> Rows:
    return pd.Index(there).get_indexer(pd.Index(wanted))


def _rows_by_file(wanted: Names, there: Names) -> Rows | None:
    files, other_files = _files(wanted), _files(there)
    if (files != wanted).any() and (other_files != there).any():
        return None  # two folders that differ may hold two images of one file name
    if pd.Index(files).has_duplicates or pd.Index(other_files).has_duplicates:
        return None
    return _rows(files, other_files)


def _files(names: Names) -> Names:
    return np.array([name.rpartition("/")[2] for name in names], dtype=object)


def _stems(files: Names) -> Names:
    return np.array([name.rpartition(".")[0] or name for name in files], dtype=object)


def _hint(lacking: Names, there: Names) -> str:
    """Return what would make the names agree."""
    files, other_files = _files(lacking), _files(there)
    if np.isin(files, other_files).all():
        return " They differ in their folders only: write them alike, or without folders if no name repeats."
    if np.isin(_stems(files), _stems(other_files)).all():
        return " They differ in their ending, such as .png, only: write them alike."
    return " Remove those images, or give the targets that belong to these predictions."


def _check_complete(predictions: ExternalTable, targets: ExternalTable, rows: Rows, elsewhere: Names) -> None:
    parts = targets.parts()
    meant = np.ones(len(targets.images), dtype=bool)
    if parts is not None:
        touched = parts.iloc[rows].unique()
        meant = parts.isin(touched).to_numpy(copy=True)
        if len(touched) > 1:
            _log.warning(f"{predictions.path} mixes the parts {list(touched[:5])} of {targets.path}")
    meant[rows] = False
    known = _rows(elsewhere, targets.images)
    if (known < 0).any() and (by_file := _rows_by_file(elsewhere, targets.images)) is not None:
        known = by_file
    meant[known[known >= 0]] = False
    missing = targets.images[meant]
    if not len(missing):
        return
    message = (
        f"{len(missing)} of {len(missing) + len(rows)} images of {targets.path} have no prediction in "
        f"{predictions.path}, for instance {list(missing[:3])}"
    )
    if targets.find(["findinglabels"]) is not None and len(targets.images) >= _NUM_NIH_IMAGES:
        _log.info(
            f"{message}; {targets.path.name} names all images of NIH, so only those predicted are evaluated"
        )
    elif len(missing) > _MOST_MISSING * (len(missing) + len(rows)):
        raise DataError(
            f"{message}. Numbers of the rest would not be those of the data set: predict all, or give the "
            "targets of the part that was predicted (a column part or split tells it too)."
        )
    else:
        _log.warning(f"{message}; they are left out")


def read_labels(
    predictions: ExternalTable, targets: ExternalTable, groups: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return the labels that both tables have, with their probabilities and targets.

    Where a table has columns with a prefix (``probability/`` or ``prob_``; ``target/`` or ``label/``), these
    are its labels; else those without any. NIH's column "Finding Labels" stands for its 14 findings and "No
    Finding". Columns of the predictions without a prefix that the targets lack are ignored, unless they look
    like probabilities; labels of the targets without predictions are left out.

    Returns:
        L names in the spelling and order of the targets; probabilities, shape ``(N, L)``, with a row for each
        of ``predictions.images``; targets, shape ``(M, L)``, with a row for each of ``targets.images``, NaN
        where empty or -1 (uncertain).

    Raises:
        DataError: If no label is shared, the targets lack a label of the predictions, or a cell cannot be
            used.
    """
    targets = _with_findings(targets)
    offered, known = _columns(predictions, _PROBABILITIES), _columns(targets, _TARGETS)
    matched = match_labels(list(offered), list(known), groups)
    if predictions.path == targets.path and any(
        offered[own] == known[label] for own, label in matched.items()
    ):
        raise DataError(
            f"{predictions.path} holds predictions and targets, but does not say which is which: name its "
            "columns probability/<label> and target/<label>."
        )
    matched = {
        own: label
        for own, label in matched.items()
        if _is_target(targets, known[label]) or _is_probability(predictions, offered[own])
    }
    _check_labels_present(
        predictions, targets, [offered[own] for own in offered if own not in matched], known
    )
    if not matched:
        raise DataError(
            f"{predictions.path} and {targets.path} share no label: the one has the columns "
            f"{list(offered)[:20]}, the other {list(known)[:20]}. Name those that mean the same in "
            "synonyms.groups."
        )
    owners = {label: own for own, label in matched.items()}
    labels = tuple(label for label in known if label in owners)
    _log_unpredicted(targets, [known[label] for label in known if label not in owners])
    probabilities = [_probabilities(predictions, offered[owners[label]]) for label in labels]
    truths = [_truths(targets, known[label]) for label in labels]
    _warn_of_uncertain(targets, [known[label] for label in labels])
    return labels, np.stack(probabilities, axis=1), np.stack(truths, axis=1)


def read_decisions(
    predictions: ExternalTable, labels: Sequence[str], groups: Sequence[Sequence[str]]
) -> Floats | None:
    """Return the columns ``prediction/<label>`` that stand beside the probabilities.

    Args:
        predictions: The predictions.
        labels: L names of :func:`read_labels`.
        groups: Lists of names that mean the same label.

    Returns:
        1, 0, or NaN where empty or where a label has no such column, shape ``(N, L)``; None where no label
        has one. A column that holds anything else is left out and logged.
    """
    owners = {
        label: own
        for own, label in match_labels(list(_columns(predictions, _PROBABILITIES)), labels, groups).items()
    }
    decisions = np.full((len(predictions.images), len(labels)), np.nan)
    has_any = False
    for column, label in enumerate(labels):
        name = PREDICTION + owners[label]
        if name not in predictions.cells:
            continue
        numbers = pd.to_numeric(predictions.cells[name], errors="coerce").astype(np.float64)
        if (numbers.isin([0.0, 1.0]) | predictions.is_blank(name)).all():
            decisions[:, column] = numbers
            has_any = True
        else:
            _log.info(f"{predictions.path}: {name!r} holds more than 0, 1 and empty cells, and is ignored")
    return decisions if has_any else None


def _columns(table: ExternalTable, prefixes: Sequence[str]) -> dict[str, str]:
    """Return the column of each label: those with one of ``prefixes``, else those without any."""
    columns: dict[str, str] = {}
    for name in table.label_names():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None:
            label = name.removeprefix(prefix)
            if label in columns:
                raise DataError(f"{table.path} has two columns for {label}: {columns[label]!r} and {name!r}.")
            columns[label] = name
    return columns or {name: name for name in table.label_names() if not name.startswith(_PREFIXES)}


def _with_findings(table: ExternalTable) -> ExternalTable:
    """Add ``target/<label>`` for each finding of the column "Finding Labels", where there is one."""
    column = table.find(["findinglabels"])
    if column is None or any(name.startswith(_TARGETS) for name in table.label_names()):
        return table
    codes, combinations = pd.factorize(table.cells[column])
    sets = [set(str(combination).split("|")) - {_NO_FINDING} for combination in combinations]
    unknown = sorted(set().union(*sets) - set(LABELS))
    if unknown:
        raise DataError(
            f"The column {column!r} of {table.path} holds {unknown[:3]}, which are none of the 14 findings "
            f"{list(LABELS)}."
        )
    present = {label: [label in findings for findings in sets] for label in LABELS}
    present[_NO_FINDING] = [not findings for findings in sets]
    columns = {TARGET + label: np.array(rows, dtype=np.float64)[codes] for label, rows in present.items()}
    return replace(table, cells=table.cells.assign(**columns))


def _is_target(table: ExternalTable, column: str) -> bool:
    """Tell whether most cells hold labels: a column such as "Follow-up #" may stand in both files."""
    counts = table.cells[column].value_counts(dropna=False).head(_MOST_WORDS)
    num_labels = sum(count for word, count in counts.items() if holds_labels(pd.Series(["1", str(word)])))
    return num_labels * 2 > len(table.cells)


def _check_labels_present(
    predictions: ExternalTable, targets: ExternalTable, lacking: Sequence[str], known: Mapping[str, str]
) -> None:
    without_targets = [
        name
        for name in lacking
        if name.startswith(_PROBABILITIES)
        or (name not in targets.cells and _is_probability(predictions, name))
    ]
    if without_targets:
        raise DataError(
            f"The columns {without_targets[:5]} of {predictions.path} hold probabilities, and {targets.path} "
            f"has no targets for them: it has {list(known)[:20]}. Name labels that mean the same, such as "
            "'synonyms.groups=[[Effusion,Pleural Effusion]]', or remove the columns."
        )
    if lacking:
        _log.info(f"{predictions.path}: the columns {', '.join(lacking)} are no labels, and are ignored")


def _is_probability(table: ExternalTable, column: str) -> bool:
    """Tell whether a column looks like probabilities: numbers in [0, 1], and not only 0 and 1."""
    numbers = pd.to_numeric(table.cells[column], errors="coerce")[~table.is_blank(column)]
    return bool(len(numbers) and numbers.between(0, 1).all() and not numbers.isin([0, 1]).all())


def _log_unpredicted(targets: ExternalTable, columns: Sequence[str]) -> None:
    labels = [name for name in columns if name.startswith(_TARGETS) or holds_labels(targets.cells[name])]
    if labels:
        _log.info(f"{targets.path}: there are no predictions for {', '.join(labels)}, left out")


def _probabilities(table: ExternalTable, column: str) -> Floats:
    values = table.cells[column]
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    wrong = values[numbers.isna() & ~table.is_blank(column)]
    if len(wrong):
        others = f", and {len(wrong) - 1} other lines hold no number" if len(wrong) > 1 else ""
        raise DataError(
            f"The column {column!r} of {table.path} holds {wrong.iloc[0]!r} in line {wrong.index[0]}{others}"
            ". Probabilities are numbers from 0 to 1, with a decimal point."
        )
    if numbers.isin([0.0, 1.0]).all():
        _log.warning(
            f"{table.path}: {column!r} holds only 0 and 1, which are decisions rather than probabilities: "
            "its AUROC and average precision say little"
        )
    return np.asarray(numbers, dtype=np.float64)


def _truths(table: ExternalTable, column: str) -> Floats:
    values = table.cells[column]
    if pd.api.types.is_numeric_dtype(values):
        values = values.astype(np.float64)
        known = values.isin([0.0, 1.0])
        if (known | values.isna() | (values == -1)).all():
            return np.asarray(values.where(known), dtype=np.float64)
        values = values.astype(str)
    parsed = parse_labels(values, name=column, path=table.path, uncertain="ignore", blank="ignore")
    return np.asarray(parsed, dtype=np.float64)


def _warn_of_uncertain(table: ExternalTable, columns: Sequence[str]) -> None:
    counts = {name: int((pd.to_numeric(table.cells[name], errors="coerce") == -1).sum()) for name in columns}
    uncertain = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    if uncertain:
        _log.warning(f"{table.path}: targets of -1 are uncertain and left out as unknown: {uncertain}")
