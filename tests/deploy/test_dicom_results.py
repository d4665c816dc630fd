"""Results as DICOM, read back by pydicom and by highdicom: the same numbers, the same patient and study."""

import logging
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

# pydicom imports GDCM, which warns on its first import; where that warning is an error the process ends.
pytest.importorskip("gdcm")
pytest.importorskip("highdicom")

import highdicom as hd
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes

from cxrlab.data.dicom import read_dicom
from cxrlab.data.inputs import ImageFile
from cxrlab.deploy.dicom_results import Finding, write_dicom_results
from cxrlab.deploy.finding_codes import finding_code
from cxrlab.deploy.loading import load_model
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import DataError, MissingPackageError

RECORD = ModelRecord(
    title="timm's densenet121",
    task="multilabel",
    labels=("Edema", "Lung Opacity", "Hernie à gauche, très longue à écrire"),
    thresholds={},
    threshold_rule="youden",
    calibration="platt",
    image_size=320,
    channels=1,
    resize="pad",
    trained_on={"data": "nih"},
    checkpoint="0123abcd4567",
    version="0.1.0",
)
FINDINGS = [
    Finding(label="Edema", probability=0.1234567890123456, calibrated=1 / 3, threshold=0.1, is_positive=True),
    Finding(label="Lung Opacity", probability=2e-9, calibrated=1e-9, threshold=0.7, is_positive=False),
    Finding(label=RECORD.labels[2], probability=0.5, calibrated=0.25, threshold=None, is_positive=None),
]
OVERLAY = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
REQUIRED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
PATIENT_AND_STUDY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription")  # fmt: skip


