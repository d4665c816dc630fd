"""What every command shares on the terminal: errors as messages, log lines, lists in arguments."""

import contextlib
import errno
import logging
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from cxrlab import errors
from cxrlab.cli.config import user_error
from cxrlab.cli.overrides import advice, appended, bare_words
from cxrlab.cli.processes import is_later
from cxrlab.cli.suggestions import hint
from cxrlab.errors import OutOfMemoryError, UserError

log = logging.getLogger(__name__)

# As a shell tells of a program whose reader is gone.
_BROKEN_PIPE = 128 + 13

# Which command has set HYDRA_FULL_ERROR for itself: the processes that it starts inherit it, and want none.
_SET_BY = "CXRLAB_FULL_ERROR_OF"

# What ends a command, beside Ctrl-C; Windows has no SIGUSR1.
_STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]

_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}


class ErrorLog(Callback):
    """Logs the error that a job ended with, so that it stands in the log file too."""

    reported: tuple[BaseException, ...] = ()
    wants_traceback = False

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log an error, and remember it: it is not to be said twice."""
        error = job_return._return_value if job_return.status is JobStatus.FAILED else None
        if isinstance(error, BaseException):
            log.error("%s", message(error), exc_info=None if _is_user_error(error) else error)
            ErrorLog.reported += (error,)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """End the command where its error is said: Hydra would print the overrides behind it.

        In a sweep Hydra does: they say which job it was.

        Raises:
            SystemExit: With status 1, after a user's error.
        """
        if self.reported and _is_user_error(self.reported[-1]) and not self.wants_traceback:
            raise SystemExit(1)


def _is_user_error(error: BaseException) -> bool:
    composing = (HydraException, OmegaConfBaseException, MarkedYAMLError)
    return user_error(error) is not None or isinstance(error, composing) or _is_disk_error(error)


def _is_disk_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def message(error: BaseException) -> str:
    """Return the message of an error: its own words, or for a full disk what to do."""
    cause = user_error(error)
    if cause is not None:
        return str(cause)
    if _is_disk_error(error):
        return (
            f"{error}. Check space and permissions there; outputs go elsewhere with hydra.run.dir=<folder>."
        )
    if isinstance(error, HydraException):
        return _of_hydra("\n".join(str(part) for part in (error, error.__cause__) if part is not None))
    if isinstance(error, MarkedYAMLError):
        return _of_yaml(error)
    return f"{type(error).__name__}: {error}"


def _of_yaml(error: MarkedYAMLError) -> str:
    """Return where a file is no YAML, and what most often mends it."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "A YAML file"
    reason = error.problem or error.context
    why = f" ({reason})" if reason else ""
    return f"{where}: cannot be read as YAML{why}. Put words with ? : # , in quotes."


def _of_hydra(text: str) -> str:
    """Return Hydra's message with our advice: a misspelt key is not to be appended."""
    lines = [line for line in text.splitlines() if not line.startswith("To append to your")]
    if "Could not override" in text:
        lines = [line for line in lines if not line.strip().startswith(("full_key:", "object_type="))]
        lines.append("Is it misspelt? --help lists the groups, cxrlab config every key.")
    if "Could not find" in text:
        lines = [line for line in lines if not line.startswith(("Config search path", "\tprovider="))]
        options = [line.strip() for line in lines if line.startswith("\t")]
        lines = [line for line in lines if not line.startswith("\t")]
        lines += textwrap.wrap(", ".join(options), 100, break_long_words=False, break_on_hyphens=False)
    if meant := hint(text, sys.argv[1:]):
        lines.append(meant)
    if "override_grammar" in text:
        lines += [f"{sentence}." for sentence in advice(sys.argv[1:])]
        lines += bare_words(sys.argv[1:], Path(sys.argv[0]).stem)
    return "\n".join(lines)


def configure_logging() -> None:
    """Keep other libraries' advice off the terminal: advertisements, and deprecations inside Lightning."""
    if not is_first_process():  # the first process speaks for all
        logging.getLogger("cxrlab").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    for name in ("onnxscript", "onnx_ir"):  # each step of their optimiser
        logging.getLogger(name).setLevel(logging.WARNING)
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # Said wherever SLURM is installed, of a command on one device too.
    warnings.filterwarnings("ignore", message=r"The `srun` command is available on your system")
    # Every epoch is logged whatever the interval of trainer.log_every_n_steps.
    warnings.filterwarnings(
        "ignore", message=r"The number of training batches .* is smaller than the logging"
    )
    # model.freeze keeps them there.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # Monitors are checked at the start; an epoch without validation, where wanted, has none of their values.
    warnings.filterwarnings("ignore", message=r"`ModelCheckpoint.* could not find the monitored key")
    # A resumed run writes where it wrote before.
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")


def is_first_process() -> bool:
    """Tell whether this process is the only one of a training, or the one that writes and speaks for all."""
    from lightning_utilities.core.rank_zero import rank_zero_only  # slow, and --help needs none of it

    return not getattr(rank_zero_only, "rank", 0)


