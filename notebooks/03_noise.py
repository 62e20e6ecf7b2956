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
# # Gradient noise: how much, of which shape, and what does it do?
#
# Seven questions, answered exactly on the noisy quadratic model:
#
# 1. Noise of any covariance: what in it matters for the loss?
# 2. A large batch with noise added to it: is that a small batch?
# 3. Batches drawn without replacement, and noise that is enhanced on purpose: which batch sizes are they?
# 4. Scale learning rate and batch size together: until where is it the same run?
# 5. Can I trust the noise scale I measure, above all with a preconditioner?
# 6. What changes when the noise grows with the loss?
# 7. Which minimum should one believe, a sharp or a broad one?
#
# **The model.** The loss is $\tfrac12 \theta^\top A\, \theta$. The gradient of a batch of $B$ examples comes with noise
# of covariance $S / B$. The expected loss after $t$ steps (the *risk*) is known exactly. Unless said otherwise,
# curvatures are $h_i = 1/i$, $i \le 1000$, noise variances $c_i = h_i$, the start is $\theta \sim N(0, I)$, and
# learning rates are tuned for the fewest steps to the target.
#
# Every number in an answer is computed in the cell that prints it. The `assert` lines below an answer make the
# notebook fail when the answer is no longer true.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import nqm
from nqm import FREE, SGD, NoisyQuadratic, Preconditioned, evidence, noise
from nqm.plotting import COLORS, LINES, MARKERS, powers_of_two, style

DIM, TARGET = 1000, 0.01
inverse = 1.0 / np.arange(1, DIM + 1)
problem = NoisyQuadratic.power_law(DIM)  # curvatures 1/i; NoisyQuadratic(inverse) is the same, but slower


def say(text):
    display(Markdown(text))


def table(*lines):
    """Rows of a table, the header first."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    display(Markdown("\n".join([head, "|---" * len(lines[0]) + "|", *body])))


def look(i, label=None):
    return {"label": label, "color": (*COLORS, "black")[i], "linestyle": LINES[i % 4]}


def short(x):
    """Two digits, or all before the point."""
    return f"{x:,.0f}" if x >= 10 else f"{x:.1g}" if x < 0.01 else f"{x:.2g}"


def spread(values):
    """From the least to the largest."""
    return f"{short(np.min(values))} to {short(np.max(values))}"


# %% [markdown]
# ## 1. What in a noise covariance matters?
#
# `NoisyQuadratic.from_matrices` takes any covariance $S$, also one that does not share the eigenvectors of the Hessian
# $A$. Here is a random $A$ in ten dimensions, with curvatures from 1 to 0.01, and five covariances of equal variance
# $\mathrm{tr}\, S$. Training starts in the optimum, so that all risk is noise.

# %%
generator = np.random.default_rng(0)
basis = np.linalg.qr(np.eye(10) + 0.3 * generator.normal(size=(10, 10)))[0]
hessian = (basis * np.geomspace(1.0, 0.01, 10)) @ basis.T
h, v = np.linalg.eigh(hessian)
variance = np.trace(hessian)
SHAPES = {
    "all in the sharpest direction": variance * np.outer(v[:, -1], v[:, -1]),
    "S = A": hessian,
    "diagonal of A": np.diag(np.diag(hessian)),
    "isotropic": variance / 10 * np.eye(10),
    "all in the flattest direction": variance * np.outer(v[:, 0], v[:, 0]),
}
from_optimum = {name: NoisyQuadratic.from_matrices(hessian, s, np.zeros(10)) for name, s in SHAPES.items()}
excess = {name: np.trace(hessian @ s) for name, s in SHAPES.items()}  # Tr(C' A C) for S = C C'


def dense(covariance, lr, steps):
    """Risk by the recursion of E[theta theta'] with full matrices, from the optimum."""
    move, moment, risks = np.eye(10) - lr * hessian, np.zeros((10, 10)), [0.0]
    for _ in range(steps):
        moment = move @ moment @ move + lr**2 * covariance
        risks.append(0.5 * np.sum(hessian * moment))
    return np.array(risks)


off = {
    name: np.abs(nqm.risk(p, SGD(0.7), 1, np.arange(1, 301)) / dense(SHAPES[name], 0.7, 300)[1:] - 1).max()
    for name, p in from_optimum.items()
}
bare = (v * np.sum(v * (hessian[::-1, ::-1] @ v), axis=0)) @ v.T  # another S, and what of it is diagonal in A's basis
unseen = np.abs(dense(hessian[::-1, ::-1], 0.7, 300)[1:] / dense(bare, 0.7, 300)[1:] - 1).max()

LR = 0.1
t = np.unique(np.round(np.geomspace(1, 10_000, 60)).astype(int))
rates = np.geomspace(0.01, 1.9, 60)
way = {name: nqm.risk(p, SGD(LR), 1, t) / (LR * variance / 4) for name, p in from_optimum.items()}
end = {name: nqm.steady_state_risk(p, SGD(rates), 1) / (rates * variance / 4) for name, p in from_optimum.items()}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for i, name in enumerate(SHAPES):
        left.plot(t, way[name], **look(i, name))
        right.plot(rates, end[name], **look(i, name))
        second = 1 + rates / 2 * excess[name] / variance
        right.plot(rates[rates < 1.2], second[rates < 1.2], color=COLORS[i], linewidth=5, alpha=0.25, zorder=1)
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="risk / (lr Tr(S) / 4)")
    left.set_title(f"Noise of equal variance, learning rate {LR:g}")
    left.legend(loc="lower right")
    right.set(xscale="log", ylim=(0.8, 4), xlabel=r"learning rate $\times$ largest curvature", ylabel="as on the left")
    right.set_title("In the long run (wide: second order)")
