"""The catastrophic Fisher explosion: figures 1, 15 and 16 of jastrzebski2021."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...._table import Table
from ....plotting import logarithmic, new_figure
from ...experiments.drawing import BARS, draw_lines, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, log_ratio, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim
from .correlation import rank_correlation
from .drawing import curves, looks_of, shades_of
from .protocol import BATCH_RATE, BEST_RATE, SMALL_RATE, both_rates, course_of, seeds_of, size_of
from .reading import BEST, LARGEST, PEAK, SMALL, courses, ends, group, worse_at_small_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES"]

NET = "cnn"
CLOSELY = 0.5
"""A rank correlation along a run of what is "closely related": a single batch's norm is noisy."""
FINE = 200  # steps that are looked at one by one: Tr F is largest before
EARLY_AT_PEAK, EARLY_AT_PAPERS = "Tr F at loss 0.5", "Tr F at loss 1.2"
RATE_OF = {BEST: BEST_RATE[NET], SMALL: SMALL_RATE[NET]}


def rate_name(name: str) -> str:
    """A series of a rate, as legends have it."""
    return f"{name}, {RATE_OF[name]:g}"


# Figure 1


def jobs_1(effort: Effort) -> list[dict[str, Any]]:
    return both_rates(effort, NET, size_of(effort).many)


def compute_1(results: Sequence[Result]) -> Table:
    """Paths of accuracies, Tr F and the norm of a batch's gradient; of each seed the ends, and Spearman's correlation
    along the run of Tr F with that norm."""
    samples, paths = [], []
    for name, rate in RATE_OF.items():
        own = group(results, lr=rate)
        samples += ends(own, NET, name, (LARGEST, PEAK, EARLY_AT_PEAK, EARLY_AT_PAPERS))
        for one in own:
            columns = one.columns
            found = rank_correlation(columns["Tr F"], columns["squared gradient of a batch"])
            samples.append(Row(NET, "correlation of Tr F and gradient norm", name, 0.0, one.settings["seed"], found))
        for part in ("training", "held-out"):
            paths += courses(own, NET, f"{part} accuracy", name, f"{part} accuracy", 100.0)
        paths += courses(own, NET, "Tr F", name, "Tr F")
        squares = courses(own, NET, "gradient norm", name, "squared gradient of a batch")
        paths += [row._replace(value=math.sqrt(row.value)) for row in squares]
    return table_of(samples, paths)


