"""The model card: what a model is for, on what it was evaluated, and what it must not be used for."""

from collections.abc import Sequence
from typing import NamedTuple

from cxrlab.evaluation.results import EvaluatedData, EvaluationResult
from cxrlab.report import text
from cxrlab.report.formatting import counted, interval
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.start_weights import seen_at_start, started_from

_NOT_INTENDED = (
    "Not for: diagnosis, triage, screening or any decision about a patient. It is no medical device, and "
    "nobody has shown that using it does a patient any good.",
    "Intended users are researchers who can evaluate the numbers on this page.",
)
_PEOPLE = (
    "The images come from people who did not choose this use. What the data-use agreement protects (images, "
    "names, file names, patient ids) must not be passed on."
)
_LABELS = {
    "chest radiographs": "Labels of many radiograph collections were taken from reports by programs. Where "
    "they are wrong, the model learns and is evaluated by the same errors.",
    "images": "Where labels are wrong, the model learns and is evaluated by the same errors.",
}
_GROUPS = (
    "A model may serve some groups worse than others, also groups that were not recorded and so could not be "
    "compared. It may rest on what goes along with a finding, such as {}.",
    "A confident score or a convincing heatmap invites trust that it has not earned.",
)
_COMPANIONS = {
    "chest radiographs": "tubes, the hospital or the projection",
    "images": "the device, the place or the way of recording",
}
_CAVEATS = (
    "The numbers hold for images like these. At another hospital, on another device or among other patients "
    "they can be much lower: evaluate it there, on patients of that place, before believing anything.",
    "PPV and NPV depend on how common a finding is among those examined.",
)
_OWN_INPUT = (
    "Each image was seen by itself: no clinical information, no earlier image and no report was used."
)
_UNKNOWN_INPUT = (
    "What the model was given besides these images, such as clinical information, earlier images or reports, "
    "is not recorded here."
)
_KINDS = {
    "run": "A network that gives each finding a probability.",
    "ensemble": "The mean of the probabilities of several networks.",
    "predictions": "Known by its predictions only; what made them is not recorded here.",
}


class CardSection(NamedTuple):
    """A heading and the points below it."""

    title: str
    lines: Sequence[str]


def model_card(result: EvaluationResult, model_info: ModelInfo) -> list[CardSection]:
    """Return the sections of a model card, without those that have nothing to say.

    Args:
        result: Of the evaluation; a card is there to be shared, so both arguments come without names, as
            :func:`cxrlab.report.model_info.without_names` returns them.
        model_info: What was evaluated.

    References:
        Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
    """
    sections = [
        CardSection("Model details", _details(model_info)),
        CardSection("Intended use", _intended(result, model_info)),
        CardSection("Factors", _factors(result)),
        CardSection("Metrics", _metrics(result)),
        CardSection("Evaluation data", _evaluation_data(result)),
        CardSection("Training data", _training_data(model_info)),
        CardSection("Quantitative analyses", _analyses(result)),
        CardSection("Ethical considerations", _ethical(result.data)),
        CardSection("Caveats and recommendations", _caveats(result, model_info)),
    ]
    return [section for section in sections if section.lines]


def _details(model_info: ModelInfo) -> list[str]:
    networks = dict.fromkeys(map(text.describe_network, model_info.networks))
    lines = [_KINDS[model_info.kind], *(f"{network}." for network in networks), *started_from(model_info)]
    session = model_info.provenance
    if session is None:
        return lines
    version = session.versions.get("cxrlab")
    made = [
        f"with cxrlab {version}" if version else "",
        f"started {session.started}" if session.started else "",
    ]
    if any(made):
        lines.append(f"Trained {', '.join(filter(None, made))}.")
    if session.commit:
        lines.append(f"Code: commit {session.commit}.")
    return lines


def _intended(result: EvaluationResult, model_info: ModelInfo) -> list[str]:
    field = f"the classification of {text.kind_of_images(result.data)}"
    if model_info.kind == "predictions":
        first = (
            f"What the model was made for is not recorded here. This evaluation serves research on {field}."
        )
    else:
        first = f"Research on {field}: comparing methods, and studying where they fail."
    return [first, *_NOT_INTENDED]


def _ethical(data: EvaluatedData) -> list[str]:
    kind = text.kind_of_images(data)
    groups, trust = _GROUPS
    return [_PEOPLE, _LABELS[kind], groups.format(_COMPANIONS[kind]), trust]


def _caveats(result: EvaluationResult, model_info: ModelInfo) -> list[str]:
    what_it_saw = _UNKNOWN_INPUT if model_info.kind == "predictions" else _OWN_INPUT
    return [*text.caveats(result, model_info), *_CAVEATS, what_it_saw]


def _factors(result: EvaluationResult) -> list[str]:
    covariates = list(dict.fromkeys(group.covariate for group in result.subgroups))
    if not covariates:
        return [
            "No group was evaluated by itself: no covariate, such as view, sex or age, came with the images."
        ]
    return [
        f"Evaluated by group: {', '.join(covariates)}.",
        "Groups by anything else were not evaluated.",
    ]


def _metrics(result: EvaluationResult) -> list[str]:
    return [
        "AUROC and average precision, which need no threshold; at the threshold sensitivity, specificity, "
        "predictive values and F1; slope, expected/observed and error of calibration, and Brier score.",
        text.thresholds(result) or text.no_threshold(result),
        f"Intervals: {text.intervals(result.data, result.interval)}.",
    ]


def _evaluation_data(result: EvaluationResult) -> list[str]:
    data = result.data
    patients = counted(data.patients, "patient") if data.patients is not None else "patients unknown"
    facts = [
        f"{name}: {value}"
        for name, value in text.evaluated(data, result.interval, result.cohort)
        if name != "intervals"
    ]
    positives = [f"{label} {counts.positives:,}" for label, counts in result.counts.items()]
    return [
        f"{counted(data.images, 'image')}, {patients}; {'; '.join(facts)}.",
        f"Images with each finding: {', '.join(positives)}.",
    ]


def _training_data(model_info: ModelInfo) -> list[str]:
    trained = model_info.trained_on
    if trained is None:
        return ["Not recorded here.", *seen_at_start(model_info)]
    facts = [
        trained.name,
        f"split {text.split(trained.split)}" if trained.split else "",
        f"fingerprint {trained.fingerprint}" if trained.fingerprint else "",
    ]
    lines = [", ".join(filter(None, facts)), text.parts(trained)]
    return [*(f"{line}." for line in lines if line), *seen_at_start(model_info)]


def _analyses(result: EvaluationResult) -> list[str]:
    within, name = "" if result.out_of_fold is None else " within folds", result.main_auroc
    lines = [
        f"AUROC{within}, {label}: {interval(metrics[name])}." for label, metrics in result.labels.items()
    ]
    if len(result.labels) > 1:
        lines.append(
            f"AUROC{within}, macro mean of {result.num_main_labels}: {interval(result.macro[name])}."
        )
    lines += [
        f"Calibration, {label}: {calibration.description}."
        for label, calibration in result.calibration.labels.items()
    ]
    shown = [gap for gap in result.gaps if gap.outcome in ("better", "worse")]
    lines += map(text.gap, shown)
    if result.gaps and not shown:
        lines.append(
            "Between the groups compared, no difference was shown; that does not mean that there is none."
        )
    return lines
