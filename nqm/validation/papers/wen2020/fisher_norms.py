"""Figure 5a: how large the Fisher matrix and its diagonal are along training; and what Theorem 4.1 asks of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...._table import Table
from ...experiments.drawing import legend_beside
from ...experiments.paper import Effort, NetworkFigure, Result
from ...experiments.samples import Row, by_seed, means, table_of
from ...experiments.train import recorded
from ...experiments.verdict import Verdict, judge_claim
from ...measurement.quantities import FisherNorm, Quantity, TraceHF
from ...training.data import load_data
from .protocol import COMMON_RATE, SMALL, TITLES, seeds_of, settings_of
from .training import begun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["FIGURE", "compute", "jobs", "judge", "norms", "plot"]

AT = (0, 10, 30, 100, 200, 400)
QUICK_AT = (0, 30, 100)
SEEDS = {"mlp": 10, "cnn": 10, "resnet8": 5}
EXAMPLES = {"mlp": 512, "cnn": 256, "resnet8": 256}
VECTORS = 100

NORMS = {"full": "norm of F", "diagonal": "norm of diag F"}
TRACES = {"full": "Tr HF", "diagonal": "Tr H diag F", "trace": "Tr H Tr F / P"}
LARGER = 3.0
"""Times that "much larger" takes. Chosen before any judged run."""


def quantities(examples: int, vectors: int) -> dict[str, Quantity]:
    """Norms of all training examples, traces of so many."""
    norms = {name: FisherNorm(kind) for kind, name in NORMS.items()}
    return {**norms, **{name: TraceHF(kind, vectors, examples=examples) for kind, name in TRACES.items()}}


def jobs(effort: Effort) -> list[dict[str, Any]]:
    if effort.data != "digits":
        return []
    sizes = {"small": SMALL, "vectors": VECTORS, "at": list(QUICK_AT if effort.quick else AT)}
    return [
        settings_of("norms", net, seed, lr=COMMON_RATE[net], examples=EXAMPLES[net], **sizes)
        for net, count in ({"mlp": 3, "cnn": 3} if effort.quick else SEEDS).items()
        for seed in seeds_of(effort, count)
    ]


def norms(
    data: str, net: str, seed: int, lr: float, small: int, examples: int, vectors: int, at: list[int],
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """Along training with small batches: columns step, those of :data:`NORMS` and :data:`TRACES`."""
    given = load_data(data, data_root, seed=seed)
    run = begun(given, net, "SB", seed, lr, small, small)
    return recorded(run, max(at), quantities(min(examples, len(given)), vectors), at)


def compute(results: Sequence[Result]) -> Table:
    """Columns of :mod:`~nqm.validation.experiments.samples`: panel the network, quantity and series one of
    :data:`NORMS` and :data:`TRACES`, x the update."""
    return table_of(
        Row(settings["net"], name, name, float(step), settings["seed"], float(value))
        for settings, columns in results
        for name in (*NORMS.values(), *TRACES.values())
        for step, value in zip(columns["step"], columns[name], strict=True)
    )


def plot(table: Table) -> Picture:
    from ....plotting import logarithmic, new_figure, series

    nets = table.distinct("panel")
    figure, axes = new_figure(len(nets), width=4.7 * len(nets) + 1.8, height=7.8, rows=2, squeeze=False)
    for i, net in enumerate(nets):
        for row, names in enumerate((NORMS, TRACES)):
            ax = axes[row, i]
            for number, name in enumerate(names.values()):
                own = means(table, panel=net, quantity=name)
                ax.errorbar(own["x"], own["value"], own["error"], **series(number), capsize=0, label=name)
            ax.set(xlabel="update", title=TITLES[net])
            logarithmic(ax, "y")
            ax.set_ylabel(("Frobenius norm", "added to the loss, times 2 / rate$^2$")[row])
    for row in range(2):
        legend_beside(axes[row, -1])
    return figure


def judge(table: Table) -> list[Verdict]:
    """Verdicts for each network."""
    return [verdict for net in table.distinct("panel") for verdict in _judged(table, net)]


def _judged(table: Table, net: str) -> list[Verdict]:
    norm = _ratios(table, net, NORMS["full"], NORMS["diagonal"])
    trace = _ratios(table, net, TRACES["full"], TRACES["diagonal"])
    guess = float(np.mean(np.square(geometric(norm))))
    title = TITLES[net]
    return [
        judge_claim(
            f"{title}: the Fisher matrix has a much larger Frobenius norm than its diagonal (section 5.2)",
            "ratio of norms, geometric mean along training", geometric(norm), bound=LARGER, paper="far above",
        ),
        judge_claim(
            f"{title}: full noise raises the loss by much more than diagonal noise of the same variance (Theorem 4.1)",
            "Tr(HF) / Tr(H diag F), geometric mean along training",
            geometric(trace), bound=LARGER, model=f"{guess:.1f}, the ratio of squared norms: if H were F",
        ),
    ]  # fmt: skip


def geometric(ratios: dict[int, list[float]]) -> list[float]:
    """The geometric mean of each seed's."""
    return [float(np.exp(np.mean(np.log(one)))) for one in ratios.values()]


def _ratios(table: Table, net: str, over: str, under: str) -> dict[int, list[float]]:
    """Ratio of two quantities at each reading, by seed; NaN where one is not above 0."""
    found: dict[int, list[float]] = {}
    for x in table.select(panel=net).distinct("x"):
        first, second = (by_seed(table, panel=net, quantity=name, x=x) for name in (over, under))
        for seed, value in first.items():
            good = value > 0.0 and second[seed] > 0.0
            found.setdefault(seed, []).append(value / second[seed] if good else math.nan)
    return found


FIGURE = NetworkFigure(
    "wen2020-5a",
    jobs,
    compute,
    plot,
    judge,
    "The paper: along the training of ResNet44 on CIFAR-10 the Frobenius norm of F lies far above that of its diagonal "
    "(axis from 1 to 1e5). Below, ours: one step of noise n adds rate^2 / 2 Tr(H N) to the loss, N its covariance, "
    "which is what Theorem 4.1 reads as Tr(C^T A C); the norms stand for it only if the Hessian were F.",
    f"digits, along SB (batch {SMALL}) at the rates of figure 3. Norms of all training images, traces of the first "
    f"512 (MLP-32) or 256, of which the diagonal and the isotropic one are means over {VECTORS} drawn vectors. Bars: "
    "one standard error over the seeds (10, 10 and 5).",
)
