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
# # From your training logs to decisions
#
# You have a table of finished runs: parameters $N$, batch size $B$, steps $K$, final loss. What loss would a larger run
# reach, which $N$, $B$ and $K$ are best for the next compute budget, and how sure is that?
#
# 1. Read a log, fit it, look at the fit.
# 2. Predict, with intervals.
# 3. Decide: the best allocation, time against compute, the critical batch size.
# 4. Loss curves: what a schedule does, and which is best.
# 5. Real logs of two papers, where they are there, with the table of marks.
#
# **The model.** Mode $n$ of the loss has curvature $Q n^{-q}$, starts with a share $\frac P2 n^{-p}$ of it, and has
# gradient noise $R/n$; SGD on it is exact (`nqm.risk`). What makes that a language model's loss: a model of $N$
# parameters holds the share $1/(1 + \sqrt{n/N})$ of mode $n$; the learning rate follows the schedule of the runs, over
# the growing norm of the weights; small batches take smaller steps, as Adam's do.
# `nqm.scaling.models.final_loss` has the equations.

# %%
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import nqm
from nqm import scaling
from nqm.plotting import style

# %% [markdown]
# ## 1. Read, fit, look
#
# Columns are recognised by their names; `scaling.read_runs("your.csv")` reads your own. The log that ships was made up
# by the model itself, plus half a percent of noise, and one run that went wrong.

# %%
log = scaling.example_runs()
print(log)

# %%
began = time.perf_counter()
fit = scaling.fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=0.01)
print(f"fitted in {time.perf_counter() - began:.2f} s (the first time, with compiling)\n")
print(fit)

# %% [markdown]
# A parameter that is *not determined* may take values that differ by more than a factor of three and still explain the
# runs. What the parameters do together is known much better: trust intervals of predictions, not of parameters.

# %%
with style():
    fit.plot()

# %%
worst = np.argsort(-np.abs(fit.residuals))[:3]
for i in worst:
    print(f"N {log.N[i]:.3g}, B {log.B[i]:g}, K {log.K[i]:g}: loss {log.loss[i]:.3f}, off by {fit.residuals[i]:+.1%}")

# %% [markdown]
# The first is the run that went wrong. Huber's function keeps such runs from bending the fit.
#
# ## 2. Predict

# %%
N, B, K = 3e8, 512, 30_000
low, high = fit.interval(N, B, K)
chinchilla = scaling.chinchilla(log.N, log.B, log.K, log.loss)
print(f"loss of {N:.0e} parameters after {K} steps of {B}: {fit.predict(N, B, K):.3f}, 90% {low:.3f} to {high:.3f}")
print(f"Chinchilla's form, which knows no batch size: {chinchilla.predict(N, B, K):.3f}")

# %% [markdown]
# The same runs with eight times the batch and an eighth of the steps:

# %%
larger = N, 8 * B, K / 8
print(f"noisy quadratic {fit.predict(*larger):.3f}, Chinchilla's form {chinchilla.predict(*larger):.3f}")

# %% [markdown]
# The same problem works with everything else in the package: `fit.problem(N)` is a `NoisyQuadratic`.

# %%
lr = fit.effective_lr(N, B, K)
risk = nqm.risk(fit.problem(N), nqm.SGD(lr), B, K)
print(f"floor {fit.floor(N):.3f} + risk {risk:.3f} = {fit.floor(N) + risk:.3f}")

# %% [markdown]
# ## 3. Decide
#
# Which model for $10^{18}$ FLOP, if no more than 20,000 steps may be taken? Without a limit on steps or time small
# batches are best: they waste no examples.

# %%
answer = fit.best(compute=1e18, steps_max=20_000, sequence_length=128)
print(answer)

# %%
frontier = fit.frontier(2.9, sequence_length=128)
with style():
    frontier.plot()

# %%
with style():
    fit.critical_batch_size([1e7, 1e8], np.linspace(2.9, 4.0, 8)[:, None]).plot()

# %% [markdown]
# ## 4. Loss curves and schedules
#
# From a few loss curves under different schedules, `fit_curves` learns what the learning rate does to the loss. Here
# they are made by SGD on a power law; `scaling.read_curves("folder")` reads yours.

