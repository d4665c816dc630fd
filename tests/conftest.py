import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from omegaconf import DictConfig

# A run of a few seconds: a small synthetic set, small images, one epoch.
TINY = (
    "data.reader.num_patients=40",
    "data.reader.size=64",
    "data.image_size=32",
    "data.num_workers=0",
    "data.batch_size=16",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.heatmaps=null",
    "logger.tensorboard=null",
    "report.page=false",
    "evaluation.num_resamples=100",
    "evaluation.baselines=false",
)

Compose = Callable[..., "DictConfig"]

# A test that asks for one of these trains a network, or reads what a training wrote.
TRAINING = {"tiny", "tiny_command", "finished_run"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that train are slow, wherever they stand."""
    for item in items:
        if isinstance(item, pytest.Function) and TRAINING & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs that CXRLAB_TEST_DATA names."""
    folder = os.environ.get("CXRLAB_TEST_DATA")
    if not folder:
        pytest.skip("CXRLAB_TEST_DATA is unset: it names the folder of real radiographs")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def composed() -> Compose:
    """Compose conf/train.yaml, or another command's, with overrides, as the command line would."""
    pytest.importorskip("hydra")  # tests of a GPU run on machines without it too
    from hydra import compose, initialize_config_dir

    from cxrlab.cli.config import config_dir

    def function(*overrides: str, config_name: str = "train") -> "DictConfig":
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose(config_name, overrides=list(overrides))

    return function


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' synthetic radiographs are kept."""
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where everything that the tests run, commands of their own included, keeps what it caches."""
    folder = tmp_path_factory.mktemp("cache_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny(composed: Compose, synthetic_root: Path) -> Compose:
    """Compose a run of a few seconds: ``tiny(run_dir, "optimizer.lr=1e-2")``."""

    def function(run_dir: Path, *overrides: str) -> "DictConfig":
        return composed(*TINY, f"data.root={synthetic_root}", f"run_dir={run_dir}", *overrides)

    return function


@pytest.fixture(scope="session")
def tiny_command(synthetic_root: Path) -> list[str]:
    """The same as arguments of ``python -m cxrlab.train``."""
    return [*TINY, f"data.root={synthetic_root}"]


@pytest.fixture(scope="session")
def finished_run(composed: Compose, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two epochs with everything on."""
    from cxrlab.train import train

    run_dir = tmp_path_factory.mktemp("run")
    small = {
        "callbacks.heatmaps=null", "logger.tensorboard=null", "report.page=false", "evaluation.baselines=false",
    }  # fmt: skip
    everything = [one for one in TINY if one not in small]
    train(composed(*everything, f"data.root={synthetic_root}", f"run_dir={run_dir}", "trainer.max_epochs=2"))
    return run_dir


@pytest.fixture(scope="session")
def colour_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a small network's weights in colour with a head of 1,000 classes, as sets are published."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(2)
    donor = timm.create_model("resnet10t", num_classes=1000)
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in donor.state_dict().items()}, path)
    return path
