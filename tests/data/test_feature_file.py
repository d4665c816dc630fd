import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrlab.data.cache import CacheSettings, ImageCache
from cxrlab.data.cache_worker import FACTS
from cxrlab.data.feature_file import FeatureFile
from cxrlab.data.loader import FeatureStore

NUM_IMAGES, NUM_FEATURES = 9, 5
FEATURES = np.random.default_rng(0).normal(size=(NUM_IMAGES, NUM_FEATURES)).astype(np.float32)
ALL = np.arange(NUM_IMAGES)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    facts = np.zeros(NUM_IMAGES, FACTS)
    facts["seal"] = np.arange(100, 100 + NUM_IMAGES)
    np.save(tmp_path / "facts.npy", facts)
    files = tuple(f"{row}.png" for row in range(NUM_IMAGES))
    return ImageCache(tmp_path, Path("/data"), files, CacheSettings(32, 1, "stretch"))


def test_what_is_written_is_read_and_nothing_else(cache: ImageCache):
    file = FeatureFile(cache, "abc", NUM_FEATURES)
    assert not file.read(ALL)[1].any()
    with file.locked():
        file.write(np.array([7, 2, 3]), FEATURES[[7, 2, 3]])
    features, is_kept = FeatureFile(cache, "abc", NUM_FEATURES).read(np.array([3, 0, 7]))
    assert is_kept.tolist() == [True, False, True]
    np.testing.assert_array_equal(features[is_kept], FEATURES[[3, 7]])
    file.write(ALL, FEATURES)
    np.testing.assert_array_equal(file.read(ALL)[0], FEATURES)
    assert not FeatureFile(cache, "other", NUM_FEATURES).read(ALL)[1].any()
    assert not FeatureFile(cache, "abc", NUM_FEATURES + 1).read(ALL)[1].any()


def test_an_image_that_was_decoded_anew_has_no_features(cache: ImageCache):
    FeatureFile(cache, "abc", NUM_FEATURES).write(ALL, FEATURES)
    cache.facts("r+")["seal"][4] += 1
    cache.unmap()
    assert np.flatnonzero(~FeatureFile(cache, "abc", NUM_FEATURES).read(ALL)[1]).tolist() == [4]


def test_a_changed_number_is_not_believed(cache: ImageCache):
    file = FeatureFile(cache, "abc", NUM_FEATURES)
    file.write(ALL, FEATURES)
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    assert np.flatnonzero(~file.read(ALL)[1]).tolist() == [NUM_IMAGES - 1]
    file.write(ALL[-1:], FEATURES[-1:])
    assert file.read(ALL)[1].all()


@pytest.mark.parametrize("length", [0, 3, 100, 250])
def test_a_file_that_was_cut_is_made_anew(cache: ImageCache, length: int):
    file = FeatureFile(cache, "abc", NUM_FEATURES)
    file.write(ALL, FEATURES)
    os.truncate(file.path, length)
    assert not file.read(ALL)[1].any()
    file.write(ALL[:2], FEATURES[:2])
    assert file.read(ALL)[1].tolist() == [True] * 2 + [False] * 7
    assert [path.name for path in cache.folder.glob("*.part")] == []


def test_features_are_gathered_by_the_rows_of_the_manifest():
    store = FeatureStore(FEATURES[:3], [8, 1, 4], num_computed=0)
    np.testing.assert_array_equal(store.gather(torch.tensor([4, 8])).numpy(), FEATURES[[2, 0]])
    with pytest.raises(IndexError, match=r"no features of the rows \[2\]"):
        store.gather(torch.tensor([2, 4]))
