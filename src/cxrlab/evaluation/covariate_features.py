"""Covariates as numbers for a regression: an indicator of each value, of tenths of numbers, and of pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.metrics.logistic import Features
from cxrlab.metrics.predictions import Floats

_MAX_VALUES = 12  # of a covariate that are told apart; others count as one
_TENTHS = np.arange(0.1, 1.0, 0.1)
_MOST_COLUMNS = 400

Columns = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Encoder:
    """How one covariate becomes indicators, as its values among the fitted images were.

    Attributes:
        name: Of the covariate.
        edges: Of the tenths of a number; None for words.
        values: The words that are told apart.
    """

    name: str
    edges: Floats | None
    values: tuple[str, ...]

    @classmethod
    def of(cls, name: str, column: "pd.Series[str]") -> "_Encoder":
        words = _words(column)
        known = words[words != ""]
        numbers = pd.to_numeric(known, errors="coerce")
        if len(known) and numbers.notna().all() and numbers.nunique() > _MAX_VALUES:
            return cls(name, np.unique(np.quantile(numbers.to_numpy(dtype=np.float64), _TENTHS)), ())
        return cls(name, None, tuple(sorted(known.value_counts().index[:_MAX_VALUES])))

    def indicators(self, column: "pd.Series[str]") -> Columns:
        """Return one column for each value, and last that of other and unknown values."""
        words = _words(column)
        if self.edges is None:
            shown = [(words == value).to_numpy(dtype=bool) for value in self.values]
        else:
            numbers = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64)
            places = np.where(np.isnan(numbers), -1, np.searchsorted(self.edges, numbers, side="right"))
            shown = [places == place for place in range(len(self.edges) + 1)]
        return np.column_stack([*shown, ~np.any(shown, axis=0)] if shown else [np.ones(len(words), bool)])


@dataclass(frozen=True)
class CovariateFeatures:
    """How covariates become numbers.

    Attributes:
        encoders: Of each covariate that is used.
        left_out: Names of those that say which finding an image has: they are known of no other image.
    """

    encoders: tuple[_Encoder, ...]
    left_out: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The covariates that are used."""
        return tuple(encoder.name for encoder in self.encoders)

    @classmethod
    def of(cls, covariates: pd.DataFrame, targets: Floats) -> "CovariateFeatures":
        """Learn the values of covariates; those with one value only are not used.

        Args:
            covariates: Of the images that are fitted, N rows.
            targets: Shape ``(N, L)``.
        """
        encoders, left_out = [], []
        for name in map(str, covariates):
            words = _words(covariates[name])
            if words.nunique() < 2:
                continue
            if _describes_label((words != "").to_numpy(dtype=bool), targets):
                left_out.append(name)
            else:
                encoders.append(_Encoder.of(name, covariates[name]))
        return cls(tuple(encoders), tuple(left_out))

    def features(self, covariates: pd.DataFrame) -> Features:
        """Return indicators of values, and of pairs of values of two covariates, shape ``(N, F)``.

        Args:
            covariates: With the columns that were learnt.
        """
        single = [encoder.indicators(covariates[encoder.name]) for encoder in self.encoders]
        pairs = [
            (one[:, :, None] & other[:, None, :]).reshape(len(covariates), -1)
            for one, other in combinations(single, 2)
        ]
        kept = list(_within(single, pairs))
        if not kept:
            return np.zeros((len(covariates), 0), dtype=np.float32)
        return np.concatenate(kept, axis=1).astype(np.float32)


def _within(single: Sequence[Columns], pairs: Sequence[Columns]) -> Iterator[Columns]:
    """Yield the columns, and those of pairs as long as there are not too many."""
    yield from single
    room = _MOST_COLUMNS - sum(columns.shape[1] for columns in single)
    for columns in pairs:
        room -= columns.shape[1]
        if room < 0:
            return
        yield columns


def _words(column: "pd.Series[str]") -> "pd.Series[str]":
    words = column.astype(object).where(column.notna(), "").map(lambda value: str(value).strip())
    words = words.where(words.str.lower() != "unknown", "")
    numbers = pd.to_numeric(words, errors="coerce")
    if bool(numbers.notna().eq(words != "").all()):  # 1 and 1.0 are one value
        words = numbers.map(lambda number: "" if np.isnan(number) else f"{number:.12g}")
    return words


def _describes_label(is_known: Columns, targets: Floats) -> bool:
    """Tell whether a covariate is known only of the positives of a label, as bacterium or virus is."""
    return any(
        bool((column[is_known] == 1).all()) and bool((column == 0).any())
        for column in targets.T
        if is_known.any()
    )
