# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A million training runs in one picture
#
# How many steps does it take to reach the target, for every learning rate, momentum and batch size? On a network that
# is a sweep nobody has run: a million trainings. On the noisy quadratic model it is one array.
#
# 1. The map of steps to the target over learning rate, momentum and batch size, a million cells.
# 2. Sweeps in which each cell is a search of its own (`nqm.tune`), on processes, on a cluster (dask) or under MPI.
# 3. Threads, memory, and a GPU.
#
# **In short.** While batches are small, momentum only rescales the learning rate: cells on a line of constant
# lr / (1 - momentum) take about the same steps, whatever the momentum. At large batches the best such line lies beyond
# what is stable without momentum, and only more momentum gets there.
#
# **The model.** The problem of Zhang et al. (2019): $d = 10^4$ curvatures $h_i = 1/i$, gradient noise of variance
# $h_i / B$, start $\theta \sim N(0, I)$; the target is a risk of 0.01. Steps are exact: the first step at which the
# expected risk is at or below the target.

# %%
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from tqdm.auto import tqdm

import nqm
from nqm import FREE, SGD
from nqm.plotting import style

TARGET = 0.01
# Values of each axis: 100 x 100 x 100 cells take minutes on two cores. With few, the grid's gaps show in the numbers.
POINTS = int(os.environ.get("NQM_POINTS", 100))
FILE = Path(f"large_sweep_{POINTS}.npz")

problem = nqm.NoisyQuadratic.power_law(10_000)
lr = np.geomspace(2.0**-14, 4.0, POINTS)
memory = np.geomspace(1.0, 200.0, POINTS)  # steps that momentum remembers: 1 / (1 - momentum)
momentum = 1.0 - 1.0 / memory
batch = np.geomspace(4.0, 2.0**20, POINTS)

# %% [markdown]
# ## 1. The map
#
# Hyperparameters, batch sizes and targets broadcast, so the whole map could be one call:
#
# ```python
# nqm.steps_to_target(problem, SGD(lr[:, None, None], momentum[:, None]), batch, TARGET)
# ```
#
# A call works through its rows in chunks, on all cores, and takes hardly more memory than its result. It is cut by
# batch size here only to show progress, and to be resumed where it was interrupted: what is done lies in a file, which
# is written beside and renamed, and taken up again only if the question is the same. The very first call on a machine
# compiles for some 20 seconds.


# %%
def save(path, **arrays):
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(beside, **arrays)
    beside.replace(path)


question = {"lr": lr, "momentum": momentum, "batch": batch, "target": TARGET, "problem": repr(problem)}
steps = np.full((POINTS, POINTS, POINTS), np.nan)  # lr, momentum, batch size
if FILE.exists():
    found = np.load(FILE)
    if all(np.array_equal(found[name], value) for name, value in question.items()):
        steps = found["steps"]

nqm.steps_to_target(problem, SGD(lr[:2, None], momentum[:2]), batch[0], TARGET)  # compiled now, if not before
began, cells, saved = time.perf_counter(), 0, time.perf_counter()
try:
    for i in tqdm(range(POINTS), unit="batch size"):
        if np.isnan(steps[0, 0, i]):
            steps[:, :, i] = nqm.steps_to_target(problem, SGD(lr[:, None], momentum), batch[i], TARGET)
            cells += POINTS**2
            if time.perf_counter() - saved > 10.0:
                save(FILE, steps=steps, **question)
                saved = time.perf_counter()
finally:
    if cells:
        save(FILE, steps=steps, **question)
took = time.perf_counter() - began
print(f"{cells:,} cells in {took:.0f} s" + (f": {took / cells * 1e6:.0f} microseconds each" if cells else ""))
print(f"{np.isinf(steps).mean():.0%} never reach the target, the fewest steps are {steps.min():,.0f}")

# %% [markdown]
# White is where the target is never reached: on the right learning rates that are unstable, and at small batches all
# whose noise stays above the target. The cross is the best cell, the dot the optimum over the continuum, from
# `nqm.tune`; without a dot, it lies above the map. Dotted lines join cells of equal effective learning rate
# lr / (1 - momentum).

# %%
SHOWN = [2.0**4, 2.0**9, 2.0**12, 2.0**18]

with style():
    figure, axes = plt.subplots(1, 4, figsize=(14.0, 3.9), sharey=True)
    for ax, wanted in zip(axes, SHOWN, strict=True):
        here = int(np.argmin(np.abs(np.log(batch / wanted))))
        plane = np.ma.masked_invalid(steps[:, :, here].T)
        fewest = plane.min()
        mesh = ax.pcolormesh(
            lr, memory, plane / fewest, norm=LogNorm(1.0, 100.0), cmap="viridis_r", shading="nearest", rasterized=True
        )
        j, i = np.unravel_index(np.argmin(plane), plane.shape)
        ax.plot(lr[i], memory[j], "x", color="black", markersize=8, markeredgewidth=1.8, clip_on=False, zorder=5)
        best = nqm.tune(problem, SGD(FREE, FREE), float(batch[here]), TARGET)
        at = best.optimizer.hyperparameters
        if 1.0 / (1.0 - at["momentum"]) < memory[-1]:
            ax.plot(at["lr"], 1.0 / (1.0 - at["momentum"]), "o", color="#a3195b", markersize=6, clip_on=False)
        for effective in 10.0 ** np.arange(-2.0, 3.0):
            ax.plot(effective / memory, memory, ":", color="grey", linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlim=(lr[0], lr[-1]), ylim=(memory[0], memory[-1]), xlabel="learning rate")
        ax.set_title(f"batch size {batch[here]:,.0f}: {fewest:,.0f} steps", fontsize=11)
        ax.grid(False)
    axes[0].set_ylabel("1 / (1 - momentum), steps")
    figure.colorbar(mesh, ax=axes, label="steps over the fewest", extend="max")
    figure.savefig("large_sweep.png", dpi=150)
    plt.show()

