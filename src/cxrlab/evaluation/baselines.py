"""What can be predicted without looking at the lungs: simple models, set beside the one that is evaluated.

A logistic regression each on the covariates, on statistics of the grey values, on the margin around the
lungs, on simple features of the whole image, and on these with shuffled labels. Each is fitted on the
training part and its penalty chosen on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from cxrlab.evaluation.covariate_features import CovariateFeatures
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, known_mean, macro_mean
from cxrlab.metrics.logistic import Features, fit_logistic
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings
from cxrlab.metrics.settings import EvaluationSettings

BaselineName = Literal["covariates", "grey", "margin", "features", "shuffled"]

SEES = {
    "covariates": "covariates alone, without the image",
    "grey": "the distribution of grey values alone",
    "margin": "the margin outside the lungs' region",
    "features": "simple features of the whole image",
    "shuffled": "the same features, training labels shuffled",
}
"""What each baseline is given, in words; the first three see no anatomy."""

SEE_NO_ANATOMY: tuple[BaselineName, ...] = ("covariates", "grey", "margin")

PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)

_KINDS = {
    "covariates": "A baseline that sees no lung",
    "grey": "A baseline that sees no anatomy",  # the grey values of a whole image are also those of its lungs
    "margin": "A baseline that sees no lung",
}
_NO_LUNG = "The labels can be told without any lung: what the model learnt may be no more than that."
_ENDINGS = {
    "covariates": _NO_LUNG,
    "grey": (
        "The labels can be told without looking at where anything is: what the model learnt may be no more "
        "than that."
    ),
    "margin": _NO_LUNG,
}
_NUM_SHUFFLES = 3
_NEAR_SHARE = 0.9
"""A baseline with this share of the model's AUROC above 0.5 is within its reach, whatever is shown."""

_NO_LABEL = "no label has enough positives and negatives in {} and among the images evaluated"


@dataclass(frozen=True)
class Fitted:
    """On what baselines were fitted.

    Attributes:
        part: ``training``, or ``validation`` where there are no images of the training.
        images: How many.
        patients: How many; None where they are unknown.
        available: Images of that part; more than ``images`` where some patients were drawn at random.
    """

    part: Literal["training", "validation"]
    images: int
    patients: int | None
    available: int


@dataclass(frozen=True)
class Baseline:
    """What a baseline predicts of the images that are evaluated.

    Attributes:
        scores: Higher means positive; S fits of the same, whose AUROC are averaged, shape ``(S, N, L)``.
            NaN for a label that could not be fitted.
        penalty: Chosen; see :func:`cxrlab.metrics.logistic.fit_logistic`.
        fitted: On which images.
        inputs: Names of the covariates; empty for features of images.
    """

    scores: Features
    penalty: float
    fitted: Fitted
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baselines:
    """Baselines before they are evaluated.

    Attributes:
        models: By name.
        left_out: Why others are not there, by name.
        regions_found: Share of the evaluated images in which lungs were found; None where nobody looked.
        seconds: They took.
    """

    models: Mapping[BaselineName, Baseline] = field(default_factory=dict)
    left_out: Mapping[BaselineName, str] = field(default_factory=dict)
    regions_found: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class BaselineValue:
    """A baseline beside the model, on the same images.

    Attributes:
        auroc: Of the baseline.
        model: Of the model; for the mean, of the same labels.
        difference: The model's minus the baseline's, on paired resamples.
    """

    auroc: Estimate
    model: Estimate
    difference: Estimate


@dataclass(frozen=True)
class BaselineRow:
    """An evaluated baseline.

    Attributes:
        name: One of :data:`SEES`.
        inputs: Names of the covariates; empty for features of images.
        penalty: Chosen on validation.
        fitted: On which images.
        labels: By label; those with too few positives, or negatives, are not there.
        macro: Mean over these labels.
        within_reach: Whether the baseline is above chance, and as good as the model for all that is shown, or
            has 0.9 of its AUROC above 0.5.
    """

    name: BaselineName
    inputs: Sequence[str]
    penalty: float
    fitted: Fitted
    labels: Mapping[str, BaselineValue]
    macro: BaselineValue
    within_reach: bool


