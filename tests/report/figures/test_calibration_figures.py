import numpy as np
import pytest

from cxrlab.report.figures.calibration import reliability


def scattered(axes):
    return [collection for collection in axes.collections if len(collection.get_offsets()) > 1]


def test_points_stand_at_predicted_and_observed_of_each_bin(sample_numbers):
    numbers = sample_numbers(["Edema", "Mass"])
    figure = reliability(numbers)
    for axes, (label, row) in zip(figure.axes, numbers["calibration"]["labels"].items(), strict=True):
        found = scattered(axes)
        for points, stage in zip(found, ("before", "after"), strict=True):
            wanted = [[one["predicted"], one["observed"]["value"]] for one in row[stage]["bins"]]
            np.testing.assert_allclose(points.get_offsets(), wanted)
        assert found[0].get_facecolor().tolist() != found[1].get_facecolor().tolist()
        before, after = (row[stage]["ece"]["value"] for stage in ("before", "after"))
        assert axes.get_title(loc="left") == f"{label}\nECE {before:.3f}, then {after:.3f}"


def test_the_area_of_a_point_grows_with_its_images(sample_numbers):
    numbers = sample_numbers(["Edema"], validation=False)
    bins = numbers["calibration"]["labels"]["Edema"]["before"]["bins"]
    for number, one in enumerate(bins):
        one["images"] = 10 * (number + 1)
    figure = reliability(numbers)
    areas = scattered(figure.axes[0])[0].get_sizes()
    assert (np.diff(areas) > 0).all()
    np.testing.assert_allclose(np.diff(areas), np.diff(areas)[0])
    assert any("more images" in text.get_text() for text in figure.legends[0].get_texts())


def test_without_recalibration_only_the_given_probabilities_are_shown(sample_numbers):
    figure = reliability(sample_numbers(["Edema"], validation=False))
    assert len(scattered(figure.axes[0])) == 1
    assert "then" not in figure.axes[0].get_title(loc="left")
    assert not any("recalibrated" in text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize(("positives", "scale"), [(30, "function"), (100, "linear")])
def test_rare_findings_are_drawn_on_a_square_root_scale_that_is_named(positives, scale, sample_numbers):
    numbers = sample_numbers(["Edema"])
    numbers["counts"]["Edema"]["positives"] = positives  # of 600
    figure = reliability(numbers)
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == scale
    assert ("square-root" in figure.get_supxlabel()) == (scale == "function")
    middle = axes.transAxes.inverted().transform(axes.transData.transform([0.25, 0.25]))
    np.testing.assert_allclose(middle, 0.5 if scale == "function" else 0.25)


def test_bins_without_an_estimate_are_left_out_and_none_gives_none(sample_numbers):
    numbers = sample_numbers(["Edema"], validation=False)
    before = numbers["calibration"]["labels"]["Edema"]["before"]
    before["bins"][0]["observed"] = {"value": None, "low": None, "high": None}
    assert len(scattered(reliability(numbers).axes[0])[0].get_offsets()) == 9
    before["bins"] = []
    assert reliability(numbers) is None
    assert reliability(numbers | {"calibration": None}) is None
