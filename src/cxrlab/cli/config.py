"""Hydra's side of the project: where conf/ lies, following its references, building from it.

Where a command writes what it finds about a run: below the run, and never over what is there.
"""

import datetime
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlab.errors import ConfigError, MissingFileError, UserError
from cxrlab.files import user_cache_dir


def evaluation_dir(run: object, name: str | None, part: str | None, data: str | None) -> str:
    """Return where an evaluation goes: below its run, or for several runs into a folder of its own.

    Args:
        run: A run directory, or a list of them.
        name: Of the folder; None for the data set's name and the part.
        part: That is evaluated; None for the default.
        data: Option of the data group; None for the run's own.

    Raises:
        MissingFileError: If the run is none.
        ConfigError: If the name cannot be that of a folder, or is taken.
    """
    one = _single(run)
    if one is None:
        return f"outputs/evaluate/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}"
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(one, "evaluations", name, stem, made="evaluation.json")


def explanation_dir(run: object, name: str | None, part: str | None, data: str | None, images: object) -> str:
    """Return where heatmaps go: below their run.

    Args:
        run: A run directory.
        name: Of the folder; None for ``images``, or the data set's name and the part.
        part: That is explained; None for the default.
        data: Option of the data group; None for the run's own.
        images: Files that are explained; None for a part of a data set.

    Raises:
        MissingFileError: If the run is none.
        ConfigError: If there is none, or the name cannot be that of a folder, or is taken.
    """
    one = _single(run)
    if one is None:
        raise ConfigError("Give run=<a run directory>: whose heatmaps are wanted?")
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(one, "explanations", name, "images" if images else stem, made="provenance.json")


def _single(run: object) -> str | None:
    """Return the one run that is named, be it alone or in a list; None for several."""
    if isinstance(run, Sequence) and not isinstance(run, str) and len(run) == 1:
        run = run[0]
    return run if isinstance(run, str) else None


def _below(run: str, kind: str, name: str | None, stem: str, *, made: str) -> str:
    run_dir = Path(run).expanduser()
    if not (run_dir / "checkpoints").is_dir():
        raise MissingFileError(
            f"run={run} is no run directory: it holds no checkpoints.{run_above(run_dir, 'run')}"
        )
    folder = run_dir / kind
    if name is not None:
        if not re.fullmatch(r"[\w+=-][\w.+=-]*", str(name)):
            raise ConfigError(f"name={name} must be a plain name of a folder: letters, digits, - and _.")
        if (folder / str(name) / made).is_file():
            raise ConfigError(f"name={name}: {folder / str(name)} holds results already. Choose another.")
        return str(folder / str(name))
    taken = {path.parent.name for path in folder.glob(f"*/{made}")}
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return str(folder / next(one for one in itertools.chain([stem], numbered) if one not in taken))


def run_above(path: Path, key: str) -> str:
    """Return a hint for a message where a folder above a path is a run directory; else nothing."""
    runs = [str(parent) for parent in path.parents if (parent / ".hydra").is_dir()]
    return f" Did you mean {key}={runs[0]}?" if runs else ""


# Keys that earlier runs lack; their defaults are what was done then.
_NEWER = ("evaluation", "report", "task", "views", "decay_norms_and_biases", "layer_rates", "explanation")


# What a resumed run may change; all else would make it another run.
_RESUMABLE = (
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
)


