"""The settings of the paper, and its figures at constant learning rates: 2, 3a, 4, 11, 13, 14; and 1.

Settings (sections 3.5 and 3.7): d = 10^4, h_i = 1/i, C = H, theta_0 ~ N(0, I), target risk 0.01, batch sizes 2^2
... 2^20, preconditioning powers 0, 0.25, 0.5, 0.75.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import bounds
from ..._risk import max_stable_lr, risk, steady_state_risk
from ..._sweep import sweep
from ...optimizers import EMA, FREE, SGD, Optimizer, Preconditioned, transition_matrix
from ...problems.quadratic import NoisyQuadratic
from ...schedules import Schedule
from .. import Data, Figure, rows

__all__ = [
    "BATCH_SIZES",
    "BOUNDS",
    "EXACT",
    "FIGURES",
    "POWERS",
    "TARGET",
    "compute_1",
    "compute_2",
    "compute_3a",
    "compute_4",
    "compute_11",
    "compute_13",
    "compute_14a",
    "compute_14b",
    "compute_14c",
    "plot_1",
    "plot_2",
    "plot_3a",
    "plot_4",
    "plot_11",
    "plot_13",
    "plot_14a",
    "plot_14b",
    "plot_14c",
    "plot_bounds",
    "plot_powers",
    "plot_steps",
    "problem",
    "tuned",
    "tuned_kinds",
    "with_bounds",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

POWERS = (0.0, 0.25, 0.5, 0.75)
BATCH_SIZES = 2.0 ** np.arange(2, 21)
TARGET = 0.01
TARGETS = (0.1, 0.03, 0.01, 0.003, 0.001)
RATE = 0.0005  # lr * h of figures 2 and 11
FIXED_MOMENTUM = 0.9  # figure 14b
KINDS: dict[str, Optimizer] = {
    "SGD": SGD(FREE),
    "momentum": SGD(FREE, momentum=FREE),
    "momentum 0.9": SGD(FREE, momentum=FIXED_MOMENTUM),
    "EMA": EMA(SGD(FREE), decay=FREE),
}


def problem(bins: int | None) -> NoisyQuadratic:
    """The problem of section 3.5; ``bins`` quantises it as the paper's authors do (they use 100)."""
    exact = NoisyQuadratic.power_law(10_000)
    return exact if bins is None else exact.binned(bins)


@lru_cache(maxsize=32)  # figures 3a, 4 and 14 share their cells
def tuned(
    kind: str, bins: int | None, targets: tuple[float, ...], batches: tuple[float, ...]
) -> dict[str, NDArray[Any]]:
    powers = POWERS if targets == (TARGET,) else (0.0,)
    optimizers = {f"{kind}, power {p:g}": Preconditioned(KINDS[kind], p) if p else KINDS[kind] for p in powers}
    return sweep(problem(bins), optimizers, batches, targets).table


def tuned_kinds(kinds: tuple[str, ...], bins: int | None) -> dict[str, NDArray[Any]]:
    """The tables of several kinds, one below the other, and a column that names them."""
    tables = [tuned(kind, bins, (TARGET,), tuple(BATCH_SIZES)) for kind in kinds]
    columns = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    return {**columns, "kind": np.repeat(kinds, len(tables[0]["steps"]))}


# --- figure 1 -------------------------------------------------------------------------------------------------


def compute_1() -> Data:
    """Risk of three coordinates and their sum, at a constant learning rate and with one drop to a tenth of it."""
    schedules = {"constant": Schedule(0.5, 600), "decayed": Schedule([0.5, 0.05], 300)}
    step = np.arange(601)
    return rows(
        [
            {"schedule": name, "curvature": h, "step": t, "risk": r}
            for h in (1.0, 0.1, 0.01)
            for name, schedule in schedules.items()
            for t, r in enumerate(np.asarray(risk(NoisyQuadratic([h]), SGD(schedule), 1, step)))
        ]
    )


def plot_1(data: Data) -> Picture:
    from ...plotting import LINES, new_figure, sequential

    picture, axes = new_figure(2, width=9.6, height=4.2)
    for ax, schedule in zip(axes, ("constant", "decayed"), strict=True):
        total = 0.0
        for i, h in enumerate(np.unique(data["curvature"])[::-1]):
            here = (data["schedule"] == schedule) & (data["curvature"] == h)
            name = ("high", "medium", "low")[i]
            label = f"{name} curvature, $h$ = {h:g}"
            ax.plot(data["step"][here], data["risk"][here], LINES[i], color=sequential(3)[i], label=label)
            total = total + data["risk"][here]
        ax.plot(data["step"][here], total, color="#b0b0b0", linewidth=5.0, zorder=1, label="total risk")
        ax.set(
            yscale="log",
            xlabel="step",
            title="constant learning rate" if schedule == "constant" else "learning rate decayed at step 300",
        )
        ax.set_ylabel("expected risk")
        ax.set_ylim(2e-4, 1.0)
    axes[0].legend()
    return picture


