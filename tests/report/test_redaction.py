import pytest

from cxrlab.report.html import HIDDEN, Redaction

LABELS = ["Nodule/Mass", "Edema", "v1.png"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3 images of /data/John Doe/x.png are broken", "3 images of … … are broken"),
        ("'/data/John Q Doe' was read", "… was read"),
        ('was read from "C:\\Users\\Jane Doe\\set"', "was read from …"),
        ("C:\\set\\00012.png", "…"),
        ("see 00012_003.PNG, and theirs.csv.", "see …, and …."),
        ("~/radiographs and ~jane", "… and …"),
        ("images (a/b.dcm; c/d.dcm)", "images (…; …)"),
        ("Nodule/Mass has 4 positives, 0.95 at most", "Nodule/Mass has 4 positives, 0.95 at most"),
        ("/data/Nodule/Mass/jane", "…"),
        ("outputs/2026-01-31/12-00-00 was evaluated", "outputs/2026-01-31/12-00-00 was evaluated"),
        ("outputs/jane/2026-01-31/12-00-00", "…"),
        ("The patient's images. Each image's own. 1.5 e.g. AUROC", "The patient's images. Each image's own. 1.5 e.g. AUROC"),
        ("v1.png is a label", "v1.png is a label"),
    ],
)  # fmt: skip
def test_text_loses_paths_and_file_names_only(text, shown):
    assert Redaction(LABELS, active=True).text(text) == shown
    assert Redaction(LABELS, active=False).text(text) == text


def test_a_command_keeps_its_keys():
    command = ["python", "-m", "cxrlab.train", "data=nih", "data.root=jane", "+data.split.file=a.csv", "run=[a,b]",
               "data.labels=[Nodule/Mass,Edema]", "optimizer.lr=1e-3", "resume=outputs/2026-01-31/12-00-00",
               "data.reader.tables={train: x.csv}", "data.filter.view=PA", "--config-dir", "jane"]  # fmt: skip
    shown = Redaction(LABELS, active=True).command(command)
    assert shown == (
        "python -m cxrlab.train data=nih 'data.root=…' '+data.split.file=…' 'run=…' "
        "'data.labels=[Nodule/Mass,Edema]' optimizer.lr=1e-3 resume=outputs/2026-01-31/12-00-00 "
        "'data.reader.tables=…' data.filter.view=PA --config-dir '…'"
    )
    assert "data.root=jane" in Redaction(LABELS, active=False).command(command)


def test_a_command_may_be_a_text():
    redaction = Redaction([], active=True)
    assert (
        redaction.command("/home/jane/bin/python -m x predictions='my file.csv'")
        == "'…' -m x 'predictions=…'"
    )
    assert redaction.command("x 'unfinished") == "x ''\"'\"'unfinished'"


def test_a_config_is_flat_and_shows_no_path():
    config = {
        "data": {"root": "/data/jane", "size": 224, "reader": {"_target_": "cxrlab.data.readers.nih.read", "tables": ["a.csv"]}},
        "run_dir": "x", "resume": None, "trainer": {}, "flag": True, "labels": ["Nodule/Mass"],
        "images": {"files": ["1", "2"]}, "notes": "read at /data/jane",
    }  # fmt: skip
    assert Redaction(LABELS, active=True).config(config) == [
        ("data.root", HIDDEN),
        ("data.size", "224"),
        ("data.reader._target_", "cxrlab.data.readers.nih.read"),
        ("data.reader.tables", HIDDEN),
        ("run_dir", HIDDEN),
        ("resume", "null"),
        ("trainer", "{}"),
        ("flag", "true"),
        ("labels", "['Nodule/Mass']"),
        ("images.files", HIDDEN),
        ("notes", HIDDEN),
    ]
