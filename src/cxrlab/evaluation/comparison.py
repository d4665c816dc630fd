"""Several models over the same images: a leaderboard, and which differences are shown."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import norm

from cxrlab.evaluation.alignment import Alignment, Tables, align
from cxrlab.evaluation.delong import Difference, area_difference, delong
from cxrlab.evaluation.flags import Flag, flag, reservations
from cxrlab.evaluation.prediction_table import Floats, PredictionTable
from cxrlab.evaluation.ranking import label_rankings
from cxrlab.evaluation.resampling import estimate, p_value, patient_counts
from cxrlab.evaluation.settings import EvaluationSettings

Estimate = dict[str, Any]
Pair = tuple[str, str]
Macro = tuple[float, Floats]

MOST_IN_ALL_PAIRS = 6  # models; of more, each is shown against the best alone


def compare(tables: Tables, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the numbers of ``comparison.json``: models, best first, and the differences between them.

    All models are judged on the same resamples of the same patients. Labels are tested by DeLong's paired
    test, clustered by patient, with Holm's correction over the labels of a pair; macro means by the paired
    patient bootstrap, with Holm's correction over all pairs. Of more than 6 models only the pairs with the
    best are returned; the correction still counts all, since which is best was not known beforehand.

    Args:
        tables: Predictions by the name of their model.
        settings: How to judge.

    Raises:
        ConfigError: If there are fewer than two models.
        DataError: If the tables do not fit together; see :func:`cxrlab.evaluation.alignment.align`.
    """
    alignment = align(tables)
    table = next(iter(alignment.tables.values()))
    models, macros = _leaderboard(alignment.tables, settings)
    ranked = {model["name"]: alignment.tables[model["name"]] for model in models}
    return {
        "data": _data(tables, table),
        "interval": _interval(table, settings),
        "num_macro_labels": sum(one["value"] is not None for one in models[0]["labels"].values()),
        "models": models,
        "pairs": _differences(ranked, macros, settings.level),
        "left_out": {"images": alignment.num_images_left_out, "labels": list(alignment.labels_left_out)},
        "flags": _flags(tables, alignment, settings),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: one false finding among them all stays as rare as one.

    Args:
        p_values: NaN where there was no test; it stays NaN and does not count.

    References:
        Holm, Scandinavian Journal of Statistics 6:65, 1979.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03, 0.005])
        [0.03, 0.06, nan, 0.06, 0.02]
    """
    adjusted = np.array(p_values, dtype=np.float64)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(adjusted[order] * factors))
    return [float(p) for p in adjusted]


def words(models: Pair, difference: Estimate, p_holm: float, level: float) -> str:
    """Return what a difference says.

    Args:
        models: Whose difference it is: the first minus the second.
        difference: With its interval.
        p_holm: Corrected p-value; NaN where nothing could be tested.
        level: Coverage of the interval; a difference is shown where ``p_holm`` is below 1 minus it.

    Example:
        >>> words(("a", "b"), {"value": -0.021, "low": -0.032, "high": -0.010}, 0.002, 0.95)
        'b is better by 0.021 (0.010 to 0.032)'
        >>> words(("a", "b"), {"value": 0.004, "low": -0.010, "high": 0.018}, 0.6, 0.95)
        'no difference shown: 0.004 (-0.010 to 0.018)'
    """
    value, low, high = difference["value"], difference["low"], difference["high"]
    if value is None:
        return "cannot be compared: one class only"
    shown = p_holm + level < 1
    if shown and value < 0:
        turned = {"value": -value, "low": high and -high, "high": low and -low}
        return words(models[::-1], turned, p_holm, level)
    amount = _signed(value) if low is None else f"{_signed(value)} ({_signed(low)} to {_signed(high)})"
    if np.isnan(p_holm):
        return f"cannot be tested: {amount}, too little varies"
    if shown:
        return f"{models[0]} is better by {amount}"
    corrected = " after correction for several tests" if low is not None and low * high > 0 else ""
    return f"no difference shown{corrected}: {amount}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # never -0.000


def _leaderboard(
    tables: Tables, settings: EvaluationSettings
) -> tuple[list[dict[str, Any]], dict[str, Macro]]:
    """Return the models, best first, and the macro AUROC of each with its resamples."""
    models: list[dict[str, Any]] = []
    macros: dict[str, Macro] = {}
    first = next(iter(tables.values()))
    counts = patient_counts(first.num_patients, settings.num_resamples, settings.seed)
    for name, table in tables.items():
        ranking = label_rankings(table, counts)
        macros[name] = _macro(ranking.auroc, ranking.auroc_samples)
        precision = _macro(ranking.average_precision, ranking.average_precision_samples)
        by_label = zip(table.labels, ranking.auroc, ranking.auroc_samples, strict=True)
        models.append(
            {
                "name": name,
                "macro_auroc": estimate(*macros[name], settings.level),
                "macro_average_precision": estimate(*precision, settings.level),
                "labels": {label: estimate(value, drawn, settings.level) for label, value, drawn in by_label},
            }
        )
    models.sort(key=lambda model: np.nan_to_num(macros[model["name"]][0]), reverse=True)
    return models, macros


def _macro(values: Floats, samples: Floats) -> Macro:
    """Return the mean over the labels that the whole sample defines, and that of each resample, ``(B,)``."""
    defined = ~np.isnan(values)
    known = ~np.isnan(samples[defined])
    sums = np.where(known, samples[defined], 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no label is defined
        return float(values[defined].sum() / np.float64(defined.sum())), sums / known.sum(axis=0)


def _differences(tables: Tables, macros: Mapping[str, Macro], level: float) -> list[dict[str, Any]]:
    """Return the paired tests of the macro means, and of the labels within each pair, best models first."""
    pairs = list(combinations(tables, 2))
    values = [macros[first][0] - macros[second][0] for first, second in pairs]
    drawn = [macros[first][1] - macros[second][1] for first, second in pairs]
    raw = [_bootstrap_p(value, samples) for value, samples in zip(values, drawn, strict=True)]
    adjusted = holm(raw)
    shown = len(pairs) if len(tables) <= MOST_IN_ALL_PAIRS else len(tables) - 1
    by_label = _label_differences(pairs[:shown], tables, level)
    result = []
    for row, (pair, labels) in enumerate(zip(pairs, by_label, strict=False)):
        difference = estimate(values[row], drawn[row], level)
        verdict = _verdict(pair, difference, raw[row], adjusted[row], level)
        result.append({"models": list(pair), **verdict, "labels": labels})
    return result


def _bootstrap_p(value: float, samples: Floats) -> float:
    """Return the p-value of a bootstrapped difference.

    B resamples tell none below 2 / (B + 1), which Holm's correction over many pairs would turn into no
    difference at all, whatever the models. Down there a normal distribution of the same spread tells it.
    """
    drawn = samples[~np.isnan(samples)]
    p = p_value(drawn)
    if not len(drawn) or p > 2 / (len(drawn) + 1) or np.ptp(drawn) < 1e-12:
        return p
    return min(p, 2 * float(norm.sf(abs(value) / drawn.std())))


def _label_differences(
    pairs: Sequence[Pair], tables: Tables, level: float
) -> list[dict[str, dict[str, Any]]]:
    names, table = list(tables), next(iter(tables.values()))
    patients = table.patients if table.patients_known else None
    areas = []
    for column in range(len(table.labels)):
        scores = np.stack([one.probabilities[:, column] for one in tables.values()])
        areas.append(delong(scores, table.targets[:, column], patients))
    result = []
    for pair in pairs:
        first, second = names.index(pair[0]), names.index(pair[1])
        tests = [area_difference(*area, first, second, level) for area in areas]
        adjusted = holm([test.p for test in tests])
        result.append(
            {
                label: _verdict(pair, _estimate(test), test.p, p_holm, level)
                for label, test, p_holm in zip(table.labels, tests, adjusted, strict=True)
            }
        )
    return result


def _verdict(pair: Pair, difference: Estimate, p: float, p_holm: float, level: float) -> dict[str, Any]:
    return {
        "difference": difference,
        "p": _number(p),
        "p_holm": _number(p_holm),
        "words": words(pair, difference, p_holm, level),
    }


def _estimate(test: Difference) -> Estimate:
    return {"value": _number(test.value), "low": _number(test.low), "high": _number(test.high)}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _data(tables: Tables, table: PredictionTable) -> dict[str, Any]:
    return {
        "name": "",
        "part": table.part,
        "images": len(table),
        "patients": table.num_patients if table.patients_known else None,
        "fingerprint": None,
        "split": None,
        "source": ", ".join(one.source for one in tables.values()),
    }


def _interval(table: PredictionTable, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "level": settings.level,
        "unit": "patient" if table.patients_known else "image",
        "resamples": settings.num_resamples,
        "seed": settings.seed,
        "method": "percentile bootstrap",
    }


def _flags(tables: Tables, alignment: Alignment, settings: EvaluationSettings) -> list[Flag]:
    """Return what weakens the comparison."""
    table = next(iter(alignment.tables.values()))
    flags = [one for one in reservations(table, None, settings) if one["kind"] != "no_threshold"]
    parts = {name: one.part or "unknown" for name, one in tables.items()}
    if len(set(parts.values())) > 1:
        message = f"The tables are of different parts, {parts}: a model chosen on these images is flattered."
        flags.append(flag("parts_differ", message))
    if alignment.num_images_left_out:
        message = f"{alignment.num_images_left_out} images are not in every table; {len(table)} are compared."
        flags.append(flag("images_left_out", message))
    if alignment.labels_left_out:
        message = f"Labels that not every model has are left out: {', '.join(alignment.labels_left_out)}."
        flags.append(flag("labels_left_out", message))
    if len(tables) > MOST_IN_ALL_PAIRS:
        message = (
            f"Of {len(tables)} models only the pairs with the best one are shown; the correction counts all "
            f"{len(tables) * (len(tables) - 1) // 2} pairs. The best was picked on these same images, so its "
            "own value is optimistic: confirm it on others."
        )
        flags.append(flag("pairs_left_out", message))
    return flags
