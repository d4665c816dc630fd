"""The sentences of a page and a model card: every one that is made of a result is made here."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrlab.data.audit import Finding, whole
from cxrlab.data.public import RADIOGRAPHS
from cxrlab.evaluation.cohort import Cohort
from cxrlab.evaluation.results import ComparisonResult, EvaluatedData, EvaluationResult, Gap, IntervalMethod
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.formatting import bounds, count, counted, interval, level, number, percent, seconds
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Session, TrainingData
from cxrlab.report.start_weights import started_from

HOW_TO_READ = {
    "cohort": (
        "Whose images these are, and which were left out. Where a part differs much from the others (age, "
        "view, share of positives), a result may not carry over. Numbers such as age count each patient "
        "once; of what can change between two images, such as the view, images are counted."
    ),
    "audit": (
        "The data were searched for what makes results untrue: a patient in two parts, "
        "duplicates, wrong labels, unreadable files. A fault makes results untrue, a warning may."
    ),
    "labels": (
        "In brackets or small print stands the interval in which the value plausibly lies among other "
        "patients like these, with this one model and its thresholds as they are; how much another training, "
        "or thresholds chosen on other patients, would change it is not in it. AUROC: how often an image "
        "with the finding is ranked above one without it; 0.5 is guessing. Sensitivity: of those with "
        "the finding, the share that is predicted positive. Specificity: of those without it, "
        "the share that is predicted negative. PPV and NPV: how often a positive, or a negative, prediction"
        " is right; they hold for this mix of images only."
    ),
    "curves": (
        "The more a curve bends to its corner (upper left for ROC, upper right for precision-recall), the "
        "better. The band shows how far the curve may lie elsewhere by chance. For a rare finding the "
        "precision-recall curve tells more: it shows how many of the positive predictions would be right."
    ),
    "calibration": (
        "Of the images given a probability of 30 %, 30 in 100 should have the finding: points on the "
        "diagonal. Calibrated probabilities have a slope of 1 and an expected/observed of 1. Below 1, the "
        "slope says that they are too extreme (high ones too high, low ones too low), above 1 that they are "
        "not extreme enough; expected/observed is the number of findings that they sum up to, by the number "
        "there are. One test asks for both; that no departure is shown does not mean that there is none. "
        "Calibration error is the mean distance from the diagonal, which chance alone keeps above 0: beside "
        "it stands how large it is on average, and at most, for calibrated probabilities of as many images. "
        "Scaled Brier score: 1 is perfect, 0 no better than giving every image the prevalence."
    ),
    "confusion": (
        "Rows are the truth, columns what the model predicts at the threshold: the diagonal is right, the "
        "rest are false negatives and false positives."
    ),
    "subgroups": (
        "Each line is a group of images. Where two intervals lie apart, the model may serve one group "
        "worse. Small groups have wide intervals, and that no difference is shown does not mean that there "
        "is none."
    ),
    "learning": (
        "Training loss should fall. Where validation loss rises while training loss falls, the network "
        "overfits, as it does where training accuracy rises and validation accuracy does not; the epoch "
        "that was best on validation is the one that is evaluated here. Training is measured on augmented "
        "images and with dropout, so it may come out below validation."
    ),
    "probe": (
        "The backbone did not learn: a logistic regression of its features gave the last layer's weights "
        "(a linear probe). The curves run over the strength C of the fit instead of epochs. A small C draws "
        "the weights towards 0; with a large one training loss falls and validation loss may rise, which is "
        "overfitting. The strength that was best on validation is the one that is evaluated here."
    ),
    "heatmaps": (
        "Left of each pair the radiograph, right the same with the parts that raised the score (by the "
        "methods of attention: that were looked at) in warm colours. A heatmap shows what the network's "
        "score depended on. It does not outline a lesion, does not say that the reason is a medical one, and "
        "looks convincing where the network is wrong. It is coarse: most convolutional networks have one "
        "cell for 32 by 32 pixels, so that 2 by 2 cells of an image of 64 pixels, or 7 by 7 of one of 224, "
        "are stretched over the whole picture."
    ),
    "leaderboard": (
        "AUROC: how often an image with the finding is ranked above one without it; 0.5 is guessing. The "
        "intervals of two models may overlap although one is better: all models were evaluated on the same "
        "images, so it is the interval of their difference, below, that decides."
    ),
    "differences": (
        "Each line is the first model minus the second. The words in the last column count the correction "
        "for several tests (Holm); the interval, which is of this line alone, does not: of several, one may "
        "lie on one side of 0 by chance. That no difference is shown does not mean that there is none: more "
        "patients could show one."
    ),
}

NAMES_LEFT_OUT = (
    "Commands, the configuration, and the names of files, folders, images and patients are left out of "
    "this page (report.images=false). data.name=<a name> gives the data set one that is shown."
)

CARD_FORM = (
    "In the form of Mitchell et al., Model Cards for Model Reporting, FAT* 2019. Also in model_card.md."
)

PARTS_DIFFER = "The tables are of different parts: a model chosen on these images is flattered."

_MODEL_NAMES = {
    "run": "the model",
    "ensemble": "the ensemble",
    "predictions": "the model behind these predictions",
}
_PART_NOUNS = {"train": "training", "val": "validation", "test": "test"}
_RULES = {"youden": "the highest sensitivity + specificity (Youden)", "f1": "the highest F1"}
_SPLITS = {
    "grouped": "drawn by patient (grouped)",
    "official": "the data set's own (official)",
    "folds": "folds, drawn by patient",
    "file": "as a table gives it (file)",
    "custom": "by a function of one's own",
}
# Kinds of caveats that make a result worthless, the worst first.
_STRONGEST = (
    "seen", "perhaps_seen", "train_part", "patients_in_folds", "val_part", "guessing", "baseline",
    "intervention", "shortcut", "randomization",
)  # fmt: skip
_DOUBTS = ("seen", "perhaps_seen", "unknown_start")  # by which images may not be new to the network
_SHORTCUTS = ("shortcut", "randomization")  # caveats of heatmaps that stand at the top of the page


def title(result: EvaluationResult, model_info: ModelInfo) -> str:
    """Return the title of the page of an evaluation."""
    if model_info.title:
        return model_info.title
    networks = model_info.networks
    subject = {
        "run": networks[0].name if networks else "A network",
        "ensemble": f"An ensemble of {len(networks)} networks",
        "predictions": "Evaluation",
    }[model_info.kind]
    trained_on = model_info.trained_on if model_info.is_external else None
    return on_data(
        subject,
        result.data.name,
        result.data.fingerprint,
        trained_on=None if trained_on is None else (trained_on.name, trained_on.fingerprint),
    )


def on_data(
    subject: str,
    name: str,
    fingerprint: str | None,
    *,
    trained_on: tuple[str, str | None] | None,
) -> str:
    """Return of what a page is, and on which data: those of the training are named as such.

    Args:
        subject: Such as the name of a network.
        name: Of the data set whose images are on the page; may be empty.
        fingerprint: Of its manifest, or None.
        trained_on: Name and fingerprint of the data of the training where they are others; else None.

    Example:
        >>> on_data("resnet50", "nih", "f00", trained_on=None)
        'resnet50 on nih'
        >>> on_data("resnet50", "shenzhen", "f00", trained_on=("nih", "f01"))
        'resnet50 on shenzhen (trained on nih)'
        >>> on_data("resnet50", "nih", "f00", trained_on=("nih", "f01"))
        'resnet50 on nih, fingerprint f00 (trained on nih, fingerprint f01)'
    """
    if trained_on is None or (name and trained_on == (name, fingerprint)):
        return f"{subject} on {name}" if name else subject
    same_name = bool(name) and trained_on[0] == name
    training, evaluated_on = (
        f"{data}, fingerprint {digest}" if same_name and digest else data
        for data, digest in (trained_on, (name or "other data", fingerprint))
    )
    return f"{subject} on {evaluated_on}" + (f" (trained on {training})" if training else "")


def headline(result: EvaluationResult, model_info: ModelInfo) -> str:
    """Return the result in one sentence that needs no statistics to be understood.

    The AUROC is the share of pairs, one image with the finding and one without it, that are ranked rightly.

    Args:
        result: Of the evaluation.
        model_info: What was evaluated.

    References:
        Hanley and McNeil, Radiology 143:29, 1982.
    """
    images, model = _evaluated_images(result, model_info), _MODEL_NAMES[model_info.kind]
    macro = result.macro[result.main_auroc]
    if macro.value is None:
        return (
            f"On {images}, no AUROC could be computed for {model}: no finding is present in some of them and "
            "absent in others."
        )
    within = "" if result.out_of_fold is None else " of its fold"
    share = f"{_pair(result)}{within} {percent(macro.value)} of the time"
    return f"On {images}, {model} ranked {share} ({auroc(macro, result.interval)}{_mean_of(result)})."


def _evaluated_images(result: EvaluationResult, model_info: ModelInfo) -> str:
    data = result.data
    images = _images_of_patients(data.images, data.patients)
    if data.part == "train":
        return f"the very {images} that it was trained on, which says nothing about new patients"
    if data.part == "val":
        return f"the very {images} that its best epoch and thresholds were chosen on, which is optimistic"
    found = result.contamination
    if found is not None and found.overlap == "certain":
        return (
            f"{images}, some or all of which the weights it started from had been trained on "
            "(evaluation.allow_seen=true)"
        )
    if is_unseen(result, model_info):
        images += " it had never seen"
    return images if data.patients is not None else f"{images} (patients unknown)"


def _images_of_patients(images: int, patients: int | None) -> str:
    of_patients = f" of {counted(patients, 'patient')}" if patients is not None else ""
    return counted(images, "image") + of_patients


def is_unseen(result: EvaluationResult, model_info: ModelInfo) -> bool:
    """Return whether the evaluated patients are known to be new to the network and its start weights."""
    if any(flag.kind in _DOUBTS for flag in result.flags):
        return False
    if model_info.unseen is not None:
        return model_info.unseen
    return model_info.kind != "predictions" and result.data.part == "test"


def _pair(result: EvaluationResult) -> str:
    if result.is_exclusive:
        return "an image of a class above one of another class"
    labels = list(result.labels)
    return f"an image with {labels[0] if len(labels) == 1 else 'the finding'} above one without it"


def auroc(estimate: Estimate, method: IntervalMethod) -> str:
    """Return an AUROC with its interval, and whose images it takes for whose.

    Args:
        estimate: The AUROC.
        method: How intervals were made.

    Example:
        >>> auroc(Estimate(0.988, 0.971, 0.996), IntervalMethod(0.95, "patient", 1000, seed=0))
        'AUROC 0.988, 95 % interval 0.971 to 0.996'
    """
    around = bounds(estimate)
    if not around:
        return f"AUROC {number(estimate.value)}, no interval could be given"
    alone = " as if each image were another patient's" if method.unit == "image" else ""
    return f"AUROC {number(estimate.value)}, {level(method.level)} interval {around}{alone}"


def _mean_of(result: EvaluationResult) -> str:
    num_labels, num_defined = len(result.labels), result.num_main_labels
    noun = "classes" if result.is_exclusive else "findings"
    if num_labels == 1:
        return ""
    if num_defined == 1 and len(result.macro_labels) == 1:
        return f"; of {result.macro_labels[0]}, the only one of {num_labels} {noun} with enough patients"
    if num_defined < num_labels:
        return f"; mean of the {num_defined} of {num_labels} {noun} with enough patients"
    return f"; mean of {num_labels} {noun}"


def kind_of_images(data: EvaluatedData) -> str:
    """Return what the images are: radiographs where the data set is known to hold them, else images."""
    return "chest radiographs" if data.name in RADIOGRAPHS else "images"


def training(model_info: ModelInfo) -> str:
    """Return what was trained on what, in one or two sentences."""
    network = "; ".join(dict.fromkeys(describe_network(network) for network in model_info.networks))
    trained = model_info.trained_on
    if trained is None:
        if model_info.kind == "predictions":
            return (
                "These predictions come from another program; what was trained on which images is not known."
            )
        return f"The network: {network}." if network else ""
    subject = "Each network of the ensemble" if model_info.kind == "ensemble" else "The network"
    name = f"{subject} ({network})" if network else subject
    sentence = f"{name} was trained on {_training_images(trained)}."
    if trained.parts.get("val", (0, 0))[0]:
        validation = _images_of_patients(*trained.parts["val"])
        solver = model_info.provenance.solver if model_info.provenance else {}
        chosen = f"strength, C = {solver['strength']:g}," if "strength" in solver else "epoch"
        sentence += f" Its best {chosen} was chosen on {validation} set aside for validation."
    return " ".join([sentence, *started_from(model_info)])


def describe_network(network: NetworkInfo) -> str:
    """Return a network's name, input and size in words.

    Example:
        >>> describe_network(NetworkInfo("resnet10t", image_size=128, channels=1, num_parameters=4_925_156))
        'resnet10t, grey images of 128 x 128 pixels, 4,925,156 parameters'
    """
    words = [network.name]
    if network.image_size is not None:
        kind = "grey" if network.channels == 1 else "colour"
        words.append(f"{kind} images of {network.image_size} x {network.image_size} pixels")
    if network.num_parameters is not None:
        words.append(f"{network.num_parameters - network.num_lora:,} parameters")
        if network.num_lora and network.num_trainable is not None:
            others = network.num_trainable - network.num_lora
            words.append(f"{others:,} of them trainable")
            words.append(f"the others changed by {network.num_lora:,} parameters of LoRA")
        elif network.num_trainable not in (None, network.num_parameters):
            words.append(f"{network.num_trainable:,} of them trainable")
    return ", ".join(words)


def _training_images(trained: TrainingData) -> str:
    name = trained.name or "its data"
    if "train" not in trained.parts:
        return name
    return f"{_images_of_patients(*trained.parts['train'])} of {name}"


def caveats(result: EvaluationResult, model_info: ModelInfo) -> list[str]:
    """Return what to beware of, each once and the strongest first: of data, labels, AUROC and heatmaps."""
    found = [("note", note) for note in model_info.notes]
    found += [(caveat.kind, caveat.message) for caveat in result.flags]
    found += [("guessing", sentence) for sentence in _guessing(result)]
    if model_info.explanation is not None:
        flags = model_info.explanation.flags
        found += [(flag.kind, flag.message) for flag in flags if flag.kind in _SHORTCUTS]
    return list(dict.fromkeys(message for _, message in sorted(found, key=_strength)))


def _strength(caveat: tuple[str, str]) -> int:
    """Return the place of a kind among those that make a result worthless; all others come after them."""
    kind, _ = caveat
    return _STRONGEST.index(kind) if kind in _STRONGEST else len(_STRONGEST)


def _guessing(result: EvaluationResult) -> list[str]:
    macro = result.macro[result.main_auroc]
    if macro.low is None or macro.high is None or macro.low > 0.5:
        return []
    if macro.high < 0.5:
        return ["The AUROC is below 0.5, what guessing gives: are targets or probabilities turned round?"]
    return [
        "The interval of the AUROC includes 0.5, what guessing gives: nothing is shown to have been learnt."
    ]


def audited(data: EvaluatedData, model_info: ModelInfo) -> str:
    """Return which data the audit is of."""
    name = data.name or ("another data set" if model_info.is_external else "its data")
    if not model_info.is_external:
        return f"Of {name}: training, validation and test part."
    trained_on = model_info.trained_on
    training = (trained_on.name if trained_on else "") or "the training data"
    return (
        f"Of {name}, which is evaluated here. The audit of what was trained on, {training}, stands on the "
        "page of the training."
    )


def trained_elsewhere(model_info: ModelInfo) -> str:
    """Return that learning curves are of other data than those evaluated; empty where they are not."""
    if not model_info.is_external:
        return ""
    name = model_info.trained_on.name if model_info.trained_on else ""
    return f"Of the training{f' on {name}' if name else ''}: the data evaluated here had no part in it."


def configuration(model_info: ModelInfo) -> str:
    """Return the heading of the run's config."""
    return "The whole configuration" + (" of the training" if model_info.is_external else "")


