"""Labels that cannot be learnt or judged: constant, rare, or of a name that nobody else uses."""

from collections.abc import Iterator

import numpy as np

from cxrlab.data.audit.contradictions import standard_name
from cxrlab.data.audit.evidence import NUM_EXAMPLES, Evidence, Finding, counted

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
    """Find parts with too few patients to be judged on."""
    if "all" in evidence.parts:
        return
    for part, rows in evidence.parts.items():
        patients = evidence.manifest.table["patient"][rows].nunique()
        if patients < FEWEST_PATIENTS:
            message = (
                f"{part} has {counted(patients, 'patient')}; below {FEWEST_PATIENTS} intervals are wide."
            )
            yield Finding("small_part", "warning", message, patients)
