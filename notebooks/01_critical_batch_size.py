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
# # Which batch size, which learning rate, which optimizer?
#
# Four questions that every training run raises, answered on the noisy quadratic model of Zhang et al. (2019):
#
# 1. Which batch size should I use? The formulas that people quote disagree by a factor of ten and more.
# 2. Is the critical batch size a threshold or a gradual range? How do momentum and preconditioning move it?
# 3. How does the learning rate scale with batch size, devices and accumulation: linear, square root, until where?
# 4. When do momentum or preconditioning pay at all against plain SGD with small batches?
#
# **The model.** The loss is $\tfrac12 \sum_i h_i \theta_i^2$ with $d = 10^4$ curvatures $h_i = 1/i$. The gradient of a
# batch of $B$ examples carries noise of variance $c_i / B$ in coordinate $i$, with $C = H$, that is $c_i = h_i$. The
# start is $\theta \sim N(0, I)$. The goal is an expected loss (the *risk*) of 0.01. The learning rate is constant. These
# are the settings of the paper. On this model the risk after $t$ steps is known exactly, so nothing here is simulated
# and there are no error bars.
#
# **It is a model.** It has no non-convexity, no overfitting, and noise that does not depend on the weights. What that
# leaves out is said at the end.
#
# Every number in an answer is computed in the cell that prints it. An `assert` closes each cell with an answer: the
# notebook fails when what it says is no longer so.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import nqm
from nqm import FREE, SGD, Preconditioned
from nqm.plotting import COLORS, MARKERS, powers_of_two, style

TARGET = 0.01
BATCHES = np.round(2.0 ** np.arange(2, 21.5, 0.5))  # two batch sizes for each doubling
OPTIMIZERS = {
    "SGD": SGD(FREE),  # FREE: tuned for the fewest steps, afresh at every batch size
    "momentum 0.9": SGD(FREE, momentum=0.9),
    "momentum": SGD(FREE, momentum=FREE),
    "power 0.5": Preconditioned(SGD(FREE), power=0.5),  # gradients multiplied by H^-0.5
    "power 0.5 + momentum": Preconditioned(SGD(FREE, momentum=FREE), power=0.5),
}

problem = nqm.NoisyQuadratic.power_law(10_000)
result = nqm.sweep(problem, OPTIMIZERS, BATCHES, TARGET)

column = {key: dict(zip(OPTIMIZERS, np.split(values, len(OPTIMIZERS)), strict=True))
          for key, values in result.table.items()}
steps, examples, rate = column["steps"], column["examples"], column["lr"]
critical = result.critical_batch_size()  # E_min / S_min: fewest examples over fewest steps

# How the lines look, so that they differ in grey too.
LINES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))
LOOK = {
    name: {"color": color, "marker": marker, "linestyle": line, "markevery": 2}
    for name, color, marker, line in zip(OPTIMIZERS, COLORS, MARKERS, LINES, strict=True)
}


