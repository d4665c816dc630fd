"""The audit: one look over a manifest and what was seen of its images."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from cxrlab.data.audit import drift, file_checks, label_checks, leakage_checks, tables
from cxrlab.data.audit import label_checks as labels
from cxrlab.data.audit.finding import Evidence
from cxrlab.data.image_statistics import Appearance
from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError

_CHECKS = (
    leakage_checks.shared_patients,
    file_checks.unreadable,
    leakage_checks.duplicates,
    file_checks.looks,
    file_checks.missing_and_extra,
    label_checks.no_finding,
    label_checks.ages,
    label_checks.duplicate_rows,
    label_checks.sexes,
    labels.constant_and_rare,
    labels.small_parts,
    labels.unknown_names,
    label_checks.unknown_covariates,
    file_checks.formats,
)
_ORDER = ("fault", "warning", "note")
FACTS = ("error", "warning", "digest", "width", "height", "mode", *Appearance._fields)


def audit(
    manifest: Manifest,
    facts: pd.DataFrame,
    *,
    identical: list[list[int]],
    pairs: pd.DataFrame,
    missing: int | Sequence[str],
    extra: Sequence[str],
    raw: pd.DataFrame | None,
) -> dict[str, Any]:
    """Return everything that is odd about a data set, and its counts, as plain data for JSON.

    Args:
        manifest: The data set; ``part`` may be set or not.
        facts: One row for each row of the manifest, in its order: ``error`` and ``warning`` ("" for none),
            ``digest`` (of the bytes), ``width``, ``height`` (of the file), ``mode`` and the fields of
            :class:`cxrlab.data.image_statistics.Appearance`. Rows with an error may hold NaN.
        identical: Groups of row numbers whose files are equal to the byte.
        pairs: Columns ``one`` and ``other``, row numbers of pictures that are nearly the same.
        missing: Images that are listed but not on disk: their names, or only how many.
        extra: Images on disk that no table lists.
        raw: The data set's own table as it was listed, before anything was refused or mended: ``image`` and,
            where there are any, ``findings`` (text with ``|``) and ``age`` (years); None where there is none.

    Returns:
        ``data`` (name, images, patients, listed, fingerprint, labels), ``findings`` (see
        :class:`cxrlab.data.audit.finding.Finding`; faults first), ``parts``, ``labels``, ``without_label``,
        ``cooccurrence``, ``images_per_patient``, ``sizes``, ``modes``, ``covariates``, ``drift`` and
        ``duplicates`` (pairs to look at). Where the manifest is not split, its part is called "all".

    Raises:
        DataError: If the facts do not fit the manifest, or a row number is outside of it.
    """
    _check(manifest, facts, identical, pairs)
    evidence = Evidence(manifest, facts, identical, pairs, missing, extra, raw)
    differences = drift.drift(evidence)
    findings = [found for check in _CHECKS for found in check(evidence)]
    findings += drift.drifted(differences)
    findings.sort(key=lambda found: _ORDER.index(found.severity))
    return {
        "data": {
            "name": manifest.name,
            "images": len(manifest),
            "patients": int(manifest.table["patient"].nunique()),
            "listed": manifest.num_listed,
            "fingerprint": manifest.fingerprint(),
            "labels": manifest.labels,
        },
        "findings": [asdict(found) for found in findings],
        "parts": tables.parts(evidence),
        "labels": tables.labels(evidence),
        "without_label": tables.without_label(evidence),
        "cooccurrence": tables.cooccurrence(evidence),
        "images_per_patient": tables.images_per_patient(evidence),
        "sizes": tables.sizes(evidence),
        "modes": tables.modes(evidence),
        "covariates": tables.covariates(evidence),
        "drift": differences,
        "duplicates": leakage_checks.shown_pairs(evidence),
    }


def _check(manifest: Manifest, facts: pd.DataFrame, identical: list[list[int]], pairs: pd.DataFrame) -> None:
    if len(manifest) == 0:
        raise DataError(f"The manifest of {manifest.root} has no rows; there is nothing to audit.")
    lacking = [name for name in FACTS if name not in facts]
    if lacking or len(facts) != len(manifest):
        raise DataError(
            f"The facts of {len(facts)} images lack the columns {lacking}, or their number is not that of "
            f"the {len(manifest)} rows of the manifest of {manifest.root}. Build the cache again."
        )
    rows = [row for group in identical for row in group]
    rows += pairs[["one", "other"]].to_numpy(dtype=int).ravel().tolist()
    outside = [row for row in rows if not 0 <= row < len(manifest)]
    if outside:
        raise DataError(
            f"Duplicates name the rows {outside[:3]}; the manifest of {manifest.root} has {len(manifest)}."
        )
