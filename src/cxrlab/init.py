"""``cxrlab init <name>``: write a project of one's own that trains at once."""

import sys
from pathlib import Path

from cxrlab.cli.projects import write_project
from cxrlab.errors import UserError

_HELP = """Write a small project of your own: a package with a network, its config, a test and a Makefile.

  cxrlab init my_project            a folder my_project here, and in it the package my_project
  cxrlab init ~/work/my_project     the same elsewhere

The folder must not exist. The project trains at once, on radiographs that cxrlab draws itself."""


def main() -> None:
    """Run the command line."""
    match sys.argv[1:]:
        case [] | ["--help"] | ["-h"]:
            print(_HELP)
        case [name] if not name.startswith("-"):
            folder = Path(name).expanduser()
            try:
                files = write_project(folder)
            except UserError as error:
                print(error, file=sys.stderr)
                sys.exit(1)
            print(_written(folder, files))
        case arguments:
            given = " ".join(arguments)
            print(f"cxrlab init {given}: give one name.\n\n{_HELP}", file=sys.stderr)
            sys.exit(2)


def _written(folder: Path, files: list[Path]) -> str:
    return "\n".join(
        [
            f"Written to {folder}:",
            *(f"  {file}" for file in files),
            "",
            f"  cd {folder}",
            "  make try      one batch through everything: does it fit together?",
            "  make train    a short training on drawn radiographs",
            "  make test     the project's own tests, with pytest",
            "",
            "README.md in it says what to change first, and how to do without make.",
        ]
    )


if __name__ == "__main__":
    main()
