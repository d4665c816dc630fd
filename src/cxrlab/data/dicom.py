"""A DICOM radiograph -> the grey values that a viewer would show, as eight bits."""

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.errors import MissingPackageError

if TYPE_CHECKING:
    from pydicom import Dataset

# Other, and none at all, are what converted radiographs often say: they prove nothing.
RADIOGRAPH_MODALITIES = ("CR", "DX", "DR", "RG", "OT", "")
CHEST_WORDS = ("CHEST", "THORA", "TORAX", "LUNG", "RIB")
_LOGGERS = ("pydicom", "pylibjpeg", "pylibjpeg-openjpeg")
# By transfer syntax. On damaged bytes pydicom's own first choices, GDCM and a RLE decoder in Rust, can end
# the process; GDCM is left with lossless JPEG, which nothing else under a permissive licence decodes.
_DECODERS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG, baseline
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG, extended; 8 bits only
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG, lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG, lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS, lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS, near lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
}
# The first data element of a file without preamble: its group, the last element that is met there, the value
# representations of those (PS3.6, groups 0002 and 0008), and how long one of them may be.
_FIRST_GROUPS: dict[bytes, Literal["little", "big"]] = {
    b"\x02\x00": "little", b"\x08\x00": "little", b"\x00\x02": "big", b"\x00\x08": "big",
}  # fmt: skip
_LAST_FIRST_ELEMENT = 0x0070
_FIRST_VRS = {b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO", b"DT", b"LT"}
_LONGEST_FIRST = 1024
Values = npt.NDArray[np.float64]


class DicomImage(NamedTuple):
    """What a DICOM file shows.

    Attributes:
        pixels: Values 0 to 255, shape ``(rows, columns)``, or ``(rows, columns, 3)`` in colour.
        mode: The photometric interpretation as stored, for instance ``MONOCHROME1``.
        warning: Why this may be no chest radiograph, or empty.
    """

    pixels: npt.NDArray[np.uint8]
    mode: str
    warning: str


class _RefusedError(ValueError):
    """The file is understood, but is not one that can be shown."""


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes begin as a DICOM file does.

    Without the preamble the first data element is one of group 0002 or 0008, in either byte order: its value
    representation follows, or a length that such an element may have.
    """
    if data[128:132] == b"DICM":
        return True
    order = _FIRST_GROUPS.get(data[:2])
    if order is None or len(data) < 8 or int.from_bytes(data[2:4], order) > _LAST_FIRST_ELEMENT:
        return False
    return data[4:6] in _FIRST_VRS or int.from_bytes(data[4:8], order) <= _LONGEST_FIRST


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep the remarks of pydicom and its decoders out of the log and the terminal; give its warnings."""
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield caught
        finally:
            for logger, level in loggers.items():
                logger.setLevel(level)


def _silence_gdcm() -> None:
    try:
        import gdcm  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return
    for stream in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        stream()


def _parsed(data: bytes) -> "Dataset":
    """Parse the header; refuse a file that ends early."""
    try:
        # Within `_quiet`: GDCM's wrapper warns, and ends the process where warnings are errors.
        import pydicom
    except ImportError as error:
        raise MissingPackageError("DICOM files need pydicom: pip install 'cxrlab[dicom]'") from error
    _silence_gdcm()
    with _quiet() as caught:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
    if any("end of file" in str(warning.message).lower() for warning in caught):
        raise _RefusedError("the DICOM file is truncated")
    return dataset


def _check(dataset: "Dataset", max_pixels: int) -> None:
    """Refuse what is no single image of 8 to 16 bits, before its pixels are decoded."""
    if "PixelData" not in dataset:
        raise _RefusedError("the DICOM file has no pixel data, or ends before it")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise _RefusedError(f"the DICOM file has {frames} frames, and a radiograph has one")
    rows, columns = (int(dataset.get(key) or 0) for key in ("Rows", "Columns"))
    if not rows or not columns:
        raise _RefusedError(f"the DICOM file says {rows} rows and {columns} columns")
    if rows * columns > max_pixels:
        raise _RefusedError(f"{columns} x {rows} pixels are more than the {max_pixels:,} allowed")
    if dataset.get("BitsAllocated") not in {8, 16}:
        raise _RefusedError(f"it allocates {dataset.get('BitsAllocated')} bits a pixel; 8 and 16 can be read")


def _set_transfer_syntax(dataset: "Dataset") -> None:
    """Infer the transfer syntax where the file has no meta information."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    if dataset["PixelData"].is_undefined_length:
        raise _RefusedError("its pixels are compressed, and the transfer syntax that says how is missing")
    implicit, little_endian = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _check_lossless_jpeg(dataset: "Dataset") -> None:
    """Refuse a frame that contradicts the DICOM header: GDCM believes both, and would end the process."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    start = frame.find(b"\xff\xc3") + 4
    if start < 4 or len(frame) < start + 6:
        raise _RefusedError("its pixels are no lossless JPEG")
    precision, *shape = struct.unpack_from(">BHHB", frame, start)
    in_header = [dataset.Rows, dataset.Columns, dataset.SamplesPerPixel]
    if shape != in_header or not 2 <= precision <= dataset.BitsAllocated:
        raise _RefusedError(
            f"the JPEG in it has rows, columns, samples {shape} of {precision} bits, "
            f"and its header says {in_header} of {dataset.BitsAllocated}"
        )


def _window(values: Values, centre: float, width: float, function: str) -> Values:
    """Return the window's output from 0 to 1 (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        # Beyond 700 exp overflows; the result is 0 there all the same.
        output = 1 / (1 + np.exp(np.minimum(-4 * (values - centre) / width, 700)))
    elif function == "LINEAR_EXACT":
        output = (values - centre) / width + 0.5
    elif function == "LINEAR":
        # A width of 1 is a threshold: the division is by anything above 0.
        output = (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    else:
        raise _RefusedError(f"its VOI LUT function is {function}; LINEAR, LINEAR_EXACT and SIGMOID are known")
    return np.clip(output, 0, 1)


def _given_window(dataset: "Dataset") -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window, or None where none is valid."""
    centres, widths = (np.ravel(dataset.get(key) or []) for key in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if not len(centres) or not len(widths) or float(widths[0]) < (1 if function == "LINEAR" else 1e-9):
        return None
    return float(centres[0]), float(widths[0]), function


def _modality(stored: npt.NDArray[np.int64], dataset: "Dataset") -> Values:
    """Apply the modality LUT, or slope and intercept (DICOM PS3.3 C.11.1)."""
    from pydicom.pixels.processing import apply_modality_lut

    return apply_modality_lut(stored, dataset).astype(np.float64)


def _full_range(stored: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_], dataset: "Dataset") -> Values:
    """Scale without a window: from the least to the greatest value shown, as viewers do.

    Without a VOI LUT the standard gives the identity (PS3.3 C.11.2.1). Eight bits are then what a display
    takes, so they stay as they are; more bits are rarely filled, and their identity would be near black.
    """
    signed = int(dataset.PixelRepresentation)
    ends = np.array([-128, 127] if signed else [0, 255]) if dataset.BitsStored == 8 else stored[shown]
    limits = _modality(ends, dataset)
    if not limits.size or limits.min() == limits.max():
        return np.zeros(len(stored))
    return (_modality(stored, dataset) - float(limits.min())) / float(np.ptp(limits))


def _display(stored: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_], dataset: "Dataset") -> Values:
    """Return the output of modality and VOI transformation for each stored value, from 0 to 1."""
    from pydicom.pixels.processing import apply_voi

    if dataset.get("VOILUTSequence"):
        brightest = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        entries = np.rint(_modality(stored, dataset)).astype(np.int64)
        return apply_voi(entries, dataset).astype(np.float64) / float(brightest)
    if (window := _given_window(dataset)) is not None:
        return _window(_modality(stored, dataset), *window)
    return _full_range(stored, shown, dataset)


