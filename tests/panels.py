"""What each panel of each figure has to draw: texts, columns, rows and entries of the legend, from the data alone."""

from __future__ import annotations

import numpy as np
from drawn import Curve, Panel, curves, of


def steps_of(kind):
    """A kind at each power with plain SGD dashed, and both bounds."""

    def panels(d):
        return [Panel(("batch size", "steps to risk 0.01"), [
            *curves(d, "batch_size", "steps", ["power"], f"{kind}, power {{power:g}}", kind=kind),
            *curves(d, "batch_size", "steps", ["power"], kind="SGD"),
            *curves(d, "batch_size", "steps", label="maximum likelihood", kind="mle"),
            *curves(d, "batch_size", "steps", label="Bayes bound", kind="bayes"),
        ])]  # fmt: skip

    return panels


def rates_of(kind, ylabel):
    def panels(d):
        found = curves(d, "batch_size", "effective_lr", ["power"], ", power {power:g}", kind=kind)
        if kind != "SGD":
            found += curves(d, "batch_size", "effective_lr", ["power"], kind="SGD")
        return [Panel(("batch size", ylabel), found)]

    return panels


def zhang2019_1(d):
    found = []
    titles = {"constant": "constant learning rate", "decayed": "learning rate decayed at step 300"}
    for schedule, title in titles.items():
        lines = curves(d, "step", "risk", ["curvature"], "$h$ = {curvature:g}", schedule=schedule)
        total = Curve(lines[0].x, sum(line.y for line in lines), "total risk")
        found.append(Panel((title, "expected risk"), [*lines, total]))
    return found


def zhang2019_2(d):
    return [
        Panel((r"momentum $\beta$", ylabel), [
            *curves(d, "momentum", column, label="momentum SGD"),
            *curves(d, "momentum", f"{column}_effective", label="plain SGD"),
        ])
        for column, ylabel in (("contraction", "1 - convergence rate"), ("steady_state", "steady-state risk"))
    ]  # fmt: skip


def zhang2019_3c(d):
    found = []
    for batch in np.unique(d["batch_size"]):
        one = of(d, batch_size=batch)
        label = f"$2^{{{np.log2(batch):.0f}}}$" if np.log2(batch) % 3 == 2 else None
        found.append(Curve(1.0 - one["begin"], one["lr"], label, stairs=True))
    return [Panel(("share of the steps that are left", "learning rate"), found)]


def zhang2019_11(d):
    lines = [c for y in ("momentum", "plain") for c in curves(d, "one_minus_momentum", y, ["steps"])]
    return [Panel((r"$1-\beta$", "what is left of the start"), lines)]


def zhang2019_13(d):
    return [Panel(("batch size", "steps to target"), curves(d, "batch_size", "steps", ["target"], "{target:g}"))]


def zhang2019_15(d):
    last = curves(d, "batch_size", "final_lr", label="last of the 50 pieces")
    return [Panel(("batch size", "final learning rate"), [*last, *curves(d, "batch_size", "fit", label="fit: slope")])]


def contours(d):
    return curves(d, "x", "y", ["loss"], series="contour")


def wen2020_1(d):
    return [
        Panel((f"{name}: mean loss", r"$\theta_1$"), [*contours(d), *curves(d, "x", "y", series=name)])
        for name in ("SGD", "isotropic", "full Fisher", "diagonal Fisher")
    ]


def wen2020_4(d):
    names = ("full", "diagonal")
    paths = [Panel((f"{name} Fisher",), [*contours(d), *curves(d, "x", "y", series=name)]) for name in names]
    losses = [c for n in names for c in curves(d, "step", "loss", label=f"{n}, one trajectory", series=n)]
    means = [c for n in names for c in curves(d, "step", "risk", label=f"{n}, expected", series=n)]
    return [*paths, Panel(("step", "loss"), [*losses, *means])]