def batch_where(curve, level):
    """The batch size at which a curve over BATCHES first crosses a level; straight between points on log axes."""
    x, y = np.log2(BATCHES), np.log(curve / level)
    crossings = np.flatnonzero(np.sign(y[:-1]) != np.sign(y[1:]))
    i = crossings[0]
    return 2.0 ** (x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def say(text):
    display(Markdown(text))


ax = result.plot()
ax.set_title(f"Fewest steps to risk {TARGET:g}, everything tuned at each batch size")
assert set(result.table["status"]) == {"optimal"}

# %% [markdown]
# All curves have one shape. On the left, twice the batch takes half the steps. On the right, more batch takes no fewer
# steps. The rest of this notebook reads these curves.

# %% [markdown]
# ## 1. Which batch size should I use?
#
# A batch size is a price. Small batches need the fewest examples $E_{min}$, which is compute. Large batches need the
# fewest steps $S_{min}$, which is time. Following McCandlish et al. (2018), the *critical batch size* is
# $E_{min} / S_{min}$. Their trade-off curve is the hyperbola $(S/S_{min} - 1)(E/E_{min} - 1) = 1$: at the critical batch
# size it costs twice both minima. Here is the exact trade-off beside it.

# %%
with style():
    figure, ax = plt.subplots()
    for name in ("SGD", "momentum 0.9", "power 0.5"):
        ax.plot(examples[name] / examples[name].min(), steps[name] / steps[name].min(), label=name, **LOOK[name])
    excess = np.geomspace(0.02, 30)
    ax.plot(1 + excess, 1 + 1 / excess, "k--", linewidth=1.2, label="hyperbola")
    ax.plot([30, 1, 1], [1, 1, 30], color="grey", linewidth=4, alpha=0.4, zorder=0, label="threshold")
    for batch in (64, 256, 1024, 4096, 16384):
        i = np.flatnonzero(batch == BATCHES)[0]
        at = (examples["SGD"][i] / examples["SGD"].min(), steps["SGD"][i] / steps["SGD"].min())
        ax.annotate(f"{batch}", at, xytext=(6, 4), textcoords="offset points", color=COLORS[0], fontsize=9)
    ticks = [1, 2, 3, 5, 10, 20]
    ax.set(xscale="log", yscale="log", xlim=(0.93, 30), ylim=(0.93, 30))
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_yticks(ticks, map(str, ticks))
    ax.minorticks_off()
    ax.set(xlabel="examples / fewest examples (compute)", ylabel="steps / fewest steps (time)",
           title="What time costs in compute (numbers: batch size of SGD)")
    ax.legend()

cost = examples["SGD"] / examples["SGD"].min()
delay = steps["SGD"] / steps["SGD"].min()
choices = {
    "save compute: 10% more examples than the least": batch_where(cost, 1.1),
    "balance: the critical batch size": critical["SGD"],
    "save time: 10% more steps than the least": batch_where(delay, 1.1),
}
paid = {batch: [np.exp(np.interp(np.log(batch), np.log(BATCHES), np.log(y))) for y in (cost, delay)]
        for batch in choices.values()}
say(
    "**The price list of plain SGD**\n\n| aim | batch size | examples / least | steps / least |\n|---|---|---|---|\n"
    + "\n".join(f"| {aim} | {batch:,.0f} | {paid[batch][0]:.2f} | {paid[batch][1]:.2f} |"
                for aim, batch in choices.items())
)
middle = paid[critical["SGD"]]
say(f"The exact curve bends more sharply than the hyperbola. At the critical batch size {critical['SGD']:,.0f} both costs "
    f"are {middle[0]:.2f} times their least, not 2. Smaller than {batch_where(cost, 1.1):,.0f} saves less than 10% of the "
    f"examples, larger than {batch_where(delay, 1.1):,.0f} saves less than 10% of the steps.")
assert 1.4 < middle[0] < 1.8
assert abs(middle[0] / middle[1] - 1) < 0.02
assert batch_where(cost, 1.1) < critical["SGD"] / 2 < 4 * critical["SGD"] < batch_where(delay, 1.1)

# %% [markdown]
# Nobody trains at forty batch sizes to find this out. The usual shortcut is a *noise scale*, measured from gradients
# $G$ during one run. Two formulas are common: the simple one $\mathrm{tr}(C) / |G|^2$, and the one that weighs by
# curvature, $\mathrm{tr}(HC) / (G^\top H G)$. McCandlish et al. average the gradient noise over training to predict the
# critical batch size. Here both are exact, in tuned plain SGD runs at three batch sizes, beside $E_{min}/S_{min}$ for
# each target that a run passes. $|G|^2$ and $G^\top H G$ are expected values over start and noise. Both are sums over
# coordinates like the risk, with weights $2h$ and $2h^2$, so `nqm.risk` gives them.

# %%
h, c, init, mult = problem.curvature, problem.noise, problem.init, problem.multiplicity
gradient = nqm.NoisyQuadratic(h, c, init, mult * 2 * h)  # its risk is E |G|^2 ...
curved = nqm.NoisyQuadratic(h, c, init, mult * 2 * h**2)  # ... and E G'HG
trace_c, trace_hc = np.sum(mult * c), np.sum(mult * h * c)


def noise_scales(batch):
    """Steps, risk, simple and curvature-weighted noise scale along the tuned plain SGD run at one batch size."""
    i = np.flatnonzero(batch == BATCHES)[0]
    optimizer, last = SGD(rate["SGD"][i]), steps["SGD"][i]
    t = np.unique(np.round(np.concatenate([[0], np.geomspace(1, last, 200), np.linspace(0, last, 200)])).astype(int))
    simple = trace_c / nqm.risk(gradient, optimizer, batch, t)
    weighted = trace_hc / nqm.risk(curved, optimizer, batch, t)
    return t, nqm.risk(problem, optimizer, batch, t), simple, weighted


runs = {batch: noise_scales(batch) for batch in (16, 1024, 65536)}
targets = np.array([1.0, 0.3, 0.1, 0.03, 0.01])
by_target = nqm.sweep(problem, {"SGD": SGD(FREE)}, 2.0 ** np.arange(0, 21), targets)
truth = np.array([by_target.critical_batch_size(target)["SGD"] for target in targets])

with style():
    figure, ax = plt.subplots(figsize=(7.2, 4.8))
    for (batch, (_, loss, simple, weighted)), color, marker in zip(runs.items(), COLORS[::2], MARKERS, strict=False):
        ax.plot(loss, simple, "-", color=color, marker=marker, markevery=25, label=f"simple, batch {batch}")
        ax.plot(loss, weighted, "--", color=color, marker=marker, markevery=25, label=f"weighted, batch {batch}")
    ax.plot(targets, truth, "k:", marker="*", markersize=11, linewidth=2.4, label="$E_{min}/S_{min}$ for this target")
    powers_of_two(ax, "y")
    ax.set(xscale="log", xlim=(6, 0.009), xlabel="risk (loss): reached in the run, or the target", ylabel="examples",
           title="Noise scales in a run, and the critical batch size")
    ax.legend(ncols=2, loc="lower right", fontsize=8)

start = [scale[0] for scale in runs[16][2:]]
means = {batch: [np.trapezoid(scale, t) / t[-1] for scale in (simple, weighted)]
         for batch, (t, _, simple, weighted) in runs.items()}
say("| plain SGD at batch | simple, mean over the run | weighted, mean over the run |\n|---|---|---|\n" + "\n".join(
    f"| {batch:,} | {a:,.0f} ({a / critical['SGD']:.1f} × critical) | {b:,.0f} ({b / critical['SGD']:.1f} × critical) |"
    for batch, (a, b) in means.items()))
every = np.array(list(means.values())) / critical["SGD"]
apart = np.array([a / b for a, b in means.values()])
say(f"**Answer.** For this problem plain SGD has a critical batch size of {critical['SGD']:,.0f}. At the start the noise "
    f"scales are {start[0]:.1f} and {start[1]:.1f}: too small by {critical['SGD'] / start[0]:.0f} and "
    f"{critical['SGD'] / start[1]:.0f} times. Averaged over a run they lie between {every.min():.1f} and "
    f"{every.max():.1f} times the critical batch size. The two differ by {apart.min():.1f} to {apart.max():.1f} times on "
    f"the same run, and each depends on the batch size of the run it is measured on. The critical batch size itself "
    f"depends on the target: {truth[0]:.0f} for risk {targets[0]:g}, {truth[-1]:.0f} for risk {targets[-1]:g}.\n\nSo a "
    f"noise scale from the middle of a run gives the order of magnitude and no more. To decide, tune three batch sizes a "
    f"factor of eight apart, and read the price of time off the steps.")
assert critical["SGD"] / start[0] > 100
assert critical["SGD"] / start[1] > 500
assert 0.1 < every.min() < 0.5 and 5 < every.max() < 20
assert apart.min() > 3
assert np.all(np.diff(truth) > 0)

# %% [markdown]
# ## 2. A threshold or a gradual range? What moves it?
#
# Call $E_{min} / E(B)$ the *efficiency* of a batch size: the share of the examples that was needed. A hard threshold
# would lose efficiency from 90% to 10% within $\log_2 9$ doublings of the batch size. The hyperbola takes $\log_2 81$.

# %%
POWERS = (0.0, 0.25, 0.5, 0.75)
powered = {f"{kind}, {power}": Preconditioned(optimizer, power) for kind, optimizer in
           (("plain", SGD(FREE)), ("momentum", SGD(FREE, momentum=FREE))) for power in POWERS}
moved = nqm.sweep(problem, powered, BATCHES, TARGET).critical_batch_size()

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(3, 2))
    for name in OPTIMIZERS:
        left.plot(BATCHES, 100 * examples[name].min() / examples[name], label=name, **LOOK[name])
        left.plot(critical[name], 3, "|", color=COLORS[list(OPTIMIZERS).index(name)], markersize=16, markeredgewidth=2.5)
    for level in (90, 10):
        left.axhline(level, color="black", linewidth=0.8, linestyle=":")
    powers_of_two(left, "x")
    left.set(ylim=(0, 104), xlabel="batch size (examples)", ylabel="efficiency (% of examples that were needed)",
             title="Efficiency (ticks at the foot: critical batch size)")
    left.legend(loc="upper right")
    for kind, shift, color, hatch in (("plain", -0.2, COLORS[0], ""), ("momentum", 0.2, COLORS[3], "///")):
        sizes = [moved[f"{kind}, {power}"] for power in POWERS]
        bars = right.bar(np.arange(4) + shift, sizes, 0.4, color=color, hatch=hatch, edgecolor="white", label=kind)
        right.bar_label(bars, [f"{size:,.0f}" for size in sizes], fontsize=7.5, padding=2)
    powers_of_two(right, "y")
    right.set(ylim=(2**8, 2**19), xlabel="power of the preconditioner $H^p$", ylabel="critical batch size (examples)",
              title="What moves it")
    right.set_xticks(range(4), map(str, POWERS))
    right.legend(loc="upper left")

