import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.evaluation.comparison import (
    align,
    compare,
    external_tables,
    run_dirs,
    run_tables,
    selection_optimism,
)
from cxrlab.evaluation.paired_tests import describe, outcome
from cxrlab.evaluation.results import OF_COMPARISON, Difference, LeftOut
from cxrlab.metrics.bootstrap import Estimate, estimate, holm, p_value, patient_counts
from cxrlab.metrics.delong import delong_test
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

LABELS = ("edema", "mass", "hernia")


SETTINGS = EvaluationSettings(
    threshold="youden", calibration="platt", num_resamples=200, level=0.95, prevalence=None, age_bands=(),
    min_positives=10, min_group_images=20, seed=3,
)  # fmt: skip


def settings(**changes):
    return replace(SETTINGS, **changes)


def model(skill, seed, *, num=300, part="test", patient=True, noise=1.0):
    """Predictions of a model; targets, patients and what is hard go by the image alone."""
    truth = np.random.default_rng(99)
    owners = np.sort(truth.integers(0, num // 3, num))
    hard = truth.normal(size=(num, 3))
    targets = (truth.random((num, 3)) < (0.4, 0.2, 0.0)).astype(float)  # hernia is absent
    targets[truth.random((num, 3)) < 0.1] = np.nan
    signal = hard + skill * np.nan_to_num(targets, nan=0.5)
    scores = signal + noise * np.random.default_rng(seed).normal(size=(num, 3))
    frame = pd.DataFrame({"image": [f"{number}.png" for number in range(num)], "part": part})
    if patient:
        frame["patient"] = [f"p{owner}" for owner in owners]
    for column, label in enumerate(LABELS):
        frame[f"target/{label}"] = targets[:, column]
        frame[f"probability/{label}"] = (1 / (1 + np.exp(-scores[:, column]))).round(3)
    return PredictionTable.from_frame(frame, f"{seed}.csv")


TABLES = {"weak": model(0.5, 1), "strong": model(2.0, 2), "strong too": model(1.95, 3)}


@pytest.fixture(scope="module")
def numbers():
    return compare(TABLES, settings())


def weighted_auroc(targets, scores, weights):
    """All pairs of each resample; weights of shape (N, B)."""
    pairs = (np.sign(scores[targets == 1][:, None] - scores[targets == 0]) + 1) / 2
    positives, negatives = weights[targets == 1], weights[targets == 0]
    return (positives * (pairs @ negatives)).sum(axis=0) / (positives.sum(axis=0) * negatives.sum(axis=0))


def weighted_average_precision(targets, scores, weights):
    """Precision at the score of each positive, in each resample."""
    positives = weights * (targets == 1)[:, None]
    called = (scores >= scores[:, None]).astype(float)
    precision = (called @ positives) / np.maximum(called @ weights, 1e-9)
    return (positives * precision).sum(axis=0) / positives.sum(axis=0)


WEIGHTED = {roc_auc_score: weighted_auroc, average_precision_score: weighted_average_precision}


def resampled(table, metric):
    """Macro means of the resamples, each written out."""
    weights = patient_counts(table.num_patients, 200, 3)[table.patients].astype(float)
    by_label = [
        WEIGHTED[metric](table.targets[known, column], table.probabilities[known, column], weights[known])
        for column, known in enumerate(table.known.T[:2])
    ]
    return np.mean(by_label, axis=0)


def whole(table, metric):
    return np.mean(
        [
            metric(table.targets[known, column], table.probabilities[known, column])
            for column, known in enumerate(table.known.T[:2])
        ]
    )


def test_the_reference_is_scikit_learn_with_weights():
    table, known = TABLES["strong"], TABLES["strong"].known[:, 0]
    targets, scores = table.targets[known, 0], table.probabilities[known, 0]
    weights = patient_counts(table.num_patients, 3, 0)[table.patients][known].astype(float)
    for metric, reference in WEIGHTED.items():
        expected = [metric(targets, scores, sample_weight=drawn) for drawn in weights.T]
        np.testing.assert_allclose(reference(targets, scores, weights), expected)


def ends(interval):
    return interval.value, interval.low, interval.high


def test_leaderboard(numbers):
    values = {name: whole(table, roc_auc_score) for name, table in TABLES.items()}
    assert [one.name for one in numbers.models] == sorted(values, key=values.get, reverse=True)
    assert numbers.num_macro_labels == 2
    for one in numbers.models:
        table = TABLES[one.name]
        for key, metric in (
            ("macro_auroc", roc_auc_score),
            ("macro_average_precision", average_precision_score),
        ):
            expected = estimate(whole(table, metric), resampled(table, metric), 0.95)
            assert ends(getattr(one, key)) == pytest.approx(ends(expected), abs=1e-6)
        assert one.labels["hernia"] == Estimate(None)
        known = table.known[:, 0]
        auroc = roc_auc_score(table.targets[known, 0], table.probabilities[known, 0])
        assert one.labels["edema"].value == pytest.approx(auroc)


def test_macro_differences_are_paired(numbers):
    assert [pair.models for pair in numbers.pairs] == [
        pair for pair in combinations([one.name for one in numbers.models], 2)
    ]
    raw = []
    for pair in numbers.pairs:
        first, second = (TABLES[name] for name in pair.models)
        samples = resampled(first, roc_auc_score) - resampled(second, roc_auc_score)
        value = whole(first, roc_auc_score) - whole(second, roc_auc_score)
        assert ends(pair.difference) == pytest.approx(ends(estimate(value, samples, 0.95)), abs=1e-6)
        low = p_value(samples) <= 2 / 201
        assert low or pair.p == p_value(samples)
        assert pair.p <= p_value(samples)
        raw.append(pair.p)
    assert [pair.p_holm for pair in numbers.pairs] == holm(raw)
    assert numbers.pairs[0].description.startswith("no difference shown: 0.0")
    assert numbers.pairs[2].description.startswith(f"{numbers.models[1].name} is better by 0.")


def test_labels_are_tested_by_delong_within_patients(numbers):
    for pair in numbers.pairs:
        first, second = (TABLES[name] for name in pair.models)
        raw = []
        for column, label in enumerate(LABELS[:2]):
            scores = first.probabilities[:, column], second.probabilities[:, column]
            expected = delong_test(*scores, first.targets[:, column], first.patients, 0.95)
            got = pair.labels[label]
            assert ends(got.difference) == pytest.approx(ends(expected.difference))
            assert got.p == pytest.approx(expected.p)
            raw.append(got.p)
        assert [pair.labels[label].p_holm for label in LABELS[:2]] == holm(raw)
        assert pair.labels["hernia"] == Difference(
            Estimate(None), None, None, "not_compared", "cannot be compared: one class only"
        )


def test_what_is_said_of_the_whole(numbers):
    content = numbers.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    patients = TABLES["weak"].num_patients
    assert (numbers.data.name, numbers.data.fingerprint, numbers.data.split) == ("", None, None)
    assert (numbers.data.images, numbers.data.patients) == (300, patients)
    assert (numbers.data.part, numbers.data.source) == ("test", "1.csv, 2.csv, 3.csv")
    interval = {
        "level": 0.95,
        "unit": "patient",
        "resamples": 200,
        "seed": 3,
        "method": "percentile bootstrap",
        "others": OF_COMPARISON,
    }
    assert content["interval"] == interval
    assert numbers.left_out == LeftOut(0, [])
    assert [(one.kind, one.label) for one in numbers.flags] == [
        ("selected_best", None),
        ("one_class", "hernia"),
    ]


def test_a_model_does_not_differ_from_itself():
    table = TABLES["strong"]
    pair = compare({"a": table, "b": table}, settings()).pairs[0]
    assert pair.models == ("a", "b")
    assert pair.difference == Estimate(0.0)
    assert (pair.p, pair.p_holm) == (1.0, 1.0)
    assert pair.description == pair.labels["edema"].description == "no difference shown: 0.000"


def test_no_label_with_both_classes():
    tables = {name: table.select_labels(["hernia"]) for name, table in TABLES.items()}
    result = compare(tables, settings())
    assert result.num_macro_labels == 0
    assert [one.name for one in result.models] == list(tables)
    assert {one.macro_auroc.value for one in result.models} == {None}
    assert {pair.description for pair in result.pairs} == {"cannot be compared: one class only"}
    assert {pair.p_holm for pair in result.pairs} == {None}
    json.dumps(result.to_json(), allow_nan=False)


def test_of_many_models_the_pairs_with_the_best_are_shown():
    six = {f"m{number}": model(number / 5, number, num=120) for number in range(6)}
    all_pairs = compare(six, settings())
    assert len(all_pairs.pairs) == 15
    assert "pairs_left_out" not in {one.kind for one in all_pairs.flags}
    result = compare(six | {"m6": model(2.0, 6, num=120)}, settings())
    names = [one.name for one in result.models]
    assert [pair.models for pair in result.pairs] == [(names[0], name) for name in names[1:]]
    flags = {one.kind: one.message for one in result.flags}
    assert "Of 7 models only the pairs with the best one are shown" in flags["pairs_left_out"]
    # All 21 pairs count: the smallest p-value is worth 21 times itself.
    smallest = min(result.pairs, key=lambda pair: pair.p)
    assert smallest.p_holm == pytest.approx(21 * smallest.p)
    assert smallest.p_holm < 0.05


def test_clear_differences_are_not_lost_to_the_number_of_resamples():
    tables = {"good": model(4.0, 1, noise=0.1), "bad": model(0.0, 2)}
    pair = compare(tables, settings()).pairs[0]
    samples = resampled(tables["good"], roc_auc_score) - resampled(tables["bad"], roc_auc_score)
    assert p_value(samples) == 2 / 201
    assert pair.p == pytest.approx(2 * norm.sf(pair.difference.value / samples.std()))
    assert pair.p < 1e-6


@pytest.mark.slow
def test_equal_models_are_rarely_told_apart():
    """Seven equal models: the chance that any difference is shown is the level of all pairs together."""
    shown = 0
    for trial in range(100):
        generator = np.random.default_rng(trial)
        targets = (generator.random(150) < 0.4).astype(float)
        hard = generator.normal(size=150) + targets
        frame = pd.DataFrame({"image": [str(number) for number in range(150)], "target/x": targets})
        frame["patient"] = np.arange(150) // 2
        tables = {}
        for number in range(7):
            frame["probability/x"] = 1 / (1 + np.exp(-hard - generator.normal(size=150)))
            tables[str(number)] = PredictionTable.from_frame(frame, "x")
        result = compare(tables, settings(num_resamples=100))
        shown += any(pair.p_holm < 0.05 for pair in result.pairs)
    assert shown / 100 < 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5


def test_flags():
    unknown, other = (model(1.0, 1, num=40, patient=False, part=part) for part in ("val", ""))
    fewer = other.rows(np.arange(38)).select_labels(["mass", "edema"])
    result = compare({"a": unknown, "b": fewer}, settings())
    flags = {(one.kind, one.label): one.message for one in result.flags}
    assert {kind for kind, _ in flags} == {"selected_best", "val_part", "patients_unknown", "few_positives", "parts_differ", "images_left_out", "labels_left_out"}  # fmt: skip
    assert "{'a': 'val', 'b': 'unknown'}" in flags["parts_differ", None]
    assert "2 images are not in every table; 38 are compared" in flags["images_left_out", None]
    assert "hernia" in flags["labels_left_out", None]
    assert ("few_positives", "mass") in flags
    assert result.left_out == LeftOut(2, ["hernia"])
    assert (result.data.part, result.data.images, result.data.patients) == ("val", 38, None)
    assert result.interval.unit == "image"


@pytest.mark.parametrize(
    ("value", "low", "high", "p_holm", "expected"),
    [
        (0.021, 0.0104, 0.0316, 0.004, "a is better by 0.021 (0.010 to 0.032)"),
        (-0.021, -0.0316, -0.0104, 0.004, "b is better by 0.021 (0.010 to 0.032)"),
        (0.004, -0.01, 0.018, 0.5, "no difference shown: 0.004 (\u22120.010 to 0.018)"),
        (-0.0001, -0.01, 0.0001, 0.5, "no difference shown: 0.000 (\u22120.010 to 0.000)"),
        (0.02, 0.001, 0.04, 0.12, "no difference shown after correction for several tests: 0.020 (0.001 to 0.040)"),
        (0.02, 0.001, 0.04, 0.05, "no difference shown after correction for several tests: 0.020 (0.001 to 0.040)"),
        (0.0, None, None, 1.0, "no difference shown: 0.000"),
        (-0.5, None, None, 0.002, "b is better by 0.500"),
        (1.0, None, None, np.nan, "cannot be tested: 1.000, too little varies"),
        (None, None, None, np.nan, "cannot be compared: one class only"),
    ],
)  # fmt: skip
def test_descriptions(value, low, high, p_holm, expected):
    difference = Estimate(value, low, high)
    assert describe(("a", "b"), difference, outcome(difference, p_holm, 0.95)) == expected


def simulated(*, labels=("edema", "mass"), num=40, seed=0, with_patients=True, part="test"):
    """Targets and patients go by the image alone, probabilities by the seed."""
    numbers = np.arange(num)
    frame = pd.DataFrame({"image": [f"{number:03d}.png" for number in numbers], "part": part})
    if with_patients:
        frame["patient"] = [f"p{number // 2}" for number in numbers]
    generator = np.random.default_rng(seed)
    for label in labels:
        target = (numbers * len(label) % 7 < 3).astype(float)
        frame[f"target/{label}"] = np.where(numbers % 10 == 9, np.nan, target)
        frame[f"probability/{label}"] = generator.random(num)
    return PredictionTable.from_frame(frame, f"table {seed}")


def rows_of(one, chosen):
    return one.rows(np.asarray(chosen))


def test_the_same_table_is_left_as_it_is():
    first, second = simulated(), simulated(seed=1)
    alignment = align({"a": first, "b": second})
    assert (alignment.num_images_left_out, alignment.labels_left_out) == (0, ())
    for name, before in (("a", first), ("b", second)):
        pd.testing.assert_frame_equal(alignment.tables[name].to_frame(), before.to_frame())


def test_rows_and_labels_of_another_order_are_put_right():
    first = simulated()
    order = np.random.default_rng(3).permutation(40)
    second = rows_of(simulated(seed=1, labels=("mass", "edema")), order)
    aligned = align({"a": first, "b": second}).tables["b"]
    assert aligned.labels == ("edema", "mass")
    assert list(aligned.images) == list(first.images)
    assert list(aligned.patients) == list(first.patients)
    np.testing.assert_array_equal(aligned.targets, first.targets)
    back = np.argsort(order)
    np.testing.assert_array_equal(aligned.probabilities, second.probabilities[back][:, [1, 0]])


def test_only_common_images_and_labels_stay():
    first = rows_of(simulated(labels=("edema", "mass", "nodule")), np.arange(2, 40))
    second = rows_of(simulated(seed=1, labels=("hernia", "mass", "edema")), np.arange(0, 39))
    alignment = align({"a": first, "b": second})
    assert alignment.num_images_left_out == 3
    assert alignment.labels_left_out == ("nodule", "hernia")
    for one in alignment.tables.values():
        assert list(one.images) == [f"{number:03d}.png" for number in range(2, 39)]
        assert one.labels == ("edema", "mass")
        assert one.num_patients == 19


def test_too_few_common_images_are_rejected():
    first = simulated()
    assert len(align({"a": first, "b": rows_of(simulated(seed=1), np.arange(36))}).tables["a"]) == 36
    with pytest.raises(DataError, match=r"Only 35 images are in all tables, .*'a': 40, 'b': 35.*under 90%"):
        align({"a": first, "b": rows_of(simulated(seed=1), np.arange(35))})
    renamed = replace(first, images=np.array([f"x/{name}" for name in first.images], dtype=object))
    with pytest.raises(DataError, match="Only 0 images"):
        align({"a": first, "b": renamed})


def test_no_common_label_is_rejected():
    with pytest.raises(DataError, match=r"no label in common: .*\['edema'\].*\['mass'\]"):
        align({"a": simulated(labels=("edema",)), "b": simulated(labels=("mass",))})


@pytest.mark.parametrize(("old", "new"), [(None, 1.0), (None, 0.0), (1.0, 0.0), (0.0, np.nan)])
def test_other_targets_are_rejected(old, new):
    first, second = simulated(), simulated(seed=1)
    targets = second.targets.copy()
    old_rows = np.isnan(targets[:, 1]) if old is None else targets[:, 1] == old
    row = np.flatnonzero(old_rows)[1]
    targets[row, 1] = new
    with pytest.raises(DataError, match=rf"1 images have another target for 'mass' in 'b' .*{row:03d}\.png"):
        align({"a": first, "b": replace(second, targets=targets)})


def test_patients_come_from_any_table_that_knows_them():
    alignment = align({"a": simulated(with_patients=False), "b": simulated(seed=1)})
    for one in alignment.tables.values():
        assert one.patients_known
        assert one.num_patients == 20
    neither = align({name: simulated(with_patients=False) for name in "ab"}).tables["a"]
    assert not neither.patients_known
    assert neither.num_patients == 40


def test_patients_may_be_named_otherwise_but_not_shared_otherwise():
    first, second = simulated(), simulated(seed=1)
    names = np.array([f"other {number}" for number in range(20)], dtype=object)
    renumbered = replace(second, patients=19 - second.patients, patient_names=names)
    aligned = align({"a": first, "b": renumbered}).tables["b"]
    assert list(aligned.patients) == list(first.patients)
    torn = second.patients.copy()
    torn[1] = 1  # image 1 leaves image 0 and joins images 2 and 3
    with pytest.raises(
        DataError, match=r"'a' and 'b' disagree on .* 4 images, such as \['000.png', '001.png'"
    ):
        align({"c": simulated(with_patients=False), "a": first, "b": replace(second, patients=torn)})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(("test", "test"), "test"), (("", "test"), "test"), (("test", "val"), "val"), (("", ""), "")],
)
def test_the_most_flattering_part_is_kept(parts, expected):
    tables = {name: simulated(part=part) for name, part in zip("ab", parts, strict=True)}
    assert {one.part for one in align(tables).tables.values()} == {expected}


