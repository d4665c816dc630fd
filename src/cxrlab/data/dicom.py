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

from cxrlab.data.dicom_values import high_bit, stored_values
from cxrlab.data.grey_values import Words, depth_of, picture_range
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
_REQUIRED = {
    "SamplesPerPixel": "0028,0002", "PhotometricInterpretation": "0028,0004", "BitsStored": "0028,0101",
    "PixelRepresentation": "0028,0103",
}  # fmt: skip
# Share of the pixels on one side of a window where it was made for other values.
_BESIDE = 0.99
_NUM_SAMPLED = 2**18
_CONTRADICTIONS = {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}

_WINDOW_BESIDE = (
    "Its window, WindowCenter (0028,1050) and WindowWidth (0028,1051), lies beside its values; it is shown "
    "without."
)
_WRONG_SHAPE = (
    "PhotometricInterpretation (0028,0004) and PresentationLUTShape (2050,0020) contradict one another; it "
    "is inverted."
)
Values = npt.NDArray[np.float64]
Stored = npt.NDArray[np.int64]


class DicomImage(NamedTuple):
    """What a DICOM file shows.

    Attributes:
        pixels: Values 0 to 255, shape ``(rows, columns)``, or ``(rows, columns, 3)`` in colour.
        mode: The photometric interpretation as stored, for instance ``MONOCHROME1``.
        warning: Why this may be no chest radiograph, what its header says wrongly, or empty.
        doubt: The first of these alone.
    """

    pixels: npt.NDArray[np.uint8]
    mode: str
    warning: str
    doubt: str


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
    for name, tag in _REQUIRED.items():
        if dataset.get(name) is None:
            raise _RefusedError(f"its header lacks {name} ({tag})")
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if not 0 < bits <= allocated or not 0 <= high_bit(dataset) < allocated:
        raise _RefusedError(
            f"BitsStored (0028,0101) is {bits} and HighBit (0028,0102) {high_bit(dataset)}, where "
            f"BitsAllocated (0028,0100) is {allocated}"
        )


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


def _check_lossless_jpeg(dataset: "Dataset") -> int:
    """Refuse a frame that contradicts the DICOM header: GDCM believes both, and would end the process.

    Returns:
        Bits of its values.
    """
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
    return int(precision)


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


def _modality(stored: Stored, dataset: "Dataset") -> Values:
    """Apply the modality LUT, or slope and intercept (DICOM PS3.3 C.11.1)."""
    from pydicom.pixels.processing import apply_modality_lut

    return apply_modality_lut(stored, dataset).astype(np.float64)


def _full_range(stored: Stored, shown: Stored, bits: int, dataset: "Dataset") -> Values:
    """Scale without a window: from the least to the greatest value shown, as viewers do.

    Without a VOI LUT the standard gives the identity (PS3.3 C.11.2.1). Eight bits are then what a display
    takes, so they stay as they are; more bits are rarely filled, and their identity would be near black.
    """
    ends = np.array(picture_range(shown)) if len(shown) else shown
    if bits == 8:
        ends = np.array([-128, 127] if dataset.PixelRepresentation else [0, 255])
    limits = _modality(ends, dataset)
    if not limits.size or limits.min() == limits.max():
        return np.zeros(len(stored))
    return (_modality(stored, dataset) - float(limits.min())) / float(np.ptp(limits))


def _looked_up(stored: Stored, dataset: "Dataset") -> Values:
    """Apply the VOI LUT.

    Its descriptor may say more bits than its entries have: they are scaled by what they need.
    """
    from pydicom.pixels.processing import apply_voi

    count, first, bits = (int(number) for number in dataset.VOILUTSequence[0].LUTDescriptor)
    entries = apply_voi(first + np.arange(count or 65536), dataset)
    brightest = 2 ** min(bits, depth_of(int(entries.max()))) - 1
    values = np.rint(_modality(stored, dataset)).astype(np.int64)
    return apply_voi(values, dataset).astype(np.float64) / float(brightest)


