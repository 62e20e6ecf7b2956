"""What a single run's gradients are made of: those by autograd, and penalties of penalties."""

from __future__ import annotations

import pytest
import torch
from naive_gradients import setting
from test_gradient_rules import batch_of, run_of, task_of

from nqm.validation.training.batches import Batch
from nqm.validation.training.gradients.penalties import Penalised
from nqm.validation.training.gradients.rule import PLAIN


def test_a_penalty_of_a_penalty_keeps_a_gradient_of_its_own():
    """Over steps at which neither is computed anew."""
    inner, outer = Penalised("GP", 0.3, every=3), Penalised("GP_r", 0.2, every=2)
    both = run_of(task_of(), [1], 0, rule=Penalised("GP_r", 0.2, every=2, of=inner))
    alone = {"GP": run_of(task_of(), [1], 0), "GP_r": run_of(task_of(), [1], 0)}
    theta, carried = both.theta.clone(), {"GP": {}, "GP_r": {}}
    for number in range(1, 6):
        batches = {name: Batch.of(number, run.draws, run.data, torch.float64) for name, run in alone.items()}
        plain = PLAIN(both.net, theta, batches["GP"], {})
        parts = [rule(both.net, theta, batches[name], carried[name]) - plain
                 for name, rule in (("GP", inner), ("GP_r", outer))]  # fmt: skip
        theta = theta - 0.2 * (plain + sum(parts))
        both.step()
        torch.testing.assert_close(both.theta, theta, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("runs", [1, 2])
def test_slopes_of_what_does_not_depend_on_the_parameters_are_0(runs):
    net, theta, _ = setting()
    thetas = theta.expand(runs, -1)
    assert torch.equal(net.slopes(lambda theta, x: x.sum(), thetas, torch.ones(runs, 3)), torch.zeros_like(thetas))


def test_a_penalty_of_the_first_examples_is_that_of_a_batch_of_them():
    net, theta, data = setting()
    some = batch_of(data, examples=2)
    found = Penalised("GP", 1.0, examples=2).gradient(net, theta[None], batch_of(data, examples=5))
    torch.testing.assert_close(found, Penalised("GP", 1.0).gradient(net, theta[None], some), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True])
def test_numbers_of_examples_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="examples: expected a whole number of at least 1"):
        Penalised("FP", 1.0, examples=wrong)


def test_more_examples_than_a_batch_has_are_refused_before_any_training():
    with pytest.raises(ValueError, match="examples: expected at most the 6 of a batch, got 7"):
        run_of(task_of(), [1], 1, rule=Penalised("FP", 1.0, examples=7))
