import math

import pytest
import torch

from cxrlab.errors import ConfigError
from cxrlab.scheduler import constant, cosine, plateau


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def rates(schedule: dict, sgd: torch.optim.SGD, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule["scheduler"].step()
    return seen


def test_cosine_warms_up_and_falls_as_the_formula_says():
    sgd = optimizer()
    schedule = cosine(sgd, num_steps=100, monitor="val/auroc", warmup_fraction=0.1, final_factor=0.01)
    seen = rates(schedule, sgd, 101)
    assert schedule["interval"] == "step"
    assert seen[:3] == pytest.approx([0.1 / 11, 0.2 / 11, 0.3 / 11])
    assert seen[10] == pytest.approx(0.1)
    assert max(seen) == pytest.approx(0.1)
    middle = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 45 / 90))
    assert seen[55] == pytest.approx(0.1 * middle)
    assert seen[100] == pytest.approx(0.001)


def test_the_state_of_a_schedule_is_plain_and_a_resumed_run_follows_its_own_length():
    def schedule(num_steps: int) -> tuple[dict, torch.optim.SGD]:
        sgd = optimizer()
        return cosine(
            sgd, num_steps=num_steps, monitor="val/auroc", warmup_fraction=0.0, final_factor=0.0
        ), sgd

    first, sgd = schedule(10)
    rates(first, sgd, 5)
    state = first["scheduler"].state_dict()
    assert all(isinstance(value, (int, float, str, list, dict, bool, type(None))) for value in state.values())
    longer, sgd = schedule(20)
    longer["scheduler"].load_state_dict(state)
    sgd.step()
    longer["scheduler"].step()
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 6 / 20)))


@pytest.mark.parametrize(("name", "value"), [("warmup_fraction", 1.5), ("final_factor", -0.1)])
def test_a_fraction_outside_0_and_1_is_refused(name: str, value: float):
    arguments = {"warmup_fraction": 0.1, "final_factor": 0.0, name: value}
    with pytest.raises(ConfigError, match=f"scheduler.{name}={value}"):
        cosine(optimizer(), num_steps=10, monitor="val/auroc", **arguments)


def test_plateau_multiplies_the_rate_after_patience_is_over():
    sgd = optimizer()
    schedule = plateau(
        sgd, num_steps=10, monitor="val/auroc", mode="max", factor=0.3, patience=1, min_lr=1e-6
    )
    assert schedule["monitor"] == "val/auroc"
    for value in (0.5, 0.6, 0.6, 0.6):
        schedule["scheduler"].step(value)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.03)


def test_constant_stays():
    sgd = optimizer()
    assert rates(constant(sgd, num_steps=5, monitor="val/auroc"), sgd, 5) == [0.1] * 5
