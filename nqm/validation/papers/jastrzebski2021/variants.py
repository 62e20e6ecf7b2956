"""Variants of the Fisher penalty: its gradient every tenth step (figure 13), of one example (figure 14), in large
batches (figure 17)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...._table import Table
from ....plotting import logarithmic, new_figure, series
from ...experiments.drawing import BARS, Look, draw_lines, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import MEAN, Row, by_seed, log_ratio, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, judge_within, seen
from .drawing import shades_of
from .protocol import BATCH, BATCH_RATE, BEST_RATE, SMALL_RATE, both_rates, course_of, seeds_of, size_of
from .reading import BEST, LARGEST, PEAK, SMALL, courses, ends, group, worse_at_small_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES", "at_best", "best_of", "halving"]

NET = "cnn"
VALIDATION, TEST, DIVERGED = "validation accuracy", "test accuracy", "diverged"
NUMBERS = (LARGEST, VALIDATION, TEST, PEAK)
COEFFICIENTS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of eq. 3: the paper's range."""
SINGLE_COEFFICIENTS = (0.0003, 0.001, 0.003, 0.01)
"""Of eq. 6: the paper's range but for its lower end."""

POINT, FACTOR = 1.0, math.log(1.5)
"""Up to here two accuracies (%), and two logs of the largest Tr(F) or of a coefficient, are alike. Chosen for the
paper's words before any judged run."""

TRACE, ACCURACY = "Tr(F)", "validation accuracy (%)"
SHOWN = {ACCURACY: (VALIDATION, 100.0), TRACE: ("Tr F", 1.0)}
"""What is drawn against the step: columns of a run, and factors."""
UNPENALIZED: Look = {"color": "black", "linestyle": ":", "marker": ""}


class Variant(NamedTuple):
    """A penalty: the name of its panel, its settings, and the coefficients that are tried, also where time is short."""

    name: str
    settings: dict[str, Any]
    coefficients: tuple[float, ...]
    quick: tuple[float, ...]


EVERY_STEP = Variant("f = 1", {"method": "FP", "every": 1}, COEFFICIENTS, (0.1,))
TENTH = Variant("f = 10", {"method": "FP", "every": 10}, COEFFICIENTS, (0.1,))
SINGLE = Variant("eq. 6", {"method": "FP, one example", "every": 1}, SINGLE_COEFFICIENTS, (0.001,))
NONE = "no penalty"


# What all three figures read from their runs


def numbers_of(own: Sequence[Result], panel: str, name: str, x: float = 0.0) -> list[Row]:
    """Single numbers of each run of a series, NaN where it diverged, and whether it did (0 or 1)."""
    gone = [(one.settings["seed"], float(one.columns["diverged"].any())) for one in own]
    return ends(own, panel, name, NUMBERS, x) + [Row(panel, DIVERGED, name, x, seed, value) for seed, value in gone]


def paths_of(own: Sequence[Result], panel: str, name: str) -> list[Row]:
    """What is drawn against the step."""
    return [
        row for quantity, (column, scale) in SHOWN.items() for row in courses(own, panel, quantity, name, column, scale)
    ]


def best_of(table: Table, panel: str) -> str | None:
    """The coefficient of the largest mean validation accuracy, the smallest of several; None where each diverged with
    some seed."""
    found = means(table, panel=panel, quantity=VALIDATION)
    found = found.where(np.isfinite(found["value"]))
    return str(found["series"][int(np.argmax(found["value"]))]) if found.rows else None


def at_best(table: Table, panel: str, quantity: str) -> dict[int, float]:
    """Of each seed, at the coefficient that :func:`best_of` chooses; NaN where there is none."""
    best = best_of(table, panel)
    if best is not None:
        return by_seed(table, panel=panel, quantity=quantity, series=best)
    seeds = table.where(table["seed"] != MEAN).select(panel=panel).distinct("seed")
    return dict.fromkeys(seeds, math.nan)


