"""The table of a sweep: one row a job, failures included, rewritten after every job."""

import json
from pathlib import Path

import pandas as pd

from cxrlab.atomic import write_text

COLUMNS = ("job", "status", "metric", "seconds", "overrides", "error")


def add_job(path: Path, row: dict[str, object], *, maximize: bool) -> pd.DataFrame:
    """Add a job to the table, sort it by the metric, and replace the file in one step.

    Each job's row also stands in a file of its own beside the table, so that jobs which end at the same
    moment in several processes cannot lose one another's.

    Args:
        path: ``sweep.csv`` in the sweep's directory.
        row: Values of ``COLUMNS``.
        maximize: Whether the best metric is the highest.

    Returns:
        The whole table, failed jobs last.
    """
    rows_dir = path.parent / ".jobs"
    rows_dir.mkdir(parents=True, exist_ok=True)
    write_text(rows_dir / f"{row['job']}.json", json.dumps({name: row[name] for name in COLUMNS}))
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(rows_dir.glob("*.json"))]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["metric"] = pd.to_numeric(table["metric"])
    table = table.sort_values(["metric", "job"], ascending=[not maximize, True], na_position="last")
    write_text(path, table.to_csv(index=False))
    return table


def close(path: Path) -> None:
    """Call jobs that did not come to an end interrupted, when their sweep is over."""
    table = pd.read_csv(path, keep_default_na=False)
    for job in table["job"][table["status"] == "running"]:
        file = path.parent / ".jobs" / f"{job}.json"
        write_text(file, json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"status": "interrupted"}))
    table["status"] = table["status"].replace("running", "interrupted")
    write_text(path, table.to_csv(index=False))


def printed(path: Path, monitor: str) -> str:
    """Return the table as text for the terminal; of the overrides it shows those in which the jobs differ."""
    table = pd.read_csv(path, keep_default_na=False, na_values={"metric": [""], "seconds": [""]})
    counts = table["status"].value_counts()
    failed = len(table) - int(counts.get("completed", 0))
    words = [str(overrides).split() for overrides in table["overrides"]]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    differing = [" ".join(word for word in line if word not in shared) for line in words]
    shown = table.assign(overrides=differing, error=table["error"].astype(str).str.slice(0, 70))
    shown = shown.rename(columns={"metric": monitor})
    if not failed:
        shown = shown.drop(columns="error")
    lines = shown.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-")
    return f"\n{lines}\n{len(table)} jobs, {failed} failed or interrupted. The table: {path}"
