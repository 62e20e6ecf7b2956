"""Traces that go together: of F and of a batch's own F (figure 12), of F and of the Hessian (figure 18)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...._table import Table
from ....plotting import logarithmic, new_figure
from ...experiments.drawing import BARS, draw_lines, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, log_ratio, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, judge_within
from .drawing import looks_of, shades_of
from .protocol import BATCH, SMALL_RATE, TITLES, course_of, rates_of, seeds_of, size_of
from .reading import courses, group
from .training import readings

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES"]

NET = "cnn"
TRACES = ("Tr F", "Tr F of a batch")
STRONG = 0.8
"""A strong correlation along a run."""
ABOUT = 0.25
"""Equal: to within a factor exp(0.25), 28%, on the geometric mean."""


# Figure 12

RATIO = "B Tr F of a batch / Tr F"
BATCHES = 400


def jobs_12(effort: Effort) -> list[dict[str, Any]]:
    size = size_of(effort)
    seeds = seeds_of(effort, size.few)
    runs = [course_of(effort, NET, rate, seed) for rate in rates_of(effort, NET) for seed in seeds]
    points = [20, 100, 400] if effort.quick else [10, 100, 200, 300, 1000]
    return runs + [
        {"kind": "identity", "data": effort.data, "net": NET, "lr": SMALL_RATE[NET], "seed": seed, "at": points,
         "batches": BATCHES // 8 if effort.quick else BATCHES}
        for seed in seeds
    ]  # fmt: skip


def compute_12(results: Sequence[Result]) -> Table:
    """Both traces along runs of several rates, their correlation and largest values; their ratio times B by many
    batches, and its mean over the steps."""
    samples, paths = [], []
    runs = group(results, kind="course")
    for rate in sorted({one.settings["lr"] for one in runs}):
        own = group(runs, lr=rate)
        for column in TRACES:
            paths += courses(own, "runs", column, f"{rate:g}", column)
            samples += [_row_of(one, f"largest {column}", f"{rate:g}", one.columns[column].max()) for one in own]
        samples += [
            _row_of(one, "correlation", f"{rate:g}",
                    float(np.corrcoef(one.columns["Tr F"], one.columns["Tr F of a batch"])[0, 1]))
            for one in own
        ]  # fmt: skip
    for one in group(results, kind="identity"):
        ratios = BATCH * one.columns["Tr F of a batch"] / one.columns["Tr F"]
        seed = one.settings["seed"]
        samples += [Row("identity", RATIO, "at a step", float(step), seed, ratio)
                    for step, ratio in zip(one.columns["step"].tolist(), ratios.tolist(), strict=True)]  # fmt: skip
        samples.append(Row("identity", f"mean of {RATIO}", "of a run", 0.0, seed, float(ratios.mean())))
    return table_of(samples, paths)


def _row_of(one: Result, quantity: str, series: str, value: float) -> Row:
    return Row("runs", quantity, series, 0.0, one.settings["seed"], float(value))


def plot_12(table: Table) -> Picture:
    figure, axes = new_figure(3, width=15.0, height=4.4)
    shades = shades_of(table.select(panel="runs").distinct("series"))
    draw_lines(axes[0], table, shades, panel="runs", quantity="Tr F")
    axes[0].set(xlabel="step", ylabel="Tr(F)", yscale="log")
    logarithmic(axes[0], "x")
    for name, look in shades.items():
        x, y = (means(table, panel="runs", quantity=q, series=name)["value"] for q in TRACES)
        axes[1].plot(x, y, **{**look, "linestyle": "", "marker": "."}, label=f"rate {name}")
    ends_of = np.array(axes[1].get_xlim())
    ends_of[0] = min(means(table, panel="runs", quantity="Tr F")["value"])
    axes[1].plot(ends_of, ends_of / BATCH, ":", color="black", label="Tr(F) / B")
    axes[1].set(xscale="log", yscale="log", xlabel="Tr(F)", ylabel=r"Tr(F$^B$), one batch")
    axes[1].legend(loc="upper left")
    ratio = means(table, panel="identity", quantity=RATIO)
    axes[2].errorbar(ratio["x"], ratio["value"], ratio["error"], color="black", marker="o", capsize=3)
    axes[2].axhline(1.0, color="black", linestyle=":")
    axes[2].set(xlabel="step", ylabel=r"B Tr(F$^B$) / Tr(F), mean of many batches")
    logarithmic(axes[2], "x")
    return figure


def judge_12(table: Table) -> list[Verdict]:
    names = table.select(panel="runs").distinct("series")
    correlations = np.array([[*by_seed(table, quantity="correlation", series=name).values()] for name in names])
    ratios = np.array([*by_seed(table, quantity=f"mean of {RATIO}").values()])
    fall = []
    for column, said in zip(TRACES, ("Tr(F)", "Tr(F^B)"), strict=True):
        small, large = (by_seed(table, quantity=f"largest {column}", series=name) for name in (names[0], names[-1]))
        fall.append(
            judge_claim(f"A large learning rate reduces {said} (appendix C)",
                        f"log of its largest value at rate {names[0]} over that at rate {names[-1]}",
                        paired(small, large, log_ratio))
        )  # fmt: skip
    return [
        judge_claim("Tr(F^B) of single batches and Tr(F) correlate well along training (appendix C)",
                    "correlation along a run, mean over the rates", correlations.mean(axis=0), bound=STRONG),
        judge_within("Tr(F^B) is Tr(F) / B in the mean over batches (an identity, not in the paper)",
                     "B Tr(F^B) / Tr(F) - 1, mean over the steps", ratios - 1.0, 0.05),
        *fall,
    ]  # fmt: skip


# Figure 18

FOLLOWED = {"cnn": SMALL_RATE["cnn"], "mlp": SMALL_RATE["mlp"], "resnet8": 0.05}
"""Learning rates by network."""
FOLLOWED_STEPS, QUICK_STEPS = 600, 150
LOG_RATIO = "mean of log Tr F / Tr H"


def jobs_18(effort: Effort) -> list[dict[str, Any]]:
    nets = ("cnn", "mlp") if effort.quick else tuple(FOLLOWED)
    steps, ratio = (QUICK_STEPS, 2.0) if effort.quick else (FOLLOWED_STEPS, 1.4)
    return [
        {"kind": "curvature", "data": effort.data, "net": net, "lr": FOLLOWED[net], "seed": seed, "batch_size": BATCH,
         "steps": steps, "at": sorted(readings(5, steps, ratio)), "traces": list(TRACES)}
        for net in nets
        for seed in seeds_of(effort, size_of(effort).few)
    ]  # fmt: skip


def compute_18(results: Sequence[Result]) -> Table:
    """Paths of the three traces along each network's runs; of each seed, the correlations of Tr H with the other two,
    and the mean over the readings of log Tr F / Tr H."""
    samples, paths = [], []
    for one in results:
        net, seed, columns = one.settings["net"], one.settings["seed"], one.columns
        for name in TRACES:
            found = float(np.corrcoef(columns["Tr H"], columns[name])[0, 1])
            samples.append(Row(net, f"correlation of Tr H and {name}", "", 0.0, seed, found))
        both = zip(columns["Tr F"].tolist(), columns["Tr H"].tolist(), strict=True)
        samples.append(
            Row(net, "mean of log Tr F / Tr H", "", 0.0, seed, float(np.mean([log_ratio(*p) for p in both])))
        )
    for net in dict.fromkeys(one.settings["net"] for one in results):
        for name in ("Tr H", *TRACES):
            paths += courses(group(results, net=net), net, name, name, name)
    return table_of(samples, paths)


def plot_18(table: Table) -> Picture:
    nets = table.distinct("panel")
    figure, axes = new_figure(len(nets), width=4.6 * len(nets) + 1.6, height=4.4, squeeze=False)
    looks = looks_of(["Tr H", *TRACES])
    labels = {"Tr H": "Tr(H)", "Tr F": "Tr(F)", "Tr F of a batch": r"Tr(F$^B$), one batch"}
    for ax, net in zip(axes[0], nets, strict=True):
        for name in looks:
            draw_lines(ax, table, looks, labels.__getitem__, panel=net, quantity=name)
        ax.set(xlabel="step", ylabel="trace", title=TITLES[net], yscale="log")
        logarithmic(ax, "x")
    legend_beside(axes[0, -1])
    return figure


def judge_18(table: Table) -> list[Verdict]:
    found = []
    for net in table.distinct("panel"):
        for name, said in zip(TRACES, ("Tr(F)", "Tr(F^B) of single batches"), strict=True):
            numbers = by_seed(table, panel=net, quantity=f"correlation of Tr H and {name}")
            found.append(
                judge_claim(f"{TITLES[net]}: Tr(H) and {said} correlate strongly along training (appendix F)",
                            "correlation along a run", [*numbers.values()], bound=STRONG,
                            paper="extremely well")
            )  # fmt: skip
        numbers = by_seed(table, panel=net, quantity=LOG_RATIO)
        found.append(
            judge_within(f"{TITLES[net]}: Tr(F) is about Tr(H) itself (section 2, appendix F)",
                         "mean of log Tr(F) / Tr(H) along a run",
                         [*numbers.values()], ABOUT, paper="about equal")
        )  # fmt: skip
    return found


FIGURES = (
    NetworkFigure(
        "jastrzebski2021-12", jobs_12, compute_12, plot_12, judge_12,
        "Tr(F) and the squared norm of a batch's gradient under drawn labels, Tr(F^B), move together for most of "
        "training, and a large rate makes both small. The paper finds it empirically; its reason is that a score has "
        "mean 0, so that E Tr(F^B) = Tr(F) / B exactly: the dotted lines.",
        f"Five rates from 0.005 to 0.05 (the paper: from 0.001 to 0.1), dark to light. Right: the mean of {BATCHES} "
        f"batches, Tr(F) of all 449 examples. {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-18", jobs_18, compute_18, plot_18, judge_18,
        "Tr(F), and Tr(F^B) of a batch, go with Tr(H) along training. The paper finds the smaller size of Tr(F^B) too "
        "(DenseNet, ResNet-56, SimpleCNN); it is Tr(F) / B in the mean.",
        f"A CNN, an MLP and a ResNet8 at rates {', '.join(f'{rate:g}' for rate in FOLLOWED.values())}; Tr(H) by "
        "Hutchinson's estimator with 30 vectors on all 449 training examples, Tr(F) exact on 100 of them. ResNet8 has "
        f"no batch norm. {BARS}",
    ),
)  # fmt: skip
