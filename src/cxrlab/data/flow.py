"""Which images a data set loses on the way from its own table to those that are used, and why."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

Reason = Literal["missing", "reader", "filter", "unreadable", "sample", "part", "trained_on", "other"]
"""Not on disk; left out by the reader; by ``data.filter``; could not be read; not drawn for training; of
another part than the evaluated one; of patients that the network was trained on; not recorded why."""


@dataclass(frozen=True)
class FlowStep:
    """Images that are left out for one reason.

    Attributes:
        reason: Why.
        images: How many.
        patients: Who have no image left by it; None where patients are not known.
        detail: What was asked for, such as ``view=PA``; may be empty.
    """

    reason: Reason
    images: int
    patients: int | None = None
    detail: str = ""


def left_out(reason: Reason, before: pd.DataFrame, after: pd.DataFrame, detail: str = "") -> FlowStep:
    """Return what a step took away.

    Args:
        reason: Why.
        before: Rows with a column ``patient``.
        after: Those that are left.
        detail: What was asked for.

    Example:
        >>> before = pd.DataFrame({"patient": ["a", "a", "b"]})
        >>> left_out("filter", before, before[:1], "view=PA")
        FlowStep(reason='filter', images=2, patients=1, detail='view=PA')
    """
    num_patients = int(before["patient"].nunique() - after["patient"].nunique())
    return FlowStep(reason, len(before) - len(after), num_patients, detail)


def listed_steps(num_listed: int, num_missing: int, num_read: int) -> list[FlowStep]:
    """Return what is lost between a data set's own table and the manifest; of whom is not known.

    Args:
        num_listed: Images in the table.
        num_missing: Of these, not on disk.
        num_read: Rows of the manifest.
    """
    refused = num_listed - num_missing - num_read
    return [FlowStep("missing", num_missing), *([FlowStep("reader", refused)] if refused > 0 else [])]
