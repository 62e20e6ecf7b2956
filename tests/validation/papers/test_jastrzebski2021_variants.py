"""Variants of the Fisher penalty and what penalties cost (jastrzebski2021): of results that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed

from nqm._table import Table
from nqm.validation.experiments.paper import Effort, Result
from nqm.validation.experiments.samples import Row, by_seed, table_of
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers.jastrzebski2021 import costs, variants
from nqm.validation.papers.jastrzebski2021.protocol import BEST_RATE, QUICK, SMALL_RATE, both_rates, course_of
from nqm.validation.papers.jastrzebski2021.training import readings

FULL, SHORT = Effort(False, 0, "digits"), Effort(True, 0, "digits")
FIGURES = {figure.name.removeprefix("jastrzebski2021-"): figure for figure in (*variants.FIGURES, *costs.FIGURES)}


def steps_of(settings):
    """At which the made-up runs are read: 810, where the runs of figure 17 are compared, only before the end."""
    return np.array([0, 1, 10, 100, *([810] if settings["steps"] > 810 else []), settings["steps"]])


def noise_of(settings, scale):
    """A number of one job's own, the same in every run."""
    return np.random.default_rng([ord(letter) for letter in repr(sorted(settings.items()))]).normal(0.0, scale)


def course(settings):
    """Accuracy is best, and Tr F half as large as without, where alpha (of eq. 6: 64 times alpha) is about 0.1."""
    strength = settings["coefficient"] * (64.0 if settings["method"] == "FP, one example" else 1.0)
    plain = {BEST_RATE["cnn"]: 97.5, 0.02: 96.5 if settings["batch_size"] == 64 else 94.5}.get(settings["lr"], 94.5)
    top = plain + (3.0 * math.exp(-(math.log10(strength / 0.1) ** 2)) if strength else 0.0)
    top += noise_of(settings, 0.1)
    peak = (120.0 if settings["lr"] == BEST_RATE["cnn"] else 280.0) / (1.0 + 10.0 * strength)
    peak *= math.exp(noise_of(settings, 0.02))
    accuracy = np.array([0.1, 0.3, 0.8, 1.0, 1.0, 1.0]) * top / 100.0
    columns = {
        "training loss": np.array([2.3, 1.5, 1.0, 0.4, 0.05, 0.01]),
        "training accuracy": np.append(accuracy[:4], [0.99, 1.0]), "held-out accuracy": accuracy,
        "validation accuracy": accuracy + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.001]),
        "test accuracy": accuracy - np.array([0.0, 0.0, 0.0, 0.0, 0.002, 0.001]),
        "Tr F": peak * np.array([0.1, 0.3, 1.0, 0.5, 0.1, 0.02]), "diverged": np.zeros(6, dtype=int),
    }  # fmt: skip
    step = steps_of(settings)
    read = [0, 1, 2, 3, 4, 5] if 810 in step else [0, 1, 2, 3, 5]
    return {"step": step, **{name: column[read] for name, column in columns.items()}}


def gradient_of(method):
    return {"none": 0.0, "mixup": 0.0, "FP": 0.4}.get(method, 2.0)


def cost(settings):
    """The gradient of FP costs 0.4 plain steps, that of each other penalty two; epochs of 8."""
    rows = []
    for epoch in range(1, settings["epochs"] + 1):
        for place, (method, _, every) in enumerate(settings["methods"]):
            steps = range(8 * epoch, 8 * epoch + 8)
            more = sum(gradient_of(method) for step in steps if step % every == 0)
            seconds = (8.0 + more) * math.exp(noise_of({**settings, "place": (place, epoch)}, 0.01))
            rows.append({"method": place, "epoch": epoch, "seconds": seconds})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def results(figure, effort=FULL, change=lambda settings, columns: columns):
    """What the figure's jobs would have returned."""
    kinds = {"course": course, "cost": cost}
    return [Result(one, Table(change(one, dict(kinds[one["kind"]](one))))) for one in figure.jobs(effort)]


def verdicts(name, change=lambda settings, columns: columns):
    figure = FIGURES[name]
    return [one.verdict for one in figure.judge(figure.compute(results(figure, change=change)))]


