"""Data sets that keep each class in a folder: paediatric pneumonia, malaria, and anyone's own."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL, Manifest
from cxrlab.data.published import Published, compared
from cxrlab.data.readers._class_folders import Found, find_images
from cxrlab.data.readers._healthy import healthy_of, is_healthy
from cxrlab.data.readers._paths import compiled, listing
from cxrlab.errors import ConfigError, DataError, MissingFileError, override

_CHILD = r"(?i)^(person\d+|(?:NORMAL2-)?IM-\d+)[_-]"
_CAUSE = r"(?i)^person\d+_(bacteria|virus)_"
_SLIDE = r"(?i)^(C\d+)(?:[A-O]?(P\d+))?"
# How the class folders are called, in any case.
_PNEUMONIA = {"NORMAL": ("normal",), "PNEUMONIA": ("pneumonia",)}
_MALARIA = {
    "Parasitized": ("parasitized", "parasitised", "parasite", "parasites", "infected"),
    "Uninfected": ("uninfected",),
}
_log = logging.getLogger(__name__)


def read_pneumonia(root: Path, *, published: Published | None = None) -> Manifest:
    """Return the manifest of the paediatric chest radiographs of Kermany et al. (Cell 2018).

    A patient is the folder and the number in the file name, for the numbers start again in each folder of
    the distribution. The 16 images of ``val`` are too few to validate on, so they join the training pool.

    Args:
        root: Folder with ``train`` and, where they are there, ``val`` and ``test``, each with the folders
            ``NORMAL`` and ``PNEUMONIA``, each in any case.
        published: Numbers of the whole data set to compare with, see
            :func:`cxrlab.data.published.compared`; None for none.

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient.
    """
    found, patients = _children(root)
    labels = {"Pneumonia": found.files["class"] == "PNEUMONIA"}
    return compared(
        _manifest(root, found, patients, labels, name="pneumonia", cause=_causes(found.files)), published
    )


def read_pneumonia_classes(
    root: Path, *, by_cause: bool = False, published: Published | None = None
) -> Manifest:
    """Return the same images with exclusive classes: Normal and Pneumonia, or pneumonia by its cause.

    The cause stands in the file name: ``person1_bacteria_2.jpeg``.

    Args:
        root: As in :func:`read_pneumonia`.
        by_cause: Labels are Normal, Bacterial Pneumonia and Viral Pneumonia.
        published: Numbers of the whole data set to compare with, see
            :func:`cxrlab.data.published.compared`; None for none.

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient, or no cause where that is wanted.
    """
    found, patients = _children(root)
    files = found.files
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
    return compared(_manifest(root, found, patients, labels, name="pneumonia", cause=cause), published)


def _children(root: Path) -> tuple[Found, "pd.Series[str]"]:
    """Return the files of the paediatric set, those of val moved to train, and the patient of each."""
    found = find_images(root, _PNEUMONIA)
    files = found.files
    if "train" not in set(files["part"]):
        raise MissingFileError(f"data.root={root} has no folder train; it holds {listing(root)}.")
    number = files["file"].str.extract(_CHILD, expand=False)
    _check_patients(
        files, number, "person1037_virus_1714.jpeg, IM-0131-0001.jpeg or NORMAL2-IM-0479-0001.jpeg"
    )
    patients = files["part"] + "/" + number
    files["part"] = files["part"].replace("val", "train")
    return found, patients


def _causes(files: pd.DataFrame) -> "pd.Series[str]":
    return files["file"].str.extract(_CAUSE, expand=False).fillna("").str.lower()


def read_malaria(root: Path, *, published: Published | None = None) -> Manifest:
    """Return the manifest of the blood cells of the NLM malaria set (Rajaraman et al., PeerJ 2018).

    A patient is the case that starts the file name: ``C33P1`` of ``C33P1thinF_…``, ``C51P12`` of both slides
    ``C51AP12`` and ``C51BP12``, and ``C213`` of ``C213ThinF_…``, which has no second number.

    Args:
        root: Folder with ``Parasitized`` (or ``parasite``) and ``Uninfected``, in any case, or with parts
            that hold them (``train``, ``validation``, ``test``).
        published: Numbers of the whole data set to compare with, see
            :func:`cxrlab.data.published.compared`; None for none.

    Raises:
        MissingFileError: If a folder is missing.
        DataError: If a folder is empty, or a file name tells no patient.
    """
    found = find_images(root, _MALARIA)
    files = found.files
    groups = files["file"].str.extract(_SLIDE)
    _check_patients(files, groups[0], "C33P1thinF_IMG_20150619_114756a_cell_179.png")
    patients = groups[0] + groups[1].fillna("")
    labels = {"Parasitized": files["class"] == "Parasitized"}
    return compared(_manifest(root, found, patients, labels, name="malaria"), published)


def read_folder(
    root: Path,
    *,
    patient_pattern: str | None = None,
    positive_class: str | None = None,
    published: Published | None = None,
) -> Manifest:
    """Return the manifest of any tree ``<class>/…/<image>`` or ``<part>/<class>/…/<image>``.

    Images are known by content, and lie at any depth below their class folder. Two classes make one label,
    named after the one that is not healthy by its name (normal, negative, control, uninfected, no-…), or
    where the names do not tell, the second of them in sorted order; more classes make one label each. Folders
    such as ``images`` and ``masks`` are no classes: images in ``<class>/images`` are of that class, and masks
    are left out.

    Args:
        root: Folder with the class folders, or with parts that hold them: ``train``, ``val`` (or ``valid``,
            ``validation``) and ``test``, in any case. Where each class folder holds parts, these are taken.
        patient_pattern: Regular expression searched for in the file name, or where it holds a slash, in the
            path below the class folder; its first group (or all of it, where it has none) is the patient.
            None takes every file for a patient of its own.
        positive_class: Class that is to be the only label, 1 for it and 0 for all others.
        published: Numbers of the whole data set to compare with, see
            :func:`cxrlab.data.published.compared`; None for none.

    Raises:
        ConfigError: If the pattern is no regular expression, or there is no class of that name.
        MissingFileError: If there are no class folders.
        DataError: If a class folder is empty, there is one class only, or the pattern fits not every file.
    """
    found = find_images(root, None)
    labels = _class_labels(root, found.files["class"], positive_class)
    return compared(
        _manifest(root, found, _patients(found.files, patient_pattern), labels, name=root.resolve().name),
        published,
    )


def _class_labels(
    root: Path, classes: "pd.Series[str]", positive: str | None
) -> dict[str, "pd.Series[bool]"]:
    names = sorted(classes.unique())
    if len(names) < 2:
        raise DataError(f"data.root={root} has one class folder, {names}; at least two are needed.")
    if positive is not None:
        near = [name for name in names if name == positive] or [
            name for name in names if name.casefold() == positive.casefold()
        ]
        if not near:
            raise ConfigError(f"data.reader.positive_class={positive} is no class of {root}; it has {names}.")
        return {near[0]: classes == near[0]}
    if len(names) > 2:
        if healthy := [name for name in names if is_healthy(name)]:
            others = ",".join(f'"{name}"' for name in names if name not in healthy)
            _log.info(
                f"each of the {len(names)} classes of {root} is a label, {healthy[0]} too; without it: "
                f"'data.labels=[{others}]'"
            )
        return {name: classes == name for name in names}
    positive = _positive_of(names, root)
    return {positive: classes == positive}


def _positive_of(names: Sequence[str], root: Path) -> str:
    """Return the one of two classes that is a finding, and say which it is."""
    healthy = healthy_of(names)
    if len(healthy) == 1:
        positive = next(name for name in names if name not in healthy)
        _log.info(f"the label {positive} of {root} is 1 in the folder {positive}, and 0 in {healthy[0]}")
        return positive
    why = "both names say healthy" if healthy else "neither name says healthy"
    _log.warning(
        f"which of the classes {names[0]} and {names[1]} of {root} is the finding is unknown ({why}): "
        f"{names[1]}, the second, is taken as present. For the other: "
        + override("data.reader.positive_class", names[0])
    )
    return names[1]


def _patients(files: pd.DataFrame, pattern: str | None) -> "pd.Series[str]":
    if pattern is None:
        _log.warning(
            "data.reader.patient_pattern is null: every file counts as a patient of its own, so that "
            "patients cannot be kept apart, and images of one may be in both train and test"
        )
        return files["image"]
    expression = compiled(pattern, "data.reader.patient_pattern")
    matches = [expression.search(name) for name in files["below" if "/" in pattern else "file"]]
    group = min(expression.groups, 1)
    patients = pd.Series([match[group] or "" if match else "" for match in matches], index=files.index)
    missed = files["image"][patients == ""]
    if len(missed):
        raise DataError(
            f"data.reader.patient_pattern={pattern} does not match {len(missed)} of {len(files)} file names, "
            f"for instance {list(missed[:3])}. Take a pattern that fits all, (?i) at its start for letters "
            "of either case, or rename or remove these files. A pattern with a slash is searched for in the "
            "path below the class folder."
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
    found: Found,
    patients: "pd.Series[str]",
    labels: Mapping[str, "pd.Series[bool]"],
    *,
    name: str,
    **covariates: "pd.Series[str]",
) -> Manifest:
    files = found.files
    columns = {"image": files["image"], "patient": patients, "split": files["part"]}
    columns |= {COVARIATE + key: values for key, values in covariates.items()}
    columns |= {LABEL + key: values.astype(float) for key, values in labels.items()}
    return Manifest(
        root,
        pd.DataFrame(columns),
        name=name,
        left_out=found.left_out,
        negative=_negative(files["class"], labels),
    )


def _negative(classes: "pd.Series[str]", labels: Mapping[str, "pd.Series[bool]"]) -> str:
    """Return the name of the class folder that lacks the one label; "" where there are several."""
    if len(labels) > 1:
        return ""
    (is_present,) = labels.values()
    others = classes[~is_present].unique()
    name = str(others[0]) if len(others) == 1 else ""
    return name.capitalize() if name.isupper() else name
