from dataclasses import replace

import pytest

from cxrlab.data.audit import Finding
from cxrlab.evaluation.results import Caveat, LabelThreshold
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import text
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Session, TrainingData

RUN = ModelInfo(kind="run")
LABELS = ("a", "b", "c", "d")
RECORD = {
    "command": ["python", "-m", "cxrlab.train", "data.root=/data/jane"], "started": "2026-01-01T12:00:00+00:00",
    "versions": {"python": "3.11", "cxrlab": "0.1.0"}, "commit": "abc-dirty",
    "hardware": {"processor": "a processor", "cores": 2, "processes": 1, "precision": "32-true"},
    "data": {"name": "nih", "fingerprint": "f00", "split": {"method": "file", "file": "jane.csv", "seed": 0, "fold": None}},
    "network": {"parameters": 5, "trainable": 3},
    "seconds": {"fit": 754.2, "test": 3, "why": "no number"}, "epochs": 0, "peak_gpu_gib": 1.5,
}  # fmt: skip


def with_auroc(result, estimate):
    return replace(result, macro={**result.macro, "auroc": estimate})


def of_part(result, part, **changes):
    return replace(result, data=replace(result.data, part=part, **changes))


def test_the_headline_of_a_test_part(evaluated):
    result = with_auroc(evaluated(LABELS), Estimate(0.9881, 0.9714, 0.9962))
    assert text.headline(result, RUN) == (
        "On 240 images of 80 patients it had never seen, the model ranked an image with the finding above one without "
        "it 98.8 % of the time (AUROC 0.988, 95 % interval 0.971 to 0.996; mean of the 3 of 4 findings with enough "
        "patients)."
    )


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("val", "the very 240 images of 80 patients that its best epoch and thresholds were chosen on, which is optimistic"),
        ("train", "that it was trained on, which says nothing about new patients"),
    ],
)  # fmt: skip
def test_the_headline_of_images_that_it_has_seen(part, words, evaluated):
    headline = text.headline(of_part(evaluated(LABELS), part), RUN)
    assert words in headline
    assert "never seen" not in headline


@pytest.mark.parametrize(
    ("options", "model_info", "words", "absent"),
    [
        ({"patients": False}, RUN, "On 240 images it had never seen (patients unknown), ", "80"),
        ({"patients": False}, RUN, " as if each image were another patient's", "80"),
        ({}, ModelInfo(), "On 240 images of 80 patients, the model behind these predictions ranked", "never seen"),
        ({}, ModelInfo(unseen=True), "it had never seen", "optimistic"),
        ({}, ModelInfo(kind="run", unseen=False), "On 240 images of 80 patients, the model", "never seen"),
        ({}, ModelInfo(kind="ensemble"), "the ensemble ranked", "the model"),
        ({"labels": ("Edema",)}, RUN, "an image with Edema above one without it", "mean of"),
        ({"missing": ("c",)}, RUN, "mean of the 2 of 4 findings with enough patients", "mean of 4"),
        ({"missing": ("b", "c")}, RUN, "; of a, the only one of 4 findings with enough patients)", "mean of"),
        ({"exclusive": True}, RUN, "an image of a class above one of another class", "finding"),
        ({"labels": ("a",), "missing": ("a",)}, RUN, "no AUROC could be computed for the model", "ranked"),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_images_are(options, model_info, words, absent, evaluated):
    headline = text.headline(evaluated(**{"labels": LABELS} | options), model_info)
    assert words in headline
    assert absent not in headline
    assert headline.startswith("On ")
    assert headline.endswith(".")


def test_an_auroc_may_have_no_interval(evaluated):
    headline = text.headline(with_auroc(evaluated(LABELS), Estimate(1.0)), RUN)
    assert "AUROC 1.000, no interval could be given" in headline


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.45, 0.6, "includes 0.5"), (0.3, 0.45, "below 0.5"), (0.51, 0.6, None), (None, None, None)],
)
def test_a_result_that_guessing_gives_is_told(low, high, words, evaluated):
    result = with_auroc(evaluated(["Edema"]), Estimate(0.5, low, high))
    caveats = text.caveats(result, RUN)
    assert len(caveats) == bool(words)
    if words:
        assert words in caveats[0]