# %%
from nqm.papers.ours import scaling_laws as figures  # noqa: E402

data = figures.compute_curves()
figures.plot_curves(data)

# %%
curves = {
    name: scaling.LossCurve(data["step"][here], data["loss"][here], schedule)
    for name, (schedule, seen) in figures.runs_of_curves().items()
    if seen and (here := data["schedule"] == name).any()
}
fitted = scaling.fit_curves(curves)
print(fitted)

# %%
best = fitted.best_schedule(24_000, 1.0)
print(best)
with style():
    best.plot()

# %% [markdown]
# ## 5. Real logs
#
# The runs of Li & Maddison (2026) and the curves of Luo et al. (2025), where they lie in `../shared/data` beside the
# package; otherwise this section says so and stops.

# %%
DATA = next((p / "shared" / "data" for p in Path.cwd().resolve().parents if (p / "shared" / "data").exists()), None)
print("no real logs here: put them into ../shared/data" if DATA is None else "real logs found")

# %%
if DATA is not None:
    real = scaling.read_runs(DATA / "llm_runs.csv")
    train = (real.split == "train") & ~real.exclude
    sizes = real.N, real.B, real.K
    settings = {"lr_schedule": "cosine", "warmup": 0.01}
    runs = scaling.fit_runs(*sizes, real.loss, **settings, exclude=~train)
    rival = scaling.chinchilla(*sizes, real.loss, exclude=~train)
    print(runs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictions = {"noisy quadratic": runs.predict(*sizes), "Chinchilla's form": rival.predict(*sizes)}
        low, high = runs.interval(*sizes)
    print("\nOn the test runs that are here, of up to 1000 times the compute:")
    print(f"{'rms log error':20}{'kind':10}{'train':>8}{'test':>8}")
    for name, predicted in predictions.items():
        for kind in ("isoflop", "isotoken"):
            errors = [
                np.sqrt(np.mean(np.log(predicted / real.loss)[rows & (real.type == kind)] ** 2))
                for rows in (train, real.split == "dev")
            ]
            print(f"{name:20}{kind:10}{errors[0]:8.4f}{errors[1]:8.4f}")
    inside = (low < real.loss) & (real.loss < high) & (real.split == "dev")
    print(f"90% intervals hold {inside.sum()} of {(real.split == 'dev').sum()} test runs")

# %%
if DATA is not None:
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
        for ax, (name, predicted) in zip(axes, predictions.items(), strict=True):
            ax.plot([1.9, 6], [1.9, 6], color="0.5", linewidth=1)
            for rows, label in ((train, "fitted"), (real.split == "dev", "test")):
                ax.plot(real.loss[rows], predicted[rows], "o" if label == "fitted" else "s", label=label)
            ax.set(xscale="log", yscale="log", xlabel="actual loss", title=name)
            ax.legend()
        axes[0].set_ylabel("predicted loss")

# %% [markdown]
# What is left: at 25 times the examples, models of 10 million parameters end up to 5% above the prediction with small
# batches, and up to 4% below with the largest. `nqm.scaling.models.final_loss` says what else the model gets wrong,
# and how it was chosen by cross-validation inside the training runs. Runs of less than 100 steps are not fitted:
# `min_steps`.
#
# The curves: fitted to three, mean absolute error on the others.

# %%
if DATA is not None:
    SEEN = ("cosine_24000", "constant_24000", "wsdcon_9")
    print(f"{'':6}{'schedule':22}{'noisy quadratic':>16}{'multi-power law':>17}   mean absolute error")
    for size in ("25M", "100M", "400M"):
        every = scaling.read_curves(DATA / "lr_curves" / size, warmup=2160)
        seen = {name: every[name] for name in SEEN}
        ours, theirs = scaling.fit_curves(seen), scaling.multi_power_law(seen)
        for name, curve in every.items():
            errors = [np.abs(law.predict(curve.lr, curve.steps) - curve.loss).mean() for law in (ours, theirs)]
            print(f"{size:6}{name:22}{errors[0]:16.5f}{errors[1]:17.5f}   {'fitted' if name in SEEN else 'test'}")
