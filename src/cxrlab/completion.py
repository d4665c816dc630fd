"""``cxrlab completion <shell>``: print the lines that let a shell complete cxrlab's command line."""

import sys

from cxrlab.cli.shells import SCRIPTS, candidates

_HELP = """Print the lines that let a shell complete commands, groups, options and keys with the tab key.

  eval "$(cxrlab completion bash)"        in ~/.bashrc
  eval "$(cxrlab completion zsh)"         in ~/.zshrc, below compinit
  cxrlab completion fish | source         in ~/.config/fish/config.fish

Nothing is written."""


def main() -> None:
    """Run the command line; the shells' lines call it with ``query`` and the line before the cursor."""
    match sys.argv[1:]:
        case ["query", line]:
            print("".join(f"{candidate}\n" for candidate in candidates(line)), end="")
        case [shell] if shell in SCRIPTS:
            print(SCRIPTS[shell], end="")
        case [] | ["--help"] | ["-h"]:
            print(_HELP)
        case arguments:
            given = " ".join(arguments)
            print(f"cxrlab completion {given}: give one of {', '.join(SCRIPTS)}.\n\n{_HELP}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
