"""Early phases and final curvature: figures 6, 10 and 11 of jastrzebski2021."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...._table import Table
from ....plotting import logarithmic, new_figure, series
from ...experiments.drawing import BARS, Look, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import MEAN, Row, by_seed, log_ratio, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, seen
from .drawing import draw_compared
from .protocol import BATCH, FULL, seeds_of, size_of
from .reading import at_loss, courses, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES"]

NET = "cnn"
UNTIL = 0.5
"""Training loss that ends the early phase: both have come equally far, and Tr(F) is about its largest (pilot)."""
HIGH, LOW = "high regularization", "low regularization"
STEPS, QUICK_STEPS = 600, 30
"""Of a continuation."""


class Setting(NamedTuple):
    """Learning rate and batch size."""

    rate: float
    batch: int


BY_RATE = {HIGH: Setting(0.05, BATCH), LOW: Setting(0.005, BATCH)}
BY_BATCH = {HIGH: Setting(0.02, 16), LOW: Setting(0.02, 449)}
EARLY = "early Tr F"
SINGLE = ("Tr H", "held-out accuracy", "training loss")
MEAN_TRACE, PER_LOSS, MEAN_ACCURACY, SPREAD = (
    "mean Tr H",
    "mean Tr H / mean loss",
    "mean accuracy",
    "spread of accuracy",
)


def _jobs(effort: Effort, phases: Mapping[str, Setting]) -> list[dict[str, Any]]:
    size, later = size_of(effort), phases[LOW]
    return [
        {"kind": "continued", "data": effort.data, "net": NET, "seed": seed, "early_rate": early.rate,
         "early_batch": early.batch, "rate": later.rate, "batch_size": later.batch, "until": UNTIL,
         "steps": QUICK_STEPS if effort.quick else STEPS, "continuations": size.continuations}
        for early in phases.values()
        for seed in seeds_of(effort, size.pairs)
    ]  # fmt: skip


def _compute(results: Sequence[Result], phases: Mapping[str, Setting]) -> Table:
    """Series the early phase, seed the pair. Panel "early": Tr F, step. "continuations": x its number, at its largest
    held-out accuracy that (%), Tr H, training loss, step. "pairs": over a pair's continuations means of Tr H and
    accuracy, standard deviation of accuracy, mean Tr H over mean training loss."""
    rows = []
    for name, early in phases.items():
        for one in group(results, early_rate=early.rate, early_batch=early.batch):
            seed, columns = one.settings["seed"], one.columns
            rows += [Row("early", quantity, name, 0.0, seed, float(columns[quantity][0]))
                     for quantity in (EARLY, "early step")]  # fmt: skip
            accuracy, trace, loss = 100.0 * columns["held-out accuracy"], columns["Tr H"], columns["training loss"]
            for quantity, values in (*zip(SINGLE, (trace, accuracy, loss), strict=True), ("step", columns["step"])):
                rows += [Row("continuations", quantity, name, float(number), seed, float(value))
                         for number, value in zip(columns["continuation"], values, strict=True)]  # fmt: skip
            summary = {
                MEAN_TRACE: trace.mean(), MEAN_ACCURACY: accuracy.mean(), SPREAD: accuracy.std(ddof=1),
                PER_LOSS: trace.mean() / loss.mean(), "mean training loss": loss.mean(),
            }  # fmt: skip
            rows += [Row("pairs", quantity, name, 0.0, seed, float(value)) for quantity, value in summary.items()]
    return table_of(rows)


LOOKS: dict[str, Look] = {HIGH: series(2), LOW: series(1)}


def _plot(table: Table) -> Picture:
    figure, axes = new_figure(4, width=18.0, height=4.4)
    draw_compared(axes[0], table, LOOKS, panel="early", quantity=EARLY)
    axes[0].set_xticks([0, 1], ["high", "low"])
    axes[0].set(xlabel="regularization of the early phase", ylabel=f"Tr(F) at a training loss of {UNTIL:g}")
    axes[0].set_ylim(bottom=0.0)
    for ax, quantity, said in ((axes[1], "Tr H", "Tr(H) at the best held-out accuracy"),
                               (axes[2], "held-out accuracy", "largest held-out accuracy (%)")):  # fmt: skip
        _strips(ax, table, quantity)
        ax.set(xlabel="pair of early runs", ylabel=said)
    logarithmic(axes[1], "y")
    for name, look in LOOKS.items():
        loss, trace = (_single(table, quantity, name)["value"] for quantity in ("training loss", "Tr H"))
        axes[3].plot(loss, trace, linestyle="", color=look["color"], marker=look["marker"], label=f"{name} early")
    axes[3].set(xlabel="training loss at the best held-out accuracy", ylabel="Tr(H) there")
    logarithmic(axes[3])
    legend_beside(axes[3])
    return figure


def _single(table: Table, quantity: str, name: str) -> Table:
    shown = table.select(panel="continuations", quantity=quantity, series=name)
    return shown.where(shown["seed"] != MEAN)


def _strips(ax: Axes, table: Table, quantity: str) -> None:
    """A point for each continuation and a bar at their mean, pair by pair, the two early phases beside each other."""
    for name, apart in ((HIGH, -0.17), (LOW, 0.17)):
        own, color = _single(table, quantity, name), LOOKS[name]["color"]
        seeds = own.distinct("seed")
        places = np.array([seeds.index(seed) for seed in own["seed"]]) + 1.0 + apart
        ax.plot(places, own["value"], linestyle="", marker=LOOKS[name]["marker"], color=color, alpha=0.6, label=name)
        centers = [own.select(seed=seed)["value"].mean() for seed in seeds]
        left, right = (np.arange(len(seeds)) + 1.0 + apart + end for end in (-0.13, 0.13))
        ax.hlines(centers, left, right, color=color)
    ax.set_xticks(range(1, len(seeds) + 1))


def _judge(table: Table, figure: str) -> list[Verdict]:
    """One number for each pair."""

    def of(quantity: str, name: str, panel: str = "pairs") -> dict[int, float]:
        return by_seed(table, panel=panel, quantity=quantity, series=name)

    def low_over_high(quantity: str, panel: str = "pairs") -> NDArray[np.float64]:
        return paired(of(quantity, LOW, panel), of(quantity, HIGH, panel), log_ratio)

    early = low_over_high(EARLY, "early")
    where, premise = f"section 5, {figure}", seen(early)
    said = "premise: early Tr(F) is larger after low regularization"
    accuracy = paired(of(MEAN_ACCURACY, HIGH), of(MEAN_ACCURACY, LOW))
    spread = paired(of(SPREAD, LOW), of(SPREAD, HIGH))
    return [
        judge_claim(f"High regularization makes early Tr(F) smaller ({where})",
                    f"log of Tr(F) at a training loss of {UNTIL:g}, low over high regularization", early),
        judge_claim(f"A small early Tr(F) leads to wider minima under the same later training ({where})",
                    f"log of Tr(H) at the best held-out accuracy, mean of a run's continuations, low over high; {said}",
                    low_over_high(MEAN_TRACE), premise=premise),
        judge_claim(f"After a small early Tr(F), Tr(H) is smaller for its training loss too (ours; {where})",
                    "log of mean Tr(H) over mean training loss at that point, low over high; the same premise",
                    low_over_high(PER_LOSS), premise=premise),
        judge_claim(f"A small early Tr(F) leads to better accuracy ({where})",
                    "points of the largest held-out accuracy, mean of a run's continuations, high less low; the same "
                    "premise", accuracy, premise=premise),
        judge_claim(f"After a large early Tr(F) accuracies vary more ({where})",
                    "standard deviation over a run's continuations (points), low less high; the same premise", spread,
                    premise=premise),
    ]  # fmt: skip


# Figure 11

WEAK, STRONG = "A", "B"
"""The coarse sets, of weak and of strong implicit regularization."""
SETS: dict[str, dict[str, tuple[float, ...]]] = {
    "batch size": {WEAK: (360, 400, 449), STRONG: (16, 20, 24)},
    "learning rate": {WEAK: (0.004, 0.005, 0.006), STRONG: (0.04, 0.05, 0.06)},
}
RATE = 0.02
"""Where batch sizes differ."""
SEEDS = 5
FIRST, READINGS, QUICK_READINGS = 15, 12, 3
BATCH_STEPS, QUICK_CURVATURE_STEPS = 600, 60
"""Batch sizes: at this rate a loss of :data:`LATE` is passed in about 150 steps."""
LATE = 0.02
"""Training loss at which Tr(H) is compared late: every setting comes to it (pilot: 0.011 after 800 steps at rate
0.005). Tr(H) falls with the loss, and at one step the runs are not equally far: a tenth of the rate takes ten times the
steps."""
LATER = "log Tr H, later half"
AT_EARLY, AT_LATE = f"log Tr H at loss {UNTIL:g}", f"log Tr H at loss {LATE:g}"
LARGEST, LEAST = "largest held-out accuracy", "smallest training loss"


def jobs_11(effort: Effort) -> list[dict[str, Any]]:
    """Quick: two of each set of rates."""
    found = []
    for kind, sets in SETS.items():
        if effort.quick and kind == "batch size":
            continue
        steps = (
            QUICK_CURVATURE_STEPS if effort.quick else BATCH_STEPS if kind == "batch size" else size_of(effort).steps
        )
        at = np.geomspace(FIRST, steps, QUICK_READINGS if effort.quick else READINGS).round().astype(int)
        for values in sets.values():
            for value in values[:2] if effort.quick else values:
                lr, batch = (RATE, int(value)) if kind == "batch size" else (value, BATCH)
                found += [
                    {"kind": "curvature", "data": effort.data, "net": NET, "lr": lr, "seed": seed, "batch_size": batch,
                     "steps": steps, "at": at.tolist(), "traces": []}
                    for seed in seeds_of(effort, size_of(effort).few if effort.quick else SEEDS)
                ]  # fmt: skip
    return found


def compute_11(results: Sequence[Result]) -> Table:
    """Panel what differs, series the set, x the value: of each seed :func:`_numbers`. Panel "... along the run", series
    the value, x the step: Tr H and training loss, means over seeds."""
    samples, paths = [], []
    for kind, sets in SETS.items():
        for name, values in sets.items():
            for value in values:
                setting = {"lr": RATE, "batch_size": value} if kind == "batch size" else {"lr": value}
                own = group(results, **setting)
                for one in own:
                    seed, columns = one.settings["seed"], one.columns
                    samples += [Row(kind, quantity, name, float(value), seed, number)
                                for quantity, number in _numbers(columns).items()]  # fmt: skip
                for quantity in ("Tr H", "training loss"):
                    paths += courses(own, f"{kind} along the run", quantity, f"{value:g}", quantity)
    return table_of(samples, paths)


def _numbers(columns: Table) -> dict[str, float]:
    """Of one run, NaN where it diverged. Mean of log Tr H over the readings of the later half of log step; log Tr H
    when the training loss first falls to :data:`UNTIL` and :data:`LATE`; largest held-out accuracy (%); smallest
    training loss."""
    step, trace = columns["step"], columns["Tr H"]
    later = step >= math.sqrt(float(step[0]) * float(step[-1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(trace > 0.0, np.log(trace), math.nan)
    found = {
        LATER: logs[later].mean(),
        AT_EARLY: at_loss(columns["training loss"], UNTIL, logs),
        AT_LATE: at_loss(columns["training loss"], LATE, logs),
        LARGEST: 100.0 * columns["held-out accuracy"].max(),
        LEAST: columns["training loss"].min(),
    }
    bad = bool(columns["diverged"].any())
    return {name: math.nan if bad else float(value) for name, value in found.items()}


def plot_11(table: Table) -> Picture:
    kinds = [kind for kind in SETS if table.select(panel=kind).rows]
    figure, axes = new_figure(len(kinds), width=max(6.6 * len(kinds), 7.0), height=6.0, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        for name, color in ((WEAK, 1), (STRONG, 2)):
            values = [value for value in SETS[kind][name] if value in table.select(panel=kind, series=name)["x"]]
            for number, value in enumerate(values):
                look = {**series(number), "color": series(color)["color"], "alpha": (1.0, 0.75, 0.5)[number]}
                own = table.select(panel=f"{kind} along the run", quantity="Tr H", series=f"{value:g}")
                label = f"{kind} {value:g}: {_reached(table, kind, name, value)}"
                ax.plot(own["x"], own["value"], label=label, **look)
                ends = (own["value"] - own["error"], own["value"] + own["error"])
                ax.fill_between(own["x"], *ends, color=look["color"], alpha=0.12, linewidth=0.0)
        ax.set(xlabel="step", ylabel="Tr(H)", title=f"{kind}s: set {WEAK} red, set {STRONG} blue")
        logarithmic(ax)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), title="loss: smallest; accuracy: largest")
    return figure


def _reached(table: Table, kind: str, name: str, value: float) -> str:
    loss, accuracy = (
        table.select(panel=kind, quantity=quantity, series=name, x=float(value), seed=MEAN)["value"][0]
        for quantity in (LEAST, LARGEST)
    )
    return f"loss {loss:.2g}, accuracy {accuracy:.1f}%"


def judge_11(table: Table) -> list[Verdict]:
    return [verdict for kind in SETS if table.select(panel=kind).rows for verdict in _judge_kind(table, kind)]


def _judge_kind(table: Table, kind: str) -> list[Verdict]:
    def of(quantity: str) -> NDArray[np.float64]:
        """(sets, values, seeds)."""
        return np.array([
            [[*by_seed(table, panel=kind, quantity=quantity, series=name, x=float(value)).values()]
             for value in table.select(panel=kind, quantity=quantity, series=name).distinct("x")]
            for name in (WEAK, STRONG)
        ])  # fmt: skip

    early, late, accuracy = of(AT_EARLY), of(AT_LATE), of(LARGEST)
    apart, along, better = (_between(numbers) for numbers in (late, of(LATER), -accuracy))
    across, within = (
        np.array([_correlation(x, y) for x, y in zip(*(np.moveaxis(part, 2, 0) for part in pair), strict=True)])
        for pair in ((early, late), (_centred(early), _centred(late)))
    )
    premise = seen(apart) or seen(-apart)
    where = f"{kind}s, appendix A.4, figure 11"
    said = f"premise: at a loss of {LATE:g} Tr(H) of the sets differs, either way"
    return [
        judge_claim(f"Tr(H) along the run is larger under weak regularization, set {WEAK} ({where})",
                    f"difference between the sets in log Tr(H), later half of log step, {WEAK} less {STRONG}", along),
        judge_claim(f"Tr(H) is larger under weak regularization at equal training loss too (ours; {where})",
                    f"the same at a training loss of {LATE:g}", apart),
        judge_claim(f"The order of Tr(H) between the sets is fixed early ({where})",
                    f"correlation over all settings of log Tr(H) at losses of {UNTIL:g} and {LATE:g}, of each seed; "
                    f"{said}", across, premise=premise),
        judge_claim(f"The order of Tr(H) within a set is less fixed ({where})",
                    f"that correlation less the one within sets; {said}", across - within, premise=premise),
        judge_claim(f"The sets differ by more than values within a set ({where})",
                    f"distance between the sets in log Tr(H) at a loss of {LATE:g}, less the range within a set",
                    np.abs(apart) - np.ptp(late, axis=1).mean(axis=0)),
        judge_claim(f"Accuracy is higher in set {STRONG} ({where})",
                    f"points of the largest held-out accuracy, {STRONG} less {WEAK}", better, paper="always"),
    ]  # fmt: skip


def _between(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set A's mean less set B's, of each seed."""
    means: NDArray[np.float64] = numbers.mean(axis=1)
    return means[0] - means[1]


