"""Predictions of a DICOM file as DICOM: a Structured Report and its heatmaps, in the study of the image.

For research: every object says that it is not for clinical use, in its text, its series and its pixels.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import cxrlab
from cxrlab.data.dicom import RADIOGRAPH_MODALITIES, is_dicom, read_header
from cxrlab.deploy.finding_codes import PRIVATE_SCHEME, finding_code
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import DataError, MissingPackageError, UserError
from cxrlab.files import replacing

if TYPE_CHECKING:
    from pydicom import Dataset

Overlay = npt.NDArray[np.uint8]

NOT_FOR_CLINICAL_USE = "Research only, not for clinical use"

_REQUIRED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# Type 2 of the standard: they are there, and may be empty.
_EMPTY_WHERE_MISSING = (
    "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "Modality",
)  # fmt: skip
_REPORT_SERIES, _HEATMAP_SERIES = 9001, 9002
_CAPTION_HEIGHT, _CAPTION_WIDTH = 16, 192  # pixels, of a line and at least


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a model says of one label of an image.

    Attributes:
        label: Its name.
        probability: Before calibration: the threshold is on its scale.
        calibrated: After calibration; the same where there is none.
        threshold: From which on it is positive; None where none was chosen.
        is_positive: The decision; None without a threshold.
    """

    label: str
    probability: float
    calibrated: float
    threshold: float | None
    is_positive: bool | None


def write_dicom_results(
    source: Path | bytes,
    folder: Path,
    stem: str,
    findings: Sequence[Finding],
    heatmaps: Mapping[str, Overlay],
    record: ModelRecord,
    *,
    remark: str = "",
) -> list[Path]:
    """Write a Structured Report (TID 1500) on a DICOM image, and a Secondary Capture of each heatmap.

    They are of the patient and the study of the image, with series and UIDs of their own, new ones each time.

    Args:
        source: The DICOM file, or its bytes.
        folder: That they go to; made where it is missing.
        stem: Their names begin with it: ``<stem>_report.dcm``, ``<stem>_heatmap_01_Edema.dcm``.
        findings: One a label.
        heatmaps: The radiograph with its heat, ``(H, W, 3)``, by label.
        record: Of the model.
        remark: What else a reader must know of this image, such as that it looks unlike the training's.

    Returns:
        The files, the report first.

    Raises:
        DataError: If the source is no DICOM file, or lacks what ties results to a patient and a study.
        MissingPackageError: If highdicom is not installed.
    """
    name = source.name if isinstance(source, Path) else "It"
    data = source.read_bytes() if isinstance(source, Path) else source
    if not is_dicom(data):
        raise DataError(f"{name} is no DICOM file: results as DICOM are for DICOM files.")
    check_highdicom()
    with _quiet():
        try:
            objects = _objects(_described_image(read_header(data), name), findings, heatmaps, record, remark)
        except UserError:
            raise
        except Exception as error:  # the libraries raise whatever they like on odd headers
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{name} gets no results as DICOM: its header cannot be used ({reason})."
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(dataset, folder / f"{stem}_{ending}.dcm") for ending, dataset in objects.items()]


def _objects(
    image: "Dataset",
    findings: Sequence[Finding],
    heatmaps: Mapping[str, Overlay],
    record: ModelRecord,
    remark: str,
) -> dict[str, "Dataset"]:
    """Return what is written of an image, by the end of its file's name."""
    from highdicom import UID

    objects = {"report": structured_report(image, findings, record, remark=remark)}
    by_label, series_uid = {finding.label: finding for finding in findings}, UID()
    for number, (label, overlay) in enumerate(heatmaps.items(), 1):
        ending = f"heatmap_{number:02d}_{re.sub(r'[^A-Za-z0-9-]+', '_', label)}"
        objects[ending] = secondary_capture(
            image, overlay, by_label[label], record, number=number, series_uid=series_uid
        )
    return objects


