import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cxrlab.data.stratify import stratify_groups

SHARES = [(0.5, 0.5), (0.7, 0.1, 0.2), (0.9, 0.05, 0.05), (0.34, 0.33, 0.33)]


@st.composite
def draws(draw):
    """Rows of up to 30 groups, some of them large, with labels present, absent or unknown."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=30))
    groups = np.repeat([f"p{i}" for i in range(len(sizes))], sizes).astype(object)
    values = st.sampled_from([0.0, 1.0, np.nan])
    targets = draw(arrays.arrays(np.float32, (len(groups), draw(st.integers(1, 4))), elements=values))
    return groups, targets, draw(st.sampled_from(SHARES)), draw(st.integers(0, 99))


@given(draws())
@settings(deadline=None)
def test_shares_hold_up_to_whole_groups(drawn):
    groups, targets, shares, seed = drawn
    parts = stratify_groups(groups, targets, shares, seed)
    largest = max(np.unique(groups, return_counts=True)[1])
    excess = np.bincount(parts, minlength=len(shares)) - np.array(shares) * len(groups)
    assert excess.max() < largest
    assert excess.min() > -(len(shares) - 1) * largest


@given(draws())
@settings(deadline=None)
def test_groups_stay_whole_and_no_part_is_empty(drawn):
    groups, targets, shares, seed = drawn
    parts = stratify_groups(groups, targets, shares, seed)
    assert all(len(set(parts[groups == name])) == 1 for name in set(groups))
    assert len(set(parts)) == min(len(shares), len(set(groups)))


@given(draws())
@settings(deadline=None)
def test_the_order_of_rows_has_no_influence(drawn):
    groups, targets, shares, seed = drawn
    parts = stratify_groups(groups, targets, shares, seed)
    order = np.random.default_rng(1).permutation(len(groups))
    np.testing.assert_array_equal(stratify_groups(groups[order], targets[order], shares, seed), parts[order])


def test_the_seed_gives_another_draw():
    groups = np.arange(200).astype(str).astype(object)
    targets = (np.arange(200) % 3 == 0).astype(np.float32)[:, None]
    first = stratify_groups(groups, targets, (0.5, 0.5), 0)
    np.testing.assert_array_equal(first, stratify_groups(groups, targets, (0.5, 0.5), 0))
    agreement = np.mean(first == stratify_groups(groups, targets, (0.5, 0.5), 1))
    assert 0.3 < agreement < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_labels_keep_their_prevalence(seed):
    """3,000 groups of geometric size, ten labels of 0.5 to 30 percent that run in groups, a tenth unknown."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(3000), rng.geometric(0.3, 3000)).astype(str).astype(object)
    prevalence = np.geomspace(0.005, 0.3, 10)
    prone = rng.random((3000, 10)) < 2 * prevalence
    targets = (prone[groups.astype(int)] & (rng.random((len(groups), 10)) < 0.5)).astype(np.float32)
    targets[rng.random(targets.shape) < 0.1] = np.nan
    shares = (0.7, 0.1, 0.2)
    parts = stratify_groups(groups, targets, shares, seed)
    for part, share in enumerate(shares):
        mine = targets[parts == part]
        assert abs(len(mine) / len(groups) - share) < 0.001
        expected = share * np.nansum(targets, axis=0)
        # Within 2 images or 2 percent, where a draw without regard to labels scatters by about 10 images.
        np.testing.assert_allclose(np.nansum(mine, axis=0), expected, rtol=0.02, atol=2)
        np.testing.assert_allclose(
            np.nanmean(mine, axis=0), np.nanmean(targets, axis=0), rtol=0.03, atol=0.002
        )


def test_rows_without_any_known_label_are_dealt_by_number():
    groups = np.arange(100).astype(str).astype(object)
    parts = stratify_groups(groups, np.full((100, 2), np.nan, np.float32), (0.6, 0.4), 0)
    assert np.bincount(parts).tolist() == [60, 40]


def test_a_label_on_few_groups_reaches_every_part():
    groups = np.arange(100).astype(str).astype(object)
    targets = (np.arange(100) < 10).astype(np.float32)[:, None]
    parts = stratify_groups(groups, targets, (0.8, 0.1, 0.1), 0)
    assert np.bincount(parts, weights=targets[:, 0]).tolist() == [8, 1, 1]
