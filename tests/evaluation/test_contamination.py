"""Whether start weights had seen what is evaluated: decided by names."""

import pytest

from cxrlab.errors import ConfigError
from cxrlab.evaluation.caveats import contamination_caveats
from cxrlab.evaluation.contamination import (
    Contamination,
    EvaluatedImages,
    check_unseen,
    contamination,
    training_overlap,
)
from cxrlab.models.weights import RANDOM, InitialWeights, SeenData
from cxrlab.models.weights.seen import UNKNOWN_DATA, UNKNOWN_FILE, timm_weights


def weights(*seen: SeenData, title: str = "theirs") -> InitialWeights:
    return InitialWeights(name=title, title=title, seen=seen)


def saw(data: str, *parts: str, **more: str) -> SeenData:
    return SeenData(data=data, parts=parts, **more)


def images(data: str, *parts: str, digest: str = "") -> EvaluatedImages:
    return EvaluatedImages(data=data, parts=frozenset(parts or ("",)), digest=digest)


TEST = images("nih", "test")

DECISIONS = [
    # The data set itself.
    (saw("nih", "train"), TEST, "none"),
    (saw("nih", "test"), TEST, "certain"),
    (saw("nih", "train", "test"), TEST, "certain"),
    (saw("nih", "all"), TEST, "certain"),
    (saw("nih"), TEST, "possible"),
    (saw("nih", "train", "test"), images("nih", "train", "test"), "certain"),  # a random draw
    (saw("nih", "train"), images("nih", "train", "test"), "certain"),
    (saw("nih", "train", "test"), images("nih"), "certain"),  # a random draw without the lists
    (saw("nih", "test"), images("nih"), "possible"),
    (saw("nih", "train"), images("nih", "train"), "certain"),  # the validation part
    (saw("rsna"), images("rsna"), "certain"),  # nobody has other images of it
    (saw("rsna", "train"), images("rsna"), "certain"),
    (saw("chexpert", "train"), images("chexpert", "test"), "none"),
    # One holds images of the other.
    (saw("rsna"), TEST, "certain"),
    (saw("rsna", "train"), images("nih", "train"), "certain"),
    (saw("nih", "train"), images("rsna"), "certain"),
    (saw("nih"), images("rsna"), "possible"),
    (saw("siim"), TEST, "possible"),
    (saw("nih", "test"), images("siim"), "possible"),
    (saw("nih", "train"), images("nih_expert"), "none"),
    (saw("nih", "test"), images("nih_expert"), "certain"),
    (saw("nih_google", "train"), TEST, "none"),
    (saw("nih_google", "test"), TEST, "certain"),
    (saw("nih_google"), TEST, "possible"),
    (saw("chestmnist", "train"), TEST, "possible"),
    (saw("chestmnist", "train", "test"), TEST, "certain"),
    (saw("nih_chexnet", "train"), TEST, "certain"),
    (saw("mimic", "train"), images("cxr_lt", "test"), "possible"),
    (saw("chexpert_plus", "train"), images("chexpert", "test"), "none"),
    (saw("chexpert_plus", "test"), images("chexpert", "test"), "certain"),
    (saw("chexpert", "train"), images("chexpert_plus", "test"), "none"),
    (saw("pneumonia", "train"), images("pneumoniamnist", "val"), "certain"),
    (saw("pneumonia", "train"), images("pneumoniamnist", "test"), "none"),
    (saw("rsna"), images("covid_radiography"), "certain"),
    (saw("rsna"), images("covidx", "test"), "possible"),
    # Two selections from a third.
    (saw("rsna"), images("siim"), "possible"),
    (saw("rsna"), images("chestx_det10", "test"), "possible"),
    (saw("nih_google", "train"), images("nih_expert"), "none"),
    (saw("covidx", "train"), TEST, "possible"),
    # No overlap, or nothing that is known.
    (saw("imagenet-1k"), TEST, "none"),
    (saw("chexpert", "train", "test"), TEST, "none"),
    (saw("padchest"), images("my_ward"), "none"),
    (saw("my_ward", "train"), images("my_ward"), "certain"),
    (saw("my_ward"), images("my_ward"), "possible"),
    (saw(UNKNOWN_DATA, note="what it started from is not known"), TEST, "unknown"),
    (saw("", note="fingerprint f00"), TEST, "unknown"),
    (saw("my_ward"), images(""), "none"),
    # The very images that were held out.
    (saw("rsna", held_out="abc"), images("rsna", digest="abc"), "none"),
    (saw("rsna", held_out="abc"), images("rsna", digest="def"), "certain"),
    (saw("", held_out="abc"), images("", digest="abc"), "none"),
    (saw("rsna", held_out=""), images("rsna", digest=""), "certain"),
]


