"""What changes where gradient noise grows with the loss, as in linear regression on Gaussian features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._risk import max_stable_lr
from ...optimizers import FREE, SGD
from ...problems.quadratic import NoisyQuadratic
from ...search.tuning import tune
from .. import Data, Figure, rows
from ..zhang2019.constant import TARGET

__all__ = ["FIGURES", "compute_features", "plot_features", "problem", "trace"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

DIM = 10_000
BATCH_SIZES = 2.0 ** np.arange(0, 21)
MOMENTA = (0.0, 0.5, 0.9)
REGRESSION = {"noise_model": "gaussian-features"}
NOISES: dict[str, Any] = {
    "additive": {},
    "regression, label noise 1": {**REGRESSION, "label_noise": 1.0},
    "regression, label noise 0": {**REGRESSION, "label_noise": 0.0},
}


def problem(bins: int | None, noise: dict[str, Any]) -> NoisyQuadratic:
    exact = NoisyQuadratic.power_law(DIM, **noise)
    return exact if bins is None else exact.binned(bins)


def compute_features(bins: int | None = None) -> Data:
    """Stability limits for some momenta; fewest steps of plain SGD and the best learning rate under three noises."""
    records: list[dict[str, Any]] = []

    def add(series: str, values: list[float]) -> None:
        records.extend(
            {"series": series, "batch_size": batch, "value": value}
            for batch, value in zip(BATCH_SIZES.tolist(), values, strict=True)
        )

    for m in MOMENTA:
        limit = np.asarray(max_stable_lr(problem(bins, NOISES["regression, label noise 1"]), SGD(FREE, m), BATCH_SIZES))
        add(f"limit, momentum {m:g}", limit.tolist())
        add(f"small batches, momentum {m:g}", (2.0 * BATCH_SIZES * (1.0 - m) / trace(bins)).tolist())
    for name, noise in NOISES.items():
        best = [tune(problem(bins, noise), SGD(FREE), batch, TARGET) for batch in BATCH_SIZES.tolist()]
        add(f"steps, {name}", [one.steps for one in best])
        add(f"lr, {name}", [one.optimizer.hyperparameters["lr"] for one in best])
    return rows(records)


def trace(bins: int | None) -> float:
    """Tr(H)."""
    where = problem(bins, {})
    return float(np.sum(where.multiplicity * where.curvature))


def plot_features(data: Data) -> Picture:
    from ...plotting import COLORS, LINES, MARKERS, new_figure, powers_of_two

    picture, axes = new_figure(3, width=14.0, height=4.6)

    def curve(series: str) -> tuple[Any, Any]:
        here = data["series"] == series
        return data["batch_size"][here], data["value"][here]

    for i, m in enumerate(MOMENTA):
        axes[0].plot(*curve(f"limit, momentum {m:g}"), color=COLORS[i], marker=MARKERS[i], label=f"momentum {m:g}")
        axes[0].plot(*curve(f"small batches, momentum {m:g}"), ":", color=COLORS[i])
    axes[0].plot([], [], ":", color="grey", label="2 B (1 - m) / Tr(H)")
    axes[0].set(ylabel="largest stable learning rate", ylim=(2.0**-7, 2.0**3))
    for i, name in enumerate(NOISES):
        for ax, what in ((axes[1], "steps"), (axes[2], "lr")):
            wide = {"linewidth": 5.0, "markersize": 8.0, "alpha": 0.5} if name == "additive" else {}
            ax.plot(*curve(f"{what}, {name}"), LINES[i], color=COLORS[i], marker=MARKERS[i], label=name, **wide)
    axes[1].set(ylabel=f"steps to risk {TARGET:g}")
    axes[2].set(ylabel="best learning rate")
    for ax in axes:
        ax.set_xlabel("batch size (examples)")
        powers_of_two(ax)
    axes[0].legend(loc="lower right")
    axes[1].legend()
    return picture


FIGURES = (
    Figure(
        "nqm-features",
        "Noise that grows with the loss: stability, steps, learning rates",
        compute_features,
        plot_features,
        "Noise that the loss makes bounds the learning rate: near 2 B (1 - m) / Tr(H) at small batches (dotted), for "
        "plain SGD a tenth of the usual limit at batch size 1, and hardly at all beyond some hundred examples. At "
        "small batches momentum costs stability instead of adding some. On the way to a target of 0.01 with label "
        "noise 1 it takes 2% more steps than additive noise at most, and the critical batch size stays (916 against "
        "897). Without label noise, where noise dies out with the loss, the critical batch size is 24.",
        "No paper has it. The problem of Zhang et al. (2019), as linear regression on Gaussian features: label noise 1 "
        "is their C = H at the optimum. Learning rates are tuned in the two panels on the right, for plain SGD.",
    ),
)
