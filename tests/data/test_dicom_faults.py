"""DICOM files that are damaged, refused or doubted: told by name, and nothing else is said."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# pydicom imports GDCM, which warns on its first import, and where that warning is an error the process ends.
# Imported here first, with warnings ignored, it does neither.
pytest.importorskip("gdcm")

import pydicom
from pydicom import uid

from cxrlab.data import decode as images
from cxrlab.data.decode import read_image
from cxrlab.data.dicom import read_dicom
from cxrlab.errors import DataError

RNG = np.random.default_rng(0)
EIGHT = (np.arange(4096) // 16).astype(np.uint8).reshape(64, 64)
TWELVE = np.linspace(300, 3500, 4096).astype(np.uint16).reshape(64, 64)


@pytest.mark.parametrize(
    ("attributes", "warning"),
    [
        ({}, ""),
        ({"Modality": "CR", "BodyPartExamined": "PORT CHEST"}, ""),
        ({"Modality": "", "BodyPartExamined": ""}, ""),
        ({"Modality": "OT", "BodyPartExamined": "THORAX"}, ""),
        ({"Modality": "CT"}, "modality CT"),
        ({"Modality": "MG", "BodyPartExamined": "BREAST"}, "modality MG, body part BREAST"),
        ({"BodyPartExamined": "HAND"}, "body part HAND"),
    ],
)
def test_a_header_of_something_else_is_a_warning(dicom, attributes, warning):
    expected = f"The DICOM header describes no chest radiograph: {warning}." if warning else ""
    assert read_dicom(dicom.written(dicom.dataset(EIGHT, **attributes)), max_pixels=10**6).warning == expected


def without_pixels(dicom):
    data = dicom.dataset(EIGHT)
    del data.PixelData
    return dicom.written(data)


def compressed(dicom):
    data = dicom.dataset(RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    data.compress(uid.RLELossless, encoding_plugin="pydicom")
    return dicom.written(data)


def compressed_without_meta(dicom):
    data = compressed(dicom)
    return data[data.index(b"\x08\x00\x16\x00") :]


def plain(pixels=EIGHT, syntax=None, *, end=None, **attributes):
    """A file that claims what the attributes say, cut off at a byte."""
    return lambda dicom: dicom.written(dicom.dataset(pixels, syntax, **attributes))[:end]


FAULTS = {
    "truncated in the pixels": (plain(end=-50), "pixel data is less than expected"),
    "truncated in a fragment": (lambda dicom: compressed(dicom)[:-3000], "the DICOM file is truncated"),
    "truncated in a header": (plain(end=301), "(pydicom cannot decode it: |no pixel data)"),
    "truncated while deflated": (
        plain(syntax=uid.DeflatedExplicitVRLittleEndian, end=-40),
        "pydicom cannot decode it: .*incomplete",
    ),
    "truncated before the pixels": (plain(end=-4200), "no pixel data, or ends before it"),
    "no pixels": (without_pixels, "the DICOM file has no pixel data"),
    "frames": (plain(np.zeros((8, 4, 4), np.uint8), NumberOfFrames=8), "has 8 frames, and a radio"),
    "too few bytes": (plain(Rows=65), "less than expected"),
    "bomb": (plain(Rows=20_000, Columns=20_000), "20000 x 20000 pixels are more than the"),
    "32 bits": (plain(EIGHT.astype(np.uint32)), "it allocates 32 bits a pixel; 8 and 16 can be read"),
    "no syntax": (compressed_without_meta, "the transfer syntax that says how is missing"),
    "no rows": (plain(Rows=None), "says 0 rows and 64 columns"),
    "header alone": (lambda _: bytes(128) + b"DICM", "has no pixel data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_named(dicom, tmp_path, fault, capfd, caplog):
    make, reason = FAULTS[fault]
    content = make(dicom)
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.dcm \({len(content)} bytes\) cannot be read: .*{reason}"):
        read_image(path, image_size=8, channels=1, resize="stretch")
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_a_lossless_jpeg_that_contradicts_its_header_is_rejected(dicom, tmp_path):
    data = bytearray(dicom.encoded(TWELVE, uid.JPEGLossless, tmp_path))
    data[data.index(b"\xff\xc3") + 4] = 28
    with pytest.raises(
        ValueError, match=r"rows, columns, samples \[64, 64, 1\] of 28 bits, and its header says"
    ):
        dicom.shown(bytes(data))


COMPRESSED = (uid.RLELossless, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_truncated_compressed_pixels_are_an_error(dicom, tmp_path, syntax, share, capfd):
    noise = RNG.integers(0, 4096, (64, 64), dtype=np.uint16)
    whole = dicom.encoded(noise, syntax, tmp_path)
    with pytest.raises(ValueError, match=r"\w"):
        dicom.shown(whole[: int(share * len(whole))])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, *COMPRESSED],
    ids=lambda syntax: syntax.keyword,
)
def test_damaged_bytes_never_escape_as_another_error(dicom, tmp_path, syntax, capfd, caplog):
    generator, path, refused = np.random.default_rng(2), tmp_path / "damaged.dcm", 0
    good = dicom.encoded(TWELVE, syntax, tmp_path)
    for _ in range(60):
        data = bytearray(good)
        for position in generator.integers(132, min(len(good), 1200), 3):
            data[position] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            read_image(path, image_size=8, channels=1, resize="stretch")
        except DataError:
            refused += 1
    assert refused > 5
    output = capfd.readouterr()
    if syntax != uid.JPEGLossless:  # GDCM's own decoder writes of damage to the terminal by itself
        assert output == ("", "")
    assert caplog.records == []


def test_the_remarks_of_pydicom_are_dropped_and_its_logger_left(dicom, caplog):
    data = dicom.dataset(EIGHT)
    data.PixelData += bytes(100)
    content = dicom.written(data)
    with pytest.warns(UserWarning, match="excess padding"):
        assert pydicom.dcmread(io.BytesIO(content)).pixel_array.shape == (64, 64)
    caplog.clear()
    level = logging.getLogger("pydicom").level
    np.testing.assert_array_equal(dicom.shown(content), EIGHT)
    assert caplog.records == []
    assert logging.getLogger("pydicom").level == level


def test_without_pydicom_the_message_says_what_to_install(dicom, tmp_path, monkeypatch):
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom.written(dicom.dataset(EIGHT)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"x\.dcm .*cannot be read: .*pip install 'cxrlab\[dicom\]'"):
        read_image(path, image_size=8, channels=1, resize="stretch")


def test_the_first_file_leaves_no_warning():
    code = (
        "import sys; from pathlib import Path; from cxrlab.data.decode import read_image;"
        "read_image(Path(sys.argv[1]), image_size=8, channels=1, resize='pad')"
    )
    source = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, source], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_limit_is_that_of_every_image():
    assert images.MAX_PIXELS == 134_217_728
