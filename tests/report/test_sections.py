import sys

import pytest
from markupsafe import Markup

from cxrlab.errors import ConfigError
from cxrlab.report import SECTIONS, PageContext, Section, load_sections
from cxrlab.report.section import with_sections

MODULE = """
from cxrlab.report import Section, paragraph_html

def _build(context):
    return paragraph_html(f"{len(context.result.labels)} labels")

my_section = Section("mine", "My section", _build, after="calibration")

def made():
    return Section("made", "Made by a function", _build)

number = 3
"""


def nothing(context: PageContext) -> Markup:
    return Markup("")


def ids(own):
    return [section.id for section in with_sections(SECTIONS, own)]


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "my_lab_of_sections.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_lab_of_sections"
    sys.modules.pop("my_lab_of_sections", None)


def test_a_section_of_ones_own_stands_before_how_to_repeat_it_or_where_it_shall():
    own = [
        Section("one", "One", nothing),
        Section("two", "Two", nothing, after="calibration"),
        Section("three", "Three", nothing, after="calibration"),
        Section("four", "Four", nothing, after="card"),
        Section("five", "Five", nothing, after="one"),
    ]
    placed = ids(own)
    assert placed[placed.index("calibration") :][:4] == ["calibration", "two", "three", "operating-points"]
    assert placed[placed.index("repeat") - 2 :] == ["one", "five", "repeat", "card", "four"]
    assert ids([]) == [section.id for section in SECTIONS]


def test_a_section_without_a_place_is_refused():
    with pytest.raises(ConfigError, match="'audit'"):
        ids([Section("audit", "Mine", nothing)])
    with pytest.raises(ConfigError, match="'nowhere'.*labels"):
        ids([Section("mine", "Mine", nothing, after="nowhere")])
    with pytest.raises(ConfigError, match="'a b'"):
        Section("a b", "Mine", nothing)


def test_sections_are_loaded_by_their_dotted_path(my_lab):
    first, second = load_sections([f"{my_lab}.my_section", f"{my_lab}.made"])
    assert (first.id, first.after, second.id) == ("mine", "calibration", "made")
    assert load_sections([]) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{}.number", "is a int"),
        ("{}.missing", "cannot be imported"),
        ("no_such_package.section", "cannot be imported"),
        ("plain", "cannot be imported"),
    ],
)
def test_what_is_no_section_is_refused_by_its_path(path, words, my_lab):
    with pytest.raises(ConfigError, match=words):
        load_sections([path.format(my_lab)])