def config_dir() -> Path:
    """Return the folder of the YAML files: inside an installed package, or beside a checkout's src."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if (installed / "train.yaml").is_file() else package.parents[1] / "conf"


def _run_or_resumed(resume: str | None, fresh: str) -> str:
    if resume is None:
        return fresh
    if not (Path(resume) / ".hydra" / "config.yaml").is_file():
        hint = run_above(Path(resume), "resume")
        raise MissingFileError(f"resume={resume} is no run directory: it holds no .hydra/config.yaml.{hint}")
    return str(resume)


def _config_subdir(resume: str | None, run_dir: str) -> str | None:
    """Return where Hydra writes the config: nowhere for a resumed run, which keeps its own."""
    if resume is not None:
        return None
    check_unused_folder(Path(run_dir))  # before Hydra writes over the config of the run that is there
    return ".hydra"


def check_unused_folder(run_dir: Path) -> None:
    """Keep what an earlier run computed from being overwritten, or mixed with another's.

    Raises:
        ConfigError: If the folder holds a checkpoint.
    """
    found = sorted((run_dir / "checkpoints").glob("*.ckpt"))
    if found:
        raise ConfigError(
            f"{run_dir} holds a run already ({found[0].name}). Go on with it by resume={run_dir}, or choose "
            "another folder by hydra.run.dir=<folder>."
        )


def check_targets(node: object, source: str) -> None:
    """Refuse a saved config that would build anything but data of this package: it may be a stranger's.

    Raises:
        ConfigError: Naming what it would build.
    """
    from cxrlab.cli.validation import located

    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(value, source)
    if isinstance(node, str) and "${" in node:
        raise ConfigError(f"The config of {source} holds {node!r}, which is no plain value: not built.")
    target = node.get("_target_") if isinstance(node, dict) else None
    own = ("cxrlab.data.", "cxrlab.augment.")
    if target is None or (str(target).startswith(own) and located(target, source).__module__.startswith(own)):
        return
    raise ConfigError(
        f"The config of {source} names {target}, which is no data set of this package, so it was not built: "
        "a file must not choose what code runs."
    )


def register_resolvers() -> None:
    """Make the functions that the YAML files call known to OmegaConf."""
    OmegaConf.register_new_resolver("user_cache", lambda: str(user_cache_dir()), replace=True)
    OmegaConf.register_new_resolver("run_or_resumed", _run_or_resumed, replace=True)
    OmegaConf.register_new_resolver("config_subdir", _config_subdir, replace=True)
    # Kept, or their answers would change once the folder that they name is made.
    OmegaConf.register_new_resolver("evaluation_dir", evaluation_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("explanation_dir", explanation_dir, replace=True, use_cache=True)


register_resolvers()


def is_multirun() -> bool:
    """Tell whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def task_overrides() -> list[str]:
    """Return what the command line set, such as ``optimizer.lr=0.1``."""
    return [str(one) for one in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def resolved(cfg: DictConfig) -> DictConfig:
    """Return a copy with every reference followed.

    Raises:
        ConfigError: If a value that the user must give is not given, or a reference leads nowhere.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} is not set. Give it on the command line: {missing[0]}=...")
    copy = cfg.copy()
    try:
        OmegaConf.resolve(copy)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The config cannot be resolved: {error}") from error
    return copy


def checked(cfg: DictConfig, hints: Mapping[str, Any]) -> DictConfig:
    """Return the config with references followed and every key and value checked; touches no data.

    Args:
        cfg: As it was composed.
        hints: Types of the plain values; all others are checked against what they build.

    Raises:
        ConfigError: Naming the key and the value.
    """
    from cxrlab.cli.validation import check_node, check_value

    cfg = resolved(cfg)
    for key, hint in hints.items():
        value = OmegaConf.select(cfg, key)
        check_value(plain(value) if isinstance(value, ListConfig) else value, hint, key)
    node = plain(cfg)
    if OmegaConf.select(cfg, "trainer.precision") == "auto":
        node["trainer"]["precision"] = "32-true"  # Lightning does not know our word for it
    check_node(node)
    if "seed" in cfg and not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed={cfg.seed} must lie between 0 and 4294967295.")
    return cfg


def plain(node: DictConfig | ListConfig) -> Any:
    """Return a node as dicts, lists and values."""
    return OmegaConf.to_container(node, resolve=True)


def build(node: DictConfig, **arguments: Any) -> Any:
    """Build what a node's ``_target_`` names; errors of the code come through as they are.

    Raises:
        ConfigError: If it cannot be called so.
        UserError: Whatever the code itself raises.
    """
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        known = user_error(error)
        if known is not None:
            raise known from None
        raise ConfigError(str(error)) from error


def guarded(node: DictConfig, key: str) -> Callable[..., Any]:
    """Build a node that waits for arguments of the code; what it then refuses is told as the key's fault."""
    function = build(node)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            from lightning_fabric.utilities.exceptions import MisconfigurationException

            if not isinstance(error, (ValueError, TypeError, MisconfigurationException)):
                raise
            raise ConfigError(f"{key} does not fit: {error}") from error

    return call


def resumed_config(cfg: DictConfig) -> DictConfig:
    """Return the config that a run was started with, changed by what the resuming command may change.

    Raises:
        ConfigError: If the command changes anything else, or is a multirun.
        MissingFileError: If the run never finished an epoch.
    """
    run_dir = Path(cfg.resume)
    if is_multirun():
        raise ConfigError("resume= continues one run; it cannot be part of a multirun.")
    if not (run_dir / "checkpoints" / "last.ckpt").is_file():
        raise MissingFileError(
            f"resume={run_dir}: there is no checkpoints/last.ckpt, so nothing was saved to go on from."
        )
    saved = OmegaConf.load(run_dir / ".hydra" / "config.yaml")
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{run_dir}/.hydra/config.yaml holds no config.")
    saved = completed(saved)
    for key in _NEWER:
        if key not in saved:
            saved[key] = cfg[key]
    for override in task_overrides():
        key = override.split("=", 1)[0].lstrip("+~")
        if key == "resume":
            continue
        if not any(key == known or key.startswith(f"{known}.") for known in _RESUMABLE):
            raise ConfigError(
                f"{override} cannot change a run that is resumed; only {', '.join(_RESUMABLE)} can. "
                "Start a new run."
            )
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    saved.resume = str(run_dir)
    saved.run_dir = str(run_dir.resolve())
    return saved


def completed(saved: DictConfig) -> DictConfig:
    """Return an earlier run's config with the keys that did not exist then; references stay references."""
    from cxrlab.cli.earlier_config import complete

    node: Any = OmegaConf.to_container(saved, resolve=False)
    complete(node)
    filled: DictConfig = OmegaConf.create(node)
    return filled


def user_error(error: BaseException) -> UserError | None:
    """Return the error of our own that a library's error was raised for, or the error itself."""
    cause: BaseException | None = error
    while isinstance(cause, (OmegaConfBaseException, InstantiationException)):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, UserError) else None
