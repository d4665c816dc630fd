"""Numbers, curves and a comparison as an evaluation gives them, computed in a simple way from simulated data."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from cxrlab.heatmaps.settings import METHOD_NAMES

NIH = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
       "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")  # fmt: skip
CHEXNET = (0.8094, 0.9248, 0.8638, 0.7345, 0.8676, 0.7802, 0.7680,
           0.8887, 0.7901, 0.8878, 0.9371, 0.8047, 0.8062, 0.9164)  # fmt: skip
NOTHING = {"value": None, "low": None, "high": None}
AT_THRESHOLD = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "balanced_accuracy", "mcc",
                "ppv_at_prevalence", "npv_at_prevalence")  # fmt: skip
METRICS = ("auroc", "average_precision", "brier", *AT_THRESHOLD, "auroc_delong", "auroc_delong_clustered")
MODELS, SUBGROUP = ("densenet121", "resnet50", "mobilenetv3"), ("auroc", "sensitivity", "specificity")
IMAGES, PATIENTS, PREVALENCE = 600, 380, 0.1
GROUPS = {"view": ("AP", "PA"), "sex": ("F", "M"), "age": ("0 to 40", "40 to 60", "60 and more")}
DATA = {"name": "nih", "part": "test", "images": IMAGES, "patients": PATIENTS, "fingerprint": "5f2c9a01d3e4",
        "split": "official", "source": "outputs/2026-01-01/12-00-00"}  # fmt: skip
INTERVAL = {"level": 0.95, "unit": "patient", "resamples": 1000, "seed": 0, "method": "percentile bootstrap"}

Numbers = dict[str, Any]


class Simulation:
    """Targets and probabilities of 600 images; labels differ in prevalence and in how well they are seen."""

    def __init__(self, labels: Sequence[str], seed: int = 0, *, exclusive: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.labels, self.threshold, num_labels = tuple(labels), 0.5, len(labels)
        targets = rng.random((IMAGES, num_labels)) < np.linspace(0.3, 0.08, num_labels)
        if exclusive:
            targets = np.eye(num_labels, dtype=bool)[rng.integers(num_labels, size=IMAGES)]
        elif num_labels > 1:
            targets[:, -1] = np.arange(IMAGES) < 7
        self.targets = targets.astype(float)
        signal = np.random.default_rng(1).permutation(np.linspace(0.5, 1.4, num_labels)) - 0.1 * seed
        self.logits = 1.4 * (1.4 * signal * (self.targets - 0.5) + rng.normal(0, 1, targets.shape))
        self.probabilities = 1 / (1 + np.exp(-self.logits))
        self.groups = {name: rng.choice(groups, IMAGES) for name, groups in GROUPS.items()}


def interval(value: float, units: float, low: float = 0.0) -> Numbers:
    """Return an estimate with the normal approximation of a proportion of so many units."""
    if units == 0 or np.isnan(value):
        return dict(NOTHING)
    half = 1.96 * np.sqrt(max(value * (1 - value), 0.25 / units) / units)
    return {"value": float(value), "low": float(max(value - half, low)), "high": float(min(value + half, 1))}


def around(value: float, half: float) -> Numbers:
    return {"value": value, "low": value - half, "high": value + half}


def mean_of(estimates: Sequence[Numbers]) -> Numbers:
    if not (known := [one for one in estimates if one["value"] is not None]):
        return dict(NOTHING)
    middle = float(np.mean([one["value"] for one in known]))
    widths = [one["high"] - one["low"] for one in known]
    return around(middle, float(np.mean(widths) / 2 / np.sqrt(len(known))))


def area(target: np.ndarray, scores: np.ndarray) -> float:
    """Return the AUROC, as the Mann-Whitney statistic."""
    positives = target.sum()
    return float((rankdata(scores)[target == 1].mean() - (positives + 1) / 2) / (len(target) - positives))


def counted(target: np.ndarray, called: np.ndarray) -> Numbers:
    cells = {"tp": called & (target == 1), "fp": called & (target == 0),
             "tn": ~called & (target == 0), "fn": ~called & (target == 1)}  # fmt: skip
    known = {"images": target >= 0, "positives": target == 1, "negatives": target == 0}
    counts = {name: int(cell.sum()) for name, cell in (known | cells).items()}
    return counts | {"positive_patients": counts["positives"]}


def predicted(target: np.ndarray, probability: np.ndarray, threshold: float) -> Numbers:
    """Return every metric of one label."""
    n = counted(target, probability >= threshold)
    tp, fp, tn, fn = (n[name] for name in ("tp", "fp", "tn", "fn"))
    if not n["positives"] or not n["negatives"]:
        return {metric: dict(NOTHING) for metric in METRICS}
    se, sp = tp / (tp + fn), tn / (tn + fp)
    auroc = interval(area(target, probability), min(n["positives"], n["negatives"]))
    found = {
        "auroc": auroc, "average_precision": interval(average_precision_score(target, probability), n["positives"]),
        "brier": interval(float(np.mean((target - probability) ** 2)), IMAGES),
        "accuracy": interval((tp + tn) / IMAGES, IMAGES),
        "sensitivity": interval(se, tp + fn), "specificity": interval(sp, tn + fp),
        "ppv": interval(tp / max(tp + fp, 1), tp + fp), "npv": interval(tn / max(tn + fn, 1), tn + fn),
        "f1": interval(2 * tp / (2 * tp + fp + fn), tp + fp + fn),
        "balanced_accuracy": interval((se + sp) / 2, tp + fn), "mcc": interval(se + sp - 1, tp + fn, -1.0),
        "ppv_at_prevalence": interval(se * PREVALENCE / (se * PREVALENCE + (1 - sp) * (1 - PREVALENCE)), tp + fp),
        "npv_at_prevalence": interval(sp * (1 - PREVALENCE) / (sp * (1 - PREVALENCE) + (1 - se) * PREVALENCE), tn + fn),
    }  # fmt: skip
    return found | {"auroc_delong": auroc, "auroc_delong_clustered": auroc}


def calibrated(target: np.ndarray, probability: np.ndarray, is_calibrated: bool) -> Numbers:
    bins = [rows for rows in np.array_split(np.argsort(probability), 10) if len(rows)]
    points = [{"predicted": float(probability[rows].mean()), "observed": interval(target[rows].mean(), len(rows)),
               "images": len(rows)} for rows in bins]  # fmt: skip
    gaps = [abs(point["predicted"] - point["observed"]["value"]) for point in points]
    bias = float((probability - target).mean())
    return {"ece": interval(float(np.mean(gaps)), IMAGES), "brier": interval(float(np.mean((target - probability) ** 2)), IMAGES),
            "bias": around(bias, 0.03), "spiegelhalter": around(bias * 30, 2.0), "is_calibrated": is_calibrated,
            "bins": points}  # fmt: skip


def calibration(simulation: Simulation, after: bool) -> Numbers:
    labels = {}
    for column, label in enumerate(simulation.labels):
        target, logits = simulation.targets[:, column], simulation.logits[:, column]
        right = 1 / (1 + np.exp(-(logits + np.log(max(target.mean(), 0.01) / (1 - target.mean())))))
        labels[label] = {
            "slope": 1.0 if after else None, "intercept": -1.0 if after else None,
            "before": calibrated(target, simulation.probabilities[:, column], False),
            "after": calibrated(target, right, True) if after else None,
            "description": "Too high before recalibration, calibrated after it." if after else "Too high.",
        }  # fmt: skip
    method, source = ("platt", "validation") if after else ("none", None)
    return {"method": method, "source": source, "labels": labels}


def subgroups(simulation: Simulation) -> list[Numbers]:
    """Return the rows of view, sex and age, by label and, for several labels, macro."""
    rows = []
    for covariate, group in [(covariate, group) for covariate, groups in GROUPS.items() for group in groups]:
        chosen, found = simulation.groups[covariate] == group, []
        for column, label in enumerate(simulation.labels):
            target = simulation.targets[chosen, column]
            metrics = predicted(target, simulation.probabilities[chosen, column], simulation.threshold)
            found.append({"covariate": covariate, "group": group, "label": label, "images": int(chosen.sum()),
                          "patients": int(chosen.sum() * 0.7), "positives": int(target.sum())}
                         | {name: metrics[name] for name in SUBGROUP} | {"negatives_from": "group"})  # fmt: skip
        if len(found) > 1:
            macro = {name: mean_of([row[name] for row in found]) for name in SUBGROUP}
            macro |= {"label": "macro", "positives": sum(row["positives"] for row in found)}
            rows.append(found[0] | macro)
        rows += found
    return rows


def gaps(label: str) -> list[Numbers]:
    test = {"difference": around(0.02, 0.03), "p": 0.18, "p_holm": 0.54, "description": "no difference shown"}
    return [{"covariate": covariate, "label": label, "metric": "auroc", "groups": list(groups[:2]), "images": [310, 290]} | test
            for covariate, groups in GROUPS.items()]  # fmt: skip


def report_of(simulation: Simulation, exclusive: bool) -> Numbers | None:
    labels, targets = simulation.labels, simulation.targets
    if len(labels) > 1 and not exclusive:
        return None
    classes = list(labels) if exclusive else [f"no {labels[0]}", labels[0]]
    true, called = targets.argmax(1), simulation.logits.argmax(1)
    if not exclusive:
        true, called = targets[:, 0].astype(int), (simulation.logits[:, 0] > 0).astype(int)
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(matrix, (true, called), 1)
    rows = []
    for index, name in enumerate(classes):
        hit, n, m = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
        rows.append({"class": name, "precision": interval(hit / max(m, 1), m), "recall": interval(hit / max(n, 1), n),
                     "f1": interval(2 * hit / max(n + m, 1), n + m), "support": int(n)})  # fmt: skip
    accuracy = interval((true == called).mean(), IMAGES)
    kind = "exclusive" if exclusive else "binary"
    return {"kind": kind, "classes": rows, "accuracy": accuracy, "matrix": matrix.tolist()}


def published(metrics: Numbers) -> Numbers:
    ours = [{"label": label} | found["auroc"] for label, found in metrics.items()]
    rows = [{"name": "CheXNet", "source": "Rajpurkar et al., arXiv:1711.05225", "split": "its own, undisclosed",
             "values": dict(zip(NIH, CHEXNET, strict=True)), "macro": 0.8414},
            {"name": "DNetLoc", "source": "Gündel et al., CIARP 2018", "split": "official", "values": {}, "macro": 0.807}]  # fmt: skip
    return {"ours": ours, "rows": rows, "note": "AUROC on different splits cannot be compared."}


def undefined(numbers: Numbers, label: str) -> None:
    """Take from one label what a test part without positives could not give."""
    numbers["labels"][label] = {metric: dict(NOTHING) for metric in METRICS}
    counts = numbers["counts"][label]
    counts |= dict.fromkeys(("positives", "positive_patients", "tp", "fn"), 0)
    counts |= {"negatives": counts["images"], "tn": counts["images"] - counts["fp"]}
    numbers["flags"] += [{"kind": "one_class", "label": label, "message": f"{label} has no positive image."}]
    numbers["num_macro_labels"] -= 1
    for row in numbers["subgroups"]:
        if row["label"] == label:
            row |= {name: dict(NOTHING) for name in SUBGROUP}


def without_validation(numbers: Numbers) -> None:
    """Take what needs a threshold or a calibration fitted on validation."""
    for label, metrics in numbers["labels"].items():
        metrics |= {name: dict(NOTHING) for name in AT_THRESHOLD}
        numbers["counts"][label] |= dict.fromkeys(("tp", "fp", "tn", "fn"))
    for block in (numbers["macro"], numbers["micro"]):
        block |= {name: dict(NOTHING) for name in AT_THRESHOLD}
    for row in numbers["subgroups"]:
        row |= {"sensitivity": dict(NOTHING), "specificity": dict(NOTHING)}
    numbers["flags"] += [{"kind": "no_threshold", "label": None, "message": "There is no validation part."}]
    numbers |= {"classification_report": None, "thresholds": {}}


def numbers_of(
    labels: Sequence[str] = NIH, *, missing: Sequence[str] = (), validation: bool = True, exclusive: bool = False
) -> Numbers:  # fmt: skip
    """Return the content of an evaluation.json.

    Args:
        labels: Names; the last of several has 7 positives and is flagged.
        missing: Labels without a positive: no metric of theirs is defined.
        validation: False leaves out thresholds, what is evaluated at them, and recalibration.
        exclusive: Whether the labels are classes that exclude one another.
    """
    simulation = Simulation(labels, exclusive=exclusive)
    pairs = zip(simulation.targets.T, simulation.probabilities.T, strict=True)
    columns = dict(zip(labels, pairs, strict=True))
    metrics = {label: predicted(y, p, simulation.threshold) for label, (y, p) in columns.items()}
    counts = {label: counted(y, p >= simulation.threshold) for label, (y, p) in columns.items()}
    few = [{"kind": "few_positives", "label": label, "message": f"{label} has only {counts[label]['positives']} positives."}
           for label in labels if counts[label]["positives"] < 10]  # fmt: skip
    numbers = {
        "format": 1, "data": dict(DATA), "interval": dict(INTERVAL), "labels": metrics,
        "macro": {name: mean_of([metrics[label][name] for label in labels if label not in missing]) for name in METRICS},
        "micro": predicted(simulation.targets.ravel(), simulation.probabilities.ravel(), simulation.threshold),
        "num_macro_labels": len(labels), "counts": counts,
        "thresholds": {label: {"value": 0.5, "rule": "youden", "source": "validation"} for label in labels},
        "prevalence": PREVALENCE, "flags": few, "classification_report": report_of(simulation, exclusive),
        "calibration": calibration(simulation, validation), "subgroups": subgroups(simulation), "gaps": gaps("macro" if len(labels) > 1 else labels[0]),
        "published": published(metrics) if set(labels) == set(NIH) else None, "seconds": {"metrics": 1.5, "subgroups": 3.25, "calibration": 0.8},
    }  # fmt: skip
    for label in missing:
        undefined(numbers, label)
    if not validation:
        without_validation(numbers)
    return numbers


def curves_of(labels: Sequence[str] = NIH, *, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Return the content of a curves.csv: 101 points a curve; a label that is missing has no curve."""
    simulation, blocks, grid = Simulation(labels), [], np.linspace(0, 1, 101)
    for label, target, probability in zip(labels, simulation.targets.T, simulation.probabilities.T, strict=True):  # fmt: skip
        false, true, _ = roc_curve(target, probability)
        precision, recall, _ = precision_recall_curve(target, probability)
        heights = {"roc": np.interp(grid, false, true), "pr": np.interp(grid, recall[::-1], precision[::-1])}
        for curve, y in heights.items():
            half = 1.96 * np.sqrt(np.maximum(y * (1 - y), 1e-4) / target.sum())
            blocks.append(pd.DataFrame({"label": label, "curve": curve, "x": grid, "y": y, "low": np.maximum(y - half, 0),
                                        "high": np.minimum(y + half, 1)}))  # fmt: skip
    return pd.concat(blocks, ignore_index=True).query("label not in @missing")


