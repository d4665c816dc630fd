"""From the words in which a DICOM file stores grey pixels to their values; headers are wrong about both."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.data.grey_values import Reading, Words, more_continuous

if TYPE_CHECKING:
    from pydicom import Dataset

_MORE_BITS = "Its values need more bits than BitsStored (0028,0101) says; they are read whole."
_BITS_LEFT_OUT = (
    "Bits above those of HighBit (0028,0102) are set and no overlay is declared there; they are left out."
)
_HIGH_BIT_LOW = "HighBit (0028,0102) is below BitsStored (0028,0101) - 1; the picture told which holds."
_WRONG_SIGN = (
    "PixelRepresentation (0028,0103) and the JPEG 2000 codestream name different signs; the picture told "
    "which holds."
)

_WIDTH = np.iinfo(np.int32).bits
# RLE and no compression give words as they are; decoders of a codestream give its values, from bit 0 on.
_WORDS = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
}  # fmt: skip


class StoredValues(NamedTuple):
    """The values of a grey picture.

    Attributes:
        values: Shape ``(rows, columns)``.
        padding: Where they are none of the picture's, of the same shape; None for nowhere.
        bits: How many they may take.
        remark: What the header says wrongly, or empty.
    """

    values: Words
    padding: npt.NDArray[np.bool_] | None
    bits: int
    remark: str


def _low_bits(bits: int, *, signed: bool, shift: int = 0) -> Reading:
    """Return the reading of so many bits of a word, from a bit on."""

    def read(words: Words) -> Words:
        # To the top of the word and back: the sign is copied on the way.
        values = words << (_WIDTH - bits - shift)
        values = values if signed else values.view(np.uint32)
        values >>= _WIDTH - bits
        return values.view(np.int32)

    return read


def stored_values(words: Words, dataset: "Dataset") -> StoredValues:
    """Take the values out of the words of a grey picture (DICOM PS3.5 8.1.1).

    Where the bits above those of the values are set, and no overlay is declared there, the picture itself
    tells whether they belong to it.

    Args:
        words: All bits that are allocated, unsigned, shape ``(rows, columns)``.
        dataset: The header, whose BitsAllocated, BitsStored, HighBit and PixelRepresentation are possible.
    """
    allocated, bits, high = int(dataset.BitsAllocated), int(dataset.BitsStored), high_bit(dataset)
    signed = bool(dataset.PixelRepresentation)
    shift = max(high + 1 - bits, 0)
    if shift and dataset.file_meta.TransferSyntaxUID not in _WORDS and int(words.max()) < 2**bits:
        shift = 0
    read, remark = _low_bits(bits, signed=signed, shift=shift), ""
    padding = _padding(words, (_low_bits(allocated, signed=signed), read), dataset)
    has_picture = padding is not None and not padding.all()
    picture = np.where(padding, words[~padding][0], words) if padding is not None and has_picture else words
    if high < bits - 1:
        read, bits, remark = _below_high_bit(picture, read, bits, high, signed)
    if not _has_overlay(dataset):
        whole = _low_bits(allocated - shift, signed=signed, shift=shift)
        read, bits, remark = _above_high_bit(picture, read, whole, (bits, allocated - shift), signed, remark)
    if (is_signed := _codestream_signed(dataset)) is not None and is_signed != signed:
        other = _low_bits(bits, signed=is_signed, shift=shift)
        if more_continuous(picture, read, other):
            read, remark = other, _WRONG_SIGN
    return StoredValues(read(words), padding, bits, remark)


def _below_high_bit(
    words: Words, read: Reading, bits: int, high: int, signed: bool
) -> tuple[Reading, int, str]:
    """Return reading, bits and remark where HighBit says fewer bits than BitsStored."""
    fewer = _low_bits(high + 1, signed=signed)
    is_fewer = not more_continuous(words, fewer, read)
    return (fewer, high + 1, _HIGH_BIT_LOW) if is_fewer else (read, bits, _HIGH_BIT_LOW)


def _above_high_bit(
    words: Words, read: Reading, whole: Reading, bits: tuple[int, int], signed: bool, remark: str
) -> tuple[Reading, int, str]:
    """Return reading, bits and remark where bits above those of the values may be set.

    Args:
        words: Of the picture.
        read: As the header asks.
        whole: All bits there are.
        bits: How many either takes.
        signed: Whether one of them is the sign.
        remark: What was found before.
    """
    wholes = whole(words)
    lowest, highest = int(wholes.min()), int(wholes.max())
    half = 2 ** (bits[0] - 1) if signed else 0
    if lowest >= -half and highest < 2 ** bits[0] - half:
        return whole, bits[0], remark
    values = read(words)
    is_empty = values.min() == values.max()  # all that there is lies above: 8 bits at the top of 16
    if is_empty or more_continuous(words, read, whole):
        return whole, bits[1], _MORE_BITS
    is_extension = int(values.min()) < 0 and lowest >= 0 and highest < 2 ** bits[0]
    return read, bits[0], remark if is_extension else _BITS_LEFT_OUT


def _has_overlay(dataset: "Dataset") -> bool:
    """Tell whether an overlay is declared to lie in unused bits of the pixels (PS3.5 8.1.2, retired)."""
    return any(
        int(dataset.get((group, 0x0102)).value or 0) > 0
        for group in range(0x6000, 0x6020, 2)
        if dataset.get((group, 0x0102)) is not None and (group, 0x3000) not in dataset
    )


def _codestream_signed(dataset: "Dataset") -> bool | None:
    """Return whether a JPEG 2000 codestream says that its values are signed; None where there is none."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import get_j2k_parameters
    from pydicom.uid import JPEG2000TransferSyntaxes

    if dataset.file_meta.TransferSyntaxUID not in JPEG2000TransferSyntaxes:
        return None
    found = get_j2k_parameters(get_frame(dataset.PixelData, 0, number_of_frames=1))
    return bool(found["is_signed"]) if "is_signed" in found else None


def _padding(words: Words, readings: tuple[Reading, ...], dataset: "Dataset") -> npt.NDArray[np.bool_] | None:
    """Return where any reading of the words is padding (DICOM PS3.3 C.7.5.1.1.2); None for nowhere."""
    if (value := dataset.get("PixelPaddingValue")) is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (int(value), int(value if limit is None else limit))
    # Either may be written with the other sign than the pixels: 63536 for -2000.
    size = 2 ** int(dataset.BitsAllocated)
    half = size // 2 if dataset.PixelRepresentation else size
    lowest, highest = sorted(end - size * (end >= half) + size * (end < half - size) for end in ends)
    within = np.zeros(words.shape, dtype=bool)
    for read in readings:
        values = read(words)
        within |= (values >= lowest) & (values <= highest)
    return within if within.any() else None


def high_bit(dataset: "Dataset") -> int:
    """Return the number of a value's highest bit in its word; the last of BitsStored where none is told."""
    high = dataset.get("HighBit")
    return int(dataset.BitsStored) - 1 if high is None else int(high)
