"""Wen et al. (2020), structured covariance noise: figures 1 and 4, and table 1 made exact.

theta' = theta - lr A theta + lr C xi (eq. 2) on quadratics, with C = A^1/2 ("full", the Fisher matrix is A here) and
C = diag(A)^1/2 ("diagonal"), which have the same Tr(C^T C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import expm

from .. import bounds, noise, schedules
from .._checks import FloatArray
from .._risk import risk
from ..optimizers import FREE, SGD
from ..problems.quadratic import NoisyQuadratic
from ..search.first_passage import steps_to_target
from ..search.tuning import tune
from . import Data, Figure, rows

__all__ = [
    "EXAMPLES",
    "FAMILIES",
    "FIGURES",
    "HESSIAN",
    "POINT",
    "RATE_1",
    "RATE_4",
    "SHARES",
    "SMALL",
    "START",
    "bound_steps",
    "compute_1",
    "compute_4",
    "compute_table1",
    "contours",
    "draw_contours",
    "example_gradients",
    "loss",
    "matrices",
    "noises",
    "plot_1",
    "plot_4",
    "plot_table1",
    "regression",
    "roots",
    "theorem",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

SEED = 0

# figure 1
EXAMPLES, SMALL, UPDATES, RATE_1, ISOTROPIC = 200, 5, 300, 0.3, 0.1
POINT = np.array([1.2, 0.4])  # from the least-squares solution
PANELS = ("SGD", "isotropic", "full Fisher", "diagonal Fisher")

# figure 4
HESSIAN = np.array([[2.0, 1.8], [1.8, 2.0]])
START, RATE_4, STEPS_4 = np.array([4.0, 1.0]), 0.1, np.arange(0, 501, 10)

# table 1
DIM, CONDITION = 10, 100.0
SHARES = (0.1, 0.01, 0.001)  # targets, as shares of the risk at the start
CORRELATIONS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
ANGLES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.2, 1.57)
LENGTH = 2**18
FAMILIES = ("equicorrelated", "rotated")
WAYS = {"decaying": "theorem's rates", "constant": "best constant rate", "bound": "theorem's bound"}


def contours(hessian: FloatArray, levels: FloatArray) -> list[dict[str, Any]]:
    """Closed curves on which 1/2 theta^T A theta takes each level."""
    h, v = np.linalg.eigh(hessian)
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    circle = np.array([np.cos(angle), np.sin(angle)])
    curves = [(float(level), v @ (np.sqrt(2.0 * level / h)[:, None] * circle)) for level in levels]
    return [
        {"series": "contour", "step": 0, "x": x, "y": y, "loss": level, "risk": np.nan}
        for level, curve in curves
        for x, y in curve.T
    ]


def loss(hessian: FloatArray, theta: FloatArray) -> FloatArray:
    """1/2 theta^T A theta of each row."""
    return 0.5 * np.sum(theta @ hessian * theta, axis=-1)


def draw_contours(ax: Axes, data: Data) -> None:
    """The contours in the data, and axes of equal scale."""
    for level in np.unique(data["loss"][data["series"] == "contour"]):
        here = (data["series"] == "contour") & (data["loss"] == level)
        ax.plot(data["x"][here], data["y"][here], color="#b0b0b0", linewidth=0.8, zorder=1)
    ax.set_aspect("equal")
    ax.grid(False)
    ax.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")


# --- figure 1 -----------------------------------------------------------------------------------------------------


def regression() -> tuple[FloatArray, FloatArray]:
    """Features (EXAMPLES, 2), correlated, and the residuals of the labels at the least-squares solution."""
    generator = np.random.default_rng(SEED)
    features = generator.normal(size=(EXAMPLES, 2)) @ np.linalg.cholesky(np.array([[1.0, 0.8], [0.8, 1.0]])).T
    labels = 0.5 * generator.normal(size=EXAMPLES)
    return features, labels - features @ np.linalg.lstsq(features, labels)[0]


def example_gradients() -> FloatArray:
    """Each example's gradient at POINT, (EXAMPLES, 2)."""
    features, residuals = regression()
    return features * (features @ POINT - residuals)[:, None]


