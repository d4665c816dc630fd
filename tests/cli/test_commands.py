"""``cxrlab <command>``, in processes of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from cxrlab.cli.commands import COMMANDS, overview, run


def cxrlab(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cxrlab", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


def test_every_command_is_a_module_and_stands_in_the_overview(capsys: pytest.CaptureFixture[str]):
    import cxrlab.cli

    root = Path(cxrlab.cli.__file__).parents[1]
    shared = {"__init__", "__main__", "errors", "files", "task", "trust"}
    modules = {path.stem for path in root.glob("*.py")} - shared
    assert modules == set(COMMANDS)
    assert run(["--help"]) == run([]) == 0
    assert capsys.readouterr().out == f"{overview()}\n" * 2
    for name, description in COMMANDS.items():
        assert f"  {name} " in overview()
        assert description in overview()


def test_an_unknown_command_is_told_with_a_suggestion_and_the_list(capsys: pytest.CaptureFixture[str]):
    assert run(["trian"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "no command 'trian'. Did you mean train?" in told.err
    assert overview() in told.err
    assert run(["frobnicate"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_the_overview_imports_neither_torch_nor_hydra(tmp_path: Path):
    code = (
        "import sys\nfrom cxrlab.cli.commands import run\nrun(['--help'])\n"
        "print('IMPORTED', [name for name in ('torch', 'hydra', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "IMPORTED []" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_help_in_its_own_name_and_writes_nothing(command: str, tmp_path: Path):
    done = cxrlab(command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cxrlab {command}" in done.stdout
    assert not list(tmp_path.iterdir())


def test_its_job_bears_the_name_of_the_command_and_arguments_come_through(tmp_path: Path):
    done = cxrlab("train", "seed=7", "--cfg", "all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 7" in done.stdout
    assert "    name: train" in done.stdout


def test_an_error_of_the_user_is_a_message_and_status_1(tmp_path: Path):
    done = cxrlab("train", "optimizer.lr=fast", cwd=tmp_path)
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("optimizer.lr='fast' does not fit") == 1
    assert "Error executing job" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", [["cxrlab", "train"], ["cxrlab.train"]], ids=" ".join)
def test_timm_s_keywords_need_no_plus(program: list[str], tmp_path: Path):
    """Any name may stand below model.options, which Hydra would else have appended."""
    done = subprocess.run(
        [sys.executable, "-m", *program, "model=resnet10t", "model.options.drop_path_rate=0.1", "--cfg", "job"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "  options:\n    drop_path_rate: 0.1\n" in done.stdout


def test_two_processes_are_started_under_the_command_s_own_name(tiny_command: list[str], tmp_path: Path):
    """Lightning starts the others by the name of the main module, which must not be that of the dispatcher."""
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    rest = [word for word in tiny_command if not word.startswith("trainer")]
    done = cxrlab("train", *rest, *words, "trainer.precision=32-true", "test=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("Everything is in") == 1
