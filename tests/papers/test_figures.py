"""The numbers behind the figures, and the writing of files."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pytest
from drawn import of, require_drawn, require_swaps_noticed
from panels import PANELS

import nqm
from nqm._io import write_whole
from nqm.cli import main
from nqm.papers import all_figures, gallery, smith2018
from nqm.papers.gallery import write_figures
from nqm.papers.ours import gaussian_features, scaling_laws, schedules
from nqm.papers.zhang2019 import constant as zhang2019
from nqm.papers.zhang2019 import decay

FIGURES = all_figures()
ELSEWHERE = ("wen2020", "mori2021", "nqm-drift", "nqm-scales")  # in test_noise_figures.py


class Computed(dict):
    """Every figure's data on the authors' 100 bins, computed once, when it is asked for."""

    def __missing__(self, name):
        self[name] = FIGURES[name].compute(100)
        return self[name]


@pytest.fixture(scope="module", params=["small", pytest.param("full", marks=pytest.mark.thorough)])
def data(request):
    """Small: fewer batch sizes, with both first and both last ones; fewer data sets and bootstrap draws."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "small":
            for module in (zhang2019, decay):
                patch.setattr(module, "BATCH_SIZES", 2.0 ** np.array([2, 3, 6, 9, 12, 15, 18, 19, 20]))
            patch.setattr(schedules, "BATCH_SIZES", 2.0 ** np.array([2, 8, 20]))
            patch.setattr(gaussian_features, "BATCH_SIZES", 2.0 ** np.array([0, 10, 20]))
            patch.setattr(smith2018, "measured", partial(smith2018.measured, seeds=1, test=500))
            patch.setattr(scaling_laws, "POINTS", 16)
            patch.setattr("nqm.scaling.fits.fit_runs.DRAWS", 20)
            patch.setattr("nqm.scaling.fits.fit_curves.DRAWS", 20)
        yield Computed()


def test_all_of_the_paper_that_need_no_network():
    numbers = ("1", "2", "3a", "3b", "3c", "4", "11", "13", "14a", "14b", "14c", "15")
    others = ("wen2020-1", "wen2020-4", "wen2020-table1", "smith2018-1", "smith2018-2", "mori2021-eq11")
    ours = ("nqm-schedules", "nqm-ramp", "nqm-drift", "nqm-scales", "nqm-features")
    ours += ("nqm-runs", "nqm-isoflop", "nqm-curves")
    assert list(FIGURES) == [*(f"zhang2019-{n}" for n in numbers), *others, *ours]
    assert set(PANELS) == set(FIGURES)


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
    assert found["contraction"] == pytest.approx(1 - root, rel=1e-9)
    assert found["contraction_effective"] == pytest.approx(x / (1 - m), rel=1e-9)
    assert found["contraction"][-1] / found["contraction_effective"][-1] == pytest.approx(1.7, abs=0.05)
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


def test_scaling_figures_predict_what_the_fit_has_not_seen(data):
    found = data["nqm-runs"]
    right = np.abs(np.log(found["predicted"] / found["loss"])) < 0.02
    assert (~right).sum() == 1  # the run that went wrong
    new = ~found["fitted"] & right
    rival = np.log(found["chinchilla"] / found["loss"])[new]
    assert np.sqrt(np.mean(np.log(found["predicted"] / found["loss"])[new] ** 2)) < 0.1 * np.sqrt(np.mean(rival**2))
    assert np.mean(((found["low"] < found["loss"]) & (found["loss"] < found["high"]))[new]) > 0.8

    found = data["nqm-isoflop"]
    runs, fits = of(found, kind="isoflop, runs"), of(found, kind="isoflop, fit")
    best = [size[np.argmin(loss)] for size, loss in by_family(fits, "N")]
    assert best == sorted(best)
    assert best[0] < best[-1]
    for (size, loss), (n, fitted) in zip(by_family(runs, "N"), by_family(fits, "N"), strict=True):
        assert np.interp(size, n, fitted) == pytest.approx(loss, rel=0.02)

    found = data["nqm-curves"]
    for name in np.unique(found["schedule"]):
        here = of(found, schedule=name)
        assert np.abs(here["predicted"] / here["loss"] - 1).mean() < 0.001
        assert ((here["low"] < here["loss"]) & (here["loss"] < here["high"])).mean() > 0.8
    assert set(found["fitted"].tolist()) == {True, False}


def by_family(data, x):
    return [
        (data[x][here], data["loss"][here]) for f in np.unique(data["family"]) if (here := data["family"] == f).any()
    ]


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


