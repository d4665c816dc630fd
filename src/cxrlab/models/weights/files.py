"""Files of weights, read without running code in them; and what a file is that holds none."""

import argparse
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors

from cxrlab.errors import CheckpointError

# What training programs keep beside weights: scores as numpy scalars, and options. None of these runs code
# when it is read.
_DTYPES = [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]

_SCALAR: Any = np.float64(0).__reduce__()[0]  # under the names that numpy 1 and numpy 2 give it

_SCALARS = [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]

_INERT: list[Any] = [*_SCALARS, np.dtype, *_DTYPES, argparse.Namespace]

_CLASS_IN_FILE = re.compile(r"Unsupported (?:global|class): (?:GLOBAL )?([\w.]+\w)")

_HEAD_BYTES = 512

# How files begin that people have under the name of weights, and what to do.
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5): its weights cannot be read here"),
    (b"GGUF", "a GGUF file of a language model"),
    (b"\x1f\x8b", "a gzip file: unpack it"),
    (b"BZh", "a bzip2 file: unpack it"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip file: unpack it"),
    (b"Rar!", "a RAR file: unpack it"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)

# Of text files, in lower case.
_TEXTS = (
    (r"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch it by git lfs pull"),
    (
        r"(\.\./|/).*annex/objects/",
        "a git-annex pointer, not the file itself: fetch it by git annex get",
    ),
    (
        r"<!doctype html|<html|<head",
        "an HTML page, not the file itself: the download gave a web page; fetch it again",
    ),
    (
        r"<\?xml|<error>",
        "an XML answer of a server, not the file itself: fetch it again",
    ),
    (r"[{\[]", "a JSON text"),
)

_PLAIN_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")


def load_weight_file(path: Path) -> Any:
    """Return what a file of PyTorch or safetensors holds, by its content; no code in it is run.

    Args:
        path: It is there.

    Raises:
        CheckpointError: If it is another kind of file, cut short, or holds more than tensors and plain
            values.
    """
    size = f"{path} ({path.stat().st_size} bytes)"
    other = kind_of_file(path)
    if other is not None:
        raise CheckpointError(f"{size} cannot be read as weights: it is {other}.")
    if _is_safetensors(path):
        try:
            return load_safetensors(path.read_bytes())
        except Exception as error:  # the library raises errors of its own kinds
            raise CheckpointError(f"{size} cannot be read as weights: it is cut short or damaged.") from error
    try:
        with torch.serialization.safe_globals(_INERT):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, some with the advice to load it unsafely
        raise CheckpointError(_why_not_loaded(path, size, str(error))) from error


def _why_not_loaded(path: Path, size: str, reason: str) -> str:
    """Say in own words why a file was not loaded: torch's advise to load it unsafely."""
    held = _CLASS_IN_FILE.search(reason)
    if held is None and not ("weights_only" in reason.lower() and zipfile.is_zipfile(path)):
        return (
            f"{size} cannot be read as weights: it is cut short or damaged, or no file of PyTorch or "
            "safetensors that can be read without running code in it."
        )
    what = "code or an unknown kind of object" if held is None else f"an object of {held[1]}"
    return (
        f"{path} holds more than tensors, so it was not loaded, for that could run code: {what}. Have its "
        "author save its state dict alone, as safetensors or by "
        'torch.save(network.state_dict(), "weights.pth").'
    )


def kind_of_file(path: Path) -> str | None:
    """Return what a file is that is no file of weights, and what to do; None where it may be one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
        >>> kind_of_file(path)
        'a Git LFS pointer, not the file itself: fetch it by git lfs pull'
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(257)
        is_tar = file.read(5) == b"ustar"
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if is_tar:
        return "a tar file: unpack it"
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if _is_safetensors(path) or not _PLAIN_TEXT.fullmatch(head.removeprefix(b"\xef\xbb\xbf")):
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip().lower()
    return next((kind for pattern, kind in _TEXTS if re.match(pattern, text)), "a text")


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "cut short or damaged: a zip file, as PyTorch writes, without its end"
    if any(name.endswith("/data.pkl") for name in names):
        is_script = any("/code/" in name for name in names)
        return "a TorchScript program: ask for its state dict, saved by torch.save" if is_script else None
    if "model.weights.h5" in names or "config.json" in names:
        return "a model of Keras (.keras): its weights cannot be read here"
    if names and all(name.endswith(".npy") for name in names):
        return "a file of NumPy arrays (.npz)"
    return f"a zip file of something else ({', '.join(names[:3]) or 'nothing'}): unpack it"


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(10)[8:9] == b"{"
