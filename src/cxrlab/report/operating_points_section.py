"""The section on operating points: what each rule's threshold gives, and whom to rule in, out, or refer."""

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from cxrlab.evaluation.operating_points import LabelOperatingPoints, OperatingPoint, ValidationCounts
from cxrlab.evaluation.referral import LabelReferral, Referral
from cxrlab.evaluation.results import EvaluatedData
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.formatting import DASH, bounds, counted, level, number
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_FEW_LABELS = 2  # whose tables are not folded
_NAMES = {
    "youden": "highest sensitivity + specificity (Youden)",
    "f1": "highest F1",
    "sensitivity": "sensitivity of at least {}",
    "specificity": "specificity of at least {}",
    "npv": "NPV of at least {}, to rule out",
    "ppv": "PPV of at least {}, to rule in",
}
_SHORT = {"sensitivity": "sensitivity {}", "specificity": "specificity {}", "npv": "NPV {}", "ppv": "PPV {}"}

HOW_TO_READ = (
    "Each rule chose a threshold on validation images; the numbers are of the images evaluated here, so that "
    "a sensitivity of 0.9 aimed at may come out lower or higher. Rates are of 1,000 {unit} of this mix. The "
    "intervals are of the bootstrap; at the model's own threshold, quote those of Results by label."
)

GUARANTEE = (
    "From the upper threshold on an image is ruled in, below the lower one it is ruled out, and what lies "
    "between is referred to a person. Thresholds were chosen on validation so that, with a confidence of "
    "{confidence} for each label and side by itself, {targets}. That holds for patients like those of "
    "validation, of each of whom one image is drawn; what was achieved here stands below."
)
_FEW = "Chosen on few validation images with the finding: other validation images would choose another one."


def operating_points_section(context: PageContext) -> Markup | None:
    """Return the operating points and the rules to refer, or why they are left out."""
    parts = [*_points(context), *_referral(context)]
    return Markup("\n").join(parts) if parts else None


def _points(context: PageContext) -> Iterator[Markup]:
    points, data = context.result.operating_points, context.result.data
    if points is None:
        return
    if points.left_out:
        yield paragraph_html(points.left_out)
    if not points.labels:
        return
    yield part("how", HOW_TO_READ.format(unit=_unit(data)))
    if len(points.labels) <= _FEW_LABELS:
        yield from (table_html(_table(label, found, data)) for label, found in points.labels.items())
        return
    yield table_html(summary_table(points.labels))
    for label, found in points.labels.items():
        mark = ", few validation positives" if found.validation.is_few else ""
        yield folded_html(
            f"{label}: intervals, predictive values and rates{mark}", _table(label, found, data)
        )


def summary_table(labels: Mapping[str, LabelOperatingPoints]) -> Table:
    """Return sensitivity and specificity of each label by each rule."""
    rules = [point.rule for point in next(iter(labels.values())).points]
    rows = [
        Row(
            label,
            [
                Cell(str(found.validation.positives), _of_patients(found.validation)),
                *(_both(point) for point in found.points),
            ],
            mark=_FEW if found.validation.is_few else "",
        )
        for label, found in labels.items()
    ]
    caption = "Sensitivity / specificity at the threshold that each rule chose on validation."
    return Table(
        ["label", "validation positives", *(rule_name(rule, short=True) for rule in rules)], rows, caption
    )


def _of_patients(validation: ValidationCounts) -> str:
    patients = validation.positive_patients
    return "" if patients is None else f"of {counted(patients, 'patient')}"


def _both(point: OperatingPoint) -> Cell:
    if point.threshold is None:
        return Cell(DASH, "not reached" if point.note.startswith("no threshold") else "one class")
    return Cell(f"{number(point.sensitivity.value, 2)} / {number(point.specificity.value, 2)}")


def _table(label: str, found: LabelOperatingPoints, data: EvaluatedData) -> Table:
    """Return every number of a label's operating points."""
    columns = [
        label,
        "threshold",
        "sensitivity",
        "specificity",
        "PPV",
        "NPV",
        "predicted positive",
        "of them false",
        "missed",
    ]
    rows = [
        Row(
            rule_name(point.rule) + (f" ({point.note})" if point.note else ""),
            [
                Cell(number(point.threshold)),
                *(
                    estimate_cell(value)
                    for value in (point.sensitivity, point.specificity, point.ppv, point.npv)
                ),
                *(
                    estimate_cell(value, 0)
                    for value in (point.predicted_positive, point.false_positives, point.misses)
                ),
            ],
        )
        for point in found.points
    ]
    validation = found.validation
    of_patients = _of_patients(validation)
    chosen_on = f"{counted(validation.positives, 'validation image')} with the finding"
    caption = (
        f"Chosen on {chosen_on}{f' {of_patients}' if of_patients else ''}, among {validation.images:,}"
        f"{': few' if validation.is_few else ''}. The last three columns are of 1,000 {_unit(data)}."
    )
    return Table(columns, rows, caption)


