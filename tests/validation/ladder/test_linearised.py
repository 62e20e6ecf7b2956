"""The task of a linearised network against forward derivatives of the network itself."""

import numpy as np
import pytest
import torch
from torch.func import jvp

import nqm
from nqm.validation import load_data, mlp
from nqm.validation.ladder.linearised import jacobian, linearised_gradient, linearised_task
from nqm.validation.ladder.task import train
from nqm.validation.training.functional import flatten, outputs, parameters_of, unflatten

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # of torch.func.jvp itself


@pytest.fixture(scope="module")
def net():
    return mlp((1, 8, 8), 10, width=4, seed=1).double()


def test_jacobian_and_gradient_against_jvp(net):
    data = load_data("digits")
    parameters, x = parameters_of(net), data.x[:6].double()
    targets = torch.nn.functional.one_hot(data.y[:6], 10).double()
    size = flatten(parameters).numel()
    delta = torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = jacobian(net, parameters, x)
        found = linearised_gradient(net, parameters, delta, x.reshape(2, 3, 1, 8, 8), targets.reshape(2, 3, 10))
    for run in range(2):
        batch = slice(3 * run, 3 * run + 3)
        plain, change = jvp(
            lambda p, batch=batch: outputs(net, p, x[batch]), (parameters,), (unflatten(delta[run], parameters),)
        )
        torch.testing.assert_close(slope[batch] @ delta[run], change, rtol=1e-10, atol=1e-12)
        errors = plain + change - targets[batch]
        expected = torch.einsum("nkp,nk->p", slope[batch], errors) / 3
        torch.testing.assert_close(found[run], expected, rtol=1e-10, atol=1e-12)


def test_linearised_excess_is_the_loss_less_the_least(net):
    data = load_data("digits")
    task = linearised_task(net, data)
    parameters = parameters_of(net)
    y = torch.nn.functional.one_hot(data.y, 10).double()
    delta = 0.1 * np.random.default_rng(0).standard_normal((3, task.start.size))

    def loss(direction):
        tangent = unflatten(torch.from_numpy(direction), parameters)
        plain, change = jvp(lambda p: outputs(net, p, data.x.double()), (parameters,), (tangent,))
        return 0.5 * float(((plain + change - y) ** 2).sum(dim=1).mean().detach())

    losses = np.array([loss(direction) for direction in delta])
    excess = task.excess(delta)
    np.testing.assert_allclose(losses - losses[0], excess - excess[0], atol=1e-9)
    assert np.all(excess > 0.0)
    assert task.models["additive"].problem.initial_risk == pytest.approx(task.excess(task.start[None])[0], rel=1e-9)


def test_outputs_share_the_noise(net):
    """Ten outputs: noise grows about a tenth as fast as that of one with all of the loss."""
    spread = linearised_task(net, load_data("digits")).models["matched"].spread
    assert 0.05 < spread < 0.25


def test_state_dependent_noise_predicts_the_linearised_network(net):
    """Additive noise is off by more than the matched model at batch size 1, near the largest stable learning rate."""
    task = linearised_task(net, load_data("digits"))
    lr = 0.25 * nqm.max_stable_lr(task.model.problem, nqm.SGD(nqm.FREE), 1 / task.model.spread)
    optimizer, steps = nqm.SGD(lr), np.array([10, 20, 40, 80])
    losses = train(task, optimizer, 1, steps, 200, (0,))
    off = {
        name: np.abs(model.risk(optimizer, 1, steps) / losses.mean(axis=0) - 1.0).max()
        for name, model in task.models.items()
    }
    assert off["matched"] < 0.15
    assert off["matched"] < off["additive"]
    assert off["matched"] < off["gaussian"]
