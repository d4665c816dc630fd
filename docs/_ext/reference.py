"""The reference, written into ``docs/reference/generated/`` from code and the comments of ``conf/``."""

import ast
import importlib
import inspect
import re
import typing
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby, pairwise
from typing import Any

import yaml
from links import GENERATED, ROOT
from sphinx.application import Sphinx

from cxrlab import errors
from cxrlab.cli.commands import COMMANDS
from cxrlab.cli.comments import comments_of

CONF = ROOT / "conf"
PACKAGE = ROOT / "src" / "cxrlab"
_INTERNAL = {"_target_", "_partial_", "_recursive_", "_convert_", "defaults", "hydra"}

GROUPS = {
    "augment": "Random changes of training images.",
    "callbacks": "What happens during a training beside the training.",
    "data": "Data sets, by name, and how a folder of your own is read.",
    "debug": "Looking for a fault.",
    "evaluation": "How predictions are evaluated.",
    "experiment": "Whole recipes: several groups and values under one name.",
    "explanation": "How heatmaps are made and checked.",
    "hydra/job_logging": "What is written to the terminal and to the log.",
    "hydra/launcher": "Where the jobs of a sweep run.",
    "hydra/sweeper": "Which jobs a sweep has.",
    "logger": "Trackers of experiments.",
    "loss": "What a training makes small.",
    "model": "Networks.",
    "optimizer": "How weights are changed.",
    "scheduler": "How the learning rate goes.",
    "service": "Limits of the service.",
    "solver": "How weights are found: by steps, or at once.",
    "synonyms": "Names of labels that mean the same.",
    "trainer": "Devices, precision and length of a training.",
    "weights": "What a network starts from.",
}
"""What each group of ``conf/`` is for; a group that is not here is an error of the build."""

CONFIG_HEAD = """# Config groups

A group is chosen by `group=option`, such as `model=densenet121`; a value below it by its dotted key, such
as `model.dropout=0.2`. `cxrlab config` prints a command's whole config with the same comments. This page is
made from the files of `conf/`.
"""

COMMANDS_HEAD = """# Commands

This page is made from the commands themselves.
"""

COMMANDS_END = """
Every command takes `key=value` for each key on its page and for those of its groups.

`--help`
: prints the command's help.

`--cfg job`
: prints its config and runs nothing; with `--resolve` references are followed.

`--config-dir <folder>`
: adds YAML files of your own.

`-m`
: makes a sweep of the comma-separated values (`cxrlab train`).

`--hydra-help`
: lists Hydra's own flags.

`cxrlab --version` prints the version.

A command ends with status 0 when it has done what it was asked for, with 1 after an error, and with 2 where
there is no such command. Stopped by Ctrl-C it ends with 130, by SIGTERM with 143, by SIGUSR1 with 138.
`cxrlab predict` ends with 3 where it could not predict every file without a warning.
"""

MESSAGES_HEAD = """# Messages

An error that you can mend is shown as one message, without a traceback: it names the file, the key or the
value, and says what to do. In Python each is an exception of `cxrlab.errors`; all are `UserError`. A
traceback on the terminal is a fault of cxrlab: please report it.

Below, `…` stands for what a message fills in. The search of this site finds the words of yours.
"""


def groups() -> list[str]:
    """Return the groups of the config, such as ``model`` and ``hydra/launcher``."""
    return sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/**/*.yaml")} - {"local"})


def page_of(group: str) -> str:
    """Return the name of a group's page."""
    return group.replace("/", "_")


def write(page: str, text: str) -> None:
    """Write a page where it changed: Sphinx reads again what is newer than it was."""
    path = GENERATED / page
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def toctree(names: list[str]) -> str:
    """Return a toctree that is not shown."""
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""])


def code(text: str) -> str:
    """Return text as code in a cell of a table."""
    text = " ".join(text.split())
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    blank = " " if "`" in text else ""
    return (fence + blank + text + blank + fence).replace("|", "\\|")


_CODE = re.compile(
    r"(?<![\w`])("
    r"\S*\.(?:csv|json|yaml|ckpt|html|npy|png|txt|gz|npz|dicom)\b"  # files
    r"|--?[a-z][\w-]+"  # options
    r"|[\w./@]+=[^\s()]*[\w\]\"'}/>]"  # key=value
    r"|\[[^\]\s][^\]]*\]"  # lists
    r"|\w*[_*]\w[\w.*/]*"  # names with an underscore
    r"|<\w+>)"
)


