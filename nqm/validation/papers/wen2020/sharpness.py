"""Figure 5b: the largest eigenvalue of the Hessian at the end of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...._table import Table
from ...experiments.drawing import legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, log_ratio, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim
from .drawing import LOOKS
from .generalization import count_of, end_of, nets_of
from .protocol import TITLES, seeds_of
from .training import EIGENVALUES

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURE", "compute", "jobs", "judge", "plot"]

SHOWN = ("LB", "LB + diagonal", "SB")
PLAIN, TEMPERED = EIGENVALUES


def jobs(effort: Effort) -> list[dict[str, Any]]:
    if effort.data != "digits":
        return []
    return [
        end_of(effort, net, regime, seed)
        for net in nets_of(effort)
        for seed in seeds_of(effort, count_of(effort, net))
        for regime in SHOWN
    ]


def compute(results: Sequence[Result]) -> Table:
    """Columns of :mod:`~nqm.validation.experiments.samples`: panel the network, quantity one of the eigenvalues, series
    the regime; NaN where a run has diverged."""
    return table_of(
        Row(settings["net"], name, settings["regime"], float(place), settings["seed"], _last(columns, name))
        for settings, columns in results
        for place, regime in enumerate(SHOWN)
        if regime == settings["regime"]
        for name in (TEMPERED, PLAIN)
    )


def _last(columns: Table, name: str) -> float:
    return math.nan if columns["diverged"].any() else float(columns[name][-1])


def plot(table: Table) -> Picture:
    from ....plotting import logarithmic, new_figure

    nets = table.distinct("panel")
    figure, axes = new_figure(2, width=10.0, height=4.4, squeeze=False)
    for ax, name, said in zip(axes[0], (TEMPERED, PLAIN), ("outputs at their temperature", "as trained"), strict=True):
        for number, regime in enumerate(SHOWN):
            rows = [means(table, panel=net, quantity=name, series=regime) for net in nets]
            x = np.arange(len(nets)) + 0.2 * (number - 1)
            values, errors = ([float(one[key][0]) for one in rows] for key in ("value", "error"))
            ax.errorbar(x, values, errors, color=LOOKS[regime]["color"], marker=LOOKS[regime]["marker"], linestyle="",
                        markersize=8, capsize=4, label=regime)  # fmt: skip
        ax.set_xticks(range(len(nets)), [TITLES[net] for net in nets])
        ax.set(title=said, xlabel="network", ylabel="largest Hessian eigenvalue", xlim=(-0.5, len(nets) - 0.5))
        logarithmic(ax, "y")
    legend_beside(axes[0, 1])
    return figure


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network."""
    return [
        judge_claim(
            f"{TITLES[net]}: the Hessian's largest eigenvalue is lower with diagonal noise than without ({said})",
            "log of the eigenvalue of LB over that of LB + diagonal", _log_ratios(table, net, name),
            paper="0.4 to 1.3 by eye" if name == TEMPERED else "",
        )
        for net in table.distinct("panel")
        for name, said in ((TEMPERED, "section 5.3: outputs at their temperature"), (PLAIN, "ours: as trained"))
    ]  # fmt: skip


def _log_ratios(table: Table, net: str, name: str) -> list[float]:
    large, noisy = (by_seed(table, panel=net, quantity=name, series=regime) for regime in ("LB", "LB + diagonal"))
    return paired(large, noisy, log_ratio).tolist()


FIGURE = NetworkFigure(
    "wen2020-5b",
    jobs,
    compute,
    plot,
    judge,
    "The paper: over four networks the eigenvalue of LB + diagonal is lower than that of LB, in some as low as SB's "
    "(axis from 0 to 70).",
    "the networks of table 2 at the end of training (digits, equal epochs, 20 splits), at the training loss to which "
    "each regime has come. A temperature is fitted to the held-out cross-entropy, as the paper does on its test set, "
    "and the last layer's weights and biases are divided by it: the paper's \"reparameterization\", and not the "
    "Hessian of the divided outputs at the old weights. No batch norm to be folded in. Bars: one standard error over "
    "the splits.",
)
