"""``benchmarks/gpu.py`` on the CPU: that it runs, what it prints, and that it needs no package that it need not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
# The machines with GPUs have not all of cxrlab's packages.
WITHOUT = ("hydra", "omegaconf", "pytorch_grad_cam", "cv2", "optuna", "submitit")


def printed(*arguments: str) -> str:
    program = (
        "import runpy, sys\n"
        f"for name in {WITHOUT!r}: sys.modules[name] = None\n"
        f"sys.argv = ['gpu.py', '--device', 'cpu', '--small', *{arguments!r}]\n"
        f"runpy.run_path({str(PROJECT / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_table_has_a_row_for_training_and_one_for_the_rest():
    rows = [line for line in printed().splitlines() if line.startswith("| mobilenetv3 |")]
    assert [row.count("|") for row in rows] == [10, 8]


@pytest.mark.slow
def test_the_speed_run_is_rehearsed_by_the_values_of_its_experiment():
    text = printed("--rehearse-nih")
    assert "densenet121, 6 epochs of 4 steps, compile=False; all of them measured, AUROC not." in text
    assert text.strip().splitlines()[-1].count("|") == 6


def test_without_a_gpu_it_says_what_to_do():
    command = [sys.executable, str(PROJECT / "benchmarks" / "gpu.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 2
    assert "there is no CUDA device; --device cpu --small shows that it runs" in done.stderr
