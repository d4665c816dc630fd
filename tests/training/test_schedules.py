import math
from types import SimpleNamespace

import pytest
import torch

from cxrlab.errors import ConfigError
from cxrlab.training.schedules import constant, cosine, one_cycle, plateau, training_length


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
    schedule = cosine(
        sgd, num_steps=100, num_epochs=10, warmup_fraction=0.1, warmup_epochs=None, final_factor=0.01
    )
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
            sgd, num_steps=num_steps, num_epochs=5, warmup_fraction=0.0, warmup_epochs=None, final_factor=0.0
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


@pytest.mark.parametrize(("name", "value"), [("warmup_fraction", 1.0), ("final_factor", -0.1)])
def test_a_fraction_outside_0_and_1_is_rejected(name: str, value: float):
    arguments = {"warmup_fraction": 0.1, "warmup_epochs": None, "final_factor": 0.0, name: value}
    with pytest.raises(ConfigError, match=f"scheduler.{name}={value}"):
        cosine(optimizer(), num_steps=10, num_epochs=2, **arguments)


def test_plateau_multiplies_the_rate_after_patience_is_over():
    sgd = optimizer()
    schedule = plateau(
        sgd, num_steps=10, num_epochs=5, monitor="val/auroc", mode="max", factor=0.3, patience=2, min_lr=1e-6
    )
    assert schedule["monitor"] == "val/auroc"
    seen = []
    for value in (0.5, 0.6, 0.6, 0.6):
        schedule["scheduler"].step(value)
        seen.append(sgd.param_groups[0]["lr"])
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.03])


def test_plateau_counts_epochs_as_keras_does():
    """The log of a published training: Keras lowered its rate after epochs 7, 9 and 11, with a patience of 2."""
    accuracies = [0.5, 0.5, 0.5625, 0.6875, 0.9375, 0.5625, 0.8125, 0.5, 0.625, 0.625, 0.625, 0.625]
    sgd = optimizer()
    schedule = plateau(sgd, num_steps=10, num_epochs=12, mode="max", factor=0.3, patience=2)["scheduler"]
    rates = [0.1]
    for accuracy in accuracies:
        schedule.step(accuracy)
        rates.append(sgd.param_groups[0]["lr"])
    assert [epoch for epoch in range(1, 13) if rates[epoch] < rates[epoch - 1]] == [7, 9, 11]


def test_constant_stays():
    sgd = optimizer()
    assert rates(constant(sgd, num_steps=5, num_epochs=5), sgd, 5) == [0.1] * 5


def test_a_warm_up_can_be_given_in_epochs():
    sgd = optimizer()
    schedule = cosine(
        sgd, num_steps=100, num_epochs=10, warmup_fraction=0.9, warmup_epochs=2, final_factor=0.0
    )
    seen = rates(schedule, sgd, 100)
    assert seen.index(max(seen)) == 20


@pytest.mark.parametrize("warmup_epochs", [10, 11.5, -1])
def test_a_warm_up_no_shorter_than_training_is_rejected(warmup_epochs: float):
    words = rf"scheduler\.warmup_epochs={warmup_epochs} does not fit into a training of 10 epochs.*max_epochs"
    with pytest.raises(ConfigError, match=words):
        cosine(
            optimizer(),
            num_steps=100,
            num_epochs=10,
            warmup_fraction=0.1,
            warmup_epochs=warmup_epochs,
            final_factor=0.0,
        )


CYCLE = {"num_epochs": 10, "warmup_fraction": 0.3, "start_divisor": 25.0, "final_divisor": 1e4}


def two_groups() -> torch.optim.SGD:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD(
        [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.01}], lr=0.1, momentum=0.9
    )


def test_one_cycle_rises_falls_and_moves_momentum_the_other_way():
    sgd = two_groups()
    schedule = one_cycle(sgd, num_steps=100, cycle_momentum=True, **CYCLE)
    assert schedule["interval"] == "step"
    seen, momenta = [], []
    for _ in range(100):
        seen.append([group["lr"] for group in sgd.param_groups])
        momenta.append(sgd.param_groups[0]["momentum"])
        sgd.step()
        schedule["scheduler"].step()
    first, second = zip(*seen, strict=True)
    assert first[0] == pytest.approx(0.1 / 25)
    assert (max(first), first.index(max(first))) == (pytest.approx(0.1), 29)
    assert first[99] == pytest.approx(0.1 / 25 / 1e4)
    assert second == pytest.approx([rate / 10 for rate in first])
    assert (momenta[0], momenta[29]) == (pytest.approx(0.95), pytest.approx(0.85))


