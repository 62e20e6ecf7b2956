"""Figures 1, 2, 7, 12, 15, 16 and 18 of jastrzebski2021: what they compute, draw and judge, of made-up results."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed
from jastrzebski2021_results import QUICK, broken, columns_of, mean_and_error, require_quick, results
from scipy.stats import spearmanr

from nqm.validation.experiments.samples import by_seed
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers.jastrzebski2021 import correlation, explosion, traces
from nqm.validation.papers.jastrzebski2021.protocol import BATCH_SIZES, BEST_RATE, RATES, SMALL_RATE

FIGURES = {
    figure.name.partition("-")[2]: figure for file in (explosion, correlation, traces) for figure in file.FIGURES
}
OURS = "of one setting (ours)"  # a claim that made-up results say nothing of
RATES_OF = {"best rate": BEST_RATE["cnn"], "small rate": SMALL_RATE["cnn"]}


def judged(number, found):
    figure = FIGURES[number]
    return [verdict.verdict for verdict in figure.judge(figure.compute(found)) if OURS not in verdict.claim]


@pytest.mark.parametrize("number", FIGURES)
def test_claims_hold_on_results_that_are_as_the_paper_says(number):
    assert set(judged(number, results(FIGURES[number]))) == {HOLDS}


@pytest.mark.parametrize(("number", "instead"), [
    ("1", [FAILS, FAILS, FAILS, FAILS, HOLDS]), ("2", [FAILS, CANNOT, CANNOT] * 2),
    ("7", [FAILS, CANNOT, CANNOT] * 2), ("12", [HOLDS, FAILS, FAILS, FAILS]), ("15", [CANNOT]),
    ("16", [FAILS] * 2), ("18", [FAILS, FAILS, HOLDS] * 3),
])  # fmt: skip
def test_claims_fail_on_the_opposite_or_cannot_be_judged_where_the_premise_is_not_seen(number, instead):
    assert judged(number, results(FIGURES[number], sign=-1.0)) == instead


@pytest.mark.parametrize(("number", "options", "instead"), [
    ("1", {"alike": False}, [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]), ("2", {"trace": -1.0}, [HOLDS, FAILS, FAILS] * 2),
    ("7", {"trace": -1.0}, [HOLDS, FAILS, FAILS] * 2), ("12", {"alike": False}, [FAILS, HOLDS, HOLDS, FAILS]),
    ("15", {"trace": -1.0}, [FAILS]),
])  # fmt: skip
def test_claims_fail_where_their_premise_is_seen(number, options, instead):
    assert judged(number, results(FIGURES[number], **options)) == instead


def test_a_mean_ends_where_the_first_of_its_runs_does():
    found = broken(results(FIGURES["16"]))
    for line in FIGURES["16"].plot(FIGURES["16"].compute(found)).axes[0].lines:
        known = np.isfinite(line.get_ydata())
        assert known[:99].all()
        assert not known[100:].any()


def test_traces_of_a_network_end_with_the_first_run_that_diverged():
    for ax in FIGURES["18"].plot(FIGURES["18"].compute(broken(results(FIGURES["18"])))).axes:
        for line in ax.lines:
            assert np.isfinite(line.get_ydata()[0])
            assert np.isnan(line.get_ydata()[-1])


@pytest.mark.parametrize("number", FIGURES)
def test_a_run_that_diverged_leaves_claims_undecided(number):
    found = judged(number, broken(results(FIGURES[number])))
    assert set(found) <= {UNDECIDED, CANNOT} | ({HOLDS} if number == "12" else set())


@pytest.mark.parametrize("number", FIGURES)
def test_quick_versions_can_be_drawn_and_judged(number):
    require_quick(FIGURES[number], results(FIGURES[number], QUICK))


def test_figure_1_draws_accuracies_trace_and_gradient_norm():
    found, lines = results(FIGURES["1"]), {"accuracy": [], "Tr(F)": [], "norm": []}
    for name, rate in RATES_OF.items():
        for part in ("training", "held-out"):
            lines["accuracy"].append(line(found, f"{part} accuracy", f"{name}, {rate:g}: {part}", 100.0, lr=rate))
        lines["Tr(F)"].append(line(found, "Tr F", None, lr=rate))
        norms = np.sqrt(columns_of(found, "squared gradient of a batch", lr=rate))
        lines["norm"].append(Curve(steps(found, lr=rate), *with_band(norms)))
    require([("step", label) for label in lines], list(lines.values()), explosion.plot_1, FIGURES["1"], found)


def test_figures_15_and_16_draw_trace_and_accuracy_at_each_step():
    found = results(FIGURES["15"])
    fine = [one for one in found if one.settings["first"] < 0]
    drawn = [[line(fine, column, f"{name}, {rate:g}", scale, lr=rate) for name, rate in RATES_OF.items()]
             for column, scale in (("Tr F", 1.0), ("training accuracy", 100.0))]  # fmt: skip
    require([("step", "Tr(F)"), ("step", "training accuracy")], drawn, explosion.plot_15, FIGURES["15"], found)
    found = results(FIGURES["16"])
    drawn = [[line(found, column, f"batch {batch}", scale, batch_size=batch) for batch in explosion.BATCHES]
             for column, scale in (("Tr F", 1.0), ("training accuracy", 100.0))]  # fmt: skip
    require([("step", "Tr(F)"), ("step", "training accuracy")], drawn, explosion.plot_16, FIGURES["16"], found)


def test_figure_18_draws_three_traces_of_each_network():
    found = results(FIGURES["18"])
    labels = {"Tr H": "Tr(H)", "Tr F": "Tr(F)", "Tr F of a batch": "one batch"}
    drawn = [[line(found, name, label, net=net) for name, label in labels.items()] for net in traces.FOLLOWED]
    require([("step", "trace")] * 3, drawn, traces.plot_18, FIGURES["18"], found)


@pytest.mark.parametrize(("number", "by", "values"), [("2", "lr", RATES["cnn"]), ("7", "batch_size", BATCH_SIZES)])
def test_figures_2_and_7_draw_early_trace_against_the_largest_accuracy(number, by, values):
    figure = FIGURES[number]
    found = results(figure)
    picture = figure.plot(figure.compute(found))
    for ax, loss in zip(picture.axes[:2], (1.2, 0.5), strict=True):
        points = [one.lines[0].get_xydata()[0] for one in ax.containers]
        for point, value in zip(points, values, strict=True):
            losses, fisher, accuracy = (
                columns_of(found, name, net="cnn", **{by: value})
                for name in ("training loss", "Tr F", "held-out accuracy")
            )
            early = [np.exp(np.interp(-np.log(loss), -np.log(one), np.log(own)))
                     for one, own in zip(losses, fisher, strict=True)]  # fmt: skip
            np.testing.assert_allclose(point, (np.mean(early), 100.0 * accuracy.max(axis=1).mean()), rtol=1e-12)


def test_figure_12_draws_both_traces_and_their_ratio():
    found = results(FIGURES["12"])
    picture = traces.plot_12(FIGURES["12"].compute(found))
    runs = [one for one in found if one.settings["kind"] == "course"]
    left, middle, right = picture.axes
    for number, rate in enumerate(RATES["cnn"]):
        fisher, batch = (columns_of(runs, name, lr=rate).mean(axis=0) for name in ("Tr F", "Tr F of a batch"))
        np.testing.assert_allclose(left.lines[number].get_ydata(), fisher)
        np.testing.assert_allclose(middle.lines[number].get_xydata(), np.column_stack((fisher, batch)))
    of_identity = [one for one in found if one.settings["kind"] == "identity"]
    ratio = 64.0 * columns_of(of_identity, "Tr F of a batch") / columns_of(of_identity, "Tr F")
    np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(), ratio.mean(axis=0))


def test_rank_correlation_is_spearmans_and_within_settings_the_settings_mean_does_not_count():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 12))
    assert correlation.rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(correlation.rank_correlation(x, np.ones(12)))
    early, accuracy = rng.normal(size=(2, 5, 40))
    moved = early + 100.0 * np.arange(5.0)[:, None], accuracy - 100.0 * np.arange(5.0)[:, None]
    assert abs(correlation.jackknifed(*moved).mean()) < 0.3
    assert correlation.jackknifed(early, -2.0 * early).mean() == pytest.approx(-1.0)


def test_numbers_of_single_seeds_are_naive_ones():
    found = results(FIGURES["1"])
    table = FIGURES["1"].compute(found)
    peaks = {one.settings["seed"]: one.columns["Tr F"].max() for one in found if one.settings["lr"] == BEST_RATE["cnn"]}
    assert by_seed(table, quantity="largest Tr F", series="best rate") == peaks


# --- what a picture has to hold ---------------------------------------------------------------------------------------


def steps(found, **settings):
    return columns_of(found, "step", **settings)[0]


def with_band(values):
    """y, label, band of a curve."""
    mean, error = mean_and_error(values)
    return mean, None, (mean - error, mean + error)


def line(found, column, label, scale=1.0, **settings):
    mean, _, band = with_band(scale * columns_of(found, column, **settings))
    return Curve(steps(found, **settings), mean, label, band)


def require(texts, lines, plot, figure, found):
    picture = plot(figure.compute(found))
    panels = [Panel(text, own) for text, own in zip(texts, lines, strict=True)]
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)
