"""Whether what a run started from had seen the images that it is evaluated on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import PARTS, read_table
from cxrlab.data.splits import Split, parts_from_file
from cxrlab.evaluation.caveats import contamination_caveats
from cxrlab.evaluation.contamination import (
    OVERLAPS,
    Contamination,
    EvaluatedImages,
    check_unseen,
    contamination,
    training_overlap,
)
from cxrlab.evaluation.results import Caveat
from cxrlab.files import RunDir
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.models.weights import InitialWeights
from cxrlab.runs.lineage import noted_start, run_start, run_training_data
from cxrlab.runs.run import Run
from cxrlab.runs.run_data import PredictedImages, run_facts


def run_contamination(
    runs: Sequence[Run], predicted: Sequence[PredictedImages], *, allow_seen: bool
) -> Contamination:
    """Return what is known of a run's start weights, or several runs', and the images that they predicted.

    Of another data set also whether the runs' own training images may be among them, where these could not be
    compared by content.

    Args:
        runs: One, or the members of an ensemble.
        predicted: By each of them, of the same data set and part.
        allow_seen: Whether images that were certainly seen are evaluated all the same.

    Raises:
        ConfigError: If they are of a test part, or of another data set, were certainly seen, and are not to
            be evaluated then.
    """
    first = predicted[0]
    images = _predicted(runs[0], first)
    starts = [run_start(run) for run in runs]
    found = contamination(starts, images)
    if first.is_external or first.table.part == "test":
        check_unseen(found, allow_seen=allow_seen, what=_what(first.table.part, images), advice=_KEPT)
    if first.is_external:
        for run, member in zip(runs, predicted, strict=True):
            own = Contamination(overlap="none")
            if not member.unseen:
                own = training_overlap(run_training_data(run), images)
            found = min(found, own, key=lambda each: OVERLAPS.index(each.overlap))
    validation = () if first.table.part == "val" else _validation_reasons(runs, starts)
    is_allowed = allow_seen and found.overlap == "certain"
    return replace(found, is_allowed=is_allowed, validation_reasons=validation)


def _validation_reasons(runs: Sequence[Run], starts: Sequence[InitialWeights | None]) -> tuple[str, ...]:
    """Return why runs' validation parts were certainly seen; none where that is not known."""
    found = [contamination([start], _own_part(run, "val")) for run, start in zip(runs, starts, strict=True)]
    reasons = (reason for each in found if each.overlap == "certain" for reason in each.reasons)
    return tuple(dict.fromkeys(reasons))


_KEPT = "Predictions that were made are kept."


def _predicted(run: Run, predicted: PredictedImages) -> EvaluatedImages:
    if predicted.is_external and predicted.manifest is not None:
        return EvaluatedImages.of(predicted.manifest.table.iloc[list(predicted.rows)], predicted.facts)
    return _own_part(run, predicted.table.part)


def _own_part(run: Run, part: str) -> EvaluatedImages:
    return EvaluatedImages.of(run.manifest[run.manifest["part"] == part], run.facts)


def check_run(run: Run, part: str, *, allow_seen: bool, data: DataModule | None = None) -> None:
    """Refuse a run's own test part, or another data set, that its start weights had certainly seen.

    Nothing is predicted yet: of another data set the tables are read, no image.

    Args:
        run: That would be evaluated.
        part: Of its own data, or of ``data``: ``train``, ``val``, ``test`` or ``all``.
        allow_seen: Whether it is evaluated all the same.
        data: Another data set; None for the run's own.

    Raises:
        ConfigError: Naming weights, data and key.
    """
    start = run_start(run)
    if data is not None:
        check_start(start, data, part, allow_seen=allow_seen)
    elif part == "test":  # the others say little about new patients anyway, and the page says so
        images = _own_part(run, part)
        found = contamination([start], images)
        check_unseen(found, allow_seen=allow_seen, what=_what(part, images), advice="")