@pytest.mark.parametrize(("seen", "evaluated", "overlap"), DECISIONS)
def test_decisions(seen: SeenData, evaluated: EvaluatedImages, overlap: str):
    found = contamination([weights(seen)], evaluated)
    assert found.overlap == overlap
    assert found.weights == ("theirs",)
    assert bool(found.reasons) == (overlap != "none")


def test_random_weights_and_photographs_have_seen_no_radiograph():
    for start in (RANDOM, timm_weights("resnet10t"), timm_weights("vit_small_patch14_dinov2")):
        assert contamination([start], TEST).overlap == "none"


def test_unknown_weights_are_unknown_and_a_doubt_where_others_train_on_such_images():
    for start in (None, UNKNOWN_FILE):
        found = contamination([start], TEST)
        assert found.overlap == "unknown"
        (caveat,) = contamination_caveats(found, "nih")
        assert caveat.kind == "unknown_start"
        assert "not known" in caveat.message
        assert contamination_caveats(found, "my_ward") == []
        assert contamination_caveats(found, "") == []


def test_of_an_ensemble_the_worst_counts_with_its_reasons():
    members = [weights(saw("nih"), title="one"), weights(saw("rsna"), title="two"), RANDOM, None]
    found = contamination(members, TEST)
    assert found.overlap == "certain"
    assert found.weights == ("one", "two", "random weights", "weights that are not recorded")
    (reason,) = found.reasons
    assert reason == (
        "The training started from two, which had seen rsna, which holds images of nih (8,196 of its 30,000 images "
        "are in NIH's official test list, the others in its train list), of which those evaluated are."
    )


def test_reasons_name_both_ways():
    (reason,) = contamination([weights(saw("nih", "train"))], images("rsna")).reasons
    assert reason.startswith("The training started from theirs, which had seen nih (train); ")
    assert "those evaluated, rsna, are of nih too" in reason
    (direct,) = contamination([weights(saw("nih", "train", "test"))], TEST).reasons
    assert direct.endswith("which had seen nih (train and test); those evaluated are of nih (test).")
    (possible,) = contamination([weights(saw("nih"))], TEST).reasons
    assert possible.endswith("Which images it were is not known.")


def test_certain_images_are_refused_unless_that_is_accepted():
    found = contamination([weights(saw("rsna"))], TEST)
    with pytest.raises(
        ConfigError, match=r"(?s)test part of nih.*theirs.*rsna.*Do this.*evaluation.allow_seen=true"
    ):
        check_unseen(found, allow_seen=False, what="the test part of nih", advice="Do this.")
    check_unseen(found, allow_seen=True, what="the test part of nih", advice="")
    check_unseen(contamination([weights(saw("nih"))], TEST), allow_seen=False, what="it", advice="")


def test_caveats_by_what_is_known():
    kinds = {"certain": "seen", "possible": "perhaps_seen"}
    for overlap, kind in kinds.items():
        found = Contamination(overlap=overlap, reasons=("Why.",), validation_reasons=("Because.",))
        assert [caveat.kind for caveat in contamination_caveats(found, "")] == [kind, "seen_validation"]
    assert contamination_caveats(Contamination(overlap="none"), "nih") == []
    assert contamination_caveats(None, "nih") == []


def test_a_networks_own_images_are_at_most_possible():
    found = training_overlap(saw("nih", "train"), images("rsna"))
    assert found.overlap == "possible"
    assert found.reasons[0].startswith(
        "The network itself was trained on nih (train); those evaluated, rsna, are"
    )
    assert found.reasons[0].endswith("They were not all at hand to be compared by content.")
    assert training_overlap(saw("nih", "train"), TEST).overlap == "none"
    assert training_overlap(saw(""), TEST).overlap == "none"
