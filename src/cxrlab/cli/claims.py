"""Who writes to a folder: one process at a time, over network file systems too.

A claim is a small file in the folder that names its owner. It is made by exclusive creation, which is atomic
also over NFS, where locks often are not; and unlike a lock of the operating system it says who has it.
"""

import atexit
import contextlib
import datetime
import json
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cxrlab.cli.processes import is_later
from cxrlab.errors import ConfigError
from cxrlab.files import remove_leftovers

log = logging.getLogger(__name__)

_NAME = re.compile(r"\.in_use\.(\d+)")

# Claims that this process holds, one a line, for the processes that it starts: they write to its folder too.
_INHERITED = "CXRLAB_CLAIMS"

# A claim is made and then written: how long a file without an owner may be one that is being written.
_SECONDS_TO_WRITE = 2.0


class FolderInUseError(ConfigError):
    """Another process writes to the folder."""


@dataclass(frozen=True)
class Owner:
    """The process that a claim belongs to.

    Attributes:
        host: Name of its machine.
        machine: What else tells machines apart; several may have one name.
        pid: Its number there.
        namespace: What its number counts in; containers have their own.
        start: When it began, in ticks since the machine did: numbers are used again. None where unknown.
        since: When it made the claim, for people.
        command: Its command line.
        job: The job of SLURM that it is of, and how often that was started again; "" outside of one.
    """

    host: str
    machine: str
    pid: int
    namespace: str
    start: str | None
    since: str
    command: str
    job: str = ""

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return this process."""
        return cls(
            host=platform.node(),
            machine=_text(Path("/etc/machine-id")),
            pid=os.getpid(),
            namespace=_namespace(),
            start=_start(os.getpid()),
            since=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            command=_shortened(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
            job=_job(),
        )

    def words(self) -> str:
        """Return who it is, for people."""
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"

    def is_here(self) -> bool:
        """Tell whether it can be told from this process whether the owner lives."""
        here = Owner.of_this_process()
        return (self.host, self.machine, self.namespace) == (here.host, here.machine, here.namespace)

    def is_dead(self) -> bool:
        """Tell whether the owner is known to have ended.

        Of another machine's that is known of an earlier start of this same job only: SLURM ends a job, with
        SIGKILL in the end, before it starts it again.
        """
        before, now = (re.fullmatch(r"(\S+) (\d+)", str(job)) for job in (self.job, _job()))
        if before is not None and now is not None and before[1] == now[1] and int(before[2]) < int(now[2]):
            return True
        if not self.is_here() or os.name == "nt":
            return False
        if self.start is not None:
            return _start(self.pid) != self.start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another person's
            return False
        return False


def _shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _job() -> str:
    """Return the number of SLURM's job, and how often that was started again: ``4711 1``."""
    number, restarts = (os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "RESTART_COUNT"))
    return f"{number} {restarts if restarts.isdigit() else 0}" if number else ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """Return when a process began; None where there is none, it has ended, or the system does not say."""
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":  # a zombie has ended, its parent did not look yet
        return None
    return f"{_text(Path('/proc/sys/kernel/random/boot_id'))} {fields[19]}"


@dataclass(frozen=True)
class _Claim:
    path: Path
    pid: int

    def release(self) -> None:
        if self.pid == os.getpid():  # not in a process that was forked from the owner
            self.path.unlink(missing_ok=True)


_held: dict[Path, _Claim] = {}


