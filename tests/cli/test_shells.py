"""Completion of the command line, by itself and in real shells at a terminal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxrlab.cli.commands import COMMANDS
from cxrlab.cli.shells import SCRIPTS, candidates

ROOT = Path(__file__).parents[2]


def asked(line: str, cwd: Path = ROOT) -> list[str]:
    """What the shells are given, by a process as they start it."""
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab", "completion", "query", line], cwd=cwd, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_first_word_is_a_command():
    names = [line.split("\t") for line in candidates("cxrlab ")]
    assert dict(names) == COMMANDS
    assert [line.split("\t")[0] for line in candidates("cxrlab pre")] == ["prepare", "predict"]
    assert candidates("cxrlab x") == []
    assert candidates("cxrlab frobnicate mod") == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cxrlab train model=densenet", ["model=densenet121"]),
        ("cxrlab train optimizer.l", ["optimizer.lr="]),
        ("cxrlab train optimizer=sgd optimizer.mom", ["optimizer.momentum="]),
        ("cxrlab train 'metrics=[a.b]' seed=", ["seed=0"]),
        ("cxrlab evaluate ru", ["run=", "run_dir="]),
        ("cxrlab config evaluate ru", ["run=", "run_dir="]),
        ("cxrlab config optimizer.l", ["optimizer.lr="]),
        ("cxrlab train model=nonsense optimizer=s", ["optimizer=sgd"]),
        ("cxrlab train data=nih data.root=", []),  # the shell's own files
        ("cxrlab predict input=./", []),
        ("cxrlab train --mul", ["--multirun"]),
    ],
)
def test_groups_options_and_keys_of_a_command(line: str, expected: list[str]):
    assert asked(line) == expected


@pytest.mark.parametrize("flag", ["--config-dir conf", "--config-dir=conf"])
def test_files_of_one_s_own_are_among_the_options(flag: str, tmp_path: Path):
    file = tmp_path / "conf" / "loss" / "rare.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: my_lab.losses.RareLoss\n_partial_: true\n")
    assert asked(f"cxrlab train {flag} loss=r", tmp_path) == ["loss=rare"]
    assert asked("cxrlab train loss=r", tmp_path) == []


def test_no_torch_is_imported():
    code = (
        "import sys\nfrom cxrlab.cli.shells import candidates\nprint(candidates('cxrlab train model=dens'))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "['model=densenet121']\nFalse\n"


def test_a_shell_that_is_not_known_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab", "completion", "tcsh"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "cxrlab completion tcsh: give one of bash, zsh, fish." in done.stderr


STARTS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        'bind "set enable-bracketed-paste off"; eval "$(cxrlab completion bash)"',
    ),
    "zsh": (["-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(cxrlab completion zsh)"'),
    "fish": (["--no-config", "-i"], "cxrlab completion fish | source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_tab_key_in_a_real_shell(shell: str, tmp_path: Path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    pexpect = pytest.importorskip("pexpect")
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "cxrlab").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cxrlab "$@"\n')
    (bin_dir / "cxrlab").chmod(0o755)
    (tmp_path / "radiographs").mkdir()
    arguments, start = STARTS[shell]
    environment = {
        **os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "TERM": "xterm" if shell == "fish" else "dumb",
        "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    for typed, expected in [
        ("cxrlab eva\t", "evaluate "),
        ("cxrlab train model=densen\t", "model=densenet121 "),
        ("cxrlab train data.root=./radio\t", "data.root=./radiographs/"),
        ("cxrlab train --config-dir radio\t", "--config-dir radiographs/"),
    ]:
        terminal = pexpect.spawn(
            shell, arguments, cwd=str(tmp_path), encoding="utf-8", timeout=60, dimensions=(40, 200), env=environment
        )  # fmt: skip
        terminal.delaybeforesend = 1  # a shell that is still drawing its prompt may lose a key
        try:
            terminal.sendline(f'{start}; echo rea""dy')
            terminal.expect("ready")
            terminal.send(typed)
            terminal.expect_exact(expected)
        finally:
            terminal.close(force=True)