def audit(findings: Sequence[Finding]) -> str:
    """Return what the audit of the data found: how much, then all of it, one a line."""
    return whole(findings)


def intervals(data: EvaluatedData, method: IntervalMethod) -> str:
    """Return how the intervals were made."""
    is_by_patient = method.unit == "patient" and data.patients is not None
    unit, num = ("patients", data.patients) if is_by_patient else ("images (patients unknown)", data.images)
    names = {"auroc": "AUROC of a label", "labels": "AUROC of a label"}
    by_score = "".join(f"{name} by score interval, " for of, name in names.items() if of in method.others)
    by_wilson = "shares by Wilson's, " if "sensitivity" in method.others else ""
    rest = "all else " if by_score else ""
    return (
        f"{level(method.level)}; {by_score}{by_wilson}{rest}by {method.method}: {method.resamples:,} "
        f"resamples of the {num:,} {unit}, seed {method.seed}"
    )


def left_out_of_means(result: EvaluationResult) -> str:
    """Return which labels the macro means leave out; empty where they leave none out."""
    missing = [label for label in result.labels if label not in result.macro_labels]
    if not missing or not result.macro_labels:
        return ""
    verb = "has" if len(missing) == 1 else "have"
    return (
        f"The macro means leave out {', '.join(missing)}, which {verb} too few patients with the finding or "
        "without it."
    )


