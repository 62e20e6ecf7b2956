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
# # Batch size ramps, learning rate schedules, weight averaging
#
# Three questions, answered on the noisy quadratic model of Zhang et al. (2019):
#
# 1. Should the batch size grow during training, and when?
# 2. Which learning rate schedule, and how much decay?
# 3. Which decay for an exponential moving average (EMA) of the weights, and how does it depend on the batch size and
#    on the learning rate?
#
# **In short.** All three fight the same thing: gradient noise that is left in the weights at the end. Where noise
# limits the run, which is at small batches, each of them alone cuts the examples about sevenfold, and a second one on
# top saves less than a fifth of the rest. At very large batches none of them saves many steps, and a cosine or linear
# decay doubles them. How long to decay or to average is better counted in examples than in shares of the run.
#
# **The model.** The loss is $\tfrac12 \sum_i h_i \theta_i^2$ with $d = 10^4$ curvatures $h_i = 1/i$. The gradient of
# a batch of $B$ examples carries noise of variance $h_i / B$ in coordinate $i$. The start is $\theta \sim N(0, I)$,
# the target an expected loss (*risk*) of 0.01. The optimizer is plain SGD. No learning rate exceeds $2/h_1 = 2$, the
# largest stable one. Risks are exact, nothing here is simulated.
#
# **It is a model.** It learns no features, its curvature never changes, and its noise does not depend on the weights.
# The last section says which answers lean on that.
#
# Every number in an answer is computed in the cell that prints it. The `assert` lines below an answer make the
# notebook fail when the answer is no longer true.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from scipy.optimize import brentq, minimize_scalar

import nqm
from nqm import EMA, FREE, SGD, optimize_schedule
from nqm.plotting import COLORS, LINES, MARKERS, powers_of_two, style

TARGET = 0.01
BATCHES = (4, 16, 64, 256, 1024, 4096, 16384, 65536)
PIECES = np.append(
    np.ones(20), 0.75 ** np.arange(20)
)  # relative lengths: shorter where most of the change is, at the end

problem = nqm.NoisyQuadratic.power_law(10_000)
bound = nqm.bounds.examples_to_target(problem, TARGET)  # no algorithm takes fewer examples
limit = nqm.max_stable_lr(problem, SGD(FREE))
flattest = problem.curvature.min()


def schedule(batch, **options):
    """The schedule of the fewest steps to the target: every piece free, or the peak of a shape."""
    return optimize_schedule(problem, batch, target=TARGET, pieces=PIECES, restarts=0, **options)


constant = {batch: nqm.tune(problem, SGD(FREE), batch, TARGET).steps for batch in BATCHES}
best = {batch: schedule(batch) for batch in BATCHES}


def say(text):
    display(Markdown(text))