def halving(table: Table, panel: str) -> dict[int, float]:
    """Of each seed, the coefficient at which the largest Tr F is half of that without a penalty: between two of those
    tried, linear in logs; NaN where it is not between two."""
    plain = by_seed(table, panel=NONE, quantity=PEAK, series=SMALL)
    single = table.where(table["seed"] != MEAN).select(panel=panel, quantity=PEAK)
    return {
        seed: _crossing(own["x"], own["value"], plain[seed] / 2.0)
        for seed in single.distinct("seed")
        for own in [single.select(seed=seed)]
    }


def _crossing(x: Any, y: Any, level: float) -> float:
    """Where y, falling, first crosses a level."""
    for i in range(len(x) - 1):
        if y[i] >= level > y[i + 1] > 0.0:
            part = math.log(y[i] / level) / math.log(y[i] / y[i + 1])
            return float(x[i] * (x[i + 1] / x[i]) ** part)
    return math.nan


def _chosen(table: Table, panel: str) -> str:
    return best_of(table, panel) or "none: each diverged"


def _lost(table: Table, panels: Sequence[str]) -> str:
    """How many runs have diverged, for the words beside a verdict."""
    found = {panel: table.where(table["seed"] != MEAN).select(panel=panel, quantity=DIVERGED) for panel in panels}
    counts = [f"{int(own['value'].sum())} of {own.rows} ({panel})" for panel, own in found.items()]
    return f"runs that diverged: {', '.join(counts)}"


def _draw(ax: Axes, table: Table, looks: dict[str, Look], panel: str, quantity: str) -> None:
    """The lines of a panel; where runs diverged their number, and a cross at the end of the line."""
    lost = {
        name: (own["value"][0] * own["seeds"][0], own["seeds"][0])
        for name in looks
        if (own := means(table, panel=panel, quantity=DIVERGED, series=name)).rows
    }

    def label(name: str) -> str:
        gone, all_of_them = lost[name]
        return f"{name} ({gone:.0f} of {all_of_them} diverged)" if gone else name

    draw_lines(ax, table, looks, label, panel=panel, quantity=quantity)
    for name, (gone, _) in lost.items():
        own = means(table, panel=panel, quantity=quantity, series=name)
        own = own.where(np.isfinite(own["value"]))
        if gone and own.rows:
            ax.plot(own["x"][-1:], own["value"][-1:], "x", color=looks[name]["color"], markersize=9,
                    markeredgewidth=2, label=f"_{name}, diverged")  # fmt: skip


# Figures 13 and 14: two penalties at the small rate


def jobs_of(effort: Effort, variants: Sequence[Variant]) -> list[dict[str, Any]]:
    size = size_of(effort)
    return both_rates(effort, NET, size.many) + [
        course_of(effort, NET, SMALL_RATE[NET], seed, coefficient=alpha, **variant.settings)
        for variant in variants
        for alpha in (variant.quick if effort.quick else variant.coefficients)
        for seed in seeds_of(effort, size.few)
    ]


def compute_of(results: Sequence[Result], variants: Sequence[Variant]) -> Table:
    """Panels :data:`NONE`, of both rates, and each penalty's, series the coefficient (also x)."""
    samples, paths = [], []
    for name, rate in ((BEST, BEST_RATE[NET]), (SMALL, SMALL_RATE[NET])):
        own = group(results, method="none", lr=rate)
        samples += numbers_of(own, NONE, name)
        paths += paths_of(own, NONE, name)
    for variant in variants:
        penalized = group(results, **variant.settings)
        for alpha in sorted({one.settings["coefficient"] for one in penalized}):
            own = group(penalized, coefficient=alpha)
            samples += numbers_of(own, variant.name, f"{alpha:g}", alpha)
            paths += paths_of(own, variant.name, f"{alpha:g}")
    return table_of(samples, paths)


