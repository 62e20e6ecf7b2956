"""The critical batch size of a fitted scaling law, as a function of model size and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks
from ..._checks import FloatArray
from ..._statistics import interval
from .box_search import OFFSETS, REACH, box, draw_crossings, first_below, log_losses, lowest, warn_far
from .fit import Fit

__all__ = ["CriticalBatchSize", "critical_batch_size"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class CriticalBatchSize:
    """Critical batch sizes, from :func:`critical_batch_size`: floats, or arrays of the common shape of N and loss.

    value: fewest examples over fewest steps; low, high: over those bootstrap draws that reach the loss. steps,
    examples: the two minima. on_edge: steps still fall at the last batch size searched, so that there is no critical
    batch size but that range's. All NaN where the loss is not reached.
    """

    params: Any
    loss: Any
    value: Any
    low: Any
    high: Any
    steps: Any
    examples: Any
    on_edge: Any

    def plot(self, ax: Axes | None = None) -> Axes:
        """Critical batch size, on a logarithmic axis, against loss, with intervals; a line for each size."""
        from ...plotting import plot_critical_batch_size

        names = ("params", "loss", "value", "low", "high")
        return plot_critical_batch_size({name: np.ravel(getattr(self, name)) for name in names}, ax)


def critical_batch_size(fit: Fit, N: ArrayLike, loss: ArrayLike, level: float = 0.9) -> CriticalBatchSize:
    """E_min / S_min at size N: fewest examples to ``loss`` at any batch size over fewest steps at any batch size.

    The definition of McCandlish et al. (2018), and of :meth:`nqm.sweep.Sweep.critical_batch_size`: where steps S and
    examples E trade off as (S / S_min - 1) (E / E_min - 1) = 1, this batch size takes twice both minima. S(B) is where
    the predicted loss of K steps, each K a training run of its own, first comes down to ``loss``; B from 1 to 100 times
    the largest of the runs, B K up to 100 times the most of the runs. Where E(B) = B S(B) grows with B throughout, as
    in McCandlish et al., E_min is that at B = 1. Where small batches do worse than larger ones, as at a learning rate
    that stays the same whatever B is, it is the minimum inside.

    Args:
        fit: anything with ``.losses`` and ``.runs``.
        N: parameters, at least 1; loss: targets, > 0. They broadcast together; each pair takes a tenth of a second.
        level: of the intervals, over 50 bootstrap draws at the batch sizes of the two minima.

    Warns (UserWarning) where N is more than 10 times beyond the runs'.

    Raises:
        TypeError, ValueError: for wrong arguments.

    >>> import numpy as np, nqm
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> fit.critical_batch_size(1e9, 2.6).on_edge  # steps fall as 1 / B for ever: it has none
    True
    """
    ends = box(fit)
    sizes = _checks.reals(N, "N", low=1.0, closed="low")
    targets = _checks.reals(loss, "loss", low=0.0)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    shape = _checks.broadcast(N=sizes.shape, loss=targets.shape)
    n, goal = (np.log(np.broadcast_to(v, shape).ravel()) for v in (sizes, targets))
    most_examples = np.log(REACH * (fit.runs["B"] * fit.runs["K"]).max())

    def steps(b: FloatArray) -> FloatArray:
        """log S at log batch sizes, (..., pairs)."""
        most = np.maximum(most_examples - b, 0.0)
        return first_below(lambda k: log_losses(fit, n, b, k)[0] - goal, np.zeros(b.shape), most)

    batches = np.linspace(ends[1, 0] + 0.0 * n, ends[1, 1], 25)
    b_steps, log_steps = lowest(steps, batches, 10)
    b_examples, log_examples = lowest(lambda b: b + steps(b), batches, 10)
    gap = batches[1] - batches[0]
    with np.errstate(invalid="ignore"):
        fall = steps(batches[-1] - gap) - steps(batches[-1])  # of steps, over the last gap
    reached = np.isfinite(log_steps)
    log_steps[~reached] = log_examples[~reached] = np.nan
    on_edge = reached & (b_steps >= batches[-1] - 1e-9) & (fall > 0.1 * gap)
    # nqm._statistics.critical_batch_size is the same ratio over cells that are given; here both minima are searched for
    # over all batch sizes, each where it lies.
    value = np.exp(log_examples - log_steps)
    b, k = np.stack([b_steps, b_examples]), np.stack([log_steps, log_examples - b_examples])
    low, high = value * _relative_ends(fit, n, b, k, goal, level)
    warn_far(fit, "critical batch sizes are asked for", {"params": sizes})
    columns = (
        *(np.broadcast_to(v, shape).ravel() for v in (sizes, targets)),
        value, low, high, np.exp(log_steps), np.exp(log_examples), on_edge,
    )  # fmt: skip
    return CriticalBatchSize(*(v.reshape(shape) if shape else v.item() for v in columns))


def _relative_ends(fit: Fit, n: FloatArray, b: FloatArray, k: FloatArray, goal: FloatArray, level: float) -> FloatArray:
    """Ends of intervals over the prediction, (2, pairs), from the steps of each draw at the batch sizes of both minima.

    n, goal: (pairs,); b, k: (2, pairs), logs of batch size and steps where steps, and where examples, are fewest.
    """
    around = k[..., None] + OFFSETS
    crossed = draw_crossings(fit, n[:, None], b[..., None], around, around, goal) - k  # (draws, 2, pairs)
    ratios = [crossed[np.isfinite(crossed[:, :, i]).all(axis=1), :, i] for i in range(n.size)]
    return np.transpose([interval(np.exp(r[:, 1] - r[:, 0]), level) for r in ratios])