plt.show()

sharp, flat = "all in the sharpest direction", "all in the flattest direction"
first_step = way[sharp][0] / way[flat][0]
last_step = way[sharp][-1] / way[flat][-1]
full_end, diagonal_end = (nqm.steady_state_risk(from_optimum[name], SGD(1.0), 1) for name in ("S = A", "diagonal of A"))
say(
    f"**Answer.** Risk reads $S$ in the eigenbasis of $A$, and there only the diagonal, the $c_i$. The dense recursion "
    f"agrees to {max(off.values()):.0e}; dropping what is off that diagonal changes nothing ({unseen:.0e}). So it is "
    f"for momentum and averages too, but not for a preconditioner that has other eigenvectors than $A$.\n\n"
    f"- *One step* adds $\\tfrac12 lr^2\\, \\mathrm{{tr}}(AS)$, which Wen et al. (2020) call $\\mathrm{{Tr}}(C^\\top A "
    f"C)$: {first_step:.0f} times more for noise in the sharpest direction than in the flattest.\n"
    f"- *In the long run* the risk is $lr\\, \\mathrm{{tr}}(S) / 4$ at first order in the learning rate, whatever the "
    f"shape: the two end {last_step - 1:.0%} apart at a rate of {LR:g}. $\\mathrm{{tr}}(AS)$ comes next, as $lr^2 / "
    f"8$. At a rate of 1 noise of shape $A$ leaves {full_end / diagonal_end - 1:.0%} more than its diagonal.\n"
    f"- *In between* a direction counts once it has had the time, $1 / (2\\, lr\\, h_i)$ steps. Sharp directions fill "
    f"up first."
)
assert max(off.values()) < 1e-12
assert unseen < 1e-12
assert np.abs(hessian[::-1, ::-1] - bare).max() > 0.1
assert abs(first_step - 100) < 1e-6
assert all(abs(way[name][0] / (2 * LR * excess[name] / variance) - 1) < 1e-12 for name in SHAPES)
assert 1.04 < last_step < 1.07
assert all(np.abs(end[name] / (1 + rates / 2 * excess[name] / variance) - 1)[rates < 0.1].max() < 3e-3 for name in end)
assert 1.05 < full_end / diagonal_end < 1.3

# %% [markdown]
# ## 2. A large batch with noise added to it: is that a small batch?
#
# Wen et al. (2020) add noise to the gradients of large batches, as much as those of small batches have beyond it.
# `noise.injected` gives its root in five shapes: none; the Fisher matrix $F$ in full; its diagonal; one number for
# all (trace); its diagonal blocks. Here $F = A$, the same ten dimensions in two blocks of five, the batch sizes of the
# paper, and a start $\theta \sim N(0, I)$.

# %%
LARGE, SMALL = 4096, 128
STRUCTURES = ("none", "full", "blocks", "diagonal", "trace")
GOALS = (0.1, 0.01, 0.003, 0.001)
PARTS = {"blocks": [5, 5]}
roots = {s: noise.injected(hessian, LARGE, SMALL, s, PARTS.get(s)) for s in STRUCTURES}
noisy = {s: NoisyQuadratic.from_matrices(hessian, hessian / LARGE + c @ c.T, np.eye(10)) for s, c in roots.items()}
small = NoisyQuadratic.from_matrices(hessian, hessian, np.eye(10))
fewest = {name: [nqm.tune(p, SGD(FREE), 1, goal).steps for goal in GOALS] for name, p in noisy.items()}
fewest["none, but small batches"] = [nqm.tune(small, SGD(FREE), SMALL, goal).steps for goal in GOALS]
t = np.unique(np.round(np.geomspace(1, 10_000, 120)).astype(int))
against = {
    lr: {name: nqm.risk(p, SGD(lr), 1, t) / nqm.risk(small, SGD(lr), SMALL, t) for name, p in noisy.items()}
    for lr in (1.0, 0.1)
}

with style():
    figure, axes = plt.subplots(1, 2, figsize=(11.4, 4.6), sharey=True)
    for ax, (lr, curves) in zip(axes, against.items(), strict=True):
        for i, (name, curve) in enumerate(curves.items()):
            ax.plot(t, curve, **look(i, name))
        ax.set(xscale="log", xlabel="steps", ylim=(0, 1.05))
        ax.set_title(f"Batch {LARGE:,} and noise, learning rate {lr:g}")
    axes[0].set_ylabel(f"risk / risk of batch {SMALL}")
    axes[1].legend(loc="center left")
plt.show()