def evaluated(
    data: EvaluatedData, method: IntervalMethod, cohort: Cohort | None = None
) -> list[tuple[str, str]]:
    """Return what was evaluated, as names and values, without the source.

    Args:
        data: The images.
        method: How intervals were made.
        cohort: Images and patients by part, by which it is said that no patient is in two.
    """
    rows = {
        "data": data.name,
        "part": _PART_NOUNS.get(data.part, data.part) or "the whole table",
        "split": split(data.split, cohort),
        "fingerprint": data.fingerprint,
        "intervals": intervals(data, method),
    }
    return [(name, value) for name, value in rows.items() if value]


def split(method: str | None, cohort: Cohort | None = None) -> str:
    """Return how a data set was split, and whether a patient is in two parts where that was counted.

    Args:
        method: Of the split, as ``data.split.method`` has it; perhaps with more, after a comma.
        cohort: Images and patients by part.

    Example:
        >>> split("grouped"), split("official, its part test"), split("all images")
        ('drawn by patient (grouped)', "the data set's own (official), its part test", 'all images')
    """
    name, comma, more = (method or "").partition(", ")
    words = f"{_SPLITS.get(name, name)}{comma}{more}"
    if words and cohort is not None and cohort.shared_patients == 0:
        words += "; no patient is in two parts"
    return words


