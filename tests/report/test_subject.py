from cxrlab.report.model_info import Subject


def test_all_of_a_subject_may_be_unknown():
    subject = Subject()
    assert subject.kind == "predictions"
    assert not subject.panels
    assert subject.trained_on is None
