"""The predictions table in memory: what every evaluation starts from, of our runs and of other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import COVARIATE, Manifest, read_table
from cxrlab.data.patients import unified
from cxrlab.data.public import canonical, public_name
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.files import DataRecord

TARGET = "target/"
PROBABILITY = "probability/"
PREDICTION = "prediction/"
FOLD = "fold"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DataFacts:
    """What the predicted images are.

    Attributes:
        name: Of the data set.
        split: How it was split, or None.
        fingerprint: Of its manifest, or None.
        is_named: Whether a person gave the name, which may then stand where names of folders may not.
        negative: What it calls images without its one label, or "".
        public: Name of the public data set that it is, whatever a person calls it; "" where it is none, or
            that is not known.
    """

    name: str
    split: str | None = None
    fingerprint: str | None = None
    is_named: bool = False
    negative: str = ""
    public: str = ""

    @property
    def known_as(self) -> str:
        """The name by which others know the data set; "" where it has none that may be told."""
        return self.public or public_name(canonical(self.name), self.is_named)

    def record(self) -> DataRecord:
        """Return what is known, as a session of ``provenance.json`` has it."""
        record: DataRecord = {"name": self.name}
        if self.fingerprint is not None:
            record["fingerprint"] = self.fingerprint
        if self.is_named:
            record["is_named"] = True
        if self.public:
            record["public"] = self.public
        return record


def decisions_at(probabilities: Floats, thresholds: Floats) -> Floats:
    """Return 1 where a label is predicted positive, 0 where it is not, and NaN where nothing can be said.

    That is where it has no threshold, or no probability: an image without one is not called normal.

    Args:
        probabilities: Shape ``(N, L)``.
        thresholds: A label is predicted positive where its probability is at least this, shape ``(L,)``.

    Example:
        >>> decisions_at(np.array([[0.7, 0.7], [np.nan, 0.7]]), np.array([0.7, np.nan]))
        array([[ 1., nan],
               [nan, nan]])
    """
    is_unknown = np.isnan(thresholds) | np.isnan(probabilities)
    return np.where(is_unknown, np.nan, (probabilities >= thresholds).astype(np.float64))


def prediction_columns(
    labels: Sequence[str],
    probabilities: npt.ArrayLike,
    *,
    targets: npt.ArrayLike | None = None,
    thresholds: npt.ArrayLike | None = None,
    decisions: npt.ArrayLike | None = None,
) -> dict[str, Floats]:
    """Return the columns of a predictions table that are about labels.

    Args:
        labels: L names.
        probabilities: Shape ``(N, L)``.
        targets: Shape ``(N, L)``, NaN unknown; None for a table without targets.
        thresholds: A label is predicted positive where its probability is at least this, shape ``(L,)``; its
            predictions are NaN where this is.
        decisions: The predictions themselves, shape ``(N, L)``, where there are no thresholds. None for both
            is a table without predictions.

    Example:
        >>> prediction_columns(["Edema"], [[0.7]], thresholds=[0.5])
        {'probability/Edema': array([0.7]), 'prediction/Edema': array([1.])}
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    blocks = {} if targets is None else {TARGET: np.asarray(targets, dtype=np.float64)}
    blocks[PROBABILITY] = scores
    if thresholds is not None:
        blocks[PREDICTION] = decisions_at(scores, np.asarray(thresholds, dtype=np.float64))
    elif decisions is not None:
        blocks[PREDICTION] = np.asarray(decisions, dtype=np.float64)
    return {
        prefix + label: values[:, column]
        for prefix, values in blocks.items()
        for column, label in enumerate(labels)
    }


