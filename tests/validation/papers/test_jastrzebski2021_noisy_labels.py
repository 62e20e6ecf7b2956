"""jastrzebski2021's figures 5 and 9 and table 3: what they compute, draw and judge, of results that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed
from jastrzebski2021_results import require_all_hold, require_quick

from nqm._table import Table
from nqm.validation.experiments.paper import Effort, Result
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers.jastrzebski2021 import noisy_labels

FIGURES = {figure.name.removeprefix("jastrzebski2021-"): figure for figure in noisy_labels.FIGURES}
DIGITS, QUICK = Effort(False, 0, "digits"), Effort(True, 0, "digits")
NETS = {"5": "mlp", "9": "cnn"}
BEST = {"none": 84.0, "mixup": 86.0, "GP_x": 85.0, "GP": 86.0, "FP": 88.0, "GP_r": 88.3}
GOOD = {"none": 0.0, "mixup": 3.2, "GP_x": 100.0, "GP": 0.3, "FP": 1.0, "GP_r": 1.0}


def noisy(settings):
    """Wrong labels are fitted the later, and gradients the less different, the stronger the penalty; test accuracy
    rises to the method's own and falls, and is highest at its good coefficient."""
    draws = np.random.default_rng([ord(letter) for letter in repr(sorted(settings.items()))])
    step = np.arange(0, settings["steps"] + 1, settings["spacing"])
    coefficient, method = settings["coefficient"], settings["method"]
    slow = 1.0 + (coefficient if method == "FP" else 0.0)
    clean = 1.0 - 0.9 * np.exp(-step / (60.0 * math.sqrt(slow)))
    wrong = 0.1 + 0.85 * (1.0 - np.exp(-((step / (250.0 * slow**2)) ** 2)))
    size = 5.0 * np.exp(-step / 2000.0) * math.exp(draws.normal(0.0, 0.02))
    fall = 0.0 if step[-1] < 400 else 0.08 / slow
    top = BEST[method] / 100.0 - 0.01 * abs(math.log10((coefficient or 1.0) / (GOOD[method] or 1.0)))
    accuracy = top + draws.normal(0.0, 0.002) - np.where(step < 400, 0.3, 0.0) - fall * (step > 600)
    return {
        "step": step, "training loss": 2.3 * np.exp(-step / 300.0), "clean accuracy": clean, "noisy accuracy": wrong,
        "clean gradient norm": size, "noisy gradient norm": size * (1.0 + 1.0 / slow),
        "validation accuracy": accuracy + 0.01 * (step == 500), "test accuracy": accuracy,
        "diverged": np.zeros(step.size, dtype=int),
    }  # fmt: skip


def uniform(settings):
    return {"Tr F": np.array([10.0 + settings["seed"]]), "squared norm": np.array([10.01 + settings["seed"]])}


def results(figure, effort=DIGITS, change=lambda settings, columns: columns):
    made = {"noisy": noisy, "uniform": uniform}
    return [Result(one, Table(change(one, made[one["kind"]](one)))) for one in figure.jobs(effort)]


def verdicts(name, change):
    return [one.verdict for one in FIGURES[name].judge(FIGURES[name].compute(results(FIGURES[name], change=change)))]


def diverged(columns):
    """From half of the run on."""
    rows = len(columns["step"]) // 2
    return {name: np.where(np.arange(rows) < rows - 1, column[:rows], 1 if name == "diverged" else math.nan)
            if name != "step" else column[:rows] for name, column in columns.items()}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_claims_hold_on_results_that_are_as_the_paper_says(name):
    require_all_hold(FIGURES[name], results(FIGURES[name]))


@pytest.mark.parametrize("name", FIGURES)
def test_quick_versions_can_be_drawn_and_judged(name):
    require_quick(FIGURES[name], results(FIGURES[name], QUICK))