def plot_of(table: Table, variants: Sequence[tuple[Variant, str]]) -> Picture:
    """Left the paper's panels, of each variant below the title that comes with it; right what is judged."""
    figure, axes = new_figure(3, width=18.5, height=8.4, rows=2, squeeze=False)
    for row in axes:
        row[1].sharey(row[0])
    for place, (variant, title) in enumerate(variants):
        looks = shades_of(means(table, panel=variant.name, quantity=TEST).distinct("series"))
        for ax, quantity in zip(axes[:, place], SHOWN, strict=True):
            draw_lines(ax, table, {SMALL: UNPENALIZED}, lambda _: "0", panel=NONE, quantity=quantity, series=SMALL)
            _draw(ax, table, looks, variant.name, quantity)
            ax.set(title=title, xlabel="step", ylabel=quantity)
            logarithmic(ax, "x")
        legend_beside(axes[0, place], title=r"coefficient $\alpha$")
    single = any(variant is SINGLE for variant, _ in variants)
    across = rf"coefficient: $\alpha$ (f = 1), {BATCH} $\alpha$ (eq. 6)" if single else r"coefficient $\alpha$"
    for row, (quantity, said) in zip(axes, ((TEST, f"{TEST} at the end (%)"), (PEAK, "largest Tr(F)")), strict=True):
        _draw_ends(row[2], table, quantity, [variant for variant, _ in variants])
        row[2].set(xlabel=across, ylabel=said, title="each coefficient")
    legend_beside(axes[0, 2])
    return figure


def _draw_ends(ax: Axes, table: Table, quantity: str, variants: Sequence[Variant]) -> None:
    """One number of the runs against the strength of the penalty."""
    for number, variant in enumerate(variants):
        own = means(table, panel=variant.name, quantity=quantity)
        strength = own["x"] * (BATCH if variant is SINGLE else 1)
        ax.errorbar(strength, own["value"], own["error"], **series(number), label=variant.name)
    plain = means(table, panel=NONE, quantity=quantity, series=SMALL)
    ax.axhline(plain["value"][0], **{**UNPENALIZED, "label": NONE})
    logarithmic(ax, "x")


def judge_of(table: Table, variant: Variant, words: dict[str, tuple[str, str]]) -> list[Verdict]:
    """words: the claim and the paper's number, of each of four claims on a variant against FP of every step (like) and
    against no penalty (better, lower)."""
    panels = (variant.name, EVERY_STEP.name)
    plain = {name: by_seed(table, panel=NONE, quantity=name, series=SMALL) for name in (TEST, PEAK)}
    ours, theirs = ({name: at_best(table, panel, name) for name in (TEST, PEAK)} for panel in panels)
    both = "; ".join(f"best alpha {_chosen(table, panel)} ({panel})" for panel in panels)
    return [
        judge_within(words["like"][0],
                     f"test accuracy less that of FP at every step, points; {both}; {_lost(table, panels)}",
                     paired(ours[TEST], theirs[TEST]), POINT,
                     premise=seen(paired(theirs[TEST], plain[TEST]) - POINT), paper=words["like"][1]),
        judge_within(words["as low"][0], f"log of the largest Tr(F) over that of FP at every step; {both}",
                     paired(ours[PEAK], theirs[PEAK], log_ratio), FACTOR,
                     premise=seen(paired(plain[PEAK], theirs[PEAK], log_ratio) - FACTOR), paper=words["as low"][1]),
        judge_claim(words["better"][0], f"test accuracy less that without a penalty, points; {both}",
                    paired(ours[TEST], plain[TEST]), premise=worse_at_small_rate(table, NONE),
                    paper=words["better"][1]),
        judge_claim(words["lower"][0], f"log of the largest Tr(F) without a penalty over that with it; {both}",
                    paired(plain[PEAK], ours[PEAK], log_ratio), paper=words["lower"][1]),
    ]  # fmt: skip


