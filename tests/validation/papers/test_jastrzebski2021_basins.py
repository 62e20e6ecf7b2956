"""jastrzebski2021's figures 6, 10 and 11: what they compute, draw and judge, of results that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed
from jastrzebski2021_results import require_all_hold, require_quick

from nqm._table import Table
from nqm.validation.experiments.paper import Effort, Result
from nqm.validation.experiments.samples import by_seed
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers.jastrzebski2021 import basins
from nqm.validation.papers.jastrzebski2021.reading import at_loss

FIGURES = {figure.name.removeprefix("jastrzebski2021-"): figure for figure in basins.FIGURES}
DIGITS, QUICK = Effort(False, 0, "digits"), Effort(True, 0, "digits")
PHASES = {"6": basins.BY_RATE, "10": basins.BY_BATCH}


def strong(settings):
    """Whether a run's regularization (its early one) is high."""
    if settings["kind"] == "continued":
        return (settings["early_rate"], settings["early_batch"]) in ((0.05, 64), (0.02, 16))
    return settings["lr"] >= 0.04 or settings["batch_size"] < 64


def noise_of(settings):
    return np.random.default_rng([ord(letter) for letter in repr(sorted(settings.items()))])


def continued(settings):
    """After high regularization half the traces, and half the spread of accuracies."""
    draws, high, n = noise_of(settings), strong(settings), settings["continuations"]
    accuracy = (96.0 if high else 95.0) + (0.1 if high else 0.5) * np.linspace(-1.0, 1.0, n) * draws.uniform(0.9, 1.1)
    return {
        "continuation": np.arange(n), "early step": np.full(n, 50), "step": np.arange(200, 200 + n),
        "Tr H": (50.0 if high else 100.0) * np.exp(draws.normal(0.0, 0.05, n)),
        "early Tr F": np.full(n, (100.0 if high else 250.0) * math.exp(draws.normal(0.0, 0.05))),
        "held-out accuracy": accuracy / 100.0, "training loss": 0.02 * np.exp(draws.normal(0.0, 0.05, n)),
    }  # fmt: skip


def curvature(settings):
    """log Tr H goes with the loss, and is lower by 1 in set B; values of a set differ by 0.1 early, otherwise late."""
    draws, at = noise_of(settings), np.array(settings["at"], dtype=float)
    loss = 2.3 * np.exp(-((at / 20.0) ** 0.6)) if settings["steps"] > 100 else np.geomspace(1.0, 0.01, at.size)
    logs = 4.0 + 0.5 * np.log(loss) - (1.0 if strong(settings) else 0.0) + 0.1 * draws.normal(size=at.size)
    return {
        "step": at.astype(int), "training loss": loss, "Tr H": np.exp(logs), "diverged": np.zeros(at.size, dtype=int),
        "held-out accuracy": (0.96 if strong(settings) else 0.95) + 0.001 * draws.normal(size=at.size),
    }  # fmt: skip


def results(figure, effort=DIGITS, change=lambda settings, columns: columns):
    made = {"continued": continued, "curvature": curvature}
    return [Result(one, Table(change(one, made[one["kind"]](one)))) for one in figure.jobs(effort)]


def verdicts(name, change):
    return [one.verdict for one in FIGURES[name].judge(FIGURES[name].compute(results(FIGURES[name], change=change)))]


@pytest.mark.parametrize("name", FIGURES)
def test_claims_hold_on_results_that_are_as_the_paper_says(name):
    require_all_hold(FIGURES[name], results(FIGURES[name]))


@pytest.mark.parametrize("name", FIGURES)
def test_quick_versions_can_be_drawn_and_judged(name):
    require_quick(FIGURES[name], results(FIGURES[name], QUICK))