def _display(
    stored: Stored, shown: npt.NDArray[np.bool_], sample: Words, bits: int, dataset: "Dataset"
) -> tuple[Values, str]:
    """Return the output of modality and VOI transformation for each stored value, from 0 to 1, and a remark.

    Args:
        stored: Values, rising.
        shown: Which of them the picture has.
        sample: Where in them some of its pixels are.
        bits: Of the values.
        dataset: With the transformations.
    """
    if dataset.get("VOILUTSequence"):
        return _looked_up(stored, dataset), ""
    if (window := _given_window(dataset)) is None:
        return _full_range(stored, stored[shown], bits, dataset), ""
    output = _window(_modality(stored, dataset), *window)
    of_sample = output[sample]
    beside = max((of_sample <= 0).mean(), (of_sample >= 1).mean()) if len(sample) else 0
    if beside < _BESIDE or np.count_nonzero(shown) < 2:
        return output, ""
    return _full_range(stored, stored[shown], bits, dataset), _WINDOW_BESIDE


def _grey(words: Words, dataset: "Dataset", mode: str) -> tuple[npt.NDArray[np.uint8], str]:
    """Map stored values to what is shown, by a table: there are far fewer values than pixels."""
    values, padding, bits, remark = stored_values(words, dataset)
    lowest = int(values.min())
    stored = np.arange(lowest, int(values.max()) + 1)
    index = values - lowest
    picture = index.ravel() if padding is None else index[~padding]
    shown = np.zeros(len(stored), dtype=bool)
    shown[picture] = True
    output, other_remark = _display(
        stored, shown, picture[:: max(1, len(picture) // _NUM_SAMPLED)], bits, dataset
    )
    table = np.floor(np.clip(output, 0, 1) * 255 + 0.5).astype(np.uint8)
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    contradiction = _WRONG_SHAPE if (mode, shape) in _CONTRADICTIONS else ""
    if mode == "MONOCHROME1" or shape == "INVERSE":  # two names of one inversion (PS3.3 C.8.11.3.1.2)
        table = 255 - table
    pixels = table[index]
    if padding is not None:
        pixels[padding] = 0  # after the inversion: what lies outside the picture is black in either
    return pixels, " ".join(filter(None, (remark, other_remark, contradiction)))


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

    mode = str(dataset.PhotometricInterpretation).strip()
    decoder = _DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    if mode not in {"MONOCHROME1", "MONOCHROME2"}:
        if decoder == "gdcm":
            _check_lossless_jpeg(dataset)
        pixels = pixel_array(dataset, decoding_plugin=decoder)
        doubt = _doubt(dataset)
        return DicomImage(_colour(pixels, dataset, mode), mode, doubt, doubt)
    pixels, remark = _grey(_words(dataset, decoder), dataset, mode)
    doubt = _doubt(dataset)
    return DicomImage(pixels, mode, " ".join(filter(None, (doubt, remark))), doubt)


def _words(dataset: "Dataset", decoder: str) -> Words:
    """Decode the pixels of a grey picture as they are stored, with all bits that are allocated, unsigned."""
    from pydicom.pixels.utils import pixel_array

    bits = dataset.BitsStored
    if decoder == "gdcm":
        dataset.BitsStored = _check_lossless_jpeg(dataset)  # GDCM would leave out the bits above
    try:
        pixels = pixel_array(
            dataset,
            decoding_plugin=decoder,
            correct_unused_bits=False,
            apply_j2k_sign_correction=False,
            apply_jls_sign_correction=False,
        )
    finally:
        dataset.BitsStored = bits
    unsigned = pixels.view(pixels.dtype.str.replace("i", "u"))
    return unsigned.astype(np.int32)


def read_header(data: bytes) -> "Dataset":
    """Return what a DICOM file says beside its pixels.

    Args:
        data: The file's bytes.

    Raises:
        MissingPackageError: If pydicom is not installed.
        ValueError: If the file is truncated or cannot be read.
    """
    with _quiet():
        dataset = _parsed(data)
        for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            if name in dataset:
                del dataset[name]
    return dataset


def read_dicom(data: bytes, *, max_pixels: int) -> DicomImage:
    """Decode a DICOM file of one frame as a viewer shows it.

    Grey values pass the modality LUT (or rescale slope and intercept), then the first VOI LUT, else the first
    window, else the full range of the values shown. Then MONOCHROME1 is inverted. Pixel padding is black.
    Where what the header says of bits cannot be true of the values, the reading that is a picture is taken,
    and the warning says so.

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