def no_threshold(result: EvaluationResult) -> str:
    """Return why nothing is evaluated at a threshold; empty where any label has one."""
    if any(threshold.value is not None for threshold in result.thresholds.values()):
        return ""
    return (
        "What needs a threshold, such as sensitivity and specificity, is not given: there is none. None came "
        "with the predictions, and one chosen on the images that are evaluated would flatter."
    )


def thresholds(result: EvaluationResult) -> str:
    """Return by which rule the thresholds were chosen, and on what; empty without any."""
    chosen = {
        _chosen_by(threshold.rule, threshold.source)
        for threshold in result.thresholds.values()
        if threshold.value is not None
    }
    return f"Threshold of each label: {'; '.join(sorted(chosen))}." if chosen else ""


def _chosen_by(rule: str, source: str) -> str:
    if source == "given":
        return f"{rule}, given"
    name, _, value = rule.partition("@")
    words = f"{name} of at least {value}" if value else _RULES.get(rule, rule)
    return f"{words}, chosen on {source}"


def no_recalibration(result: EvaluationResult) -> str:
    """Return why probabilities are shown as they came only; empty where they were recalibrated."""
    if any(calibration.after is not None for calibration in result.calibration.labels.values()):
        return ""
    shown = "Only the probabilities as they came are shown: nothing was fitted to correct them"
    if any(threshold.source == "validation" for threshold in result.thresholds.values()):
        return f"{shown} (evaluation.calibration=none)."
    return f"{shown}, which needs validation images apart from those that are evaluated."


