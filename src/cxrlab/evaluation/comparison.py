"""Several models over the same images: a leaderboard, and which differences are shown.

The tables come from runs, from the jobs of a sweep, or from other programs, and are cut down to the images
and labels that all of them hold.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.evaluation.caveats import caveats
from cxrlab.evaluation.external_predictions import read_external
from cxrlab.evaluation.out_of_fold import delong_within_folds, fold_names, within_folds
from cxrlab.evaluation.paired_tests import (
    Resampled,
    area_margin_test,
    bootstrap_margin_test,
    bootstrapped_differences,
    difference_of,
    further_metrics,
    further_tests,
    not_inferior,
)
from cxrlab.evaluation.results import (
    OF_COMPARISON,
    Caveat,
    ComparisonResult,
    Difference,
    EvaluatedData,
    IntervalMethod,
    LeftOut,
    ModelPair,
    ModelScores,
    NonInferiority,
)
from cxrlab.files import RunDir, reading, sweep_folders
from cxrlab.metrics.bootstrap import (
    Counts,
    estimate,
    holm,
    macro_mean,
    patient_counts,
)
from cxrlab.metrics.delong import area_difference, delong
from cxrlab.metrics.estimates import averaged_labels, label_areas, plain_bootstrap
from cxrlab.metrics.predictions import DataFacts, Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings
from cxrlab.metrics.registry import METRICS, Metric
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.runs.own_predictions import read_own_predictions

log = logging.getLogger(__name__)

Tables = Mapping[str, PredictionTable]

LEAST_COMMON = 0.9  # of the images of the largest table

_PARTS = ("train", "val", "test")  # a model evaluated on images of an earlier part is the more flattered


@dataclass(frozen=True)
class Alignment:
    """Tables whose images, patients, labels and targets are the same, in the order of the first table.

    Attributes:
        tables: By the name of their model. Their part is the most flattering that one of them had.
        num_images_left_out: Images that only some of the tables held.
        labels_left_out: Labels that only some of the tables held.
    """

    tables: dict[str, PredictionTable]
    num_images_left_out: int
    labels_left_out: tuple[str, ...]


def align(tables: Tables) -> Alignment:
    """Return the tables cut down to what is common to them.

    Args:
        tables: By the name of their model; patients are those of any table that knows them.

    Raises:
        ConfigError: If there are fewer than two.
        DataError: If less than 90 % of the largest table's images are common, or no label is, or targets or
            patients disagree; the message gives the counts or names images.
    """
    if len(tables) < 2:
        raise ConfigError(f"A comparison needs at least two models; it has {list(tables)}.")
    first, *others = tables.values()
    images = union = pd.Index(first.images)
    labels = all_labels = list(first.labels)
    for table in others:
        images, union = images[images.isin(table.images)], union.union(pd.Index(table.images), sort=False)
        labels = [label for label in labels if label in table.labels]
        all_labels = [*all_labels, *(label for label in table.labels if label not in all_labels)]
    _check_overlap(tables, len(images), len(labels))
    cut = {
        name: table.rows(pd.Index(table.images).get_indexer(images)).select_labels(labels)
        for name, table in tables.items()
    }
    _check_targets(cut)
    return Alignment(
        _with_common_patients(cut),
        len(union) - len(images),
        tuple(label for label in all_labels if label not in labels),
    )


def _check_overlap(tables: Tables, num_images: int, num_labels: int) -> None:
    sizes = {name: len(table) for name, table in tables.items()}
    if num_images < LEAST_COMMON * max(sizes.values()):
        raise DataError(
            f"Only {num_images} images are in all tables, which hold {sizes}: under {LEAST_COMMON:.0%} of "
            "the largest. Compare predictions for the same images, under the same names."
        )
    if not num_labels:
        labels = {name: list(table.labels) for name, table in tables.items()}
        raise DataError(f"The tables have no label in common: {labels}.")


def _check_targets(tables: Tables) -> None:
    (name, first), *others = tables.items()
    for other, table in others:
        both_unknown = np.isnan(first.targets) & np.isnan(table.targets)
        differs = (first.targets != table.targets) & ~both_unknown
        if differs.any():
            column = int(np.flatnonzero(differs.any(axis=0))[0])
            images = first.images[differs[:, column]]
            raise DataError(
                f"{len(images)} images have another target for {first.labels[column]!r} in {other!r} than in "
                f"{name!r}, such as {list(images[:3])}. Models are compared on the same targets only."
            )


def _with_common_patients(tables: Tables) -> dict[str, PredictionTable]:
    """Return the tables with the patients of the first that knows them, once all that do agree."""
    knowing = [(name, table) for name, table in tables.items() if table.patients_known]
    chosen = knowing[0][1] if knowing else next(iter(tables.values()))
    for other, table in knowing[1:]:
        images = chosen.images[_torn(chosen.patients, table.patients)]
        if len(images):
            raise DataError(
                f"{knowing[0][0]!r} and {other!r} disagree on which images are of one patient, for "
                f"{len(images)} images, such as {list(images[:3])}. Mend the patients of one."
            )
    parts = [table.part for table in tables.values()]
    part = next((part for part in _PARTS if part in parts), "")
    return {
        name: replace(table, patients=chosen.patients, patient_names=chosen.patient_names, part=part)
        for name, table in tables.items()
    }


def _torn(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which images have a patient that the other numbering splits; names of patients may differ."""
    pairs = np.unique(np.stack([first, second], axis=1), axis=0)
    splits = [np.bincount(pairs[:, side]) > 1 for side in (0, 1)]
    torn: npt.NDArray[np.bool_] = splits[0][first] | splits[1][second]
    return torn


