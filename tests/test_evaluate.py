import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

from cxrlab.errors import ConfigError, DataError
from cxrlab.evaluate import checked, evaluate

Evaluate = Callable[..., dict]


@pytest.fixture
def evaluated(composed: Callable[..., DictConfig], tmp_path: Path) -> Evaluate:
    """Evaluate into tmp_path/out."""

    def function(*overrides: str) -> dict:
        out = tmp_path / "out"
        small = "evaluation.num_resamples=100"
        cfg = composed(small, f"run_dir={out}", *overrides, config_name="evaluate")
        return evaluate(cfg).to_json()

    return function


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_a_training_ends_with_the_evaluation_of_its_test_part(finished_run: Path):
    numbers = json.loads((finished_run / "evaluation.json").read_text())
    assert numbers["data"]["part"] == "test"
    results = pd.read_csv(finished_run / "results.csv").set_index(["part", "label"])
    for label, metrics in numbers["labels"].items():
        assert metrics["auroc"]["value"] == pytest.approx(results.loc[("test", label), "auroc"], abs=1e-5)
    for name in ("report.html", "model_card.md", "curves.csv", "figures/roc.png"):
        assert (finished_run / name).stat().st_size > 500
    page = (finished_run / "report.html").read_text()
    assert "python -m cxrlab.train" in page
    assert "data:image/jpeg" in page  # heatmaps


def test_a_training_ends_as_the_command_evaluates_its_run(evaluated: Evaluate, run: Path):
    again, own = evaluated(f"run={run}"), json.loads((run / "evaluation.json").read_text())
    for numbers in (again, own):
        del numbers["seconds"], numbers["data"]["source"]  # times, and where the copy lies
    assert again == own


def test_thresholds_are_chosen_on_validation_and_kept_in_the_checkpoint(finished_run: Path):
    import cxrlab
    from cxrlab.metrics.margin import threshold_basis
    from cxrlab.metrics.predictions import read_predictions
    from cxrlab.metrics.thresholds import choose_thresholds

    run = cxrlab.load_run(finished_run)
    validation = run.predictions("val")
    columns = [[f"{prefix}/{label}" for label in run.labels] for prefix in ("probability", "target")]
    scores, targets = (validation[names].to_numpy() for names in columns)
    expected = choose_thresholds(scores, targets, "youden")
    np.testing.assert_allclose(list(run.thresholds.values()), expected, rtol=1e-4, equal_nan=True)
    test = run.predictions("test")
    basis = threshold_basis(
        read_predictions(run.files.predictions("val")), np.array([*run.thresholds.values()])
    )
    for (label, threshold), chosen_on in zip(run.thresholds.items(), basis, strict=True):
        assert (test[f"prediction/{label}"] == (test[f"probability/{label}"] >= threshold)).all()
        assert run.evaluation["thresholds"][label] == {
            "value": threshold,
            "rule": "youden",
            "source": "validation",
            **asdict(chosen_on),
        }


def test_a_run_is_evaluated_again_with_other_settings_and_its_own_files_stay(evaluated: Evaluate, run: Path):
    before = (run / "evaluation.json").read_bytes()
    numbers = evaluated(f"run={run}", "evaluation.threshold=sensitivity@0.9")
    own = json.loads(before)
    assert (run / "evaluation.json").read_bytes() == before
    assert numbers["labels"]["Nodule"]["auroc"]["value"] == own["labels"]["Nodule"]["auroc"]["value"]
    assert numbers["thresholds"]["Nodule"]["rule"] == "sensitivity@0.9"
    assert numbers["thresholds"]["Nodule"]["value"] != own["thresholds"]["Nodule"]["value"]


def test_predictions_made_anew_equal_those_of_the_training(evaluated: Evaluate, run: Path, tmp_path: Path):
    saved = pd.read_csv(run / "predictions" / "test.csv")
    (run / "predictions" / "test.csv").unlink()
    evaluated(f"run={run}", "device=cpu", "heatmaps_per_label=1")
    again = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert again["image"].tolist() == saved["image"].tolist()
    columns = [name for name in saved if name.startswith(("probability/", "target/"))]
    np.testing.assert_allclose(again[columns], saved[columns], atol=2e-5)
    assert (tmp_path / "out" / "heatmaps" / "index.csv").is_file()