width = {}
lines = ["| optimizer | critical batch size | fewest examples | fewest steps | 90% at | 10% at | doublings |", "|---" * 7 + "|"]
for name in OPTIMIZERS:
    high, low = (batch_where(examples[name].min() / examples[name], level) for level in (0.9, 0.1))
    width[name] = np.log2(low / high)
    lines.append(f"| {name} | {critical[name]:,.0f} | {examples[name].min():.3g} | {steps[name].min():,.0f} | {high:,.0f} "
                 f"| {low:,.0f} | {width[name]:.1f} |")
say("\n".join(lines))
fewer_examples, fewer_steps = (
    {name: x["SGD"].min() / x[name].min() for name in OPTIMIZERS} for x in (examples, steps)
)
say(f"**Answer.** A gradual range, of {min(width.values()):.1f} to {max(width.values()):.1f} doublings. That is wider than "
    f"a threshold ({np.log2(9):.1f}) and narrower than the hyperbola ({np.log2(81):.1f}). Momentum 0.9 moves it up by "
    f"{critical['momentum 0.9'] / critical['SGD']:.0f} times, tuned momentum by "
    f"{critical['momentum'] / critical['SGD']:.0f}, preconditioning with power 0.5 by "
    f"{critical['power 0.5'] / critical['SGD']:.0f}, both together by "
    f"{critical['power 0.5 + momentum'] / critical['SGD']:.0f}.\n\nA larger critical batch size is not yet a better "
    f"optimizer: it is a ratio. Power 0.5 cuts the fewest steps by {fewer_steps['power 0.5']:.0f} times, more than tuned "
    f"momentum ({fewer_steps['momentum']:.0f}), and still has the smaller critical batch size of the two. It also cuts "
    f"the fewest examples by {fewer_examples['power 0.5']:.1f} times (tuned momentum: "
    f"{fewer_examples['momentum']:.2f}).")
