from cxrlab.report.tables import Cell, estimated, has_any

AUROC = {"value": 0.9, "low": 0.8, "high": 0.95}


def test_a_metric_that_is_not_there_or_undefined_is_a_dash():
    assert estimated({}, "auroc") == Cell("\u2013")
    assert estimated({"auroc": {"value": None, "low": None, "high": None}}, "auroc") == Cell("\u2013")
    assert estimated({"auroc": AUROC}, "auroc", 1) == Cell("0.9", "0.8 to 0.9")


def test_whether_any_row_has_a_metric():
    assert has_any([{}, {"auroc": AUROC}], "auroc")
    assert not has_any([{}, {"auroc": {"value": None}}], "auroc")