@pytest.mark.parametrize("name", [name for name in FIGURES if not name.startswith(ELSEWHERE)])
def test_pictures_draw_what_was_computed(data, name):
    panels, picture = PANELS[name](data[name]), FIGURES[name].plot(data[name])
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_figure_3b_schedules_close_the_gap(data):
    """Never above constant rates nor below Bayes; near the bound at small batches, useless at large ones."""
    found = data["zhang2019-3b"]
    bayes = of(found, kind="bayes")["steps"]
    for power in zhang2019.POWERS:
        best = of(found, kind="schedule", power=power)["steps"]
        constant = of(found, kind="SGD", power=power)["steps"]
        assert np.all(best <= constant)
        assert np.all(best >= bayes)
        assert np.all(np.diff(best) <= 0)
        assert best[0] < 0.5 * constant[0]
        assert best[-1] > (0.95 if power < 0.7 else 0.75) * constant[-1]
        assert best[0] < (1.7 if power == 0.0 else 1.4) * bayes[0]
    plain, sizes = of(found, kind="schedule", power=0.0), of(found, kind="bayes")["batch_size"].tolist()
    for batch, times in ((64.0, 2.0), (512.0, 6.0)):  # near it for the smallest batches only
        at = sizes.index(batch)
        assert plain["steps"][at] > times * bayes[at]


def test_figure_3c_schedules_go_down(data):
    found = data["zhang2019-3c"]
    for batch in zhang2019.BATCH_SIZES:
        one = of(found, batch_size=batch)
        assert one["lr"].size == 50
        assert np.all(np.diff(one["lr"]) <= 1e-6)
        assert one["lr"].max() <= 2.0
        assert one["lr"][0] == pytest.approx(2.0, rel=1e-6)  # all batch sizes start at the largest rate allowed
        problem, steps = zhang2019.problem(100), int(one["steps"][0])
        ends = np.round(np.append(one["begin"][1:], 1.0) * steps).astype(int)
        schedule = nqm.Schedule(one["lr"], np.diff(ends, prepend=0))
        assert nqm.risk(problem, nqm.SGD(schedule), batch, steps) <= zhang2019.TARGET


def test_figure_15_is_the_end_of_3c(data):
    found, schedules = data["zhang2019-15"], data["zhang2019-3c"]
    last = [of(schedules, batch_size=batch)["lr"][-1] for batch in zhang2019.BATCH_SIZES]
    assert found["final_lr"].tolist() == last
    assert found["slope"][0] == pytest.approx(1.0, abs=0.1)  # "scales linearly with batch size"
    low = np.isfinite(found["fit"])
    assert found["fit"][low] == pytest.approx(found["final_lr"][low], rel=0.1)


def test_figure_of_schedules(data):
    found = data["nqm-schedules"]
    best = of(found, kind="optimised")["steps"]
    for kind in ("constant", "cosine", "linear to zero", "warmup-stable-decay"):
        assert np.all(of(found, kind=kind)["steps"] >= best)
    assert np.all(of(found, kind="Bayes bound")["steps"] <= best)
    shapes = [of(found, kind=kind)["relative"] for kind in ("cosine", "linear to zero", "warmup-stable-decay")]
    assert 1.1 < min(s[0] for s in shapes) < max(s[0] for s in shapes) < 1.5  # "20 to 40% more steps"
    assert of(found, kind="constant")["relative"][0] > 7
    assert shapes[0][-1] == pytest.approx(2.0, rel=0.05)  # "twice the steps"


def test_figure_of_ramps(data):
    found = data["nqm-ramp"]
    flat, ramp = (of(found, series=f"risk, {name}")["value"] for name in ("constant batch", "best ramp"))
    assert np.all(ramp <= flat * (1 + 1e-12))
    assert 0.15 < ramp.min() / flat.min() < 0.3  # "a fifth of the risk"
    decay, both = (of(found, series=f"risk, {name}")["value"] for name in ("best learning-rate schedule", "both"))
    assert ramp.min() == pytest.approx(decay[0], rel=0.1)  # "about what a schedule of the learning rate leaves"
    assert both == pytest.approx(0.75 * decay, rel=0.05)  # "a quarter less"
    for lr in np.unique(of(found, series="ramp")["lr"]):
        assert np.all(np.diff(of(found, series="ramp", lr=lr)["value"]) > 0.0)


def test_files_and_index(tmp_path, capsys):
    assert main(["figures", "zhang2019-2", "zhang2019-11", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md"} | {f"zhang2019-{n}.{ending}" for n in ("2", "11") for ending in ("csv", "png")}
    with (tmp_path / "zhang2019-2.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    expected = zhang2019.compute_2()
    assert [float(row["rate"]) for row in table] == expected["rate"].tolist()  # all digits
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "nqm figures zhang2019-2" in index
    assert "zhang2019-3a" not in index
    assert "validation" not in index
    write_whole(tmp_path / "validation" / "wen2020" / "README.md", lambda path: path.write_text("a report"))
    assert "[wen2020](validation/wen2020/README.md)" in gallery.index([], tmp_path)


def test_same_numbers_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_figures([FIGURES["zhang2019-2"]], tmp_path / folder, None)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    goal = tmp_path / "data.csv"
    goal.write_text("old")

    def broken(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(goal, broken)
    assert goal.read_text() == "old"
    assert list(tmp_path.iterdir()) == [goal]


def test_binned_problem_is_the_authors():
    assert zhang2019.problem(100).initial_risk == pytest.approx(0.961 * zhang2019.problem(None).initial_risk, rel=1e-3)
    assert isinstance(zhang2019.problem(None), nqm.NoisyQuadratic)