assert all(np.log2(9) < doublings < np.log2(81) for doublings in width.values())
assert critical["SGD"] < critical["momentum 0.9"] < critical["momentum"] < critical["power 0.5 + momentum"]
assert critical["power 0.5"] < critical["momentum"]
assert fewer_steps["power 0.5"] > fewer_steps["momentum"]
assert fewer_examples["power 0.5"] > 3 > 1.3 > fewer_examples["momentum"]

# %% [markdown]
# ## 3. How does the learning rate scale with the batch size?
#
# The batch size is the number of examples whose gradients are averaged before one update: examples per device, times
# devices, times accumulation steps. The model sees the product only. With momentum the number that matters is the
# *effective* learning rate, lr / (1 - momentum). The local slope of the best rate on log axes tells the rule: 1 is
# linear scaling, 1/2 is square root, 0 is none.

# %%
gap = {name: 1 - column["momentum"][name] for name in OPTIMIZERS}
effective = {name: rate[name] / gap[name] for name in OPTIMIZERS}
slope = {name: np.gradient(np.log(effective[name]), np.log(BATCHES)) for name in OPTIMIZERS}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    for name in OPTIMIZERS:
        left.plot(BATCHES, effective[name], label=name, **LOOK[name])
        right.plot(BATCHES, slope[name], label=name, **LOOK[name])
    powers_of_two(left)
    powers_of_two(right, "x")
    left.set(xlabel="batch size (examples)", ylabel="best effective learning rate (1 / curvature$^{1-p}$)",
             title="Best effective learning rate")
    right.set(xlabel="batch size (examples)", ylabel="local slope (1: linear, 0.5: square root)",
              title="Its slope on log axes")
    right.axhline(0.5, color="black", linewidth=1, linestyle=":")
    left.legend()