def rule_name(rule: str, *, short: bool = False) -> str:
    """Return a rule in words.

    Example:
        >>> rule_name("npv@0.98"), rule_name("sensitivity@0.9", short=True), rule_name("0.5")
        ('NPV of at least 0.98, to rule out', 'sensitivity 0.9', 'threshold 0.5')
    """
    name, _, value = rule.partition("@")
    if short:
        return (
            _SHORT[name].format(value) if name in _SHORT else {"youden": "Youden", "f1": "F1"}.get(rule, rule)
        )
    if name in _NAMES:
        return _NAMES[name].format(value)
    return f"threshold {rule}" if rule.replace(".", "", 1).isdigit() else rule


def _unit(data: EvaluatedData) -> str:
    return "patients" if data.patients == data.images else "images"


def _referral(context: PageContext) -> Iterator[Markup]:
    referral = context.result.referral
    if referral is None or not (referral.labels or referral.left_out):
        return
    yield Markup("<h3>Rule in, rule out, or refer</h3>")
    if referral.left_out:
        yield paragraph_html(referral.left_out)
        return
    yield part("how", GUARANTEE.format(confidence=level(referral.confidence), targets=targets(referral)))
    ruled = {label: found for label, found in referral.labels.items() if found.rule_in or found.rule_out}
    if 0 < len(ruled) <= _FEW_LABELS:
        yield from (paragraph_html(in_words(label, found)) for label, found in ruled.items())
    yield table_html(referral_table(referral))
    yield folded_html("The same of all images, and the thresholds", by_image_table(referral))


def targets(referral: Referral) -> str:
    """Return what is guaranteed.

    Example:
        >>> targets(Referral("", 0.5, None, 0.9))
        'at least 50 % of those ruled in have the finding'
    """
    sides = [
        f"at least {level(value)} of those ruled {side} {verb}"
        for value, side, verb in (
            (referral.ppv, "in", "have the finding"),
            (referral.npv, "out", "have it not"),
        )
        if value is not None
    ]
    return " and ".join(sides)


def in_words(label: str, found: LabelReferral) -> str:
    """Return what the rules do to 1,000 patients, in one sentence."""
    sides = [
        f"{_per_1000(share)} would be ruled {side}, {_rightly(share, right)} of them rightly"
        for share, right, side, rule in (
            (found.ruled_in, found.ppv, "in", found.rule_in),
            (found.ruled_out, found.npv, "out", found.rule_out),
        )
        if rule is not None
    ]
    return f"{label}: of 1,000 patients {'; '.join(sides)}; {_per_1000(found.referred)} would be referred."


def _per_1000(share: Estimate) -> str:
    return number(None if share.value is None else 1000 * share.value, 0)


def _rightly(share: Estimate, right: Estimate) -> str:
    if share.value is None or right.value is None:
        return DASH
    return number(1000 * share.value * right.value, 0)


def referral_table(referral: Referral) -> Table:
    """Return of 1,000 patients those ruled in, referred and ruled out, and how many of them rightly."""
    columns = [
        "label",
        "ruled in",
        "of them rightly",
        "PPV",
        "referred",
        "ruled out",
        "of them rightly",
        "NPV",
    ]
    rows = []
    for label, found in referral.labels.items():
        cells = [
            *_side(found.ruled_in, found.ppv, found.no_rule_in),
            Cell(_per_1000(found.referred)),
            *_side(found.ruled_out, found.npv, found.no_rule_out),
        ]
        rows.append(Row(label, cells, mark=_missed(referral, found)))
    return Table(columns, rows, "Of 1,000 patients with one image each.")


def _side(share: Estimate, right: Estimate, reason: str) -> list[Cell]:
    if reason:
        return [Cell(DASH, reason), Cell(DASH), Cell(DASH)]
    return [Cell(_per_1000(share)), Cell(_rightly(share, right)), estimate_cell(right)]


def _missed(referral: Referral, found: LabelReferral) -> str:
    """Return that what was achieved here is shown to be below what was guaranteed; empty if it is not."""
    for name, aim, right in (("PPV", referral.ppv, found.ppv), ("NPV", referral.npv, found.npv)):
        if aim is not None and right.high is not None and right.high < aim:
            return f"The {name} here is below the {aim} that validation showed: these are other patients."
    return ""


def by_image_table(referral: Referral) -> Table:
    """Return the thresholds, and PPV and NPV of all images, of which patients with many have more."""
    rows = [
        Row(
            label,
            [
                Cell(number(found.rule_in)),
                Cell(number(found.rule_out)),
                estimate_cell(found.ppv_by_image),
                estimate_cell(found.npv_by_image),
                *(
                    Cell(_per_1000(share), bounds(_scaled(share), 0))
                    for share in (found.ruled_in, found.referred, found.ruled_out)
                ),
            ],
        )
        for label, found in referral.labels.items()
    ]
    columns = [
        "label", "ruled in from", "ruled out below", "PPV by image", "NPV by image",
        "ruled in of 1,000", "referred", "ruled out",
    ]  # fmt: skip
    return Table(columns, rows)


def _scaled(share: Estimate) -> Estimate:
    return Estimate(*(None if end is None else 1000 * end for end in (share.value, share.low, share.high)))