table(
    ("noise added", *(f"steps to {goal:g}" for goal in GOALS)),
    *((name, *(f"{number:,.0f}" for number in steps)) for name, steps in fewest.items()),
)
gap = np.abs(np.array([curves["full"] for curves in against.values()]) - 1).max()
late = {lr: curves["diagonal"][-1] for lr, curves in against.items()}
saved = 1 - np.array(fewest["diagonal"]) / np.array(fewest["full"])
spectra = (np.full(DIM, inverse.mean()), inverse)  # of diag F in random axes, nearly, and of F
added = [nqm.risk(NoisyQuadratic(inverse, c, np.zeros(DIM)), SGD(1.0), 1, [1, 100, 10_000]) for c in spectra]
share = added[0] / added[1]
say(
    f"**Answer.** With full Fisher noise it is, exactly ({gap:.0e}). The three other shapes of the same variance leave "
    f"less, but how much less is a matter of the learning rate: diagonal noise ends at {late[1.0]:.0%} of the small "
    f"batch's risk at a rate of 1, at {late[0.1]:.1%} at 0.1. With tuned rates the diagonal saves {saved[1]:.0%} of "
    f"the steps to {GOALS[1]:g} and {saved[-1]:.0%} of those to {GOALS[-1]:g}. What costs is the variance, whatever "
    f"its shape: without noise the same batches take {fewest['none'][-1]} steps instead of "
    f"{fewest['diagonal'][-1]:,}. Wen et al. see networks train about as fast with diagonal noise as without any. "
    f"Early on a quadratic of many directions does, too: with curvatures $1/i$ and random axes, where the diagonal is "
    f"nearly the trace, diagonal noise adds {share[0]:.0%} of what full noise does in the first step, {share[1]:.0%} "
    f"by step 100, {share[2]:.0%} in the end, at a rate of 1."
)
assert gap < 1e-12
assert fewest["full"] == fewest["none, but small batches"]
assert 0.8 < late[1.0] < 0.95
assert late[0.1] > 0.98
assert np.all(saved[[1, -1]] < [0.1, 0.03])
assert fewest["none"][-1] < fewest["trace"][-1] / 5
assert np.allclose(share, [0.034, 0.42, 0.85], atol=0.005)

# %% [markdown]
# ## 3. Without replacement, and with noise enhanced: which batch size is it?
#
# $B$ of $N$ examples drawn without replacement are as noisy as $B (N - 1) / (N - B)$ drawn with replacement: the
# whole data set has no noise. Mori and Ueda (2021) go the other way and train on $a\, g_B + (1 - a)\, g_{B'}$, with
# two batches and $a > 1$. That is as noisy as a batch of $B / (a^2 + (1 - a)^2)$. `noise.without_replacement` and
# `noise.enhanced` give these batch sizes, to use wherever one is asked for.

# %%
N = 4096  # examples in the data set
STRENGTHS = (1.5, 2.0, 5.0)
BATCHES = 2.0 ** np.arange(2, 18)
inside = BATCHES[BATCHES <= N]
stand_in = {f"a = {a:g}": noise.enhanced(BATCHES, a) for a in STRENGTHS}


def steps_at(sizes):
    return np.array([nqm.tune(problem, SGD(FREE), size, TARGET).steps for size in sizes])


plain, drawn = steps_at(BATCHES), steps_at(noise.without_replacement(inside, N))
enhanced = {name: steps_at(sizes) for name, sizes in stand_in.items()}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    left.plot(BATCHES, BATCHES, **look(5, "with replacement"))
    left.plot(inside[:-1], noise.without_replacement(inside[:-1], N), **look(1, f"without, from {N:,}"), marker="s")
    right.plot(BATCHES, plain, **look(5, "with replacement"))
    right.plot(inside, drawn, **look(1, f"without, from {N:,}"), marker="s")
    for i, (name, sizes) in zip((0, 2, 3), stand_in.items(), strict=True):
        left.plot(BATCHES, sizes, **look(i, f"enhanced, {name}"))
        right.plot(BATCHES, enhanced[name], **look(i, f"enhanced, {name}"))
    powers_of_two(left)
    powers_of_two(right)
    left.set(xlabel="batch size", ylabel="as noisy as batches of", ylim=(0.05, 2**18))
    left.set_title("Effective batch size")
    left.legend(loc="lower right")
    right.set(xlabel="batch size", ylabel=f"steps to risk {TARGET:g}")
    right.set_title("What it costs, learning rate tuned")
plt.show()

half = noise.without_replacement(N / 2, N) / (N / 2)
price = {name: 2 * steps / plain for name, steps in enhanced.items()}
say(
    f"**Answer.** Without replacement half of the data is as good as {half:.1f} times as many examples, and a tenth "
    f"as {noise.without_replacement(N / 10, N) / (N / 10):.2f} times. The risk is then that on the data set itself.\n\n"
    f"Enhancement costs, counted in examples (two batches a step), at batch {BATCHES[0]:.0f}: "
    + ", ".join(f"{ratio[0]:.1f} times as many with {name}" for name, ratio in price.items())
    + f". That is $2 (a^2 + (1 - a)^2)$. At batch {BATCHES[-1]:,.0f}, where noise hardly matters, it is still "
    f"{price['a = 2'][-1]:.1f} times with a = 2, for the second batch. On a quadratic nothing comes in return: what "
    f"enhanced noise may do for generalisation, this model does not know."
)
assert 1.9 < half < 2.1
assert all(abs(price[f"a = {a:g}"][0] / (2 * (a**2 + (1 - a) ** 2)) - 1) < 0.02 for a in STRENGTHS)
assert 2 <= price["a = 2"][-1] < 2.2

# %% [markdown]
# ## 4. Learning rate and batch size scaled together: until where is it the same run?
#
# Smith and Le (2018) sum up the noise of a run in $g = lr\, (N / B - 1) / (1 - m)$, with momentum $m$, and expect the
# same result at the same $g$. So one may scale the batch size with the learning rate, and with $1 / (1 - m)$. Start
# from a run at learning rate 0.01 and batch size 2 on 50,000 examples, hold $g$, and take fewer steps the higher the
# effective rate $lr / (1 - m)$ is.

# %%
N, RATE, BATCH = 50_000, 0.01, 2
g = noise.scale(RATE, BATCH, N)