linear_until = {name: batch_where(np.maximum(slope[name], 1e-6), 0.9) for name in OPTIMIZERS}
share = {name: linear_until[name] / critical[name] for name in OPTIMIZERS}
passing = {name: np.log2(batch_where(np.maximum(slope[name], 1e-6), 0.25)
                         / batch_where(np.maximum(slope[name], 1e-6), 0.75)) for name in OPTIMIZERS}
say("| optimizer | slope 0.9 at batch | share of its critical batch size | doublings from slope 0.75 to 0.25 |\n"
    "|---|---|---|---|\n" + "\n".join(
        f"| {name} | {linear_until[name]:,.0f} | {share[name]:.2f} | {passing[name]:.1f} |" for name in OPTIMIZERS))
small = BATCHES <= 64
same = np.abs(effective["momentum 0.9"] / effective["SGD"] - 1)[small].max()
edge = rate["SGD"][-1] / nqm.max_stable_lr(problem, SGD(FREE))
say(f"**Answer.** Linear, up to {min(share.values()):.1f} to {max(share.values()):.1f} times the optimizer's own critical "
    f"batch size. Then flat: plain SGD ends at {edge:.1%} of the largest stable learning rate. There is no range of square "
    f"root scaling. The slope falls from 0.75 to 0.25 within {min(passing.values()):.1f} to {max(passing.values()):.1f} "
    f"doublings and only passes 1/2. Up to batch {BATCHES[small].max():.0f} the best effective rate with momentum 0.9 is "
    f"plain SGD's to {same:.1%}: to switch momentum on there, multiply the learning rate by 1 - momentum.")
assert all(0.15 < s < 0.6 for s in share.values())
assert all(doublings < 3 for doublings in passing.values())
assert all(np.abs(slope[name][BATCHES <= 32] - 1).max() < 0.03 for name in OPTIMIZERS)
assert same < 0.05
assert 0.95 < edge < 1

# %% [markdown]
# What does a rule cost where it does not hold? Take plain SGD, tuned at batch 16, and carry its learning rate to other
# batch sizes by a rule instead of tuning again. The third rule is linear scaling with a ceiling:
# $1 / lr = 1 / lr_{linear} + 1 / lr_{ceiling}$, with the ceiling 5% below the largest stable learning rate.

# %%
ANCHOR = np.flatnonzero(BATCHES == 16)[0]
factor = BATCHES / BATCHES[ANCHOR]
ceiling = 0.95 * nqm.max_stable_lr(problem, SGD(FREE))
known = rate["SGD"][ANCHOR]
rules = {
    "linear": known * factor,
    "square root": known * factor**0.5,
    "linear with a ceiling": 1 / (1 / (known * factor) + 1 / ceiling),
}
penalty = {rule: nqm.steps_to_target(problem, SGD(lr), BATCHES, TARGET) / steps["SGD"] for rule, lr in rules.items()}

