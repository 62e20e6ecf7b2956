"""Gradient rules against finite differences, sums over all draws, dense covariances, torch.optim; alone or together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import naive_gradients as naive
import pytest
import torch
from naive_gradients import setting
from torch import Tensor, nn
from torch.nn import functional as F

import nqm
from nqm.validation import OPTIMIZERS, Data, Task, Trial
from nqm.validation.training.batches import Batch, BatchDraws
from nqm.validation.training.ensemble import EnsembleRun
from nqm.validation.training.functional import Net, flatten, parameters_of
from nqm.validation.training.gradients import penalties
from nqm.validation.training.gradients.injected import STRUCTURES, Injected
from nqm.validation.training.gradients.labels import labels_of
from nqm.validation.training.gradients.mixup import Mixup
from nqm.validation.training.gradients.penalties import PENALTIES, Penalised
from nqm.validation.training.gradients.rule import PLAIN, GradientRule, WeightDecay
from nqm.validation.training.gradients.two_batches import TwoBatches

Z = 5.0  # standard errors: of the thousand entries of a covariance none lies beyond but once in a thousand times
DRAWS = 4000
CPU = torch.device("cpu")


def batch_of(data: Data, examples: int = 5, runs: int = 1, number: int = 1) -> Batch:
    """The first so many examples for each run, whose draws differ."""
    x, y = (part[:examples].expand(runs, *part[:examples].shape) for part in (data.x, data.y))
    draws = [BatchDraws(seed, len(data), examples, CPU) for seed in range(runs)]
    return Batch(x, y, number, draws, data, torch.float64)


def gradient_of(rule: GradientRule, net: Net, theta: Tensor, batch: Batch) -> Tensor:
    """(R, P)."""
    return rule(net, theta.expand(len(batch.draws), -1), batch, {})


def check_moments(samples: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Of samples (R, P), within Z standard errors entry by entry."""
    away = samples - mean
    products = away[:, :, None] * away[:, None, :]
    for found, expected in ((samples, mean), (products, covariance)):
        error = found.std(0) / math.sqrt(len(samples))
        assert bool(((found.mean(0) - expected).abs() <= Z * error + 1e-12).all())


def task_of(**options) -> Task:
    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return naive.mlp().double()

    return Task(**{"net": build, "data": naive.data_of(40), "loss": F.cross_entropy, "device": "cpu",
                   "targets": {"training loss": 0.1}, **options})  # fmt: skip


def run_of(task: Task, seeds: list[int], steps: int, batch: int = 6, optimizer: str = "SGD", **options) -> EnsembleRun:
    values = {"SGD": {"lr": 0.2}, "momentum": {"effective_lr": 0.3, "momentum": 0.6}}[optimizer]
    run = EnsembleRun(task, [Trial(optimizer, batch, s, values) for s in seeds], OPTIMIZERS[optimizer], **options)
    for _ in range(steps):
        run.step()
    return run


# --- penalties -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_by_finite_differences(monkeypatch, name):
    """Of the penalised loss, its labels fixed."""
    net, theta, data = setting()
    batch, labels = batch_of(data), torch.tensor([2, 0, 1, 1, 0])
    kind, which, by = PENALTIES[name]
    if kind != "data":
        monkeypatch.setattr(penalties, "labels_of", lambda *_: labels[None])
    x, y = batch.x[0], data.y[:5] if kind == "data" else labels
    count = 1 if which == "first" else 5

    def penalised(at: Tensor) -> float:
        loss = float(net.mean_loss(at, x, data.y[:5]))
        if by == "parameters":
            return loss + 0.7 * float(naive.gradient(net, at, x[:count], y[:count]).square().sum())
        inputs = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net.loss(net.module(at)(inputs), y), inputs)
        return loss + 0.7 * float(slope.square().sum())

    h = 1e-5
    moves = h * torch.eye(len(theta), dtype=torch.float64)
    expected = torch.tensor([(penalised(theta + v) - penalised(theta - v)) / (2 * h) for v in moves])
    found = gradient_of(Penalised(name, 0.7, every=1), net, theta, batch)[0]
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-6)


