"""Penalties at the small rate and at the best, and from a later step on (jastrzebski2021): of made-up results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed
from jastrzebski2021_results import FULL, QUICK, columns_of, mean_and_error, noise_of

from nqm._table import Table
from nqm.validation.experiments.paper import Result
from nqm.validation.experiments.samples import MEAN, by_seed, means
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers.jastrzebski2021 import late, penalties
from nqm.validation.papers.jastrzebski2021.protocol import BATCH, BEST_RATE, SMALL_RATE, TITLES

FIGURES = {figure.name.partition("-")[2]: figure for figure in (*penalties.FIGURES, *late.FIGURES)}
GRID = ("3", "8", "table1", "table4", "table6")
PLACE = {"GP_x": 100.0, "GP": 0.3, "FP": 0.1, "GP_r": 0.1}
GAIN = {"GP_x": 1.5, "GP": 1.5, "FP": 3.0, "GP_r": 3.0}
LOWERED = {"GP_x": 0.4, "GP": 0.5, "FP": 0.8, "GP_r": 0.6}
COLUMNS = {"test accuracy": 1.0, "validation accuracy": 1.0, "held-out accuracy": 1.0, "Tr F": 0.0}


def course(settings, gap=2.0, gain=GAIN, lowered=LOWERED, best=1.0):
    """A gap between the rates; each method gains most at its own coefficient, lowers log Tr F there as much as it does;
    later starts gain less. A loss (gain below 0) is the same at all coefficients. best: gain of FP at the best rate."""
    noise, method, at_best = noise_of(settings), settings["method"], settings["lr"] == BEST_RATE[settings["net"]]
    top, peak = (96.0, 100.0) if at_best else (96.0 - gap, 100.0 * math.exp(0.5 * gap))
    if method != "none":
        off = math.log10(settings["coefficient"] / PLACE[method]) ** 2
        own = best if at_best else gain[method]
        top += own * (math.exp(-off) if own > 0.0 else 1.0) * math.exp(-settings["start"] / 150.0)
        peak *= math.exp(-lowered[method] - 0.2 * math.log10(settings["coefficient"] / PLACE[method]))
    step = np.array([0.0, 10.0, 100.0, settings["steps"]])
    accuracy = np.array([0.1, 0.5, 0.8, 1.0]) * top / 100.0
    jitter = noise.normal(0.0, 0.001, (3, 4))
    return {
        "step": step, "training loss": np.array([2.3, 1.2, 0.4, 0.01]),
        "training accuracy": np.array([0.1, 0.5, 0.9, 1.0]), "held-out accuracy": accuracy + jitter[0],
        "validation accuracy": accuracy + 0.001 + jitter[1], "test accuracy": accuracy - 0.001 + jitter[2],
        "Tr F": peak * np.array([0.2, 1.0, 0.5, 0.02]) * math.exp(noise.normal(0.0, 0.03)),
        "diverged": np.zeros(4, dtype=int),
    }  # fmt: skip


def results(name, effort=FULL, change=lambda settings, columns: columns, **options):
    """What the figure's jobs would have returned; options: of :func:`course`."""
    return [Result(one, Table(change(one, course(one, **options)))) for one in FIGURES[name].jobs(effort)]


def computed(name, **options):
    return FIGURES[name].compute(results(name, **options))


def verdicts(name, **options):
    return [verdict.verdict for verdict in FIGURES[name].judge(computed(name, **options))]


def diverging(*seeds, **which):
    """Runs of these seeds with these settings diverge at step 10."""

    def change(settings, columns):
        if settings["seed"] not in seeds or any(settings[name] != value for name, value in which.items()):
            return columns
        early = {name: column[:2] for name, column in columns.items()}
        gone = {name: np.array([column[0], math.nan]) for name, column in early.items()}
        return {**gone, "step": early["step"], "diverged": np.array([0, 1])}

    return change


