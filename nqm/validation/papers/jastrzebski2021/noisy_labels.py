"""Wrong labels under the Fisher penalty: figures 5 and 9 and table 3 of jastrzebski2021."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...._table import Table
from ....plotting import new_figure
from ...experiments.drawing import BARS, draw_lines, legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import MEAN, Row, by_seed, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, judge_within, seen
from .drawing import draw_compared, looks_of, shades_of
from .protocol import TITLES, seeds_of, size_of
from .reading import courses, group

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURES"]

RATE = 0.02
SPACING = 50
"""Steps between readings."""
SHARES = (0.25, 0.5)
"""Of the training labels, drawn anew, uniformly: a tenth of them comes out right again."""
SHOWN = 0.5
"""The share in figures 5 and 9."""
PLAIN = "no penalty"


# Figures 5 and 9

STRENGTHS = {"mlp": (0.1, 0.3, 1.0, 3.0), "cnn": (0.1, 0.3, 1.0)}
STRONG = 1.0
"""Coefficient of FP that is judged. Pilot: of the largest held-out accuracy, MLP at both shares, CNN at a half."""
WINDOW = (100, 500)
"""Steps over which is averaged. Pilot, without a penalty: of the noisy labels about 15% are fitted at its start (CNN),
73% (MLP) and 80% (CNN) at its end, and almost all at the end of the run, where gradients vanish. FP 1 also
delays the CNN's start, by about 100 steps, which counts against the claim."""
REACHED = 0.9
"""Accuracy on right labels at which that on wrong ones is compared; the pilot's runs reach it under FP 1 too."""
CNN_SEEDS = 5
QUICK_CNN_STEPS = 100

KEPT, WRONG = "clean", "noisy"
FALL = "accuracy, mean of the window"
AT_REACHED = "noisy accuracy at equal clean accuracy"
FITTED = "noisy accuracy at the end"
LARGER = "log of noisy over clean gradient norm"
DISTANCE = "distance of the log ratio from 0"


def noisy_of(
    effort: Effort, net: str, seed: int, share: float, method: str = "none", coefficient: float = 0.0, steps: int = 0
) -> dict[str, Any]:
    """Settings of one run on partly redrawn labels (:func:`.training.noisy`). steps: 0 as usual."""
    return {
        "kind": "noisy", "data": effort.data, "net": net, "lr": RATE, "seed": seed,
        "steps": steps or size_of(effort).noisy, "share": share, "method": method, "coefficient": coefficient,
        "spacing": SPACING,
    }  # fmt: skip


def _jobs(effort: Effort, net: str) -> list[dict[str, Any]]:
    """No penalty, and FP at each strength; the MLP's are among the jobs of table 3."""
    count = CNN_SEEDS if net == "cnn" and not effort.quick else size_of(effort).few
    steps = QUICK_CNN_STEPS if net == "cnn" and effort.quick else 0
    strengths = (STRONG,) if effort.quick else STRENGTHS[net]
    return [
        noisy_of(effort, net, seed, SHOWN, method, coefficient, steps)
        for method, coefficient in (("none", 0.0), *(("FP", one) for one in strengths))
        for seed in seeds_of(effort, count)
    ]


def _compute(results: Sequence[Result], net: str) -> Table:
    """Series a strength of FP. Accuracies (%), gradient norms and their ratio against the step, means over seeds; of
    each seed the numbers that are judged."""
    samples, paths = [], []
    for coefficient in sorted({one.settings["coefficient"] for one in results}):
        own = group(results, coefficient=coefficient)
        name = f"FP {coefficient:g}" if coefficient else PLAIN
        for part in (KEPT, WRONG):
            paths += courses(own, net, f"{part} accuracy", name, f"{part} accuracy", 100.0)
            paths += courses(own, net, f"{part} gradient norm", name, f"{part} gradient norm")
        paths += courses([_with_ratio(one) for one in own], net, "ratio", name, "ratio")
        for one in own:
            seed = one.settings["seed"]
            samples += [Row(net, quantity, name, 0.0, seed, value) for quantity, value in _numbers(one.columns).items()]
    return table_of(samples, paths)