MOST_IN_ALL_PAIRS = 6  # models; of more, each is shown against the best alone

Pair = tuple[str, str]
Macro = tuple[float, Floats]
Areas = Sequence[tuple[Floats, Floats]]
Averaged = npt.NDArray[np.bool_]
OwnMacros = Mapping[Metric, Mapping[str, Macro]]


def compare(
    tables: Tables,
    settings: EvaluationSettings | None = None,
    data: DataFacts | None = None,
    *,
    margin: float | None = None,
) -> ComparisonResult:
    """Return a comparison: models, best first, and the differences between them.

    All models are evaluated on the same resamples of the same patients. Labels are tested by DeLong's paired
    test, clustered by patient, with Holm's correction over the labels of a pair; macro means by the paired
    patient bootstrap, with Holm's correction over all pairs. Of more than 6 models only the pairs with the
    best are returned; the correction still counts all, since which is best was not known beforehand.

    Args:
        tables: Predictions by the name of their model.
        settings: How to evaluate; by default as in conf/evaluation/default.yaml.
        data: What the images are, where it is the same for all tables.
        margin: How much lower an AUROC still counts as not inferior; None for no such test.

    Raises:
        ConfigError: If there are fewer than two models, or the margin is out of its range.
        DataError: If the tables do not fit together; see :func:`align`.
    """
    settings = settings or EvaluationSettings()
    check_margin(margin)
    alignment = align(tables)
    table = next(iter(alignment.tables.values()))
    counts = patient_counts(table.num_patients, settings.num_resamples, settings.seed)
    averaged = averaged_labels(table, settings.min_positives)
    own, own_caveats = _own_macros(alignment.tables, averaged, counts)
    folded, fold_caveats = _with_common_folds(alignment.tables)
    decisions = _common_decisions(alignment.tables)
    models, aurocs, further = _leaderboard(folded, own, averaged, decisions or {}, counts, settings.level)
    ranked = {model.name: folded[model.name] for model in models}
    optimism = selection_optimism(list(aurocs.values()))
    sources = ", ".join(other.source for other in tables.values())
    pairs, corrections = _pairs(ranked, aurocs, further, own, margin, settings.level)
    return ComparisonResult(
        data=EvaluatedData.of(table, data or DataFacts(""), sources),
        interval=IntervalMethod.of(table, settings, OF_COMPARISON),
        num_macro_labels=int(averaged.sum()),
        models=models,
        pairs=pairs,
        left_out=LeftOut(alignment.num_images_left_out, list(alignment.labels_left_out)),
        flags=[
            *fold_caveats,
            _selection_caveat(models, optimism),
            *_caveats(tables, alignment, own_caveats, settings),
        ],
        num_folds=len(fold_names(folded[models[0].name])),
        selection_optimism=optimism,
        margin=margin,
        corrections=corrections,
        untested="" if decisions is not None else _undecided(alignment.tables),
    )


