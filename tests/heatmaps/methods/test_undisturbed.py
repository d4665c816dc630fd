from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cxrlab.heatmaps.methods.layers import undisturbed

Context = Callable[[], AbstractContextManager[object]]
CONTEXTS: list[Context] = [
    nullcontext,
    torch.no_grad,
    torch.inference_mode,
    partial(torch.autocast, "cpu", dtype=torch.bfloat16),
]


def half_trained() -> nn.Sequential:
    """A network in the middle of a step: gradients, a frozen layer, a mixture of modes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    network[0].requires_grad_(False)
    network.train()[1].eval()
    network(torch.ones(5, 4)).sum().backward()
    return network


def traces(network: nn.Module) -> tuple[list[bool], list[bool], list[Tensor | None], list[Tensor]]:
    """Return all that must stay: modes, flags, gradients as objects, and values of gradients and weights."""
    gradients = [parameter.grad for parameter in network.parameters()]
    known = [gradient.clone() for gradient in gradients if gradient is not None]
    return (
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        gradients,
        known + [value.clone() for value in network.state_dict().values()],
    )


def check_unchanged(
    network: nn.Module, before: tuple[list[bool], list[bool], list[Tensor | None], list[Tensor]]
) -> None:
    modes, flags, gradients, values = traces(network)
    assert (modes, flags) == before[:2]
    assert all(one is other for one, other in zip(gradients, before[2], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(values, before[3], strict=True))


def test_the_network_is_in_evaluation_mode_and_its_weights_ask_for_no_gradient() -> None:
    network = half_trained()
    with undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_everything_comes_back_whatever_was_done_inside() -> None:
    network = half_trained()
    before = traces(network)
    assert set(before[0]) == set(before[1]) == {True, False}
    assert {gradient is None for gradient in before[2]} == {True, False}
    with undisturbed(network):
        network.zero_grad()
        network(torch.ones(5, 4))
        network.train().requires_grad_(True)
    check_unchanged(network, before)


def test_everything_comes_back_after_an_exception_which_goes_on() -> None:
    network = half_trained()
    before = traces(network)
    with torch.inference_mode(), pytest.raises(KeyError, match="inside"), undisturbed(network):
        network.zero_grad()
        raise KeyError("inside")
    check_unchanged(network, before)
    network.train()(torch.ones(5, 4)).sum().backward()  # a step of training is still possible


@pytest.mark.parametrize("context", CONTEXTS)
def test_gradients_of_an_input_are_those_of_a_plain_pass(context: Context) -> None:
    network = half_trained()
    image = torch.linspace(-1, 1, 8).view(2, 4)
    plain = image.clone().requires_grad_()
    network.eval()(plain)[:, 1].square().sum().backward()
    with context(), undisturbed(network):
        given = image.clone().requires_grad_()
        logits = network(given)
        (gradient,) = torch.autograd.grad(logits[:, 1].square().sum(), given)
    assert logits.dtype == torch.float32
    assert plain.grad is not None
    torch.testing.assert_close(gradient, plain.grad, rtol=0, atol=0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("context", CONTEXTS)
def test_what_was_on_around_the_call_is_on_again_behind_it(context: Context, fails: bool) -> None:
    def state() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    network = half_trained()
    with context():
        before = state()
        with suppress(KeyError), undisturbed(network):
            assert state() == (True, False, False)
            if fails:
                raise KeyError
        assert state() == before
