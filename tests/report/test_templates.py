from markupsafe import Markup

from cxrlab.report.html import markdown, pages, plain_markdown

EVIL = "<script>alert('x')</script>\" onload=\"y"


def test_a_page_escapes_what_it_is_given():
    text = pages().from_string('<p title="{{ name }}">{{ name }}</p>').render(name=EVIL)
    assert "<script" not in text
    assert 'onload="' not in text


def test_an_imported_macro_escapes_too():
    source = (
        "{% import 'parts.html.jinja' as parts %}{{ parts.facts([(name, name)]) }}{{ parts.flags([name]) }}"
    )
    text = pages().from_string(source).render(name=EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 3


def test_markdown_shows_names_as_they_are_and_on_one_line():
    name = "a_b*c* [x](http://y) `z` | <img src=q>\n\n# big"
    text = markdown().from_string("- {{ name }}\n- {{ number }}").render(name=name, number=3)
    assert text == ("- a\\_b\\*c\\* \\[x\\](http://y) \\`z\\` \\| &lt;img src=q&gt; \\# big\n- 3")


def test_what_is_no_text_passes():
    assert plain_markdown(None) is None
    assert plain_markdown(Markup("*")) == "*"
