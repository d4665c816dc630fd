"""DICOM files shown as a viewer shows them; those that are damaged, refused or doubted are told by name."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# pydicom imports GDCM, which warns on its first import, and where that warning is an error the process ends.
# Imported here first, with warnings ignored, it does neither.
pytest.importorskip("gdcm")

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from cxrlab.data import decode as images
from cxrlab.data.decode import read_image
from cxrlab.data.dicom import read_dicom
from cxrlab.errors import DataError, MissingPackageError

RNG = np.random.default_rng(0)
EIGHT = (np.arange(4096) // 16).astype(np.uint8).reshape(64, 64)
TWELVE = np.linspace(300, 3500, 4096).astype(np.uint16).reshape(64, 64)
SIGNED = np.linspace(-1500, 1200, 4096).astype(np.int16).reshape(64, 64)


def scaled(values):
    """The plain way to eight bits: values from 0 to 1, rounded half up."""
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def spread(values, low=None, high=None):
    values = np.asarray(values, dtype=float)
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return scaled((values - low) / (high - low))


SYNTAXES = {
    "implicit little endian": uid.ImplicitVRLittleEndian,
    "explicit little endian": uid.ExplicitVRLittleEndian,
    "explicit big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG lossless": uid.JPEGLossless,
    "JPEG lossless, first order": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG-LS, lossy": uid.JPEGLSNearLossless,
    "JPEG 2000, lossless": uid.JPEG2000Lossless,
    "JPEG 2000, lossy": uid.JPEG2000,
}


@pytest.mark.parametrize("pixels", [EIGHT, TWELVE, SIGNED], ids=["8 bits", "12 bits", "signed"])
@pytest.mark.parametrize("name", SYNTAXES)
def test_every_transfer_syntax(dicom, tmp_path, name, pixels):
    expected = pixels if pixels is EIGHT else spread(pixels)
    actual = dicom.shown(dicom.encoded(pixels, SYNTAXES[name], tmp_path)).astype(int)
    np.testing.assert_allclose(actual, expected, atol=2 if "lossy" in name else 0)


def baseline(dicom, image, photometric, samples):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling=0)
    data = dicom.dataset(np.zeros((64, 64) if samples == 1 else (64, 64, 3), np.uint8), uid.JPEGBaseline8Bit)
    data.PhotometricInterpretation = photometric
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    return dicom.written(data), np.asarray(Image.open(stream))


def test_jpeg_baseline(dicom):
    data, expected = baseline(dicom, Image.fromarray(EIGHT), "MONOCHROME2", 1)
    np.testing.assert_array_equal(dicom.shown(data), expected)


COLOUR = np.stack([EIGHT, 255 - EIGHT, np.full_like(EIGHT, 60)], axis=-1)


def test_colour_becomes_rgb(dicom):
    np.testing.assert_array_equal(dicom.shown(dicom.dataset(COLOUR)), COLOUR)
    ybr = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    np.testing.assert_allclose(
        dicom.shown(dicom.dataset(ybr, PhotometricInterpretation="YBR_FULL")).astype(int), COLOUR, atol=3
    )
    smooth = Image.new("RGB", (64, 64), (180, 90, 30))
    data, _ = baseline(dicom, smooth, "YBR_FULL_422", 3)
    np.testing.assert_allclose(dicom.shown(data).astype(int), np.asarray(smooth), atol=3)


def test_a_palette_is_looked_up(dicom):
    red, green, blue = (RNG.integers(0, 65536, 256, dtype=np.uint16) for _ in range(3))
    data = dicom.dataset(EIGHT, PhotometricInterpretation="PALETTE COLOR")
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", table.tobytes())
    expected = np.stack([red[EIGHT], green[EIGHT], blue[EIGHT]], axis=-1) >> 8
    np.testing.assert_array_equal(dicom.shown(data), expected)


@pytest.mark.parametrize("pixels", [TWELVE, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_after_the_rescale(dicom, pixels, function):
    extra = {} if function is None else {"VOILUTFunction": function}
    data = dicom.dataset(
        pixels, RescaleSlope=2, RescaleIntercept=-500, WindowCenter=[900, 1], WindowWidth=[1800, 1], **extra
    )
    values = pixels * 2.0 - 500
    expected = {
        "LINEAR": np.where(  # PS3.3 C.11.2.1.2.1, as its pseudo code has it
            values <= 900 - 0.5 - 1799 / 2,
            0,
            np.where(values > 900 - 0.5 + 1799 / 2, 1, (values - 899.5) / 1799 + 0.5),
        ),
        "LINEAR_EXACT": (values - 900) / 1800 + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (values - 900) / 1800)),
    }[function or "LINEAR"]
    np.testing.assert_array_equal(dicom.shown(data), scaled(expected))


def test_a_window_of_width_one_is_a_threshold(dicom):
    actual = dicom.shown(dicom.dataset(EIGHT, WindowCenter=100, WindowWidth=1))
    np.testing.assert_array_equal(actual, np.where(EIGHT > 99.5, 255, 0))


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowCenter": None}, {"WindowWidth": None}])
def test_an_invalid_window_is_none(dicom, window):
    data = dicom.dataset(TWELVE, **{"WindowCenter": 100, "WindowWidth": 50, **window})
    np.testing.assert_array_equal(dicom.shown(data), spread(TWELVE))


def test_an_unknown_window_function_is_named(dicom):
    with pytest.raises(ValueError, match="its VOI LUT function is CUBIC; LINEAR, LINEAR_EXACT and SIGMOID"):
        dicom.shown(dicom.dataset(EIGHT, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"))


def table_item(first, entries, bits):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def test_a_voi_table_goes_before_the_window(dicom):
    entries = np.sort(RNG.integers(0, 4096, 1000))
    data = dicom.dataset(
        TWELVE, WindowCenter=1, WindowWidth=1, VOILUTSequence=Sequence([table_item(500, entries, 12)])
    )
    expected = scaled(entries[np.clip(TWELVE.astype(int) - 500, 0, 999)] / 4095)
    np.testing.assert_array_equal(dicom.shown(data), expected)


def test_a_modality_table_goes_before_the_window(dicom):
    entries = np.sort(RNG.integers(0, 1000, 4096))[::-1]
    table = table_item(0, entries, 16)
    table.ModalityLUTType = "OD"
    data = dicom.dataset(TWELVE, ModalityLUTSequence=Sequence([table]), WindowCenter=500.5, WindowWidth=1001)
    np.testing.assert_array_equal(dicom.shown(data), scaled(entries[TWELVE] / 1000))


def test_without_a_window_the_values_fill_the_range(dicom):
    np.testing.assert_array_equal(dicom.shown(dicom.dataset(TWELVE)), spread(TWELVE))
    np.testing.assert_array_equal(dicom.shown(dicom.dataset(SIGNED)), spread(SIGNED))
    falling = dicom.dataset(TWELVE, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(dicom.shown(falling), spread(4095.0 - TWELVE))
    assert not dicom.shown(dicom.dataset(np.full((4, 4), 77, np.uint16))).any()


def test_eight_bits_without_a_window_stay(dicom):
    dim = EIGHT // 3 + 20
    np.testing.assert_array_equal(dicom.shown(dicom.dataset(dim)), dim)
    np.testing.assert_array_equal(dicom.shown(dicom.dataset(dim, RescaleSlope=2, RescaleIntercept=-7)), dim)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1900, "WindowWidth": 3000}])
def test_monochrome1_is_inverted_after_the_window(dicom, window):
    plain = dicom.shown(dicom.dataset(TWELVE, **window))
    inverted = dicom.shown(dicom.dataset(TWELVE, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted, 255 - plain)


def drawn(noise, seed=3):
    """A picture of 96 x 80 pixels from 0 to 1: two dark lungs, a bright spine, and the detector's noise."""
    y, x = np.mgrid[:96, :80] / 80
    lungs = sum(
        np.exp(-((((x - centre) / 0.17) ** 2 + ((y - 0.6) / 0.4) ** 2) ** 2)) for centre in (0.25, 0.75)
    )
    picture = 0.75 - 0.5 * lungs + 0.2 * np.exp(-(((x - 0.5) / 0.05) ** 2)) - 0.2 * y
    picture += np.random.default_rng(seed).normal(0, noise, picture.shape)
    return (picture - picture.min()) / np.ptp(picture)