def predictions_frame(
    manifest: Manifest,
    rows: Sequence[int],
    labels: Sequence[str],
    probabilities: npt.ArrayLike,
    *,
    targets: npt.ArrayLike,
    thresholds: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Return a predictions table of some images of a manifest.

    Args:
        manifest: The data set.
        rows: Of the manifest, N of them.
        labels: L names.
        probabilities: Shape ``(N, L)``.
        targets: Shape ``(N, L)``, NaN unknown.
        thresholds: Shape ``(L,)``, see :func:`prediction_columns`.

    Returns:
        Columns ``image, patient, part, covariate/<name>…, target/<label>…, probability/<label>…`` and, with
        thresholds, ``prediction/<label>…``, in the order of ``rows``.
    """
    about = ["image", "patient", "part", *(COVARIATE + name for name in manifest.covariates)]
    images = manifest.table.iloc[list(rows)][about].reset_index(drop=True)
    columns = prediction_columns(labels, probabilities, targets=targets, thresholds=thresholds)
    return pd.concat([images, pd.DataFrame(columns)], axis=1)


@dataclass(frozen=True)
class PredictionTable:
    """Targets and probabilities of N images and L labels.

    Attributes:
        images: Names, shape ``(N,)``; none stands twice.
        patients: Number of each image's patient, 0 to P - 1, shape ``(N,)``. Where patients are unknown each
            image is its own.
        labels: L names.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        probabilities: Values in [0, 1], shape ``(N, L)``.
        covariates: N rows; columns such as ``view`` and ``age``, without prefix.
        patient_names: Shape ``(P,)``; None where patients are unknown.
        part: ``train``, ``val``, ``test`` or ``""`` where the table has several or tells none.
        source: File or run that it came from, for messages.
        decisions: 1 predicted positive, 0 not, NaN for a label without threshold, shape ``(N, L)``; None
            where there are probabilities only.
        folds: Name of the fold of a cross-validation whose network made each prediction, shape ``(N,)``; None
            where one network made them all, or that is not told.
        readers: What several people say of the images, by name: 1 present, 0 absent, NaN where they say
            nothing, each of shape ``(N, L)``.

    Raises:
        DataError: If an image stands twice, a probability is NaN or outside [0, 1], or a target or decision
            is not 0, 1 or NaN; the message names images.
    """

    images: npt.NDArray[np.object_]
    patients: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    targets: Floats
    probabilities: Floats
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)
    patient_names: npt.NDArray[np.object_] | None = None
    part: str = ""
    source: str = "the predictions"
    decisions: Floats | None = None
    folds: npt.NDArray[np.object_] | None = None
    readers: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.covariates.columns):
            object.__setattr__(self, "covariates", pd.DataFrame(index=range(len(self.images))))
        if not len(self.images):
            raise DataError(f"{self.source} holds no image: there is nothing to evaluate.")
        twice = pd.Series(self.images)[pd.Series(self.images).duplicated()].unique()
        if len(twice):
            raise DataError(f"{len(twice)} images stand twice in {self.source}: {list(twice[:3])}.")
        self._raise_for("have no probability (NaN or empty)", np.isnan(self.probabilities))
        outside = (self.probabilities < 0) | (self.probabilities > 1)
        if outside.any():
            low, high = self.probabilities.min(), self.probabilities.max()
            self._raise_for(
                f"have values outside [0, 1] ({low:.3g} to {high:.3g}), which are no probabilities; logits "
                "need a sigmoid first",
                outside,
            )
        self._raise_for(
            "have targets other than 0, 1 or empty", ~np.isin(self.targets, (0.0, 1.0)) & self.known
        )
        if self.decisions is not None:
            is_wrong = ~np.isin(self.decisions, (0.0, 1.0)) & ~np.isnan(self.decisions)
            self._raise_for("have predictions other than 0, 1 or empty", is_wrong)

    def _raise_for(self, fault: str, wrong: npt.NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(wrong.any(axis=1))
        if len(rows):
            labels = [self.labels[column] for column in np.flatnonzero(wrong.any(axis=0))[:3]]
            raise DataError(
                f"{len(rows)} images of {self.source} {fault}: {list(self.images[rows[:3]])}, in {labels}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Where the target is known, shape ``(N, L)``."""
        return ~np.isnan(self.targets)

    @property
    def num_patients(self) -> int:
        """P; the number of images where patients are unknown."""
        return int(self.patients.max()) + 1

    @property
    def patients_known(self) -> bool:
        """Whether images of one patient can be told."""
        return self.patient_names is not None

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, source: str) -> Self:
        """Read the columns of a predictions table (see :mod:`cxrlab.training.callbacks.predictions`).

        Args:
            frame: Columns ``image``, and where known ``patient``, ``part``, ``fold`` and
                ``covariate/<name>…``; then ``target/<label>…`` and ``probability/<label>…``;
                ``prediction/<label>…`` may be there or not.
            source: Named in messages.

        Raises:
            DataError: If columns are missing or hold a wrong value, or labels lack one of the two.
        """
        names = [str(name) for name in frame.columns]
        labels = [name.removeprefix(PROBABILITY) for name in names if name.startswith(PROBABILITY)]
        targets = {name.removeprefix(TARGET) for name in names if name.startswith(TARGET)}
        if "image" not in names or not labels or set(labels) != targets:
            raise DataError(
                f"{source} is no predictions table: it needs the columns image, target/<label> and "
                f"probability/<label> for the same labels; it has {names[:12]}."
            )
        if frame["image"].isna().any() or (frame["image"] == "").any():
            raise DataError(f"{source} has rows without a name in the column image.")
        patients, patient_names = _numbered(frame, source)
        parts: list[str] = frame["part"].dropna().unique().tolist() if "part" in names else []
        covariates = frame[[name for name in names if name.startswith(COVARIATE)]].reset_index(drop=True)
        undecided = [PREDICTION + label for label in labels if PREDICTION + label not in names]
        has_decisions = len(undecided) < len(labels)
        return cls(
            images=frame["image"].to_numpy(dtype=object),
            patients=patients,
            labels=tuple(labels),
            targets=_numbers(frame, TARGET, labels, source),
            probabilities=_numbers(frame, PROBABILITY, labels, source),
            covariates=covariates.rename(columns=lambda name: str(name).removeprefix(COVARIATE)),
            patient_names=patient_names,
            part=str(parts[0]) if len(parts) == 1 else "",
            source=source,
            decisions=(
                _numbers(frame.assign(**dict.fromkeys(undecided, np.nan)), PREDICTION, labels, source)
                if has_decisions
                else None
            ),
            folds=named_folds(frame[FOLD], source) if FOLD in names else None,
        )

    def to_frame(self, thresholds: Floats | None = None) -> pd.DataFrame:
        """Return the table as it is written to CSV, with ``prediction/<label>`` where they are known.

        Args:
            thresholds: Shape ``(L,)``; a label whose threshold is NaN has empty predictions. None for the
                table's own decisions, if it has any.
        """
        columns: dict[str, object] = {"image": self.images}
        if self.patient_names is not None:
            columns["patient"] = self.patient_names[self.patients]
        columns["part"] = self.part
        if self.folds is not None:
            columns[FOLD] = self.folds
        columns |= {COVARIATE + str(name): self.covariates[name].to_numpy() for name in self.covariates}
        columns |= prediction_columns(
            self.labels,
            self.probabilities,
            targets=self.targets,
            thresholds=thresholds,
            decisions=self.decisions,
        )
        return pd.DataFrame(columns)

    def rows(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "PredictionTable":
        """Return some of the images, by mask or by row numbers; patients are numbered anew."""
        kept, patients = np.unique(self.patients[chosen], return_inverse=True)
        return replace(
            self,
            images=self.images[chosen],
            patients=patients.astype(np.int64),
            targets=self.targets[chosen],
            probabilities=self.probabilities[chosen],
            covariates=self.covariates.iloc[_positions(chosen)].reset_index(drop=True),
            patient_names=None if self.patient_names is None else self.patient_names[kept],
            decisions=None if self.decisions is None else self.decisions[chosen],
            folds=None if self.folds is None else self.folds[chosen],
            readers={name: values[chosen] for name, values in self.readers.items()},
        )

    def select_labels(self, labels: Sequence[str]) -> "PredictionTable":
        """Return the labels named, in that order.

        Raises:
            ConfigError: If one is not there.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise ConfigError(f"{self.source} has no label {missing[0]!r}; it has {list(self.labels)}.")
        columns = [self.labels.index(label) for label in labels]
        return replace(
            self,
            labels=tuple(labels),
            targets=self.targets[:, columns],
            probabilities=self.probabilities[:, columns],
            decisions=None if self.decisions is None else self.decisions[:, columns],
            readers={name: values[:, columns] for name, values in self.readers.items()},
        )


def read_predictions(path: Path) -> PredictionTable:
    """Read a predictions table that a run wrote.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it cannot be used.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no predictions table {path}.")
    return PredictionTable.from_frame(read_table(path), str(path))


def named_folds(column: pd.Series, source: str) -> npt.NDArray[np.object_] | None:
    """Return the fold of each image as text; None where there are not several.

    Args:
        column: Numbers or words.
        source: Named in messages.

    Raises:
        DataError: If some images have none.

    Example:
        >>> named_folds(pd.Series([0.0, 1.0]), "oof.csv"), named_folds(pd.Series([1, 1]), "oof.csv")
        (array(['0', '1'], dtype=object), None)
    """
    is_missing = column.isna() | (column.astype(str) == "")
    if is_missing.all():
        return None
    if is_missing.any():
        raise DataError(
            f"{int(is_missing.sum())} rows of {source} have nothing in the column 'fold', such as row "
            f"{int(np.flatnonzero(is_missing)[0]) + 1}: fill it in, or drop the column if one network made "
            "all of the predictions."
        )
    numbers = pd.to_numeric(column, errors="coerce")
    is_whole = bool((numbers % 1 == 0).all())
    folds = (numbers.astype(int) if is_whole else column).astype(str).to_numpy(dtype=object)
    return folds if len(set(folds)) > 1 else None


def _numbered(
    frame: pd.DataFrame, source: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_] | None]:
    """Number the patients; a table without any is one of unknown patients."""
    column, _ = unified(frame["patient"] if "patient" in frame else pd.Series("", index=frame.index))
    is_missing = column == ""
    if is_missing.all():
        return np.arange(len(frame), dtype=np.int64), None
    if is_missing.any():
        nobody = frame["image"][is_missing].tolist()
        raise DataError(
            f"{len(nobody)} images of {source} have no patient, such as {nobody[:3]}: fill in the column, or "
            "drop it whole, and intervals are by image."
        )
    names, patients = np.unique(column.astype(str).to_numpy(dtype=object), return_inverse=True)
    return patients.astype(np.int64), names


def _numbers(frame: pd.DataFrame, prefix: str, labels: Sequence[str], source: str) -> Floats:
    columns = []
    for label in labels:
        values = frame[prefix + label]
        numbers = pd.to_numeric(values, errors="coerce")
        wrong = frame["image"][numbers.isna() & values.notna()]
        if len(wrong):
            raise DataError(
                f"{source} has text in {prefix}{label}, such as {values[wrong.index[0]]!r} for the image "
                f"{wrong.iloc[0]}; a number is wanted."
            )
        columns.append(numbers.to_numpy(dtype=np.float64))
    return np.stack(columns, axis=1)


def _positions(chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(chosen) if chosen.dtype == bool else np.asarray(chosen, dtype=np.intp)
