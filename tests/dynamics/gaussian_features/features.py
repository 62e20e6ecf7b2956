"""Regressions on Gaussian features, their limits and crossings, for the tests beside this file."""

from __future__ import annotations

import contextlib
import math
import signal
from dataclasses import replace
from functools import cache

import numpy as np
from building import optimizer_of
from reference import Linear, Regression, Rule, moment_system

import nqm

EPS = np.finfo(float).eps

SGD, HEAVY, NESTEROV = Rule(1.0), Rule(1.0, 0.9), Rule(1.0, 0.9, nesterov=True)

PROBLEM = Regression((1.0, 0.02), (1.5, 40.0), (1.0, 0.5), 0.3)


def features(curvature, init=1.0, multiplicity=1.0, label_noise=1.0):
    return nqm.NoisyQuadratic(
        curvature, None, init, multiplicity, noise_model="gaussian-features", label_noise=label_noise
    )


def features_of(problem):
    return features(problem.h, problem.init, problem.multiplicity, problem.label_noise)


def made(rule):
    if isinstance(rule, Linear):
        return nqm.LinearOptimizer(rule.lr, rule.transition, rule.gain, rule.query, rule.readout, rule.start)
    return optimizer_of(rule)


def radius(rule, problem, batch):
    """Spectral radius of the second moments' recursion."""
    return float(np.abs(np.linalg.eigvals(moment_system(rule, problem, batch)[0][:-1, :-1])).max())


def at_limit(rule, problem, batch, share):
    """The rule at this share of its stability limit."""
    return replace(rule, lr=float(share * nqm.max_stable_lr(features_of(problem), made(rule), batch)))


class TooSlow(Exception):
    pass


HANGS = 20.0


@contextlib.contextmanager
def soon():
    """TooSlow after HANGS seconds of this process's own computing time: what is walked step by step takes far more."""

    def stop(*_):
        raise TooSlow

    compiled()
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
    try:
        yield
    except TooSlow:
        # anew: pytest cannot show where a signal struck, which may be at no line at all
        raise TooSlow(f"not done after {HANGS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@cache
def compiled():
    """Once, so that no limit counts it."""
    nqm.steps_to_target(features(1.0), nqm.SGD(0.1), 8, 0.1)


def crossings(problem, optimizer, batch, target):
    return tuple(nqm.steps_to_target(problem, optimizer, batch, target, crossing) for crossing in ("first", "last"))


def scanned(risks, target):
    """First and last crossing of a curve whose end stands for all that follows; NaN, from an overflow, lies above."""
    reached = np.flatnonzero(risks <= target)
    above = np.flatnonzero(~(risks <= target))
    first = float(reached[0]) if reached.size else math.inf
    last = float(above[-1] + 1) if above.size else 0.0
    return first, (math.inf if last == len(risks) else last)


HARMONIC = 1.0 / np.arange(1.0, 10_001.0)

TUNED = features(10.0 ** -np.linspace(0.0, 2.0, 6), label_noise=0.5)