def check_margin(margin: float | None) -> None:
    """Refuse a margin of non-inferiority that is none.

    Raises:
        ConfigError: If it is not above 0 and below 0.5.
    """
    if margin is not None and not 0 < margin < 0.5:
        raise ConfigError(
            f"margin={margin} must be a difference of AUROC above 0 and below 0.5, such as margin=0.02."
        )


def _with_common_folds(tables: Tables) -> tuple[Tables, list[Caveat]]:
    """Return the tables, all with the folds of those that have any, and what a reader must know of them.

    Models are compared on the same pairs of images, so a model without folds is ranked within the others'.
    Where two models have other folds there are no such pairs, and none keeps its own.
    """
    folded = {name: table for name, table in tables.items() if table.folds is not None}
    if not folded:
        return tables, []
    first = next(iter(folded.values()))
    numbers = [pd.factorize(pd.Series(table.folds))[0] for table in folded.values()]
    if any((own != numbers[0]).any() for own in numbers):
        message = (
            "The models are of other folds than one another, so AUROC within folds cannot be compared on the "
            "same pairs of images: all folds are pooled, which ranks images across networks that need not be "
            "calibrated alike (Forman and Scholz 2010)."
        )
        pooled = {name: replace(table, folds=None) for name, table in tables.items()}
        return pooled, [Caveat("folds_differ", None, message)]
    message = (
        f"{len(folded)} of {len(tables)} models have predictions of {len(fold_names(first))} folds, each of "
        "another network. AUROC, in its tests too, is the mean over the folds, each of which ranks its own "
        "images only; what is called pooled, and every other metric, mixes networks that need not be "
        "calibrated alike (Forman and Scholz 2010)."
    )
    return (
        {name: replace(table, folds=first.folds) for name, table in tables.items()},
        [Caveat("out_of_fold", None, message)],
    )


def selection_optimism(models: Sequence[Macro]) -> float | None:
    """Return how much too good the best of several models looks, for being picked on the same images.

    In each resample the best model of that resample is picked, as the best was picked from the sample: how
    far it lies there above its own value, on average, is the bootstrap's estimate of the optimism (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 17).

    Args:
        models: Value and resamples of each.

    Returns:
        At least 0; None where nothing can be told.
    """
    defined = [(value, samples) for value, samples in models if not np.isnan(value)]
    if len(defined) < 2:
        return None
    values, drawn = np.array([value for value, _ in defined]), np.stack([samples for _, samples in defined])
    drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if not drawn.size:
        return None
    best = drawn.argmax(axis=0)
    return max(0.0, float((drawn.max(axis=0) - values[best]).mean()))


def _selection_caveat(models: Sequence[ModelScores], optimism: float | None) -> Caveat:
    amount = "" if optimism is None else f", by about {max(optimism, 0.001):.3f} here"
    if optimism is not None and optimism < 0.001:
        amount = ", by less than 0.001 here"
    return Caveat(
        "selected_best",
        None,
        f"The first of {len(models)} models was picked on these same images, so its AUROC is optimistic"
        f"{amount}, and so is its lead: of equal models the luckier one comes first. Confirm it on other "
        "images.",
    )


