"""Spectra of real networks: figures 9, 10 and 12 of zhang2019 (appendix E), with networks and data of one's own.

Each has a half that computes columns and a half that draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...._table import Table
from ...experiments.verdict import decide
from ...measurement.measure import measure
from ...measurement.quadratic import MeasuredQuadratic
from ...training.functional import Loss

__all__ = [
    "Columns",
    "compute_power_law",
    "compute_spectra",
    "compute_variance",
    "judge_spectra",
    "plot_power_law",
    "plot_spectra",
    "plot_variance",
]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Columns = dict[str, NDArray[Any]]
ANCHOR = 10
"""Where 1/i and the spectrum meet: beyond the few largest, which lie off any law."""

LARGEST, SETTLED = 10, 200  # eigenvalues that are compared, and the step from which they should not change
UNCHANGED = CLOSE = 1.5  # times off that still count as unchanged, and as closely matched
CLOSE_EXPONENT = 0.1  # off 1: over two decades of the index that is a factor of 1.6


def compute_spectra(
    model: nn.Module,
    loss: Loss,
    data: Any,
    checkpoints: Mapping[int, nn.Module | Mapping[str, Tensor]],
    *,
    curvature: str = "ekfac",
    **options: Any,
) -> Columns:
    """Spectra at several points of training (zhang2019 figure 9): columns step, index (from 1), curvature.

    checkpoints: what :func:`measure` takes for ``at``, by step. options: ``examples``, ``seed``, ``device``. Raises
    ValueError where there is no checkpoint, and as :func:`measure`.
    """
    if not checkpoints:
        raise ValueError("checkpoints: expected parameters of at least one step, got none")
    spectra = {
        step: measure(model, loss, data, checkpoints[step], curvature=curvature, **options).curvature
        for step in sorted(checkpoints)
    }
    return {
        "step": np.concatenate([np.full(h.size, step) for step, h in spectra.items()]),
        "index": np.concatenate([np.arange(1, h.size + 1) for h in spectra.values()]),
        "curvature": np.concatenate([np.sort(h)[::-1] for h in spectra.values()]),
    }


def plot_spectra(data: Mapping[str, NDArray[Any]]) -> Picture:
    """Curvature against its rank, a line for each step."""
    from matplotlib import colormaps

    from ....plotting import new_figure

    picture, ax = new_figure()
    steps = np.unique(data["step"])
    for step, color in zip(steps.tolist(), colormaps["viridis"](np.linspace(0.0, 0.8, steps.size)), strict=True):
        here = data["step"] == step
        ax.plot(data["index"][here], data["curvature"][here], color=color, label=f"step {step}")
    ax.set(xscale="log", yscale="log", xlabel="index", ylabel="curvature")
    ax.legend(loc="lower left")
    return picture


def compute_variance(measured: MeasuredQuadratic) -> Columns:
    """Is C = H? Columns curvature h_i, variance c_i and second_moment c_i + g_i^2 of single gradients, one row
    per direction (zhang2019 figure 10, whose basis is that of curvature="ekfac")."""
    return {
        "curvature": np.array(measured.curvature),
        "variance": np.array(measured.noise),
        "second_moment": measured.noise + measured.gradient**2,
    }


def plot_variance(data: Mapping[str, NDArray[Any]]) -> Picture:
    """Variance against curvature, and second moment against variance, beside the line of equality."""
    from ....plotting import COLORS, new_figure

    picture, axes = new_figure(2, width=10.5, height=4.8)
    pairs = (("curvature", "variance", "gradient variance"), ("variance", "second_moment", "gradient second moment"))
    for ax, (x, y, name), color in zip(axes, pairs, COLORS, strict=False):
        seen = (data[x] > 0.0) & (data[y] > 0.0)
        ax.plot(data[x][seen], data[y][seen], ".", color=color, markersize=3, alpha=0.5, rasterized=True)
        ends = [data[x][seen].min(), data[x][seen].max()]
        ax.plot(ends, ends, ":", color="black", label="equal")
        ax.set(xscale="log", yscale="log", xlabel="curvature" if x == "curvature" else "gradient variance", ylabel=name)
        ax.legend()
    return picture


def compute_power_law(measured: MeasuredQuadratic, share: float = 0.99) -> Columns:
    """The spectrum beside its fitted power law and 1/i (zhang2019 figure 12): columns index, curvature, fitted (NaN
    beyond the range of the fit) and inverse, which is 1/i through the tenth eigenvalue; exponent and rms of the fit.

    share: see :meth:`MeasuredQuadratic.power_law_fit`, which also says what is raised.
    """
    fit = measured.power_law_fit(share)
    h = np.sort(measured.curvature)[::-1]
    index = np.arange(1, h.size + 1)
    anchor = min(ANCHOR, h.size)
    return {
        "index": index,
        "curvature": h,
        "fitted": np.where(index <= fit.nodes, fit.scale * index**-fit.exponent, np.nan),
        "inverse": h[anchor - 1] * anchor / index,
        "exponent": np.full(h.size, fit.exponent),
        "rms": np.full(h.size, fit.rms),
    }


def plot_power_law(data: Mapping[str, NDArray[Any]]) -> Picture:
    """Curvature against its rank, with both laws."""
    from ....plotting import COLORS, new_figure

    picture, ax = new_figure()
    ax.plot(data["index"], data["curvature"], ".", color=COLORS[0], label="measured")
    ax.plot(data["index"], data["fitted"], color=COLORS[1], label=f"$i^{{-{data['exponent'][0]:.2f}}}$, fitted")
    ax.plot(data["index"], data["inverse"], "--", color=COLORS[2], label="$1/i$, as in the model")
    ax.set(xscale="log", yscale="log", xlabel="index", ylabel="curvature")
    ax.legend(loc="lower left")
    return picture


def judge_spectra(networks: Mapping[str, tuple[Columns, Columns, Columns]]) -> Table:
    """What zhang2019's appendix E says of spectra, judged on one run of each network.

    Columns claim, number, net, value, bound, verdict: "holds" where the value lies below the bound, else "does not
    hold"; "undecided" where there is no value.

    networks: for each the columns of :func:`compute_spectra`, :func:`compute_variance`, :func:`compute_power_law`.
    """
    records = []
    for net, (spectra, variance, law) in networks.items():
        found = (
            ("The spectrum is mostly unchanged after 200 iterations (E.1): its largest eigenvalues",
             f"times by which the geometric mean of the {LARGEST} largest changes from step {SETTLED} to the last",
             _change(spectra, LARGEST), UNCHANGED),
            ("The same (E.1): its bulk", f"times by which the median changes from step {SETTLED} to the last",
             _change(spectra), UNCHANGED),
            ("Variances closely match the curvature (E.2)",
             "median of variance over curvature, or its inverse", _off(variance), CLOSE),
            ("The spectrum very closely matches 1/i (E.4)", "distance of the fitted exponent from 1",
             abs(float(law["exponent"][0]) - 1.0), CLOSE_EXPONENT),
        )  # fmt: skip
        records += [
            {"claim": claim, "number": number, "net": net, "value": value, "bound": bound,
             "verdict": decide(value, value, bound, above=False)}
            for claim, number, value, bound in found
        ]  # fmt: skip
    ordered = sorted(records, key=lambda record: [r["claim"] for r in records].index(record["claim"]))
    return Table.from_rows(ordered, ("claim", "number", "net", "value", "bound", "verdict"))


def _change(spectra: Mapping[str, NDArray[Any]], largest: int | None = None) -> float:
    """Times by which eigenvalues change from step :data:`SETTLED` to the last one: the geometric mean of the largest,
    or the median of all that are positive. NaN without both steps."""
    last, logs = int(spectra["step"].max()), []
    if last == SETTLED or SETTLED not in spectra["step"]:
        return math.nan
    for step in (SETTLED, last):
        here = spectra["curvature"][(spectra["step"] == step) & (spectra["curvature"] > 0.0)]
        falling = np.sort(np.log(here))[::-1]
        logs.append(float(np.median(falling) if largest is None else falling[:largest].mean()))
    return float(np.exp(abs(logs[1] - logs[0])))


def _off(variance: Mapping[str, NDArray[Any]]) -> float:
    seen = (variance["curvature"] > 0.0) & (variance["variance"] > 0.0)
    return float(np.exp(abs(np.median(np.log(variance["variance"][seen] / variance["curvature"][seen])))))
