"""Configs of earlier runs: what they lack is what was done when there was no choice yet."""

from collections.abc import Mapping
from typing import Any

# By the node that lacks it: a key of the config, and what it must build (any, where that is None).
_DONE_THEN: tuple[tuple[str, str | None, Mapping[str, Any]], ...] = (
    ("data", None, {"steps_per_epoch": None, "sampling": "uniform"}),
    ("data.augment", "cxrlab.augment.RandomAugment", {"zoom_of_field": False}),
    (
        "model",
        "cxrlab.models.timm_network.TimmNetwork",
        {"feature_dropout": 0.0, "freeze": None, "unfreeze_epoch": None},
    ),
    ("scheduler", "cxrlab.training.schedules.cosine", {"warmup_epochs": None}),
    ("scheduler", "cxrlab.training.schedules.plateau", {"monitor": "${monitor}"}),
    ("callbacks.heatmaps", "cxrlab.heatmaps.callback.Heatmaps", {"explanation": "${explanation}"}),
    ("report", None, {"check_heatmaps": False}),
    ("augment", "cxrlab.augment.RandomAugment", {"zoom_of_field": False}),
)


def complete(config: dict[str, Any]) -> None:
    """Add to a run's saved config, in place, the keys that did not exist when it was saved.

    Args:
        config: As it was saved, as dicts, lists and values; references to other keys may stand in it.

    Example:
        >>> config = {"data": {"root": "x", "augment": "${augment}"}}
        >>> complete(config)
        >>> config
        {'data': {'root': 'x', 'augment': '${augment}', 'steps_per_epoch': None, 'sampling': 'even'}}
    """
    for key, target, values in _DONE_THEN:
        node: Any = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and target in (None, node.get("_target_")):
            for name, value in values.items():
                node.setdefault(name, value)
