"""What is measured beside training: identities of the Fisher matrix's trace, and what a step costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ...._table import Table
from ...measurement.quantities import TraceF, TraceFBatch
from ...training.batches import generator
from ...training.data import Data, load_data, with_label_noise
from ...training.functional import Net, flatten, unflatten
from ...training.per_example import squared_norms
from .protocol import BATCH, HELD
from .training import begun, rule_of

__all__ = ["cost", "identity", "uniform"]


def identity(
    data: str, net: str, lr: float, seed: int, at: Sequence[int], batches: int, data_root: str | None = None
) -> Table:
    """Tr(F^B) of :data:`BATCH` examples against Tr(F) / B along a run. Columns step, Tr F (exact, of all training
    examples), Tr F of a batch (mean over so many batches).

    A score's mean is 0, so that E Tr(F^B) = Tr(F) / B whatever the parameters.
    """
    run = begun(net, load_data(data, data_root, held=HELD, seed=seed), lr, seed)
    rows = []
    for step in run.train(max(at), at):
        draws = generator(seed, "measurement", step)
        fisher = TraceF()(run.net, run.theta[0], run.data, draws)
        batch = TraceFBatch(BATCH, batches)(run.net, run.theta[0], run.data, draws)
        rows.append({"step": step, "Tr F": fisher, "Tr F of a batch": batch})
    return Table.from_rows(rows, ("step", "Tr F", "Tr F of a batch"))


def uniform(data: str, net: str, seed: int, redraws: int, data_root: str | None = None) -> Table:
    """Where the model's p(y|x) is uniform (its last layer set to 0) and labels are drawn uniformly: the mean of
    ||g(x, y)||^2 over examples is Tr(F) (section 4.1). One row, columns Tr F (exact), squared norm (of so many redrawn
    sets of labels)."""
    given = load_data(data, data_root, held=HELD, seed=seed)
    run = begun(net, given, 0.1, seed)
    theta = _without_last_layer(run.net, run.theta[0])
    fisher = TraceF()(run.net, theta, run.data, generator(seed, "measurement"))
    found = [_squares(run.net, theta, given, seed * redraws + number) for number in range(redraws)]
    return Table({"Tr F": [fisher], "squared norm": [sum(found) / redraws]})


def _squares(net: Net, theta: Tensor, data: Data, seed: int) -> float:
    drawn, _ = with_label_noise(data, 1.0, seed)
    return float(squared_norms(net, theta, drawn.x, drawn.y).double().mean())


def _without_last_layer(net: Net, theta: Tensor) -> Tensor:
    parts = unflatten(theta, net.like)
    last = next(reversed(parts)).rpartition(".")[0]
    return flatten({
        name: torch.zeros_like(part) if name.rpartition(".")[0] == last else part for name, part in parts.items()
    })  # fmt: skip


def cost(
    data: str, net: str, lr: float, seed: int, methods: Sequence[Sequence[object]], epochs: int,
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """Seconds for an epoch, ceil(N / B) steps, under each method (name, coefficient, every), all in turn, epoch by
    epoch, so that what else the machine does is the same for all. One row for each method and epoch: columns method
    (its place), epoch, seconds.
    """
    given = load_data(data, data_root, held=HELD, seed=seed)
    steps = -(-len(given) // BATCH)
    rules = [rule_of(str(name), float(str(alpha)), int(str(every))) for name, alpha, every in methods]
    runs = [begun(net, given, lr, seed, rule=rule) for rule in rules]
    rows = []
    for epoch in range(epochs + 1):
        for place, run in enumerate(runs):
            began = time.thread_time()
            for _ in range(steps):
                run.step()
            if epoch:  # the first one finds out what it needs
                rows.append({"method": place, "epoch": epoch, "seconds": time.thread_time() - began})
    return Table.from_rows(rows, ("method", "epoch", "seconds"))