def test_jobs_are_of_the_judged_seeds_and_each_once():
    for figure in FIGURES.values():
        jobs = figure.jobs(Effort(False, 2, "digits"))
        assert min(one["seed"] for one in jobs) == 2100
        assert all(jobs.count(one) == 1 for one in jobs)
    assert all(basins.FIRST <= step <= one["steps"] for one in FIGURES["11"].jobs(DIGITS) for step in one["at"])


# --- numbers and pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHASES)
def test_figures_6_and_10_draw_each_pair(name):
    figure, found = FIGURES[name], results(FIGURES[name])
    table = figure.compute(found)
    axes = figure.plot(table).axes
    for phase, early in PHASES[name].items():
        own = [one.columns for one in found if (one.settings["early_rate"], one.settings["early_batch"]) == early]
        assert [columns.rows for columns in own] == [4] * 8
        drawn = [{line.get_label(): line for line in ax.lines} for ax in axes]
        assert np.array_equal(drawn[0][f"_{phase}, seeds"].get_ydata(), [one["early Tr F"][0] for one in own])
        trace, accuracy, loss = (np.ravel([one[column] for one in own], order="F")
                                 for column in ("Tr H", "held-out accuracy", "training loss"))  # fmt: skip
        assert np.array_equal(drawn[1][phase].get_ydata(), trace)
        assert np.allclose(drawn[2][phase].get_ydata(), 100.0 * accuracy, rtol=1e-12)
        assert np.array_equal(np.round(drawn[1][phase].get_xdata()), np.tile(np.arange(1, 9), 4))
        assert np.array_equal(drawn[3][f"{phase} early"].get_xydata(), np.stack([loss, trace], axis=1))
        wanted = {
            basins.MEAN_TRACE: [one["Tr H"].mean() for one in own],
            basins.SPREAD: [100.0 * one["held-out accuracy"].std(ddof=1) for one in own],
            basins.PER_LOSS: [one["Tr H"].mean() / one["training loss"].mean() for one in own],
        }
        for quantity, numbers in wanted.items():
            assert list(by_seed(table, panel="pairs", quantity=quantity, series=phase).values()) == pytest.approx(
                numbers
            )


def test_figure_11_draws_each_value_of_both_sets():
    found = results(FIGURES["11"])
    picture, panels = FIGURES["11"].plot(FIGURES["11"].compute(found)), []
    for kind, key in (("batch size", "batch_size"), ("learning rate", "lr")):
        curves = []
        for value in (one for values in basins.SETS[kind].values() for one in values):
            own = [one for one in found if one.settings[key] == value]
            traces = np.array([one.columns["Tr H"] for one in own])
            assert len(traces) == 5
            mean, error = traces.mean(axis=0), traces.std(axis=0, ddof=1) / math.sqrt(5)
            best = 100.0 * np.mean([one.columns["held-out accuracy"].max() for one in own])
            label = f"{kind} {value:g}: loss {own[0].columns['training loss'][-1]:.2g}, accuracy {best:.1f}%"
            curves.append(Curve(own[0].columns["step"].astype(float), mean, label, (mean - error, mean + error)))
            assert label in [text.get_text() for text in picture.axes[len(panels)].get_legend().get_texts()]
        panels.append(Panel((kind, "step", "Tr(H)"), curves))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_traces_at_a_loss_lie_on_straight_lines_of_logarithms():
    columns = Table({
        "step": np.array([10, 100, 1000]), "training loss": np.array([1.0, 0.25, 0.01]),
        "Tr H": np.exp([4.0, 3.0, 1.0]), "held-out accuracy": np.array([0.5, 0.9, 0.8]),
        "diverged": np.zeros(3, dtype=int),
    })  # fmt: skip
    found = basins._numbers(columns)
    assert found[basins.AT_EARLY] == pytest.approx(3.5)
    assert found[basins.AT_LATE] == pytest.approx(3.0 - 2.0 * math.log(0.25 / 0.02) / math.log(25.0))
    assert found[basins.LATER] == pytest.approx(2.0)
    assert (found[basins.LARGEST], found[basins.LEAST]) == pytest.approx((90.0, 0.01))
    assert math.isnan(at_loss(np.array([0.4, 0.1]), 0.5, np.zeros(2)))
    assert math.isnan(at_loss(np.array([0.9, 0.6]), 0.5, np.zeros(2)))


