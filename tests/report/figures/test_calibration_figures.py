from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.figures.calibration import reliability
from cxrlab.report.formatting import number


def scattered(axes):
    return [collection for collection in axes.collections if len(collection.get_offsets()) > 1]


def with_bins(result, bins):
    edema = result.calibration.labels["Edema"]
    labels = {"Edema": replace(edema, before=replace(edema.before, bins=bins))}
    return replace(result, calibration=replace(result.calibration, labels=labels))


def test_points_stand_at_predicted_and_observed_of_each_bin(evaluated):
    result = evaluated(["Edema", "Mass", "Hernia"])
    figure = reliability(result)
    assert figure.axes[2].get_title(loc="left") == "Hernia\nno slope fitted"  # it has 7 positives
    for axes, (label, calibration) in zip(figure.axes, result.calibration.labels.items(), strict=True):
        stages = (calibration.before, calibration.after)
        drawn = scattered(axes)
        for points, stage in zip(drawn, stages, strict=True):
            wanted = [[bin.predicted, bin.observed.value] for bin in stage.bins]
            np.testing.assert_allclose(points.get_offsets(), wanted)
        assert drawn[0].get_facecolor().tolist() != drawn[1].get_facecolor().tolist()
        before, after = (number(stage.slope.value, 2) for stage in stages)
        assert label == "Hernia" or axes.get_title(loc="left") == f"{label}\nslope {before}, then {after}"


def test_the_curve_is_what_slope_and_intercept_say(evaluated):
    result = evaluated(["Edema", "Mass"])
    axes, few = reliability(result).axes[:2]
    stage = result.calibration.labels["Edema"].after
    x, y = axes.lines[-1].get_data()
    expected = expit(stage.slope.value * logit(x) + stage.intercept.value)
    np.testing.assert_allclose(y, expected)
    assert (x[0], x[-1]) == pytest.approx((stage.bins[0].predicted, stage.bins[-1].predicted))
    assert len(axes.lines) - len(few.lines) == 2  # too few positives: points and whiskers, no curve


def test_the_area_of_a_point_grows_with_its_images(evaluated):
    result = evaluated(["Edema"], validation=False)
    bins = result.calibration.labels["Edema"].before.bins
    grown = [replace(bin, images=10 * (number + 1)) for number, bin in enumerate(bins)]
    figure = reliability(with_bins(result, grown))
    areas = scattered(figure.axes[0])[0].get_sizes()
    assert (np.diff(areas) > 0).all()
    np.testing.assert_allclose(np.diff(areas), np.diff(areas)[0])
    assert any("more images" in text.get_text() for text in figure.legends[0].get_texts())


def test_without_recalibration_only_the_given_probabilities_are_shown(evaluated):
    figure = reliability(evaluated(["Edema"], validation=False))
    assert len(scattered(figure.axes[0])) == 1
    assert "then" not in figure.axes[0].get_title(loc="left")
    assert not any("recalibrated" in text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize(("positives", "scale"), [(12, "function"), (100, "linear")])
def test_rare_findings_are_drawn_on_a_square_root_scale_that_is_named(positives, scale, evaluated):
    result = evaluated(["Edema"])
    counts = {"Edema": replace(result.counts["Edema"], positives=positives)}  # of 240
    figure = reliability(replace(result, counts=counts))
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == scale
    assert ("square-root" in figure.get_supxlabel()) == (scale == "function")
    middle = axes.transAxes.inverted().transform(axes.transData.transform([0.25, 0.25]))
    np.testing.assert_allclose(middle, 0.5 if scale == "function" else 0.25)


def test_bins_without_an_estimate_are_left_out_and_none_gives_none(evaluated):
    result = evaluated(["Edema"], validation=False)
    first, *others = result.calibration.labels["Edema"].before.bins
    undefined = [replace(first, observed=Estimate(None)), *others]
    assert len(scattered(reliability(with_bins(result, undefined)).axes[0])[0].get_offsets()) == len(others)
    assert reliability(with_bins(result, [])) is None
    assert reliability(replace(result, calibration=replace(result.calibration, labels={}))) is None
