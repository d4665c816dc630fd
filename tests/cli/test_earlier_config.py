from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.earlier_config import complete


def unresolved(cfg: DictConfig) -> dict:
    return OmegaConf.to_container(cfg, resolve=False)


def without(config: dict, *keys: str) -> dict:
    for key in keys:
        *above, last = key.split(".")
        node = config
        for part in above:
            node = node[part]
        del node[last]
    return config


def test_a_config_from_before_a_key_existed_gets_what_was_done_then(composed):
    now = unresolved(composed("data=nih", "data.root=x"))
    earlier = without(
        unresolved(composed("data=nih", "data.root=x")),
        *("data.steps_per_epoch", "data.sampling", "augment.zoom_of_field"),
    )
    complete(earlier)
    assert earlier == now


def test_what_is_there_stays_and_other_nodes_get_nothing(composed):
    config = unresolved(composed("augment=none", "data.steps_per_epoch=7"))
    before = unresolved(composed("augment=none", "data.steps_per_epoch=7"))
    complete(config)
    assert config == before


def test_the_config_of_a_finished_run_has_the_augmentation_below_its_data():
    target = "cxrlab.augment.RandomAugment"
    config = {"data": {"augment": {"_target_": target}}}
    complete(config)
    assert config["data"]["augment"] == {"_target_": target, "zoom_of_field": False}
