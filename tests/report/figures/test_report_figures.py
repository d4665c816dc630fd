import pandas as pd

from cxrlab.report.figures.evaluation import DESCRIPTIONS, report_figures

LABELS = ("Edema", "Mass")


def test_every_figure_is_described_and_drawn(sample_numbers, sample_curves):
    metrics = pd.DataFrame({"epoch": [0, 1], "train/loss": [1.0, 0.5], "val/auroc": [0.6, 0.7]})
    assert list(report_figures(sample_numbers(LABELS), sample_curves(LABELS), metrics)) == list(DESCRIPTIONS)


def test_figures_without_data_are_left_out(sample_numbers, sample_curves):
    numbers = sample_numbers(LABELS, validation=False) | {"subgroups": [], "gaps": []}
    drawn = report_figures(numbers, sample_curves(LABELS), None)
    assert set(DESCRIPTIONS) - set(drawn) == {"confusion", "forest", "learning_curves"}