def compute_1() -> Data:
    """Updates from one point in four ways."""
    features, _ = regression()
    hessian, gradients = features.T @ features / EXAMPLES, example_gradients()
    fisher = gradients.T @ gradients / EXAMPLES
    generator = np.random.default_rng(SEED + 1)
    batches = np.array([generator.permutation(EXAMPLES)[:SMALL] for _ in range(UPDATES)])
    xi = generator.normal(size=(UPDATES, 2))
    mean = gradients.mean(axis=0)
    noisy = {
        "SGD": gradients[batches].mean(axis=1),
        "isotropic": mean - ISOTROPIC * xi,
        "full Fisher": mean - xi @ noise.injected(fisher, EXAMPLES, SMALL, "full"),
        "diagonal Fisher": mean - xi @ noise.injected(fisher, EXAMPLES, SMALL, "diagonal"),
    }
    levels = loss(hessian, POINT) * np.array([0.04, 0.16, 0.36, 0.64, 1.0, 1.44, 1.96])
    records = contours(hessian, levels)
    for name in PANELS:
        after = POINT - RATE_1 * noisy[name]
        for series, step, points in (("start", 0, POINT[None]), (name, 1, after)):
            records += [
                {"series": series, "step": step, "x": x, "y": y, "loss": value, "risk": np.nan}
                for (x, y), value in zip(points, loss(hessian, points), strict=True)
            ]
    return {key: column for key, column in rows(records).items() if key != "risk"}


def plot_1(data: Data) -> Picture:
    from ..plotting import COLORS, new_figure

    picture, axes = new_figure(2, width=8.4, height=7.7, rows=2, sharex=True, sharey=True)
    start = data["series"] == "start"
    for ax, name in zip(axes.flat, PANELS, strict=True):
        draw_contours(ax, data)
        here = data["series"] == name
        ax.plot(data["x"][here], data["y"][here], ".", color=COLORS[1], markersize=3, alpha=0.6, zorder=2)
        ax.plot(data["x"][start][:1], data["y"][start][:1], "o", color=COLORS[0], markersize=8, zorder=3,
                label="before the step")  # fmt: skip
        ax.set(title=f"{name}: mean loss {data['loss'][here].mean():.3f}", xlim=(-1.4, 2.4), ylim=(-1.6, 1.6))
    axes[0, 1].plot([], [], ".", color=COLORS[1], label=f"after one step, {UPDATES} times")
    axes[0, 1].legend(loc="lower left")
    return picture


# --- figure 4 -----------------------------------------------------------------------------------------------------


def roots(hessian: FloatArray) -> dict[str, FloatArray]:
    """A^1/2 and diag(A)^1/2: batch sizes 1 and 1/2 make the factor in front of both 1."""
    return {
        "full": noise.injected(hessian, 1.0, 0.5, "full"),
        "diagonal": noise.injected(hessian, 1.0, 0.5, "diagonal"),
    }


def compute_4() -> Data:
    """One trajectory for each C, driven by the same random numbers, and the exact expectation of its loss."""
    xi = np.random.default_rng(SEED).normal(size=(STEPS_4[-1], 2))
    records = contours(HESSIAN, loss(HESSIAN, START) * np.array([0.01, 0.06, 0.2, 0.5, 1.0]))
    for name, root in roots(HESSIAN).items():
        path = [START]
        for kick in xi:
            path.append(path[-1] - RATE_4 * (HESSIAN @ path[-1]) + RATE_4 * (root @ kick))
        shown = np.array(path)[STEPS_4]
        problem = NoisyQuadratic.from_matrices(HESSIAN, root @ root.T, START)
        expected = np.asarray(risk(problem, SGD(RATE_4), 1, STEPS_4))
        columns = zip(STEPS_4, shown, loss(HESSIAN, shown), expected, strict=True)
        records += [
            {"series": name, "step": step, "x": x, "y": y, "loss": value, "risk": mean}
            for step, (x, y), value, mean in columns
        ]
    return rows(records)


