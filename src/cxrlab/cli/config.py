"""Hydra's side of the project: where conf/ lies, following its references, building from it.

Where a command writes what it finds about a run: below the run, and never over what is there.
"""

import datetime
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlab.cli.claims import claim
from cxrlab.errors import ConfigError, MissingFileError, UserError
from cxrlab.files import RunDir, check_links, read_yaml, user_cache_dir
from cxrlab.files import config_dir as config_dir  # by this name the commands know it

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.models.preprocess import Preprocess


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
    single_run = _single(run)
    if single_run is None:
        return f"outputs/evaluate/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}"
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(single_run, "evaluations", name, stem, made="evaluation.json")


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
    single_run = _single(run)
    if single_run is None:
        raise ConfigError("Give run=<a run directory>: whose heatmaps are wanted?")
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(single_run, "explanations", name, "images" if images else stem, made="provenance.json")


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
    check_links(folder, run_dir)  # before Hydra opens a log there
    if name is not None:
        if not re.fullmatch(r"[\w+=-][\w.+=-]*", str(name)):
            raise ConfigError(f"name={name} must be a plain name of a folder: letters, digits, - and _.")
        if (folder / str(name) / made).is_file():
            raise ConfigError(f"name={name}: {folder / str(name)} holds results already. Choose another.")
        return str(folder / str(name))
    taken = {path.parent.name for path in folder.glob(f"*/{made}")}
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return str(
        folder
        / next(folder_name for folder_name in itertools.chain([stem], numbered) if folder_name not in taken)
    )


def trains_on_one_device(cfg: DictConfig) -> bool:
    """Tell whether a training of this config is one process."""
    return cfg.trainer.get("devices") in (1, "1") and cfg.trainer.get("num_nodes") in (1, None)


def run_above(path: Path, key: str) -> str:
    """Return a hint for a message where a folder above a path is a run directory; else nothing."""
    runs = [str(parent) for parent in path.parents if (parent / ".hydra").is_dir()]
    return f" Did you mean {key}={runs[0]}?" if runs else ""


def _run_or_resumed(resume: str | None, fresh: str) -> str:
    if resume is None:
        return fresh
    if not (Path(resume) / ".hydra" / "config.yaml").is_file():
        hint = run_above(Path(resume), "resume")
        raise MissingFileError(f"resume={resume} is no run directory: it holds no .hydra/config.yaml.{hint}")
    check_links(Path(resume), Path(resume))  # before Hydra opens the log there
    return str(resume)


def _sweep_or_resumed(resume_sweep: str | None, fresh: str) -> str:
    if resume_sweep is None:
        return fresh
    check_links(Path(resume_sweep), Path(resume_sweep))
    return str(resume_sweep)


def _output_subdir(resume: str | None) -> str | None:
    """Claim the folder that Hydra is about to write the config to, and return where in it.

    A resumed run keeps its config.

    Raises:
        FolderInUseError: If another process writes there.
        ConfigError: If the folder holds a run already.
    """
    composed: Any = HydraConfig.instance().cfg
    if composed is not None:
        output_dir = OmegaConf.select(cast("DictConfig", composed), "hydra.runtime.output_dir")
        if output_dir is not None:  # it is None where only the config is shown
            if resume is None:  # before Hydra writes over the config of the run that is there
                check_unused_folder(Path(output_dir))
            claim(Path(output_dir))
    return ".hydra" if resume is None else None


def check_unused_folder(run_dir: Path) -> None:
    """Keep what an earlier run computed from being overwritten, or mixed with another's.

    Raises:
        ConfigError: If the folder holds a checkpoint.
    """
    checkpoints = sorted(RunDir(run_dir).checkpoints.glob("*.ckpt"))
    if checkpoints:
        raise ConfigError(
            f"{run_dir} holds a run already ({checkpoints[0].name}). Go on with it by resume={run_dir}, "
            "or choose another folder by hydra.run.dir=<folder>."
        )


def check_outside_data(output_dir: Path, root: str | None, key: str = "hydra.run.dir") -> None:
    """Keep outputs out of the data: among the images, the next run would take them for some.

    Args:
        output_dir: Where a command is about to write.
        root: Folder of the data; None where that is not given.
        key: That named the folder, for the message.

    Raises:
        ConfigError: If it is the data's folder, or lies in one of its folders of images.
    """
    if root is None or not (data := Path(root).expanduser().resolve()).is_dir():
        return
    folder = output_dir.expanduser().resolve()
    if folder == data:
        raise ConfigError(
            f"{key}={output_dir} is data.root itself: outputs would lie among the data. Choose a folder of "
            "their own."
        )
    if data not in folder.parents:
        return
    from cxrlab.data.readers._folder_images import holds_image

    outermost = data / folder.relative_to(data).parts[0]
    if outermost.is_dir() and holds_image(outermost):
        raise ConfigError(
            f"{key}={output_dir} lies in {outermost}, a folder of images of data.root={root}: outputs would "
            "be taken for images. Choose a folder outside of it."
        )


