"""A run whose start weights had seen what it is evaluated on: refused, warned of, or said."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from cxrlab.compare import compare
from cxrlab.data import datamodule
from cxrlab.errors import ConfigError
from cxrlab.evaluate import evaluate
from cxrlab.models.weights import RANDOM, InitialWeights, SeenData
from cxrlab.models.weights.seen import UNKNOWN_FILE
from cxrlab.train import train
from cxrlab.training.checkpoint import checkpoint_hash

Evaluate = Callable[..., dict]

SEEN = InitialWeights(
    name="theirs",
    title="weights of somebody",
    licence="CC BY-NC 4.0",
    source="Somebody 2020",
    seen=(SeenData(data="synthetic", parts=("train", "test")),),
)


class Decoded(Exception):
    """Decoding began."""


def with_start(run: Path, start: InitialWeights) -> Path:
    """Let a run's checkpoint and provenance say that it started from these weights."""
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["initial_weights"] = start.plain()
    torch.save(content, path)
    record = json.loads((run / "provenance.json").read_text())
    record["sessions"][-1]["checkpoints"]["best"] = checkpoint_hash(path)
    record["sessions"][-1]["initial_weights"] = start.plain()
    (run / "provenance.json").write_text(json.dumps(record))
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def evaluated(composed: Callable[..., DictConfig], tmp_path: Path) -> Evaluate:
    """Evaluate into tmp_path/out."""

    def function(*overrides: str) -> dict:
        small = ("evaluation.num_resamples=100", "evaluation.baselines=false", "heatmaps_per_label=0")
        cfg = composed(*small, f"run_dir={tmp_path / 'out'}", *overrides, config_name="evaluate")
        return evaluate(cfg).to_json()

    return function


@pytest.fixture
def nothing_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*args: object, **kwargs: object) -> None:
        raise Decoded

    monkeypatch.setattr(datamodule, "cached", decode)


def test_a_run_from_random_weights_says_so_everywhere(finished_run: Path):
    record = json.loads((finished_run / "provenance.json").read_text())["sessions"][-1]
    assert record["initial_weights"] == RANDOM.plain()
    assert record["data"]["public"] == "synthetic"
    kept = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)["hyper_parameters"]
    assert kept["initial_weights"] == RANDOM.plain()
    assert kept["trained_on"]["data"] == "synthetic"
    assert len(kept["trained_on"]["held_out"]) == 12
    assert str(finished_run) not in str(kept)
    found = json.loads((finished_run / "evaluation.json").read_text())["contamination"]
    assert found == {
        "overlap": "none", "weights": ["random weights"], "reasons": [], "is_allowed": False,
        "validation_reasons": [],
    }  # fmt: skip
    for name in ("report.html", "model_card.md"):
        assert "The training started from random weights." in (finished_run / name).read_text()
    assert "it had never seen" in (finished_run / "report.html").read_text()


def test_a_test_part_that_was_seen_is_refused(run: Path, evaluated: Evaluate):
    with pytest.raises(
        ConfigError,
        match=r"test part of synthetic.*weights of somebody.*synthetic \(train and test\).*allow_seen=true",
    ):
        evaluated(f"run={with_start(run, SEEN)}")
    assert (run / "predictions" / "test.csv").is_file()