def test_a_given_threshold_serves_all_labels(evaluated: Evaluate, run: Path):
    numbers = evaluated(f"run={run}", "threshold=0.25")
    assert {one["value"] for one in numbers["thresholds"].values()} == {0.25}
    assert {one["source"] for one in numbers["thresholds"].values()} == {"given"}


def test_the_validation_part_is_flagged(evaluated: Evaluate, run: Path):
    assert evaluated(f"run={run}", "part=val")["flags"][0]["kind"] == "val_part"


def folder_of(run: Path, synthetic_root: Path, tmp_path: Path, part: str) -> Path:
    """Some images of a part of the run as another data set, one folder a class."""
    table = pd.read_csv(run / "manifest.csv", dtype={"patient": str})
    table = table[table["part"] == part].head(24)
    root = next(synthetic_root.iterdir())
    for row in table.itertuples():
        target = tmp_path / "other" / ("Pleural Effusion" if row.Index % 2 else "Healthy")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / row.image, target / f"q{row.Index}.png")
    return tmp_path / "other"


def external(folder: Path) -> list[str]:
    return [
        "data=folder", f"data.root={folder}", 'data.reader.patient_pattern="^(q[0-9]+)"',
        "data.reader.positive_class=Pleural Effusion", "data.num_workers=0", "device=cpu",
    ]  # fmt: skip


def test_another_data_set_is_matched_by_synonyms(
    evaluated: Evaluate, run: Path, synthetic_root: Path, tmp_path: Path
):
    folder = folder_of(run, synthetic_root, tmp_path, "test")
    numbers = evaluated(f"run={run}", *external(folder), "heatmaps_per_label=0")
    assert list(numbers["labels"]) == ["Effusion"]
    assert numbers["counts"]["Effusion"]["images"] == 24
    messages = [one["message"] for one in numbers["flags"]]
    assert any("no label for Nodule, Opacity, Cardiomegaly" in message for message in messages)
    assert any(
        "None of these images is among those that the network was trained on" in one for one in messages
    )
    beside = numbers["external"]
    own = json.loads((run / "evaluation.json").read_text())
    assert beside["labels"]["Effusion"]["metrics"]["auroc"]["own"] == own["labels"]["Effusion"]["auroc"]
    assert beside["labels"]["Effusion"]["metrics"]["auroc"]["here"] == numbers["labels"]["Effusion"]["auroc"]
    assert (beside["part"], beside["images"]) == ("test", own["data"]["images"])
    assert [row["variable"] for row in beside["drift"]] == ["brightness", "contrast", "spread"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'id="external"' in page


def test_the_page_of_another_data_set_is_titled_and_audited_by_that_one(
    evaluated: Evaluate, run: Path, synthetic_root: Path, tmp_path: Path
):
    folder = folder_of(run, synthetic_root, tmp_path, "test")
    copied = next(folder.glob("Healthy/*.png"))
    for number in range(3):
        shutil.copy(copied, copied.with_name(f"q90{number}.png"))
    evaluated(f"run={run}", *external(folder), "heatmaps_per_label=0")
    page, card = ((tmp_path / "out" / name).read_text() for name in ("report.html", "model_card.md"))
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert "<h1>resnet10t on other (trained on synthetic)</h1>" in page
    assert audit["data"]["name"] == "other"
    section = page[page.index('<section id="audit">') : page.index('<section id="labels">')]
    assert "Of other, which is evaluated here. The audit of what was trained on, synthetic" in section
    assert any(
        finding["message"] in section for finding in audit["findings"] if "identical" in finding["kind"]
    )
    assert "other" not in card.partition("\n")[0].replace("on other data (trained on synthetic)", "")
    assert (
        json.loads((tmp_path / "out" / "provenance.json").read_text())["sessions"][0]["data"]["name"]
        == "other"
    )


def test_images_of_the_training_are_found_by_content_whatever_their_name(
    evaluated: Evaluate, run: Path, synthetic_root: Path, tmp_path: Path
):
    folder = folder_of(run, synthetic_root, tmp_path, "train")
    with pytest.raises(DataError, match="was trained on these very images"):
        evaluated(f"run={run}", *external(folder))


def test_the_runs_own_data_under_another_name_of_the_part_is_rejected(
    evaluated: Evaluate, run: Path, synthetic_root: Path
):
    own = [
        "data=synthetic",
        "data.reader.num_patients=40",
        "data.reader.size=64",
        f"data.root={synthetic_root}",
    ]
    with pytest.raises(DataError, match=r"patients that .* was trained or validated on"):
        evaluated(f"run={run}", *own, "data.num_workers=0", "device=cpu")


def test_an_ensemble_is_the_mean(evaluated: Evaluate, run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "other_run"))
    path = other / "predictions" / "test.csv"
    table = pd.read_csv(path, dtype={"patient": str})
    columns = [name for name in table if name.startswith("probability/")]
    before = table[columns].to_numpy()
    table[columns] = before[::-1]
    table.to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"other_run/predictions/test.csv is not the table that the training wrote"
    ):
        evaluated(f"run=[{run},{other}]")
    provenance = json.loads((other / "provenance.json").read_text())
    assert provenance["sessions"][-1].pop("predictions").keys() == {"val", "test"}
    (other / "provenance.json").write_text(json.dumps(provenance))
    evaluated(f"run=[{run},{other}]")
    mean = pd.read_csv(tmp_path / "out" / "predictions.csv")
    np.testing.assert_allclose(mean[columns], (before + before[::-1]) / 2)
    assert "ensemble" in (tmp_path / "out" / "report.html").read_text()


