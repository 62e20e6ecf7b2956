"""Real training: optimizers against torch.optim, K-FAC against loops and dense matrices, runs alone and together."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nqm.validation import OPTIMIZERS, Data, Task, Trial, load_data, mlp, train_until_first
from nqm.validation.training.batches import BatchDraws
from nqm.validation.training.ensemble import EnsembleRun, readings
from nqm.validation.training.functional import flatten, outputs, parameters_of, unflatten
from nqm.validation.training.kfac import factors_of, inverses, layers_of, many_factors, precondition


def tiny_net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def tiny_conv(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2, 3, 2, bias=False),
            nn.Flatten(),
            nn.Linear(3, 3),
        ).double()


def tiny_data(shape: tuple[int, ...] = (6,), n: int = 40) -> Data:
    make = torch.Generator().manual_seed(1)
    x, held = (torch.randn(n, *shape, generator=make, dtype=torch.float64) for _ in range(2))
    labels = [(part.flatten(1)[:, :3] + 0.3 * torch.randn(n, 3, generator=make)).argmax(1) for part in (x, held)]
    return Data("tiny", x, labels[0], held, labels[1])


def tiny_task(**targets: float) -> Task:
    return Task(tiny_net, tiny_data(), F.cross_entropy, targets or {"training loss": 1e-9})


VALUES = {
    "SGD": {"lr": 0.3},
    "momentum": {"effective_lr": 0.8, "momentum": 0.6},
    "SGD with EMA": {"lr": 0.3, "decay": 0.7},
    "Adam without momentum": {"lr": 0.01, "square_decay": 0.9},
    "Adam": {"lr": 0.01, "momentum": 0.8, "square_decay": 0.95},
    "K-FAC": {"lr": 0.1, "damping": 0.1},
    "K-FAC with momentum": {"effective_lr": 0.3, "damping": 0.1, "momentum": 0.5},
}


def trained(task: Task, trials: list[Trial], steps: int) -> EnsembleRun:
    """The runs after their last step."""
    runs = EnsembleRun(task, trials, OPTIMIZERS[trials[0].optimizer])
    assert list(runs.train(steps))[-1] == steps
    return runs


def by_torch(task: Task, trial: Trial, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same run with torch.optim, and the average of its iterates with decay 0.7."""
    model, values = task.build(trial.seed), trial.hyperparameters
    if trial.optimizer.startswith("Adam"):
        betas = values.get("momentum", 0.0), values["square_decay"]
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=values["lr"], betas=betas)
    else:
        momentum = values.get("momentum", 0.0)
        lr = values["lr"] if "lr" in values else values["effective_lr"] * (1 - momentum)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.7))
    average.update_parameters(model)  # the first call copies: averages start at the start
    draws = BatchDraws(trial.seed, len(task.data), trial.batch_size, torch.device("cpu"))
    for number in range(1, steps + 1):
        picked = draws.batch(number)
        optimizer.zero_grad()
        task.loss(model(task.data.x[picked]), task.data.y[picked]).backward()
        optimizer.step()
        average.update_parameters(model)
    return flatten(parameters_of(model)), flatten(parameters_of(average.module))


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam", "Adam without momentum", "SGD with EMA"])
def test_optimizers_against_torch(name):
    task, steps = tiny_task(), 150
    trials = [Trial(name, 3, seed, VALUES[name]) for seed in (5, 6)]
    one = trained(task, trials, steps)
    for place, trial in enumerate(trials):
        last, average = by_torch(task, trial, steps)
        torch.testing.assert_close(one.theta[place], last, rtol=1e-9, atol=1e-12)
        if name == "SGD with EMA":
            torch.testing.assert_close(one.slots["average"][place], average, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_alone_or_in_company(name):
    """The same seed gives the same run, whoever runs beside it and drops out."""
    task = tiny_task(**{"training loss": 0.6})
    values = VALUES[name]
    wild = {**values, next(iter(values)): 1e4 * values[next(iter(values))]}
    trials = [Trial(name, 4, seed, wild if seed == 2 else values) for seed in range(5)]
    alone = [train_until_first(task, [trial], 300)[0] for trial in trials]
    task_of_all = tiny_task(**{"training loss": 0.6, "held-out loss": 1e-9})  # so that nobody ends the race
    together = train_until_first(task_of_all, trials, 300)
    for one, other in zip(alone, together, strict=True):
        assert other.steps["training loss"] == pytest.approx(one.steps["training loss"], rel=1e-9)
    assert sum(outcome.status == "reached" for outcome in alone) >= 4
    assert train_until_first(task, trials, 300) == train_until_first(task, trials, 300)


def dense_fisher_blocks(model, parameters, x, u):
    """Kronecker factors by loops over examples and places: inputs and gradients of each layer's outputs, one by one."""
    sums: dict[str, list] = {name: [0.0, 0.0] for name in layers_of(model)}
    for example, uniform in zip(x, u, strict=True):
        seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        handles = []
        for name, layer in layers_of(model).items():

            def keep(module, arguments, result, name=name, seen=seen):
                result.retain_grad()
                seen[name] = (arguments[0], result)

            handles.append(layer.register_forward_hook(keep))
        live = {key: value.clone().requires_grad_() for key, value in parameters.items()}
        logits = outputs(model, live, example[None])[0]
        label = int((uniform > logits.detach().softmax(0).cumsum(0)[:-1]).sum())
        F.cross_entropy(logits, torch.tensor(label)).backward()
        for handle in handles:
            handle.remove()
        for name, layer in layers_of(model).items():
            given, made = seen[name]
            if isinstance(layer, nn.Conv2d):
                padded = F.pad(given, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)[0]
                k, s = layer.kernel_size[0], layer.stride[0]
                places = [
                    (padded[:, i * s : i * s + k, j * s : j * s + k].reshape(-1), made.grad[0, :, i, j])
                    for i in range(made.shape[2])
                    for j in range(made.shape[3])
                ]
            else:
                places = [(given[0], made.grad[0])]
            for a, d in places:
                a = a if layer.bias is None else torch.cat([a, torch.ones(1, dtype=a.dtype)])
                sums[name][0] = sums[name][0] + torch.outer(a, a).detach() / len(x)
                sums[name][1] = sums[name][1] + torch.outer(d, d) / (len(x) * len(places))
    return sums


@pytest.mark.parametrize(("net", "shape"), [(tiny_net, (6,)), (tiny_conv, (1, 4, 4))])
def test_kfac_factors_and_step_against_loops(net, shape):
    data = tiny_data(shape, 12)
    model = net(3)
    parameters = parameters_of(model)
    u = torch.rand(12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = factors_of(model, data.x)(parameters, data.x, u)
    naive = dense_fisher_blocks(model, parameters, data.x, u)
    for name, (a, g) in found.items():
        torch.testing.assert_close(a, naive[name][0])
        torch.testing.assert_close(g, naive[name][1])
    # the step: solve the dense Kronecker system of damped factors, one layer at a time
    gradient = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(8), dtype=v.dtype)
        for k, v in parameters.items()
    }
    step = precondition(gradient, inverses(found, torch.tensor(0.05, dtype=torch.float64)))
    for name, layer in layers_of(model).items():
        a, g = naive[name]
        pi = math.sqrt((a.trace() / len(a)) / (g.trace() / len(g)))
        eye = partial(torch.eye, dtype=torch.float64)
        dense = torch.kron(g + math.sqrt(0.05) / pi * eye(len(g)), a + pi * math.sqrt(0.05) * eye(len(a)))
        slope = gradient[f"{name}.weight"].flatten(1)
        if layer.bias is not None:
            slope = torch.cat([slope, gradient[f"{name}.bias"][:, None]], dim=1)
        solved = torch.linalg.solve(dense, slope.reshape(-1)).reshape(slope.shape)
        width = solved.shape[1] - (layer.bias is not None)
        torch.testing.assert_close(step[f"{name}.weight"].flatten(1), solved[:, :width])
        if layer.bias is not None:
            torch.testing.assert_close(step[f"{name}.bias"], solved[:, width])