def diverging(**which):
    """The runs of seed 103 with these settings diverge at step 10."""

    def change(settings, columns):
        if settings["seed"] != 103 or any(settings.get(name) != value for name, value in which.items()):
            return columns
        early = {name: column[:3] for name, column in columns.items()}
        gone = {name: np.where(np.arange(3) == 2, math.nan, column) for name, column in early.items()}
        return {**gone, "step": early["step"], "diverged": np.array([0, 0, 1])}

    return change


def naive(found, column, **settings):
    """Mean and standard error over the seeds; NaN from where one of the runs has ended."""
    own = [one.columns[column] for one in found if all(one.settings[name] == v for name, v in settings.items())]
    longest = max(len(values) for values in own)
    values = np.array([np.append(values, np.full(longest - len(values), math.nan)) for values in own])
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(own))


def line(found, column, label, scale=1.0, steps=1200, until=1200, **settings):
    step = steps_of({"steps": steps})
    shown = step <= until
    mean, error = (scale * part[shown] for part in naive(found, column, steps=steps, **settings))
    return Curve(step[shown].astype(float), mean, label, (mean - error, mean + error))


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_runs_without_a_penalty_and_of_every_step_are_those_of_other_figures():
    for name in ("13", "14"):
        jobs = FIGURES[name].jobs(FULL)
        assert all(one in jobs for one in both_rates(FULL, "cnn", 12))
        assert course_of(FULL, "cnn", SMALL_RATE["cnn"], 102, method="FP", coefficient=0.3) in jobs
    shared = [course_of(FULL, "cnn", 0.02, 105, batch_size=batch) for batch in (64, 449)]
    assert all(one in FIGURES["17"].jobs(FULL) for one in shared)


@pytest.mark.parametrize("figure", FIGURES.values(), ids=list(FIGURES))
def test_jobs_are_all_different_and_of_judged_seeds(figure):
    jobs = figure.jobs(FULL)
    assert all(jobs.count(one) == 1 for one in jobs)
    assert min(one["seed"] for one in jobs) == 100
    assert min(one["seed"] for one in figure.jobs(Effort(False, 2, "digits"))) == 2100


@pytest.mark.parametrize("figure", FIGURES.values(), ids=list(FIGURES))
def test_quick_versions_can_be_drawn_and_judged(figure):
    table = figure.compute(results(figure, SHORT))
    figure.plot(table).canvas.draw()
    assert figure.judge(table)
    assert len(figure.jobs(SHORT)) < len(figure.jobs(FULL))
    assert all(one.get("steps", 0) <= QUICK.steps for one in figure.jobs(SHORT))


# --- pictures -------------------------------------------------------------------------------------------------------


def ends(found, column, pick, strength=1.0, coefficients=variants.COEFFICIENTS, **settings):
    """One number of each run against the coefficient."""
    of_variant = [one for one in found if all(one.settings[name] == value for name, value in settings.items())]
    own = [
        [pick(one.columns[column]) for one in of_variant if one.settings["coefficient"] == alpha]
        for alpha in coefficients
    ]
    mean, error = np.mean(own, axis=1), np.std(own, axis=1, ddof=1) / math.sqrt(6)
    return Curve(strength * np.array(coefficients), mean, None, (mean - error, mean + error))


ROWS = (
    ("validation accuracy", "validation accuracy (%)", 100.0, "test accuracy", lambda path: 100.0 * path[-1]),
    ("Tr F", "Tr(F)", 1.0, "Tr F", max),
)


def pairs_of_panels(found, left, right):
    """Of two variants: title, coefficients, factor of the strength, settings."""
    panels = []
    for column, label, scale, judged, pick in ROWS:
        for title, coefficients, _, settings in (left, right):
            lines = [line(found, column, "0", scale, method="none", lr=SMALL_RATE["cnn"])]
            lines += [line(found, column, f"{x:g}", scale, coefficient=x, **settings) for x in coefficients]
            panels.append(Panel((label, "step", title), lines))
        lines = [ends(found, judged, pick, strength, coefficients, **settings)
                 for _, coefficients, strength, settings in (left, right)]  # fmt: skip
        panels.append(Panel(("largest Tr(F)" if judged == "Tr F" else "test accuracy", "coefficient"), lines))
    return panels


TENTH = ("f = 10)", variants.COEFFICIENTS, 1.0, {"method": "FP", "every": 10})
EVERY = ("f = 1)", variants.COEFFICIENTS, 1.0, {"method": "FP", "every": 1})
SINGLE = ("eq. 6", variants.SINGLE_COEFFICIENTS, 64.0, {"method": "FP, one example"})


