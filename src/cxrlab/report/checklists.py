"""Two checklists of papers, filled in as far as an evaluation knows: CLAIM 2024 and TRIPOD+AI.

Items stand in ``templates/checklists.yaml`` in words of our own. An answer is a sentence with where it
stands; what nobody but the author knows is left open, with what to say.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml

import cxrlab
from cxrlab.evaluation.cohort import Cohort
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.report import text
from cxrlab.report.cohort_section import disjoint, unknown_labels
from cxrlab.report.figures.flow import PART_NAMES
from cxrlab.report.formatting import counted, level
from cxrlab.report.html import markdown
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.start_weights import started_from

Checklist = Literal["claim", "tripod_ai"]

# What a data set may call hospitals and devices.
_CLUSTERS = ("site", "hospital", "center", "centre", "institution", "device", "manufacturer", "scanner")


@dataclass(frozen=True)
class Case:
    """What checklists are filled in from.

    Attributes:
        result: Of the evaluation, without names, as is ``model_info``.
        model_info: What was evaluated.
        config: Of the run, of which numbers and names of classes are told; None where there is none.
        sections: Titles of the sections that the page has, by id.
    """

    result: EvaluationResult
    model_info: ModelInfo
    config: Mapping[str, Any] | None = None
    sections: Mapping[str, str] = field(default_factory=dict)

    @property
    def cohort(self) -> Cohort | None:
        """Images and patients of all parts, where a manifest tells them."""
        cohort = self.result.cohort
        return cohort if cohort is not None and cohort.source == "manifest" else None

    @property
    def is_own(self) -> bool:
        """Whether the model was trained here."""
        return self.model_info.kind != "predictions"


class Fact(NamedTuple):
    """A sentence and where it stands: ids of sections of the page, or names of files."""

    sentence: str
    places: Sequence[str]


class Answer(NamedTuple):
    """An item as it is shown."""

    number: str
    topic: str
    of: str
    state: Literal["answered", "in part", "open"]
    sentences: Sequence[tuple[str, str]]
    write: str


def checklist(name: Checklist, case: Case) -> str:
    """Return a checklist as Markdown.

    Args:
        name: Which.
        case: What it is filled in from.
    """
    content = _checklists()[name]
    sections = {
        title: [_answer(item, case) for item in items] for title, items in content["sections"].items()
    }
    answers = [answer for group in sections.values() for answer in group]
    template = markdown().get_template("checklist.md.jinja")
    return template.render(
        name=content["name"],
        title=content["title"],
        source=content["source"],
        of=text.title(case.result, case.model_info),
        sections=sections,
        counts={
            state: sum(answer.state == state for answer in answers)
            for state in ("answered", "in part", "open")
        },
        version=cxrlab.__version__,
    )


@cache
def _checklists() -> dict[str, Any]:
    source = files("cxrlab.report") / "templates" / "checklists.yaml"
    loaded: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return loaded


def _answer(item: Mapping[str, Any], case: Case) -> Answer:
    facts = [fact for name in item.get("facts", ()) if (fact := FACTS[name](case)) is not None]
    is_whole = bool(facts) and bool(item.get("whole"))
    return Answer(
        number=item["number"],
        topic=item["topic"],
        of=item.get("of", ""),
        state="answered" if is_whole else "in part" if facts else "open",
        sentences=[(fact.sentence, _where(fact.places, case)) for fact in facts],
        write="" if is_whole else item["write"],
    )


def _where(places: Sequence[str], case: Case) -> str:
    """Return where a sentence stands: sections that the page has, and files."""
    known = {"top": "its top", **{id: f'"{title}"' for id, title in case.sections.items()}}
    sections = [known[place] for place in places if place in known]
    on_page = [f"report.html, {' and '.join(sections)}"] if sections else []
    return "; ".join([*on_page, *(place for place in places if "." in place)])


def _technology(case: Case) -> Fact | None:
    networks = dict.fromkeys(network.name for network in case.model_info.networks)
    return Fact(f"Deep learning, a neural network: {', '.join(networks)}.", ["top"]) if networks else None


def _headline(case: Case) -> Fact:
    return Fact(text.headline(case.result, case.model_info), ["top", "evaluation.json"])


def _source(case: Case) -> Fact | None:
    data = case.result.data
    if not data.name or not case.is_own:
        return None
    fingerprint = f", fingerprint {data.fingerprint}" if data.fingerprint else ""
    return Fact(f"Evaluated on {data.name}{fingerprint}.", ["top", "cohort"])


def _eligibility(case: Case) -> Fact | None:
    steps = {step.reason: step for step in case.cohort.steps} if case.cohort else {}
    if "filter" not in steps:
        return None
    num_filtered = steps["filter"].images
    words = f"{counted(num_filtered, 'image')} left out by data.filter" if num_filtered else (
        "no image left out by data.filter"
    )  # fmt: skip
    return Fact(f"Of the images of the data set: {words}.", ["cohort", "repeat"])


def _preprocessing(case: Case) -> Fact | None:
    data, preprocess = _settings(case, "data"), _settings(case, "preprocess")
    if "image_size" not in data:
        return None
    kind = "grey" if data.get("channels") == 1 else "colour"
    size, resize = data["image_size"], data.get("resize", "stretch")
    normalize = preprocess.get("normalize")
    scaled = f" and normalised (preprocess.normalize={normalize})" if normalize else ""
    return Fact(
        f"Every file is decoded to a {kind} image of {size} x {size} pixels (data.resize={resize}){scaled}.",
        ["network", "repeat"],
    )


def _settings(case: Case, group: str) -> Mapping[str, Any]:
    value = (case.config or {}).get(group)
    return value if isinstance(value, Mapping) else {}


def _subsets(case: Case) -> Fact | None:
    if case.cohort is None or not case.cohort.steps:
        return None
    chosen = [
        step for step in case.cohort.steps if step.reason in ("filter", "sample", "part") and step.images
    ]
    if not chosen:
        return Fact("No subset was chosen: all images that could be read were used.", ["cohort"])
    words = {"filter": "by data.filter", "sample": "not drawn for training", "part": "of another part"}
    listed = ", ".join(f"{step.images:,} {words[step.reason]}" for step in chosen)
    return Fact(f"Images that were left out on purpose: {listed}.", ["cohort", "repeat"])


def _missing(case: Case) -> Fact | None:
    sentence = "" if case.result.cohort is None else unknown_labels(case.result.cohort)
    return Fact(sentence, ["cohort"]) if sentence else None


def _lost(case: Case) -> Fact | None:
    if case.cohort is None:
        return None
    counts = {step.reason: step.images for step in case.cohort.steps}
    if not {"missing", "unreadable"} & counts.keys():
        return None
    return Fact(
        f"{counted(counts.get('missing', 0), 'listed image')} not on disk and "
        f"{counts.get('unreadable', 0):,} that could not be read were left out.",
        ["cohort", "audit.json"],
    )


def _readers(case: Case) -> Fact | None:
    if "readers" not in case.sections:
        return None
    return Fact("Agreement of the readers in the targets, and of the model with each.", ["readers"])


def _partitions(case: Case) -> Fact | None:
    cohort = case.result.cohort
    if cohort is None or len(cohort.parts) < 2:
        return None
    shares = "; ".join(
        f"{PART_NAMES[part.part].lower()} {counted(part.images, 'image')}"
        + (f" of {counted(part.patients, 'patient')}" if part.patients is not None else "")
        for part in cohort.parts
    )
    split = text.split(case.result.data.split)
    return Fact(
        f"Split: {split}. {_capitalised(shares)}." if split else f"{_capitalised(shares)}.", ["cohort"]
    )


def _capitalised(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _disjoint(case: Case) -> Fact | None:
    sentence = "" if case.result.cohort is None else disjoint(case.result.cohort)
    return Fact(sentence, ["cohort", "manifest.csv"] if case.cohort else ["cohort"]) if sentence else None


def _precision(case: Case) -> Fact | None:
    macro, counts = case.result.macro[case.result.main_auroc], list(case.result.counts.values())
    if macro.low is None or macro.high is None:
        return None
    positives = sorted(count.positives for count in counts)
    held = f"{positives[0]:,} to {positives[-1]:,}" if len(set(positives)) > 1 else f"{positives[0]:,}"
    width = macro.high - macro.low
    return Fact(
        f"Precision that was reached: the {level(case.result.interval.level)} interval of the AUROC is "
        f"{width:.3f} wide, with {held} positive images a label.",
        ["top", "labels"],
    )


def _model(case: Case) -> Fact | None:
    networks = dict.fromkeys(map(text.describe_network, case.model_info.networks))
    if not networks:
        return None
    return Fact(f"{'; '.join(networks)}. Every layer is listed in layers.txt.", ["network", "layers.txt"])


def _software(case: Case) -> Fact | None:
    session = case.model_info.provenance
    if session is None or not session.versions:
        return None
    named = ", ".join(f"{name} {version}" for name, version in list(session.versions.items())[:6])
    return Fact(f"{named}; all versions are on the page.", ["repeat", "provenance.json"])


def _initialisation(case: Case) -> Fact | None:
    started = started_from(case.model_info)
    return Fact(" ".join(started), ["card"]) if started else None


def _training(case: Case) -> Fact | None:
    optimizer, data = _settings(case, "optimizer"), _settings(case, "data")
    if not optimizer:
        return None
    trainer, strengths = _settings(case, "trainer"), _settings(case, "solver").get("strengths")
    steps = {
        "optimiser": _class(optimizer),
        "learning rate": optimizer.get("lr"),
        "batch size": data.get("batch_size"),
        "epochs at most": trainer.get("max_epochs"),
    }
    solved = {"solver": "logistic regression of a frozen network's features", "strengths C tried": strengths}
    facts = {
        "loss": _class(_settings(case, "loss")),
        **(solved if strengths else steps),
        "augmentation": _class(_settings(case, "augment")),
        "seed": (case.config or {}).get("seed"),
    }
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))
    return Fact(f"{_capitalised(told)}. All values stand in the configuration.", ["repeat", "learning"])


def _class(settings: Mapping[str, Any]) -> str:
    """Return the name of the class that settings describe."""
    return str(settings.get("_target_", "")).rpartition(".")[2]


def _selection(case: Case) -> Fact | None:
    monitor = (case.config or {}).get("monitor")
    if not monitor or not case.is_own:
        return None
    kept = "strength of the penalty" if _settings(case, "solver").get("strengths") else "epoch"
    return Fact(
        f"The {kept} with the best {monitor} was kept; the test part had no say in it.",
        ["learning", "repeat"],
    )


def _ensembling(case: Case) -> Fact | None:
    if case.model_info.kind == "predictions":
        return None
    if case.model_info.kind == "ensemble":
        num = len(case.model_info.networks)
        return Fact(f"The mean of the probabilities of {num} networks.", ["top"])
    return Fact("One network; no models were combined.", ["top"])


def _metrics(case: Case) -> Fact:
    has_threshold = not text.no_threshold(case.result)
    at = "; at the threshold sensitivity, specificity, PPV, NPV and F1" if has_threshold else ""
    return Fact(
        f"AUROC and average precision{at}; calibration.", ["labels", "calibration", "evaluation.json"]
    )


def _uncertainty(case: Case) -> Fact:
    sentence = f"Intervals: {text.intervals(case.result.data, case.result.interval)}."
    if case.result.gaps:
        sentence += " Differences between groups are corrected for their number (Holm)."
    return Fact(sentence, ["top", "labels"])


def _robustness(case: Case) -> Fact | None:
    if "interventions" not in case.sections:
        return None
    return Fact("AUROC on images that were changed on purpose.", ["interventions"])


def _explanations(case: Case) -> Fact | None:
    if case.model_info.explanation is not None:
        return Fact("Heatmaps, and how the checks of them came out.", ["explanation", "explanation.json"])
    if "heatmaps" in case.sections:
        return Fact("Heatmaps of the most confident errors and hits; they were not checked.", ["heatmaps"])
    return None


def _internal(case: Case) -> Fact | None:
    info, data = case.model_info, case.result.data
    if not case.is_own or info.is_external or data.part != "test":
        return None
    return Fact(text.headline(case.result, info), ["top", "labels"])


def _external(case: Case) -> Fact | None:
    if not case.model_info.is_external:
        return None
    return Fact(text.headline(case.result, case.model_info), ["top", "labels"])


def _flow(case: Case) -> Fact | None:
    cohort = case.cohort
    if cohort is None or cohort.listed is None:
        return None
    left_out = sum(step.images for step in cohort.steps)
    return Fact(
        f"Of {counted(cohort.listed, 'image')} {left_out:,} were left out; the diagram shows why, and what "
        "is in each part.",
        ["cohort", "figures/flow.png"],
    )


def _characteristics(case: Case) -> Fact | None:
    cohort = case.result.cohort
    names = list(dict.fromkeys(row.covariate for row in cohort.covariates)) if cohort else []
    if not names:
        return None
    return Fact(f"By part: {', '.join(names)}, and the images with each finding.", ["cohort"])


def _groups(case: Case) -> Fact | None:
    covariates = list(dict.fromkeys(group.covariate for group in case.result.subgroups))
    if not covariates:
        return None
    return Fact(f"By group: {', '.join(covariates)}.", ["subgroups"])


def _accuracy(case: Case) -> Fact | None:
    if text.no_threshold(case.result):
        return None
    chosen = text.thresholds(case.result)
    return Fact(f"Sensitivity, specificity, PPV and NPV with intervals. {chosen}", ["labels", "confusion"])


def _failures(case: Case) -> Fact | None:
    there = [id for id in ("failures", "confusion", "heatmaps") if id in case.sections]
    if not there or text.no_threshold(case.result):
        return None
    words = {
        "failures": "errors summed up",
        "confusion": "errors counted",
        "heatmaps": "the most confident errors shown",
    }
    return Fact(f"{_capitalised(', '.join(words[id] for id in there))}.", there)


def _limits(case: Case) -> Fact | None:
    found = text.caveats(case.result, case.model_info)
    if not found:
        return None
    return Fact(f"What weakens this evaluation: {' '.join(found[:3])}", ["top", "model_card.md"])


def _use(case: Case) -> Fact:
    return Fact("For research only: no output is a diagnosis.", ["top", "model_card.md"])


def _availability(case: Case) -> Fact | None:
    session = case.model_info.provenance
    if session is None or not session.versions.get("cxrlab"):
        return None
    commit = f", commit {session.commit}" if session.commit else ""
    return Fact(f"Made with cxrlab {session.versions['cxrlab']}{commit}.", ["repeat", "provenance.json"])


def _audit(case: Case) -> Fact | None:
    findings = case.model_info.audit
    if findings is None:
        return None
    first = text.audit(findings).splitlines()[0].removesuffix("; see audit.json.").rstrip(".")
    return Fact(f"{first}.", ["audit", "audit.json"])


def _input(case: Case) -> Fact | None:
    if not case.is_own:
        return None
    return Fact("The pixels of one image, nothing else; no input is assessed by a person.", ["model_card.md"])


def _clusters(case: Case) -> Fact | None:
    covariates = dict.fromkeys(group.covariate for group in case.result.subgroups)
    named = [name for name in covariates if any(word in name.lower() for word in _CLUSTERS)]
    return Fact(f"Results by {', '.join(named)}.", ["subgroups"]) if named else None


def _utility(case: Case) -> Fact | None:
    return Fact("Net benefit.", ["decisions"]) if "decisions" in case.sections else None


def _recalibration(case: Case) -> Fact:
    missing = text.no_recalibration(case.result)
    if missing:
        return Fact(missing, ["calibration"])
    return Fact(
        "Probabilities were corrected by a fit on validation; they are evaluated before and after.",
        ["calibration"],
    )


def _predictions(case: Case) -> Fact:
    if not case.is_own:
        return Fact("Predictions of another program, as the table holds them.", ["predictions.csv"])
    return Fact(
        "By the checkpoint of the best epoch, whose preprocessing is in it; cxrlab predict does the same for "
        "other images.",
        ["predictions/test.csv" if not case.model_info.is_external else "predictions.csv"],
    )


def _imbalance(case: Case) -> Fact | None:
    loss = _class(_settings(case, "loss"))
    if not loss:
        return None
    sampling = _settings(case, "data").get("sampling", "uniform")
    return Fact(f"Loss {loss}, sampling {sampling} (data.sampling).", ["repeat"])


def _fairness(case: Case) -> Fact | None:
    groups = _groups(case)
    if groups is None:
        return None
    gaps = [gap for gap in case.result.gaps if gap.outcome in ("better", "worse")]
    shown = f"{counted(len(gaps), 'difference')} shown" if gaps else "no difference shown"
    return Fact(f"{groups.sentence.rstrip('.')}; {shown}.", ["subgroups"])


def _output(case: Case) -> Fact:
    return Fact("A probability for each finding.", ["labels"])


def _thresholds(case: Case) -> Fact | None:
    chosen = text.thresholds(case.result)
    return Fact(chosen, ["labels"]) if chosen else None


def _differences(case: Case) -> Fact | None:
    info = case.model_info
    if not case.is_own or info.trained_on is None:
        return None
    if info.is_external:
        evaluated, trained = (
            case.result.data.name or "another data set",
            info.trained_on.name or "its own data",
        )
        return Fact(f"Trained on {trained}, evaluated on {evaluated}.", ["top", "external"])
    return Fact("Training and evaluation are parts of one data set.", ["cohort", "audit"])


def _comparison(case: Case) -> Fact | None:
    if case.model_info.is_external:
        return Fact("Beside the training data.", ["external"]) if "external" in case.sections else None
    if case.cohort is None or len(case.cohort.parts) < 2:
        return None
    return Fact("Characteristics and findings of each part, side by side.", ["cohort"])


def _events(case: Case) -> Fact:
    listed = ", ".join(f"{label} {counts.positives:,}" for label, counts in case.result.counts.items())
    images = counted(case.result.data.images, "image")
    return Fact(f"Of the {images} that are evaluated, with the finding: {listed}.", ["cohort", "labels"])


def _specification(case: Case) -> Fact | None:
    if case.model_info.kind != "run" or case.model_info.is_external:
        return None
    return Fact(
        "checkpoints/best.ckpt holds weights, preprocessing, thresholds and calibration; cxrlab.load_run "
        "reads it.",
        ["checkpoints/best.ckpt"],
    )


def _poor_input(case: Case) -> Fact | None:
    if not case.is_own:
        return None
    return Fact(
        "An image that cannot be decoded is left out, and listed in unreadable.csv; that one is poor is not "
        "recognised.",
        ["audit"],
    )


FACTS: Mapping[str, Callable[[Case], Fact | None]] = {
    "technology": _technology,
    "headline": _headline,
    "source": _source,
    "eligibility": _eligibility,
    "preprocessing": _preprocessing,
    "subsets": _subsets,
    "missing": _missing,
    "lost": _lost,
    "readers": _readers,
    "partitions": _partitions,
    "disjoint": _disjoint,
    "precision": _precision,
    "model": _model,
    "software": _software,
    "initialisation": _initialisation,
    "training": _training,
    "selection": _selection,
    "ensembling": _ensembling,
    "metrics": _metrics,
    "uncertainty": _uncertainty,
    "robustness": _robustness,
    "explanations": _explanations,
    "internal": _internal,
    "external": _external,
    "flow": _flow,
    "characteristics": _characteristics,
    "groups": _groups,
    "accuracy": _accuracy,
    "failures": _failures,
    "limits": _limits,
    "use": _use,
    "availability": _availability,
    "audit": _audit,
    "input": _input,
    "clusters": _clusters,
    "utility": _utility,
    "recalibration": _recalibration,
    "predictions": _predictions,
    "imbalance": _imbalance,
    "fairness": _fairness,
    "output": _output,
    "thresholds": _thresholds,
    "differences": _differences,
    "comparison": _comparison,
    "events": _events,
    "specification": _specification,
    "poor_input": _poor_input,
}
"""What an evaluation knows, by the name that the items give it."""
