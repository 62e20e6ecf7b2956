"""Many rows: threads, the arithmetic floor, and a GPU: python -m pytest tests/bench/test_large.py -m bench -s -n 0

The GPU's part needs CuPy and a device, and says so where there is none.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import nqm
from nqm import EMA, FREE, SGD, Schedule
from nqm.backends import selection

from .test_speed import EXACT, EXPLICIT, _peak_flops, best_of, tell

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

CORES = selection.threads()
LR, BATCH = np.geomspace(1e-3, 1.0, 1000)[:, None], np.geomspace(1.0, 2.0**20, 1000)
OPTIMIZERS = {1: SGD(LR), 2: SGD(LR, 0.97), 3: EMA(SGD(LR, 0.97), 0.99)}
STEPS = 1000

# Operations a node, counted in the kernels, a fused multiply-add as one: set up, a doubling, a bit of the steps, read.
COUNTED = {1: (22, 10, 10, 12), 2: (230, 57, 60, 14), 3: (300, 393, 195, 14)}


def on(threads, call):
    with nqm.use_backend("numba", threads=threads):
        began = time.perf_counter()
        call()
        return time.perf_counter() - began


@pytest.mark.parametrize("states", OPTIMIZERS)
def test_a_million_rows_from_one_core_to_all(states):
    """10^6 rows of 100 nodes; the floor: the operations counted, at the rate of independent fused multiply-adds.

    Multiplications that are not fused and additions count as one operation too, so an FMA loop's operations a second
    are the yardstick; where adders run beside multipliers, up to twice that is possible.
    """
    optimizer = OPTIMIZERS[states]
    call = lambda: nqm.risk(EXPLICIT, optimizer, BATCH, STEPS)  # noqa: E731
    on(1, lambda: nqm.risk(EXPLICIT, optimizer.with_values(lr=0.1), 4, STEPS))
    alone = min(on(1, call) for _ in range(2))
    tell(f"10^6 rows, 100 nodes, {STEPS} steps, {states} states, 1 thread", alone)
    setup, doubling, advance, read = COUNTED[states]
    operations = setup + (STEPS.bit_length() - 1) * doubling + STEPS.bit_count() * advance + read
    rate = 1e6 * 104 * operations / alone / (_peak_flops() / 2)  # nodes are padded to 104
    print(f"  {rate:.2f} of the rate of an FMA loop", end="")
    if CORES > 1:
        many = min(on(CORES, call) for _ in range(2))
        tell(f"    {CORES} threads", many, alone, "1 thread")
        busy = _rate_of_all(CORES) / _rate_of_all(1)
        print(f"; an FMA loop gains {busy:.2f} x from {CORES} threads here", end="")


def _rate_of_all(threads):
    """Calls a second of an FMA loop on so many threads: what the machine's cores share."""
    from concurrent.futures import ThreadPoolExecutor

    from numba import njit

    @njit(nogil=True)
    def loop(a, repeats):
        for _ in range(repeats):
            for n in range(a.size):
                a[n] = a[n] * 0.9 + 0.1

    loop(np.ones(512), 1)
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: loop(np.ones(512), 2_000_000), range(threads)))
        return threads / (time.perf_counter() - began)


def test_crossings_of_many_rows():
    """A 20 x 20 x 20 map of steps to the target on the exact power law."""
    lr, momentum = np.geomspace(2.0**-14, 4.0, 20)[:, None, None], 1.0 - 1.0 / np.geomspace(1.0, 200.0, 20)[:, None]
    call = lambda: nqm.steps_to_target(EXACT, SGD(lr, momentum), np.geomspace(4.0, 2.0**20, 20), 0.01)  # noqa: E731
    on(1, lambda: nqm.steps_to_target(EXACT, SGD(lr[:2], momentum), 4.0, 0.01))
    alone = on(1, call)
    tell("8000 crossings, power law 10^4, 1 thread: each", alone / 8000)
    if CORES > 1:
        many = on(CORES, call)
        tell(f"    {CORES} threads", many / 8000, alone / 8000, "1 thread")


def test_the_readable_reference():
    few = SGD(np.geomspace(1e-3, 1.0, 400), 0.97)
    call = lambda: nqm.risk(EXPLICIT, few, 16.0, 10**6)  # noqa: E731
    seconds = {}
    for name in ("numba", "numpy"):
        with nqm.use_backend(name):
            seconds[name] = best_of(call, 1) / 400
    tell("one risk, 100 nodes, t = 10^6, momentum, numpy", seconds["numpy"])
    print(f"  {seconds['numpy'] / seconds['numba']:.0f} times numba", end="")


# --- GPU -----------------------------------------------------------------------------------------------------


@pytest.fixture
def device():
    try:
        nqm.set_backend("cupy")
    except RuntimeError as error:
        pytest.skip(str(error))
    import cupy

    yield cupy
    nqm.set_backend("numba")


def _bandwidth(cupy):
    """Bytes a second of a copy, read and written."""
    a = cupy.zeros(2**27)
    b = cupy.empty_like(a)

    def copy():
        cupy.copyto(b, a)
        cupy.cuda.Device().synchronize()

    return 2 * a.nbytes / best_of(copy)