def comparison_of(labels: Sequence[str] = NIH, *, models: Sequence[str] = MODELS) -> Numbers:
    """Return the content of a comparison.json; models are sorted, the best first."""
    rows = []
    for seed, name in enumerate(models):
        seen = Simulation(labels, seed)
        columns = list(zip(seen.targets.T, seen.probabilities.T, strict=True))
        auroc = [interval(area(y, p), min(y.sum(), (1 - y).sum())) for y, p in columns]
        precision = [interval(average_precision_score(y, p), y.sum()) for y, p in columns]
        rows.append({"name": name, "macro_auroc": mean_of(auroc), "macro_average_precision": mean_of(precision),
                     "labels": dict(zip(labels, auroc, strict=True))})  # fmt: skip
    rows.sort(key=lambda row: -row["macro_auroc"]["value"])
    pairs = [pair_of(rows[a], rows[b]) for a in range(len(rows)) for b in range(a + 1, len(rows))]
    return {"data": dict(DATA), "interval": dict(INTERVAL), "models": rows, "pairs": pairs,
            "left_out": {"images": 3, "labels": []}, "flags": []}  # fmt: skip


def pair_of(one: Numbers, other: Numbers) -> Numbers:
    def differing(a: Numbers, b: Numbers, half: float) -> Numbers:
        shown = abs(value := a["value"] - b["value"]) > half
        return {"difference": around(value, half), "p": 0.002 if shown else 0.4, "p_holm": 0.008 if shown else 1.0,
                "description": "a difference is shown" if shown else "no difference shown"}  # fmt: skip

    labels = {label: differing(one["labels"][label], other["labels"][label], 0.06) for label in one["labels"]}
    macro = differing(one["macro_auroc"], other["macro_auroc"], 0.02)
    return {"models": [one["name"], other["name"]]} | macro | {"labels": labels}


