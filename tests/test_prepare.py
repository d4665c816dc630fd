"""The command that decodes, splits and audits: from a composed config, and as a user starts it."""

import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image

from cxrlab.cli import config, datasets
from cxrlab.data.audit import AuditReport, terminal_table
from cxrlab.data.manifest import Manifest, read_table
from cxrlab.errors import ConfigError, MissingFileError, OutputError, UserError
from cxrlab.prepare import prepare

SMALL = (
    "data.reader.num_patients=40",
    "data.reader.size=64",
    "data.image_size=32",
    "data.num_workers=0",
)
Preparation = Callable[..., DictConfig]


@pytest.fixture(scope="session")
def small(composed: Preparation, synthetic_root: Path) -> Preparation:
    """Compose a preparation of a second: ``small(run_dir, "against=...")``."""

    def function(run_dir: Path, *overrides: str) -> DictConfig:
        options = [*SMALL, f"data.root={synthetic_root}", f"run_dir={run_dir}", *overrides]
        return composed(*options, config_name="prepare")

    return function


@pytest.fixture(scope="session")
def faulty_root(tmp_path_factory: pytest.TempPathFactory, small: Preparation, synthetic_root: Path) -> Path:
    """The synthetic set with an image that cannot be read, and one patient's image given to another."""
    prepare(small(tmp_path_factory.mktemp("drawn")))
    root = tmp_path_factory.mktemp("faulty")
    shutil.copytree(synthetic_root, root, dirs_exist_ok=True)
    folder = next(root.glob("40-patients*/images"))
    (folder / "00003_0.png").write_bytes(b"no image")
    (folder / "00009_0.png").write_bytes((folder / "00005_0.png").read_bytes())
    return root


@pytest.fixture(scope="session")
def prepared(small: Preparation, faulty_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote of it."""
    run_dir = tmp_path_factory.mktemp("prepared")
    prepare(small(run_dir, f"data.root={faulty_root}"))
    return run_dir


def test_the_manifest_says_what_is_in_which_part(prepared: Path, faulty_root: Path):
    table = read_table(prepared / "manifest.csv")
    assert set(table["part"]) == {"train", "val", "test"}
    assert table.groupby("patient")["part"].nunique().max() == 1
    there = {f"images/{path.name}" for path in faulty_root.glob("40-patients*/images/*.png")}
    assert set(table["image"]) == there - {"images/00003_0.png"}
    parts = table.set_index("image")["part"]
    assert parts["images/00009_0.png"] == parts["images/00005_0.png"]


def test_the_audit_is_written_and_says_where_the_images_are(prepared: Path, faulty_root: Path):
    report = json.loads((prepared / "audit.json").read_text())
    assert Path(report["root"]).parent == faulty_root
    found = {one["kind"]: one for one in report["findings"]}
    assert found["unreadable"]["images"] == ["images/00003_0.png"]
    assert found["identical_across_patients"]["images"] == ["images/00005_0.png", "images/00009_0.png"]
    assert "identical_across_parts" not in found
    manifest = Manifest(Path(), read_table(prepared / "manifest.csv"))
    assert report["data"]["images"] == len(manifest) + 1
    assert [row["part"] for row in report["parts"]] == ["train", "val", "test"]


def test_the_unreadable_images_are_listed(
    prepared: Path, faulty_root: Path, small: Preparation, tmp_path: Path
):
    table = pd.read_csv(prepared / "unreadable.csv")
    assert table["image"].tolist() == ["images/00003_0.png"]
    assert "00003_0.png (8 bytes) cannot be read" in table["error"].item()
    prepare(small(tmp_path, "images=false"))
    assert not (tmp_path / "unreadable.csv").exists()


def patients_and_images(run_dir: Path) -> list[str]:
    table = read_table(run_dir / "manifest.csv")
    return [*table["image"].map(lambda image: Path(image).stem), *table["patient"].unique()]


def text_of(page: str) -> str:
    """The page without what its pictures are made of, in which any word may stand by chance."""
    return re.sub(r"base64,[^\"]*", "base64,", page)


def test_the_page_shows_the_images_and_is_one_file(prepared: Path):
    page = (prepared / "audit.html").read_text()
    assert page.count("data:image/jpeg") >= 5  # a strip for each of four labels, and the duplicates
    assert page.count("data:image/png") >= 4
    assert not re.search(r"""(src|href)=["'](https?:|//)""", page)
    animations = re.findall(r'href="([^"]+\.gif)"', page)
    assert len(animations) == 5  # a label each, and the images without any
    assert all((prepared / name).is_file() for name in animations)
    assert "00003_0" in page
    assert "00009_0" in page


def test_without_images_the_page_names_and_shows_none(small: Preparation, faulty_root: Path, tmp_path: Path):
    prepare(small(tmp_path, f"data.root={faulty_root}", "images=false"))
    page = (tmp_path / "audit.html").read_text()
    assert "data:image/jpeg" not in page
    assert page.count("data:image/png") >= 4  # figures of counts
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".gif", ".png", ".jpg", ".jpeg"}]
    words = set(re.findall(r"[\w]+", text_of(page)))
    assert not words.intersection([*patients_and_images(tmp_path), "00003_0"])
    assert str(faulty_root) not in page
    assert ".png" not in text_of(page)


