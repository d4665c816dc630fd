import pytest

from cxrlab.report import text
from cxrlab.report.model_info import ModelInfo, TrainingData

RUN = ModelInfo(kind="run")
AUROC = {"value": 0.9881, "low": 0.9714, "high": 0.9962}
NOTHING = {"value": None, "low": None, "high": None}


def numbers(labels=("a", "b", "c", "d"), part="test", patients=80, auroc=AUROC, **others):
    return {
        "data": {"name": "synthetic", "part": part, "images": 240, "patients": patients, "split": "grouped",
                 "fingerprint": "f00", "source": "/data/x"},
        "interval": {"level": 0.95, "unit": "patient" if patients else "image", "resamples": 1000, "seed": 0,
                     "method": "percentile bootstrap"},
        "labels": {label: {"auroc": auroc} for label in labels}, "macro": {"auroc": auroc}, "num_macro_labels": len(labels),
        "thresholds": {label: {"value": 0.4, "rule": "youden", "source": "validation"} for label in labels},
        "classification_report": None, "calibration": None, "flags": [],
    } | others  # fmt: skip


def test_the_headline_of_a_test_part():
    assert text.headline(numbers(), RUN) == (
        "On 240 images of 80 patients it had never seen, the model ranked an image with the finding above one without "
        "it 98.8 % of the time (AUROC 0.988, 95 % interval 0.971 to 0.996; mean of 4 findings)."
    )


@pytest.mark.parametrize(
    ("given", "model_info", "told", "unknown"),
    [
        ({"part": "val"}, RUN, "the very 240 images of 80 patients that its best epoch and thresholds were chosen on, which is optimistic", "never seen"),
        ({"part": "train"}, RUN, "that it was trained on, which says nothing about new patients", "never seen"),
        ({"patients": None}, RUN, "On 240 images it had never seen (patients unknown), ", "80"),
        ({"patients": None}, RUN, "0.971 to 0.996 as if each image were another patient's", "80"),
        ({}, ModelInfo(), "On 240 images of 80 patients, the model behind these predictions ranked", "never seen"),
        ({}, ModelInfo(unseen=True), "it had never seen", "optimistic"),
        ({}, ModelInfo(kind="run", unseen=False), "On 240 images of 80 patients, the model", "never seen"),
        ({}, ModelInfo(kind="ensemble"), "the ensemble ranked", "the model"),
        ({"labels": ("Edema",)}, RUN, "an image with Edema above one without it", "mean of"),
        ({"num_macro_labels": 3}, RUN, "mean of the 3 of 4 findings for which it is defined", "mean of 4"),
        ({"classification_report": {"kind": "exclusive"}}, RUN, "an image of a class above one of another class", "finding"),
        ({"auroc": {"value": 1.0, "low": None, "high": None}}, RUN, "AUROC 1.000, no interval could be given", "95 %"),
        ({"auroc": NOTHING}, RUN, "no AUROC could be computed for the model", "ranked"),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_images_are(given, model_info, told, unknown):
    headline = text.headline(numbers(**given), model_info)
    assert told in headline
    assert unknown not in headline
    assert headline.startswith("On ")
    assert headline.endswith(".")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.45, 0.6, "includes 0.5"), (0.3, 0.45, "below 0.5"), (0.51, 0.6, None), (None, None, None)],
)
def test_a_result_that_guessing_gives_is_told(low, high, words):
    told = text.caveats(numbers(auroc={"value": 0.5, "low": low, "high": high}))
    assert bool(told) == bool(words)
    if words:
        assert words in told[0]


def test_what_was_trained_on_what():
    trained = TrainingData(name="nih", parts={"train": (840, 280), "val": (120, None), "test": (0, 0)})
    assert text.training(ModelInfo(kind="run", network="resnet10t", trained_on=trained)) == (
        "The network (resnet10t) was trained on 840 images of 280 patients of nih. Its best epoch was chosen on "
        "120 images set aside for validation."
    )
    none = TrainingData(name="nih", parts={"val": (0, 0)})
    assert (
        text.training(ModelInfo(kind="ensemble", trained_on=none))
        == "Each network of the ensemble was trained on nih."
    )
    assert "another program" in text.training(ModelInfo())
    assert text.training(ModelInfo(kind="run")) == ""


def test_intervals_name_their_unit():
    assert (
        text.intervals(numbers())
        == "95 %, by percentile bootstrap: 1,000 resamples of the 80 patients, seed 0"
    )
    assert "the 240 images (patients unknown)" in text.intervals(numbers(patients=None))


def test_the_source_is_not_among_what_was_evaluated():
    rows = dict(text.predicted(numbers(part="")))
    assert rows["part"] == "the whole table"
    assert "/data/x" not in str(rows)


def test_thresholds_in_words():
    mixed = {"a": {"value": 0.4, "rule": "sensitivity@0.9", "source": "validation"},
             "b": {"value": None, "rule": "youden", "source": "validation"}}  # fmt: skip
    assert text.thresholds(numbers(thresholds=mixed)) == (
        "Threshold of each label: sensitivity of at least 0.9, chosen on validation."
    )
    given = {"a": {"value": 0.5, "rule": "0.5", "source": "given"}}
    assert text.thresholds(numbers(thresholds=given)) == "Threshold of each label: 0.5, given."
    assert text.no_threshold(numbers()) is None
    assert "there is none" in text.no_threshold(numbers(thresholds={}))
    assert text.thresholds(numbers(thresholds={})) == ""


def test_what_the_confusion_matrices_show():
    assert "at its threshold" in text.confusion(numbers())
    assert "highest probability" in text.confusion(numbers(classification_report={"kind": "exclusive"}))


def test_why_nothing_was_recalibrated():
    def calibration(after):
        return {"labels": {"a": {"after": after}}}

    assert text.no_recalibration(numbers(calibration=calibration({"ece": 0}))) is None
    assert "validation" in text.no_recalibration(numbers(calibration=calibration(None)))
    assert text.no_recalibration(numbers()) == "Calibration was not evaluated."