def table(*lines):
    """Rows of a table, the header first."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    display(Markdown("\n".join([head, "|---" * len(lines[0]) + "|", *body])))


def look(i, label):
    return {"label": label, "color": COLORS[i], "marker": MARKERS[i], "linestyle": LINES[i % 4]}


def over_best(steps):
    """Steps, by batch size, over those of the best schedule."""
    return {batch: number / best[batch].steps for batch, number in steps.items()}


assert {found.status for found in best.values()} == {"converged"}

# %% [markdown]
# ## 1. Should the batch size grow during training?
#
# Fix the number of steps. How many examples does it take to reach the target in so many steps? Four ways to spend
# them: batch size and learning rate both constant (the rate tuned); the batch size ramps up, the rate is constant
# (tuned too); the rate decays, the batch size is constant; both are free.
#
# For given learning rates the best ramp has a closed form: batch sizes in proportion to the square root of what the
# noise of a step still weighs at the end. With `batch_size=nqm.FREE`, `optimize_schedule` takes it.


# %%
def best_constant(examples, steps):
    lr = least(lambda lr: nqm.risk(problem, SGD(lr), examples / steps, steps))
    return nqm.risk(problem, SGD(lr), examples / steps, steps)


def best_ramp(examples, steps, pieces=PIECES):
    def at(lr):
        return optimize_schedule(problem, FREE, steps=steps, examples=examples, pieces=pieces, optimizer=SGD(lr))

    return at(least(lambda lr: at(lr).risk))


def best_both(examples, steps):
    return optimize_schedule(problem, FREE, steps=steps, examples=examples, pieces=PIECES, restarts=0)


def least(risk):
    """The learning rate of least risk."""
    inside = np.log([1e-2, 0.999 * limit])
    found = minimize_scalar(lambda u: np.log(risk(np.exp(u))), bounds=inside, options={"xatol": 0.01})
    return float(np.exp(found.x))


def examples_needed(risk, low, high):
    """The examples with which a risk, a function of them, is the target."""
    return float(np.exp(brentq(lambda u: np.log(risk(np.exp(u)) / TARGET), np.log(low), np.log(high), xtol=0.01)))


RUNS = (16, 64, 256, 1024, 4096)  # as many steps as the best learning rate schedule takes at these batch sizes
WAYS = ("both constant", "learning rate decays", "batch size ramps up", "both")
seen = {way: {} for way in WAYS}
ramps, boths = {}, {}
for batch in RUNS:
    t, n = best[batch].steps, best[batch].examples
    seen["both constant"][batch] = examples_needed(lambda n, t=t: best_constant(n, t), bound, 100 * n)
    seen["learning rate decays"][batch] = n
    ramp = examples_needed(lambda n, t=t: best_ramp(n, t).risk, max(bound, 0.4 * n), 1.5 * n)
    both = examples_needed(lambda n, t=t: best_both(n, t).risk, max(bound, 0.2 * n), n)
    seen["batch size ramps up"][batch], seen["both"][batch] = ramp, both
    ramps[batch], boths[batch] = best_ramp(ramp, t), best_both(both, t)

slow = ramps[16]
lr = slow.optimizer.lr
to_go = slow.steps - (slow.schedule.ends - slow.schedule.lengths / 2)
formula = np.sqrt((np.exp(-2 * lr * flattest * to_go) - np.exp(-2 * lr * to_go)) / to_go)
formula *= slow.examples / (formula @ slow.schedule.lengths)

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for i, way in enumerate(WAYS):
        left.plot([best[batch].steps for batch in RUNS], list(seen[way].values()), **look(i, way))
    left.axhline(bound, color="black", linewidth=1.2, label="bound for any algorithm")
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="examples")
    left.set_xticks([7_000, 10_000, 20_000, 50_000], ["7,000", "10,000", "20,000", "50,000"])
    left.minorticks_off()
    left.set_title("Examples that reach the target in so many steps")
    left.legend()
    for i, batch in enumerate(RUNS[:3]):
        course, mean = ramps[batch].schedule, ramps[batch].examples / ramps[batch].steps
        middle = 1 - (course.ends - course.lengths / 2) / course.steps
        label = f"{course.steps:,} steps, lr {ramps[batch].optimizer.lr:.2f}"
        right.plot(middle, course.values / mean, **look(i, label))
    scaled = formula * slow.steps / slow.examples
    right.plot(to_go / slow.steps, scaled, "k:", linewidth=2.5, label="formula for the first")
    right.set(xscale="log", yscale="log", xlim=(1.2, 1e-4), xlabel="share of the steps still to go",
              ylabel="batch size / mean batch size")  # fmt: skip
    right.set_title("The best ramps of the batch size")
    right.legend()
plt.show()

table(
    ("steps", *(f"{way} (million examples)" for way in WAYS)),
    *((f"{best[batch].steps:,}", *(f"{seen[way][batch] / 1e6:,.2f}" for way in WAYS)) for batch in RUNS),
)
saving = {way: {batch: seen["both constant"][batch] / number for batch, number in seen[way].items()} for way in WAYS}
ratio = {batch: seen["batch size ramps up"][batch] / seen["learning rate decays"][batch] for batch in RUNS}
crossing = {batch: np.interp(run.examples / run.steps, run.schedule.values, 1 - run.schedule.ends / run.steps)
            for batch, run in ramps.items()}  # fmt: skip
half = {}
for batch, run in ramps.items():
    course = run.schedule
    spent = np.cumsum(course.values * course.lengths) / run.examples
    half[batch] = 1 - np.interp(0.5, spent, course.ends / course.steps)
length = slow.steps * lr * flattest


def halving(k):
    """Relative lengths of k stages, each half as long as the one before, the last two alike."""
    return 0.5 ** np.append(np.arange(1, k), max(k - 1, 1))


def staged(examples, k):
    return best_ramp(examples, best[64].steps, halving(k))


stages = {k: examples_needed(lambda n, k=k: staged(n, k).risk, bound, 20 * bound) for k in (1, 2, 3, 4, 6, 8)}
six = staged(stages[6], 6)
say(
    f"**Answer.** Yes, the batch size should grow, if the learning rate does not decay. In {best[16].steps:,} steps a "
    f"constant batch size takes {saving['batch size ramps up'][16]:.1f} times the examples of the best ramp. But a "
    f"decay of the learning rate at constant batch size buys nearly the same: the ramp takes "
    f"{1 - ratio[16]:.0%} fewer examples than the decay. Both together "
    f"take {1 - seen['both'][16] / seen['batch size ramps up'][16]:.0%} fewer than the ramp.\n\n"
    f"The ramp wins where steps are short: it takes {1 - ratio[64]:.0%} fewer examples in {best[64].steps:,} steps, "
    f"{1 - ratio[256]:.0%} fewer in {best[256].steps:,}. Within {best[4096].steps / best[65536].steps - 1:.0%} of the "
    f"fewest steps it loses to the decay, because its constant rate of {ramps[4096].optimizer.lr:.2f} has to be close "
    f"to the limit of {limit:g}, where noise piles up in the sharpest direction. There both together take "
    f"{seen['learning rate decays'][4096] / seen['both'][4096]:.1f} times fewer examples than the decay.\n\n"
    f"**When?** Noise in coordinate $i$ is forgotten after about $1/(2\\,lr\\,h_i)$ steps, and "
    f"coordinates that will forget a step's noise ask for no large batch in it. Summed over this spectrum, with $s$ "
    f"steps to go,\n\n"
    f"$$B \\propto \\sqrt{{(e^{{-2\\,lr\\,h_d\\,s}} - e^{{-2\\,lr\\,h_1\\,s}}) / s}}$$\n\n"
    f"with the smallest curvature $h_d$ and the largest, $h_1$. (That is within 5% of the exact ramp of the longest "
    f"run, but for the last steps and where it would fall below one example.) So there is no single start. First the "
    f"batch grows as the flattest coordinates ask, by a factor $e$ in $1/(lr\\,h_d)$ steps; the whole run takes "
    f"{length:.1f} of these. In the end it grows as $1/\\sqrt{{s}}$. It passes its mean with "
    f"{min(crossing.values()):.0%} to {max(crossing.values()):.0%} of the steps to go. "
    f"Half of all examples go into the last {min(half.values()):.0%} to {max(half.values()):.0%} of the steps.\n\n"
    f"**In few stages.** The best ramp ends a thousand times above its start, but a few stages go far. In "
    f"{best[64].steps:,} steps, with stages each half as long as the one before, 1 stage takes "
    f"{stages[1] / 1e6:.1f} million examples, "
    + ", ".join(f"{k} take {stages[k] / 1e6:.1f}" for k in list(stages)[1:])
    + f", the smooth ramp {seen['batch size ramps up'][64] / 1e6:.1f}. The 6 stages go from batch "
    f"{six.schedule.values[0]:.0f} to {six.schedule.values[-1]:,.0f}."
)
assert 7 < saving["learning rate decays"][16] < saving["batch size ramps up"][16] < 9
assert 0.9 < ratio[16] < 1
assert ratio[256] < 0.7
assert ratio[4096] > 1.1
assert seen["both"][16] / seen["batch size ramps up"][16] > 0.97
assert all(seen["both"][batch] < 0.9 * min(seen[way][batch] for way in WAYS[:3]) for batch in (256, 1024, 4096))
assert np.abs(formula / slow.schedule.values - 1)[slow.schedule.values > 2][:-1].max() < 0.05
assert all(course.schedule.values[-1] > 500 * course.schedule.values[0] for course in ramps.values())
assert stages[1] > 8 * seen["batch size ramps up"][64]
assert stages[8] < 1.3 * seen["batch size ramps up"][64]

# %% [markdown]
# Why do a ramp and a decay buy the same? While rates are well below $2/h_1$, the noise that a run puts in depends on
# learning rate over batch size alone, as a function of the progress made, which is the sum of the learning rates.
# Here is this ratio along the best runs, in many steps on the left and in few on the right.


# %%
def noise_level(found):
    """Sum of the learning rates still to go, and learning rate over batch size, in the middle of each piece."""
    lr, batch = found.optimizer.lr, found.batch_size
    changing = [x for x in (lr, batch) if isinstance(x, nqm.Schedule)]
    ends = np.unique(np.concatenate([x.ends for x in changing]))
    lr, batch = (x(ends - 1) if isinstance(x, nqm.Schedule) else np.full(ends.size, x) for x in (lr, batch))
    made = lr * np.diff(ends, prepend=0)
    return made.sum() - np.cumsum(made) + made / 2, lr / batch


levels = {batch: [noise_level(found[batch]) for found in (best, ramps, boths)] for batch in (16, 256)}

with style():
    figure, axes = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for ax, (batch, curves) in zip(axes, levels.items(), strict=True):
        for i, (way, (progress, level)) in enumerate(zip(WAYS[1:], curves, strict=True), 1):
            ax.plot(progress, level, **look(i, way))
        ax.set(xscale="log", yscale="log", xlim=(3e4, 1), ylim=(3e-5, 0.5), ylabel="learning rate / batch size",
               xlabel="progress still to make (sum of the learning rates)")  # fmt: skip
        ax.set_title(f"Noise level on the way, {best[batch].steps:,} steps")
        ax.legend()
plt.show()

grid = np.geomspace(30, 10_000, 100)
apart = {}
for batch, curves in levels.items():
    logs = [np.interp(np.log(grid), np.log(progress[::-1]), np.log(level[::-1])) for progress, level in curves]
    apart[batch] = np.exp(np.ptp(logs, axis=0))
held = {batch: np.sum(found.schedule.lengths[found.schedule.values > 0.999 * limit]) / found.steps
        for batch, found in best.items()}  # fmt: skip
say(
    f"**Answer.** In {best[16].steps:,} steps the three curves are one: from progress {grid[-1]:,.0f} to {grid[0]:.0f} "
    f"they never differ by more than {apart[16].max() - 1:.0%}. Runs with the same curve end at the same risk after "
    f"the same examples, whichever of the two numbers changed. A decay to a tenth is worth a batch ten times as "
    f"large.\n\n"
    f"The equivalence ends at $2/h_1$. In {best[256].steps:,} steps the curves differ by up to "
    f"{apart[256].max():.1f} times. Early in a run much noise is welcome, because it saves examples. The decay "
    f"gets it only from a high rate, so it sits at the limit of {limit:g} for "
    f"{held[256]:.0%} of its steps. The ramp takes a small batch instead. But its constant rate of "
    f"{ramps[256].optimizer.lr:.2f} lets noise pile up in the sharpest directions, and it takes the steep rise at the "
    f"end to get rid of that."
)
assert apart[16].max() < 1.2
assert apart[256].max() > 3
assert held[256] > 0.75

# %% [markdown]
# ## 2. Which learning rate schedule, and how much decay?
#
# From here on the batch size is constant. These are the steps to the target with each shape, its peak tuned at every
# batch size, over the steps of the best schedule of all: the one whose every piece is free. WSD is warm-up, stable,
# decay: here without warm-up, and with a linear decay to zero.


# %%
def wsd(decay, warmup=0.0):
    return lambda peak, steps: nqm.schedules.wsd(peak, steps, warmup, decay)


SHAPES = {"cosine": nqm.schedules.cosine, "linear": nqm.schedules.linear, "WSD, 20% decay": wsd(0.2)}
steps = {"constant": over_best(constant)}
for name, shape in SHAPES.items():
    steps[name] = over_best({batch: schedule(batch, shape=shape).steps for batch in BATCHES})

with style():
    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    for i, (name, relative) in enumerate(steps.items()):
        ax.plot(BATCHES, list(relative.values()), **look(i, name))
    floor = [bound / found.examples for found in best.values()]
    ax.plot(BATCHES, floor, "k-", linewidth=1.2, label="bound for any algorithm")
    powers_of_two(ax, "x")
    ax.set(yscale="log", ylim=(0.4, 10), xlabel="batch size (examples)", ylabel="steps / steps of the best schedule")
    ax.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    ax.minorticks_off()
    ax.set_title("What a simple schedule costs, its peak tuned")
    ax.legend()
plt.show()

above = schedule(65536, shape=nqm.schedules.cosine, max_lr=None).steps / best[65536].steps
say(
    f"**Answer, first half.** It depends on the batch size.\n\n"
    f"- *Small batches, limited by noise* (up to 64). A constant rate takes {steps['constant'][64]:.1f} to "
    f"{steps['constant'][4]:.1f} times the steps of the best schedule, cosine {steps['cosine'][64]:.2f} to "
    f"{steps['cosine'][4]:.2f} times, linear {steps['linear'][64]:.2f} to {steps['linear'][4]:.2f} times. A decay "
    f"over the whole run comes within a third of the best, whatever its shape. WSD with 20% decay is too short, at "
    f"{steps['WSD, 20% decay'][64]:.1f} to {steps['WSD, 20% decay'][4]:.1f} times. What is left to the bound for any "
    f"algorithm is a factor of {1 / floor[1]:.1f}.\n"
    f"- *In between* (256). WSD with 20% decay comes within {steps['WSD, 20% decay'][256] - 1:.1%} of the best "
    f"schedule. Cosine and linear take {steps['cosine'][256]:.1f} times the steps, a constant rate "
    f"{steps['constant'][256]:.1f} times.\n"
    f"- *Large batches, limited by curvature* (from 4,096). A schedule does next to nothing: a constant rate takes "
    f"{steps['constant'][4096] - 1:.0%} more steps than the best schedule at batch 4,096 and "
    f"{steps['constant'][65536] - 1:.0%} more at 65,536. Cosine and linear take {steps['cosine'][65536]:.1f} times the "
    f"steps: there only the sum of the learning rates counts, and they give away half of it. Letting the peak of the "
    f"cosine exceed $2/h_1$ hardly helps ({above:.1f} times)."
)
assert 5 < steps["constant"][64] < steps["constant"][4] < 9
assert max(steps[name][batch] for name in ("cosine", "linear") for batch in (4, 16, 64)) < 1.35
assert 1.4 < steps["WSD, 20% decay"][64] < steps["WSD, 20% decay"][4]
assert steps["WSD, 20% decay"][256] < 1.01
assert min(steps["cosine"][256], steps["linear"][256]) > 1.5
assert all(abs(steps["cosine"][batch] / steps["linear"][batch] - 1) < 0.05 for batch in BATCHES)
assert steps["constant"][65536] < 1.05
assert steps["constant"][4096] < 1.2
assert 1.9 < steps["cosine"][65536] < 2.1
assert above > 1.7

# %%
SHARES = np.array([0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 0.99])
WSD_BATCHES = (16, 64, 256, 1024)
decays = {batch: np.array([schedule(batch, shape=wsd(share)).steps for share in SHARES]) for batch in WSD_BATCHES}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for i, (batch, curve) in enumerate(decays.items()):
        left.plot(100 * SHARES, curve / best[batch].steps, **look(i, f"batch {batch:,}"))
    left.set(xscale="log", ylim=(0.95, 3), xlabel="decay (% of the steps)", ylabel="steps / steps of the best schedule")
    left.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    left.minorticks_off()
    left.set_title("WSD: how much decay")
    left.legend(loc="upper right")
    for i, batch in enumerate(WSD_BATCHES):
        course = best[batch].schedule
        right.stairs(course.values, np.append(0, course.ends) / course.steps, baseline=None, color=COLORS[i],
                     linestyle=LINES[i], linewidth=1.8, label=f"batch {batch:,}")  # fmt: skip
    right.set(xlabel="share of the steps", ylabel="learning rate", ylim=(0, 2.1))
    right.set_title("The best schedules")
    right.legend(loc="center", bbox_to_anchor=(0.67, 0.78))
plt.show()

rows = {}
for batch, found in best.items():
    values = found.schedule.values
    below = np.flatnonzero(values < limit / 2)[0]
    rows[batch] = values[0], values[-1], found.steps - found.schedule.ends[below - 1]
table(
    ("batch", "steps", "first rate", "last rate", "last rate / batch", "steps below half the limit", "share of the run",
     "in examples"),
    *((f"{batch:,}", f"{best[batch].steps:,}", f"{first:.2f}", f"{last:.4f}", f"{last / batch:.1e}", f"{late:,}",
       f"{late / best[batch].steps:.1%}", f"{late * batch:,}") for batch, (first, last, late) in rows.items()),
)  # fmt: skip
share = {batch: SHARES[curve.argmin()] for batch, curve in decays.items()}
cost = {batch: curve.min() / best[batch].steps for batch, curve in decays.items()}
warm = {batch: schedule(batch, shape=wsd(min(share[batch], 0.8), 0.1)).steps
        / schedule(batch, shape=wsd(min(share[batch], 0.8))).steps - 1 for batch in WSD_BATCHES}  # fmt: skip
late = {batch: left * batch for batch, (_, _, left) in rows.items() if batch >= 16}  # in examples
slopes = [rows[batch][1] / batch for batch in (4, 16, 64)]
say(
    "**Answer, second half.** The best share of decay falls from "
    + ", ".join(f"{share[batch]:.0%} at batch {batch:,}" for batch in WSD_BATCHES[:3])
    + f" to {share[1024]:.0%} at batch 1,024. With it, WSD comes within {max(cost[256], cost[1024]) - 1:.1%} of the "
    f"best schedule at batches 256 and 1,024, within {cost[64] - 1:.0%} at 64 and within {cost[16] - 1:.0%} at 16. "
    f"Twice or half the best share matters little at batch 256. At 16 and 64 too short a decay is expensive, at 1,024 "
    f"too long a one.\n\n"
    f"From batch 16 on the best schedules start at the largest stable rate. How late they fall differs by far less in "
    f"examples than in shares of the run. The rate is below half the limit for the last {min(late.values()):,} to "
    f"{max(late.values()):,} examples. The share of the run goes from {rows[16][2] / best[16].steps:.0%} to "
    f"{rows[65536][2] / best[65536].steps:.2%}.\n\n"
    f"The last rate is proportional to the batch size up to batch 64, to {max(slopes) / min(slopes) - 1:.0%}. From "
    f"there on it grows more slowly, {rows[65536][1] / rows[64][1]:.0f}-fold while the batch grows "
    f"{65536 // 64:,}-fold. It never is zero, but a decay to zero does no harm.\n\n"
    f"**Warm-up** over 10% of the steps costs {min(warm.values()):.0%} to {max(warm.values()):.0%} more steps, about "
    f"half its length, at these batch sizes. It buys nothing here: the model has nothing that a warm-up could cure."
)
assert list(share.values()) == sorted(share.values(), reverse=True)
assert share[16] > 0.9
assert share[1024] <= 0.05
assert max(cost[256], cost[1024]) < 1.01
assert cost[64] < 1.07
assert decays[256][np.abs(np.log(SHARES / share[256])) < np.log(2.1)].max() < 1.03 * decays[256].min()
assert decays[16][SHARES == 0.1] > 1.5 * decays[16].min()
assert decays[1024][-1] > 1.5 * decays[1024].min()
assert all(rows[batch][0] > 0.99 * limit for batch in BATCHES[1:])
assert max(slopes) / min(slopes) < 1.05
assert max(late.values()) < 10 * min(late.values())
assert 0.03 < min(warm.values()) < max(warm.values()) < 0.07

# %% [markdown]
# ## 3. Which EMA decay?
#
# An EMA of the weights, $\bar\theta \leftarrow g \bar\theta + (1 - g)\,\theta$ after every step, has a memory of $1 /
# (1 - g)$ steps. Its risk counts, in place of that of the last weights. The learning rate is constant unless said
# otherwise, and tuned together with the decay $g$, or given.


# %%
def memory(found):
    """In steps."""
    return 1 / (1 - found.optimizer.decay)


averaged = EMA(SGD(FREE), FREE)
tuned = {batch: nqm.tune(problem, averaged, batch, TARGET) for batch in BATCHES}
RATES = (0.125, 0.5, 1.9)
given = {lr: {batch: nqm.tune(problem, EMA(SGD(lr), FREE), batch, TARGET) for batch in BATCHES} for lr in RATES}
twofold = {
    batch: optimize_schedule(problem, batch, target=TARGET, pieces=8, optimizer=averaged, restarts=0)
    for batch in (16, 64, 256)
}
with_ema = over_best({batch: found.steps for batch, found in tuned.items()})
with_both = over_best({batch: found.steps for batch, found in twofold.items()})
IN_EXAMPLES = [batch for batch in BATCHES if batch <= 4096]  # beyond, averaging gains next to nothing
kept = {batch: memory(tuned[batch]) * batch for batch in IN_EXAMPLES}
typical = np.round(np.median(list(kept.values())), -4)

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    left.plot(BATCHES, [memory(found) for found in tuned.values()], **look(0, "learning rate tuned"))
    for i, (lr, found) in enumerate(given.items(), 1):
        left.plot(BATCHES, [memory(found[batch]) for batch in BATCHES], **look(i, f"learning rate {lr:g}"))
    left.plot(BATCHES, typical / np.array(BATCHES), "k:", label=f"{typical:,.0f} examples")
    powers_of_two(left)
    left.set(xlabel="batch size (examples)", ylabel="memory 1 / (1 - decay), steps")
    left.set_title("The best memory of the average")
    left.legend()
    right.axhline(1, color="black", linewidth=1.2, label="best schedule, no EMA")
    right.plot(BATCHES, list(with_ema.values()), **look(0, "EMA, constant learning rate"))
    right.plot(list(with_both), list(with_both.values()), **look(1, "EMA and the schedule that is best with it"))
    powers_of_two(right, "x")
    right.set(ylim=(0.8, 1.13), xlabel="batch size (examples)", ylabel="steps / steps of the best schedule without EMA")
    right.set_title("EMA against a learning rate schedule")
    right.legend(loc="upper right")
plt.show()

table(
    ("batch", "steps", "learning rate", "decay", "memory in steps", "share of the run", "memory in examples"),
    *((f"{batch:,}", f"{found.steps:,}", f"{found.optimizer.optimizer.lr:.2f}", f"{found.optimizer.decay:.6f}",
       f"{memory(found):,.0f}", f"{memory(found) / found.steps:.1%}", f"{memory(found) * batch:,.0f}")
      for batch, found in tuned.items()),
)  # fmt: skip
by_rate = {batch: [memory(given[lr][batch]) for lr in RATES] for batch in IN_EXAMPLES}
spread = {batch: max(found) / min(found) for batch, found in by_rate.items()}
all_kept = [number * batch for batch, found in by_rate.items() for number in found]
other_targets = [memory(nqm.tune(problem, averaged, batch, goal)) * batch * goal
                 for goal in (0.02, TARGET, 0.005) for batch in (16, 256, 4096)]  # fmt: skip
wrong = {}
for batch in (16, 256, 4096):
    off = [EMA(SGD(FREE), 1 - 1 / (factor * memory(tuned[batch]))) for factor in (0.5, 2)]
    wrong[batch] = [nqm.tune(problem, optimizer, batch, TARGET).steps / tuned[batch].steps - 1 for optimizer in off]
plain = nqm.tune(problem, SGD(FREE), 16, TARGET).optimizer.lr
rates = twofold[16].schedule.values
say(
    f"**Answer.** Count the memory in examples. Up to batch 4,096 the best is {min(kept.values()):,.0f} to "
    f"{max(kept.values()):,.0f} examples. So the memory in steps goes as one over the batch size: at a batch twice as "
    f"large, double $1 - g$. As a share of the run it goes from {memory(tuned[16]) / tuned[16].steps:.0%} to "
    f"{memory(tuned[4096]) / tuned[4096].steps:.1%}, so a fixed share is no rule.\n\n"
    f"The learning rate matters little: over a range of {RATES[-1] / RATES[0]:.0f} times, the best memory changes by "
    f"{min(spread.values()):.1f} to {max(spread.values()):.1f} times, growing with the rate. What does matter is the "
    f"target. At targets of 0.02, 0.01 and 0.005, the best memory in examples times the target is "
    f"{min(other_targets):,.0f} to {max(other_targets):,.0f}: half the loss takes about twice the memory.\n\n"
    f"How precise must it be? Half and twice the best memory cost {wrong[16][0]:.0%} and {wrong[16][1]:.0%} more steps "
    f"at batch 16, the rate tuned again, {wrong[256][0]:.0%} and {wrong[256][1]:.0%} at batch 256, and less than 1% at "
    f"4,096.\n\n"
    f"**EMA or a schedule?** Averaging at a constant rate does as well as the best schedule: {with_ema[16] - 1:.0%} "
    f"more steps at batch 16, {1 - with_ema[64]:.0%} fewer at 64, {1 - with_ema[256]:.0%} fewer at 256, the same to 1% "
    f"from 1,024 on. At batch 16 it takes {constant[16] / tuned[16].steps:.1f} times fewer steps than a constant rate "
    f"without EMA, with a rate {tuned[16].optimizer.optimizer.lr / plain:.0f} times as large: tune the rate again when "
    f"you switch EMA on.\n\n"
    f"Both together save {1 - with_both[16]:.0%} over the schedule alone at batch 16; at 64 and 256 they save less "
    f"than 2% over EMA alone. The schedule that goes with EMA falls less far, and rises again at the end: at batch 16 "
    f"from {rates.max():.1f} to {rates.min():.2f} and back to {rates[-1]:.2f}."
)
assert max(kept.values()) / min(kept.values()) < 1.6
assert max(all_kept) / min(all_kept) < 4
assert max(spread.values()) < 2
assert all(found == sorted(found) for found in by_rate.values())
assert max(other_targets) / min(other_targets) < 1.6
assert min(wrong[16]) > 0.4
assert max(wrong[256]) < 0.05
assert max(wrong[4096]) < 0.01
assert 1 < with_ema[16] < 1.15
assert with_ema[64] < 0.9
assert with_ema[256] < 1
assert all(abs(with_ema[batch] - 1) < 0.01 for batch in BATCHES if batch >= 1024)
assert all(0.98 < twofold[batch].steps / tuned[batch].steps <= 1 for batch in (64, 256))
# What the beginning says: about sevenfold each, less than a fifth on top.
assert all(6.5 < gain < 8.5 for gain in (constant[16] / best[16].steps, saving["batch size ramps up"][16],
                                         constant[16] / tuned[16].steps))  # fmt: skip
assert min(with_both[16], seen["both"][16] / best[16].examples) > 0.8

# %% [markdown]
# ## From here to a training loop, and back
#
# `Schedule.to_torch` gives the function for `torch.optim.lr_scheduler.LambdaLR(optimizer, function)`: the factor on
# the optimizer's own learning rate. `Schedule.from_function` goes the other way, for any function of the step.

# %%
factor = best[256].schedule.to_torch(lr=limit)  # for torch.optim.SGD(..., lr=2.0)
print([round(factor(step), 3) for step in (0, 4000, 8000, 8500, 8800)])


def warm_cosine(step, warmup=500, total=15_000):  # as written for LambdaLR
    return step / warmup if step < warmup else 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))


mine = nqm.Schedule.from_function(lambda step: 1.9 * warm_cosine(step), 15_000)
print(f"risk after {mine.steps:,} steps at batch 256: {nqm.risk(problem, SGD(mine), 256, mine.steps):.4f}")

# %% [markdown]
# ## Where not to trust this
#
# - **Warm-up.** The model has no reason for one: the curvature is the same at every step, and the largest stable rate
#   is known. Networks can start in sharper regions, and adaptive optimizers start without statistics. All that can be
#   read off here is the price of a warm-up.
# - **Starting at the largest stable rate.** Curvature is fixed here, so $2/h_1$ is one number. In networks the
#   sharpest curvature changes along the way and answers to the learning rate. Features are learned early on, and the
#   learning rate has a part in which ones. Take the shape of the decay from here, not the peak.
# - **EMA against decay.** On a quadratic the average of two good points is a good point. In a curved valley that ends
#   where the memory gets long. Trust least that EMA beats the best schedule.
# - **The batch size ramp.** The noise of one example is constant here. In networks it depends on the weights, which
#   is a reason of its own to change the batch size. Smith et al. (2018) trained networks with growing batches in
#   place of decaying rates, to about the same accuracy after the same number of epochs.
# - **The numbers.** Factors of seven and memories in examples belong to this spectrum and this target, one pass over
#   fresh examples. What may carry over: what limits a run, noise or curvature, decides whether any schedule matters;
#   rate over batch size is what decays; lengths count in examples, and grow as the target falls.
#
# **References**
#
# - Zhang, Li, Nado, Martens, Sachdeva, Dahl, Shallue, Grosse: Which Algorithmic Choices Matter at Which Batch Sizes?
#   Insights From a Noisy Quadratic Model, 2019.
# - Smith, Kindermans, Ying, Le: Don't Decay the Learning Rate, Increase the Batch Size, 2018.
