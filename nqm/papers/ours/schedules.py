"""Which schedule at which batch size, and how batches should grow.

The problem of Zhang et al. (2019), plain SGD, power 0.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import bounds, schedules
from ..._risk import risk
from ...optimizers import FREE, SGD
from ...search.schedule_search import optimize_schedule
from ...search.tuning import tune
from .. import Data, Figure, rows
from ..zhang2019.constant import TARGET, problem

__all__ = ["FIGURES", "compute_ramp", "compute_schedules", "plot_ramp", "plot_schedules"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

BATCH_SIZES = 2.0 ** np.arange(2, 21, 2)
PIECES = 100
COOLDOWNS = (0.07, 0.15, 0.3, 0.5, 0.75)  # shares of the run, of which warmup-stable-decay takes the best
EXAMPLES, STEPS = 2e6, 20_000  # of the ramps: 100 examples a step
RATES = np.geomspace(0.02, 1.95, 97)


def compute_schedules(bins: int | None = None) -> Data:
    """Fewest steps of each shape with its peak (and its cooldown) tuned, and of the optimised schedule."""
    where, records = problem(bins), []
    shapes: dict[str, list[Any]] = {
        "cosine": [schedules.cosine],
        "linear to zero": [schedules.linear],
        "warmup-stable-decay": [partial(schedules.wsd, decay=share) for share in COOLDOWNS],
    }
    for batch in BATCH_SIZES.tolist():
        found: dict[str, tuple[float, float]] = {"constant": (tune(where, SGD(FREE), batch, TARGET).steps, np.nan)}
        for name, choices in shapes.items():
            best = [optimize_schedule(where, batch, target=TARGET, pieces=PIECES, shape=shape) for shape in choices]
            fewest = min(range(len(best)), key=lambda i: best[i].steps)
            found[name] = best[fewest].steps, COOLDOWNS[fewest] if len(best) > 1 else np.nan
        found["optimised"] = optimize_schedule(where, batch, target=TARGET, pieces=PIECES).steps, np.nan
        found["Bayes bound"] = bounds.examples_to_target(where, TARGET) / batch, np.nan
        records += [
            {
                "kind": kind,
                "batch_size": batch,
                "steps": steps,
                "relative": steps / found["optimised"][0],
                "cooldown": cooldown,
            }
            for kind, (steps, cooldown) in found.items()
        ]
    return rows(records)


def plot_schedules(data: Data) -> Picture:
    from ...plotting import new_figure, powers_of_two, series

    picture, axes = new_figure(2, width=11.0, height=4.6)
    for i, kind in enumerate(("constant", "cosine", "linear to zero", "warmup-stable-decay", "optimised")):
        here = data["kind"] == kind
        look = series(i)
        if kind == "cosine":
            look |= {"linewidth": 5.0, "markersize": 9.0, "alpha": 0.5}  # the next lies on it
        axes[0].plot(data["batch_size"][here], data["steps"][here], label=kind, **look)
        axes[1].plot(data["batch_size"][here], data["relative"][here], **look)
    here = data["kind"] == "Bayes bound"
    axes[0].plot(data["batch_size"][here], data["steps"][here], "-.", color="black", label="Bayes bound")
    axes[1].plot(data["batch_size"][here], data["relative"][here], "-.", color="black")
    powers_of_two(axes[0])
    powers_of_two(axes[1], "x")
    axes[0].set(xlabel="batch size (examples)", ylabel="steps to risk 0.01")
    axes[0].set_ylim(2.0**9, 2.0**21)
    axes[1].set(xlabel="batch size (examples)", ylabel="steps, relative to the optimised schedule", ylim=(0.0, 4.0))
    worst = data["relative"][data["kind"] == "constant"].max()
    axes[1].annotate(f"constant: up to {worst:.1f}", (2.0**7.3, 3.9), (8, -4), textcoords="offset points", va="top")
    axes[0].legend()
    return picture


def compute_ramp(bins: int | None = None) -> Data:
    """Given examples and steps: the best batch sizes for constant learning rates, and the risk with and without."""
    where, records = problem(bins), []

    def add(series: str, x: float, y: float, z: float = np.nan) -> None:
        records.append({"series": series, "lr": x, "begin": z, "value": y})

    average = EXAMPLES / STEPS
    for lr in RATES.tolist():
        ramp = optimize_schedule(where, FREE, steps=STEPS, examples=EXAMPLES, pieces=PIECES, optimizer=SGD(lr))
        add("risk, constant batch", lr, float(risk(where, SGD(lr), average, STEPS)))
        add("risk, best ramp", lr, ramp.risk)
    for lr in (0.03, 0.3, 1.5):
        ramp = optimize_schedule(where, FREE, steps=STEPS, examples=EXAMPLES, pieces=PIECES, optimizer=SGD(lr))
        for end, length, batch in zip(ramp.schedule.ends, ramp.schedule.lengths, ramp.schedule.values, strict=True):
            add("ramp", lr, float(batch) / average, float(end - length) / STEPS)
    decay = optimize_schedule(where, average, steps=STEPS, pieces=PIECES)
    both = optimize_schedule(where, FREE, steps=STEPS, examples=EXAMPLES, pieces=PIECES)
    add("risk, best learning-rate schedule", np.nan, decay.risk)
    add("risk, both", np.nan, both.risk)
    return rows(records)


def plot_ramp(data: Data) -> Picture:
    from ...plotting import COLORS, LINES, new_figure, sequential

    picture, axes = new_figure(2, width=11.0, height=4.6)
    for i, lr in enumerate(np.unique(data["lr"][data["series"] == "ramp"])):
        here = (data["series"] == "ramp") & (data["lr"] == lr)
        edges = np.append(data["begin"][here], 1.0)
        axes[0].stairs(data["value"][here], edges, baseline=None, color=sequential(3)[i], linewidth=1.8,
                       label=f"learning rate {lr:g}")  # fmt: skip
    axes[0].set(yscale="log", xlabel="share of the steps", ylabel="best batch size, relative to the mean")
    axes[0].legend()
    for i, series in enumerate(("risk, constant batch", "risk, best ramp")):
        here = data["series"] == series
        axes[1].plot(data["lr"][here], data["value"][here], LINES[i], color=COLORS[i], label=series[6:])
    for i, series in enumerate(("risk, best learning-rate schedule", "risk, both"), 2):
        level = float(data["value"][data["series"] == series][0])
        axes[1].axhline(level, color=COLORS[i], linestyle=LINES[i], label=f"{series[6:]}: {level:.2g}")
    axes[1].set(xscale="log", yscale="log", xlabel="constant learning rate",
                ylabel=f"risk after {STEPS:,} steps")  # fmt: skip
    axes[1].legend()
    return picture


FIGURES = (
    Figure(
        "nqm-schedules",
        "Which schedule at which batch size",
        compute_schedules,
        plot_schedules,
        "At small batches the shape hardly matters: cosine, linear and warmup-stable-decay need 20 to 40% more steps "
        "than the best schedule, constant rates eight times as many. At large batches noise does not matter, nothing "
        "beats the largest stable rate, and shapes that spend half the run below it need twice the steps. In between, "
        "a stable phase with a short cooldown is within a few percent of the best.",
        "No paper has it. Shapes are taken in 100 pieces and may peak at 2 / h_1 at most; the cooldown of "
        f"warmup-stable-decay is the best of {', '.join(f'{100 * share:g}%' for share in COOLDOWNS)} of the run.",
    ),
    Figure(
        "nqm-ramp",
        "How batch sizes should grow, given examples and steps",
        compute_ramp,
        plot_ramp,
        "Batches should grow, most of all in the last tenth of the run (left). For a learning rate too low to matter "
        "that buys nothing; but it allows a higher one: at its best the ramp leaves a fifth of the risk, about what a "
        "schedule of the learning rate leaves (here even a little less), and both together a quarter less.",
        f"No paper has it. {EXAMPLES:,.0f} examples in {STEPS:,} steps, {PIECES} pieces, at least one example a step.",
    ),
)