@dataclass(frozen=True)
class BaselineResult:
    """Evaluated baselines.

    Attributes:
        rows: Those that see no anatomy first.
        left_out: Why others are not there, by name.
        regions_found: Share of the evaluated images in which lungs were found; None where nobody looked.
        seconds: They took, features of images included.
    """

    rows: Sequence[BaselineRow]
    left_out: Mapping[BaselineName, str]
    regions_found: float | None
    seconds: float

    @property
    def best_without_anatomy(self) -> BaselineRow | None:
        """The one of those that see no anatomy with the highest AUROC; None without any."""
        return _best([row for row in self.rows if row.name in SEE_NO_ANATOMY])

    @property
    def within_reach(self) -> list[BaselineRow]:
        """The best of those within the model's reach that see no anatomy, and the features where they are."""
        near = [row for row in self.rows if row.within_reach]
        best = _best([row for row in near if row.name in SEE_NO_ANATOMY])
        return [row for row in near if row is best or row.name == "features"]


def _best(rows: Sequence[BaselineRow]) -> BaselineRow | None:
    return max(rows, key=lambda row: row.macro.auroc.value or 0.0, default=None)


@dataclass(frozen=True)
class Part:
    """Images that a baseline is fitted on, chosen on, or predicts.

    Attributes:
        features: By name of the baseline, each of shape ``(N, F)``.
        covariates: N rows.
        targets: Shape ``(N, L)``, NaN unknown.
        owners: Number of each image's patient, shape ``(N,)``; None where they are unknown.
        available: Images there are, should these be a sample.
    """

    features: Mapping[BaselineName, Features]
    covariates: pd.DataFrame
    targets: Floats
    owners: npt.NDArray[np.int64] | None
    available: int


def fit_baselines(
    training: Part,
    validation: Part | None,
    evaluated: Part,
    *,
    least: int,
    seed: int,
    part: Literal["training", "validation"] = "training",
) -> dict[BaselineName, Baseline]:
    """Fit every baseline that there are features or covariates for, and predict the evaluated images.

    Args:
        training: What they are fitted on.
        validation: What the penalty is chosen on; None for halves of ``training``.
        evaluated: What they predict; its targets are not looked at.
        least: Labels with fewer positives or negatives in training are not fitted.
        seed: Of the shuffling and the halves.
        part: What ``training`` is called.
    """
    columns = _fittable(training.targets, least)
    if not len(columns):
        return {}
    num_patients = None if training.owners is None else len(np.unique(training.owners))
    fitted = Fitted(part, len(training.targets), num_patients, training.available)
    generator = np.random.default_rng(seed)
    models: dict[BaselineName, Baseline] = {}
    shared = [str(name) for name in training.covariates if str(name) in evaluated.covariates]
    if validation is not None:
        shared = [name for name in shared if name in validation.covariates]
    encoded = CovariateFeatures.of(training.covariates[shared], training.targets[:, columns])
    parts = [training, validation, evaluated]
    inputs: dict[BaselineName, list[Features | None]] = {}
    if encoded.names:
        inputs["covariates"] = [None if one is None else encoded.features(one.covariates) for one in parts]
    for name in training.features:
        inputs[name] = [None if one is None else one.features[name] for one in parts]
    for name, (train, val, test) in inputs.items():
        if train is None or test is None:
            continue
        scores, penalty = _fit(train, training, val, validation, test, columns, generator)
        used = encoded.names if name == "covariates" else ()
        models[name] = Baseline(_wide(scores, training, columns), penalty, fitted, used)
    if "features" in models:
        train, _, test = inputs["features"]
        if train is not None and test is not None:
            models["shuffled"] = _shuffled(
                train, training, test, columns, models["features"], generator=generator
            )
    return models


def _fittable(targets: Floats, least: int) -> npt.NDArray[np.intp]:
    positives, negatives = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    return np.flatnonzero(np.minimum(positives, negatives) >= max(least, 1))


