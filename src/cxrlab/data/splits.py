"""Training, validation and test parts; a patient never crosses from one to another."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.readers._formats import read_file
from cxrlab.data.readers._settings import PART_WORDS
from cxrlab.data.stratify import nested_rows, nested_share, stratify_groups
from cxrlab.errors import ConfigError, DataError, MissingFileError

Method = Literal["official", "grouped", "folds", "file"]
METHODS: tuple[str, ...] = get_args(Method)

_COLUMNS = ["image", "part"]
_Names = npt.NDArray[np.object_]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Gives every image of a manifest its part, when it is called.

    All draws are by group and stratified by label, see :func:`cxrlab.data.stratify.stratify_groups`;
    given parts are kept as they are, whatever the groups.

    Attributes:
        method: "official" takes the data set's own parts, "file" those of a table; where these have no
            validation part, it is drawn from the training part. "grouped" draws all parts. "folds" deals the
            images into ``num_folds`` equal folds and tests on one: the folds are the same whichever that is,
            so that together the test parts hold every image once.
        val_fraction: Share of the images drawn for validation: of the given training part, or, for
            "grouped" and "folds", of all.
        test_fraction: Share of all images drawn for testing; only "grouped" uses it.
        seed: Gives another draw; the order of the rows has no influence.
        fold: Number of the fold to test on, from 0; for "folds" only, else None.
        num_folds: Folds to deal; only "folds" uses it.
        file: A table with the columns ``image`` and ``part``, such as the ``manifest.csv`` of a run; for
            "file" only, else None.

    Raises:
        ConfigError: If an option is unknown, out of range, or without effect, or the fractions leave a part
            empty.

    Example:
        >>> Split(method="folds", fold=5)
        Traceback (most recent call last):
        cxrlab.errors.ConfigError: data.split.fold=5 must be the number of the fold to test on, 0 to 4. ...
    """

    method: Method = "grouped"
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0
    fold: int | None = None
    num_folds: int = 5
    file: str | None = None

    def __post_init__(self) -> None:
        _check_draw(self.method, self.val_fraction, self.test_fraction, self.seed)
        _check_source(self.method, self.fold, self.num_folds, self.file)

    def check_file(self) -> None:
        """Refuse a table of parts that is not there, before any data is read.

        Raises:
            MissingFileError: If there is no such file.
        """
        if self.file is not None and not Path(self.file).expanduser().is_file():
            raise MissingFileError(
                f"data.split.file={self.file} is no file; it takes a CSV, such as the manifest.csv of a run "
                "directory."
            )

    def check_manifest(self, manifest: Manifest) -> None:
        """Refuse a data set of which this cannot make three parts, whatever its images turn out to be.

        Args:
            manifest: What a reader returned, before images that cannot be read are left out of it.

        Raises:
            DataError: If an official part, or one of the table of parts, has no image, or patients are too
                few.
        """
        if self.file is not None:
            of_image = _named_parts(self.file)
            if not manifest.table["image"].isin(of_image.index).any():
                parts_from_file(manifest, self.file)  # says so
            _check_given_parts(manifest, of_image.reindex(manifest.table["image"]), of_image, self.file)
        elif self.method == "official":
            parts = manifest.table["split"].to_numpy(dtype=object)
            if not {"train", "test"} <= set(parts):
                _check_official(manifest, parts)  # says what is wrong
        else:
            needed = max(len(PARTS), self.num_folds if self.fold is not None else 0)
            num_patients = manifest.table["patient"].nunique()
            if num_patients < needed:
                raise DataError(
                    f"{num_patients} patients of {manifest.root} are too few for data.split.method="
                    f"{self.method}, which needs {needed} at least."
                )

    def __call__(self, manifest: Manifest, *, groups: _Names | None = None) -> Manifest:
        """Return the manifest with ``part`` set to "train", "val" or "test" in every row.

        Args:
            manifest: What a reader returned.
            groups: Name of the group of each row, shape ``(N,)``: patients to be kept together, for instance
                since they share an identical image. A group is made of whole patients; None takes each as
                one.

        Raises:
            MissingFileError: If ``file`` does not exist.
            DataError: If given parts are absent, incomplete or share a patient, or there are too few
                patients.
            ValueError: If ``groups`` has another length, or parts a patient.
        """
        self.check_file()
        groups = _checked_groups(manifest, groups)
        parts = self._parts(manifest, groups)
        _check_parts_filled(manifest, parts)
        split = replace(manifest, table=manifest.table.assign(part=parts))
        check_no_overlap(split)
        return split

    def _parts(self, manifest: Manifest, groups: _Names) -> _Names:
        if self.fold is not None:
            return _fold_parts(manifest, groups, self.fold, self.num_folds, self.val_fraction, self.seed)
        if self.method == "grouped":
            fractions = {"val": self.val_fraction, "test": self.test_fraction}
            return _draw(manifest, groups, fractions, self.seed)
        parts = _official(manifest) if self.file is None else parts_from_file(manifest, self.file)
        _draw_validation(manifest, parts, groups, self.val_fraction, self.seed)
        return parts

    def record(self) -> dict[str, object]:
        """Return the options by their names, for provenance."""
        return asdict(self)