@pytest.mark.parametrize(("name", "left"), [("13", TENTH), ("14", SINGLE)])
def test_figures_13_and_14_draw_a_variant_beside_every_step(name, left):
    found = results(FIGURES[name])
    picture, panels = FIGURES[name].plot(FIGURES[name].compute(found)), pairs_of_panels(found, left, EVERY)
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_lines_end_with_a_cross_where_the_first_run_diverges():
    found = results(FIGURES["13"], change=diverging(method="FP", coefficient=1.0, every=10))
    axes = FIGURES["13"].plot(FIGURES["13"].compute(found)).axes
    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes[:2]]
    assert labels[0] == ["0", "0.01", "0.03", "0.1", "0.3", "1 (1 of 6 diverged)"]
    assert labels[1] == ["0", "0.01", "0.03", "0.1", "0.3", "1"]
    crosses = [[one for one in ax.lines if one.get_marker() == "x"] for ax in axes]
    assert [len(one) for one in crosses] == [1, 0, 0, 1, 0, 0]
    mean, _ = naive(found, "Tr F", method="FP", coefficient=1.0, every=10)
    drawn = next(one for one in axes[3].lines if "1 of 6" in one.get_label())
    np.testing.assert_allclose(drawn.get_ydata(), mean, rtol=1e-12)
    assert np.isfinite(mean).tolist() == [True, True, False, False, False, False]
    assert (crosses[3][0].get_xdata()[0], crosses[3][0].get_ydata()[0]) == (1, pytest.approx(mean[1]))


def test_figure_17_draws_large_batches_alone():
    found = results(FIGURES["17"])
    picture, panels = FIGURES["17"].plot(FIGURES["17"].compute(found)), []
    for column, label, scale in (("Tr F", "Tr(F)", 1.0), ("validation accuracy", "validation accuracy (%)", 100.0)):
        lines = [line(found, column, "0, rate 0.02", scale, until=810, batch_size=449, lr=0.02)]
        lines += [line(found, column, f"{alpha:g}", scale, 800, batch_size=449, lr=0.01, coefficient=alpha)
                  for alpha in (0.0, *variants.LARGE_COEFFICIENTS)]  # fmt: skip
        panels.append(Panel((label, "step"), lines))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_table_5_draws_ratios_of_whole_cycles_beside_the_papers():
    found = results(FIGURES["table5"])
    picture = FIGURES["table5"].plot(FIGURES["table5"].compute(found))
    for ax, net in zip(picture.axes, ("cnn", "mlp"), strict=True):
        names = list(costs.SETTINGS)[1:]
        assert [text.get_text() for text in ax.get_xticklabels()] == names
        for place, name in enumerate(names):
            drawn = [one.lines[0].get_ydata()[0] for one in ax.containers if one.get_label() == f"_{name}"]
            own = []
            for one in found:
                if one.settings["net"] == net:
                    times = [one.columns.select(method=k)["seconds"].tolist() for k in (0, place + 1)]
                    sums = [[sum(part[5 * k : 5 * k + 5]) for k in range(3)] for part in times]
                    own.append(sorted(b / a for a, b in zip(*sums, strict=True))[1])
            assert drawn == [pytest.approx(np.mean(own))]
            extra = gradient_of(name.removesuffix(", f = 10")) * (0.1 if "10" in name else 1.0)
            assert drawn == [pytest.approx(1.0 + extra, rel=0.01)]
        crosses = {one.get_label(): one.get_ydata() for one in ax.lines if one.get_marker() == "x"}
        assert crosses["_FP, f = 10, paper"] == pytest.approx([1.462, 1.694, 1.231, 1.603, 1.087], abs=5e-4)
        assert len(crosses) == 4


# --- numbers --------------------------------------------------------------------------------------------------------


def test_the_coefficient_is_chosen_by_validation_among_those_that_never_diverged():
    figure = FIGURES["13"]
    for change, expected in (
        (lambda settings, columns: columns, "0.1"),
        (diverging(method="FP", coefficient=0.1, every=10), "0.3"),
        (lambda settings, columns: {**columns, "test accuracy": 1.0 - columns["test accuracy"]}, "0.1"),
    ):
        table = figure.compute(results(figure, change=shifted(change)))
        assert variants.best_of(table, "f = 10") == expected
        own = [one for one in results(figure, change=shifted(change)) if one.settings["every"] == 10]
        own = [one for one in own if f"{one.settings['coefficient']:g}" == expected]
        wanted = {one.settings["seed"]: 100.0 * one.columns["test accuracy"][-1] for one in own}
        assert variants.at_best(table, "f = 10", "test accuracy") == pytest.approx(wanted)


