"""Fits to training logs: python -m pytest tests/bench/test_scaling.py -m bench -s -n 0"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from scipy.optimize import approx_fprime

import nqm
from nqm import scaling
from nqm.papers.ours.scaling_laws import runs_of_curves
from nqm.scaling.models.final_loss import FinalLosses
from nqm.scaling.models.modes import modes
from nqm.scaling.models.relative_lr import RelativeLR

from .test_speed import best_of, tell

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

LOG = scaling.example_runs()
RUNS = (LOG.N[:64], LOG.B[:64], LOG.K[:64], LOG.loss[:64])


def fit(**options):
    return scaling.fit_runs(*RUNS, lr_schedule="cosine", warmup=0.01, **options)


@njit
def transcendental(count):
    """What every mode and piece needs at least: a logarithm and an exponential."""
    total = 0.0
    for i in range(count):
        total += math.exp(12.5 * math.log(0.9 - 1e-9 * i))
    return total


def test_losses_and_jacobian_of_64_runs():
    found = fit()
    rows = FinalLosses(*RUNS[:2], RelativeLR("cosine", 0.01).pieces(RUNS[2]))
    theta, size = found.theta, 64 * rows.pieces.lrs.size // 64 * modes()[0].size
    losses, exact = best_of(lambda: rows.losses(theta)), best_of(lambda: rows.jacobian(theta))
    differences = best_of(lambda: approx_fprime(theta, rows.losses))
    transcendental(1)
    floor = best_of(lambda: transcendental(size))
    tell("losses of 64 runs, 25 pieces, 96 modes", losses)
    print(f"  {losses / floor:.2f} times a logarithm and an exponential each", end="")
    tell("    with the exact Jacobian in 7 parameters", exact, differences, "finite differences")


def test_fits_and_intervals():
    with nqm.use_backend("numba", threads=1):
        fit()
        whole = best_of(fit)
        tell("fit_runs, 64 runs, 8 starts, 1 thread", whole)
        tell("    its bootstrap, 100 draws", best_of(lambda: fit().draws) - whole)
        N = np.geomspace(1e6, 1e9, 1000)
        found = fit()
        tell("1000 predictions", best_of(lambda: found.losses(N, 256, 1e4, draws=0)))
        tell("chinchilla, 64 runs, 32 starts", best_of(lambda: scaling.chinchilla(*RUNS)))


def test_curves():
    problem = nqm.NoisyQuadratic.power_law(10_000)
    curves = []
    for schedule, seen in runs_of_curves().values():
        if seen:
            steps = np.arange(1200, schedule.steps + 1, 130)
            curves.append(scaling.LossCurve(steps, 2.0 + nqm.risk(problem, nqm.SGD(schedule), 64, steps), schedule))
    with nqm.use_backend("numba", threads=1):
        scaling.fit_curves(curves)
        tell("fit_curves, three curves of 176 losses, 1 thread", best_of(lambda: scaling.fit_curves(curves)))
        tell("multi_power_law, the same", best_of(lambda: scaling.multi_power_law(curves)))
