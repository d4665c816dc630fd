"""Labels that cannot be learnt or evaluated, and rows that cannot be true."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cxrlab.data.audit.finding import NUM_EXAMPLES, Evidence, Finding, counted
from cxrlab.data.manifest import COVARIATE, LABEL

# The oldest person on record reached 122; an age above 110 is almost surely a slip of the keyboard.
OLDEST = 110
NORMAL_NAMES = frozenset({"no finding", "normal"})
# CheXpert gives "No Finding" beside support devices, which are no finding of the lung.
_HARMLESS = frozenset({"support devices"})
_UNKNOWN = frozenset({"", "unknown", "u", "nan", "none", "n/a", "na"})
# With 10 positives among many negatives, the standard error of an AUROC of 0.8 is about 0.08 (Hanley and
# McNeil, Radiology 143:29-36, 1982): a difference between two models has to be huge to be seen.
FEWEST = 10
# Patients, not images, are independent: below 30, an interval over patients is wide and its cover uncertain.
FEWEST_PATIENTS = 30
# Names of ChestX-ray14, CheXpert, MIMIC-CXR, VinDr-CXR, RSNA and the sets that this project reads.
_NAMES = """
    atelectasis; cardiomegaly; effusion; pleural effusion; infiltration; mass; nodule; nodule/mass; pneumonia;
    pneumothorax; consolidation; edema; emphysema; fibrosis; pulmonary fibrosis; pleural thickening; hernia;
    no finding; normal; enlarged cardiomediastinum; lung opacity; opacity; lung lesion; pleural other;
    fracture; support devices; aortic enlargement; calcification; ild; interstitial lung disease;
    other lesion; tuberculosis; covid 19; covid; parasitized
"""
STANDARD = frozenset(name.strip() for name in _NAMES.split(";"))


def standard_name(label: str) -> str:
    """Return a label in lower case with blanks: ``Pleural_Thickening`` is ``pleural thickening``."""
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def no_finding(evidence: Evidence) -> Iterator[Finding]:
    """Find images with "No Finding" and a finding, in the labels and in the data set's own text."""
    manifest = evidence.manifest
    normal = [name for name in manifest.labels if standard_name(name) in NORMAL_NAMES]
    others = [name for name in manifest.labels if name not in normal and standard_name(name) not in _HARMLESS]
    if normal and others:
        table = manifest.table
        both = (table[[LABEL + name for name in normal]] == 1).any(axis=1) & (
            table[[LABEL + name for name in others]] == 1
        ).any(axis=1)
        yield from _contradicting(evidence.images(both.to_numpy()), int(both.sum()))
    raw = evidence.raw
    if raw is not None and "findings" in raw:
        names = raw["findings"].astype(str).str.strip().str.lower()
        both = names.str.contains(r"\bno finding\b") & (names != "no finding")
        yield from _contradicting(_first(raw["image"][both]), int(both.sum()))


def _contradicting(images: list[str], count: int) -> Iterator[Finding]:
    if count:
        message = f'{counted(count, "image")} labelled "No Finding" and with a finding at once.'
        yield Finding("no_finding_with_finding", "warning", message, count, images)


def _first(images: "pd.Series[str]") -> list[str]:
    return [str(name) for name in images.head(NUM_EXAMPLES)]


def ages(evidence: Evidence) -> Iterator[Finding]:
    """Find ages below 0 or above 110 years, as listed or as read."""
    raw, table = evidence.raw, evidence.manifest.table
    if raw is not None and "age" in raw:
        values, images = raw["age"], raw["image"]
    elif COVARIATE + "age" in table:
        values, images = table[COVARIATE + "age"], table["image"]
    else:
        return
    years = pd.to_numeric(values, errors="coerce")
    wrong = (years < 0) | (years > OLDEST)
    if wrong.any():
        message = f"{counted(int(wrong.sum()), 'image')} with an age below 0 or above {OLDEST} years"
        message += f" (from {years[wrong].min():g} to {years[wrong].max():g})."
        yield Finding("impossible_age", "warning", message, int(wrong.sum()), _first(images[wrong]))