def _grey(pixels: npt.NDArray[np.int64], dataset: "Dataset", mode: str) -> npt.NDArray[np.uint8]:
    """Map stored values to what is shown, by a table: there are far fewer values than pixels."""
    lowest = int(pixels.min())
    index = pixels.astype(np.int32) - lowest
    stored = np.arange(lowest, int(pixels.max()) + 1)
    padding = np.zeros(len(stored), dtype=bool)
    if (value := dataset.get("PixelPaddingValue")) is not None:
        ends = sorted((int(value), int(dataset.get("PixelPaddingRangeLimit", value))))
        padding = (stored >= ends[0]) & (stored <= ends[1])
    shown = np.zeros(len(stored), dtype=bool)
    shown[index] = True
    table = np.floor(np.clip(_display(stored, shown & ~padding, dataset), 0, 1) * 255 + 0.5).astype(np.uint8)
    if mode == "MONOCHROME1":
        table = 255 - table
    table[padding] = 0  # after the inversion: what lies outside the picture is black in either
    return table[index]


def _colour(pixels: npt.NDArray[np.int64], dataset: "Dataset", mode: str) -> npt.NDArray[np.uint8]:
    """Return RGB in eight bits; pydicom has turned YBR to RGB already."""
    from pydicom.pixels.processing import apply_color_lut

    bits = int(dataset.BitsStored)
    if mode == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = 8 * pixels.dtype.itemsize
    return (pixels >> max(bits - 8, 0)).astype(np.uint8)