def held(lr, momentum=0.0):
    """The batch size that holds g, as one with replacement."""
    return noise.without_replacement(noise.scaled_batch_size(g, lr, N, momentum), N)


def over_first(lr, momentum, steps):
    """Steps of the first run that make as much progress as these, and risk after these over risk after those."""
    progress = np.round(steps * lr / (1 - momentum) / RATE)
    risks = nqm.risk(problem, SGD(lr, momentum), held(lr, momentum), steps)
    return progress, risks / nqm.risk(problem, SGD(RATE), held(RATE), progress)


rates = np.geomspace(RATE, 1.95, 100)
scaled = {
    f"as much progress as {steps:,} steps": over_first(rates, 0.0, np.round(steps * RATE / rates))[1]
    for steps in (1000, 10_000, 100_000)
}
scaled["forever"] = nqm.steady_state_risk(problem, SGD(rates), held(rates)) / (g * inverse.sum() / (4 * N))
COURSES = ((0.01, 0.9), (0.1, 0.9), (0.01, 0.99))
courses = {
    (lr, m): over_first(lr, m, np.unique(np.round(np.geomspace(1, 1e6 * RATE * (1 - m) / lr, 300))))
    for lr, m in COURSES
}

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6), sharey=True)
    for i, (name, ratio) in enumerate(scaled.items()):
        left.plot(rates, ratio, **look(i, name))
    for i, ((lr, m), (progress, ratio)) in enumerate(courses.items()):
        right.plot(progress, ratio, **look(i, f"learning rate {lr:g}, momentum {m:g}"))
    left.set(xscale="log", ylim=(0.7, 3), ylabel="risk / risk of the first run")
    left.set_xlabel(r"learning rate $\times$ largest curvature")
    left.set_title("Learning rate and batch size scaled")
    left.legend()
    right.set(xscale="log", xlim=(30, 1e6), xlabel="progress, in steps of the first run")
    right.set_title("Momentum and batch size scaled")
    right.legend()
plt.show()

forever = {lr: np.interp(lr, rates, scaled["forever"]) for lr in (0.1, 0.3, 1.0, 1.9)}
on_the_way = max(np.abs(ratio[rates <= 1] - 1).max() for name, ratio in scaled.items() if name != "forever")
worst = {key: ratio[progress >= 30].max() for key, (progress, ratio) in courses.items()}
swinging = {(lr, m): np.sum(lr * inverse > (1 - m**0.5) ** 2) for lr, m in COURSES}
quarter = noise.scaled_batch_size(noise.scale(0.1, N / 4, N), 0.2, N) / N
say(
    f"**Answer.** With the learning rate: nearly all the way. In the steady state the risk is {forever[0.1] - 1:.0%} "
    f"too high at $lr\\, h_1 = 0.1$, {forever[0.3] - 1:.0%} at 0.3, {forever[1.0] - 1:.0%} at 1, and "
    f"{forever[1.9]:.1f} times as high at 1.9: each coordinate by $1 / (1 - lr\\, h / 2)$. On the way, while part of "
    f"the risk is what is left of the start, it is less: {on_the_way:.0%} at most up to a rate of 1.\n\n"
    f"With momentum: only in the end. At rate 0.01 and momentum 0.9 the risk on the way is at most "
    f"{worst[0.01, 0.9] - 1:.0%} too high. At ten times that effective rate it is up to {worst[0.1, 0.9]:.1f} times "
    f"as high with momentum 0.9, and {worst[0.01, 0.99]:.1f} times with 0.99. Directions with $lr\\, h > (1 - "
    f"\\sqrt m)^2$ swing instead of following the effective rate: {swinging[0.01, 0.9]}, {swinging[0.1, 0.9]} and "
    f"{swinging[0.01, 0.99]} of the {DIM:,} in these three runs.\n\n"
    f"The batch size is proportional to the rate only while it is a small part of the data: from a quarter of it on, "
    f"twice the rate goes with {quarter:.0%} of the data, not with 50%."
)
assert 1.03 < forever[0.3] < 1.05
assert forever[1.0] < 1.25
assert on_the_way < 0.1
assert all(abs(ratio[-1] - 1) < 0.02 for _, ratio in courses.values())
assert worst[0.01, 0.9] < 1.2 < worst[0.1, 0.9] < worst[0.01, 0.99]
assert worst[0.01, 0.99] > 2

# %% [markdown]
# ## 5. Can I trust my measured noise scale, with a preconditioner?
#
# A *noise scale* is measured from gradients $G$ in one run, to guess the critical batch size $E_{min} / S_{min}$,
# fewest examples over fewest steps. The simple one is $\mathrm{tr}(C) / |G|^2$, the Hessian one $\mathrm{tr}(HC) /
# (G^\top H G)$. With a preconditioner $P = H^p$ each can be taken as it is or in the metric of $P$: that of the
# gradients $P^{-1/2} G$ that the optimizer in effect descends. `noise.simple_noise_scale` and
# `noise.hessian_noise_scale` give them without measurement error, at the start or after any number of steps. Here they
# are at the end of tuned runs at all batch sizes, over the critical batch size of that optimizer.
#
# The fifth line is no noise scale. It is batch size times largest stable learning rate over tuned learning rate: the
# batch size at which linear scaling of the tuned rate would meet the stability limit.

