"""How predictions are evaluated: the values of conf/evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cxrlab.errors import ConfigError
from cxrlab.metrics.referral import ReferralTargets
from cxrlab.metrics.thresholds import check_rule

CalibrationMethod = Literal["temperature", "temperature_by_label", "platt", "none"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What a person may tune of an evaluation.

    Attributes:
        threshold: How the threshold of each label is chosen on validation: ``youden``, ``f1``,
            ``sensitivity@0.9``, ``specificity@0.9``, ``npv@0.98``, ``ppv@0.5``, ``plateau``, ``midpoint``, or
            a number that is taken as it is.
        calibration: What is fitted on validation: one ``temperature`` for all labels,
            ``temperature_by_label``, ``platt`` (slope and intercept of each label), or ``none``.
        num_resamples: Resamples of the patient bootstrap.
        level: Coverage of the intervals.
        prevalence: For which PPV and NPV are given besides the sample's own; None leaves that out.
        age_bands: Edges in years, ascending; a band includes its lower edge.
        min_positives: Labels with fewer patients with the finding, or without it, are flagged, and macro
            means leave them out; images count where patients are unknown.
        min_group_images: Subgroups with fewer images are not evaluated.
        min_gap_patients: Patients behind a value, at least, for its difference between groups to be tested.
        subgroup_pairs: Pairs of covariates whose values together make groups, such as ``[[sex, age]]``; None
            for those of view, sex and age that there are, and an empty list for none.
        seed: Start of the bootstrap.
        operating_points: Rules like ``threshold``, each of which gets a line of its own.
        refer_ppv: Least PPV of those that are ruled in, which is guaranteed; None rules nobody in.
        refer_npv: Least NPV of those that are ruled out; None rules nobody out.
        refer_confidence: With which confidence either is guaranteed.
        decision_thresholds: Probabilities from which on one would act, for the table of net benefit.
        baselines: Whether to set simple baselines that see less than it beside the model.
        allow_seen: Whether to evaluate on images that the weights which the training started from had
            certainly seen; the page then says so in its first sentence.
        min_threshold_patients: Thresholds chosen on fewer validation patients with a finding, or without it,
            are flagged.

    Raises:
        ConfigError: If a value is out of its range.
    """

    threshold: str | float = "youden"
    calibration: CalibrationMethod = "platt"
    num_resamples: int = 2000
    level: float = 0.95
    prevalence: float | None = 0.1
    age_bands: Sequence[float] = (0, 18, 40, 60, 80)
    min_positives: int = 10
    min_group_images: int = 20
    min_gap_patients: int = 20
    subgroup_pairs: Sequence[Sequence[str]] | None = None
    seed: int = 0
    operating_points: Sequence[str | float] = (
        "youden",
        "sensitivity@0.9",
        "sensitivity@0.95",
        "specificity@0.9",
        "specificity@0.95",
        "npv@0.98",
        "ppv@0.5",
    )
    refer_ppv: float | None = 0.5
    refer_npv: float | None = 0.98
    refer_confidence: float = 0.9
    decision_thresholds: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.5)
    min_threshold_patients: int = 20
    allow_seen: bool = False

    @property
    def referral(self) -> ReferralTargets:
        """What is guaranteed of ruling in and out."""
        return ReferralTargets(self.refer_ppv, self.refer_npv, self.refer_confidence)

    baselines: bool = True

    @property
    def given_threshold(self) -> float | None:
        """The number that ``threshold`` is; None where it is a rule."""
        return None if isinstance(self.threshold, str) else float(self.threshold)

    def __post_init__(self) -> None:
        check_rule(self.threshold)
        for rule in self.operating_points:
            check_rule(rule, "evaluation.operating_points")
        _ = self.referral  # refuses a value out of its range
        wrong = [value for value in self.decision_thresholds if not 0 < value < 1]
        if wrong:
            raise ConfigError(
                f"evaluation.decision_thresholds={list(self.decision_thresholds)} must lie between 0 and 1; "
                f"{wrong[0]} does not."
            )
        if self.num_resamples < 100:
            raise ConfigError(f"evaluation.num_resamples={self.num_resamples} must be at least 100.")
        if not 0.5 <= self.level < 1:
            raise ConfigError(
                f"evaluation.level={self.level} must be at least 0.5 and below 1, such as 0.95."
            )
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise ConfigError(
                f"evaluation.prevalence={self.prevalence} must lie between 0 and 1, or be null."
            )
        if list(self.age_bands) != sorted(set(self.age_bands)):
            raise ConfigError(f"evaluation.age_bands={list(self.age_bands)} must ascend.")
        if self.min_gap_patients < 2:
            raise ConfigError(
                f"evaluation.min_gap_patients={self.min_gap_patients} must be at least 2: one patient does "
                "not vary."
            )
        for pair in self.subgroup_pairs or ():
            if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError(
                    f"evaluation.subgroup_pairs has {pair!r}: each entry is a pair of covariates, such as "
                    "[sex,age]."
                )
