import logging
from pathlib import Path

import pytest
import yaml

from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.evaluation.comparison import external_tables, run_dirs, run_tables


@pytest.fixture
def make_run(tmp_path: Path, make_predictions):
    def make(name: str, *overrides: str, parts: tuple[str, ...] = ("val", "test")) -> Path:
        run = tmp_path / name
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        (run / "predictions").mkdir()
        for part in parts:
            make_predictions(part=part).to_frame().to_csv(run / "predictions" / f"{part}.csv", index=False)
        return run

    return make


def test_runs_are_named_by_folder_and_by_what_tells_them_apart(make_run):
    runs = [make_run("1/a", "model=resnet50", "seed=3"), make_run("1/b", "model=densenet121", "seed=3")]
    tables = run_tables(run_dirs(runs), None)
    assert list(tables) == ["a model=resnet50", "b model=densenet121"]
    assert {table.part for table in tables.values()} == {"test"}


def test_a_sweep_is_its_finished_jobs_in_their_order(make_run, tmp_path, caplog):
    for job in (0, 10, 2):
        make_run(f"sweep/{job}", f"optimizer.lr={job}", parts=("val",))
    (tmp_path / "sweep" / "sweep.csv").write_text("job\n")
    (tmp_path / "sweep" / "3").mkdir()
    with caplog.at_level(logging.WARNING):
        runs = run_dirs([tmp_path / "sweep"])
        tables = run_tables(runs, None)
    assert [run.name for run in runs] == ["0", "2", "10"]
    assert {table.part for table in tables.values()} == {"val"}
    assert "1 of 4 jobs" in caplog.text
    assert "validation parts are compared" in caplog.text


def test_what_is_no_run_is_named(make_run, tmp_path):
    run = make_run("a")
    with pytest.raises(MissingFileError, match=r"runs=.*nowhere holds no predictions"):
        run_dirs([run, tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="names one run twice"):
        run_dirs([run, tmp_path / "a" / "predictions" / ".."])
    with pytest.raises(MissingFileError, match=r"no predictions table .*test.csv"):
        run_tables([run, make_run("b", parts=("val",))], "test")


def test_files_of_other_programs_are_named_by_their_stem(tmp_path, make_predictions):
    for name in ("ours", "theirs"):
        make_predictions().to_frame().to_csv(tmp_path / f"{name}.csv", index=False)
    paths = [tmp_path / "ours.csv", tmp_path / "theirs.csv"]
    assert list(external_tables(paths, tmp_path / "ours.csv", [])) == ["ours", "theirs"]
    with pytest.raises(ConfigError, match="names one file twice"):
        external_tables([paths[0], paths[0]], paths[0], [])