def shifted(change):
    """The second best coefficient, 0.3, is better than 0.03."""

    def both(settings, columns):
        found = change(settings, columns)
        more = 0.005 if settings["coefficient"] == 0.3 else 0.0
        return {**found, "validation accuracy": found["validation accuracy"] + more}

    return both


def test_without_a_coefficient_that_never_diverged_nothing_is_known():
    figure = FIGURES["13"]
    table = figure.compute(results(figure, change=diverging(method="FP", every=10)))
    assert variants.best_of(table, "f = 10") is None
    assert all(math.isnan(value) for value in variants.at_best(table, "f = 10", "largest Tr F").values())
    found = figure.judge(table)
    assert [one.verdict for one in found] == [UNDECIDED] * 5
    assert "best alpha none: each diverged (f = 10); best alpha 0.1 (f = 1)" in found[0].why
    assert "runs that diverged: 5 of 30 (f = 10), 0 of 30 (f = 1)" in found[0].why


def test_halving_lies_between_two_coefficients():
    peaks = {0.01: 90.0, 0.1: 70.0, 1.0: 30.0}
    rows = [Row("f = 1", variants.PEAK, f"{x:g}", x, 100, value) for x, value in peaks.items()]
    rows += [Row("f = 1", variants.PEAK, f"{x:g}", x, 101, 90.0) for x in peaks]
    rows += [Row(variants.NONE, variants.PEAK, variants.SMALL, 0.0, seed, 100.0) for seed in (100, 101)]
    found = variants.halving(table_of(rows), "f = 1")
    assert found[100] == pytest.approx(0.1 * 10.0 ** (math.log(70.0 / 50.0) / math.log(70.0 / 30.0)))
    assert math.isnan(found[101])


# --- verdicts -------------------------------------------------------------------------------------------------------


def scaled(accuracy=0.0, trace=1.0, **which):
    """Runs with these settings come to so many points more, and to another Tr F."""

    def change(settings, columns):
        if any(settings[name] != value for name, value in which.items()):
            return columns
        more = {name: columns[name] + accuracy / 100.0 for name in columns if name.endswith("accuracy")}
        return {**columns, **more, "Tr F": columns["Tr F"] * trace}

    return change


