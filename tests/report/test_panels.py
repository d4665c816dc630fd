import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cxrlab.models
from cxrlab.data.manifest import Manifest
from cxrlab.errors import OutputError
from cxrlab.heatmaps.cases import Case
from cxrlab.heatmaps.drawing import Drawn, write_gallery
from cxrlab.heatmaps.drawing import panel as draw
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.report.model_info import Panel
from cxrlab.report.panels import draw_run_panels, outcomes_at, read_panels

PLENTY = 10**9
NETWORK_LABELS = ["Mass", "Edema", "NA"]


def manifest(num_images: int) -> Manifest:
    table = pd.DataFrame({"image": [f"{row:03d}.png" for row in range(num_images)], "split": ""})
    table["patient"] = table["image"]
    boxes = pd.DataFrame(
        [("001.png", "Edema", 0.5, 0.5, 0.25, 0.25)], columns=["image", "label", "x", "y", "width", "height"]
    )
    return Manifest(Path("/data"), table.assign(**{"label/Edema": 1.0}), boxes)


def noise(seed: int, width: int = 516, height: int = 64) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def gallery(folder: Path, outcomes: dict[str, list[str]], width: int = 516) -> list[Case]:
    """Write panels of equal size, finding by finding."""
    cases = []
    for label, (finding, kinds) in enumerate(outcomes.items()):
        for outcome in kinds:
            called, present = outcome in ("TP", "FP"), outcome in ("TP", "FN")
            cases.append(Case(len(cases), label, finding, 0.9 if called else 0.1, float(present), outcome))
    panels = [Drawn(case, noise(case.row, width), {}) for case in cases]
    write_gallery(folder, panels, manifest(max(len(cases), 2)))
    return cases


def shown(panels: list[Panel]) -> list[tuple[str, str]]:
    return [(panel.finding, panel.outcome) for panel in panels]


def test_panels_come_by_finding_with_hits_first(tmp_path: Path) -> None:
    # A finding may be called NA; a miss among the positives stands with the errors.
    gallery(tmp_path, {"NA": ["FN", "TP", "FP"], "Edema": ["TP", "TP", "FP", "FN"]})
    panels, num_left_out = read_panels(tmp_path, budget_bytes=PLENTY)
    assert num_left_out == 0
    expected = [("NA", "TP"), ("NA", "FN"), ("NA", "FP")]
    assert shown(panels) == expected + [("Edema", kind) for kind in ("TP", "TP", "FP", "FN")]
    first = panels[0]
    assert (first.image, first.probability, first.target) == ("001.png", 0.9, 1.0)
    with Image.open(io.BytesIO(first.jpeg)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (516, 64))


@pytest.mark.parametrize(("num_sides", "width"), [(2, 520), (3, 780)])
def test_large_pictures_are_made_smaller_side_by_side(tmp_path: Path, num_sides: int, width: int) -> None:
    case = Case(0, 0, "Edema", 0.9, 1.0, "TP")
    picture = noise(0, 520 * num_sides, 520)
    write_gallery(tmp_path, [Drawn(case, picture, {})], manifest(2))
    ((panel,), _) = read_panels(tmp_path, budget_bytes=PLENTY)
    with Image.open(io.BytesIO(panel.jpeg)) as shown:
        assert shown.size == (width, 260)


@pytest.mark.parametrize(("num_methods", "size"), [(1, (516, 282)), (2, (776, 308))])
def test_a_panel_of_a_small_network_is_shown_as_it_is(
    tmp_path: Path, num_methods: int, size: tuple[int, int]
) -> None:
    heatmaps = {f"method {number}": torch.ones(2, 2) for number in range(num_methods)}
    image = torch.zeros(1, 224, 224, dtype=torch.uint8)
    picture = draw(image, heatmaps, finding="Edema", probability=0.9, target=1.0, boxes=[])
    write_gallery(tmp_path, [Drawn(Case(0, 0, "Edema", 0.9, 1.0, "TP"), picture, heatmaps)], manifest(2))
    ((panel,), _) = read_panels(tmp_path, budget_bytes=PLENTY)
    with Image.open(io.BytesIO(panel.jpeg)) as shown:
        assert shown.size == size


