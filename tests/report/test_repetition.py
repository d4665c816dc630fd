from cxrlab.report.html import Redaction
from cxrlab.report.text import records

SESSION = {
    "command": ["python", "-m", "cxrlab.train", "data.root=/data/jane"], "started": "2026-01-01T12:00:00+00:00",
    "versions": {"python": "3.11", "cxrlab": "0.1.0"}, "commit": "abc-dirty",
    "hardware": {"processor": "a processor", "cores": 2, "processes": 1, "precision": "32-true"},
    "data": {"name": "nih", "fingerprint": "f00", "split": {"method": "file", "file": "jane.csv", "seed": 0}},
    "seconds": {"fit": 754.2, "test": 3}, "epochs": 0, "peak_gpu_gib": 1.5,
}  # fmt: skip


def test_a_session_is_told():
    (record,) = records({"Training": SESSION, "Evaluation": None}, Redaction([], active=False))
    assert record.title == ""
    assert record.command == "python -m cxrlab.train data.root=/data/jane"
    assert dict(record.rows) == {
        "started": "2026-01-01T12:00:00+00:00", "cxrlab": "0.1.0", "commit": "abc-dirty", "data": "nih",
        "data fingerprint": "f00", "split": "method file, file jane.csv, seed 0",
        "hardware": "a processor, 2 cores, processes: 1, precision 32-true", "GPU memory": "1.5 GiB at most",
        "epochs": "0", "time": "fit 12.6 min, test 3.0 s",
    }  # fmt: skip
    assert record.versions == [("python", "3.11"), ("cxrlab", "0.1.0")]


def test_no_path_is_in_it_where_it_must_not():
    found = records(
        {"Training": SESSION, "Evaluation": {"command": "python x.py"}}, Redaction([], active=True)
    )
    assert [record.title for record in found] == ["Training", "Evaluation"]
    assert "jane" not in str(found)
    assert "x.py" in found[1].command
    assert found[1].rows == []


def test_nothing_known_is_nothing_told():
    assert records({"Training": None, "Evaluation": {}}, Redaction([], active=True)) == []
