"""Schedules of learning rate and batch size, and the rules that follow them, for the tests beside this file."""

from __future__ import annotations

from reference import Rule

import nqm
from nqm.schedules import Schedule

FAMILIES = ("SGD", "heavy ball", "Nesterov")

SPECTRUM = nqm.NoisyQuadratic([1.0, 0.3, 0.02, 1e-3], [0.5, 1.0, 0.1, 1e-3], [1.0, 0.2, 3.0, 10.0])
LR = Schedule([0.0, 0.4, 0.9, 0.9, 0.05, 0.6, 1e-4], [2, 7, 40, 1, 90, 3, 60])
BATCH = Schedule([4.0, 4.0, 32.0, 2.0, 100.0], [20, 30, 45, 1, 50])


def rule_of(family, power=0.0, averaged=False, momentum=0.8, decay=0.9):
    return Rule(1.0, 0.0 if family == "SGD" else momentum, family == "Nesterov", power, decay if averaged else None)


def limit_of(rule):
    """The x = lr h^(1-p) at which a root of the optimizer reaches -1."""
    limit = 2.0 * (1.0 + rule.momentum)
    return limit / (1.0 + 2.0 * rule.momentum) if rule.nesterov else limit


SAME = 3e-14