def judge_13(table: Table) -> list[Verdict]:
    panels = (TENTH.name, EVERY_STEP.name)
    names = means(table, panel=TENTH.name, quantity=TEST).distinct("series")
    tenth, every = ([by_seed(table, panel=panel, quantity=TEST, series=name) for name in names] for panel in panels)
    differences = [paired(one, other) for one, other in zip(tenth, every, strict=True)]
    return [
        *judge_of(table, TENTH, {
            "like": ("FP with its gradient every tenth step generalizes as well as with one every step (appendix C)",
                     "both about 80%"),
            "as low": ("FP with its gradient every tenth step keeps Tr(F) as low (appendix C)", "similar"),
            "better": ("FP with its gradient every tenth step improves generalization (section 4)",
                       "8.3 points (SimpleCNN, table 1)"),
            "lower": ("FP with its gradient every tenth step lowers the largest Tr(F) (section 4)",
                      "0.98 (SimpleCNN, table 4)"),
        }),
        judge_within("FP with its gradient every tenth step generalizes as well over all coefficients, not only at the "
                     "best (not in the paper)",
                     f"test accuracy at f = 10 less that at f = 1, mean over the coefficients; {_lost(table, panels)}",
                     np.mean(differences, axis=0), POINT),
    ]  # fmt: skip


def judge_14(table: Table) -> list[Verdict]:
    single, batch = (halving(table, variant.name) for variant in (SINGLE, EVERY_STEP))
    return [
        *judge_of(table, SINGLE, {
            "like": ("The penalty on one example (eq. 6) generalizes as well as FP (appendix C)", "-0.3 points"),
            "as low": ("The penalty on one example keeps Tr(F) as low as FP (appendix C)", "0.12"),
            "better": ("The penalty on one example improves generalization (appendix C)",
                       "8.4 points (table 1's baseline)"),
            "lower": ("The penalty on one example lowers the largest Tr(F) (appendix C)", "0.77 (table 4's baseline)"),
        }),
        judge_within("B times the coefficient of eq. 6 does what that of eq. 3 does (E Tr(F^B) = Tr(F) / B; not in the "
                     "paper)", f"log of {BATCH} times the coefficient of eq. 6 over that of eq. 3, where each halves "
                     "the largest Tr(F)", paired(single, batch, lambda a, b: log_ratio(BATCH * a, b)), FACTOR,
                     paper="0.25: ranges 100 apart at B = 128"),
    ]  # fmt: skip


# Figure 17: batches of all examples

WHOLE = 449
LARGE_COEFFICIENTS, QUICK_LARGE = (0.03, 0.1, 0.3, 1.0), (0.1,)
LARGE_STEPS, QUICK_STEPS = 800, 200
COMPARED = 810
"""The runs at the whole rate, of 1,200 steps, are read up to here, the reading next to the others' end."""
FULL_RATE, HALF_RATE = BATCH_RATE[NET], BATCH_RATE[NET] / 2.0
LARGE, USUAL = f"batches of {WHOLE}", f"batches of {BATCH}"
AT_FULL, AT_HALF = f"0, rate {FULL_RATE:g}", "0"


def jobs_17(effort: Effort) -> list[dict[str, Any]]:
    """At half the rate with and without the penalty; at the whole rate, large and small batches, as in figure 7."""
    seeds = seeds_of(effort, size_of(effort).few)
    half = {"batch_size": WHOLE, "steps": QUICK_STEPS if effort.quick else LARGE_STEPS}
    alphas = QUICK_LARGE if effort.quick else LARGE_COEFFICIENTS
    penalties = [{}, *({"method": "FP", "coefficient": alpha, "part": BATCH} for alpha in alphas)]
    return [
        *(course_of(effort, NET, FULL_RATE, seed, batch_size=batch) for batch in (BATCH, WHOLE) for seed in seeds),
        *(course_of(effort, NET, HALF_RATE, seed, **half, **penalty) for penalty in penalties for seed in seeds),
    ]


