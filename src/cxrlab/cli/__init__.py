"""The command line.

In: arguments. Out: a composed and checked config, what it builds, and messages on the terminal. Modules that
need torch (``build``, ``summaries``) are imported by the commands when they run: --help is quick.
"""

from cxrlab.cli.commands import COMMANDS

__all__ = ["COMMANDS"]
