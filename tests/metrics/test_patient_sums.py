import numpy as np
import pytest

from cxrlab.metrics.bootstrap import patient_counts, patient_sums, ratio, resampled


def test_a_resample_sums_over_the_images_of_the_patients_drawn():
    generator = np.random.default_rng(0)
    patients = np.r_[np.arange(7), generator.integers(7, size=30)]
    values = generator.random((37, 3))
    counts = patient_counts(7, 20, seed=1)
    drawn = resampled(patient_sums(values, patients, 7), counts)
    for resample in range(20):
        images = np.repeat(np.arange(37), counts[patients, resample].astype(int))
        np.testing.assert_allclose(drawn[:, resample], values[images].sum(axis=0), rtol=1e-5)


def test_leading_axes_are_kept_and_whole_numbers_are_exact():
    sums = np.arange(24.0).reshape(2, 3, 4)
    counts = patient_counts(4, 5, seed=0)
    expected = np.einsum("abp,pr->abr", sums, counts.astype(float))
    np.testing.assert_array_equal(resampled(sums, counts), expected)


def test_a_patient_without_images_sums_to_zero():
    np.testing.assert_array_equal(patient_sums([[2.0]], np.array([1]), 3), [[0.0, 2.0, 0.0]])


def test_nothing_divided_by_nothing_is_undefined():
    result = ratio([1.0, 2.0, 0.0], [[4.0], [0.0]])
    np.testing.assert_array_equal(result, [[0.25, 0.5, 0.0], [np.nan] * 3])
    assert float(ratio(1, 2)) == 0.5
    assert float(ratio(1.0, np.nan)) == pytest.approx(np.nan, nan_ok=True)