# %%
POWERS = (0.0, 0.25, 0.5, 0.75)
SIZES = 4.0 ** np.arange(15)
MEASURES = {
    "simple, in the metric of P": lambda p, power, *run: noise.simple_noise_scale(p, power, *run),
    "simple": lambda p, power, *run: noise.simple_noise_scale(p, 0.0, *run),
    "Hessian, in the metric of P": lambda p, power, *run: noise.hessian_noise_scale(p, power, *run),
    "Hessian": lambda p, power, *run: noise.hessian_noise_scale(p, 0.0, *run),
    "batch x largest stable lr / lr": lambda p, power, optimizer, batch, _: (
        batch * nqm.max_stable_lr(p, optimizer) / optimizer.hyperparameters["lr"]
    ),
}
NAMES = tuple(MEASURES)


def optimizer_of(lr, power):
    return Preconditioned(SGD(lr), power) if power else SGD(lr)


def measured(where, target):
    """By power: critical batch size, batch sizes over it, rates over the largest stable one, measures over it."""
    found = nqm.sweep(where, {str(power): optimizer_of(FREE, power) for power in POWERS}, SIZES, target)
    results = {}
    for power in POWERS:
        cells, critical = found.rows(str(power), target), found.critical_batch_size(target)[str(power)]
        runs = [(optimizer_of(float(lr), power), float(batch), int(steps))
                for lr, batch, steps in zip(cells["lr"], cells["batch_size"], cells["steps"], strict=True)]  # fmt: skip
        scales = {name: np.array([of(where, power, *run) for run in runs]) / critical for name, of in MEASURES.items()}
        limit = nqm.max_stable_lr(where, optimizer_of(FREE, power))
        results[power] = critical, SIZES / critical, cells["lr"] / limit, scales
    return results


here = measured(problem, TARGET)
SHOWN = 0.25
critical, relative, rate, scales = here[SHOWN]
begun = optimizer_of(float(rate[3] * nqm.max_stable_lr(problem, optimizer_of(FREE, SHOWN))), SHOWN)
last = nqm.steps_to_target(problem, begun, SIZES[3], TARGET)
t = np.unique(np.round(np.geomspace(1, last, 60)).astype(int))
along = {name: [of(problem, SHOWN, begun, SIZES[3], int(step)) / critical for step in t]
         for name, of in MEASURES.items()}  # fmt: skip

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6), sharey=True)
    for i, name in enumerate(NAMES):
        left.plot(t, along[name], **look(i), marker=MARKERS[i], markevery=10)
        right.plot(relative, scales[name], **look(i, name.replace(" x ", r" $\times$ ")), marker=MARKERS[i])
    for ax in (left, right):
        ax.axhline(1, color="black", linewidth=1)
        powers_of_two(ax)
    left.set(xlabel="step", ylabel="estimate / critical batch size")
    left.set_title(f"Along the tuned run at batch {SIZES[3]:.0f}")
    right.set(xlim=(2**-11, 2**11), ylim=(2**-11, 2**10), xlabel="batch size of the run / critical batch size")
    right.set_title("At the end of tuned runs")
    right.legend(loc="lower right")
    figure.suptitle(f"Power {SHOWN:g}, critical batch size {critical:,.0f}")
plt.show()

# %% [markdown]
# That was one spectrum. Here are six problems, each with two targets and four powers, with runs of three kinds. *Small
# batches* are recognised without knowing the answer: the tuned learning rate is at most a quarter of the largest
# stable one. *Large* ones are from 16 times the critical batch size on.

# %%
PROBLEMS = {
    "h = 1/i": problem,
    "h = 1/sqrt(i)": NoisyQuadratic(inverse**0.5),
    "h = 1/i^1.5": NoisyQuadratic(inverse**1.5),
    "noise alike in all directions": NoisyQuadratic(inverse, np.ones(DIM)),
    "noise h^1.5": NoisyQuadratic(inverse, inverse**1.5),
    "start of variance 1/h": NoisyQuadratic(inverse, inverse, 1 / inverse),
}
collected = {when: {name: [] for name in NAMES} for when in ("start", "small", "small, with P", "critical", "large")}
for where in PROBLEMS.values():
    for share in (0.01, 0.001):
        for power, (critical, relative, rate, scales) in measured(where, share * where.initial_risk).items():
            calm = rate <= 0.25
            times = {"small": calm, "small, with P": calm & (power > 0), "critical": np.abs(np.log2(relative)) <= 1,
                     "large": relative >= 16}  # fmt: skip
            for name, of in MEASURES.items():
                for when, chosen in times.items():
                    collected[when][name] += scales[name][chosen].tolist()
                if name != NAMES[-1]:
                    collected["start"][name].append(of(where, power) / critical)

table(
    ("estimate / critical batch size", "at the start", "end, small batches", "end, around critical",
     "end, large batches"),
    *((name, spread(collected["start"][name]) if name != NAMES[-1] else "",
       *(spread(collected[when][name]) for when in ("small", "critical", "large"))) for name in NAMES),
)  # fmt: skip
low = {name: (np.min(found), np.max(found)) for name, found in collected["small"].items()}
plain, ceiling = low["Hessian"], low[NAMES[-1]]
most = {name: np.max(found) for name, found in collected["small, with P"].items()}
early = [here[power][0] / MEASURES[name](problem, power) for power in POWERS for name in NAMES[:4]]
WEIGHTS = {"simple, in the metric of P": (-1, 0), "simple": (0, 0), "Hessian, in the metric of P": (-2, 1),
           "Hessian": (0, 1)}  # fmt: skip
