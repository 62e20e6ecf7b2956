"""What a step of each regime costs, against one of large batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...._table import Table
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, means, table_of
from ...experiments.verdict import Verdict, judge_claim
from ...training.data import load_data
from .drawing import LOOKS
from .protocol import COMMON_RATE, LARGE, REGIMES, SMALL, TITLES, seeds_of, settings_of
from .training import begun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURE", "compute", "costs", "jobs", "judge", "plot"]

REPEATS = {"mlp": 60, "cnn": 20, "resnet8": 12}
JOBS, QUICK_JOBS = 5, 3
FORWARD = "forward pass"
RATIO, PASSES = "seconds of a step / of LB's", "extra seconds / of a forward pass"
ONE, MINOR = 1.5, 1.5
"""Up to here an overhead is about one forward pass, and minor (of LB's step). Chosen before any judged run."""


def jobs(effort: Effort) -> list[dict[str, Any]]:
    if effort.data != "digits":
        return []
    return [
        settings_of("costs", net, seed, lr=0.1 * COMMON_RATE[net], large=LARGE, small=SMALL, repeats=repeats)
        for net, repeats in REPEATS.items()
        for seed in seeds_of(effort, QUICK_JOBS if effort.quick else JOBS)
        if not (effort.quick and net == "resnet8")
    ]


def costs(
    data: str, net: str, seed: int, lr: float, large: int, small: int, repeats: int, data_root: str | None = None
) -> Table:
    """Median processor seconds of one step of each regime, and of a forward pass of the large batch, taken in turns.

    Seconds are the thread's own, so that other work on the machine counts little. Columns regime, seconds.
    """
    given = load_data(data, data_root, seed=seed)
    runs = {regime: begun(given, net, regime, seed, lr, large, small) for regime in REGIMES}
    base = runs["LB"]
    x = given.x[torch.arange(large) % len(given)]

    def forward() -> None:
        with torch.no_grad():
            base.net.outputs(base.theta[0], x)

    actions: dict[str, Callable[[], None]] = {FORWARD: forward, **{name: run.step for name, run in runs.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(repeats + 1):
        for name, action in actions.items():
            began = time.thread_time()
            action()
            if number:  # the first one finds out about the network
                seconds[name].append(time.thread_time() - began)
    return Table({"regime": list(seconds), "seconds": [float(np.median(times)) for times in seconds.values()]})


def compute(results: Sequence[Result]) -> Table:
    """Columns of :mod:`~nqm.validation.experiments.samples`: panel the network, series the regime, quantity seconds,
    their ratio to LB's, and what is beyond LB's in forward passes."""
    rows = []
    for settings, columns in results:
        seconds = dict(zip(columns["regime"].tolist(), columns["seconds"].tolist(), strict=True))
        for place, (name, value) in enumerate(seconds.items()):
            numbers = {
                "seconds": value, RATIO: value / seconds["LB"], PASSES: (value - seconds["LB"]) / seconds[FORWARD]
            }  # fmt: skip
            rows += [Row(settings["net"], q, name, float(place), settings["seed"], v) for q, v in numbers.items()]
    return table_of(rows)


def plot(table: Table) -> Picture:
    from ....plotting import new_figure

    nets = table.distinct("panel")
    figure, axes = new_figure(len(nets), width=4.6 * len(nets), height=4.8, squeeze=False)
    for ax, net in zip(axes[0], nets, strict=True):
        shown = means(table, panel=net, quantity=RATIO)
        names = [name for name in shown.distinct("series") if name in REGIMES]
        for place, name in enumerate(names):
            own = shown.select(series=name)
            ax.errorbar([place], own["value"], own["error"], color=LOOKS[name]["color"], marker=LOOKS[name]["marker"],
                        markersize=8, capsize=4, label=f"_{name}")  # fmt: skip
            ax.annotate(f"{own['value'][0]:.2g}", (place, own["value"][0]), (0, 9), textcoords="offset points",
                        ha="center", fontsize=9)  # fmt: skip
        ax.axhline(1.0, color="#888888", linewidth=1.0, label="_LB")
        ax.set_xticks(range(len(names)), names, rotation=50, ha="right")
        ax.set(title=TITLES[net], xlabel="regime", ylabel=RATIO)
        ax.set_ylim(0.0, 1.15 * shown["value"][np.isin(shown["series"], names)].max())
    return figure


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network."""
    found = []
    for net in table.distinct("panel"):
        own = {name: list(by_seed(table, panel=net, quantity=name, series="LB + diagonal").values())
               for name in (RATIO, PASSES)}  # fmt: skip
        found += [
            judge_claim(
                f"{TITLES[net]}: the diagonal Fisher costs one forward pass (section 2.2.3)",
                "seconds beyond those of LB's step, in forward passes of the large batch", own[PASSES], bound=ONE,
                above=False, paper="1 (Goodfellow, 2015)",
            ),
            judge_claim(
                f"{TITLES[net]}: the diagonal Fisher is a minor overhead (section 2.2.3)",
                "seconds of a step over those of LB's",
                own[RATIO], bound=MINOR, above=False, paper="minor",
            ),
        ]  # fmt: skip
    return found


FIGURE = NetworkFigure(
    "wen2020-costs",
    jobs,
    compute,
    plot,
    judge,
    "The paper: the diagonal Fisher matrix introduces only minor overhead, one forward pass. For linear layers it is "
    "one more product of squares in the gradient's own backward pass (Goodfellow, 2015); a convolution needs each "
    "example's gradient, since the squares are of sums over places. Full noise, which the paper leaves out of table 2 "
    "for its long training, is not dear by the step: with the examples' own labels it is the gradient of a weighted "
    "loss, and as multiplicative noise comes with LB's own backward pass.",
    f"M_L = {LARGE}, M_S = {SMALL}; medians of {', '.join(f'{n} ({TITLES[net]})' for net, n in REPEATS.items())} steps "
    "taken in turns, processor seconds of one thread, PyTorch's function transforms; bars: one standard error over "
    "five jobs. Another implementation has other costs.",
)
