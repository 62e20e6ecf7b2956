"""The example log that ships: made by the model itself, plus noise (``tests/write_example_runs.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .logs import RunsLog, read_runs

__all__ = ["LENGTH", "WARMUP", "example_runs"]

WARMUP: Final = 0.01  # share of the steps, of the example's runs; a cosine follows
LENGTH: Final = 128  # tokens per example


def example_runs() -> RunsLog:
    """The example that ships: runs of one made-up family of models.

    Column ``type`` names two families: isoflop (six sizes at each of five computes) and isotoken (nine batch sizes at
    each of four sizes with fixed examples). Cosine schedule, 1% warmup, sequences of 128 tokens. One run went wrong.

    >>> len(example_runs())
    66
    """
    return read_runs(Path(__file__).with_name("example_runs.csv"))
