import numpy as np
import pytest


def test_unreadable_files_are_named_with_their_reason_but_not_evaluated_by_their_looks(case):
    case.facts.loc[3, "error"] = "The image /data/images/0003.png is cut short."
    case.facts.loc[3, ["spread", "polarity", "brightness", "contrast"]] = np.nan
    case.facts.loc[3, ["width", "height"]] = 0
    case.facts.loc[3, "mode"] = ""
    found = case.found()
    assert set(found) == {"unreadable"}
    assert found["unreadable"].details == ["The image /data/images/0003.png is cut short."]
    assert "0003" not in found["unreadable"].message
    assert [row.readable for row in case.report().parts] == [119, 60, 60]


def test_warnings_of_the_decoder_are_counted_by_their_text(case):
    case.facts.loc[[3, 4, 9], "warning"] = ["modality CT", "modality MR", "modality CT"]
    found = case.found()
    assert set(found) == {"decoding_warning"}
    assert found["decoding_warning"].details == ["2 x modality CT", "1 x modality MR"]


@pytest.mark.parametrize("missing", [3, ["x", "y", "z"]])
def test_missing_files(case, missing):
    case.missing, case.num_listed = missing, 243
    found = case.found()
    assert set(found) == {"missing"}
    assert found["missing"].message == "3 of 243 listed images not on disk."


def test_extra_files_are_a_note(case):
    case.extra = [f"{number}.png" for number in range(12)]
    found = case.found()
    assert {k: v.severity for k, v in found.items()} == {"extra": "note"}
    assert found["extra"].count == 12
    assert len(found["extra"].images) == 10


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"spread": 3.0}, "empty"),
        ({"black": 0.97}, "empty"),
        ({"white": 0.95}, "empty"),
        ({"polarity": -0.6}, "inverted"),
        ({"border": 0.05}, "border"),
        ({"white": 0.4}, "saturated"),
        ({"levels": 15}, "few_levels"),
    ],
)
def test_images_that_look_wrong(case, values, kind):
    case.facts.loc[8, list(values)] = list(values.values())
    found = case.found()
    assert set(found) == {kind}
    assert found[kind].images == ["images/0008.png"]


def test_bright_borders_are_counted(case):
    case.facts.loc[[1, 2, 3], "border"] = 0.1
    case.facts.loc[1, "border_grey"] = 254.0
    assert case.found()["border"].message == "3 images with a burnt-in border (1 of them bright)."


def test_several_sizes_and_modes_are_notes(case):
    case.facts.loc[0, ["width", "height"]] = [512, 400]
    case.facts.loc[1, "mode"] = "RGBA"
    found = case.found()
    assert {k: v.severity for k, v in found.items()} == {"several_sizes": "note", "several_modes": "note"}
    assert found["several_sizes"].message == "2 sizes, from 512x400 to 1024x1024 pixels."
    assert found["several_modes"].message == "2 pixel modes: L 239, RGBA 1."
    assert found["several_modes"].images == ["images/0001.png"]


def test_files_of_sixteen_bits_that_hold_several_depths(case):
    case.facts["mode"] = "I;16"
    case.facts["depth"] = 12
    assert set(case.found()) == set()
    case.facts.loc[[3, 8], "depth"] = [16, 10]
    finding = case.found()["several_depths"]
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.images == ["images/0003.png", "images/0008.png"]
    assert "12 bits 238, 16 bits 1, 10 bits 1" in finding.message
    assert "data.bit_depth" in finding.message


def test_images_that_are_mostly_alike_were_decoded_wrongly(case):
    case.pairs = [(0, row) for row in range(1, 121)]
    assert case.found()["mostly_alike"].severity == "fault"
    assert case.found()["mostly_alike"].count == 121
    case.pairs = case.pairs[:118]
    assert "mostly_alike" not in case.found()