def test_the_report_is_returned_and_told(small: Preparation, tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        report = prepare(small(tmp_path))
    assert AuditReport.from_json(json.loads((tmp_path / "audit.json").read_text())) == report
    assert terminal_table(report) in caplog.text
    assert f"The page: {tmp_path / 'audit.html'}" in caplog.text


def test_a_data_set_is_compared_with_an_earlier_one(
    small: Preparation, prepared: Path, faulty_root: Path, tmp_path: Path, caplog
):
    """The earlier set is the same but for an image that another patient's has replaced."""
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        prepare(small(tmp_path, f"against={prepared}"))
    found = pd.read_csv(tmp_path / "against.csv")
    same = found[found["identical"]]
    ours, theirs = read_table(tmp_path / "manifest.csv"), read_table(prepared / "manifest.csv")
    expected = {(image, image) for image in theirs["image"]} - {("images/00009_0.png",) * 2}
    expected.add(("images/00005_0.png", "images/00009_0.png"))
    assert set(same[["image", "other_image"]].itertuples(index=False, name=None)) == expected
    assert found["identical"].is_monotonic_decreasing
    for column, table in (("", ours), ("other_", theirs)):
        parts = table.set_index("image")["part"]
        assert found[f"{column}part"].tolist() == parts[found[f"{column}image"]].tolist()
    number = found["other_image"].nunique()
    assert f"{number} of the {len(theirs)} images of {prepared} are among the {len(ours)}" in caplog.text
    assert (tmp_path / "audit.html").is_file()


def test_a_manifest_from_elsewhere_is_told_its_root(small: Preparation, synthetic_root: Path, tmp_path: Path):
    folder = next(synthetic_root.glob("40-patients*/images"))
    (tmp_path / "other").mkdir()
    for name in ("00001_0.png", "00002_0.png"):
        shutil.copy(folder / name, tmp_path / "other" / f"copy of {name}")
    rows = [f"copy of {number:05d}_0.png,{number},,test,1" for number in (1, 2)]
    table = tmp_path / "published.csv"
    table.write_text("\n".join(["image,patient,split,part,label/Edema", *rows]))
    with pytest.raises(
        MissingFileError, match=r"against=.*published.csv: no audit.json beside it .*against_root="
    ):
        prepare(small(tmp_path / "run", f"against={table}"))
    prepare(small(tmp_path / "run", f"against={table}", f"against_root={tmp_path / 'other'}"))
    found = pd.read_csv(tmp_path / "run" / "against.csv")
    same = found[found["identical"]].sort_values("image")
    assert same["image"].tolist() == ["images/00001_0.png", "images/00002_0.png"]
    assert same["other_image"].tolist() == ["copy of 00001_0.png", "copy of 00002_0.png"]
    assert set(found["other_part"]) == {"test"}


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["images=perhaps"], ConfigError, r"images='perhaps' does not fit"),
        (["seed=first"], ConfigError, r"seed='first' does not fit"),
        (["data.image_size=huge"], ConfigError, r"data.image_size='huge' does not fit"),
        (["data.image_size=4"], ConfigError, r"data.image_size=4 must be at least 8"),
        (
            ["+data.image_sise=64"],
            ConfigError,
            r"data.image_sise=64 is no parameter .*Did you mean image_size",
        ),
        (["data.split.method=folds"], ConfigError, r"data.split.fold=null must be the number of the fold"),
        (["data=nih"], MissingFileError, r"data.root=/nowhere"),
        (
            ["against=/nowhere/manifest.csv"],
            MissingFileError,
            r"against=/nowhere/manifest.csv: there is no such",
        ),
    ],
)
def test_a_slip_is_named(
    overrides: list[str],
    error: type[UserError],
    words: str,
    small: Preparation,
    composed: Preparation,
    tmp_path: Path,
):
    cfg = (
        composed(*overrides, "data.root=/nowhere", f"run_dir={tmp_path}", config_name="prepare")
        if overrides[0].startswith("data=")
        else small(tmp_path, *overrides)
    )
    with pytest.raises(error, match=words):
        prepare(cfg)
    assert not (tmp_path / "audit.html").exists()


