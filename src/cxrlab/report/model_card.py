"""The model card: what a model is for, on what it was evaluated, and what it must not be used for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cxrlab.report import text
from cxrlab.report.formatting import counted, interval
from cxrlab.report.html import Redaction
from cxrlab.report.model_info import ModelInfo

Numbers = dict[str, Any]


class Section(NamedTuple):
    """A heading and the points below it."""

    title: str
    lines: Sequence[str]


def model_card(
    numbers: Numbers, model_info: ModelInfo, flags: Sequence[str], redaction: Redaction
) -> list[Section]:
    """Return the sections of a model card, without those that have nothing to say.

    Args:
        numbers: As in ``evaluation.json``.
        model_info: What was evaluated.
        flags: What to beware of, as the page shows it.
        redaction: Takes paths out of what comes from outside.

    References:
        Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
    """
    sections = [
        Section("Model details", _details(model_info, redaction)),
        Section("Intended use", _INTENDED),
        Section("Factors", _factors(numbers)),
        Section("Metrics", _metrics(numbers)),
        Section("Evaluation data", _evaluation_data(numbers, redaction)),
        Section("Training data", _training_data(model_info, redaction)),
        Section("Quantitative analyses", _analyses(numbers)),
        Section("Ethical considerations", _ETHICAL),
        Section("Caveats and recommendations", [*flags, *_CAVEATS]),
    ]
    return [section for section in sections if section.lines]


_INTENDED = (
    "Research on the classification of chest radiographs: comparing methods, and studying where they fail.",
    "Not for: diagnosis, triage, screening or any decision about a patient. It is no medical device, and "
    "nobody has shown that using it does a patient any good.",
    "Intended users are researchers who can evaluate the numbers on this page.",
)
_ETHICAL = (
    "The images show people who did not choose this use. What the data-use agreement protects (images, "
    "names, file names, patient ids) must not be passed on.",
    "Labels of many radiograph collections were taken from reports by programs. Where they are wrong, the "
    "model learns and is evaluated by the same errors.",
    "A model may serve some groups worse than others, also groups that were not recorded and so could not be "
    "compared. It may rest on what goes along with a finding, such as tubes, the hospital or the projection.",
    "A confident score or a convincing heatmap invites trust that it has not earned.",
)
_CAVEATS = (
    "The numbers hold for images like these. At another hospital, on another device or among other patients "
    "they can be much lower: evaluate it there, on patients of that place, before believing anything.",
    "PPV and NPV depend on how common a finding is among those examined.",
    "Radiographs only; no clinical information, no earlier image and no report was used.",
)


def _details(model_info: ModelInfo, redaction: Redaction) -> list[str]:
    kinds = {
        "run": "A network that gives each finding a probability.",
        "ensemble": "The mean of the probabilities of several networks.",
        "predictions": "Known by its predictions only; what made them is not recorded here.",
    }
    session = model_info.provenance or {}
    version = (session.get("versions") or {}).get("cxrlab")
    made = [
        f"with cxrlab {version}" if version else "",
        f"started {session['started']}" if session.get("started") else "",
    ]
    lines = [kinds[model_info.kind], redaction.text(model_info.network) + "." if model_info.network else ""]
    lines += [f"Trained {', '.join(filter(None, made))}." if any(made) else ""]
    lines += [f"Code: commit {session['commit']}." if session.get("commit") else ""]
    return [line for line in lines if line]


def _factors(numbers: Numbers) -> list[str]:
    predicted = list(dict.fromkeys(str(group["covariate"]) for group in numbers["subgroups"]))
    if not predicted:
        return [
            "No group was evaluated by itself: no covariate, such as view, sex or age, came with the images."
        ]
    return [
        f"PredictedImages by group: {', '.join(predicted)}.",
        "Groups by anything else, such as ethnicity or device, were not evaluated.",
    ]


def _metrics(numbers: Numbers) -> list[str]:
    lines = [
        "AUROC and average precision, which need no threshold; at the threshold sensitivity, specificity, "
        "predictive values and F1; calibration error and Brier score.",
        text.thresholds(numbers) or text.no_threshold(numbers) or "",
        f"Intervals: {text.intervals(numbers)}.",
    ]
    return [line for line in lines if line]


def _evaluation_data(numbers: Numbers, redaction: Redaction) -> list[str]:
    data = numbers["data"]
    patients = counted(data["patients"], "patient") if data["patients"] is not None else "patients unknown"
    told = [
        redaction.text(f"{name} {value}") for name, value in text.predicted(numbers) if name != "intervals"
    ]
    positives = [f"{label} {counts['positives']:,}" for label, counts in numbers["counts"].items()]
    return [
        f"{counted(data['images'], 'image')}, {patients}; {', '.join(told)}.",
        f"Images with each finding: {', '.join(positives)}.",
    ]


def _training_data(model_info: ModelInfo, redaction: Redaction) -> list[str]:
    trained = model_info.trained_on
    if trained is None:
        return ["Not recorded here."]
    parts = [
        f"{part} {counted(images, 'image')}"
        + (f" of {counted(patients, 'patient')}" if patients is not None else "")
        for part, (images, patients) in trained.parts.items()
        if images
    ]
    told = [redaction.text(trained.name), f"split {trained.split}" if trained.split else ""]
    told += [f"fingerprint {trained.fingerprint}" if trained.fingerprint else ""]
    return [f"{', '.join(filter(None, told))}.", *([f"{'; '.join(parts)}."] if parts else [])]


def _analyses(numbers: Numbers) -> list[str]:
    several = len(numbers["labels"]) > 1
    lines = [f"AUROC, {label}: {interval(metrics['auroc'])}." for label, metrics in numbers["labels"].items()]
    if several:
        lines.append(
            f"AUROC, macro mean of {numbers['num_macro_labels']}: {interval(numbers['macro']['auroc'])}."
        )
    shown = [gap for gap in numbers["gaps"] if gap["p_holm"] is not None and gap["p_holm"] < 0.05]
    lines += [_gap(gap) for gap in shown]
    if numbers["gaps"] and not shown:
        lines.append(
            "Between the groups compared, no difference was shown; that does not mean that there is none."
        )
    return lines


def _gap(gap: dict[str, Any]) -> str:
    one, other = gap["groups"]
    metric = "AUROC" if gap["metric"] == "auroc" else gap["metric"]
    label = "macro mean" if gap["label"] == "macro" else gap["label"]
    told = (
        f"Gap by {gap['covariate']} ({metric}, {label}): {one} minus {other} {interval(gap['difference'])}; "
    )
    return told + str(gap["description"]).rstrip(".") + "."