def prose(text: str) -> str:
    """Return a comment as Markdown: what is code in it is shown as such, and nothing else is markup."""
    parts = re.split(_CODE, text)
    shown = [
        code(part) if place % 2 else re.sub(r"([\\`*_<>\[\]|$#~])", r"\\\1", part)
        for place, part in enumerate(parts)
    ]
    return "".join(shown)


def leaves(node: Mapping[str, Any], comments: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys that get a row, dotted, with their values; a table of plain values is one row."""
    for name, value in node.items():
        if name in _INTERNAL:
            continue
        dotted = f"{key}.{name}" if key else str(name)
        is_described = any(other.startswith(f"{dotted}.") for other in comments)
        is_object = isinstance(value, dict) and ("_target_" in value or is_described or not key)
        if isinstance(value, dict) and value and is_object and name != "published":
            if dotted in comments or "_target_" in value:
                yield dotted, value
            yield from leaves(value, comments, dotted)
        else:
            yield dotted, value


def shown(value: object) -> str:
    """Return a default as it is typed in YAML."""
    if value is None:
        return "null"
    if isinstance(value, dict) and "_target_" in value:
        return f"{str(value['_target_']).rpartition('.')[2]}(…)"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()


def type_text(kind: object) -> str:
    """Return a type as a person reads it: the values that are allowed, or what kind of value."""
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    alternatives = typing.get_args(kind) if "|" in str(kind) and not isinstance(kind, str) else ()
    if alternatives and typing.get_origin(kind) not in (list, dict):
        return " | ".join("null" if one is type(None) else type_text(one) for one in alternatives)
    words = {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}
    if typing.get_origin(kind) in (list, tuple):
        return f"list of {type_text(typing.get_args(kind)[0])}"
    return words.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]


_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


@cache
def described(target: str) -> dict[str, str]:
    """Return what the docstring of a class or a function says of each argument."""
    module, _, name = target.rpartition(".")
    try:
        docstring = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    except (ImportError, AttributeError, ValueError):  # an optional package, or what only stands for one
        return {}
    found = {}
    for section in re.findall(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE):
        for argument, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found[argument] = _ROLE.sub(r"\1", " ".join(text.replace("``", "").split()))
    return found


def target_of(group: str, content: Mapping[str, Any]) -> str:
    """Return what a file of a group builds: its own ``_target_``, or that of what it starts from."""
    for entry in content.get("defaults", []):
        path = CONF / group / f"{entry}.yaml"
        if "_target_" not in content and isinstance(entry, str) and path.is_file():
            content = {
                **content,
                "_target_": target_of(group, yaml.safe_load(path.read_text(encoding="utf-8"))),
            }
    return str(content.get("_target_", ""))


def key_table(text: str, target: str = "", types: Mapping[str, object] | None = None) -> str:
    """Return the table of a file's keys: what they are by default, and their comments.

    Where a key has no comment, the docstring of what it goes to says what it is.

    Args:
        text: YAML.
        target: What the file builds.
        types: Of the keys, where they are known.
    """
    content, comments = yaml.safe_load(text) or {}, comments_of(text)
    rows = []
    for key, value in leaves(content, comments):
        above, _, name = key.rpartition(".")
        node = content
        for part in above.split(".") if above else []:
            node = node[part]
        builds = node.get("_target_", "") if above else target
        words = " ".join(comments.get(key, [])) or described(builds).get(name, "")
        allowed = f" ({prose(type_text(types[key]))})" if types and key in types else ""
        default = code(shown(value)) if len(shown(value)) < 300 else "see the file"
        rows.append((code(key), default, prose(words) + allowed))
    if not rows:
        return ""
    width = 3 if any(words for _, _, words in rows) else 2
    lines = [("key", "default", "what it is"), ("---",) * 3, *rows]
    return "\n".join(f"| {' | '.join(line[:width])} |" for line in lines)


def head_text(text: str) -> str:
    """Return a file's opening comment as Markdown: lines that are commands are code."""
    blocks: list[str] = []
    lines = comments_of(text).get("", [])
    for kind, group in groupby(lines, key=_kind_of_line):
        found = list(group)
        blocks.append(prose(" ".join(found)) if kind == "prose" else "\n".join([f"```{kind}", *found, "```"]))
    return "\n\n".join(blocks)


def _kind_of_line(line: str) -> str:
    """Return what a line of a comment is: a command, lined-up text, or prose."""
    return "sh" if line.startswith("cxrlab ") else "text" if line.startswith("  ") else "prose"


def parents(content: Mapping[str, Any]) -> str:
    """Return a sentence on what a file starts from, or nothing."""
    entries = [entry for entry in content.get("defaults", []) if entry != "_self_"]
    names = [
        f"`{entry}`"
        if isinstance(entry, str)
        else " ".join(f"`{group.split()[-1].lstrip('/')}={option}`" for group, option in entry.items())
        for entry in entries
    ]
    return f"Starts from {', '.join(names)}." if names else ""


def write_config() -> None:
    """Write a page for each group of ``conf/``."""
    missing = set(groups()) - set(GROUPS)
    if missing:
        raise ValueError(f"Say in docs/_ext/reference.py what {sorted(missing)} of conf/ is for.")
    for group in groups():
        is_global = any("@package _global_" in path.read_text() for path in (CONF / group).glob("*.yaml"))
        start = "" if is_global else f"{group.split('/')[0]}."
        how = f"The files are in `conf/{group}/`; a key is set by `{start}<key>=<value>`."
        parts = [f"# {group}=\n\n{GROUPS[group]}\n\n{how}\n"]
        for path in sorted((CONF / group).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            content = yaml.safe_load(text) or {}
            target = target_of(group, content)
            parts += [f"## {group}={path.stem}\n", head_text(text), parents(content)]
            parts += [f"Builds `{target}`."] if target else []
            parts += [key_table(text, target)]
        write(f"config/{page_of(group)}.md", "\n\n".join(part for part in parts if part.strip()) + "\n")
    rows = []
    for group in groups():
        options = [path.stem for path in sorted((CONF / group).glob("*.yaml"))]
        few = ", ".join(f"`{option}`" for option in options[:8]) + (
            f" and {len(options) - 8} more" if options[8:] else ""
        )
        rows.append(f"| [`{group}=`]({page_of(group)}.md) | {GROUPS[group]} | {few} |")
    table = "\n".join(["| group | what it is for | options |", "|---|---|---|", *rows])
    pages = toctree([page_of(group) for group in groups()])
    write("config/index.md", f"{CONFIG_HEAD}\n{table}\n\n{pages}")


def help_of(command: str) -> str:
    """Return what ``cxrlab <command> --help`` prints."""
    path = CONF / f"{command}.yaml"
    if path.is_file():
        return (
            str(yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["help"]["template"])
            .replace("$APP_CONFIG_GROUPS", "  (the table below)")
            .strip()
        )
    return str(importlib.import_module(f"cxrlab.{command}")._HELP).strip()


def write_commands() -> None:
    """Write a page for each command: its help, its groups, and its own keys."""
    for command, purpose in COMMANDS.items():
        parts = [
            f"# cxrlab {command}",
            f"{purpose[0].upper()}{purpose[1:]}.",
            f"```text\n{help_of(command)}\n```",
        ]
        path = CONF / f"{command}.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            types = getattr(importlib.import_module(f"cxrlab.{command}"), "_VALUE_TYPES", {})
            entries = [
                (group.split()[-1].lstrip("/"), option, "optional" in group or "override" in group)
                for entry in yaml.safe_load(text).get("defaults", [])
                if isinstance(entry, dict)
                for group, option in entry.items()
            ]
            rows = [
                f"| [`{group}=`](../config/{page_of(group.split('@')[0])}.md) | "
                f"{code('none' if option is None else str(option))} |"
                for group, option, hidden in entries
                if not hidden and group.split("@")[0] in GROUPS
            ]
            if rows:
                parts += ["## Groups", "\n".join(["| group | default |", "|---|---|", *rows])]
            parts += ["## Keys", key_table(text, types=types)]
        write(f"commands/{command}.md", "\n\n".join(parts) + "\n")
    rows = [f"| [`cxrlab {command}`]({command}.md) | {purpose} |" for command, purpose in COMMANDS.items()]
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    write("commands/index.md", f"{COMMANDS_HEAD}\n{table}\n{COMMANDS_END}\n{toctree(list(COMMANDS))}")


def rooms() -> list[str]:
    """Return the rooms that have public names."""
    return sorted(
        path.parent.name
        for path in PACKAGE.glob("*/__init__.py")
        if "__all__" in path.read_text(encoding="utf-8")
    )


def _homes(room: str) -> dict[str, str]:
    """Return the module that each name of a room comes from."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _constant_text(module: str, name: str) -> str:
    """Return the text below a constant."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, after in pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_it = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if is_it and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return inspect.cleandoc(str(after.value.value))
    return ""


def _entry(room: str, name: str, home: str) -> str:
    """Return the directive for a public name."""
    value = getattr(importlib.import_module(f"cxrlab.{room}"), name)
    full = f"cxrlab.{room}.{name}"
    if inspect.isclass(value):
        bases = "" if value.__bases__ == (object,) else "   :show-inheritance:\n"
        return f".. autoclass:: {full}\n   :members:\n{bases}"
    if callable(value) and hasattr(value, "__name__"):
        return f".. autofunction:: {full}\n"
    is_own = type(value).__module__.startswith("cxrlab")
    text = _constant_text(home, name) or (is_own and inspect.getdoc(type(value))) or ""
    text = text.replace("\n", "\n   ")
    return f".. py:data:: {full}\n   :type: {type(value).__name__}\n\n   {text}\n"


def write_api() -> None:
    """Write a page for each room, and one for what ``import cxrlab`` gives."""
    import cxrlab

    for room in rooms():
        module = importlib.import_module(f"cxrlab.{room}")
        homes = _homes(room)
        title = f"cxrlab.{room}"
        entries = [_entry(room, name, homes.get(name, title)) for name in module.__all__]
        text = inspect.cleandoc(module.__doc__ or "")
        write(f"api/{room}.rst", "\n".join([title, "=" * len(title), "", text, "", *entries]))
    rows = []
    for name in cxrlab.__all__:
        room = cxrlab._HOMES[name].split(".")[1]
        summary = " ".join(inspect.getdoc(getattr(cxrlab, name)).split("\n\n")[0].split())  # type: ignore[union-attr]
        rows.append(f"   * - :py:obj:`cxrlab.{name} <cxrlab.{room}.{name}>`\n     - {summary}")
    titles = [
        f"   * - :doc:`cxrlab.{room} <{room}>`\n     - "
        + " ".join(
            inspect.cleandoc(importlib.import_module(f"cxrlab.{room}").__doc__ or "").split("\n\n")[0].split()
        )
        for room in rooms()
    ]
    write("api/index.rst", "\n".join([
        "Python API", "==========", "", inspect.cleandoc(cxrlab.__doc__ or ""), "",
        ".. list-table:: What ``import cxrlab`` gives", "   :widths: 30 70", "", *rows, "",
        ".. list-table:: The rooms", "   :widths: 30 70", "", *titles, "",
        ".. toctree::", "   :hidden:", "", *[f"   {room}" for room in rooms()], "",
    ]))  # fmt: skip


def _sentence(node: ast.expr | None) -> str | None:
    """Return a message as it stands in the source, with what is filled in as ``…``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_sentence(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_sentence(node.left) or '…'}{_sentence(node.right) or '…'}"
    return None


def error_classes() -> list[type[Exception]]:
    """Return the errors that a person can mend, in the order of their module."""
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.UserError)
    ]


def messages() -> dict[str, dict[str, list[str]]]:
    """Return all messages, by the name of their error and by the room or command that raises it."""
    names = {kind.__name__ for kind in error_classes()}
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                text = _sentence(call.args[0] if call.args else None)
                if text and text.strip("… ") and text not in found[call.func.id][place]:
                    found[call.func.id][place].append(text)
    return found


def write_messages() -> None:
    """Write the page of errors: what each class means, and every message that names what to do."""
    found = messages()
    parts = [MESSAGES_HEAD]
    for kind in error_classes():
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        parts += [f"## {kind.__name__}", f"{inspect.getdoc(kind)} In Python also {bases}."]
        for place, texts in sorted(found.get(kind.__name__, {}).items()):
            lines = [f"- {prose(' '.join(text.split()))}" for text in sorted(texts)]
            label = f"From `cxrlab.{place}` ({len(lines)})"
            parts += [f":::{{dropdown}} {label}\n" + "\n".join(lines) + "\n:::"]
    write("messages.md", "\n\n".join(parts) + "\n")


def write_all(app: Sphinx) -> None:
    """Write every generated page."""
    write_config()
    write_commands()
    write_api()
    write_messages()


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
