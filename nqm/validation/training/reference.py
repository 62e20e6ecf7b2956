"""One plain run of one module, along which a network is measured.

It is a loop of its own beside :mod:`.ensemble`, over the same batches: gradients of many runs at once are summed in
another order, and measured curvatures would move in their last digits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from .ensemble import BatchDraws
from .functional import find_device
from .task import EXPLODED, Task

__all__ = ["checkpoints", "reference_point"]

LR, BATCH_SIZE = 0.1, 256  # of the run
READ_EVERY = 10  # steps


def reference_point(
    task: Task, loss: float, *, seed: int = 0, lr: float = LR, batch_size: int = BATCH_SIZE, max_steps: int = 20_000
) -> nn.Module:
    """The network after plain SGD has brought its training loss, as :meth:`Task.read` takes it, down to ``loss``.

    Where to measure it: the quadratic that matters is the one around the loss's own minimum, not the start's, whose
    curvature is that of a network that knows nothing. One run at any learning rate well inside the stable range will
    do.

    Args:
        task: network and data; seed: of the start and the batches. lr, batch_size: of the run.
        loss: training loss at which to stop; half the target is a good choice.
        max_steps: to give up after.

    Raises ValueError where the loss is not reached in ``max_steps``, or diverges.
    """
    first = math.nan
    for step, model in _descent(task, seed, lr, batch_size, max_steps):
        if step % READ_EVERY == 0:
            now = task.read(model)["training loss"]
            first = now if step == 0 else first
            if not now <= EXPLODED * first:
                raise ValueError(f"reference_point: the run diverged at step {step}: expected a lower lr, got {lr:g}")
            if now <= loss:
                return model
    raise ValueError(
        f"reference_point: a training loss of {loss:g} is below what is reachable in {max_steps} steps of lr {lr:g}, "
        f"batch size {batch_size} (got {now:.4g}): expected a higher loss, more steps or another lr"
    )


def checkpoints(task: Task, steps: Sequence[int], *, seed: int = 0) -> dict[int, nn.Module]:
    """Copies of the network after these steps of :func:`reference_point`'s run, by step."""
    wanted = set(steps)
    if not wanted or not all(isinstance(step, int) and step >= 0 for step in wanted):
        raise ValueError(f"steps: expected whole numbers of at least 0, one or more, got {steps!r}")
    run = _descent(task, seed, LR, BATCH_SIZE, max(wanted))
    return {step: copy.deepcopy(model) for step, model in run if step in wanted}


def _descent(task: Task, seed: int, lr: float, batch_size: int, steps: int) -> Iterator[tuple[int, nn.Module]]:
    """Plain SGD: the number of steps taken and the network, which goes on changing."""
    device = find_device(task.device)
    model, data = task.build(seed).to(device), task.data.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    draws = BatchDraws(seed, len(task.data), batch_size, device)
    yield 0, model
    for step in range(1, steps + 1):
        chosen = draws.batch(step)
        slopes = torch.autograd.grad(task.loss(model(data.x[chosen]), data.y[chosen]), trained)
        with torch.no_grad():
            for p, slope in zip(trained, slopes, strict=True):
                p.sub_(slope, alpha=lr)
        yield step, model