def _own_macros(tables: Tables, averaged: Averaged, counts: Counts) -> tuple[OwnMacros, list[Caveat]]:
    """Return the macro means of a person's metrics by the name of the model, and what was left out of them.

    What needs decisions is compared where every table has them, and over the images and labels that all of
    them decide.
    """
    result: dict[Metric, dict[str, Macro]] = {}
    flags: list[Caveat] = []
    decisions = _common_decisions(tables)
    left_out = [metric.title for metric in METRICS.added if metric.needs == "decisions"]
    if left_out and decisions is None:
        reason = _undecided(tables)
        message = f"Models are compared by probabilities only, as {reason}: {', '.join(left_out)} left out."
        flags.append(Caveat("decisions_left_out", None, message))
    for metric in METRICS.added:
        if metric.needs == "scores" or decisions is not None:
            result[metric], undefined = _common_macros(metric, tables, decisions or {}, averaged, counts)
            if undefined:
                message = (
                    f"{metric.title} is compared over the labels for which every model has it: "
                    f"{', '.join(undefined)} left out."
                )
                flags.append(Caveat("metric_labels_left_out", None, message))
    return result, flags


def _undecided(tables: Tables) -> str:
    """Return why models cannot be compared by what they predict at their thresholds."""
    without = sum(table.decisions is None for table in tables.values())
    if without:
        return f"{without} of {len(tables)} tables have no columns prediction/<label>"
    return "no label has a threshold in every model"


def _common_decisions(tables: Tables) -> dict[str, Floats] | None:
    """Return the decisions by the name of the model, NaN for images that not all of them decide.

    A label that a model leaves undecided as a whole is left as it is. None where a table has no decisions, or
    no label is decided by all models.
    """
    own = {name: table.decisions for name, table in tables.items() if table.decisions is not None}
    if len(own) < len(tables):
        return None
    is_decided = np.all([~np.isnan(decisions) for decisions in own.values()], axis=0)
    if not is_decided.any():
        return None
    kept = is_decided | ~is_decided.any(axis=0)
    return {name: np.where(kept, decisions, np.nan) for name, decisions in own.items()}


def _common_macros(
    metric: Metric,
    tables: Tables,
    decisions: Mapping[str, Floats],
    averaged: Averaged,
    counts: Counts,
) -> tuple[dict[str, Macro], list[str]]:
    """Return the macro mean of a person's metric with its resamples, over what all models define.

    Args:
        metric: A person's.
        tables: By the name of their model.
        decisions: By the name of their model, each of shape ``(N, L)``; none where it needs scores.
        averaged: Labels that macro means are of, shape ``(L,)``.
        counts: How often each patient stands in each resample.

    Returns:
        By the name of the model; and the labels that only some of the models define.
    """
    by_model = [plain_bootstrap(metric, table, decisions.get(name), counts) for name, table in tables.items()]
    is_nan = np.isnan([of_model.values for of_model in by_model])
    undefined = is_nan.any(axis=0)
    undefined_samples = np.isnan([of_model.samples for of_model in by_model]).any(axis=0)
    macros = {
        name: macro_mean(
            np.where(undefined, np.nan, of_model.values),
            np.where(undefined_samples, np.nan, of_model.samples),
            averaged,
        )
        for name, of_model in zip(tables, by_model, strict=True)
    }
    labels = next(iter(tables.values())).labels
    only_some = averaged & undefined & ~is_nan.all(axis=0)
    return macros, [labels[column] for column in np.flatnonzero(only_some)]


