"""The numbers behind the figures, and the writing of files."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import nqm
from nqm import files
from nqm.cli import main
from nqm.papers import all_figures
from nqm.papers.zhang2019 import constant as zhang2019

FIGURES = all_figures()


@pytest.fixture(scope="module")
def data():
    """Every figure's data on the authors' 100 bins, computed once."""
    return {name: figure.compute(100) for name, figure in FIGURES.items()}


def of(data, **conditions):
    """Columns of the rows that meet all conditions."""
    here = np.all([data[key] == value for key, value in conditions.items()], axis=0)
    assert here.any()
    return {key: column[here] for key, column in data.items()}


def test_all_of_the_paper_that_need_no_network():
    assert list(FIGURES) == [f"zhang2019-{n}" for n in ("1", "2", "3a", "4", "11", "13", "14a", "14b", "14c")]


def test_figure_1_decay_is_the_recursion(data):
    """Second moments by eq. 3, step by step, with the drop of the learning rate at step 300."""
    found = data["zhang2019-1"]
    for h in (1.0, 0.1, 0.01):
        for schedule, later in (("constant", 0.5), ("decayed", 0.05)):
            moment, expected = 1.0, [0.5 * h]
            for t in range(600):
                lr = 0.5 if t < 300 else later
                moment = (1 - lr * h) ** 2 * moment + lr * lr * h
                expected.append(0.5 * h * moment)
            assert of(found, schedule=schedule, curvature=h)["risk"] == pytest.approx(expected, rel=1e-11)


def test_figure_2_is_the_papers_roots(data):
    """Eq. 7 for the rate, eq. 6 for the steady state, lr / (1 - momentum) beside them."""
    found, x = data["zhang2019-2"], zhang2019.RATE
    m = found["momentum"]
    root = ((1 - x + m) + np.sqrt((1 - m) ** 2 - 2 * (1 + m) * x + x * x)) / 2
    assert found["rate"] == pytest.approx(root, rel=1e-9)
    assert found["rate_effective"] == pytest.approx(1 - x / (1 - m), rel=1e-12)
    assert found["steady_state"] == pytest.approx((1 + m) * x / (2 * (2 * m + 2 - x) * (1 - m)), rel=1e-12)
    assert found["steady_state_effective"] == pytest.approx(x / (1 - m) / (2 * (2 - x / (1 - m))), rel=1e-12)


def test_figure_11_is_the_first_term_of_eq_6(data):
    found, x = data["zhang2019-11"], zhang2019.RATE
    m, t = 1 - found["one_minus_momentum"], found["steps"]
    assert found["plain"] == pytest.approx((1 - x / (1 - m)) ** (2.0 * t), rel=1e-9)
    middle, half = (1 - x + m) / 2, np.sqrt(((1 - x + m) / 2) ** 2 - m + 0j)
    r1, r2 = middle + half, middle - half
    term = ((r1 ** (t + 1) - r2 ** (t + 1) - m * (r1**t - r2**t)) / (r1 - r2)).real ** 2
    assert found["momentum"] == pytest.approx(term, rel=1e-6)  # the printed form cancels near critical damping


@pytest.mark.parametrize("name", ["zhang2019-3a", "zhang2019-4"])
def test_steps_figures_say_what_the_paper_says(data, name):
    found = data[name]
    kind = "momentum" if name.endswith("3a") else "EMA"
    bayes, mle = of(found, kind="bayes")["steps"], of(found, kind="mle")["steps"]
    assert np.all(bayes < mle)
    for power in zhang2019.POWERS:
        tuned, plain = of(found, kind=kind, power=power)["steps"], of(found, kind="SGD", power=power)["steps"]
        assert np.all(tuned <= plain)
        assert np.all(plain >= bayes)
        assert np.all(np.diff(plain) <= 0)
        assert plain[0] / plain[1] == pytest.approx(2.0, rel=0.02)  # perfect scaling at small batches
        assert plain[-2] / plain[-1] < 1.02  # none at large
    powers = [of(found, kind="SGD", power=power)["steps"] for power in zhang2019.POWERS]
    assert np.all(np.diff(powers, axis=0) < 0)
    if kind == "EMA":
        assert of(found, kind="EMA", power=0.0)["steps"][0] < 0.2 * of(found, kind="SGD", power=0.0)["steps"][0]


def test_plateaus_are_where_the_authors_picture_has_them(data):
    """Read off the rendered figure 3a: log2 steps at batch 2^20, on a grid that costs momentum up to 15%, SGD 5%."""
    found = data["zhang2019-3a"]
    for power, sgd, momentum in ((0.0, 12.8, 7.5), (0.25, 9.6, 6.0), (0.5, 6.4, 4.1), (0.75, 3.3, 2.8)):
        assert np.log2(of(found, kind="SGD", power=power)["steps"][-1]) == pytest.approx(sgd, abs=0.25)
        assert np.log2(of(found, kind="momentum", power=power)["steps"][-1]) == pytest.approx(momentum, abs=0.5)


def test_figure_13_harder_targets_have_larger_critical_batches(data):
    found = data["zhang2019-13"]
    critical = []
    for target in zhang2019.TARGETS:
        here = of(found, target=target)
        critical.append(np.min(here["steps"] * here["batch_size"]) / np.min(here["steps"]))
    assert np.all(np.diff(critical) > 0)


def test_figure_14_learning_rates_grow_linearly_then_level_off(data):
    for power in zhang2019.POWERS:
        rate = of(data["zhang2019-14a"], kind="SGD", power=power)["lr"]
        assert rate[1] / rate[0] == pytest.approx(2.0, rel=0.03)
        assert rate[-1] < 2.0
        effective = of(data["zhang2019-14c"], kind="momentum", power=power)["effective_lr"]
        assert effective[-1] > rate[-1]
    nine = of(data["zhang2019-14b"], kind="momentum 0.9", power=0.0)
    assert np.all(nine["momentum"] == 0.9)
    assert nine["effective_lr"] == pytest.approx(nine["lr"] / 0.1)
    assert nine["effective_lr"][0] == pytest.approx(of(data["zhang2019-14a"], kind="SGD", power=0.0)["lr"][0], rel=0.05)


@pytest.mark.parametrize("name", FIGURES)
def test_pictures_draw_what_was_computed(data, name):
    picture = FIGURES[name].plot(data[name])
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for ax in picture.axes for line in ax.get_lines()])
    numbers = np.concatenate([c for c in data[name].values() if c.dtype.kind == "f"])
    assert np.isin(drawn, numbers).mean() > 0.6  # the rest: totals, the line of the limit, entries of legends
    assert all(ax.get_xlabel() for ax in picture.axes)


def test_files_and_index(tmp_path, capsys):
    assert main(["figures", "zhang2019-2", "zhang2019-11", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md"} | {f"zhang2019-{n}.{ending}" for n in ("2", "11") for ending in ("csv", "png")}
    with (tmp_path / "zhang2019-2.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    expected = zhang2019.compute_2(None)
    assert [float(row["rate"]) for row in table] == expected["rate"].tolist()  # all digits
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "nqm figures zhang2019-2" in index
    assert "zhang2019-3a" not in index


def test_same_numbers_same_bytes(tmp_path):
    for folder in ("a", "b"):
        files.write_figures([FIGURES["zhang2019-2"]], tmp_path / folder, None)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    goal = tmp_path / "data.csv"
    goal.write_text("old")

    def broken(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_whole(goal, broken)
    assert goal.read_text() == "old"
    assert list(tmp_path.iterdir()) == [goal]


def test_binned_problem_is_the_authors():
    assert zhang2019.problem(100).initial_risk == pytest.approx(0.961 * zhang2019.problem(None).initial_risk, rel=1e-3)
    assert isinstance(zhang2019.problem(None), nqm.NoisyQuadratic)
