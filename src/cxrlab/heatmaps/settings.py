"""How heatmaps are made and checked: the values of conf/explanation."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.names import check_methods
from cxrlab.heatmaps.methods.perturbation import Baseline

_AT_LEAST_ONE = (
    "num_labels",
    "batch_size",
    "num_steps",
    "num_background",
    "num_samples",
    "num_random_networks",
    "num_checked",
    "num_located",
    "num_curve_steps",
)
_SHARES = ("smoothing", "window", "stride", "tolerance", "border", "corner", "most_outside")
_ABOVE_ZERO = ("window", "stride")


@dataclass(frozen=True, kw_only=True)
class ExplanationSettings:
    """What a person may tune of heatmaps and their checks; lengths are shares of the image's side.

    Attributes:
        methods: Of ``cxrlab.heatmaps.methods.dispatch.METHODS``; the first one draws the examples.
        num_labels: Labels of the checks without boxes: those with the highest validation AUROC.
        layers: See :func:`cxrlab.heatmaps.methods.layers.target_layers`.
        batch_size: Images that go through the network at once.
        baseline: See :func:`cxrlab.heatmaps.methods.perturbation.baseline`.
        smoothing: Deviation of the blur over what a method says of single pixels.
        num_steps: Points on the way of integrated gradients.
        window: Side of the window of occlusion.
        stride: From one window to the next.
        num_background: Training images that SHAP compares with.
        num_samples: Points that SHAP draws between them and the image.
        tolerance: How far beside a box the point of the pointing game still counts.
        size_edges: Shares of the image's area, ascending, between which boxes are told apart by size.
        num_folds: Folds in which thresholds are chosen where no validation image has a box.
        num_random_networks: Networks with random weights that each method is repeated on.
        num_checked: Images of the checks that are about the model.
        num_located: Images of which it is measured whether heat lies outside the lungs, at the border or in
            the corners.
        num_curve_steps: Steps of the insertion and deletion curves.
        border: Width of the frame called border.
        corner: Side of the squares called corners.
        most_outside: Share of a heatmap's energy outside the lungs' bounding region above which it is
            flagged, where that is also more than a map has that is the same everywhere.
        num_resamples: Resamples of the patient bootstrap.
        level: Coverage of the intervals.
        seed: Of everything random.

    Raises:
        ConfigError: If a value is out of its range.
    """

    methods: Sequence[str]
    num_labels: int
    layers: str | Sequence[str]
    batch_size: int
    baseline: Baseline
    smoothing: float
    num_steps: int
    window: float
    stride: float
    num_background: int
    num_samples: int
    tolerance: float
    size_edges: Sequence[float]
    num_folds: int
    num_random_networks: int
    num_checked: int
    num_located: int
    num_curve_steps: int
    border: float
    corner: float
    most_outside: float
    num_resamples: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        check_methods(self.methods, "explanation.methods")
        for names, low in (
            (_AT_LEAST_ONE, 1),
            (("num_folds",), 2),
            (("num_resamples",), 100),
            (("seed",), 0),
        ):
            for name in names:
                if getattr(self, name) < low:
                    raise ConfigError(f"explanation.{name}={getattr(self, name)} must be at least {low}.")
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1 or (value == 0 and name in _ABOVE_ZERO):
                least = "above 0" if name in _ABOVE_ZERO else "from 0"
                raise ConfigError(
                    f"explanation.{name}={value} is a share of the image: it lies {least} to 1."
                )
        for name in ("border", "corner"):
            if getattr(self, name) > 0.5:
                raise ConfigError(
                    f"explanation.{name}={getattr(self, name)} must be at most 0.5: half the image."
                )
        if not 0.5 <= self.level < 1:
            raise ConfigError(
                f"explanation.level={self.level} must be at least 0.5 and below 1, such as 0.95."
            )
        edges = list(self.size_edges)
        if edges != sorted(set(edges)) or any(not 0 < edge < 1 for edge in edges):
            raise ConfigError(f"explanation.size_edges={edges} must ascend, between 0 and 1.")