formula = {}
for power, (critical, _, rate, scales) in here.items():
    lr = rate[0] * nqm.max_stable_lr(problem, optimizer_of(FREE, power))
    for name, (a, b) in WEIGHTS.items():
        weight = inverse ** (a * power + b) * inverse  # the last one is c
        guess = 2 * SIZES[0] / (lr * np.average(inverse ** (1 - power), weights=weight))
        formula[power, name] = scales[name][0] * critical / guess
heavy = nqm.sweep(problem, {"heavy": SGD(FREE, momentum=0.9)}, SIZES, TARGET)
cell = {key: column[2] for key, column in heavy.table.items()}
ball = SGD(float(cell["lr"]), momentum=0.9)
size = heavy.critical_batch_size()["heavy"]
blind = noise.hessian_noise_scale(problem, 0.0, ball, float(cell["batch_size"]), int(cell["steps"])) / size
seeing = cell["batch_size"] * nqm.max_stable_lr(problem, ball) / ball.lr / size
say(
    f"**Answer.** Better divide than measure: from one tuned run at a small batch, batch size times largest stable "
    f"rate over tuned rate was {ceiling[0]:.1f} to {ceiling[1]:.1f} times the critical batch size, on all problems and "
    f"at all powers, where the best noise scale was {plain[0]:.1f} to {plain[1]:.1f} times it: the Hessian one, of "
    f"plain gradients without the preconditioner, at the end of that run.\n\n"
    f"- *At the start* noise scales say nothing: on the first problem they are too small by {min(early):,.0f} to "
    f"{max(early):,.0f} times.\n"
    f"- *In the metric of the preconditioner* they do worse, not better: the Hessian one is up to "
    f"{most[NAMES[2]]:.0f} times too large in it and up to {most['Hessian']:.1f} times without, the simple one up to "
    f"{most[NAMES[0]]:.0f} and {most['simple']:.0f} times.\n"
    f"- *In large batches* they say little. Batch size times the ratio of the rates then says so itself: the tuned "
    f"rate is close to the largest stable one.\n"
    f"- *Momentum* 0.9 raises the critical batch size of plain SGD {size / here[0.0][0]:.0f} times, but not "
    f"the noise in a gradient: the Hessian scale is {blind:.2f} times the critical batch size. The ratio of the rates "
    f"sees it ({seeing:.1f} times).\n\n"
    f"**Why.** A tuned run at a small batch ends in its steady state, $h_i\\, E\\, \\theta_i^2 = lr\\, h_i^{{-p}} c_i "
    f"/ (2 B)$. There every noise scale is $2 B / lr$ over a mean of $h_i^{{1 - p}}$, weighted by $h^{{-p}} c$, $c$, "
    f"$h^{{1 - 2p}} c$ and $h c$ in the order of the table (to {max(abs(np.log(list(formula.values())))):.0%} here). "
    f"Steps stop falling where $lr$ meets $2 / h_1^{{1 - p}}$: not a mean counts, but the largest. The Hessian one "
    f"comes closest because it gives the sharpest directions the most weight."
)
assert 0.4 < ceiling[0] < ceiling[1] < 1
assert 0.4 < plain[0] < plain[1] < 3.5
assert most[NAMES[2]] > 3 * most["Hessian"]
assert most[NAMES[0]] > most["simple"] > 10 * most["Hessian"]
assert min(early) > 100
assert np.min(collected["large"][NAMES[-1]]) > 16  # so that it is no estimate there: lr is the largest
assert max(abs(np.log(list(formula.values())))) < 0.15
assert max(abs(np.log([formula[power, "Hessian"] for power in POWERS]))) < 0.01
assert blind < 0.1
assert 0.8 < seeing < 1

# %% [markdown]
# ## 6. What changes when the noise grows with the loss?
#
# In linear regression the gradient of one example is noisier the worse the fit: with features $x \sim N(0, H)$, labels
# of noise $\sigma^2$ and $d = \theta - \theta_*$, its covariance is $H (\sigma^2 + 2 L) + H d d^\top H$. With
# `noise_model="gaussian-features"` all functions follow that exactly. Here the curvatures are $h_i = 1/i$, $i \le
# 100$; `nqm.simulate` draws the examples and trains.

# %%
few = inverse[:100]
KINDS = {"additive noise": None, "regression, label noise 1": 1.0, "regression, label noise 0": 0.0}
SIZES = 2.0 ** np.arange(0, 15)


def regression(label_noise, curvature=few):
    if label_noise is None:
        return NoisyQuadratic(curvature)
    return NoisyQuadratic(curvature, noise_model="gaussian-features", label_noise=label_noise)


limits = {m: nqm.max_stable_lr(regression(1.0), SGD(FREE, m), SIZES) for m in (0.0, 0.9)}
steps = {
    name: np.array([nqm.tune(regression(label), SGD(FREE), size, TARGET).steps for size in SIZES])
    for name, label in KINDS.items()
}
RUN = regression(0.1), SGD(0.5 * limits[0.0][SIZES == 4][0]), 4
t = np.unique(np.round(np.geomspace(1, 500, 22)).astype(int))
drawn = nqm.simulate(*RUN, t, runs=300)
expected = nqm.risk(*RUN, t)

