"""Which methods and checks there are, and how heatmaps are made and checked: conf/explanation."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from cxrlab.errors import ConfigError

# Class of each method in the package grad-cam.
CAM_METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}

ATTENTION_METHODS = ("attention", "rollout")

METHODS = (*CAM_METHODS, *ATTENTION_METHODS, "integrated_gradients", "occlusion", "gradient_shap")

# How they are written on pages.
METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiRes-CAM",
    "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
    "attention": "Attention",
    "rollout": "Attention rollout",
    "integrated_gradients": "Integrated gradients",
    "occlusion": "Occlusion",
    "gradient_shap": "SHAP (expected gradients)",
}

# What a page says of those that do not show what raised a finding's score.
METHOD_NOTES = {
    "eigencam": "knows nothing of the finding: all findings of an image have the same map",
    "attention": "shows where the finding's query looked, whether what is there spoke for it or against it",
    "rollout": (
        "shows where the network's tokens looked, and knows nothing of the finding: all findings of an image "
        "have the same map"
    ),
}

Check = Literal["pointing", "lungs", "randomization", "faithfulness", "agreement"]
CHECKS: tuple[Check, ...] = get_args(Check)
TRAINING_CHECKS: tuple[Check, ...] = ("pointing", "lungs")
"""Those at the end of a training; the others take too long for every run."""

Baseline = Literal["mean", "blur", "black"]


def check_methods(names: str | Sequence[str], key: str) -> list[str]:
    """Return names of methods as a list.

    Args:
        names: One or several of ``METHODS``, a text with commas between them too.
        key: Of the config, for the message.

    Raises:
        ConfigError: If a name is unknown, stands twice, or there is none.
    """
    return _listed(names, METHODS, key, "method")


def named_checks(names: bool | str | Sequence[str], key: str) -> list[Check]:
    """Return names of checks as a list, in the order in which they are made.

    Args:
        names: One or several of ``CHECKS``; ``auto`` or True for all of them, False for none.
        key: Of the config, for the message.

    Raises:
        ConfigError: If a name is unknown, stands twice, or there is none.
    """
    if isinstance(names, bool) or names == "auto":
        return list(CHECKS) if names else []
    listed = _listed(names, CHECKS, key, "check")
    return [check for check in CHECKS if check in listed]


def _listed(names: str | Sequence[str], allowed: Sequence[str], key: str, kind: str) -> list[str]:
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in allowed:
            near = difflib.get_close_matches(name.lower().replace("-", "").replace("_", ""), allowed, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{key}={name} is no {kind}; choose from {', '.join(allowed)}.{hint}")
    if not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"{key}={listed} must name at least one {kind}, and none twice.")
    return listed


class _Range(NamedTuple):
    low: float
    high: float = math.inf
    open_end: Literal["low", "high", "none"] = "none"  # which end is itself out

    def __str__(self) -> str:
        low = f"{'above' if self.open_end == 'low' else 'at least'} {self.low:g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'below' if self.open_end == 'high' else 'at most'} {self.high:g}"

    def holds(self, value: float) -> bool:
        is_open_end = {self.low: "low", self.high: "high"}.get(value) == self.open_end
        return self.low <= value <= self.high and not is_open_end


_COUNT, _SHARE, _LENGTH, _HALF = _Range(1), _Range(0, 1), _Range(0, 1, "low"), _Range(0, 0.5)
_RANGES = {
    "num_labels": _COUNT,
    "batch_size": _COUNT,
    "smoothing": _SHARE,
    "num_steps": _COUNT,
    "window": _LENGTH,
    "stride": _LENGTH,
    "num_background": _COUNT,
    "num_samples": _COUNT,
    "tolerance": _SHARE,
    "num_folds": _Range(2),
    "num_random_networks": _COUNT,
    "num_checked": _COUNT,
    "num_located": _COUNT,
    "num_curve_steps": _COUNT,
    "border": _HALF,
    "corner": _HALF,
    "most_outside": _SHARE,
    "num_resamples": _Range(100),
    "level": _Range(0.5, 1, "high"),
    "seed": _Range(0),
}


@dataclass(frozen=True, kw_only=True)
class ExplanationSettings:
    """What a person may tune of heatmaps and their checks.

    What each value means stands beside it in ``conf/explanation/default.yaml``; lengths and areas are shares
    of the image.

    Raises:
        ConfigError: If a value is out of its range.

    Example:
        >>> ExplanationSettings(methods=["layercam"]).num_checked
        32
    """

    methods: Sequence[str] = ("gradcam", "layercam")
    num_labels: int = 4
    layers: str | Sequence[str] = "auto"
    batch_size: int = 16
    baseline: Baseline = "mean"
    smoothing: float = 0.02
    num_steps: int = 32
    window: float = 0.15
    stride: float = 0.05
    num_background: int = 20
    num_samples: int = 50
    tolerance: float = 0.0
    size_edges: Sequence[float] = (0.01, 0.03, 0.1)
    num_folds: int = 5
    num_random_networks: int = 3
    num_checked: int = 32
    num_located: int = 128
    num_curve_steps: int = 20
    border: float = 0.05
    corner: float = 0.15
    most_outside: float = 0.5
    num_resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_methods(self.methods, "explanation.methods")
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if not allowed.holds(value):
                raise ConfigError(f"explanation.{name}={value} must be {allowed}.")
        if self.baseline not in get_args(Baseline):
            raise ConfigError(
                f"explanation.baseline={self.baseline!r} must be one of {', '.join(get_args(Baseline))}."
            )
        edges = list(self.size_edges)
        if edges != sorted(set(edges)) or any(not 0 < edge < 1 for edge in edges):
            raise ConfigError(f"explanation.size_edges={edges} must ascend, between 0 and 1.")
