"""From the oracle's description of a run to the optimizer that users would write."""

from __future__ import annotations

import numpy as np

import nqm


def optimizer_of(rule):
    """The nqm optimizer of a `reference.Rule`, wrapped only where the rule asks for it."""
    optimizer = nqm.SGD(rule.lr, rule.momentum, bool(rule.nesterov and np.any(rule.momentum)))
    if rule.power:
        optimizer = nqm.Preconditioned(optimizer, rule.power)
    if rule.decay is not None:
        optimizer = nqm.EMA(optimizer, rule.decay)
    return optimizer