def test_a_root_that_is_not_given_is_asked_for(composed: Preparation, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data.root is not set.*data.root=\.\.\."):
        prepare(composed("data=nih", f"run_dir={tmp_path}", config_name="prepare"))


def test_unreadable_images_stop_where_they_must_not_be(small: Preparation, faulty_root: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"1 of \d+ images cannot be read: .*00003_0.png"):
        prepare(small(tmp_path, f"data.root={faulty_root}", "data.on_unreadable=raise"))


def python(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_says_what_to_type_and_writes_nothing(tmp_path: Path):
    done = python("-m", "cxrlab.prepare", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("cxrlab prepare data=nih", "against=", "synthetic", "--cfg job"):
        assert words in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_starts_without_torch_and_pandas(tmp_path: Path):
    code = "import sys, cxrlab.prepare; print(sorted({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules)))"
    done = python("-c", code, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_command_line_writes_below_outputs(tmp_path: Path, synthetic_root: Path):
    arguments = [*SMALL, f"data.root={synthetic_root}", "images=false"]
    done = python("-m", "cxrlab.prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = tmp_path.glob("outputs/prepare/*/*")
    names = {path.name for path in run_dir.iterdir()}
    assert {"manifest.csv", "audit.json", "audit.html", ".hydra", "prepare.log"} <= names
    assert "The page: " in done.stdout


def test_a_slip_on_the_command_line_is_a_message_and_not_a_traceback(tmp_path: Path):
    for argument, words in (("data=nih", "data.root is not set"), ("data=mih", "mih"), ("size=9", "size")):
        done = python("-m", "cxrlab.prepare", argument, cwd=tmp_path)
        assert done.returncode == 1
        assert words in done.stderr + done.stdout
        assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """Twelve patients with two images each, of whom a table tells everything that a reader wants to know."""
    root = tmp_path / "own set"
    (root / "scans").mkdir(parents=True)
    rows = ["file;Patient ID;Gender;Age;Group;Edema;Mass;male"]
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"scans/im{number:03d}.png")
        part = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append(f"im{number:03d};P{number // 2};F;{40 + number};{part};{number % 2};{number % 3 // 2};1")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root


def auto(composed: Preparation, root: Path, run_dir: Path) -> None:
    cfg = composed("data=auto", f'data.root="{root}"', f"run_dir={run_dir}", config_name="prepare")
    assert prepare(cfg) is None


def test_auto_says_which_data_set_a_folder_is(composed: Preparation, tmp_path: Path, caplog):
    root = tmp_path / "down" / "chest_xray"
    for part in ("train", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            (root / part / name).mkdir(parents=True)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        auto(composed, tmp_path / "down", tmp_path / "run")
    assert f"data=pneumonia, in {root}: train/ with the folders NORMAL, PNEUMONIA; test/ with" in caplog.text
    assert f"  cxrlab prepare data=pneumonia data.root={root}" in caplog.text.splitlines()[-2]
    assert not (tmp_path / "run").exists()


def test_auto_writes_a_description_that_reads_the_folder(
    composed: Preparation, own_set: Path, tmp_path: Path, caplog
):
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        auto(composed, own_set, tmp_path / "run")
    path = tmp_path / "run/conf/data/own_set.yaml"
    assert f"A description to start from: {path}" in caplog.text
    assert "whether these are all findings: Edema, Mass" in caplog.text
    command = caplog.messages[-1].splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:3] == ["cxrlab", "prepare", "--config-dir"]
    settings = [
        *words[2:],
        "data.num_workers=0",
        "data.image_size=16",
        "images=false",
        f"hydra.run.dir={tmp_path}/out",
    ]
    done = python("-m", "cxrlab.prepare", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    manifest = read_table(tmp_path / "out/manifest.csv")
    assert (len(manifest), manifest["patient"].nunique()) == (24, 12)
    assert {name for name in manifest if name.startswith("label/")} == {"label/Edema", "label/Mass"}
    assert {"covariate/sex", "covariate/age"} <= set(manifest)
    assert (manifest["split"] == manifest["part"]).all()
    with pytest.raises(OutputError, match="cannot be written"):
        auto(composed, own_set, tmp_path / "run")


def test_a_description_is_called_after_its_folder_and_as_no_data_set_of_cxrlab():
    names = {
        "/data/Clinic A (2024)": "clinic_a_2024",
        "/data/nih": "my_nih",
        "/2024": "my_2024",
        "/data/胸": "mine",
    }
    assert {root: datasets._name_of(Path(root), datasets.known_readers()) for root in names} == names


def test_auto_tells_a_folder_of_classes_and_one_of_nothing(composed: Preparation, tmp_path: Path, caplog):
    for name in ("sick", "well"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "set" / name / "1.png")
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        auto(composed, tmp_path / "set", tmp_path / "run")
    assert f"cxrlab prepare data=folder data.root={tmp_path / 'set'}" in caplog.text
    assert "Its files are named like 1.png. Where a name tells the patient, add a pattern" in caplog.text
    caplog.clear()
    for name in ("P01_1.png", "P01_2.png", "P02_1.png"):
        (tmp_path / "set" / "sick" / name).write_bytes((tmp_path / "set/sick/1.png").read_bytes())
    for path in (tmp_path / "set").glob("*/1.png"):
        path.rename(path.with_name("P03_1.png"))
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        auto(composed, tmp_path / "set", tmp_path / "run")
    added = re.search(r"'(data\.reader\.patient_pattern=.*?)':", caplog.text)
    assert added
    cfg = composed("data=folder", f"data.root={tmp_path / 'set'}", added[1], config_name="prepare")
    assert cfg.data.reader.patient_pattern == "^([A-Za-z]+[0-9]+)"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing here")
    with pytest.raises(
        MissingFileError, match=r"holds neither images nor tables.*notes\.txt.*Known are: .*vindr"
    ):
        auto(composed, tmp_path / "other", tmp_path / "run")


def test_auto_is_no_data_set_to_train_on(composed: Preparation, tmp_path: Path):
    cfg = composed("data=auto", f"data.root={tmp_path}")
    reader = config.build(cfg.data.reader)
    with pytest.raises(ConfigError, match=r"cxrlab prepare data=auto data\.root="):
        reader(tmp_path)
