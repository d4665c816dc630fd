"""What to type instead of an override that Hydra's grammar does not read."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrlab.errors import quoted

_BRACKETS = {"[": "]", "{": "}", "(": ")"}

# Keywords of other libraries stand below.
_FREE = ("model.options.",)
# Keys that a word without one is taken for, in order; of another command it is the run.
_BARE = {"prepare": ("data.root",), "train": ("data.root",), "predict": ("run", "input")}


def advice(arguments: Sequence[str]) -> list[str]:
    r"""Return a sentence for each argument that Hydra cannot read; each line it advises can be read.

    Args:
        arguments: Of the command line.

    Example:
        >>> advice(["data=table", "data.labels=[Nodule/Mass,Ödem 100%]"])
        ['Write \'data.labels=[Nodule/Mass,"Ödem 100%"]\'']
        >>> advice(['data.reader.uncertain={"Effusion, left": positive}'])
        ['data.reader.uncertain has a key that no command line can have: write it in a YAML file ...']
    """
    return [_advice(argument) for argument in arguments if "=" in argument and not parses(argument)]


def bare_words(arguments: Sequence[str], command: str) -> list[str]:
    """Return a question for words of a command line that stand without a key, such as the path of a folder.

    Args:
        arguments: Of the command line.
        command: Such as ``prepare``.

    Example:
        >>> bare_words(["data=auto", "/data/mine"], "prepare")
        ['Every argument is key=value. Did you mean data.root=/data/mine?']
        >>> bare_words(["outputs/1", "/data/new"], "predict")
        ['Every argument is key=value. Did you mean run=outputs/1 input=/data/new?']
    """
    words = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if word and "=" not in word and word[0] not in "-~" and not before.startswith("-")
    ]
    if not words:
        return []
    keys = _BARE.get(command, ("run",))
    keys = tuple(key for key in keys if not any(key_of(word) == key for word in arguments if "=" in word))
    meant = [shell(f"{key}={word}") for key, word in zip(keys, words, strict=False)]
    return ["Every argument is key=value." + (f" Did you mean {' '.join(meant)}?" if meant else "")]


def parses(argument: str) -> bool:
    """Tell whether Hydra reads an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _advice(argument: str) -> str:
    key, _, value = argument.partition("=")
    for mended in _candidates(value.strip()):
        if parses(f"{key}={mended}"):
            return f"Write {shell(f'{key}={mended}')}"
    if value.lstrip().startswith("{"):
        group = key.lstrip("+~").partition(".")[0]
        return f"{key} has a key that no command line can have: write it in a YAML file of conf/{group}"
    return f"{key} has a value that no command line can have: write it in a YAML file"


def _candidates(value: str) -> Iterator[str]:
    """Yield ways to write a value, those that keep its structure first."""
    inner = value[1:-1]
    if value.startswith("[") and value.endswith("]"):
        yield "[" + ",".join(map(_element, split_list(inner))) + "]"
    elif value.startswith("{") and value.endswith("}"):
        pairs = [re.split(r":\s*", item.strip(), maxsplit=1) for item in split_list(inner)]
        if all(len(pair) == 2 for pair in pairs):
            yield "{" + ", ".join(f"{name}: {_element(item)}" for name, item in pairs) + "}"
    elif value.startswith("["):
        yield "[" + ",".join(map(_element, split_list(value[1:]))) + "]"
    elif value.startswith("~/"):
        yield quoted(str(Path(value).expanduser()))
    if not value.startswith("{"):
        yield quoted(value)


def _element(item: str) -> str:
    """Return an element of a list or mapping in quotes where Hydra would not read it."""
    item = item.strip()
    if item and parses(f"key={item}") and "," not in _outside(item):
        return item
    if item[:1] in _BRACKETS and item.endswith(_BRACKETS[item[0]]):
        return next(iter(_candidates(item)), quoted(item))
    return quoted(item.strip("'\"") if item[:1] == item[-1:] and item[:1] in "'\"" else item)


def _outside(item: str) -> str:
    return "" if item[:1] in {"'", '"', *_BRACKETS} else item


def split_list(text: str) -> list[str]:
    """Split a text at the commas outside quotes and brackets.

    Example:
        >>> split_list('"a,b", c, [d,e]')
        ['"a,b"', 'c', '[d,e]']
    """
    items, start, depth, quote = [], 0, 0, ""
    for place, mark in enumerate(text):
        if quote:
            quote = "" if mark == quote and text[place - 1] != "\\" else quote
        elif mark in "'\"" and not text[start:place].strip():
            quote = mark
        elif mark in "[{(":
            depth += 1
        elif mark in "]})":
            depth -= 1
        elif mark == "," and depth <= 0:
            items.append(text[start:place].strip())
            start = place + 1
    return [*items, text[start:].strip()]


def shell(argument: str) -> str:
    """Return an argument as one types it into a shell, in single quotes where it needs them.

    Example:
        >>> shell("lr=0.1"), shell("labels=[a b]")
        ('lr=0.1', "'labels=[a b]'")
    """
    if re.fullmatch(r"[\w.=,:/@%+-]+", argument, re.ASCII):
        return argument
    return "'" + argument.replace("'", "'\\''") + "'"


def appended(argument: str) -> str:
    """Return an override of a key that is free to have any name below it, so that Hydra adds it.

    Example:
        >>> appended("model.options.drop_path_rate=0.1"), appended("model.dropout=0.1")
        ('++model.options.drop_path_rate=0.1', 'model.dropout=0.1')
    """
    return f"++{argument}" if argument.startswith(_FREE) else argument


def key_of(word: str) -> str:
    """Return which key an override sets, adds or takes away.

    Example:
        >>> key_of("optimizer.lr=0.1"), key_of("+callbacks.mine=null"), key_of("~logger")
        ('optimizer.lr', 'callbacks.mine', 'logger')
    """
    return word.lstrip("+~").partition("=")[0]
