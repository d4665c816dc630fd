import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cxrlab.data import raster
from cxrlab.data.decode import (
    FORMATS,
    MAX_PIXELS,
    RESIZES,
    decode,
    image_format,
    read_image,
    read_image_bytes,
)
from cxrlab.errors import ConfigError, DataError, MissingFileError

pytestmark = pytest.mark.usefixtures("decoder")
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
    array = decode(saved(tmp_path, IMAGES[kind]), image_size=SIZE, channels=channels, resize="stretch")
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.uint8, (channels, SIZE, SIZE), True)
    np.testing.assert_array_equal(array, np.broadcast_to(GREY, array.shape))


LOSSLESS = {"x.tif": {}, "lzw.tiff": {"compression": "tiff_lzw"}, "x.bmp": {}, "x.webp": {"lossless": True}}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA, transparent", "P", "LA", "I;16"])
def test_every_lossless_format_gives_the_same_grey(tmp_path, kind, name, channels):
    image = IMAGES[kind]
    if name.endswith(".bmp") and kind in {"LA", "I;16"}:
        pytest.skip("BMP has no such mode")
    if name.endswith(".webp"):
        image = image if kind == "RGBA, transparent" else Image.fromarray(GREY)
    options = LOSSLESS[name] | ({"exact": True} if name.endswith(".webp") else {})
    array = decode(
        saved(tmp_path, image, name, **options), image_size=SIZE, channels=channels, resize="stretch"
    )
    np.testing.assert_array_equal(array, np.broadcast_to(GREY, array.shape))


@pytest.mark.parametrize("name", ["x.tif", "x.bmp", "x.webp", "x.gif"])
def test_every_format_keeps_colour(tmp_path, name):
    path = saved(tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 100, 50)), name)
    colour = decode(path, image_size=SIZE, channels=3, resize="stretch")[:, 5, 5].astype(int)
    np.testing.assert_allclose(colour, [200, 100, 50], atol=3 if name == "x.webp" else 0)


def test_a_gif_of_one_frame_is_read(tmp_path):
    array = decode(saved(tmp_path, IMAGES["L"], "x.gif"), image_size=SIZE, channels=1, resize="stretch")
    np.testing.assert_array_equal(array[0], GREY)


@pytest.mark.parametrize("depth", ["L", "I;16"])
def test_white_may_be_zero_in_a_tiff(tmp_path, depth):
    # Pillow inverts eight bits itself where it writes them so.
    inverted = Image.fromarray(GREY if depth == "L" else 65535 - GREY.astype(np.uint16) * 257)
    path = saved(tmp_path, inverted, "x.tif", tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    np.testing.assert_array_equal(decode(path, image_size=SIZE, channels=1, resize="stretch")[0], GREY)


def test_a_smaller_copy_in_a_tiff_is_no_second_page(tmp_path):
    thumbnail = Image.new("L", (8, 8))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    path = saved(tmp_path, IMAGES["L"], "x.tif", save_all=True, append_images=[thumbnail])
    with Image.open(path) as image:
        assert image.n_frames == 2
    np.testing.assert_array_equal(decode(path, image_size=SIZE, channels=1, resize="stretch")[0], GREY)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x.tif", "pages"), ("x.webp", "frames"), ("x.gif", "frames"), ("x.png", "frames")],
)
def test_several_frames_are_refused(tmp_path, name, reason):
    path = saved(tmp_path, IMAGES["L"], name, save_all=True, append_images=[Image.fromarray(255 - GREY)])
    with pytest.raises(DataError, match=rf"it has several {reason}, and a radiograph has one"):
        read(path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GREY.astype(np.float32) / 255, "floating-point numbers"),
        (GREY.astype(np.int32) - 100, "its values go from -100 to 155; 0 to 65535 can be read"),
        (GREY.astype(np.int32) * 1000, "its values go from 0 to 255000"),
    ],
)
def test_values_beyond_sixteen_bits_are_refused(tmp_path, values, reason):
    with pytest.raises(DataError, match=reason):
        read(saved(tmp_path, Image.fromarray(values), "x.tif"))