# %% [markdown]
# What the picture says, in numbers: the fewest steps that each momentum allows, relative to the best momentum.

# %%
by_momentum = steps.min(axis=0)  # (momentum, batch size), the learning rate chosen for each
relative = by_momentum / by_momentum.min(axis=0)
chosen = {name: int(np.argmin(np.abs(memory - value))) for name, value in (("0", 1.0), ("0.9", 10.0), ("0.99", 100.0))}
print("batch size  " + "".join(f"momentum {name:6}" for name in chosen))
for wanted in (2.0**3, 2.0**6, 2.0**9, 2.0**12, 2.0**15, 2.0**18):
    here = int(np.argmin(np.abs(np.log(batch / wanted))))
    print(f"{batch[here]:10,.0f}  " + "".join(f"{relative[j, here]:15.2f}" for j in chosen.values()))


def saved_by_momentum(size):
    """Steps without momentum over steps with it, each tuned over the continuum."""
    return nqm.tune(problem, SGD(FREE), size, TARGET).steps / nqm.tune(problem, SGD(FREE, FREE), size, TARGET).steps


assert saved_by_momentum(2.0**6) < 1.5  # momentum hardly matters at batch size 64
assert saved_by_momentum(2.0**18) > 10.0  # and saves more than nine steps in ten at 2^18

# %% [markdown]
# ## 2. Sweeps that leave the machine
#
# The map needs no search. Where each cell is one (`FREE` hyperparameters are tuned, cell by cell), `nqm.sweep` takes
# an executor: anything with the interface of `concurrent.futures`. The table is the same, bit for bit, wherever its
# cells were computed, and the cells of a worker that dies are run again.
#
# On the cores of this machine:
#
# ```python
# from concurrent.futures import ProcessPoolExecutor
# if __name__ == "__main__":  # in a script; worker processes import it
#     with ProcessPoolExecutor() as pool:
#         result = nqm.sweep(problem, optimizers, batch_sizes, 0.01, executor=pool)
# ```
#
# On a cluster, with dask (`pip install distributed`; a `SLURMCluster` of dask-jobqueue stands in the same place):
#
# ```python
# from dask.distributed import Client
# with Client("tcp://scheduler:8786") as client:  # nqm is installed on the workers too
#     result = nqm.sweep(problem, optimizers, batch_sizes, 0.01, executor=client.get_executor())
# ```
#
# Under MPI, started as `mpiexec -n 64 python -m mpi4py.futures script.py`:
#
# ```python
# from mpi4py.futures import MPIPoolExecutor
# with MPIPoolExecutor() as pool:
#     result = nqm.sweep(problem, optimizers, batch_sizes, 0.01, executor=pool)
# ```
#
# Threads are an executor as well, for want of processes in a notebook:

# %%
optimizers = {"SGD": SGD(FREE), "momentum": SGD(FREE, FREE)}
batch_sizes = [2.0**k for k in range(4, 20, 5)]
with ThreadPoolExecutor(2) as pool:
    result = nqm.sweep(problem, optimizers, batch_sizes, TARGET, executor=pool)
alone = nqm.sweep(problem, optimizers, batch_sizes, TARGET)
assert all(np.array_equal(result.table[name], alone.table[name]) for name in alone.table)
print(result)

# %% [markdown]
# The optima at small batches remember far more steps than the map's 200, up to a tenth of the run: so long a memory
# averages noise, which saves a seventh of the steps at batch size 16, and a third at 512.

# %%
fewest = {name: result.rows(name)["steps"] for name in result.names}
kept = fewest["momentum"] / fewest["SGD"]
assert 0.80 < kept[0] < 0.90
assert 0.60 < kept[1] < 0.72
assert 1.0 / (1.0 - result.rows("momentum")["momentum"][0]) > 0.08 * fewest["momentum"][0]

# %% [markdown]
# ## 3. Threads, memory, a GPU
#
# Rows of one call are spread over threads; the number changes the time, not a single bit.

# %%
rows = nqm.SGD(lr[:, None], momentum)
for threads in (1, 2):
    with nqm.use_backend("numba", threads=threads):
        began = time.perf_counter()
        crossings = nqm.steps_to_target(problem, rows, 256, TARGET)
        print(f"threads: {threads}, {crossings.size:,} cells in {time.perf_counter() - began:.2f} s")
        if threads == 1:
            alone = crossings
assert np.array_equal(alone, crossings)

# %% [markdown]
# Memory is the result and a few megabytes. What cannot fit is refused before anything is allocated:

# %%
try:
    nqm.risk(problem, nqm.SGD(np.full((10**7, 1), 0.1)), np.ones(10**7), 1000)
except MemoryError as error:
    print(error)

# %% [markdown]
# With CuPy and a CUDA device (`pip install 'nqm[gpu]'`), the same calls run on the GPU; nothing else changes:
#
# ```python
# with nqm.use_backend("cupy"):  # or NQM_BACKEND=cupy in the environment; "cupy:1" is the second device
#     steps = nqm.steps_to_target(problem, SGD(lr[:, None, None], momentum[:, None]), batch, TARGET)
# ```
#
# Without them, asking for it says what is missing:

# %%
try:
    with nqm.use_backend("cupy"):
        print("a GPU is here:", nqm.steps_to_target(problem, SGD(lr[:, None], 0.9), batch, TARGET).shape)
except RuntimeError as error:
    print(error)