@pytest.mark.parametrize("name", FIGURES)
def test_claims_hold_on_results_that_are_as_the_paper_says(name):
    figure = FIGURES[name]
    found = figure.judge(figure.compute(results(figure)))
    assert {one.verdict for one in found} == {HOLDS}
    assert len({(one.claim, one.why) for one in found}) == len(found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (scaled(-6.0, 5.0, every=10), [FAILS, FAILS, FAILS, FAILS, FAILS]),
        (scaled(-20.0, every=10, coefficient=1.0), [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
        (scaled(-4.0, lr=BEST_RATE["cnn"]), [HOLDS, HOLDS, CANNOT, HOLDS, HOLDS]),
        (scaled(-6.0, 5.0, method="FP"), [CANNOT, CANNOT, FAILS, FAILS, HOLDS]),
        (scaled(-2.5, method="FP"), [CANNOT, HOLDS, HOLDS, HOLDS, HOLDS]),
        (scaled(0.0, 1.5, method="FP"), [HOLDS, CANNOT, HOLDS, HOLDS, HOLDS]),
        (diverging(method="none"), [CANNOT, CANNOT, CANNOT, UNDECIDED, HOLDS]),
        (diverging(method="FP", coefficient=1.0, every=10), [HOLDS, HOLDS, HOLDS, HOLDS, UNDECIDED]),
    ],
)
def test_a_gradient_of_every_tenth_step_is_judged(change, expected):
    assert verdicts("13", change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (scaled(-6.0, 5.0, method="FP, one example"), [FAILS, FAILS, FAILS, FAILS, UNDECIDED]),
        (scaled(0.0, 1.9, method="FP, one example"), [HOLDS, FAILS, HOLDS, FAILS, FAILS]),
        (scaled(-4.0, lr=BEST_RATE["cnn"]), [HOLDS, HOLDS, CANNOT, HOLDS, HOLDS]),
        (scaled(-6.0, 5.0, method="FP"), [CANNOT, CANNOT, HOLDS, HOLDS, FAILS]),
        (scaled(-2.5, method="FP"), [CANNOT, HOLDS, HOLDS, HOLDS, HOLDS]),
        (scaled(0.0, 1.5, method="FP"), [HOLDS, CANNOT, HOLDS, HOLDS, FAILS]),
        (diverging(method="FP, one example"), [UNDECIDED] * 5),
    ],
)
def test_one_example_is_judged(change, expected):
    assert verdicts("14", change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (scaled(-6.0, 10.0, method="FP"), [HOLDS, FAILS, FAILS, HOLDS, FAILS]),
        (scaled(4.0, lr=0.01, method="none"), [HOLDS, FAILS, HOLDS, FAILS, HOLDS]),
        (scaled(-4.0, batch_size=64), [FAILS, HOLDS, HOLDS, CANNOT, CANNOT]),
        (scaled(-1.5, batch_size=64), [HOLDS, HOLDS, HOLDS, CANNOT, HOLDS]),
        (diverging(method="FP"), [HOLDS, UNDECIDED, UNDECIDED, HOLDS, UNDECIDED]),
        (diverging(lr=0.01, method="none"), [HOLDS, UNDECIDED, UNDECIDED, UNDECIDED, HOLDS]),
        (diverging(lr=0.02), [UNDECIDED, HOLDS, HOLDS, CANNOT, CANNOT]),
    ],
)
def test_large_batches_are_judged(change, expected):
    assert verdicts("17", change) == expected


@pytest.mark.parametrize(("first", "same"), [(811, True), (810, False)])
def test_large_batches_are_compared_at_step_810(first, same):
    """What runs at the whole rate come to later, even that they diverge, is not read; the reading at 810 is."""

    def change(settings, columns):
        late = columns["step"] >= first
        if settings["lr"] != 0.02 or not late.any():
            return columns
        worse = {name: np.where(late, 0.9 * columns[name], columns[name]) for name in columns if "accuracy" in name}
        return {**columns, **worse, "Tr F": np.where(late, 1e4, columns["Tr F"]), "diverged": late.astype(int)}

    figure = FIGURES["17"]
    plain, changed = (figure.compute(results(figure, change=one)) for one in (lambda _, columns: columns, change))
    assert all(table["x"].max() == 810 for table in (plain, changed))
    assert all(np.array_equal(plain[name], changed[name], equal_nan=plain[name].dtype.kind == "f")
               for name in plain) == same  # fmt: skip
    assert (verdicts("17", change) == [HOLDS] * 5) == same


def test_runs_are_read_at_step_810_next_after_the_end_of_those_at_half_the_rate():
    job = next(one for one in FIGURES["17"].jobs(FULL) if one["lr"] == 0.02)
    halves = {one["steps"] for one in FIGURES["17"].jobs(FULL) if one["lr"] == 0.01}
    assert halves == {800}
    assert min(step for step in readings(job["first"], job["steps"]) if step >= 800) == variants.COMPARED == 810


@pytest.mark.parametrize(
    ("place", "factor", "expected"),
    [
        (7, 1.5, [FAILS, HOLDS, FAILS] * 2),
        (8, 1.5, [HOLDS, HOLDS, FAILS] * 2),
        (3, 2.0, [HOLDS, FAILS, HOLDS] * 2),
        (1, 2.0, [HOLDS, HOLDS, HOLDS] * 2),
    ],
)
def test_costs_are_judged_of_every_tenth_step_and_of_fp_every_step(place, factor, expected):
    def change(settings, columns):
        return {**columns, "seconds": columns["seconds"] * np.where(columns["method"] == place, factor, 1.0)}

    assert [list(costs.SETTINGS)[number] for number in (3, 7)] == ["FP", "FP, f = 10"]
    assert verdicts("table5", change) == expected


def test_best_choices_are_of_single_seeds_numbers():
    table = FIGURES["17"].compute(results(FIGURES["17"]))
    assert len(by_seed(table, panel=variants.LARGE, quantity="test accuracy", series="0.1")) == 6
