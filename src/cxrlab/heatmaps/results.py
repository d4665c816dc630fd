"""What the checks of heatmaps found: the content of ``explanation.json``.

Every class is frozen, and the JSON is its ``asdict``: the attributes are the keys, without the underscore
that sets ``from_`` apart from Python's own word.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cxrlab.evaluation.results import Outcome
from cxrlab.files import read_json, reading, write_json
from cxrlab.heatmaps.settings import Check, ExplanationSettings
from cxrlab.metrics.bootstrap import Estimate

Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class ExplainedData:
    """Which images were explained.

    Attributes:
        name: Of the data set; "" where it has none.
        part: ``train``, ``val``, ``test`` or "".
        fingerprint: Of the data set's manifest, or None.
    """

    name: str = ""
    part: str = ""
    fingerprint: str | None = None


@dataclass(frozen=True)
class IntervalLevel:
    """Coverage of the intervals, and of how many resamples of patients they are."""

    level: float
    resamples: int


@dataclass(frozen=True)
class CaseCounts:
    """Pairs of an image and a finding, and whose they are."""

    cases: int
    patients: int


@dataclass(frozen=True)
class UnusableBoxes:
    """How many boxes were left out, and what is wrong with the first ones."""

    boxes: int
    such_as: Sequence[str]


@dataclass(frozen=True)
class RegionThresholds:
    """The shares of a heatmap's maximum from which its region begins.

    Attributes:
        on: On whose boxes they were chosen.
        values: Those that were chosen, by source.
        cases: Of the validation part; None where they were chosen on other patients.
        folds: Of patients; None where they were chosen on the validation part.
    """

    on: Literal["validation", "other patients"]
    values: Mapping[str, Sequence[float]]
    cases: int | None = None
    folds: int | None = None


@dataclass(frozen=True)
class PointingDifference(Estimate):
    """By how much one source points at the finding more often than another.

    Attributes:
        discordant: Patients of whose cases one hits more than the other.
        outcome: Of the first against the second.
        description: The same for people.
    """

    discordant: int = 0
    outcome: Outcome = "not_compared"
    description: str = ""


@dataclass(frozen=True)
class MethodDifferences:
    """A method against what it must beat, by finding and ``MACRO``.

    Attributes:
        box_frequency: Against the map of where other patients have boxes.
        random_network: Against the same method on networks with random weights.
    """

    box_frequency: Mapping[str, PointingDifference]
    random_network: Mapping[str, PointingDifference]


@dataclass(frozen=True)
class SizeResult:
    """How often each source points at findings whose boxes cover a share of the image.

    Attributes:
        from_: The share above which.
        to: The share up to which.
        cases: How many there are.
        patients: Of how many patients.
        pointing: By source.
    """

    from_: float
    to: float
    cases: int
    patients: int
    pointing: Estimates


@dataclass(frozen=True)
class PointingResult:
    """How well heatmaps point at boxes. Sources are methods, the same on random weights, and usual places.

    Attributes:
        cases: By finding that has boxes; empty where no box is known, and then all but the next two is.
        without_boxes: Labels that have positives and no box, with how many positives there are.
        unusable: Boxes that were left out.
        tolerance: How far beside a box a point still counted, as a share of the image's side.
        thresholds: From which a heatmap's region begins.
        empty: Heatmaps without any heat, by source.
        findings: Estimates by finding or ``MACRO``, source, and measure.
        differences: By method.
        against_first: The first method against each other one, by finding and ``MACRO``.
        sizes: By the size of the boxes.
    """

    cases: Mapping[str, CaseCounts]
    without_boxes: Mapping[str, int]
    unusable: UnusableBoxes
    tolerance: float = 0.0
    thresholds: RegionThresholds | None = None
    empty: Mapping[str, float] = field(default_factory=dict)
    findings: Mapping[str, Mapping[str, Estimates]] = field(default_factory=dict)
    differences: Mapping[str, MethodDifferences] = field(default_factory=dict)
    against_first: Mapping[str, Mapping[str, PointingDifference]] = field(default_factory=dict)
    sizes: Sequence[SizeResult] = ()

    @property
    def num_cases(self) -> int:
        """How many cases have boxes."""
        return sum(count.cases for count in self.cases.values())


@dataclass(frozen=True)
class MethodRandomization:
    """How alike a method's maps stay as the network loses what it learnt, one entry a step.

    Attributes:
        rank_correlation: Spearman's, with the trained network's maps.
        ssim: Structural similarity with them.
        empty: Share of empty maps of the trained network.
        random_empty: Share of empty maps where nothing learnt is left.
    """

    rank_correlation: Sequence[Estimate]
    ssim: Sequence[Estimate]
    empty: float
    random_empty: float


@dataclass(frozen=True)
class RandomizationResult:
    """How heatmaps change with the weights.

    Attributes:
        cases: Of the sample.
        positives: Those of them that are known to be positive.
        networks: With random weights.
        steps: What was made random, from the head on.
        methods: By method.
    """

    cases: int
    positives: int
    networks: int
    steps: Sequence[str]
    methods: Mapping[str, MethodRandomization]


@dataclass(frozen=True)
class CurveResult:
    """A deletion or insertion curve.

    Attributes:
        curve: Mean probability at each share of pixels.
        area: Under the curve.
        difference: From that of a random order; None for the random order itself.
    """

    curve: Sequence[float]
    area: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class MethodFaithfulness:
    """Both curves of a method."""

    deletion: CurveResult
    insertion: CurveResult


@dataclass(frozen=True)
class FaithfulnessResult:
    """How the score changes with pixels in the order of the heatmaps.

    Attributes:
        cases: Of the sample.
        positives: Those of them that are known to be positive.
        shares: Of the pixels that were changed.
        methods: By method, and of a random order.
    """

    cases: int
    positives: int
    shares: Sequence[float]
    methods: Mapping[str, MethodFaithfulness]


@dataclass(frozen=True)
class MethodPair:
    """How alike two methods' maps of the same case are."""

    methods: Sequence[str]
    rank_correlation: Estimate


