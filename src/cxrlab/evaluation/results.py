"""What an evaluation and a comparison found: the content of ``evaluation.json`` and ``comparison.json``.

Every class is frozen, and the JSON is its ``asdict``: the attributes are the keys.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from cxrlab.errors import OutputError
from cxrlab.evaluation.baselines import BaselineResult
from cxrlab.evaluation.cohort import Cohort
from cxrlab.evaluation.contamination import Contamination
from cxrlab.evaluation.decision_curve import Decisions
from cxrlab.evaluation.external_comparison import ExternalComparison
from cxrlab.evaluation.failures import FailureAnalysis
from cxrlab.evaluation.interventions import InterventionResult
from cxrlab.evaluation.operating_points import OperatingPoints
from cxrlab.evaluation.out_of_fold import WITHIN_FOLDS, OutOfFold
from cxrlab.evaluation.readers import ReaderStudy
from cxrlab.evaluation.referral import Referral
from cxrlab.evaluation.stratified import StratifiedAuroc
from cxrlab.files import RunDir, write_json, write_text
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.calibration import CalibrationResult
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

FORMAT = 1

Estimates = Mapping[str, Estimate]
"""By the name of the metric."""

Outcome = Literal["better", "worse", "unclear", "not_compared"]
"""Of the first against the second; "unclear" where no difference is shown."""


@dataclass(frozen=True)
class EvaluatedData:
    """Which images were evaluated.

    Attributes:
        name: Of the data set; "" where it has none.
        part: ``train``, ``val``, ``test`` or "" for a table of its own.
        images: How many.
        patients: How many; None where they are unknown.
        fingerprint: Of the data set's manifest, or None.
        split: How the data set was split, or None.
        source: File or run of the predictions, without the folders above it.
        is_named: Whether a person gave the name, which may then stand where names of folders may not.
    """

    name: str
    part: str
    images: int
    patients: int | None
    fingerprint: str | None
    split: str | None
    source: str
    is_named: bool = False

    @classmethod
    def of(cls, table: PredictionTable, facts: DataFacts, source: str) -> "EvaluatedData":
        """Describe the images of a table."""
        patients = table.num_patients if table.patients_known else None
        return cls(
            facts.name,
            table.part,
            len(table),
            patients,
            facts.fingerprint,
            facts.split,
            _without_folders(source),
            facts.is_named,
        )


def _without_folders(source: str) -> str:
    """Return where predictions come from, with the last two parts of each path: results are passed on.

    Example:
        >>> _without_folders("/scratch/outputs/12-00-00/predictions/test.csv, /scratch/theirs.csv")
        'predictions/test.csv, scratch/theirs.csv'
        >>> _without_folders("nih predicted by /scratch/outputs/2026-01-31/12-00-00")
        'nih predicted by 2026-01-31/12-00-00'
    """
    words = re.split(r"(, | predicted by | of )", source)
    paths = (Path(word) for word in words)
    return "".join(
        "/".join(path.parts[-2:]).lstrip("/") if path.is_absolute() else word
        for word, path in zip(words, paths, strict=True)
    )


@dataclass(frozen=True)
class IntervalMethod:
    """How the intervals were made.

    Attributes:
        level: Coverage, such as 0.95.
        unit: What was resampled.
        resamples: How many.
        seed: Start of the random numbers.
        method: In words, of what ``others`` does not name.
        others: How the intervals of other metrics were made, in words, by their names.
    """

    level: float
    unit: Literal["patient", "image"]
    resamples: int
    seed: int
    method: str = "percentile bootstrap"
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, table: PredictionTable, settings: EvaluationSettings, others: Mapping[str, str] | None = None
    ) -> "IntervalMethod":
        """Tell how the intervals of a table are made."""
        unit: Literal["patient", "image"] = "patient" if table.patients_known else "image"
        return cls(settings.level, unit, settings.num_resamples, settings.seed, others=others or {})


_SCORE = "score interval by DeLong's variance, clustered by patient, and that of two normal distributions"
_WILSON = "Wilson, of the effective number of images that the resamples show"
_FROM_RATES = "from the intervals of sensitivity and specificity"

OF_EVALUATION = {
    "auroc": f"{_SCORE}; macro means: percentile bootstrap",
    "auroc_delong_clustered": "Wald, by DeLong's variance, clustered by patient",
    **{
        name: f"{_WILSON}; macro means: percentile bootstrap"
        for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv", "precision", "recall")
    },
    **{
        name: f"{_FROM_RATES}; macro means: percentile bootstrap"
        for name in ("ppv_at_prevalence", "npv_at_prevalence")
    },
    "f1": "percentile bootstrap; of 0 or 1: from Wilson's interval",
    "ece": "by how far the bins move among the resamples",
    "balanced_accuracy": f"percentile bootstrap; of 0 or 1: {_FROM_RATES}",
}
"""How the intervals of an evaluation are made that are no percentiles of the bootstrap."""

OF_COMPARISON = {
    "labels": _SCORE,
    "difference of a label": "Wald, by DeLong's paired variance, clustered by patient",
}
"""The same of a comparison."""


@dataclass(frozen=True)
class LabelCounts:
    """How many images a label has.

    Attributes:
        images: Those whose target is known.
        positives: With the finding.
        negatives: Without it.
        positive_patients: Patients with such images; None where patients are unknown.
        tp: True positives at the label's threshold; these four are None where it has none.
        fp: False positives.
        tn: True negatives.
        fn: False negatives.
        negative_patients: Patients with images without the finding; None where patients are unknown.
    """

    images: int
    positives: int
    negatives: int
    positive_patients: int | None
    tp: int | None
    fp: int | None
    tn: int | None
    fn: int | None
    negative_patients: int | None = None


@dataclass(frozen=True)
class LabelThreshold:
    """From which probability on a label is predicted positive.

    Attributes:
        value: None where none could be chosen.
        rule: By which it was, such as ``youden``.
        source: On what, such as ``validation``; or ``given``.
        low: From here on thresholds lose less than a point of balanced accuracy against the chosen one, on
            the images that it was chosen on, see :func:`~cxrlab.metrics.margin.threshold_margin`; this and
            all that follows is None where it was given, or these images are not at hand.
        high: Up to here.
        positives: Images with the finding that it was chosen on.
        negatives: Images without it.
        positive_patients: Patients with such images; None where patients are unknown.
        negative_patients: The same of images without it.
    """

    value: float | None
    rule: str
    source: str
    low: float | None = None
    high: float | None = None
    positives: int | None = None
    negatives: int | None = None
    positive_patients: int | None = None
    negative_patients: int | None = None


@dataclass(frozen=True)
class Caveat:
    """What a reader must know before believing a number.

    Attributes:
        kind: A word to tell it by.
        label: Whose numbers it is about; None for all.
        message: A sentence for people.
    """

    kind: str
    label: str | None
    message: str


@dataclass(frozen=True)
class ClassRow:
    """A class of the classification report.

    Attributes:
        class_: Its name; ``class`` in the JSON.
        precision: Share of its members among the images that were given it.
        recall: Share of its members that were given it.
        f1: Harmonic mean of both.
        support: Its images.
    """

    class_: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class ClassificationReport:
    """Precision, recall and F1 of each class, where every image has one class.

    Attributes:
        kind: ``binary`` for one label and its absence, ``exclusive`` for labels that exclude one another.
        classes: One row a class.
        accuracy: Share of the images that were given their class.
        macro: Means over the classes, each counting the same; what is undefined of a class is left out.
        weighted: The same with classes weighted by their images.
        matrix: Images by true class (rows) and given class (columns).
    """

    kind: Literal["binary", "exclusive"]
    classes: Sequence[ClassRow]
    accuracy: Estimate
    macro: ClassRow
    weighted: ClassRow
    matrix: Sequence[Sequence[int]]


@dataclass(frozen=True)
class SubgroupRow:
    """One label in one group of images.

    Attributes:
        covariate: What the groups are by, such as ``view``.
        group: The value that they share.
        label: Or ``macro`` for the mean.
        images: Those whose target is known.
        patients: Of the group; None where they are unknown.
        positives: None for the mean.
        negatives_from: ``all`` for a group without negatives: AUROC is then against those of the whole table.
        num_labels: How many labels a mean is of; 1 for a label.
        auroc: Area under the ROC curve.
        sensitivity: At the label's threshold.
        specificity: At the label's threshold.
        negatives: None for the mean.
        positive_patients: Patients with positives; None for the mean, and where patients are unknown.
        negative_patients: Patients with negatives; None likewise.
        caveat: Why to beware of the row, such as few patients; "" for most.
        mean_of: The labels that a mean is of.
    """

    covariate: str
    group: str
    label: str
    images: int
    patients: int | None
    positives: int | None
    negatives_from: Literal["group", "all"]
    num_labels: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    negatives: int | None = None
    positive_patients: int | None = None
    negative_patients: int | None = None
    caveat: str = ""
    mean_of: Sequence[str] = ()


@dataclass(frozen=True)
class Gap:
    """The largest gap between two groups of a covariate, in one metric of one label.

    Attributes:
        covariate: What the groups are by.
        label: Or ``macro`` for the mean.
        metric: ``auroc``, ``sensitivity`` or ``specificity``.
        groups: The two.
        images: Of each, behind its value: positives of a sensitivity, negatives of a specificity.
        difference: The first group's value minus the second's.
        p: Two-sided; None where nothing could be tested.
        p_holm: The same, corrected for the number of all differences between groups that were tested.
        outcome: Of the first group against the second.
        description: The same in words.
        patients: Behind each value; for AUROC those with positives or with negatives, whichever are fewer.
    """

    covariate: str
    label: str
    metric: str
    groups: tuple[str, str]
    images: tuple[int, int]
    difference: Estimate
    p: float | None
    p_holm: float | None
    outcome: Outcome
    description: str
    patients: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class EqualisedOdds:
    """Whether the groups of a covariate have the same sensitivity and the same false-positive rate.

    Attributes:
        covariate: What the groups are by.
        label: Whose rates are given: the only one, or ``macro`` for the mean.
        sensitivity: The largest gap between two groups; its interval holds together with that of the other.
        sensitivity_groups: The two: the first minus the second.
        false_positive_rate: The largest gap between two groups.
        false_positive_rate_groups: The two.
        is_difference_shown: Whether any gap of the covariate in either is shown after the correction.
        shown: Label and metric of these gaps.
    """

    covariate: str
    label: str
    sensitivity: Estimate
    sensitivity_groups: tuple[str, str]
    false_positive_rate: Estimate
    false_positive_rate_groups: tuple[str, str]
    is_difference_shown: bool
    shown: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class PublishedValue(Estimate):
    """Our AUROC, to be set beside published ones.

    Attributes:
        label: Whose it is; ``macro`` for the mean.
    """

    label: str


@dataclass(frozen=True)
class PublishedRow:
    """What a paper reports.

    Attributes:
        name: Of the method.
        source: The paper.
        split: On which test images.
        values: AUROC by label.
        macro: Mean AUROC; None where ours is of other labels.
    """

    name: str
    source: str
    split: str
    values: Mapping[str, float]
    macro: float | None


@dataclass(frozen=True)
class PublishedTable:
    """Our AUROC beside published ones.

    Attributes:
        ours: By label; last the mean, as ``macro``, where means may be set beside one another.
        rows: The papers'.
        note: What may be set beside what.
    """

    ours: Sequence[PublishedValue]
    rows: Sequence[PublishedRow]
    note: str


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Every number of an evaluation, as in ``evaluation.json``, and the curves, as in ``curves.csv``.

    Attributes:
        format: Of the JSON file.
        data: Which images were evaluated.
        interval: How the intervals were made.
        labels: Of each label its metrics.
        macro: Metrics' means over ``macro_labels``, of those that define them.
        micro: Metrics of all pairs of image and label pooled.
        num_macro_labels: How many labels the means are of.
        counts: By label.
        thresholds: By label; empty where none were chosen.
        prevalence: For which PPV and NPV are given besides the sample's own, or None.
        flags: What weakens the evaluation.
        classification_report: None where images can have several labels or none.
        calibration: Whether probabilities mean what they say.
        subgroups: Metrics by groups of images.
        gaps: The largest difference between groups, by covariate, metric and label.
        published: None where nothing comparable is published.
        seconds: What was spent, by phase.
        out_of_fold: Of which folds the predictions are, each of another network; None where they are not.
        cohort: Images and patients by part, and their characteristics; None where they were not described.
        external: The run's own test part beside another data set; None where that is not what is evaluated.
        baselines: Simple models beside the one that is evaluated; None where none were asked for, or can be.
        failures: Where errors gather; None where no label has a threshold.
        operating_points: Thresholds by several rules; None where nobody looked for them.
        referral: Rules to rule in, rule out, or refer; None likewise.
        decisions: Net benefit; None likewise.
        curves: See :func:`~cxrlab.evaluation.curves.label_curves`, and for the curves of net benefit
            :func:`~cxrlab.evaluation.decision_curve.decisions`; not in the JSON.
        num_gap_tests: Differences between groups that were tested and corrected together.
        subgroup_means: The mean of all images over the labels of the groups' means, by covariate.
        subgroup_pairs: Metrics by groups that share the values of two covariates; not tested.
        equalised_odds: By covariate.
        stratified: AUROC within the groups of a covariate, beside that of all pairs of images.
        readers: Several people's readings beside the model; None where there are none.
        interventions: What changes of the images do to the AUROC; None where they were not asked for.
        macro_labels: The labels that the means are of: those with enough patients.
        contamination: Whether the weights that the training started from had seen these images; None for
            predictions of another program.
    """

    format: int = FORMAT
    data: EvaluatedData
    interval: IntervalMethod
    labels: Mapping[str, Estimates]
    macro: Estimates
    micro: Estimates
    num_macro_labels: int
    counts: Mapping[str, LabelCounts]
    thresholds: Mapping[str, LabelThreshold]
    prevalence: float | None
    flags: Sequence[Caveat]
    classification_report: ClassificationReport | None
    calibration: CalibrationResult
    subgroups: Sequence[SubgroupRow]
    gaps: Sequence[Gap]
    published: PublishedTable | None
    seconds: Mapping[str, float]
    out_of_fold: OutOfFold | None = None
    cohort: Cohort | None = None
    external: ExternalComparison | None = None
    operating_points: OperatingPoints | None = None
    referral: Referral | None = None
    decisions: Decisions | None = None
    macro_labels: Sequence[str] = ()
    curves: pd.DataFrame = field(repr=False, compare=False)
    baselines: BaselineResult | None = None
    failures: FailureAnalysis | None = None
    num_gap_tests: int = 0
    subgroup_means: Sequence[SubgroupRow] = ()
    subgroup_pairs: Sequence[SubgroupRow] = ()
    equalised_odds: Sequence[EqualisedOdds] = ()
    stratified: Sequence[StratifiedAuroc] = ()
    interventions: InterventionResult | None = None
    readers: ReaderStudy | None = None
    contamination: Contamination | None = None

    @property
    def is_exclusive(self) -> bool:
        """Whether the labels are classes that exclude one another."""
        report = self.classification_report
        return report is not None and report.kind == "exclusive"

    @property
    def main_auroc(self) -> str:
        """Name of the AUROC that is given first: within folds where several networks made the predictions."""
        return "auroc" if self.out_of_fold is None else WITHIN_FOLDS

    @property
    def num_main_labels(self) -> int:
        """How many labels the mean of the AUROC that is given first is of."""
        chosen = self.macro_labels or self.labels
        return sum(self.labels[label][self.main_auroc].value is not None for label in chosen)

    def to_json(self) -> dict[str, object]:
        """Return the content of ``evaluation.json``."""
        content = _as_json(self)
        del content["curves"]
        return content

    def save(self, folder: Path) -> None:
        """Write ``evaluation.json`` and ``curves.csv``.

        Raises:
            OutputError: If they cannot be written.
        """
        run_dir = RunDir(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(run_dir.evaluation, self.to_json())
            write_text(run_dir.curves, self.curves.to_csv(index=False))
        except OSError as error:
            raise OutputError(f"The evaluation cannot be written to {folder}: {error}.") from error


@dataclass(frozen=True)
class Difference:
    """What a metric of one model minus that of another says.

    Attributes:
        difference: The first model's value minus the second's.
        p: Two-sided; None where nothing could be tested.
        p_holm: The same, corrected for the number of tests.
        outcome: Of the first model against the second.
        description: The same in words.
    """

    difference: Estimate
    p: float | None
    p_holm: float | None
    outcome: Outcome
    description: str


@dataclass(frozen=True)
class PairedTests:
    """Differences of one metric between two models.

    Attributes:
        macro: Of the means over the labels.
        labels: By label.
    """

    macro: Difference
    labels: Mapping[str, Difference]


@dataclass(frozen=True)
class NonInferiority:
    """Whether a model is shown not to be inferior to another by more than a margin, in AUROC.

    Attributes:
        models: The one that is tested, and the one that it is tested against.
        margin: How much worse still counts as not inferior.
        one_sided_level: Of the test.
        difference: The first model's value minus the second's.
        p: One-sided, of "inferior by the margin or more"; None where nothing could be tested.
        p_holm: The same, corrected for the number of tests.
        is_shown: Whether it is not inferior, by ``p_holm``.
        description: The same in words.
    """

    models: tuple[str, str]
    margin: float
    one_sided_level: float
    difference: Estimate
    p: float | None
    p_holm: float | None
    is_shown: bool
    description: str


@dataclass(frozen=True, kw_only=True)
class ModelPair(Difference):
    """Two models: the difference of their macro AUROC, and of each label's.

    Attributes:
        models: Their names.
        labels: Differences of AUROC by label.
        metrics: Differences of the macro means of a person's own metrics.
        further: Tests of sensitivity, specificity, average precision and Brier score, by the metric's name.
        non_inferiority: Of the first model against the second and the reverse, in mean AUROC; empty without a
            margin.
        label_non_inferiority: The same by label.
    """

    models: tuple[str, str]
    labels: Mapping[str, Difference]
    metrics: Mapping[str, Difference] = field(default_factory=dict)
    further: Mapping[str, PairedTests] = field(default_factory=dict)
    non_inferiority: Sequence[NonInferiority] = ()
    label_non_inferiority: Mapping[str, Sequence[NonInferiority]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelScores:
    """A row of the leaderboard.

    Attributes:
        name: Of the model.
        macro_auroc: Mean over the labels; within folds where the comparison has any.
        macro_average_precision: Mean over the labels.
        labels: AUROC by label; within folds where the comparison has any.
        metrics: Macro means of a person's own metrics.
        pooled_macro_auroc: Where there are folds, the mean over the labels with all folds pooled; else None.
    """

    name: str
    macro_auroc: Estimate
    macro_average_precision: Estimate
    labels: Estimates
    metrics: Estimates = field(default_factory=dict)
    pooled_macro_auroc: Estimate | None = None


@dataclass(frozen=True)
class LeftOut:
    """What only some of the tables held.

    Attributes:
        images: How many.
        labels: Their names.
    """

    images: int
    labels: Sequence[str]


@dataclass(frozen=True)
class ComparisonResult:
    """Every number of a comparison, as in ``comparison.json``.

    Attributes:
        data: The images that all tables hold.
        interval: How the intervals were made.
        num_macro_labels: How many labels the means are of: those with enough patients.
        models: The leaderboard, best first.
        pairs: The paired differences, best models first.
        left_out: What not all tables held.
        flags: What weakens the comparison.
        num_folds: Folds within which images are ranked; 0 where one network made all predictions.
        selection_optimism: How much too good the best model's mean AUROC is expected to be, since it was
            picked on these images; None where nothing varies.
        margin: Of non-inferiority; None where none was given.
        corrections: Which tests are corrected together (Holm), by what is tested, in words.
        untested: Why sensitivity and specificity are not compared; empty where they are.
    """

    data: EvaluatedData
    interval: IntervalMethod
    num_macro_labels: int
    models: Sequence[ModelScores]
    pairs: Sequence[ModelPair]
    left_out: LeftOut
    flags: Sequence[Caveat]
    num_folds: int = 0
    selection_optimism: float | None = None
    margin: float | None = None
    corrections: Mapping[str, str] = field(default_factory=dict)
    untested: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the content of ``comparison.json``."""
        return _as_json(self)


def _as_json(result: EvaluationResult | ComparisonResult) -> dict[str, object]:
    """Return ``asdict`` as JSON gives it back: tuples are lists, and ``class_`` is called ``class``."""

    def as_object(items: list[tuple[str, object]]) -> dict[str, object]:
        return {
            key.removesuffix("_"): list(value) if isinstance(value, tuple) else value for key, value in items
        }

    return asdict(result, dict_factory=as_object)