# --- figures 2 and 11 -----------------------------------------------------------------------------------------


def compute_2() -> Data:
    """Rate and steady state of one coordinate against momentum, beside plain SGD at the effective learning rate."""
    momentum = 1.0 - np.geomspace(1.0, 2.0 * RATE**0.5, 200)
    one, optimizer = NoisyQuadratic([1.0]), SGD(RATE, momentum)
    effective = RATE / (1.0 - momentum)
    radius = np.abs(np.linalg.eigvals(transition_matrix(optimizer, RATE))).max(axis=-1)
    plain = transition_matrix(SGD(1.0), effective)[:, 0, 0]
    return {
        "momentum": momentum,
        "rate": radius,
        "rate_effective": plain,
        "contraction": 1.0 - radius,
        "contraction_effective": 1.0 - plain,
        "steady_state": np.asarray(steady_state_risk(one, optimizer, 1)),
        "steady_state_effective": np.asarray(steady_state_risk(one, SGD(effective), 1)),
    }


def plot_2(data: Data) -> Picture:
    from ...plotting import COLORS, new_figure

    picture, axes = new_figure(2, width=9.6, height=4.2)
    names = {"contraction": "1 - convergence rate", "steady_state": "steady-state risk"}
    for ax, (column, name) in zip(axes, names.items(), strict=True):
        ax.plot(data["momentum"], data[column], color=COLORS[1], label="momentum SGD")
        ax.plot(
            data["momentum"], data[column + "_effective"], "--", color=COLORS[0],
            label=r"plain SGD at learning rate $\alpha/(1-\beta)$",
        )  # fmt: skip
        ax.set(xlabel=r"momentum $\beta$", ylabel=name, yscale="log")
    axes[0].legend()
    return picture


def compute_11() -> Data:
    """First term of eq. 6, what is left of the start, after several numbers of steps."""
    one = NoisyQuadratic([1.0], noise=0.0)
    gap = np.geomspace(1.0, 2.0 * RATE**0.5, 200)
    records = []
    for steps in (10, 30, 100, 300, 1000):
        with_momentum = np.asarray(risk(one, SGD(RATE, 1.0 - gap), 1, steps)) / one.initial_risk
        plain = np.asarray(risk(one, SGD(RATE / gap), 1, steps)) / one.initial_risk
        records += [
            {"steps": steps, "one_minus_momentum": g, "momentum": m, "plain": p}
            for g, m, p in zip(gap, with_momentum, plain, strict=True)
        ]
    return rows(records)


def plot_11(data: Data) -> Picture:
    from ...plotting import new_figure, sequential

    picture, ax = new_figure()
    times = np.unique(data["steps"])
    for steps, color, below in zip(times, sequential(times.size), (-3, 3, 3, 3, 3), strict=True):
        here = data["steps"] == steps
        x, momentum, plain = (data[column][here] for column in ("one_minus_momentum", "momentum", "plain"))
        ax.plot(x, momentum, color=color)
        ax.plot(x, plain, "--", color=color)
        ax.annotate(f"t = {steps:g}", (x[0], plain[0]), xytext=(6, -below), textcoords="offset points", fontsize=9,
                    color=color, va="center")  # fmt: skip
    ax.plot([], [], color="grey", label="momentum SGD")
    ax.plot([], [], "--", color="grey", label="plain SGD, effective learning rate")
    ax.set(xscale="log", xlabel=r"$1-\beta$", ylabel="what is left of the start (first term of eq. 6)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return picture


# --- figures 3a, 4, 13: steps against batch size --------------------------------------------------------------


def with_bounds(table: dict[str, NDArray[Any]], bins: int | None) -> Data:
    """Rows of a sweep, and those of the two bounds as further kinds."""
    where = problem(bins)
    keep = ("kind", "power", "batch_size", "steps", "lr", "momentum", "decay")
    parts = {key: [table[key]] for key in keep if key in table}
    for bound in ("mle", "bayes"):
        found = bounds.examples_to_target(where, TARGET, "mle" if bound == "mle" else "bayes") / BATCH_SIZES
        extra = {"kind": np.full(found.size, bound), "batch_size": BATCH_SIZES, "steps": found}
        for key in parts:
            parts[key].append(extra.get(key, np.full(found.size, np.nan)))
    return {key: np.concatenate(part) for key, part in parts.items()}


def plot_powers(ax: Axes, data: Data, kind: str, column: str, line: str, label: str | None) -> None:
    """One line for each power; the label goes to the first."""
    from ...plotting import MARKERS, sequential

    for i, power in enumerate(POWERS):
        here = (data["kind"] == kind) & (data["power"] == power)
        ax.plot(
            data["batch_size"][here], data[column][here], line, color=sequential(len(POWERS))[i],
            marker=MARKERS[i] if line == "-" else None,
            label=None if label is None else f"{label}, power {power:g}",
        )  # fmt: skip


def plot_bounds(ax: Axes, data: Data) -> None:
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "mle": ("maximum likelihood, $d/2N$", {"color": "#b0b0b0", "linewidth": 5.0}),
        "bayes": ("Bayes bound", {"color": "black", "linewidth": 1.4, "linestyle": "-."}),
    }
    for bound, (label, look) in looks.items():
        here = data["kind"] == bound
        ax.plot(data["batch_size"][here], data["steps"][here], label=label, zorder=1.5, **look)


