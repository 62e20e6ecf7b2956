"""Figure 3: training error and loss per update under each regime, at one learning rate for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...._table import Table
from ...experiments.drawing import draw_lines, legend_below
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, judge_within, seen
from .drawing import CURVES
from .protocol import COMMON_RATE, LARGE, REGIMES, SMALL, TITLES, seeds_of, settings_of
from .quadratic import SOFTMAX

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURE", "compute", "jobs", "judge", "plot", "pseudo_values"]

UPDATES, EVERY = 400, 5
QUICK_UPDATES = 200
SEEDS = {"mlp": 10, "cnn": 10, "resnet8": 5}
SOFTMAX_RATE = 0.3

COSTLY = ("LB + multiplicative", "LB + K-FAC")
"""Not on the ResNet8: the same as full noise, and three times its cost."""

LIKE, MUCH = 0.25, 0.5
"""Parts of the gap between LB and SB in mean log loss: up to here two regimes train alike; beyond it one is much
faster. Chosen for the paper's words before any judged run."""
SLOWER = math.log(1.1)
"""Unequal speed: a loss 10% higher on the geometric mean over the updates."""

LOSS = "mean log training loss"
MODEL = "mean log training loss of the quadratic"
RATIO = "Tr(A F) / Tr(A diag F) of the quadratic"


def jobs(effort: Effort) -> list[dict[str, Any]]:
    if effort.data != "digits":
        return []
    updates = QUICK_UPDATES if effort.quick else UPDATES
    nets = {"mlp": 3} if effort.quick else SEEDS
    sizes = {"large": LARGE, "small": SMALL, "updates": updates, "every": EVERY}
    trained = [
        settings_of("curve", net, seed, regime=regime, lr=COMMON_RATE[net], **sizes)
        for net, count in nets.items()
        for seed in seeds_of(effort, count)
        for regime in REGIMES
        if net != "resnet8" or regime not in COSTLY
    ]
    rates = {SOFTMAX: SOFTMAX_RATE, **{net: COMMON_RATE[net] for net in nets if net != "resnet8"}}
    models = [settings_of("model", net, seeds_of(effort, 1)[0], lr=lr, **sizes) for net, lr in rates.items()]
    return trained + models


def compute(results: Sequence[Result]) -> Table:
    """Columns of :mod:`~nqm.validation.experiments.samples`: panel the network, series the regime, x the update."""
    samples, curves = [], []
    for settings, columns in results:
        net, seed = settings["net"], settings["seed"]
        if settings["kind"] == "model":
            for regime in columns.distinct("regime"):
                own = columns.select(regime=regime)
                samples.append(Row(net, MODEL, regime, 0.0, seed, mean_log(own)))
            samples.append(Row(net, RATIO, "", 0.0, seed, float(columns["ratio"][0])))
            continue
        regime = settings["regime"]
        samples.append(Row(net, LOSS, regime, 0.0, seed, mean_log(columns)))
        for name in ("training error", "training loss"):
            curves += [
                Row(net, name, regime, float(step), seed, float(value))
                for step, value in zip(columns["step"], columns[name], strict=True)
            ]
    return table_of(samples, curves)


def mean_log(columns: Table) -> float:
    """Mean over the updates of log training loss, by trapezoids; NaN where the run has diverged or the loss is not
    above 0."""
    loss, step = columns["training loss"], columns["step"]
    if not np.all(loss > 0.0):
        return math.nan
    return float(np.trapezoid(np.log(loss), step) / (step[-1] - step[0]))


def plot(table: Table) -> Picture:
    from ....plotting import logarithmic, new_figure

    nets = _nets(table)
    figure, axes = new_figure(len(nets), width=max(4.7 * len(nets), 7.5), height=8.4, rows=2, squeeze=False)
    for i, net in enumerate(nets):
        for row, name in enumerate(("training error", "training loss")):
            ax = axes[row, i]
            draw_lines(ax, table, CURVES, panel=net, quantity=name)
            ax.set(xlabel="update", ylabel=name, title=TITLES[net])
        axes[0, i].set_ylim(0.0, 0.5)
        logarithmic(axes[1, i], "y")
    legend_below(figure, axes[0, 0])
    return figure


def _nets(table: Table) -> list[str]:
    return [net for net in table.distinct("panel") if table.select(panel=net, quantity=LOSS).rows]


