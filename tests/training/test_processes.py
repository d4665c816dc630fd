"""Several processes train as one does, stop together, and go on together."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from cxrlab.cli.build import check_device
from cxrlab.errors import ConfigError
from cxrlab.training.callbacks.resume import RandomState
from cxrlab.training.processes import SyncBatchNorm, in_words, is_of_lost_process

pytestmark = pytest.mark.slow

# Without batch statistics, which are each process's own.
OPTIONS = (
    "model=sequential",
    "model.layers=[{conv: 8}, pool, {dropout: 0.2}, {conv: 8}, pool, {dense: 16}]",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "data.batch_size=4",
    "augment=none",
    "optimizer.lr=3e-3",
    "callbacks.early_stopping=null",
    "reference_images=0",
)

# Starts the command in several processes as srun does, for each line that it is given, and answers with the status
# of each. They are forked from one that has imported everything, which costs more than the trainings. A process
# sends itself a signal at a batch where the test wants it.
FORK = """
import json, os, sys
from lightning_utilities.core.rank_zero import rank_zero_only
import pytorch_lightning
from cxrlab import train
from cxrlab.cli import build, summaries
from cxrlab.data.datamodule import DataModule
from cxrlab.report import evaluate_run
from cxrlab.training.module import Classifier

settings = {}
step, evaluate, rows = Classifier.training_step, Classifier.validation_step, DataModule.rows

def place(batch_idx, self, phase):
    wanted = settings.get("signal")
    if wanted and wanted[0] == phase and wanted[2:] == [self.global_rank, self.current_epoch, batch_idx]:
        os.kill(os.getpid(), wanted[1])

def training_step(self, batch, batch_idx):
    place(batch_idx, self, "train")
    return step(self, batch, batch_idx)

def validation_step(self, batch, batch_idx):
    place(batch_idx, self, "val" if self.trainer.state.fn == "fit" else "end")
    return evaluate(self, batch, batch_idx)

def few_rows(self, part):
    return rows(self, part)[: settings.get("rows") if part == "val" else None]

Classifier.training_step, Classifier.validation_step, DataModule.rows = training_step, validation_step, few_rows