def test_a_short_budget_takes_the_last_hit_and_the_last_error_of_every_finding(tmp_path: Path) -> None:
    kinds = ["TP", "TP", "FP", "FN"]
    gallery(tmp_path, {"Edema": kinds, "Mass": kinds, "Hernia": ["FN"]})
    whole, _ = read_panels(tmp_path, budget_bytes=PLENTY)
    sizes = [len(panel.jpeg) for panel in whole]
    first_round = {0, 2, 4, 6, 8}  # the first hit and the first error
    budget = sum(sizes[place] for place in first_round)
    panels, num_left_out = read_panels(tmp_path, budget_bytes=budget)
    assert panels == [whole[place] for place in sorted(first_round)]
    assert num_left_out == 4
    assert shown(panels)[:2] == [("Edema", "TP"), ("Edema", "FP")]
    for budget in range(0, sum(sizes), sizes[0] * 3 // 4):
        panels, num_left_out = read_panels(tmp_path, budget_bytes=budget)
        assert sum(len(panel.jpeg) for panel in panels) <= budget
        assert len(panels) + num_left_out == 9
        counts = [sum(panel.finding == finding for panel in panels) for finding in ("Edema", "Mass")]
        assert abs(counts[0] - counts[1]) <= 2
    assert read_panels(tmp_path, budget_bytes=sum(sizes)) == (whole, 0)


def test_no_gallery_gives_no_panels(tmp_path: Path) -> None:
    assert read_panels(tmp_path / "none", budget_bytes=PLENTY) == ([], 0)
    write_gallery(tmp_path, [], manifest(2))
    assert read_panels(tmp_path, budget_bytes=PLENTY) == ([], 0)


@pytest.mark.parametrize(
    "content", ["", "file,image\n", "file,image,finding,probability,target,outcome\n1,2,3,x,5,TP"]
)
def test_an_index_that_cannot_be_read_is_named(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "index.csv").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert read_panels(tmp_path, budget_bytes=PLENTY) == ([], 0)
    assert "index.csv cannot be read" in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_picture_that_is_missing_or_damaged_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery(tmp_path, {"Edema": ["TP", "TP", "FP", "FN"]})
    (tmp_path / "Edema_0_TP.png").unlink()
    (tmp_path / "Edema_1_TP.png").write_bytes((tmp_path / "Edema_1_TP.png").read_bytes()[:5000])
    (tmp_path / "Edema_2_FP.png").write_bytes(b"<html>")
    with caplog.at_level(logging.WARNING):
        panels, num_left_out = read_panels(tmp_path, budget_bytes=PLENTY)
    assert (shown(panels), num_left_out) == ([("Edema", "FN")], 0)
    assert all(f"Edema_{row}_" in caplog.text for row in range(3))


def test_pictures_elsewhere_are_not_brought_in(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    gallery(folder, {"Edema": ["TP"]})
    noise(9).save(tmp_path / "secret.png")
    index = folder / "index.csv"
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        index.write_text(index.read_text().replace("Edema_0_TP.png", name))
        assert read_panels(folder, budget_bytes=PLENTY) == ([], 0)


def test_the_numbers_are_read_back_to_the_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(200).astype(np.float32).astype(float)
    cases = [Case(row, 0, "Edema", value, 1.0, "TP") for row, value in enumerate(values)]
    write_gallery(tmp_path, [Drawn(case, Image.new("RGB", (4, 4)), {}) for case in cases], manifest(200))
    panels, _ = read_panels(tmp_path, budget_bytes=PLENTY)
    assert [panel.probability for panel in panels] == values.tolist()
    assert {panel.outcome for panel in outcomes_at(panels, {"Edema": values.min()})} == {"TP"}


def test_panels_are_evaluated_again_at_other_thresholds() -> None:
    def panel(finding: str, outcome: Any, probability: float, target: float) -> Panel:
        values = {"outcome": outcome, "probability": probability, "target": target}
        return Panel(finding=finding, image="a.png", jpeg=b"", **values)

    panels = [
        panel("Edema", "TP", 0.6, 1), panel("Edema", "TP", 0.9, 1),
        panel("Edema", "FP", 0.7, 0), panel("Edema", "FN", 0.2, 1),
        panel("Mass", "TP", 0.6, 1), panel("Hernia", "TP", 0.6, 1),
    ]  # fmt: skip
    predicted = outcomes_at(panels, {"Edema": 0.8, "Mass": float("nan")})
    assert [(one.finding, one.outcome, one.probability) for one in predicted] == [
        ("Edema", "TP", 0.9), ("Edema", "FN", 0.6), ("Edema", "TN", 0.7), ("Edema", "FN", 0.2),
        ("Mass", "TP", 0.6), ("Hernia", "TP", 0.6),
    ]  # fmt: skip
    assert outcomes_at(panels, {}) == panels


class Network(cxrlab.models.Network):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean(dim=(2, 3))

    @property
    def feature_layer(self) -> nn.Module:
        return self.conv


class Scaled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


class Pixels:
    """Pixels that know how they were decoded: of files twice as wide as they are high."""

    def __init__(self, values: np.ndarray, resize: str = "stretch") -> None:
        self.values = values
        self.resize = resize
        self.facts = pd.DataFrame({"width": [16] * len(values), "height": [8] * len(values)})

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        return self.values[rows]


def judged_run(network: nn.Module) -> tuple[Any, Any]:
    """Return a run with three labels, and what it said of six images that two of them are known of."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(1, 256, (10, 1, 8, 8), dtype=np.uint8)
    rows = [1, 2, 4, 5, 7, 9]
    frame = pd.DataFrame({"image": [f"{row:03d}.png" for row in rows]})
    frame["target/Edema"] = [1.0, 1, 0, 0, 1, np.nan]
    frame["probability/Edema"] = [0.5, 0.4, 0.6, 0.35, 0.1, 0.9]
    frame["target/NA"] = [0.0, 0, 0, 0, 0, 1]
    frame["probability/NA"] = [0.1, 0.2, 0.3, 0.4, 0.1, 0.2]
    table = PredictionTable.from_frame(frame, "the other data set")
    model = SimpleNamespace(network=network, preprocess=Scaled(), device=torch.device("cpu"))
    run = SimpleNamespace(model=model, labels=NETWORK_LABELS)
    predicted = SimpleNamespace(table=table, manifest=manifest(10), images=Pixels(pixels), rows=rows)
    return run, predicted


def test_best_hits_and_worst_errors_of_other_images_are_drawn(tmp_path: Path) -> None:
    run, predicted = judged_run(Network())
    thresholds: Any = SimpleNamespace(values=np.array([0.3, np.nan]))
    draw_run_panels(run, predicted, thresholds, tmp_path / "heatmaps", per_label=2)
    panels, _ = read_panels(tmp_path / "heatmaps", budget_bytes=PLENTY)
    # Row 1 has a box; row 4's false alarm is less sure (0.43) than row 7's miss (0.67).
    assert [(one.finding, one.image, one.outcome) for one in panels] == [
        ("Edema", "001.png", "TP"), ("Edema", "002.png", "TP"), ("Edema", "007.png", "FN"),
        ("Edema", "004.png", "FP"), ("NA", "009.png", "FN"),
    ]  # fmt: skip
    assert [one.probability for one in panels] == [0.5, 0.4, 0.1, 0.6, 0.2]


@pytest.mark.parametrize(("resize", "rows"), [("stretch", (128, 192)), ("pad", (128, 160))])
def test_a_box_stands_where_the_network_sees_it(tmp_path: Path, resize: str, rows: tuple[int, int]) -> None:
    run, predicted = judged_run(Network())
    predicted.images = Pixels(predicted.images.values, resize)
    draw_run_panels(run, predicted, None, tmp_path, per_label=2)
    (path,) = tmp_path.glob("Edema_1_*.png")
    with Image.open(path) as picture:
        radiograph = np.asarray(picture)[26:, :256]
    marked = np.nonzero((radiograph == (0, 255, 255)).all(axis=-1))
    assert [(places.min(), places.max()) for places in marked] == [rows, (128, 192)]


def test_the_output_that_is_explained_is_the_findings_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[int] = []

    def record(network: nn.Module, images: Tensor, pairs: list[tuple[int, int]], **_: Any) -> Tensor:
        explained.extend(label for _, label in pairs)
        return torch.zeros(len(pairs), 8, 8)

    monkeypatch.setattr("cxrlab.report.panels.activation_maps", record)
    run, predicted = judged_run(Network())
    draw_run_panels(run, predicted, None, tmp_path, per_label=2)
    findings = pd.read_csv(tmp_path / "index.csv", keep_default_na=False)["finding"]
    assert explained == [NETWORK_LABELS.index(finding) for finding in findings]
    assert set(findings) == {"Edema", "NA"}


def test_a_network_that_cannot_be_explained_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, predicted = judged_run(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with caplog.at_level(logging.WARNING):
        draw_run_panels(run, predicted, None, tmp_path / "heatmaps", per_label=1)
    assert "No heatmaps: Sequential lacks feature_layer" in caplog.text
    assert not (tmp_path / "heatmaps").exists()


def test_predictions_without_pixels_cannot_be_explained(tmp_path: Path) -> None:
    run, predicted = judged_run(Network())
    for change in ({"images": None}, {"manifest": None}, {"rows": [1, 2]}):
        wrong: Any = SimpleNamespace(**{**vars(predicted), **change})
        with pytest.raises(ValueError, match="the other data set comes without the pixels of its 6 images"):
            draw_run_panels(run, wrong, None, tmp_path, per_label=1)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    run, predicted = judged_run(Network())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"could not be written to .*file.*heatmaps_per_label=0"):
        draw_run_panels(run, predicted, None, tmp_path / "file", per_label=1)
