"""Training under one regime, recorded on the way; what figures 3 and 5b and table 2 are made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...._table import Table
from ....schedules import Schedule, linear
from ...experiments.train import recorded
from ...measurement.quantities import QUANTITIES, find
from ...training.batches import generator
from ...training.data import Data, load_data
from ...training.ensemble import EnsembleRun
from ...training.trials import check_trials
from .protocol import regime_of, task_of, trial_of

__all__ = ["EIGENVALUES", "MOST_EXAMPLES", "begun", "curve", "end"]

MOST_EXAMPLES = 8000
"""To train on, of larger data sets: the first ones of the split."""
EIGENVALUES = ("largest Hessian eigenvalue", "largest Hessian eigenvalue, tempered")


def begun(
    data: Data, net: str, regime: str, seed: int, lr: float, large: int, small: int, schedule: Schedule | None = None
) -> EnsembleRun:
    """One run of a regime, before its first step; batches are drawn with replacement."""
    rule, size = regime_of(regime, large, small)
    trials = [trial_of(size, seed, lr)]
    return EnsembleRun(task_of(net, data), trials, check_trials(trials, 1), rule=rule, schedule=schedule)


def curve(
    data: str, net: str, seed: int, regime: str, lr: float, large: int, small: int, updates: int, every: int,
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """Training loss and error after every so many updates: columns step, training loss, training error, diverged."""
    run = begun(load_data(data, data_root, seed=seed), net, regime, seed, lr, large, small)
    names = ("training loss", "training accuracy")
    found = recorded(run, updates, find(names), range(0, updates + 1, every))
    columns = ("step", "training loss", "diverged")
    return Table({**{name: found[name] for name in columns}, "training error": 1.0 - found["training accuracy"]})


def end(
    data: str, net: str, seed: int, regime: str, lr: float, large: int, small: int, epochs: float, held: float,
    readings: int, eigenvalues: bool, data_root: str | None = None,
) -> Table:  # fmt: skip
    """Training for so many epochs (of N / B updates, with replacement) on a split of the seed's own, at rates that fall
    to 0 linearly.

    Columns step, training loss, held-out loss, held-out accuracy at about so many steps, geometrically apart;
    in the last row, else NaN, both :data:`EIGENVALUES`; diverged.
    """
    given = load_data(data, data_root, held=held, seed=seed)
    given = given.first(min(len(given), MOST_EXAMPLES))
    updates = max(1, round(epochs * len(given) / (small if regime == "SB" else large)))
    run = begun(given, net, regime, seed, lr, large, small, linear(1.0, updates))
    at = {0, *np.unique(np.round(np.geomspace(1, updates, readings)).astype(int)).tolist()}
    names = ("training loss", "held-out loss", "held-out accuracy")
    found = recorded(run, updates, find(names), at)
    last = dict.fromkeys(EIGENVALUES, math.nan)
    if eigenvalues and run.running:
        for name in EIGENVALUES:
            draws = generator(seed, "measurement", updates)
            last[name] = QUANTITIES[name](run.net, run.shown[0], run.data, draws)
    columns: dict[str, Any] = {name: found[name] for name in ("step", *names, "diverged")}
    for name, value in last.items():
        columns[name] = np.where(np.arange(found.rows) == found.rows - 1, value, math.nan)
    return Table(columns)