def child(rank, run):
    log = os.open(run["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(os.path.dirname(run["log"]))
    number = run["number"]
    if number > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": run["port"]}
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    rank_zero_only.rank = rank
    sys.argv = ["train.py", *run["arguments"], f"trainer.devices={number}"]
    if not run["arguments"][0].startswith("resume="):
        sys.argv.append(f"hydra.run.dir={run['run_dir']}")
    if rank > 0:
        sys.argv += ["hydra.output_subdir=null", f"hydra.job.name=train_ddp_process_{rank}"]
    train.main()
    sys.exit(0)

for line in sys.stdin:
    run = json.loads(line)
    settings.clear()
    settings.update(run["settings"])
    pids = []
    for rank in range(run["number"]):
        pids.append(os.fork())
        if pids[-1] == 0:
            child(rank, run)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
"""

COMMAND = [sys.executable, "-m", "cxrlab.train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def options(tiny_command: list[str]) -> list[str]:
    return [*(one for one in tiny_command if one != "trainer=cpu" and "batch_size" not in one), *OPTIONS]


Run = Callable[..., tuple[list[int], str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the command in several processes: ``run(2, run_dir, *arguments)``; their statuses and output."""
    script = tmp_path_factory.mktemp("fork") / "fork.py"
    script.write_text(FORK)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip

    def function(number: int, run_dir: Path, *arguments: str, **settings: object) -> tuple[list[int], str]:
        log = run_dir.parent / "output.log"
        log.unlink(missing_ok=True)
        described = {"number": number, "run_dir": str(run_dir), "arguments": arguments, "settings": settings}
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(described | {"log": str(log), "port": str(free_port())}) + "\n")
        parent.stdin.flush()
        assert select.select([parent.stdout], [], [], 300)[0], f"it hangs: {log.read_text()}"
        statuses: list[int] = json.loads(parent.stdout.readline())
        output = log.read_text()
        assert "Traceback" not in output, output
        return statuses, output

    try:
        yield function
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    path = run_dir / "checkpoints" / f"{name}.ckpt"
    states: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return states


def check_equal(whole: Path, resumed: Path) -> None:
    for name, tensor in weights(whole).items():
        np.testing.assert_array_equal(tensor, weights(resumed)[name], err_msg=name)
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(tables[0], tables[1][list(tables[0])])
    for part in ("val", "test"):
        one, other = ((folder / "predictions" / f"{part}.csv").read_bytes() for folder in (whole, resumed))
        assert one == other


# Equality


@pytest.fixture(scope="module")
def by_number(run: Run, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of 20 steps with 8 images each, in one, two and four processes."""
    folders = {number: tmp_path_factory.mktemp(f"by_{number}") / "run" for number in (1, 2, 4)}
    for number, folder in folders.items():
        steps = ["data.steps_per_epoch=20", f"data.batch_size={8 // number}"]
        without_dropout = "model.layers=[{conv: 8}, pool, {conv: 8}, pool, {dense: 16}]"
        statuses, output = run(number, folder, *options, *steps, without_dropout)
        assert statuses == [0] * number, output
    return folders


@pytest.mark.parametrize("number", [2, 4])
def test_twenty_steps_with_the_same_global_batch_give_the_same_weights(
    number: int, by_number: dict[int, Path]
):
    one, several = weights(by_number[1]), weights(by_number[number])
    saved = torch.load(by_number[number] / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 20
    for name, tensor in one.items():
        np.testing.assert_allclose(several[name], tensor, rtol=1e-3, atol=1e-5, err_msg=name)
    tables = [pd.read_csv(by_number[one] / "metrics.csv") for one in (1, number)]
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-3)


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("part", ["val", "test"])
def test_several_processes_evaluate_each_image_once_as_one_does(
    number: int, part: str, by_number: dict[int, Path]
):
    one, several = (pd.read_csv(by_number[count] / "predictions" / f"{part}.csv") for count in (1, number))
    assert len(one) % number, "it is the remainder that would be padded"
    assert several["image"].tolist() == one["image"].tolist()
    for column in one.filter(like="probability/"):
        np.testing.assert_allclose(several[column], one[column], atol=1e-4)
    results = [pd.read_csv(by_number[count] / "results.csv") for count in (1, number)]
    assert results[0]["images"].tolist() == results[1]["images"].tolist()


def test_fewer_images_than_processes_are_evaluated_once_each(run: Run, options: list[str], tmp_path: Path):
    # The evaluation itself then misses the other images, which only the test has taken away.
    run(
        4, tmp_path / "run", *options, "data.steps_per_epoch=2", "monitor=val/loss", "monitor_mode=min",
        "evaluation.threshold=0.5", "evaluation.calibration=none", "test=false", rows=3,
    )  # fmt: skip
    manifest = pd.read_csv(tmp_path / "run" / "manifest.csv")
    table = pd.read_csv(tmp_path / "run" / "predictions" / "val.csv")
    assert table["image"].tolist() == manifest[manifest["part"] == "val"]["image"].tolist()[:3]


UNKNOWN = """
import os, sys, torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from cxrlab.losses import masked_bce
from cxrlab.training.processes import largest, weight_of_mean

rank = 0 if os.fork() else 1  # before torch has threads, which a child would wait for in vain
generator = torch.Generator().manual_seed(0)
images, targets = (torch.randn(8, 5, generator=generator) for _ in range(2))
targets = torch.where(targets > 1, torch.nan, (targets > 0).float())
targets[4] = torch.nan  # the second process knows less
whole = torch.nn.Linear(5, 5)
torch.nn.init.constant_(whole.weight, 0.1)
masked_bce(whole(images), targets).backward()
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1], "RANK": str(rank), "WORLD_SIZE": "2"}
dist.init_process_group("gloo")
part = slice(4 * rank, 4 * rank + 4)
shared = torch.nn.Linear(5, 5)
shared.load_state_dict(whole.state_dict())
shared = DistributedDataParallel(shared)
(masked_bce(shared(images[part]), targets[part]) * weight_of_mean(targets[part])).backward()
torch.testing.assert_close(shared.module.weight.grad, whole.weight.grad)
assert largest([rank, 1 - rank, 7 * rank]) == [1, 1, 7]
dist.destroy_process_group()
if rank == 0:
    assert os.wait()[1] == 0
