"""``cxrlab config``: print a command's config, each key with its comment; nothing is run or written."""

import sys

from cxrlab.cli import console
from cxrlab.cli.comments import show

_HELP = """Print the config that a command would have, each key with its comment.

  cxrlab config                                       that of cxrlab train
  cxrlab config data=nih model=densenet121            with groups and values as given
  cxrlab config evaluate run=outputs/2026-01-31/12-00-00 data=nih
  cxrlab config train --config-dir conf data=mine     with YAML files of your own

Nothing is run and nothing is written. cxrlab train --cfg job prints the same without comments."""


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(_HELP)
    else:
        console.run_command(lambda: show(arguments))


if __name__ == "__main__":
    main()
