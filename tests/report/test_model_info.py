from cxrlab.report.model_info import ModelInfo


def test_all_of_a_subject_may_be_unknown():
    model_info = ModelInfo()
    assert model_info.kind == "predictions"
    assert not model_info.panels
    assert model_info.trained_on is None
