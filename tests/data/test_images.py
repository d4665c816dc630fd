from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data.images import decode
from cxrlab.errors import DataError, MissingFileError

SIZE = 32
GREY = np.linspace(0, 255, SIZE * SIZE).astype(np.uint8).reshape(SIZE, SIZE)


def saved(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def mode(path):
    with Image.open(path) as image:
        return image.mode


def channel_of(path, channel):
    with Image.open(path) as image:
        return image.getchannel(channel)


def rgba(alpha):
    return Image.fromarray(np.dstack([GREY, GREY, GREY, np.full_like(GREY, alpha)]))


IMAGES = {
    "L": Image.fromarray(GREY),
    "RGB": Image.fromarray(GREY).convert("RGB"),
    "RGBA": rgba(255),
    "RGBA, transparent": rgba(0),
    "P": Image.fromarray(GREY).convert("P"),
    "LA": Image.fromarray(np.dstack([GREY, 255 - GREY])),
    "I;16": Image.fromarray(GREY.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", IMAGES)
def test_every_mode_gives_the_same_grey(tmp_path, kind, channels):
    array = decode(saved(tmp_path, IMAGES[kind]), image_size=SIZE, channels=channels)
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.uint8, (channels, SIZE, SIZE), True)
    np.testing.assert_array_equal(array, np.broadcast_to(GREY, array.shape))


def test_one_bit_images_are_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY > 99))
    assert mode(path) == "1"
    np.testing.assert_array_equal(decode(path, image_size=SIZE, channels=1)[0], np.where(GREY > 99, 255, 0))


def test_colour_becomes_luma_or_stays(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 100, 50)))
    assert np.unique(decode(path, image_size=SIZE, channels=1)).tolist() == [round(0.299 * 200 + 58.7 + 5.7)]
    assert decode(path, image_size=SIZE, channels=3)[:, 0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (128, 0), (129, 1), (257, 1), (32896, 128), (65535, 255)]
)
def test_sixteen_bits_map_to_eight(tmp_path, value, expected):
    path = saved(tmp_path, Image.fromarray(np.full((SIZE, SIZE), value, np.uint16)))
    assert np.unique(decode(path, image_size=8, channels=1)).tolist() == [expected]


def test_cmyk_jpeg(tmp_path):
    path = saved(
        tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 200, 200)).convert("CMYK"), "x.jpg", quality=95
    )
    assert mode(path) == "CMYK"
    for channels in (1, 3):
        array = decode(path, image_size=SIZE, channels=channels)
        np.testing.assert_allclose(array, 200, atol=3)


def test_other_shapes_stretch_to_the_square(tmp_path):
    wide = np.repeat(np.array([[0, 255]], np.uint8), 60, axis=1).repeat(20, axis=0)  # left half black
    array = decode(saved(tmp_path, Image.fromarray(wide)), image_size=SIZE, channels=1)[0]
    assert array.shape == (SIZE, SIZE)
    assert array[:, :14].max() == 0
    assert array[:, 18:].min() == 255


def test_the_resize_is_antialiased(tmp_path):
    checkerboard = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    array = decode(saved(tmp_path, Image.fromarray(checkerboard)), image_size=64, channels=1)
    np.testing.assert_allclose(array, 127.5, atol=2)


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        DataError, match=rf"The image .*{name} \({path.stat().st_size} bytes\) cannot be read"
    ):
        decode(path, image_size=SIZE, channels=1)


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "00000001_000.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"00000001_000\.png \({len(content)} bytes\) cannot be read"):
        decode(path, image_size=SIZE, channels=1)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        decode(tmp_path, image_size=SIZE, channels=1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"There is no image .*absent\.png"):
        decode(tmp_path / "absent.png", image_size=SIZE, channels=1)


@pytest.mark.real_data
def test_alpha_of_real_radiographs_changes_nothing(real_data: Path, tmp_path):
    paths = [path for path in sorted((real_data / "nih/images").iterdir()) if mode(path) == "RGBA"]
    assert len(paths) == 4
    for path in paths:
        grey = saved(tmp_path, channel_of(path, "R"))
        for channels in (1, 3):
            expected = decode(grey, image_size=128, channels=channels)
            np.testing.assert_array_equal(decode(path, image_size=128, channels=channels), expected)


@pytest.mark.real_data
def test_reduced_jpeg_decoding_is_close_to_the_full(real_data: Path, tmp_path):
    for path in sorted((real_data / "chest_xray_fullres/PNEUMONIA").iterdir()):
        full = saved(tmp_path, channel_of(path, "L"))
        expected = decode(full, image_size=224, channels=1).astype(float)
        difference = np.abs(decode(path, image_size=224, channels=1) - expected)
        print(f"{path.name}: mean {difference.mean():.3f}, largest {difference.max():.0f} of 255")
        assert difference.mean() < 0.5
        assert difference.max() < 20
