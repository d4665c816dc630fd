"""The data of a finished run, built again from what it saved; and other data, decoded as they were."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cxrlab.cli import config

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.runs.run import Run


def own_datamodule(run: "Run", root: str | None) -> "DataModule":
    """Build the data module of a run's own config, which may only name classes of this package.

    Args:
        run: The run.
        root: Folder of its data, where it was moved; None for where it was.

    Raises:
        ConfigError: If the config would build anything else.
    """
    config.check_targets(run.config["data"], str(run.run_dir))
    node = config.completed(OmegaConf.create({"data": run.config["data"]})).data
    if root is not None:
        node.root = root
    data: DataModule = config.build(node)
    return data


def other_datamodule(run: "Run", node: DictConfig) -> "DataModule":
    """Build another data set, its images decoded as those of the run were.

    Args:
        run: The run.
        node: As in conf/data.
    """
    shape = run.model.preprocess
    node = node.copy()
    node.image_size, node.channels, node.resize = shape.image_size, shape.channels, shape.resize
    data: DataModule = config.build(node)
    return data