def wen2020_table1(d):
    names = {"decaying": "theorem's rates, ", "constant": "best constant rate, ", "bound": "theorem's bound, "}
    found = []
    for ways in (("decaying", "constant"), ("bound",)):
        for family in ("equicorrelated", "rotated"):
            base = {"family": family, "noise": "full"}
            mass = of(d, **base, series="bound", share=0.1)["mass"]
            lines = [Curve(mass, mass, "abscissa = ordinate")]
            for way in ways:
                lines += curves(d, "mass", "ratio", ["share"], names[way] + "{share:g}", series=way, **base)
            if ways == ("bound",):
                scaled = {"noise": "diagonal, scaled", "series": "decaying", "share": 0.001}
                lines += curves(d, "mass", "ratio", label="diagonal with full's", family=family, **scaled)
            found.append(Panel((family, "steps with full noise / with diagonal"), lines))
    kinds = ("exact risk", "bound on it")
    lines = [c for kind in kinds for c in curves(d, "steps", "risk", ["noise"], f"{{noise}}, {kind}", series=kind)]
    found.insert(2, Panel(("equicorrelated, r = 0.9", "risk under the theorem's rates"), lines))
    return found


def smith2018_1(d):
    return [Panel((f"{labels} labels", "accuracy"), smith2018(d, labels, "train_accuracy", "test_accuracy"))
            for labels in ("random", "informative")]  # fmt: skip


def smith2018_2(d):
    kinds = ("random", "informative")
    entropies = [smith2018(d, labels, "train_cross_entropy", "test_cross_entropy") for labels in kinds]
    top = [Panel((f"{k} labels", "mean cross-entropy"), c) for k, c in zip(kinds, entropies, strict=True)]
    return [*top, *(Panel(("log evidence ratio",), smith2018(d, k, "log_evidence_ratio")) for k in kinds)]


def smith2018(d, labels, *names):
    return [
        curve for name in names
        for curve in curves(d, "regularization", name, label=name.replace("_", " ").replace("cross ", "cross-"),
                            around=(f"{name}_low", f"{name}_high"), labels=labels)
    ]  # fmt: skip


def mori2021(d):
    plain, at = curves(d, "batch_size", "a", ["effective"], series="plain"), of(d, series="map")
    tuned = curves(d, "batch_size", "examples", ["a"], "a = {a:g}", series="tuned")
    return [
        Panel(("batch size B", "after 10,000 steps"), plain, at["risk"]),
        Panel(("batch size B", "steady state"), plain, at["steady"]),
        Panel(("batch size B", "examples to risk 0.01"), tuned),
    ]


def schedules(d):
    bound = curves(d, "batch_size", "steps", label="Bayes bound", kind="Bayes bound")
    names = [kind for kind in dict.fromkeys(d["kind"].tolist()) if kind != "Bayes bound"]
    lines = [c for kind in names for c in curves(d, "batch_size", "steps", label=kind, kind=kind)]
    ratios = curves(d, "batch_size", "relative", ["kind"])
    return [Panel(("steps to risk 0.01",), [*lines, *bound]), Panel(("relative to the optimised schedule",), ratios)]


def ramp(d):
    stairs = [Curve(c.x, c.y, c.label, stairs=True)
              for c in curves(d, "begin", "value", ["lr"], "learning rate {lr:g}", series="ramp")]  # fmt: skip
    risks = [c for n in ("constant batch", "best ramp") for c in curves(d, "lr", "value", label=n, series=f"risk, {n}")]
    return [Panel(("share of the steps", "batch size"), stairs), Panel(("constant learning rate", "risk"), risks)]


def drift(d):
    one = curves(d, "x", "drift", ["momentum"], "momentum {momentum:g}", series="one coordinate")
    law = curves(d, "x", "drift", ["momentum"], series="power law")
    names = "lr {lr:g}, momentum {momentum:g}"
    sizes = [c for n in ("exact, N = 10", "exact, N = 1000") for c in curves(d, "x", "value", label=n, series=n)]
    guess = curves(d, "x", "value", label="N/B - 1 in g", series="g, N = 1000")
    return [
        Panel(("largest curvature", "steady state over its limit"), [*one, *law]),
        Panel(("steps / (1 - momentum)", "risk over its limit"),
              curves(d, "x", "value", ["lr", "momentum"], names, series="course")),
        Panel(("B / N", "variance of a batch's noise"), [*sizes, *guess]),
    ]  # fmt: skip


