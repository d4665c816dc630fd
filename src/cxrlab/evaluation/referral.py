"""Rule in, rule out, or refer: what the rules of a model give on the images that are evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cxrlab.evaluation.operating_points import why_left_out
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, patient_sums, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.referral import ReferralRules, choose_referral
from cxrlab.metrics.settings import EvaluationSettings


@dataclass(frozen=True)
class LabelReferral:
    """The rules of one label, and what they give where one image is drawn from each patient.

    Attributes:
        rule_in: Ruled in from this probability on; None where none keeps its target.
        rule_out: Ruled out below this one; None likewise.
        no_rule_in: Why there is none; empty where there is one.
        no_rule_out: Why there is none; empty where there is one.
        ppv: Share of those ruled in that has the finding.
        npv: Share of those ruled out that has it not.
        ruled_in: Share that is ruled in.
        ruled_out: Share that is ruled out.
        referred: Share that is neither.
        ppv_by_image: As ``ppv``, but of all images, so that patients with many of them weigh more.
        npv_by_image: As ``npv``, of all images.
    """

    rule_in: float | None
    rule_out: float | None
    no_rule_in: str
    no_rule_out: str
    ppv: Estimate
    npv: Estimate
    ruled_in: Estimate
    ruled_out: Estimate
    referred: Estimate
    ppv_by_image: Estimate
    npv_by_image: Estimate


@dataclass(frozen=True)
class Referral:
    """Rules to rule in, rule out, or refer, by label.

    Attributes:
        left_out: Why there are none, in words; empty where there are some, or nobody asked for any.
        ppv: That ruling in must keep; None where it was not asked for.
        npv: That ruling out must keep; None where it was not asked for.
        confidence: Of either, for each label by itself.
        labels: By name.
    """

    left_out: str
    ppv: float | None
    npv: float | None
    confidence: float
    labels: Mapping[str, LabelReferral] = field(default_factory=dict)


def referral_from_validation(validation: PredictionTable, settings: EvaluationSettings) -> ReferralRules:
    """Choose rules on a validation part, see :func:`cxrlab.metrics.referral.choose_referral`."""
    patients = validation.patients if validation.patients_known else None
    rules = choose_referral(validation.probabilities, validation.targets, patients, settings.referral)
    return ReferralRules(*rules, settings.referral, "validation")


def evaluate_referral(
    table: PredictionTable,
    rules: ReferralRules | None,
    validation: PredictionTable | None,
    counts: Counts,
    settings: EvaluationSettings,
) -> Referral:
    """Return what rules chosen on validation give.

    Args:
        table: What is evaluated.
        rules: Of its labels; None to choose them on ``validation``.
        validation: On which they were, or are, chosen; None where it is not at hand.
        counts: How often each patient of ``table`` stands in each resample, shape ``(P, B)``.
        settings: With the targets and the coverage.
    """
    if rules is None and validation is not None:
        rules = referral_from_validation(validation, settings)
    aims = settings.referral if rules is None else rules.targets
    facts = (aims.ppv, aims.npv, aims.confidence)
    if aims.ppv is None and aims.npv is None:
        return Referral("", *facts)
    if rules is None:
        return Referral(why_left_out(table), *facts)
    labels = {
        label: _of_label(table, rules, validation, column, counts, settings.level)
        for column, label in enumerate(table.labels)
    }
    return Referral("", *facts, labels=labels)


def _of_label(
    table: PredictionTable,
    rules: ReferralRules,
    validation: PredictionTable | None,
    column: int,
    counts: Counts,
    level: float,
) -> LabelReferral:
    known = table.known[:, column]
    scores, present = table.probabilities[known, column], table.targets[known, column] == 1
    rule_in, rule_out = float(rules.rule_in[column]), float(rules.rule_out[column])
    ruled_in, ruled_out = scores >= rule_in, scores < rule_out  # nothing where the rule is NaN
    columns = np.stack(
        [ruled_in, ruled_in & present, ruled_out, ruled_out & ~present, ~ruled_in & ~ruled_out], axis=1
    ).astype(np.float64)
    sums = patient_sums(columns, table.patients[known], len(counts))  # (5, P)
    images = np.bincount(table.patients[known], minlength=len(counts))
    by_patient = np.concatenate([ratio(sums, images), (images > 0)[None].astype(np.float64)])
    by_patient = np.nan_to_num(by_patient)
    units = [int((row > 0).sum()) for row in by_patient]

    def share(of: Floats, top: int, bottom: int) -> Estimate:
        drawn = resampled(of[[top, bottom]], counts)
        return estimate(
            float(ratio(of[top].sum(), of[bottom].sum())), ratio(*drawn), level, units=units[bottom]
        )

    return LabelReferral(
        rule_in=None if np.isnan(rule_in) else rule_in,
        rule_out=None if np.isnan(rule_out) else rule_out,
        no_rule_in=_why_none(validation, column, rule_in, rules.targets.ppv, value=1),
        no_rule_out=_why_none(validation, column, rule_out, rules.targets.npv, value=0),
        ppv=share(by_patient, 1, 0),
        npv=share(by_patient, 3, 2),
        ruled_in=share(by_patient, 0, 5),
        ruled_out=share(by_patient, 2, 5),
        referred=share(by_patient, 4, 5),
        ppv_by_image=share(sums, 1, 0),
        npv_by_image=share(sums, 3, 2),
    )


def _why_none(
    validation: PredictionTable | None, column: int, rule: float, target: float | None, *, value: int
) -> str:
    """Return why a label has no rule; ``value`` is what the target is a share of."""
    if not np.isnan(rule):
        return ""
    if target is None:
        return "not asked for"
    if validation is None:
        return "none chosen on validation"
    known = validation.known[:, column]
    wanted, patients = validation.targets[known, column] == value, validation.patients[known]
    if not wanted.any() or wanted.all():
        return "validation holds one class only"
    weights = 1 / np.bincount(patients)[patients]
    if weights @ wanted >= target * weights.sum():
        return f"met by ruling everybody {'in' if value else 'out'}"
    return "not shown on validation"
