"""How a result can be repeated: command, versions, commit, data, hardware and seconds of a session."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cxrlab.report.formats import count, seconds
from cxrlab.report.redaction import Redaction

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Record:
    """A session as a page shows it.

    Attributes:
        title: Such as "Training"; empty where there is one session only.
        command: The command line.
        rows: Names and values.
        versions: Packages and their versions.
    """

    title: str
    command: str
    rows: Pairs
    versions: Pairs


def records(sessions: Mapping[str, Mapping[str, Any] | None], redaction: Redaction) -> list[Record]:
    """Return what is known of each session.

    Args:
        sessions: Sessions of ``provenance.json`` by title; those that are None are left out.
        redaction: Takes paths out of commands.
    """
    known = {title: session for title, session in sessions.items() if session}
    return [
        Record(
            title=title if len(known) > 1 else "",
            command=redaction.command(session.get("command") or []),
            rows=list(_rows(session, redaction)),
            versions=[(str(name), str(version)) for name, version in (session.get("versions") or {}).items()],
        )
        for title, session in known.items()
    ]


def _rows(session: Mapping[str, Any], redaction: Redaction) -> Iterator[tuple[str, str]]:
    data, versions = session.get("data") or {}, session.get("versions") or {}
    split = ", ".join(f"{key} {value}" for key, value in redaction.config(data.get("split") or {}))
    found = {
        "started": session.get("started"),
        "cxrlab": versions.get("cxrlab"),
        "commit": session.get("commit"),
        "data": redaction.text(str(data.get("name") or "")),
        "data fingerprint": data.get("fingerprint"),
        "split": split,
        "hardware": _hardware(session.get("hardware") or {}),
        "GPU memory": f"{session['peak_gpu_gib']} GiB at most" if session.get("peak_gpu_gib") else None,
        "epochs": count(session["epochs"]) if session.get("epochs") is not None else None,
        "time": _times(session.get("seconds") or {}),
    }
    yield from ((name, str(value)) for name, value in found.items() if value)


def _hardware(hardware: Mapping[str, Any]) -> str:
    units = {"cores": "{} cores", "processes": "processes: {}", "precision": "precision {}"}
    return ", ".join(units.get(name, "{}").format(value) for name, value in hardware.items() if value)


def _times(phases: Mapping[str, Any]) -> str:
    timed = {name: value for name, value in phases.items() if isinstance(value, int | float)}
    return ", ".join(f"{name.replace('_', ' ')} {seconds(value)}" for name, value in timed.items())
