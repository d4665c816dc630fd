from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from cxrlab import evaluate
from cxrlab.cli import config, resume
from cxrlab.cli.console import message
from cxrlab.errors import ConfigError, MissingFileError, OutputError
from cxrlab.evaluation.synonyms import check_groups
from cxrlab.train import checked

Compose = Callable[..., DictConfig]
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in config.config_dir().glob("*/*.yaml")
    if path.parent.name not in ("local", "service", "synonyms")  # no group of train.yaml
    and path.stem != "base"
    and "model=timm" not in f"{path.parent.name}={path.stem}"
)
ROOT = ("data.root=/nowhere", "run_dir=/nowhere/run")


def fill(option: str) -> tuple[str, ...]:
    if option.startswith("weights=") and option != "weights=none":
        return (option, "model=of_weights", "model.accept_license=true", *ROOT)
    if option == "model=of_weights":
        return (option, "weights=efficientnet_lite0", *ROOT)
    return (option, *ROOT)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_fits_the_code(option: str, composed: Compose):
    checked(composed(*fill(option)))


@pytest.mark.parametrize("debug", [one for one in OPTIONS if one.startswith("debug=")])
@pytest.mark.parametrize("experiment", [one for one in OPTIONS if one.startswith("experiment=")])
def test_every_experiment_can_be_debugged(debug: str, experiment: str, composed: Compose):
    checked(composed(experiment, debug, *ROOT))


@pytest.mark.parametrize("program", ["evaluate", "compare"])
def test_the_synonyms_are_named_once(program: str, composed: Compose):
    check_groups(config.plain(composed(config_name=program).synonyms.groups))


def test_any_timm_model_can_be_named(composed: Compose):
    cfg = checked(composed("model=timm", "model.backbone=regnety_002", *ROOT))
    assert cfg.model.backbone == "regnety_002"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=fast", r"optimizer.lr='fast' does not fit: it takes "),
        ("seed=1.5", r"seed=1.5 does not fit: it takes int"),
        ("test=perhaps", r"test='perhaps' does not fit"),
        ("monitor_mode=up", r"monitor_mode='up' does not fit: it takes one of max, min"),
        ("data.image_size=large", r"data.image_size='large' does not fit: it takes int"),
        (
            "data.on_unreadable=ignore",
            r"data.on_unreadable='ignore' does not fit: it takes one of raise, skip",
        ),
        ("data.labels=Pneumonia", r"data.labels='Pneumonia' does not fit"),
        (
            "preprocess.normalize=batch",
            r"preprocess.normalize='batch' .* one of auto, training, imagenet, image",
        ),
        ("+model.droput=0.1", r"model.droput=0.1 is no parameter of .*Did you mean dropout\?"),
        ("model.dropout=null", r"model.dropout=None does not fit: it takes float"),
        ("+trainer.max_epoch=3", r"trainer.max_epoch=3 is no parameter .*Did you mean max_epochs\?"),
        ("+lr=1e-3", r"^lr=0.001: nothing reads this key. Did you mean optimizer.lr=0.001\?"),
        ("++optimizr.lr=0.1", r"^optimizr.lr=0.1: nothing reads this key. Did you mean optimizer.lr=0.1\?"),
        ("+zzz=4", r"^zzz=4: nothing reads this key. .*as \$\{zzz\}"),
        ("+zzz.a=4", r"^zzz.a=4: nothing reads this key. .*# @package _global_"),
        (
            "+preprocess.normalise=image",
            r"^preprocess.normalise=image: .*Did you mean preprocess.normalize=image\?",
        ),
        ("+report.image=false", r"^report.image=false: .*Did you mean report.images=false"),
        (
            "+callbacks.patience=3",
            r"^callbacks.patience=3: .*Did you mean callbacks.early_stopping.patience=3",
        ),
        ("+logger.wandb=true", r"^logger.wandb=true: .*\+logger.mine=\{_target_: my_lab.MyClass\}"),
        ("augment.fill=wrap", r"augment.fill='wrap' does not fit: it takes one of reflection, border, zeros"),
        ("loss._target_=cxrlab.losses.Focal", r"loss._target_=cxrlab.losses.Focal does not exist"),
        ("callbacks.best=null", r"callbacks.best=null: the run needs this checkpoint"),
        ("trainer.limit_val_batches=0", r"trainer.limit_val_batches=0: without validation"),
        ("seed=-1", r"seed=-1 must lie between 0"),
        ("data=nih", r"data.root is not set. Give it on the command line: data.root=..."),
    ],
)
def test_what_does_not_fit_is_rejected_before_any_data_is_touched(
    override: str, words: str, composed: Compose
):
    root = ROOT[1:] if override == "data=nih" else ROOT
    with pytest.raises(ConfigError, match=words):
        checked(composed(override, *root))


