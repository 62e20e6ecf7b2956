"""One run each, recorded on the way: under a penalty, with wrong labels, with the Hessian's trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from ...._table import Table
from ...experiments.train import recorded
from ...measurement.quantities import (
    QUANTITIES,
    Accuracy,
    MeanGradientNorm,
    Quantity,
    Subset,
    TraceF,
    TraceFBatch,
    TraceH,
    find,
)
from ...measurement.quantities.base import all_outputs
from ...training.data import Data, load_data, with_label_noise
from ...training.ensemble import EnsembleRun
from ...training.functional import Net
from ...training.gradients.mixup import Mixup
from ...training.gradients.penalties import Penalised
from ...training.gradients.rule import PLAIN, GradientRule
from ...training.trials import check_trials
from .protocol import BATCH, HELD, task_of, trial_of

__all__ = ["FISHER_EXAMPLES", "Half", "begun", "course", "curvature", "noisy", "readings", "rule_of"]

FISHER_EXAMPLES = 100
"""Tr(F) is exact, the mean over these of sum_y p(y|x) ||g(x, y)||^2."""
RATIO = 1.15  # of the steps of one reading and the next: early phases last as long as rates are small


@dataclass(frozen=True)
class Half(Quantity):
    """Accuracy on the first half of the held-out examples ("validation") or on the second ("test")."""

    part: str

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        middle = len(data.y_held) // 2
        chosen = slice(middle) if self.part == "validation" else slice(middle, None)
        right = all_outputs(net, theta, data.x_held[chosen]).argmax(-1) == data.y_held[chosen]
        return float(right.double().mean())


HALVES: dict[str, Quantity] = {f"{part} accuracy": Half(part) for part in ("validation", "test")}


def readings(first: int, steps: int, ratio: float = RATIO) -> set[int]:
    """0, and steps from the first to the last, each about ``ratio`` times the one before.

    >>> sorted(readings(10, 16))
    [0, 10, 11, 13, 15, 16]
    """
    found = (math.floor(first * ratio**k) for k in range(10_000))
    return {0, *takewhile(lambda step: step <= steps, found), steps}


def rule_of(method: str, coefficient: float, every: int = 1, start: int = 0, part: int = 0) -> GradientRule:
    """none, mixup, or a penalty, of the first ``part`` examples of each batch (0: of all)."""
    if method == "none":
        return PLAIN
    if method == "mixup":
        return Mixup(coefficient)
    return Penalised(method, coefficient, every=every, start=start, examples=part or None)


def begun(
    net: str, data: Data, lr: float, seed: int, batch_size: int = BATCH, rule: GradientRule = PLAIN
) -> EnsembleRun:
    """One run before its first step; batches are drawn with replacement."""
    trials = [trial_of(batch_size, seed, lr)]
    return EnsembleRun(task_of(net, data), trials, check_trials(trials, 1), rule=rule)


def course(
    data: str, net: str, lr: float, seed: int, batch_size: int, steps: int, method: str, coefficient: float, every: int,
    start: int, part: int, first: int, data_root: str | None = None,
) -> Table:  # fmt: skip
    """A run on a split of the seed's own. Columns step, training loss, training accuracy, held-out accuracy, validation
    accuracy, test accuracy (:class:`Half`), Tr F, Tr F of a batch (labels of the model), squared gradient of a batch
    (labels of the data), diverged.

    first: the first reading; negative: read after every so many steps instead.
    """
    quantities: dict[str, Quantity] = {
        **find(("training loss", "training accuracy", "held-out accuracy")),
        **HALVES,
        "Tr F": TraceF(examples=FISHER_EXAMPLES),
        "Tr F of a batch": TraceFBatch(batch_size),
        "squared gradient of a batch": TraceFBatch(batch_size, labels="data"),
    }
    rule = rule_of(method, coefficient, every, start, part)
    run = begun(net, load_data(data, data_root, held=HELD, seed=seed), lr, seed, batch_size, rule)
    at = range(0, steps + 1, -first) if first < 0 else readings(first, steps)
    return recorded(run, steps, quantities, at)


def noisy(
    data: str, net: str, lr: float, seed: int, steps: int, share: float, method: str, coefficient: float, spacing: int,
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """A run where a share of the training labels is drawn anew, uniformly. Columns step, training loss, clean accuracy,
    noisy accuracy, clean gradient norm, noisy gradient norm (means of the norms of single gradients), validation
    accuracy, test accuracy (:class:`Half`), diverged.
    """
    given, redrawn = with_label_noise(load_data(data, data_root, held=HELD, seed=seed), share, seed)
    quantities: dict[str, Quantity] = {"training loss": QUANTITIES["training loss"]}
    for name, mask in (("clean", ~redrawn), ("noisy", redrawn)):
        quantities[f"{name} accuracy"] = Subset(Accuracy("training"), mask)
        quantities[f"{name} gradient norm"] = Subset(MeanGradientNorm("training"), mask)
    quantities.update(HALVES)
    run = begun(net, given, lr, seed, rule=rule_of(method, coefficient))
    return recorded(run, steps, quantities, range(0, steps + 1, spacing))


def curvature(
    data: str, net: str, lr: float, seed: int, batch_size: int, steps: int, at: list[int], traces: list[str],
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """A run with the trace of its Hessian on the way, by Hutchinson's estimator of 30 vectors on all training examples.
    Columns step, training loss, held-out accuracy, Tr H, the other traces ("Tr F", "Tr F of a batch"), diverged.
    """
    known: Mapping[str, Quantity] = {"Tr F": TraceF(examples=FISHER_EXAMPLES), "Tr F of a batch": TraceFBatch(BATCH)}
    quantities: dict[str, Quantity] = {
        **find(("training loss", "held-out accuracy")), "Tr H": TraceH(), **{name: known[name] for name in traces},
    }  # fmt: skip
    run = begun(net, load_data(data, data_root, held=HELD, seed=seed), lr, seed, batch_size)
    return recorded(run, steps, quantities, at)
