"""Files that are no decode, or are damaged: each is refused by name, and none harms the process."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data import decode
from cxrlab.data.decode import MAX_PIXELS, read_image
from cxrlab.errors import DataError, MissingFileError

pytestmark = pytest.mark.usefixtures("decoder")

SIZE = 32
GREY = np.linspace(0, 255, SIZE * SIZE).astype(np.uint8).reshape(SIZE, SIZE)


def saved(tmp_path, image, name="x.png"):
    image.save(tmp_path / name)
    return tmp_path / name


def read(path):
    return read_image(path, image_size=SIZE, channels=1, resize="stretch")


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, name, share, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        DataError, match=rf"The image .*{name} \({path.stat().st_size} bytes\) cannot be read"
    ):
        read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b"<html>404 Not Found</html>", "its content is neither PNG, JPEG nor DICOM")],
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


@pytest.mark.parametrize("bomb", [png_of_zeros, jpeg_claiming])
def test_a_decompression_bomb_is_rejected_unopened(tmp_path, bomb, monkeypatch):
    for opened in (decode.PngImageFile, decode.JpegImageFile):
        monkeypatch.setattr(opened, "load", lambda _: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(20_000, 20_000))
    assert path.stat().st_size < 500_000
    with pytest.raises(
        DataError, match=rf"bomb\.png .*20000 x 20000 pixels are more than the {MAX_PIXELS:,} allowed"
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

    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read every file
    with pytest.raises(DataError, match=r"x\.png cannot be read: Permission denied"):
        read(path)


def test_names_may_hold_blanks_and_any_letter(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY), "Röntgen bild № 1 胸.png")
    np.testing.assert_array_equal(read(path).pixels[0], GREY)


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_damaged_bytes_never_escape_as_another_error(tmp_path, name, capfd):
    generator = np.random.default_rng(1)
    good = saved(
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