@pytest.mark.parametrize(
    "overrides",
    [
        ["+size=64", "data.image_size=${size}"],
        ["+mine.size=64", "data.image_size=${mine.size}"],
        ["+trainer.max_steps=3"],
        ["+callbacks.mine={_target_: pytorch_lightning.Callback}"],
        ["~loss", "+loss={_target_: torch.nn.BCEWithLogitsLoss, _partial_: true}"],
        ["~callbacks.heatmaps"],
    ],
)
def test_keys_of_ones_own_that_something_reads_are_accepted(overrides: list[str], composed: Compose):
    checked(composed(*overrides, *ROOT))


def test_a_group_of_which_nothing_is_chosen_takes_no_keys(composed: Compose):
    with pytest.raises(ConfigError, match=r"^data has no _target_.*Choose data=<option>"):
        evaluate.checked(composed("run=/a", "+data.root=/b", "run_dir=/c", config_name="evaluate"))


def test_a_typo_in_a_key_or_option_is_rejected_by_name(composed: Compose):
    with pytest.raises(ConfigCompositionException, match="optimizer.lrr"):
        composed("optimizer.lrr=0.1")
    with pytest.raises(MissingConfigException, match="densenet211"):
        composed("model=densenet211")


def test_the_config_folder_is_that_of_the_checkout():
    assert (config.config_dir() / "train.yaml").is_file()


def test_the_user_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert OmegaConf.create({"x": "${user_cache:}/a"}).x == "/somewhere/cxrlab/a"


def test_an_error_of_the_code_comes_through_the_building_as_it_is():
    cfg = OmegaConf.create({"_target_": "cxrlab.models.preprocess.Preprocess", "normalize": "x", "image_size": 8,
                            "channels": 1})  # fmt: skip
    with pytest.raises(ConfigError, match="^preprocess.normalize='x' must be"):
        config.build(cfg)


def test_a_resume_may_not_change_what_makes_the_run(
    tmp_path: Path, composed: Compose, monkeypatch: pytest.MonkeyPatch
):
    cfg = composed(f"resume={tmp_path}", *ROOT)
    with pytest.raises(
        MissingFileError, match=r"no checkpoints/last.ckpt, so nothing was saved to go on from"
    ):
        resume.resumed_config(cfg)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save(composed("seed=7", *ROOT), tmp_path / ".hydra" / "config.yaml")
    monkeypatch.setattr(resume, "task_overrides", lambda: [f"resume={tmp_path}", "trainer.max_epochs=9"])
    cfg.trainer.max_epochs = 9
    resumed = resume.resumed_config(cfg)
    assert (resumed.seed, resumed.trainer.max_epochs, resumed.run_dir) == (7, 9, str(tmp_path))
    monkeypatch.setattr(resume, "task_overrides", lambda: ["optimizer.lr=0.001"])
    assert resume.resumed_config(cfg).optimizer.lr == 0.001  # what it was: no change
    cfg.optimizer.lr = 0.1
    monkeypatch.setattr(resume, "task_overrides", lambda: ["optimizer.lr=0.1"])
    with pytest.raises(
        ConfigError, match=r"optimizer.lr=0.1 cannot change a run that is resumed; only trainer, callbacks,"
    ):
        resume.resumed_config(cfg)


def test_a_resume_of_a_folder_that_is_no_run_makes_no_folder(tmp_path: Path):
    with pytest.raises(Exception, match=r"absent is no run directory") as caught:
        str(OmegaConf.create({"x": f"${{run_or_resumed:{tmp_path}/absent,new}}"}).x)
    assert (
        message(caught.value)
        == f"resume={tmp_path}/absent is no run directory: it holds no .hydra/config.yaml."
    )
    assert not (tmp_path / "absent").exists()


def test_messages_say_what_to_do():
    full = OSError(28, "No space left on device", "/data/run/last.ckpt")
    assert "hydra.run.dir=<folder>" in message(full)
    assert message(OutputError("words")) == "words"
    assert message(KeyError("x")) == "KeyError: 'x'"
