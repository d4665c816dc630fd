"""What is advised instead of an override that Hydra cannot read is read, as what was meant."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from cxrlab.cli.overrides import advice, bare_words, parses
from cxrlab.cli.validation import check_value
from cxrlab.errors import ConfigError, override

NAMES = [
    "Nodule/Mass", "Ödem 100%", "Pleural effusion, left", "BNP=high", 'Kerley\'s B "lines"', "../Fracture", "a|b",
    "No Finding?", "null", "5", "x\\", "ETT - Abnormal", "(a)", "[b]", "{c}", "$HOME", "a'b",
]  # fmt: skip


def value(argument: str) -> object:
    (typed,) = shlex.split(argument)
    return OverridesParser.create().parse_override(typed).value()


def plain(parsed: object) -> object:
    if isinstance(parsed, list):
        return [plain(item) for item in parsed]
    return str(getattr(parsed, "text", parsed))


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_any_names_is_written_so_that_it_is_read(name):
    assert plain(value(override("data.labels", ["Edema", name]))) == ["Edema", name]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1), min_size=1))
def test_whatever_the_names_are(names):
    names = [name.replace("${", "x").rstrip("\\") or "x" for name in names]  # an interpolation is one
    assert plain(value(override("data.labels", names))) == names


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("data.labels=[Nodule/Mass,Ödem 100%]", ["Nodule/Mass", "Ödem 100%"]),
        ("data.labels=[BNP=high,Edema]", ["BNP=high", "Edema"]),
        ('data.labels=["Pleural effusion, left",d=e]', ["Pleural effusion, left", "d=e"]),
        ("data.labels=[Edema,Mass", ["Edema", "Mass"]),
        ("data.labels=[(a) b,c]", ["(a) b", "c"]),
        ("data.root=data/Ödem 100%", "data/Ödem 100%"),
        ("data.root=a(b", "a(b"),
        ("data.name=x{y", "x{y"),
    ],
)
def test_the_advised_line_is_read_as_what_was_meant(argument, meant):
    assert not parses(argument)
    (sentence,) = advice(["data=table", argument])
    assert plain(value(sentence.removeprefix("Write "))) == meant


def test_values_of_a_mapping_are_quoted_and_its_keys_cannot_be():
    (sentence,) = advice(["+data.reader.derive={path: {a}/{b}, c: d}"])
    assert {str(key): plain(item) for key, item in value(sentence.removeprefix("Write ")).items()} == {
        "path": "{a}/{b}",
        "c": "d",
    }
    for argument in (
        'data.reader.uncertain={"Effusion, left": positive}',
        "data.reader.uncertain={Ödem: positive,}",
    ):
        (sentence,) = advice([argument])
        assert "write it in a YAML file of conf/data" in sentence


@pytest.mark.parametrize(
    ("arguments", "command", "meant"),
    [
        ("data=auto /data/mine", "prepare", "data.root=/data/mine"),
        ("outputs/1 /data/new", "predict", "run=outputs/1 input=/data/new"),
        ("run=outputs/1 /data/new", "predict", "input=/data/new"),
        ("--config-dir conf outputs/1", "explain", "run=outputs/1"),
    ],
)
def test_a_word_without_a_key_is_answered_with_the_key(arguments, command, meant):
    assert bare_words(arguments.split(), command) == [f"Every argument is key=value. Did you mean {meant}?"]
    assert bare_words(["--config-dir", "conf", "data=nih", "~logger", "--help"], command) == []


def test_what_is_read_needs_no_advice():
    assert advice(["data=table", "data.labels=[Edema]", "--help", "-m"]) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[Nodule/Mass,Ödem 100%]", ["Nodule/Mass", "Ödem 100%"]),
        ("Edema", ["Edema"]),
        ('["a b",c]', ["a b", "c"]),
    ],
)
def test_a_text_in_place_of_a_list_is_answered_with_the_list(text, meant):
    with pytest.raises(ConfigError, match=r"does not fit: it takes .* Write ") as error:
        check_value(text, list[str] | None, "data.labels")
    assert plain(value(str(error.value).partition(" Write ")[2].removesuffix("."))) == meant