def compute_17(results: Sequence[Result]) -> Table:
    """Panel :data:`LARGE`, series the coefficient (also x), :data:`AT_HALF` and :data:`AT_FULL`; :data:`USUAL`."""
    half = group(results, lr=HALF_RATE)
    results = [one._replace(columns=one.columns.where(one.columns["step"] <= COMPARED)) for one in results]
    groups = [
        (USUAL, AT_FULL, 0.0, group(results, lr=FULL_RATE, batch_size=BATCH)),
        (LARGE, AT_FULL, 0.0, group(results, lr=FULL_RATE, batch_size=WHOLE)),
        *(
            (LARGE, f"{alpha:g}", alpha, group(half, coefficient=alpha))
            for alpha in sorted({one.settings["coefficient"] for one in half})
        ),
    ]
    samples = [row for panel, name, x, own in groups for row in numbers_of(own, panel, name, x)]
    return table_of(samples, [row for panel, name, _, own in groups for row in paths_of(own, panel, name)])


def plot_17(table: Table) -> Picture:
    figure, axes = new_figure(2, width=13.0, height=4.6)
    names = means(table, panel=LARGE, quantity=TEST).distinct("series")
    looks = {
        **shades_of([name for name in names if name not in (AT_FULL, AT_HALF)]),
        AT_HALF: UNPENALIZED, AT_FULL: {"color": "#888888", "linestyle": "-", "marker": ""},
    }  # fmt: skip
    for ax, quantity in zip(axes, (TRACE, ACCURACY), strict=True):
        _draw(ax, table, looks, LARGE, quantity)
        ax.set(xlabel="step", ylabel=quantity, title=LARGE)
        logarithmic(ax, "x")
    legend_beside(axes[1], title=r"coefficient $\alpha$")
    return figure


def judge_17(table: Table) -> list[Verdict]:
    penalized = table.where((table["panel"] == LARGE) & (table["x"] > 0.0))
    ours = {name: at_best(penalized, LARGE, name) for name in (TEST, PEAK)}

    def plain(panel: str, name: str, quantity: str) -> dict[int, float]:
        return by_seed(table, panel=panel, quantity=quantity, series=name)

    gap = paired(plain(USUAL, AT_FULL, LARGEST), plain(LARGE, AT_FULL, LARGEST))
    best = f"best alpha {_chosen(penalized, LARGE)}; {_lost(penalized, [LARGE])}"
    return [
        judge_claim("Large batches generalize worse (appendix E)",
                    f"largest held-out accuracy of {USUAL} less that of {LARGE}, both at rate {FULL_RATE:g}, points",
                    gap, paper="3.2 points"),
        judge_claim("FP improves generalization in large batches (appendix E)",
                    f"test accuracy at half the rate with FP less that without, points; {best}",
                    paired(ours[TEST], plain(LARGE, AT_HALF, TEST)), paper="5.1 points"),
        judge_claim("FP lowers the peak of Tr(F) in large batches (appendix E)",
                    f"log of the largest Tr(F) without FP over that with it; {best}",
                    paired(plain(LARGE, AT_HALF, PEAK), ours[PEAK], log_ratio), paper="effectively"),
        judge_within("Half the rate does not improve generalization on its own (appendix E)",
                     "test accuracy at half the rate less that at the whole, without FP, points; judged where the gap "
                     "between small and large batches is seen to be more than a point",
                     paired(plain(LARGE, AT_HALF, TEST), plain(LARGE, AT_FULL, TEST)), POINT, premise=seen(gap - POINT),
                     paper="-0.1 points"),
        judge_claim("FP closes the gap between large and small batches (appendix E)",
                    f"test accuracy of {LARGE} with FP less that of {USUAL} without, points; {best}",
                    paired(ours[TEST], plain(USUAL, AT_FULL, TEST)), premise=seen(gap), paper="1.8 points"),
    ]  # fmt: skip


