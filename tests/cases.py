"""All optimizers and all problems, each once. The properties of test_properties.py are tested for every pair.

To add an optimizer or a problem, add a line: its numbers, and beside them what the oracles of reference.py make of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from building import optimizer_of
from reference import Coordinates, Linear, Rule, averaged, exact_risks, risks_step_by_step

import nqm
from nqm import Schedule

# --- optimizers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An optimizer with plain numbers, stable for curvatures up to 1, and its update rule for the oracles."""

    optimizer: Any
    rule: Rule | Linear

    @property
    def lr(self):
        return self.rule.lr

    def scaled(self, factor):
        """With another learning rate."""
        lr = self.lr * factor
        return Case(self.optimizer.with_values(lr=lr), replace(self.rule, lr=lr))

    def along(self, lr):
        """The optimizer with this learning rate, which may be a schedule."""
        return self.optimizer.with_values(lr=lr)


def of(rule):
    return Case(optimizer_of(rule), rule)


def by_hand(lr, transition, gain, query, readout, start):
    parts = (transition, gain, query, readout, start)
    return Case(nqm.LinearOptimizer(lr, *parts), Linear(lr, *parts))


def average(case, decay):
    return Case(nqm.EMA(case.optimizer, decay), averaged(case.rule, decay))


FAMILIES = {"SGD": (0.0, False), "heavy ball": (0.9, False), "Nesterov": (0.9, True)}
RULES = {
    f"{f'EMA of {family}' if decay else family}{f', power {power}' if power else ''}": Rule(0.7, *values, power, decay)
    for family, values in FAMILIES.items()
    for power in (0.0, 0.25, 0.5, 1.0)
    for decay in (None, 0.97)
}
LINEAR = {
    "one state": by_hand(0.7, [[0.95]], [0.8], [1.1], [0.9], [1.2]),
    "two states": by_hand(0.2, [[1.0, 0.8], [0.0, 0.8]], [1.0, 0.7], [1.0, 0.1], [1.0, 0.0], [1.0, 0.0]),
    "three states": by_hand(
        0.3, [[1.0, 0.5, 0.2], [0.0, 0.5, 0.1], [0.0, 0.0, 0.2]], [0.5, 0.5, 1.0], [0.9, 0.1, 0.3], [1.0] * 3, [1, 0, 0]
    ),
}
OPTIMIZERS = {
    **{name: of(rule) for name, rule in RULES.items()},
    **LINEAR,
    "critical damping": of(Rule(0.25, 0.25)),
    "EMA of one state": average(LINEAR["one state"], 0.9),
    "EMA of two states": average(LINEAR["two states"], 0.9),
}

# --- problems --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A problem with a batch size, and all its coordinates for the oracles.

    lr: factor for the learning rates of the cases, which makes them stable here. rtol: what risk promises; same: how
    far two ways to the same risk may part. few: whether the problem is made of the coordinates, one by one.
    """

    problem: nqm.NoisyQuadratic
    batch_size: float
    coordinates: Coordinates
    lr: float = 1.0
    rtol: float = 1e-12
    same: float = 3e-14
    few: bool = True

    @property
    def features(self):
        return self.coordinates.label_noise is not None

    def case(self, name):
        return OPTIMIZERS[name].scaled(self.lr)

    def step_by_step(self, rule, pieces):
        return risks_step_by_step(rule, self.coordinates, pieces)

    def exact(self, rule, times):
        return exact_risks(rule, self.coordinates, [(rule.lr, self.batch_size, 1)], times)

    def like(self, **changed):
        """A problem with the same kind of noise, of other coordinates."""
        return problem_of(replace(self.coordinates, **changed))


def problem_of(coordinates):
    h, c, init, multiplicity = coordinates.h, coordinates.c, coordinates.init, coordinates.multiplicity
    if coordinates.label_noise is None:
        return nqm.NoisyQuadratic(h, c, init, multiplicity)
    return nqm.NoisyQuadratic(
        h, None, init, multiplicity, noise_model="gaussian-features", label_noise=coordinates.label_noise
    )


def explicit(h, c, init, multiplicity, batch_size, label_noise=None, **more):
    h, c, init, multiplicity = (np.array(a, float) for a in np.broadcast_arrays(h, c, init, multiplicity))
    coordinates = Coordinates(h, c, init, multiplicity, label_noise)
    return Setting(problem_of(coordinates), batch_size, coordinates, **more)


def spectrum(problem, h, batch_size):
    """All eigenvalues of a problem that has fewer nodes than these; unit start, C = H."""
    return Setting(
        problem, batch_size, Coordinates(h, h, np.ones_like(h), np.ones_like(h)), rtol=1e-8, same=1e-8, few=False
    )


def matrices(preconditioned):
    """Whitened: theta' = L^T theta with P = L L^T, then the eigenbasis of L^-1 H L^-T."""
    rng = np.random.default_rng(1)
    root, other, more = rng.normal(size=(3, 4, 4))
    hessian, covariance, start = root @ root.T + 0.05 * np.eye(4), other @ other.T, rng.normal(size=4)
    preconditioner = more @ more.T + np.eye(4) if preconditioned else np.eye(4)
    whiten = np.linalg.inv(np.linalg.cholesky(preconditioner))
    scale = np.linalg.eigvalsh(whiten @ hessian @ whiten.T).max()
    hessian, covariance = hessian / scale, covariance / scale
    h, basis = np.linalg.eigh(whiten @ hessian @ whiten.T)
    c = np.diag(basis.T @ whiten @ covariance @ whiten.T @ basis)
    init = (basis.T @ np.linalg.solve(whiten.T, start)) ** 2
    problem = nqm.NoisyQuadratic.from_matrices(hessian, covariance, start, preconditioner if preconditioned else None)
    return Setting(problem, 8.0, Coordinates(h, c, init, np.ones(4)), rtol=1e-11, same=1e-12)


