"""Figures and tables of the papers that need networks: what they show and what they cost. Drawn by nqm.validation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NETWORK_FIGURES", "Listing"]


@dataclass(frozen=True)
class Listing:
    """title: what it shows. quick, full: minutes of training on two cores, with ``--quick`` and without."""

    title: str
    quick: float
    full: float


WEN2020 = {
    "wen2020-2": Listing("Gradient variance by layer under each regime", 0.2, 2.0),
    "wen2020-3": Listing("Training error and loss per update under each regime", 0.3, 12.0),
    "wen2020-5a": Listing("Norms of the Fisher matrix and of its diagonal along training", 0.3, 3.0),
    "wen2020-5b": Listing("The Hessian's largest eigenvalue at the end of training", 0.1, 4.0),
    "wen2020-table2": Listing("Held-out accuracy at equal epochs under each regime", 0.2, 7.0),
    "wen2020-costs": Listing("What a step of each regime costs", 0.1, 0.6),
}

JASTRZEBSKI2021: dict[str, Listing] = {}

NETWORK_FIGURES: dict[str, Listing] = {**WEN2020, **JASTRZEBSKI2021}
"""By name, as typed in the shell: paper and number."""