@dataclass(frozen=True)
class CustomSplit:
    """A person's own way to split: any callable that gives every image its part.

    Attributes:
        function: Takes a manifest, and by keyword ``groups``; returns the manifest with ``part`` set.
        method: What reports call it.
    """

    function: Callable[..., Manifest]
    method: Literal["custom"] = "custom"

    def check_file(self) -> None:
        """Pass: there is no file."""

    def check_manifest(self, manifest: Manifest) -> None:
        """Pass: what the function needs it says itself."""

    def __call__(self, manifest: Manifest, *, groups: _Names | None = None) -> Manifest:
        """Return the manifest with ``part`` set."""
        return self.function(manifest, groups=groups)

    def record(self) -> dict[str, object]:
        """Return what provenance says of it."""
        return {"method": self.method}


def take_fraction(
    manifest: Manifest, *, fraction: float, seed: int, groups: _Names | None = None
) -> Manifest:
    """Return the manifest without some of the training patients, for learning curves.

    The patients of a smaller fraction are among those of a larger one, and their labels are as frequent as
    whole patients allow, see :func:`cxrlab.data.stratify.nested_share`. Validation and test stay whole.

    Args:
        manifest: A split manifest.
        fraction: Share of the training patients to keep (of the groups, where ``groups`` joins patients).
        seed: Gives other patients; the order of the rows has no influence.
        groups: As for :class:`Split`.

    Raises:
        ConfigError: If ``fraction`` is not above 0 and at most 1.
        ValueError: If ``groups`` has another length, or parts a patient.
    """
    check_fraction(fraction)
    groups = _checked_groups(manifest, groups)
    if fraction == 1:
        return manifest
    training = manifest.table["part"] == "train"
    names = _named_by_patient(manifest.part("train"), groups[training])
    kept = ~training
    kept[training] = nested_share(names, manifest.targets[training], fraction, seed)
    return manifest.rows(kept)


def take_images(
    manifest: Manifest, *, count: int, equal_classes: bool, seed: int, groups: _Names | None = None
) -> Manifest:
    """Return the manifest with at most a number of training images, for learning curves by number.

    Patients come whole, one after another, until the number is reached; the last one gives a part of its
    images. What a smaller number takes is among what a larger one takes. Validation and test stay whole.

    Args:
        manifest: A split manifest.
        count: Training images to keep; all where there are no more, which is logged.
        equal_classes: Take as many of each class: with and without the one label, or of each of several
            labels that exclude one another. A class that has fewer gives all it has.
        seed: Gives other patients; the order of the rows has no influence.
        groups: As for :class:`Split`.

    Raises:
        ConfigError: If classes are to be equal and an image has several labels, none of them, or an unknown
            one.
        ValueError: If ``groups`` has another length, or parts a patient.
    """
    groups = _checked_groups(manifest, groups)
    is_training = (manifest.table["part"] == "train").to_numpy()
    training = manifest.part("train")
    names, targets = _named_by_patient(training, groups[is_training]), training.targets
    # In the order of their names: of the last patient the first images are taken.
    order = np.argsort(training.table["image"].to_numpy(dtype=object).astype(str), kind="stable")
    classes = _classes(training) if equal_classes else np.zeros(len(training), dtype=np.intp)
    there = np.unique(classes)
    drawn = np.zeros(len(training), dtype=bool)
    for number, class_ in enumerate(there):
        wanted = count // len(there) + (number < count % len(there))
        members = order[classes[order] == class_]
        drawn[members[nested_rows(names[members], targets[members], wanted, seed)]] = True
    _log.info("Training on %d of %d images (data.max_train_images=%d).", drawn.sum(), len(training), count)
    kept = ~is_training
    kept[is_training] = drawn
    return manifest.rows(pd.Series(kept))