def test_one_table_is_no_comparison():
    with pytest.raises(ConfigError, match=r"at least two models; it has \['a'\]"):
        align({"a": simulated()})


@pytest.fixture
def make_run(tmp_path: Path, make_predictions):
    def make(name: str, *overrides: str, parts: tuple[str, ...] = ("val", "test")) -> Path:
        run = tmp_path / name
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        (run / "predictions").mkdir()
        for part in parts:
            make_predictions(part=part).to_frame().to_csv(run / "predictions" / f"{part}.csv", index=False)
        return run

    return make


def test_runs_are_named_by_folder_and_by_what_tells_them_apart(make_run):
    runs = [make_run("1/a", "model=resnet50", "seed=3"), make_run("1/b", "model=densenet121", "seed=3")]
    tables = run_tables(run_dirs(runs), None)
    assert list(tables) == ["a model=resnet50", "b model=densenet121"]
    assert {table.part for table in tables.values()} == {"test"}


def test_overrides_that_the_folder_names_are_not_repeated(make_run):
    first = make_run("s/lr=0.1,seed=1", "lr=0.1", "seed=1", "+trainer.max_steps=5")
    second = make_run("s/lr=0.1,seed=12", "lr=0.1", "seed=12")
    assert list(run_tables(run_dirs([first, second]), None)) == [
        "lr=0.1,seed=1 +trainer.max_steps=5",
        "lr=0.1,seed=12",
    ]
    other = make_run("t/seed=12", "seed=1")  # named by hand, and wrongly
    assert list(run_tables(run_dirs([second, other]), None))[1] == "seed=12 seed=1"


