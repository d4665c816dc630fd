"""A data set of 240 images without any oddity, in which tests plant one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit import AuditReport, Finding, audit
from cxrlab.data.audit.finding import Evidence
from cxrlab.data.manifest import Manifest

LOOKS = {
    "brightness": 120.0, "contrast": 60.0, "spread": 200.0, "black": 0.02, "white": 0.0, "polarity": 0.8,
    "border": 0.0, "border_grey": 0.0, "border_sides": 0.0,
}  # fmt: skip


def clean_table() -> pd.DataFrame:
    """120 patients with two images each; 60 of them train, 30 validate and 30 test."""
    patient = np.repeat(np.arange(120), 2)
    parts = np.repeat(["train", "val", "test"], [120, 60, 60]).astype(object)
    return pd.DataFrame(
        {
            "image": [f"images/{row:04d}.png" for row in range(240)],
            "patient": [f"P{number:03d}" for number in patient],
            "split": parts,
            "part": parts.copy(),
            "covariate/view": np.where(patient % 3 == 0, "AP", "PA").astype(object),
            "covariate/age": 30.0 + patient % 30,
            "label/Edema": (patient % 2).astype(float),
            "label/Mass": (patient % 3 == 1).astype(float),
        }
    )


@dataclass
class Case:
    table: pd.DataFrame = field(default_factory=clean_table)
    facts: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {"error": "", "warning": "", "digest": [f"{row:x}" for row in range(240)], "width": 1024,
             "height": 1024, "mode": "L", "depth": 8, "levels": 240, **LOOKS}
        )
    )  # fmt: skip
    identical: list[list[int]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    missing: Any = 0
    extra: list[str] = field(default_factory=list)
    raw: pd.DataFrame | None = None
    num_listed: int = 0

    @property
    def manifest(self) -> Manifest:
        return Manifest(Path("/data"), self.table, name="planted", num_listed=self.num_listed)

    @property
    def pair_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.pairs, columns=["one", "other"], dtype=int)

    def report(self) -> AuditReport:
        return audit(
            self.manifest, self.facts, identical=self.identical, pairs=self.pair_table, missing=self.missing,
            extra=self.extra, raw=self.raw,
        )  # fmt: skip

    def evidence(self) -> Evidence:
        return Evidence(
            self.manifest, self.facts, self.identical, self.pair_table, self.missing, self.extra, self.raw
        )

    def found(self) -> dict[str, Finding]:
        return {finding.kind: finding for finding in self.report().findings}


@pytest.fixture
def case() -> Case:
    return Case()
