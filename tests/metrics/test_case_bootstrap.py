from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate, Floats, Names

NOTHING = Estimate(None)
LEVEL = 0.9


def bootstrap_of(patients: Sequence[str], num_resamples: int = 200) -> CaseBootstrap:
    return CaseBootstrap.of(patients, num_resamples=num_resamples, level=LEVEL, seed=4)


def cases_of_resamples(bootstrap: CaseBootstrap) -> list[list[int]]:
    """The cases of each resample: those of a patient stand as often as the patient was drawn."""
    found = []
    for column in bootstrap.counts.T.astype(int).tolist():
        drawn = [patient for patient, times in enumerate(column) for _ in range(times)]
        found.append([case for patient in drawn for case in np.flatnonzero(bootstrap.patients == patient)])
    return found


def known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def interval(samples: Sequence[float]) -> list[float]:
    known = [sample for sample in samples if not np.isnan(sample)]
    return np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()


def numbers(found: Estimate) -> list[float]:
    return [found.value, found.low, found.high]


@pytest.fixture
def shares() -> tuple[list[str], Floats, Names]:
    """30 cases of 8 patients and 3 groups, in no order; some shares are unknown, one group is one patient's."""
    generator = np.random.default_rng(0)
    patients = [f"patient {number}" for number in generator.integers(0, 8, 30)]
    groups = generator.choice(["Mass", "Edema"], 30).astype(object)
    groups[[number for number, name in enumerate(patients) if name == patients[3]][:2]] = "Nodule"
    values = generator.random((30, 2))
    values[generator.random((30, 2)) < 0.2] = np.nan
    return patients, values, groups


def test_each_resample_draws_as_many_patients_as_there_are() -> None:
    bootstrap = bootstrap_of(["b", "a", "b", "10", "9", "a"], 300)
    assert bootstrap.level == LEVEL
    assert bootstrap.counts.shape == (4, 300)
    assert (bootstrap.counts.sum(axis=0) == 4).all()
    assert bootstrap.counts.mean() == 1
    one_patient = {tuple(np.flatnonzero(bootstrap.patients == number)) for number in bootstrap.patients}
    assert one_patient == {(0, 2), (1, 5), (3,), (4,)}