@pytest.fixture(scope="session")
def sample_numbers() -> Callable[..., Numbers]:
    """Make an evaluation: ``sample_numbers(labels, missing=…, validation=…, exclusive=…)``."""
    return numbers_of


@pytest.fixture(scope="session")
def sample_curves() -> Callable[..., pd.DataFrame]:
    """Make its curves: ``sample_curves(labels, missing=…)``."""
    return curves_of


@pytest.fixture(scope="session")
def sample_comparison() -> Callable[..., Numbers]:
    """Make a comparison: ``sample_comparison(labels, models=…)``."""
    return comparison_of


def explanation(
    findings: Sequence[str] = ("Mass", "Edema"),
    methods: Sequence[str] = ("gradcam", "layercam"),
    **changes: Any,
) -> Numbers:
    """Return what the checks of heatmaps find, as in explanation.json; no two values are the same."""
    values = iter(np.linspace(0.1, 0.9, 5000).tolist())

    def one() -> Numbers:
        return around(next(values), 0.05)

    sources = [
        *methods,
        *(f"random: {one}" for one in methods),
        "box_frequency",
        "image_centre",
        "uniform_chance",
    ]
    measures = ["pointing", "energy", *(f"{kind}{level}" for kind in ("iou", "iobb")
                for level in ("", *(f"@0.{tenth}" for tenth in range(1, 8))))]  # fmt: skip
    rows = [*findings, "macro"]
    pointing: Numbers = {"cases": {}, "without_boxes": {}, "unusable": {"boxes": 0, "such_as": []}}
    if findings:
        pointing |= {
            "cases": {name: {"cases": 9 + place, "patients": 7} for place, name in enumerate(findings)},
            "tolerance": 0.0,
            "thresholds": {"on": "validation", "cases": 30, "values": {}},
            "findings": {row: {source: {name: one() for name in measures} for source in sources} for row in rows},
            "differences": {
                method: {
                    **{other: {row: one() for row in rows} for other in ("box_frequency", "random_network")},
                    "words": {row: f"words of {row}" for row in rows},
                    "random_words": {row: f"random words of {row}" for row in rows},
                }
                for method in methods
            },
            "against_first": {method: {row: one() for row in rows} for method in methods[1:]},
            "sizes": [
                {"from": low, "to": high, "cases": 5, "patients": 4, "pointing": {source: one() for source in sources}}
                for low, high in ((0.0, 0.01), (0.01, 1.0))
            ],
        }  # fmt: skip
    orders = [*methods, "random order"]
    curve = np.linspace(0.9, 0.1, 5).tolist()
    return {
        "methods": {method: METHOD_NAMES[method] for method in methods},
        "labels": list(findings), "images": 40,
        "interval": {"level": 0.95, "resamples": 1000},
        "settings": {"baseline": "mean", "layers": "auto"},
        "pointing": pointing,
        "randomization": {
            "cases": 8, "networks": 3, "steps": ["head", "stage 1", "stem"],
            "methods": {method: {"rank_correlation": [one() for _ in range(3)], "ssim": [one() for _ in range(3)],
                                 "empty": 0.0} for method in methods},
        },
        "faithfulness": {
            "cases": 8, "shares": np.linspace(0, 1, 5).tolist(),
            "methods": {order: {kind: {"curve": curve, "area": one(), "difference": None if order == orders[-1] else one()}
                                for kind in ("deletion", "insertion")} for order in orders},
        },
        "agreement": {"pairs": [{"methods": list(methods), "rank_correlation": one()}] if len(methods) == 2 else []},
        "shortcuts": {
            "cases": 20, "regions_found": 0.9, "areas": {"outside": 0.54, "border": 0.19, "corners": 0.09},
            "methods": {method: {row: {zone: one() for zone in ("outside", "border", "corners")} for row in rows}
                        for method in methods},
            "unlike": [],
        },
        "flags": [],
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="session")
def explanation_numbers() -> Callable[..., Numbers]:
    """Make what the checks of heatmaps find: ``explanation_numbers(["Mass"], ["gradcam"], flags=[…])``."""
    return explanation