def test_jobs_are_shared_and_of_the_judged_seeds():
    of_table = FIGURES["table3"].jobs(DIGITS)
    assert all(one in of_table for one in FIGURES["5"].jobs(DIGITS))
    assert all(of_table.count(one) == 1 for one in of_table)
    assert min(one["seed"] for figure in FIGURES.values() for one in figure.jobs(Effort(False, 2, "digits"))) == 2100


# --- pictures -------------------------------------------------------------------------------------------------------


def mean_of(found, coefficient, column):
    values = np.array([column(one.columns) for one in found if one.settings["coefficient"] == coefficient])
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return values.mean(axis=0), (values.mean(axis=0) - error, values.mean(axis=0) + error)


@pytest.mark.parametrize("name", NETS)
def test_figures_5_and_9_draw_accuracies_norms_and_their_ratio(name):
    found = results(FIGURES[name])
    step, panels = found[0].columns["step"].astype(float), []
    coefficients = (0.0, *noisy_labels.STRENGTHS[NETS[name]])
    for quantity, scale in (("accuracy", 100.0), ("gradient norm", 1.0)):
        curves = [
            Curve(step, *_split(mean_of(found, one, lambda c, f=f"{part} {quantity}", s=scale: s * c[f])))
            for one in coefficients
            for part in ("clean", "noisy")
        ]
        panels.append(Panel((quantity, "step"), curves))
    ratio = [mean_of(found, one, lambda c: c["clean gradient norm"] / c["noisy gradient norm"]) for one in coefficients]
    names = ["no penalty", *(f"FP {one:g}" for one in coefficients[1:])]
    panels.append(Panel(("ratio", "step"), [
        Curve(step, mean, label, around) for label, (mean, around) in zip(names, ratio, strict=True)
    ]))  # fmt: skip
    picture = FIGURES[name].plot(FIGURES[name].compute(found))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def _split(mean_and_around):
    mean, around = mean_and_around
    return mean, None, around


def test_table_3_draws_each_methods_seeds_at_its_best_coefficient():
    found = results(FIGURES["table3"])
    axes = FIGURES["table3"].plot(FIGURES["table3"].compute(found)).axes
    for place, (row, share) in enumerate((row, share) for row in ("best", "end") for share in (0.25, 0.5)):
        lines = {line.get_label(): line.get_ydata() for line in axes[place].lines}
        for method, coefficient in GOOD.items():
            own = [one.columns for one in found
                   if [one.settings.get(key) for key in ("share", "method", "coefficient")]
                   == [share, method, coefficient]]  # fmt: skip
            rows = [int(columns["validation accuracy"].argmax()) if row == "best" else -1 for columns in own]
            wanted = [100.0 * columns["test accuracy"][k] for columns, k in zip(own, rows, strict=True)]
            assert len(wanted) == 6
            assert np.allclose(lines[f"_{method}, seeds"], wanted, rtol=1e-12)
        said = [text.get_text() for text in axes[place].get_xticklabels()]
        assert said == ["no penalty", "mixup 3.2", "GP_x 100", "GP 0.3", "FP 1", "GP_r 1"]
        assert all(text in axes[place].get_title() for text in (f"{share:.0%} of labels redrawn", row))


# --- verdicts -------------------------------------------------------------------------------------------------------