def test_a_caveat_is_told_once_and_those_of_the_model_come_first(evaluated):
    result = replace(
        evaluated(["Edema"]), flags=[Caveat("a", None, "Beware."), Caveat("b", None, "Mind it.")]
    )
    assert text.caveats(result, ModelInfo(notes=["Mind it."])) == ["Mind it.", "Beware."]


def test_what_was_trained_on_what():
    trained = TrainingData(name="nih", parts={"train": (840, 280), "val": (120, None), "test": (0, 0)})
    networks = [NetworkInfo("resnet10t")]
    assert text.training(ModelInfo(kind="run", networks=networks, trained_on=trained)) == (
        "The network (resnet10t) was trained on 840 images of 280 patients of nih. Its best epoch was chosen on "
        "120 images set aside for validation."
    )
    none = TrainingData(name="", parts={"val": (0, 0)})
    ensemble = ModelInfo(kind="ensemble", trained_on=none, networks=networks * 3)
    assert text.training(ensemble) == "Each network of the ensemble (resnet10t) was trained on its data."
    assert "another program" in text.training(ModelInfo())
    assert text.training(ModelInfo(kind="run")) == ""
    assert text.training(ModelInfo(kind="run", networks=networks)) == "The network: resnet10t."


def test_a_network_in_words():
    network = NetworkInfo("resnet10t", 64, 3, num_parameters=1500, num_trainable=500)
    assert text.describe_network(network) == (
        "resnet10t, colour images of 64 x 64 pixels, 1,500 parameters, 500 of them trainable"
    )
    low_rank = NetworkInfo("vit", num_parameters=1600, num_trainable=150, num_lora=100)
    assert text.describe_network(low_rank) == (
        "vit, 1,500 parameters, 50 of them trainable, the others changed by 100 parameters of LoRA"
    )


def test_titles(evaluated):
    result, networks = evaluated(["Edema"]), [NetworkInfo("resnet10t")]
    nameless = of_part(result, "test", name="")
    assert text.title(result, ModelInfo(title="Theirs")) == "Theirs"
    assert text.title(result, ModelInfo(kind="run", networks=networks)) == "resnet10t on nih"
    assert text.title(result, ModelInfo(kind="ensemble", networks=networks * 2)) == (
        "An ensemble of 2 networks on nih"
    )
    assert text.title(nameless, ModelInfo()) == "Evaluation"
    trained_on = TrainingData(name="shenzhen", parts={}, fingerprint="f01")
    external = ModelInfo(kind="run", networks=networks, trained_on=trained_on, is_external=True)
    assert text.title(result, external) == "resnet10t on nih (trained on shenzhen)"
    assert text.title(nameless, external) == "resnet10t on other data (trained on shenzhen)"


def test_data_of_one_name_are_told_apart_by_their_fingerprint():
    assert text.on_data("a", "nih", "f0", trained_on=("nih", "f1")) == (
        "a on nih, fingerprint f0 (trained on nih, fingerprint f1)"
    )
    assert text.on_data("a", "nih", "f0", trained_on=("nih", "f0")) == "a on nih"  # another part of the same
    assert text.on_data("a", "", None, trained_on=("", None)) == "a on other data"


def test_intervals_name_their_unit(evaluated):
    def told(result):
        return text.intervals(result.data, result.interval)

    assert told(evaluated(LABELS)) == (
        "95 %; AUROC of a label by score interval, shares by Wilson's, all else by percentile bootstrap: "
        "100 resamples of the 80 patients, seed 0"
    )
    assert "the 240 images (patients unknown)" in told(evaluated(LABELS, patients=False))


def test_the_source_is_not_among_what_was_evaluated(evaluated):
    result = of_part(evaluated(LABELS), "", source="/data/x")
    rows = dict(text.evaluated(result.data, result.interval))
    assert rows["part"] == "the whole table"
    assert rows["fingerprint"] == "5f2c9a01d3e4"
    assert "/data/x" not in str(rows)