with style():
    figure, ax = plt.subplots()
    for (rule, ratio), color, marker, line in zip(penalty.items(), COLORS[:3], MARKERS, LINES, strict=False):
        reached = np.isfinite(ratio)
        row = {"linear": 3.75, "square root": 3.6}.get(rule)
        ax.plot(BATCHES[reached], ratio[reached], color=color, marker=marker, linestyle=line, label=rule)
        if row:
            ax.plot(BATCHES[~reached], np.full(np.sum(~reached), row), "x", color=color, markersize=5,
                    label=f"{rule}: never reaches the target")
    powers_of_two(ax, "x")
    ax.set(ylim=(0.9, 3.9), xlabel="batch size (examples)", ylabel="steps / steps when tuned",
           title="What a scaling rule costs plain SGD, tuned at batch 16")
    ax.legend(loc="center right")

works = {rule: BATCHES[np.isfinite(ratio)] for rule, ratio in penalty.items()}
worst = {rule: ratio[np.isfinite(ratio)].max() for rule, ratio in penalty.items()}
total = 32 * 8 * 4
say(f"**Answer.** Linear scaling is nearly free up to batch {works['linear'].max():.0f} (at worst {worst['linear']:.2f} "
    f"times the steps). At the next one tried, {BATCHES[BATCHES > works['linear'].max()][0]:.0f}, it never reaches the "
    f"target: too much noise stays in, and from learning rate {nqm.max_stable_lr(problem, SGD(FREE)):g} on it diverges. "
    f"Square root is safe a little longer and slow: up to {worst['square root']:.1f} times the steps. It fails to scale "
    f"down, below batch {works['square root'].min():.0f}, and up, above {works['square root'].max():,.0f}. Linear with a "
    f"ceiling works at every batch size here and costs at most {worst['linear with a ceiling'] - 1:.0%}.\n\nAn example: 32 "
    f"examples per device, 8 devices, 4 accumulation steps are batch {total}. Tuned at batch 16, lr {known:.3f}; the "
    f"ceiling rule gives lr {rules['linear with a ceiling'][total == BATCHES][0]:.2f}, tuning gives "
    f"{rate['SGD'][total == BATCHES][0]:.2f}, linear scaling {rules['linear'][total == BATCHES][0]:.2f}. If the framework "
    f"sums gradients over accumulation steps instead of averaging them, divide by {4} first.")
assert np.isinf(penalty["linear"][BATCHES > critical["SGD"]]).all()
assert worst["linear"] < 1.1
assert worst["square root"] > 2.5
assert np.isinf(penalty["square root"][0])
assert works["linear with a ceiling"].size == BATCHES.size
assert worst["linear with a ceiling"] < 1.25

# %% [markdown]
# ## 4. When do momentum and preconditioning pay?
#
# The number of steps of tuned plain SGD, divided by those of each optimizer at the same batch size: how many times fewer
# steps. The black line is what no algorithm can exceed, by the Bayes bound on the examples that it must have seen.

# %%
fewer = {name: steps["SGD"] / steps[name] for name in OPTIMIZERS if name != "SGD"}
bound = nqm.bounds.examples_to_target(problem, TARGET)

with style():
    figure, ax = plt.subplots()
    for name in fewer:
        ax.plot(BATCHES, fewer[name], label=name, **LOOK[name])
    ax.plot(BATCHES, examples["SGD"] / bound, "k-", linewidth=1.2, label="bound for any algorithm")
    ax.axvline(critical["SGD"], color="grey", linewidth=1.2, linestyle="--")
    ax.annotate("critical batch size\nof plain SGD", (critical["SGD"], 330), xytext=(-6, 0), fontsize=9, ha="right",
                textcoords="offset points", va="center")
    powers_of_two(ax, "x")
    ax.set(yscale="log", ylim=(0.8, 800), xlabel="batch size (examples)", ylabel="steps of plain SGD / steps",
           title="How many times fewer steps than plain SGD")
    ax.legend(loc="lower right")

