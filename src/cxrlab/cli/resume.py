"""The config of a run that goes on: values of the run, code of today's conf and command line.

A run directory may be a stranger's. Of its config only what today's conf/ builds at the same key is built,
what the command line names there, or what is of a trusted package; where files go is today's too. None of its
functions, such as ``${oc.env:…}``, is called: what they gave at the start stands in ``resolved.yaml``.
"""

import functools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlab.cli.config import config_dir, plain, resolved, shares_process, task_overrides
from cxrlab.cli.validation import texts_below
from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.files import RunDir, read_yaml, reading
from cxrlab.runs.run_data import would_write
from cxrlab.trust import check_trust, is_address, locate, trust_advice

log = logging.getLogger(__name__)

_CHANGEABLE = (
    "trainer",
    "callbacks",
    "logger",
    "data.root",
    "data.split.file",
    "data.num_workers",
    "data.cache_dir",
    "data.image_device",
    "test",
    "report",
    "explanation",
    "evaluation.allow_seen",
    "metrics",
    "trust",
)
"""What a resumed run may change; all else would make it another run."""

_FIXED = {
    "callbacks.best": "the best epoch so far was chosen by it, and would be replaced by a worse one",
    "callbacks.last": "it is what a resume goes on from",
    "trainer.fast_dev_run": "it saves nothing",
}
"""Keys below those that a resumed run may not change, and why."""

_GROUPS = {"trainer": "auto", "callbacks": "default", "logger": "default"}
"""Groups of which the command may name another option, and the option that the others start from."""

_HARDWARE = ("accelerator", "devices", "strategy", "num_nodes", "precision", "benchmark")
"""What any option of the trainer decides; of the rest, only what it does not have from the first one."""

_WRITING = ("trainer", "callbacks", "logger")
"""Groups whose objects write files: where to is never taken from a run."""

_LOADED = ("metrics", "report.sections")
"""Lists of dotted paths that are imported."""

_REFERENCE = re.compile(r"\$\{\.*\w[\w.\[\]-]*\}")
"""A reference to another key; all else in ``${…}`` calls a function."""

_REMEDY = "Bring it back from a copy, or start a new run."


def resumed_config(cfg: DictConfig) -> DictConfig:
    """Return the config that a run was started with, changed by what the resuming command may change.

    Raises:
        ConfigError: If the command changes anything else, or is a multirun; or if the run's config names code
            that neither today's conf, nor the command line, nor ``trust`` names.
        MissingFileError: If the run never finished an epoch.
    """
    files = RunDir(Path(cfg.resume))
    if shares_process():
        raise ConfigError(
            "resume= continues one run; it cannot be part of a multirun. A sweep goes on by "
            "-m resume_sweep=<its folder>."
        )
    starts_again = not files.last_checkpoint.is_file()
    if starts_again and not files.best_checkpoint.is_file():
        raise MissingFileError(
            f"resume={files}: there is no checkpoints/last.ckpt, so nothing was saved to go on from."
        )
    check_trust(cfg.trust)
    node = read_yaml(files.config, _REMEDY)
    for group in ("data", "model", "trainer"):
        if not isinstance(node.get(group), dict):
            raise ConfigError(f"{files.config} has no {group}: it was cut short or edited. {_REMEDY}")
    # What is not the run's to choose, before any reference is followed: above all where something is written.
    node |= {"resume": str(files), "run_dir": str(files.path.resolve()), "trust": list(cfg.trust)}
    node["data"]["cache_dir"] = OmegaConf.select(cfg, "data.cache_dir")
    _take_references(node)
    _take_values(node, read_yaml(files.resolved_config, _REMEDY) if files.resolved_config.is_file() else {})
    saved: DictConfig = OmegaConf.create(node)
    at_start = _overrides_of(files)
    for override in task_overrides():
        _apply(override, cfg, saved, at_start)
    if starts_again:
        log.warning(
            "%s was killed as its first epoch was saved: there is a best.ckpt, but no last.ckpt to go on "
            "from. It starts again from the first epoch.",
            files,
        )
        saved.resume = None
    if saved.get("test") == "auto":
        saved.test = True  # now: what is checked must not change, by ${test}, once it was checked
    _check(saved, cfg, files)
    return saved


def _overrides_of(files: RunDir) -> list[str]:
    """Return what the command line set as the run was started; nothing where that is not known."""
    words = yaml.safe_load(files.overrides.read_text(encoding="utf-8")) if files.overrides.is_file() else []
    return [str(word) for word in words] if isinstance(words, list) else []


