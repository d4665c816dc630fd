"""A new project of a person's own, written from the files in ``project/``."""

import importlib.util
import keyword
import re
from pathlib import Path

from cxrlab.errors import ConfigError, OutputError
from cxrlab.trust import check_trust

_TEMPLATES = Path(__file__).parent / "project"
_NAME = "my_project"
"""What the project is called in the templates."""

_FOLDERS = ("conf", "src", "tests")


def write_project(folder: Path) -> list[Path]:
    """Write a project that trains at once: a package with a network, its config, a test and a Makefile.

    Args:
        folder: Of the project, which must not exist; its name is that of the package.

    Returns:
        The files, relative to the folder.

    Raises:
        ConfigError: If no package can have the name, or one that is installed has it.
        OutputError: If the folder exists already, or cannot be written.
    """
    name = folder.name
    check_name(name)
    if folder.exists():
        raise OutputError(f"{folder} exists already. Give another name, or remove it first.")
    templates = sorted(path for path in _TEMPLATES.rglob("*.txt"))
    files = [
        Path(str(path.relative_to(_TEMPLATES)).removesuffix(".txt").replace(_NAME, name))
        for path in templates
    ]
    try:
        for template, file in zip(templates, files, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            text = template.read_text(encoding="utf-8").replace(_NAME, name)
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}.") from error
    return files


def check_name(name: str) -> None:
    """Check that a project and its package may be called so.

    Raises:
        ConfigError: If it is no name of a package, or Python finds another package under it.
    """
    what = f"{name!r} cannot be the name of a project"
    if not re.fullmatch(r"[A-Za-z](\w*[A-Za-z0-9])?", name, flags=re.ASCII) or keyword.iskeyword(name):
        close = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        usable = close if re.match(r"[A-Za-z]", close) and not keyword.iskeyword(close) else _NAME
        raise ConfigError(
            f"{what}: its package has the same name, so it begins with a letter, has letters, digits and _ "
            f"only, and is no word of Python. For example: {usable}"
        )
    if name in _FOLDERS:
        raise ConfigError(f"{what}: a folder in it is called so. For example: {_NAME}")
    installed = importlib.util.find_spec(name)
    if installed is not None and installed.origin is not None:
        raise ConfigError(
            f"{what}: Python has a package of that name already ({installed.origin}), and one of the two "
            f"would hide the other. For example: my_{name}"
        )
    try:
        check_trust([name])
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