def likeness(pixels, picture):
    return float(np.corrcoef(pixels.ravel(), picture.ravel())[0, 1])


def warning_of(data):
    return read_dicom(data if isinstance(data, bytes) else io_bytes(data), max_pixels=10**6).warning


def io_bytes(data):
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


LOSSLESS = [
    "explicit little endian",
    "explicit big endian",
    "RLE",
    "JPEG-LS",
    "JPEG 2000, lossless",
    "JPEG lossless",
]


def file_of(dicom, tmp_path, words, name, **header):
    """The bytes of a file that stores words of 16 bits, whose header is then changed."""
    words = words.astype(np.uint16)
    syntax = SYNTAXES[name]
    if not syntax.is_compressed:
        return dicom.written(dicom.dataset(words, syntax, bits=16, **header))
    data = pydicom.dcmread(io.BytesIO(dicom.encoded(words, syntax, tmp_path, bits=16)))
    data.update({key: value for key, value in header.items()})
    for key, value in header.items():
        setattr(data, key, value)
    return dicom.written(data)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize(("bits", "high", "noise"), [(12, 15, 0.06), (10, 11, 0.0)])
@pytest.mark.parametrize("signed", [False, True])
def test_samples_that_do_not_lie_at_the_lowest_bits(dicom, tmp_path, name, bits, high, noise, signed):
    picture = drawn(noise)
    values = np.rint(picture * (2**bits - 1)).astype(int) - signed * 2 ** (bits - 1)
    words = (values & (2**bits - 1)) << (high + 1 - bits)
    data = file_of(
        dicom, tmp_path, words, name, BitsStored=bits, HighBit=high, PixelRepresentation=int(signed)
    )
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert warning_of(data) == ""


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize(("bits", "told", "noise"), [(12, 8, 0.06), (12, 11, 0.0), (16, 12, 0.02)])
@pytest.mark.parametrize("signed", [False, True])
def test_values_of_more_bits_than_the_header_says(dicom, tmp_path, name, bits, told, noise, signed):
    values = np.rint(drawn(noise) * (2**bits - 1)).astype(int) - signed * 2 ** (bits - 1)
    data = file_of(
        dicom,
        tmp_path,
        values & 0xFFFF,
        name,
        BitsStored=told,
        HighBit=told - 1,
        PixelRepresentation=int(signed),
    )
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert "BitsStored (0028,0101)" in warning_of(data)


