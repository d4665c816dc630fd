from cxrlab.data.audit import summary, terminal_table


def test_the_summary_counts_and_tells_the_three_worst(case):
    case.table.loc[239, "patient"] = "P000"
    case.facts.loc[5, "polarity"] = -0.8
    case.extra = ["x.png"]
    case.facts.loc[7, "spread"] = 1.0
    lines = summary(case.report().findings).splitlines()
    assert lines[0] == "Audit: 1 fault, 2 warnings, 1 note; see audit.json."
    assert "more than one part" in lines[1]
    assert len(lines) == 4


def test_notes_alone_are_no_alarm(case):
    case.extra = ["x.png"]
    assert summary(case.report().findings) == "Audit: no fault, no warning. 1 note in audit.json."


def test_the_table_shows_parts_in_order_prevalence_and_findings(case):
    text = terminal_table(case.report())
    assert text.splitlines()[0].split() == ["train", "val", "test"]
    assert "Nothing was found." in text
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("Edema")] == [["50.00%"] * 3]
    case.table["label/Mass"] = float("nan")
    text = terminal_table(case.report())
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("Mass")] == [["-"] * 3]
    assert "warning 1 label without a positive or a negative in train: Mass." in text