def _centred(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less each set's mean."""
    result: NDArray[np.float64] = numbers - numbers.mean(axis=1, keepdims=True)
    return result


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's over all entries; NaN where one is constant or NaN."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size > 0.0 else math.nan


CONTINUED = (
    f"The CNN with 12 filters on 449 digits. The early phase lasts until the training loss first falls to {UNTIL:g} "
    "(the paper: 20 epochs), so that both have come equally far; then {continuations} continuations of each, of seeds "
    f"of their own, {STEPS} steps under low regularization (the paper: 8, 230 epochs, falling rates, weight decay "
    "1e-5). {pairs} pairs of early runs, each pair with a start and a split of its own (the paper: one pair, whose "
    "continuations tell nothing of other early runs). Tr(H) by Hutchinson's estimator (30 vectors, all training "
    "examples) at the best held-out accuracy, as in the paper with its test accuracy; it falls with the training loss: "
    "right, both at that point. Points pair by pair (the paper: histograms)."
)
SAYS = (
    "Left: Tr(F) of two early phases{early}. From each, continuations of other seeds under the same low "
    "regularization: those after a small Tr(F) end in wider minima (smaller Tr(H)) and at better accuracies, those "
    "after a large one scatter more."
)
FIGURES = (
    NetworkFigure(
        "jastrzebski2021-6", partial(_jobs, phases=BY_RATE), partial(_compute, phases=BY_RATE), _plot,
        partial(_judge, figure="figure 6"),
        SAYS.format(early=" at a high and a low learning rate (the paper: CIFAR-100, ResNet-56 in the caption, "
                    "ResNet-26 in the text)"),
        f"{CONTINUED.format(continuations=FULL.continuations, pairs=FULL.pairs)} Rates {BY_RATE[HIGH].rate:g} and "
        f"{BY_RATE[LOW].rate:g}, B = {BATCH}. Bars: one standard error over the pairs (left), means of continuations.",
    ),
    NetworkFigure(
        "jastrzebski2021-10", partial(_jobs, phases=BY_BATCH), partial(_compute, phases=BY_BATCH), _plot,
        partial(_judge, figure="figure 10, appendix A.4"),
        SAYS.format(early=" with small and large batches (the paper: CIFAR-10)"),
        f"As figure 6, with batches of {BY_BATCH[HIGH].batch} and {BY_BATCH[LOW].batch} (all examples' number, drawn "
        f"with replacement) at rate {BY_BATCH[LOW].rate:g}. Bars: one standard error over the pairs (left), means of "
        "continuations.",
    ),
    NetworkFigure(
        "jastrzebski2021-11", jobs_11, compute_11, plot_11, judge_11,
        "Tr(H) along training for batches of 480, 500, 520 against 80, 100, 120 at rate 0.02 (CIFAR-10), and for "
        "rates 0.0008, 0.001, 0.0012 against 0.008, 0.01, 0.012 (CIFAR-100): after 10 of 250 epochs the order between "
        "the sets stays, that within a set less so; accuracy is always higher in the second set.",
        f"The CNN with 12 filters on 449 digits, batches {SETS['batch size'][WEAK]} against "
        f"{SETS['batch size'][STRONG]} at rate {RATE:g}, {BATCH_STEPS} steps; rates {SETS['learning rate'][WEAK]} "
        f"against {SETS['learning rate'][STRONG]} at B = {BATCH}, {FULL.steps} steps; constant rates, no weight decay, "
        f"{SEEDS} seeds. A fitted network's Tr(H) vanishes with its training loss, and a tenth of the rate takes ten "
        "times the steps: at one step the sets differ in how far they are (the paper's least losses are alike, up to "
        f"0.01). So order and distance are judged where the training loss first falls to {UNTIL:g} and to {LATE:g}, on "
        f"straight lines between readings of both logarithms; beside it, as the paper looks at it, by step. {BARS}",
    ),
)  # fmt: skip
