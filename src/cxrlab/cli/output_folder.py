"""Hydra's callback that gives each run a folder of its own, also where several start in the same second."""

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cxrlab.cli import processes
from cxrlab.cli.claims import FolderInUseError, claim, is_claim, release
from cxrlab.cli.config import check_outside_data
from cxrlab.cli.overrides import key_of
from cxrlab.errors import ConfigError

log = logging.getLogger(__name__)

# Folders of evaluations and explanations below a run, by the file that a finished one holds.
_BELOW_RUN = {"evaluations": "evaluation.json", "explanations": "provenance.json"}


class OutputFolder(Callback):
    """Claims the folder of a command before Hydra writes to it.

    A folder that was not chosen by name gets another one where it is taken: ``12-00-00_2``. One that was
    named is claimed when Hydra asks where its config goes, see :func:`cxrlab.cli.config.output_subdir`:
    what goes wrong in a callback, Hydra turns into a warning.
    """

    def __init__(self) -> None:
        self._note: str | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose and claim the folder of a single run.

        Raises:
            SystemExit: If it lies among the images of the data, or the first of several processes does not
                tell it: Hydra would turn an error into a warning.
        """
        if processes.is_later():
            processes.take_folder(config)
            return
        if OmegaConf.select(config, "resume") is None:
            _check_outside_data(config, "hydra.run.dir")
        self._choose(config)
        with _hydra_config(config):
            processes.tell_folder(config)

    def _choose(self, config: DictConfig) -> None:
        if _names(config, "hydra.run.dir") or any(
            OmegaConf.select(config, key) is not None for key in ("resume", "name")
        ):
            return
        # Where no folder can be made, or found out, Hydra meets the same error and can tell it.
        with contextlib.suppress(OSError, OmegaConfBaseException), _hydra_config(config):
            wanted = Path(str(config.hydra.run.dir))
            folder = claim_free(wanted)
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.run.dir = str(folder)
            self._note = None if folder == wanted else _moved(wanted, folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose and claim the folder of a sweep.

        Raises:
            SystemExit: If it was named, and is another's, or lies among the images of the data: Hydra would
                turn an error into a warning.
        """
        processes.check_alone()
        _check_outside_data(config, "hydra.sweep.dir")
        wanted = Path(str(config.hydra.sweep.dir))
        is_resumed = OmegaConf.select(config, "resume_sweep") is not None
        if OmegaConf.select(config, "hydra.sweeper.join"):  # of a search, beside the one whose folder it is
            if not (is_resumed or _names(config, "hydra.sweep.dir")):
                raise SystemExit(
                    "hydra.sweeper.join=true: which search? Give resume_sweep=<its folder>, or the same "
                    "hydra.sweep.dir=<folder> in each of its commands."
                )
            return
        if is_resumed or _names(config, "hydra.sweep.dir"):
            _claim_named_sweep(wanted, is_resumed=is_resumed)
            return
        with contextlib.suppress(OSError):
            folder = claim_free(wanted)
            with read_write(config), open_dict(config):
                config.hydra.sweep.dir = str(folder)
                # From these Hydra composes each job's config anew.
                quoted = str(folder).replace('"', '\\"')
                config.hydra.overrides.hydra.append(f'hydra.sweep.dir="{quoted}"')
            if folder != wanted:
                log.info("%s", _moved(wanted, folder))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say that the folder is another: only now does the log file hear it too."""
        if self._note is not None:
            log.info("%s", self._note)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let others have the folder of the job."""
        release(Path(config.hydra.runtime.output_dir))
        processes.remove_told()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Let others have the folder of the sweep."""
        release(Path(str(config.hydra.sweep.dir)))


def _check_outside_data(config: DictConfig, key: str) -> None:
    try:
        folder, root = OmegaConf.select(config, key), OmegaConf.select(config, "data.root")
        if folder is not None:
            check_outside_data(Path(str(folder)), None if root is None else str(root), key)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    except (OSError, OmegaConfBaseException):
        pass  # Hydra meets it too, and can tell it


@contextlib.contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` be followed, as Hydra does only once it starts the job."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.set_config(config)
    try:
        yield
    finally:
        instance.cfg = before


def claim_free(wanted: Path) -> Path:
    """Claim a folder, or the first one of its name with a number, that no other run has or had.

    Args:
        wanted: Where to, if it is free.

    Raises:
        OSError: If no folder can be made there.
    """
    made = _BELOW_RUN.get(wanted.parent.name)
    for folder in _numbered(wanted, is_below_run=made is not None):
        if folder.exists() and not _is_free(folder, made):
            continue
        try:
            claim(folder)
        except FolderInUseError:
            continue
        if _is_free(folder, made):
            return folder
        release(folder)  # another made and left it in the meantime
    raise AssertionError("numbers do not end")


def _numbered(wanted: Path, *, is_below_run: bool) -> Iterator[Path]:
    yield wanted
    stem, number, sign = wanted.name, 1, "_"
    if is_below_run:  # the name may have a number already
        match = re.fullmatch(r"(.+?)(?:-(\d+))?", wanted.name)
        stem, number, sign = (match[1], int(match[2] or 1), "-") if match else (stem, number, sign)
    for following in itertools.count(number + 1):
        yield wanted.with_name(f"{stem}{sign}{following}")


def _is_free(folder: Path, made: str | None) -> bool:
    """Tell whether a folder holds nothing; below a run, nothing finished."""
    if made is not None:
        return not (folder / made).is_file()
    return all(is_claim(path) for path in folder.iterdir())


def _claim_named_sweep(folder: Path, *, is_resumed: bool) -> None:
    try:
        claim(folder)
    except FolderInUseError as error:
        raise SystemExit(str(error).replace("hydra.run.dir", "hydra.sweep.dir")) from None
    except OSError:  # Hydra meets it too
        return
    if (folder / "sweep.csv").is_file() and not is_resumed:
        raise SystemExit(
            f"{folder} holds a sweep already (sweep.csv), whose table this one would replace. Choose another "
            f"folder by hydra.sweep.dir=<folder>, or go on with that sweep: -m resume_sweep={folder}"
        )


def _names(config: DictConfig, key: str) -> bool:
    """Tell whether the command line sets a key."""
    return any(key_of(str(override)) == key for override in config.hydra.overrides.hydra)


def _moved(wanted: Path, folder: Path) -> str:
    return f"{wanted} is another run's: this one goes to {folder}"