def plot_1(table: Table) -> Picture:
    figure, axes = new_figure(3, width=16.5, height=4.4)
    looks = looks_of([BEST, SMALL])
    dashed = {name: {**look, "linestyle": ":"} for name, look in looks.items()}
    solid = {name: {**look, "linestyle": "-"} for name, look in looks.items()}
    draw_lines(axes[0], table, dashed, lambda name: f"{rate_name(name)}: training", quantity="training accuracy")
    draw_lines(axes[0], table, solid, lambda name: f"{rate_name(name)}: held-out", quantity="held-out accuracy")
    axes[0].set(ylabel="accuracy (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    legend_beside(axes[-1], handles=handles, labels=labels)
    for ax, quantity, label in ((axes[1], "Tr F", "Tr(F)"), (axes[2], "gradient norm", "norm of a batch's gradient")):
        draw_lines(ax, table, solid, None, quantity=quantity)
        ax.set(ylabel=label)
    for ax in axes:
        ax.set(xlabel="step")
        logarithmic(ax, "x")
    return figure


def judge_1(table: Table) -> list[Verdict]:
    def at(quantity: str, series: str) -> dict[int, float]:
        return by_seed(table, quantity=quantity, series=series)

    def ratio(quantity: str) -> Any:
        return paired(at(quantity, SMALL), at(quantity, BEST), log_ratio)

    gap = paired(at(LARGEST, BEST), at(LARGEST, SMALL))
    return [
        judge_claim("A tenth of the best learning rate generalizes worse (section 2)",
                    "largest held-out accuracy at the best rate less that at a tenth of it, points", gap,
                    paper="2.1 to 9.0 points (table 1)"),
        judge_claim("The largest Tr(F) is larger at the small rate (section 2: it explodes)",
                    "log of the largest Tr(F) at the small rate over that at the best rate", ratio(PEAK),
                    paper="0.77 to 1.4 (table 4)"),
        judge_claim("Early Tr(F) is larger at the small rate, where it is largest there (section 3)",
                    "log ratio of Tr(F) when the training loss first crosses 0.5", ratio(EARLY_AT_PEAK)),
        judge_claim("Early Tr(F) is larger at the small rate, at the paper's loss (section 3)",
                    "log ratio of Tr(F) when the training loss first crosses 1.2", ratio(EARLY_AT_PAPERS)),
        judge_claim("Tr(F) is closely related to the gradient norm (figure 1)",
                    "Spearman correlation along a run at the small rate of Tr(F) with the norm of a batch's gradient",
                    [*at("correlation of Tr F and gradient norm", SMALL).values()], bound=CLOSELY),
    ]  # fmt: skip


# Figure 15


def jobs_15(effort: Effort) -> list[dict[str, Any]]:
    """Tr F at every step at the best rate; at the small one as far apart in time as rates times steps tell it."""
    size = size_of(effort)
    seeds = seeds_of(effort, size.few)
    every, steps = (4, 100) if effort.quick else (1, FINE)
    fine = [
        course_of(effort, NET, rate, seed, steps=apart * steps, first=-apart * every)
        for rate, apart in ((RATE_OF[BEST], 1), (RATE_OF[SMALL], 4))
        for seed in seeds
    ]
    return fine + both_rates(effort, NET, size.many)


def compute_15(results: Sequence[Result]) -> Table:
    """Paths of Tr F and training accuracy; the largest Tr F of each seed, and what the premise needs."""
    samples, paths = [], []
    for name, rate in RATE_OF.items():
        own = group(results, lr=rate)
        samples += ends([one for one in own if one.settings["first"] > 0], NET, name, (LARGEST,))
        fine = [one for one in own if one.settings["first"] < 0]
        samples += ends(fine, NET, name, (PEAK,))
        paths += courses(fine, NET, "Tr F", name, "Tr F")
        paths += courses(fine, NET, "training accuracy", name, "training accuracy", 100.0)
    return table_of(samples, paths)


def plot_15(table: Table) -> Picture:
    looks = looks_of([BEST, SMALL])
    panels = ((NET, "Tr F", "Tr(F)"), (NET, "training accuracy", "training accuracy (%)"))
    figure = curves(table, panels, looks, label=rate_name)
    for name in (BEST, SMALL):
        peak = means(table, quantity=PEAK, series=name)["value"][0]
        figure.axes[0].axhline(peak, color=looks[name]["color"], linestyle=":", linewidth=1.0)
    return figure


def judge_15(table: Table) -> list[Verdict]:
    best, small = (by_seed(table, quantity=PEAK, series=name) for name in (BEST, SMALL))
    higher = sum(best[seed] > small[seed] for seed in best)
    return [
        judge_claim("A large rate never enters a region of as large Tr(F) as a small one (appendix D)",
                    f"log of the largest Tr(F) of the first {FINE} steps at the best rate over that at the small rate, "
                    f"of every fourth of {4 * FINE}; in {higher} of {len(best)} seeds it is larger",
                    paired(best, small, log_ratio), above=False, premise=worse_at_small_rate(table, NET)),
    ]  # fmt: skip


# Figure 16

BATCHES = (16, 64, 449)
QUICK_STEPS = 100


def jobs_16(effort: Effort) -> list[dict[str, Any]]:
    every, steps = (4, QUICK_STEPS) if effort.quick else (1, FINE)
    return [
        course_of(effort, NET, BATCH_RATE[NET], seed, batch_size=batch, steps=steps, first=-every)
        for batch in BATCHES
        for seed in seeds_of(effort, size_of(effort).few)
    ]


def compute_16(results: Sequence[Result]) -> Table:
    """Paths of Tr F and training accuracy of each batch size; the largest Tr F of each seed."""
    samples, paths = [], []
    for batch in BATCHES:
        own, name = group(results, batch_size=batch), f"batch {batch}"
        samples += ends(own, NET, name, (PEAK,), float(batch))
        paths += courses(own, NET, "Tr F", name, "Tr F")
        paths += courses(own, NET, "training accuracy", name, "training accuracy", 100.0)
    return table_of(samples, paths)


def plot_16(table: Table) -> Picture:
    panels = ((NET, "Tr F", "Tr(F)"), (NET, "training accuracy", "training accuracy (%)"))
    return curves(table, panels, shades_of([f"batch {batch}" for batch in BATCHES]))


def judge_16(table: Table) -> list[Verdict]:
    peaks = [by_seed(table, quantity=PEAK, series=f"batch {batch}") for batch in BATCHES]
    large = f"log of the largest Tr(F) of the first {FINE} steps with batches of {BATCHES[-1]} over that with {{}}"
    return [
        judge_claim("Large batches enter regions of larger Tr(F) than small ones (appendix E)",
                    large.format(BATCHES[0]), paired(peaks[-1], peaks[0], log_ratio)),
        judge_claim(f"Batches of {BATCHES[2]} do so against batches of {BATCHES[1]} too (appendix E)",
                    large.format(BATCHES[1]), paired(peaks[-1], peaks[1], log_ratio)),
    ]  # fmt: skip


FIGURES = (
    NetworkFigure(
        "jastrzebski2021-1", jobs_1, compute_1, plot_1, judge_1,
        "The small rate (the paper: 0.001 against 0.0316, Wide ResNet on TinyImageNet) fits the training examples as "
        "well, generalizes worse and meets a much larger Tr(F) early on; the gradient's norm goes with it.",
        "CNN with 12 filters on 449 digits, eta* and a tenth of it (the paper: a thirtieth), no weight decay, constant "
        "rates; Tr(F) exact on 100 images. A logarithmic axis, since a tenth of the rate takes ten times the steps. "
        f"{BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-15", jobs_15, compute_15, plot_15, judge_15,
        "At no step does the run at the large rate have as large a Tr(F) (dotted: the mean of the largest of each run) "
        "as the run at the small rate.",
        "Exact Tr(F) of the same 100 images, after each of the first 200 steps at eta* and after every fourth of 800 "
        f"at eta*/10 (the paper: of 128 new images after every step); training accuracy on all examples. {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-16", jobs_16, compute_16, plot_16, judge_16,
        "With large batches training enters regions of a substantially larger Tr(F) than with small ones (the paper: "
        "three batch sizes, SimpleCNN on CIFAR-10).",
        f"Batches of {BATCHES[0]}, {BATCHES[1]} and {BATCHES[2]} at rate {BATCH_RATE[NET]:g}, drawn with replacement; "
        "exact Tr(F) of the same 100 images after each of the first 200 steps, training accuracy on all examples (the "
        f"paper: of 128 new images, and of the batch). {BARS}",
    ),
)  # fmt: skip
