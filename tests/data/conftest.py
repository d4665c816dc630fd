"""Tiny seeded copies of the data sets, with their real folders, file names, headers and quirks."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data import raster
from cxrlab.data.dicom import read_dicom

NIH_HEADERS = {
    "v2020": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "2017": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
}
NIH_FINDINGS = ("No Finding", "Effusion", "Pleural_Thickening|Hernia", "Infiltration", "No Finding")


def write_image(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)


def nih_rows(edition: str, num_patients: int) -> list[str]:
    rows = []
    for patient in range(1, num_patients + 1):
        for visit in range(1 + patient % 3):
            finding = NIH_FINDINGS[(patient + visit) % len(NIH_FINDINGS)]
            age = f"{40 + visit:03d}Y" if edition == "2017" else f"{40 + visit}"
            view, sex = ("AP", "F") if patient % 2 else ("PA", "M")
            name = f"{patient:08d}_{visit:03d}.png"
            rows.append(f"{name},{finding},{visit},{patient},{age},{sex},{view},2500,2048,0.168,0.168")
    return [row + "," for row in rows] if edition == "2017" else rows


@pytest.fixture
def make_nih(tmp_path: Path) -> Callable[..., Path]:
    """Write ChestX-ray14 with 30 patients, 60 images; the last 10 patients are the official test part."""

    def make(*, edition: str = "v2020", gz: bool = False, numbered: bool = False, lists: bool = True) -> Path:
        root, rng = tmp_path / "nih", np.random.default_rng(0)
        rows = nih_rows(edition, 30)
        names = [row.split(",")[0] for row in rows]
        for index, name in enumerate(names):
            folder = f"images_{1 + index % 12:03d}/images" if numbered else "images"
            write_image(root / folder / name, rng)
        text = "\n".join([NIH_HEADERS[edition], *rows]) + "\n"
        table = root / ("Data_Entry_2017_v2020.csv" if edition == "v2020" else "Data_Entry_2017.csv")
        if gz:
            Path(f"{table}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            table.write_text(text)
        if lists:
            (root / "train_val_list.txt").write_text("\n".join(n for n in names if n < "00000021"))
            (root / "test_list.txt").write_text("\n".join(n for n in names if n >= "00000021"))
        (root / "BBox_List_2017.csv").write_text(
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
            "00000025_000.png,Infiltrate,256.0,512.0,128.0,64.0,,,\n"
            "00000026_000.png,Effusion,0.0,0.0,1024.0,102.4,,,\n"
            "00099999_000.png,Mass,1.0,1.0,1.0,1.0,,,\n"
        )
        return root

    return make


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Write so many different images of 48 x 48 pixels into a folder: 000.png, 001.png …."""

    def make(count: int, *, name: str = "images") -> Path:
        rng = np.random.default_rng(count)
        root = tmp_path / name
        root.mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Write images at the paths given, below a folder."""

    def make(*paths: str, root: str = "tree") -> Path:
        rng = np.random.default_rng(0)
        for path in paths:
            write_image(tmp_path / root / path, rng)
        return tmp_path / root

    return make


@pytest.fixture
def pneumonia_root(make_tree: Callable[..., Path]) -> Path:
    return make_tree(
        "train/NORMAL/IM-0131-0001.jpeg",
        "train/NORMAL/IM-0666-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0479-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0479-0001-0002.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_bacteria_2.jpeg",
        "train/PNEUMONIA/person1037_virus_1714_2.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "test/NORMAL/IM-0131-0001.jpeg",
        "test/PNEUMONIA/person1_virus_6.jpeg",
        root="chest_xray",
    )


@pytest.fixture(params=["Pillow", "fast"])
def decoder(request, monkeypatch):
    """A test that uses this runs with Pillow alone, and with the fast PNG decoder where it is installed."""
    if request.param == "Pillow":
        monkeypatch.setattr(raster, "_png_decoder", lambda: None)
    elif raster._png_decoder() is None:
        pytest.skip("kornia-rs is not installed")
    return request.param


class Dicom:
    """Radiographs as DICOM files; pydicom is imported where it is needed, for GDCM must come before it."""

    def dataset(self, pixels, syntax=None, bits=None, **attributes):
        """A radiograph of the least that a viewer needs; explicit little endian where no syntax is given."""
        from pydicom import uid
        from pydicom.dataset import Dataset, FileMetaDataset

        syntax = syntax or uid.ExplicitVRLittleEndian
        allocated = 8 * pixels.dtype.itemsize
        result = Dataset()
        result.file_meta = meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = result.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
        meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID = "1.2.3"
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

    def written(self, data):
        """The bytes of a dataset."""
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    def shown(self, data):
        """The pixels that a dataset, or the bytes of one, are shown as."""
        return read_dicom(data if isinstance(data, bytes) else self.written(data), max_pixels=10**6).pixels

    def encoded(self, pixels, syntax, tmp_path, bits=None):
        """The bytes of a radiograph in any transfer syntax."""
        from pydicom import uid

        if syntax in {uid.JPEGLossless, uid.JPEGLosslessSV1}:
            return self._lossless_jpeg(pixels, syntax, tmp_path, bits)
        if not syntax.is_compressed or syntax == uid.DeflatedExplicitVRLittleEndian:
            return self.written(self.dataset(pixels, syntax, bits))
        data = self.dataset(pixels, bits=bits)
        options = {uid.JPEG2000: {"j2k_psnr": [70]}, uid.JPEGLSNearLossless: {"jls_error": 2}}.get(syntax, {})
        plugins = {
            uid.RLELossless: "pydicom",
            uid.JPEGLSLossless: "pyjpegls",
            uid.JPEGLSNearLossless: "pyjpegls",
        }
        data.compress(syntax, encoding_plugin=plugins.get(syntax, "pylibjpeg"), **options)
        return self.written(data)

    def _lossless_jpeg(self, pixels, syntax, tmp_path, bits):
        import gdcm
        import pydicom

        process = "14_1" if syntax == pydicom.uid.JPEGLosslessSV1 else "14"
        kind = getattr(gdcm.TransferSyntax, f"JPEGLosslessProcess{process}")
        source, target = tmp_path / "plain.dcm", tmp_path / "lossless.dcm"
        source.write_bytes(self.written(self.dataset(pixels, bits=bits)))
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


@pytest.fixture(scope="session")
def dicom():
    return Dicom()