def test_a_format_is_told_by_content(tmp_path):
    names = ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"]
    for name in names:
        IMAGES["L"].save(tmp_path / "image.txt", name)
        assert image_format(tmp_path / "image.txt") == name
    preamble = b"II*\0".ljust(128, b"\0") + b"DICM"  # a DICOM file may begin as a TIFF does
    bare = b"\x08\0\x05\0CS\x0a\0ISO_IR 100"
    implicit = b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100"
    for content in (preamble, bare, implicit):
        (tmp_path / "image.txt").write_bytes(content)
        assert image_format(tmp_path / "image.txt") == "DICOM"
    assert set(names) | {"DICOM"} == set(FORMATS)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"BM", b"BMW of 1994, a novel by", b"RIFF....WAVEfmt ", b"%PDF-1.7", b"PK\3\4", b"a,b\n1,2\n",
        b"\x08\0\x05\0\0\x10\x20\x30abc", b"\x02\0\0\0", b"\x02\0\x10\xff" + bytes(200), b"II*",
    ],
)  # fmt: skip
def test_what_is_no_image_has_no_format(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    assert image_format(tmp_path / "x.png") is None


def test_what_is_no_file_has_no_format(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png", tmp_path / "absent.png"):
        assert image_format(path) is None


def test_one_bit_images_are_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY > 99))
    assert mode(path) == "1"
    np.testing.assert_array_equal(
        decode(path, image_size=SIZE, channels=1, resize="stretch")[0], np.where(GREY > 99, 255, 0)
    )


def test_colour_becomes_luma_or_stays(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 100, 50)))
    assert np.unique(decode(path, image_size=SIZE, channels=1, resize="stretch")).tolist() == [
        round(0.299 * 200 + 58.7 + 5.7)
    ]
    assert decode(path, image_size=SIZE, channels=3, resize="stretch")[:, 0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (128, 0), (129, 1), (257, 1), (32896, 128), (65535, 255)]
)
def test_sixteen_bits_map_to_eight(tmp_path, value, expected):
    values = np.full((SIZE, SIZE), value, np.uint16)
    values[:8] = np.linspace(0, 65535, 8 * SIZE).reshape(8, SIZE)
    path = saved(tmp_path, Image.fromarray(values))
    array = decode(path, image_size=SIZE, channels=1, resize="stretch")[0]
    assert np.unique(array[8:]).tolist() == [expected]


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize(
    ("highest", "depth"), [(200, 8), (255, 8), (700, 10), (3900, 12), (4095, 12), (4096, 14), (16384, 16)]
)
def test_sixteen_bits_are_scaled_by_those_that_are_used(tmp_path, name, highest, depth):
    values = np.rint(GREY / 255.0 * highest).astype(np.uint16)
    path = saved(tmp_path, Image.fromarray(values), name)
    image = read_image(path, image_size=SIZE, channels=1, resize="stretch")
    np.testing.assert_array_equal(image.pixels[0], np.floor(values / (2**depth - 1) * 255 + 0.5))
    assert image.depth == depth
    assert image.levels == len(np.unique(image.pixels))
    given = read_image(path, image_size=SIZE, channels=1, resize="stretch", bit_depth=14)
    expected = np.floor(np.minimum(values / (2**14 - 1), 1) * 255 + 0.5)
    np.testing.assert_array_equal(given.pixels[0], expected)
    assert given.depth == 14


def test_a_burnt_in_border_does_not_count_for_the_bits(tmp_path):
    values = GREY.astype(np.uint16) * 16
    values[:3] = 65535
    image = read(saved(tmp_path, Image.fromarray(values)))
    assert image.depth == 12
    np.testing.assert_array_equal(image.pixels[0, 3:], np.floor(values[3:] / 4095 * 255 + 0.5))
    assert image.pixels[0, :3].min() == 255


def test_white_may_be_zero_in_twelve_bits(tmp_path):
    path = saved(tmp_path, Image.fromarray(4080 - GREY.astype(np.uint16) * 16), "x.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read(path).pixels[0].astype(int), GREY, atol=1)


def packed_tiff(values):
    """A TIFF that packs two values of twelve bits into three bytes."""
    one, two = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    pixels = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height),
               (279, len(pixels))]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return start + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)


def test_a_tiff_that_says_twelve_bits_is_scaled_by_them(tmp_path):
    (tmp_path / "x.tif").write_bytes(packed_tiff(GREY.astype(np.uint16) * 2))  # up to 510: 9 bits
    image = read(tmp_path / "x.tif")
    assert image.depth == 12
    np.testing.assert_array_equal(image.pixels[0], np.floor(GREY.astype(int) * 2 / 4095 * 255 + 0.5))


