"""A job of any kind: what wen2020's figures here are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...._table import Table
from .costs import costs
from .fisher_norms import norms
from .quadratic import model_curve
from .training import curve, end
from .variance import variances

__all__ = ["KINDS", "run"]

KINDS: dict[str, Callable[..., Table]] = {
    "curve": curve,
    "end": end,
    "variance": variances,
    "norms": norms,
    "costs": costs,
    "model": model_curve,
}


def run(kind: str, data_root: str | None = None, **settings: Any) -> Table:
    """One of :data:`KINDS` with its settings."""
    return KINDS[kind](**settings, data_root=data_root)
