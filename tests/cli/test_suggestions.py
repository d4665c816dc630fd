"""A key or an option that there is not is answered with what may have been meant."""

import pytest

from cxrlab.cli import suggestions
from cxrlab.cli.suggestions import command_keys, hint, option_hint


@pytest.fixture
def of_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestions.sys, "argv", ["/somewhere/cxrlab/train.py"])


@pytest.mark.usefixtures("of_train")
@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("lr=0.1", "Did you mean optimizer.lr=0.1?"),
        ("epochs=3", "Did you mean trainer.max_epochs=3?"),
        ("optimizr.lr=0.1", "Did you mean optimizer.lr=0.1?"),
        ("data.batchsize=4", "Did you mean data.batch_size=4?"),
        ("max_epoch=4", "Did you mean trainer.max_epochs=4?"),
        ("early_stopping.patience=4", "callbacks.early_stopping.patience=4"),
        ("zzz=4", ""),
    ],
)
def test_a_misspelt_key_is_answered_with_its_full_name(argument, meant):
    text = hint(f"Could not override '{argument.partition('=')[0]}'.", [argument, "model=densenet121"])
    assert meant in text
    assert bool(text) == bool(meant)


@pytest.mark.usefixtures("of_train")
def test_keys_are_those_of_the_groups_that_the_command_line_chooses():
    assert "optimizer.momentum" in command_keys(["optimizer=sgd", "lr=1"])
    assert "optimizer.momentum" not in command_keys(["lr=1"])
    assert "data.root" in command_keys(["data=nosuch"])  # an option that there is not is left out


def test_a_misspelt_option_is_answered_with_the_right_one():
    assert option_hint("data", "NIH", ["nih", "table"]) == "Did you mean data=nih?"
    assert option_hint("loss", "wieghted_bce", ["bce", "weighted_bce"]).startswith(
        "Did you mean loss=weighted_bce"
    )
    assert (
        option_hint("model", "resnet18", ["resnet50", "timm"])
        == "Did you mean model=timm model.backbone=resnet18?"
    )
    assert option_hint("model", "qqq", ["resnet50", "timm"]) == ""
    message = (
        "In 'train': Could not find 'optimizer/adamW'\n\nAvailable options in 'optimizer':\n\tadam\n\tadamw\n"
    )
    assert hint(message, []) == "Did you mean optimizer=adamw?"


def test_a_file_of_ones_own_that_is_not_found_is_answered_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = "In 'train': Could not find 'data/clinic'\n\nAvailable options in 'data':\n\tfolder\n\tnih\n"
    assert hint(message, []) == (
        "Is data/clinic.yaml a file of your own? Then --config-dir <the folder that holds data/clinic.yaml> "
        "finds it."
    )
    (tmp_path / "my conf" / "data").mkdir(parents=True)
    (tmp_path / "my conf" / "data" / "clinic.yaml").touch()
    found = "my conf/data/clinic.yaml is a file of your own: say where by --config-dir 'my conf'"
    assert hint(message, ["data=clinic"]) == found
    assert hint(message, ["--config-dir", "my conf/data", "data=clinic"]) == found
    assert hint(message, ["--config-dir=my conf/data", "data=clinic"]) == found