def _with_ratio(one: Result) -> Result:
    """With the column "ratio", of the norms of clean and noisy examples' gradients."""
    ratio = one.columns["clean gradient norm"] / one.columns["noisy gradient norm"]
    return one._replace(columns=Table({**one.columns, "ratio": ratio}))


def _numbers(columns: Table) -> dict[str, float]:
    """Of one run, NaN where it diverged. Of :data:`WINDOW` the means of both accuracies (%), of log(noisy / clean
    gradient norm) and of that logarithm's size; noisy accuracy (%) when clean accuracy reaches :data:`REACHED`, on
    straight lines between readings (NaN where it does not), and at the end."""
    step = columns["step"]
    here = (step >= WINDOW[0]) & (step <= WINDOW[1])
    logs = np.log(columns["noisy gradient norm"][here] / columns["clean gradient norm"][here])
    found = {
        **{f"{part} {FALL}": 100.0 * columns[f"{part} accuracy"][here].mean() for part in (KEPT, WRONG)},
        LARGER: logs.mean(),
        DISTANCE: np.abs(logs).mean(),
        AT_REACHED: 100.0 * _when(columns["clean accuracy"], REACHED, columns["noisy accuracy"]),
        FITTED: 100.0 * columns["noisy accuracy"][-1],
    }
    bad = bool(columns["diverged"].any())
    return {name: math.nan if bad else float(value) for name, value in found.items()}


def _when(rising: NDArray[Any], level: float, other: NDArray[Any]) -> float:
    """The other column when one first reaches a level, between two readings in proportion; NaN where it does not."""
    above = np.flatnonzero(rising >= level)
    if not above.size or above[0] == 0:
        return math.nan
    k = int(above[0])
    part = (level - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(other[k - 1] + part * (other[k] - other[k - 1]))


def _plot(table: Table) -> Picture:
    names = table.distinct("series")
    solid, dashed = ({name: {**look, "linestyle": line} for name, look in shades_of(names).items()}
                     for line in ("-", "--"))  # fmt: skip
    figure, axes = new_figure(3, width=14.5, height=4.3)
    for ax, quantity, said in zip(axes, ("accuracy", "gradient norm"), ("training accuracy (%)", "mean gradient norm"),
                                  strict=False):  # fmt: skip
        draw_lines(ax, table, solid, None, quantity=f"{KEPT} {quantity}")
        draw_lines(ax, table, dashed, None, quantity=f"{WRONG} {quantity}")
        ax.set(xlabel="step", ylabel=said, title="clean solid, noisy dashed")
    draw_lines(axes[2], table, solid, quantity="ratio")
    axes[2].axhline(1.0, color="black", linestyle=":", linewidth=1.0)
    axes[2].set(xlabel="step", ylabel="ratio of gradient norms", title="clean / noisy")
    for ax in axes:
        ax.set_ylim(bottom=0.0)
    legend_beside(axes[2])
    return figure


def _judge(table: Table, net: str, figure: str) -> list[Verdict]:
    strong = f"FP {STRONG:g}"

    def of(quantity: str, series: str) -> dict[int, float]:
        return by_seed(table, panel=net, quantity=quantity, series=series)

    falls = {part: paired(of(f"{part} {FALL}", PLAIN), of(f"{part} {FALL}", strong)) for part in (KEPT, WRONG)}
    memorized = seen(np.array([*of(FITTED, PLAIN).values()]) - 50.0)
    larger = {name: np.array([*of(LARGER, name).values()]) for name in (PLAIN, strong)}
    steps, where = f"steps {WINDOW[0]} to {WINDOW[1]}", f"section 4.1, {figure}"
    return [
        judge_claim(
            f"{TITLES[net]}: the Fisher penalty slows the fit of noisy labels more than that of clean ones ({where})",
            f"points of accuracy that {strong} takes from noisy labels, mean of {steps}, less those from clean ones; "
            "premise: without a penalty more than half of the noisy labels are fitted in the end",
            falls[WRONG] - falls[KEPT], premise=memorized,
        ),
        judge_claim(
            f"{TITLES[net]}: at equal accuracy on clean labels the Fisher penalty has fitted fewer noisy ones (ours; "
            f"{where})",
            f"points of noisy accuracy that {strong} takes when clean accuracy reaches {REACHED:.0%}; the same premise",
            paired(of(AT_REACHED, PLAIN), of(AT_REACHED, strong)), premise=memorized,
        ),
        *(
            judge_claim(
                f"{TITLES[net]}: the gradient norm is larger on noisy than on clean labels, {name} ({where})",
                f"log of noisy over clean norm, mean of {steps}", larger[name],
            )
            for name in (PLAIN, strong)
        ),
        judge_claim(
            f"{TITLES[net]}: the ratio of gradient norms is closer to 1 under a strong penalty ({where})",
            f"size of the ratio's log, mean of {steps}: {PLAIN} less {strong}; premise: without a penalty the norm is "
            "larger on noisy labels",
            paired(of(DISTANCE, PLAIN), of(DISTANCE, strong)), premise=seen(larger[PLAIN]),
        ),
    ]  # fmt: skip


# Table 3

COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "none": (0.0,),
    "mixup": (0.2, 0.8, 3.2, 6.4),
    "GP_x": (10.0, 30.0, 100.0, 300.0),
    "GP": (0.1, 0.3, 1.0),
    "FP": (0.1, 0.3, 1.0, 3.0),
    "GP_r": (0.1, 0.3, 1.0, 3.0),
}
"""Around the best of the pilot; mixup: the paper's range of b."""
QUICK_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "none": (0.0,), "mixup": (3.2,), "GP_x": (100.0,), "FP": (1.0,), "GP_r": (1.0,),
}  # fmt: skip
NET = "mlp"
ALIKE = 1.5
"""Points of accuracy. The paper calls differences of 0.7 to 2.1 similar, where FP gains 5 to 21 over no penalty."""
COMPETITIVE = -1.0
"""Points behind mixup. Stricter than the paper, which calls -3.3 and -3.7 competitive."""
REDRAWS = 4
UNIFORM = ("cnn", "mlp")
IDENTITY_MARGIN = 0.001  # rounding