# --- jobs -------------------------------------------------------------------------------------------------------------


def key(settings):
    return tuple(sorted(settings.items()))


def test_figures_share_their_runs():
    jobs = {name: {key(one) for one in FIGURES[name].jobs(FULL)} for name in FIGURES}
    assert jobs["table1"] == jobs["table4"] == jobs["table6"] > jobs["3"] | jobs["8"]
    assert not jobs["3"] & jobs["8"]
    from_the_start = {one for one in jobs["4"] if dict(one)["start"] == 0}
    assert from_the_start < jobs["3"]
    assert {one for one in jobs["table2"] if dict(one)["method"] == "none"} < jobs["table1"]
    assert all(len(jobs[name]) == len(FIGURES[name].jobs(FULL)) for name in FIGURES)


def test_five_coefficients_half_a_decade_apart_are_tried():
    jobs = FIGURES["table1"].jobs(FULL)
    for net in ("cnn", "mlp"):
        for method in PLACE:
            tried = sorted({one["coefficient"] for one in jobs if (one["net"], one["method"]) == (net, method)})
            assert np.diff(np.log10(tried)) == pytest.approx([0.5] * 4, abs=0.03)
        assert (tried[0], tried[-1]) == ((0.01, 1.0) if net == "cnn" else (0.03, 3.0))
        wide = [one["coefficient"] for one in jobs if (one["net"], one["method"]) == (net, "GP_x")]
        assert (min(wide), max(wide)) == (10.0, 1000.0)


@pytest.mark.parametrize("name", FIGURES)
def test_quick_versions_have_few_runs_and_can_be_drawn_and_judged(name):
    table = FIGURES[name].compute(results(name, QUICK))
    FIGURES[name].plot(table).canvas.draw()
    assert FIGURES[name].judge(table)
    assert len(FIGURES[name].jobs(QUICK)) < len(FIGURES[name].jobs(FULL)) / 4
    assert {one["steps"] for one in FIGURES[name].jobs(QUICK)} == {400}


# --- what is computed -------------------------------------------------------------------------------------------------


def test_coefficients_are_chosen_by_validation_and_reported_by_test_accuracy():
    def change(settings, columns):  # the largest test accuracy elsewhere
        return {**columns, "test accuracy": columns["test accuracy"] + 0.05 * (settings["coefficient"] == 1.0)}

    found = results("table1", change=change)
    table = FIGURES["table1"].compute(found)
    for net in ("cnn", "mlp"):
        for method, alpha in PLACE.items():
            own = means(table, panel=net, quantity="test accuracy", series=method)
            assert own["x"] == pytest.approx(alpha)
            values = 100.0 * columns_of(found, "test accuracy", net=net, method=method, coefficient=alpha)[:, -1]
            assert (own["value"][0], own["error"][0]) == pytest.approx(mean_and_error(values))
            tried = means(table, panel=net, quantity="validation accuracy", series=method)
            ends = [columns_of(found, "validation accuracy", net=net, method=method, coefficient=one)[:, -1]
                    for one in tried["x"]]  # fmt: skip
            naive = 100.0 * np.mean(ends, axis=1)
            assert tried["value"] == pytest.approx(naive)
            assert tried["x"][np.argmax(naive)] == pytest.approx(alpha)


@pytest.mark.parametrize(
    ("gone", "expected"), [((0.1,), 0.3), ((0.1, 0.3, 1.0), 0.03), ((0.01, 0.03, 0.1, 0.3, 1.0), 0.01)]
)
def test_coefficients_with_a_run_that_diverged_are_not_chosen(gone, expected):
    def change(settings, columns):
        gone_here = settings["coefficient"] in gone and settings["method"] == "FP" and settings["net"] == "cnn"
        return diverging(103)(settings, columns) if gone_here else columns

    table = computed("table1", change=change)
    own = by_seed(table, panel="cnn", quantity="test accuracy", series="FP", x=expected)
    assert math.isnan(own[103]) == (len(gone) == 5)
    assert sum(np.isfinite([*own.values()])) == len(own) - (len(gone) == 5)