def write_sweep(sweep_dir: Path, folders: Sequence[str]) -> None:
    """Write what a sweep writes of its jobs: the table, and a record each."""
    (sweep_dir / ".jobs").mkdir(parents=True)
    (sweep_dir / "sweep.csv").write_text("job\n")
    for job, folder in enumerate(folders):
        (sweep_dir / ".jobs" / f"{job}.json").write_text(json.dumps({"job": job, "folder": folder}))


def test_a_sweep_is_its_finished_jobs_in_their_order(make_run, tmp_path, caplog):
    folders = [str(job) for job in range(11)]
    write_sweep(tmp_path / "sweep", folders)
    for folder in ("0", "10", "2"):
        make_run(f"sweep/{folder}", f"optimizer.lr={folder}", parts=("val",))
    (tmp_path / "sweep" / "3").mkdir()
    with caplog.at_level(logging.WARNING):
        runs = run_dirs([tmp_path / "sweep"])
        tables = run_tables(runs, None)
    assert [run.name for run in runs] == ["0", "2", "10"]
    assert {table.part for table in tables.values()} == {"val"}
    assert "1 of 4 jobs" in caplog.text
    assert "validation parts are compared" in caplog.text


@pytest.mark.parametrize("hidden", [True, False])
def test_job_folders_of_a_sweep_have_any_names(make_run, tmp_path, hidden):
    folders = ["lr=0.001,seed=1", "deep/lr=0.1/seed=1", "deep/lr=0.1/seed=2", "2026"]
    sweep_dir = tmp_path / "out" / "sweep, v=2"
    write_sweep(sweep_dir, folders)
    for folder in folders:
        make_run(str((sweep_dir / folder).relative_to(tmp_path)))
    make_run("out/sweep, v=2/deep/lr=0.1/seed=1/evaluations/other")  # no job
    if not hidden:  # copied by a program that passes hidden folders over
        shutil.rmtree(sweep_dir / ".jobs")
        shutil.rmtree(sweep_dir / "deep/lr=0.1/seed=1/evaluations")
    runs = run_dirs([sweep_dir])
    assert {str(run.relative_to(sweep_dir)) for run in runs} == set(folders)
    assert set(run_tables(runs, None)) == {"lr=0.001,seed=1", "seed=1", "seed=2", "2026"}