def radiograph() -> Dataset:
    """A digital radiograph as a hospital's system has it."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = (
        uid.generate_uid() for _ in range(3)
    )
    image.PatientID, image.PatientName, image.PatientBirthDate = "4711", "Müller^Änne", "19500131"
    image.PatientSex, image.PatientAge = "F", "070Y"
    image.StudyDate, image.StudyTime, image.StudyID = "20200131", "101500", "S1"
    image.AccessionNumber, image.ReferringPhysicianName = "A17", "House^G"
    image.StudyDescription, image.Modality, image.BodyPartExamined = "Thorax p.a.", "DX", "CHEST"
    image.ViewPosition, image.PatientOrientation = "PA", ["L", "F"]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = 64
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = np.linspace(0, 4000, 4096).astype("<u2").tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return image


def written(image: Dataset, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> bytes:
    if syntax.is_compressed:
        image.compress(syntax)
    stream = BytesIO()
    is_implicit, is_little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    options: dict[str, Any] = (
        {} if syntax.is_compressed else {"implicit_vr": is_implicit, "little_endian": is_little}
    )
    if not syntax.is_compressed:
        image.file_meta.TransferSyntaxUID = syntax
    image.save_as(stream, enforce_file_format=all(key in image for key in REQUIRED), **options)
    return stream.getvalue()


def results(source: Path | bytes, folder: Path, **options: Any) -> list[Path]:
    return write_dicom_results(source, folder, "image", FINDINGS, {"Edema": OVERLAY}, RECORD, **options)


def texts(item: Any, name: Any) -> list[str]:
    """The texts of a concept, below a container."""
    return [str(found.TextValue) for found in hd.sr.utils.find_content_items(item, name=name, recursive=True)]


def test_the_report_has_the_same_numbers_with_codes_and_the_algorithm(tmp_path: Path):
    path, _ = results(written(radiograph()), tmp_path, remark="It looks unlike the training's images.")
    report = hd.sr.srread(path)
    assert isinstance(report, hd.sr.ComprehensiveSR)
    assert isinstance(report.content, hd.sr.MeasurementReport)
    groups = report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [finding.label for finding in FINDINGS]
    states = {True: codes.cid240.Present, False: codes.cid240.Absent, None: codes.cid240.Undetermined}
    for group, finding in zip(groups, FINDINGS, strict=True):
        measured = {item.name.meaning: item for item in group.get_measurements()}
        assert {item.unit.value for item in measured.values()} == {"1"}
        values = {name: item.value for name, item in measured.items()}
        expected = {"Probability": finding.calibrated, "Probability before calibration": finding.probability}
        if finding.threshold is not None:
            expected["Threshold Value"] = finding.threshold
        assert values == expected  # to the last bit
        (evaluation,) = group.get_qualitative_evaluations()
        assert (evaluation.name.meaning, evaluation.value) == ("Presence", states[finding.is_positive])
        assert [str(image.referenced_sop_instance_uid) for image in group.source_images] == [
            str(report.get_evidence()[0][2])
        ]
    assert groups[0].finding_type == hd.sr.CodedConcept("19242006", "SCT", "Pulmonary edema")
    assert (groups[1].finding_type.scheme_designator, groups[1].finding_type.meaning) == (
        "99CXRLAB",
        "Lung Opacity",
    )
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99CXRLAB"
    root = report.content[0]
    assert set(texts(root, codes.DCM.AlgorithmVersion)) == {"cxrlab 0.1.0, checkpoint 0123abcd4567"}
    assert set(texts(root, codes.DCM.AlgorithmName)) == {"timm's densenet121"}
    (parameters,) = set(texts(root, codes.DCM.AlgorithmParameters))
    assert parameters.startswith("threshold: youden; calibration: platt; views: identity; image size: 320")
    comments = texts(root, codes.DCM.Comment)
    assert comments[0].startswith("Research only, not for clinical use")
    assert "It looks unlike the training's images." in comments


def test_results_are_of_the_patient_and_the_study_with_uids_of_their_own(tmp_path: Path):
    image = radiograph()
    data = written(image)
    paths = results(data, tmp_path / "first") + results(data, tmp_path / "second")
    assert [path.name for path in paths[:2]] == ["image_report.dcm", "image_heatmap_01_Edema.dcm"]
    objects = [pydicom.dcmread(path) for path in paths]
    for each in objects:
        assert {key: str(each.get(key)) for key in PATIENT_AND_STUDY} == {
            key: str(image.get(key)) for key in PATIENT_AND_STUDY
        }
        assert (each.Manufacturer, each.SpecificCharacterSet) == ("cxrlab", "ISO_IR 192")
        assert each.ContentQualification == "RESEARCH"
        assert each.SeriesDescription.endswith("Research only, not for clinical use")
    assert len({each.SOPInstanceUID for each in objects} | {image.SOPInstanceUID}) == 5
    assert len({each.SeriesInstanceUID for each in objects} | {image.SeriesInstanceUID}) == 5
    assert (objects[0].VerificationFlag, objects[0].PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    evidence = hd.sr.srread(paths[0]).get_evidence()
    assert evidence == [
        (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID, image.SOPClassUID)
    ]


def test_the_heatmap_is_kept_to_the_pixel_and_says_what_it_is(tmp_path: Path):
    image = radiograph()
    capture = pydicom.dcmread(results(written(image), tmp_path)[1])
    assert capture.SOPClassUID == uid.SecondaryCaptureImageStorage
    assert (capture.PhotometricInterpretation, capture.PatientOrientation) == ("RGB", ["L", "F"])
    pixels = capture.pixel_array
    np.testing.assert_array_equal(pixels[:240, :320], OVERLAY)
    caption = pixels[240:]
    assert len(caption) > 0
    assert all((line > 200).any() for line in np.split(caption, len(caption) // 16))
    assert "Heatmap of Edema. Research only" in capture.DerivationDescription
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    shown = read_dicom((tmp_path / "image_heatmap_01_Edema.dcm").read_bytes(), max_pixels=10**6)
    np.testing.assert_array_equal(shown.pixels, pixels)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_images_of_any_kind_get_results(syntax: uid.UID, photometric: str, tmp_path: Path):
    image = radiograph()
    image.PhotometricInterpretation = photometric
    paths = results(written(image, syntax), tmp_path)
    assert len(hd.sr.srread(paths[0]).content.get_image_measurement_groups()) == 3
    assert str(pydicom.dcmread(paths[0]).PatientName) == "Müller^Änne"


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["udacity_1.dcm", "rsna_cr_jpeg_baseline.dcm"])
def test_real_images_get_results(name: str, real_data: Path, tmp_path: Path):
    """One has no name of the patient and no date, the other is a JPEG with an age that breaks its format."""
    source = real_data / "dicom" / name
    image = pydicom.dcmread(source)
    paths = results(source, tmp_path)
    for each in map(pydicom.dcmread, paths):
        assert (each.PatientID, each.StudyInstanceUID) == (image.PatientID, image.StudyInstanceUID)
        assert str(each.PatientName) == str(image.get("PatientName") or "")
        assert "PatientAge" not in each
        assert each.get("LossyImageCompression") == (
            image.get("LossyImageCompression") if "Rows" in each else None
        )
    (edema, *_) = hd.sr.srread(paths[0]).content.get_image_measurement_groups()
    assert [item.value for item in edema.get_measurements()] == [1 / 3, 0.1234567890123456, 0.1]


def test_names_in_other_scripts_stay_as_they_are(tmp_path: Path):
    image = radiograph()
    image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    image.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    report = pydicom.dcmread(results(written(image), tmp_path)[0])
    assert str(report.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert report.PatientName.ideographic == "山田^太郎"


def test_what_breaks_its_format_or_is_private_stays_out(tmp_path: Path):
    image = radiograph()
    for key, value in {"PatientSex": "W", "StudyDate": "31.1.2020", "PatientBirthDate": "unknown"}.items():
        image.add_new(key, image[key].VR, "")
        image[key]._value = value
    image.private_block(0x0011, "HOSPITAL", create=True).add_new(1, "LO", "secret")
    for each in map(pydicom.dcmread, results(written(image), tmp_path)):
        assert [each.PatientSex, each.StudyDate, each.PatientBirthDate] == ["", "", ""]
        assert each.StudyInstanceUID == image.StudyInstanceUID
        assert not any(element.tag.is_private for element in each.iterall())


@pytest.mark.parametrize("key", [key for key in REQUIRED if key != "SOPClassUID"])
def test_an_image_of_no_patient_or_study_gets_no_results(key: str, tmp_path: Path):
    image = radiograph()
    del image[key]
    with pytest.raises(DataError, match=rf"It gets no results as DICOM: its header lacks {key} \("):
        results(written(image), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_object_that_is_no_image_gets_no_results(tmp_path: Path):
    report = results(written(radiograph()), tmp_path)[0]
    with pytest.raises(
        DataError, match=r"image_report.dcm gets no results as DICOM: its header cannot be used"
    ):
        results(report, tmp_path / "more")
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"x.png is no DICOM file"):
        results(tmp_path / "x.png", tmp_path)


@pytest.mark.parametrize(
    ("modality", "procedure"), [("CR", "Plain chest X-ray"), ("CT", "Imaging procedure")]
)
def test_a_slice_of_a_ct_is_not_called_a_radiograph(modality: str, procedure: str, tmp_path: Path):
    image = radiograph()
    image.Modality = modality
    report = hd.sr.srread(results(written(image), tmp_path)[0])
    (found,) = hd.sr.utils.find_content_items(report.content[0], name=codes.DCM.ProcedureReported)
    assert found.value.meaning == procedure


def predicted(composed: Any, run: Path, *options: str) -> dict[str, int]:
    from cxrlab.predict import predict

    words = [f"run={run}", "batch_size=2", "num_workers=0", "device=cpu", "page=false", *options]
    return dict(predict(composed(*words, config_name="predict")))


def test_predict_writes_results_of_dicom_files_and_says_which_get_none(
    composed: Any, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder, output = tmp_path / "new", tmp_path / "out"
    folder.mkdir()
    images = {"a.dcm": radiograph(), "b.dcm": radiograph(), "c.dcm": radiograph()}
    del images["b.dcm"].PatientID
    images["c.dcm"].PhotometricInterpretation = "MONOCHROME1"
    for name, image in images.items():
        (folder / name).write_bytes(written(image))
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "d.png")
    (folder / "e.dcm").write_bytes(written(radiograph())[:900])
    options = (f"input={folder}", f"output={output}", "dicom_results=true", "on_unlike=ignore")
    with caplog.at_level(logging.INFO):
        assert predicted(composed, finished_run, *options) == {"ok": 3, "warned": 1, "unreadable": 1}
    assert f"DICOM results of 2 files: {output / 'dicom_results'}" in caplog.text

    table = pd.read_csv(output / "predictions.csv", keep_default_na=False)
    assert "It gets no results as DICOM: its header lacks PatientID" in table["reason"][1]
    reports = sorted((output / "dicom_results").glob("*_report.dcm"))
    assert [path.name for path in reports] == ["000000_a_report.dcm", "000002_c_report.dcm"]
    model = load_model(finished_run)
    for row, path in zip((0, 2), reports, strict=True):
        (prediction,) = model.predict_files([ImageFile("x", Path(table["file"][row]))], on_unlike="ignore")
        groups = hd.sr.srread(path).content.get_image_measurement_groups()
        for number, (group, label) in enumerate(zip(groups, model.labels, strict=True)):
            values = {item.name.meaning: item.value for item in group.get_measurements()}
            # By itself an image is rounded otherwise than in a batch: the table has the same numbers.
            assert values["Probability"] == pytest.approx(prediction.calibrated[number], abs=1e-5)
            assert values["Probability before calibration"] == pytest.approx(
                float(table[f"probability/{label}"][row]), abs=1e-6
            )
            assert values["Threshold Value"] == model.thresholds[label]
            assert values["Probability"] == pytest.approx(float(table[f"calibrated/{label}"][row]), abs=1e-6)
            (evaluation,) = group.get_qualitative_evaluations()
            assert (evaluation.value == codes.cid240.Present) == (
                float(table[f"prediction/{label}"][row]) == 1
            )
        positive = [label for label in model.labels if float(table[f"prediction/{label}"][row]) == 1]
        captures = sorted((output / "dicom_results").glob(f"{row:06d}_*_heatmap_*.dcm"))
        assert [path.stem.rpartition("_")[2] for path in captures] == positive
    assert list((output / "dicom_results").glob("*_heatmap_*.dcm"))


@pytest.mark.slow
def test_an_ensemble_gives_reports_without_heatmaps(
    composed: Any, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "a.dcm").write_bytes(written(radiograph()))
    best = finished_run / "checkpoints" / "best.ckpt"
    options = (
        f"run=[{best},{best}]",
        f"input={tmp_path / 'a.dcm'}",
        f"output={tmp_path / 'out'}",
        "dicom_results=true",
    )
    predicted(composed, finished_run, *options, "on_unlike=ignore")
    assert "The DICOM results are reports without heatmaps. Heatmaps are of one network" in caplog.text
    (report,) = (tmp_path / "out" / "dicom_results").iterdir()
    groups = hd.sr.srread(report).content.get_image_measurement_groups()
    assert {group.get_qualitative_evaluations()[0].value.meaning for group in groups} == {"Undetermined"}


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(
        MissingPackageError, match=r"need the package highdicom: pip install 'cxrlab\[dicom\]'"
    ):
        results(written(radiograph()), tmp_path)


def test_codes_tell_labels_apart_and_fit_their_fields():
    labels = [
        "Infiltration",
        "infiltration",
        "Lung Opacity",
        "Enlarged Cardiomediastinum",
        "Ödem",
        "a" * 100,
        "a\\b",
    ]
    coded = [finding_code(label) for label in labels]
    assert len({code.value for code in coded}) == len(labels)
    assert {code.scheme_designator for code in coded} == {"99CXRLAB"}
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in coded)
    assert finding_code("pleural_effusion") == finding_code("Effusion") == codes.SCT.PleuralEffusion
    assert finding_code("Pneumothorax") == codes.SCT.Pneumothorax
    assert finding_code("Edema") == codes.SCT.PulmonaryEdema