def structured_report(
    image: "Dataset", findings: Sequence[Finding], record: ModelRecord, *, remark: str = ""
) -> "Dataset":
    """Return a Comprehensive SR with a Measurement Report (TID 1500) on an image.

    A group a label: the finding's code, its probabilities and threshold as numbers without a unit, whether it
    is present at the threshold, and which algorithm says so.

    Args:
        image: Its header.
        findings: One a label.
        record: Of the model.
        remark: What else a reader must know of this image.
    """
    from highdicom import UID
    from highdicom.sr import ComprehensiveSR, MeasurementReport, RelationshipTypeValues
    from highdicom.sr import TextContentItem as Text
    from pydicom.sr.codedict import codes

    report = MeasurementReport(
        observation_context=_observer(record),
        procedure_reported=_procedure(image),
        imaging_measurements=[_group(image, finding, record) for finding in findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    for sentence in _comments(record, remark):
        item = Text(codes.DCM.Comment, sentence, relationship_type=RelationshipTypeValues.CONTAINS)
        report[0].ContentSequence.append(item)
    return ComprehensiveSR(
        evidence=[image],
        content=report[0],
        series_instance_uid=UID(),
        series_number=_REPORT_SERIES,
        sop_instance_uid=UID(),
        instance_number=1,
        is_complete=True,
        is_final=False,
        coding_schemes=[_private_scheme()],
        **_equipment(record, "report"),
    )


def secondary_capture(
    image: "Dataset",
    overlay: Overlay,
    finding: Finding,
    record: ModelRecord,
    *,
    number: int,
    series_uid: str,
) -> "Dataset":
    """Return a Secondary Capture in colour of a heatmap, with a caption below it.

    Args:
        image: Its header.
        overlay: The radiograph with its heat, ``(H, W, 3)``.
        finding: What the heat speaks for.
        record: Of the model.
        number: Of the instance in its series.
        series_uid: Of the heatmaps of this image.
    """
    from highdicom import UID
    from highdicom.sc import SCImage

    capture = SCImage(
        pixel_array=_captioned(overlay, finding, record),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below: the image may not say its own
        study_instance_uid=image.StudyInstanceUID,
        series_instance_uid=series_uid,
        series_number=_HEATMAP_SERIES,
        sop_instance_uid=UID(),
        instance_number=number,
        patient_id=image.PatientID,
        specific_character_set="ISO_IR 192",
        **_equipment(record, "heatmaps"),
    )
    capture.copy_patient_and_study_information(image)
    capture.PatientOrientation = list(image.get("PatientOrientation") or [])
    capture.DerivationDescription = f"Heatmap of {finding.label}. {NOT_FOR_CLINICAL_USE}."[:1024]
    capture.SourceImageSequence = [_reference(image)]
    for key in ("LossyImageCompression", "BurnedInAnnotation", "BodyPartExamined"):
        if image.get(key):
            setattr(capture, key, image.get(key))
    return capture


def _described_image(header: "Dataset", name: str) -> "Dataset":
    """Return a header with text in Unicode, without values that break their own format.

    Raises:
        DataError: If it lacks what ties results to a patient and a study.
    """
    from pydicom.datadict import tag_for_keyword

    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"
    for element in list(header):
        if element.tag.is_private or not _is_valid(element):
            del header[element.tag]
    missing = [key for key in _REQUIRED if not header.get(key)]
    if missing:
        tags = [f"{key} ({tag_for_keyword(key):08x})" for key in missing]
        raise DataError(
            f"{name} gets no results as DICOM: its header lacks {', '.join(tags)}, or it is not valid there, "
            "and without it they would belong to no patient or study."
        )
    for key in _EMPTY_WHERE_MISSING:
        if header.get(key) is None:
            setattr(header, key, "")
    if header.PatientSex not in ("", "M", "F", "O"):
        header.PatientSex = ""
    return header


def _is_valid(element: Any) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if element.VR == "SQ" or element.value is None:
        return True
    values: list[Any] = list(element.value) if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, value, RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _procedure(image: "Dataset") -> Any:
    """Return what was done to have the image; where it is no radiograph, no more than that."""
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    if str(image.Modality).upper() in RADIOGRAPH_MODALITIES:
        return CodedConcept("399208008", "SCT", "Plain chest X-ray")
    return codes.cid100.ImagingProcedure


def _group(image: "Dataset", finding: Finding, record: ModelRecord) -> Any:
    """Return the measurements and the evaluation of a label."""
    from highdicom import UID
    from highdicom.sr import (
        CodedConcept,
        FindingSite,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    states = {True: codes.cid240.Present, False: codes.cid240.Absent, None: codes.cid240.Undetermined}
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=UID(), identifier=finding.label),
        finding_type=finding_code(finding.label),
        finding_sites=[FindingSite(codes.SCT.Chest)],
        algorithm_id=_algorithm(record),
        source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
        measurements=_measurements(finding, record),
        qualitative_evaluations=[
            QualitativeEvaluation(CodedConcept("705057003", "SCT", "Presence"), states[finding.is_positive])
        ],
    )


def _measurements(finding: Finding, record: ModelRecord) -> list[Any]:
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    raw = CodedConcept("RAW_PROBABILITY", PRIVATE_SCHEME, "Probability before calibration")
    values = [(codes.DCM.Probability, finding.calibrated)]
    if record.calibration:
        values.append((raw, finding.probability))
    if finding.threshold is not None:
        values.append((codes.DCM.ThresholdValue, finding.threshold))
    return [
        Measurement(name, float(value), codes.UCUM.NoUnits) for name, value in values if math.isfinite(value)
    ]


def _algorithm(record: ModelRecord) -> Any:
    from highdicom.sr import AlgorithmIdentification

    about = {
        "threshold": record.threshold_rule,
        "calibration": record.calibration,
        "views": ", ".join(record.views),
        "image size": str(record.image_size),
        "training data": str((record.trained_on or {}).get("data", "")),
    }
    return AlgorithmIdentification(
        name=record.title,
        version=f"cxrlab {record.version}, checkpoint {record.checkpoint or 'unknown'}",
        manufacturer="cxrlab",
        parameters=["; ".join(f"{name}: {value}" for name, value in about.items() if value)],
    )


def _observer(record: ModelRecord) -> Any:
    """Return who observes: a device, the same one wherever the same checkpoint is used."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["cxrlab", record.checkpoint, record.title]),
        name="cxrlab",
        manufacturer_name="cxrlab",
        model_name=record.title,
        serial_number=record.checkpoint or None,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _comments(record: ModelRecord, remark: str) -> list[str]:
    sentences = [f"{NOT_FOR_CLINICAL_USE}: the findings are a network's, and nobody has verified them."]
    if record.calibration:
        sentences.append(
            "Thresholds are on the scale of the probabilities before calibration; Probability is calibrated."
        )
    return [*sentences, *([remark] if remark else []), *record.caveats]


def _equipment(record: ModelRecord, what: str) -> dict[str, Any]:
    """Return what either object says of its maker and its series."""
    return {
        "manufacturer": "cxrlab",
        "manufacturer_model_name": record.title[:64],
        "software_versions": cxrlab.__version__,
        "device_serial_number": record.checkpoint or None,
        "series_description": f"cxrlab {what}: {NOT_FOR_CLINICAL_USE}",
        "content_qualification": "RESEARCH",
    }


def _private_scheme() -> Any:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem as Scheme

    return Scheme(designator=PRIVATE_SCHEME, name="cxrlab", responsible_organization="cxrlab")


def _reference(image: "Dataset") -> "Dataset":
    from pydicom import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


def _captioned(overlay: Overlay, finding: Finding, record: ModelRecord) -> Overlay:
    """Return a picture with its label, probability and warning in lines below it."""
    from PIL import Image, ImageDraw

    decision = {True: ", positive", False: ", negative", None: ""}[finding.is_positive]
    lines = [
        finding.label,
        f"probability {finding.calibrated:.3f}{decision}",
        f"cxrlab {record.version}",
        *NOT_FOR_CLINICAL_USE.upper().split(", "),
    ]
    height, width = overlay.shape[:2]
    size = (max(width, _CAPTION_WIDTH), height + _CAPTION_HEIGHT * len(lines))
    picture = Image.new("RGB", size)
    picture.paste(Image.fromarray(overlay))
    draw = ImageDraw.Draw(picture)
    for line, text in enumerate(lines):
        draw.text((4, height + _CAPTION_HEIGHT * line), text, fill="white")
    return np.asarray(picture)


def _write(dataset: "Dataset", path: Path) -> Path:
    with replacing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return path


def check_highdicom() -> None:
    """Say which package is missing.

    Raises:
        MissingPackageError: If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "Results as DICOM need the package highdicom: pip install 'cxrlab[dicom]'."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of the libraries on values that real headers have away from the user."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