@dataclass(frozen=True)
class AgreementResult:
    """How alike each two methods' maps are; no pair where there is one method."""

    pairs: Sequence[MethodPair]


@dataclass(frozen=True)
class FlaggedZone:
    """Where a method has more heat than a map that is the same everywhere."""

    method: str
    zone: str


@dataclass(frozen=True)
class LungsResult:
    """Whether heatmaps lie on the lungs.

    Attributes:
        cases: Of the sample.
        positives: Those of them that are known to be positive.
        regions_found: Share of cases in which the lungs' bounding region was found.
        areas: Of each zone as a share of the image; None of what lies outside where no lungs are found.
        methods: Shares of the heat by method, label or ``MACRO``, and zone.
        unlike: What is flagged.
        empty: Share of empty maps by method.
    """

    cases: int
    positives: int
    regions_found: float
    areas: Mapping[str, float | None]
    methods: Mapping[str, Mapping[str, Estimates]]
    unlike: Sequence[FlaggedZone] = ()
    empty: Mapping[str, float] = field(default_factory=dict)


FlagKind = Literal[
    "empty",
    "pointing",
    "random_pointing",
    "randomization",
    "random_empty",
    "faithfulness",
    "shortcut",
    "without_boxes",
    "unusable_boxes",
]


@dataclass(frozen=True)
class HeatmapFlag:
    """What a reader of the heatmaps must beware of."""

    kind: FlagKind
    message: str


@dataclass(frozen=True, kw_only=True)
class ExplanationResult:
    """What the checks of heatmaps found.

    Attributes:
        data: Which images were explained.
        checks: Which checks were made; the result of another one is None.
        methods: Name of each method on pages.
        labels: Of the checks without boxes.
        images: How many there are.
        interval: What intervals are of.
        settings: How it was done.
        pointing: Do heatmaps point at boxes?
        randomization: Do they depend on the weights?
        faithfulness: Does the score depend on what they show?
        agreement: Do the methods agree?
        shortcuts: Do they lie on the lungs?
        seconds: That each check took.
        flags: What to beware of.
    """

    data: ExplainedData
    checks: Sequence[Check]
    methods: Mapping[str, str]
    labels: Sequence[str]
    images: int
    interval: IntervalLevel
    settings: ExplanationSettings
    pointing: PointingResult | None = None
    randomization: RandomizationResult | None = None
    faithfulness: FaithfulnessResult | None = None
    agreement: AgreementResult | None = None
    shortcuts: LungsResult | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    flags: Sequence[HeatmapFlag] = ()

    def to_json(self) -> dict[str, object]:
        """Return the content of ``explanation.json``."""
        return asdict(self, dict_factory=lambda items: {key.removesuffix("_"): value for key, value in items})

    def save(self, path: Path) -> None:
        """Write ``explanation.json``."""
        write_json(path, self.to_json())


def read_explanation(path: Path) -> ExplanationResult | None:
    """Read ``explanation.json``; None where there is none.

    Raises:
        ConfigError: If it holds anything else.
    """
    if not path.is_file():
        return None
    with reading(path, _REMEDY):
        result: ExplanationResult = _typed(ExplanationResult, read_json(path, _REMEDY))
    return result


_REMEDY = "Remove it: the page then has no checks of heatmaps; cxrlab explain makes them again."


def _typed(kind: Any, value: Any) -> Any:
    """Return what stands in a JSON file as the type that an annotation names."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None or isinstance(value, str):
            return value
        kind = next(member for member in arguments if member not in (type(None), str))
        return _typed(kind, value)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [entry.name for entry in fields(kind)]
        return kind(**{name: _typed(hints[name], value[name.removesuffix("_")]) for name in names})
    if origin is Mapping:
        return {key: _typed(arguments[1], entry) for key, entry in value.items()}
    if origin is Sequence:
        return [_typed(arguments[0], entry) for entry in value]
    return value
