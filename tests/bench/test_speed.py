"""Speed, as ratios against baselines timed in the same run: python -m pytest tests/bench -m bench -s -n 0

Nothing is asserted about time. Warm-up comes first; cold starts are timed in processes of their own.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

import nqm
from nqm.backends.first_passage import first_states
from nqm.backends.kernels.double_double import fma
from nqm.backends.kernels.words import risk_along_rows
from nqm.dynamics.additive import Additive, rows
from nqm.dynamics.gaussian_features.recursion import Recursions
from nqm.dynamics.words import word_until
from nqm.papers.zhang2019 import constant as zhang2019

from .published_schedule import fewest_steps as fewest_with_schedule
from .published_search import MOMENTA, RATES, fewest_steps

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

FREE = nqm.FREE
EXPLICIT = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 101.0))
EXACT = nqm.NoisyQuadratic.power_law(10_000)


def best_of(call, repeats=5):
    """Least wall time of several runs after one to warm up, in seconds."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def tell(what, seconds, baseline=None, of=""):
    """One line of the table."""
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    ratio = "" if baseline is None else f"  {baseline / seconds:12,.1f} x  {of}"
    print(f"\n{what:62} {seconds * scale:9.2f} {unit:2}{ratio}", end="")


@pytest.mark.parametrize(
    "optimizer",
    [nqm.SGD(0.3), nqm.SGD(0.3, 0.97), nqm.EMA(nqm.SGD(0.3), 0.99), nqm.EMA(nqm.SGD(0.3, 0.97), 0.99)],
    ids=str,
)
def test_one_risk_in_a_batch(optimizer):
    """100 nodes, t = 10^6; baseline: the same doubling in NumPy, plain doubles, all rows at once."""
    rows, steps = 2000, np.full(2000, 10**6)
    seconds = best_of(lambda: Additive(EXPLICIT, optimizer).risk(optimizer.hyperparameters, 16.0, steps)) / rows
    matrix, gain = nqm.optimizers.step(optimizer, optimizer.hyperparameters["lr"] * EXPLICIT.curvature)
    matrix, gain = (np.broadcast_to(a, (200, *a.shape)).copy() for a in (matrix, gain))

    def plain():
        power, grown = matrix, gain[..., :, None] * gain[..., None, :]
        total, state = np.zeros_like(grown), np.ones((*gain.shape, 1))
        left = 10**6
        while left:
            if left & 1:
                state, total = power @ state, grown + power @ total @ power.swapaxes(-1, -2)
            grown = grown + power @ grown @ power.swapaxes(-1, -2)
            power = power @ power
            left >>= 1

    tell(f"one risk, 100 nodes, t = 10^6, {optimizer}", seconds, best_of(plain, 2) / 200, "plain NumPy, uncompensated")


def test_distance_to_the_floor():
    """Instructions of k = 2, a node: 57 a doubling (19 of them), 60 a set bit (7), about 230 to set up.

    The yardstick: independent chains of fused multiply-adds that stay in registers. Additions may run on adders of
    their own beside the multipliers, so up to twice that rate is possible.
    """
    instructions = (19 * 57 + 7 * 60 + 230) * 104  # 100 nodes are padded to 104
    steps = np.full(2000, 10**6)
    optimizer = nqm.SGD(0.3, 0.97)
    seconds = best_of(lambda: Additive(EXPLICIT, optimizer).risk(optimizer.hyperparameters, 16.0, steps)) / 2000
    rate = _peak_flops() / 2
    tell("floor of momentum: its arithmetic at twice the rate of an FMA loop", instructions / (2 * rate))
    print(f"  reached {instructions / seconds / rate:.2f} times that rate, of at most 2", end="")


