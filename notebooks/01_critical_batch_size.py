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
# Four questions, answered on the noisy quadratic model of Zhang et al. (2019):
#
# 1. Which batch size should I use? The formulas that people quote disagree by a factor of ten and more.
# 2. Is the critical batch size a threshold or a gradual range? How do momentum and preconditioning move it?
# 3. How does the learning rate scale with batch size, devices and accumulation: linear, square root, until where?
# 4. When do momentum and preconditioning pay at all against plain SGD with small batches?
#
# **The model.** The loss is $\tfrac12 \sum_i h_i \theta_i^2$ with $d = 10^4$ curvatures $h_i = 1/i$. The gradient of
# a batch of $B$ examples carries noise of variance $c_i / B$ in coordinate $i$, with $C = H$, that is $c_i = h_i$.
# The start is $\theta \sim N(0, I)$. The target is an expected loss (the *risk*) of 0.01. The learning rate is
# constant. These are the settings of the paper. The risk after $t$ steps is known exactly on this model: nothing
# here is simulated, and there are no error bars.
#
# **The optimizers.** Plain SGD, momentum fixed at 0.9, momentum tuned together with the learning rate, and the
# preconditioner $H^p$: power $p = 0$ is none, $p = 1$ is Newton's method. Every free number is tuned at every batch
# size for the fewest steps, over the continuum.
#
# **It is a model.** It has no non-convexity, no overfitting, and noise that does not depend on the weights. The last
# section says where real networks may differ.
#
# Every number in an answer is computed in the cell that prints it. The `assert` lines below an answer make the
# notebook fail when the answer is no longer true.

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
    "SGD": SGD(FREE),  # FREE: to be tuned
    "momentum 0.9": SGD(FREE, momentum=0.9),
    "momentum": SGD(FREE, momentum=FREE),
    "power 0.5": Preconditioned(SGD(FREE), power=0.5),
    "power 0.5 + momentum": Preconditioned(SGD(FREE, momentum=FREE), power=0.5),
}

problem = nqm.NoisyQuadratic.power_law(10_000)
result = nqm.sweep(problem, OPTIMIZERS, BATCHES, TARGET)

critical = result.critical_batch_size()  # by name: E_min / S_min, fewest examples over fewest steps
rows = {name: result.table["optimizer"] == name for name in OPTIMIZERS}
steps, examples, rate, momentum = (
    {name: result.table[column][here] for name, here in rows.items()}
    for column in ("steps", "examples", "lr", "momentum")
)

# How the lines look, so that they differ in grey too.
LINES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))
LOOK = {
    name: {"label": name, "color": color, "marker": marker, "linestyle": line, "markevery": 2}
    for name, color, marker, line in zip(OPTIMIZERS, COLORS, MARKERS, LINES, strict=False)
}