VALIDATION = "validation accuracy at its best point"
TEST = "test accuracy at the best validation point"
FINAL = "final test accuracy"
TRIED = f"{VALIDATION}, of all coefficients"
IDENTITY = "squared norm over Tr F"

PRINTED = {  # test accuracy (%), VGG-11 and ResNet, by share
    0.25: {"none": (41.74, 53.30), "mixup": (52.31, 61.61), "GP_x": (45.94, 52.70), "FP": (60.18, 58.31),
           "GP_r": (58.46, 57.60)},
    0.5: {"none": (30.05, 43.35), "mixup": (39.15, 51.71), "GP_x": (34.26, 42.99), "FP": (51.33, 47.99),
          "GP_r": (50.33, 50.08)},
}  # fmt: skip


def jobs_table3(effort: Effort) -> list[dict[str, Any]]:
    seeds = seeds_of(effort, size_of(effort).few)
    trained = [
        noisy_of(effort, NET, seed, share, method, coefficient)
        for share in ((SHOWN,) if effort.quick else SHARES)
        for method, several in (QUICK_COEFFICIENTS if effort.quick else COEFFICIENTS).items()
        for coefficient in several
        for seed in seeds
    ]
    return trained + [
        {"kind": "uniform", "data": effort.data, "net": net, "seed": seed, "redraws": REDRAWS}
        for net in UNIFORM
        for seed in seeds
    ]


def compute_table3(results: Sequence[Result]) -> Table:
    """Panel a share, series a method, x its coefficient: accuracies (%) of each seed at the coefficient of the largest
    mean validation accuracy, and the mean validation accuracies at all. Panel "uniform": E||g||^2 / Tr F."""
    samples, tried = [], []
    trained = group(results, kind="noisy")
    for share in sorted({one.settings["share"] for one in trained}):
        for method in COEFFICIENTS:
            own = group(trained, share=share, method=method)
            if not own:
                continue
            rows: dict[float, list[Row]] = {}
            for one in own:
                coefficient, seed = one.settings["coefficient"], one.settings["seed"]
                rows.setdefault(coefficient, []).extend(
                    Row(panel_of(share), quantity, method, coefficient, seed, value)
                    for quantity, value in _best(one.columns).items()
                )
            samples += rows[_chosen(rows)]
            tried += [row._replace(quantity=TRIED)
                      for several in rows.values() for row in several if row.quantity == VALIDATION]  # fmt: skip
    samples += [
        Row("uniform", IDENTITY, one.settings["net"], 0.0, one.settings["seed"],
            float(one.columns["squared norm"][0] / one.columns["Tr F"][0]))
        for one in group(results, kind="uniform")
    ]  # fmt: skip
    return table_of(samples, tried)