def _peak_flops():
    """Flops a second of eight independent chains of fused multiply-adds, counted as two flops each."""
    from numba import njit

    @njit
    def loop(a, repeats):
        for _ in range(repeats):
            for n in range(64):
                x, y, z, w = a[n], a[n + 64], a[n + 128], a[n + 192]
                p, q, r, s = a[n + 256], a[n + 320], a[n + 384], a[n + 448]
                for _ in range(32):
                    x, y, z, w = fma(x, 0.9, 0.1), fma(y, 0.9, 0.1), fma(z, 0.9, 0.1), fma(w, 0.9, 0.1)
                    p, q, r, s = fma(p, 0.9, 0.1), fma(q, 0.9, 0.1), fma(r, 0.9, 0.1), fma(s, 0.9, 0.1)
                a[n], a[n + 64], a[n + 128], a[n + 192] = x, y, z, w
                a[n + 256], a[n + 320], a[n + 384], a[n + 448] = p, q, r, s

    block = np.ones(512)
    return 512 * 32 * 2 * 5000 / best_of(lambda: loop(block, 5000))


def test_tuned_cells_of_figure_3a():
    """80 cells, SGD and momentum, 4 powers, 10 batch sizes 2^2 ... 2^20, on the exact spectrum."""
    cells = [
        (nqm.Preconditioned(optimizer, power), 4.0**k)
        for optimizer in (nqm.SGD(FREE), nqm.SGD(FREE, FREE))
        for power in zhang2019.POWERS
        for k in range(1, 11)
    ]
    plain, momentum = (
        best_of(lambda part=part: [nqm.tune(EXACT, o, b, 0.01) for o, b in part], 2)
        for part in (cells[:40], cells[40:])
    )
    tell("40 tuned cells of plain SGD", plain)
    tell("40 tuned cells of momentum", momentum)
    tell("all 80", plain + momentum)


def test_published_search():
    """One momentum cell: the paper's 100 x 20 grid with 24 bisections a point, against tune on the same bins."""
    problem = EXACT.binned(100)
    began = time.process_time()
    steps, _, _ = fewest_steps(problem.curvature, problem.multiplicity, 4096.0, 0.01)
    baseline = time.process_time() - began
    ours = nqm.tune(problem, nqm.SGD(FREE, FREE), 4096, 0.01)
    seconds = best_of(lambda: nqm.tune(problem, nqm.SGD(FREE, FREE), 4096, 0.01))
    tell(f"tune, momentum, batch 4096: {ours.steps} steps", seconds, baseline, f"the published grid: {steps} steps")
    grid = nqm.SGD(np.minimum(RATES[:, None], 1.99 * (1 + MOMENTA)), MOMENTA)
    grid_seconds = best_of(lambda: nqm.risk(problem, grid, 4096, ours.steps))
    tell("risk on the whole 100 x 20 grid at one T", grid_seconds)


def test_steps_to_target():
    """Against stepping through time with the recursion of appendix B, vectorised over nodes."""
    optimizer = nqm.SGD(0.1, 0.9)
    steps = nqm.steps_to_target(EXPLICIT, optimizer, 256, 0.05)
    matrix, gain = nqm.optimizers.step(optimizer, 0.1 * EXPLICIT.curvature)
    noise = gain[:, :, None] * gain[:, None, :] * (0.01 * EXPLICIT.curvature / 256)[:, None, None]

    def scan():
        second = np.zeros((100, 2, 2))
        second[:, 0, 0] = 1.0
        while 0.5 * EXPLICIT.curvature @ second[:, 0, 0] > 0.05:
            second = matrix @ second @ matrix.transpose(0, 2, 1) + noise

    seconds = best_of(lambda: nqm.steps_to_target(EXPLICIT, optimizer, 256, 0.05))
    tell(f"steps_to_target: {steps} steps", seconds, best_of(scan, 2), "step by step in NumPy")
    tell(
        "power_law(10^12), momentum, t = 10^6, one call",
        best_of(lambda: nqm.risk(nqm.NoisyQuadratic.power_law(10**12), optimizer, 256, 10**6)),
    )


