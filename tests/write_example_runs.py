"""The log of nqm.scaling.example_runs, and how it was made: by the model itself, plus noise.

Run as a script it writes the file that ships: ``python tests/write_example_runs.py nqm/scaling/example_runs.csv``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from nqm.scaling.example import LENGTH, WARMUP
from nqm.scaling.models.final_loss import FinalLosses
from nqm.scaling.models.relative_lr import RelativeLR

TRUTH = {"p": 1.12, "q": 0.55, "P": 3.2, "Q": 1.2, "R": 120.0, "T0": 100.0, "E": 0.4}
"""Parameters that the example was made from, those of nqm.scaling.RunsFit."""
SPREAD = 0.005  # standard deviation of the example's log losses about the model's
FAILED = 1.15  # factor on the loss of the run that went wrong


def write_example(path, seed=0):
    """Write a log such as that of example_runs, which has seed 0; returns the path.

    Losses are those of the model with the parameters TRUTH, a cosine schedule and 1% warmup, times exp(0.005 xi), xi ~
    N(0, 1); and one, drawn by chance, times 1.15, as of a run that went wrong.
    """
    random = np.random.default_rng(seed)
    runs = planned_runs()
    losses = true_losses(*(np.array(column, dtype=float) for column in list(zip(*runs, strict=True))[1:]))
    losses *= np.exp(SPREAD * random.standard_normal(len(runs)))
    losses[random.integers(len(runs))] *= FAILED
    lines = [
        f"# Made up by nqm.scaling.example: cosine schedule, {WARMUP:.0%} warmup, {LENGTH}-token examples",
        "N,B,K,loss,type",
        *(f"{n},{b},{k},{loss:.4f},{kind}" for (kind, n, b, k), loss in zip(runs, losses, strict=True)),
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return Path(path)


def planned_runs():
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


def true_losses(N, B, K):
    """What the example's losses are before the noise."""
    truth = np.array(list(TRUTH.values()))
    truth[0] -= 1.0
    theta = np.append(np.log(truth[:-1]), truth[-1])
    return FinalLosses(N, B, RelativeLR("cosine", WARMUP).pieces(K)).losses(theta)


if __name__ == "__main__":
    write_example(*sys.argv[1:])