def flipped_mean(run: Path, part: str) -> np.ndarray:
    """Probabilities of a part as the mean of the images as they are and mirrored, by the saved classifier."""
    import torch

    import cxrlab

    loaded = cxrlab.load_run(run)
    root = Path(json.loads((run / "audit.json").read_text())["root"])
    images = loaded.images([root / name for name in loaded.predictions(part)["image"]])
    with torch.inference_mode():
        logits = [loaded.model(images), loaded.model(images.flip(-1))]
    return torch.stack([torch.sigmoid(one.float()) for one in logits]).mean(0).double().numpy()


def test_other_views_are_averaged_with_thresholds_of_validation_images_seen_so(
    evaluated: Evaluate, run: Path, tmp_path: Path
):
    from cxrlab.metrics.thresholds import choose_thresholds

    numbers = evaluated(f"run={run}", "views=[identity,flip]", "device=cpu", "heatmaps_per_label=0")
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    columns = [f"probability/{label}" for label in numbers["labels"]]
    np.testing.assert_allclose(found[columns], flipped_mean(run, "test"), atol=2e-5)
    validation = pd.read_csv(run / "predictions" / "val.csv")
    targets = validation[[f"target/{label}" for label in numbers["labels"]]].to_numpy()
    expected = choose_thresholds(flipped_mean(run, "val"), targets, "youden")
    values = [one["value"] for one in numbers["thresholds"].values()]
    np.testing.assert_allclose(values, expected, atol=2e-5)
    assert {one["source"] for one in numbers["thresholds"].values()} == {"validation"}
    own = json.loads((run / "evaluation.json").read_text())["thresholds"]
    assert values != [one["value"] for one in own.values()]
    assert any("the mean over the views identity, flip" in one["message"] for one in numbers["flags"])


def test_the_run_s_own_views_change_nothing(evaluated: Evaluate, run: Path):
    own = json.loads((run / "evaluation.json").read_text())
    assert evaluated(f"run={run}", "views=[identity]", "root=/nowhere")["thresholds"] == own["thresholds"]