def test_cold_starts(tmp_path):
    """Processes of their own: import, first number without and with the compile cache, all figures without it."""
    first = "import nqm; nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(0.1, 0.9), 4, 100)"
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for what, words, environment in (
        ("import nqm", ("-c", "import nqm"), cache),
        ("first risk, nothing cached", ("-c", first), cache),
        ("first risk, compiled before", ("-c", first), cache),
        (
            "nqm figures, nothing cached",
            ("-m", "nqm", "figures", "--out", str(tmp_path / "f")),
            {"NUMBA_CACHE_DIR": str(tmp_path / "other")},
        ),
    ):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env={**_environment(), **environment})
        tell(f"process: {what}", time.perf_counter() - began)


def _environment():
    import os

    return {**os.environ, "MPLBACKEND": "agg"}


@pytest.mark.parametrize(
    "optimizer",
    [nqm.SGD(1.0), nqm.SGD(1.0, 0.9), nqm.EMA(nqm.SGD(1.0), 0.99), nqm.EMA(nqm.SGD(1.0, 0.9), 0.99)],
    ids=str,
)
def test_a_schedule(optimizer):
    """50 pieces of 200 steps, 100 nodes: the kernel, the public call, the gradient; baseline: NumPy, step by step."""
    schedule = nqm.Schedule(np.geomspace(1.9, 0.01, 50), 200)
    values, course = optimizer.hyperparameters, word_until(schedule, None, np.array([schedule.steps]))
    row = rows(EXPLICIT, optimizer, values, 16.0, 1)
    states, out = first_states(row), np.zeros((1, 1))
    inverse = np.full(50, 1 / 16.0)

    def plain():
        state = nqm.optimizers.step(optimizer, EXPLICIT.curvature, 1.0)[0] * 0.0 + np.eye(row.lr_scaled.size)
        for lr in schedule.values:
            matrix, gain = nqm.optimizers.step(optimizer, EXPLICIT.curvature, float(lr))
            fresh = gain[:, :, None] * gain[:, None, :]
            for _ in range(200):
                state = matrix @ state @ matrix.swapaxes(1, 2) + fresh

    def kernel():
        risk_along_rows(tuple(row), tuple(course), states.copy(), out)

    slow = best_of(plain, 1)
    tell(f"50 pieces, {optimizer}: kernel", best_of(lambda: [kernel() for _ in range(50)]) / 50, slow, "step by step")
    follow = optimizer.with_values(lr=schedule)
    public = best_of(lambda: [nqm.risk(EXPLICIT, follow, 16, schedule.steps) for _ in range(50)]) / 50
    tell("    nqm.risk", public, slow, "step by step")
    lengths = schedule.lengths
    both = best_of(
        lambda: Additive(EXPLICIT, optimizer).risk_and_gradient(values, (), schedule.values, inverse, lengths)
    )
    tell("    risk and its gradient", both, slow, "step by step")


def test_distance_to_the_floor_of_a_schedule():
    """Instructions of k = 1, a node and piece of 200 steps (3 bits of 8): 7 doublings of 9, 3 advances of 11, 12."""
    schedule = nqm.Schedule(np.geomspace(1.9, 0.01, 50), 200)
    instructions = 50 * (7 * 9 + 3 * 11 + 12) * 104
    course = word_until(schedule, None, np.array([schedule.steps]))
    row = rows(EXPLICIT, nqm.SGD(1.0), {"lr": 1.0, "momentum": 0.0}, 16.0, 1)
    states, out = first_states(row), np.zeros((1, 1))
    given = tuple(row), tuple(course)
    seconds = best_of(lambda: [risk_along_rows(*given, states.copy(), out) for _ in range(100)]) / 100
    rate = _peak_flops() / 2
    tell("floor of 50 pieces, plain SGD: its arithmetic at twice the rate of FMAs", instructions / (2 * rate))
    print(f"  reached {instructions / seconds / rate:.2f} times that rate, of at most 2", end="")


