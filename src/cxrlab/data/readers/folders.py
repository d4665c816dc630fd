"""Data sets that keep each class in a folder: paediatric pneumonia, malaria, and anyone's own."""

import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL, LeftOut, Manifest
from cxrlab.data.published import Published, compared
from cxrlab.data.readers._folder_images import (
    BESIDE,
    HIDDEN,
    MASKS,
    NO_IMAGE,
    RUNS,
    Tally,
    count_files,
    entries_of,
    holds_any_images,
    holds_image,
    holds_masks,
    images_below,
    is_hidden,
    is_image,
    is_run,
    log_left_out,
    words_of,
)
from cxrlab.data.readers._paths import check_root, compiled, folders_below, listing
from cxrlab.errors import ConfigError, DataError, MissingFileError, override

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# What is not for testing; a validation part is cut from it.
_BOTH = frozenset(["trainval", "trainvalid", "trainvalidation", "trainandval", "traindev"])
# Words beside that of a part in the name of its folder.
_OF_PARTS = frozenset(["set", "data", "dataset", "images", "imgs", "folder", "part", "split"])
_CHILD = r"(?i)^(person\d+|(?:NORMAL2-)?IM-\d+)[_-]"
_CAUSE = r"(?i)^person\d+_(bacteria|virus)_"
_SLIDE = r"(?i)^(C\d+)(?:[A-O]?(P\d+))?"
# How the class folders are called, in any case.
_PNEUMONIA = {"NORMAL": ("normal",), "PNEUMONIA": ("pneumonia",)}
_MALARIA = {
    "Parasitized": ("parasitized", "parasitised", "parasite", "parasites", "infected"),
    "Uninfected": ("uninfected",),
}
_HEALTHY = frozenset(
    ["normal", "normals", "healthy", "health", "negative", "negatives", "neg", "control", "controls", "ctrl",
     "uninfected", "noninfected", "unaffected", "undiseased", "benign", "absent", "absence", "none",
     "nofinding", "nofindings", "unremarkable", "clear", "clean", "normale", "normales", "normalny",
     "normaal", "gesund", "gesunde", "gesunder", "kontrolle", "kontrollen", "negativ", "unauffallig", "sano",
     "sana", "sanos", "sanas", "sain", "saine", "sains", "saines", "negatif", "negatifs", "temoin", "temoins",
     "negativo", "negativos", "negativa", "saudavel", "saudaveis", "sani", "gezond", "saglikli", "kontrol",
     "zdrowy", "zdrowe", "frisk", "friska", "норма", "нормальные", "здоровые", "здоровыи", "здоров",
     "正常", "健康", "阴性", "対照", "陰性", "정상", "음성", "سليم", "طبيعي"]
)  # fmt: skip
# Before what is not there; those at the end of a name say the same of what stands before them.
_NEGATIONS = frozenset(
    ["no", "non", "not", "without", "un", "kein", "keine", "keinen", "nicht", "ohne", "sin", "sans", "pas",
     "sem", "nao", "senza", "geen", "utan", "uden", "bez", "无", "没有"]
)  # fmt: skip
_AFTER = frozenset(["no", "free", "false", "0"])

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


def _children(root: Path) -> tuple["Found", "pd.Series[str]"]:
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


def is_healthy(name: str) -> bool:
    """Tell of a class's name whether it says that nothing is found.

    Example:
        >>> names = ("Normal", "no_finding", "Non-TB", "Négatif", "abnormal", "0", "1")
        >>> [name for name in names if is_healthy(name)]
        ['Normal', 'no_finding', 'Non-TB', 'Négatif', '0']
    """
    words = words_of(name)
    if not words or words in (["0"], ["false"], ["no"], ["n"]):
        return bool(words)
    is_negated = words[0] in _NEGATIONS and len(words) > 1
    names_health = bool(_HEALTHY.intersection(words[1:] if is_negated else words))
    if is_negated:
        return not names_health or words[1:2] in (["finding"], ["findings"])
    return names_health or (words[0].startswith("non") and len(words[0]) > 4)


def _healthy_of(names: Sequence[str]) -> list[str]:
    """Return which of two names say that nothing is found, be it only beside the other (un-infected)."""
    healthy = [name for name in names if is_healthy(name)]
    if len(healthy) > 1:  # pneumonia that is not COVID, beside Normal
        plainly = [name for name in healthy if _HEALTHY.issuperset(words_of(name))]
        return plainly if len(plainly) == 1 else healthy
    if healthy:
        return healthy
    plain = {name: "".join(words_of(name)) for name in names}
    healthy = [
        name
        for name in names
        if any(
            sign in plain[name] and plain[name].replace(sign, "", 1) == other
            for sign in _NEGATIONS
            for other in plain.values()
        )
    ]
    return healthy or [name for name in names if _is_negated_at_the_end(name)]