def plot_steps(data: Data, kind: str, name: str, dashed: str = "plain SGD") -> Picture:
    """``kind`` at each power, dashed plain SGD at a constant learning rate, and both bounds."""
    from ...plotting import new_figure, powers_of_two

    picture, ax = new_figure()
    plot_powers(ax, data, kind, "steps", "-", name)
    plot_powers(ax, data, "SGD", "steps", "--", None)
    plot_bounds(ax, data)
    ax.plot([], [], "--", color="grey", label=f"dashed: {dashed}, same power")
    powers_of_two(ax)
    ax.set(xlabel="batch size (examples)", ylabel="steps to risk 0.01")
    ax.set_ylim(1.0, 2.0**21)
    ax.legend(ncols=2, fontsize=8)
    return picture


def compute_3a(bins: int | None = None) -> Data:
    """Tuned momentum and plain SGD at each power, and both bounds."""
    return with_bounds(tuned_kinds(("momentum", "SGD"), bins), bins)


def plot_3a(data: Data) -> Picture:
    return plot_steps(data, "momentum", "momentum")


def compute_4(bins: int | None = None) -> Data:
    """Tuned EMA and plain SGD at each power, and both bounds."""
    return with_bounds(tuned_kinds(("EMA", "SGD"), bins), bins)


def plot_4(data: Data) -> Picture:
    return plot_steps(data, "EMA", "EMA")


def compute_13(bins: int | None = None) -> Data:
    """Tuned plain SGD at five targets."""
    table = tuned("SGD", bins, TARGETS, tuple(2.0 ** np.arange(2, 22)))
    return {key: table[key] for key in ("target", "batch_size", "steps", "lr")}


def plot_13(data: Data) -> Picture:
    from ...plotting import MARKERS, new_figure, powers_of_two, sequential

    picture, ax = new_figure()
    for i, target in enumerate(TARGETS):
        here = data["target"] == target
        ax.plot(
            data["batch_size"][here],
            data["steps"][here],
            color=sequential(len(TARGETS))[i],
            marker=MARKERS[i],
            label=f"target {target:g}",
        )
    powers_of_two(ax)
    ax.set(xlabel="batch size (examples)", ylabel="steps to target")
    ax.legend()
    return picture


# --- figure 14: learning rates --------------------------------------------------------------------------------


def _learning_rates(kinds: tuple[str, ...], bins: int | None) -> Data:
    table = tuned_kinds(kinds, bins)
    chosen = {key: table[key] for key in ("kind", "power", "batch_size", "steps", "lr", "momentum")}
    return {**chosen, "effective_lr": table["lr"] / (1.0 - table["momentum"])}


def compute_14a(bins: int | None = None) -> Data:
    """The learning rates behind plain SGD's fewest steps."""
    return _learning_rates(("SGD",), bins)


def compute_14b(bins: int | None = None) -> Data:
    """Effective learning rates lr / (1 - momentum) at momentum 0.9, beside plain SGD's."""
    return _learning_rates(("momentum 0.9", "SGD"), bins)


def compute_14c(bins: int | None = None) -> Data:
    """Effective learning rates lr / (1 - momentum) with momentum tuned, beside plain SGD's."""
    return _learning_rates(("momentum", "SGD"), bins)


