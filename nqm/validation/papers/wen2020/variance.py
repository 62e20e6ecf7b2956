"""Figure 2: variance of the gradient under each regime, layer by layer, at a network that is partly trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...._table import Table
from ...experiments.drawing import legend_below
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, means, paired, table_of
from ...experiments.verdict import Verdict, judge_claim, judge_within
from ...training.batches import Batch, BatchDraws
from ...training.data import load_data
from ...training.ensemble import EnsembleRun
from ...training.per_example import moments
from .drawing import LOOKS
from .protocol import COMMON_RATE, LARGE, SMALL, TITLES, regime_of, seeds_of, settings_of
from .training import begun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURE", "SHOWN", "compute", "jobs", "judge", "layers_of", "plot", "variances"]

SHOWN = ("SB", "LB", "LB + full", "LB + diagonal", "LB + trace")
UPDATES, DRAWS = 100, 100
SEEDS = {"mlp": 10, "cnn": 10, "resnet8": 5}
QUICK_DRAWS = 40

EXACT, SAMPLED = "exact", "sampled"
ROUGHLY, MUCH, EQUAL = 1.0, 3.0, 0.25
"""Powers of two: "roughly the same" is within a factor of 2, "much lower" 8 times or more; equal to the sampling error
of the mean over the layers. Chosen before any judged run."""


def jobs(effort: Effort) -> list[dict[str, Any]]:
    if effort.data != "digits":
        return []
    draws = QUICK_DRAWS if effort.quick else DRAWS
    sizes = {"large": LARGE, "small": SMALL, "updates": UPDATES, "draws": draws}
    return [
        settings_of("variance", net, seed, lr=COMMON_RATE[net], **sizes)
        for net, count in ({"mlp": 3, "cnn": 3} if effort.quick else SEEDS).items()
        for seed in seeds_of(effort, count)
    ]


def layers_of(run: EnsembleRun) -> dict[str, torch.Tensor]:
    """Indices of each layer's parameters, weights and biases together."""
    found: dict[str, list[torch.Tensor]] = {}
    first = 0
    for name, value in run.net.like.items():
        found.setdefault(name.rpartition(".")[0], []).append(torch.arange(first, first + value.numel()))
        first += value.numel()
    return {name: torch.cat(parts) for name, parts in found.items()}