def _apply(override: str, cfg: DictConfig, saved: DictConfig, at_start: Sequence[str]) -> None:
    """Put what the command line sets into a run's config, if it may be changed or is what it was."""
    key = override.split("=", 1)[0].lstrip("+~")
    if key == "resume":
        return
    value = OmegaConf.select(cfg, key)
    for fixed, reason in _FIXED.items():
        is_other = not OmegaConf.is_config(value) and OmegaConf.select(saved, key) != value
        if (key == fixed or key.startswith(f"{fixed}.")) and is_other:
            raise ConfigError(f"{override} cannot change a run that is resumed: {reason}. Start a new run.")
    if key in _GROUPS and OmegaConf.is_config(value):
        OmegaConf.update(saved, key, _with_option(key, value, saved), merge=False, force_add=True)
    elif any(key == name or key.startswith(f"{name}.") for name in _CHANGEABLE):
        OmegaConf.update(saved, key, value, merge=False, force_add=True)
    elif override not in at_start and (value is None or OmegaConf.select(saved, key) != value):
        raise ConfigError(
            f"{override} cannot change a run that is resumed; only {', '.join(_CHANGEABLE)} can. "
            "Start a new run."
        )


def _with_option(group: str, todays: DictConfig, saved: DictConfig) -> dict[str, Any]:
    """Return a group of a run's config with another option of it: what that option says, and no more.

    An option is composed onto the one that the others start from, whose values would otherwise replace what
    the run was started with: ``trainer=gpu`` must not bring back the usual number of epochs.
    """
    usual = yaml.safe_load((config_dir() / group / f"{_GROUPS[group]}.yaml").read_text(encoding="utf-8"))
    new: Any = OmegaConf.to_container(todays, resolve=False)
    old: Any = OmegaConf.to_container(saved.get(group) or OmegaConf.create({}), resolve=False)
    always = _HARDWARE if group == "trainer" else ()
    kept: dict[str, Any] = {
        key: old[key]
        for key, value in new.items()
        if key in old and key not in always and key in usual and usual[key] == value
    }
    more: dict[str, Any] = (
        {key: value for key, value in old.items() if key not in new} if group == "trainer" else {}
    )
    merged: dict[str, Any] = new | kept | more
    return merged


def _check(saved: DictConfig, today: DictConfig, files: RunDir) -> None:
    """Refuse what a run's config would have built, imported or written that today's does not name."""
    trust = list(today.trust)
    node = plain(resolved(saved))
    for key, described in _described(node):
        target = described["_target_"]
        if target in _todays_targets(key, today):
            continue
        if _is_trusted(target, trust):
            locate(str(target), (), trust, source=str(files.config))  # its own, not what it imports
            continue
        raise ConfigError(
            f"{files.config} names {key}._target_={target}, which today's conf/ does not name there, so "
            f"it was not built: a run must not choose what code runs.{trust_advice(target)} Or name it on "
            "the command line again."
        )
    for key in _LOADED:
        todays = OmegaConf.select(today, key) or []
        for path in OmegaConf.select(saved, key) or []:
            if path not in todays and not _is_trusted(path, trust):
                raise ConfigError(
                    f"{files.config} names {path} in {key}, so it was not imported: a run must not choose "
                    f"what code runs.{trust_advice(path)} Or name it on the command line again."
                )
    for key, text in texts_below(node, ""):
        if is_address(text) and _todays_value(today, key) != text:
            raise ConfigError(
                f"{files.config} holds {key}={text}: nothing is fetched for a run's file. If it is yours, "
                "give it on the command line again."
            )
    _check_paths(node, today, files, Path(saved.run_dir))
    _check_reader(node, today, files)


def _check_reader(node: Mapping[str, Any], today: DictConfig, files: RunDir) -> None:
    """Refuse a reader that would write into a folder that a run chose."""
    reader, root = node["data"].get("reader"), str(node["data"].get("root"))
    if not isinstance(reader, Mapping) or root == str(_todays_value(today, "data.root")):
        return
    with reading(files.config, _REMEDY):
        arguments = {name: value for name, value in reader.items() if not name.startswith("_")}
        if what := would_write(str(reader.get("_target_")), arguments, Path(root).expanduser()):
            raise ConfigError(
                f"{files.config} would have {what} written below data.root={root}, where they are not. To "
                f"have that done, give data.root={root} on the command line."
            )


