"""Mori and Ueda (2021), noise enhancement: the effective batch size of eq. 11, and what it costs.

The problem of Zhang et al. (2019), plain SGD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._risk import risk, steady_state_risk
from ..noise import enhanced
from ..optimizers import FREE, SGD
from ..search.tuning import tune
from . import Data, Figure, rows
from .zhang2019.constant import TARGET, problem

__all__ = ["FIGURES", "RATE", "STEPS", "TUNED_WITH", "compute_11", "plot_11"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

RATE, STEPS = 0.5, 10_000
BATCH_SIZES = 2.0 ** np.arange(4, 15.1, 0.25)
STRENGTHS = 1.0 + np.geomspace(0.05, 10.0, 40)  # up to the paper's largest a, 11
EFFECTIVE = 2.0 ** np.arange(1, 13, 2)
TUNED_AT, TUNED_WITH = 2.0 ** np.arange(2, 19), (1.0, 1.5, 2.0, 5.0, 10.0)


def compute_11(bins: int | None = None) -> Data:
    """Risk against batch size and a, after some steps and at last; lines of equal effective batch size; the cost."""
    where, optimizer, records = problem(bins), SGD(RATE), []

    def add(series: str, batch: float, a: float, **values: float) -> None:
        empty = {"risk": np.nan, "steady": np.nan, "effective": np.nan, "steps": np.nan, "examples": np.nan}
        records.append({"series": series, "batch_size": batch, "a": a, **empty, **values})

    batch, a = np.meshgrid(BATCH_SIZES, STRENGTHS)
    effective = enhanced(batch, a)
    after, last = risk(where, optimizer, effective, STEPS), steady_state_risk(where, optimizer, effective)
    for cells in zip(batch.flat, a.flat, effective.flat, np.asarray(after).flat, np.asarray(last).flat, strict=True):
        add("map", cells[0], cells[1], effective=cells[2], risk=cells[3], steady=cells[4])
    for size in EFFECTIVE.tolist():
        here = float(risk(where, optimizer, size, STEPS)), float(steady_state_risk(where, optimizer, size))
        for strength in STRENGTHS.tolist():
            add("plain", size / enhanced(1.0, strength), strength, effective=size, risk=here[0], steady=here[1])
    for strength in TUNED_WITH:
        for size in TUNED_AT.tolist():
            stand_in = enhanced(size, strength)
            steps = tune(where, SGD(FREE), stand_in, TARGET).steps
            seen = steps * size * (1.0 if strength == 1.0 else 2.0)
            add("tuned", size, strength, effective=stand_in, steps=steps, examples=seen)
    return rows(records)


def plot_11(data: Data) -> Picture:
    from matplotlib.colors import LogNorm

    from ..plotting import MARKERS, new_figure, powers_of_two, sequential

    picture, axes = new_figure(3, width=15.0, height=4.8)
    here = data["series"] == "map"
    shape = np.unique(data["a"][here]).size, -1
    x, y = (data[key][here].reshape(shape) for key in ("batch_size", "a"))
    values: dict[str, Any] = {key: data[key][here].reshape(shape) for key in ("risk", "steady")}
    norm = LogNorm(min(v.min() for v in values.values()), max(v.max() for v in values.values()))
    for ax, key, title in zip(axes, values, (f"after {STEPS:,} steps", "steady state"), strict=False):
        image = ax.pcolormesh(x, y, values[key], norm=norm, cmap="viridis", shading="gouraud", rasterized=True)
        plain = data["series"] == "plain"
        ax.contour(x, y, values[key], levels=np.unique(data[key][plain]), colors="white", linewidths=3.5)
        for size in EFFECTIVE:
            line = plain & (data["effective"] == size)
            ax.plot(data["batch_size"][line], data["a"][line], "--", color="black", linewidth=1.2)
            on_line = next(a for a in (7.6, 4.0, 2.0) if size < x.max() * enhanced(0.7, a))
            ax.text(size / enhanced(1.0, on_line), on_line, f"{size:g}", fontsize=8, ha="center", va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        powers_of_two(ax, "x")
        ax.grid(False)
        ax.set(xlabel="batch size B", ylabel="enhancement a (weights a and 1 - a)", title=title)
        ax.set(xlim=(x.min(), x.max()), ylim=(1.0, y.max()))
    bar = picture.colorbar(image, ax=axes[:2], location="bottom", shrink=0.6, aspect=40)
    bar.ax.set_xlabel(f"risk at learning rate {RATE:g}")
    for a, color, marker in zip(TUNED_WITH, sequential(len(TUNED_WITH)), MARKERS, strict=False):
        tuned = (data["series"] == "tuned") & (data["a"] == a)
        axes[2].plot(data["batch_size"][tuned], data["examples"][tuned], color=color, marker=marker,
                     label=f"a = {a:g}" + (", plain SGD" if a == 1.0 else ""))  # fmt: skip
    powers_of_two(axes[2])
    axes[2].set(xlabel="batch size B", ylabel=f"examples to risk {TARGET:g}", title="learning rate tuned")
    axes[2].legend(fontsize=8, handlelength=1.8)
    return picture


FIGURES = (
    Figure(
        "mori2021-eq11",
        "Effective batch size of noise enhancement, and its cost",
        compute_11,
        plot_11,
        "Noise is enhanced by the weights a and 1 - a of two batches. Risks are equal (white) where B / (a^2 + (1 - "
        "a)^2) is (dashed, with its value), after any number of steps. "
        "On this model noise only costs: 2 (a^2 + (1 - a)^2) times the examples of plain SGD at small batches "
        "(362 times at a = 10), towards twice where batches are so large that noise does not matter.",
        "Eq. 11 is a formula in the paper, tested there on networks for what it does to generalization, of which this "
        "model knows nothing. On it the equivalence needs neither Gaussian noise nor a large data set, but two batches "
        "that are independent: risk depends on second moments alone. The first line of eq. 10 has a misprint: its "
        "second weight is (1 - a)^2. Learning rate 0.5 on the left; a = 1 is counted with one batch a step.",
    ),
)