def _plot_rates(data: Data, kind: str, label: str, ylabel: str) -> Picture:
    from ...plotting import new_figure, powers_of_two

    picture, ax = new_figure()
    plot_powers(ax, data, kind, "effective_lr", "-", label)
    if kind != "SGD":
        plot_powers(ax, data, "SGD", "effective_lr", "--", None)
        ax.plot([], [], "--", color="grey", label="dashed: plain SGD, same power")
    limit = float(np.asarray(max_stable_lr(problem(None), SGD(FREE))))
    ax.axhline(limit, color="black", linewidth=1.0, linestyle=":", label="largest stable, plain SGD")
    powers_of_two(ax)
    ax.set(xlabel="batch size (examples)", ylabel=ylabel)
    ax.legend(fontsize=8)
    return picture


def plot_14a(data: Data) -> Picture:
    return _plot_rates(data, "SGD", "plain SGD", r"optimal learning rate $\alpha$")


def plot_14b(data: Data) -> Picture:
    return _plot_rates(data, "momentum 0.9", r"$\beta$ = 0.9", r"optimal effective learning rate $\alpha/(1-\beta)$")


def plot_14c(data: Data) -> Picture:
    return _plot_rates(data, "momentum", r"$\beta$ tuned", r"optimal effective learning rate $\alpha/(1-\beta)$")


EXACT = (
    "All 10^4 eigenvalues instead of 100 bins (`--bins 100` gives those), and minima over the continuum instead of a "
    "grid, so steps are up to some ten percent fewer."
)
BOUNDS = (
    " The paper's lower bound d/2N is the risk of maximum likelihood, which shrinkage beats. The Bayes bound, which "
    "nothing beats, is drawn too; here it is only 1% lower."
)


def _figure(number: str, title: str, see: str, differs: str, has_spectrum: bool = True) -> Figure:
    functions = globals()
    calculate, plot = functions[f"compute_{number}"], functions[f"plot_{number}"]
    return Figure(f"zhang2019-{number}", title, calculate, plot, see, differs, has_spectrum)


FIGURES = (
    _figure(
        "1",
        "Risk of coordinates of different curvature, with and without learning rate decay",
        "High curvature reaches its steady state first and then holds the total up; lowering the learning rate brings "
        "the floor down when the slow coordinates are done.",
        "A cartoon in the paper, exact risk here: h = 1, 0.1, 0.01, B = 1, learning rate 0.5, from step 300 on 0.05.",
        has_spectrum=False,
    ),
    _figure(
        "2",
        "Convergence rate and steady-state risk against momentum",
        "Both follow plain SGD at learning rate lr / (1 - momentum), until momentum nears critical damping. At the end "
        "of the curve it contracts 1.7 times as fast.",
        "One minus the convergence rate is drawn, on a logarithmic axis: rates are all close to 1. Momentum goes up to "
        "where 1 - momentum is twice sqrt(lr h), critical damping.",
        has_spectrum=False,
    ),
    _figure(
        "3a",
        "Steps to target: momentum and preconditioning",
        "Momentum saves little while batches are small and extends perfect scaling to larger ones; preconditioning "
        "does so too, and also saves steps at small batches; with it, momentum matters less.",
        EXACT + BOUNDS,
    ),
    _figure(
        "4",
        "Steps to target: exponential moving average",
        "Averaging saves steps at small batches, most at power 0, lowers the critical batch size, and is idle at large "
        "batches.",
        EXACT + BOUNDS + " EMA is never above plain SGD, which it contains with decay 0.",
    ),
    _figure(
        "11",
        "What is left of the start: momentum against plain SGD at the effective learning rate",
        "The pairs of curves agree, except at few steps, before the momentum has built up, and near critical damping.",
        "The numbers of steps at which the curves are taken are ours: the paper does not name its own.",
        has_spectrum=False,
    ),
    _figure(
        "13",
        "Steps to target for five targets",
        "One shape, shifted: harder targets have larger critical batch sizes.",
        EXACT,
    ),
    _figure(
        "14a",
        "Optimal learning rate, plain SGD",
        "Proportional to batch size until it meets the largest stable one; lower, and linear for longer, with "
        "preconditioning.",
        EXACT,
    ),
    _figure(
        "14b",
        "Optimal effective learning rate, momentum 0.9",
        "On plain SGD's line while batches are small; beyond, it goes on to rise at low powers. At high powers and "
        "large batches momentum 0.9 is more than the problem wants, and the optimum jumps between oscillations.",
        EXACT + " Minima are global here: where several learning rates need the same steps, the one of lowest risk.",
    ),
    _figure(
        "14c",
        "Optimal effective learning rate, momentum tuned",
        "On plain SGD's line or just above while batches are small, and linear far beyond it.",
        EXACT,
    ),
)
