import pandas as pd
import pytest

from cxrlab.data.phantom.patients import FINDINGS, sample


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": image.patient,
            "number": image.number,
            "anatomy": image.anatomy,
            "ap": image.exposure.anteroposterior,
            "female": image.anatomy.female,
            "age": image.age,
            **{name: name in image.findings for name in FINDINGS},
        }
        for image in sample(num_patients=1500, seed=1)
    )


def test_patients_have_one_to_six_images_and_about_three(table: pd.DataFrame):
    counts = table["patient"].value_counts()
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert 2.7 < counts.mean() < 3.2


def test_anatomy_age_and_sex_belong_to_the_patient(table: pd.DataFrame):
    assert (table.groupby("patient")[["anatomy", "female", "age"]].nunique() == 1).all(axis=None)
    assert table["anatomy"].nunique() == table["patient"].nunique()
    assert table["age"].between(18, 90).all()


def test_prevalences_and_share_without_finding(table: pd.DataFrame):
    prevalence = table[list(FINDINGS)].mean()
    assert prevalence.between(0.18, 0.37).all(), prevalence
    assert 0.25 < (~table[list(FINDINGS)].any(axis=1)).mean() < 0.5
    assert 0.2 < table["ap"].mean() < 0.45
    assert 0.4 < table["female"].mean() < 0.5


def test_effusion_goes_with_an_enlarged_heart(table: pd.DataFrame):
    with_heart = table.groupby("Cardiomegaly")["Effusion"].mean()
    assert with_heart[True] > with_heart[False] + 0.1


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_persist(table: pd.DataFrame, name: str):
    before = table.groupby("patient")[name].shift()
    pairs = table[before.notna()]
    assert (pairs[name] == before[before.notna()]).mean() > 0.85


def test_a_larger_set_starts_with_the_smaller_one():
    few, many = sample(num_patients=3, seed=5), sample(num_patients=6, seed=5)
    assert many[: len(few)] == few
    assert sample(num_patients=3, seed=6) != few


def test_heart_ratios_lie_on_either_side_of_one_half(table: pd.DataFrame):
    ratios = [(anatomy.heart_ratio * 1.06, anatomy.enlarged_ratio) for anatomy in table["anatomy"]]
    assert all(normal < 0.5 < enlarged for normal, enlarged in ratios)