def confusion(result: EvaluationResult) -> str:
    """Return what the confusion matrices show."""
    if result.is_exclusive:
        return "The class of the highest probability beside the true one."
    return "Confusion matrix of each label at its threshold."


def comparison_title(comparison: ComparisonResult) -> str:
    """Return the title of the page of a comparison."""
    models, name = counted(len(comparison.models), "model"), comparison.data.name
    return f"{models} on {name}" if name else f"{models} compared"


def comparison_headline(comparison: ComparisonResult) -> str:
    """Return who came first, and whether the second is shown to be worse."""
    data, best = comparison.data, comparison.models[0]
    images = _images_of_patients(data.images, data.patients)
    num_labels = comparison.num_macro_labels
    mean = f"; mean of {num_labels} findings" if len(best.labels) > 1 else ""
    if mean and num_labels == 1:
        mean = "; of the one finding with enough patients"
    within = f" within {comparison.num_folds} folds" if comparison.num_folds else ""
    first = (
        f"On {images}, {best.name} came first of {len(comparison.models)} "
        f"({auroc(best.macro_auroc, comparison.interval)}{within}{mean})."
    )
    nearest = next((pair for pair in comparison.pairs if best.name in pair.models), None)
    if nearest is None:
        return first
    other = nearest.models[1] if nearest.models[0] == best.name else nearest.models[0]
    return f"{first} Compared with {other}, {nearest.description}."


def corrected(comparison: ComparisonResult, tests: str) -> str:
    """Return which tests Holm's correction takes together; empty where that is not known."""
    words = comparison.corrections.get(tests)
    return f"Corrected together (Holm): {words}." if words else ""