def test_a_resumed_cycle_follows_its_own_length():
    first = one_cycle(sgd := two_groups(), num_steps=10, cycle_momentum=False, **CYCLE)
    rates(first, sgd, 10)
    longer = one_cycle(sgd := two_groups(), num_steps=20, cycle_momentum=False, **CYCLE)
    longer["scheduler"].load_state_dict(first["scheduler"].state_dict())
    resumed = rates(longer, sgd, 10)[1:]
    whole = one_cycle(sgd := two_groups(), num_steps=20, cycle_momentum=False, **CYCLE)
    assert resumed == pytest.approx(rates(whole, sgd, 20)[11:])
    same = one_cycle(two_groups(), num_steps=10, cycle_momentum=False, **CYCLE)["scheduler"]
    same.load_state_dict(first["scheduler"].state_dict())
    assert same.state_dict() == first["scheduler"].state_dict()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warmup_fraction": 1.0}, r"scheduler\.warmup_fraction=1\.0 must be at least 0 and below 1"),
        ({"start_divisor": 0.5}, r"scheduler\.start_divisor=0\.5 must be at least 1"),
        ({"cycle_momentum": True}, r"scheduler\.cycle_momentum=true, but the optimizer has no momentum"),
    ],
)
def test_a_cycle_out_of_range_is_rejected(changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        one_cycle(optimizer(), num_steps=10, **{"cycle_momentum": False, **CYCLE, **changes})


PLATEAU = {"num_steps": 10, "num_epochs": 5, "monitor": "val/loss", "mode": "min", "min_lr": 1e-6}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"factor": 1.0}, r"scheduler\.factor=1\.0 must lie between 0 and 1"),
        ({"patience": 0}, r"scheduler\.patience=0 must be at least 1 epoch"),
        ({"factor": 0.0}, r"scheduler\.factor=0\.0 must lie between 0 and 1"),
        ({"min_lr": 0.2}, r"scheduler\.min_lr=0\.2 is above the optimizer's rate of 0\.1"),
        ({"min_lr": -0.1}, r"scheduler\.min_lr=-0\.1 must not be negative"),
    ],
)
def test_a_plateau_out_of_range_is_rejected(changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        plateau(optimizer(), **{**PLATEAU, "factor": 0.3, "patience": 2, **changes})


def test_a_patience_too_long_for_training_is_warned_about(caplog: pytest.LogCaptureFixture):
    plateau(optimizer(), factor=0.3, patience=3, **PLATEAU)
    assert not caplog.text
    plateau(optimizer(), factor=0.3, patience=4, **PLATEAU)
    assert "scheduler.patience=4: in a training of 5 epochs the rate never falls" in caplog.text


def test_a_group_below_the_floor_of_a_plateau_keeps_its_rate():
    sgd = two_groups()
    schedule = plateau(sgd, factor=0.3, patience=1, **{**PLATEAU, "min_lr": 0.05})["scheduler"]
    for _ in range(3):
        schedule.step(1.0)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.05, 0.01])


@pytest.mark.parametrize("warmup_fraction", [0, 0.1, 0.05])
def test_a_cycle_may_have_a_rise_of_a_step_or_none_and_stays_at_its_end(warmup_fraction: float):
    sgd = two_groups()
    options = {**CYCLE, "warmup_fraction": warmup_fraction}
    schedule = one_cycle(sgd, num_steps=10, cycle_momentum=False, **options)
    seen = rates(schedule, sgd, 13)
    assert max(seen) == pytest.approx(0.1, rel=0.05)
    assert seen[12] == seen[11] == seen[10]


@pytest.mark.parametrize(
    ("batches", "options", "expected"),
    [
        (7, {"max_epochs": 3}, (21, 3)),
        (7, {"max_epochs": 3, "accumulate_grad_batches": 2}, (12, 3)),
        (7, {"max_epochs": 3, "limit_train_batches": 2}, (6, 3)),
        (7, {"max_epochs": 9, "max_steps": 15}, (15, 3)),
        (7, {"max_epochs": -1, "max_steps": 15}, (15, 3)),
    ],
)
def test_the_length_of_a_training_in_steps_and_epochs(batches: int, options: dict, expected: tuple):
    trainer = SimpleNamespace(
        **{
            "datamodule": SimpleNamespace(num_training_batches=batches),
            **{"limit_train_batches": 1.0, "accumulate_grad_batches": 1, "max_steps": -1},
            **options,
        }
    )
    assert training_length(trainer) == expected
