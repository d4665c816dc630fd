import numpy as np
import pandas as pd
import pytest

from cxrlab.data.manifest import BOX_COLUMNS, Manifest, usable_boxes
from cxrlab.errors import ConfigError, DataError


def table(**columns):
    content = {
        "image": ["a.png", "b.png", "c.png"],
        "patient": ["1", "1", "2"],
        "split": ["", "", ""],
        "part": ["train", "train", "val"],
        "covariate/sex": ["F", "F", "M"],
        "label/Mass": [0, 1, np.nan],
        "label/Edema": [1.0, 0.0, 1.0],
    } | columns
    return pd.DataFrame({name: values for name, values in content.items() if values is not None})


def boxes(**columns):
    content = {"image": ["a.png", "c.png"], "label": ["Edema", "Mass"]}
    content |= {"x": [0.1, 0.2], "y": [0.1, 0.2], "width": [0.5, 0.8], "height": [0.5, 0.8]} | columns
    return pd.DataFrame({name: values for name, values in content.items() if values is not None})


def test_a_manifest_tells_its_columns(tmp_path):
    manifest = Manifest(tmp_path, table(), boxes())
    assert (manifest.labels, manifest.covariates, len(manifest)) == (["Mass", "Edema"], ["sex"], 3)
    assert manifest.num_listed == 3
    np.testing.assert_array_equal(manifest.targets, np.array([[0, 1], [1, 0], [np.nan, 1]], np.float32))
    assert manifest.targets.dtype == np.float32


def test_the_table_given_is_left_alone(tmp_path):
    given = table(part=None)
    before = given.copy()
    manifest = Manifest(tmp_path, given)
    pd.testing.assert_frame_equal(given, before)
    assert list(manifest.table)[:4] == ["image", "patient", "split", "part"]
    assert set(manifest.table["part"]) == {""}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patient": None, "split": None}, r"lacks the columns \['patient', 'split'\]; it has \['image'"),
        ({"image": ["a.png", "b.png", "a.png"]}, r"1 images .* stand twice .*\['a\.png'\]"),
        ({"patient": ["1", "", None]}, r"2 images .* have no patient, for instance \['b\.png', 'c\.png'\]"),
        ({"part": ["train", "validation", ""]}, r"has the parts \['validation'\]; parts are \('train'"),
        ({"label/Mass": [0, 1, -1]}, r"label/Mass holds \[-1\]; labels are 1 \(present\)"),
        ({"label/Mass": ["0", "yes", "1"]}, r"label/Mass holds \['yes'\]"),
    ],
)
def test_a_faulty_table_is_rejected(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        Manifest(tmp_path, table(**columns))


def test_boxes_without_a_column_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"boxes of .* lack the columns \['height'\]"):
        Manifest(tmp_path, table(), boxes(height=None))


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"x": [0.1, 225.0]}, "Mass in c.png lies outside the image (x=225,"),
        ({"y": [0.1, -0.1]}, "Mass in c.png lies outside the image"),
        ({"width": [0.1, np.nan]}, "Mass in c.png has no place"),
        ({"width": [0.1, 0.0]}, "Mass in c.png has no area"),
    ],
)
def test_boxes_that_cannot_be_used_are_left_out_named_and_counted(tmp_path, columns, fault, caplog):
    manifest = Manifest(tmp_path, table(), boxes(**columns))
    (told,) = manifest.unusable_boxes
    assert told.startswith(fault)
    assert len(manifest.boxes) == len(boxes()) - 1
    assert "c.png" not in set(manifest.boxes["image"])
    assert "1 boxes of" in caplog.text
    assert fault in caplog.text


def test_several_boxes_that_cannot_be_used_are_counted_and_three_are_named(tmp_path, caplog):
    lines = [
        (f"{name}.png", "Mass", 0.5, 0.5, width, 0.25)
        for name, width in zip("abcab", [2, 3, 4, 5, 0.5], strict=True)
    ]
    given = pd.DataFrame(lines, columns=list(BOX_COLUMNS))
    manifest = Manifest(tmp_path, table(), given, unusable_boxes=("an earlier one",))
    assert manifest.boxes.to_numpy().tolist() == [["b.png", "Mass", 0.5, 0.5, 0.5, 0.25]]
    assert manifest.boxes.index.tolist() == [0]
    assert manifest.unusable_boxes[0] == "an earlier one"
    widths = [told.partition("width=")[2].partition(",")[0] for told in manifest.unusable_boxes[1:]]
    assert widths == ["2", "3", "4", "5"]
    (record,) = caplog.records
    assert f"4 boxes of {tmp_path} are left out" in record.getMessage()
    assert [f"width={width}," in record.getMessage() for width in widths] == [True, True, True, False]
    assert len(given) == 5


