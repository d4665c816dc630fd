"""What a reader must know before believing a number, and what may be set beside it.

Beside ours stands the AUROC that papers report on ChestX-ray14, each with the split it was found on.
"""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from cxrlab.data.readers.nih import LABELS
from cxrlab.evaluation import out_of_fold
from cxrlab.evaluation.contamination import Contamination, is_worth_a_caveat
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.out_of_fold import OutOfFold
from cxrlab.evaluation.results import Caveat, Estimates, PublishedRow, PublishedTable, PublishedValue
from cxrlab.metrics.estimates import averaged_labels, class_patients
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

_PARTS = {
    "train": "The network was evaluated on the images that it was trained on: the numbers are far too good.",
    "val": "The network was evaluated on the images that its best epoch and thresholds were chosen on: the "
    "numbers are optimistic.",
}

OFFICIAL = "official"
NUM_OFFICIAL_TEST = 25_596
_FEW_UNREADABLE = 25
# Names that nih.read and people give to the whole of it; samples have lists of their own.
_WHOLE = ("nih", "nih chestx-ray14", "chestx-ray14", "chestxray14", "nih_chestxray14")

# How ChestX-ray14 calls its images: 00000013_005.png, whatever their format is now.
_NIH_IMAGE = re.compile(r"(?:^|/)\d{8}_\d{3}(?:\.\w+)?$")

# In the order of LABELS; table 2 of the paper.
_CHEXNET = (
    0.8094,
    0.9248,
    0.8638,
    0.7345,
    0.8676,
    0.7802,
    0.7680,
    0.8887,
    0.7901,
    0.8878,
    0.9371,
    0.8047,
    0.8062,
    0.9164,
)

_BEST_OF_TEST = "its code keeps the best epoch of the test part"
_MAE_STUDY = f"Xiao et al., WACV 2023, README of lambert-x/medical_mae; {_BEST_OF_TEST}"

# Mean of the 14 findings on the test part of the official split: docs/background/famous_numbers.md.
_MEANS = (
    ("Wang et al. 2017", "Wang et al., ChestX-ray8, CVPR 2017", 0.745),
    ("DNetLoc", "Gündel et al., CIARP 2018", 0.807),
    ("DenseNet121, 320 px", "Yzaza/nih-cxr-models, model card on the Hugging Face Hub", 0.811),
    ("Swin-T, 320 px", "Yzaza/nih-cxr-models, model card on the Hugging Face Hub", 0.818),
    ("MAE study, DenseNet121", _MAE_STUDY, 0.822),
    ("AE-CNN", "Ranjan et al., ICVGIP 2018", 0.824),
    ("MAE study, ViT-B/16", _MAE_STUDY, 0.830),
    ("Ark-6", "Ma et al., Ark, MICCAI 2023", 0.8305),
    ("EVA-X-B", f"Yao et al., EVA-X, npj Digital Medicine 2025; {_BEST_OF_TEST}", 0.835),
)

_WHY = (
    "Values of different splits, or of validation and test, cannot be mixed: they are of other patients at "
    "another prevalence. In the official split the test part has 9.15 images a patient and the rest 3.09, "
    "and AUROC on it is 0.015 to 0.03 lower."
)


def caveats(
    table: PredictionTable, thresholds: Thresholds | None, settings: EvaluationSettings
) -> list[Caveat]:
    """Return what weakens an evaluation: of the whole table first, then of its labels."""
    flags = [Caveat(f"{table.part}_part", None, _PARTS[table.part])] if table.part in _PARTS else []
    if not table.patients_known:
        flags.append(
            Caveat(
                "patients_unknown",
                None,
                "Patients are unknown, so each image was taken for a patient of its own. Where patients have "
                "several images, every interval here is too narrow.",
            )
        )
    if thresholds is None:
        flags.append(
            Caveat(
                "no_threshold",
                None,
                "There is no validation part to choose a threshold on (validation=), and none was given "
                "(threshold=): sensitivity and all else that needs one is left out. Chosen on the very "
                "images evaluated, it would flatter.",
            )
        )
    patients = class_patients(table)
    averaged = averaged_labels(table, settings.min_positives)
    has_few = averaged & (patients.min(axis=0) < settings.min_positives)
    if averaged.sum() > 1 and has_few.any():
        message = (
            f"No label has {counted(settings.min_positives, _owner(table))} with it and as many without it: "
            "the macro means are of all labels all the same, and their intervals are too narrow."
        )
        flags.append(Caveat("macro_of_few", None, message))
    for column, label in enumerate(table.labels):
        flags += _of_label(table, column, patients[:, column], settings, is_averaged=bool(averaged[column]))
        if thresholds is not None and np.isnan(thresholds.values[column]):
            why = "has one class only"
            if thresholds.rule.startswith(("npv@", "ppv@")):
                why += f", or no threshold reaches {thresholds.rule} there"
            message = f"No threshold could be chosen for {label}: the {thresholds.source} part {why}."
            flags.append(Caveat("no_threshold", label, message))
    return flags