def _classes(manifest: Manifest) -> npt.NDArray[np.intp]:
    """Return the number of the class of each row."""
    targets = manifest.targets
    if len(manifest.labels) == 1 and not np.isnan(targets).any():
        return targets[:, 0].astype(np.intp)
    if len(manifest.labels) > 1 and (targets.sum(axis=1) == 1).all():
        classes: npt.NDArray[np.intp] = targets.argmax(axis=1)
        return classes
    raise ConfigError(
        f"data.equal_classes=true needs classes: each image with one of the labels {manifest.labels[:5]}, or "
        "one label that is known of every image. Choose one by data.labels, or leave data.equal_classes out."
    )


def check_no_overlap(manifest: Manifest) -> None:
    """Refuse a manifest in which a patient is in two parts, or a row in none.

    Raises:
        DataError: If there is such a patient or row.
    """
    table = manifest.table
    unassigned = table["image"][~table["part"].isin(PARTS)]
    if len(unassigned):
        raise DataError(
            f"{len(unassigned)} of {len(table)} images of {manifest.root} are in none of the parts {PARTS}, "
            f"for instance {list(unassigned[:3])}."
        )
    patients = {name: set(table["patient"][table["part"] == name]) for name in PARTS}
    for part, other_part in combinations(PARTS, 2):
        shared = sorted(patients[part] & patients[other_part], key=lambda name: (len(name), name))
        if shared:
            who = "patient is" if len(shared) == 1 else "patients are"
            names = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
            raise DataError(
                f"{len(shared)} {who} in both {part} and {other_part}: [{names}]. "
                "Set data.split.method=grouped."
            )