def test_an_ensemble_takes_other_views_too(evaluated: Evaluate, run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "other_run"))
    for folder in (run, other):
        (folder / "predictions" / "test.csv").rename(folder / "kept.csv")
        (folder / "predictions" / "val.csv").unlink()
    numbers = evaluated(f"run=[{run},{other}]", "views=[identity,flip]", "device=cpu")
    for folder in (run, other):
        (folder / "kept.csv").rename(folder / "predictions" / "test.csv")
    columns = [f"probability/{label}" for label in numbers["labels"]]
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    np.testing.assert_allclose(found[columns], flipped_mean(run, "test"), atol=2e-5)
    assert {one["source"] for one in numbers["thresholds"].values()} == {"validation"}


def test_other_views_need_the_run_s_own_images(evaluated: Evaluate, run: Path, tmp_path: Path):
    config = run / ".hydra" / "resolved.yaml"
    config.write_text(config.read_text().replace("num_patients: 40", "num_patients: 39"))
    with pytest.raises(DataError, match="are not those that .* was trained on"):
        evaluated(f"run={run}", "views=[identity,flip]", "device=cpu", f"root={tmp_path / 'drawn'}")


def test_images_of_another_content_are_not_the_run_s_own(evaluated: Evaluate, run: Path):
    provenance = run / "provenance.json"
    record = json.loads(provenance.read_text())
    record["sessions"][-1]["data"]["content"] = "0123456789ab"
    provenance.write_text(json.dumps(record))
    with pytest.raises(
        DataError, match="Images below .* have another content than those that .* for 0123456789ab"
    ):
        evaluated(f"run={run}", "part=train", "device=cpu")


def test_a_table_of_another_program(evaluated: Evaluate, run: Path, tmp_path: Path):
    ours = pd.read_csv(run / "predictions" / "test.csv", dtype={"patient": str})
    for part in ("val", "test"):
        table = pd.read_csv(run / "predictions" / f"{part}.csv")
        theirs = table[["image", "probability/Nodule", "probability/Effusion"]]
        theirs.columns = ["Image Index", "prob_Nodule", "prob_pleural effusion"]
        theirs.sample(frac=1, random_state=0).to_csv(tmp_path / f"theirs_{part}.csv", index=False)
    manifest = pd.read_csv(run / "manifest.csv", dtype={"patient": str})
    manifest = manifest[manifest["part"] != "train"].drop(columns=["split", "part"])
    manifest.to_csv(tmp_path / "labels.csv", index=False)
    numbers = evaluated(
        f"predictions={tmp_path / 'theirs_test.csv'}", f"targets={tmp_path / 'labels.csv'}",
        f"validation={tmp_path / 'theirs_val.csv'}",
    )  # fmt: skip
    own = json.loads((run / "evaluation.json").read_text())
    assert numbers["data"]["patients"] == ours["patient"].nunique()
    for metric in ("auroc", "sensitivity", "ppv"):
        assert numbers["labels"]["Nodule"][metric]["value"] == pytest.approx(
            own["labels"]["Nodule"][metric]["value"]
        )
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_page_without_images_names_none(evaluated: Evaluate, run: Path, tmp_path: Path):
    evaluated(f"run={run}", "report.images=false")
    texts = [(tmp_path / "out" / name).read_text() for name in ("report.html", "model_card.md")]
    manifest = pd.read_csv(run / "manifest.csv", dtype={"patient": str})
    for text in texts:
        assert not [name for name in manifest["image"] if name in text]
        assert str(tmp_path) not in text
        assert "data:image/jpeg" not in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "Give one of run="),
        (["run=a", "predictions=b"], "Give one of run="),
        (["run=[]"], "run=.. names no run directory"),
        (["predictions=b.csv"], "predictions=b.csv needs targets="),
        (["predictions=b.csv", "targets=c.csv", "part=val"], "part= has no place beside predictions="),
        (["run=a", "targets=c.csv"], "targets= has no place beside run="),
        (["run=a", "part=all"], "part=all would evaluate a run on its own training images"),
        (
            ["run=a", "part=some"],
            "part='some' does not fit: it takes one of train, val, test, all|part='some'",
        ),
        (["run=a", "views=[identity,flop]"], "'flop' is none of identity, flip.*Did you mean flip"),
        (["run=a", "views=flip"], "views='flip' does not fit.*Write views=.'flip'.|Write views=.flip."),
        (["predictions=b.csv", "targets=c.csv", "views=[flip]"], "views= has no place beside predictions="),
        (["run=a", "evaluation.threshold=best"], "evaluation.threshold='best' must be one of youden"),
        (["run=a", "evaluation.num_resamples=5"], "evaluation.num_resamples=5 must be at least 100"),
        (["run=a", "evaluation.level=95"], "evaluation.level=95"),
    ],
)
def test_what_does_not_fit_together_is_rejected(
    overrides: list[str], words: str, composed: Callable[..., DictConfig]
):
    with pytest.raises(ConfigError, match=words):
        checked(composed("run_dir=/nowhere", *overrides, config_name="evaluate"))


