import io

import numpy as np
import pytest
import torch
from PIL import Image

from cxrlab.losses import masked_bce
from cxrlab.report.figures import audit


def drawn(png: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    # Nothing runs out of the picture: its outermost pixels are empty.
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()
    assert (pixels < 200).mean() > 0.003
    return pixels


def report(num_labels: int, parts: tuple[str, ...]) -> dict:
    labels = [f"Pleural_Thickening {number}" for number in range(num_labels)]
    rng = np.random.default_rng(0)
    return {
        "data": {"labels": labels},
        "parts": [{"part": part} for part in parts],
        "labels": [
            {
                "label": label,
                "part": part,
                "prevalence": None if label.endswith(" 1") else float(rng.random()),
            }
            for part in parts
            for label in labels
        ],
        "cooccurrence": {"labels": labels, "counts": rng.integers(0, 50, (num_labels, num_labels)).tolist()},
        "images_per_patient": [{"part": part, "patients": {"1": 4, "3": 1, "20+": 2}} for part in parts],
        "drift": [
            {
                "variable": label,
                "reference": "train",
                "part": part,
                "flagged": False,
                "smd": None if label.endswith(" 1") else 0.1,
            }
            for part in parts[1:]
            for label in labels
        ],
    }


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