def test_penalty_over_all_labels(monkeypatch):
    """FP and its gradient are, in the mean, 1 / B of the examples' own, whose mean at eq. 6 is Tr(F)'s."""
    net, theta, data = setting()
    batch, p = batch_of(data, 2), naive.probabilities(net, theta, data.x)
    together, alone = Penalised("FP", 1.0), Penalised("FP, one example", 1.0)
    value, gradient, single = 0.0, torch.zeros_like(theta), torch.zeros_like(theta)
    for labels in product(range(3), repeat=2):
        share = float(p[0, labels[0]] * p[1, labels[1]])
        drawn = torch.tensor(labels)
        monkeypatch.setattr(penalties, "labels_of", lambda *_, drawn=drawn: drawn[None])
        value += share * float(together.value(net)(theta, data.x[:2], drawn))
        gradient += share * together.gradient(net, theta[None], batch)[0]
        for i in range(2):
            one = torch.func.grad(alone.value(net))(theta, data.x[i : i + 1], drawn[i : i + 1])
            single += share / 2 * one
    assert value == pytest.approx(float(naive.true_fisher(net, theta, data.x[:2]).trace()) / 2)
    torch.testing.assert_close(gradient, single / 2)


def test_random_labels_are_the_models_where_it_knows_nothing():
    """GP_r = FP at uniform probabilities (a last layer of zeros)."""
    net, theta, data = setting()
    theta = torch.cat([theta[:28], torch.zeros(15, dtype=torch.float64)])
    found = [
        gradient_of(Penalised(name, 1.0, every=1), net, theta, batch_of(data, runs=3)) for name in ("GP_r", "FP", "GP")
    ]
    torch.testing.assert_close(found[0], found[1])
    assert float((found[0] - found[2]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["GP", "GP_x"])
def test_penalty_of_least_squares_in_closed_form(name):
    """L = |X w - y|^2 / n with H = 2 X^T X / n: GP is |grad L|^2, of gradient 2 H grad L; GP_x |2 r w^T / n|^2."""
    x, y = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = y[:, :1]
    data, model = Data("lines", x, y, x, y), nn.Linear(3, 1, bias=False).double()
    Penalised(name, 0.3).check(task_of(net=model, data=data, loss=F.mse_loss), 5)
    w = flatten(parameters_of(model))
    found = gradient_of(Penalised(name, 0.3, every=1), Net(model, parameters_of(model), F.mse_loss), w, batch_of(data))
    r = x @ w - y[:, 0]
    slope, hessian = 2 * x.T @ r / 5, 2 * x.T @ x / 5
    penalty = 2 * hessian @ slope if name == "GP" else 4 / 25 * (2 * (w @ w) * (x.T @ r) + 2 * (r @ r) * w)
    torch.testing.assert_close(found[0], slope + 0.3 * penalty)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_of_coefficient_0_is_none(name):
    task = task_of()
    plain, penalised = (run_of(task, [3, 4], 25, rule=rule) for rule in (PLAIN, Penalised(name, 0.0)))
    assert torch.equal(plain.theta, penalised.theta)


def test_a_penalty_begins_and_is_computed_when_it_says(monkeypatch):
    """After 3 steps, at every 4th, and taken again in between."""
    numbers = []
    own = Penalised.gradient
    monkeypatch.setattr(Penalised, "gradient", lambda self, *a: numbers.append(a[-1].number) or own(self, *a))
    net, theta, data = setting()
    carried: dict[str, Tensor] = {}
    last = torch.zeros_like(theta)
    for number in range(1, 13):
        batch = batch_of(data, number=number)
        found = Penalised("GP", 0.5, every=4, start=3)(net, theta[None] * number, batch, carried)[0]
        if number >= 4 and (number - 4) % 4 == 0:
            last = 0.5 * own(Penalised("GP", 0.5), net, theta[None] * number, batch)[0]
        torch.testing.assert_close(found, naive.gradient(net, theta * number, batch.x[0], batch.y[0]) + last)
    assert numbers == [4, 8, 12]


# --- injected noise --------------------------------------------------------------------------------------------


def test_full_noise_over_all_signs(monkeypatch):
    """Covariance s^2 F: r in {-1, 1}^n has the first two moments of N(0, 1)^n."""
    net, theta, data = setting()
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=5)), dtype=torch.float64)
    monkeypatch.setattr(Batch, "normal", lambda self, stream, *shape: signs)
    fisher = naive.fisher(net, theta, data.x[:5], data.y[:5])
    mean = naive.gradient(net, theta, data.x[:5], data.y[:5])
    for structure in ("full", "multiplicative"):
        found = gradient_of(Injected(structure, 2), net, theta, batch_of(data, runs=32))
        torch.testing.assert_close(found.mean(0), mean)
        torch.testing.assert_close((found - mean).T @ (found - mean) / 32, (1 / 2 - 1 / 5) * fisher)