def contamination_caveats(found: Contamination | None, data_name: str) -> list[Caveat]:
    """Return what is known of start weights that had seen the evaluated images; nothing for None.

    Args:
        found: What is known.
        data_name: Public name of the data set that is evaluated, or empty.
    """
    if found is None:
        return []
    flags = []
    kind, end = {
        "certain": ("seen", "The numbers say little about new patients."),
        "possible": ("perhaps_seen", "If these images were among them, the numbers are too good."),
        "unknown": ("unknown_start", "If these images were among them, the numbers are too good."),
        "none": ("", ""),
    }[found.overlap]
    if found.overlap in ("certain", "possible") or is_worth_a_caveat(found, data_name):
        flags.append(Caveat(kind, None, " ".join([*found.reasons, end])))
    if found.validation_reasons:
        message = (
            "Validation images, on which best epoch, thresholds and calibration were chosen, had been seen "
            "before the training began too: these may be off for new patients."
        )
        why = () if found.overlap == "certain" else found.validation_reasons
        flags.append(Caveat("seen_validation", None, " ".join([message, *why])))
    return flags


def fold_caveats(facts: OutOfFold | None) -> list[Caveat]:
    """Return what weakens out-of-fold predictions; nothing for None."""
    if facts is None:
        return []
    flags = [Caveat("out_of_fold", None, out_of_fold.message(facts))]
    if facts.shared_patients:
        message = (
            f"{facts.shared_patients} patients have images in several folds, so networks were trained on "
            "patients that they are evaluated on: the numbers are too good."
        )
        flags.append(Caveat("patients_in_folds", None, message))
    return flags


def _of_label(
    table: PredictionTable,
    column: int,
    patients: npt.NDArray[np.int64],
    settings: EvaluationSettings,
    *,
    is_averaged: bool,
) -> list[Caveat]:
    """Return what weakens one label, of which so many patients have positives and negatives, ``(2,)``."""
    label, targets = table.labels[column], table.targets[:, column]
    images = [int((targets == 1).sum()), int((targets == 0).sum())]
    texts = [counted(count, noun) for count, noun in zip(images, ("positive", "negative"), strict=True)]
    if not all(images):
        message = (
            f"{label} has {texts[0]} and {texts[1]}: no ranking can be evaluated, and the macro means leave "
            "it out."
        )
        return [Caveat("one_class", label, message)]
    rarer = int(patients.argmin()) if patients[0] != patients[1] else int(images[1] < images[0])
    if patients[rarer] >= settings.min_positives:
        return []
    owners = f", of {counted(int(patients[rarer]), 'patient')}" if table.patients_known else ""
    left_out = "" if is_averaged else ", and the macro means leave it out"
    message = f"{label} has only {texts[rarer]}{owners}: its numbers say little{left_out}."
    return [Caveat("few_positives", label, message)]


def _owner(table: PredictionTable) -> str:
    return "patient" if table.patients_known else "image"