def _leaderboard(
    tables: Tables,
    own: OwnMacros,
    averaged: Averaged,
    decisions: Mapping[str, Floats],
    counts: Counts,
    level: float,
) -> tuple[list[ModelScores], dict[str, Macro], dict[str, Mapping[str, Resampled]]]:
    """Return the models, best first; the macro AUROC of each with its resamples; and its further metrics.

    Args:
        tables: By the name of their model.
        own: Macro means of a person's metrics, with their resamples, by the name of the model.
        averaged: Labels that macro means are of, shape ``(L,)``.
        decisions: Those that all have in common, by the name of the model; empty for none.
        counts: How often each patient stands in each resample.
        level: Coverage.
    """
    models: list[ModelScores] = []
    aurocs: dict[str, Macro] = {}
    further: dict[str, Mapping[str, Resampled]] = {}
    for name, table in tables.items():
        ranking = label_rankings(table, counts)
        further[name] = further_metrics(table, decisions.get(name), ranking, counts, averaged)
        values, samples = ranking.auroc, ranking.auroc_samples
        pooled, labels = None, dict(zip(table.labels, label_areas(table, level), strict=True))
        if table.folds is not None:
            pooled = estimate(*macro_mean(values, samples, averaged), level)
            within = within_folds(table, counts)
            values, samples = within.values, within.samples
            labels, _ = within.estimates(table.labels, level, averaged)
        aurocs[name] = macro_mean(values, samples, averaged)
        precision = macro_mean(ranking.average_precision, ranking.average_precision_samples, averaged)
        alone = table.labels[int(averaged.argmax())] if averaged.sum() == 1 else None
        models.append(
            ModelScores(
                name=name,
                macro_auroc=estimate(*aurocs[name], level) if alone is None else labels[alone],
                macro_average_precision=estimate(*precision, level),
                labels=labels,
                metrics={metric.name: estimate(*macros[name], level) for metric, macros in own.items()},
                pooled_macro_auroc=pooled,
            )
        )
    models.sort(key=lambda model: np.nan_to_num(aurocs[model.name][0]), reverse=True)
    return models, aurocs, further


def _pairs(
    tables: Tables,
    aurocs: Mapping[str, Macro],
    further: Mapping[str, Mapping[str, Resampled]],
    own: OwnMacros,
    margin: float | None,
    level: float,
) -> tuple[list[ModelPair], dict[str, str]]:
    """Return the paired tests of the macro means, and of the labels within each pair, best models first.

    Args:
        tables: By the name of their model, best first.
        aurocs: Macro means of AUROC by the name of the model.
        further: The metrics that are tested besides AUROC, by the name of the model.
        own: Macro means of a person's metrics by the name of the model.
        margin: Of non-inferiority, or None.
        level: Coverage.

    Returns:
        The pairs; and which tests are corrected together, in words.
    """
    pairs = list(combinations(tables, 2))
    labels = next(iter(tables.values())).labels
    # Every mean is over the labels that have both classes; the one with the fewest patients decides.
    precision = next(iter(further.values()))["average_precision"]
    fewest = int(precision.macro().patients[0])
    differences = bootstrapped_differences(pairs, aurocs, level, patients=fewest)
    metrics = {
        metric.name: bootstrapped_differences(
            pairs, means, level, patients=fewest, higher_is_better=metric.higher_is_better
        )
        for metric, means in own.items()
    }
    shown = len(pairs) if len(tables) <= MOST_IN_ALL_PAIRS else len(tables) - 1
    areas = _areas(tables)
    by_label = _label_differences(pairs[:shown], areas, list(tables), labels, level)
    tests, (num_means, num_label_tests) = further_tests(pairs, shown, further, labels, level)
    margins, label_margins = _non_inferiority(
        pairs, by_label, aurocs, areas, list(tables), fewest, margin, level
    )
    corrections = _corrections(
        len(pairs), by_label[0], num_means, num_label_tests, has_margin=margin is not None
    )
    return [
        ModelPair(
            **vars(differences[row]),
            models=pair,
            labels=of_labels,
            metrics={name: of_pairs[row] for name, of_pairs in metrics.items()},
            further=tests[row],
            non_inferiority=margins[row] if margins else (),
            label_non_inferiority=label_margins[row] if label_margins else {},
        )
        for row, (pair, of_labels) in enumerate(zip(pairs, by_label, strict=False))
    ], corrections


def _corrections(
    num_pairs: int,
    labels: Mapping[str, Difference],
    num_means: int,
    num_label_tests: int,
    *,
    has_margin: bool,
) -> dict[str, str]:
    """Return which tests Holm's correction takes together, in words."""
    num_labels = sum(difference.p is not None for difference in labels.values())
    result = {
        "auroc": f"means: the {num_pairs} pairs; labels: the {num_labels} of a pair",
        "further": f"means: the {num_means} tests of all metrics and pairs; labels: the {num_label_tests} "
        "tests of all metrics and labels of a pair",
    }
    if has_margin:
        result["non_inferiority"] = (
            f"means: both directions of the {num_pairs} pairs; labels: both directions of the {num_labels} "
            "labels of a pair"
        )
    return result