def test_single_numbers_are_naive_ones():
    for name, column, scale, quantity in (
        ("table4", "Tr F", 1.0, "largest Tr F"),
        ("table6", "training accuracy", 100.0, "final training accuracy"),
    ):
        found = results(name)
        table = FIGURES[name].compute(found)
        assert table.distinct("quantity") == [quantity]
        for net, series, which in (
            ("cnn", "small rate", {"method": "none", "lr": SMALL_RATE["cnn"]}),
            ("mlp", "GP", {"method": "GP", "coefficient": 0.3}),
        ):
            own = columns_of(found, column, net=net, **which)
            wanted = own.max(axis=1) if column == "Tr F" else own[:, -1]
            assert [*by_seed(table, panel=net, quantity=quantity, series=series).values()] == pytest.approx(
                scale * wanted
            )


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "net"), [("3", "cnn"), ("8", "mlp")])
def test_figures_3_and_8_draw_accuracy_and_trace_of_four_runs(name, net):
    found = results(name)
    runs = {
        f"best rate, {BEST_RATE[net]:g}": {"method": "none", "lr": BEST_RATE[net]},
        f"small rate, {SMALL_RATE[net]:g}": {"method": "none", "lr": SMALL_RATE[net]},
        "GP_x, 100": {"method": "GP_x", "coefficient": 100.0},
        "FP, 0.1": {"method": "FP", "coefficient": 0.1},
    }
    panels = []
    for column, scale, text in (("validation accuracy", 100.0, "validation accuracy"), ("Tr F", 1.0, "Tr(F)")):
        lines = []
        for label, which in runs.items():
            mean, error = mean_and_error(scale * columns_of(found, column, **which))
            lines.append(Curve(columns_of(found, "step", **which)[0], mean, label, (mean - error, mean + error)))
        panels.append(Panel(("step", text), lines))
    picture = FIGURES[name].plot(FIGURES[name].compute(found))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


@pytest.mark.parametrize("seed", [100, 103])
def test_lines_end_with_the_first_run_that_diverged(seed):
    which = {"method": "none", "lr": SMALL_RATE["cnn"]}
    found = results("3", change=diverging(seed, **which))
    table = FIGURES["3"].compute(found)
    own = means(table, quantity="Tr(F)", series="small rate")
    assert own["x"].tolist() == [0.0, 10.0, 100.0, 1200.0]
    assert np.isnan(own["value"]).tolist() == [False, True, True, True]
    known = [one.columns["Tr F"] for one in found if which.items() <= one.settings.items()]
    assert sorted({column.size for column in known}) == [2, 4]
    assert own["value"][0] == pytest.approx(np.mean([column[0] for column in known]))
    assert set(own["seeds"]) == {len(known)}
    assert means(table, quantity="Tr(F)", series="best rate")["x"].tolist() == [0.0, 10.0, 100.0, 1200.0]


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table6"])
def test_tables_are_drawn_side_by_side_with_the_seeds_own_numbers(name):
    table = computed(name)
    quantity = table.distinct("quantity")[0]
    axes = FIGURES[name].plot(table).axes
    below = ("cnn", "mlp") if name in ("table1", "table2") else ()
    for ax, net in zip(axes[:2], ("cnn", "mlp"), strict=True):
        own = table.select(panel=net, quantity=quantity)
        series = own.distinct("series")
        assert ax.get_title() == TITLES[net]
        said = [label.get_text().rpartition("\n") for label in ax.get_xticklabels()]
        assert [name.replace("\n", " ") for name, _, _ in said] == series
        assert [float(x) for _, _, x in said] == pytest.approx(means(own, quantity=quantity)["x"])
        drawn = [(one.lines[0].get_ydata()[0], one.lines[2][0].get_segments()[0][:, 1]) for one in ax.containers]
        for (value, ends), one in zip(drawn, series, strict=True):
            mean = own.select(series=one, seed=MEAN)
            assert value == pytest.approx(mean["value"][0])
            assert ends == pytest.approx(mean["value"][0] + mean["error"][0] * np.array([-1.0, 1.0]))
        points = [line.get_ydata() for line in ax.lines if line.get_label().endswith("seeds")]
        for values, one in zip(points, series, strict=True):
            assert values == pytest.approx([*by_seed(own, series=one).values()])
    for ax, net in zip(axes[2:], below, strict=True):
        tried = means(table, panel=net, quantity="validation accuracy")
        for line in ax.lines:
            name_of = line.get_label().removeprefix("no penalty, ")
            own = tried.select(series=name_of)
            assert np.unique(line.get_ydata()) == pytest.approx(np.unique(own["value"]))
        assert len(ax.lines) == len(tried.distinct("series"))


