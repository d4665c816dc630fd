# ruff: noqa: E402 - pydicom imports GDCM, and that must come first, with warnings ignored
import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Its wrapper warns while it is imported; where that warning is an error the process ends. This ignores it.
gdcm = pytest.importorskip("gdcm")

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from cxrlab.data import images
from cxrlab.data.dicom import read_dicom
from cxrlab.data.images import read_image
from cxrlab.errors import DataError

RNG = np.random.default_rng(0)
EIGHT = (np.arange(4096) // 16).astype(np.uint8).reshape(64, 64)
TWELVE = np.linspace(300, 3500, 4096).astype(np.uint16).reshape(64, 64)
SIGNED = np.linspace(-1500, 1200, 4096).astype(np.int16).reshape(64, 64)


def dataset(pixels, syntax=uid.ExplicitVRLittleEndian, bits=None, **attributes):
    """A radiograph of the least that a viewer needs."""
    allocated = 8 * pixels.dtype.itemsize
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = syntax
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID = "1.2.3"
    result.Modality, result.BodyPartExamined = "DX", "CHEST"
    result.Rows, result.Columns = pixels.shape[:2]
    result.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    result.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        result.PlanarConfiguration = 0
    result.BitsAllocated, result.BitsStored = allocated, bits or (8 if allocated == 8 else 12)
    result.HighBit = result.BitsStored - 1
    result.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    result.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    result["PixelData"].VR = "OW" if allocated == 16 else "OB"
    for name, value in attributes.items():
        setattr(result, name, value)
    return result


def written(data, **options):
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=options.pop("enforce_file_format", True), **options)
    return stream.getvalue()


def shown(data):
    return read_dicom(data if isinstance(data, bytes) else written(data), max_pixels=10**6).pixels


def scaled(values):
    """The plain way to eight bits: values from 0 to 1, rounded half up."""
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def spread(values, low=None, high=None):
    values = np.asarray(values, dtype=float)
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return scaled((values - low) / (high - low))


def lossless_jpeg(pixels, syntax, kind, tmp_path):
    source, target = tmp_path / "plain.dcm", tmp_path / "lossless.dcm"
    source.write_bytes(written(dataset(pixels)))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID == syntax
    return target.read_bytes()


def encoded(pixels, syntax, tmp_path):
    """The same radiograph in another transfer syntax."""
    if syntax in {uid.JPEGLossless, uid.JPEGLosslessSV1}:
        kinds = {
            uid.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
            uid.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        }
        return lossless_jpeg(pixels, syntax, kinds[syntax], tmp_path)
    if not syntax.is_compressed or syntax == uid.DeflatedExplicitVRLittleEndian:
        return written(dataset(pixels, syntax))
    data = dataset(pixels)
    options = {uid.JPEG2000: {"j2k_psnr": [70]}, uid.JPEGLSNearLossless: {"jls_error": 2}}.get(syntax, {})
    plugin = {uid.RLELossless: "pydicom", uid.JPEGLSLossless: "pyjpegls", uid.JPEGLSNearLossless: "pyjpegls"}
    data.compress(syntax, encoding_plugin=plugin.get(syntax, "pylibjpeg"), **options)
    return written(data)


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
def test_every_transfer_syntax(tmp_path, name, pixels):
    expected = pixels if pixels is EIGHT else spread(pixels)
    actual = shown(encoded(pixels, SYNTAXES[name], tmp_path)).astype(int)
    np.testing.assert_allclose(actual, expected, atol=2 if "lossy" in name else 0)


def baseline(image, photometric, samples):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling=0)
    data = dataset(np.zeros((64, 64) if samples == 1 else (64, 64, 3), np.uint8), uid.JPEGBaseline8Bit)
    data.PhotometricInterpretation = photometric
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    return written(data), np.asarray(Image.open(stream))


def test_jpeg_baseline():
    data, expected = baseline(Image.fromarray(EIGHT), "MONOCHROME2", 1)
    np.testing.assert_array_equal(shown(data), expected)


COLOUR = np.stack([EIGHT, 255 - EIGHT, np.full_like(EIGHT, 60)], axis=-1)


def test_colour_becomes_rgb():
    np.testing.assert_array_equal(shown(dataset(COLOUR)), COLOUR)
    ybr = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    np.testing.assert_allclose(
        shown(dataset(ybr, PhotometricInterpretation="YBR_FULL")).astype(int), COLOUR, atol=3
    )
    smooth = Image.new("RGB", (64, 64), (180, 90, 30))
    data, _ = baseline(smooth, "YBR_FULL_422", 3)
    np.testing.assert_allclose(shown(data).astype(int), np.asarray(smooth), atol=3)