def _peak(cupy):
    """Operations a second of independent chains of fused multiply-adds in float64, one operation each."""
    source = """extern "C" __global__ void chains(double *a) {
        double x = a[threadIdx.x], y = x + 1.0, z = x + 2.0, w = x + 3.0;
        for (int i = 0; i < 4096; i++) {
            x = fma(x, 0.9, 0.1); y = fma(y, 0.9, 0.1); z = fma(z, 0.9, 0.1); w = fma(w, 0.9, 0.1);
        }
        a[blockIdx.x * blockDim.x + threadIdx.x] = x + y + z + w;
    }"""
    kernel, blocks, threads = cupy.RawKernel(source, "chains"), 132 * 64, 256
    a = cupy.zeros(blocks * threads)

    def work():
        kernel((blocks,), (threads,), (a,))
        cupy.cuda.Device().synchronize()

    return 4 * 4096 * blocks * threads / best_of(work)


def _cells():
    lr, momentum = np.geomspace(2.0**-14, 4.0, 50)[:, None, None], 1.0 - 1.0 / np.geomspace(1.0, 200.0, 40)[:, None]
    return SGD(lr, momentum), np.geomspace(4.0, 2.0**20, 50)


def _tuned():
    optimizers = {"SGD": SGD(FREE), "momentum": SGD(FREE, FREE)}
    return nqm.sweep(EXACT, optimizers, 2.0 ** np.arange(2, 20, 0.25), 0.01)


def _huge(nodes):
    return nqm.NoisyQuadratic(1.0 / np.arange(1.0, nodes + 1.0))


def _operations(states, rows, nodes, steps):
    setup, doubling, advance, read = COUNTED[states]
    return rows * nodes * (setup + (steps.bit_length() - 1) * doubling + steps.bit_count() * advance + read)


def _pipelines():
    """What is timed: name, size, call; operations and bytes in it, where they are counted."""
    for states, optimizer in OPTIMIZERS.items():
        count = _operations(states, 1e6, 100, STEPS)
        yield f"risk, {states} states", "10^6 x 100", lambda o=optimizer: nqm.risk(EXPLICIT, o, BATCH, STEPS), count, 0
    huge, count = _huge(10**8), _operations(2, 1, 1e8, 10**6)
    yield "risk", "1 x 10^8", lambda: nqm.risk(huge, SGD(0.5, 0.97), 16, 10**6), count, 0
    yield "steps_to_target", "10^5 cells", lambda: nqm.steps_to_target(EXACT, *_cells(), 0.01), 0, 0
    yield "tune, in a sweep", "144 cells", _tuned, 0, 0
    warmup = SGD(nqm.schedules.warmup(Schedule(1.0, 900), 100), np.linspace(0.0, 0.95, 10_000))
    yield "risk along a schedule", "10^4 x 101 pieces", lambda: nqm.risk(EXPLICIT, warmup, 256, 1000), 0, 0
    large = _huge(10**6)
    schedule = lambda: nqm.optimize_schedule(large, 256, steps=10_000, pieces=50, restarts=0)  # noqa: E731
    yield "optimize_schedule", "10^6 x 50 pieces", schedule, 0, 0
    runs = lambda: nqm.simulate(EXPLICIT, SGD(0.5, 0.9), 16, 100, runs=10**6)  # noqa: E731
    # a state of two numbers read and written, a normal number written and read: the least there is to move
    yield "simulate", "10^6 runs x 100 x 100 steps", runs, 0, 1e6 * 100 * 100 * 8 * 6


def test_table_of_the_gpu(device):
    """A Markdown table for BENCHMARKS.md: the GPU against one core and all cores of the machine it is in."""
    name = device.cuda.runtime.getDeviceProperties(0)["name"].decode()
    peak, bandwidth = _peak(device), _bandwidth(device)
    cpu = int(os.environ.get("NQM_BENCH_CPU", "1"))  # 0: the GPU alone
    print(f"\n\n{name}, CuPy {device.__version__}: {peak / 1e12:.1f} 10^12 fused multiply-adds a second, measured;")
    print(f"{bandwidth / 1e12:.2f} TB a second, measured; CPU: {CORES} threads\n")
    print("| what | size | seconds | 1 core | all cores | of the peak |\n|---|---|---|---|---|---|")
    for what, size, call, count, moved in _pipelines():
        with nqm.use_backend("cupy"):
            seconds = best_of(call, 2)
        ratios = []
        for threads in (1, CORES) if cpu else ():
            with nqm.use_backend("numba", threads=threads):
                began = time.perf_counter()
                call()
                ratios.append(f"{(time.perf_counter() - began) / seconds:.1f} x")
        share = f"{count / seconds / peak:.0%} of arithmetic" if count else "-"
        share = f"{moved / seconds / bandwidth:.0%} of bandwidth" if moved else share
        print(f"| {what} | {size} | {seconds:.3g} | {' | '.join(ratios or ['-', '-'])} | {share} |", flush=True)
