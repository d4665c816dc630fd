"""What the environment says of the processes that torchrun and srun start, and what is refused of it."""

import os

import pytest
from omegaconf import OmegaConf

from cxrlab.cli.processes import check_alone, check_started, is_later, rank, starter, take_folder, tell_folder
from cxrlab.errors import ConfigError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "3",
    "LOCAL_RANK": "1",
}
SRUN = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_RANK")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    """Let this process be one that was started so."""

    def function(environment: dict[str, str]) -> None:
        for name in [*NAMES, *(name for name in os.environ if name.startswith("SLURM_"))]:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return function


def trainer(devices: object, num_nodes: int = 1):
    return OmegaConf.create({"trainer": {"devices": devices, "num_nodes": num_nodes, "accelerator": "cpu"}})


@pytest.mark.parametrize(
    ("environment", "by", "number"),
    [
        ({}, None, 0),
        (TORCHRUN, "torchrun", 3),
        (SRUN, "srun", 3),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, None, 0),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None, 3),
        ({"LOCAL_RANK": "2"}, None, 2),  # Lightning's own
        ({"JSM_NAMESPACE_RANK": "1"}, None, 1),
    ],
)
def test_who_started_a_process_and_which_it_is(started, environment, by, number):
    started(environment)
    assert (starter(), rank(), is_later()) == (by, number, number > 0)


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_a_training_is_of_as_many_processes_as_were_started(started, environment):
    started(environment)
    check_started(trainer(2, num_nodes=2))
    with pytest.raises(ConfigError, match=r"give trainer=ddp trainer\.devices=2 trainer\.num_nodes=2"):
        check_started(trainer(1))
    with pytest.raises(SystemExit, match="each of them would start the whole sweep"):
        check_alone()


def test_lightning_wants_to_know_how_many_run_on_each_node(started):
    started({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"})
    with pytest.raises(ConfigError, match="--ntasks-per-node=2"):
        check_started(trainer(2, num_nodes=2))


def test_processes_that_nobody_starts_are_not_waited_for(started):
    started({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"})
    with pytest.raises(ConfigError, match="put srun before it"):
        check_started(trainer(2))
    check_started(trainer(1))
    started({})
    check_started(trainer(2))
    check_alone()


def test_the_tasks_of_a_step_take_the_folder_of_the_first(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = {
        "hydra": {"run": {"dir": "outputs/12-00-00"}, "job": {"name": "train"}, "output_subdir": ".hydra"}
    }
    started(SRUN | {"SLURM_PROCID": "0"})
    tell_folder(OmegaConf.create(node))
    started(SRUN)
    later = OmegaConf.create(node | {"hydra": node["hydra"] | {"run": {"dir": "outputs/12-00-01"}}})
    take_folder(later)
    assert later.hydra.run.dir == str(tmp_path / "outputs" / "12-00-00")
    assert later.hydra.output_subdir is None