@pytest.mark.parametrize("signed", [False, True])
def test_a_picture_whose_told_bits_are_all_empty_is_read_whole(dicom, tmp_path, signed):
    values = np.rint(drawn(0.0) * 255).astype(int) << 7
    told = {"BitsStored": 7, "HighBit": 6, "PixelRepresentation": int(signed)}
    data = file_of(dicom, tmp_path, values, "explicit little endian", **told)
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert "BitsStored (0028,0101)" in warning_of(data)


def stripes(picture):
    """Letters of an overlay."""
    mask = np.zeros(picture.shape, dtype=bool)
    mask[20:70:7, 10:60] = mask[20:70, 10:60:9] = True
    return mask


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize(("bit", "noise"), [(12, 0.06), (15, 0.0)])
@pytest.mark.parametrize("overlay", [stripes, lambda picture: picture > 0.6], ids=["letters", "lungs"])
@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_above_the_values_is_left_out(dicom, tmp_path, name, bit, overlay, noise, signed):
    picture = drawn(noise)
    values = np.rint(picture * 4095).astype(int) - signed * 2048
    words = (values & 0xFFF) | (overlay(picture).astype(int) << bit)
    data = file_of(dicom, tmp_path, words, name, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert "no overlay is declared" in warning_of(data)


def test_a_declared_overlay_is_no_warning(dicom):
    picture = drawn(0.02)
    values = np.rint(picture * 4095).astype(np.uint16)
    data = dicom.dataset(values | (stripes(picture).astype(np.uint16) << 12))
    for element, kind, value in (
        (0x0010, "US", 96), (0x0011, "US", 80), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 16), (0x0102, "US", 12),
    ):  # fmt: skip
        data.add_new((0x6000, element), kind, value)
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert warning_of(data) == ""


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_signed_values_with_and_without_extension(dicom, extended, signed):
    values = np.rint(drawn(0.03) * 4095).astype(int) - signed * 2048
    data = dicom.dataset((values & (0xFFFF if extended else 0xFFF)).astype(np.uint16), bits=12)
    data.PixelRepresentation = int(signed)
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert warning_of(data) == ""