saves_10, saves_50 = (batch_where(fewer["momentum 0.9"], 1 / (1 - saved)) for saved in (0.1, 0.5))
tuned_50 = batch_where(fewer["momentum"], 2)
least = {name: 1 - 1 / ratio.min() for name, ratio in fewer.items()}
memory = 1 / (gap["momentum"] * steps["momentum"])[0]
say(f"**Answer.** Momentum 0.9 saves {least['momentum 0.9']:.1%} of the steps at batch {BATCHES[0]:.0f}, 10% from batch "
    f"{saves_10:,.0f}, 50% from {saves_50:,.0f}, and takes {fewer['momentum 0.9'].max():.0f} times fewer steps at the "
    f"largest. So it pays from about {saves_10 / critical['SGD']:.1f} times plain SGD's critical batch size on, and not "
    f"below.\n\nTuned without limit, momentum saves {least['momentum']:.0%} even at the smallest batch, and 50% from "
    f"{tuned_50:,.0f}. For the {least['momentum']:.0%} it needs momentum {1 - gap['momentum'][0]:.7f} at batch "
    f"{BATCHES[0]:.0f}, a memory of {memory:.0%} of the whole run. Few would tune that far.\n\nPreconditioning pays at "
    f"every batch size: power 0.5 saves at least {least['power 0.5']:.0%}. Once it is there, momentum adds little before "
    f"very large batches: {1 - steps['power 0.5 + momentum'][0] / steps['power 0.5'][0]:.0%} at the smallest batch.\n\n"
    f"At small batches plain SGD uses {examples['SGD'].min() / bound:.0f} times the examples of the bound, power 0.5 with "
    f"momentum {examples['power 0.5 + momentum'].min() / bound:.1f} times.")
assert least["momentum 0.9"] < 0.01
assert 0.2 < saves_10 / critical["SGD"] < 0.5 < 1 < saves_50 / critical["SGD"] < 2
assert 0.1 < least["momentum"] < 0.2
assert least["power 0.5"] > 0.7
assert all(np.all(ratio <= examples["SGD"] / bound) for ratio in fewer.values())

# %% [markdown]
# ## What real networks may do differently
#
# - **Agreement.** Zhang et al. (2019) trained five architectures. There, as here, momentum SGD needed as many steps as
#   plain SGD below plain SGD's critical batch size and extended perfect scaling above it; K-FAC had the largest critical
#   batch size in all cases; the best learning rate of plain SGD grew linearly, then levelled off. They say that their
#   results on momentum and batch size agree with Shallue et al. (2018), who also found that the critical batch size
#   depends on optimizer, architecture and data set.
# - **Preconditioning.** Here it knows the curvature exactly and costs nothing. Adam and K-FAC estimate theirs from noisy
#   gradients, so their learning rates may scale by other rules. In the paper they reduced the steps at the smallest
#   batches in some cases, not in all. Here every step of every optimizer costs the same.
# - **Schedules.** The learning rate is constant here. The paper finds that optimized schedules close most of the gap to
#   the bound at small batches, so the savings of section 4 at small batches would shrink with a good schedule.
# - **Spectrum, noise, target.** $h_i = 1/i$ and $C = H$ are assumptions; the paper supports them with measurements on
#   a few networks. Noise that changes along the run moves the noise scales of section 1. Shares of the critical batch
#   size may carry over; batch sizes themselves do not.
# - **Steps are counted to a risk.** Generalisation, finite data and the price of communication are outside the model.
#
# To ask the same of another problem, change `problem` in the first cell: `nqm.NoisyQuadratic(curvature, noise, init)`
# takes any spectrum.
#
# - Zhang, Li, Nado, Martens, Sachdeva, Dahl, Shallue, Grosse: Which Algorithmic Choices Matter at Which Batch Sizes?
#   Insights From a Noisy Quadratic Model (2019).
# - McCandlish, Kaplan, Amodei, OpenAI Dota Team: An Empirical Model of Large-Batch Training (2018).
# - Shallue, Lee, Antognini, Sohl-Dickstein, Frostig, Dahl: Measuring the Effects of Data Parallelism on Neural Network
#   Training (2018).
