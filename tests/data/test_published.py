"""A data set's published numbers beside those that were read."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.data.audit.file_checks import published as check
from cxrlab.data.audit.finding import Evidence
from cxrlab.data.manifest import Manifest
from cxrlab.data.published import compared
from cxrlab.errors import ConfigError


def manifest(images: int = 6, *, name: str = "set") -> Manifest:
    """Two images a patient; the last two of six in the test part; Edema on every third image."""
    rows = range(images)
    table = pd.DataFrame(
        {
            "image": [f"{row}.png" for row in rows],
            "patient": [str(row // 2) for row in rows],
            "split": ["train" if row < 4 else "test" for row in rows],
            "label/Edema": [float(row % 3 == 0) for row in rows],
            "label/Mass": 0.0,
        }
    )
    return Manifest(Path("/data"), table, name=name)


WHOLE = {
    "images": 6,
    "patients": 3,
    "parts": {"train": 4, "test": 2},
    "positives": {"Edema": 2, "Mass": 0},
}


def outcome(read: Manifest, numbers, **options):
    comparison = compared(read, numbers, **options).published
    assert comparison is not None
    return comparison


def test_without_numbers_nothing_is_compared():
    assert compared(manifest(), None).published is None


def test_all_of_a_set_is_as_published(caplog):
    with caplog.at_level(logging.INFO):
        told = outcome(manifest(), WHOLE)
    assert (told.kind, told.details) == ("as_published", ())
    assert caplog.messages == ["set: all of it, as published: 6 images, 3 patients."]
    assert caplog.records[0].levelno == logging.INFO


def test_fewer_images_are_a_part_of_the_set(caplog):
    with caplog.at_level(logging.INFO):
        told = outcome(manifest(4), {**WHOLE, "images": 112120})
    assert told.kind == "part_of_published"
    assert caplog.messages == ["set: a part of the set: 4 of 112,120 images."]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ({"patients": 2}, "patients: 3 here, 2 published"),
        ({"images": 5}, "images: 6 here, 5 published"),
        ({"parts": {"train": 3}}, "images of part train: 4 here, 3 published"),
        ({"parts": {"val": 1}}, "images of part val: 0 here, 1 published"),
        ({"positives": {"Edema": 3}}, "images with Edema: 2 here, 3 published"),
        ({"positives": {"train": {"Edema": 1}}}, "images with Edema in part train: 2 here, 1 published"),
    ],
)
def test_other_numbers_are_a_warning(number, words, caplog):
    told = outcome(manifest(), {**WHOLE, **number})
    assert told.kind == "differs_from_published"
    assert told.details == (words,)
    assert caplog.records[0].levelno == logging.WARNING
    assert words in caplog.text


def test_a_part_with_more_of_something_than_the_whole_is_a_warning():
    told = outcome(manifest(), {"images": 100, "patients": 2, "positives": {"Edema": 90}})
    assert told.kind == "differs_from_published"
    assert told.details == ("patients: 3 here, 2 published",)
    assert "a part of the set: 6 of 100 images" in told.message


def test_what_is_not_known_or_not_read_is_not_compared():
    assert outcome(manifest(), {"images": 6, "patients": None, "parts": None}).kind == "as_published"
    assert outcome(manifest(), {"images": 6, "positives": {"Hernia": 5}}).kind == "as_published"
    told = outcome(manifest(), {"images": 6, "positives": {"Edema": 5}}, without_positives=["Edema"])
    assert told.kind == "as_published"
    by_part = {"images": 6, "positives": {"train": {"Edema": 5}}}
    assert outcome(manifest(), by_part, without_positives=["Edema"]).kind == "as_published"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"picture": 6}, "names 'picture'; it may hold images, patients, parts, positives"),
        ({"images": {"train": 6}}, r"published.images=.* must be a number"),
        ({"positives": 6}, r"published.positives=6 must be names with a number each"),
    ],
)
def test_a_slip_is_named(numbers, words):
    with pytest.raises(ConfigError, match=words):
        compared(manifest(), numbers)


@pytest.mark.parametrize(
    ("numbers", "kind", "severity"),
    [
        (WHOLE, "as_published", "note"),
        ({"images": 9}, "part_of_published", "note"),
        ({"images": 3}, "differs_from_published", "warning"),
    ],
)
def test_the_audit_says_so_of_a_filtered_set_too(numbers, kind, severity):
    """The comparison is of everything that was read, not of what a filter left."""
    read = compared(manifest(), numbers)
    kept = read.rows(read.table["image"] == "0.png").select_labels(["Mass"])
    evidence = Evidence(kept, pd.DataFrame(), [], pd.DataFrame(), (), (), None)
    (finding,) = check(evidence)
    assert (finding.kind, finding.severity, finding.count) == (kind, severity, 6)
    assert finding.message[0].isupper()
    assert not list(check(Evidence(manifest(), pd.DataFrame(), [], pd.DataFrame(), (), (), None)))
