"""The Hugging Face Hub, asked once and not for long: its own clients try for almost a minute."""

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

_SECONDS = 5.0


def parts(repository: str) -> tuple[str, str | None]:
    """Return the name and the revision of ``name@revision``; None for the newest."""
    name, _, revision = repository.partition("@")
    return name, revision or None


def cached(repository: str, file: str) -> Path | None:
    """Return a file of a repository from the cache of an earlier download; None where it is not there.

    Args:
        repository: Such as ``timm/resnet10t.c3_in1k``, with ``@<revision>`` for another than its newest.
        file: In it.
    """
    name, revision = parts(repository)
    path = try_to_load_from_cache(name, file, revision=revision)
    return Path(path) if isinstance(path, str) else None


def ask(repository: str, file: str) -> None:
    """Ask for a file; nothing is fetched.

    Raises:
        Exception: Of the client, where the Hub cannot be reached, or does not give the file.
    """
    name, revision = parts(repository)
    get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=_SECONDS)


def fetched(repository: str, file: str) -> Path:
    """Return a file of a repository from the cache, or fetch it; a Hub that is away is told at once.

    Raises:
        Exception: Of the client, as of :func:`ask`.
    """
    path = cached(repository, file)
    if path is None:
        ask(repository, file)
        name, revision = parts(repository)
        path = Path(hf_hub_download(name, file, revision=revision))
    return path


def reason(error: Exception) -> str:
    r"""Return what the client says, which raises errors of many kinds, in a line.

    Example:
        >>> reason(OSError("Not found.\nSee the documentation."))
        'OSError: Not found'
    """
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0].rstrip('.')}"