def _fit(
    train: Features,
    training: Part,
    val: Features | None,
    validation: Part | None,
    test: Features,
    columns: npt.NDArray[np.intp],
    generator: np.random.Generator,
) -> tuple[Features, float]:
    """Return the scores of the evaluated images, ``(1, N, L)``, and the penalty."""
    targets = training.targets[:, columns]
    models = fit_logistic(train, targets, PENALTIES)
    if val is not None and validation is not None:
        aurocs = _mean_aurocs(models.scores(val), validation.targets[:, columns])
    else:
        aurocs = _halved(train, targets, training.owners, generator)
    chosen = int(np.argmax(aurocs))  # of equals the strongest
    return models.select(chosen).scores(test), PENALTIES[chosen]


def _halved(
    train: Features,
    targets: Floats,
    owners: npt.NDArray[np.int64] | None,
    generator: np.random.Generator,
) -> Floats:
    """Return the mean AUROC of each penalty where half of the patients is predicted from the other."""
    _, numbers = np.unique(np.arange(len(targets)) if owners is None else owners, return_inverse=True)
    num_patients = int(numbers.max()) + 1
    is_first = (generator.permutation(num_patients) < num_patients // 2)[numbers]
    aurocs = []
    for half in (is_first, ~is_first):
        columns = _fittable(targets[half], 1)
        if not len(columns):
            continue
        models = fit_logistic(train[half], targets[half][:, columns], PENALTIES)
        aurocs.append(_mean_aurocs(models.scores(train[~half]), targets[~half][:, columns]))
    return known_mean(np.array(aurocs)) if aurocs else np.zeros(len(PENALTIES))


def _mean_aurocs(scores: Features, targets: Floats) -> Floats:
    """Return the mean AUROC over labels for each of ``(K, N, L)`` scores; 0.5 where none is defined."""
    aurocs = np.full(scores.shape[::2], np.nan)
    for label, truth in enumerate(targets.T):
        known, positives = ~np.isnan(truth), int((truth == 1).sum())
        negatives = int(known.sum()) - positives
        if positives and negatives:
            ranks = rankdata(scores[:, known, label], axis=1)
            of_positives = ranks[:, truth[known] == 1].sum(axis=1) - positives * (positives + 1) / 2
            aurocs[:, label] = of_positives / (positives * negatives)
    return np.nan_to_num(known_mean(aurocs.T), nan=0.5).round(6)


def _shuffled(
    train: Features,
    training: Part,
    test: Features,
    columns: npt.NDArray[np.intp],
    model: Baseline,
    *,
    generator: np.random.Generator,
) -> Baseline:
    """Return what the same features give where the labels of the training images change places."""
    targets = training.targets[:, columns]
    shuffled = [targets[generator.permutation(len(targets))] for _ in range(_NUM_SHUFFLES)]
    scores = fit_logistic(train, np.concatenate(shuffled, axis=1), [model.penalty]).scores(test)[0]
    by_shuffle = np.stack(np.split(scores, _NUM_SHUFFLES, axis=1))
    return replace(model, scores=_wide(by_shuffle, training, columns))


def _wide(scores: Features, training: Part, columns: npt.NDArray[np.intp]) -> Features:
    """Return scores with a column for every label, NaN for those that were not fitted."""
    wide = np.full((*scores.shape[:2], training.targets.shape[1]), np.nan, dtype=np.float32)
    wide[:, :, columns] = scores
    return wide


def evaluate_baselines(
    table: PredictionTable, baselines: Baselines, counts: Counts, settings: EvaluationSettings
) -> BaselineResult:
    """Return the AUROC of each baseline and its difference to the model's, on the same resamples.

    Args:
        table: What is evaluated, N images, L labels.
        baselines: What they predict of the same images.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: ``min_positives``: labels with fewer positives, or negatives, are left out.
    """
    enough = np.zeros(len(table.labels), dtype=bool)
    enough[_fittable(table.targets, settings.min_positives)] = True
    left_out = dict(baselines.left_out)
    fitted = {
        name: enough & ~np.isnan(baseline.scores[0]).any(axis=0)
        for name, baseline in baselines.models.items()
    }
    for name in [name for name, columns in fitted.items() if not columns.any()]:
        left_out[name] = _NO_LABEL.format(baselines.models[name].fitted.part)
        del fitted[name]
    rows: list[BaselineRow] = []
    names: tuple[BaselineName, ...] = get_args(BaselineName)
    if fitted:
        model = _aurocs(table.select_labels(_names(table, enough)), counts)
        of_model = {
            name: (model[0][number], model[1][number]) for number, name in enumerate(_names(table, enough))
        }
        for name in names:
            if name in fitted:
                chosen = _names(table, fitted[name])
                rows.append(_row(name, baselines.models[name], table, chosen, of_model, counts, settings))
    return BaselineResult(rows, left_out, baselines.regions_found, baselines.seconds)


def _names(table: PredictionTable, columns: npt.NDArray[np.bool_]) -> list[str]:
    return [table.labels[column] for column in np.flatnonzero(columns)]


def _aurocs(table: PredictionTable, counts: Counts) -> tuple[Floats, Floats]:
    ranked = label_rankings(table, counts)
    return ranked.auroc, ranked.auroc_samples


def _row(
    name: BaselineName,
    baseline: Baseline,
    table: PredictionTable,
    labels: Sequence[str],
    of_model: Mapping[str, tuple[np.float64, Floats]],
    counts: Counts,
    settings: EvaluationSettings,
) -> BaselineRow:
    columns = [table.labels.index(label) for label in labels]
    chosen = table.select_labels(labels)
    fits = [
        _aurocs(
            replace(chosen, probabilities=rankdata(scores[:, columns], axis=0) / (len(table) + 1)), counts
        )
        for scores in baseline.scores
    ]
    values, samples = (np.mean(parts, axis=0) for parts in zip(*fits, strict=True))
    model_values = np.array([of_model[label][0] for label in labels])
    model_samples = np.stack([of_model[label][1] for label in labels])

    def compared(own: float, drawn: Floats, model: float, model_drawn: Floats) -> BaselineValue:
        return BaselineValue(
            estimate(own, drawn, settings.level),
            estimate(model, model_drawn, settings.level),
            estimate(model - own, model_drawn - drawn, settings.level),
        )

    macro = compared(*macro_mean(values, samples), *macro_mean(model_values, model_samples))
    by_label = {
        label: compared(float(values[row]), samples[row], float(model_values[row]), model_samples[row])
        for row, label in enumerate(labels)
    }
    near = name != "shuffled" and _is_near(macro)
    return BaselineRow(name, list(baseline.inputs), baseline.penalty, baseline.fitted, by_label, macro, near)


def _is_near(value: BaselineValue) -> bool:
    own, model, least = value.auroc, value.model.value, value.difference.low
    if own.value is None or own.low is None or model is None or own.low <= 0.5:
        return False  # no better than chance
    return (least is not None and least <= 0) or own.value - 0.5 >= _NEAR_SHARE * (model - 0.5)


def baseline_caveat(result: BaselineResult | None) -> list[str]:
    """Return what to beware of where baselines are within the model's reach; nothing where none is."""
    near = [] if result is None else result.within_reach
    if not near:
        return []
    as_a_whole = (
        "How an image looks as a whole nearly tells the labels: what the model learnt may be no more."
    )
    ending = _ENDINGS.get(near[0].name, as_a_whole)
    return [" ".join([*map(compared, near), ending])]


def compared(row: BaselineRow) -> str:
    """Return a baseline beside the model in a sentence.

    Example:
        >>> value = BaselineValue(Estimate(0.986), Estimate(0.997), Estimate(0.011, 0.004, 0.018))
        >>> compared(BaselineRow("margin", [], 0.1, Fitted("training", 9, 9, 9), {}, value, True))
        "A baseline that sees no lung (the margin outside the lungs' region) reaches an AUROC of 0.986; the \
model 0.997: difference 0.011 (0.004 to 0.018)."
    """
    kind = _KINDS.get(row.name, "A baseline")
    value, seen = row.macro, SEES[row.name]
    if row.inputs:
        seen = f"{', '.join(row.inputs)} alone, without the image"
    difference = _number(value.difference.value)
    if value.difference.low is not None:
        difference += f" ({_number(value.difference.low)} to {_number(value.difference.high)})"
    return (
        f"{kind} ({seen}) reaches an AUROC of {_number(value.auroc.value)}; the model "
        f"{_number(value.model.value)}: difference {difference}."
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "\u2212")