def plot_4(data: Data) -> Picture:
    from ..plotting import COLORS, LINES, MARKERS, new_figure

    picture, axes = new_figure(3, width=14.0, height=4.8)
    for i, name in enumerate(("full", "diagonal")):
        here = data["series"] == name
        step, x, y = data["step"][here], data["x"][here], data["y"][here]
        draw_contours(axes[i], data)
        axes[i].plot(x, y, color=COLORS[1], linewidth=0.9, marker=".", markersize=3)
        axes[i].plot(x[:1], y[:1], "o", color=COLORS[0], markersize=9, label="start")
        axes[i].plot(x[-1:], y[-1:], "s", color=COLORS[2], markersize=9, label="end")
        axes[i].set(title=f"{name} Fisher", xlim=(-4.0, 5.0), ylim=(-3.8, 3.8))
        axes[2].plot(step, data["loss"][here], MARKERS[i], color=COLORS[i], markersize=3, fillstyle=("full", "none")[i],
                     label=f"{name}, one trajectory")  # fmt: skip
        axes[2].plot(step, data["risk"][here], LINES[i], color=COLORS[i], label=f"{name}, expected")
    axes[0].legend(loc="lower left")
    axes[2].set(yscale="log", xlabel="step", ylabel="loss", ylim=(5e-4, 1e2))
    axes[2].legend(ncols=2)
    return picture


# --- table 1 ------------------------------------------------------------------------------------------------------


def matrices(family: str) -> list[FloatArray]:
    """Matrices of equal trace, from diagonal to far from it.

    equicorrelated: (1 - r) I + r 1 1^T, condition number (1 + (d - 1) r) / (1 - r). rotated: eigenvalues from 1 down to
    1 / CONDITION, turned by exp(angle S) with a random antisymmetric S.
    """
    if family == "equicorrelated":
        return [(1.0 - r) * np.eye(DIM) + r for r in CORRELATIONS]
    square = np.random.default_rng(SEED).normal(size=(DIM, DIM))
    turn = (square - square.T) / np.linalg.norm(square - square.T, 2)
    h = np.geomspace(1.0, 1.0 / CONDITION, DIM)
    return [(q * h) @ q.T for q in (expm(angle * turn) for angle in ANGLES)]


def noises(hessian: FloatArray) -> tuple[float, dict[str, FloatArray]]:
    """||A||^2 / ||diag A||^2, and the roots C: both of the paper, and the diagonal one scaled to the full one's
    Tr(C^T A C)."""
    found = roots(hessian)
    ratio = noise.excess(hessian, found["full"]) / noise.excess(hessian, found["diagonal"])
    return ratio, {**found, "diagonal, scaled": np.sqrt(ratio) * found["diagonal"]}


def bound_steps(problem: NoisyQuadratic, target: float) -> float:
    """Steps after which Theorem 4.1's bound nu / (k + gamma) is at the target."""
    gamma = 2.0 * problem.condition_number
    return float(bounds.decaying_sgd(problem, 1, 0)) * gamma / target - gamma


def theorem(problem: NoisyQuadratic, steps: int) -> SGD:
    """SGD under the learning rates of Theorem 4.1, with the least gamma it allows.

    In the long run the risk is Tr(S f(A)) / k, f(h) = 2 h / (l (4 h - l)) = (1 + l / (4 h - l)) / (2 l) with l = h_min.
    Full noise, S = A, never leaves more than S = diag A: with X = A - diag A the difference is Tr(X M^-1) / 2 at s = 1,
    M = 4 diag A + 4 s X - l, which is 0 at s = 0 and has the derivative -2 Tr(X M^-1 X M^-1) <= 0. The steady state at
    a constant rate has f(h) = lr / (2 (2 - lr h)); by the same argument full noise never leaves less of that.
    """
    return SGD(schedules.decaying(float(problem.curvature.min()), steps, 2.0 * problem.condition_number))