def margin(comparison: ComparisonResult) -> str:
    """Return how the tests against the margin are read; empty without one."""
    if comparison.margin is None:
        return ""
    alpha = level((1 - comparison.interval.level) / 2)
    return (
        "A model is shown not to be inferior where the lower end of its difference lies above "
        f"{number(-comparison.margin, 3)}, the margin that was given: a one-sided test at {alpha}, after "
        f"Holm's correction. {corrected(comparison, 'non_inferiority')} A margin says something only where "
        "it was set before any result was seen, and where a loss of that size would not matter to patients."
    )


def further_tests(comparison: ComparisonResult) -> str:
    """Return how the tests of other metrics are read, and why some are missing."""
    sentences = [
        "The same test for other metrics: paired resamples of patients, Student's t.",
        "Sensitivity and specificity are those at each model's own threshold, and a gain in the one is often "
        "paid with the other.",
        corrected(comparison, "further"),
    ]
    if comparison.untested:
        sentences[1] = f"Sensitivity and specificity are left out: {comparison.untested}."
    return " ".join(filter(None, sentences))


def left_out(num_heatmaps: int) -> str:
    """Return how many heatmaps had no room; empty for none."""
    if not num_heatmaps:
        return ""
    return f"{counted(num_heatmaps, 'heatmap')} more would not have fitted into a page below 5 MB."


def gap(shown: Gap) -> str:
    """Return a gap between two groups as a sentence."""
    first, second = shown.groups
    metric = "AUROC" if shown.metric == "auroc" else shown.metric
    label = "macro mean" if shown.label == "macro" else shown.label
    difference = f"{first} minus {second} {interval(shown.difference)}"
    return f"Gap by {shown.covariate} ({metric}, {label}): {difference}; {shown.description.rstrip('.')}."


def parts(trained: TrainingData) -> str:
    """Return the images and patients of each part that has any.

    Example:
        >>> parts(TrainingData(name="nih", parts={"train": (840, 280), "val": (120, None), "test": (0, 0)}))
        'train 840 images of 280 patients; val 120 images'
    """
    return "; ".join(
        f"{part} {_images_of_patients(images, patients)}"
        for part, (images, patients) in trained.parts.items()
        if images
    )


Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Record:
    """A session as a page shows it.

    Attributes:
        title: Such as "Training"; empty where there is one session only.
        command: The command line.
        rows: Names and values.
        versions: Packages and their versions.
    """

    title: str
    command: str
    rows: Pairs
    versions: Pairs


def records(sessions: Mapping[str, Session | None], *, names: bool) -> list[Record]:
    """Return what is known of each session.

    Args:
        sessions: By title; those that are None are left out.
        names: Whether commands, and the names of files and folders, may be in it.
    """
    known = {
        title: session if names else session.without_names()
        for title, session in sessions.items()
        if session is not None
    }
    return [
        Record(
            title=title if len(known) > 1 else "",
            command=shlex.join(session.command),
            rows=list(_rows(session)),
            versions=list(session.versions.items()),
        )
        for title, session in known.items()
    ]


def _rows(session: Session) -> Iterator[tuple[str, str]]:
    rows = {
        "started": session.started,
        "cxrlab": session.versions.get("cxrlab"),
        "commit": session.commit,
        "data": session.data_name,
        "data fingerprint": session.data_fingerprint,
        "split": ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in session.split.items() if value is not None
        ),
        "hardware": _hardware(session.hardware),
        "GPU memory": f"{session.peak_gpu_gib} GiB at most" if session.peak_gpu_gib else None,
        "solver": _solver(session.solver),
        "features": _features(session.features),
        "epochs": count(session.epochs) if session.epochs is not None and not session.solver else None,
        "time": ", ".join(
            f"{phase.replace('_', ' ')} {seconds(time)}" for phase, time in session.seconds.items()
        ),
    }
    yield from ((name, value) for name, value in rows.items() if value)


def _solver(solver: Mapping[str, Any]) -> str | None:
    if "strength" not in solver:
        return None
    return f"{solver.get('name')}, C = {solver['strength']:g} of {len(solver.get('strengths', []))} tried"


def _features(features: Mapping[str, int]) -> str | None:
    if not {"number", "images", "computed"} <= features.keys():
        return None
    return (
        f"{features['number']:,} of each of {features['images']:,} images, computed of "
        f"{features['computed']:,}; the others were kept"
    )


def _hardware(hardware: Mapping[str, str | int]) -> str:
    units = {"cores": "{} cores", "processes": "processes: {}", "precision": "precision {}"}
    return ", ".join(units.get(name, "{}").format(value) for name, value in hardware.items() if value)