@pytest.mark.parametrize("told", [(12, 7), (16, 11), (12, 0)])
def test_a_high_bit_below_the_stored_ones(dicom, told):
    values = np.rint(drawn(0.03) * 4095).astype(np.uint16)
    data = dicom.dataset(values, BitsStored=told[0], HighBit=told[1])
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert "HighBit (0028,0102)" in warning_of(data)


def test_a_high_bit_below_an_overlay(dicom):
    values = np.rint(drawn(0.03) * 4095).astype(np.uint16)
    with_overlay = dicom.dataset(
        values | (stripes(values).astype(np.uint16) << 14), BitsStored=16, HighBit=11
    )
    np.testing.assert_array_equal(dicom.shown(with_overlay), spread(values))
    assert "HighBit (0028,0102)" in warning_of(with_overlay)


@pytest.mark.parametrize(("bits", "high"), [(12, 16), (17, 15), (0, 0), (12, 99)])
def test_impossible_bits_are_refused(dicom, bits, high):
    data = dicom.dataset(TWELVE, BitsStored=bits, HighBit=high)
    with pytest.raises(ValueError, match=r"BitsStored \(0028,0101\) is .* and HighBit \(0028,0102\)"):
        dicom.shown(data)


@pytest.mark.parametrize("tag", ["BitsStored", "PixelRepresentation", "PhotometricInterpretation"])
def test_a_missing_tag_is_named(dicom, tag):
    data = dicom.dataset(TWELVE)
    delattr(data, tag)
    with pytest.raises(ValueError, match=rf"its header lacks {tag} \(0028,0"):
        dicom.shown(data)


@pytest.mark.parametrize("header", [0, 1])
def test_a_codestream_of_another_sign_than_the_header(dicom, header):
    values = np.rint(drawn(0.03) * 4095).astype(int) - 2048 * (1 - header)
    data = dicom.dataset(values.astype(np.int16 if header == 0 else np.uint16))
    data.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    data.PixelRepresentation = header
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert ("PixelRepresentation" if header == 0 else "BitsStored") in warning_of(data)


def test_signed_values_in_an_unsigned_codestream_are_as_the_header_says(dicom):
    values = np.rint(drawn(0.03) * 4095).astype(int) - 2048
    data = dicom.dataset((values & 0xFFF).astype(np.uint16))
    data.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    data.PixelRepresentation = 1
    np.testing.assert_array_equal(dicom.shown(data), spread(values))
    assert warning_of(data) == ""


@pytest.mark.parametrize("stored", [10, 12, 14])
def test_a_voi_table_is_scaled_by_the_bits_that_it_has(dicom, stored):
    entries = np.arange(4096) * (2**stored - 1) // 4095
    data = dicom.dataset(TWELVE, VOILUTSequence=Sequence([table_item(0, entries, 16)]))
    np.testing.assert_allclose(dicom.shown(data).astype(int), scaled(TWELVE / 4095).astype(int), atol=1)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "INVERSE"),
                                                    ("MONOCHROME1", "IDENTITY")])  # fmt: skip
def test_an_inverse_shape_inverts_once(dicom, photometric, shape):
    data = dicom.dataset(TWELVE, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    np.testing.assert_array_equal(dicom.shown(data), 255 - spread(TWELVE))
    is_contradiction = (photometric, shape) != ("MONOCHROME1", "INVERSE")
    assert ("PresentationLUTShape (2050,0020)" in warning_of(data)) == is_contradiction
    plain = dicom.dataset(TWELVE, PresentationLUTShape="IDENTITY")
    np.testing.assert_array_equal(dicom.shown(plain), spread(TWELVE))


@pytest.mark.parametrize("border", [65535, 60000])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_border_without_a_padding_tag_takes_no_grey_levels(dicom, border, photometric):
    values = np.rint(drawn(0.03) * 4095).astype(np.uint16)
    framed = values.copy()
    framed[:6] = border
    framed[:, -5:] = 0
    data = dicom.dataset(framed, bits=16, PhotometricInterpretation=photometric)
    shown = dicom.shown(data)[6:, :-5]
    expected = spread(values[6:, :-5], 0, framed[6:].max())
    np.testing.assert_array_equal(shown, 255 - expected if photometric == "MONOCHROME1" else expected)


def test_a_window_beside_the_values_is_left_out(dicom):
    data = dicom.dataset(TWELVE, WindowCenter=40, WindowWidth=80)
    np.testing.assert_array_equal(dicom.shown(data), spread(TWELVE))
    assert "WindowCenter (0028,1050)" in warning_of(data)


@pytest.mark.parametrize(("value", "limit"), [(63536, None), (63536, 63600)])
def test_padding_may_be_written_with_the_other_sign(dicom, value, limit):
    padded = SIGNED.copy()
    padded[:4] = -2000
    data = dicom.dataset(padded, bits=16)
    data.add_new("PixelPaddingValue", "US", value)
    if limit is not None:
        data.add_new("PixelPaddingRangeLimit", "US", limit)
    expected = np.vstack([np.zeros((4, 64)), spread(SIGNED[4:])])
    np.testing.assert_array_equal(dicom.shown(data), expected)


def test_padding_beyond_the_stored_bits_is_padding(dicom):
    padded = TWELVE.copy()
    padded[:4] = 65535
    data = dicom.dataset(padded, PixelPaddingValue=65535)
    np.testing.assert_array_equal(dicom.shown(data), np.vstack([np.zeros((4, 64)), spread(TWELVE[4:])]))
    data = dicom.dataset(padded, PixelPaddingValue=4095, PixelPaddingRangeLimit=65535)
    np.testing.assert_array_equal(dicom.shown(data), np.vstack([np.zeros((4, 64)), spread(TWELVE[4:])]))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("value", "limit"), [(-2000, None), (-2000, -1900), (-1900, -2000)])
