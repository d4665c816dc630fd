"""What of a command, a config or a message may stand on a page that is shared: no path and no file name."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "…"

# Values of these keys name files, folders or runs, even where they have no slash.
_PATH_KEY = re.compile(
    r"(^|[._])(root|paths?|files?|filename|folders?|dir|dirpath|resume|runs?|predictions|targets|validation"
    r"|against|tables?|weights|checkpoint)(\.|$)"
)
_HARMLESS = re.compile(r"(?i)[\d.eE+-]*|null|none|true|false|auto|\[\]|\{\}")
_SUFFIX = (
    r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|nii|npy|npz|csv|tsv|txt|json|xlsx?|ya?ml|parquet|h5|ckpt|pth?"
    r"|safetensors|onnx|zip|gz|tar|log|html)"
)
_PATHLIKE = re.compile(rf"(?i)[/\\]|^~|{_SUFFIX}$")
_EDGE = r"\s'\"`,;:()\[\]{}=<>"
# A quoted text with a slash may hold blanks; outside quotes a path ends at the next blank.
_IN_TEXT = re.compile(
    r"(?<![^\s(\[{=:,])(?P<quote>['\"])(?=[^'\"\n]*[/\\])[^'\"\n]*(?P=quote)(?!\w)"
    rf"|(?:[A-Za-z]:)?[^{_EDGE}]*[/\\][^{_EDGE}]*|(?i:[^{_EDGE}]+{_SUFFIX})(?![\w-])|(?<!\w)~[^{_EDGE}]+"
)
# The folders that Hydra names by the clock say nothing about a person.
_CLOCK = re.compile(r"(outputs/)?(multirun/)?\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d(/\d+)?/?")
_FOLDER_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp")
_MARK = "\ue000{}\ue001"


class Redaction:
    """Takes paths and file names out of texts, or leaves them as they are.

    Folders such as ``data.root`` may bear the name of a person, and file names hold patient ids.

    Args:
        labels: Names that stay although they may look like a path, such as "Nodule/Mass".
        active: False leaves everything as it is.

    Example:
        >>> Redaction(["Nodule/Mass"], active=True).text("Nodule/Mass was read from /data/Doe/a.csv.")
        'Nodule/Mass was read from ….'
    """

    def __init__(self, labels: Iterable[str], *, active: bool) -> None:
        self.active = active
        self._kept = sorted({name for name in labels if _PATHLIKE.search(name)}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a message without paths and file names."""
        if not self.active:
            return text
        for index, label in enumerate(self._kept):
            text = text.replace(label, _MARK.format(index))
        text = _IN_TEXT.sub(_hidden_path, text)
        for index, label in enumerate(self._kept):
            text = text.replace(_MARK.format(index), label)
        return text

    def command(self, command: Sequence[str] | str) -> str:
        """Return a command line; values that name a file or folder are replaced, keys stay."""
        arguments = _split(command) if isinstance(command, str) else list(command)
        return shlex.join(self._arguments(arguments))

    def _arguments(self, arguments: Sequence[str]) -> Iterator[str]:
        earlier = ""
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if earlier in _FOLDER_OPTIONS and self.active:
                yield HIDDEN
            elif equals:
                yield f"{key}={self.value(key.lstrip('+~'), value)}"
            else:
                yield self.value("", argument)
            earlier = argument

    def value(self, key: str, value: str) -> str:
        """Return the value of a key of the config, or what stands for it."""
        if not self.active or _HARMLESS.fullmatch(value) or _CLOCK.fullmatch(value):
            return value
        without_labels = value
        for label in self._kept:
            without_labels = without_labels.replace(label, "")
        named = (part.strip("'\" ") for part in re.split(r"[\[\]{},:]", without_labels))
        return HIDDEN if _PATH_KEY.search(key) or any(map(_PATHLIKE.search, named)) else value

    def config(self, config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the dotted keys of a config with their values."""
        return [(key, self.value(key, value)) for key, value in _flat(config, "")]


def _hidden_path(found: re.Match[str]) -> str:
    path = found.group()
    if _CLOCK.fullmatch(path.rstrip(".")):
        return path
    end = "." if path.endswith(".") else ""
    return HIDDEN + end


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an unfinished quotation
        return command.split()


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _as_written(value)


def _as_written(value: Any) -> str:
    """Return a value as YAML and the command line have it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