def panel_of(share: float) -> str:
    return f"{share:.0%} of labels redrawn"


def _best(columns: Table) -> dict[str, float]:
    """Accuracies (%) on both halves at the largest on the first one, and at the end; NaN where the run diverged."""
    if columns["diverged"].any():
        return dict.fromkeys((VALIDATION, TEST, FINAL), math.nan)
    best = int(columns["validation accuracy"].argmax())
    return {
        VALIDATION: 100.0 * float(columns["validation accuracy"][best]),
        TEST: 100.0 * float(columns["test accuracy"][best]),
        FINAL: 100.0 * float(columns["test accuracy"][-1]),
    }


def _chosen(rows: dict[float, list[Row]]) -> float:
    """The coefficient of the largest mean validation accuracy, of those under which no run diverged."""

    def accuracy(coefficient: float) -> float:
        mean = float(np.mean([row.value for row in rows[coefficient] if row.quantity == VALIDATION]))
        return -math.inf if math.isnan(mean) else mean

    return max(rows, key=accuracy)


def plot_table3(table: Table) -> Picture:
    shares = [panel for panel in table.distinct("panel") if table.select(panel=panel, quantity=TEST).rows]
    looks = looks_of([*COEFFICIENTS])
    figure, axes = new_figure(len(shares), width=max(6.2 * len(shares), 7.0), height=8.4, rows=2, squeeze=False)
    for row, quantity, when in zip(axes, (TEST, FINAL), ("best validation point", "end"), strict=True):
        for ax, panel in zip(row, shares, strict=True):
            draw_compared(ax, table, looks, panel=panel, quantity=quantity)
            chosen = table.select(panel=panel, quantity=quantity, seed=MEAN)
            labels = [PLAIN if name == "none" else f"{name} {coefficient:g}"
                      for name, coefficient in zip(chosen["series"], chosen["x"], strict=True)]  # fmt: skip
            ax.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
            ax.set(xlabel="method and its coefficient", ylabel="test accuracy (%)", title=f"{panel}, at the {when}")
    return figure


def judge_table3(table: Table) -> list[Verdict]:
    shares = [share for share in SHARES if table.select(panel=panel_of(share), quantity=TEST).rows]
    return [verdict for share in shares for verdict in _judge_share(table, share)] + [
        judge_within(
            f"{TITLES[net]}: where labels and the model's p are uniform, the mean squared norm of gradients is Tr(F) "
            "(section 4.1)",
            "their ratio minus 1, last layer set to 0: an identity of each example then, whatever its label",
            np.array([*by_seed(table, panel="uniform", quantity=IDENTITY, series=net).values()]) - 1.0,
            IDENTITY_MARGIN, paper="equal",
        )
        for net in UNIFORM
    ]  # fmt: skip


