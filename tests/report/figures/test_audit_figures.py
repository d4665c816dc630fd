import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlab.data.audit import AuditReport
from cxrlab.data.audit import audit as run_audit
from cxrlab.data.image_statistics import Appearance
from cxrlab.data.manifest import Manifest
from cxrlab.losses import masked_bce
from cxrlab.report.figures import audit


def drawn(png: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    # Nothing runs out of the picture: its outermost pixels are empty.
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()
    assert (pixels < 200).mean() > 0.003
    return pixels


def report(num_labels: int, parts: tuple[str, ...]) -> AuditReport:
    """The audit of 60 patients with one to three images, or with 25; of one label nothing is known."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), [25, *rng.integers(1, 4, 59)])
    part = np.array(parts, dtype=object)[patient % len(parts)] if len(parts) > 1 else ""
    table = pd.DataFrame({"image": [f"{row}.png" for row in range(len(patient))], "split": "", "part": part})
    table.insert(1, "patient", patient.astype(str))
    for number in range(num_labels):
        column = (rng.random(len(table)) < 0.3).astype(float)
        table[f"label/Pleural_Thickening {number}"] = np.nan if number == 1 else column
    facts = pd.DataFrame([[0.0] * len(Appearance._fields)] * len(table), columns=list(Appearance._fields))
    facts = facts.assign(
        error="", warning="", digest="", width=32, height=32, mode="L", depth=8, levels=200, spread=200.0
    )
    facts["brightness"] = rng.normal(120, 20, len(table))
    none = pd.DataFrame({"one": [], "other": []}, dtype=int)
    manifest = Manifest(Path("/data"), table)
    return run_audit(manifest, facts, identical=[], pairs=none, missing=0, extra=[], raw=None)


@pytest.mark.parametrize("num_labels", [1, 2, 14, 30])
@pytest.mark.parametrize("parts", [("all",), ("train", "val", "test")])
def test_every_figure_is_drawn_whole_for_one_label_and_for_many(num_labels, parts):
    found = report(num_labels, parts)
    for draw in (
        audit.label_frequencies,
        audit.loss_balance,
        audit.cooccurrence,
        audit.images_per_patient,
    ):
        drawn(draw(found))
    png = audit.drift(found)
    assert (png is None) == (parts == ("all",))
    if png is not None:
        drawn(png)


def test_ages_are_drawn_for_one_value_and_for_an_empty_part():
    drawn(audit.ages({"train": np.full(5, 40.0), "test": np.array([])}))


def test_contributions_are_those_of_the_losses():
    targets = (
        torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.1, 0.5, 0.9])
    ).float()
    share = targets.mean(0)
    weights = audit.loss_contributions(share.tolist())
    logits = torch.zeros(400)
    for label in range(3):
        column = targets[:, label]
        for sign, chosen in (("positive", column == 1), ("negative", column == 0)):
            part = float(chosen.float().mean())
            one = (logits[chosen][:, None], column[chosen][:, None])
            plain = masked_bce(*one) * part / np.log(2)
            weighted = (
                masked_bce(*one, 1 - share[label : label + 1], share[label : label + 1]) * part / np.log(2)
            )
            assert weights[f"plain_{sign}"][label] == pytest.approx(float(plain), rel=1e-5)
            assert weights[f"weighted_{sign}"][label] == pytest.approx(float(weighted), rel=1e-5)