def _non_inferiority(
    pairs: Sequence[Pair],
    by_label: Sequence[Mapping[str, Difference]],
    aurocs: Mapping[str, Macro],
    areas: Areas,
    names: Sequence[str],
    patients: int,
    margin: float | None,
    level: float,
) -> tuple[Sequence[Sequence[NonInferiority]], Sequence[Mapping[str, Sequence[NonInferiority]]]]:
    """Return the tests against a margin of each pair, and of each label of a pair; nothing without one."""
    if margin is None:
        return (), ()
    tests = [
        bootstrap_margin_test(
            aurocs[first][0] - aurocs[second][0],
            aurocs[first][1] - aurocs[second][1],
            margin,
            patients,
            level,
        )
        for first, second in pairs
    ]
    label_tests = []
    for pair, labels in zip(pairs, by_label, strict=False):
        rows = (names.index(pair[0]), names.index(pair[1]))
        of_labels = [area_margin_test(*area, rows, margin, level) for area in areas]
        shown = not_inferior([pair] * len(labels), of_labels, margin, level)
        label_tests.append(dict(zip(labels, shown, strict=True)))
    return not_inferior(pairs, tests, margin, level), label_tests


def _areas(tables: Tables) -> Areas:
    """Return the AUROC of each label by all models with their covariance, clustered by patient."""
    table = next(iter(tables.values()))
    patients = table.patients if table.patients_known else None
    areas = []
    for column in range(len(table.labels)):
        scores = np.stack([other.probabilities[:, column] for other in tables.values()])
        targets = table.targets[:, column]
        areas.append(
            delong(scores, targets, patients)
            if table.folds is None
            else delong_within_folds(scores, targets, table)
        )
    return areas


def _label_differences(
    pairs: Sequence[Pair], areas: Areas, names: Sequence[str], labels: Sequence[str], level: float
) -> list[dict[str, Difference]]:
    """Return DeLong's paired test of each label for each pair, corrected for the labels of the pair.

    Args:
        pairs: Of models.
        areas: Of each label.
        names: Of the models, in the order of the areas.
        labels: L names.
        level: Coverage.
    """
    result = []
    for pair in pairs:
        first, second = names.index(pair[0]), names.index(pair[1])
        tests = [area_difference(*area, first, second, level) for area in areas]
        corrected = holm([test.p for test in tests])
        result.append(
            {
                label: difference_of(pair, test.difference, test.p, p_holm, level)
                for label, test, p_holm in zip(labels, tests, corrected, strict=True)
            }
        )
    return result


def _caveats(
    tables: Tables, alignment: Alignment, own_caveats: Sequence[Caveat], settings: EvaluationSettings
) -> list[Caveat]:
    """Return what weakens the comparison; ``own_caveats`` are those of a person's metrics."""
    table = next(iter(alignment.tables.values()))
    result = [caveat for caveat in caveats(table, None, settings) if caveat.kind != "no_threshold"]
    parts = {name: other.part or "unknown" for name, other in tables.items()}
    if len(set(parts.values())) > 1:
        message = f"The tables are of different parts, {parts}: a model chosen on these images is flattered."
        result.append(Caveat("parts_differ", None, message))
    if alignment.num_images_left_out:
        message = f"{alignment.num_images_left_out} images are not in every table; {len(table)} are compared."
        result.append(Caveat("images_left_out", None, message))
    result += own_caveats
    if alignment.labels_left_out:
        message = f"Labels that not every model has are left out: {', '.join(alignment.labels_left_out)}."
        result.append(Caveat("labels_left_out", None, message))
    if len(tables) > MOST_IN_ALL_PAIRS:
        message = (
            f"Of {len(tables)} models only the pairs with the best one are shown; the correction counts all "
            f"{len(tables) * (len(tables) - 1) // 2} pairs."
        )
        result.append(Caveat("pairs_left_out", None, message))
    return result