def _judge_share(table: Table, share: float) -> list[Verdict]:
    def of(method: str, quantity: str = TEST) -> dict[int, float]:
        return by_seed(table, panel=panel_of(share), quantity=quantity, series=method)

    def printed(first: str, second: str) -> str:
        pairs = zip(PRINTED[share][first], PRINTED[share][second], strict=True)
        return " and ".join(f"{a - b:+.2f}" for a, b in pairs)

    premise = seen(paired(of("none"), of("none", FINAL)))
    where = panel_of(share)
    why = f"points of {TEST}, {{}}; premise: without a penalty test accuracy falls from there to the end"
    claim: Callable[..., Verdict] = partial(judge_claim, premise=premise)
    return [
        claim(f"{where}: the Fisher penalty improves on no penalty (table 3)", why.format("FP less none"),
              paired(of("FP"), of("none")), paper=printed("FP", "none")),
        claim(f"{where}: the Fisher penalty improves on none at the end of training too (ours)",
              "points of final test accuracy, FP less none; the same premise",
              paired(of("FP", FINAL), of("none", FINAL))),
        judge_within(f"{where}: GP_r does as FP does (table 3)", why.format("GP_r less FP"),
                     paired(of("GP_r"), of("FP")), ALIKE,
                     premise=premise, paper=printed("GP_r", "FP")),
        claim(f"{where}: FP is competitive with mixup, at most {-COMPETITIVE:g} point behind (table 3)",
              why.format("FP less mixup"), paired(of("FP"), of("mixup")), bound=COMPETITIVE,
              paper=printed("FP", "mixup")),
        claim(f"{where}: FP does better than GP_x (table 3)", why.format("FP less GP_x"), paired(of("FP"), of("GP_x")),
              paper=printed("FP", "GP_x")),
    ]  # fmt: skip


LABELS = (
    '"Noisy" are all labels that were redrawn, a tenth of them right by chance. A reading every '
    f"{SPACING} steps; rate {RATE:g}, B = 64, momentum 0.9, a penalty at every step"
)
GRIDS = 'The paper\'s grids differ: six values (section 4.1), "0.01, 0.1, 0.31, 10" (G.3), 0.01 to 10 (figure 5).'
FIGURES = (
    NetworkFigure(
        "jastrzebski2021-5", partial(_jobs, net="mlp"), partial(_compute, net="mlp"), _plot,
        partial(_judge, net="mlp", figure="figure 5"),
        "With a larger coefficient of FP (the paper: 0.01 to 10, VGG-11 on CIFAR-100) noisy labels are fitted much "
        "later, clean ones a little; gradients are larger on noisy labels, and less so under a strong penalty.",
        f"An MLP on 449 digits, half of the labels redrawn, coefficients around the best of pilots: at 10 this "
        f"network learns nothing. {GRIDS} Means of the norms of single gradients (the paper: of mini-batches). Once "
        "all labels are fitted both norms vanish and their ratio says little: what is judged is the mean of steps "
        f"{WINDOW[0]} to {WINDOW[1]}, of FP {STRONG:g} against none. {LABELS}. {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-9", partial(_jobs, net="cnn"), partial(_compute, net="cnn"), _plot,
        partial(_judge, net="cnn", figure="figure 9"),
        "The same with a second network (the paper: ResNet-50, which table 3 calls ResNet-52 and the text Wide "
        "ResNet).",
        f"The CNN with 12 filters in the place of the MLP, {CNN_SEEDS} seeds. FP {STRONG:g} delays the start of "
        f"this network by about 100 steps (pilot), on clean labels too, which counts against the first claim. "
        f"{LABELS}. {BARS}",
    ),
    NetworkFigure(
        "jastrzebski2021-table3", jobs_table3, compute_table3, plot_table3, judge_table3,
        "Test accuracy at the best validation point (%), VGG-11 / ResNet. 25% redrawn: none 41.74 / 53.30, mixup 52.31 "
        "/ 61.61, GP_x 45.94 / 52.70, FP 60.18 / 58.31, GP_r 58.46 / 57.60; 50%: 30.05 / 43.35, 39.15 / 51.71, 34.26 / "
        "42.99, 51.33 / 47.99, 50.33 / 50.08. FP is ahead of mixup in VGG-11 and behind it in ResNet.",
        "An MLP on 449 digits; halves of the 1,348 held-out images for validation and test; the coefficient (on the "
        "axis) of the largest mean validation accuracy, of four, GP of three (the paper: of six). "
        f"{GRIDS} GP is not in the paper's table. GP_r is the gradient by the parameters under uniform labels (printed "
        "by the inputs, a misprint). Below: at the end of training, which the paper does not report. In the CSV also "
        "validation accuracies at all coefficients, and the mean squared norm of single gradients over Tr(F) where "
        "labels and the model's p are uniform, by a last layer of 0 (MLP and CNN): there it is 0.9 (1 + the squared "
        f"norm of the layer's inputs) whatever the label. {LABELS}. {BARS}",
    ),
)  # fmt: skip