def _is_negated_at_the_end(name: str) -> bool:
    """Tell whether a name ends with a negation: ``pneumonia_no``, ``TB-``, ``disease free``, ``class_0``."""
    words = words_of(name)
    return bool(words) and (name.endswith("-") or (len(words) > 1 and words[-1] in _AFTER))


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
    healthy = _healthy_of(names)
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
            f"for instance {list(missed[:3])}. A pattern with a slash is searched for in the path below the "
            "class folder."
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
    found: "Found",
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


@dataclass(frozen=True)
class Found:
    """The images of a data set in class folders.

    Attributes:
        files: One row an image, sorted by its path within its part and class. Columns ``image`` (path under
            the root), ``part`` ("train", "val", "test" or ""), ``class``, ``file`` (the bare name) and
            ``below`` (path below the class folder).
        left_out: Files that are not used.
    """

    files: pd.DataFrame
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _ClassFolder:
    name: str  # as it is written
    path: str  # under the root
    images: list[str]


def scan(root: Path, classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> pd.DataFrame:
    """Return one row for each image below ``root``; see :func:`find_images`."""
    return find_images(root, classes).files


def find_images(root: Path, classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> Found:
    """Return the images below ``root``, at any depth below their class folders, and what is left out.

    Left out, counted and logged are hidden files and folders, ``__MACOSX``, masks, what cannot be decoded,
    names that are no UTF-8, what lies beside the class folders, and folders that are neither parts nor
    classes.

    Args:
        root: Folder with parts (``train``, ``val``, ``valid`` or ``validation``, ``test``) that hold class
            folders, or with the class folders themselves.
        classes: Names of the class folders, or their other names in lower case by these, each of which must
            be there, in any case; None takes all folders for classes whose names are not those of mere images
            or masks.

    Raises:
        MissingFileError: If there is no root, or folders are missing.
        DataError: If a class folder holds no image, or a folder may not be looked into.
    """
    check_root(root)
    wanted: Mapping[str, Sequence[str]] | None = None
    if classes is not None:
        wanted = classes if isinstance(classes, Mapping) else {name: (name,) for name in classes}
    tally = Tally()
    parts = _parts_in(root, wanted)
    if not parts and not _holds_classes(root, wanted):
        raise MissingFileError(_wrong_layout(root, wanted))
    if parts:
        _tally_beside(root, "", parts, tally)
    rows = []
    for part in parts or [""]:
        for folder in _class_folders(root, part, wanted, tally):
            rows += [
                (image, part_of(part), folder.name, image.rpartition("/")[2],
                 image[len(folder.path) + 1 :])
                for image in folder.images
            ]  # fmt: skip
    files = pd.DataFrame(rows, columns=["image", "part", "class", "file", "below"])
    if not parts:
        files["part"] = _parts_below(files["below"])
    files["class"] = _with_one_spelling(files["class"])
    _warn_of_other_classes(root, files)
    found = Found(files, tally.entries)
    log_left_out(root, found.left_out)
    return found


def part_of(folder: str) -> str:
    """Return the part that a folder's name tells: "train", "val", "test" or "".

    Example:
        >>> part_of("Validation"), part_of("Training Set"), part_of("test_images"), part_of("TB")
        ('val', 'train', 'test', '')
    """
    words = [word for word in words_of(folder) if word not in _OF_PARTS]
    if "".join(words) in _BOTH:
        return "train"
    return _PARTS.get(words[0], "") if len(words) == 1 else ""


def _parts_in(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> list[str]:
    """Return the folders of parts; of those with more in their name (train_images) such as hold classes.

    One without any class folder, such as a test part whose labels are kept back, is none beside others.
    """
    parts = [
        name
        for name in _folders(folder)
        if name.lower() in _PARTS or (part_of(name) and _holds_several(folder / name, wanted))
    ]
    if wanted is None:
        filled = [name for name in parts if _classes_in(folder / name)]
        beside = [name for name in _classes_in(folder) if name.lower() not in _PARTS]
        return filled or ([] if len(beside) > 1 else parts)
    return [name for name in parts if _named(folder / name, wanted)] or parts


def _holds_several(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    return len(_classes_in(folder)) > 1 if wanted is None else _holds_classes(folder, wanted)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in entries_of(folder) if entry.is_dir() and not is_hidden(entry.name)]


def _candidates(folder: Path) -> list[str]:
    """Return the folders in a folder that may be classes by their names."""
    return [name for name in _folders(folder) if not holds_masks(name) and not holds_any_images(name)]


def _named(folder: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the class of each folder in ``folder`` that is one of ``wanted``."""
    class_of = {other.casefold(): name for name, others in wanted.items() for other in (name, *others)}
    return {name: class_of[name.casefold()] for name in _folders(folder) if name.casefold() in class_of}


def _holds_classes(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    if wanted is not None:
        return set(_named(folder, wanted).values()) == set(wanted)
    return bool(_classes_in(folder))


def _classes_in(folder: Path) -> list[str]:
    """Return the class folders in a folder that hold images; none if they are rather data sets or sources."""
    filled = [name for name in _candidates(folder) if holds_image(folder / name)]
    if len(filled) == 1:
        return [] if _is_root(folder / filled[0], alone=True) else filled
    rest = [name for name in filled if not _is_root(folder / name)]
    return rest if len(rest) > 1 else []


def _is_root(folder: Path, *, alone: bool = False) -> bool:
    """Tell whether a folder is no class but holds class folders, one of them healthy, or parts with such.

    Args:
        folder: Without images of its own.
        alone: There is no other folder beside it, so that it can be no class: any two folders are classes.
    """
    inner = _candidates(folder)
    if not inner or any(is_image(entry) for entry in entries_of(folder) if not entry.is_dir()):
        return False
    parts = [name for name in inner if name.lower() in _PARTS]
    if parts:
        return all(len(_candidates(folder / name)) > 1 for name in parts)
    if alone:
        return sum(holds_image(folder / name) for name in inner) > 1
    return len(inner) > 1 and bool(
        not is_healthy(folder.name) and [name for name in inner if is_healthy(name) and not name.isdigit()]
    )


def _fits(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    """Tell whether a folder would do as the root."""
    parts = _parts_in(folder, wanted)
    if parts:
        return any(_holds_classes(folder / name, wanted) for name in parts)
    if wanted is not None:
        return _holds_classes(folder, wanted)
    return len(_classes_in(folder)) > 1


def _wrong_layout(root: Path, wanted: Mapping[str, Sequence[str]] | None) -> str:
    expected = "class folders" if wanted is None else f"class folders {' and '.join(wanted)}"
    message = (
        f"data.root={root} holds neither {expected} nor parts (train, val, test) with them; "
        f"it holds {listing(root)}."
    )
    no_classes = [name for name in _folders(root) if holds_masks(name) or holds_any_images(name)]
    if no_classes and wanted is None:
        message += (
            f" {' and '.join(f'{name}/' for name in no_classes[:2])}: folders of images or of masks are no "
            "classes. Where labels stand in a table or in the names of files, take data=table."
        )
    near = _near_roots(root, wanted)
    if near:
        choice = near[0] if len(near) == 1 else f"one of {', '.join(map(str, near[:3]))}"
        message += f" Set data.root={choice}." if len(near) == 1 else f" Set data.root to {choice}."
    elif wanted is not None and (others := [name for name in _candidates(root) if holds_image(root / name)]):
        message += f" Other class folders, such as {' and '.join(others[:2])}, are read by data=folder."
    return message


def _near_roots(root: Path, wanted: Mapping[str, Sequence[str]] | None) -> list[Path]:
    """Return the folders that would do as the root: the nearest ones below it, or the one above it.

    That is proposed only if its classes are known as such, one of them being healthy: data sets that lie side
    by side are none.
    """
    below = [folder for folder in folders_below(root) if _can_be_root(folder) and _fits(folder, wanted)]
    below = [folder for folder in below if not _is_of_masks(folder, root)]
    if below:
        depth = min(len(folder.parts) for folder in below)
        return [folder for folder in below if len(folder.parts) == depth]
    is_within = any(holds_masks(name) or holds_any_images(name) for name in _folders(root))
    above = root.resolve().parent
    if not is_within or not _can_be_root(above) or not any(is_healthy(name) for name in _candidates(above)):
        return []
    return [above] if _fits(above, wanted) else []


def class_root(root: Path) -> tuple[Path, list[str]] | None:
    """Return the folder that :func:`read_folder` can read, and its classes; None where there is none.

    That is the root, or else the nearest below it that has parts or a healthy class: other folders in folders
    may be patients.
    """
    for folder in [root, *_near_roots(root, None)]:
        if (folder != root and root not in folder.parents) or not _fits(folder, None):
            continue
        parts = _parts_in(folder, None)
        classes = _classes_in(folder / parts[0] if parts else folder)
        if len(classes) > 1 and (folder == root or parts or any(map(is_healthy, classes))):
            return folder, classes
    return None


def _is_of_masks(folder: Path, root: Path) -> bool:
    """Tell of a folder below the root whether it holds masks only, not images too (Segmentation Data)."""
    is_named_so = any(map(holds_masks, folder.relative_to(root).parts))
    return is_named_so and not any(
        holds_any_images(path.name) for inner in folders_below(folder) for path in folders_below(inner)
    )


def _can_be_root(folder: Path) -> bool:
    try:
        return not is_run(entries_of(folder)) and len(folder.parts) > 1
    except DataError:
        return False


def _class_folders(
    root: Path, part: str, wanted: Mapping[str, Sequence[str]] | None, tally: Tally
) -> Iterator[_ClassFolder]:
    """Give the class folders of a part, each with its images; what lies beside them is counted."""
    folder = root / part
    if wanted is None:
        class_of = {name: name for name in _candidates(folder)}
        if not part:  # a copy of the data set within it, as archives have it, is no class of its own
            class_of = {
                name: name for name in class_of if name.lower() not in _PARTS and not _is_root(folder / name)
            }
    else:
        class_of = _named(folder, wanted)
    missing = [name for name in wanted or () if name not in class_of.values()]
    if missing or not class_of:
        raise MissingFileError(
            f"{folder} lacks {f'the class folders {missing}' if missing else 'class folders'}; "
            f"it holds {listing(folder)}."
        )
    _tally_beside(root, part, list(class_of), tally)
    for name, called in class_of.items():
        path = f"{part}/{name}" if part else name
        beside = Tally()
        images = images_below(root, path, beside)
        is_document = {entry.reason for entry in beside.entries} - {HIDDEN}
        if not images and (wanted is not None or not is_document or is_document - {NO_IMAGE, RUNS}):
            raise DataError(
                f"The class folder {root / path} holds no image that can be decoded; it holds "
                f"{listing(root / path)}. Fill it, or remove it."
            )
        tally.merge(beside)
        if images:
            yield _ClassFolder(called, path, images)
        else:
            _log.warning(f"{root / path} holds no image, and is taken for no class")


def _tally_beside(root: Path, folder: str, kept: Sequence[str], tally: Tally) -> None:
    """Count what lies in a folder beside its parts or classes."""
    others = []
    for entry in entries_of(root / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name in kept:
            continue
        if not entry.is_dir():
            tally.add_file(path, entry, BESIDE)
        elif is_hidden(entry.name):
            count_files(root, path, HIDDEN, tally)
        elif holds_masks(entry.name):
            count_files(root, path, MASKS, tally)
        elif is_run(entries_of(root / path)):
            count_files(root, path, RUNS, tally)
        elif count_files(root, path, BESIDE, tally, is_loss=True):
            others.append(entry.name)
    if others:
        what = "parts, or hold no class folders," if any(part_of(name) for name in kept) else "classes"
        _log.warning(
            f"reading only the folders {list(kept)} of {root / folder}; {others} are no {what} and are left "
            "out"
        )


def _parts_below(below: "pd.Series[str]") -> "pd.Series[str]":
    """Return the part of each image by a folder below its class; "" where not all lie in such folders."""
    parts = below.map(
        lambda path: next((_PARTS[name] for name in path.lower().split("/")[:-1] if name in _PARTS), "")
    )
    is_split = bool(len(below)) and (parts != "").all() and parts.nunique() > 1
    return parts if is_split else pd.Series("", index=below.index, dtype=str)


def _with_one_spelling(classes: "pd.Series[str]") -> "pd.Series[str]":
    """Give classes that differ in case, blanks or the form of their letters one name: the first in order."""
    spellings: dict[str, str] = {}
    for name in sorted(classes.unique()):
        spellings.setdefault(_comparable(name), name)
    return classes.map(lambda name: spellings[_comparable(name)])


def _comparable(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).replace("_", " ").split()).casefold()


def _warn_of_other_classes(root: Path, files: pd.DataFrame) -> None:
    """Say which classes only some of the parts have."""
    of_part = {
        str(part): set(files["class"][files["part"] == part].tolist()) for part in files["part"].unique()
    }
    lacking = {part: sorted(set(files["class"]) - names) for part, names in of_part.items()}
    if any(lacking.values()):
        named = "; ".join(f"{part} lacks {', '.join(names)}" for part, names in lacking.items() if names)
        _log.warning(f"the parts of {root} have not the same classes: {named}")
