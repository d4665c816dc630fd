"""The section on readers."""

from dataclasses import replace

from cxrlab.evaluation.readers import LabelReaders, ReaderPair, ReaderRow, ReaderStudy
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.readers_section import readers_section
from cxrlab.report.section import PageContext

HALF = Estimate(0.5, 0.4, 0.6)


def test_readers_stand_beside_the_model(evaluated):
    pair = ReaderPair(("Ann", "Bob"), 90, Estimate(0.9, 0.8, 0.95), Estimate(0.7, 0.6, 0.8))
    row = ReaderRow(
        "Ann", 90, 30, Estimate(0.8, 0.7, 0.9), HALF, Estimate(0.85, 0.7, 0.9), Estimate(0.05, -0.1, 0.2)
    )
    study = ReaderStudy(["Ann", "Bob"], [LabelReaders("Edema", [pair], [row])])
    context = PageContext(replace(evaluated(["Edema"]), readers=study), ModelInfo(), images=True)
    page = readers_section(context)
    assert "0.850" in page
    assert "Ann and Bob" in page
    assert "0.700" in page
    assert "flatter" in page


def test_without_readings_there_is_no_section(evaluated):
    assert readers_section(PageContext(evaluated(["Edema"]), ModelInfo(), images=True)) is None
    empty = replace(evaluated(["Edema"]), readers=ReaderStudy(["Ann"], []))
    assert readers_section(PageContext(empty, ModelInfo(), images=True)) is None