def test_boxes_of_use_are_left_as_they_are_without_a_word(tmp_path, caplog):
    given = boxes(x=[0.0, 0.2], y=[0.0, 0.2], width=[1.0, 0.8], height=[1.0, 0.8])
    manifest = Manifest(tmp_path, table(), given)
    pd.testing.assert_frame_equal(manifest.boxes, given)
    assert manifest.unusable_boxes == ()
    assert not caplog.records


def test_a_box_that_overhangs_by_a_hundredth_is_cut_off_at_the_edge():
    lines = [
        ("a.png", "Mass", -0.008, 0.5, 0.208, 0.508),
        ("b.png", "Mass", 0.1, 0.2, 0.3, 0.7),
        ("c.png", "Mass", -0.012, 0.5, 0.2, 0.2),
        ("c.png", "Mass", 0.5, 0.5, 0.2, 0.512),
    ]
    kept, told = usable_boxes(pd.DataFrame(lines, columns=list(BOX_COLUMNS)))
    assert kept["image"].tolist() == ["a.png", "b.png"]
    np.testing.assert_allclose(
        kept.loc[0, list(BOX_COLUMNS[2:])].astype(float), [0, 0.5, 0.2, 0.5], atol=1e-12
    )
    assert kept.loc[1, list(BOX_COLUMNS[2:])].tolist() == [0.1, 0.2, 0.3, 0.7]
    assert [one.startswith("Mass in c.png lies outside the image") for one in told] == [True, True]


@pytest.mark.parametrize("column", ["x", "y", "width", "height"])
def test_a_box_with_any_side_unknown_has_no_place(column):
    given = boxes(**{column: [0.1, np.nan]})
    kept, (told,) = usable_boxes(given)
    assert kept["image"].tolist() == ["a.png"]
    assert told.startswith("Mass in c.png has no place")


def test_labels_may_be_text_or_boolean(tmp_path):
    manifest = Manifest(
        tmp_path, table(**{"label/Mass": ["0", "1", None], "label/Edema": [True, False, True]})
    )
    np.testing.assert_array_equal(manifest.targets, np.array([[0, 1], [1, 0], [np.nan, 1]], np.float32))


def test_part_takes_rows_and_their_boxes(tmp_path):
    part = Manifest(tmp_path, table(), boxes(), num_listed=9, name="set").part("val")
    assert part.table["image"].tolist() == ["c.png"]
    assert part.table.index.tolist() == [0]
    assert part.boxes["image"].tolist() == ["c.png"]
    assert (part.root, part.num_listed, part.name) == (tmp_path, 9, "set")


def test_part_may_be_empty(tmp_path):
    part = Manifest(tmp_path, table(), boxes()).part("test")
    assert (len(part), len(part.boxes), part.targets.shape) == (0, 0, (0, 2))


def test_select_labels_orders_labels_and_drops_boxes(tmp_path):
    manifest = Manifest(tmp_path, table(), boxes())
    assert manifest.select_labels(None) is manifest
    assert manifest.select_labels(["Edema", "Mass"]).labels == ["Edema", "Mass"]
    one = manifest.select_labels(["Edema"])
    assert (one.labels, one.covariates, one.boxes["label"].tolist()) == (["Edema"], ["sex"], ["Edema"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["Cold"], r"data\.labels names \['Cold'\], .* it has \['Mass', 'Edema'\]"),
        ([], r"data\.labels=\[\] must name at least one"),
        (["Mass", "Mass"], r"data\.labels=\['Mass', 'Mass'\] must name .* none twice"),
    ],
)
def test_select_labels_rejects(tmp_path, labels, message):
    with pytest.raises(ConfigError, match=message):
        Manifest(tmp_path, table()).select_labels(labels)


def test_the_fingerprint_depends_on_content_not_on_order(tmp_path):
    fingerprint = Manifest(tmp_path, table()).fingerprint()
    assert len(fingerprint) == 12
    assert int(fingerprint, 16) >= 0
    assert Manifest(tmp_path / "elsewhere", table().iloc[::-1]).fingerprint() == fingerprint
    assert Manifest(tmp_path, table(), boxes(), name="other").fingerprint() == fingerprint
    for columns in (
        {"part": ["train", "val", "val"]},
        {"patient": ["1", "3", "2"]},
        {"label/Mass": [0, 0, np.nan]},
    ):
        assert Manifest(tmp_path, table(**columns)).fingerprint() != fingerprint


def test_to_csv_writes_no_root(tmp_path):
    Manifest(tmp_path, table()).to_csv(tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text()
    assert text.splitlines()[:2] == [
        "image,patient,split,part,covariate/sex,label/Mass,label/Edema",
        "a.png,1,,train,F,0.0,1.0",
    ]
    assert str(tmp_path) not in text