# --- verdicts -------------------------------------------------------------------------------------------------------


def changed(high, **columns):
    """Columns of the runs of high (or low) regularization, by functions."""

    def change(settings, given):
        names = {"trace": "Tr H", "accuracy": "held-out accuracy", "loss": "training loss", "early": "early Tr F"}
        if strong(settings) != high:
            return given
        return {**given, **{names[name]: f(given[names[name]]) for name, f in columns.items()}}

    return change


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed(True, early=lambda x: 5.0 * x), [FAILS, CANNOT, CANNOT, CANNOT, CANNOT]),
        (changed(True, trace=lambda x: 5.0 * x), [HOLDS, FAILS, FAILS, HOLDS, HOLDS]),
        (changed(True, loss=lambda x: 0.2 * x), [HOLDS, HOLDS, FAILS, HOLDS, HOLDS]),
        (changed(True, accuracy=lambda x: x - 0.02), [HOLDS, HOLDS, HOLDS, FAILS, HOLDS]),
        (changed(False, accuracy=lambda x: 0.0 * x + 0.95), [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
    ],
)
def test_basins_are_judged_in_pairs(name, change, expected):
    assert verdicts(name, change) == expected


def test_a_continuation_that_diverged_leaves_its_figure_undecided():
    def change(settings, columns):
        if settings["seed"] != 101 or not strong(settings):
            return columns
        first = np.arange(4) == 0
        names = ("step", "held-out accuracy", "training loss", "Tr H")
        return {**columns, **{name: np.where(first, math.nan, columns[name]) for name in names}}

    assert verdicts("6", change) == [HOLDS, UNDECIDED, UNDECIDED, UNDECIDED, UNDECIDED]
    FIGURES["6"].plot(FIGURES["6"].compute(results(FIGURES["6"], change=change))).canvas.draw()


def reordered(settings, columns):
    """Values of a set in an order of their own, the same early and late, and further apart than the sets."""
    value = settings["lr"] if settings["batch_size"] == 64 else settings["batch_size"]
    values = next(one for sets in basins.SETS.values() for one in sets.values() if value in one)
    return {**columns, "Tr H": columns["Tr H"] * math.exp(2.0 * values.index(value))}


def turned(settings, columns):
    """Between early and late the sets change their order."""
    early = 4.0 if strong(settings) else 1.0
    return {**columns, "Tr H": np.where(columns["training loss"] > 0.1, early, 1.0) * columns["Tr H"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed(True, trace=lambda x: 10.0 * x), [FAILS, FAILS, HOLDS, HOLDS, HOLDS, HOLDS]),
        (changed(True, accuracy=lambda x: x - 0.03), [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
        (reordered, [HOLDS, HOLDS, HOLDS, None, FAILS, HOLDS]),
        (turned, [HOLDS, HOLDS, FAILS, None, HOLDS, HOLDS]),
        (changed(True, loss=lambda x: x + 1.0), [HOLDS, UNDECIDED, CANNOT, CANNOT, UNDECIDED, HOLDS]),
    ],
)
def test_curvature_is_judged_between_and_within_sets(change, expected):
    found = verdicts("11", change)
    for half in (found[:6], found[6:]):
        assert [one if wanted else None for one, wanted in zip(half, expected, strict=True)] == expected
    table = FIGURES["11"].compute(results(FIGURES["11"], change=change))
    FIGURES["11"].plot(table).canvas.draw()


def test_sets_that_do_not_differ_have_no_order():
    assert verdicts("11", changed(True, trace=lambda x: math.e * x))[2:4] == [CANNOT, CANNOT]