def duplicate_rows(evidence: Evidence) -> Iterator[Finding]:
    """Find images that the data set's own table lists more than once."""
    raw = evidence.raw
    if raw is None:
        return
    again = raw["image"].duplicated()
    if again.any():
        twice = raw["image"][again].unique()
        differing = raw[raw["image"].isin(twice)].drop_duplicates()["image"].duplicated().sum()
        message = f"{counted(len(twice), 'image')} listed more than once"
        message += f", {differing:,} of the rows with other values." if differing else ", each time alike."
        yield Finding("duplicate_rows", "warning", message, len(twice), list(map(str, twice[:NUM_EXAMPLES])))


def sexes(evidence: Evidence) -> Iterator[Finding]:
    """Find patients whose images give more than one sex."""
    table, column = evidence.manifest.table, COVARIATE + "sex"
    if column not in table:
        return
    sex_of_patient = table.loc[~unknown(table[column]), ["patient", column]].drop_duplicates()
    names = sex_of_patient["patient"][sex_of_patient["patient"].duplicated()].unique()
    if len(names):
        verb = "has" if len(names) == 1 else "have"
        message = f"{counted(len(names), 'patient')} {verb} images of more than one sex."
        yield Finding(
            "several_sexes",
            "warning",
            message,
            len(names),
            evidence.images(table["patient"].isin(names).to_numpy()),
            [str(name) for name in names[:NUM_EXAMPLES]],
        )


def unknown_covariates(evidence: Evidence) -> Iterator[Finding]:
    """Find covariates that are not given for every image."""
    table = evidence.manifest.table
    for name in evidence.manifest.covariates:
        blank = unknown(table[COVARIATE + name])
        if blank.any():
            share = blank.mean()
            message = f"{name} is unknown for {blank.sum():,} of {len(table):,} images ({share:.1%})."
            yield Finding(
                "unknown_covariate", "note", message, int(blank.sum()), evidence.images(blank.to_numpy())
            )


def unknown(values: "pd.Series[Any]") -> "pd.Series[bool]":
    """Return which values say nothing: missing, blank or a word for "unknown"."""
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float).isna()
    # Few distinct values stand in many rows, so each is looked at once.
    codes, distinct = pd.factorize(values)
    blank = np.array([str(value).strip().lower() in _UNKNOWN for value in distinct] + [True])
    return pd.Series(blank[codes], index=values.index)


def unknown_names(evidence: Evidence) -> Iterator[Finding]:
    """Find labels whose name is none of those that the field's data sets use."""
    strange = [name for name in evidence.manifest.labels if standard_name(name) not in STANDARD]
    if strange:
        message = (
            f"{counted(len(strange), 'label')} with a name unknown to chest X-ray sets: {_listed(strange)}."
        )
        yield Finding("unknown_label", "note", message, len(strange))


def constant_and_rare(evidence: Evidence) -> Iterator[Finding]:
    """Find, in each part, labels with one value only and labels with fewer than ten of either."""
    targets, names = evidence.manifest.targets, np.array(evidence.manifest.labels, dtype=object)
    for part, rows in evidence.parts.items():
        positive, negative = (targets[rows] == 1).sum(axis=0), (targets[rows] == 0).sum(axis=0)
        fewest = np.minimum(positive, negative)
        constant, rare = names[fewest == 0], names[(fewest > 0) & (fewest < FEWEST)]
        where = "the data" if part == "all" else part
        if len(constant):
            message = f"{counted(len(constant), 'label')} without a positive or a negative in {where}: "
            message += f"{_listed(list(constant))}."
            yield Finding("constant_label", "warning", message, len(constant))
        if len(rare):
            message = (
                f"{counted(len(rare), 'label')} with fewer than {FEWEST} positives or negatives in {where}: "
            )
            message += f"{_listed(list(rare))}."
            yield Finding("rare_label", "warning", message, len(rare))


def _listed(names: list[str]) -> str:
    more = len(names) - NUM_EXAMPLES
    return ", ".join(names[:NUM_EXAMPLES]) + (f" and {more} more" if more > 0 else "")


def small_parts(evidence: Evidence) -> Iterator[Finding]:
    """Find parts with too few patients to be evaluated on."""
    if "all" in evidence.parts:
        return
    for part, rows in evidence.parts.items():
        patients = evidence.manifest.table["patient"][rows].nunique()
        if patients < FEWEST_PATIENTS:
            message = (
                f"{part} has {counted(patients, 'patient')}; below {FEWEST_PATIENTS} intervals are wide."
            )
            yield Finding("small_part", "warning", message, patients)
