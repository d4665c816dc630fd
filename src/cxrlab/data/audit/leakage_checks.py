"""Patients and pictures that stand where they must not: in two parts, with two labels, of two patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit.finding import NUM_EXAMPLES, Evidence, Finding, Mask, Severity, counted
from cxrlab.data.patients import dominant_patient, rounded_patients

Numbers = npt.NDArray[np.float32]

Kind = Literal["identical", "near-identical"]

# Pairs that the page can show side by side; those that cross something come first.
_NUM_SHOWN = 24


_CROSSED = {
    "parts": "in more than one part",
    "published parts": "in more than one published part",
    "labels": "with labels that contradict each other",
    "labels of one patient": "of one patient with different labels: two exposures, and a finding that came "
    "or went, or one that is labelled twice",
    "patients": "of more than one patient",
}


_SEVERITIES: dict[str, Severity] = {"parts": "fault", "labels of one patient": "note"}


@dataclass(frozen=True)
class ShownPair:
    """Two images to look at side by side.

    Attributes:
        rows: Of the manifest, two.
        kind: How alike they are.
        across: What they cross: "parts", "published parts", "labels", "labels of one patient", "patients".
    """

    rows: list[int]
    kind: Kind
    across: list[str]


def shared_patients(evidence: Evidence) -> Iterator[Finding]:
    """Find patients in more than one part, of the split that is used and of the published one."""
    table = evidence.manifest.table
    yield from _shared(evidence, "part", "patients_across_parts", "fault", "more than one part")
    if not (table["part"] == table["split"]).all():
        yield from _shared(
            evidence, "split", "patients_across_published_parts", "warning", "more than one published part"
        )


def _shared(evidence: Evidence, column: str, kind: str, severity: Severity, where: str) -> Iterator[Finding]:
    table = evidence.manifest.table
    assigned = table.loc[table[column] != "", ["patient", column]].drop_duplicates()
    shared = assigned["patient"][assigned["patient"].duplicated()].unique()
    if len(shared):
        rows = table["patient"].isin(shared).to_numpy()
        message = f"{counted(len(shared), 'patient')} with {counted(int(rows.sum()), 'image')} in {where}."
        yield Finding(
            kind,
            severity,
            message,
            len(shared),
            evidence.images(rows),
            [str(name) for name in shared[:NUM_EXAMPLES]],
        )


def patient_ids(evidence: Evidence) -> Iterator[Finding]:
    """Find patients with several spellings, one who has a third of all images, and ids that were rounded."""
    patients = evidence.manifest.table["patient"]
    if spellings := evidence.manifest.spellings:
        count = len(spellings)
        verb = "is" if count == 1 else "are"
        message = f"{counted(count, 'patient')} {verb} written in more than one way; each counts as one."
        shown = spellings[:NUM_EXAMPLES]
        rows = patients.isin([names[0] for names in spellings]).to_numpy()
        yield Finding(
            "patients_with_several_spellings",
            "warning",
            message,
            count,
            evidence.images(rows),
            [names[0] for names in shown],
            [" = ".join(map(repr, names)) for names in shown],
        )
    if (dominant := dominant_patient(patients)) is not None:
        name, count = dominant
        message = f"One patient has {counted(count, 'image')} of {len(patients):,}: a word for unknown ones?"
        yield Finding(
            "dominant_patient",
            "warning",
            message,
            count,
            evidence.images((patients == name).to_numpy()),
            [name],
        )
    if rounded := rounded_patients(patients):
        message = f"{counted(len(rounded), 'patient')} with an id that a spreadsheet rounded, as in 1.23E+11."
        rows = patients.isin(rounded).to_numpy()
        yield Finding(
            "rounded_patients",
            "warning",
            message,
            len(rounded),
            evidence.images(rows),
            rounded[:NUM_EXAMPLES],
        )


def duplicates(evidence: Evidence) -> Iterator[Finding]:
    """Find files equal to the byte and pictures nearly the same, and what such groups cross."""
    pairs = evidence.pairs[["one", "other"]].to_numpy(dtype=int).tolist()
    yield from _duplicates(evidence, evidence.identical, "identical", "group", "warning")
    yield from _duplicates(evidence, pairs, "near-identical", "pair", "note")


def _duplicates(
    evidence: Evidence, groups: Sequence[Sequence[int]], what: Kind, noun: str, severity: Severity
) -> Iterator[Finding]:
    if not groups:
        return
    kind = what.replace("-", "_")
    num_images = len({row for group in groups for row in group})
    what_they_are = f"{counted(len(groups), noun)} of {what} images ({counted(num_images, 'image')})"
    first = [row for group in groups for row in group]
    yield Finding(kind, severity, f"{what_they_are}.", len(groups), evidence.images(first))
    for crossed, mask in _crossings_of(evidence, groups, what).items():
        if mask.any():
            rows = [row for group, hit in zip(groups, mask, strict=True) if hit for row in group]
            count = int(mask.sum())
            yield Finding(
                f"{kind}_across_{crossed.replace(' ', '_')}",
                _SEVERITIES.get(crossed, "warning"),
                f"{counted(count, noun)} of {what} images {_CROSSED[crossed]}.",
                count,
                evidence.images(rows),
            )


def crossings(evidence: Evidence, groups: Sequence[Sequence[int]]) -> dict[str, Mask]:
    """Return for each thing that a group of rows must not cross, which groups do; each mask is ``(G,)``."""
    table = evidence.manifest.table
    values = {"parts": _codes(table["part"]), "patients": _codes(table["patient"])}
    values["labels"] = evidence.manifest.targets
    if not (table["part"] == table["split"]).all():
        values["published parts"] = _codes(table["split"])
    return {name: _differ(values[name], groups) for name in _CROSSED if name in values}


def _of_pictures(masks: dict[str, Mask]) -> dict[str, Mask]:
    """Return the crossings of pictures that are only nearly the same.

    A patient may have had two exposures in one position, between which a finding came or went: labels that
    differ are no contradiction then, as they are where files are the same or patients differ.
    """
    of_one_patient = masks["labels"] & ~masks["patients"]
    return masks | {"labels": masks["labels"] & masks["patients"], "labels of one patient": of_one_patient}


def _shown(evidence: Evidence, pairs: Sequence[Sequence[int]], kind: Kind) -> list[ShownPair]:
    masks = _crossings_of(evidence, pairs, kind) if pairs else {}
    return [
        ShownPair([int(row) for row in pair], kind, [name for name, mask in masks.items() if mask[place]])
        for place, pair in enumerate(pairs)
    ]


def _crossings_of(evidence: Evidence, groups: Sequence[Sequence[int]], kind: Kind) -> dict[str, Mask]:
    masks = crossings(evidence, groups)
    return masks if kind == "identical" else _of_pictures(masks)


def _codes(names: "pd.Series[Any]") -> Numbers:
    """Return numbers that tell ``names`` apart, shape ``(N, 1)``; NaN for the empty name."""
    codes = pd.factorize(names)[0].astype(np.float32)
    return np.asarray(np.where(names.to_numpy() == "", np.nan, codes), dtype=np.float32)[:, None]


def _differ(values: Numbers, groups: Sequence[Sequence[int]]) -> Mask:
    """Return which groups hold two known values of one column that differ."""
    rows = np.concatenate([np.asarray(group, dtype=int) for group in groups])
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    highest, lowest = np.fmax.reduceat(values[rows], starts), np.fmin.reduceat(values[rows], starts)
    return np.asarray((highest > lowest).any(axis=1))


def shown_pairs(evidence: Evidence) -> list[ShownPair]:
    """Return up to 24 pairs of rows to look at, with what each crosses, the worst first."""
    near = evidence.pairs[["one", "other"]].to_numpy(dtype=int).tolist()
    # Of a larger group, the two to show are its first; what it crosses as a whole stands in the findings.
    first = [list(group[:2]) for group in evidence.identical]
    pairs = _shown(evidence, first, "identical") + _shown(evidence, near, "near-identical")
    return sorted(pairs, key=lambda pair: ("parts" not in pair.across, -len(pair.across)))[:_NUM_SHOWN]
