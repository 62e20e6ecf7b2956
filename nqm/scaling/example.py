"""The example log that ships, and how it was made: by the model itself, plus noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from .. import _checks
from .._checks import FloatArray
from .._io import write_whole
from .logs import RunsLog, read_runs
from .runs import RunsFit

TRUTH: Final = {"p": 1.12, "q": 0.55, "P": 3.2, "Q": 1.2, "R": 120.0, "T0": 100.0, "E": 0.4}
"""Parameters that the example was made from, those of :class:`nqm.scaling.RunsFit`."""
WARMUP: Final = 0.01  # share of the steps, of the example's runs; a cosine follows
SPREAD: Final = 0.005  # standard deviation of the example's log losses about the model's
FAILED: Final = 1.15  # factor on the loss of the run that went wrong
LENGTH: Final = 128  # tokens in an example


def example_runs() -> RunsLog:
    """The example that ships: runs of one made-up family of models, as :func:`write_example` writes them.

    Column ``type`` names two families: isoflop (six sizes at each of five computes) and isotoken (nine batch sizes at
    each of four sizes with fixed examples). Cosine schedule, 1% warmup, sequences of 128 tokens. One run went wrong.

    >>> len(example_runs())
    66
    """
    return read_runs(Path(__file__).with_name("example_runs.csv"))


def write_example(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write a log such as that of :func:`example_runs`, which has seed 0; returns the path.

    Losses are those of :class:`nqm.scaling.RunsFit` with the parameters :data:`TRUTH`, a cosine schedule and 1% warmup,
    times exp(0.005 xi), xi ~ N(0, 1); and one, drawn by chance, times 1.15, as of a run that went wrong.
    """
    random = np.random.default_rng(_checks.whole(seed, "seed"))
    runs = planned_runs()
    losses = true_losses(*(np.array(column, dtype=float) for column in list(zip(*runs, strict=True))[1:]))
    losses *= np.exp(SPREAD * random.standard_normal(len(runs)))
    losses[random.integers(len(runs))] *= FAILED
    lines = [
        f"# Made up by nqm.scaling.example: cosine schedule, {WARMUP:.0%} warmup, {LENGTH}-token examples",
        "N,B,K,loss,type",
        *(f"{n},{b},{k},{loss:.4f},{kind}" for (kind, n, b, k), loss in zip(runs, losses, strict=True)),
    ]
    text = "\n".join(lines) + "\n"
    return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def planned_runs() -> list[tuple[str, int, int, int]]:
    """Type, N, B and K of the example's runs."""
    runs = []
    for level, b in enumerate((32, 64, 128, 128, 256)):
        compute = 1e15 * 4.0**level  # FLOP, 6 N times the tokens
        for n in (500_000 * 2 ** (level + i) for i in range(6)):
            runs.append(("isoflop", n, b, round(compute / (6 * n * b * LENGTH))))
    for level in range(4):
        n, examples = 2_000_000 * 4**level, 2 ** (19 + level)
        runs += [("isotoken", n, b, examples // b) for b in (2 ** (3 + level + i) for i in range(9))]
    return runs


def true_losses(N: FloatArray, B: FloatArray, K: FloatArray) -> FloatArray:
    """What the example's losses are before the noise."""
    truth = np.array(list(TRUTH.values()))
    truth[0] -= 1.0
    theta = np.append(np.log(truth[:-1]), truth[-1])
    return RunsFit({}, "cosine", WARMUP, 0, theta, 0, 0).losses(N, B, K, draws=0)[0]
