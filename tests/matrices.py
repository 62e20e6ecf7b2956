"""Random matrices, optimizers whose risk is compared on them, and whether a mean of samples is the expected one."""

from __future__ import annotations

import cases
import numpy as np

from nqm import NoisyQuadratic

STEPS = np.array([0, 1, 2, 3, 10, 40])


def spd(generator, d, condition=30.0):
    q = np.linalg.qr(generator.normal(size=(d, d)))[0]
    return (q * np.geomspace(1.0, 1.0 / condition, d)) @ q.T


def psd(generator, d, rank=None):
    root = generator.normal(size=(d, rank or d))
    return root @ root.T


RULES = {name: rule for name, rule in cases.RULES.items() if not rule.power}


def within(samples, expected, z=4.0):
    """The mean of independent samples lies within z of its standard errors."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.all(np.abs(samples.mean(axis=0) - expected) <= z * error)


MATRICES = NoisyQuadratic.from_matrices
