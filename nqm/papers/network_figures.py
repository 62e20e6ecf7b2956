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


WEN2020: dict[str, Listing] = {}

JASTRZEBSKI2021: dict[str, Listing] = {}

NETWORK_FIGURES: dict[str, Listing] = {**WEN2020, **JASTRZEBSKI2021}
"""By name, as typed in the shell: paper and number."""
