"""What a person may have meant by a key or an option that there is not."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from cxrlab.cli.overrides import shell

# What other programs call a key, by its name here.
_ALIASES = {
    "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs", "n_epochs": "trainer.max_epochs",
    "learning_rate": "optimizer.lr", "rate": "optimizer.lr", "wd": "optimizer.weight_decay",
    "bs": "data.batch_size", "batch": "data.batch_size", "workers": "data.num_workers",
    "img_size": "data.image_size", "imgsz": "data.image_size", "size": "data.image_size",
    "gpus": "trainer.devices", "device": "trainer.accelerator", "amp": "trainer.precision",
    "checkpoint": "model.checkpoint_path", "ckpt": "model.checkpoint_path",
    "ckpt_path": "resume", "data_dir": "data.root", "path": "data.root", "output_dir": "hydra.run.dir",
    "out": "hydra.run.dir", "patience": "callbacks.early_stopping.patience", "arch": "model.backbone",
}  # fmt: skip

_MOST_FOLDERS = 50  # looked into for a file of one's own
_WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")


def key_hint(argument: str, keys: Sequence[str]) -> str:
    """Return a question that names the keys which a misspelt one may mean; empty where none is near.

    Args:
        argument: As it was given, such as ``lr=0.1``.
        keys: That there are, dotted.

    Example:
        >>> key_hint("lr=0.1", ["optimizer.lr", "trainer.max_epochs"])
        'Did you mean optimizer.lr=0.1?'
        >>> key_hint("optimiser.lr=0.1", ["optimizer.lr", "trainer.max_epochs"])
        'Did you mean optimizer.lr=0.1?'
    """
    key, sign, value = argument.lstrip("+~").partition("=")
    names = list(dict.fromkeys(_near(key, keys)))[:3]
    return f"Did you mean {' or '.join(f'{name}{sign}{value}' for name in names)}?" if names else ""


def _near(key: str, keys: Sequence[str]) -> Iterator[str]:
    last = key.rpartition(".")[2]
    if _ALIASES.get(key) in {*keys, "hydra.run.dir"}:
        yield _ALIASES[key]
        return
    exact = [name for name in keys if name.rpartition(".")[2] == last]
    same_group = [name for name in exact if name.partition(".")[0] == key.partition(".")[0]]
    if "." not in key or same_group:
        yield from sorted(same_group or exact, key=lambda name: name.count("."))
    yield from difflib.get_close_matches(key, keys, n=2, cutoff=0.75)
    if _ALIASES.get(last) in keys:
        yield _ALIASES[last]
    lasts = {name.rpartition(".")[2]: name for name in reversed(keys)}
    yield from (lasts[name] for name in difflib.get_close_matches(last, list(lasts), n=1, cutoff=0.8))


def option_hint(group: str, option: str, options: Sequence[str]) -> str:
    """Return a question that names the option of a group which a misspelt one may mean; empty for none.

    Example:
        >>> option_hint("data", "NIH", ["nih", "nih_course", "pneumonia"])
        'Did you mean data=nih?'
    """
    lower = {name.lower().replace("-", "_"): name for name in options}
    wanted = option.lower().replace("-", "_")
    if wanted in lower:
        return f"Did you mean {group}={lower[wanted]}?"
    if group == "model":
        import timm

        if timm.is_model(option.partition(".")[0]):
            return f"Did you mean model=timm model.backbone={option}?"
    if group.partition("/")[0] == "weights" and Path(option).suffix in _WEIGHT_SUFFIXES:
        return "A file of weights is model.checkpoint_path=<file>; of a named set, weights.path=<file>."
    near = difflib.get_close_matches(wanted, list(lower), n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(f'{group}={lower[name]}' for name in near)}?" if near else ""


def own_file_hint(group: str, option: str, arguments: Sequence[str], place: Path) -> str:
    """Return which ``--config-dir`` finds a file of one's own, where it lies close by; empty where none does.

    Args:
        group: Such as ``data``.
        option: Such as ``mine``, which cxrlab has not.
        arguments: Of the command line.
        place: Where the command was started.
    """
    words = [part for argument in arguments for part in argument.split("=", 1)]
    given = [Path(value) for name, value in pairwise(words) if name in ("--config-dir", "-cd")]
    near = [*given, *(folder.parent for folder in given), place, place / "conf"]
    with suppress(OSError):
        near += [path for path in sorted(place.iterdir())[:_MOST_FOLDERS] if path.is_dir()]
        near += sorted(place.glob("outputs/prepare/*/*/conf"), reverse=True)[:_MOST_FOLDERS]
    for folder in near:
        if (place / folder / group / f"{option}.yaml").is_file():
            shown = folder.relative_to(place) if folder.is_relative_to(place) else folder
            return (
                f"{shown / group / option}.yaml is a file of your own: say where by "
                f"--config-dir {shell(str(shown))}"
            )
    return ""


def hint(message: str, arguments: Sequence[str]) -> str:
    """Return what may have been meant where Hydra says that a key or an option is not there; else nothing.

    Args:
        message: Of Hydra.
        arguments: Of the command line.
    """
    missing = re.search(r"Could not find '(?P<group>[\w/]+)/(?P<option>[^']+)'", message)
    if missing:
        options = re.findall(r"^\t(\S+)$", message, re.M)
        own = own_file_hint(missing["group"], missing["option"], arguments, Path.cwd())
        known = [name for name in options if name != "base"]
        name = f"{missing['group']}/{missing['option']}.yaml"
        return (
            own
            or option_hint(missing["group"], missing["option"], known)
            or f"Is {name} a file of your own? Then --config-dir <the folder that holds {name}> finds it."
        )
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", message)
    if not unknown:
        return ""
    given = (argument for argument in arguments if argument.lstrip("+~").partition("=")[0] == unknown["key"])
    return key_hint(next(given, unknown["key"]), command_keys(arguments))


def command_keys(arguments: Sequence[str]) -> list[str]:
    """Return the dotted keys of the command that runs, with the groups that its command line chooses."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from cxrlab.cli.config import config_dir

    command = Path(sys.argv[0]).stem
    if not (config_dir() / f"{command}.yaml").is_file():
        return []
    groups = [
        argument
        for argument in arguments
        if (config_dir() / argument.partition("=")[0].lstrip("+")).is_dir() and "," not in argument
    ]
    for overrides in (groups, []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                return list(dotted(compose(command, overrides=list(overrides))))
        except HydraException:
            continue
    return []


def dotted(node: object, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of the values below a node."""
    from omegaconf import DictConfig

    if not isinstance(node, DictConfig | Mapping):
        return
    for name in node:
        inner = node._get_node(name) if isinstance(node, DictConfig) else node[name]
        key = f"{prefix}{name}"
        is_node = isinstance(inner, DictConfig) and not (inner._is_none() or inner._is_interpolation())
        if is_node or isinstance(inner, dict):
            yield from dotted(inner, f"{key}.")
        else:
            yield key