def counted(value: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> counted(1, "positive"), counted(240, "patient")
        ('1 positive', '240 patients')
    """
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def is_official(data_name: str, split: str | None, num_images: int | None = None) -> bool:
    """Tell whether values are of the test part of NIH's own lists, on which values were published.

    Another data set's "official" split, such as that of a course's sample, is its own.

    Args:
        data_name: Of the data set.
        split: Name of its split, or None.
        num_images: That were evaluated; None where only the lists are asked for.
    """
    is_whole = num_images is None or abs(num_images - NUM_OFFICIAL_TEST) <= _FEW_UNREADABLE
    return split == OFFICIAL and data_name.strip().lower() in _WHOLE and is_whole


def are_of_nih(images: Iterable[object]) -> bool:
    """Tell whether all images are called as those of ChestX-ray14 are, whatever their data set is called.

    Example:
        >>> are_of_nih(["images/00000013_005.png"]), are_of_nih(["00000013_005.png", "patient1/view1.png"])
        (True, False)
    """
    return all(_NIH_IMAGE.search(str(image)) for image in images)


def split_name(data_name: str, split: str | None) -> str | None:
    """Return what to call a split beside NIH's official one."""
    if split == OFFICIAL and not is_official(data_name, split):
        return f"that of {data_name}"
    return split


def published_table(
    labels: Mapping[str, Estimates],
    macro: Estimates,
    data_name: str,
    split: str | None,
    num_images: int | None = None,
    averaged: Collection[str] | None = None,
    *,
    is_nih: bool,
) -> PublishedTable | None:
    """Return our AUROC and the published ones, with what may be set beside what.

    Means are compared only where ours is of all 14 findings and of nothing else.

    Args:
        labels: Our estimates by label and metric; ``auroc`` is used.
        macro: Our means by metric.
        data_name: Of the data set that was evaluated.
        split: Name of its split, or None.
        num_images: That were evaluated; None if that is not known.
        averaged: Labels that our means are of; None for all.
        is_nih: Whether they are images of ChestX-ray14, see :func:`are_of_nih`.

    Returns:
        None if the data are not of the NIH, or no label is one of its findings.
    """
    findings = [label for label in labels if label in LABELS]
    if not is_nih or not findings:
        return None
    aurocs = {label: labels[label]["auroc"] for label in findings}
    has_mean = set(labels) == set(LABELS) == set(labels if averaged is None else averaged)
    has_mean = has_mean and all(auroc.value is not None for auroc in aurocs.values())
    if has_mean:
        aurocs["macro"] = macro["auroc"]
    rows = [_chexnet(findings, has_mean)]
    if has_mean:
        rows += [PublishedRow(name, source, OFFICIAL, {}, mean) for name, source, mean in _MEANS]
    return PublishedTable(
        ours=[
            PublishedValue(auroc.value, auroc.low, auroc.high, label=label) for label, auroc in aurocs.items()
        ],
        rows=rows,
        note=_note(data_name, split, num_images, has_mean),
    )


def _chexnet(findings: list[str], has_mean: bool) -> PublishedRow:
    values = dict(zip(LABELS, _CHEXNET, strict=True))
    return PublishedRow(
        name="CheXNet",
        source="Rajpurkar et al., arXiv:1711.05225, 2017",
        split="its own random split by patient, not disclosed",
        values={label: values[label] for label in findings},
        macro=round(float(np.mean(_CHEXNET)), 4) if has_mean else None,
    )


def _note(data_name: str, split: str | None, num_images: int | None, has_mean: bool) -> str:
    if is_official(data_name, split, num_images):
        beside = "Ours may be set beside those of the official split, and only where it is of the test part."
    elif is_official(data_name, split):
        beside = (
            f"Ours is of {num_images:,} images and not of the {NUM_OFFICIAL_TEST:,} of the official test "
            "part, so none of these may be set beside it as better or worse."
        )
    elif split == OFFICIAL:
        beside = (
            f"Ours is on the own split of {data_name}, which is not the official one, so none of these may "
            "be set beside it as better or worse."
        )
    else:
        name = f"the split {split!r}" if split else "a split that is not known"
        beside = f"Ours is on {name}, so none of these may be set beside it as better or worse."
    sentences = [_WHY, beside]
    if not has_mean:
        sentences.append(
            f"Ours is no mean of exactly the {len(LABELS)} findings, so published means are left out."
        )
    return " ".join(sentences)