def test_figure_4_draws_accuracy_against_the_first_epoch():
    found = results("4")
    finals = [
        100.0 * columns_of(found, "held-out accuracy", method="FP", start=7 * start)[:, -1] for start in late.STARTS
    ]
    mean, error = np.array([mean_and_error(own) for own in finals]).T
    picture = FIGURES["4"].plot(FIGURES["4"].compute(found))
    line = Curve(np.array(late.STARTS, dtype=float), mean, "FP 0.1, small rate", (mean - error, mean + error))
    require_drawn([Panel(("epoch", "final held-out accuracy"), [line])], picture)
    levels = {one.get_label(): one.get_ydata()[0] for one in picture.axes[0].lines[1:]}
    for name, rate in (("best", BEST_RATE), ("small", SMALL_RATE)):
        plain = columns_of(found, "held-out accuracy", method="none", lr=rate["cnn"])[:, -1]
        assert levels[f"no penalty, {name} rate, {rate['cnn']:g}"] == pytest.approx(100.0 * plain.mean())


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_claims_hold_on_results_that_are_as_the_paper_says(name):
    assert set(verdicts(name)) == {HOLDS}


WORSE, ANY = dict.fromkeys(GAIN, -1.0), "of no matter"


@pytest.mark.parametrize(("name", "options", "expected"), [
    ("table1", {"gain": WORSE}, [HOLDS, FAILS, *[FAILS] * 4, FAILS, HOLDS, HOLDS, ANY, CANNOT] * 2),
    ("table1", {"gain": {**GAIN, "GP": 4.0, "GP_x": 4.5, "GP_r": 0.5}},
     [HOLDS, HOLDS, *[HOLDS] * 4, HOLDS, FAILS, FAILS, FAILS, FAILS] * 2),
    ("table1", {"gap": -1.0, "best": 0.0}, [FAILS, HOLDS, *[CANNOT] * 8, HOLDS] * 2),
    ("table1", {"gain": {**GAIN, "FP": 0.6, "GP_r": 0.6}}, [HOLDS, HOLDS, *[ANY] * 8, CANNOT] * 2),
    ("table1", {"gain": {**GAIN, "FP": 0.6}}, [HOLDS, HOLDS, *[ANY] * 8, CANNOT] * 2),
    ("table1", {"gain": {**GAIN, "FP": 1.4, "GP_r": 1.4}}, [HOLDS, HOLDS, *[ANY] * 8, HOLDS] * 2),
    ("table2", {"best": -1.0}, [FAILS] * 2),
    ("table4", {"lowered": dict.fromkeys(LOWERED, -0.5)}, [*[FAILS] * 4, ANY] * 2),
    ("table4", {"lowered": {**LOWERED, "GP_r": 1.0}}, [*[HOLDS] * 4, FAILS] * 2),
    ("3", {"gain": WORSE, "lowered": dict.fromkeys(LOWERED, -0.5)}, [FAILS] * 6),
    ("3", {"lowered": dict.fromkeys(LOWERED, 3.0)}, [HOLDS, HOLDS, FAILS] * 2),
    ("8", {"gap": -1.0}, [CANNOT, HOLDS, CANNOT] * 2),
    ("4", {"gain": WORSE}, [FAILS, FAILS, CANNOT, CANNOT, CANNOT]),
    ("4", {"gap": -1.0}, [HOLDS, CANNOT, HOLDS, HOLDS, CANNOT]),
    ("4", {"gap": 3.3}, [HOLDS] * 5),
    ("4", {"gap": 3.7}, [HOLDS, FAILS, HOLDS, HOLDS, CANNOT]),
])  # fmt: skip
def test_claims_fail_on_the_opposite_or_cannot_be_judged_where_the_premise_is_not_seen(name, options, expected):
    found = verdicts(name, **options)
    assert [b if b == ANY else a for a, b in zip(found, expected, strict=True)] == expected


