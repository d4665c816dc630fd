"""Defaults stand in the signatures, for notebooks; the YAML lists the same values, with their comments."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cxrlab.cli.config import config_dir
from cxrlab.cli.validation import located

# Folders of conf/ whose files are compared. Where a file names a _target_, it is the base of that node; files
# that change it (data=chexpert, augment=strong) name none, and may differ.
GROUPS = ("data", "augment", "model", "loss", "scheduler", "callbacks", "evaluation", "explanation", "logger")

# Keys that differ from the signature on purpose, by file and dotted key, with the reason.
DIFFERENT: dict[tuple[str, str], str] = {}


def built_nodes(node: object, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every node below this one that names a _target_, with its dotted key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from built_nodes(value, f"{key}.{name}" if key else str(name))


def is_plain(value: object) -> bool:
    """Tell whether a value can be compared: no reference, nothing missing, nothing to be built."""
    if isinstance(value, Mapping):
        return "_target_" not in value
    return not (isinstance(value, str) and ("${" in value or value == "???"))


def differences(path: Path) -> list[str]:
    """Return what a YAML file sets otherwise than the signatures of the code that it builds."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    different = []
    for key, node in built_nodes(content):
        target = str(node["_target_"])
        if not target.startswith("cxrlab.") or target.endswith(".Checkpoint"):
            continue  # other people's defaults, and those of Lightning's class that Checkpoint extends
        parameters = inspect.signature(located(target, key)).parameters
        for name, value in node.items():
            parameter = parameters.get(str(name))
            if parameter is None or parameter.default is parameter.empty or not is_plain(value):
                continue
            dotted = f"{key}.{name}" if key else str(name)
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            if value != default and (f"{path.parent.name}/{path.name}", dotted) not in DIFFERENT:
                different.append(f"{dotted}={value!r}, but {node['_target_']} has {default!r}")
    return different


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=f"{p.parent.name}/{p.stem}")
        for g in GROUPS
        for p in sorted(config_dir().glob(f"{g}/*.yaml"))
    ],
)
def test_the_yaml_lists_the_defaults_of_the_signatures(path: Path):
    assert differences(path) == []


def test_every_parameter_with_a_default_is_listed():
    """What a person may set stands in the YAML with its comment."""
    for name in ("data/base", "data/table", "data/folder", "data/synthetic", "augment/light"):
        content = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{name}.yaml"), resolve=False)
        for key, node in built_nodes(content):
            parameters = inspect.signature(located(str(node["_target_"]), key)).parameters.values()
            with_default = {p.name for p in parameters if p.default is not p.empty}
            assert with_default <= set(node), f"{name}.yaml, {key}"


def test_a_difference_is_found(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(
        "split:\n  _target_: cxrlab.data.splits.Split\n  seed: 7\n  method: grouped\n  file: ${other}\n"
    )
    assert differences(tmp_path / "a.yaml") == ["split.seed=7, but cxrlab.data.splits.Split has 0"]
