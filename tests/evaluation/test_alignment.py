from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxrlab.errors import ConfigError, DataError
from cxrlab.evaluation.comparison import align
from cxrlab.metrics.predictions import PredictionTable


def table(*, labels=("edema", "mass"), num=40, seed=0, with_patients=True, part="test"):
    """Targets and patients go by the image alone, probabilities by the seed."""
    numbers = np.arange(num)
    frame = pd.DataFrame({"image": [f"{number:03d}.png" for number in numbers], "part": part})
    if with_patients:
        frame["patient"] = [f"p{number // 2}" for number in numbers]
    generator = np.random.default_rng(seed)
    for label in labels:
        target = (numbers * len(label) % 7 < 3).astype(float)
        frame[f"target/{label}"] = np.where(numbers % 10 == 9, np.nan, target)
        frame[f"probability/{label}"] = generator.random(num)
    return PredictionTable.from_frame(frame, f"table {seed}")


def rows(one, chosen):
    return one.rows(np.asarray(chosen))


def test_the_same_table_is_left_as_it_is():
    first, second = table(), table(seed=1)
    alignment = align({"a": first, "b": second})
    assert (alignment.num_images_left_out, alignment.labels_left_out) == (0, ())
    for name, before in (("a", first), ("b", second)):
        pd.testing.assert_frame_equal(alignment.tables[name].to_frame(), before.to_frame())


def test_rows_and_labels_of_another_order_are_put_right():
    first = table()
    order = np.random.default_rng(3).permutation(40)
    second = rows(table(seed=1, labels=("mass", "edema")), order)
    aligned = align({"a": first, "b": second}).tables["b"]
    assert aligned.labels == ("edema", "mass")
    assert list(aligned.images) == list(first.images)
    assert list(aligned.patients) == list(first.patients)
    np.testing.assert_array_equal(aligned.targets, first.targets)
    back = np.argsort(order)
    np.testing.assert_array_equal(aligned.probabilities, second.probabilities[back][:, [1, 0]])


def test_only_common_images_and_labels_stay():
    first = rows(table(labels=("edema", "mass", "nodule")), np.arange(2, 40))
    second = rows(table(seed=1, labels=("hernia", "mass", "edema")), np.arange(0, 39))
    alignment = align({"a": first, "b": second})
    assert alignment.num_images_left_out == 3
    assert alignment.labels_left_out == ("nodule", "hernia")
    for one in alignment.tables.values():
        assert list(one.images) == [f"{number:03d}.png" for number in range(2, 39)]
        assert one.labels == ("edema", "mass")
        assert one.num_patients == 19


def test_too_few_common_images_are_rejected():
    first = table()
    assert len(align({"a": first, "b": rows(table(seed=1), np.arange(36))}).tables["a"]) == 36
    with pytest.raises(DataError, match=r"Only 35 images are in all tables, .*'a': 40, 'b': 35.*under 90%"):
        align({"a": first, "b": rows(table(seed=1), np.arange(35))})
    renamed = replace(first, images=np.array([f"x/{name}" for name in first.images], dtype=object))
    with pytest.raises(DataError, match="Only 0 images"):
        align({"a": first, "b": renamed})


def test_no_common_label_is_rejected():
    with pytest.raises(DataError, match=r"no label in common: .*\['edema'\].*\['mass'\]"):
        align({"a": table(labels=("edema",)), "b": table(labels=("mass",))})


@pytest.mark.parametrize(("old", "new"), [(None, 1.0), (None, 0.0), (1.0, 0.0), (0.0, np.nan)])
def test_other_targets_are_rejected(old, new):
    first, second = table(), table(seed=1)
    targets = second.targets.copy()
    old_rows = np.isnan(targets[:, 1]) if old is None else targets[:, 1] == old
    row = np.flatnonzero(old_rows)[1]
    targets[row, 1] = new
    with pytest.raises(DataError, match=rf"1 images have another target for 'mass' in 'b' .*{row:03d}\.png"):
        align({"a": first, "b": replace(second, targets=targets)})


def test_patients_come_from_any_table_that_knows_them():
    alignment = align({"a": table(with_patients=False), "b": table(seed=1)})
    for one in alignment.tables.values():
        assert one.patients_known
        assert one.num_patients == 20
    neither = align({name: table(with_patients=False) for name in "ab"}).tables["a"]
    assert not neither.patients_known
    assert neither.num_patients == 40


def test_patients_may_be_named_otherwise_but_not_shared_otherwise():
    first, second = table(), table(seed=1)
    names = np.array([f"other {number}" for number in range(20)], dtype=object)
    renumbered = replace(second, patients=19 - second.patients, patient_names=names)
    aligned = align({"a": first, "b": renumbered}).tables["b"]
    assert list(aligned.patients) == list(first.patients)
    torn = second.patients.copy()
    torn[1] = 1  # image 1 leaves image 0 and joins images 2 and 3
    with pytest.raises(
        DataError, match=r"'a' and 'b' disagree on .* 4 images, such as \['000.png', '001.png'"
    ):
        align({"c": table(with_patients=False), "a": first, "b": replace(second, patients=torn)})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(("test", "test"), "test"), (("", "test"), "test"), (("test", "val"), "val"), (("", ""), "")],
)
def test_the_most_flattering_part_is_kept(parts, expected):
    tables = {name: table(part=part) for name, part in zip("ab", parts, strict=True)}
    assert {one.part for one in align(tables).tables.values()} == {expected}


def test_one_table_is_no_comparison():
    with pytest.raises(ConfigError, match=r"at least two models; it has \['a'\]"):
        align({"a": table()})
