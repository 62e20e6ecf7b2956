"""Scaling laws from training logs: final losses over model size, batch size and steps; loss curves under schedules.

The logs are made up, by the model plus noise: real ones are not part of this package. notebooks/06_scaling.py draws the
same pictures of them, and of yours.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import scaling, schedules
from ..._risk import risk
from ...optimizers import SGD
from ...problems.quadratic import NoisyQuadratic
from ...problems.quadrature import index_rule
from ...scaling.example import LENGTH, WARMUP
from ...schedules import Schedule
from .. import Data, Figure, rows

__all__ = [
    "FIGURES",
    "compute_curves",
    "compute_isoflop",
    "compute_predicted",
    "plot_curves",
    "plot_isoflop",
    "plot_predicted",
    "power_law",
    "runs_of_curves",
]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

FITTED = 3e16  # FLOP, at most, of the runs that are fitted; the others are predicted
FLOOR, SPREAD = 2.0, 0.0005  # of the curves: loss nobody can learn, standard deviation of log losses about the model's
STEPS, PEAK = 24_000, 1.0
EVERY = 150
POINTS = 61  # of each curve over size or batch size
FAR = 0.02  # a loss farther from the fit than this share is that of the run that went wrong


def compute_predicted() -> Data:
    """Loss of each run of the example log, and as predicted from those of little compute."""
    log = scaling.example_runs()
    compute = 6.0 * log.N * log.B * log.K * LENGTH
    late = compute > FITTED
    sizes = log.N, log.B, log.K
    fit = scaling.fit_runs(*sizes, log.loss, lr_schedule="cosine", warmup=WARMUP, exclude=late)
    baseline = scaling.chinchilla(*sizes, log.loss, exclude=late)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this is far outside the data is the point
        low, high = fit.interval(*sizes)
        predicted, rival = fit.predict(*sizes), baseline.predict(*sizes)
    return {
        "N": log.N, "B": log.B, "K": log.K, "compute": compute, "fitted": ~late, "loss": log.loss,
        "predicted": predicted, "low": low, "high": high, "chinchilla": rival,
    }  # fmt: skip


def plot_predicted(data: Data) -> Picture:
    from ...plotting import COLORS, logarithmic, new_figure

    picture, axes = new_figure(2, width=11.0, height=4.8)
    ends = [0.95 * data["loss"].min(), 1.05 * data["loss"].max()]
    titles = {
        "predicted": "noisy quadratic, on made-up runs of its own",
        "chinchilla": "Chinchilla's form, on the same made-up runs",
    }
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        ax.plot(ends, ends, color="#888888", linewidth=1.0)
        for fitted, label, color, marker in ((True, "fitted", COLORS[0], "o"), (False, "predicted", COLORS[1], "s")):
            here = data["fitted"] == fitted
            error = np.log(data[name][here] / data["loss"][here])
            label = f"{label}: rms log error {np.sqrt(np.mean(error**2)):.3f}"
            if name == "predicted":
                spread = np.abs(np.stack([data["low"], data["high"]])[:, here] - data[name][here])
                ax.errorbar(data["loss"][here], data[name][here], spread, fmt="none", ecolor="#888888", linewidth=1.0)
            ax.plot(data["loss"][here], data[name][here], marker, color=color, label=label, markersize=3, zorder=3)
        logarithmic(ax)
        ax.set_aspect("equal")
        ax.set(xlabel="actual loss", ylabel="predicted loss", title=title)
        ax.legend(loc="upper left")
    far = np.abs(data["predicted"] / data["loss"] - 1.0) > FAR
    for where in zip(data["loss"][far], data["predicted"][far], strict=True):
        axes[0].annotate("went wrong,\non purpose", where, (6, -4), textcoords="offset points", fontsize=9, va="top")
    return picture


def compute_isoflop() -> Data:
    """Loss against size at fixed compute, and against batch size at fixed examples: the log and a fit of all of it."""
    log = scaling.example_runs()
    assert log.type is not None
    fit = scaling.fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=WARMUP)
    records: list[dict[str, Any]] = []

    def add(kind: str, family: float, N: Any, B: Any, K: Any, loss: Any, low: Any, high: Any) -> None:
        columns = np.broadcast_arrays(N, B, K, loss, low, high)
        names = ("N", "B", "K", "loss", "low", "high")
        records.extend(
            {"kind": kind, "family": family, **dict(zip(names, map(float, row), strict=True))}
            for row in zip(*columns, strict=True)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for kind, key in (("isoflop", 6.0 * log.N * log.B * log.K * LENGTH), ("isotoken", log.N)):
            of_kind = log.type == kind
            families = np.round(np.log(key), 1)  # whole steps make computes differ a little
            for each in np.unique(families[of_kind]):
                here = of_kind & (families == each)
                family = float(np.median(key[here]))
                N, B, K = log.N[here], log.B[here], log.K[here]
                add(f"{kind}, runs", family, N, B, K, log.loss[here], np.nan, np.nan)
                if kind == "isoflop":
                    n = np.geomspace(0.7 * N.min(), 1.4 * N.max(), POINTS)
                    b: Any = B[0]
                    k = (N * K)[0] / n
                else:
                    b = np.geomspace(0.7 * B.min(), 1.4 * B.max(), POINTS)
                    n, k = N[0], (B * K)[0] / b
                add(f"{kind}, fit", family, n, b, k, fit.predict(n, b, k), *fit.interval(n, b, k))
    return rows(records)


def plot_isoflop(data: Data) -> Picture:
    from ...plotting import MARKERS, logarithmic, new_figure, sequential

    picture, axes = new_figure(2, width=11.0, height=4.8)
    for ax, kind, x in ((axes[0], "isoflop", "N"), (axes[1], "isotoken", "B")):
        families = np.unique(data["family"][np.char.startswith(data["kind"], kind)])
        for i, (family, color) in enumerate(zip(families, sequential(families.size), strict=True)):
            fit = (data["kind"] == f"{kind}, fit") & (data["family"] == family)
            run = (data["kind"] == f"{kind}, runs") & (data["family"] == family)
            ax.fill_between(data[x][fit], data["low"][fit], data["high"][fit], color=color, alpha=0.15, linewidth=0)
            marker = MARKERS[i % len(MARKERS)]
            name = f"{family / 1e6:.0f}M" if kind == "isotoken" else f"{family:.2g}"
            ax.plot(data[x][fit], data["loss"][fit], color=color)
            ax.plot(data[x][run], data["loss"][run], marker, color=color)
            ax.plot([], [], "-", color=color, marker=marker, label=name)
            far = np.abs(np.interp(data[x][run], data[x][fit], data["loss"][fit]) / data["loss"][run] - 1.0) > FAR
            for where in zip(data[x][run][far], data["loss"][run][far], strict=True):
                ax.annotate("went wrong, on purpose", where, (-6, 0), textcoords="offset points", fontsize=9,
                            ha="right", va="center")  # fmt: skip
        logarithmic(ax, "y")
        ax.set_xscale("log")
        ax.legend(title="compute (FLOP)" if kind == "isoflop" else "parameters")
    axes[0].set(xlabel="parameters", ylabel="loss", title="the same compute")
    axes[1].set(xlabel="batch size (examples)", ylabel="loss", title="the same number of examples")
    return picture


def runs_of_curves() -> dict[str, tuple[Schedule, bool]]:
    """Schedules of the training curves, and whether the fit sees them."""
    rise = 1000
    shapes = {
        "cosine": (schedules.cosine(PEAK, STEPS - rise, end=0.1), True),
        "constant": (schedules.constant(PEAK, STEPS - rise), True),
        "drop to 0.3": (schedules.multistep(PEAK, STEPS - rise, [STEPS // 3], 0.3), True),
        "warmup-stable-decay": (schedules.wsd(PEAK, STEPS - rise, decay=0.2), False),
        "drop to 0.1": (schedules.multistep(PEAK, STEPS - rise, [STEPS // 3], 0.1), False),
        "constant, three times as long": (schedules.constant(PEAK, 3 * STEPS - rise), False),
    }
    return {name: (schedules.warmup(shape, rise), seen) for name, (shape, seen) in shapes.items()}


def power_law() -> NoisyQuadratic:
    """Curvatures 0.2 / n, a start of 10 n^-1.5 as loss, noise 8 n^-1.3, for n = 1 ... 10^6."""
    n, weight = index_rule(10**6, 8, 1)
    return NoisyQuadratic(0.2 / n, 8.0 * n**-1.3, 20.0 * n**-1.5 / (0.2 / n), weight)


def compute_curves(bins: int | None = None) -> Data:
    """Loss curves of SGD on a power law, and the fit to three of them under all six schedules."""
    where = power_law() if bins is None else power_law().binned(bins)
    random, curves = np.random.default_rng(0), {}
    for name, (schedule, _) in runs_of_curves().items():
        steps = np.arange(1200, schedule.steps + 1, EVERY)
        loss = FLOOR + risk(where, SGD(schedule), 64, steps)
        curves[name] = scaling.LossCurve(steps, loss * np.exp(SPREAD * random.standard_normal(steps.size)), schedule)
    fit = scaling.fit_curves({name: curve for name, curve in curves.items() if runs_of_curves()[name][1]})
    parts = []
    for name, curve in curves.items():
        schedule, seen = runs_of_curves()[name]
        low, high = fit.interval(schedule, curve.steps)
        size = curve.steps.size
        parts.append({
            "schedule": np.full(size, name), "fitted": np.full(size, seen), "step": curve.steps,
            "lr": schedule(curve.steps - 1), "loss": curve.loss, "predicted": fit.predict(schedule, curve.steps),
            "low": low, "high": high,
        })  # fmt: skip
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def plot_curves(data: Data) -> Picture:
    from ...plotting import COLORS, logarithmic, new_figure

    names = list(dict.fromkeys(data["schedule"].tolist()))
    picture, axes = new_figure(len(names) // 2, width=13.0, height=7.4, rows=2, sharey=True)
    for ax, name in zip(axes.ravel(), names, strict=True):
        here = data["schedule"] == name
        fitted = bool(data["fitted"][here][0])
        step, loss, predicted = data["step"][here] / 1000.0, data["loss"][here], data["predicted"][here]
        ax.plot(step, loss, ".", color="black", markersize=2, label="actual", zorder=3)
        ax.fill_between(step, data["low"][here], data["high"][here], color=COLORS[1], alpha=0.2, linewidth=0)
        label, color = ("fit", COLORS[0]) if fitted else ("prediction", COLORS[1])
        ax.plot(step, predicted, color=color, label=label, linewidth=4.0, alpha=0.6)
        error = np.abs(predicted - loss).mean()
        ax.set_title(f"{name}\n{'fitted' if fitted else 'unseen'}: mean error {error:.4f}", fontsize=10)
        logarithmic(ax, "y")
        ax.set(xlabel="thousand steps", ylabel="loss")
    for ax in axes[:, 0]:
        ax.legend()
    picture.suptitle("Made-up curves: SGD on a power law")
    return picture


FIGURES = (
    Figure(
        "nqm-runs",
        "Final losses, predicted from runs of little compute",
        compute_predicted,
        plot_predicted,
        "Both laws are fitted to the runs below 3e16 FLOP (circles) and predict the rest (squares), up to ten times "
        "the compute. Chinchilla's form knows the number of examples and no batch size: at the same number it predicts "
        "one loss. The run far off the line is one that went wrong, on purpose.",
        "No paper has it: the log is the example that ships, made by the model itself plus 0.5% noise. On the real "
        "runs of Li & Maddison (2026), where the model is not the truth, see notebooks/06_scaling.py.",
        has_spectrum=False,
    ),
    Figure(
        "nqm-isoflop",
        "Which model size at a fixed compute, which batch size at fixed data",
        compute_isoflop,
        plot_isoflop,
        "Left: at each compute one size is best, and it grows with the compute. Right: up to the critical batch size "
        "larger batches cost little at the same number of examples; beyond it steps run out. Bands: 90% of new runs.",
        "No paper has it: the log is the example that ships. Li & Maddison (2026) draw such curves of their runs.",
        has_spectrum=False,
    ),
    Figure(
        "nqm-curves",
        "Loss curves under schedules that the fit has not seen",
        compute_curves,
        plot_curves,
        "From three loss curves (top), the fit knows what the learning rate does to the loss: it predicts another "
        "decay, a deeper drop, and a run of three times the length. Bands: 90% of observations.",
        "No paper has it: the curves are those of SGD on a power law, plus 0.05% noise. On the real curves of Luo et "
        "al. (2025), beside their multi-power law, see notebooks/06_scaling.py.",
    ),
)
