"""Table 5: what an epoch costs under each penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...._table import Table
from ....plotting import new_figure, series
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, means, table_of
from ...experiments.verdict import Verdict, judge_claim
from .drawing import draw_compared
from .protocol import BATCH, METHODS, SMALL_RATE, TITLES, seeds_of, size_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES"]

NONE, MIXUP = "none", "mixup"
OFTEN = {1: "", 10: ", f = 10"}
SETTINGS: dict[str, tuple[str, float, int]] = {
    NONE: (NONE, 0.0, 1),
    **{f"{method}{often}": (method, 0.1, every) for every, often in OFTEN.items() for method in METHODS},
    MIXUP: (MIXUP, 0.4, 1),
}
"""Name -> method, coefficient (no matter for the cost), steps between two gradients of the penalty."""
RARE = [f"{method}{OFTEN[10]}" for method in METHODS]
BLOCK, BLOCKS = 5, 3
"""Epochs of 8 steps, that are summed: every tenth step comes exactly four times in 40."""

SECONDS, RATIO = "seconds of an epoch", "seconds of an epoch / without a penalty"
LITTLE = 1.5
"""Up to here an additional cost is small; two of the paper's five ratios, which it calls small, are 1.6 and 1.7."""

BASELINE = {"WRN, TinyImageNet": 142.69, "DenseNet": 57.40, "VGG-11": 35.27, "WRN": 47.99, "SimpleCNN": 19.51}
PAPER = {
    "GP_x": (233.14, 77.89, 31.54, 71.33, 26.09),
    "GP": (143.78, 78.66, 32.52, 61.36, 19.91),
    "FP": (208.62, 97.25, 43.41, 76.93, 21.21),
    "GP_r": (371.74, 75.96, 42.40, 53.25, 20.55),
}
"""Seconds of an epoch in table 5, networks as in :data:`BASELINE`."""


def jobs(effort: Effort) -> list[dict[str, Any]]:
    return [
        {"kind": "cost", "data": effort.data, "net": net, "lr": rate, "seed": seed,
         "methods": [list(one) for one in SETTINGS.values()], "epochs": BLOCK * (1 if effort.quick else BLOCKS)}
        for net, rate in SMALL_RATE.items()
        for seed in seeds_of(effort, size_of(effort).few)
    ]  # fmt: skip


def compute(results: Sequence[Result]) -> Table:
    """Panel the network, series the method: the median over blocks of :data:`BLOCK` epochs of their mean seconds, and
    of its ratio to that of the same epochs without a penalty."""
    rows = []
    for settings, columns in results:
        blocks = [columns.select(method=place)["seconds"].reshape(-1, BLOCK).mean(axis=1)
                  for place in range(len(SETTINGS))]  # fmt: skip
        for place, name in enumerate(SETTINGS):
            numbers = {SECONDS: np.median(blocks[place]), RATIO: np.median(blocks[place] / blocks[0])}
            rows += [Row(settings["net"], quantity, name, float(place), settings["seed"], float(value))
                     for quantity, value in numbers.items()]  # fmt: skip
    return table_of(rows)


def plot(table: Table) -> Picture:
    """Ratios of each method; crosses: those of the paper's five experiments."""
    nets = table.distinct("panel")
    figure, axes = new_figure(len(nets), width=6.4 * len(nets), height=5.0, squeeze=False)
    colors = {method: series(number)["color"] for number, method in enumerate((*METHODS, MIXUP))}
    names = [name for name in SETTINGS if name != NONE]
    looks = {name: {"color": colors[SETTINGS[name][0]]} for name in names}
    for ax, net in zip(axes[0], nets, strict=True):
        shown = table.select(panel=net, quantity=RATIO)
        draw_compared(ax, shown.where(shown["series"] != NONE), looks)
        for place, name in enumerate(names):
            value = means(shown, series=name)["value"][0]
            ax.annotate(f"{value:.2f}", (place, value), (0, 8), textcoords="offset points", ha="center", fontsize=9)
            if name in RARE:
                ratios = paper_ratios(SETTINGS[name][0])
                ax.plot(np.full(len(ratios), place - 0.3), ratios, "x", color="#888888", markersize=5,
                        label=f"_{name}, paper")  # fmt: skip
        ax.axhline(1.0, color="#888888", linewidth=1.0, label="_without a penalty")
        ax.set(title=TITLES[net], xlabel="method", ylabel=RATIO)
        ax.set_ylim(0.0, 1.1 * ax.get_ylim()[1])
    return figure


def paper_ratios(method: str) -> list[float]:
    """Of table 5, each network's seconds over its baseline's."""
    return [own / base for own, base in zip(PAPER[method], BASELINE.values(), strict=True)]


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network."""
    found = []
    for net in table.distinct("panel"):
        ratios = {name: by_seed(table, panel=net, quantity=RATIO, series=name) for name in RARE}
        fisher, every = ratios[f"FP{OFTEN[10]}"], by_seed(table, panel=net, quantity=RATIO, series="FP")
        dearest = [max(own[seed] for own in ratios.values()) for seed in fisher]
        found += [
            judge_claim(f"{TITLES[net]}: FP, its gradient every tenth step, adds little cost (table 5)",
                        "seconds of an epoch over those without a penalty", [*fisher.values()], bound=LITTLE,
                        above=False, paper=_span([paper_ratios("FP")])),
            judge_claim(f"{TITLES[net]}: FP, its gradient every step, as in table 1 here, adds little cost (ours)",
                        "seconds of an epoch over those without a penalty", [*every.values()], bound=LITTLE,
                        above=False),
            judge_claim(f"{TITLES[net]}: each of the four penalties, every tenth step, adds little cost (table 5)",
                        "the same, of the dearest of the four with each seed", dearest, bound=LITTLE, above=False,
                        paper=_span([paper_ratios(method) for method in METHODS])),
        ]  # fmt: skip
    return found


def _span(ratios: Sequence[Sequence[float]]) -> str:
    """The largest of the methods' ratios on each network, from and to."""
    dearest = np.max(ratios, axis=0)
    return f"{dearest.min():.2f} to {dearest.max():.2f}"


FIGURES = (
    NetworkFigure(
        "jastrzebski2021-table5", jobs, compute, plot, judge,
        "Table 5, seconds of an epoch, over those of its baseline (crosses, five networks): FP from 1.09 to 1.69, the "
        "dearest of four penalties from 1.23 to 2.61. Its columns eta* and Baseline are the same computation and lie "
        "up to a factor of 1.5 apart, which is how exact the table is. FP's gradient is computed every 10 steps there; "
        "of the other penalties the paper does not say how often.",
        f"Each penalty at every step and every tenth step (f = 10), and mixup, B = {BATCH}, 8 steps an epoch, seconds "
        "of one thread's processor time, of all methods in turn, epoch by epoch, the first one left out; of each seed "
        f"the median over {BLOCKS} blocks of {BLOCK} epochs (40 steps, in which every tenth comes four times). Small "
        "dots: single seeds; bars: one standard error over the seeds. PyTorch's function transforms: another "
        "implementation has other costs.",
    ),
)  # fmt: skip
