"""The counts of a data set by part: images, labels, patients, sizes and covariates.

The audit in a few lines for the terminal.
"""

from typing import Any

import numpy as np
import pandas as pd

from cxrlab.data.audit.file_checks import sizes_of
from cxrlab.data.audit.finding import Evidence, counted
from cxrlab.data.audit.label_checks import unknown
from cxrlab.data.manifest import COVARIATE

Rows = list[dict[str, Any]]


# More values than this, and a covariate is an identifier or free text, which no report should repeat.
MOST_CATEGORIES = 20


_NUM_SIZES = 10


_MOST_IMAGES = 20  # patients with more images are counted together


_QUANTILES = {"minimum": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "maximum": 1.0}


def parts(evidence: Evidence) -> Rows:
    """Return images, readable images and patients of each part."""
    patients = evidence.manifest.table["patient"]
    return [
        {"part": part, "images": int(rows.sum()), "readable": int((rows & evidence.readable).sum()),
         "patients": int(patients[rows].nunique())}
        for part, rows in evidence.parts.items()
    ]  # fmt: skip


def labels(evidence: Evidence) -> Rows:
    """Return positives, negatives, unknowns and the share of positives among the known, by label and part."""
    targets, table = evidence.manifest.targets, []
    for part, rows in evidence.parts.items():
        positive, negative = (targets[rows] == 1).sum(axis=0), (targets[rows] == 0).sum(axis=0)
        for index, label in enumerate(evidence.manifest.labels):
            yes, no = int(positive[index]), int(negative[index])
            table.append(
                {"label": label, "part": part, "positive": yes, "negative": no,
                 "unknown": int(rows.sum()) - yes - no, "prevalence": yes / (yes + no) if yes + no else None}
            )  # fmt: skip
    return table


def cooccurrence(evidence: Evidence) -> dict[str, Any]:
    """Return how many images have both labels of each pair; the diagonal counts one label's positives."""
    present = (evidence.manifest.targets == 1).astype(np.float64)
    return {"labels": evidence.manifest.labels, "counts": (present.T @ present).astype(int).tolist()}


def without_label(evidence: Evidence) -> Rows:
    """Return the share of images on which no label is present, by part, among those where that is known."""
    return [
        {"part": part, "share": share if np.isfinite(share) else None}
        for part, rows in evidence.parts.items()
        for share in [_mean(absent(evidence)[rows])]
    ]


def absent(evidence: Evidence) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return 1 where all labels are known to be absent, 0 where one is present, NaN where that is unknown."""
    targets = evidence.manifest.targets
    none = np.where((targets == 0).all(axis=1), 1.0, np.nan)
    return np.where((targets == 1).any(axis=1), 0.0, none)


def _mean(values: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def images_per_patient(evidence: Evidence) -> Rows:
    """Return the distribution of images per patient, by part."""
    table: Rows = []
    for part, rows in evidence.parts.items():
        numbers = num_images(evidence, rows)
        counts = np.bincount(np.minimum(numbers, _MOST_IMAGES))
        names = [f"{number}" if number < _MOST_IMAGES else f"{number}+" for number in range(len(counts))]
        table.append(
            {"part": part, "mean": float(numbers.mean()), "median": float(np.median(numbers)),
             "maximum": int(numbers.max()),
             "patients": {name: int(count) for name, count in zip(names, counts, strict=True) if count}}
        )  # fmt: skip
    return table


def num_images(evidence: Evidence, rows: "np.ndarray[Any, np.dtype[np.bool_]]") -> Any:
    """Return the number of images of each patient among ``rows``, shape ``(P,)``."""
    return np.bincount(pd.factorize(evidence.manifest.table["patient"][rows])[0])


def sizes(evidence: Evidence) -> dict[str, Any]:
    """Return the ten most frequent sizes of the files, and how many sizes there are."""
    found = sizes_of(evidence)
    rows = [
        dict(zip(("width", "height", "images"), map(int, row), strict=True)) for row in found[:_NUM_SIZES]
    ]
    return {"num_sizes": len(found), "most_frequent": rows}


def modes(evidence: Evidence) -> dict[str, int]:
    """Return the number of files of each pixel mode."""
    counts = evidence.facts.loc[evidence.readable, "mode"].value_counts()
    return {str(mode): int(count) for mode, count in counts.items()}


def covariates(evidence: Evidence) -> Rows:
    """Return quantiles of numeric covariates and counts of the others, by part."""
    table: Rows = []
    for name in evidence.manifest.covariates:
        values = evidence.manifest.table[COVARIATE + name]
        blank = unknown(values).to_numpy()
        for part, rows in evidence.parts.items():
            known = values[rows & ~blank]
            row = {"covariate": name, "part": part, "unknown": int((rows & blank).sum())}
            table.append(row | _summary(known, values[~blank]))
    return table


def _summary(known: "pd.Series[Any]", everywhere: "pd.Series[Any]") -> dict[str, Any]:
    if pd.api.types.is_numeric_dtype(everywhere):
        numbers = known.to_numpy(dtype=float)
        if not len(numbers):
            return {"kind": "number"} | dict.fromkeys(["mean", *_QUANTILES])
        quantiles = {key: float(np.quantile(numbers, share)) for key, share in _QUANTILES.items()}
        return {"kind": "number", "mean": float(numbers.mean())} | quantiles
    if everywhere.nunique() > MOST_CATEGORIES:
        return {"kind": "text", "num_values": int(known.nunique())}
    return {"kind": "category", "counts": {str(key): int(n) for key, n in known.value_counts().items()}}


_NUM_TOLD = 3


_MARKS = {"fault": "FAULT  ", "warning": "warning", "note": "note   "}


def verdict(report: dict[str, Any]) -> str:
    """Return one to four lines: how many faults, warnings and notes, and the three worst of them.

    Example:
        >>> verdict({"findings": []})
        'Audit: no fault, no warning.'
    """
    findings = report["findings"]
    severities = [found["severity"] for found in findings]
    numbers = {name: severities.count(name) for name in _MARKS}
    told = [counted(number, name) for name, number in numbers.items() if number]
    if not numbers["fault"] and not numbers["warning"]:
        notes = f" {counted(numbers['note'], 'note')} in audit.json." if numbers["note"] else ""
        return f"Audit: no fault, no warning.{notes}"
    worst = [found for found in findings if found["severity"] != "note"][:_NUM_TOLD]
    lines = [f"  {_MARKS[found['severity']]} {found['message']}" for found in worst]
    return "\n".join([f"Audit: {', '.join(told)}; see audit.json.", *lines])


def terminal_table(report: dict[str, Any]) -> str:
    """Return the counts by part, the prevalence of each label by part, and all findings, one a line."""
    parts = pd.DataFrame(report["parts"]).set_index("part")
    parts["images/patient"] = [f"{row['mean']:.2f}" for row in report["images_per_patient"]]
    labels = pd.DataFrame(report["labels"])
    shares = labels.pivot(index="label", columns="part", values="prevalence").astype(float)
    shares = shares.loc[report["data"]["labels"], list(parts.index)]
    if len(shares) > 1:
        nothing = {row["part"]: row["share"] for row in report["without_label"]}
        shares.loc["(none of them)"] = pd.Series(nothing, dtype=float)
    text = shares.map(lambda share: "-" if pd.isna(share) else f"{share:.2%}")
    text.index.name = text.columns.name = None
    findings = [f"{_MARKS[found['severity']]} {found['message']}" for found in report["findings"]]
    blocks = [parts.rename_axis(None).T.to_string(), "share of positives", text.to_string()]
    return "\n".join([*blocks, "", *(findings or ["Nothing was found."])])
