"""Defaults stand in the signatures, so that Python needs no Hydra; conf/ lists the same values, with a comment."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cxrlab.cli.config import config_dir
from cxrlab.cli.validation import located

# The files that list a class's own defaults; the others of a group are variants of it, such as augment=strong.
REFERENCES = (
    "train.yaml",
    "augment/light.yaml",
    "callbacks/default.yaml",
    "callbacks/ema.yaml",
    "data/base.yaml",
    "evaluation/default.yaml",
    "explanation/default.yaml",
    "logger/default.yaml",
    "logger/mlflow.yaml",
    "logger/wandb.yaml",
    "loss/asymmetric.yaml",
    "loss/bce.yaml",
    "loss/cross_entropy.yaml",
    "loss/focal.yaml",
    "loss/weighted_bce.yaml",
    "model/sequential.yaml",
    "model/timm.yaml",
    "scheduler/cosine.yaml",
    "scheduler/one_cycle.yaml",
    "scheduler/plateau.yaml",
    "service/default.yaml",
    "solver/gradient.yaml",
    "solver/logistic.yaml",
)


# Two of one class, each set in its own way.
NO_DEFAULTS = ("best", "last")


def read(file: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(config_dir() / file))


def nodes(node: object, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node that builds something of ours, with its key."""
    if isinstance(node, Mapping):
        if str(node.get("_target_", "")).startswith("cxrlab."):
            yield key, node
        for name, value in node.items():
            yield from nodes(value, f"{key}.{name}".lstrip("."))


def is_written_out(value: object) -> bool:
    """Whether a value stands in the file itself: no reference, nothing to be filled in, nothing built."""
    text = str(value)
    return "${" not in text and text != "???" and "_target_" not in text


def comparable(value: object) -> object:
    return tuple(comparable(item) for item in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("file", REFERENCES)
def test_the_values_of_conf_are_those_of_the_signatures(file: str):
    compared = 0
    for key, node in nodes(read(file)):
        parameters = inspect.signature(located(node["_target_"], key)).parameters
        for name, value in node.items():
            if (
                name.startswith("_")
                or name not in parameters
                or not is_written_out(value)
                or key in NO_DEFAULTS
            ):
                continue
            default = parameters[name].default
            assert comparable(default) == comparable(value), (
                f"{file}: {key}.{name} is {value!r}, not {default!r}"
            )
            compared += 1
    assert compared or file in ("loss/bce.yaml", "logger/default.yaml"), f"{file} lists no value"


def test_every_option_of_a_signature_stands_in_conf():
    for file in (
        "augment/light.yaml",
        "data/base.yaml",
        "evaluation/default.yaml",
        "explanation/default.yaml",
        "service/default.yaml",
    ):
        node = read(file)
        parameters = inspect.signature(located(node["_target_"], file)).parameters
        missing = [name for name in parameters if name not in node]
        assert not missing, f"{file} does not list {missing}"


def test_references_are_files():
    assert all(Path(config_dir() / file).is_file() for file in REFERENCES)