def _doubt(dataset: "Dataset") -> str:
    """Return a sentence on a header that names another modality or part of the body, or nothing."""
    modality = str(dataset.get("Modality") or "").strip().upper()
    part = str(dataset.get("BodyPartExamined") or "").strip().upper()
    doubts = [f"modality {modality}"] * (modality not in RADIOGRAPH_MODALITIES)
    doubts += [f"body part {part}"] * bool(part and not any(word in part for word in CHEST_WORDS))
    return f"The DICOM header describes no chest radiograph: {', '.join(doubts)}." if doubts else ""


def _rendered(dataset: "Dataset") -> DicomImage:
    from pydicom.pixels.utils import pixel_array

    decoder = _DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    if decoder == "gdcm":
        _check_lossless_jpeg(dataset)
    mode = str(dataset.PhotometricInterpretation).strip()
    pixels = pixel_array(dataset, decoding_plugin=decoder)
    render = _grey if mode in {"MONOCHROME1", "MONOCHROME2"} else _colour
    return DicomImage(render(pixels, dataset, mode), mode, _doubt(dataset))


def read_dicom(data: bytes, *, max_pixels: int) -> DicomImage:
    """Decode a DICOM file of one frame as a viewer shows it.

    Grey values pass the modality LUT (or rescale slope and intercept), then the first VOI LUT, else the first
    window, else the full range of the values shown. Then MONOCHROME1 is inverted. Pixel padding is black.

    Args:
        data: The file's bytes; preamble and meta information may be missing.
        max_pixels: Rows times columns that are allowed; more is refused before it is decoded.

    Returns:
        The picture, how it was stored, and a doubt where the header names no chest radiograph.

    Raises:
        MissingPackageError: If pydicom is not installed.
        ValueError: If a decoder is not installed, or the file is truncated, has several frames or no pixels,
            or cannot be decoded; the message says which.
    """
    try:
        with _quiet():
            dataset = _parsed(data)
            _check(dataset, max_pixels)
            _set_transfer_syntax(dataset)
            return _rendered(dataset)
    except (_RefusedError, MissingPackageError):
        raise
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        remark = " ".join(str(error).split()) or type(error).__name__
        raise _RefusedError(f"pydicom cannot decode it: {remark}") from error