def test_where_that_is_accepted_the_first_sentence_says_so(run: Path, evaluated: Evaluate, tmp_path: Path):
    numbers = evaluated(f"run={with_start(run, SEEN)}", "evaluation.allow_seen=true")
    assert numbers["contamination"]["overlap"] == "certain"
    assert numbers["contamination"]["is_allowed"]
    assert [flag["kind"] for flag in numbers["flags"][:2]] == ["seen", "seen_validation"]
    said = "some or all of which the weights it started from had been trained on (evaluation.allow_seen=true)"
    page = (tmp_path / "out" / "report.html").read_text()
    (headline,) = [line for line in page.splitlines() if 'class="headline"' in line]
    assert said in headline
    assert "never seen" not in page
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert said.split("(")[0] in card.splitlines()[2]
    assert (
        "started from weights of somebody, licence CC BY-NC 4.0, trained on synthetic (train and test)."
        in card
    )
    assert "Source of these weights: Somebody 2020." in card


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (replace(SEEN, seen=(SeenData(data="synthetic"),)), "perhaps_seen"),
        (replace(SEEN, seen=(SeenData(data="chexpert", parts=("train",)),)), None),
        (UNKNOWN_FILE, None),  # nobody trains on synthetic radiographs
    ],
)
def test_what_is_not_certain_is_a_warning_at_most(
    start: InitialWeights, kind: str | None, run: Path, evaluated: Evaluate, tmp_path: Path
):
    numbers = evaluated(f"run={with_start(run, start)}")
    kinds = [flag["kind"] for flag in numbers["flags"]]
    assert (kinds[:1] == ["perhaps_seen"]) == (kind is not None)
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("it had never seen" in page) == (kind is None)
    if start.seen is None:
        assert "weights of a local file; what they were trained on is not known" in page


def test_the_validation_part_is_not_refused(run: Path, evaluated: Evaluate):
    numbers = evaluated(f"run={with_start(run, SEEN)}", "part=val")
    assert {"seen", "val_part"} <= {flag["kind"] for flag in numbers["flags"]}


