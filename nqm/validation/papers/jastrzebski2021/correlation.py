"""Early Tr(F) and final generalization: figures 2 (learning rates) and 7 (batch sizes) of jastrzebski2021."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...._table import Table
from ....plotting import new_figure
from ...experiments.drawing import BARS, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import by_seed, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, seen
from .drawing import draw_settings
from .protocol import BATCH_RATE, BATCH_SIZES, EARLY, RATES, TITLES, course_of, rates_of, seeds_of, size_of
from .reading import LARGEST, ends, group

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES", "rank_correlation"]

EARLY_TRACES = [f"Tr F at loss {loss:g}" for loss in EARLY]


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's; NaN where a number is NaN or where one of them is constant."""
    if np.ptp(x) > 0.0 and np.ptp(y) > 0.0:
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    return float("nan")


def jackknifed(early: NDArray[np.float64], accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pseudo-values (seeds,), one for each seed, of the correlation of two (settings, seeds) within settings: that of
    what is left when each setting's mean is taken off. Their mean is the correlation less its bias of order 1/n."""

    def correlation(kept: NDArray[np.bool_]) -> float:
        x, y = (part[:, kept] - part[:, kept].mean(axis=1, keepdims=True) for part in (early, accuracy))
        return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))

    n = early.shape[1]
    places = np.arange(n)
    whole = correlation(places >= 0)
    return np.array([n * whole - (n - 1) * correlation(places != left) for left in range(n)])


def _jobs_2(effort: Effort) -> list[dict[str, Any]]:
    seeds = seeds_of(effort, size_of(effort).many)
    return [course_of(effort, net, rate, seed) for net in RATES for rate in rates_of(effort, net) for seed in seeds]


def _jobs_7(effort: Effort) -> list[dict[str, Any]]:
    seeds = seeds_of(effort, size_of(effort).some)
    return [
        course_of(effort, net, rate, seed, batch_size=batch)
        for net, rate in BATCH_RATE.items()
        for batch in (BATCH_SIZES[::2] if effort.quick else BATCH_SIZES)
        for seed in seeds
    ]


def _compute(results: Sequence[Result], by: str, name: str) -> Table:
    """Early Tr F and the largest held-out accuracy of each seed at each setting of each network."""
    rows = []
    for net in RATES:
        own = group(results, net=net)
        for value in sorted({one.settings[by] for one in own}):
            chosen = group(own, **{by: value})
            rows += ends(chosen, net, f"{name} {value:g}", (*EARLY_TRACES, LARGEST), x=float(value))
    return table_of(rows)


def _plot(table: Table) -> Picture:
    figure, axes = new_figure(len(EARLY), width=11.5, height=9.2, rows=len(RATES), squeeze=False)
    for row, net in zip(axes, RATES, strict=True):
        for ax, quantity, loss in zip(row, EARLY_TRACES, EARLY, strict=True):
            draw_settings(ax, table, quantity, LARGEST, net)
            ax.set(xlabel=f"Tr(F) when the training loss first crosses {loss:g}", ylabel=f"{LARGEST} (%)",
                   title=TITLES[net])  # fmt: skip
        legend_beside(row[-1])
    return figure


def _judge(
    table: Table, kind: str, claim: str, gap: str, ends_of: Callable[[list[str]], tuple[str, str]]
) -> list[Verdict]:
    """ends_of: of the settings in order, which one is to generalize best and which worst."""
    found = []
    for net in RATES:
        names = table.select(panel=net).distinct("series")
        best, worst = (by_seed(table, panel=net, quantity=LARGEST, series=name) for name in ends_of(names))
        premise = seen(paired(best, worst))
        accuracies = _numbers(table, net, LARGEST, names)
        found.append(
            judge_claim(f"{TITLES[net]}: {gap}", "points of the largest held-out accuracy, premise of the next",
                        paired(best, worst))
        )  # fmt: skip
        for quantity, loss in zip(EARLY_TRACES, EARLY, strict=True):
            early = _numbers(table, net, quantity, names)
            where = f"{TITLES[net]}, at a loss of {loss:g}"
            across = [rank_correlation(x, y) for x, y in zip(early.T, accuracies.T, strict=True)]
            found += [
                judge_claim(f"{where}: {claim}",
                            f"Spearman correlation across {kind} of early Tr(F) with the largest held-out accuracy, of "
                            "each seed", across, above=False, premise=premise, paper="rising Tr(F), falling accuracy"),
                judge_claim(f"{where}: early Tr(F) is the smaller the better a run generalizes, of one setting (ours)",
                            f"correlation within {kind}, across seeds (jackknifed: may lie beyond 1)",
                            jackknifed(early, accuracies),
                            above=False),
            ]  # fmt: skip
    return found


def _numbers(table: Table, net: str, quantity: str, names: Sequence[str]) -> NDArray[np.float64]:
    """(settings, seeds)."""
    return np.array([[*by_seed(table, panel=net, quantity=quantity, series=name).values()] for name in names])


def judge_2(table: Table) -> list[Verdict]:
    claim = "early Tr(F) is the smaller the better a learning rate generalizes (section 3)"
    return _judge(
        table,
        "learning rates",
        claim,
        "the largest rate generalizes better than the smallest",
        lambda names: (names[-1], names[0]),
    )


def judge_7(table: Table) -> list[Verdict]:
    claim = "early Tr(F) is the smaller the better a batch size generalizes (appendix A.1)"
    return _judge(
        table,
        "batch sizes",
        claim,
        "the smallest batches generalize better than the largest",
        lambda names: (names[0], names[-1]),
    )


LOSSES = (
    "The moment of early Tr(F) is when the training loss first crosses a threshold: right, by the paper's rule, the "
    "loss at which Tr(F) is about largest at small rates here (0.5), left the paper's number for ten classes (1.2), "
    "where the runs have come equally far on about the same path. At 0.5 large rates are past their peak of Tr(F), "
    "which lies at losses of 0.6 to 1.3, and small ones at it: that favors the claim."
)
FIGURES = (
    NetworkFigure(
        "jastrzebski2021-2", _jobs_2, partial(_compute, by="lr", name="rate"), _plot, judge_2,
        "Settings with a larger early Tr(F) generalize worse. Each point: a learning rate; across: Tr(F) early in "
        "training, up: the largest held-out accuracy along the run, means over seeds (the paper: 32 on CIFAR, 2 on "
        "ImageNet, three rates each, standard deviations).",
        f"A CNN and an MLP on 449 digits, five rates from eta*/10 to eta*. {LOSSES} {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-7", _jobs_7, partial(_compute, by="batch_size", name="batch"), _plot, judge_7,
        "The same where batch sizes differ (the paper: 100, 500 and 700 on CIFAR-10, 100, 300 and 700 on CIFAR-100, at "
        "rate 0.02).",
        f"Batches of {', '.join(map(str, BATCH_SIZES))} at rates "
        f"{' and '.join(f'{rate:g} ({TITLES[net]})' for net, rate in BATCH_RATE.items())}, as many steps each. "
        f"{LOSSES} {BARS}",
    ),
)  # fmt: skip
