"""``python -m cxrlab <command>``, and the script ``cxrlab``."""

import sys

from cxrlab.cli.commands import run


def main() -> None:
    """Run the command line."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