def scales(d):
    views = (("simple", "power", {"target": 0.01}), ("Hessian", "power", {"target": 0.01}),
             ("Hessian", "target", {"power": 0.0}))  # fmt: skip
    found = []
    for kind, by, fixed in views:
        end = curves(d, "relative", "ratio", [by], f"{by} {{{by}:g}}", kind=kind, at="end", **fixed)
        start = curves(d, "relative", "ratio", [by], kind=kind, at="start", **fixed)
        other = "target 0.01" if by == "power" else "power 0"
        found.append(Panel((f"{kind} noise scale, {other}", "noise scale / critical batch size"), [*end, *start]))
    return found


def features(d):
    momenta = ("momentum 0", "momentum 0.5", "momentum 0.9")
    noises = ("additive", "regression, label noise 1", "regression, label noise 0")
    limits = [c for m in momenta for c in curves(d, "batch_size", "value", label=m, series=f"limit, {m}")]
    limits += [c for m in momenta for c in curves(d, "batch_size", "value", series=f"small batches, {m}")]

    def tuned(what):
        return [c for n in noises for c in curves(d, "batch_size", "value", label=n, series=f"{what}, {n}")]

    return [
        Panel(("batch size", "largest stable learning rate"), limits),
        Panel(("batch size", "steps to risk 0.01"), tuned("steps")),
        Panel(("batch size", "best learning rate"), tuned("lr")),
    ]


def runs(d):
    found = []
    for column, title, around in (
        ("predicted", "noisy quadratic", ("low", "high")),
        ("chinchilla", "Chinchilla", None),
    ):
        lines = [c for seen, label in ((True, "fitted: rms"), (False, "predicted: rms"))
                 for c in curves(d, "loss", column, label=label, around=around, fitted=seen)]  # fmt: skip
        found.append(Panel((title, "actual loss", "predicted loss"), lines))
    return found


def isoflop(d):
    return [
        Panel((title, xlabel, "loss"), [
            *curves(d, x, "loss", ["family"], around=("low", "high"), kind=f"{kind}, fit"),
            *curves(d, x, "loss", ["family"], kind=f"{kind}, runs"),
        ])
        for kind, x, title, xlabel in (("isoflop", "N", "the same compute", "parameters"),
                                       ("isotoken", "B", "the same number of examples", "batch size"))
    ]  # fmt: skip


def loss_curves(d):
    thousand = {**d, "step": d["step"] / 1000.0}
    found = []
    for name in dict.fromkeys(d["schedule"].tolist()):
        fitted = bool(of(d, schedule=name)["fitted"][0])
        actual = curves(thousand, "step", "loss", label="actual", schedule=name)
        predicted = curves(thousand, "step", "predicted", label="fit" if fitted else "prediction",
                           around=("low", "high"), schedule=name)  # fmt: skip
        said = f"{name}\n{'fitted' if fitted else 'unseen'}"
        found.append(Panel((said, "thousand steps", "loss"), [*actual, *predicted]))
    return found


PANELS = {
    "zhang2019-1": zhang2019_1,
    "zhang2019-2": zhang2019_2,
    "zhang2019-3a": steps_of("momentum"),
    "zhang2019-3b": steps_of("schedule"),
    "zhang2019-3c": zhang2019_3c,
    "zhang2019-4": steps_of("EMA"),
    "zhang2019-11": zhang2019_11,
    "zhang2019-13": zhang2019_13,
    "zhang2019-14a": rates_of("SGD", "optimal learning rate"),
    "zhang2019-14b": rates_of("momentum 0.9", "optimal effective learning rate"),
    "zhang2019-14c": rates_of("momentum", "optimal effective learning rate"),
    "zhang2019-15": zhang2019_15,
    "wen2020-1": wen2020_1,
    "wen2020-4": wen2020_4,
    "wen2020-table1": wen2020_table1,
    "smith2018-1": smith2018_1,
    "smith2018-2": smith2018_2,
    "mori2021-eq11": mori2021,
    "nqm-schedules": schedules,
    "nqm-ramp": ramp,
    "nqm-drift": drift,
    "nqm-scales": scales,
    "nqm-features": features,
    "nqm-runs": runs,
    "nqm-isoflop": isoflop,
    "nqm-curves": loss_curves,
}
