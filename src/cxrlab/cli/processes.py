"""One training in several processes that torchrun, srun or Lightning start: which is the first, its folder.

All are the same command, and each composes its config by itself. The time in the name of a run's folder would
be another one for each; so the first process chooses the folder, and tells the others.
"""

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict, read_write

from cxrlab.errors import ConfigError
from cxrlab.files import write_text

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_MINUTES_TO_WAIT = 5

# Until a process whose first one was killed has said so by itself.
_SECONDS_TO_SPEAK = 10


def starter(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what started several processes of one training: ``torchrun`` or ``srun``; None for neither.

    Those that Lightning starts by itself are given the folder of the first one.

    Example:
        >>> starter({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train"})
        'srun'
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun" if environment.get("WORLD_SIZE", "1") != "1" else None
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # Lightning takes no notice of these
        return None
    return "srun" if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1" else None


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process among those of its training, as far as its environment tells it."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):  # in Lightning's order
        if (value := environment.get(name, "")).isdigit():
            return int(value)
    return 0


def is_later() -> bool:
    """Tell whether this is not the first of several processes that torchrun, srun or Lightning started."""
    return rank() > 0


def tell_folder(config: DictConfig) -> None:
    """Tell the other processes that torchrun or srun started which folder the run has.

    Args:
        config: Hydra's own beside that of the command.
    """
    if starter() is not None:
        _tell(str(Path(str(config.hydra.run.dir)).absolute()))


def take_folder(config: DictConfig) -> None:
    """Take the folder of the first process; those that Lightning starts are given it by their command.

    Raises:
        SystemExit: If the first process does not tell it.
    """
    if starter() is None:
        _end_with_parent()
        return
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.run.dir = _told()
        config.hydra.job.name = f"train_ddp_process_{rank()}"  # as Lightning calls them, and their logs
        config.hydra.output_subdir = None


def check_alone() -> None:
    """Refuse a sweep that each of several processes would start.

    Raises:
        SystemExit: Naming what starts a sweep of jobs on several devices.
    """
    if (started_by := starter()) is not None:
        raise SystemExit(
            f"{started_by} started several processes, and each of them would start the whole sweep: start it "
            "once, with hydra/launcher=processes or hydra/launcher=slurm, which start each job so."
        )


def _tell(folder: str) -> None:
    if starter() == "torchrun":
        _store().set(_key(), folder)
        return
    while True:
        _file().parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a job that has just ended here took it away
            write_text(_file(), folder)
            return


def _told() -> str:
    if starter() == "torchrun":
        try:
            folder: bytes = _store().get(_key())
        except RuntimeError:
            raise SystemExit(_not_told()) from None
        return folder.decode()
    end = time.monotonic() + 60 * _MINUTES_TO_WAIT
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if text := _file().read_text(encoding="utf-8"):
                return text
        time.sleep(0.2)
    raise SystemExit(_not_told())


def _not_told() -> str:
    return (
        f"Process {rank()} was not told the run's folder by the first one within {_MINUTES_TO_WAIT} minutes. "
        "What the first one says tells why; on several machines they must see the same file system."
    )


def _store() -> "TCPStore":
    """Return the store that torchrun keeps for its processes."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # slow

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise SystemExit(
            "This torchrun shares no store with its processes (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), so "
            "that they cannot agree on a folder: unset it."
        )
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(minutes=_MINUTES_TO_WAIT))


def _key() -> str:
    return "cxrlab/folder/" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _file() -> Path:
    """Return the file in which the first process tells the folder: one a step of a job, and start of it."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    step = ".".join(os.environ.get(name, "0") for name in names)
    return Path(".cxrlab") / f"folder_of_step_{step}"


def _end_with_parent() -> None:
    """End this process, which Lightning started, soon after the first one was killed.

    With some networks it would wait for the first one for half an hour.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(_SECONDS_TO_SPEAK)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def check_started(cfg: DictConfig) -> None:
    """Refuse a training that is not of as many processes as were started.

    Args:
        cfg: As in conf/train.yaml.

    Raises:
        ConfigError: Naming what to set.
    """
    started_by = starter()
    if started_by is None:
        _check_not_awaited(cfg)
        return
    if started_by == "torchrun":
        total, here = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        nodes = total // here
    else:
        total, nodes = (int(os.environ[f"SLURM_STEP_NUM_{name}"]) for name in ("TASKS", "NODES"))
        here = total // nodes
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise ConfigError(
                f"srun started {total} processes on {nodes} nodes, and Lightning wants to be told how many "
                f"run on each: give sbatch or srun --ntasks-per-node={here} in the place of --ntasks."
            )
    devices, num_nodes = cfg.trainer.get("devices"), cfg.trainer.get("num_nodes") or 1
    is_all = str(devices) in ("-1", "auto") and cfg.trainer.get("accelerator") != "cpu"
    if (is_all or str(devices) == str(here)) and num_nodes == nodes:
        return
    raise ConfigError(
        f"{started_by} started {here} processes on each of {nodes} nodes, but trainer.devices={devices} and "
        f"trainer.num_nodes={num_nodes}: give trainer=ddp trainer.devices={here} trainer.num_nodes={nodes}."
    )


def _check_not_awaited(cfg: DictConfig) -> None:
    """Refuse to wait for processes that nobody starts; Lightning takes a job of several tasks for srun's."""
    num_tasks, name = os.environ.get("SLURM_NTASKS", "1"), os.environ.get("SLURM_JOB_NAME")
    is_alone = str(cfg.trainer.get("devices")) == "1" and cfg.trainer.get("num_nodes") in (1, None)
    if num_tasks == "1" or name in ("bash", "interactive") or "TORCHELASTIC_RUN_ID" in os.environ or is_alone:
        return
    raise ConfigError(
        f"This job of SLURM has {num_tasks} tasks, and srun did not start this command for each of them: put "
        "srun before it."
    )


def remove_told() -> None:
    """Remove what the first process told those of a step of SLURM."""
    if starter() == "srun" and rank() == 0:
        with contextlib.suppress(OSError):
            _file().unlink(missing_ok=True)
            _file().parent.rmdir()