def changed(coefficient, **columns):
    """Columns of runs of FP (or none) of this coefficient, by functions of all of them."""

    def change(settings, given):
        mine = settings["kind"] == "noisy" and settings["coefficient"] == coefficient
        return {**given, **{name.replace("_", " "): f(given) for name, f in columns.items()}} if mine else given

    return change


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed(1.0, noisy_accuracy=lambda c: c["noisy accuracy"] + 0.9), [FAILS, FAILS, HOLDS, HOLDS, HOLDS]),
        (changed(1.0, clean_accuracy=lambda c: 0.5 * c["clean accuracy"]), [FAILS, UNDECIDED, HOLDS, HOLDS, HOLDS]),
        (changed(0.0, noisy_accuracy=lambda c: 0.1 * c["clean accuracy"]), [CANNOT, CANNOT, HOLDS, HOLDS, HOLDS]),
        (changed(1.0, noisy_gradient_norm=lambda c: 0.9 * c["clean gradient norm"]),
         [HOLDS, HOLDS, HOLDS, FAILS, HOLDS]),
        (changed(1.0, noisy_gradient_norm=lambda c: 4.0 * c["clean gradient norm"]),
         [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
        (changed(0.0, noisy_gradient_norm=lambda c: 0.7 * c["clean gradient norm"]),
         [HOLDS, HOLDS, FAILS, HOLDS, CANNOT]),
    ],
)  # fmt: skip
def test_memorization_and_norms_are_judged_apart(name, change, expected):
    assert verdicts(name, change) == expected


def test_a_run_that_diverged_leaves_its_figure_undecided():
    def change(settings, columns):
        bad = settings["kind"] == "noisy" and settings["method"] == "FP" and settings["seed"] == 101
        return diverged(columns) if bad else columns

    assert verdicts("5", change) == [UNDECIDED, UNDECIDED, HOLDS, UNDECIDED, UNDECIDED]
    assert verdicts("table3", change) == [*[UNDECIDED] * 5, *[UNDECIDED] * 5, HOLDS, HOLDS]
    table = FIGURES["5"].compute(results(FIGURES["5"], change=change))
    FIGURES["5"].plot(table).canvas.draw()


def test_a_coefficient_under_which_a_run_diverged_is_not_chosen():
    def change(settings, columns):
        bad = settings["kind"] == "noisy" and settings["seed"] == 101 and settings["coefficient"] == 1.0
        return diverged(columns) if bad else columns

    table = FIGURES["table3"].compute(results(FIGURES["table3"], change=change))
    chosen = table.select(quantity=noisy_labels.TEST, panel=noisy_labels.panel_of(0.5), seed=100)
    assert dict(zip(chosen["series"], chosen["x"], strict=True)) == {**GOOD, "FP": 3.0, "GP_r": 3.0}
    tried = table.select(quantity=noisy_labels.TRIED, panel=noisy_labels.panel_of(0.5), series="FP")
    assert tried["x"].tolist() == [0.1, 0.3, 1.0, 3.0]


@pytest.mark.parametrize(
    ("method", "points", "expected"),
    [
        ("FP", -10.0, [FAILS, FAILS, FAILS, FAILS, FAILS]),
        ("GP_r", 4.0, [HOLDS, HOLDS, FAILS, HOLDS, HOLDS]),
        ("mixup", 2.5, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS]),
        ("mixup", 6.0, [HOLDS, HOLDS, HOLDS, FAILS, HOLDS]),
        ("GP_x", 6.0, [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
    ],
)
def test_methods_are_judged_in_pairs_of_seeds(method, points, expected):
    def change(settings, columns):
        if settings["kind"] == "uniform" or settings["method"] != method:
            return columns
        return {**columns, "test accuracy": columns["test accuracy"] + points / 100.0}

    assert verdicts("table3", change) == [*expected, *expected, HOLDS, HOLDS]


def test_without_memorization_methods_cannot_be_judged():
    def change(settings, columns):
        rising = settings["kind"] == "noisy" and settings["method"] == "none" and settings["share"] == 0.25
        return {**columns, "test accuracy": columns["step"] / 1600.0} if rising else columns

    assert verdicts("table3", change) == [*[CANNOT] * 5, *[HOLDS] * 7]


def test_the_identity_is_judged_for_each_network():
    def change(settings, columns):
        return {**columns, "squared norm": 1.1 * columns["Tr F"]} if settings["net"] == "cnn" and settings["kind"] == (
            "uniform") else columns  # fmt: skip

    assert verdicts("table3", change)[-2:] == [FAILS, HOLDS]
