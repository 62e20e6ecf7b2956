"""Verdicts on claims: from one number per seed, with the interval that decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

__all__ = [
    "CANNOT",
    "FAILS",
    "FIELDS",
    "HOLDS",
    "LEVEL",
    "UNDECIDED",
    "Verdict",
    "decide",
    "judge_claim",
    "judge_within",
    "mean_interval",
    "seen",
]

HOLDS, FAILS, UNDECIDED, CANNOT = "holds", "does not hold", "undecided", "cannot be judged here"
LEVEL = 0.95


@dataclass(frozen=True)
class Verdict:
    """A claim, the number that decides it with its interval, where it has to lie, and the paper's own number.

    claim: "NETWORK: ..." where it is of one of several. why: what the number is. seeds: how many numbers it is the mean
    of. side: on which side of the bound the claim holds, ">", "<" or "within" (on either side of 0). model: what the
    noisy quadratic says of the same number, where it says something.
    """

    claim: str
    why: str
    value: float
    low: float
    high: float
    seeds: int
    side: str
    bound: float
    verdict: str
    paper: str = ""
    model: str = ""

    def row(self) -> dict[str, Any]:
        """The verdict as a row of a table."""
        return {"claim": self.claim, "number": self.why, **{name: getattr(self, name) for name in FIELDS[2:]}}


FIELDS = ("claim", "number", "value", "low", "high", "seeds", "side", "bound", "verdict", "paper", "model")


def mean_interval(samples: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean and the ends of its interval by Student's t, of independent samples (n,); ends NaN for fewer than two.

    >>> [round(end, 3) for end in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values: NDArray[Any] = np.asarray(samples, dtype=float)
    if values.size < 2:
        return float(values.mean()) if values.size else math.nan, math.nan, math.nan
    half = float(student.ppf(0.5 + 0.5 * level, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    mean = float(values.mean())
    return mean, mean - half, mean + half


def decide(low: float, high: float, bound: float, above: bool = True) -> str:
    """:data:`HOLDS` where the whole interval lies on the claim's side of the bound, :data:`FAILS` where it lies on the
    other, else (an unknown interval too) :data:`UNDECIDED`."""
    right, wrong = (low > bound, high < bound) if above else (high < bound, low > bound)
    return HOLDS if right else FAILS if wrong else UNDECIDED


def seen(samples: ArrayLike) -> bool:
    """Whether a premise, that the mean is above 0, is seen: by the whole interval."""
    return mean_interval(samples)[1] > 0.0


def judge_claim(
    claim: str,
    why: str,
    samples: Sequence[float] | NDArray[Any],
    *,
    bound: float = 0.0,
    above: bool = True,
    premise: bool = True,
    paper: str = "",
    model: str = "",
) -> Verdict:
    """Judge a claim that a mean lies above (or below) a bound, by samples of which each is from a seed of its own.

    premise: False where what the claim starts from is not seen here: then it cannot be judged, whatever the number. A
    sample that is NaN or infinite (a run that diverged) makes the interval unknown.
    """
    value, low, high = mean_interval(samples)
    verdict = decide(low, high, bound, above) if premise else CANNOT
    side = ">" if above else "<"
    return Verdict(claim, why, value, low, high, len(samples), side, bound, verdict, paper, model)


def judge_within(
    claim: str,
    why: str,
    samples: Sequence[float] | NDArray[Any],
    margin: float,
    *,
    premise: bool = True,
    paper: str = "",
    model: str = "",
) -> Verdict:
    """Judge a claim that a mean is 0 to within a margin: it holds where the whole interval lies within, does not hold
    where it lies outside. The rest as :func:`judge_claim`."""
    value, low, high = mean_interval(samples)
    within, outside = -margin < low and high < margin, low > margin or high < -margin
    verdict = CANNOT if not premise else HOLDS if within else FAILS if outside else UNDECIDED
    return Verdict(claim, why, value, low, high, len(samples), "within", margin, verdict, paper, model)
