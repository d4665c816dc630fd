"""The result in words: what was trained on what, how well it ranks, and what a reader must beware of.

How a result can be repeated: command, versions, commit, data, hardware and seconds of a session.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cxrlab.report.formatting import bounds, count, counted, level, number, percent, seconds
from cxrlab.report.html import Redaction
from cxrlab.report.model_info import ModelInfo, TrainingData

Numbers = dict[str, Any]


Estimate = dict[str, Any]


_NAMES = {"run": "the model", "ensemble": "the ensemble", "predictions": "the model behind these predictions"}


_PART_NOUNS = {"train": "training", "val": "validation", "test": "test"}


def headline(numbers: Numbers, model_info: ModelInfo) -> str:
    """Return the result in one sentence that needs no statistics to be understood.

    The AUROC is the share of pairs, one image with the finding and one without it, that are ranked rightly.

    Args:
        numbers: As in ``evaluation.json``.
        model_info: What was evaluated.

    References:
        Hanley and McNeil, Radiology 143:29, 1982.
    """
    images = _images(numbers, model_info)
    macro = numbers["macro"]["auroc"]
    if macro["value"] is None:
        return (
            f"On {images}, no AUROC could be computed for {_NAMES[model_info.kind]}: no finding is present in "
            "some of them and absent in others."
        )
    share = f"{_pair(numbers)} {percent(macro['value'])} of the time"
    told = bracketed(macro, numbers["interval"]) + _mean_of(numbers)
    return f"On {images}, {_NAMES[model_info.kind]} ranked {share} ({told})."


def _images(numbers: Numbers, model_info: ModelInfo) -> str:
    data = numbers["data"]
    images = counted(data["images"], "image")
    of = f"{images} of {counted(data['patients'], 'patient')}" if data["patients"] is not None else images
    if data["part"] == "train":
        return f"the very {of} that it was trained on, which says nothing about new patients"
    if data["part"] == "val":
        return f"the very {of} that its best epoch and thresholds were chosen on, which is optimistic"
    if is_unseen(numbers, model_info):
        of += " it had never seen"
    return of if data["patients"] is not None else f"{of} (patients unknown)"


def is_unseen(numbers: Numbers, model_info: ModelInfo) -> bool:
    """Return whether the evaluated patients are known to be none of the training's."""
    if model_info.unseen is not None:
        return model_info.unseen
    return model_info.kind != "predictions" and numbers["data"]["part"] == "test"


def _pair(numbers: Numbers) -> str:
    if is_exclusive(numbers):
        return "an image of a class above one of another class"
    labels = list(numbers["labels"])
    return f"an image with {labels[0] if len(labels) == 1 else 'the finding'} above one without it"


def is_exclusive(numbers: Numbers) -> bool:
    """Return whether the labels are classes that exclude one another."""
    report = numbers.get("classification_report")
    return report is not None and report["kind"] == "exclusive"


def bracketed(auroc: Estimate, interval: Mapping[str, Any]) -> str:
    """Return an AUROC with its interval, and whose images it takes for whose.

    Args:
        auroc: The estimate.
        interval: How intervals were made, as in ``evaluation.json``.

    Example:
        >>> bracketed({"value": 0.988, "low": 0.971, "high": 0.996}, {"level": 0.95, "unit": "patient"})
        'AUROC 0.988, 95 % interval 0.971 to 0.996'
    """
    around = bounds(auroc)
    if not around:
        return f"AUROC {number(auroc['value'])}, no interval could be given"
    alone = " as if each image were another patient's" if interval["unit"] == "image" else ""
    return f"AUROC {number(auroc['value'])}, {level(interval['level'])} interval {around}{alone}"


def _mean_of(numbers: Numbers) -> str:
    num_labels, num_judged = len(numbers["labels"]), numbers["num_macro_labels"]
    noun = "classes" if is_exclusive(numbers) else "findings"
    if num_labels == 1:
        return ""
    if num_judged < num_labels:
        return f"; mean of the {num_judged} of {num_labels} {noun} for which it is defined"
    return f"; mean of {num_labels} {noun}"


def confusion(numbers: Numbers) -> str:
    """Return what the confusion matrices show."""
    if is_exclusive(numbers):
        return "The class of the highest probability beside the true one."
    return "Confusion matrix of each label at its threshold."


def training(model_info: ModelInfo) -> str:
    """Return what was trained on what, in one or two sentences."""
    if model_info.trained_on is None:
        if model_info.kind == "predictions":
            return (
                "These predictions come from another program; what was trained on which images is not known."
            )
        return f"The network: {model_info.network}." if model_info.network else ""
    trained, network = model_info.trained_on, model_info.network
    if model_info.kind == "ensemble":
        name = f"Each network of the ensemble ({network})" if network else "Each network of the ensemble"
    else:
        name = f"The network ({network})" if network else "The network"
    told = f"{name} was trained on {_parts(trained)}."
    if trained.parts.get("val", (0, 0))[0]:
        told += f" Its best epoch was chosen on {_people(*trained.parts['val'])} set aside for validation."
    return told


def _parts(trained: TrainingData) -> str:
    if "train" not in trained.parts:
        return trained.name
    return f"{_people(*trained.parts['train'])} of {trained.name}"


