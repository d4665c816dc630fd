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


PLANTED = ("inspect", "shlex", "yaml", "hydra", "omegaconf", "antlr4", "cxrlab", "importlib_metadata")
"""Names of modules that lie in a folder, as in an unpacked archive; each says so where it is imported."""


def plant(folder: Path) -> None:
    for name in [*PLANTED, "hydra_plugins/planted"]:
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            f"from pathlib import Path\nPath({str(folder / 'ran')!r}).open('a').write({name!r})\n"
        )


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["completion", "query", "cxrlab train model=densenet"], "model=densenet121\n"),
        (["completion", "query", "cxrlab train --config-dir=conf loss=r"], "loss=rare\n"),
        (["completion", "bash"], SCRIPTS["bash"]),
        (["init", "lung_study"], "Written to lung_study:"),
    ],
)
def test_the_tab_key_runs_no_code_of_the_working_folder(words: list[str], printed: str, tmp_path: Path):
    folder = tmp_path / "unpacked"
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "rare.yaml").write_text("_target_: yaml.Planted\n")
    plant(folder)
    script = tmp_path / "bin" / "cxrlab"
    script.parent.mkdir()
    script.write_text("from cxrlab.__main__ import main\n\nmain()\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(printed)
    assert not (folder / "ran").exists(), (folder / "ran").read_text()


def test_python_m_completes_without_the_working_folder_too(tmp_path: Path):
    plant(tmp_path)
    (tmp_path / "cxrlab.py").unlink()  # which python -m itself would start
    assert asked("cxrlab train model=densenet", tmp_path) == ["model=densenet121"]
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # by another test
def test_to_complete_changes_nothing_of_the_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path.cwd())
    before = sys.argv, list(sys.argv), list(sys.path)
    for line in (None, "of a shell"):
        monkeypatch.delenv("COMP_LINE", raising=False)
        if line is not None:
            monkeypatch.setenv("COMP_LINE", line)
        for typed in ("model=densenet", "model=nonsense optimizer=s"):
            assert candidates(f"cxrlab train {typed}")
            assert (sys.argv, list(sys.argv), list(sys.path)) == before
            assert os.environ.get("COMP_LINE") == line


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


def test_fish_takes_what_is_typed_as_text(tmp_path: Path):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    (tmp_path / "radiographs").mkdir()
    (tmp_path / "cxrlab").write_text("#!/bin/sh\n")  # which knows no candidates, so that fish looks for files
    (tmp_path / "cxrlab").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", SCRIPTS["fish"] + "complete --do-complete 'cxrlab train 50%d=./radio'"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "50%d=./radiographs/\n"


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
