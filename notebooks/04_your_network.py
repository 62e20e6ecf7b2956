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
# # Your network: how many steps, which batch size, which learning rate?
#
# Bring a torch module, a data loader, a loss and a target. Out come, for each batch size, the steps that training will
# take and the learning rate to take them with, and the critical batch size; then a check by real training.
#
# 1. **Your cell**: network, data, loss, target. The only one to replace.
# 2. **Measure**: train once, to half the target loss, and measure curvature, gradient noise and start there.
# 3. **Predict**: steps, learning rates, critical batch sizes, for SGD, momentum and averaged weights (EMA).
# 4. **Check**: train at three batch sizes, with the predicted rates and with rates that are searched.
# 5. **What to trust**, by the numbers of this very check.
# 6. **Larger**: more processes, a file to go on from, a GPU.
#
# It needs `pip install 'nqm[validation]'`: torch and scikit-learn. Every number in an answer is computed in the cell
# that prints it. The `assert` lines in the last cell hold for the network given here; skip that cell with yours.

# %%
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nqm.plotting import COLORS, LINES, MARKERS, powers_of_two, style
from nqm.validation import OPTIMIZERS, Data, Task, Trial, measure, measure_steps, predict_steps, race, reference_point
from nqm.validation.papers.zhang2019.spectra import compute_power_law, compute_variance

# %% [markdown]
# ## 1. Your cell
#
# Four rules. No batch norm and no dropout: with them an example's gradient depends on more than the example. The loss
# is the mean over the examples. The loader keeps its order (`shuffle=False`; training draws its own batches). `build`
# gives a fresh start for each `seed`; a module in its place gives all runs the same start.

# %%
loss = nn.functional.cross_entropy
TARGET = 0.25  # training loss to reach
CHECKED = [8, 64, 512]  # batch sizes at which to train for real: well below, near and well above the critical one
DEVICE = "cpu"  # None: a GPU where there is one; for a network as small as this the CPU is quicker


class Net(nn.Module):
    """8 x 8 pixels to 10 digits: a GELU layer, a tanh layer with a bypass."""

    def __init__(self):
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x):
        h = nn.functional.gelu(self.enter(x))
        return self.leave(h + torch.tanh(self.inner(h)))


def build(seed):
    torch.manual_seed(seed)
    return Net()


images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
x = torch.tensor((images - images.mean()) / images.std(), dtype=torch.float32)[order]
y = torch.tensor(labels)[order]
loader = DataLoader(TensorDataset(x[:1437], y[:1437]), batch_size=256)
held_out = DataLoader(TensorDataset(x[1437:], y[1437:]), batch_size=256)

# %% [markdown]
# ## 2. Measure
#
# The model is the quadratic around the minimum that training heads for, so it is measured late in training: one run of
# plain SGD, stopped at half the target loss. `reference_point` does that. A checkpoint of your own does as well: give
# the trained module, or its `state_dict`, as `at`. It has to come from the same start, `build(0)` here: the distance
# from the start is what training has to cover.

# %%
torch.set_num_threads(1)
NAMES = ["SGD", "momentum", "SGD with EMA"]
PLAIN, HEAVY, AVERAGED = NAMES


def say(text):
    display(Markdown(text))