def test_padding_is_black_and_out_of_the_range(dicom, photometric, value, limit):
    padded = SIGNED.copy()
    padded[:4] = value
    data = dicom.dataset(padded, PhotometricInterpretation=photometric, PixelPaddingValue=value)
    if limit is not None:
        data.PixelPaddingRangeLimit = limit
        padded[0] = limit
        data.PixelData = padded.tobytes()
    rest = spread(SIGNED[4:])
    expected = np.vstack([np.zeros((4, 64)), 255 - rest if photometric == "MONOCHROME1" else rest])
    np.testing.assert_array_equal(dicom.shown(data), expected)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_files_without_preamble_or_meta(dicom, tmp_path, syntax, meta):
    data = dicom.dataset(SIGNED, syntax)
    if not meta:
        data.file_meta = FileMetaDataset()
    stream = io.BytesIO()
    pydicom.dcmwrite(
        stream,
        data,
        enforce_file_format=False,
        **({} if meta else {"implicit_vr": syntax.is_implicit_VR, "little_endian": True}),
    )
    assert stream.getvalue()[128:132] != b"DICM"
    path = tmp_path / "x.dcm"
    path.write_bytes(stream.getvalue())
    image = read_image(path, image_size=64, channels=1, resize="stretch")
    np.testing.assert_array_equal(image.pixels[0], spread(SIGNED))


def test_a_big_endian_file_without_meta(dicom):
    data = dicom.dataset(TWELVE, uid.ExplicitVRBigEndian)
    data.file_meta = FileMetaDataset()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=False, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(dicom.shown(stream.getvalue()), spread(TWELVE))


def test_a_dicom_goes_the_way_of_every_image(dicom, tmp_path):
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = 200
    path = tmp_path / "x.dcm"
    path.write_bytes(
        dicom.written(dicom.dataset(wide, PhotometricInterpretation="MONOCHROME1", Modality="CT"))
    )
    image = read_image(path, image_size=16, channels=3, resize="crop")
    assert (image.width, image.height, image.mode) == (32, 16, "MONOCHROME1")
    assert "modality CT" in image.warning
    np.testing.assert_array_equal(image.pixels, np.full((3, 16, 16), 55))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("udacity_1.dcm", ""),
        ("rsna_cr_jpeg_baseline.dcm", ""),
        ("udacity_5_not_chest.dcm", "The DICOM header describes no chest radiograph: modality CT."),
    ],
)
def test_real_files(real_data: Path, name, warning):
    image = read_image(real_data / "dicom" / name, image_size=1024, channels=1, resize="stretch")
    assert (image.width, image.height, image.mode, image.warning) == (1024, 1024, "MONOCHROME2", warning)
    np.testing.assert_array_equal(image.pixels[0], pydicom.dcmread(real_data / "dicom" / name).pixel_array)


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
    with pytest.raises(
        MissingPackageError, match=r"x\.dcm .*cannot be read: .*pip install 'cxrlab\[dicom\]'"
    ):
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
