"""Each data set that conf/data describes, read by its YAML alone from a small folder in its real layout.

Names of files and columns are the real ones; ids and values are invented.
"""

import csv
import gzip
import json
import logging
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from cxrlab.cli import config
from cxrlab.cli.datasets import known_readers
from cxrlab.data.manifest import Manifest
from cxrlab.data.recognise import recognise
from cxrlab.errors import MissingFileError

Compose = Callable[..., DictConfig]


def listed(text: str) -> list[str]:
    return text.split(",")


CHEXPERT = listed(
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
MIMIC = sorted(CHEXPERT)
NIH = listed(
    "Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,"
    "Emphysema,Fibrosis,Pleural_Thickening,Hernia"
)


@dataclass
class Expected:
    """What a reader makes of a folder.

    Attributes:
        images: How many.
        patients: How many.
        first: Path of an image.
        positives: Images on which a label is present, of some labels.
        unknown: Images of which a label is not known, of some labels.
        parts: Images by the data set's own part.
        boxes: How many.
        root: Folder below the drawn one that ``data.root`` names.
        overrides: Further settings.
    """

    images: int
    patients: int
    first: str
    positives: dict[str, int]
    unknown: dict[str, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    boxes: int = 0
    root: str = ""
    overrides: Sequence[str] = ()


def image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    """Write a picture, whatever its suffix: readers look at its name and size only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size[::-1], dtype=np.uint8)).save(path, format="PNG")


def table(path: Path, header: str | Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, packed where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = header.split(",") if isinstance(header, str) else list(header)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def chexpert_cells(**values: str) -> list[str]:
    return [values.get(name.replace(" ", "_"), "") for name in CHEXPERT]


def rsna(root: Path) -> Expected:
    rows = [
        ["c1f7889a-0001", "", "", "", "", 0],
        ["c1f7889a-0002", 264.0, 152.0, 213.0, 379.0, 1],
        ["c1f7889a-0002", 562.0, 152.0, 256.0, 453.0, 1],
        ["c1f7889a-0003", "", "", "", "", 0],
    ]
    table(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)
    classes = ["Normal", "Lung Opacity", "Lung Opacity", "No Lung Opacity / Not Normal"]
    detailed = [[row[0], word] for row, word in zip(rows, classes, strict=True)]
    table(root / "stage_2_detailed_class_info.csv", "patientId,class", detailed)
    for number in (1, 2, 3):
        image(root / f"stage_2_train_images/c1f7889a-000{number}.dcm")
    return Expected(3, 3, "stage_2_train_images/c1f7889a-0002.dcm", {"Lung Opacity": 1}, boxes=2)


def rsna_classes(root: Path) -> Expected:
    rsna(root)
    positives = {"Normal": 1, "Lung Opacity": 1, "No Lung Opacity / Not Normal": 1}
    return Expected(3, 3, "stage_2_train_images/c1f7889a-0001.dcm", positives)


def rsna_nih(root: Path) -> Expected:
    rsna(root)
    names = {1: "00000007_000.png", 2: "00000007_003.png", 3: "00000031_001.png"}
    mapping = [
        {"img_id": name, "subset_img_id": f"c1f7889a-000{number}", "orig_labels": ["No Finding"]}
        for number, name in names.items()
    ]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    return Expected(3, 2, "stage_2_train_images/c1f7889a-0001.dcm", {"Lung Opacity": 1}, boxes=2)


def siim(root: Path) -> Expected:
    """A blank stands before EncodedPixels in the header, and an image with two masks has two rows."""
    ids = [f"1.2.276.0.7230010.3.1.4.832332.{number}" for number in range(3)]
    rows = [[ids[0], "-1"], [ids[1], "557374 2 1015 8 1009 14"], [ids[1], "514175 10"], [ids[2], "-1"]]
    table(root / "train-rle.csv", "ImageId, EncodedPixels", rows)
    for name in ids:
        image(root / f"dicom-images-train/1.2.276.study.{name[-1]}/1.2.276.series/{name}.dcm")
    first = f"dicom-images-train/1.2.276.study.1/1.2.276.series/{ids[1]}.dcm"
    return Expected(3, 3, first, {"Pneumothorax": 1})


def vindr(root: Path) -> Expected:
    """Three radiologists an image: two see the heart of the first, one its effusion."""
    rows: list[list[object]] = [
        ["a0", "Cardiomegaly", 3, "R8", 10, 20, 30, 40],
        ["a0", "Cardiomegaly", 3, "R9", 11, 21, 31, 41],
        ["a0", "Pleural effusion", 10, "R9", 1, 2, 3, 4],
        ["a0", "No finding", 14, "R10", "", "", "", ""],
        *(["b1", "No finding", 14, f"R{reader}", "", "", "", ""] for reader in (8, 9, 11)),
    ]
    table(root / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", rows)
    for name in ("a0", "b1"):
        image(root / f"train/{name}.dicom", (64, 64))
    return Expected(2, 2, "train/a0.dicom", {"Cardiomegaly": 1, "Pleural effusion": 0}, boxes=2)


def vindr_physionet(root: Path) -> Expected:
    words = [
        "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
        "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
        "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
        "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis",
        "Other diseases", "No finding",
    ]  # fmt: skip
    cells = {
        ("a0", "R1"): {"Cardiomegaly"}, ("a0", "R2"): {"Cardiomegaly", "Edema"}, ("a0", "R3"): {"No finding"},
        ("b1", "R1"): {"No finding"}, ("b1", "R2"): {"No finding"}, ("b1", "R3"): {"No finding"},
    }  # fmt: skip
    rows = [[*key, *(int(word in shown) for word in words)] for key, shown in cells.items()]
    table(root / "annotations/image_labels_train.csv", ["image_id", "rad_id", *words], rows)
    table(
        root / "annotations/image_labels_test.csv",
        ["image_id", *words],
        [["c2", *(int(w == "Pneumonia") for w in words)]],
    )
    header = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    boxes = [["a0", "R1", "Cardiomegaly", 1, 2, 30, 40], ["b1", "R1", "No finding", "", "", "", ""]]
    table(root / "annotations/annotations_train.csv", header, boxes)
    table(
        root / "annotations/annotations_test.csv",
        header.replace("rad_id,", ""),
        [["c2", "Pneumonia", 1, 2, 3, 4]],
    )
    for name in ("train/a0", "train/b1", "test/c2"):
        image(root / f"{name}.dicom", (64, 64))
    positives = {"Cardiomegaly": 1, "Edema": 0, "Pneumonia": 1}
    return Expected(3, 3, "test/c2.dicom", positives, parts={"train": 2, "test": 1}, boxes=2)


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,"
    "LocalizationsCUIS"
)


def padchest(root: Path) -> Expected:
    """Cells hold lists, ``nan``, empty words, and words that leave everything else open."""
    lists = [
        "['normal']", "['pleural effusion', ' cardiomegaly']", "['unchanged']", "nan", "['COPD signs', '']",
        "['unchanged', 'pleural effusion']",
    ]  # fmt: skip
    rows = []
    for number, words in enumerate(lists):
        row = dict.fromkeys(PADCHEST.split(","), "")
        row |= {
            "": str(number), "ImageID": f"2168_{number:03d}.png", "ImageDir": str(number % 2), "PixelRepresentation_DICOM": "0",
            "PatientID": f"7{number // 2}", "PatientSex_DICOM": "F", "Projection": "PA", "MethodLabel": "Physician",
            "Labels": words,
        }  # fmt: skip
        rows.append(list(row.values()))
        image(root / f"{number % 2}/2168_{number:03d}.png")
    table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", PADCHEST, rows)
    positives = {"pleural effusion": 2, "cardiomegaly": 1, "COPD signs": 1, "nodule": 0}
    return Expected(6, 3, "1/2168_001.png", positives, unknown={"pleural effusion": 2, "cardiomegaly": 3})


def mimic(root: Path, labeler: str = "chexpert", gz: str = ".gz") -> Expected:
    """The last study has no labels."""
    labels, splits, facts = [], [], []
    for number, part in enumerate(("train", "train", "validate", "test", "train")):
        subject, study = 10000032 + number // 2, 50414267 + number
        if number < 4:
            labels.append(
                [subject, study, *("1.0" if name == "Edema" and number % 2 else "" for name in MIMIC)]
            )
        for view, dicom in (("PA", f"0{number}aa-b1"), ("LATERAL", f"0{number}aa-c2")):
            splits.append([dicom, study, subject, part])
            facts.append(
                [dicom, subject, study, "CHEST (PA AND LAT)", view, 3056, 2544, 21800506, "213014.531"]
            )
            image(root / f"files/p10/p{subject}/s{study}/{dicom}.jpg")
    start = root / "mimic-cxr-2.0.0-"
    table(Path(f"{start}{labeler}.csv{gz}"), ["subject_id", "study_id", *MIMIC], labels)
    table(Path(f"{start}split.csv{gz}"), "dicom_id,study_id,subject_id,split", splits)
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
    table(Path(f"{start}metadata.csv{gz}"), header, facts)
    first = "files/p10/p10000032/s50414267/00aa-b1.jpg"
    parts = {"train": 4, "val": 2, "test": 2}
    return Expected(8, 2, first, {"Edema": 4, "Fracture": 0}, parts=parts)


def mimic_negbio(root: Path) -> Expected:
    return mimic(root, "negbio", gz="")


def chexpert_tables(start: str) -> tuple[str, list[list[str]], list[list[str]]]:
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
    train = [
        [
            f"{start}train/patient00001/study1/view1_frontal.jpg",
            "Female",
            "68",
            "Frontal",
            "AP",
            *chexpert_cells(Edema="1.0"),
        ],
        [
            f"{start}train/patient00002/study1/view1_lateral.jpg",
            "Male",
            "0",
            "Lateral",
            "",
            *chexpert_cells(Edema="-1.0"),
        ],
        [
            f"{start}train/patient40000/study1/view1_frontal.jpg",
            "Male",
            "40",
            "Frontal",
            "PA",
            *chexpert_cells(No_Finding="1.0"),
        ],
    ]
    valid = [
        [
            f"{start}valid/patient64541/study1/view1_frontal.jpg",
            "Male",
            "73",
            "Frontal",
            "AP",
            *(["0.0"] * 14),
        ],
    ]
    return ",".join(header), train, valid


def chexpert(root: Path) -> Expected:
    header, train, valid = chexpert_tables("CheXpert-v1.0-small/")
    folder = root / "CheXpert-v1.0-small"
    table(folder / "train.csv", header, train)
    table(folder / "valid.csv", header, valid)
    for row in [*train, *valid]:
        image(root / row[0])
    first = "train/patient00001/study1/view1_frontal.jpg"
    parts = {"train": 3, "test": 1}
    return Expected(
        4, 4, first, {"Edema": 1, "No Finding": 1}, {"Edema": 1}, parts=parts, root="CheXpert-v1.0-small"
    )


def chexpert_full(root: Path) -> Expected:
    header, train, valid = chexpert_tables("CheXpert-v1.0/")
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    table(first / "train.csv", header, train)
    table(first / "valid.csv", header, valid)
    image(first / valid[0][0].removeprefix("CheXpert-v1.0/"))
    batches = (
        "CheXpert-v1.0 batch 2 (train 1)",
        "CheXpert-v1.0 batch 3 (train 2)",
        "CheXpert-v1.0 batch 4 (train 3)",
    )
    for batch, row in zip(batches, train, strict=True):
        image(root / batch / row[0].removeprefix("CheXpert-v1.0/train/"))
    expected = "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"
    return Expected(4, 4, expected, {"Edema": 1}, {"Edema": 1}, parts={"train": 3, "test": 1})


def chexpert_plus(root: Path) -> Expected:
    """A record a line, with null for what a report does not mention."""
    paths = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in (1, 2)] + [
        "valid/patient64541/study1/view1_frontal.jpg"
    ]
    values = [{"Edema": 1.0}, {"Edema": -1.0}, {"No Finding": 1.0}]
    records = [
        {"path_to_image": path, **{name: value.get(name) for name in MIMIC}}
        for path, value in zip(paths, values, strict=True)
    ]
    (root / "report_fixed.json").write_text("\n".join(map(json.dumps, records)) + "\n")
    for path in paths:
        image(root / "PNG/PNG" / path.replace(".jpg", ".png"))
    first = "PNG/PNG/train/patient00001/study1/view1_frontal.png"
    return Expected(3, 3, first, {"Edema": 1, "No Finding": 1}, {"Edema": 1}, parts={"train": 2, "test": 1})


def brax(root: Path) -> Expected:
    labels = [name for name in CHEXPERT if name not in ("Lung Opacity", "Lung Lesion")]
    header = [
        "DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "StudyDate", "Lung Lesion", "Lung Opacity", *labels,
        "ViewPosition", "Rows", "Columns", "Manufacturer", "AccessionNumber",
    ]  # fmt: skip
    rows = []
    for number, (age, edema) in enumerate((("25", "1.0"), ("85 or more", ""), ("45", "-1.0"))):
        path = f"images/id_0{number // 2}a-52/Study_{number}.12/Series_1.{number}/image-{number}-1.png"
        rows.append(
            ["x.dcm", path, f"id_0{number // 2}a-52", "M", age, "20100601.0", "", ""]
            + [edema if name == "Edema" else "" for name in labels]
            + ["PA", "2000.0", "2000.0", "Manufacturer_1", str(number)]
        )
        image(root / path)
    table(root / "master_spreadsheet_update.csv", header, rows)
    first = "images/id_00a-52/Study_0.12/Series_1.0/image-0-1.png"
    return Expected(3, 2, first, {"Edema": 1, "Fracture": 0}, {"Edema": 1})


def openi(root: Path) -> Expected:
    projections = [
        [1, "1_IM-0001-4001.dcm.png", "Frontal"], [1, "1_IM-0001-3001.dcm.png", "Lateral"],
        [2, "2_IM-0652-1001.dcm.png", "Frontal"], [3, "3_IM-1384-1001.dcm.png", "Frontal"],
    ]  # fmt: skip
    problems = ["normal", "Cardiomegaly;Fractures, Bone", "No Indexing"]
    reports = [
        [n + 1, word, word, "PA", "Chest pain", "None.", "Clear,\nthey say.", "Normal."]
        for n, word in enumerate(problems)
    ]
    table(root / "indiana_projections.csv", "uid,filename,projection", projections)
    table(
        root / "indiana_reports.csv",
        "uid,MeSH,Problems,image,indication,comparison,findings,impression",
        reports,
    )
    for row in projections:
        image(root / f"images/images_normalized/{row[1]}")
    first = "images/images_normalized/1_IM-0001-4001.dcm.png"
    return Expected(4, 3, first, {"Cardiomegaly": 1, "Fractures, Bone": 1}, {"Cardiomegaly": 1})


def montgomery(root: Path, name: str = "MCUCXR", folder: str = "MontgomerySet") -> Expected:
    for number in (1, 2, 3):
        image(root / folder / f"CXR_png/{name}_000{number}_{number % 2}.png")
        readings = root / folder / f"ClinicalReadings/{name}_000{number}_{number % 2}.txt"
        readings.parent.mkdir(parents=True, exist_ok=True)
        readings.write_text("Patient's Sex: F\nPatient's Age: 026Y\nnormal\n")
        if name == "MCUCXR":
            image(root / folder / f"ManualMask/leftMask/{name}_000{number}_{number % 2}.png")
    return Expected(3, 3, f"CXR_png/{name}_0001_1.png", {"Tuberculosis": 2}, root=folder)


def shenzhen(root: Path) -> Expected:
    return montgomery(root, "CHNCXR", "ChinaSet_AllFiles")


def tbx11k(root: Path) -> Expected:
    """COCO's lists; the second image of train shows tuberculosis and has no annotation."""
    names = {
        "train": ["tb/tb0005.png", "tb/tb1199.png", "sick/s0001.png"],
        "val": ["health/h0001.png", "tb/tb0007.png"],
    }
    categories = [
        {"id": 1, "name": "ActiveTuberculosis", "supercategory": "Tuberculosis"},
        {"id": 2, "name": "ObsoletePulmonaryTuberculosis", "supercategory": "Tuberculosis"},
        {"id": 3, "name": "PulmonaryTuberculosis", "supercategory": "Tuberculosis"},
    ]
    annotated = {"tb/tb0005.png": [1, 1], "tb/tb0007.png": [2]}
    for part, files in names.items():
        images = [
            {"id": n + 1, "file_name": name, "width": 512, "height": 512} for n, name in enumerate(files)
        ]
        annotations = [
            {
                "id": 9,
                "image_id": one["id"],
                "category_id": category,
                "bbox": [10.0 + 7 * number, 20.0, 100.0, 50.0],
                "area": 5000.0,
            }
            for one in images
            for number, category in enumerate(annotated.get(str(one["file_name"]), []))
        ]
        path = root / f"TBX11K/annotations/json/TBX11K_{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        path.write_text(json.dumps(content))
        for name in files:
            image(root / "TBX11K/imgs" / name)
    positives = {
        "Tuberculosis": 3,
        "Active tuberculosis": 1,
        "Latent tuberculosis": 1,
        "Sick without tuberculosis": 1,
    }
    parts = {"train": 3, "test": 2}
    return Expected(5, 5, "imgs/tb/tb1199.png", positives, parts=parts, boxes=3, root="TBX11K")


def covid_radiography(root: Path) -> Expected:
    """Masks have the names of images, and a sheet lies beside each class."""
    folder = root / "COVID-19_Radiography_Dataset"
    names = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    for name in names:
        for number in (1, 2):
            image(folder / name / f"images/{name}-{number}.png")
            image(folder / name / f"masks/{name}-{number}.png")
        (folder / f"{name}.metadata.xlsx").write_bytes(b"PK")
    positives = dict.fromkeys(names, 2)
    return Expected(8, 8, "Normal/images/Normal-1.png", positives, root="COVID-19_Radiography_Dataset")


def covidx(root: Path) -> Expected:
    """No header, blanks between and in names, and a patient's number twice in different sources."""
    lines = {
        "train": [
            "1 ARDS example (1).png negative cohen",
            "1 COVID-00001.jpg positive sirm",
            "2 x-2.PNG negative cohen",
        ],
        "test": ["419639-000025 MIDRC-RICORD-1C-419639-000025-46647-0.png positive ricord"],
    }
    for part, rows in lines.items():
        (root / f"{part}.txt").write_text("\n".join(rows) + "\n")
        for row in rows:
            image(root / part / row.partition(" ")[2].rsplit(" ", 2)[0])
    parts = {"train": 3, "test": 1}
    return Expected(4, 4, "train/ARDS example (1).png", {"COVID-19": 2}, parts=parts)


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def nih_images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        image(root / f"images_{number % 2 + 1:03d}/images/{name}")


def nih_google(root: Path) -> Expected:
    header = f"{NIH_HEADER},Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id"
    start = ["No Finding", 0]
    facts = [60, "M", "AP", 3056, 2544, 0.139, 0.139]
    validation = [
        ["00000119_001.png", *start, 119, *facts, "NO", "YES", "NO", "NO", "val"],
        ["00000134_000.png", *start, 134, *facts, "NO", "NO", "YES", "NO", "val"],
    ]
    test = [["00000013_008.png", *start, 13, *facts, "YES", "NO", "NO", "NO", "test"]]
    folder = root / "four_findings_expert_labels"
    table(folder / "four_findings_expert_labels_validation_labels.csv", header, validation)
    table(folder / "four_findings_expert_labels_test_labels.csv", header, test)
    nih_images(root, "00000119_001.png", "00000134_000.png", "00000013_008.png", "00000001_000.png")
    positives = {"Fracture": 1, "Pneumothorax": 1, "Airspace opacity": 1, "Nodule or mass": 0}
    first = "images_001/images/00000119_001.png"
    return Expected(3, 3, first, positives, parts={"train": 2, "test": 1})


def nih_expert(root: Path) -> Expected:
    names = ["Pleural Thickening" if name == "Pleural_Thickening" else name for name in NIH]
    rows = [
        [
            f"{image_id}.png",
            int(image_id[:8]),
            "YES" if shown else "NO",
            *("YES" if n == shown else "NO" for n in names),
            "NO",
        ]
        for image_id, shown in (
            ("00029560_000", ""),
            ("00009437_005", "Pleural Thickening"),
            ("00009437_006", "Mass"),
        )
    ]
    path = root / "all_findings_expert_labels/all_findings_expert_labels_test_labels.csv"
    table(path, ["Image ID", "Patient ID", "Abnormal", *names, "Other"], rows)
    nih_images(root, *(str(row[0]) for row in rows))
    first = "images_001/images/00029560_000.png"
    return Expected(3, 2, first, {"Pleural_Thickening": 1, "Mass": 1, "Hernia": 0})


def nih_chexnet(root: Path) -> Expected:
    header = ["", "Image Index", *NIH, "Patient Age", "Patient Gender", "View Position", "fold"]
    folds = {"00000001_000": "train", "00000001_001": "train", "00000002_000": "val", "00000003_000": "test"}
    rows = [
        [n, f"{name}.png", *(int(label == "Mass" and n == 0) for label in NIH), 58, "M", "PA", fold]
        for n, (name, fold) in enumerate(folds.items())
    ]
    table(root / "nih_labels.csv", header, rows)
    nih_images(root, *(f"{name}.png" for name in folds))
    parts = {"train": 2, "val": 1, "test": 1}
    return Expected(4, 3, "images_001/images/00000001_000.png", {"Mass": 1}, parts=parts)


def chestx_det10(root: Path) -> Expected:
    records = {
        "train": [
            {"file_name": "36204.png", "syms": [], "boxes": []},
            {
                "file_name": "36205.png",
                "syms": ["Nodule", "Nodule", "Mass"],
                "boxes": [[10, 20, 30, 40], [50, 60, 70, 90], [1, 2, 3, 4]],
            },
        ],
        "test": [{"file_name": "39066.png", "syms": ["Effusion"], "boxes": [[100, 200, 300, 400]]}],
    }
    for part, rows in records.items():
        (root / f"{part}.json").write_text(json.dumps(rows))
        for row in rows:
            image(root / f"{part}_data/{row['file_name']}")
    positives = {"Nodule": 1, "Mass": 1, "Effusion": 1, "Fracture": 0}
    return Expected(3, 3, "train_data/36205.png", positives, parts={"train": 2, "test": 1}, boxes=4)


def cxr_lt_table(path: Path, labels: Sequence[str], number: int, path_column: str) -> None:
    subject, study = 10000032 + number, 50414267 + number
    dicom = f"0{number}aa-b1"
    place = f"files/p10/p{subject}/s{study}/{dicom}.jpg"
    header = [
        "dicom_id",
        "subject_id",
        "study_id",
        "ViewPosition",
        "ViewCodeSequence_CodeMeaning",
        path_column,
        *labels,
    ]
    table(
        path,
        header,
        [
            [
                dicom,
                subject,
                study,
                "PA",
                "postero-anterior",
                place,
                *(int(n == number) for n in range(len(labels))),
            ]
        ],
    )
    image(path.parents[1] / place)


def cxr_lt(root: Path) -> Expected:
    labels = listed(
        "Adenopathy,Atelectasis,Azygos Lobe,Calcification of the Aorta,Cardiomegaly,Clavicle Fracture,Consolidation,Edema,"
        "Emphysema,Enlarged Cardiomediastinum,Fibrosis,Fissure,Fracture,Granuloma,Hernia,Hydropneumothorax,Infarction,"
        "Infiltration,Kyphosis,Lobar Atelectasis,Lung Lesion,Lung Opacity,Mass,Nodule,Normal,Pleural Effusion,Pleural Other,"
        "Pleural Thickening,Pneumomediastinum,Pneumonia,Pneumoperitoneum,Pneumothorax,Pulmonary Embolism,"
        "Pulmonary Hypertension,Rib Fracture,Round(ed) Atelectasis,Subcutaneous Emphysema,Support Devices,Tortuous Aorta,"
        "Tuberculosis"
    )
    files = ("train_labeled.csv", "development_labeled_task1.csv", "test_labeled_task1.csv")
    for number, name in enumerate(files):
        cxr_lt_table(root / "cxr-lt-2024" / name, labels, number, "fpath")
    positives = {"Adenopathy": 1, "Azygos Lobe": 1, "Round(ed) Atelectasis": 0}
    first = "files/p10/p10000032/s50414267/00aa-b1.jpg"
    return Expected(3, 3, first, positives, parts={"train": 1, "val": 1, "test": 1})


def cxr_lt_2023(root: Path) -> Expected:
    labels = listed(
        "Atelectasis,Calcification of the Aorta,Cardiomegaly,Consolidation,Edema,Emphysema,Enlarged Cardiomediastinum,Fibrosis,"
        "Fracture,Hernia,Infiltration,Lung Lesion,Lung Opacity,Mass,No Finding,Nodule,Pleural Effusion,Pleural Other,"
        "Pleural Thickening,Pneumomediastinum,Pneumonia,Pneumoperitoneum,Pneumothorax,Subcutaneous Emphysema,"
        "Support Devices,Tortuous Aorta"
    )
    for number, name in enumerate(("train.csv", "development.csv", "test.csv")):
        cxr_lt_table(root / "cxr-lt-2023" / name, labels, number, "path")
    first = "files/p10/p10000033/s50414268/01aa-b1.jpg"
    parts = {"train": 1, "val": 1, "test": 1}
    return Expected(3, 3, first, {"Atelectasis": 1, "Cardiomegaly": 1}, parts=parts)


def nih_cxr_lt(root: Path) -> Expected:
    labels = listed(
        "Atelectasis,Cardiomegaly,Consolidation,Edema,Effusion,Emphysema,Fibrosis,Hernia,Infiltration,Mass,Nodule,"
        "Pleural Thickening,Pneumonia,Pneumothorax,Pneumoperitoneum,Pneumomediastinum,Subcutaneous Emphysema,Tortuous Aorta,"
        "Calcification of the Aorta,No Finding"
    )
    for number, part in enumerate(("train", "val", "test")):
        name = f"0000000{number + 1}_000.png"
        path = root / f"miccai2023_nih-cxr-lt_labels_{part}.csv"
        table(path, ["id", *labels, "subj_id"], [[name, *(int(n == number) for n in range(20)), number + 1]])
        nih_images(root, name)
    parts = {"train": 1, "val": 1, "test": 1}
    return Expected(3, 3, "images_001/images/00000001_000.png", {"Atelectasis": 1, "Hernia": 0}, parts=parts)


def rexgradient(root: Path) -> Expected:
    """The set has no labels: labels.csv is the user's, and lacks a study."""
    rows = []
    for number, part in enumerate(("train", "valid", "test")):
        study, patient = f"1.2.826.0.{number}", f"GRDN{number}ABC"
        place = f"deid_png/{patient}/GRDN{number}XYZ/studies/{study}/series/1.2.{number}/instances"
        paths = [f"{place}/1.2.1.png", f"{place}/1.2.2.png"]
        records = {
            f"p{patient}_s{study}": {
                "StudyInstanceUid": study,
                "PatientID": patient,
                "AccessionNumber": f"GRDN{number}XYZ",
                "PatientSex": "F",
                "PatientAge": "067Y",
                "StudyDate": 20190101,
                "Findings": "Clear, they say.",
                "Impression": "None.",
                "ImagePath": [f"../{path}" for path in paths],
                "ImageViewPosition": ["PA", None],
            }
        }
        if number == 0:
            records["other"] = {**next(iter(records.values())), "StudyInstanceUid": "1.9"}
        file = root / f"metadata/{part}_metadata_view_position.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(records))
        for path in paths:
            image(root / path)
        rows.append([study, 1 if number else "", "-1"])
    table(root / "labels.csv", "StudyInstanceUid,Edema,Pneumonia", rows)
    first = "deid_png/GRDN0ABC/GRDN0XYZ/studies/1.2.826.0.0/series/1.2.0/instances/1.2.1.png"
    parts = {"train": 2, "val": 2, "test": 2}
    return Expected(6, 3, first, {"Edema": 4}, {"Edema": 2, "Pneumonia": 6}, parts=parts)


def medmnist(root: Path, name: str, labels: int) -> None:
    arrays: dict[str, Any] = {}
    for part, number in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = np.full((number, 28, 28), 7, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(number * labels) % 2).reshape(number, labels).astype(np.uint8)
    np.savez(root / f"{name}.npz", **arrays)


def chestmnist(root: Path) -> Expected:
    medmnist(root, "chestmnist", 14)
    parts = {"train": 4, "val": 2, "test": 3}
    first = "chestmnist_images/train_000000.png"
    return Expected(9, 9, first, {"Atelectasis": 0, "Cardiomegaly": 9}, parts=parts)


def pneumoniamnist(root: Path) -> Expected:
    medmnist(root, "pneumoniamnist", 1)
    parts = {"train": 4, "val": 2, "test": 3}
    return Expected(9, 9, "pneumoniamnist_images/test_000002.png", {"Pneumonia": 4}, parts=parts)


LAYOUTS: dict[str, Callable[[Path], Expected]] = {
    function.__name__: function
    for function in (
        rsna, rsna_classes, rsna_nih, siim, vindr, vindr_physionet, padchest, mimic, mimic_negbio, chexpert, chexpert_full,
        chexpert_plus, brax, openi, montgomery, shenzhen, tbx11k, covid_radiography, covidx, nih_google, nih_expert, nih_chexnet, chestx_det10,
        cxr_lt, cxr_lt_2023, nih_cxr_lt, rexgradient, chestmnist, pneumoniamnist,
    )
}  # fmt: skip

# Options that read something else than one public data set, or are tested beside their readers.
OTHERS = {
    "folder", "malaria", "nih", "nih_course", "nih_sample", "pneumonia", "pneumonia_classes", "synthetic", "table",
}  # fmt: skip


def read(option: str, root: Path, expected: Expected, composed: Compose) -> Manifest:
    overrides = (f"data={option}", f"data.root={root / expected.root}", *expected.overrides)
    cfg = composed(*overrides, config_name="prepare")
    manifest: Manifest = config.build(cfg.data.reader)(root / expected.root)
    return manifest


def test_every_data_set_has_its_layout_here():
    assert set(LAYOUTS) == set(known_readers()) - OTHERS


@pytest.mark.parametrize("option", LAYOUTS)
def test_a_data_set_is_read_by_its_yaml_alone(option: str, composed: Compose, tmp_path: Path, caplog):
    expected = LAYOUTS[option](tmp_path)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        manifest = read(option, tmp_path, expected, composed)
    table = manifest.table
    assert (len(table), table["patient"].nunique()) == (expected.images, expected.patients)
    assert expected.first in set(table["image"])
    assert all((manifest.root / image).is_file() for image in table["image"])
    for label, number in expected.positives.items():
        assert (label, int((table[f"label/{label}"] == 1).sum())) == (label, number)
    for label, number in expected.unknown.items():
        assert (label, int(table[f"label/{label}"].isna().sum())) == (label, number)
    assert {part: number for part, number in table["split"].value_counts().items() if part} == expected.parts
    assert len(manifest.boxes) == expected.boxes
    assert not manifest.unusable_boxes
    if "images" in (known_readers()[option].get("published") or {}):
        assert manifest.published is not None
        assert manifest.published.kind == "part_of_published"


@pytest.mark.parametrize("option", LAYOUTS)
def test_a_folder_is_recognised_and_its_root_found(option: str, tmp_path: Path):
    expected = LAYOUTS[option](tmp_path)
    readers = known_readers()
    found = recognise(tmp_path, readers)
    assert option in {one.option for one in found}
    assert {one.root for one in found} == {tmp_path / expected.root}
    family = option.partition("_")[0]
    others = {one.option for one in found if not one.option.startswith(family)}
    assert not others, f"{option} was taken for {others}"
    inner = next(
        path for path in sorted((tmp_path / expected.root).iterdir()) if path.is_dir() or path.is_file()
    )
    if inner.is_dir() and option not in ("chexpert_full",):
        assert option in {one.option for one in recognise(inner, readers)}


@pytest.mark.parametrize(
    "option", ["chexpert", "montgomery", "tbx11k", "covid_radiography", "mimic", "chestmnist"]
)
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_root_one_folder_off_is_answered_with_the_right_one(
    option: str, way: str, composed: Compose, tmp_path: Path
):
    (tmp_path / "set").mkdir()
    expected = LAYOUTS[option](tmp_path / "set")
    right = tmp_path / "set" / expected.root
    inner = next((path for path in sorted(right.iterdir()) if path.is_dir()), right / "inner")
    inner.mkdir(exist_ok=True)
    wrong = right.parent if way == "up" else inner
    if option == "covid_radiography" and way == "down":
        pytest.skip("a class folder is a folder of images like any other")
    cfg = composed(f"data={option}", f"data.root={wrong}", config_name="prepare")
    with pytest.raises(MissingFileError, match=re.escape(f"Set data.root={right}.")):
        config.build(cfg.data.reader)(wrong)


DOCS = Path(__file__).parents[3] / "docs" / "howto"
PAGES = {
    "chexpert": ("chexpert", "chexpert_full", "chexpert_plus"),
    "mimic": ("mimic", "mimic_negbio", "cxr_lt", "cxr_lt_2023"),
    "padchest": ("padchest",),
    "vindr": ("vindr", "vindr_physionet"),
    "rsna": ("rsna", "rsna_nih", "rsna_classes"),
    "siim": ("siim",),
    "tuberculosis": ("montgomery", "shenzhen", "tbx11k"),
}


def blocks(page: str, language: str) -> str:
    text = (DOCS / f"{page}.md").read_text().replace("\\\n", " ")
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Return the data set and the other settings of its reader, of each command of a page that reads one."""
    lines = [shlex.split(line)[2:] for line in blocks(page, "sh").splitlines() if line.startswith("cxrlab")]
    found = []
    for words in lines:
        option = next((word.removeprefix("data=") for word in words if word.startswith("data=")), None)
        if option in PAGES[page]:
            found.append(
                (option, [word for word in words if word.startswith(("data.reader.", "data.labels="))])
            )
    return found


def as_other_copies(root: Path, settings: Sequence[str]) -> None:
    """Change the published tree to the copy that a command of a page is for."""
    if "data.reader.image_column=ImageID" in settings:  # PadChest, all images in one folder
        (root / "images").mkdir()
        for path in root.glob("[01]/*.png"):
            path.rename(root / "images" / path.name)
    if "data.reader.image_suffix=.png" in settings:  # VinDr, as PNG
        for path in root.glob("train/*.dicom"):
            path.rename(path.with_suffix(".png"))
    if "data.reader.tables=stage_2_train.csv" in settings:  # SIIM, second stage
        (root / "train-rle.csv").rename(root / "stage_2_train.csv")
        (root / "dicom-images-train").rename(root / "stage_2_images")


@pytest.mark.parametrize(
    ("option", "settings"),
    [command for page in PAGES for command in commands(page)],
    ids=lambda value: str(value),
)
def test_the_commands_of_the_pages_read_what_is_published(
    option: str, settings: list[str], composed: Compose, tmp_path: Path
):
    expected = LAYOUTS[option](tmp_path)
    root = tmp_path / expected.root
    as_other_copies(root, settings)
    cfg = composed(f"data={option}", f"data.root={root}", *settings, config_name="prepare")
    manifest = config.build(cfg.data.reader)(root)
    assert len(manifest) == expected.images
    assert set(cfg.data.labels or ()) <= set(manifest.labels)
    assert all((root / image).is_file() for image in manifest.table["image"])


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_that_a_page_shows_are_those_that_are_published(page: str, tmp_path: Path):
    shown = set(re.findall(r"[\w.-]+\.(?:csv|json)\b", blocks(page, "text")))
    for option in PAGES[page]:
        (tmp_path / option).mkdir()
        LAYOUTS[option](tmp_path / option)
    published = {path.name.removesuffix(".gz") for path in tmp_path.rglob("*") if path.is_file()}
    assert shown
    assert shown <= published
