"""The README.md of a shared folder: the Hub's header, what the model takes and gives, and its model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from cxrlab.data.public import RADIOGRAPHS, canonical, public_name
from cxrlab.deploy.record import ModelRecord
from cxrlab.files import RunDir, read_json, reading
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.models.weights.seen import UNKNOWN_DATA
from cxrlab.report.formatting import DASH, interval, number
from cxrlab.report.html import markdown

_TASK = "image-classification"
_HUB = "https://huggingface.co/"
_REMEDY = "Bring it back from a copy, or make it again by cxrlab evaluate."

# As the Hub calls them; of any other licence it wants the name apart.
_LICENCES = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0",
        "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
        "epl-2.0", "eupl-1.1", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-3.0", "mit", "mpl-2.0",
        "ms-pl", "odbl", "odc-by", "openrail", "pddl", "unlicense", "wtfpl", "zlib",
    }
)  # fmt: skip

_HOW = {"multilabel": "of each label by itself", "multiclass": "of classes that exclude one another"}

_CONTENTS = {
    "model.safetensors": "the weights, with thresholds and calibration among them.",
    "config.json": "what the network is built from, and what is known of it.",
    "thresholds.json": "thresholds and calibration as text, for other programs.",
    "README.md": "this card.",
    "predictions_sample.csv": "targets, probabilities (rounded) and predictions of some of the evaluated "
    "images, drawn and ordered at random, without anything that tells which they are.",
}


@dataclass(frozen=True)
class ModelResults:
    """What an evaluation of the model found, for the header and a table.

    Attributes:
        data: Name of the data set; "" where it has none that may be told.
        part: Of it, such as ``test``.
        fingerprint: Of the data set's manifest; "" where it is not known.
        images: How many were evaluated.
        level: Coverage of the intervals, such as 0.95.
        labels: Of each label its metrics by name, such as ``auroc``.
        macro: Their means over the labels.
    """

    data: str
    part: str
    fingerprint: str
    images: int
    level: float
    labels: Mapping[str, Mapping[str, Estimate]]
    macro: Mapping[str, Estimate]


def run_results(files: RunDir) -> ModelResults | None:
    """Return what a run's evaluation found; None where it has none.

    Raises:
        ConfigError: If its ``evaluation.json`` is damaged.
    """
    if not files.evaluation.is_file():
        return None
    content = read_json(files.evaluation, _REMEDY)
    with reading(files.evaluation, _REMEDY):
        data = content["data"]
        return ModelResults(
            data=public_name(data["name"], data["is_named"]),
            part=data["part"],
            fingerprint=data["fingerprint"] or "",
            images=int(data["images"]),
            level=float(content["interval"]["level"]),
            labels={label: _estimates(metrics) for label, metrics in content["labels"].items()},
            macro=_estimates(content["macro"]),
        )


def _estimates(metrics: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(value["value"], value["low"], value["high"]) for name, value in metrics.items()}


def run_card(files: RunDir) -> str:
    """Return the sections of a run's model card, which hold no names; "" where it has none."""
    if not files.model_card.is_file():
        return ""
    with reading(files.model_card, "Bring it back from a copy, or remove it."):
        text = files.model_card.read_text(encoding="utf-8")
    title, _, sections = text.partition("\n")
    return sections.strip() if title.startswith("# ") else text.strip()


def shared_card(
    record: ModelRecord,
    *,
    name: str,
    network: str,
    files: Sequence[str],
    results: ModelResults | None = None,
    card: str = "",
    needs_trust: bool = False,
    has_reference: bool = False,
) -> str:
    """Return the text of a shared folder's ``README.md``.

    Args:
        record: What goes with the model.
        name: Of the model.
        network: Name of its architecture, or of its class.
        files: Names of the files in the folder.
        results: Of its evaluation; None where there are none.
        card: Sections of its model card, Markdown; "" where there is none.
        needs_trust: Whether its network is of a package that a user has to trust.
        has_reference: Whether what images of its training look like goes along.
    """
    start = record.initial_weights or {}
    return markdown().get_template("shared_card.md.jinja").render(
        header=Markup(yaml.safe_dump(header(record, name, results), sort_keys=False, allow_unicode=True)),
        name=name,
        network=network,
        record=record,
        rows=_rows(record, results),
        results=results,
        card=Markup(card),
        of_labels=_of_labels(record),
        how=_HOW[record.task],
        base=start.get("title", ""),
        base_licence=start.get("licence", ""),
        trained_on=_names([record.trained_on]),
        files=[(Markup(file), _CONTENTS[file]) for file in files],
        needs_trust=needs_trust,
        has_reference=has_reference,
    )  # fmt: skip


