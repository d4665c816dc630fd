"""Completion of the command line: a few lines for bash, zsh and fish, which ask ``candidates``."""

import contextlib
import io
import itertools
import os
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence

from cxrlab.cli.commands import COMMANDS, path_without_working_folder

_BASH = r"""_cxrlab() {
    local line=${COMP_LINE:0:COMP_POINT} word candidate joined cut
    word=${line##*[[:space:]]}
    COMPREPLY=()
    # What bash takes for a word of its own begins behind the last = or :
    joined=${word##*[=:]}
    cut=${word%"$joined"}
    while IFS=$'\t' read -r candidate _; do
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$cut"}")
    done < <("$1" completion query "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _cxrlab cxrlab
"""

_ZSH = r"""_cxrlab() {
    local line="${(j: :)words[1,CURRENT-1]} ${PREFIX}"
    local -a candidates unfinished
    candidates=(${${(f)"$("$words[1]" completion query "$line" 2>/dev/null)"}%%$'\t'*})
    if (( ! $#candidates )); then
        compset -P '*='
        _files
        return
    fi
    unfinished=(${(M)candidates:#*[=./]})
    candidates=(${candidates:#*[=./]})
    compadd -S '' -- $unfinished
    compadd -- $candidates
}
compdef _cxrlab cxrlab
"""

_FISH = r"""function __cxrlab
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l line (string join ' ' -- $words)' '(commandline --current-token --cut-at-cursor)
    set -l candidates ($words[1] completion query "$line" 2>/dev/null)
    if test -n "$candidates"
        printf '%s\n' $candidates
    else
        set -l parts (string match --regex '^(.*=|)(.*)$' -- (commandline --current-token --cut-at-cursor))
        for found in (__fish_complete_path $parts[3])
            printf '%s%s\n' "$parts[2]" $found
        end
    end
end
complete --command cxrlab --no-files --arguments '(__cxrlab)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""What each shell is to run at its start."""

_WITHOUT_CONFIG = ("config", "init", "completion")
"""Commands that compose no config of their own."""

_FLAGS = ("--cfg", "--config-dir", "--help", "--multirun", "--resolve")

_OF_SEARCH_PATH = ("--config-dir", "-cd", "--config-name", "-cn")


def candidates(line: str) -> list[str]:
    r"""Return what the last word of a line may become, a description behind a tab where there is one.

    Args:
        line: Of the shell, up to the cursor; the program's name comes first.

    Example:
        >>> candidates("cxrlab conf")
        ["config\tshow a command's config, each key with its comment; runs nothing"]
        >>> candidates("cxrlab completion f"), candidates("cxrlab train --mult")
        (['fish'], ['--multirun'])
    """
    word = "" if line[-1:].isspace() else line.split()[-1] if line.split() else ""
    before = _unquoted(line.removesuffix(word))[1:]
    if not before:
        return [f"{name}\t{described}" for name, described in COMMANDS.items() if name.startswith(word)]
    command, *words = before
    if command == "config" and not words:
        named = [name for name in COMMANDS if name not in _WITHOUT_CONFIG and name.startswith(word)]
        return [*named, *_of_config("train", words, word)]
    if command == "config":
        command, *words = words if words[0] in COMMANDS else ["train", *words]
    if command == "completion":
        return [shell for shell in SCRIPTS if not words and shell.startswith(word)]
    return _of_config(command, words, word) if command in COMMANDS and command not in _WITHOUT_CONFIG else []


def _of_config(command: str, words: Sequence[str], word: str) -> list[str]:
    """Return Hydra's candidates for a word of a command, in the config that the words before it compose."""
    if word.startswith("-"):
        return [flag for flag in _FLAGS if flag.startswith(word)]
    is_file = word.partition("=")[2].startswith((".", "/", "~"))
    if is_file or (words and words[-1] in _OF_SEARCH_PATH):
        return []  # a file or folder: the shell knows these
    found = _of_hydra(command, words, word)
    return sorted({name for name in found.split() if name.startswith(word) and name != word})


def _of_hydra(command: str, words: Sequence[str], word: str) -> str:
    """Return what ``cxrlab <command> -sc query=bash`` prints; nothing where the words cannot be composed."""
    flags = [word for word in words if word.startswith("--config-dir=")]
    for flag, value in itertools.pairwise(words):
        flags += [flag, value] if flag in _OF_SEARCH_PATH else []
    arguments = ["cxrlab", *flags, "-sc", "query=bash"]
    line = " ".join(["cxrlab", *words, word])
    with contextlib.redirect_stdout(io.StringIO()) as printed, _as_shell(arguments, line), _silent():
        runpy.run_module(f"cxrlab.{command}", run_name="__main__", alter_sys=True)
    return printed.getvalue()


@contextlib.contextmanager
def _as_shell(arguments: list[str], line: str) -> Iterator[None]:
    """Set what a shell sets, and import nothing from the working folder; afterwards all is as before."""
    before = sys.argv, sys.path[:], os.environ.get("COMP_LINE")
    sys.argv, sys.path[:], os.environ["COMP_LINE"] = arguments, path_without_working_folder(), line
    try:
        yield
    finally:
        sys.argv, sys.path[:], line_before = before
        if line_before is None:
            del os.environ["COMP_LINE"]
        else:
            os.environ["COMP_LINE"] = line_before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Swallow errors and how the command ends: a line that is being written may be wrong still."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit, Exception):
        yield


def _unquoted(line: str) -> list[str]:
    """Return the words of a line without quotes; those with blanks, which Hydra cannot take, are left out."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is open still
        words = line.split()
    return [word for word in words if word and not any(map(str.isspace, word))]