def test_thresholds_in_words(evaluated):
    result = evaluated(LABELS)
    mixed = {"a": LabelThreshold(0.4, "sensitivity@0.9", "validation"),
             "b": LabelThreshold(None, "youden", "validation")}  # fmt: skip
    assert text.thresholds(replace(result, thresholds=mixed)) == (
        "Threshold of each label: sensitivity of at least 0.9, chosen on validation."
    )
    given = {"a": LabelThreshold(0.5, "0.5", "given")}
    assert text.thresholds(replace(result, thresholds=given)) == "Threshold of each label: 0.5, given."
    assert "(Youden), chosen on validation" in text.thresholds(result)
    assert text.no_threshold(result) == ""
    without = evaluated(LABELS, validation=False)
    assert "there is none" in text.no_threshold(without)
    assert text.thresholds(without) == ""


def test_what_the_confusion_matrices_show(evaluated):
    assert "at its threshold" in text.confusion(evaluated(LABELS))
    assert "highest probability" in text.confusion(evaluated(LABELS, exclusive=True))


def test_why_nothing_was_recalibrated(evaluated):
    assert text.no_recalibration(evaluated(LABELS)) == ""
    assert "which needs validation images" in text.no_recalibration(evaluated(LABELS, validation=False))
    asked_for_none = EvaluationSettings(calibration="none", num_resamples=100)
    words = text.no_recalibration(evaluated(LABELS, settings=asked_for_none))
    assert words.endswith("nothing was fitted to correct them (evaluation.calibration=none).")


def test_the_audit_in_words():
    assert "no fault" in text.audit([])
    assert "2 images are alike" in text.audit([Finding("near", "warning", "2 images are alike.", 2)])


def test_a_session_is_told():
    (record,) = text.records({"Training": Session.from_json(RECORD), "Evaluation": None}, names=True)
    assert record.title == ""
    assert record.command == "python -m cxrlab.train data.root=/data/jane"
    assert dict(record.rows) == {
        "started": "2026-01-01T12:00:00+00:00", "cxrlab": "0.1.0", "commit": "abc-dirty", "data": "nih",
        "data fingerprint": "f00", "split": "method file, file jane.csv, seed 0",
        "hardware": "a processor, 2 cores, processes: 1, precision 32-true", "GPU memory": "1.5 GiB at most",
        "epochs": "0", "time": "fit 12.6 min, test 3.0 s",
    }  # fmt: skip
    assert record.versions == [("python", "3.11"), ("cxrlab", "0.1.0")]


def test_a_session_without_names_has_no_command_and_no_file():
    named = RECORD | {"data": RECORD["data"] | {"name": "janes folder"}}
    sessions = {"Training": Session.from_json(named), "Evaluation": Session()}
    first, second = text.records(sessions, names=False)
    assert [first.title, second.title] == ["Training", "Evaluation"]
    assert "jane" not in str(first)
    assert first.command == second.command == ""
    assert dict(first.rows)["split"] == "method file, seed 0"
    assert dict(first.rows)["data fingerprint"] == "f00"
    assert second.rows == []


def test_nothing_known_is_nothing_told():
    assert text.records({"Training": None}, names=True) == []


def test_what_makes_a_result_worthless_comes_first(evaluated):
    flags = [Caveat("few_positives", "Mass", "Mass has few."), Caveat("train_part", None, "Far too good.")]
    flags.append(Caveat("patients_in_folds", None, "In several folds."))
    result = replace(evaluated(["Edema"]), flags=flags)
    found = text.caveats(result, ModelInfo(notes=["Mind it."]))
    assert found == ["Far too good.", "In several folds.", "Mind it.", "Mass has few."]


def test_that_no_patient_is_in_two_parts_is_said_beside_the_split_where_it_was_counted(evaluated):
    result = evaluated(["Edema"])
    split = {shared: dict(text.evaluated(result.data, result.interval, replace(result.cohort, shared_patients=shared)))["split"]
             for shared in (None, 0, 2)}  # fmt: skip
    own = "the data set's own (official)"
    assert split == {None: own, 0: f"{own}; no patient is in two parts", 2: own}