def batch_where(curve, level):
    """The batch size at which a curve over BATCHES first crosses a level; straight between points on log axes."""
    x, y = np.log2(BATCHES), np.log(curve / level)
    i = np.flatnonzero((y[:-1] > 0) != (y[1:] > 0))[0]
    return 2.0 ** (x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def say(text):
    display(Markdown(text))


def table(*lines):
    """Rows of a table, the header first."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    display(Markdown("\n".join([head, "|---" * len(lines[0]) + "|", *body])))


ax = result.plot()
ax.set_title(f"Fewest steps to risk {TARGET:g}, tuned at each batch size")
plt.show()
assert set(result.table["status"]) == {"tuned"}

# %% [markdown]
# All curves have one shape. On the left, twice the batch takes half the steps. On the right, a larger batch saves no
# steps. All that follows is read off these curves.
#
# ## 1. Which batch size should I use?
#
# A batch size sets a price. Small batches need the fewest examples $E_{min}$, which is compute. Large batches need
# the fewest steps $S_{min}$, which is time. Following McCandlish et al. (2018), the *critical batch size* is
# $E_{min} / S_{min}$. They describe the trade-off by the hyperbola $(S/S_{min} - 1)(E/E_{min} - 1) = 1$: at the
# critical batch size it costs twice both minima. Here is the exact trade-off beside it.

# %%
cost = {name: examples[name] / examples[name].min() for name in OPTIMIZERS}
delay = {name: steps[name] / steps[name].min() for name in OPTIMIZERS}

with style():
    figure, ax = plt.subplots()
    for name in ("SGD", "momentum 0.9", "power 0.5"):
        ax.plot(cost[name], delay[name], **LOOK[name])
    excess = np.geomspace(0.02, 50)
    ax.plot(1 + excess, 1 + 1 / excess, "k--", linewidth=1.2, label="hyperbola")
    ax.plot([50, 1, 1], [1, 1, 50], color="grey", linewidth=4, alpha=0.4, zorder=0, label="hard threshold")
    for batch in (64, 256, 1024, 4096, 16384):
        at = (cost["SGD"][batch == BATCHES][0], delay["SGD"][batch == BATCHES][0])
        ax.plot(*at, "o", color=COLORS[0], markersize=7, zorder=5)
        ax.annotate(f"{batch:,}", at, xytext=(6, 8), textcoords="offset points", fontsize=9, va="center")
    ticks = [1, 2, 3, 5, 10, 20]
    ax.set(xscale="log", yscale="log", xlim=(0.9, 30), ylim=(0.9, 30))
    ax.minorticks_off()
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_yticks(ticks, map(str, ticks))
    ax.set(xlabel="compute: examples / fewest examples", ylabel="time: steps / fewest steps")
    ax.set_title("What time costs in compute (numbers: batch size of SGD)")
    ax.legend()
plt.show()

thrifty, hasty = batch_where(cost["SGD"], 1.1), batch_where(delay["SGD"], 1.1)
prices = []
for aim, batch in (
    ("save compute: 10% more examples than the fewest", thrifty),
    ("balance: the critical batch size", critical["SGD"]),
    ("save time: 10% more steps than the fewest", hasty),
):
    paid = [np.exp(np.interp(np.log(batch), np.log(BATCHES), np.log(curve["SGD"]))) for curve in (cost, delay)]
    prices.append((aim, f"{batch:,.0f}", f"{paid[0]:.2f}", f"{paid[1]:.2f}"))
table(("plain SGD: aim", "batch size", "examples / fewest", "steps / fewest"), *prices)
say(
    f"**Answer, first half.** There is no one best batch size, there is a price list. Batches below {thrifty:,.0f} "
    f"take less than 10% more examples than the fewest. Batches above {hasty:,.0f} take less than 10% more steps than "
    f"the fewest. What lies between depends on what time is worth.\n\n"
    f"The exact curve bends more sharply than the hyperbola. At the critical batch size, {critical['SGD']:,.0f}, "
    f"plain SGD pays {prices[1][2]} times both minima, not 2 times."
)
assert 1.4 < float(prices[1][2]) < 1.8
assert abs(float(prices[1][2]) - float(prices[1][3])) < 0.02
assert thrifty < critical["SGD"] / 2
assert hasty > critical["SGD"] * 4

# %% [markdown]
# Nobody trains at forty batch sizes to find this out. The usual shortcut is a *noise scale*, measured from gradients
# $G$ in one run. Two formulas are common: the simple one, $\mathrm{tr}(C) / |G|^2$, and the one weighted by
# curvature, $\mathrm{tr}(HC) / (G^\top H G)$. McCandlish et al. use the gradient noise averaged over training. Here
# are both, without measurement error, in tuned plain SGD runs at three batch sizes. The stars are $E_{min}/S_{min}$
# for each target on the way.
#
# $|G|^2$ and $G^\top H G$ stand for expected values over start and noise. Both are sums over coordinates like the
# risk, with other weights, so `nqm.risk` gives them.

# %%
h, c, init, mult = problem.curvature, problem.noise, problem.init, problem.multiplicity
simple_problem = nqm.NoisyQuadratic(h, c, init, 2 * h * mult)  # its risk is E |G|^2
weighted_problem = nqm.NoisyQuadratic(h, c, init, 2 * h**2 * mult)  # its risk is E G'HG

runs = {}  # by batch size: steps, risk, simple and weighted noise scale
for batch in (16, 1024, 65536):
    optimizer, last = SGD(rate["SGD"][batch == BATCHES][0]), steps["SGD"][batch == BATCHES][0]
    t = np.unique(np.append(0, np.round([np.geomspace(1, last, 200), np.linspace(1, last, 200)]).astype(int)))
    simple = np.sum(mult * c) / nqm.risk(simple_problem, optimizer, batch, t)
    weighted = np.sum(mult * h * c) / nqm.risk(weighted_problem, optimizer, batch, t)
    runs[batch] = t, nqm.risk(problem, optimizer, batch, t), simple, weighted

targets = np.array([1.0, 0.3, 0.1, 0.03, TARGET])
by_target = nqm.sweep(problem, {"SGD": SGD(FREE)}, BATCHES, targets)
truth = np.array([by_target.critical_batch_size(target)["SGD"] for target in targets])

with style():
    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    for (batch, (_, loss, simple, weighted)), color, marker in zip(runs.items(), COLORS[::2], MARKERS, strict=False):
        ax.plot(loss, simple, "-", color=color, marker=marker, markevery=25, label=f"simple, batch {batch:,}")
        ax.plot(loss, weighted, "--", color=color, marker=marker, markevery=25, label=f"weighted, batch {batch:,}")
    ax.plot(targets, truth, "k:", marker="*", markersize=12, linewidth=2.4, label="$E_{min}/S_{min}$ for this target")
    powers_of_two(ax, "y")
    ax.set(xscale="log", xlim=(6, 0.009), xlabel="risk (loss) reached in the run, or target", ylabel="examples")
    ax.set_title("Noise scales in a run, and the critical batch size of plain SGD")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

late = np.array([[scale[-1] / np.interp(0.1, loss[::-1], scale[::-1]) for scale in scales]
                 for _, loss, *scales in runs.values()])  # fmt: skip
starts = [scale[0] for scale in runs[16][2:]]
means = np.array([[np.trapezoid(scale, t) / t[-1] for scale in scales] for t, _, *scales in runs.values()])
off, apart = means / critical["SGD"], means[:, 0] / means[:, 1]
pairs = [nqm.sweep(problem, {"SGD": SGD(FREE)}, [mean / 8, mean * 8], TARGET) for mean in means.flat]
better = np.array([pair.critical_batch_size()["SGD"] for pair in pairs]) / critical["SGD"]
table(
    ("plain SGD at batch", "simple, mean over the run", "weighted, mean over the run"),
    *((f"{batch:,}", *(f"{mean:,.0f} ({mean / critical['SGD']:.1f} times critical)" for mean in row))
      for batch, row in zip(runs, means, strict=True)),
)  # fmt: skip
say(
    f"**Answer, second half.** The critical batch size of plain SGD on this problem is {critical['SGD']:,.0f}. At "
    f"the start the noise scales are {starts[0]:.1f} and {starts[1]:.1f}: too small by "
    f"{critical['SGD'] / starts[0]:.0f} and {critical['SGD'] / starts[1]:.0f} times. Averaged over a "
    f"run they are {off.min():.1f} to {off.max():.1f} times the critical batch size. On the same run the two differ "
    f"by {apart.min():.1f} to {apart.max():.1f} times, and both depend on the batch size of the run. "
    f"They also level off: from risk 0.1 to {TARGET:g} none rises by more than {late.max() - 1:.0%}. The critical "
    f"batch size rises {truth[-1] / truth[2]:.1f} times between these two targets.\n\n"
    f"So a noise scale averaged over a run gives an order of magnitude, one from the start gives nothing. To do "
    f"better, tune two runs, at an eighth and at eight times the averaged noise scale. Divide the examples of the "
    f"first by the steps of the second: {better.min():.1f} to {better.max():.1f} times the critical batch size, "
    f"whichever row and column of the table it came from. That is checked on this problem and this target only."
)
assert critical["SGD"] / max(starts) > 100
assert 0.1 < off.min() < 0.5
assert 5 < off.max() < 20
assert apart.min() > 3
assert late.max() < 1.2
assert truth[-1] / truth[2] > 5
assert np.all(np.diff(truth) > 0)
assert truth[-1] == critical["SGD"]
assert 0.7 < better.min() < better.max() < 2

# %% [markdown]
# ## 2. A threshold or a gradual range? What moves it?
#
# Call $E_{min} / E(B)$ the *efficiency* of a batch size: the share of the examples that was needed. At a hard
# threshold the efficiency falls from 90% to 10% within $\log_2 9$ doublings of the batch size. On the hyperbola it
# takes $\log_2 81$.

# %%
POWERS = (0.0, 0.25, 0.5, 0.75)
KINDS = {"plain SGD": SGD(FREE), "momentum": SGD(FREE, momentum=FREE)}
moved = {
    kind: nqm.sweep(problem, {str(p): Preconditioned(optimizer, p) for p in POWERS}, BATCHES, TARGET)
    for kind, optimizer in KINDS.items()
}
efficiency = {name: 1 / cost[name] for name in OPTIMIZERS}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6), width_ratios=(5, 4))
    for name, look in LOOK.items():
        left.plot(BATCHES, 100 * efficiency[name], **look)
    for level in (90, 10):
        left.axhline(level, color="black", linewidth=1, linestyle=":")
        left.annotate(f"{level}%", (4, level), xytext=(0, -3), textcoords="offset points", va="top", fontsize=9)
    powers_of_two(left, "x")
    left.set(ylim=(0, 104), xlabel="batch size (examples)", ylabel="efficiency (% of the examples that was needed)")
    left.set_title("How fast efficiency is lost")
    left.legend(loc="center left")
    for kind, shift, color, hatch in zip(KINDS, (-0.2, 0.2), (COLORS[0], COLORS[3]), ("", "///"), strict=True):
        sizes = list(moved[kind].critical_batch_size().values())
        bars = right.bar(np.arange(4) + shift, sizes, 0.4, color=color, hatch=hatch, edgecolor="white", label=kind)
        right.bar_label(bars, [f"{size:,.0f}" for size in sizes], fontsize=7, padding=2)
    powers_of_two(right, "y")
    right.set(ylim=(2**8, 2**19), xlabel="power $p$ of the preconditioner $H^p$", ylabel="examples")
    right.set_axisbelow(True)
    right.set_title("Critical batch size")
    right.set_xticks(range(4), map(str, POWERS))
    right.legend(loc="upper left")
plt.show()

ends = {name: [batch_where(efficiency[name], level) for level in (0.9, 0.1)] for name in OPTIMIZERS}
width = {name: np.log2(low / high) for name, (high, low) in ends.items()}
table(
    ("optimizer", "critical batch size", "fewest examples", "fewest steps", "90% until", "10% at", "doublings"),
    *((name, f"{critical[name]:,.0f}", f"{examples[name].min():,.0f}", f"{steps[name].min():,.0f}",
       *(f"{end:,.0f}" for end in ends[name]), f"{width[name]:.1f}") for name in OPTIMIZERS),
)  # fmt: skip
up = {name: critical[name] / critical["SGD"] for name in OPTIMIZERS}
fewer_steps = {name: steps["SGD"].min() / steps[name].min() for name in OPTIMIZERS}
fewer_examples = {name: examples["SGD"].min() / examples[name].min() for name in OPTIMIZERS}
say(
    f"**Answer.** A gradual range, of {min(width.values()):.1f} to {max(width.values()):.1f} doublings: wider than a "
    f"hard threshold ({np.log2(9):.1f}), narrower than the hyperbola ({np.log2(81):.1f}). Momentum 0.9 moves it up "
    f"{up['momentum 0.9']:.0f} times, tuned momentum {up['momentum']:.0f} times, preconditioning with power 0.5 "
    f"{up['power 0.5']:.0f} times, both together {up['power 0.5 + momentum']:.0f} times.\n\n"
    f"A larger critical batch size does not make a better optimizer, because it is a ratio. Power 0.5 cuts the fewest "
    f"steps by {fewer_steps['power 0.5']:.0f} times, more than tuned momentum ({fewer_steps['momentum']:.0f}), and "
    f"still has the smaller critical batch size. The reason: it also cuts the fewest examples, by "
    f"{fewer_examples['power 0.5']:.1f} times, which tuned momentum hardly does ({fewer_examples['momentum']:.1f})."
)
assert np.log2(9) < min(width.values()) < max(width.values()) < np.log2(81)
assert 1 < up["momentum 0.9"] < up["momentum"] < up["power 0.5 + momentum"]
assert 1 < up["power 0.5"] < up["momentum"]
assert fewer_steps["power 0.5"] > fewer_steps["momentum"]
assert fewer_examples["power 0.5"] > 3
assert fewer_examples["momentum"] < 1.3

# %% [markdown]
# ## 3. How does the learning rate scale with the batch size?
#
# The batch size is the number of examples whose gradients are averaged before one update: examples per device, times
# devices, times accumulation steps. The model sees only the product. With momentum the *effective* learning rate
# counts, lr / (1 - momentum). The local slope of the best rate on log axes tells the rule: 1 is linear scaling, 1/2
# is square root, 0 is no scaling.

# %%
effective = {name: rate[name] / (1 - momentum[name]) for name in OPTIMIZERS}
slope = {name: np.gradient(np.log(effective[name]), np.log(BATCHES)) for name in OPTIMIZERS}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    for name, look in LOOK.items():
        left.plot(BATCHES, effective[name], **look)
        right.plot(BATCHES, slope[name], **look)
        right.plot(critical[name], 0, "|", color=look["color"], markersize=18, markeredgewidth=3)
    powers_of_two(left)
    powers_of_two(right, "x")
    left.set(xlabel="batch size (examples)", ylabel="lr / (1 - momentum), in curvature$^{p-1}$")
    left.set_title("Best effective learning rate")
    left.legend()
    right.axhline(0.5, color="black", linewidth=1, linestyle=":")
    right.annotate("square root", (4, 0.5), xytext=(0, 4), textcoords="offset points", fontsize=9)
    right.set(xlabel="batch size (examples)", ylabel="slope on log axes (1: linear)", ylim=(-0.08, 1.05))
    right.set_title("Its slope (bars at the foot: critical batch size)")
plt.show()


def slope_is(name, value):
    return batch_where(np.maximum(slope[name], 1e-6), value)


share = {name: slope_is(name, 0.9) / critical[name] for name in OPTIMIZERS}
passing = {name: np.log2(slope_is(name, 0.25) / slope_is(name, 0.75)) for name in OPTIMIZERS}
table(
    ("optimizer", "slope 0.9 at batch", "that is times critical", "doublings from slope 0.75 to 0.25"),
    *((name, f"{slope_is(name, 0.9):,.0f}", f"{share[name]:.2f}", f"{passing[name]:.1f}") for name in OPTIMIZERS),
)
small = BATCHES <= 64
alike = np.abs(effective["momentum 0.9"] / effective["SGD"] - 1)[small].max()
limit = nqm.max_stable_lr(problem, SGD(FREE))
wider = nqm.max_stable_lr(problem, SGD(FREE, momentum=0.9)) / (1 - 0.9) / limit
say(
    f"**Answer.** Linear, up to {min(share.values()):.1f} to {max(share.values()):.1f} times the optimizer's own "
    f"critical batch size. Then flat: at the largest batch, plain SGD's best rate is {rate['SGD'][-1] / limit:.1%} of "
    f"the largest stable one. Square root is no regime of its own. The slope falls from 0.75 to 0.25 within "
    f"{min(passing.values()):.1f} to {max(passing.values()):.1f} doublings and only passes 1/2.\n\n"
    f"Up to batch {BATCHES[small].max():.0f} the best effective rate with momentum 0.9 is plain SGD's to "
    f"{alike:.1%}. So to switch momentum on at a small batch, multiply the learning rate by 1 - momentum. The largest "
    f"stable effective rate is {wider:.0f} times plain SGD's, and the critical batch size moved up by as much "
    f"({up['momentum 0.9']:.0f} times)."
)
assert 0.15 < min(share.values()) < max(share.values()) < 0.6
assert max(passing.values()) < 3
assert all(np.abs(slope[name][BATCHES <= 32] - 1).max() < 0.03 for name in OPTIMIZERS)
assert alike < 0.05
assert 0.95 < rate["SGD"][-1] / limit < 1
assert abs(up["momentum 0.9"] / wider - 1) < 0.1

# %% [markdown]
# What does a rule cost where it does not hold? Take plain SGD, tuned at batch 16, and carry its learning rate to
# other batch sizes by a rule, without tuning again. The third rule is linear scaling with a ceiling,
# $1 / lr = 1 / lr_{linear} + 1 / lr_{ceiling}$, with the ceiling 5% below the largest stable learning rate.

# %%
known = rate["SGD"][BATCHES == 16][0]
factor = BATCHES / 16
rules = {
    "linear": known * factor,
    "square root": known * factor**0.5,
    "linear with a ceiling": 1 / (1 / (known * factor) + 1 / (0.95 * limit)),
}
penalty = {rule: nqm.steps_to_target(problem, SGD(lr), BATCHES, TARGET) / steps["SGD"] for rule, lr in rules.items()}
works = {rule: np.isfinite(ratio) for rule, ratio in penalty.items()}

with style():
    figure, ax = plt.subplots()
    for (rule, ratio), color, marker, line, height in zip(
        penalty.items(), COLORS[::2], MARKERS, LINES, (4.1, 3.9, 0), strict=False
    ):
        ax.plot(BATCHES, np.where(works[rule], ratio, np.nan), color=color, marker=marker, linestyle=line, label=rule)
        if not works[rule].all():
            failed = BATCHES[~works[rule]]
            ax.plot(failed, np.full(failed.size, height), marker, color=color, fillstyle="none",
                    label=f"{rule}: never gets there")  # fmt: skip
    powers_of_two(ax, "x")
    ax.set(ylim=(0.9, 4.3), xlabel="batch size (examples)", ylabel="steps / steps when tuned at that batch")
    ax.set_title("What a scaling rule costs plain SGD, tuned at batch 16")
    ax.legend(loc="center right")
plt.show()

worst = {rule: ratio[works[rule]].max() for rule, ratio in penalty.items()}
reach = {rule: BATCHES[works[rule]] for rule in rules}
per_device, devices, accumulation = 32, 8, 4
total = per_device * devices * accumulation
here = total == BATCHES
say(
    f"**Answer.** Linear scaling is nearly free up to batch {reach['linear'].max():.0f}: at worst "
    f"{worst['linear']:.2f} times the steps. At the next batch size tried, "
    f"{BATCHES[np.sum(works['linear'])]:.0f}, it never reaches the target, because too much noise stays in. "
    f"From learning rate {limit:g} on it diverges. The square root rule is slow, up to {worst['square root']:.1f} "
    f"times the steps, and it fails in both directions: below batch {reach['square root'].min():.0f}, where it "
    f"lowers the rate too little for the noise, and above {reach['square root'].max():,.0f}. "
    f"Its cost falls again before that, "
    f"because the best rate is flat there, and the rule catches up with it on the way to too much. Linear with a "
    f"ceiling works at every batch size here and costs at most {worst['linear with a ceiling'] - 1:.0%}.\n\n"
    f"An example: {per_device} examples per device, {devices} devices and {accumulation} accumulation steps make a "
    f"batch of {total:,}. From lr {known:.3f} at batch 16, the ceiling rule gives "
    f"{rules['linear with a ceiling'][here][0]:.2f}, tuning gives {rate['SGD'][here][0]:.2f}, and linear scaling "
    f"gives {rules['linear'][here][0]:.2f}, which diverges. Where a framework sums the gradients of the accumulation "
    f"steps instead of averaging them, divide the rate by {accumulation}."
)
assert works["linear"][: np.sum(works["linear"])].all()
assert reach["linear"].max() < critical["SGD"] / 2
assert worst["linear"] < 1.1
assert worst["square root"] > 2.5
assert not works["square root"][0]
assert not works["square root"][-1]
assert works["linear with a ceiling"].all()
assert worst["linear with a ceiling"] < 1.25
assert rules["linear"][here][0] > limit

# %% [markdown]
# ## 4. When do momentum and preconditioning pay?
#
# Here are the steps of tuned plain SGD over those of each optimizer at the same batch size: how many times fewer
# steps it takes. No algorithm can be above the black line, the Bayes bound on the examples that must be seen.

# %%
fewer = {name: steps["SGD"] / steps[name] for name in OPTIMIZERS if name != "SGD"}
bound = nqm.bounds.examples_to_target(problem, TARGET)

with style():
    figure, ax = plt.subplots()
    for name, ratio in fewer.items():
        ax.plot(BATCHES, ratio, **LOOK[name])
    ax.plot(BATCHES, examples["SGD"] / bound, "k-", linewidth=1.2, label="bound for any algorithm")
    ax.axvline(critical["SGD"], color="grey", linewidth=1.2, linestyle="--")
    ax.annotate("critical batch size\nof plain SGD", (critical["SGD"], 300), xytext=(-6, 0), fontsize=9, ha="right",
                textcoords="offset points", va="center")  # fmt: skip
    powers_of_two(ax, "x")
    ax.set(yscale="log", ylim=(0.8, 800), xlabel="batch size (examples)", ylabel="steps of plain SGD / steps")
    ax.set_yticks([1, 2, 5, 10, 20, 50, 100, 200, 500], ["1", "2", "5", "10", "20", "50", "100", "200", "500"])
    ax.minorticks_off()
    ax.set_title("How many times fewer steps than plain SGD")
    ax.legend(loc="lower right")
plt.show()

saves_10, saves_50 = (batch_where(fewer["momentum 0.9"], 1 / (1 - saved)) for saved in (0.1, 0.5))
least = {name: 1 - 1 / ratio.min() for name, ratio in fewer.items()}
memory = 1 / (1 - momentum["momentum"][0]) / steps["momentum"][0]
on_top = steps["power 0.5"] / steps["power 0.5 + momentum"]
say(
    f"**Answer.** Momentum 0.9 saves {least['momentum 0.9']:.1%} of the steps at batch {BATCHES[0]:.0f}, 10% from "
    f"batch {saves_10:,.0f} and 50% from batch {saves_50:,.0f} on. At the largest batch it takes "
    f"{fewer['momentum 0.9'][-1]:.0f} times fewer steps. So it starts to pay at {saves_10 / critical['SGD']:.1f} times "
    f"plain SGD's critical batch size.\n\n"
    f"Momentum tuned without limit saves {least['momentum']:.0%} even at the smallest batch, and 50% from batch "
    f"{batch_where(fewer['momentum'], 2):,.0f} on. The {least['momentum']:.0%} takes a momentum of "
    f"{momentum['momentum'][0]:.7f} at batch {BATCHES[0]:.0f}, a memory of {memory:.0%} of the whole run: not a "
    f"setting to rely on.\n\n"
    f"Preconditioning with power 0.5 pays everywhere: it saves at least {least['power 0.5']:.0%} at every batch size. "
    f"Momentum matters less on top of it: at the largest batch tuned momentum takes {on_top[-1]:.0f} times fewer "
    f"steps with it, and {fewer['momentum'][-1]:.0f} times fewer without.\n\n"
    f"At small batches plain SGD sees {examples['SGD'].min() / bound:.0f} times the examples of the bound. Power 0.5 "
    f"with momentum sees {examples['power 0.5 + momentum'].min() / bound:.1f} times."
)
assert least["momentum 0.9"] < 0.01
assert 0.2 < saves_10 / critical["SGD"] < 0.5
assert 1 < saves_50 / critical["SGD"] < 2
assert 0.1 < least["momentum"] < 0.2
assert least["power 0.5"] > 0.7
assert on_top[-1] < fewer["momentum"][-1] / 3
assert all(np.all(ratio <= examples["SGD"] / bound) for ratio in fewer.values())

# %% [markdown]
# ## What real networks may do differently
#
# - **Where the paper found agreement.** Zhang et al. (2019) trained five architectures. Momentum SGD took as many
#   steps as plain SGD below plain SGD's critical batch size, and extended perfect scaling beyond it. K-FAC had the
#   largest critical batch size in all cases. The best learning rate of plain SGD grew and then levelled off. Their
#   results on momentum are in line with Shallue et al. (2018), who reported that the critical batch size depends on
#   optimizer, architecture and data set.
# - **Preconditioning.** Here it knows the curvature, and all optimizers pay the same for a step. Adam and K-FAC
#   estimate theirs from noisy gradients, so the learning rate may follow other rules. In the paper they saved steps
#   at the smallest batches in some cases, not in all.
# - **Schedules.** The learning rate is constant here. The paper finds that optimized schedules close most of the gap
#   to the information bound at small batches. Savings at small batches may shrink beside a good schedule.
# - **Spectrum and noise.** $h_i = 1/i$ and $C = H$ are assumptions, which the paper supports by measurements on a few
#   networks. Noise that changes during training moves the noise scales of section 1.
# - **Left out.** Generalisation, finite data, the price of communication.
#
# What may carry over are ratios: shares of the critical batch size, doublings, penalties. The batch sizes themselves
# belong to this problem. To ask the same of another one, change `problem` in the first cell:
# `nqm.NoisyQuadratic(curvature, noise, init)` takes any spectrum.
#
# **References**
#
# - Zhang, Li, Nado, Martens, Sachdeva, Dahl, Shallue, Grosse: Which Algorithmic Choices Matter at Which Batch Sizes?
#   Insights From a Noisy Quadratic Model, 2019.
# - McCandlish, Kaplan, Amodei, OpenAI Dota Team: An Empirical Model of Large-Batch Training, 2018.
# - Shallue, Lee, Antognini, Sohl-Dickstein, Frostig, Dahl: Measuring the Effects of Data Parallelism on Neural
#   Network Training, 2018.