def register_resolvers() -> None:
    """Make the functions that the YAML files call known to OmegaConf."""
    OmegaConf.register_new_resolver("user_cache", lambda: str(user_cache_dir()), replace=True)
    OmegaConf.register_new_resolver("run_or_resumed", _run_or_resumed, replace=True)
    OmegaConf.register_new_resolver("sweep_or_resumed", _sweep_or_resumed, replace=True)
    OmegaConf.register_new_resolver("output_subdir", _output_subdir, replace=True)
    # Kept, or their answers would change once the folder that they name is made.
    OmegaConf.register_new_resolver("evaluation_dir", evaluation_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("explanation_dir", explanation_dir, replace=True, use_cache=True)


register_resolvers()


def is_multirun() -> bool:
    """Tell whether this is a job of a sweep, be it in the sweep's process or in one of its own."""
    return HydraConfig.initialized() and is_job_of_sweep(HydraConfig.instance().cfg)


def is_job_of_sweep(config: Any) -> bool:
    """Tell whether a config, ``hydra`` included, is of a job of a sweep, in whatever process."""
    if config.hydra.mode == RunMode.MULTIRUN:
        return True
    return not OmegaConf.is_missing(config.hydra.job, "num")


def shares_process() -> bool:
    """Tell whether this is a job in the process of its sweep, beside others."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def task_overrides() -> list[str]:
    """Return what the command line set, such as ``optimizer.lr=0.1``."""
    return (
        [str(override) for override in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []
    )


def _text_of_hydra() -> str:
    """Return what Hydra's own config says of folders, which may refer to keys of the command's."""
    hydra_cfg: Any = HydraConfig.instance().cfg
    return "" if hydra_cfg is None else str(OmegaConf.to_container(hydra_cfg, resolve=False))


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


def checked(cfg: DictConfig, hints: Mapping[str, object], command: str) -> DictConfig:
    """Return the config with references followed and every key and value checked; touches no data.

    Args:
        cfg: As it was composed.
        hints: Types of the plain values; all others are checked against what they build.
        command: Whose config it is, such as ``train``.

    Raises:
        ConfigError: Naming the key and the value.
    """
    from cxrlab.cli.validation import check_keys, check_node, check_value

    raw = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    check_keys(raw, read_yaml(config_dir() / f"{command}.yaml"), elsewhere=_text_of_hydra())
    cfg = resolved(cfg)
    for key, hint in hints.items():
        value = OmegaConf.select(cfg, key)
        check_value(plain(value) if isinstance(value, ListConfig) else value, hint, key)
    node = plain(cfg)
    if OmegaConf.select(cfg, "trainer.precision") == "auto":
        node["trainer"]["precision"] = "32-true"  # Lightning does not know our word for it
    if isinstance(node.get("trainer"), dict):
        node["trainer"].pop("compile", None)  # nor this key
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
        cause = user_error(error)
        if cause is not None:
            raise cause from None
        raise ConfigError(str(error)) from error


def build_data_like(node: DictConfig, preprocess: "Preprocess") -> "DataModule":
    """Build another data set, its images decoded as those of a trained network were.

    Args:
        node: As in conf/data.
        preprocess: The network's, which knows its images' size, channels and how they were made square.
    """
    node = node.copy()
    for name in ("image_size", "channels", "resize"):
        node[name] = getattr(preprocess, name)
    data: DataModule = build(node)
    return data


def guarded(node: DictConfig, key: str) -> Callable[..., Any]:
    """Build a node that waits for arguments of the code; what it then refuses is the key's fault."""
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
            quoted = quoted_keys(plain(node), key, str(error))
            raise ConfigError(f"{' '.join(quoted) or key} does not fit: {error}") from error

    return call


def quoted_keys(node: Mapping[str, object], key: str, message: str) -> list[str]:
    """Return the keys whose number a message quotes, such as ``optimizer.lr=-1`` for "learning rate: -1.0".

    Where the message has the name of one of them too, it is that one; of more than two none is meant.

    Example:
        >>> quoted_keys({"lr": -1, "betas": [0.9, 1.5]}, "optimizer", "Invalid beta at index 1: 1.5")
        ['optimizer.betas=[0.9, 1.5]']
    """
    quoted = {float(word) for word in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", message)}
    candidates = {
        str(name): value
        for name, value in node.items()
        if any(
            isinstance(number, int | float) and not isinstance(number, bool) and float(number) in quoted
            for number in (value if isinstance(value, list) else [value])
        )
    }
    named = {name: value for name, value in candidates.items() if name in message} or candidates
    return [f"{key}.{name}={value}" for name, value in named.items()] if len(named) <= 2 else []


def save_config(composed: DictConfig, used: DictConfig, files: RunDir) -> None:
    """Write the config as composed, for a resume, and with everything decided, for reading."""
    files.config.parent.mkdir(exist_ok=True)
    OmegaConf.save(composed, files.config)
    OmegaConf.save(used, files.resolved_config)


def user_error(error: BaseException) -> UserError | None:
    """Return the error of our own that a library's error was raised for, or the error itself."""
    cause: BaseException | None = error
    while isinstance(cause, (OmegaConfBaseException, InstantiationException)):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, UserError) else None