def check_fraction(fraction: float) -> None:
    """Refuse a share of the training patients that is none.

    Raises:
        ConfigError: If it is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(
            f"data.fraction={fraction} must lie above 0, and be at most 1 (all training patients)."
        )


def _check_draw(method: str, val_fraction: float, test_fraction: float, seed: int) -> None:
    if method not in METHODS:
        raise ConfigError(f"data.split.method={method} is unknown; it is one of {', '.join(METHODS)}.")
    if seed < 0:
        raise ConfigError(f"data.split.seed={seed} must be 0 or more.")
    for key, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise ConfigError(f"data.split.{key}={value} must lie between 0 and 1, both excluded.")
    if method == "grouped" and val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"data.split.val_fraction={val_fraction} and data.split.test_fraction={test_fraction} leave "
            "nothing for training; their sum must be below 1."
        )


def _check_source(method: str, fold: int | None, num_folds: int, file: str | None) -> None:
    """Refuse an option that the method needs and lacks, or that would have no effect."""
    if (method == "file") != (file is not None):
        raise ConfigError(
            f"data.split.method={method} and data.split.file={'null' if file is None else file} do not fit: "
            "method=file reads the parts from a table, such as the manifest.csv of a run, and only it does."
        )
    if method != "folds" and fold is not None:
        raise ConfigError(
            f"data.split.fold={fold} has no effect with data.split.method={method}; for cross-validation set "
            "data.split.method=folds."
        )
    if method != "folds":
        return
    if num_folds < 2:
        raise ConfigError(f"data.split.num_folds={num_folds} must be 2 or more.")
    if fold is None or not 0 <= fold < num_folds:
        raise ConfigError(
            f"data.split.fold={'null' if fold is None else fold} must be the number of the fold to test on, "
            f"0 to {num_folds - 1}. For all of them: -m data.split.method=folds "
            f"data.split.fold={','.join(map(str, range(num_folds)))}"
        )


def _checked_groups(manifest: Manifest, groups: _Names | None) -> _Names:
    """Return the group of each row, the patient where none is given."""
    patients = manifest.table["patient"]
    if groups is None:
        names: _Names = patients.to_numpy(dtype=object)
        return names
    if len(groups) != len(manifest):
        raise ValueError(f"{len(groups)} groups were given for {len(manifest)} images.")
    parted = pd.Series(groups).groupby(patients).nunique()
    if (parted > 1).any():
        raise ValueError(f"Patients stand in several groups: {list(parted.index[parted > 1][:3])}.")
    return groups


def _named_by_patient(manifest: Manifest, groups: _Names) -> _Names:
    """Name each group after its first patient: the draw depends on who is in it, not on what it is called."""
    names = manifest.table["patient"].to_numpy(dtype=object).astype(str)
    patients, patient_of_row = np.unique(names, return_inverse=True)
    _, group_of_row = np.unique(groups.astype(str), return_inverse=True)
    first = np.full(len(groups), len(patients))
    np.minimum.at(first, group_of_row, patient_of_row)
    named: _Names = patients[first[group_of_row]].astype(object)
    return named


def _check_parts_filled(manifest: Manifest, parts: _Names) -> None:
    counts = {name: int((parts == name).sum()) for name in PARTS}
    if not all(counts.values()):
        raise DataError(
            f"{manifest.table['patient'].nunique()} patients of {manifest.root} are too few for three parts: "
            f"{counts} images. Each part needs a patient of its own, and patients who share an image count "
            "as one: raise data.split.val_fraction and data.split.test_fraction, or add data of more "
            "patients."
        )


def _official(manifest: Manifest) -> _Names:
    parts = manifest.table["split"].to_numpy(dtype=object, copy=True)
    _check_official(manifest, parts)
    return parts


def _check_official(manifest: Manifest, parts: npt.NDArray[np.object_]) -> None:
    grouped = "Set data.split.method=grouped."
    if (parts == "").all():
        raise DataError(
            f"data.split.method=official, but {manifest.root} has no official lists or part folders. "
            f"{grouped}"
        )
    unlisted = manifest.table["image"][~np.isin(parts, PARTS)]
    if len(unlisted):
        raise DataError(
            f"data.split.method=official, but {len(unlisted)} of {len(parts)} images of {manifest.root} are "
            f"in no official part, for instance {list(unlisted[:3])}. {grouped}"
        )
    for part in ("train", "test"):
        if not (parts == part).any():
            raise DataError(
                f"data.split.method=official, but no image of the official {part} part is in "
                f"{manifest.root}. Add these images, or draw the parts anew. {grouped}"
            )


def _draw_validation(
    manifest: Manifest, parts: _Names, groups: _Names, val_fraction: float, seed: int
) -> None:
    """Draw validation from the training part, in place, where no image is in validation."""
    if not (parts == "val").any():
        training = parts == "train"
        of_training = manifest.rows(pd.Series(training))
        parts[training] = _draw(of_training, groups[training], {"val": val_fraction}, seed)


def _fold_parts(
    manifest: Manifest, groups: _Names, fold: int, num_folds: int, val_fraction: float, seed: int
) -> _Names:
    """Return a part for each row: "test" in one fold, the rest drawn."""
    share = val_fraction / (1 - 1 / num_folds)
    if share >= 1:
        raise ConfigError(
            f"data.split.val_fraction={val_fraction} of all images leaves nothing for training beside a test "
            f"part of one in data.split.num_folds={num_folds}; it must be below {1 - 1 / num_folds:.3g}."
        )
    names = _named_by_patient(manifest, groups)
    if (num_groups := len(set(names))) < num_folds:
        raise DataError(
            f"{num_groups} patients of {manifest.root} are too few for data.split.num_folds={num_folds}: "
            "each fold needs a patient of its own (patients who share an image count as one)."
        )
    rest = stratify_groups(names, manifest.targets, [1 / num_folds] * num_folds, seed) != fold
    parts = np.full(len(manifest), "test", dtype=object)
    parts[rest] = _draw(manifest.rows(pd.Series(rest)), groups[rest], {"val": share}, seed)
    return parts


def _draw(manifest: Manifest, groups: _Names, fractions: dict[str, float], seed: int) -> _Names:
    """Return a part for each row: those of ``fractions``, the rest being "train"."""
    shares = [1 - sum(fractions.values()), *fractions.values()]
    drawn = stratify_groups(_named_by_patient(manifest, groups), manifest.targets, shares, seed)
    return np.array(["train", *fractions], dtype=object)[drawn]


def parts_from_file(manifest: Manifest, file: str) -> npt.NDArray[np.object_]:
    """Return the part that a CSV gives to each image.

    Images that the file names and the data set lacks are left out with a warning, for part of a data set is
    enough to work with. An image that the file does not name is refused: its patient may stand in any part.

    Args:
        manifest: A data set.
        file: A table, CSV or any other that ``data=table`` reads, with the columns ``image``, spelt as in the
            manifest, and ``part``: train, val or test, or a word for one of them, such as valid and dev.

    Returns:
        Shape ``(N,)``.

    Raises:
        DataError: If it is no such table, gives an image two parts, does not name an image of the data set,
            or names a part of which the data set has no image.
    """
    of_image = _named_parts(file)
    images = manifest.table["image"]
    unnamed = images[~images.isin(of_image.index)]
    if len(unnamed):
        raise DataError(
            f"data.split.file={file} does not name {len(unnamed)} of the {len(images)} images of "
            f"{manifest.root}, for instance {list(unnamed[:3])}; it names images such as "
            f"{of_image.index[0]!r}. A patient of theirs could stand in another part: add them to the file. "
            "A run with data.fraction or data.filter leaves images out of its manifest.csv: take that of a "
            "run without them, and set them beside data.split.file."
        )
    parts = of_image.loc[images].to_numpy(dtype=object, copy=True)
    _check_given_parts(manifest, parts, of_image, file)
    absent = of_image.index[~of_image.index.isin(images)]
    if len(absent):
        _log.warning(
            "%d of the %d images that %s names are not in %s, for instance %s; they are left out.",
            len(absent), len(of_image), file, manifest.root, list(absent[:3]),
        )  # fmt: skip
    return parts


def _named_parts(file: str) -> "pd.Series[str]":
    """Return the part of each image that a table names, by image."""
    table = _read(Path(file).expanduser())
    _check_table(table, file)
    return table.drop_duplicates("image").set_index("image")["part"]


def _check_given_parts(manifest: Manifest, parts: Any, of_image: "pd.Series[str]", file: str) -> None:
    for part in dict.fromkeys(["train", "test", *of_image]):
        if not (parts == part).any():
            raise DataError(f"data.split.file={file} puts no image of {manifest.root} into the {part} part.")


def _read(path: Path) -> pd.DataFrame:
    """Return the columns ``image`` and ``part`` (or ``split``, where there is no such) as text."""
    table = read_file(path)
    called = {str(name).strip().casefold(): name for name in table}
    if "part" not in called and "split" in called:
        called["part"] = called["split"]
    missing = [name for name in _COLUMNS if name not in called]
    if missing:
        raise DataError(f"data.split.file={path} lacks the columns {missing}; it has {list(table)[:8]}.")
    words = table[called["part"]].str.strip().str.lower()
    return pd.DataFrame(
        {"image": table[called["image"]], "part": words.map(lambda word: PART_WORDS.get(word, word))}
    )


def _check_table(table: pd.DataFrame, file: str) -> None:
    wrong = table[~table["part"].isin(PARTS)]
    if len(wrong):
        raise DataError(
            f"data.split.file={file} has the parts {sorted(set(wrong['part']))[:3]}, for instance of "
            f"{list(wrong['image'][:3])}; parts are spelt {', '.join(PARTS)}."
        )
    pairs = table.drop_duplicates()
    twice = pairs["image"][pairs["image"].duplicated()].unique()
    if len(twice):
        raise DataError(
            f"data.split.file={file} puts {len(twice)} images into two parts: {list(twice[:3])}. "
            "Name each once."
        )