def test_a_penalty_that_keeps_examples_from_being_fitted_underfits():
    def change(settings, columns):
        less = 0.05 * (settings["method"] in ("FP", "none") and settings["lr"] == SMALL_RATE[settings["net"]])
        return {**columns, "training accuracy": columns["training accuracy"] - less}

    assert verdicts("table6", change=change) == [FAILS, HOLDS, HOLDS, FAILS, HOLDS] * 2


@pytest.mark.parametrize(("points", "expected"), [(5.0, HOLDS), (-0.5, HOLDS), (-1.5, FAILS)])
def test_a_training_accuracy_that_is_higher_or_less_than_a_point_lower_is_no_underfitting(points, expected):
    def change(settings, columns):
        more = 0.01 * points * (settings["method"] == "FP")
        return {**columns, "training accuracy": columns["training accuracy"] + more}

    assert verdicts("table6", change=change) == [HOLDS, HOLDS, HOLDS, expected, HOLDS] * 2


def test_a_late_start_that_does_as_well_contradicts_figure_4():
    def change(settings, columns):
        more = 0.03 * (1.0 + settings["start"] / 448.0) if settings["method"] == "FP" else 0.0
        return {**columns, "held-out accuracy": course({**settings, "method": "none"})["held-out accuracy"] + more}

    assert verdicts("4", change=change) == [HOLDS, HOLDS, FAILS, FAILS, FAILS]


@pytest.mark.parametrize(("left", "expected"), [(0.3, FAILS), (0.7, HOLDS)])
def test_a_late_start_closes_the_gap_where_half_a_point_is_left_at_most(left, expected):
    def change(settings, columns):
        if settings["method"] != "FP":
            return columns
        more = 0.02 - 0.01 * left * math.log2(1.0 + settings["start"] / late.EPOCH) / math.log2(65.0)
        return {**columns, "held-out accuracy": course({**settings, "method": "none"})["held-out accuracy"] + more}

    assert verdicts("4", change=change) == [HOLDS, HOLDS, HOLDS, HOLDS, expected]


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_that_diverged_leaves_claims_undecided_or_without_their_premise(name):
    gone = diverging(
        101, method="none", lr=(BEST_RATE if name == "table2" else SMALL_RATE)["mlp" if name == "8" else "cnn"]
    )
    found = verdicts(name, change=gone)
    whole = 11 if name == "table1" else 5 if name in ("table4", "table6") else 1 if name == "table2" else len(found)
    assert found[whole:] == [HOLDS] * (len(found) - whole)
    assert set(found[:whole]) & {UNDECIDED, CANNOT}
    independent = {"table4": 1, "table6": 4, "table1": 0}.get(name, 0)
    assert found[:whole].count(HOLDS) == independent


def test_batches_are_the_usual_ones():
    assert {one["batch_size"] for name in FIGURES for one in FIGURES[name].jobs(FULL)} == {BATCH}