def test_jobs_of_two_sweeps_and_a_run_are_compared(make_run, tmp_path):
    for sweep in ("a", "b"):
        write_sweep(tmp_path / sweep, ["0", "1"])
        for job in ("0", "1"):
            make_run(f"{sweep}/{job}")
    runs = run_dirs([tmp_path / "a", make_run("single"), tmp_path / "b"])
    assert list(run_tables(runs, None)) == ["a/0", "a/1", "single", "b/0", "b/1"]
    with pytest.raises(ConfigError, match="names one run twice"):
        run_dirs([tmp_path / "a", tmp_path / "a" / "1"])


def test_a_sweep_without_a_finished_job_is_told(tmp_path):
    write_sweep(tmp_path / "sweep", ["x", "y"])
    for job in ("x", "y"):
        (tmp_path / "sweep" / job).mkdir()
    with pytest.raises(MissingFileError, match="None of the 2 jobs of the sweep"):
        run_dirs([tmp_path / "sweep"])


def test_what_is_no_run_is_named(make_run, tmp_path):
    run = make_run("a")
    with pytest.raises(MissingFileError, match=r"runs=.*nowhere holds no predictions"):
        run_dirs([run, tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="names one run twice"):
        run_dirs([run, tmp_path / "a" / "predictions" / ".."])
    with pytest.raises(MissingFileError, match=r"no predictions table .*test.csv"):
        run_tables([run, make_run("b", parts=("val",))], "test")


def test_files_of_other_programs_are_named_by_their_stem(tmp_path, make_predictions):
    for name in ("ours", "theirs"):
        make_predictions().to_frame().to_csv(tmp_path / f"{name}.csv", index=False)
    paths = [tmp_path / "ours.csv", tmp_path / "theirs.csv"]
    assert list(external_tables(paths, tmp_path / "ours.csv", [])) == ["ours", "theirs"]
    with pytest.raises(ConfigError, match="names one file twice"):
        external_tables([paths[0], paths[0]], paths[0], [])


def test_the_winner_of_two_is_flagged_as_picked():
    result = compare({name: TABLES[name] for name in ("strong", "strong too")}, settings())
    flag = next(flag for flag in result.flags if flag.kind == "selected_best")
    assert flag.message.startswith(
        "The first of 2 models was picked on these same images, so its AUROC is optimistic"
    )
    assert result.selection_optimism == pytest.approx(
        selection_optimism(
            [(whole(TABLES[name], roc_auc_score), resampled(TABLES[name], roc_auc_score)) for name in TABLES][
                1:
            ]
        ),
        abs=1e-6,
    )


def test_the_optimism_of_equal_models_is_found():
    """Equal models: the winner's mean excess over the truth, and what the resamples say of it."""
    generator = np.random.default_rng(0)
    true, said = [], []
    for _ in range(300):
        values = 0.8 + generator.normal(0, 0.02) + generator.normal(0, 0.01, 6)
        samples = values[:, None] + generator.normal(0, 0.02, 500) + generator.normal(0, 0.01, (6, 500))
        true.append(values.max() - 0.8)
        said.append(selection_optimism([(float(v), s) for v, s in zip(values, samples, strict=True)]))
    assert 0.5 < np.mean(said) / np.mean(true) < 1.1  # the resamples' models are already apart
    apart = [(0.9, 0.9 + generator.normal(0, 0.01, 500)), (0.6, 0.6 + generator.normal(0, 0.01, 500))]
    assert selection_optimism(apart) < 0.001
    assert selection_optimism([(float("nan"), np.full(5, np.nan))] * 2) is None


def test_minus_signs_are_true_ones():
    words = describe(("a", "b"), Estimate(-0.004, -0.010, 0.018), "unclear")
    assert words == "no difference shown: \u22120.004 (\u22120.010 to 0.018)"