with style():
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6))
    for i, (m, limit) in enumerate(limits.items()):
        axes[0].plot(SIZES, limit, **look(i, f"momentum {m:g}"), marker=MARKERS[i])
        axes[0].plot(SIZES, 2 * SIZES * (1 - m) / few.sum(), ":", color=COLORS[i])
    axes[0].plot([], [], ":", color="grey", label="dotted: 2 B (1 - m) / Tr(H)")
    for i, (name, curve) in enumerate(steps.items()):
        axes[1].plot(SIZES, curve, **look(i, name), marker=MARKERS[i])
    powers_of_two(axes[0])
    powers_of_two(axes[1])
    axes[0].set(xlabel="batch size", ylabel="largest stable learning rate", ylim=(2**-6, 2**3))
    axes[0].set_title("Stability")
    axes[0].legend(loc="lower right")
    axes[1].set(xlabel="batch size", ylabel=f"steps to risk {TARGET:g}")
    axes[1].set_title("Steps, learning rate tuned")
    axes[1].legend()
    axes[2].plot(t, drawn.losses[:30].T, color=COLORS[4], linewidth=0.5)
    axes[2].plot([], [], color=COLORS[4], label="30 runs")
    axes[2].plot(t, expected, **look(0, "exact risk"))
    axes[2].errorbar(t, drawn.mean, 2 * drawn.standard_error, fmt="o", color=COLORS[1], label="mean of 300 runs")
    axes[2].set(xscale="log", yscale="log", xlabel="steps", ylabel="loss")
    axes[2].set_title("Simulated linear regression, batch 4")
    axes[2].legend()
plt.show()

z = np.abs(drawn.mean - expected) / drawn.standard_error
critical = {name: np.min(curve * SIZES) / curve.min() for name, curve in steps.items()}
more = steps["regression, label noise 1"] / steps["additive noise"]
fewer = steps["additive noise"] / steps["regression, label noise 0"]
interpolating = []  # exponent, target over initial risk, Tr(H) / h_1, critical batch size without label noise, additive
for exponent in (0.5, 1.0, 1.5):
    curvature = few**exponent
    for share in (0.01, 0.0001):
        pair = [regression(label, curvature) for label in (0.0, None)]
        found = [nqm.sweep(where, {"": SGD(FREE)}, 8.0 ** np.arange(8), share * where.initial_risk) for where in pair]
        interpolating.append((exponent, share, curvature.sum(), *(one.critical_batch_size()[""] for one in found)))
table(
    ("h", "target / initial risk", "Tr(H) / h_1", "critical batch size, label noise 0", "over Tr(H) / h_1",
     "critical batch size, additive noise"),
    *((f"i^-{exponent:g}", f"{share:g}", f"{trace:.1f}", f"{size:.1f}", f"{size / trace:.1f}", f"{additive:,.0f}")
      for exponent, share, trace, size, additive in interpolating),
)  # fmt: skip
ratios = [size / trace for _, _, trace, size, _ in interpolating]
grown = [later[4] / first[4] for first, later in zip(interpolating[::2], interpolating[1::2], strict=True)]
near = SIZES[np.argmax(limits[0.0] > 0.9 * limits[0.0][-1])]
say(
    f"**Answer.**\n\n"
    f"- *Stability* depends on the batch size: about $2 B (1 - m) / \\mathrm{{tr}}(H)$ for small ones. At batch 1 the "
    f"largest stable rate is {limits[0.0][0]:.2f} instead of 2, and {limits[0.9][0]:.3f} with momentum 0.9, which "
    f"there costs stability instead of adding some. From batch {near:.0f} on plain SGD is within 10% of 2.\n"
    f"- *Steps* hardly change while the target is far below the label noise. With label noise 1 they are "
    f"{more.max() - 1:.1%} more than with additive noise at most, and the critical batch size is "
    f"{critical['regression, label noise 1']:.0f} against {critical['additive noise']:.0f}.\n"
    f"- *Without label noise*, where a model can fit everything, noise dies out with the loss. Batch 1 takes "
    f"{fewer[0]:.0f} times fewer steps than with additive noise, and the critical batch size is {spread(ratios)} times "
    f"$\\mathrm{{tr}}(H) / h_1$, also for targets a hundred times lower, for which that of additive noise is "
    f"{spread(grown)} times larger. (For interpolation Ma et al. (2018) derive a critical batch size of this order.)\n"
    f"- *The simulation* agrees: {z.size} means of 300 runs each lie within {z.max():.1f} standard errors of the exact "
    f"risk."
)
assert np.all(limits[0.0] < 2 * SIZES / few.sum())
assert abs(limits[0.9][0] / (2 * 0.1 / few.sum()) - 1) < 0.1
assert 1 <= more.min() <= more.max() < 1.03
assert abs(critical["regression, label noise 1"] / critical["additive noise"] - 1) < 0.05
assert 2 < min(ratios) < max(ratios) < 4
assert min(grown) > 50
assert z.max() < 4

# %% [markdown]
# ## 7. Which minimum should one believe?
#
# Smith and Le (2018) want noise in training because it leads to broad minima, and broad minima because their Bayesian
# *evidence* is high. A linear model has one minimum, so noise has nothing to choose, but the evidence can be computed.
# Theirs is a logistic regression on 200 examples with 200 Gaussian inputs, whose labels mean something or are coin
# flips. `evidence.logistic_regression` finds the minimum at a regularization $\lambda$ and the log evidence ratio in
# favour of the null model, that every label is a coin flip. Below 0 the data speak for the regression.