def run_dirs(runs: Sequence[Path]) -> list[Path]:
    """Return the run directories: those given, and in place of a sweep's directory those of its jobs.

    Raises:
        MissingFileError: If a folder does not exist or is no run, or a sweep has no finished job.
        ConfigError: If one stands twice, or the record of a sweep's job cannot be read.
    """
    found = [job for run in runs for job in (_finished_jobs(run) if _is_sweep(run) else [run])]
    for run in found:
        if not list((run / "predictions").glob("*.csv")):
            raise MissingFileError(f"runs={run} holds no predictions: it is no directory of a finished run.")
    if len({run.resolve() for run in found}) < len(found):
        raise ConfigError(f"runs={[str(run) for run in runs]} names one run twice.")
    return found


def _is_sweep(path: Path) -> bool:
    return (path / "sweep.csv").is_file()


def _finished_jobs(sweep_dir: Path) -> list[Path]:
    """Return the folders of a sweep's jobs that have predictions, in the order of the jobs."""
    folders = sweep_folders(sweep_dir)
    finished = [folder for folder in folders if list((folder / "predictions").glob("*.csv"))]
    if not finished:
        raise MissingFileError(
            f"None of the {len(folders)} jobs of the sweep {sweep_dir} has predictions: did any finish?"
        )
    if len(finished) < len(folders):
        log.warning(
            "%d of %d jobs of %s have no predictions: left out.",
            len(folders) - len(finished), len(folders), sweep_dir,
        )  # fmt: skip
    return finished


def run_tables(runs: Sequence[Path], part: str | None) -> dict[str, PredictionTable]:
    """Return the predictions of runs by name, all of the same part.

    Args:
        runs: Their directories.
        part: ``val`` or ``test``; None for test, or val where one of them has not read the test part.

    Raises:
        MissingFileError: If one lacks the predictions of the part.
    """
    without = [run for run in runs if not (run / "predictions" / "test.csv").is_file()]
    if part is None:
        part = "val" if without else "test"
        if without:
            log.warning(
                "%s has no predictions of the test part, so the validation parts are compared: optimistic, "
                "the epochs were chosen on them.",
                without[0],
            )
    names = _names(runs)
    return {names[run]: read_own_predictions(RunDir(run), part) for run in runs}


def external_tables(
    predictions: Sequence[Path], targets: Path, groups: Sequence[Sequence[str]]
) -> dict[str, PredictionTable]:
    """Return the predictions of other programs by the name of their file.

    Raises:
        UserError: If a file cannot be used; see :func:`cxrlab.evaluation.external_predictions.read_external`.
    """
    stems = [path.stem for path in predictions]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in predictions]
    if len(set(names)) < len(names):
        raise ConfigError(f"predictions={names} names one file twice.")
    return {name: read_external(path, targets, groups) for name, path in zip(names, predictions, strict=True)}


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """Name runs by their folder, and by the overrides in which they differ and which it does not name."""
    overrides = {run: _overrides(run) for run in runs}
    shared = set.intersection(*map(set, overrides.values()))
    folders = [run.name for run in runs]
    if len(set(folders)) < len(runs):
        above = os.path.commonpath([run.absolute() for run in runs])
        folders = [os.path.relpath(run, above) for run in runs]
    return {
        run: " ".join(
            [folder, *(text for text in overrides[run] if not (text in shared or _holds(folder, text)))]
        )
        for run, folder in zip(runs, folders, strict=True)
    }


def _holds(folder: str, override: str) -> bool:
    """Tell whether the name of a folder has an override in it, as Hydra's ``override_dirname`` makes it."""
    return re.search(rf"(?<![\w.+~]){re.escape(override.lstrip('+~'))}(?![\w.])", folder) is not None


def _overrides(run: Path) -> list[str]:
    path = run / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return []
    with reading(path, "Bring it back from a copy, or remove it: the run is then called by its folder."):
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [str(override) for override in loaded] if isinstance(loaded, list) else []
