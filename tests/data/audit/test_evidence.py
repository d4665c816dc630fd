import numpy as np


def test_parts_are_those_that_have_rows_or_all(case):
    case.table.loc[case.table["part"] == "val", "part"] = ""
    assert {name: int(rows.sum()) for name, rows in case.evidence().parts.items()} == {
        "train": 120,
        "test": 60,
    }
    case.table["part"] = ""
    assert list(case.evidence().parts) == ["all"]


def test_at_most_ten_images_are_named(case):
    assert case.evidence().images(np.arange(12)) == [f"images/{row:04d}.png" for row in range(10)]