def run_command(command: Callable[[], Any]) -> None:
    """Run an entry point: a user's error ends it with a message and status 1, a bug with its traceback."""
    own = str(os.getpid())
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and os.environ.get(_SET_BY, own) == own
    if not wants_traceback:
        os.environ[_SET_BY] = own
    ErrorLog.wants_traceback = wants_traceback
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints its own shortened traceback and exits
    _stop_by_signals()
    _open_streams()
    logging.raiseExceptions = False  # a line that cannot be written is no reason for a traceback
    sys.argv[1:] = map(appended, sys.argv[1:])
    try:
        command()
    except BrokenPipeError:
        if _is_writable(sys.stdout, "\n"):  # it is another pipe that broke
            raise
        sys.exit(_BROKEN_PIPE)
    except KeyboardInterrupt as stop:
        _print_reason(stop)
        sys.exit(130)
    except SystemExit as stop:
        _print_reason(stop)
        sys.exit(_status(stop))
    except Exception as error:
        if wants_traceback or not _is_user_error(error):
            raise
        if not any(error is reported for reported in ErrorLog.reported):
            print(message(error), file=sys.stderr)
        sys.exit(1)
    finally:
        _give_up_streams()


def _open_streams() -> None:
    """Open standard streams that are closed: else the next file would get their number, and their text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _give_up_streams() -> None:
    """Let a stream go whose reader is gone or whose disk is full: Python would fail as it ends."""
    for stream in (sys.stdout, sys.stderr):
        if not _is_writable(stream):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_writable(stream: TextIO, text: str = "") -> bool:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def says_what_needs_memory(advice: str) -> Iterator[None]:
    """Turn what a processor or a GPU without memory raises into a message.

    Args:
        advice: What to make smaller.

    Raises:
        OutOfMemoryError: With the advice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, UserError) or not _is_memory_error(error):
            raise
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise OutOfMemoryError(f"There is not enough memory: {reason}. {advice}") from error


def _is_memory_error(error: BaseException) -> bool:
    """Tell whether memory has run out; on a processor torch has no class for it, only words."""
    words = ("DefaultCPUAllocator", "not enough memory", "CUDA out of memory")
    is_own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_own or any(word in str(error) for word in words)


def _stop_by_signals() -> None:
    """Let SIGTERM and SIGUSR1 end the command as Ctrl-C does: what is open is closed, what is kept is said.

    The status is 143 or 138. SIGUSR1 is what SLURM sends before a job's time is up. A process that was forked
    from this one ends as it would have.
    """
    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise SystemExit(128 + number)

    for number in _STOPPING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


def _status(stop: SystemExit) -> int | str | None:
    """Return the exit status of what ended: Lightning answers Ctrl-C with 1, and SIGTERM with success."""
    if isinstance(stop.__context__, KeyboardInterrupt):
        return 130
    return 128 + signal.SIGTERM if type(stop).__name__ == "SIGTERMException" else stop.code


def stop_reason(stop: BaseException) -> str | None:
    """Return by what a command is stopped, as :func:`cxrlab.errors.stop_reason`, by Lightning's words too."""
    return errors.stop_reason(stop, _status(stop) if isinstance(stop, SystemExit) else None)


def _print_reason(stop: BaseException) -> None:
    reason = stop_reason(stop)
    is_first = not is_later() if "lightning_utilities" not in sys.modules else is_first_process()
    if reason is not None and is_first and not _is_explained(stop):
        print(f"Stopped by {reason}.", file=sys.stderr)


def _is_explained(stop: BaseException) -> bool:
    """Tell whether what is kept was said already, of this exception or the one that Lightning replaced."""
    return any(getattr(error, "is_explained", False) for error in (stop, stop.__context__))


@contextlib.contextmanager
def says_when_stopped(what_is_kept: str | Callable[[], str]) -> Iterator[None]:
    """Say what is kept, and which command goes on, where Ctrl-C or a signal stops what is inside.

    Of several blocks around each other only the innermost speaks, for it knows most.

    Args:
        what_is_kept: A sentence or two, or what returns them once they are needed.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        reason = stop_reason(stop)
        if reason is not None and not _is_explained(stop):
            stop.is_explained = True  # type: ignore[union-attr]
            kept = what_is_kept if isinstance(what_is_kept, str) else what_is_kept()
            log.warning("\nStopped by %s. %s", reason, kept)
        raise


def listed(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return arguments in which a text with commas for some keys is a list, as Hydra would not read it.

    Hydra takes commas for a sweep, and refuses signs such as ``+`` or a blank in a value without quotes.

    Args:
        arguments: Of a command line.
        keys: Whose values are lists of texts.

    Example:
        >>> listed(["method=gradcam,gradcam++", "limit=4", "labels=[A,B]"], ["method", "labels"])
        ['method=["gradcam","gradcam++"]', 'limit=4', 'labels=[A,B]']
        >>> listed(["checks=false", "checks=pointing"], ["checks"])
        ['checks=false', 'checks=["pointing"]']
    """
    return [_as_list(argument, keys) for argument in arguments]


_NO_TEXT = ("null", "true", "false")  # as Hydra reads them


def _as_list(argument: str, keys: Sequence[str]) -> str:
    key, sign, value = argument.partition("=")
    if key not in keys or not sign or not value or value in _NO_TEXT or value[0] in "[\"'$":
        return argument
    escaped = (text.strip().replace("\\", "\\\\").replace('"', '\\"') for text in value.split(","))
    return f"{key}=[" + ",".join(f'"{text}"' for text in escaped) + "]"