HALVES = (
    "The coefficient is chosen by the accuracy at the end on the first half of the held-out examples (validation), "
    "among those with which no seed diverged; accuracies are compared on the second half (test). A line ends with a "
    "cross where the first of its runs diverged (a loss of ten times that of the start)."
)
PREMISES = (
    "On the right the numbers that are judged, of all coefficients. That accuracies at the best coefficients are "
    "alike, to 1 point, is judged where FP of every step is seen to raise them by more than that, that Tr(F) is "
    "alike, to 1.5 times, where it is seen to lower it by more, a condition that was added after a first run: without "
    "it no penalty would pass as well. That a penalty improves accuracy is judged where a tenth of the best rate is "
    "seen to generalize worse. The runs without a penalty are those of figures 1 to 4 and table 1."
)


def _pair(variant: Variant, title: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Jobs, data and picture of a variant beside FP of every step."""
    both = (variant, EVERY_STEP)
    titles = ((variant, title), (EVERY_STEP, "FP at every step (f = 1)"))
    return partial(jobs_of, variants=both), partial(compute_of, variants=both), partial(plot_of, variants=titles)


FIGURES = (
    NetworkFigure(
        "jastrzebski2021-13", *_pair(TENTH, "FP at every tenth step (f = 10)"), judge_13,
        "Left: the penalty's gradient is computed every 10 steps and used again in between, as in all of the paper's "
        "main results; right: computed at every step. The paper: with the best of ten coefficients from 0.01 to 1 both "
        "come to about 80% test accuracy and to similar Tr(F).",
        f"CNN with 12 filters on 449 digits at a tenth of the best rate, {', '.join(f'{c:g}' for c in COEFFICIENTS)} "
        f"(dark to light), B = {BATCH} (the paper: SimpleCNN on CIFAR-10, 128, which halves what a coefficient means). "
        f"{HALVES} {PREMISES} {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-14", *_pair(SINGLE, "FP of one example (eq. 6)"), judge_14,
        "Left: the penalty is the squared norm of the gradient of one example (eq. 6), which is Tr(F) in the mean; "
        "right: of the batch's mean gradient (eq. 3). The paper: 79.7% against 80.02% test accuracy, a largest Tr(F) "
        "of 24.16 against 21.38. A score has mean 0, so that E Tr(F^B) = Tr(F) / B, which the paper does not say: the "
        "same coefficient means B times as much in eq. 6, and its ranges of coefficients lie 100 apart at B = 128.",
        f"Both at every step, B = {BATCH}, coefficients {', '.join(f'{c:g}' for c in SINGLE_COEFFICIENTS)} and "
        f"{', '.join(f'{c:g}' for c in COEFFICIENTS)}, the network and rate of figure 13. {HALVES} {PREMISES} {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-17", jobs_17, compute_17, plot_17, judge_17,
        "FP on a part of a large batch, at half the rate: it lowers the peak of Tr(F) and raises the accuracy (the "
        "paper: from 73.59% to 78.7%; 73.7% at the whole rate, 76.94% with batches a tenth as large). Its appendix "
        "prints that a small batch improves generalization as a large batch does; a large learning rate is meant.",
        f"Batches of {WHOLE}, as many as there are training examples, drawn with replacement, 7 times the usual "
        f"{BATCH} (the paper: 10 times); the penalty of the first {BATCH} (128), at rate {HALF_RATE:g} for "
        f"{LARGE_STEPS} steps. Grey: rate {FULL_RATE:g}. All are compared after {LARGE_STEPS} steps ({COMPARED} at "
        f"rate {FULL_RATE:g}), at which half the rate has come half as far. The gap that FP is to close is judged "
        f"where small batches are seen to generalize better at rate {FULL_RATE:g}. {HALVES} {BARS}",
    ),
)  # fmt: skip
