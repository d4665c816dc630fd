import matplotlib
import numpy as np
import pytest

from cxrlab.report.figures.performance import confusion, readable_on
from cxrlab.report.figures.style import SEQUENTIAL


def cells(axes):
    """Return the text of each cell by true row and predicted column."""
    return {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}


def test_each_label_has_its_four_counts_with_shares_of_the_row(sample_numbers):
    numbers = sample_numbers(["Edema", "Mass"])
    numbers["counts"]["Edema"] |= {"tp": 30, "fn": 10, "fp": 1200, "tn": 1200}
    edema = confusion(numbers).axes[0]
    assert edema.get_title(loc="left") == "Edema"
    assert cells(edema) == {(0, 0): "50%\n1,200", (0, 1): "50%\n1,200", (1, 0): "25%\n10", (1, 1): "75%\n30"}
    assert edema.collections[0].get_array().ravel().tolist() == [0.5, 0.5, 0.25, 0.75]
    assert [text.get_text() for text in edema.get_yticklabels()] == ["absent", "present"]
    assert edema.get_ylim()[0] > edema.get_ylim()[1]  # the first row is on top


def test_labels_without_positives_or_threshold_say_so(sample_numbers):
    numbers = sample_numbers(["Edema", "Mass"], missing=["Edema"])
    numbers["counts"]["Mass"] |= dict.fromkeys(("tp", "fp", "tn", "fn"))
    first, second = confusion(numbers).axes
    assert "no images" in cells(first).values()
    assert list(cells(second).values()) == ["no threshold"]
    assert confusion(sample_numbers(["Edema"], validation=False)) is None


@pytest.mark.parametrize("count", [3, 6, 14])
def test_classes_that_exclude_one_another_share_one_matrix(count, sample_numbers):
    labels = [f"class {number}" for number in range(count)]
    numbers = sample_numbers(labels, exclusive=True)
    matrix = np.array(numbers["classification_report"]["matrix"])
    (axes,) = confusion(numbers).axes
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(axes.collections[0].get_array(), shares)
    assert [text.get_text() for text in axes.get_yticklabels()] == labels
    assert [text.get_text() for text in axes.get_xticklabels()] == labels
    share, number = shares[1, 1], matrix[1, 1]
    assert cells(axes)[1, 1] == (f"{share:.0%}\n{number}" if count <= 12 else f"{100 * share:.0f}")


def test_a_binary_task_is_shown_by_its_label(sample_numbers):
    numbers = sample_numbers(["Edema"])
    assert numbers["classification_report"]["kind"] == "binary"
    assert [axes.get_title(loc="left") for axes in confusion(numbers).axes] == ["Edema"]


def test_text_on_every_cell_has_the_contrast_that_wcag_asks_of_small_text():
    for share in np.linspace(0, 1, 101):
        colour = np.array(matplotlib.colormaps[SEQUENTIAL](share)[:3])
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        text = {"black": 0.0, "white": 1.0}[readable_on(share)]
        low, high = sorted([luminance, text])
        assert (high + 0.05) / (low + 0.05) >= 4.5
