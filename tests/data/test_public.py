"""Which public data sets there are, and which hold images of which."""

import yaml

from cxrlab.cli.config import config_dir
from cxrlab.data.public import (
    _SAME,
    EVERY,
    ORIGINS,
    PUBLIC,
    RADIOGRAPHS,
    WITHOUT_PARTS,
    canonical,
    public_name,
    traced,
)

NO_SETS = {"auto", "base", "folder", "table"}


def options() -> dict[str, dict]:
    """The options of conf/data by name, with what those that they start from say."""
    folder = config_dir() / "data"
    return {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}


def test_every_option_of_data_is_a_public_set_or_reads_the_images_of_one():
    names = set(options()) - NO_SETS
    assert {canonical(name) for name in names} <= PUBLIC
    assert names >= PUBLIC
    assert set(_SAME) <= names


def test_facts_are_of_data_sets_that_there_are_and_each_has_a_source():
    for origin in ORIGINS:
        assert {origin.data, origin.of} <= RADIOGRAPHS, origin
        assert origin.source
        assert origin.note
        assert not origin.note.endswith(".")
        assert set(origin.parts) <= {"train", "val", "test", EVERY}
    assert not any(origin.data == origin.of for origin in ORIGINS)


def test_data_sets_without_parts_have_none_in_their_configuration():
    for name in WITHOUT_PARTS:
        option = options()[name]
        reader = option.get("reader", {})
        assert option.get("split", {}).get("method") in (None, "grouped"), name
        assert not reader.get("split_column"), name
        assert not isinstance(reader.get("tables"), dict), name


def test_images_are_traced_to_where_they_are_from():
    def parts(data, *given):
        return {name: set(found.parts) for name, found in traced(data, given).items()}

    assert parts("rsna") == {"rsna": set(), "nih": {"train", "test"}}
    assert parts("rsna_nih", "train") == {"rsna": {"train"}, "nih": {"train", "test"}}
    assert parts("nih_google", "train", "test")["nih"] == {"train", "test"}
    assert parts("nih_google")["nih"] == set()
    assert parts("siim", EVERY)["nih"] == set()
    assert parts("pneumoniamnist", "val")["pneumonia"] == {"train"}
    assert parts("covid_radiography") == {
        "covid_radiography": set(), "rsna": {EVERY}, "pneumonia": set(), "padchest": set(),
        "nih": {"train", "test"},
    }  # fmt: skip
    assert parts("my_ward", "test") == {"my_ward": {"test"}}
    whole = traced("chestmnist", ["train", "val", "test"])["nih"]
    assert whole.is_whole
    assert set(whole.parts) == {EVERY}
    assert not traced("chestmnist", ["train"])["nih"].is_whole


def test_names_of_folders_are_not_told():
    assert public_name("rsna", is_named=False) == "rsna"
    assert public_name("jane_doe", is_named=False) == ""
    assert public_name("jane_doe", is_named=True) == "jane_doe"
