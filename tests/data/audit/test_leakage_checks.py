from cxrlab.data.audit.leakage_checks import ShownPair, crossings, shown_pairs


def test_a_patient_in_two_parts_is_a_fault_and_named_outside_of_the_message(case):
    case.table.loc[239, "patient"] = "P000"
    found = case.found()
    assert set(found) == {"patients_across_parts"}
    assert found["patients_across_parts"].severity == "fault"
    assert found["patients_across_parts"].patients == ["P000"]
    assert found["patients_across_parts"].images == [f"images/{row:04d}.png" for row in (0, 1, 239)]
    assert "P000" not in found["patients_across_parts"].message


def test_published_parts_that_share_patients_are_told_apart_from_the_split_in_use(case):
    case.table.loc[1, "split"] = "test"
    found = case.found()
    assert set(found) == {"patients_across_published_parts"}
    assert found["patients_across_published_parts"].severity == "warning"


def test_a_patient_of_no_published_part_is_in_none(case):
    case.table["split"] = ""
    case.table.loc[0, "split"] = "train"
    assert case.found() == {}


def test_identical_images_of_one_patient_are_a_warning_only(case):
    case.identical = [[0, 1]]
    found = case.found()
    assert set(found) == {"identical"}
    assert found["identical"].message == "1 group of identical images (2 images)."


def test_identical_images_across_parts_patients_and_labels(case):
    case.identical = [[0, 1], [2, 3, 238]]
    found = case.found()
    # Patient 1 (rows 2 and 3) and patient 119 (row 238) are both odd, and differ in Mass.
    assert {k: found[k].count for k in found} == {
        "identical": 2,
        "identical_across_parts": 1,
        "identical_across_patients": 1,
        "identical_across_labels": 1,
    }
    assert found["identical_across_parts"].severity == "fault"
    assert found["identical_across_parts"].images[-1] == "images/0238.png"


def test_near_identical_pairs_are_a_note_unless_they_cross(case):
    case.pairs = [(0, 1)]
    assert {k: v.severity for k, v in case.found().items()} == {"near_identical": "note"}
    case.pairs = [(0, 1), (0, 228)]  # patients 0 and 114 have the same labels
    severities = {k: v.severity for k, v in case.found().items()}
    assert severities == {
        "near_identical_across_parts": "fault",
        "near_identical_across_patients": "warning",
        "near_identical": "note",
    }


def test_near_identical_pictures_of_one_patient_may_differ_in_labels(case):
    """Two exposures of a patient, and a nodule in the later one; of two patients it cannot be."""
    case.pairs = [(2, 3)]
    case.table.loc[2, "label/Mass"] = 1 - case.table.loc[3, "label/Mass"]
    found = case.found()
    assert {name: finding.severity for name, finding in found.items()} == {
        "near_identical": "note",
        "near_identical_across_labels_of_one_patient": "note",
    }
    assert "contradict" not in "".join(finding.message for finding in found.values())
    assert shown_pairs(case.evidence())[0].across == ["labels of one patient"]
    case.table.loc[2, "patient"] = "another"
    found = case.found()
    assert found["near_identical_across_labels"].severity == "warning"
    assert "near_identical_across_labels_of_one_patient" not in found
    assert shown_pairs(case.evidence())[0].across == ["labels", "patients"]
    case.table.loc[2, "patient"] = case.table.loc[3, "patient"]
    case.identical, case.pairs = [[2, 3]], []  # the same file with two labels contradicts itself
    assert case.found()["identical_across_labels"].severity == "warning"


def test_an_unknown_label_contradicts_nothing(case):
    case.table.loc[3, ["label/Edema", "label/Mass"]] = [float("nan"), 0.0]
    case.table.loc[2, "label/Mass"] = float("nan")
    assert not crossings(case.evidence(), [[2, 3]])["labels"].any()
    case.table.loc[3, "label/Edema"] = 0.0
    assert crossings(case.evidence(), [[2, 3]])["labels"].all()


def test_the_worst_pairs_are_shown_first_and_not_more_than_24(case):
    case.identical = [[row, row + 1] for row in range(0, 60, 2)]
    case.pairs = [(10, 230)]
    pairs = shown_pairs(case.evidence())
    assert len(pairs) == 24
    assert pairs[0].rows == [10, 230]
    assert pairs[0].kind == "near-identical"
    assert "parts" in pairs[0].across
    assert pairs[1] == ShownPair(rows=[0, 1], kind="identical", across=[])


def test_patients_with_several_spellings(case):
    case.table.loc[1, "patient"] = "p000"
    case.table.loc[[3, 2], "patient"] = ["7.0", "07"]
    found = case.found()
    assert set(found) == {"patients_with_several_spellings"}
    finding = found["patients_with_several_spellings"]
    assert (finding.severity, finding.count, finding.patients) == ("warning", 2, ["07", "P000"])
    assert finding.details == ["'07' = '7.0'", "'P000' = 'p000'"]
    assert "P000" not in finding.message
    assert finding.message == "2 patients are written in more than one way; each counts as one."


def test_a_patient_with_a_third_of_the_images(case):
    case.table.loc[:119, "patient"] = "anonymous"
    found = case.found()
    assert found["dominant_patient"].severity == "warning"
    assert found["dominant_patient"].patients == ["anonymous"]
    assert "120 images of 240" in found["dominant_patient"].message
    assert "anonymous" not in found["dominant_patient"].message


def test_ids_that_a_spreadsheet_rounded(case):
    case.table.loc[:1, "patient"] = "1.2E+11"
    assert case.found()["rounded_patients"].patients == ["1.2E+11"]