def pseudo_values(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jackknife pseudo-values of sum(numerator) / sum(denominator), one for each seed (Tukey, 1958): their mean is the
    ratio, but for a bias of second order, and their scatter its error, also where single denominators are near 0.

    >>> pseudo_values(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    array([0.5, 0.5])
    """
    n, over, under = len(numerator), numerator.sum(), denominator.sum()
    if n < 2:
        return numerator / denominator
    result: NDArray[np.float64] = n * over / under - (n - 1) * (over - numerator) / (under - denominator)
    return result


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network, by the part of the gap in mean log loss between LB (0) and SB (1)."""
    return [verdict for net in _nets(table) for verdict in _judged(table, net)]


def _judged(table: Table, net: str) -> list[Verdict]:
    losses = {
        regime: by_seed(table, panel=net, quantity=LOSS, series=regime) for regime in REGIMES if regime not in COSTLY
    }
    gap = paired(losses["SB"], losses["LB"])
    premise = seen(gap)
    model = _Model(table, net)

    def part(regime: str, of: str = "LB") -> NDArray[np.float64]:
        return pseudo_values(paired(losses[regime], losses[of]), gap)

    ours, title = "between LB (0) and SB (1) in mean log loss", TITLES[net]
    between = paired(losses["LB + full"], losses["LB + diagonal"])
    return [
        judge_claim(
            f"{title}: gradient variance does not tell optimization speed (section 3)",
            "LB + full against LB + diagonal, of equal variance in every parameter: difference in mean log loss",
            between, bound=SLOWER, paper="very different", model=model.difference("LB + full", "LB + diagonal"),
        ),
        judge_within(
            f"{title}: LB + full trains like SB (section 5.2)", f"place {ours}, minus 1", part("LB + full") - 1.0, LIKE,
            premise=premise, paper="same rate", model=model.part("LB + full", minus=1.0),
        ),
        judge_within(
            f"{title}: LB + diagonal trains like LB (section 3)", f"place {ours}", part("LB + diagonal"), LIKE,
            premise=premise, paper="similar", model=model.part("LB + diagonal"),
        ),
        judge_claim(
            f"{title}: LB + diagonal trains much faster than LB + full (section 3)", f"distance {ours}",
            part("LB + full", "LB + diagonal"), bound=MUCH, premise=premise, paper="much faster",
            model=model.part("LB + full", "LB + diagonal"),
        ),
        judge_within(
            f"{title}: LB + trace, isotropic noise of the same variance, trains like LB (ours)", f"place {ours}",
            part("LB + trace"), LIKE, premise=premise, model=model.part("LB + trace"),
        ),
        judge_within(
            f"{title}: empirical and true full Fisher noise train alike (section 4.2)", f"distance {ours}",
            part("LB + true full", "LB + full"), LIKE, premise=premise, paper="almost identical",
        ),
    ]  # fmt: skip


class _Model:
    """What the quadratic says: the network's own, or that of softmax regression where it has none."""

    def __init__(self, table: Table, net: str) -> None:
        panel = net if table.select(panel=net, quantity=MODEL).rows else SOFTMAX
        found = means(table, panel=panel, quantity=MODEL)
        self.losses = dict(zip(found["series"].tolist(), found["value"].tolist(), strict=True))
        self.whose = "" if panel == net else " (softmax regression)"

    def difference(self, one: str, other: str) -> str:
        return f"{self.losses[one] - self.losses[other]:.2f}{self.whose}" if self.losses else ""

    def part(self, regime: str, of: str = "LB", minus: float = 0.0) -> str:
        if not self.losses:
            return ""
        gap = self.losses["SB"] - self.losses["LB"]
        return f"{(self.losses[regime] - self.losses[of]) / gap - minus:.2f}{self.whose}"


FIGURE = NetworkFigure(
    "wen2020-3",
    jobs,
    compute,
    plot,
    judge,
    "The paper: at one learning rate, LB + diagonal trains about as fast as LB, SB and LB + full much slower (training "
    "error of ResNet44 on CIFAR-10, 50% to near 0 in 8,000 updates); beside it true Fisher, K-FAC and multiplicative "
    "noise, of which the text has no curves, and isotropic noise (trace). Multiplicative noise of variance "
    "(M_L - M_S) / M_S is full noise, drawn in another way: the two lines are one. A network's own quadratic, with its "
    "gradients' second moments, says how far each noise takes it from LB to SB (column *noisy quadratic*; CSV).",
    f"digits (1,438 training images, a new split with each seed), M_L = {LARGE}, M_S = {SMALL} (as 4096 and 128), "
    f"batches drawn with replacement, plain SGD at rates {', '.join(f'{COMMON_RATE[net]:g}' for net in SEEDS)}, a "
    "third of the largest that SB survives; no batch norm. One seed has the same start in all regimes and the same "
    "batches in those with large ones. Bands: one standard error over the seeds (10, 10 and 5). The Fisher matrix is "
    "that of the step's large batch. The measured quadratic is the Gauss-Newton one, 100 updates of LB from the "
    "start; for ResNet8 that of softmax regression stands in, and multiplicative and K-FAC noise are left out. Errors "
    "above 0.5 are not shown.",
)
