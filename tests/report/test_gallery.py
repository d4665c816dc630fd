from cxrlab.report.model_info import Panel
from cxrlab.report.panels import gallery


def panel(finding, outcome, probability, size=3000):
    return Panel(finding=finding, outcome=outcome, probability=probability, target=float(outcome in ("TP", "FN")),
                 image=f"{outcome}{probability}", jpeg=bytes(size))  # fmt: skip


PANELS = [
    panel("Edema", outcome, probability)
    for outcome in ("TP", "FP", "FN", "TN")
    for probability in (0.3, 0.9, 0.5)
]


def test_the_most_telling_come_first():
    (group,), left_out = gallery(PANELS, 10**6)
    assert [shown.image for shown in group.errors] == ["FP0.9", "FN0.3"]
    assert [shown.image for shown in group.hits] == ["TP0.9", "TP0.5"]
    assert group.errors[0].words == "False positive: absent, predicted 0.90."
    assert group.errors[0].source.startswith("data:image/jpeg;base64,AAAA")
    assert left_out == 0


def test_the_caption_has_the_threshold_that_the_outcome_is_of():
    (group,), _ = gallery([panel("Edema", "FN", 0.87), panel("Edema", "TP", 0.95)], 10**6, {"Edema": 0.89})
    assert group.errors[0].words == "False negative: present, predicted 0.870, below the threshold 0.890."
    assert group.hits[0].words == "True positive: present, predicted 0.950, at or above the threshold 0.890."
    (group,), _ = gallery([panel("Edema", "FN", 0.95)], 10**6, {"Edema": 0.89})
    assert group.errors[0].words == "False negative: present, predicted 0.95."
    (group,), _ = gallery([panel("Edema", "FN", 0.87)], 10**6, {"Edema": None})
    assert group.errors[0].words == "False negative: present, predicted 0.87."


def test_a_small_budget_leaves_every_finding_some():
    panels = [*PANELS, *(panel("Mass", "TP", probability) for probability in (0.6, 0.7))]
    groups, left_out = gallery(panels, 3 * 4500)
    assert [(group.finding, len(group.errors), len(group.hits)) for group in groups] == [
        ("Edema", 1, 1),
        ("Mass", 0, 1),
    ]
    assert left_out == 3
    assert sum(len(shown.source) for group in groups for shown in [*group.errors, *group.hits]) < 3 * 4500


def test_no_room_at_all():
    assert gallery(PANELS, -5) == ([], 4)
    assert gallery([], 10) == ([], 0)