def header(record: ModelRecord, name: str, results: ModelResults | None) -> dict[str, Any]:
    """Return the Hub's header: licence, data sets, base weights, and metrics with their intervals.

    Args:
        record: What goes with the model.
        name: Of the model.
        results: Of its evaluation; None where there are none.
    """
    start = record.initial_weights or {}
    data = _names([record.trained_on, *(start.get("seen") or ())])
    is_of_chests = canonical((record.trained_on or {}).get("data", "")) in RADIOGRAPHS
    base = start.get("source", "").removeprefix(_HUB)
    tags = ["chest-x-ray", "radiology"] if is_of_chests else []
    fields: dict[str, Any] = {
        **_licence(record.licence),
        "library_name": "cxrlab",
        "pipeline_tag": _TASK,
        "tags": ["cxrlab", "medical-imaging", *tags, "research-only"],
    }  # fmt: skip
    if data:
        fields["datasets"] = data
    if start.get("source", "").startswith(_HUB) and base.count("/") == 1:
        fields["base_model"] = base
    if results is not None:
        fields["model-index"] = [{"name": name, "results": [_indexed(results)]}]
    return fields


def _licence(licence: str) -> dict[str, str]:
    if not licence:
        return {}
    if licence.lower() in _LICENCES:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}


def _names(seen: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Return the names of data sets that have one."""
    names = (str(data.get("data", "")) for data in seen if data)
    return [name for name in dict.fromkeys(names) if name not in ("", UNKNOWN_DATA)]


_METRICS = {"auroc": ("roc_auc", "AUROC"), "average_precision": ("average_precision", "Average precision")}


def _indexed(results: ModelResults) -> dict[str, Any]:
    """Return the metrics as the Hub's ``model-index`` has them."""
    rows = [*results.labels.items()]
    if len(rows) > 1:
        rows = [("macro mean", results.macro), *rows]
    metrics = [
        {"type": kind, "name": f"{title}, {label}", **_value(estimates[name], results.level)}
        for label, estimates in rows
        for name, (kind, title) in _METRICS.items()
        if name in estimates and estimates[name].value is not None
    ]
    data = results.data or "unnamed"
    return {
        "task": {"type": _TASK, "name": "Classification of images"},
        "dataset": {"type": data, "name": data, "split": results.part}
        | ({"args": {"fingerprint": results.fingerprint}} if results.fingerprint else {}),
        "metrics": metrics,
    }


def _value(estimate: Estimate, level: float) -> dict[str, Any]:
    value = {"value": _rounded(estimate.value)}
    if estimate.low is None or estimate.high is None:
        return value
    return value | {"args": {"interval": [_rounded(estimate.low), _rounded(estimate.high)], "level": level}}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rows(record: ModelRecord, results: ModelResults | None) -> list[tuple[str, ...]]:
    """Return label, threshold, AUROC, sensitivity and specificity of each label, as text."""
    rows = []
    for label, threshold in record.thresholds.items():
        metrics = {} if results is None else results.labels.get(label, {})
        shown = [
            interval(metrics[name]) if name in metrics else DASH
            for name in ("auroc", "sensitivity", "specificity")
        ]
        rows.append((label, "none" if threshold is None else number(threshold, 4), *shown))
    return rows


def _of_labels(record: ModelRecord) -> str:
    if len(record.labels) == 1:
        return record.labels[0]
    return f"{len(record.labels)} {'findings' if record.task == 'multilabel' else 'classes'}"