def png_of_colours(values):
    """A colour PNG of 16 bits."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_sixteen_bits_must_fill_them(tmp_path, channels):
    colours = np.repeat(GREY[..., None].astype(np.uint16), 3, axis=2)
    path = tmp_path / "x.png"
    path.write_bytes(png_of_colours(colours * 257))
    array = decode(path, image_size=SIZE, channels=channels, resize="stretch")
    np.testing.assert_array_equal(array, np.broadcast_to(GREY, array.shape))
    path.write_bytes(png_of_colours(colours * 16))
    with pytest.raises(DataError, match="its colours are stored in 16 bits and fill less than 14 of them"):
        decode(path, image_size=SIZE, channels=channels, resize="stretch")


def test_cmyk_jpeg(tmp_path):
    path = saved(
        tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 200, 200)).convert("CMYK"), "x.jpg", quality=95
    )
    assert mode(path) == "CMYK"
    for channels in (1, 3):
        array = decode(path, image_size=SIZE, channels=channels, resize="stretch")
        np.testing.assert_allclose(array, 200, atol=3)


def test_other_shapes_stretch_to_the_square(tmp_path):
    wide = np.repeat(np.array([[0, 255]], np.uint8), 60, axis=1).repeat(20, axis=0)  # left half black
    array = decode(saved(tmp_path, Image.fromarray(wide)), image_size=SIZE, channels=1, resize="stretch")[0]
    assert array.shape == (SIZE, SIZE)
    assert array[:, :14].max() == 0
    assert array[:, 18:].min() == 255


def test_the_resize_is_antialiased(tmp_path):
    checkerboard = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    array = decode(
        saved(tmp_path, Image.fromarray(checkerboard)), image_size=64, channels=1, resize="stretch"
    )
    np.testing.assert_allclose(array, 127.5, atol=2)


def reference(image, image_size, channels):
    """Stretch in the plainest way."""
    square = image.convert("L" if channels == 1 else "RGB").resize(
        (image_size,) * 2, Image.Resampling.BILINEAR
    )
    return np.atleast_3d(np.asarray(square)).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_lossless_files_give_what_pillow_gives(tmp_path, kind, channels):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 4), dtype=np.uint8)).convert(
        kind
    )
    path = saved(tmp_path, noise)
    np.testing.assert_array_equal(
        decode(path, image_size=SIZE, channels=channels, resize="stretch"), reference(noise, SIZE, channels)
    )


def test_the_fast_decoder_decodes(tmp_path, monkeypatch, decoder):
    monkeypatch.setattr(raster.PngImageFile, "load", lambda _: pytest.fail("Pillow decoded"))
    path = saved(tmp_path, IMAGES["L"])
    if decoder == "fast":
        decode(path, image_size=SIZE, channels=1, resize="stretch")
    else:
        with pytest.raises(pytest.fail.Exception):
            decode(path, image_size=SIZE, channels=1, resize="stretch")


def disc(width, height):
    """A white disc of radius 40 in the middle of a grey field."""
    image = Image.new("L", (width, height), 100)
    box = (width / 2 - 40, height / 2 - 40, width / 2 + 39, height / 2 + 39)
    ImageDraw.Draw(image).ellipse(box, fill=255)
    return image


def extent(white):
    return [int(np.ptp(np.nonzero(white.any(axis=axis))[0])) + 1 for axis in (1, 0)]


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
@pytest.mark.parametrize(("width", "height"), [(400, 200), (200, 400)])
def test_each_rule_treats_the_aspect_as_it_says(tmp_path, name, width, height):
    path = saved(tmp_path, disc(width, height), name)
    result = {rule: decode(path, image_size=100, channels=1, resize=rule)[0].astype(int) for rule in RESIZES}
    rows_and_columns = {rule: extent(array > 180) for rule, array in result.items()}
    wide = width > height
    assert rows_and_columns["pad"] == pytest.approx([20, 20], abs=1)
    assert rows_and_columns["crop"] == pytest.approx([40, 40], abs=1)
    assert rows_and_columns["stretch"] == pytest.approx([40, 20] if wide else [20, 40], abs=1)
    pad = result["pad"] if wide else result["pad"].T
    assert not pad[:25].any()
    assert not pad[75:].any()
    assert abs(pad[25:75, 0] - 100).max() <= 3  # the file's own edge, next to the fill
    assert result["crop"].min() > 90


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 7), (33, 31)])
@pytest.mark.parametrize("resize", RESIZES)
def test_every_shape_fits(tmp_path, size, resize, channels):
    array = decode(saved(tmp_path, Image.new("L", size, 9)), image_size=16, channels=channels, resize=resize)
    assert array.shape == (channels, 16, 16)
    assert array.max() == 9


def test_padding_and_cropping_are_antialiased(tmp_path):
    board = ((np.indices((512, 1024)).sum(axis=0) % 2) * 255).astype(np.uint8)
    for name in ("x.png", "x.jpg"):
        path = saved(tmp_path, Image.fromarray(board), name, **({"quality": 95} if name == "x.jpg" else {}))
        crop = decode(path, image_size=64, channels=1, resize="crop")
        np.testing.assert_allclose(crop, 127.5, atol=3)
        pad = decode(path, image_size=64, channels=1, resize="pad")[0, 17:47]
        np.testing.assert_allclose(pad, 127.5, atol=3)


def test_an_unknown_rule_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"data\.resize=squash is unknown; choose one of stretch, pad, crop"
    ):
        decode(tmp_path, image_size=8, channels=1, resize="squash")


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_the_file_is_described(tmp_path, name):
    path = saved(tmp_path, Image.new("RGB", (1200, 900), (9, 9, 9)), name)
    image = read_image(path, image_size=16, channels=1, resize="pad")
    assert (image.width, image.height, image.mode, image.warning) == (1200, 900, "RGB", "")
    assert (image.depth, image.levels) == (8, 1)
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    assert len(image.digest) == 32


def test_the_content_decides_not_the_name(tmp_path):
    path = saved(tmp_path, IMAGES["L"])
    renamed = path.rename(tmp_path / "x.dcm")
    np.testing.assert_array_equal(decode(renamed, image_size=SIZE, channels=1, resize="stretch")[0], GREY)


def test_luma_of_a_colour_jpeg_is_its_grey(tmp_path):
    path = saved(tmp_path, IMAGES["RGB"], "x.jpg", quality=95)
    with Image.open(path) as image:
        expected = reference(image, SIZE, 1).astype(int)
    np.testing.assert_allclose(decode(path, image_size=SIZE, channels=1, resize="stretch"), expected, atol=1)


def test_an_orientation_tag_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    half = Image.fromarray(np.repeat([[0, 255]], [32, 32], axis=1).repeat(64, axis=0).astype(np.uint8))
    for name in ("x.jpg", "x.png"):
        array = decode(saved(tmp_path, half, name, exif=exif), image_size=8, channels=1, resize="stretch")[0]
        assert array[:, :3].max() < 10
        assert array[:, 5:].min() > 245


def test_the_module_starts_without_torch_and_pydicom():
    code = (
        "import sys, cxrlab.data.decode; print({'torch', 'pydicom', 'cv2', 'kornia_rs'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.real_data
def test_alpha_of_real_radiographs_changes_nothing(real_data: Path, tmp_path):
    paths = [path for path in sorted((real_data / "nih/images").iterdir()) if mode(path) == "RGBA"]
    assert len(paths) == 4
    for path in paths:
        grey = saved(tmp_path, channel_of(path, "R"))
        for channels in (1, 3):
            expected = decode(grey, image_size=128, channels=channels, resize="stretch")
            np.testing.assert_array_equal(
                decode(path, image_size=128, channels=channels, resize="stretch"), expected
            )


@pytest.mark.real_data
@pytest.mark.parametrize("resize", RESIZES)
def test_reduced_jpeg_decoding_is_close_to_the_full(real_data: Path, tmp_path, resize, decoder):
    if decoder == "fast":
        pytest.skip("the fast decoder has no part in JPEG")
    for path in sorted((real_data / "chest_xray_fullres/PNEUMONIA").iterdir()):
        full = saved(tmp_path, channel_of(path, "L"), compress_level=1)
        for image_size in (128, 224):
            expected = decode(full, image_size=image_size, channels=1, resize=resize).astype(float)
            difference = np.abs(decode(path, image_size=image_size, channels=1, resize=resize) - expected)
            print(
                f"{path.name} at {image_size}: mean {difference.mean():.3f}, largest {difference.max():.0f} of 255"
            )
            assert difference.mean() < 0.7
            assert difference.max() < 20


def faults_saved(tmp_path, image, name="x.png"):
    image.save(tmp_path / name)
    return tmp_path / name


def read(path):
    return read_image(path, image_size=SIZE, channels=1, resize="stretch")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp", "x.webp", "x.gif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, name, share, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = faults_saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        DataError, match=rf"The image .*{name} \({path.stat().st_size} bytes\) cannot be read"
    ):
        read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b"<html>404 Not Found</html>", "its content is none of PNG, JPEG, DICOM")],
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    path = tmp_path / "00000001_000.png"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"00000001_000\.png \({len(content)} bytes\) cannot be read: {reason}"
    ):
        read(path)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_zeros(width, height):
    """A PNG written without its pixels ever being in memory."""
    deflate = zlib.compressobj(9)
    pixels = b"".join(deflate.compress(bytes(width + 1)) for _ in range(height)) + deflate.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_claiming(width, height):
    """A JPEG whose header lies about its size."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def claiming(form, position, layout, kind="L"):
    """Return what makes an image whose header lies about its size."""

    def make(width, height):
        stream = io.BytesIO()
        Image.new(kind, (8, 8)).save(stream, form, lossless=True)
        data = bytearray(stream.getvalue())
        at = position(data) if callable(position) else position
        packed = layout(width, height) if callable(layout) else struct.pack(layout, width, height)
        data[at : at + len(packed)] = packed
        return bytes(data)

    return make