def test_a_million_steps():
    """A learning rate of its own for each of 10^6 steps, 100 nodes."""
    schedule = nqm.schedules.cosine(1.9, 10**6)
    for optimizer in (nqm.SGD(schedule), nqm.SGD(schedule, 0.9), nqm.EMA(nqm.SGD(schedule), 0.99)):
        seconds = best_of(lambda o=optimizer: nqm.risk(EXPLICIT, o, 16, 10**6), 2)
        tell(f"10^6 steps, {type(optimizer).__name__}, {optimizer.states} states", seconds)


def test_optimised_schedules():
    """50 pieces to the target at 2^4 ... 2^12, power 0, on the 100 bins; baseline: BFGS in NumPy, from the paper."""
    bins = EXACT.binned(100)
    batches = 2.0 ** np.arange(4, 13)
    found = [nqm.optimize_schedule(bins, batch, target=0.01) for batch in batches]
    ours = best_of(lambda: [nqm.optimize_schedule(bins, batch, target=0.01) for batch in batches], 2)
    began = time.perf_counter()
    theirs = [fewest_with_schedule(bins.curvature, bins.multiplicity, batch, 0.01, 50) for batch in batches]
    tell("50-piece schedules to the target, 9 batch sizes", ours, time.perf_counter() - began, "NumPy and BFGS")
    print(f"\n    steps {[best.steps for best in found]}\n    theirs {theirs}", end="")


@pytest.mark.parametrize("optimizer", [nqm.SGD(0.3), nqm.SGD(0.03, 0.9), nqm.EMA(nqm.SGD(0.03, 0.9), 0.99)], ids=str)
def test_noise_that_grows_with_the_loss(optimizer):
    """Linear regression, batch size 16; baseline: the same recursion step by step in NumPy, t = 10^4."""
    regression = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=1.0)
    h, mult = regression.curvature, regression.multiplicity
    matrix, gain = nqm.optimizers.step(optimizer, h, optimizer.hyperparameters["lr"])
    kicks = gain[:, :, None] * gain[:, None, :] / 16.0
    k = gain.shape[1]

    def plain(steps):
        state = np.zeros((h.size, k, k))
        start = optimizer.step_map(optimizer.hyperparameters).start
        state[:] = np.outer(start, start)
        for _ in range(steps):
            own = h * state[:, 0, 0]
            noise = h * (1.0 + np.sum(mult * own) + own)
            state = np.einsum("nij,njk,nlk->nil", matrix, state, matrix, optimize=True) + noise[:, None, None] * kicks
        return state

    baseline = best_of(lambda: plain(1000), repeats=1) * 10
    for steps in (10**4, 10**6):
        seconds = best_of(lambda steps=steps: nqm.risk(regression, optimizer, 16, steps))
        of = "step by step in NumPy, one rule" if steps == 10**4 else ""
        tell(f"regression, t = {steps:.0e}, {optimizer}", seconds, baseline if of else None, of)
    powers = Recursions(regression, optimizer, optimizer.hyperparameters, 16.0, 1).recursion(0)
    power = powers._one_step()
    matrix = power.matrix
    squaring, product = best_of(power.squared), best_of(lambda: matrix @ matrix)
    tell(f"    one squaring, {len(matrix)} x {len(matrix)}", squaring)
    print(f"  floor: its product {product * 1e3:.2f} ms, {2e-9 * len(matrix) ** 3 / product:.0f} GFlop/s", end="")


def test_tuning_on_regression():
    """Cells of linear regression, one after the other; baseline: the same with additive noise."""
    regression = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=1.0)
    for kind in (nqm.SGD(FREE), nqm.SGD(FREE, 0.9), nqm.SGD(FREE, FREE)):
        for batch in (256, 4096):
            additive = best_of(lambda kind=kind, batch=batch: nqm.tune(EXACT, kind, batch, 0.01), repeats=1)
            seconds = best_of(lambda kind=kind, batch=batch: nqm.tune(regression, kind, batch, 0.01), repeats=1)
            tell(f"tune on regression, {kind}, batch {batch}", seconds)
            print(f"  {seconds / additive:.0f} times that of additive noise", end="")