def _check_paths(node: Mapping[str, Any], today: DictConfig, files: RunDir, run_dir: Path) -> None:
    """Check, with references followed, that what writes files writes where today's config lets it."""
    conf, _ = _conf(_folders())
    for group in _WRITING:
        for key, described in _described(node.get(group), group):
            for name, path in _references(conf.get(key, []), described):
                value, own = described.get(name), path.replace("${run_dir}", str(run_dir))
                if value != own and _todays_value(today, f"{key}.{name}") != value:
                    raise ConfigError(
                        f"{files.config} holds {key}.{name}={value}, where today's conf/ has {own}: not "
                        "used. If it is yours, give it on the command line again."
                    )
        for key, text in texts_below(node.get(group), group):
            if _leads_out(text, run_dir) and _todays_value(today, key) != text:
                raise ConfigError(
                    f"{files.config} holds {key}={text}, a path outside of the run: not used. If it is "
                    "yours, give it on the command line again."
                )


def _is_trusted(target: object, trust: Sequence[str]) -> bool:
    return isinstance(target, str) and target.partition(".")[0] in trust


def _todays_value(today: DictConfig, key: str) -> object:
    try:
        return OmegaConf.select(today, key)
    except OmegaConfBaseException:  # not a key of today's config, such as that of an item of a list
        return None


def _described(node: object, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every description of something to be built, with its dotted path."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from _described(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _described(value, f"{key}[{place}]")


def _leads_out(text: str, run_dir: Path) -> bool:
    """Tell whether a text would be a path out of a run directory, or an address; a relative one is inside."""
    if "://" in text or "::" in text:  # fsspec, by which Lightning writes, takes file:///etc and the like
        return True
    if not text.startswith(("/", "~")) and ".." not in Path(text).parts:
        return False
    return text.startswith("~") or not (run_dir / text).resolve().is_relative_to(run_dir)


def _todays_targets(key: str, today: DictConfig) -> set[str]:
    """Return what today's conf/ or command line builds at a key."""
    nodes, references = _conf(_folders())
    at_key = nodes.get(key, []) + nodes.get(references.get(key, ""), [])
    targets = {str(node["_target_"]) for node in at_key}
    composed = _todays_value(today, key)
    if isinstance(composed, DictConfig) and "_target_" in composed:
        targets.add(str(composed["_target_"]))
    return targets


def _take_values(saved: Any, given: Any) -> None:
    """Put, in place, what the run's functions gave at its start in the place of their calls.

    Where the run does not say it, the value is missing, and is asked for on the command line.

    Args:
        saved: Of the config as it was composed, a dict or list.
        given: The same of ``resolved.yaml``, as far as it is there.
    """
    for name, value in list(saved.items() if isinstance(saved, dict) else enumerate(saved)):
        is_there = (isinstance(given, dict) and name in given) or (
            isinstance(given, list) and isinstance(name, int) and name < len(given)
        )
        other = given[name] if is_there else MISSING
        if isinstance(value, dict | list):
            _take_values(value, other)
        elif isinstance(value, str) and "${" in _REFERENCE.sub("", value):
            saved[name] = MISSING if "${" in str(other) else other


def _take_references(saved: Mapping[str, object]) -> None:
    """Set, in place, the paths of what writes files as today's conf/ sets them: below the run directory."""
    nodes, _ = _conf(_folders())
    for group in _WRITING:
        for key, described in _described(saved.get(group), group):
            if isinstance(described, dict):
                described.update(_references(nodes.get(key, []), described))


def _references(nodes: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the paths below the run directory that today's conf/ gives to what is built, by parameter."""
    return [
        (name, value)
        for node in nodes
        if node["_target_"] == described["_target_"]
        for name, value in node.items()
        if isinstance(value, str) and "${run_dir}" in value
    ]


def _folders() -> tuple[Path, ...]:
    """Return today's folders of configs: the project's, and those of ``--config-dir``."""
    folders = [config_dir()]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders += [Path(source.path) for source in sources if source.schema == "file"]
    return tuple(dict.fromkeys(folders))


@functools.cache
def _conf(folders: tuple[Path, ...]) -> tuple[dict[str, list[Mapping[str, object]]], dict[str, str]]:
    """Return what conf/ builds, by key; and keys that refer to another, as data.augment does."""
    nodes: dict[str, list[Mapping[str, object]]] = {}
    references: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            content = yaml.safe_load(text)
            package = re.match(r"# @package (\S+)", text)
            where = ".".join(path.relative_to(folder).parent.parts) if package is None else package[1]
            where = "" if where == "_global_" else where
            for key, node in _described(content, where):
                nodes.setdefault(key, []).append(dict(node))
            for key, value in texts_below(content, where):
                if (reference := re.fullmatch(r"\$\{([\w.]+)\}", value)) is not None:
                    references[key] = reference[1]
    return nodes, references
