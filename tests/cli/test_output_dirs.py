from pathlib import Path

import pytest

from cxrlab.cli.config import check_outside_data, evaluation_dir, explanation_dir, run_above
from cxrlab.errors import ConfigError, MissingFileError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that looks like a run."""
    for name in ("checkpoints", ".hydra"):
        (tmp_path / "run" / name).mkdir(parents=True)
    return tmp_path / "run"


def finish(folder: str, made: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / made).write_text("{}")


def test_an_evaluation_goes_below_its_run_and_never_over_another(run: Path):
    folder = evaluation_dir(str(run), None, None, "nih")
    assert folder == str(run / "evaluations" / "nih-all")
    finish(folder, "evaluation.json")
    assert evaluation_dir(str(run), None, None, "nih") == f"{folder}-2"
    assert evaluation_dir([str(run), str(run)], None, None, None).startswith("outputs/evaluate/")


def test_heatmaps_go_below_their_run_and_never_over_others(run: Path):
    arguments = (str(run), None, None, None, None)
    first = explanation_dir(*arguments)
    assert first == str(run / "explanations" / "test")
    Path(first).mkdir(parents=True)  # what failed leaves a folder
    assert explanation_dir(*arguments) == first
    finish(first, "provenance.json")
    assert explanation_dir(*arguments) == str(run / "explanations" / "test-2")


@pytest.mark.parametrize(
    ("part", "data", "images", "expected"),
    [
        ("val", None, None, "val"),
        (None, "nih", None, "nih-all"),
        ("test", "nih", None, "nih-test"),
        (None, None, ["one.png"], "images"),
    ],
)
def test_a_folder_is_named_after_what_is_explained(
    part: str | None, data: str | None, images: object, expected: str, run: Path
):
    assert Path(explanation_dir([str(run)], None, part, data, images)).name == expected


def test_a_name_may_be_given_once(run: Path):
    folder = explanation_dir(str(run), "mine", None, None, None)
    assert folder == str(run / "explanations" / "mine")
    finish(folder, "provenance.json")
    with pytest.raises(ConfigError, match="name=mine: .* holds results already. Choose another"):
        explanation_dir(str(run), "mine", None, None, None)
    assert evaluation_dir(str(run), "mine", None, None) == str(run / "evaluations" / "mine")


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/tmp/x", ".hidden", ""])
def test_a_name_stays_below_the_run(name: str, run: Path):
    with pytest.raises(ConfigError, match="must be a plain name of a folder"):
        explanation_dir(str(run), name, None, None, None)
    with pytest.raises(ConfigError, match="must be a plain name of a folder"):
        evaluation_dir(str(run), name, None, None)


def test_heatmaps_are_of_one_run(run: Path):
    for runs in (None, [str(run), str(run)]):
        with pytest.raises(ConfigError, match="Give run=<a run directory>"):
            explanation_dir(runs, None, None, None, None)


def test_a_folder_that_is_no_run_is_named(run: Path):
    with pytest.raises(MissingFileError, match=f"is no run directory.*Did you mean run={run}"):
        explanation_dir(str(run / "checkpoints"), None, None, None, None)
    with pytest.raises(MissingFileError, match=f"is no run directory.*Did you mean run={run}"):
        evaluation_dir(str(run / "checkpoints"), None, None, None)
    assert run_above(Path("/nowhere/else"), "run") == ""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set with an image in a class folder, and an earlier run beside it."""
    for name in (
        "data/TB/study/1.png",
        "data/outputs/day/figures/1.png",
        "data/outputs/day/.hydra/config.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "data"


@pytest.mark.parametrize("folder", [".", "TB", "TB/run", "TB/study/deeper/run", "../data", "outputs/../TB/x"])
def test_outputs_among_the_images_are_refused(images: Path, folder: str):
    with pytest.raises(ConfigError, match=r"^hydra\.run\.dir=.*Choose a folder"):
        check_outside_data(images / folder, str(images))


@pytest.mark.parametrize(
    "folder", ["..", "../out", "outputs/day2", "outputs/day/evaluations/x", "new/run", "TBC"]
)
def test_outputs_beside_the_images_are_let_through(images: Path, folder: str):
    check_outside_data(images / folder, str(images))
    check_outside_data(images / folder, None)
    check_outside_data(images, str(images / "absent"))
