"""The paper's job: one piece of training or of measuring, told by its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...._table import Table
from .continued import continued
from .measured import cost, identity, uniform
from .protocol import BATCH, HELD
from .training import FISHER_EXAMPLES, course, curvature, noisy

__all__ = ["KINDS", "PROTOCOL", "run"]

KINDS: dict[str, Callable[..., Table]] = {
    "course": course,
    "noisy": noisy,
    "curvature": curvature,
    "continued": continued,
    "identity": identity,
    "uniform": uniform,
    "cost": cost,
}
PROTOCOL: dict[str, Any] = {
    "version": 1, "held": HELD, "batch": BATCH, "momentum": 0.9, "Fisher examples": FISHER_EXAMPLES,
}  # fmt: skip
"""What tells these jobs from those of other versions; a change of what is not among the settings raises the version."""


def run(*, kind: str, data_root: str | None = None, **settings: Any) -> Table:
    """One job of a kind among :data:`KINDS`, with its keyword arguments: columns by name."""
    return KINDS[kind](**settings, data_root=data_root)