def test_kfac_in_company():
    """Factors and steps of many runs at once are those of each run."""
    data, models = tiny_data((1, 4, 4), 12), [tiny_conv(seed) for seed in range(3)]
    each = [parameters_of(model) for model in models]
    stacked = {name: torch.stack([p[name] for p in each]) for name in each[0]}
    u = torch.rand(3, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    damping = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    inverse = inverses(many_factors(models[0], data.x)(stacked, data.x.expand(3, *data.x.shape), u), damping)
    steps = precondition(stacked, inverse)
    for i, own in enumerate(each):
        alone = inverses(factors_of(models[0], data.x)(own, data.x, u[i]), damping[i])
        for name, value in precondition(own, alone).items():
            torch.testing.assert_close(steps[name][i], value)


def test_statuses():
    task = tiny_task(**{"training loss": 0.6, "held-out error": 0.3})
    rates = {0: 1e6, 1: 0.3, 2: 1e-6, 3: 1e30}
    outcomes = train_until_first(task, [Trial("SGD", 8, seed, {"lr": lr}) for seed, lr in rates.items()], 500)
    assert [outcome.status for outcome in outcomes] == ["diverged", "reached", "overtaken", "diverged"]
    assert all(math.isinf(s) for i in (0, 2, 3) for s in outcomes[i].steps.values())
    (slow,) = train_until_first(task, [Trial("SGD", 8, 0, {"lr": 1e-6})], 7)
    assert (slow.status, slow.trained) == ("too slow", 7)
    (reached,) = train_until_first(tiny_task(**{"training loss": 1e3}), [Trial("SGD", 8, 0, {"lr": 0.1})], 7)
    assert reached.steps["training loss"] == 0.0  # there before the first step


def test_steps_are_interpolated_between_readings():
    """Full-batch-like descent with every step read by hand."""
    task = tiny_task(**{"training loss": 0.4})
    trial = Trial("SGD", 40, 3, {"lr": 0.2})
    (outcome,) = train_until_first(task, [trial], 2000)
    model, draws = task.build(3), BatchDraws(3, 40, 40, torch.device("cpu"))
    losses = [float(task.loss(model(task.data.x), task.data.y).detach())]
    for number in range(1, outcome.trained + 1):
        picked = draws.batch(number)
        model.zero_grad()
        task.loss(model(task.data.x[picked]), task.data.y[picked]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.2 * p.grad
        losses.append(float(task.loss(model(task.data.x), task.data.y).detach()))
    read = [0, *(n for n, _ in zip(readings(), range(100), strict=False) if n <= outcome.trained)]
    assert outcome.steps["training loss"] == pytest.approx(
        float(np.interp(-0.4, [-losses[n] for n in read[-2:]], read[-2:]))
    )
    assert read[-1] == outcome.trained


def test_batches_follow_the_seed_alone():
    a, b = (BatchDraws(4, 50, 3, torch.device("cpu")) for _ in range(2))
    drawn = [a.batch(n) for n in range(1, 200)]
    for _ in range(3):
        a.factored()
    again = []
    for n in range(1, 200):
        b.factored()
        again.append(b.batch(n))
    assert all(torch.equal(x, y) for x, y in zip(drawn, again, strict=True))
    assert len({tuple(x.tolist()) for x in drawn}) > 190


def test_digits_in_few_steps():
    task = Task(mlp, load_data(), F.cross_entropy, {"training loss": 0.5, "held-out error": 0.15})
    (outcome,) = train_until_first(
        task, [Trial("Adam", 64, 0, {"lr": 0.01, "momentum": 0.9, "square_decay": 0.99})], 200
    )
    assert outcome.status == "reached"


def task_with(net=tiny_net, targets=("training loss", 1.0), device=None):
    return Task(net, tiny_data(), F.cross_entropy, dict([targets]) if targets else {}, device=device)


def race_of(name="SGD", batch=4, values=None, steps=5, count=1):
    return train_until_first(tiny_task(), [Trial(name, batch, 0, values or {"lr": 0.1})] * count, steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task_with(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))), "batch norm"),
        (lambda: task_with(nn.Sequential(nn.Dropout(), nn.Linear(6, 3))), "dropout"),
        (lambda: task_with(nn.Sequential(nn.FeatureAlphaDropout(), nn.Linear(6, 3))), "such as dropout, got Feature"),
        (lambda: task_with(nn.Sequential(nn.Linear(6, 3), nn.RReLU())), "layers that draw, .* got RReLU"),
        (lambda: task_with(targets=("accuracy", 0.9)), "metrics among"),
        (lambda: task_with(targets=("training loss", -1.0)), "positive number"),
        (lambda: task_with(targets=("training loss", math.nan)), "positive number"),
        (lambda: task_with(targets=None), "at least one"),
        (lambda: task_with(device="cuda:77"), "device: expected one that is here"),
        (lambda: task_with(device="tpu?"), "device: expected one that is here"),
        (lambda: race_of(count=0), "one optimizer and batch size"),
        (lambda: race_of("Lion"), "expected one of SGD"),
        (lambda: race_of(batch=0), "batch_size"),
        (lambda: race_of(batch=2.5), "batch_size"),
        (lambda: race_of(values={"rate": 0.1}), "expected hyperparameters lr, got rate"),
        (lambda: race_of(steps=0), "max_steps"),
        (lambda: tiny_data(n=0), "at least one example"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_not_a_module():
    with pytest.raises(TypeError, match="expected a torch"):
        Task(lambda seed: 3, tiny_data(), F.cross_entropy, {"training loss": 1.0})


def test_kfac_refuses_other_layers():
    net = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match="LayerNorm"):
        layers_of(net)
    shared = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="used again"):
        factors_of(nn.Sequential(shared, shared), torch.zeros(2, 3))(
            parameters_of(shared), torch.zeros(2, 3), torch.zeros(2)
        )


