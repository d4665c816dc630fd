"""What a command does when memory, disk or its terminal give out."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxrlab.cli.console import message, says_what_needs_memory
from cxrlab.errors import ConfigError, OutOfMemoryError, TrainingError
from cxrlab.files import remove_leftovers, replacing


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB"),
    ],
    ids=["Python", "processor", "GPU"],
)
def test_memory_that_runs_out_is_told_with_what_needs_less(error: Exception):
    with (
        pytest.raises(OutOfMemoryError, match=r"not enough memory: .+\. Give a smaller data.batch_size"),
        says_what_needs_memory("Give a smaller data.batch_size (now 64)."),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), TrainingError("not enough memory of it")])
def test_other_errors_stay_what_they_are(error: Exception):
    with pytest.raises(type(error)) as caught, says_what_needs_memory("Give less."):
        raise error
    assert caught.value is error


def test_torch_still_says_what_memory_is_told_by():
    with (
        pytest.raises(OutOfMemoryError, match="memory"),
        says_what_needs_memory("Give less."),
    ):
        torch.empty(2**45, dtype=torch.float64)


def test_a_full_disk_is_told_with_the_file(tmp_path: Path):
    with pytest.raises(OSError, match=r"No space left on device.*table.csv") as caught:  # noqa: SIM117
        with replacing(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write to an open file does
    assert "table.csv'. Check space" in message(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError), replacing(tmp_path / "table.csv"):
        raise ConfigError("another")


def test_a_file_that_is_no_yaml_is_told_with_its_line_and_what_mends_it(tmp_path: Path):
    path = tmp_path / "conf" / "data" / "clinic.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("reader:\n  classes:\n    words: {a: ?, b: c\n")
    arguments = ["--config-dir", str(tmp_path / "conf"), "data=clinic", f"hydra.run.dir={tmp_path}/out"]
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab.train", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{path}, line 3, column " in done.stderr
    assert "cannot be read as YAML" in done.stderr
    assert done.stderr.strip().endswith("Put words with ? : # , in quotes.")


def test_the_options_that_there_are_stand_in_few_lines(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab.train", "data=clinic"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "auto, base, brax, chestmnist" in done.stderr
    assert len(done.stderr.splitlines()) < 15
    assert done.stderr.strip().endswith("<the folder that holds data/clinic.yaml> finds it.")


def test_what_killed_writes_left_is_removed(tmp_path: Path):
    left = [tmp_path / ".metrics.csv.123.part", tmp_path / "checkpoints" / ".last.ckpt.99.part"]
    kept = [
        tmp_path / "evaluations" / ".test.csv.123.part", tmp_path / ".mine.part", tmp_path / "last.ckpt.1.part",
    ]  # fmt: skip
    for path in [*left, *kept]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_leftovers(tmp_path)
    assert [path.exists() for path in [*left, *kept]] == [False, False, True, True, True]


SPEAKS = """
import logging, sys
from cxrlab.cli.console import run_command

def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    for _ in range(3):
        logging.info("x" * 200_000)
    print("written to", sys.argv[1], file=open(sys.argv[1], "w"))
    if len(sys.argv) > 2:
        print("y" * 200_000)

run_command(main)
"""


def command(*arguments: object) -> str:
    return " ".join(f"'{argument}'" for argument in (sys.executable, "-c", SPEAKS, *arguments))


def in_shell(pipeline: str) -> "subprocess.CompletedProcess[str]":
    """Run a pipeline of the command in bash; its status is that of the first part that fails."""
    script = "set -o pipefail; " + pipeline.replace(f"'{SPEAKS}'", '"$SPEAKS"')
    return subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"SPEAKS": SPEAKS},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("end", [">/dev/full", ">&-", ">&- 2>&-", "| true"])
def test_a_terminal_that_is_closed_or_full_stops_nothing(end: str, tmp_path: Path):
    done = in_shell(f"{command(tmp_path / 'result.txt')} {end}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "result.txt").read_text().startswith("written to")


def test_what_only_prints_ends_as_a_shells_programs_do(tmp_path: Path):
    done = in_shell(f"{command(tmp_path / 'result.txt', 'print')} | true")
    assert (done.returncode, done.stderr) == (141, "")
