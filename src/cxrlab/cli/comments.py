"""A composed config as YAML, each key with the comments that it has in the YAML files it comes from."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from cxrlab.cli.config import config_dir

_HEAD = ""
"""Key of the comments at the top of a file: those of what it describes as a whole."""


def commented_config(command: str, arguments: Sequence[str]) -> str:
    """Return the config that a command would have, as YAML with comments; references are not followed.

    Args:
        command: Such as ``train``.
        arguments: Of its command line: overrides, and ``--config-dir``.

    Raises:
        HydraException: If they cannot be composed.
    """
    from hydra import compose, initialize_config_dir

    folders, overrides = _split(arguments)
    if folders:
        overrides.append(f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = compose(command, overrides=overrides, return_hydra_config=True)
    choices: Mapping[str, Any] = OmegaConf.to_container(composed.hydra.runtime.choices)  # type: ignore[assignment]
    node = OmegaConf.to_container(composed, resolve=False)
    comments = _of_files(command, choices, [*folders, config_dir()])
    text = yaml.dump(
        {name: value for name, value in node.items() if name != "hydra"},  # type: ignore[union-attr]
        Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"),
    )  # fmt: skip
    return with_comments(text, comments)


def with_comments(text: str, comments: Mapping[str, Sequence[str]]) -> str:
    r"""Return YAML with a comment above each key that has one, in the column of the key.

    Example:
        >>> print(with_comments("a:\n  b: 1\n", {"a": ["What it is."], "a.b": ["How many."]}), end="")
        # What it is.
        a:
          # How many.
          b: 1
    """
    keys = dict(keys_of(text))
    lines = [f"# {comment}" for comment in comments.get(_HEAD, [])]
    for number, line in enumerate(text.splitlines()):
        column = " " * (len(line) - len(line.lstrip()))
        lines += [f"{column}# {comment}" for comment in comments.get(keys.get(number, "?"), [])]
        lines.append(line)
    return "\n".join(lines) + "\n"


def comments_of(text: str) -> dict[str, list[str]]:
    r"""Return the comments above and behind each key of a YAML file, and those at its top under ``""``.

    Example:
        >>> comments_of("# A car.\nwheels: 4\n# In metres.\n# Measured.\nlength: 4.2  # about\n")
        {'': ['A car.'], 'length': ['In metres.', 'Measured.', 'about']}
    """
    lines = text.splitlines()
    head = 0
    while head < len(lines) and lines[head].startswith("#"):
        head += 1
    found = {_HEAD: [_bare(line) for line in lines[:head] if "@package" not in line]}
    for number, key in keys_of(text):
        start, column = number, len(lines[number]) - len(lines[number].lstrip())
        while start > head and lines[start - 1].startswith(" " * column + "#"):
            start -= 1
        comments = [_bare(line) for line in lines[start:number]]
        _, behind = _value_and_comment(lines[number].partition(":")[2])
        comments += [_bare(behind)] if behind else []
        if comments:
            found[key] = comments
    return {key: comments for key, comments in found.items() if comments}


def keys_of(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield the number of each line that starts a key, and the key with those above it, dotted.

    Keys inside lists, and values that go over several lines, are left out.

    Example:
        >>> list(keys_of("a:\n  b: [1, 2]\nc:\n- d: 1\n  e: 2\n"))
        [(0, 'a'), (1, 'a.b'), (2, 'c')]
    """
    above: list[tuple[int, str]] = []
    inside: int | None = None  # column of a list's item or of a value that goes on below
    for number, line in enumerate(text.splitlines()):
        content = line.lstrip()
        column = len(line) - len(content)
        if not content or content.startswith("#") or (inside is not None and column > inside):
            continue
        inside = None
        key = re.match(r"(\"[^\"]*\"|'[^']*'|[^\s:#][^:#]*):(?:\s+(.*))?$", content)
        if content.startswith("- ") or content == "-" or key is None:
            inside = column
            continue
        above = [(other, name) for other, name in above if other < column]
        above.append((column, key[1].strip("\"'")))
        value, _ = _value_and_comment(key[2] or "")
        inside = column if value else None
        yield number, ".".join(name for _, name in above)


def _value_and_comment(text: str) -> tuple[str, str]:
    """Split what stands behind a key's colon."""
    match = re.match(r"((?:\"[^\"]*\"|'[^']*'|(?<!\s)#|[^\"'#])*?)(?:(?:^|(?<=\s))(#.*))?$", text.strip())
    return (match[1].strip(), match[2] or "") if match else (text.strip(), "")


def _bare(comment: str) -> str:
    return comment.strip().removeprefix("#").removeprefix(" ")


def _of_files(command: str, choices: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the comments of a command's file and those of the groups that it chose, by dotted key."""
    found = _of_file(f"{command}.yaml", folders)
    for group, chosen in choices.items():
        for option in chosen if isinstance(chosen, list) else [chosen]:
            if option is None or group.startswith("hydra"):
                continue
            for key, comments in _of_file(f"{group}/{option}.yaml", folders).items():
                if key.startswith(_GLOBAL):
                    key = key.removeprefix(_GLOBAL)
                    found[key] = [*found.get(key, []), *comments] if key == _HEAD else comments
                else:
                    found[f"{group}.{key}".rstrip(".")] = comments
    return found


_GLOBAL = "@"
"""Before the keys of a file that sets keys anywhere."""


def _of_file(name: str, folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the comments of a file, and of those of its group that it starts from where it has none."""
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return {}
    text = path.read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    defaults = (yaml.safe_load(text) or {}).get("defaults", [])
    if "/" in name:
        for entry in defaults:
            if isinstance(entry, str) and entry != "_self_":
                parent = _of_file(f"{name.rpartition('/')[0]}/{entry}.yaml", folders)
                found |= {key: value for key, value in parent.items() if key.removeprefix(_GLOBAL) != _HEAD}
    is_global = re.search(r"^#\s*@package\s+_global_", text, re.MULTILINE)
    return found | {(_GLOBAL if is_global else "") + key: value for key, value in comments_of(text).items()}


def _split(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the folders of ``--config-dir``, and what is left."""
    folders, rest = [], []
    words = iter(arguments)
    for word in words:
        name, sign, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            folders.append(Path(value if sign else next(words, "")).expanduser().resolve())
        else:
            rest.append(word)
    return folders, rest


class _Dumper(yaml.SafeDumper):
    """Lists in one line, as the files of conf have them."""

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = True
    ) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)


def show(arguments: Sequence[str]) -> None:
    """Print the config of the command that the first argument names, by default ``train``.

    Args:
        arguments: Of the command line.
    """
    command, rest = "train", list(arguments)
    if rest and (config_dir() / f"{rest[0]}.yaml").is_file():
        command = rest.pop(0)
    sys.argv = [f"{command}.py", *rest]  # messages on a misspelt key look there for the command
    print(commented_config(command, rest), end="")