# %%
LAMBDAS = np.geomspace(1e-3, 1e4, 22)
SEEDS = 3
curves = {}  # by kind of labels: test cross-entropy, accuracy in training and in test, log evidence ratio; by lambda
for labels in ("informative", "random"):
    tasks = [evidence.toy_task(labels, test=2000, seed=seed) for seed in range(SEEDS)]
    found = []
    for regularization in LAMBDAS:
        fits = [evidence.logistic_regression(task.train_inputs, task.train_labels, regularization) for task in tasks]
        tests = [fit.evaluate(task.test_inputs, task.test_labels) for fit, task in zip(fits, tasks, strict=True)]
        trained = [fit.evaluate(task.train_inputs, task.train_labels) for fit, task in zip(fits, tasks, strict=True)]
        found.append(np.mean([(test.cross_entropy, train.accuracy, test.accuracy, fit.log_evidence_ratio)
                              for test, train, fit in zip(tests, trained, fits, strict=True)], axis=0))  # fmt: skip
    curves[labels] = np.array(found).T

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.6))
    for i, (labels, (entropy, _, _, ratio)) in enumerate(curves.items()):
        left.plot(LAMBDAS, entropy, **look(i, f"{labels} labels"), marker=MARKERS[i])
        right.plot(LAMBDAS, ratio, **look(i, f"{labels} labels"), marker=MARKERS[i])
    left.axhline(np.log(2), **look(5, "coin flips: ln 2"))
    right.axhline(0, **look(5, "coin flips"))
    for ax, curve in ((left, curves["informative"][0]), (right, curves["informative"][3])):
        ax.axvline(LAMBDAS[curve.argmin()], color=COLORS[0], linewidth=0.8)
        ax.set(xscale="log", xlabel=r"regularization $\lambda$")
    left.set(ylim=(0.4, 1.5), ylabel="cross-entropy on new examples (nats)")
    left.set_title("Test")
    right.set(ylim=(-20, 60), ylabel="log evidence ratio (nats)")
    right.set_title("Evidence, from the training set alone")
    left.legend()
plt.show()

task = evidence.toy_task("informative", test=1)
one, other = (
    evidence.logistic_regression(task.train_inputs / scale, task.train_labels, 10 / scale**2, bias=False)
    for scale in (1, 10)
)
sharper = np.linalg.eigvalsh(one.hessian)[-1] / np.linalg.eigvalsh(other.hessian)[-1]
flips = [evidence.toy_task("random", dim=30, train=30, test=1, seed=seed) for seed in range(100)]
ratios = np.array([evidence.logistic_regression(x, y, 1000.0).log_evidence_ratio for x, y, _, _ in flips])
weak = LAMBDAS <= 1
entropy, train, test, ratio = curves["informative"]
_, train_random, test_random, ratio_random = curves["random"]
best = LAMBDAS[entropy.argmin()], LAMBDAS[ratio.argmin()]
say(
    f"**Answer.** The one with the evidence, and sharpness is only half of that. Up to $\\lambda = 1$ the regression "
    f"gets {train[weak].min():.0%} of the training labels right, whether they mean something or not. Of new ones it "
    f"gets {test[weak].mean():.0%} right where they do and {test_random[weak].mean():.0%} where they do not. The "
    f"evidence knows: for informative labels it falls to {ratio.min():.0f} nats, at $\\lambda = {best[1]:.0f}$; test "
    f"cross-entropy is least at {best[0]:.0f}. For random labels its mean stays above {ratio_random.min():.2f}.\n\n"
    f"It is not always above 0: at $\\lambda = 1000$, {np.mean(ratios < 0):.0%} of 100 random labellings of 30 inputs "
    f"speak for the regression, by {-ratios.min():.2f} nats at most. It has to be so: $e^{{-E}}$ is 1 on average over "
    f"all labellings, here {np.mean(np.exp(-ratios)):.3f}.\n\n"
    f"Sharpness alone says nothing. In inputs of a tenth the size, with $\\lambda$ to match, the same model has "
    f"{sharper:.0f} times less curvature and the same evidence."
)
assert np.all(train[weak] == 1)
assert np.all(train_random[weak] == 1)
assert test[weak].min() > 0.7
assert np.abs(test_random - 0.5).max() < 0.03
assert ratio.min() < -5
assert max(best) / min(best) < 4
assert ratio_random.min() > 0
assert 0.25 < np.mean(ratios < 0) < 0.75
assert abs(np.mean(np.exp(-ratios)) - 1) < 0.01
assert abs(sharper - 100) < 1e-6
assert abs(one.log_evidence_ratio - other.log_evidence_ratio) < 1e-9

# %% [markdown]
# ## Where not to trust this
#
# - **Which noise matters.** On a quadratic the risk reads second moments, so the shape of noise beyond its covariance,
#   and all that noise may do to find another minimum, is outside. Wen et al., Mori and Ueda, and Smith and Le are about
#   test accuracy of networks; here is only what of their arguments can be computed.
# - **Noise scales.** The critical batch size here is that of a constant learning rate, with the preconditioner exact.
#   In networks the largest stable rate changes along the way. Schedules lower the critical batch size, since they need
#   fewer examples at small batches.
# - **Linear regression** with Gaussian features is one model of noise that grows with the loss. Heavier tails make
#   stability worse.
#
# **References**
#
# - Wen, Luk, Gazeau, Zhang, Chan, Ba: An Empirical Study of Stochastic Gradient Descent with Structured Covariance
#   Noise, 2020.
# - Mori, Ueda: Improved Generalization by Noise Enhancement, 2020.
# - Smith, Le: A Bayesian Perspective on Generalization and Stochastic Gradient Descent, 2018.
# - McCandlish, Kaplan, Amodei, OpenAI Dota Team: An Empirical Model of Large-Batch Training, 2018.
# - Ma, Bassily, Belkin: The Power of Interpolation: Understanding the Effectiveness of SGD in Modern Over-parametrized
#   Learning, 2018.
