"""Shared folders on the Hugging Face Hub: pushed to it, and fetched from it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cxrlab.deploy.shared_folder import CONFIG, FILES, is_shared_folder, read_config
from cxrlab.errors import ConfigError, MissingFileError, OutputError
from cxrlab.models.weights.hub import parts, reason

_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Tell whether a text may name a repository of the Hub, with ``@<revision>`` or without.

    Example:
        >>> is_hub_name("our-lab/edema"), is_hub_name("our-lab/a/b"), is_hub_name("model.onnx")
        (True, False, False)
    """
    return _NAME.fullmatch(parts(text)[0]) is not None


def check_can_push(name: str, token: str | None = None) -> None:
    """Refuse what could not be pushed, before any work is done; the Hub is not asked.

    Args:
        name: ``owner/name``.
        token: Of a person with the right to write there; None for the one that they logged in with.

    Raises:
        ConfigError: If it is no such name, there is no token, or the environment forbids asking the Hub.
    """
    if not is_hub_name(name) or "@" in name:
        raise ConfigError(f"push={name} must be owner/name, as the Hugging Face Hub names a model.")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"push={name}: HF_HUB_OFFLINE is set in the environment, so that nothing can be pushed. Unset it "
            "where there is a network, or leave out push."
        )
    if not (token or get_token()):
        raise ConfigError(
            f"push={name} needs a token of the Hugging Face Hub with the right to write. Log in by hf auth "
            "login, or set HF_TOKEN."
        )


def push(folder: Path, name: str, *, token: str | None = None, private: bool = True) -> str:
    """Upload a shared folder, and return the address of its page.

    Of an earlier upload, files that the folder no longer has, such as a sample, are deleted there; older
    versions of the repository keep them.

    Args:
        folder: As :func:`cxrlab.deploy.shared_folder.write_shared_folder` wrote it; other files in it stay.
        name: ``owner/name``; the repository is made where it is not there.
        token: Of a person with the right to write there; None for the one that they logged in with.
        private: Whether a new repository is seen by its owner alone; one that is there stays as it is.

    Raises:
        ConfigError: If the name or the token cannot be used.
        MissingFileError: If the folder is none.
        OutputError: If the Hub cannot be reached, or does not take it.
    """
    check_can_push(name, token)
    if not is_shared_folder(folder):
        raise MissingFileError(f"push={name}: {folder} is no shared model of cxrlab.")
    gone = [file for file in FILES if not (folder / file).is_file()]
    api = HfApi(token=token, library_name="cxrlab")
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(FILES),
            delete_patterns=gone,
            commit_message="Upload a model of cxrlab",
        )
    except Exception as error:  # the hub's client raises errors of many kinds
        raise OutputError(
            f"push={name}: the Hugging Face Hub did not take it: {reason(error)}. The folder {folder} is "
            "complete: push it again once there is a network, and a token with the right to write."
        ) from error
    return str(address)


def download(name: str) -> Path:
    """Return the folder of a shared model of the Hub; the cache of an earlier download where it is there.

    Weights are fetched only where ``config.json`` describes a model of cxrlab.

    Args:
        name: ``owner/name``, with ``@<revision>`` for another than its newest.

    Raises:
        MissingFileError: If there is no such model, or it is not in the cache and the Hub cannot be reached.
        ConfigError: If its owner has to let people in first.
        CheckpointError: If it is of another program.
    """
    folder = _fetched(name, [CONFIG])
    if not (folder / CONFIG).is_file():
        raise MissingFileError(
            f"{name} of the Hugging Face Hub is no shared model of cxrlab: it has no {CONFIG}."
        )
    read_config(folder)
    return _fetched(name, FILES, folder.name)


def _fetched(name: str, files: Sequence[str], commit: str | None = None) -> Path:
    """Return the folder of some files of a repository, of a commit or of what its name says."""
    repository, revision = parts(name)
    with _fetching(name):
        return Path(
            snapshot_download(
                repository,
                revision=commit or revision,
                allow_patterns=list(files),
                etag_timeout=_SECONDS,
                library_name="cxrlab",
            )
        )


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises into what a person can do."""
    try:
        yield
    except GatedRepoError as error:
        raise ConfigError(
            f"{name} of the Hugging Face Hub is gated. Agree to its terms on its page there, and log in by "
            "hf auth login."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise MissingFileError(
            f"There is no file or folder {name}, and no model of that name on the Hugging Face Hub that you "
            "may see. Of a private one, log in by hf auth login."
        ) from error
    except Exception as error:  # of many kinds, where there is no network
        raise MissingFileError(
            f"There is no file or folder {name}, and it could not be fetched from the Hugging Face Hub: "
            f"{reason(error)}. Without a network, fetch its files elsewhere and give their folder."
        ) from error