tiff_claiming = claiming(
    "TIFF",
    lambda data: data.index(b"\x00\x01\x04\x00\x01"),
    lambda width, height: struct.pack("<HHIIHHII", 256, 4, 1, width, 257, 4, 1, height),
)
webp_claiming = claiming("WEBP", 21, lambda w, h: struct.pack("<I", (w - 1) | (h - 1) << 14))


@pytest.mark.parametrize(
    "bomb",
    [png_of_zeros, jpeg_claiming, tiff_claiming, webp_claiming, claiming("BMP", 18, "<ii"),
     claiming("GIF", 6, "<HH")],
)  # fmt: skip
def test_a_decompression_bomb_is_rejected_unopened(tmp_path, bomb, monkeypatch):
    classes = (
        "PngImageFile",
        "JpegImageFile",
        "TiffImageFile",
        "WebPImageFile",
        "BmpImageFile",
        "GifImageFile",
    )
    for opened in (getattr(raster, name) for name in classes):
        monkeypatch.setattr(opened, "load", lambda _: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    side = 16_000
    path.write_bytes(bomb(side, side))
    assert path.stat().st_size < 500_000
    with pytest.raises(
        DataError, match=rf"bomb\.png .*{side} x {side} pixels are more than the {MAX_PIXELS:,} allowed"
    ):
        read(path)


def test_a_large_image_is_read_without_a_warning(tmp_path):
    assert Image.MAX_IMAGE_PIXELS < 100_000_000 < MAX_PIXELS
    path = tmp_path / "large.png"
    path.write_bytes(png_of_zeros(10_000, 10_000))
    assert read(path).pixels.max() == 0


def test_a_folder_and_a_pipe_are_no_images(tmp_path):
    folder, pipe = tmp_path / "folder.png", tmp_path / "pipe.png"
    folder.mkdir()
    os.mkfifo(pipe)
    for path, kind in ((folder, "a folder"), (pipe, "a device or a pipe")):
        with pytest.raises(DataError, match=rf"{path.name} cannot be read: it is {kind}, not a file"):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    for name in ("absent.png", "dangling.png"):
        with pytest.raises(MissingFileError, match=rf"There is no image .*{name}"):
            read(tmp_path / name)


def test_a_loop_of_links_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be read: Too many levels of symbolic links"):
        read(tmp_path / "a.png")


def test_a_forbidden_file_is_named(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = faults_saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read every file
    with pytest.raises(DataError, match=r"x\.png cannot be read: Permission denied"):
        read(path)


def test_names_may_hold_blanks_and_any_letter(tmp_path):
    path = faults_saved(tmp_path, Image.fromarray(GREY), "Röntgen bild № 1 胸.png")
    np.testing.assert_array_equal(read(path).pixels[0], GREY)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp", "x.webp", "x.gif"])
def test_damaged_bytes_never_escape_as_another_error(tmp_path, name, capfd):
    generator = np.random.default_rng(1)
    good = faults_saved(
        tmp_path, Image.fromarray(generator.integers(0, 256, (40, 40), dtype=np.uint8)), name
    ).read_bytes()
    path, refused = tmp_path / "damaged", 0
    for _ in range(300):
        data = bytearray(good)
        for position in generator.integers(0, min(len(good), generator.choice([60, len(good)])), 3):
            data[position] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            read(path)
        except DataError:
            refused += 1
    assert refused > 30
    assert capfd.readouterr() == ("", "")


def test_bytes_are_decoded_as_their_file_is_and_may_be_held_to_fewer_pixels(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png_of_zeros(300, 200))
    options = {"image_size": 32, "channels": 1, "resize": "pad"}
    decoded = read_image_bytes(path.read_bytes(), "upload.png", **options, max_pixels=60_000)
    assert (decoded.pixels == read_image(path, **options).pixels).all()
    with pytest.raises(DataError, match=r"upload\.png .*300 x 200 pixels are more than the 59,999 allowed"):
        read_image_bytes(path.read_bytes(), "upload.png", **options, max_pixels=59_999)