def kronecker(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A (x) G of each layer of the two-layer network, from its biases' gradients and its layers' inputs."""
    found = naive.gradients(net, theta, x, y)
    hidden = torch.tanh(net.module(theta)[0](x)).detach()
    total, first = torch.zeros(len(theta), len(theta), dtype=theta.dtype), 0
    for inputs, size in ((x, 4), (hidden, 3)):
        a = torch.cat([inputs, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        bias = first + size * inputs.shape[1]
        weights = torch.arange(first, bias).reshape(size, -1)
        d = found[:, bias : bias + size]
        places = torch.cat([weights, torch.arange(bias, bias + size)[:, None]], 1).reshape(-1)
        total[places[:, None], places] = torch.kron(d.T @ d / len(x), a.T @ a / len(x))
        first = bias + size
    return total


def dense_covariance(structure: str, net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    fisher = naive.fisher(net, theta, x, y)
    if structure in ("full", "multiplicative"):
        return fisher
    if structure == "diagonal":
        return torch.diag(fisher.diagonal())
    if structure == "trace":
        return fisher.trace() / len(theta) * torch.eye(len(theta), dtype=theta.dtype)
    return kronecker(net, theta, x, y)


@pytest.mark.parametrize("structure", STRUCTURES[1:])
def test_covariance_of_injected_noise(structure):
    """s^2 times that of its structure; the same trace for full, diagonal and trace."""
    net, theta, data = setting()
    x, y = data.x[:5], data.y[:5]
    found = gradient_of(Injected(structure, 2), net, theta, batch_of(data, runs=DRAWS))
    dense = dense_covariance(structure, net, theta, x, y)
    check_moments(found, naive.gradient(net, theta, x, y), (1 / 2 - 1 / 5) * dense)
    if structure != "K-FAC":
        assert float(dense.trace()) == pytest.approx(float(naive.fisher(net, theta, x, y).trace()))


def test_multiplicative_noise_is_full_noise():
    """Of the same normal numbers they make the same gradients."""
    net, theta, data = setting()
    full, weighted = (
        gradient_of(Injected(name, 2), net, theta, batch_of(data, runs=3)) for name in ("full", "multiplicative")
    )
    torch.testing.assert_close(full, weighted)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_noise_enters_times_s(structure):
    """And not at all where the small batch is as large."""
    net, theta, data = setting()
    plain = gradient_of(PLAIN, net, theta, batch_of(data, runs=3))
    torch.testing.assert_close(gradient_of(Injected(structure, 5), net, theta, batch_of(data, runs=3)), plain)
    noises = [
        (gradient_of(Injected(structure, small), net, theta, batch_of(data, runs=3)) - plain)
        / math.sqrt(1 / small - 1 / 5)
        for small in (1, 4)
    ]
    torch.testing.assert_close(*noises)
    assert (float(noises[0].abs().max()) > 0.0) == (structure != "none")


def test_labels_are_drawn_from_the_model():
    net, theta, data = setting()
    batch = batch_of(data, runs=DRAWS)
    expected = {
        "model": naive.probabilities(net, theta, data.x[:5]),
        "uniform": torch.full((5, 3), 1 / 3, dtype=torch.float64),
    }
    for kind, p in expected.items():
        drawn = labels_of(kind, net, theta.expand(DRAWS, -1), batch)
        shares = F.one_hot(drawn, 3).double().mean(0)
        assert bool(((shares - p).abs() <= Z * (p * (1 - p) / DRAWS).sqrt()).all())


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_noise_of_the_true_fisher_matrix(structure):
    net, theta, data = setting()
    found = gradient_of(Injected(structure, 2, "model"), net, theta, batch_of(data, runs=DRAWS))
    dense = naive.true_fisher(net, theta, data.x[:5])
    dense = dense if structure == "full" else torch.diag(dense.diagonal())
    check_moments(found, naive.gradient(net, theta, data.x[:5], data.y[:5]), (1 / 2 - 1 / 5) * dense)


# --- two batches, mixed examples, weight decay -----------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.5, 1.7])
def test_two_batches_over_all_pairs(monkeypatch, weight):
    """Mean grad L, covariance (w^2 + (1 - w)^2) C / B."""
    net, theta, data = setting(n=3)
    both = torch.tensor(list(product(range(3), repeat=4)))
    first, second = both[:, :2], both[:, 2:]
    monkeypatch.setattr(Batch, "second", lambda self: (data.x[second], data.y[second]))
    draws = [BatchDraws(0, 3, 2, CPU)] * len(both)
    batch = Batch(data.x[first], data.y[first], 1, draws, data, torch.float64)
    found = gradient_of(TwoBatches(weight), net, theta, batch)
    each = naive.gradients(net, theta, data.x, data.y)
    torch.testing.assert_close(found.mean(0), each.mean(0))
    covariance = (weight**2 + (1 - weight) ** 2) / 2 * torch.cov(each.T, correction=0)
    torch.testing.assert_close(torch.cov(found.T, correction=0), covariance)
    if weight == 1.0:
        torch.testing.assert_close(found, gradient_of(PLAIN, net, theta, batch))


def test_the_second_batch_is_another():
    draws = BatchDraws(3, 50, 4, CPU)
    pairs = [(draws.batch(n), draws.second(n)) for n in range(1, 200)]
    assert not any(torch.equal(one, other) for one, other in pairs)
    both = torch.stack([torch.stack(pair).double().mean(1) for pair in pairs], 1)
    assert abs(float(torch.corrcoef(both)[0, 1])) < Z / math.sqrt(len(pairs))


def test_mixup_is_cross_entropy_with_mixed_labels(monkeypatch):
    net, theta, data = setting()
    monkeypatch.setattr(Mixup, "_weights", lambda self, batch: torch.tensor([0.3]))
    found = gradient_of(Mixup(0.4), net, theta, batch_of(data))[0]
    u = torch.rand(5, generator=BatchDraws(0, 12, 5, CPU).stream("noise"), dtype=torch.float64)
    x, y, order, w = data.x[:5], F.one_hot(data.y[:5], 3).double(), u.argsort(), float(torch.tensor(0.3))
    expected = naive.gradient(net, theta, w * x + (1 - w) * x[order], w * y + (1 - w) * y[order])
    torch.testing.assert_close(found, expected)


def test_mixup_of_the_smallest_concentration_is_none():
    """Weights are 0 or 1 then, and each example is taken once either way."""
    net, theta, data = setting()
    batches = [batch_of(data, runs=8) for _ in range(2)]
    torch.testing.assert_close(
        gradient_of(Mixup(1e-9), net, theta, batches[0]), gradient_of(PLAIN, net, theta, batches[1])
    )


def test_weights_of_mixup():
    """Mean 1/2, variance 1 / (4 (2 c + 1))."""
    weights = Mixup(0.7)._weights(batch_of(naive.data_of(), runs=DRAWS))
    away = (weights - 0.5).square()
    assert abs(float(weights.mean()) - 0.5) < Z * float(weights.std()) / math.sqrt(DRAWS)
    assert abs(float(away.mean()) - 1 / (4 * 2.4)) < Z * float(away.std()) / math.sqrt(DRAWS)


@pytest.mark.parametrize("optimizer", ["SGD", "momentum"])
def test_weight_decay_against_torch(optimizer):
    task, steps = task_of(), 60
    run = run_of(task, [5], steps, optimizer=optimizer, rule=WeightDecay(0.03))
    model, draws = task.build(5), BatchDraws(5, 40, 6, CPU)
    values = {"SGD": {"lr": 0.2}, "momentum": {"lr": 0.3 * 0.4, "momentum": 0.6}}[optimizer]
    other = torch.optim.SGD(model.parameters(), weight_decay=0.03, **values)
    for number in range(1, steps + 1):
        picked = draws.batch(number)
        other.zero_grad()
        task.loss(model(task.data.x[picked]), task.data.y[picked]).backward()
        other.step()
    torch.testing.assert_close(run.theta[0], flatten(parameters_of(model)), rtol=1e-9, atol=1e-12)


# --- whole runs ------------------------------------------------------------------------------------------------


RULES = [
    PLAIN,
    WeightDecay(0.1, of=TwoBatches(1.5)),
    Mixup(0.4),
    *(Penalised(name, 0.1, every=3) for name in PENALTIES),
    Penalised("FP", 0.1, every=3, start=5, of=Injected("full", 2, "model")),
    *(Injected(structure, 2) for structure in STRUCTURES),
    *(Injected(structure, 2, "model") for structure in ("full", "diagonal", "trace", "K-FAC")),
]


@dataclass(frozen=True)
class Seen(GradientRule):
    """Another rule, whose batches are kept."""

    of: GradientRule
    seen: list

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        self.seen.append((batch.x, batch.y))
        return self.of(net, thetas, batch, carried)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_alone_or_in_company(rule):
    """The same seed gives the same run, whoever runs beside it and drops out; of the same batches by any rule."""
    task, seeds = task_of(), [3, 8]
    seen: list = []
    together = run_of(task, [*seeds, 9], 6, rule=Seen(rule, seen))
    together.keep([0, 1])
    for _ in range(6):
        together.step()
    for place, seed in enumerate(seeds):
        alone: list = []
        run = run_of(task, [seed], 12, rule=Seen(rule, alone))
        torch.testing.assert_close(together.theta[place], run.theta[0], rtol=1e-9, atol=1e-12)
        draws = BatchDraws(seed, 40, 6, CPU)
        for number, (beside, (x, y)) in enumerate(zip(seen, alone, strict=True), 1):
            picked = draws.batch(number)
            assert torch.equal(x[0], task.data.x[picked])
            assert torch.equal(y[0], task.data.y[picked])
            assert torch.equal(beside[0][place], x[0])


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_diverged_run_leaves_the_others_alone(rule):
    run, alone = run_of(task_of(), [3, 4], 2, rule=rule), run_of(task_of(), [4], 6, rule=rule)
    run.theta[0] = math.nan
    for _ in range(4):
        run.step()
    assert run.theta[0].isnan().all()
    torch.testing.assert_close(run.theta[1], alone.theta[0], rtol=1e-9, atol=1e-12)


def test_an_epoch_takes_every_example_once():
    """But for what is left over of batches; another order in the next, for each run its own."""
    data = naive.data_of(40)
    indices = torch.arange(40)
    seen: list = []
    run_of(task_of(data=Data("numbered", data.x, data.y, data.x, data.y)), [3, 4], 12, rule=Seen(PLAIN, seen),
           replacement=False)  # fmt: skip
    orders = []
    for run in range(2):
        rows = torch.cat([x[run] for x, _ in seen])
        numbers = (rows[:, None] == data.x[None]).all(2).double() @ indices.double()
        for epoch in numbers.long().reshape(2, 36):
            assert len(set(epoch.tolist())) == 36
            assert epoch.tolist() != sorted(epoch.tolist())
            orders.append(tuple(epoch.tolist()))
    assert len(set(orders)) == 4


def test_a_batch_larger_than_an_epoch():
    with pytest.raises(ValueError, match="at most the 40 examples of an epoch, got 41"):
        run_of(task_of(), [3], 1, batch=41, replacement=False)


@pytest.mark.parametrize("optimizer", ["SGD", "momentum"])
def test_a_schedule_multiplies_the_learning_rate(optimizer):
    """1 for 4 steps, then a quarter."""
    task = task_of()
    run = run_of(task, [5], 10, optimizer=optimizer, schedule=nqm.Schedule([1.0, 0.25], [4, 6]))
    model, draws = task.build(5), BatchDraws(5, 40, 6, CPU)
    values = {"SGD": {"lr": 0.2}, "momentum": {"lr": 0.3 * 0.4, "momentum": 0.6}}[optimizer]
    other = torch.optim.SGD(model.parameters(), **values)
    steps = torch.optim.lr_scheduler.MultiStepLR(other, [4], 0.25)
    for number in range(1, 11):
        picked = draws.batch(number)
        other.zero_grad()
        task.loss(model(task.data.x[picked]), task.data.y[picked]).backward()
        other.step()
        steps.step()
    torch.testing.assert_close(run.theta[0], flatten(parameters_of(model)), rtol=1e-9, atol=1e-12)