def variances(
    data: str, net: str, seed: int, lr: float, large: int, small: int, updates: int, draws: int,
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """Variance of a parameter's gradient, averaged over the parameters of a layer, after so many updates of SB.

    exact, with c the variance of one example's gradient and F_pp its mean square: c / M_S for SB, c / M_L for LB,
    c / M_L + s^2 F_pp for full and for diagonal noise (s^2 = 1 / M_S - 1 / M_L), the same in every single parameter;
    for trace noise c / M_L + s^2 mean(F_pp). That is SB's variance but for s^2 (mean gradient)^2. sampled: over so
    many gradients of each regime.

    Columns regime, layer, parameters, exact, sampled.
    """
    run = begun(load_data(data, data_root, seed=seed), net, "SB", seed, lr, large, small)
    for _ in range(updates):
        run.step()
    mean, squares = moments(run.net, run.theta[0], run.data.x, run.data.y).double()
    c, extra = squares - mean.square(), 1.0 / small - 1.0 / large
    exact = {
        "SB": c / small, "LB": c / large, "LB + full": c / large + extra * squares,
        "LB + diagonal": c / large + extra * squares, "LB + trace": c / large + extra * squares.mean(),
    }  # fmt: skip
    rows = []
    for regime in SHOWN:
        sampled = _sampled(run, regime, seed, large, small, draws)
        for layer, places in layers_of(run).items():
            rows.append({
                "regime": regime, "layer": layer, "parameters": len(places),
                "exact": float(exact[regime][places].mean()), "sampled": float(sampled[places].mean()),
            })  # fmt: skip
    return Table.from_rows(rows, ("regime", "layer", "parameters", "exact", "sampled"))


def _sampled(run: EnsembleRun, regime: str, seed: int, large: int, small: int, draws: int) -> torch.Tensor:
    """Variance (P,) of so many gradients at where the run stands."""
    rule, size = regime_of(regime, large, small)
    batches = BatchDraws(seed + 2**20, len(run.data), size, run.theta.device)  # none that it was trained on
    first = torch.zeros(run.net.size, dtype=torch.float64)
    sums = torch.zeros(2, run.net.size, dtype=torch.float64)
    for number in range(1, draws + 1):
        gradient = rule(run.net, run.theta, Batch.of(number, [batches], run.data, run.theta.dtype), {})[0].double()
        if number == 1:
            first = gradient
        moved = gradient - first  # no digits are lost to a mean that is far from 0
        sums += torch.stack([moved, moved.square()])
    return (sums[1] - sums[0].square() / draws) / (draws - 1)


def compute(results: Sequence[Result]) -> Table:
    """Columns of :mod:`~nqm.validation.experiments.samples`: panel the network, quantity "exact" or "sampled" and the
    layer's name, series the regime, x the layer from 1; quantity "total": of all parameters, sampled."""
    rows = []
    for settings, columns in results:
        net, seed, layers = settings["net"], settings["seed"], columns.distinct("layer")
        for regime in columns.distinct("regime"):
            own = columns.select(regime=regime)
            for kind in (EXACT, SAMPLED):
                rows += [
                    Row(net, f"{kind}, {layer}", regime, 1.0 + layers.index(layer), seed, float(value))
                    for layer, value in zip(own["layer"].tolist(), own[kind].tolist(), strict=True)
                ]
            rows.append(Row(net, "total", regime, 0.0, seed, float(own["sampled"] @ own["parameters"])))
    return table_of(rows)


def _layers(table: Table, net: str) -> list[str]:
    return [name.removeprefix("exact, ") for name in table.select(panel=net).distinct("quantity") if "exact" in name]


def plot(table: Table) -> Picture:
    from ....plotting import new_figure

    nets = table.distinct("panel")
    figure, axes = new_figure(len(nets), width=5.0 * len(nets), height=5.0, squeeze=False)
    for ax, net in zip(axes[0], nets, strict=True):
        layers = _layers(table, net)
        for number, regime in enumerate(SHOWN):
            look, shift = LOOKS[regime], 0.14 * (number - 2)
            exact, sampled = (
                [means(table, panel=net, quantity=f"{kind}, {layer}", series=regime) for layer in layers]
                for kind in (EXACT, SAMPLED)
            )
            x = np.array([one["x"][0] for one in exact]) + shift
            ax.plot(x, [one["value"][0] for one in exact], linestyle="", marker="_", markersize=13, color=look["color"],
                    label=f"{regime}, exact")  # fmt: skip
            ax.errorbar(x, [one["value"][0] for one in sampled], [one["error"][0] for one in sampled],
                        linestyle="", marker=look["marker"], markersize=4.0, color=look["color"],
                        label=f"{regime}, sampled")  # fmt: skip
        ax.set(
            yscale="log",
            title=TITLES[net],
            xlabel="layer, by its name in the module",
            ylabel="gradient variance, mean over the layer",
        )
        ax.set_xticks(range(1, 1 + len(layers)), layers, **({"rotation": 60, "ha": "right"} if len(layers) > 4 else {}))
    legend_below(figure, axes[0, 0], 5)
    return figure


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network."""
    return [verdict for net in table.distinct("panel") for verdict in _judged(table, net)]


def _judged(table: Table, net: str) -> list[Verdict]:
    def logs(kind: str, one: str, other: str) -> dict[int, float]:
        """log2 of the ratio of variances, by seed."""
        first, second = (by_seed(table, panel=net, quantity=kind, series=name) for name in (one, other))
        return dict(zip(first, paired(first, second, lambda a, b: math.log2(a / b)).tolist(), strict=True))

    layers = [f"{SAMPLED}, {layer}" for layer in _layers(table, net)]
    off = [logs(kind, noisy, "SB") for kind in layers for noisy in ("LB + full", "LB + diagonal")]
    worst = [max(abs(one[seed]) for one in off) for seed in off[0]]
    between = [logs(kind, "LB + full", "LB + diagonal") for kind in layers]
    identity = [float(np.mean([one[seed] for one in between])) for seed in between[0]]
    title = TITLES[net]
    return [
        judge_claim(
            f"{title}: LB + diagonal, LB + full and SB have roughly the same gradient variance (section 3)",
            "absolute log2 of the variance over SB's, in the layer and with the noise where it is farthest off",
            worst, bound=ROUGHLY, above=False, paper="roughly the same",
        ),
        judge_within(
            f"{title}: LB + full and LB + diagonal have the same gradient variance (by eq. 5 and 6 in every parameter)",
            "log2 of the ratio of variances, mean over the layers", identity, EQUAL, model="0, an identity",
        ),
        judge_claim(
            f"{title}: LB has a much lower gradient variance than SB (section 3)",
            "log2 of the ratio of total variances",
            list(logs("total", "SB", "LB").values()), bound=MUCH, paper="much lower",
            model=f"{math.log2(LARGE / SMALL):.0f}, by their batch sizes",
        ),
    ]  # fmt: skip


FIGURE = NetworkFigure(
    "wen2020-2",
    jobs,
    compute,
    plot,
    judge,
    "The paper: LB + diagonal, LB + full and SB have about the same gradient variance in every layer, LB a far lower "
    "one (no numbers). That of LB + full and LB + diagonal is the same in every single parameter, c / M_L + s^2 F_pp, "
    "by eq. 5 and 6; SB's, c / M_S, lacks s^2 (mean gradient)^2, since F is not centred. Isotropic noise (trace) has "
    "the same total, another one in each layer.",
    f"digits, M_L = {LARGE}, M_S = {SMALL}, after {UPDATES} updates of SB at the rates of figure 3. Dashes: exact; "
    f"symbols: variance of {DRAWS} gradients (--quick: {QUICK_DRAWS}), one standard error over the seeds. eq. 5 and 6 "
    "need the factor 1/M_S - 1/M_L that we use; eq. 3 and 4 lack 1/(N - 1) and 1/N as printed.",
)