def test_a_palette_is_looked_up():
    red, green, blue = (RNG.integers(0, 65536, 256, dtype=np.uint16) for _ in range(3))
    data = dataset(EIGHT, PhotometricInterpretation="PALETTE COLOR")
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", table.tobytes())
    expected = np.stack([red[EIGHT], green[EIGHT], blue[EIGHT]], axis=-1) >> 8
    np.testing.assert_array_equal(shown(data), expected)


@pytest.mark.parametrize("pixels", [TWELVE, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_after_the_rescale(pixels, function):
    extra = {} if function is None else {"VOILUTFunction": function}
    data = dataset(
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
    np.testing.assert_array_equal(shown(data), scaled(expected))


def test_a_window_of_width_one_is_a_threshold():
    actual = shown(dataset(EIGHT, WindowCenter=100, WindowWidth=1))
    np.testing.assert_array_equal(actual, np.where(EIGHT > 99.5, 255, 0))


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowCenter": None}, {"WindowWidth": None}])
def test_an_invalid_window_is_none(window):
    data = dataset(TWELVE, **{"WindowCenter": 100, "WindowWidth": 50, **window})
    np.testing.assert_array_equal(shown(data), spread(TWELVE))


def test_an_unknown_window_function_is_named():
    with pytest.raises(ValueError, match="its VOI LUT function is CUBIC; LINEAR, LINEAR_EXACT and SIGMOID"):
        shown(dataset(EIGHT, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"))


def table_item(first, entries, bits):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def test_a_voi_table_goes_before_the_window():
    entries = np.sort(RNG.integers(0, 4096, 1000))
    data = dataset(
        TWELVE, WindowCenter=1, WindowWidth=1, VOILUTSequence=Sequence([table_item(500, entries, 12)])
    )
    expected = scaled(entries[np.clip(TWELVE.astype(int) - 500, 0, 999)] / 4095)
    np.testing.assert_array_equal(shown(data), expected)


def test_a_modality_table_goes_before_the_window():
    entries = np.sort(RNG.integers(0, 1000, 4096))[::-1]
    table = table_item(0, entries, 16)
    table.ModalityLUTType = "OD"
    data = dataset(TWELVE, ModalityLUTSequence=Sequence([table]), WindowCenter=500.5, WindowWidth=1001)
    np.testing.assert_array_equal(shown(data), scaled(entries[TWELVE] / 1000))


def test_without_a_window_the_values_fill_the_range():
    np.testing.assert_array_equal(shown(dataset(TWELVE)), spread(TWELVE))
    np.testing.assert_array_equal(shown(dataset(SIGNED)), spread(SIGNED))
    falling = dataset(TWELVE, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(shown(falling), spread(4095.0 - TWELVE))
    assert not shown(dataset(np.full((4, 4), 77, np.uint16))).any()


def test_eight_bits_without_a_window_stay():
    dim = EIGHT // 3 + 20
    np.testing.assert_array_equal(shown(dataset(dim)), dim)
    np.testing.assert_array_equal(shown(dataset(dim, RescaleSlope=2, RescaleIntercept=-7)), dim)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1900, "WindowWidth": 3000}])
def test_monochrome1_is_inverted_after_the_window(window):
    plain = shown(dataset(TWELVE, **window))
    inverted = shown(dataset(TWELVE, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("value", "limit"), [(-2000, None), (-2000, -1900), (-1900, -2000)])
def test_padding_is_black_and_out_of_the_range(photometric, value, limit):
    padded = SIGNED.copy()
    padded[:4] = value
    data = dataset(padded, PhotometricInterpretation=photometric, PixelPaddingValue=value)
    if limit is not None:
        data.PixelPaddingRangeLimit = limit
        padded[0] = limit
        data.PixelData = padded.tobytes()
    rest = spread(SIGNED[4:])
    expected = np.vstack([np.zeros((4, 64)), 255 - rest if photometric == "MONOCHROME1" else rest])
    np.testing.assert_array_equal(shown(data), expected)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_files_without_preamble_or_meta(tmp_path, syntax, meta):
    data = dataset(SIGNED, syntax)
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


def test_a_big_endian_file_without_meta():
    data = dataset(TWELVE, uid.ExplicitVRBigEndian)
    data.file_meta = FileMetaDataset()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=False, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(shown(stream.getvalue()), spread(TWELVE))


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
def test_a_header_of_something_else_is_a_warning(attributes, warning):
    expected = f"The DICOM header describes no chest radiograph: {warning}." if warning else ""
    assert read_dicom(written(dataset(EIGHT, **attributes)), max_pixels=10**6).warning == expected


def without_pixels():
    data = dataset(EIGHT)
    del data.PixelData
    return data


def compressed():
    data = dataset(RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    data.compress(uid.RLELossless, encoding_plugin="pydicom")
    return written(data)


def compressed_without_meta():
    return compressed()[compressed().index(b"\x08\x00\x16\x00") :]


def wrong_precision(tmp_path):
    data = bytearray(encoded(TWELVE, uid.JPEGLossless, tmp_path))
    data[data.index(b"\xff\xc3") + 4] = 28
    return bytes(data)


def test_a_lossless_jpeg_that_contradicts_its_header_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"rows, columns, samples \[64, 64, 1\] of 28 bits, and its header says"
    ):
        shown(wrong_precision(tmp_path))


FAULTS = {
    "truncated in the pixels": (written(dataset(EIGHT))[:-50], "pixel data is less than expected"),
    "truncated in a fragment": (compressed()[:-3000], "the DICOM file is truncated"),
    "truncated in a header": (written(dataset(EIGHT))[:301], "(pydicom cannot decode it: |no pixel data)"),
    "truncated while deflated": (
        written(dataset(EIGHT, uid.DeflatedExplicitVRLittleEndian))[:-40],
        "pydicom cannot decode it: .*incomplete",
    ),
    "truncated before the pixels": (written(dataset(EIGHT))[:-4200], "no pixel data, or ends before it"),
    "no pixels": (written(without_pixels()), "the DICOM file has no pixel data"),
    "frames": (
        written(dataset(np.zeros((8, 4, 4), np.uint8), NumberOfFrames=8)),
        "has 8 frames, and a radio",
    ),
    "too few bytes": (written(dataset(EIGHT, Rows=65)), "less than expected"),
    "bomb": (written(dataset(EIGHT, Rows=20_000, Columns=20_000)), "20000 x 20000 pixels are more than the"),
    "32 bits": (
        written(dataset(EIGHT.astype(np.uint32))),
        "it allocates 32 bits a pixel; 8 and 16 can be read",
    ),
    "no syntax": (compressed_without_meta(), "the transfer syntax that says how is missing"),
    "no rows": (written(dataset(EIGHT, Rows=None)), "says 0 rows and 64 columns"),
    "header alone": (bytes(128) + b"DICM", "has no pixel data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_named(tmp_path, fault, capfd, caplog):
    content, reason = FAULTS[fault]
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.dcm \({len(content)} bytes\) cannot be read: .*{reason}"):
        read_image(path, image_size=8, channels=1, resize="stretch")
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


@pytest.mark.parametrize("name", ["RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000, lossless"])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_truncated_compressed_pixels_are_an_error(tmp_path, name, share, capfd):
    noise = RNG.integers(0, 4096, (64, 64), dtype=np.uint16)
    whole = encoded(noise, SYNTAXES[name], tmp_path)
    with pytest.raises(ValueError, match=r"\w"):
        shown(whole[: int(share * len(whole))])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name", ["explicit little endian", "deflated", "RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000, lossless"]
)
def test_damaged_bytes_never_escape_as_another_error(tmp_path, name, capfd, caplog):
    generator, path, refused = np.random.default_rng(2), tmp_path / "damaged.dcm", 0
    good = encoded(TWELVE, SYNTAXES[name], tmp_path)
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
    if name != "JPEG lossless":  # GDCM's own decoder writes of damage to the terminal by itself
        assert output == ("", "")
    assert caplog.records == []


def test_the_remarks_of_pydicom_are_dropped_and_its_logger_left(caplog):
    data = dataset(EIGHT)
    data.PixelData += bytes(100)
    content = written(data)
    with pytest.warns(UserWarning, match="excess padding"):
        assert pydicom.dcmread(io.BytesIO(content)).pixel_array.shape == (64, 64)
    caplog.clear()
    level = logging.getLogger("pydicom").level
    np.testing.assert_array_equal(shown(content), EIGHT)
    assert caplog.records == []
    assert logging.getLogger("pydicom").level == level


def test_without_pydicom_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "x.dcm"
    path.write_bytes(written(dataset(EIGHT)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"x\.dcm .*cannot be read: .*pip install 'cxrlab\[dicom\]'"):
        read_image(path, image_size=8, channels=1, resize="stretch")


def test_a_dicom_goes_the_way_of_every_image(tmp_path):
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = 200
    path = tmp_path / "x.dcm"
    path.write_bytes(written(dataset(wide, PhotometricInterpretation="MONOCHROME1", Modality="CT")))
    image = read_image(path, image_size=16, channels=3, resize="crop")
    assert (image.width, image.height, image.mode) == (32, 16, "MONOCHROME1")
    assert "modality CT" in image.warning
    np.testing.assert_array_equal(image.pixels, np.full((3, 16, 16), 55))


def test_the_first_file_leaves_no_warning():
    code = (
        "import sys; from pathlib import Path; from cxrlab.data.images import read_image;"
        "read_image(Path(sys.argv[1]), image_size=8, channels=1, resize='pad')"
    )
    source = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, source], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


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


def test_the_limit_is_that_of_every_image():
    assert images.MAX_PIXELS == 134_217_728
