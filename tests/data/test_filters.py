import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.cli.validation import check_node
from cxrlab.data.filters import apply_filters
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, DataError

NONE = {"view": None, "sex": None, "age": None, "boxes": False}


@pytest.fixture
def manifest() -> Manifest:
    table = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": list("112345"),
            "split": "",
            "covariate/view": ["PA", "AP", "PA", "LL", "", np.nan],
            "covariate/sex": ["F", "F", "M", "M", "F", "M"],
            "covariate/age": [18.0, 90.0, 17.9, 50.0, np.nan, 90.1],
            "covariate/site": [1, 2, 2, 3, 3, 3],
            "covariate/portable": [True, False, True, False, True, False],
            "label/Edema": 0.0,
        }
    )
    boxes = pd.DataFrame(
        {"image": ["b", "d"], "label": "Edema", "x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}
    )
    return Manifest(Path("/data"), table, boxes=boxes, num_listed=9)


def kept(manifest: Manifest, **filters: object) -> str:
    return "".join(apply_filters(manifest, **NONE | filters).table["image"])


@pytest.mark.parametrize(
    ("filters", "images"),
    [
        ({}, "abcdef"),
        ({"view": "PA"}, "ac"),
        ({"view": ["PA", "AP"]}, "abc"),
        ({"sex": "F"}, "abe"),
        ({"age": [18, 90]}, "abd"),
        ({"age": [18.5, None]}, "bdf"),
        ({"age": [None, 18]}, "ac"),
        ({"age": [None, None]}, "abcdf"),
        ({"age": [50, 50]}, "d"),
        ({"boxes": True}, "bd"),
        ({"site": 2}, "bc"),
        ({"site": [2, 3]}, "bcdef"),
        ({"portable": True}, "ace"),
        ({"view": "PA", "sex": "F", "age": [18, 90]}, "a"),
        ({"boxes": True, "view": ["AP"]}, "b"),
    ],
)
def test_what_is_kept(manifest, filters, images):
    assert kept(manifest, **filters) == images


def test_boxes_go_with_their_images_and_the_listed_are_remembered(manifest):
    left = apply_filters(manifest, **NONE | {"view": "AP"})
    assert left.boxes["image"].tolist() == ["b"]
    assert (left.num_listed, left.table.index.tolist()) == (9, [0])


def test_one_line_tells_what_each_filter_took_away(manifest, caplog):
    with caplog.at_level(logging.INFO):
        kept(manifest, view=["PA", "AP"], age=[18, 90], boxes=True)
    assert caplog.messages == [
        "1 of 6 images are left: data.filter.view=[PA,AP] removed 3, data.filter.age=[18,90] removed 1, "
        "data.filter.boxes=true removed 1"
    ]


def test_no_filter_says_nothing_and_returns_the_same(manifest, caplog):
    with caplog.at_level(logging.INFO):
        assert apply_filters(manifest, **NONE) is manifest
    assert not caplog.messages


def test_nothing_left_says_which_filter_removed_how_many(manifest):
    with pytest.raises(
        DataError,
        match=r"No image of /data is left of 6: data\.filter\.view=LL removed 5, data\.filter\.sex=F removed 1\.",
    ):
        kept(manifest, view="LL", sex="F")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"race": "x"},
            r"data\.filter\.race=x: .* no covariate 'race'; it has \['view', 'sex', 'age', 'site'",
        ),
        ({"view": "pa"}, r"data\.filter\.view=pa: no image has \['pa'\]; there are \['AP', 'LL', 'PA'\]"),
        ({"view": ["PA", "XX"]}, r"view=\[PA,XX\]: no image has \['XX'\]"),
        ({"view": ""}, r"no image has \[''\]"),
        ({"view": []}, r"view=\[\] names nothing"),
        ({"site": 7}, r"site=7: no image has \[7\]; there are \[1, 2, 3\]"),
        ({"age": [90, 18]}, r"age=\[90,18\]: the first end of the range is above the second"),
        ({"age": [18]}, r"age=\[18\]: give a number, or a range \[least, most\]"),
        ({"age": [1, 2, 3]}, r"age=\[1,2,3\]: give a number, or a range"),
        ({"site": "x"}, r"site=x: give a number, or a range"),
        ({"site": ["x", None]}, r"site=\[x,null\]: give a number, or a range"),
    ],
)
def test_what_does_not_fit_is_rejected(manifest, filters, message):
    with pytest.raises(ConfigError, match=message):
        kept(manifest, **filters)


def test_boxes_of_a_data_set_that_has_none(manifest):
    with pytest.raises(ConfigError, match=r"data\.filter\.boxes=true: no image of /data has a box"):
        kept(Manifest(manifest.root, manifest.table), boxes=True)


def test_many_values_are_not_all_listed(manifest):
    table = pd.concat([manifest.table] * 3, ignore_index=True)
    table = table.assign(
        image=table.index.astype(str), **{"covariate/city": [f"c{i:02d}" for i in range(18)]}
    )
    with pytest.raises(ConfigError, match=r"there are \['c00', .* 'c09'\] and 8 more\."):
        kept(Manifest(manifest.root, table), city="c99")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"view": ["PA", "AP"]}, True),
        ({"age": [18, None]}, True),
        ({"plane": "Frontal"}, True),
        ({"age": 18}, False),
        ({"view": 3}, False),
        ({"boxes": "yes"}, False),
    ],
)
def test_the_config_is_checked_against_the_code(value, fits):
    node = {"_target_": "cxrlab.data.filters.apply_filters", "_partial_": True, **NONE, **value}
    if fits:
        check_node(node, "data.filter")
    else:
        (name,) = value
        with pytest.raises(ConfigError, match=rf"data\.filter\.{name}=.* does not fit"):
            check_node(node, "data.filter")