def compute_table1() -> Data:
    """Steps to each target for each matrix and C: exact under decaying rates, exact at the best constant one, bound."""
    records: list[dict[str, Any]] = []
    for family in FAMILIES:
        for number, hessian in enumerate(matrices(family)):
            mass, choices = noises(hessian)
            problems = {
                name: NoisyQuadratic.from_matrices(hessian, root @ root.T, np.eye(DIM))
                for name, root in choices.items()
            }
            base = {"family": family, "matrix": number, "mass": mass}
            for share in SHARES:
                target = share * problems["full"].initial_risk
                for way in WAYS:
                    found = {name: _steps(problem, target, way) for name, problem in problems.items()}
                    records += [
                        {
                            **base,
                            "condition": problems[name].condition_number,
                            "noise": name,
                            "excess": noise.excess(hessian, choices[name]),
                            "variance": float(np.sum(choices[name] ** 2)),
                            "series": way,
                            "share": share,
                            "steps": steps,
                            "ratio": steps / found["diagonal"],
                            "risk": target,
                        }
                        for name, steps in found.items()
                    ]
    times = np.unique(np.geomspace(1, LENGTH, 80).astype(int))
    last = {"family": FAMILIES[0], "matrix": len(CORRELATIONS) - 1, "mass": np.nan, "share": np.nan, "ratio": np.nan}
    hessian = matrices(FAMILIES[0])[-1]
    for name, root in noises(hessian)[1].items():
        problem = NoisyQuadratic.from_matrices(hessian, root @ root.T, np.eye(DIM))
        excess, variance = noise.excess(hessian, root), float(np.sum(root**2))
        curves = {
            "exact risk": np.asarray(risk(problem, theorem(problem, LENGTH), 1, times)),
            "bound on it": np.asarray(bounds.decaying_sgd(problem, 1, times)),
        }
        records += [
            {**last, "condition": problem.condition_number, "noise": name, "excess": excess, "variance": variance,
             "series": series, "steps": float(step), "risk": value}
            for series, curve in curves.items()
            for step, value in zip(times, curve, strict=True)
        ]  # fmt: skip
    return rows(records)


def _steps(problem: NoisyQuadratic, target: float, way: str) -> float:
    if way == "bound":
        return bound_steps(problem, target)
    if way == "constant":
        return tune(problem, SGD(FREE), 1, target).steps
    return float(steps_to_target(problem, theorem(problem, LENGTH), 1, target))


def plot_table1(data: Data) -> Picture:
    from ..plotting import COLORS, LINES, MARKERS, new_figure, sequential

    picture, axes = new_figure(3, width=15.0, height=8.4, rows=2)

    def select(**conditions: Any) -> FloatArray:
        return np.all([data[key] == value for key, value in conditions.items()], axis=0)

    for i, family in enumerate(FAMILIES):
        mass = data["mass"][select(family=family, series="bound", noise="full", share=SHARES[0])]
        for ax in axes[:, i]:
            ax.plot(mass, mass, color="#c8c8c8", linewidth=6.0, label="table 1: abscissa = ordinate")
            ax.set(title=family, xlabel=r"$\|A\|^2 / \|\mathrm{diag}\,A\|^2$")
            ax.set_ylabel("steps with full noise / with diagonal")
        for way, row, line in (("decaying", 0, "-"), ("constant", 0, "--"), ("bound", 1, "-.")):
            for j, share in enumerate(SHARES):
                here = select(family=family, series=way, noise="full", share=share)
                axes[row, i].plot(data["mass"][here], data["ratio"][here], line, color=sequential(3)[j],
                                  marker=MARKERS[j], markersize=9 - 2 * j, fillstyle="none", linewidth=1.4,
                                  label=f"{WAYS[way]}, {share:g}")  # fmt: skip
        here = select(family=family, series="decaying", noise="diagonal, scaled", share=SHARES[-1])
        axes[1, i].plot(data["mass"][here], data["ratio"][here], ":", color=COLORS[1], marker="D", markersize=12,
                        fillstyle="none", label=f"theorem's rates, {SHARES[-1]:g}, diagonal with full's "
                        r"Tr$(C^TAC)$")  # fmt: skip
    for ax in axes[:, 0]:
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter("{x:g}")
    for i, name in enumerate(("full", "diagonal", "diagonal, scaled")):
        for j, kind in enumerate(("exact risk", "bound on it")):
            here = select(series=kind, noise=name)
            axes[0, 2].plot(data["steps"][here], data["risk"][here], LINES[j], color=COLORS[i],
                            linewidth=4.0 if name == "full" else 1.8, alpha=0.5 if name == "full" else 1.0,
                            label=f"{name}, {kind}")  # fmt: skip
    axes[0, 2].set(xscale="log", yscale="log", xlabel="step", ylabel="risk under the theorem's rates",
                   title=f"equicorrelated, r = {CORRELATIONS[-1]:g}")  # fmt: skip
    axes[0, 2].legend(fontsize=8)
    axes[1, 2].remove()
    for row, where in enumerate(("top", "bottom")):
        picture.legend(*axes[row, 0].get_legend_handles_labels(), fontsize=9, loc="lower right",
                       bbox_to_anchor=(0.99, 0.26 - 0.24 * row),
                       title=f"{where}: steps to this share of the risk at the start")  # fmt: skip
    return picture