def _people(images: int, patients: int | None) -> str:
    known = f" of {counted(patients, 'patient')}" if patients is not None else ""
    return counted(images, "image") + known


def caveats(numbers: Numbers) -> list[str]:
    """Return what the headline's own numbers warn of, beside the flags."""
    macro = numbers["macro"]["auroc"]
    if macro["value"] is None or macro["low"] is None or macro["low"] > 0.5:
        return []
    if macro["high"] < 0.5:
        return ["The AUROC is below 0.5, what guessing gives: are targets or probabilities turned round?"]
    return [
        "The interval of the AUROC includes 0.5, what guessing gives: nothing is shown to have been learnt."
    ]


def intervals(numbers: Numbers) -> str:
    """Return how the intervals were made."""
    interval, data = numbers["interval"], numbers["data"]
    unit = "patients" if interval["unit"] == "patient" else "images (patients unknown)"
    num = data["patients"] if interval["unit"] == "patient" else data["images"]
    return (
        f"{level(interval['level'])}, by {interval['method']}: {interval['resamples']:,} resamples of the "
        f"{num:,} {unit}, seed {interval['seed']}"
    )


def predicted(numbers: Numbers) -> list[tuple[str, str]]:
    """Return what was evaluated, as names and values, without the source."""
    data = numbers["data"]
    part = _PART_NOUNS.get(data["part"], data["part"]) or "the whole table"
    rows = [
        ("data", data["name"]),
        ("part", part),
        ("split", data["split"]),
        ("fingerprint", data["fingerprint"]),
    ]
    return [(name, str(value)) for name, value in rows if value] + [("intervals", intervals(numbers))]


def no_threshold(numbers: Numbers) -> str | None:
    """Return why nothing is evaluated at a threshold; None where any label has one."""
    thresholds = numbers["thresholds"]
    if any(one["value"] is not None for one in thresholds.values()):
        return None
    return (
        "What needs a threshold, such as sensitivity and specificity, is not given: there is none. None came "
        "with the predictions, and one chosen on the images that are evaluated would flatter."
    )


def no_recalibration(numbers: Numbers) -> str | None:
    """Return why probabilities are shown as they came only; None where they were recalibrated."""
    calibration = numbers.get("calibration")
    if calibration is None:
        return "Calibration was not evaluated."
    if any(one["after"] is not None for one in calibration["labels"].values()):
        return None
    return (
        "Only the probabilities as they came are shown: nothing was fitted to correct them, which needs "
        "validation images apart from those that are evaluated."
    )


def thresholds(numbers: Numbers) -> str:
    """Return by which rule the thresholds were chosen, and on what."""
    chosen = {
        (one["rule"], one["source"]) for one in numbers["thresholds"].values() if one["value"] is not None
    }
    told = sorted(_rule(rule, source) for rule, source in chosen)
    return "Threshold of each label: " + "; ".join(told) + "." if told else ""


def _rule(rule: str, source: str) -> str:
    words = {"youden": "the highest sensitivity + specificity (Youden)", "f1": "the highest F1"}
    if source == "given":
        return f"{rule}, given"
    name, _, value = rule.partition("@")
    text = f"{name} of at least {value}" if value else words.get(rule, rule)
    return f"{text}, chosen on {source}"


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


def records(sessions: Mapping[str, Mapping[str, Any] | None], redaction: Redaction) -> list[Record]:
    """Return what is known of each session.

    Args:
        sessions: Sessions of ``provenance.json`` by title; those that are None are left out.
        redaction: Takes paths out of commands.
    """
    known = {title: session for title, session in sessions.items() if session}
    return [
        Record(
            title=title if len(known) > 1 else "",
            command=redaction.command(session.get("command") or []),
            rows=list(_rows(session, redaction)),
            versions=[(str(name), str(version)) for name, version in (session.get("versions") or {}).items()],
        )
        for title, session in known.items()
    ]


def _rows(session: Mapping[str, Any], redaction: Redaction) -> Iterator[tuple[str, str]]:
    data, versions = session.get("data") or {}, session.get("versions") or {}
    split = ", ".join(f"{key} {value}" for key, value in redaction.config(data.get("split") or {}))
    found = {
        "started": session.get("started"),
        "cxrlab": versions.get("cxrlab"),
        "commit": session.get("commit"),
        "data": redaction.text(str(data.get("name") or "")),
        "data fingerprint": data.get("fingerprint"),
        "split": split,
        "hardware": _hardware(session.get("hardware") or {}),
        "GPU memory": f"{session['peak_gpu_gib']} GiB at most" if session.get("peak_gpu_gib") else None,
        "epochs": count(session["epochs"]) if session.get("epochs") is not None else None,
        "time": _times(session.get("seconds") or {}),
    }
    yield from ((name, str(value)) for name, value in found.items() if value)


def _hardware(hardware: Mapping[str, Any]) -> str:
    units = {"cores": "{} cores", "processes": "processes: {}", "precision": "precision {}"}
    return ", ".join(units.get(name, "{}").format(value) for name, value in hardware.items() if value)


def _times(phases: Mapping[str, Any]) -> str:
    timed = {name: value for name, value in phases.items() if isinstance(value, int | float)}
    return ", ".join(f"{name.replace('_', ' ')} {seconds(value)}" for name, value in timed.items())