"""


def test_where_labels_are_unknown_the_gradient_is_that_of_the_whole_batch():
    command = [sys.executable, "-c", UNKNOWN, str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


# Stop and go on


@pytest.fixture(scope="module")
def whole(run: Run, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two processes that nothing stopped."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    statuses, output = run(2, run_dir, *options, "trainer.max_epochs=2")
    assert statuses == [0, 0], output
    return run_dir


@pytest.mark.parametrize(
    ("number", "status", "rank"),
    [(signal.SIGTERM, 143, 0), (signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 1), (signal.SIGUSR1, 138, 0)],
    ids=["SIGTERM to the first", "SIGTERM to the second", "Ctrl-C", "SIGUSR1"],
)
def test_a_signal_to_one_process_stops_all_at_its_batch_and_they_resume_to_the_same_end(
    number: int, status: int, rank: int, run: Run, options: list[str], whole: Path, tmp_path: Path
):
    run_dir = tmp_path / "run"
    wanted = ["train", number, rank, 1, 3]
    statuses, output = run(2, run_dir, *options, "trainer.max_epochs=2", signal=wanted)
    assert statuses == [status, status]
    name = {signal.SIGINT: "Ctrl-C"}.get(number, signal.Signals(number).name)
    assert f"Stopped by {name}. Epoch 1, batch 4 of 11 is kept in {run_dir}" in output
    assert f"Resume with: cxrlab train resume={run_dir}" in output
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert (saved["epoch"], saved["global_step"]) == (1, 15)
    statuses, output = run(2, run_dir, f"resume={run_dir}")
    assert statuses == [0, 0], output
    check_equal(whole, run_dir)


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        (["train", signal.SIGTERM, 1, 0, 10], "The last finished epoch is kept"),
        (["val", signal.SIGTERM, 1, 0, 0], "The last finished epoch is kept"),
        (["end", signal.SIGTERM, 1, 1, 0], "The last finished epoch is kept"),
    ],
    ids=["an epoch's last batch", "validation", "the evaluation at the end"],
)
def test_a_signal_elsewhere_stops_all_with_its_status(
    place: list[object], kept: str, run: Run, options: list[str], tmp_path: Path
):
    epochs = 1 if place[0] == "end" else 2
    statuses, output = run(2, tmp_path / "run", *options, f"trainer.max_epochs={epochs}", signal=place)
    assert statuses == [143, 143]
    assert kept in output
    assert not (tmp_path / "run" / "evaluation.json").exists()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.2)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_they_resume_within_the_epoch(
    rank: int, run: Run, options: list[str], whole: Path, tmp_path: Path
):
    run_dir = tmp_path / "run"
    rest = ["trainer.max_epochs=2", "callbacks.interruption.minutes=1e-6"]
    statuses, output = run(2, run_dir, *options, *rest, signal=["train", signal.SIGKILL, rank, 1, 6])
    assert statuses[rank] == -signal.SIGKILL
    assert statuses[1 - rank] == 1
    assert "the others cannot go on without it. Epoch 1, batch 6 of 11 is kept" in output.replace("\n", " ")
    assert f"cxrlab train resume={run_dir}" in output
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 17
    statuses, output = run(2, run_dir, f"resume={run_dir}")
    assert statuses == [0, 0], output
    check_equal(whole, run_dir)


# Started by Lightning and by torchrun


@contextmanager
def started(command: list[str], folder: Path) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for pid in [*group_of(process), process.pid]:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_for_epoch(process: "subprocess.Popen[str]", folder: Path) -> Path:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        for metrics in folder.glob("outputs/*/*/metrics.csv"):
            if (metrics.parent / "checkpoints" / "last.ckpt").exists():
                return metrics.parent
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.1)
    raise AssertionError("no epoch was finished")


def group_of(process: "subprocess.Popen[str]") -> list[int]:
    """Return the processes of cxrlab that a command started, itself left out, oldest first.

    Not by their session, since torchrun gives each process one of its own.
    """
    parents, started_at = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields, pid = path.read_text().rpartition(")")[2].split(), int(path.parent.name)
            if "cxrlab" in (path.parent / "cmdline").read_text():
                parents[pid], started_at[pid] = int(fields[1]), int(fields[19])
    found = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {process.pid}, key=started_at.__getitem__)


@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_process_killed_of_those_that_lightning_starts_leaves_none_behind(
    victim: str, options: list[str], tmp_path: Path
):
    long = [*options, "trainer.devices=2", "trainer.max_epochs=1000"]
    with started([*COMMAND, *long], tmp_path) as process:
        run_dir = wait_for_epoch(process, tmp_path)
        (second,) = group_of(process)
        os.kill(process.pid if victim == "first" else second, signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
        wait_until_gone([process.pid, second])
    assert process.returncode == (-signal.SIGKILL if victim == "first" else 1)
    assert "Traceback" not in output
    assert "the others cannot go on without it" in output
    assert f"cxrlab train resume={run_dir}" in output
    if victim == "second":
        assert "Process 1 of 2 was ended by SIGKILL" in output


def test_torchrun_ends_all_where_one_is_killed_and_resumes_in_the_same_folder(
    options: list[str], tmp_path: Path
):
    torchrun = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "cxrlab.train"]
    long = [*options, "trainer.devices=2", "trainer.max_epochs=1000"]
    with started([*torchrun, *long], tmp_path) as process:
        run_dir = wait_for_epoch(process, tmp_path)
        pids = group_of(process)
        os.kill(pids[1], signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
        wait_until_gone(pids)
    assert process.returncode == 1
    assert "the others cannot go on without it" in output
    assert f"cxrlab train resume={run_dir}" in output
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1
    epochs = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 2
    again = [f"resume={run_dir}", f"trainer.max_epochs={epochs}"]
    done = subprocess.run(
        [*torchrun, *again], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Everything is in") == 1
    assert pd.read_csv(run_dir / "metrics.csv")["epoch"].tolist() == list(range(epochs))


def test_two_nodes_of_torchrun_write_to_one_folder(options: list[str], tmp_path: Path):
    port, commands = str(free_port()), []
    for node in range(2):
        nodes = ["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"]
        address = ["--master-addr", "127.0.0.1", "--master-port", port, "-m", "cxrlab.train"]
        rest = [*options, "trainer.devices=1", "trainer.num_nodes=2", "data.steps_per_epoch=2"]
        commands.append([*TORCHRUN, *nodes, *address, *rest])
    with started(commands[0], tmp_path) as first:
        time.sleep(1.5)  # in another second the name of the folder would be another one
        with started(commands[1], tmp_path) as second:
            outputs = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    (run_dir,) = tmp_path.glob("outputs/*/*")
    assert f"Everything is in {run_dir}" in outputs[0]
    assert "Everything is in" not in outputs[1]
    manifest = pd.read_csv(run_dir / "manifest.csv")
    table = pd.read_csv(run_dir / "predictions" / "test.csv")
    assert table["image"].tolist() == manifest[manifest["part"] == "test"]["image"].tolist()


# What needs no processes


@pytest.mark.parametrize("backbone", ["resnet10t", "densenet121"])
def test_synchronised_batch_normalisation_keeps_activations_and_gives_the_layers_back(backbone: str):
    network = timm.create_model(backbone, num_classes=2, in_chans=1).eval()
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, layers = network(images), list(network.modules())
    names = list(network.state_dict())
    sync = SyncBatchNorm()
    sync.apply(network)
    of_kind = [layer for layer in network.modules() if isinstance(layer, torch.nn.SyncBatchNorm)]
    assert len(of_kind) == sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers) > 0
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network.eval()(images), expected)
    of_kind[0].running_mean = torch.ones_like(of_kind[0].running_mean)  # as a move to a GPU replaces it
    with torch.no_grad():
        of_kind[-1].weight.fill_(2.0)
    sync.revert(network)
    assert list(network.modules()) == layers
    norms = [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)]
    assert bool((norms[0].running_mean == 1).all())
    assert bool((norms[-1].weight == 2).all())


def test_frozen_statistics_are_not_synchronised():
    from cxrlab.models import TimmNetwork

    network = TimmNetwork("resnet10t", num_labels=2, image_size=32, freeze="norm_statistics")
    SyncBatchNorm().apply(network)
    assert not any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in network.modules())


def test_synchronised_batch_normalisation_is_refused_without_gpus(composed, tmp_path: Path):
    cfg = composed(
        "trainer=ddp", "trainer.accelerator=cpu", "trainer.sync_batchnorm=true", f"run_dir={tmp_path}"
    )
    with pytest.raises(ConfigError, match=r"trainer\.sync_batchnorm=true needs GPUs"):
        check_device(cfg)


def test_the_trainer_gets_synchronised_batch_normalisation(composed, tmp_path: Path):
    from cxrlab.cli.build import build_trainer
    from cxrlab.cli.config import resolved

    cfg = composed(
        "trainer=cpu", "trainer.precision=32-true", "trainer.sync_batchnorm=true", f"run_dir={tmp_path}"
    )
    assert isinstance(build_trainer(resolved(cfg))._accelerator_connector._layer_sync, SyncBatchNorm)


def test_a_broken_connection_is_told_from_other_errors():
    assert is_of_lost_process(RuntimeError("[.../gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    assert is_of_lost_process(torch.distributed.DistBackendError("NCCL error"))
    assert not is_of_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_of_lost_process(ConfigError("NCCL"))
    assert in_words(143) == "was ended by SIGTERM"
    assert in_words(300) == "ended with status 300"


def test_random_states_of_another_number_of_processes_are_derived_from_the_first():
    callback, first = RandomState(), RandomState()
    state = callback.state_dict() | {"others": [callback.state_dict()]}
    callback.load_state_dict(state)
    torch.manual_seed(99)
    callback.on_train_start(type("Trainer", (), {"global_rank": 0}), None)  # type: ignore[arg-type]
    drawn = torch.rand(3)
    first.load_state_dict(first.state_dict() | {"torch": state["torch"]})
    first.on_train_start(type("Trainer", (), {"global_rank": 0}), None)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(3), drawn)


def test_lightning_still_has_the_private_names_by_which_its_signals_are_kept_out():
    import pytorch_lightning as pl

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert callable(trainer._signal_connector.register_signal_handlers)
    assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