def table(*lines):
    """Rows of a table, the header first."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    display(Markdown("\n".join([head, "|---" * len(lines[0]) + "|", *body])))


def spread(values, digits=2):
    """From the least to the largest."""
    return f"{min(values):.{digits}g} to {max(values):.{digits}g}"


data = Data.from_loaders(loader, held_out, "my data")
task = Task(build, data, loss, {"training loss": TARGET}, device=DEVICE, evaluated=None)

at = reference_point(task, TARGET / 2)  # or at = torch.load("checkpoint.pt")
quadratic = measure(task.build(0), loss, data, at, device=DEVICE)
print(quadratic.summary())

# %% [markdown]
# Three things in it decide whether to go on. The *floor* is the loss at the quadratic's minimum; it has to lie below
# the target. The quadratic's *loss of the start* is what the model thinks training begins with, and the real one is in
# the line above: they agree only as far as the loss is a quadratic. The *dropped* directions hold next to nothing of
# curvature, gradient and noise, or else something is amiss.
#
# The quadratics of the other notebooks have curvatures $h_i = 1/i$ and noise $c_i = h_i$. Yours:

# %%
law, scatter = compute_power_law(quadratic), compute_variance(quadratic)
with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    left.plot(law["index"], law["curvature"], ".", color=COLORS[0], label="measured")
    left.plot(law["index"], law["fitted"], color=COLORS[1], label="fitted power law")
    left.plot(law["index"], law["inverse"], "--", color=COLORS[2], label="1/i")
    left.set(xscale="log", yscale="log", xlabel="direction i, by curvature", ylabel="curvature")
    left.set_title("Spectrum")
    right.plot(scatter["curvature"], scatter["variance"], ".", color=COLORS[0], label="one direction each")
    right.plot(scatter["curvature"], scatter["curvature"], "--", color=COLORS[2], label="equal: C = H")
    right.set(xscale="log", yscale="log", xlabel="curvature", ylabel="variance of one example's gradient")
    right.set_title("Noise against curvature")
    for ax in (left, right):
        ax.legend()
plt.show()

fit = quadratic.power_law_fit()
ratio = np.median((quadratic.noise / quadratic.curvature)[: fit.nodes])
slope = np.polyfit(np.log(quadratic.curvature[: fit.nodes]), np.log(quadratic.noise[: fit.nodes]), 1)[0]
say(
    f"**Answer.** Over the first {fit.nodes} directions, which hold 99% of the trace, curvature falls like "
    f"$i^{{-{fit.exponent:.2f}}}$, within {np.expm1(fit.rms):.0%} (1/i would be $i^{{-1}}$), and the variance of a "
    f"gradient grows like $h^{{{slope:.2f}}}$ (C = H would be $h^1$), at {ratio:.2g} times $h$ in the median. The "
    f"quadratic starts at a loss of {quadratic.floor + quadratic.initial_risk:.2f} instead of "
    f"{quadratic.loss_start:.2f}. None of this is assumed from here on: the prediction takes the measured numbers."
)

# %% [markdown]
# ## 3. Predict
#
# `predict_steps` tunes every optimizer on the measured quadratic at every batch size for the fewest steps. With
# momentum the learning rate shown is the *effective* one, lr / (1 - momentum).

# %%
SIZES = sorted({2**k for k in range(11)} | set(CHECKED))
predicted = predict_steps(quadratic, NAMES, SIZES, TARGET)
critical = predicted.critical_batch_size()
rows = {name: predicted.rows(name) for name in NAMES}
LOOK = {
    name: {"color": COLORS[i], "linestyle": LINES[i], "marker": MARKERS[i], "label": name}
    for i, name in enumerate(NAMES)
}
stable = 2 / quadratic.curvature.max()

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for name in NAMES:
        left.plot(SIZES, rows[name]["steps"], **LOOK[name])
        right.plot(SIZES, rows[name]["effective_lr"], **LOOK[name])
        left.axvline(critical[name], color=LOOK[name]["color"], linestyle=LOOK[name]["linestyle"], linewidth=0.8)
    right.axhline(stable, color="black", linestyle=":", label="2 / largest curvature")
    powers_of_two(left)
    powers_of_two(right)
    left.set(xlabel="batch size (examples)", ylabel=f"steps to training loss {TARGET:g}")
    left.set_title("Predicted steps (upright: critical batch size)")
    left.legend()
    right.set(xlabel="batch size (examples)", ylabel="lr / (1 - momentum)")
    right.set_title("Best learning rate for it")
    right.legend()
plt.show()

table(
    ("batch size", *(f"{name}: steps, lr" + (", momentum" if name == HEAVY else "") for name in NAMES)),
    *(
        (str(size), *(
            f"{r['steps'][i]:.0f}, {r['lr'][i]:.2g}" + (f", {r['momentum'][i]:.2f}" if name == HEAVY else "")
            for name, r in rows.items()
        ))
        for i, size in enumerate(SIZES)
    ),
)  # fmt: skip
say(
    "**Answer.** Critical batch sizes (fewest examples over fewest steps, within the range above): "
    + ", ".join(f"{name} {size:.0f}" for name, size in critical.items())
    + ". At a batch size well below it, doubling the batch halves the steps; well above it, hardly any are saved."
)

# %% [markdown]
# This takes the noise to be everywhere as it was measured, near the target. On the way there it is larger. With
# `growing_noise=True` it grows with the loss. That takes seconds a cell, up to a minute with momentum, and matters
# where noise does, at small batches: here it is computed at the smallest batch checked, without momentum.

# %%
small = CHECKED[0]
growing = predict_steps(quadratic, [PLAIN, AVERAGED], [small], TARGET, growing_noise=True)
more = {name: growing.rows(name)["steps"][0] / rows[name]["steps"][SIZES.index(small)] for name in growing.names}
say(
    f"**Answer.** At batch size {small} growing noise takes {more[PLAIN]:.1f} times the steps for SGD and "
    f"{more[AVERAGED]:.1f} times for EMA that noise as measured does. (`noise_growth` is "
    f"{quadratic.noise_growth:.2g}; 1 is that of least squares on Gaussian features.) Where these are far from 1, wait "
    f"for the check."
)

# %% [markdown]
# ## 4. Check
#
# Two questions, and they are not the same. *Is the prediction right?* `measure_steps` searches each optimizer's
# hyperparameters for the fewest steps, as the prediction did, with a few dozen quasi-random trials, and trains the best
# again with fresh seeds. So few trials find the best only nearly. *Is the advice good?* Here training takes the
# predicted hyperparameters as they are. Each seed is another start and other batches. Bands span the seeds, up
# to three times the search's best, where a run is given up; black marks are single seeds, those that arrive.

# %%
SEEDS = 5
SEARCH = {"trials": 8, "rounds": 2, "seeds": SEEDS, "max_steps": 1000, "progress": False}
folder = tempfile.TemporaryDirectory()
FILE = Path(folder.name) / "measured.jsonl"  # a place of your own, to be able to go on
began = time.perf_counter()
measured = measure_steps(task, NAMES, CHECKED, results=FILE, **SEARCH)
took = time.perf_counter() - began


def advised(name, found, size):
    """Steps of each seed with the predicted hyperparameters; inf where five times as many steps did not do."""
    row = {key: float(column[found["batch_size"] == size][0]) for key, column in found.items() if key != "optimizer"}
    values = {key: row[key] for key in OPTIMIZERS[name].space}
    trials = [Trial(name, size, 1000 + seed, values) for seed in range(SEEDS)]
    return [outcome.steps["training loss"] for outcome in race(task, trials, int(5 * row["steps"]) + 50, True)]


CASES = [(name, name, rows[name]) for name in NAMES]
CASES += [(f"{name}, growing noise", name, growing.rows(name)) for name in growing.names]
records = []
for case, name, found in CASES:
    theirs = measured.rows(name)
    for i, size in enumerate(CHECKED):
        if size in found["batch_size"]:
            here = found["batch_size"] == size
            best = {key: theirs[key][i] for key in ("median", "low", "high", "effective_lr")}
            records.append({"case": case, "name": name, "size": size, "steps": found["steps"][here][0],
                            "rate": found["effective_lr"][here][0], **best,
                            "advised": sorted(advised(name, found, size))})  # fmt: skip

with style():
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True)
    for ax, name in zip(axes, NAMES, strict=True):
        color, theirs = LOOK[name]["color"], measured.rows(name)
        ax.plot(SIZES, rows[name]["steps"], color=color, label="predicted")
        ax.plot(CHECKED, theirs["median"], ":", marker="o", color=color, label="trained, rate searched (median)")
        ax.fill_between(
            CHECKED, theirs["low"], np.minimum(theirs["high"], 3 * theirs["steps"]), color=color, alpha=0.2, linewidth=0
        )
        for case, place, marker in ((name, 0.8, "_"), (f"{name}, growing noise", 0.68, "x")):
            for r in (r for r in records if r["case"] == case):
                ax.plot([place * r["size"]] * SEEDS, r["advised"], marker, color="black", markersize=6, zorder=3)
        ax.plot([], [], "_", color="black", markersize=6, label="trained, rate predicted (each seed)")
        if name in growing.names:
            star = growing.rows(name)["steps"]
            ax.plot(small, star, "*", color=color, markersize=13, label="growing noise, predicted")
            ax.plot([], [], "x", color="black", label="growing noise, rate predicted")
        powers_of_two(ax)
        ax.set(xlabel="batch size (examples)", title=name)
        ax.legend()
    axes[0].set_ylabel(f"steps to training loss {TARGET:g}")
plt.show()

for r in records:
    r["right"], r["good"] = r["steps"] / r["median"], np.median(r["advised"]) / r["median"]
table(
    ("", "batch size", "predicted steps", "searched: median (range)", "predicted / searched",
     "with predicted rate: median (range)", "... / searched", "rate, predicted / searched"),
    *((r["case"], str(r["size"]), f"{r['steps']:.0f}", f"{r['median']:.0f} ({r['low']:.0f} to {r['high']:.0f})",
       f"{r['right']:.2f}", f"{np.median(r['advised']):.0f} ({r['advised'][0]:.0f} to {r['advised'][-1]:.0f})",
       f"{r['good']:.2f}", f"{r['rate'] / r['effective_lr']:.2f}") for r in records),
)  # fmt: skip

# %% [markdown]
# The critical batch sizes, from the three batch sizes alone on both sides:

# %%
three = predict_steps(quadratic, NAMES, CHECKED, TARGET).critical_batch_size()
real = measured.critical_batch_size()
table(
    ("critical batch size", "predicted", "measured (range)", "predicted / measured"),
    *((name, f"{three[name]:.0f}", f"{real[name].value:.0f} ({real[name].low:.0f} to {real[name].high:.0f})",
       f"{three[name] / real[name].value:.2f}") for name in NAMES),
)  # fmt: skip

# %% [markdown]
# ## 5. What to trust

# %%
right = {name: [r["right"] for r in records if r["case"] == name] for name in NAMES}
good = {name: [r["good"] for r in records if r["case"] == name] for name in NAMES}
plain = [r for r in records if r["case"] == PLAIN]
largest = plain[-1]
ema, ema_growing = (next(r for r in records if r["case"] == case)
                    for case in (AVERAGED, f"{AVERAGED}, growing noise"))  # fmt: skip
arrived = {r["case"]: np.isfinite(r["advised"]).sum() for r in (ema, ema_growing)}
quick = reference_point(task, TARGET / 2, lr=largest["effective_lr"], batch_size=largest["size"])
there = 2 / measure(task.build(0), loss, data, quick, device=DEVICE).curvature.max()
apart = measured.table["high"] / measured.table["low"]
sizes = [three[name] / real[name].value for name in NAMES]
say(
    f"**Answer**, for this network and target; predicted over measured:\n\n"
    f"- *Momentum*: steps {spread(right[HEAVY])} times, effective rate "
    f"{spread([r['rate'] / r['effective_lr'] for r in records if r['case'] == HEAVY])} times. Trained with the "
    f"prediction it takes {spread(good[HEAVY])} times the steps of a search.\n"
    f"- *Plain SGD*: steps {spread(right[PLAIN])} times, rate "
    f"{spread([r['rate'] / r['effective_lr'] for r in plain])} times, and {spread(good[PLAIN])} times the steps of a "
    f"search with the predicted rate. At batch size {largest['size']} the best rate found is "
    f"{largest['effective_lr'] / stable:.1f} times 2 / (largest curvature), the limit of a quadratic. Training with "
    f"it ends where that limit is {there / stable:.1f} times as high: a network's curvature follows the rate, a "
    f"quadratic's cannot.\n"
    f"- *EMA* at batch size {small}: steps {ema['right']:.2f} times with the noise as measured and "
    f"{ema_growing['right']:.2f} times with growing noise. Trained with the predicted rate and decay, "
    f"{arrived[ema['case']]} and {arrived[ema_growing['case']]} of {SEEDS} seeds arrive, in "
    f"{ema['good']:.1f} and {ema_growing['good']:.1f} times the steps of a search (median).\n"
    f"- *Critical batch sizes*: {spread(sizes)} times. The order of the three optimizers is "
    f"{'the same' if sorted(NAMES, key=three.get) == sorted(NAMES, key=lambda n: real[n].value) else 'another'}.\n"
    f"- *Luck*: where all seeds of a cell arrive, they lie up to {max(apart[np.isfinite(apart)]):.1f} times apart, and "
    f"the median is known to {np.nanmax(measured.table['error']):.0%} at worst (standard error). Ratios that close to "
    f"1 say nothing."
)

# %% [markdown]
# How far this carries: the [report on the validation](../figures/validation/README.md) has an MLP, a CNN and a ResNet
# on the same digits, with adaptive optimizers too, and says by how much the model is off for each. For a network of
# your own, check as above at the smallest and the largest batch size that you can afford before you rely on the rest.
#
# - **Learning rates past the stability limit.** A quadratic diverges beyond $2/h_1$; a network need not. Where the best
#   rates lie above it, the model takes too many steps at large batches. Start a search at the predicted rate, upwards.
# - **Small batches with averaging.** What averaging leaves of the noise is little, so that what noise there was on the
#   way counts. Take `growing_noise=True`, and distrust whatever it changes much.
# - **Adam and K-FAC** can be predicted and trained by the same calls; in the model a power of the curvature stands for
#   Adam's preconditioner. They are not checked here: see the report first.
# - **The target** is a training loss. `measure_steps` takes targets of held-out loss and error too, the model does not.
# - **One start.** The prediction is for `build(0)`. Measure two or three seeds to see what the start is worth.
#
# ## 6. Larger
#
# Everything trained is kept in the results file as soon as it ends. The same call goes on from there, also after an
# interruption, and with more batch sizes or optimizers:

# %%
began = time.perf_counter()
again = measure_steps(task, NAMES, CHECKED, results=FILE, **SEARCH)
say(f"The same call once more: {time.perf_counter() - began:.2g} s instead of {took:.2g} s, and the same table.")
folder.cleanup()

# %% [markdown]
# On more cores, give any `concurrent.futures.Executor`. Processes have to be able to import your network, so put it in
# a file of its own (`my_net.py`) rather than in a notebook. The table does not depend on the executor:
#
# ```python
# from concurrent.futures import ProcessPoolExecutor
# from my_net import task
#
# with ProcessPoolExecutor(8) as pool:
#     measured = measure_steps(task, ["SGD", "momentum", "SGD with EMA", "Adam"], [4 * 2**k for k in range(9)],
#                              results="measured.jsonl", executor=pool)
# ```
#
# - **Searching.** The defaults (32 trials a round, 5 seeds) are steadier than the few trials above. `at_edge` in the
#   table names hyperparameters whose best value lies at an edge of what was searched.
# - **Networks.** Up to 6,000 parameters curvature is exact. Beyond, `measure` takes its diagonal in a basis of
#   Kronecker factors (`curvature="ekfac"`), on a subset of the examples if you give `examples=`.
#   `quadratic.save("mine.npz")` and `nqm.validation.load` keep a measurement.
# - **Many examples.** `evaluated=None` reads the loss on all of them, again and again. A number there reads it on so
#   many, the first ones, which then must not be sorted by class.
# - **GPU.** `device=None` takes one where there is one, for measuring and for training.
# - **From the shell.** `nqm validate` does the same with networks and data that come with nqm, and writes a report.
#
# The facts that this notebook tells of its own network; with yours, skip this cell.

# %%
assert quadratic.floor < TARGET
assert 1 < fit.exponent < 2
assert 0.7 < slope < 1.3
assert critical[AVERAGED] < critical[PLAIN] < critical[HEAVY]
assert set(measured.table["status"]) == {"reached"}
assert 0.4 < min(right[HEAVY]) < max(right[HEAVY]) < 2
assert 0.6 < min(right[PLAIN]) < max(right[PLAIN]) < 3
assert max(good[HEAVY] + good[PLAIN]) < 2.5  # predicted rates train, at little cost
assert largest["effective_lr"] > stable > largest["rate"]  # past the limit of a quadratic
assert there > 1.1 * stable
assert abs(np.log(ema_growing["right"])) < abs(np.log(ema["right"]))  # closer with noise that grows
assert real[HEAVY].value > real[PLAIN].value
assert str(again) == str(measured)