def test_the_seed_decides_what_is_drawn() -> None:
    draws = [
        CaseBootstrap.of(list("abcdef"), num_resamples=100, level=LEVEL, seed=seed).counts
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_a_mean_is_that_of_the_cases_and_its_interval_that_of_resampled_patients(
    shares: tuple[list[str], Floats, Names],
) -> None:
    patients, values, _ = shares
    bootstrap = bootstrap_of(patients)
    found = bootstrap.mean(values)
    assert len(found) == 2
    for column, one in zip(values.T, found, strict=True):
        samples = [known_mean(column[cases]) for cases in cases_of_resamples(bootstrap)]
        assert numbers(one) == pytest.approx([known_mean(column), *interval(samples)], abs=1e-6)


def test_a_mean_of_some_cases_resamples_the_same_patients(
    shares: tuple[list[str], Floats, Names],
) -> None:
    patients, values, _ = shares
    bootstrap, chosen = bootstrap_of(patients), np.array([1, 4, 5, 9, 17, 18, 29])
    found = bootstrap.mean(values, chosen)
    drawn = [
        [case for case in cases if case in set(chosen.tolist())] for cases in cases_of_resamples(bootstrap)
    ]
    for column, one in zip(values.T, found, strict=True):
        samples = [known_mean(column[cases]) for cases in drawn]
        assert numbers(one) == pytest.approx([known_mean(column[chosen]), *interval(samples)], abs=1e-6)


def test_groups_are_evaluated_apart_and_count_alike_in_their_mean(
    shares: tuple[list[str], Floats, Names],
) -> None:
    patients, values, groups = shares
    bootstrap = bootstrap_of(patients)
    found = bootstrap.by_group(values, groups)
    names = list(dict.fromkeys(groups))
    assert list(found) == [*names, MACRO]
    for place, column in enumerate(values.T):
        samples = [
            [known_mean([column[case] for case in cases if groups[case] == name]) for name in names]
            for cases in cases_of_resamples(bootstrap)
        ]
        means = [known_mean(column[groups == name]) for name in names]
        for name, mean, of_group in zip(names, means, zip(*samples, strict=True), strict=True):
            if name != "Nodule":  # of one patient: nothing varies
                assert numbers(found[name][place]) == pytest.approx([mean, *interval(of_group)], abs=1e-6)
        expected = [known_mean(means), *interval([known_mean(row) for row in samples])]
        assert numbers(found[MACRO][place]) == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_the_mean_over_groups_covers_where_some_are_of_one_patient() -> None:
    """60 patients of one group and one each of three others, all right in 0.4 of the cases: 0.4 is inside."""
    generator, num_inside = np.random.default_rng(0), 0
    groups = np.array(["Mass"] * 60 + ["Edema", "Nodule", "Hernia"], dtype=object)
    names = [str(number) for number in range(63)]
    bootstrap = CaseBootstrap.of(names, num_resamples=500, level=0.95, seed=4)
    for _ in range(100):
        found = bootstrap.by_group((generator.random((63, 1)) < 0.4).astype(float), groups)[MACRO][0]
        num_inside += found.low <= 0.4 <= found.high
    assert num_inside >= 85  # of 95 that are promised


def test_the_mean_over_groups_is_not_the_mean_over_cases() -> None:
    groups = np.array(["Mass"] * 3 + ["Edema"], dtype=object)
    found = bootstrap_of(list("abcd")).by_group(np.array([[1.0], [1], [0], [0]]), groups)
    assert [found[name][0].value for name in ("Mass", "Edema", MACRO)] == pytest.approx([2 / 3, 0, 1 / 3])


def test_a_group_without_a_known_value_has_none_and_stays_out_of_the_mean() -> None:
    groups = np.array(["Mass", "Mass", "Edema", "Edema"], dtype=object)
    values = np.array([[0.25, np.nan], [0.75, np.nan], [np.nan, np.nan], [np.nan, np.nan]])
    found = bootstrap_of(list("abcd")).by_group(values, groups)
    assert found["Edema"] == [NOTHING, NOTHING]
    assert found["Mass"][1] == found[MACRO][1] == NOTHING
    assert found["Mass"][0].value == found[MACRO][0].value == 0.5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_without_exception_has_wilson_s_interval_of_as_many_patients(share: float) -> None:
    patients = ["a", "a", "b", "c", "d", "d", "e"]
    groups = np.array(["Mass"] * 3 + ["Edema"] * 4, dtype=object)
    found = bootstrap_of(patients).by_group(np.full((7, 1), share), groups)
    for name, units in (("Mass", 2), ("Edema", 3), (MACRO, 5)):
        known = binomtest(round(share * units), units).proportion_ci(LEVEL, method="wilson")
        assert numbers(found[name][0]) == pytest.approx([share, known.low, known.high])


def test_a_difference_of_minus_1_throughout_mirrors_that_of_1() -> None:
    patients = list("abcde")
    one, other = (
        bootstrap_of(patients).mean(np.full((5, 1), value), signed=True)[0] for value in (1.0, -1.0)
    )
    assert numbers(other) == pytest.approx([-one.value, -one.high, -one.low])
    assert -1 == other.low < other.high < 0


@pytest.mark.parametrize("units", [2, 3, 5, 40])
def test_a_difference_of_1_throughout_has_wilson_s_interval_on_the_way_from_minus_1(units: int) -> None:
    patients = [str(number) for number in range(units)]
    found = bootstrap_of(patients).mean(np.ones((units, 1)), signed=True)[0]
    known = binomtest(units, units).proportion_ci(LEVEL, method="wilson")
    assert numbers(found) == pytest.approx([1, 2 * known.low - 1, 1])
    assert (found.low < 0) == (units == 2)


@pytest.mark.parametrize("value", [0.3, -0.3])
def test_what_does_not_vary_otherwise_has_no_interval(value: float) -> None:
    found = bootstrap_of(list("abcde")).mean(np.full((5, 1), value))[0]
    assert found == Estimate(pytest.approx(value))


def test_negative_differences_have_the_mirrored_interval() -> None:
    generator = np.random.default_rng(2)
    patients, values = [str(number) for number in generator.integers(0, 9, 25)], generator.random((25, 1))
    one, other = (bootstrap_of(patients).mean(sign * values)[0] for sign in (1, -1))
    assert numbers(other) == pytest.approx([-one.value, -one.high, -one.low])
    assert other.low < other.value < other.high < 0


def test_patients_are_counted_once() -> None:
    bootstrap = bootstrap_of(["a", "b", "a", "c", "b"])
    assert bootstrap.num_patients(np.arange(5)) == 3
    assert bootstrap.num_patients(np.array([0, 2])) == 1
    assert bootstrap.num_patients(np.array([], dtype=np.int64)) == 0


def test_rounding_is_no_spread() -> None:
    found = bootstrap_of(list("aaabbbbccd")).mean(np.full((10, 1), 0.3))[0]
    assert found.value == pytest.approx(0.3)
    assert found.low is found.high is None


def test_a_difference_of_0_throughout_may_have_either_sign() -> None:
    share, difference = (
        bootstrap_of(list("abcde")).mean(np.zeros((5, 1)), signed=s)[0] for s in (False, True)
    )
    assert share.low == 0
    assert difference == Estimate(0.0, -share.high, share.high)