FIGURES = (
    Figure(
        "wen2020-1",
        "One-step updates under four kinds of noise",
        compute_1,
        plot_1,
        "SGD and full Fisher noise scatter along the gradient, diagonal noise nearly all round, isotropic noise of "
        "0.1 hardly. After one step diagonal noise is ahead of full noise, by lr^2 / 2 times the difference in Tr(C^T "
        "A C): 0.387 against 0.478 expected (SGD 0.414; the titles have means of the points). The Fisher matrix has "
        "1.4 times the variance of SGD, for it holds the square of the mean gradient too. Its direction is the "
        "gradient's to 1 degree here, but not everywhere: along a contour they come to be 88 degrees apart.",
        f"The paper gives no settings. Here: {EXAMPLES} examples, features of correlation 0.8, label noise 0.5, "
        f"{UPDATES} updates with batches of {SMALL} drawn without replacement, learning rate {RATE_1:g}; C for a large "
        f"batch of all examples; isotropic noise is C = {ISOTROPIC:g} I in eq. 2.",
        has_spectrum=False,
    ),
    Figure(
        "wen2020-4",
        "Full against diagonal noise: trajectories, and what they average to",
        compute_4,
        plot_4,
        "Diagonal noise spreads further along the valley and less across it. One trajectory does not tell which is "
        "better: its loss scatters by more than its mean. The expectations do: both come down alike, and diagonal "
        "noise ends 8% lower (0.112 against 0.122), at a learning rate of 0.38 / h_1.",
        "The paper names learning rate, number of steps and spacing, not the quadratic: here A = (2, 1.8; 1.8, 2), "
        "start (4, 1), the same random numbers for both. The right panel is ours.",
        has_spectrum=False,
    ),
    Figure(
        "wen2020-table1",
        "Does off-diagonal noise cost steps?",
        compute_table1,
        plot_table1,
        "Where the theorem's bound takes table 1's factor more steps with full noise, the exact risk under the same "
        "rates takes up to 17% fewer to a hundredth of its start, 20% to a thousandth: in the long run it is sum 2 "
        "h_i c_i / (h_min (4 h_i - h_min)) / k, whose weights on c_i lie between 1/2 and 2/3 of 1 / h_min, so that "
        "Tr(C^T C) decides, equal for both. Diagonal noise with full noise's Tr(C^T A C) takes 8.4 times the steps (r"
        " = 0.9). At the best constant rate full noise does take more steps, 44% to a tenth (r = 0.75; 12 steps "
        "against 1 at r = 0.9), 8% to a hundredth, 1% to a thousandth. Tr(C^T A C) counts for much only where a few "
        "steps at large rates suffice (r = 0.9, a tenth: 52 steps against 2).",
        "The paper's table is two formulas, read off its bound; here the steps are exact. Ours: "
        f"d = {DIM}, E[theta_0 theta_0^T] = I, matrices (1 - r) I + r 1 1^T and randomly rotated ones of eigenvalues "
        "1 to 0.01, and the targets.",
        has_spectrum=False,
    ),
)