def test_one_run_twice_is_no_ensemble(evaluated: Evaluate, run: Path):
    with pytest.raises(ConfigError, match="names one run twice"):
        evaluated(f"run=[{run},{run}/checkpoints/..]")


def test_training_images_that_are_gone_are_said(
    evaluated: Evaluate, run: Path, synthetic_root: Path, tmp_path: Path
):
    audit = json.loads((run / "audit.json").read_text())
    copied = Path(shutil.copytree(audit["root"], tmp_path / "copy"))
    manifest = pd.read_csv(run / "manifest.csv", dtype={"patient": str})
    for image in manifest.loc[manifest["part"] == "train", "image"][3:]:
        (copied / image).unlink()
    (run / "audit.json").write_text(json.dumps(audit | {"root": str(copied)}))
    folder = folder_of(run, synthetic_root, tmp_path, "test")
    numbers = evaluated(f"run={run}", *external(folder), "heatmaps_per_label=0")
    assert any("could not be checked in full" in one["message"] for one in numbers["flags"])
    assert "never seen" not in (tmp_path / "out" / "report.html").read_text()


def test_a_validation_table_may_bring_its_own_targets(evaluated: Evaluate, run: Path):
    tables = [run / "predictions" / f"{part}.csv" for part in ("test", "val")]
    numbers = evaluated(f"predictions={tables[0]}", f"targets={tables[0]}", f"validation={tables[1]}")
    own = json.loads((run / "evaluation.json").read_text())
    assert numbers["labels"]["Nodule"]["f1"]["value"] == pytest.approx(own["labels"]["Nodule"]["f1"]["value"])


def test_a_number_as_the_rule_needs_no_validation(evaluated: Evaluate, run: Path):
    table = run / "predictions" / "test.csv"
    numbers = evaluated(f"predictions={table}", f"targets={table}", "evaluation.threshold=0.5")
    assert {one["value"] for one in numbers["thresholds"].values()} == {0.5}


def test_a_resumed_training_leaves_no_earlier_networks_predictions(run: Path):
    from cxrlab.files import RunDir
    from cxrlab.runs.writing import remove_evaluation

    remove_evaluation(RunDir(run))
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert not left & {"predictions/val.csv", "predictions/test.csv", "evaluation.json", "report.html"}
    assert not (run / "heatmaps" / "test").exists()
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "manifest.csv", "metrics.csv"} <= left


def test_interventions_are_asked_for_and_stand_on_the_page(evaluated: Evaluate, run: Path, tmp_path: Path):
    words = ("interventions=30", "evaluation.min_positives=1", "report.images=false")
    numbers = evaluated(f"run={run}", *words)["interventions"]
    assert 0 < numbers["images"] <= 30
    assert {row["name"] for row in numbers["rows"]} >= {"no_border", "half_resolution", "equal_histograms"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Does it need the lungs?" in page
    assert "interventions.png" not in {path.name for path in (tmp_path / "out" / "figures").iterdir()}


def test_interventions_need_a_run_and_a_number(composed):
    with pytest.raises(ConfigError, match="interventions"):
        checked(composed("run=/a", "run_dir=/nowhere", "interventions=0", config_name="evaluate"))
    with pytest.raises(ConfigError, match="interventions=5 change the images of one run: give run="):
        words = ("predictions=a.csv", "targets=b.csv", "interventions=5", "run_dir=/nowhere")
        checked(composed(*words, config_name="evaluate"))