H, C, INIT = [1.0, 0.31, 0.02, 1e-3], [0.5, 0.31, 0.1, 1e-5], [1.0, 0.0, 3.0, 20.0]
WEIGHTED = ([1.0, 0.3, 0.02], [0.5, 1.0, 0.1], [1.0, 0.2, 3.0], [1.0, 2.0, 4.0])
HARMONIC = 1.0 / np.arange(1.0, 501.0)
MEASURED = np.exp(-np.abs(np.random.default_rng(0).normal(0.0, 3.0, size=500)))
SETTINGS = {
    "explicit": explicit(H, C, INIT, 1.0, 8.0),
    "weighted": explicit(*WEIGHTED, 3.0),
    "without noise": explicit(H, 0.0, INIT, 1.0, 8.0),
    "infinite batch": explicit(*WEIGHTED, np.inf),
    "matrices": matrices(False),
    "matrices and preconditioner": matrices(True),
    "power law": spectrum(nqm.NoisyQuadratic.power_law(500), HARMONIC, 64.0),
    "steep power law": spectrum(nqm.NoisyQuadratic.power_law(500, 1.6), HARMONIC**1.6, 64.0),
    "compressed": spectrum(nqm.NoisyQuadratic(MEASURED).compressed(), MEASURED, 16.0),
    "Gaussian features": explicit(*WEIGHTED, 16.0, 0.5, lr=0.02, rtol=1e-11, same=1e-11),
    "Gaussian features, single examples": explicit(*WEIGHTED, 1.0, 0.5, lr=0.002, rtol=1e-11, same=1e-11),
    "Gaussian features, infinite batch": explicit(*WEIGHTED, np.inf, 0.5, rtol=1e-11, same=1e-11),
}
FEW = [name for name, setting in SETTINGS.items() if setting.few]
ADDITIVE = [name for name in FEW if not SETTINGS[name].features]
FEATURES = [name for name in SETTINGS if SETTINGS[name].features]

# --- pairs -----------------------------------------------------------------------------------------------------


def pairs(settings=tuple(SETTINGS), optimizers=tuple(OPTIMIZERS), every=3, first=1):
    """A test's parameters `case` and `setting`: the first setting with every ``first``-th optimizer, the others with
    every ``every``-th, each with others; `python -m pytest -m thorough` takes what is left."""

    def marks(i, j):
        left_out = i % first if j == 0 else (i + j) % every
        return [pytest.mark.thorough] if left_out else []

    return pytest.mark.parametrize(
        ("case", "setting"),
        [
            pytest.param(SETTINGS[setting].case(name), SETTINGS[setting], id=f"{name}-{setting}", marks=marks(i, j))
            for j, setting in enumerate(settings)
            for i, name in enumerate(optimizers)
        ],
    )


# --- schedules, in units of the case's learning rate and of the setting's batch size -----------------------------

LR = Schedule([0.0, 0.6, 1.25, 1.25, 0.07, 0.85, 1e-4], [2, 7, 40, 1, 90, 3, 60])
BATCH = Schedule([0.5, 0.5, 4.0, 0.25, 12.0], [20, 30, 45, 1, 50])


def batch_along(setting, schedule=BATCH):
    """The schedule in units of the setting's batch size, which stays infinite where it is."""
    return schedule * setting.batch_size if np.isfinite(setting.batch_size) else np.inf


def pieces_of(lr, batch, steps):
    """(lr, batch, steps) of the pieces on which neither changes; numbers and schedules alike, the last value held."""
    given = [value if isinstance(value, Schedule) else lambda _, value=value: value for value in (lr, batch)]
    ends = {int(end) for value in (lr, batch) if isinstance(value, Schedule) for end in value.ends if end < steps}
    cuts = sorted({0, steps, *ends})
    return [(given[0](a), given[1](a), b - a) for a, b in itertools.pairwise(cuts)]
