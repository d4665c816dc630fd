import hashlib
import io
from itertools import permutations, product

import numpy as np
import pytest
from PIL import Image, ImageOps

from cxrlab.data.duplicates.hashing import perceptual_hash
from cxrlab.data.duplicates.search import (
    MOST_DIFFERENT,
    find_across,
    find_near_duplicates,
    identical_groups,
    linked_groups,
)
from cxrlab.data.readers import synthetic


def opened(path, size=224) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L").resize((size, size), Image.Resampling.BILINEAR))[None]


def hashed(images) -> np.ndarray:
    return np.stack([perceptual_hash(image) for image in images])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(image: Image.Image, share: float) -> Image.Image:
    dx, dy = round(share * image.width), round(share * image.height)
    return image.crop((dx, dy, image.width - dx, image.height - dy)).resize(image.size)


COPIES = {
    "jpeg": lambda image: jpeg(image, 50),
    "halved": lambda image: image.resize((image.width // 2, image.height // 2)).resize(image.size),
    "darker": lambda image: image.point(lambda value: 0.9 * value),
    "gamma": lambda image: image.point([round(255 * (value / 255) ** 1.1) for value in range(256)]),
    "cropped": lambda image: cropped(image, 0.01),
    "mirrored": lambda image: jpeg(ImageOps.mirror(image), 80),
    "inverted": lambda image: jpeg(ImageOps.invert(image), 80),
    "mirrored inverted": lambda image: ImageOps.invert(ImageOps.mirror(image)),
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> np.ndarray:
    """One image of each of 40 patients: two exposures of a phantom may be as alike as copies."""
    manifest = synthetic.read(tmp_path_factory.mktemp("phantoms"), num_patients=40, size=128, seed=0)
    names = manifest.table.drop_duplicates("patient")["image"]
    return np.stack([opened(manifest.root / name, 128) for name in names])


def test_identical_groups_are_those_of_equal_digests():
    assert identical_groups(["b", "a", "", "c", "a", "", "b", "b"]) == [[0, 6, 7], [1, 4]]
    assert identical_groups([]) == []


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_told_by_its_kind(phantoms, kind):
    copy = np.asarray(COPIES[kind](Image.fromarray(phantoms[7, 0])))[None]
    images = np.concatenate([phantoms, copy[None]])
    pairs = find_near_duplicates(hashed(images), images)
    assert pairs[["one", "other"]].to_numpy().tolist() == [[7, len(images) - 1]]
    assert pairs["difference"][0] <= MOST_DIFFERENT
    assert pairs["mirrored"][0] == ("mirrored" in kind)
    assert pairs["inverted"][0] == ("inverted" in kind)


def test_phantoms_of_different_patients_are_no_copies(phantoms):
    assert find_near_duplicates(hashed(phantoms), phantoms).empty


def test_of_identical_files_one_takes_part(phantoms):
    images = phantoms[[0, 1, 0, 2, 0]].copy()
    images[4] = np.asarray(jpeg(Image.fromarray(images[4, 0]), 60))
    digests = ["a", "b", "a", "c", "d"]
    known = find_near_duplicates(hashed(images), images, digests=digests)
    assert known[["one", "other"]].to_numpy().tolist() == [[0, 4]]
    unknown = find_near_duplicates(hashed(images), images)
    assert unknown[["one", "other"]].to_numpy().tolist() == [[0, 2], [0, 4], [2, 4]]
    assert unknown["difference"].tolist()[0] == pytest.approx(0, abs=1e-5)


def test_the_hashes_given_stay_as_they_are(phantoms):
    images = phantoms[[0, 0]]
    hashes = hashed(images)
    find_near_duplicates(hashes, images, digests=["a", "a"])
    assert (hashes == hashed(images)).all()


def test_black_images_are_no_copies_of_one_another():
    images = np.zeros((50, 1, 64, 64), dtype=np.uint8)
    pairs = find_near_duplicates(hashed(images), images)
    assert pairs.empty
    assert pairs.columns.tolist() == ["one", "other", "distance", "difference", "mirrored", "inverted"]


def test_likeness_is_not_passed_on(phantoms):
    # From an image to another one in steps, each of which is a near copy of the step before.
    one, other = (phantoms[row, 0].astype(float) for row in (0, 30))
    images = np.stack([(one + (other - one) * step / 24).astype(np.uint8) for step in range(25)])[:, None]
    pairs = set(
        find_near_duplicates(hashed(images), images)[["one", "other"]].itertuples(index=False, name=None)
    )
    assert {(step, step + 1) for step in range(24)} <= pairs
    assert (0, 24) not in pairs


def test_images_of_one_set_are_found_in_another(phantoms):
    images = phantoms
    others = np.stack([np.asarray(Image.fromarray(images[row, 0]).resize((96, 96))) for row in (5, 3)])
    others = np.repeat(others[:, None], 3, axis=1)
    pairs = find_across(hashed(images), images, hashed(others), others)
    assert sorted(pairs[["one", "other"]].to_numpy().tolist()) == [[3, 1], [5, 0]]
    assert find_across(hashed(images[:10]), images[:10], hashed(images[10:]), images[10:]).empty


def test_unlinked_patients_keep_their_names():
    assert linked_groups(["b", "a", "b"], []).tolist() == ["b", "a", "b"]
    assert linked_groups(["b", "a", "b"], [(0, 2)]).tolist() == ["b", "a", "b"]
    assert linked_groups([], []).shape == (0,)


def test_linked_patients_have_the_smallest_name_in_any_order():
    patients = ["d", "c", "b", "a", "z", "y"]
    links = [(0, 1), (1, 2), (3, 2), (4, 5)]
    expected = {"d": "a", "c": "a", "b": "a", "a": "a", "z": "y", "y": "y"}
    for order, turned in product(permutations(links), (False, True)):
        given = [(b, a) for a, b in order] if turned else list(order)
        assert linked_groups(patients, given).tolist() == [expected[name] for name in patients]


def test_linked_groups_are_connected_components():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    patients = [f"{number:03d}" for number in rng.integers(0, 150, 300)]
    links = rng.integers(0, 300, (60, 2)).tolist()
    codes = np.array([int(name) for name in patients])
    ones, others = codes[[link[0] for link in links]], codes[[link[1] for link in links]]
    _, component = connected_components(coo_array((np.ones(60), (ones, others)), shape=(150, 150)))
    smallest = {part: min(set(codes[component[codes] == part])) for part in component[codes]}
    assert linked_groups(patients, links).tolist() == [f"{smallest[component[code]]:03d}" for code in codes]


def test_chest_xray_has_identical_files_and_no_near_copies(real_data):
    paths = sorted((real_data / "chest_xray" / "train").glob("*/*.jpeg"))
    digests = [hashlib.blake2b(path.read_bytes()).hexdigest() for path in paths]
    groups = identical_groups(digests)
    assert len(groups) == 24
    assert sum(map(len, groups)) == 50
    # Electrodes that moved tell these two exposures of a moment apart: the closest of the set.
    series = [path for path in paths if path.name.startswith(("person1476_", "person1730_", "person1609_"))]
    images = np.stack([opened(path) for path in series])
    assert len(images) > 5
    assert find_near_duplicates(hashed(images), images).empty


def test_nih_patients_share_no_image_and_its_copies_are_found(real_data):
    images = np.stack([opened(path) for path in sorted((real_data / "nih" / "images").iterdir())])
    assert find_near_duplicates(hashed(images), images).empty
    chosen = images[::6]
    for number, kind in enumerate(COPIES):
        copies = np.stack([np.asarray(COPIES[kind](Image.fromarray(image[0])))[None] for image in chosen])
        pairs = find_across(hashed(chosen), chosen, hashed(copies), copies)
        assert pairs["one"].tolist() == pairs["other"].tolist() == list(range(50)), (number, kind)
