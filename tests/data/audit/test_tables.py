import numpy as np

from cxrlab.data.audit import tables


def test_counts_of_labels_add_up_and_prevalence_leaves_the_unknown_out(case):
    case.table.loc[:29, "label/Edema"] = np.nan
    case.table.loc[case.table["part"] == "test", "label/Mass"] = np.nan
    rows = {(row.label, row.part): row for row in tables.labels(case.evidence())}
    edema = rows["Edema", "train"]
    # Rows 30 to 119 are patients 15 to 59, the odd ones of which are positive: 23 of 45.
    assert (edema.positive, edema.negative, edema.unknown) == (46, 44, 30)
    assert edema.prevalence == 46 / 90
    assert rows["Mass", "test"].prevalence is None
    assert all(
        row.positive + row.negative + row.unknown == {"train": 120, "val": 60, "test": 60}[row.part]
        for row in rows.values()
    )


def test_labels_that_occur_together(case):
    # Odd patients have Edema, every third Mass; of 120, the numbers 1, 7, 13, ... have both.
    assert tables.cooccurrence(case.evidence()) == tables.Cooccurrence(
        labels=["Edema", "Mass"], counts=[[120, 40], [40, 80]]
    )


def test_images_without_a_label_are_known_only_where_all_labels_are(case):
    case.table.loc[0, "label/Edema"] = np.nan  # patient 0 has no label
    case.table.loc[2, "label/Mass"] = np.nan  # patient 1 has Edema, whatever else
    train = tables.without_label(case.evidence())[0]
    # Patients 0, 2, 6, 8, ...: even ones but 4, 10, 16, ...: 20 of 60.
    assert train == tables.WithoutLabel("train", 39 / 119)


def test_images_per_patient_and_parts(case):
    case.table.loc[:24, "patient"] = "P000"
    train = tables.images_per_patient(case.evidence())[0]
    assert train.patients == {"1": 1, "2": 47, "20+": 1}
    assert (train.maximum, train.median) == (25, 2.0)
    assert tables.parts(case.evidence())[0] == tables.PartCounts(
        part="train", images=120, readable=120, patients=49
    )


def test_sizes_and_modes_are_of_readable_files(case):
    case.facts.loc[:9, ["width", "height"]] = [2000, 1500]
    case.facts.loc[0, "error"] = "broken"
    case.facts.loc[9, "mode"] = "RGBA"
    sizes = tables.sizes(case.evidence())
    assert sizes.num_sizes == 2
    assert sizes.most_frequent[1] == tables.SizeCount(width=2000, height=1500, images=9)
    assert tables.modes(case.evidence()) == {"L": 238, "RGBA": 1}


def test_covariates_are_numbers_categories_or_text_that_is_not_repeated(case):
    case.table["covariate/accession"] = [f"secret {row}" for row in range(240)]
    case.table.loc[case.table["part"] == "val", "covariate/age"] = np.nan
    rows = {(row.covariate, row.part): row for row in tables.covariates(case.evidence())}
    assert rows["view", "train"].counts == {"PA": 80, "AP": 40}
    assert rows["age", "train"].median == 44.5
    assert (rows["age", "val"].unknown, rows["age", "val"].median) == (60, None)
    assert rows["accession", "test"].num_values == 60
    assert "secret" not in str(rows)
