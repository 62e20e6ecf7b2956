"""The model of a run's final loss: what makes a power law a language model's, and its exact Jacobian.

On the recursion of :mod:`nqm.scaling.models.modes`:

- a model of N parameters holds a share 1 / (1 + sqrt(n / N)) of mode n; the rest stays untrained;
- the learning rate follows the runs' own schedule, over the root of the growing squared norm of the weights, 1 + t / T0
  with t the sum of squared relative learning rates;
- Adam divides the gradient by its root mean square, noise included, so that small batches take smaller steps:
  lr / sqrt(1 + B_noise / B). B_noise = sum c / sum h^2 theta_0^2 is the simple noise scale of McCandlish et al. (2018)
  at the start, which the model knows of itself;
- noise R / n: the same in every octave of modes.

    loss = E + sum_n P/2 n^-p (1 - share_n) + sum_n share_n (b_n + v_n)

Six parameters p, q, P, Q, R, T0 and the floor E; theta = log(p - 1), log q, log P, log Q, log R, log T0, E.

**How it was chosen.** On the training runs of Li & Maddison (2026) alone: fitted without some of them, the root mean
square log error on those. Left out were, in turn, the runs that the authors filtered (small batches), compute of at
least 3.6e16 or 1.4e16 FLOP, at least 64M parameters, batches of at most 400 at fixed examples, and the most compute of
each kind; the mean of these six, over runs of at least 100 steps:

- as above 0.0220, and E = 1.0 is found; with E = 0: 0.0225; the authors' plain model: 0.0563;
- fitted to the runs of less than 100 steps too: 0.0232, and E = 0 is found. They are nine, off by up to 7% either way,
  shorter than Adam's averages, and bend the fit; counted in, errors are 0.0262 without them in the fit, 0.0300 with;
- a constant learning rate in place of the runs' cosine: 0.0273; without T0: 0.0259; with weight decay: 0.0219;
- without Adam's factor: 0.0250; with B_noise times a free number 0.0214 (3.9), to a free power 0.0205 (1.1, not 0.5);
- modes cut off at n = N: 0.0399; a share of 1 / (1 + (n / N)^c): c = 0.3, 0.4, 0.7, 1: 0.0278, 0.0263, 0.0262, 0.0316;
- noise R n^-r with r free: 0.0202, an eighth parameter (0.83); with r = q (noise like curvature): 0.0298.

What gains less than 0.002 was left out, as chance. Whoever first proposed the cosine, T0, the soft share and Adam's
factor had seen 21 test runs, and their errors were printed while some of these variants were tried; no choice above was
made by them. Leaving out short runs was tried when the errors with them were known, 0.023 and 0.035.

**What it gets wrong.** On those 21 test runs the error is 0.014 (sizes) and 0.036 (batch sizes): at 25 times the
examples, models of 10M end up to 5% above the prediction with small batches, and up to 4% below with the largest.
Models of 100M with batches of 24 to 96 sequences end up to 11% above. Sizes of 512M and more end 0 to 3% below it. All
sizes had the same peak learning rate, which may be too high for large ones; the training runs cannot tell, with one
model of more than 128M. 90% intervals, which do not know of all this, hold 14 of the 21. Widening them by how wrong a
fit to the runs of less compute is on the others was tried, and depends more on where one cuts than on the runs.

Schedules are taken in pieces: :mod:`nqm.scaling.models.relative_lr`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..._checks import FloatArray
from .modes import LAST, Pieces, effective_lrs, mode_sums, modes

__all__ = ["NAMES", "FinalLosses", "learned_fraction", "natural_parameters"]

NAMES: Final = ("p", "q", "P", "Q", "R", "T0", "E")


class FinalLosses:
    """The model at given N, B and pieces of the learning rate: losses and their exact Jacobian in theta."""

    def __init__(self, N: FloatArray, B: FloatArray, pieces: Pieces) -> None:
        self.B, self.pieces = B, pieces
        self.n, self.weight = modes()
        self.log_n = np.log(self.n)
        self.learned = learned_fraction(self.n, N)
        self.unlearned = 1.0 - self.learned

    def untrained(self, theta: FloatArray) -> FloatArray:
        """E, what the model does not hold, and all modes beyond the last, (rows,)."""
        p, _, P, _, _, _, E = natural_parameters(theta)
        return E + self.unlearned @ (0.5 * P * self.weight * self.n**-p) + _tail(p, P)[0]

    def rates(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Learning rates of all pieces; their derivatives by log T0, and by the log of the whole; then, for each row,
        noise over signal power at the start, and the mean of log n in the signal."""
        p, q, P, Q, R, T0, _ = natural_parameters(theta)
        signal = P * Q * self.learned * (self.weight * self.n ** -(p + q))
        signals = signal.sum(axis=1)
        ratio = R * (self.learned @ (self.weight / self.n)) / signals / self.B
        found, slopes = effective_lrs(self.pieces, 1.0 / T0, 0.0)
        factor = np.repeat(1.0 / np.sqrt(1.0 + ratio), np.diff(self.pieces.first))
        rates = factor * found
        tangents = np.stack([factor * slopes[:, 0] / -T0, rates], axis=1)
        return rates, tangents, ratio, signal @ self.log_n / signals

    def losses(self, theta: FloatArray) -> FloatArray:
        return self._sums(theta, False)[0]

    def jacobian(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Losses, (rows,), and their derivatives by theta, (rows, 7)."""
        losses, sums, ratio, mean_log = self._sums(theta, True)
        p, q, P = natural_parameters(theta)[:3]
        b, b_log, v, _, w, w_log, by_T0, by_rate = sums.T
        untrained = 0.5 * P * self.weight * self.n**-p
        tail, tail_p = _tail(p, P)
        per_ratio = -0.5 * by_rate * ratio / (1.0 + ratio)  # by the log of noise over signal power
        columns = [
            (p - 1.0) * (-b_log - self.unlearned @ (untrained * self.log_n) + tail_p + per_ratio * mean_log),
            q * (-w_log + per_ratio * mean_log),
            b + self.unlearned @ untrained + tail - per_ratio,
            w - per_ratio,
            v + per_ratio,
            by_T0,
            np.ones_like(b),
        ]
        return losses, np.stack(columns, axis=1)

    def _sums(self, theta: FloatArray, tangents: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        p, q, P, Q, R, _, _ = natural_parameters(theta)
        rates, slopes, ratio, mean_log = self.rates(theta)
        start = self.learned * (0.5 * P * self.weight * self.n**-p)
        noise = self.learned * (R * self.weight / self.n) / (2.0 * self.B[:, None])
        kept = slopes if tangents else slopes[:, :0]
        sums = mode_sums(self.n, Q * self.n**-q, start, noise, self.pieces._replace(lrs=rates), kept)
        return self.untrained(theta) + sums[:, 0] + sums[:, 2], sums, ratio, mean_log


def natural_parameters(theta: FloatArray) -> FloatArray:
    """p, q, P, Q, R, T0, E in the last axis."""
    values = np.exp(np.where(np.arange(len(NAMES)) == len(NAMES) - 1, 0.0, theta))
    values[..., 0] += 1.0
    values[..., -1] = np.where(theta[..., -1] > 1e-9, theta[..., -1], 0.0)  # what a search leaves of a floor of 0
    return values


def learned_fraction(n: FloatArray, N: FloatArray) -> FloatArray:
    """How much of each mode models of N parameters can learn, (rows, modes)."""
    return np.asarray(1.0 / (1.0 + np.sqrt(n / N[..., None])))


def _tail(p: float, P: float) -> tuple[float, float]:
    """sum P/2 n^-p beyond the last mode, and its derivative by p."""
    tail = 0.5 * P * float(np.exp((1.0 - p) * LAST)) / (p - 1.0)
    return tail, -tail * (LAST + 1.0 / (p - 1.0))
