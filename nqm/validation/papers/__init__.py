"""What papers say of training networks, tried on networks."""

from __future__ import annotations

from ..experiments.paper import Paper
from . import jastrzebski2021, wen2020

__all__ = ["PAPERS"]

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (wen2020.PAPER, jastrzebski2021.PAPER)}
"""Papers whose experiments on networks are jobs, figures and verdicts, by name."""
