"""Fits to training logs, each with what it predicts: the noisy quadratic, and the laws it is compared with.

Modules have the names of their functions, which :mod:`nqm.scaling` exports; this package lists modules only.
"""

__all__ = ["chinchilla", "fit_curves", "fit_runs", "loss_law", "multi_power_law"]