def claim(folder: Path) -> None:
    """Claim a folder for this process until it ends or releases it; the folder is made where there is none.

    What this process, or the one that started it, holds already is no obstacle. The claim of a process that
    has ended on this machine is taken over.

    Raises:
        FolderInUseError: If another process has it, naming that process.
        OSError: If nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = folder.resolve()
    if (key in _held and _held[key].pid == os.getpid()) or is_later():
        return
    while True:
        paths = _claims(folder)
        last = max(paths, default=0)
        if last:
            if str(paths[last].resolve()) in os.environ.get(_INHERITED, "").split("\n"):
                return
            _check_abandoned(folder, paths[last])
        # One above the last: of two that take over the claim of a dead process only one can make it.
        path = folder / f".in_use.{last + 1}"
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(asdict(Owner.of_this_process()), file)
        except FileExistsError:
            continue
        paths = _claims(folder)
        if max(paths, default=0) > last + 1:  # another was faster, by two
            path.unlink(missing_ok=True)
            continue
        for number, old in paths.items():
            if number <= last:
                old.unlink(missing_ok=True)
        break
    remove_leftovers(folder)
    _held[key] = _Claim(path.resolve(), os.getpid())
    _tell_children()


def release(folder: Path) -> None:
    """Let others have a folder; of one that this process does not hold, nothing happens."""
    held = _held.pop(folder.resolve(), None)
    if held is not None:
        held.release()
        _tell_children()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder within a block; what is held already is kept after it too.

    Raises:
        FolderInUseError: If another process has it, naming that process.
    """
    is_held = folder.resolve() in _held
    claim(folder)
    try:
        yield
    finally:
        if not is_held:
            release(folder)


def user_of(folder: Path) -> str | None:
    """Return who writes to a folder, in words; None where it is nobody that lives, or this process."""
    paths = _claims(folder)
    if not paths or folder.resolve() in _held or not paths[max(paths)].is_file():
        return None
    owner = _owner(paths[max(paths)])
    return None if owner is None or owner.is_dead() else owner.words()


def forget_claim(folder: Path) -> None:
    """Remove the claim that a job of SLURM has left in a folder, once SLURM has ended it.

    Whether a process of another machine lives cannot be seen from here; the queue knows.
    """
    for path in _claims(folder).values():
        owner = _owner(path)
        if owner is not None and owner.job:
            path.unlink(missing_ok=True)


def is_claim(path: Path) -> bool:
    """Tell whether a file of a folder is a claim of it."""
    return _NAME.fullmatch(path.name) is not None


def _claims(folder: Path) -> dict[int, Path]:
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob(".in_use.*"))
    return {int(match[1]): path for match, path in found if match is not None}


def warn_if_in_use(run_dir: Path) -> None:
    """Say that a run which is about to be read is still being written: it has no last word yet."""
    if (user := user_of(run_dir)) is not None:
        log.warning(
            "%s is in use by %s: what is taken is its best epoch so far, and later ones may differ.",
            run_dir,
            user,
        )


def _check_abandoned(folder: Path, path: Path) -> None:
    owner = _owner(path)
    if owner is not None and (owner.is_dead() or not path.exists()):
        return
    if owner is None:
        if not path.exists():
            return
        who, advice = "an unknown process", f" If there is none, remove {path}."
    else:
        who = owner.words()
        advice = "" if owner.is_here() else f" If that process has ended, remove {path}."
    raise FolderInUseError(
        f"{folder} is in use by {who}. Wait for it to end, or choose another folder by "
        f"hydra.run.dir=<folder>.{advice}"
    )


def _owner(path: Path) -> Owner | None:
    """Return whose claim it is; None where the file is gone, or does not say after a while."""
    end = time.monotonic() + _SECONDS_TO_WRITE
    while path.exists():
        with contextlib.suppress(OSError, ValueError, TypeError):
            if not path.is_file():  # a pipe, which would be waited for
                return None
            owner = Owner(**json.loads(path.read_text(encoding="utf-8")))
            if isinstance(owner.pid, int):
                return owner
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return None


def _tell_children() -> None:
    inherited = [str(held.path) for held in _held.values() if held.pid == os.getpid()]
    if inherited:
        os.environ[_INHERITED] = "\n".join(inherited)
    else:
        os.environ.pop(_INHERITED, None)


@atexit.register
def _release_all() -> None:
    for held in list(_held.values()):
        with contextlib.suppress(OSError):
            held.release()