def test_an_ensemble_has_seen_what_a_member_has(run: Path, evaluated: Evaluate, tmp_path: Path):
    other = with_start(Path(shutil.copytree(run, tmp_path / "other")), SEEN)
    with pytest.raises(ConfigError, match="weights of somebody"):
        evaluated(f"run=[{run},{other}]")
    numbers = evaluated(f"run=[{run},{other}]", "evaluation.allow_seen=true")
    assert numbers["contamination"]["weights"] == ["random weights", "weights of somebody"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Members started from random weights." in page
    assert "Members started from weights of somebody, licence CC BY-NC 4.0" in page


def radiographs(folder: Path, labels: list[str]) -> list[str]:
    """A table with images of its own, called RSNA; its overrides."""
    folder.mkdir()
    rows = []
    for number in range(8):
        Image.new("L", (64, 64), 20 * number + 10).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png"} | dict.fromkeys(labels, number % 2))
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return [
        "data=table",
        f"data.root={folder}",
        "data.reader.name=rsna",
        "data.reader.image_column=image",
        "data.reader.patient_column=null",
    ]


def labels_of(run: Path) -> list[str]:
    columns = pd.read_csv(run / "manifest.csv", nrows=1).columns
    return [name.removeprefix("label/") for name in columns if name.startswith("label/")]


@pytest.mark.usefixtures("nothing_decodes")
@pytest.mark.parametrize("seen", ["rsna", "nih"])
def test_another_data_set_that_was_seen_is_refused_before_any_image_is_read(
    seen: str, run: Path, evaluated: Evaluate, tmp_path: Path
):
    start = replace(SEEN, seen=(SeenData(data=seen, parts=("train",)),))
    data = radiographs(tmp_path / "rsna", labels_of(run))
    with pytest.raises(
        ConfigError, match=f"Images of rsna had been seen.*which had seen {seen}.*allow_seen=true"
    ):
        evaluated(f"run={with_start(run, start)}", *data)
    with pytest.raises(Decoded):
        evaluated(f"run={run}", *data, "evaluation.allow_seen=true")


def test_a_networks_own_images_among_others_are_possible_where_none_can_be_compared(
    run: Path, evaluated: Evaluate, tmp_path: Path
):
    record = json.loads((run / "provenance.json").read_text())
    record["sessions"][-1]["data"] |= {"name": "nih", "public": "nih"}
    (run / "provenance.json").write_text(json.dumps(record))
    audit = json.loads((run / "audit.json").read_text())
    (run / "audit.json").write_text(json.dumps(audit | {"root": str(tmp_path / "moved")}))
    numbers = evaluated(f"run={run}", *radiographs(tmp_path / "rsna", labels_of(run)))
    assert numbers["flags"][0]["kind"] == "perhaps_seen"
    assert numbers["flags"][0]["message"].startswith(
        "The network itself was trained on nih; those evaluated, rsna, are of nih too"
    )


def weights_file(run: Path, path: Path, start: InitialWeights, **changes: object) -> Path:
    """A checkpoint of another folder that says that it started from these weights."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"] |= {"initial_weights": start.plain(), **changes}
    torch.save(content, path)
    return path


@pytest.mark.usefixtures("nothing_decodes")
def test_a_training_from_such_weights_does_not_begin(
    finished_run: Path, tiny: Callable[..., DictConfig], tmp_path: Path
):
    path = weights_file(finished_run, tmp_path / "jane.ckpt", SEEN)
    start = f"model.checkpoint_path={path}"
    with pytest.raises(
        ConfigError, match=r"test part of synthetic.*a checkpoint of cxrlab.*test=false.*allow_seen=true"
    ):
        train(tiny(tmp_path / "a", start))
    with pytest.raises(Decoded):
        train(tiny(tmp_path / "b", start, "test=false"))
    with pytest.raises(Decoded):
        train(tiny(tmp_path / "c", start, "evaluation.allow_seen=true"))


def test_a_second_training_with_the_same_test_part_has_not_seen_it(
    finished_run: Path, tiny: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    start = f"model.checkpoint_path={finished_run / 'checkpoints' / 'best.ckpt'}"
    with caplog.at_level(logging.WARNING):
        train(tiny(tmp_path / "run", start))
    assert "Of the test part" not in caplog.text
    numbers = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert numbers["contamination"]["overlap"] == "none"
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())["sessions"][-1]["initial_weights"]
    assert record["title"] == "a checkpoint of cxrlab"
    assert [seen["data"] for seen in record["seen"]] == ["synthetic"]
    assert str(finished_run) not in json.dumps(record)
    train(tiny(tmp_path / "again", f"resume={tmp_path / 'run'}", "trainer.max_epochs=2"))
    sessions = json.loads((tmp_path / "run" / "provenance.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert sessions[-1]["initial_weights"] == record
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert kept["initial_weights"] == record


def test_another_test_part_may_have_been_seen(
    finished_run: Path, tiny: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    start = f"model.checkpoint_path={finished_run / 'checkpoints' / 'best.ckpt'}"
    with caplog.at_level(logging.WARNING):
        train(tiny(tmp_path / "run", start, "data.split.seed=1", "test=false"))
    assert "Of the test part" in caplog.text
    numbers = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert numbers["flags"][0]["kind"] == "perhaps_seen"


def test_a_comparison_says_which_model_had_seen_its_images(
    run: Path, composed: Callable[..., DictConfig], tmp_path: Path
):
    other = with_start(Path(shutil.copytree(run, tmp_path / "other")), SEEN)
    small = ("evaluation.num_resamples=100", f"runs=[{run},{other}]")
    with pytest.raises(ConfigError, match=r"\(other\).*weights of somebody.*allow_seen=true"):
        compare(composed(*small, f"run_dir={tmp_path / 'a'}", config_name="compare"))
    allowed = composed(
        *small, f"run_dir={tmp_path / 'b'}", "evaluation.allow_seen=true", config_name="compare"
    )
    result = compare(allowed)
    assert result.flags[0].message.startswith("other: The training started from")
    nameless = composed(
        *small,
        f"run_dir={tmp_path / 'c'}",
        "evaluation.allow_seen=true",
        "report.images=false",
        config_name="compare",
    )
    compare(nameless)
    page = (tmp_path / "c" / "report.html").read_text()
    assert "other: The training" not in page
    assert ": The training started from" in page