def test_flat_and_back():
    parameters = parameters_of(tiny_conv())
    vector = flatten(parameters)
    for name, value in unflatten(torch.stack([vector, 2 * vector]), parameters).items():
        assert torch.equal(value[1], 2 * parameters[name])


def test_a_diverged_kfac_run_leaves_the_others_alone():
    """Factors that overflow, or that are no longer positive definite in floating point, make that run's step NaN."""
    good = torch.eye(2).expand(1, 2, 2)
    bad = torch.stack([torch.full((2, 2), torch.nan), torch.full((2, 2), torch.inf), -torch.eye(2)])
    factors = {"layer": (torch.cat([good, bad]), torch.cat([good, good, good, good]))}
    (a, g) = inverses(factors, torch.full((4,), 0.25))["layer"]
    torch.testing.assert_close(a[0], torch.eye(2) / 1.5)
    assert a[1:].isnan().all()
    assert g[0].isfinite().all()
    task = tiny_task(**{"training loss": 0.6})
    wild = [Trial("K-FAC", 4, seed, {"lr": lr, "damping": 1e-12}) for seed, lr in enumerate((1e8, 1e30, 1e38))]
    calm = Trial("K-FAC", 4, 9, VALUES["K-FAC"])
    outcomes = train_until_first(task, [*wild, calm], 300)
    assert [outcome.status for outcome in outcomes] == ["diverged"] * 3 + ["reached"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": [(torch.zeros(2, 6), torch.zeros(2))]}, TypeError, "expected nqm.validation.Data"),
        ({"targets": 0.3}, TypeError, "expected a dict"),
        ({"net": nn.Linear}, TypeError, "function of a keyword 'seed'"),
        ({"net": nn.Linear(7, 3)}, ValueError, r"net, loss: expected them to take inputs \(2, 6\)"),
        ({"loss": F.binary_cross_entropy_with_logits}, ValueError, "net, loss"),
        ({"loss": partial(F.cross_entropy, reduction="none")}, ValueError, "expected a scalar"),
        ({"net": nn.Sequential(nn.LSTM(6, 3))}, ValueError, "one example at a time"),
        ({"evaluated": 0}, ValueError, "evaluated"),
    ],
)
def test_what_does_not_fit_is_said_before_training(options, error, message):
    given = {"net": tiny_net, "data": tiny_data(), "loss": F.cross_entropy, "targets": {"training loss": 1.0}}
    with pytest.raises(error, match=message):
        Task(**{**given, **options})
