"""Data sets that keep each class in a folder: paediatric pneumonia, malaria, and anyone's own."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxrlab.data.decode import SUFFIXES
from cxrlab.data.manifest import COVARIATE, LABEL, Manifest
from cxrlab.data.readers._paths import check_root, compiled, listing
from cxrlab.errors import ConfigError, DataError, MissingFileError

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_CHILD = r"^(person\d+|(?:NORMAL2-)?IM-\d+)[_-]"
_CAUSE = r"^person\d+_(bacteria|virus)_"
_SLIDE = r"^(C\d+)(?:[A-O]?(P\d+))?"

_log = logging.getLogger(__name__)


def read_pneumonia(root: Path) -> Manifest:
    """Return the manifest of the paediatric chest radiographs of Kermany et al. (Cell 2018).

    A patient is the folder and the number in the file name, for the numbers start again in each folder of
    the distribution. The 16 images of ``val`` are too few to validate on, so they join the training pool.

    Args:
        root: Folder with ``train`` and, where they are there, ``val`` and ``test``, each with the folders
            ``NORMAL`` and ``PNEUMONIA``.

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient.
    """
    files, patients = _children(root)
    labels = {"Pneumonia": files["class"] == "PNEUMONIA"}
    return _manifest(root, files, patients, labels, name="pneumonia", cause=_causes(files))


def read_pneumonia_classes(root: Path, *, by_cause: bool = False) -> Manifest:
    """Return the same images with exclusive classes: Normal and Pneumonia, or pneumonia by its cause.

    The cause stands in the file name: ``person1_bacteria_2.jpeg``.

    Args:
        root: As in :func:`read_pneumonia`.
        by_cause: Labels are Normal, Bacterial Pneumonia and Viral Pneumonia.

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient, or no cause where that is wanted.
    """
    files, patients = _children(root)
    cause, is_ill = _causes(files), files["class"] == "PNEUMONIA"
    labels = {"Normal": ~is_ill, "Pneumonia": is_ill}
    if by_cause:
        unknown = files["image"][is_ill & (cause == "")]
        if len(unknown):
            raise DataError(
                f"{len(unknown)} names of files in PNEUMONIA tell no cause, for instance "
                f"{list(unknown[:3])}; they should look like person1037_virus_1714.jpeg. Rename them, or set "
                "data.reader.by_cause=false."
            )
        labels = {
            "Normal": ~is_ill,
            "Bacterial Pneumonia": cause == "bacteria",
            "Viral Pneumonia": cause == "virus",
        }
    return _manifest(root, files, patients, labels, name="pneumonia", cause=cause)


def _children(root: Path) -> tuple[pd.DataFrame, "pd.Series[str]"]:
    """Return the files of the paediatric set, those of val moved to train, and the patient of each."""
    files = scan(root, ("NORMAL", "PNEUMONIA"))
    if "train" not in set(files["part"]):
        raise MissingFileError(f"data.root={root} has no folder train; it holds {listing(root)}.")
    number = files["file"].str.extract(_CHILD, expand=False)
    _check_patients(
        files, number, "person1037_virus_1714.jpeg, IM-0131-0001.jpeg or NORMAL2-IM-0479-0001.jpeg"
    )
    patients = files["part"] + "/" + number
    files["part"] = files["part"].replace("val", "train")
    return files, patients


def _causes(files: pd.DataFrame) -> "pd.Series[str]":
    return files["file"].str.extract(_CAUSE, expand=False).fillna("")


def read_malaria(root: Path) -> Manifest:
    """Return the manifest of the blood cells of the NLM malaria set (Rajaraman et al., PeerJ 2018).

    A patient is the case that starts the file name: ``C33P1`` of ``C33P1thinF_…``, ``C51P12`` of both slides
    ``C51AP12`` and ``C51BP12``, and ``C213`` of ``C213ThinF_…``, which has no second number.

    Args:
        root: Folder with ``Parasitized`` and ``Uninfected``, or with parts that hold them (``train``,
            ``validation``, ``test``).

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient.
    """
    files = scan(root, ("Parasitized", "Uninfected"))
    groups = files["file"].str.extract(_SLIDE)
    _check_patients(files, groups[0], "C33P1thinF_IMG_20150619_114756a_cell_179.png")
    patients = groups[0] + groups[1].fillna("")
    return _manifest(root, files, patients, {"Parasitized": files["class"] == "Parasitized"}, name="malaria")


def read_folder(
    root: Path, *, patient_pattern: str | None = None, positive_class: str | None = None
) -> Manifest:
    """Return the manifest of any tree ``<class>/<image>`` or ``<part>/<class>/<image>``.

    Two classes make one label, named after the second of them in sorted order; more make one label each.

    Args:
        root: Folder with the class folders, or with parts that hold them: ``train``, ``val`` (or ``valid``,
            ``validation``) and ``test``.
        patient_pattern: Regular expression searched for in the file name; its first group (or all of it,
            where it has none) is the patient. None takes every file for a patient of its own.
        positive_class: Class that is to be the only label, 1 for it and 0 for all others.

    Raises:
        ConfigError: If the pattern is no regular expression, or there is no class of that name.
        MissingFileError: If there are no class folders.
        DataError: If a class folder is empty, there is one class only, or the pattern fits not every file.
    """
    files = scan(root, None)
    labels = _class_labels(root, files["class"], positive_class)
    return _manifest(root, files, _patients(files, patient_pattern), labels, name=root.resolve().name)


def _class_labels(
    root: Path, classes: "pd.Series[str]", positive: str | None
) -> dict[str, "pd.Series[bool]"]:
    names = sorted(classes.unique())
    if len(names) < 2:
        raise DataError(f"data.root={root} has one class folder, {names}; at least two are needed.")
    if positive is not None and positive not in names:
        raise ConfigError(f"data.reader.positive_class={positive} is no class of {root}; it has {names}.")
    if positive is None and len(names) == 2:
        positive = names[1]
    return {name: classes == name for name in ([positive] if positive is not None else names)}


def _patients(files: pd.DataFrame, pattern: str | None) -> "pd.Series[str]":
    if pattern is None:
        _log.warning(
            "data.reader.patient_pattern is null: every file counts as a patient of its own, so that "
            "patients cannot be kept apart, and images of one may be in both train and test"
        )
        return files["image"]
    expression = compiled(pattern, "data.reader.patient_pattern")
    matches = [expression.search(name) for name in files["file"]]
    group = min(expression.groups, 1)
    patients = pd.Series([match[group] or "" if match else "" for match in matches], index=files.index)
    missed = files["image"][patients == ""]
    if len(missed):
        raise DataError(
            f"data.reader.patient_pattern={pattern} does not match {len(missed)} of {len(files)} file names, "
            f"for instance {list(missed[:3])}."
        )
    return patients


def _check_patients(files: pd.DataFrame, patients: "pd.Series[str]", example: str) -> None:
    missed = files["image"][patients.isna()]
    if len(missed):
        raise DataError(
            f"{len(missed)} file names tell no patient, for instance {list(missed[:3])}; they should look "
            f"like {example}. Rename them, or use data=folder with data.reader.patient_pattern."
        )


def _manifest(
    root: Path,
    files: pd.DataFrame,
    patients: "pd.Series[str]",
    labels: Mapping[str, "pd.Series[bool]"],
    *,
    name: str,
    **covariates: "pd.Series[str]",
) -> Manifest:
    columns = {"image": files["image"], "patient": patients, "split": files["part"]}
    columns |= {COVARIATE + key: values for key, values in covariates.items()}
    columns |= {LABEL + key: values.astype(float) for key, values in labels.items()}
    return Manifest(root, pd.DataFrame(columns), name=name)


def scan(root: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    """Return one row for each image below ``root``, sorted by part, class and name.

    Hidden files and folders, ``__MACOSX`` and files of other types are passed over.

    Args:
        root: Folder with parts (``train``, ``val``, ``valid`` or ``validation``, ``test``) that hold class
            folders, or with the class folders themselves.
        classes: Names of the class folders, each of which must be there; None takes all folders for classes.

    Returns:
        Columns ``image`` (path under the root), ``part`` ("train", "val", "test" or ""), ``class``, ``file``.

    Raises:
        MissingFileError: If there is no root, or folders are missing.
        DataError: If a class folder holds no image.
    """
    check_root(root)
    parts = [name for name in _folders(root) if name.lower() in _PARTS]
    if not parts and not _holds_classes(root, classes):
        raise MissingFileError(_wrong_layout(root, classes))
    _warn_of_others(root, parts, classes)
    rows = [
        (f"{folder}/{name}", _PARTS.get(part.lower(), ""), folder.rpartition("/")[2], name)
        for part in parts or [""]
        for folder in _class_folders(root, part, classes)
        for name in _images(root / folder)
    ]
    return pd.DataFrame(rows, columns=["image", "part", "class", "file"])


def _folders(folder: Path) -> list[str]:
    hidden = (".", "__MACOSX")
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(hidden)
    )


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]


def _holds_classes(folder: Path, classes: Sequence[str] | None) -> bool:
    names = _folders(folder)
    if classes is None:
        return any(_names(folder / name) for name in names)
    return set(classes) <= set(names)


def _fits(folder: Path, classes: Sequence[str] | None) -> bool:
    return any(name.lower() in _PARTS for name in _folders(folder)) or _holds_classes(folder, classes)


def _wrong_layout(root: Path, classes: Sequence[str] | None) -> str:
    expected = "class folders" if classes is None else f"class folders {' and '.join(classes)}"
    message = (
        f"data.root={root} holds neither {expected} nor parts (train, val, test) with them; "
        f"it holds {listing(root)}."
    )
    nested = [root / name for name in _folders(root) if _fits(root / name, classes)]
    return f"{message} Set data.root={nested[0]}." if len(nested) == 1 else message


def _warn_of_others(root: Path, parts: list[str], classes: Sequence[str] | None) -> None:
    others = [name for name in _folders(root) if name not in parts]
    if parts and others and classes is None:
        _log.warning(f"reading only the folders {parts} of {root}; {others} are no parts and are left out")


def _class_folders(root: Path, part: str, classes: Sequence[str] | None) -> list[str]:
    folder = root / part
    names = _folders(folder)
    missing = [name for name in classes or () if name not in names]
    if missing or not names:
        raise MissingFileError(
            f"{folder} lacks {f'the class folders {missing}' if missing else 'class folders'}; "
            f"it holds {listing(folder)}."
        )
    return [f"{part}/{name}" if part else name for name in classes or names]


def _images(folder: Path) -> list[str]:
    names = _names(folder)
    if not names:
        raise DataError(
            f"The class folder {folder} holds no image ({', '.join(SUFFIXES)}); it holds {listing(folder)}. "
            "Fill it, or remove it."
        )
    return names