def check_start(
    start: InitialWeights | None, data: DataModule, part: str, *, allow_seen: bool, advice: str = ""
) -> Contamination:
    """Refuse weights that had certainly seen a part of a data set, as early as that is known.

    Before images are decoded it is decided by what parts they are of; afterwards also by whether they are
    the very images that were kept from a training of this package.

    Args:
        start: What a network starts, or started, from; None where it is not known.
        data: The data set; its tables are read, and it is prepared where ``part`` is not ``all``.
        part: ``train``, ``val``, ``test`` or ``all``.
        allow_seen: Whether it is evaluated all the same.
        advice: What to do else, a sentence.

    Returns:
        What is known.

    Raises:
        ConfigError: Naming weights, data and key.
    """
    check_before_decoding(start, data, part, allow_seen=allow_seen, advice=advice)
    if part == "all":
        table = data.read().table
    else:
        data.prepare()
        table = data.manifest.table[data.manifest.table["part"] == part]
    images = EvaluatedImages.of(table, _facts(data))
    found = contamination([start], images)
    check_unseen(found, allow_seen=allow_seen, what=_what(part, images), advice=advice)
    return found


def check_before_decoding(
    start: InitialWeights | None, data: DataModule, part: str, *, allow_seen: bool, advice: str = ""
) -> None:
    """Refuse what is known before a data set is split, for which all images must be decoded.

    Arguments and errors are those of :func:`check_start`.
    """
    if start is None or start.seen is None:
        return
    split_later = part != "all" and data.split.method in ("grouped", "folds", "custom")
    seen = [each for each in start.seen if not (split_later and each.held_out)]
    images = before_split(data, part)
    found = contamination([replace(start, seen=seen)], images)
    check_unseen(found, allow_seen=allow_seen, what=_what(part, images), advice=advice)


def before_split(data: DataModule, part: str) -> EvaluatedImages:
    """Describe the images of a part before the data set is split, for which all of them must be decoded.

    Args:
        data: Its tables are read, no image.
        part: ``test``, or another; ``all`` for all images.
    """
    manifest = data.read()
    table = manifest.table
    method = data.split.method
    if part == "test" and method == "official":
        table = table[table["split"] == "test"]
    elif part != "all" and isinstance(data.split, Split) and data.split.file is not None:
        table = table[parts_from_file(manifest, data.split.file) == part]
    return EvaluatedImages.of(table, _facts(data))


def _facts(data: DataModule) -> DataFacts:
    name = data.read().name
    return DataFacts(name, data.split.method, is_named=data.is_named, public=data.public_name)


def _what(part: str, images: EvaluatedImages) -> str:
    name = images.data or "the data set"
    return f"the {part} part of {name}" if part in PARTS else name


def seen_by(
    runs: Mapping[str, Path], tables: Mapping[str, PredictionTable], *, allow_seen: bool
) -> list[Caveat]:
    """Return which of several runs had seen the images that they are compared on, before their training.

    Args:
        runs: Their directories by the name that the comparison gives them.
        tables: Their predictions, by the same names.
        allow_seen: Whether a run whose start weights had certainly seen the test part is compared.

    Raises:
        ConfigError: If one had, and is not to be compared then.
    """
    flags: list[Caveat] = []
    for name, folder in runs.items():
        files, part = RunDir(folder), tables[name].part
        if not files.manifest.is_file():
            continue
        manifest = read_table(files.manifest)
        facts = run_facts(files)
        images = EvaluatedImages.of(manifest[manifest["part"] == part], facts)
        found = contamination([noted_start(files)], images)
        if part == "test":
            check_unseen(found, allow_seen=allow_seen, what=f"{_what(part, images)} ({name})", advice="")
        flags += [
            replace(caveat, message=f"{name}: {caveat.message}")
            for caveat in contamination_caveats(found, facts.known_as)
        ]
    return flags
