"""The numbers behind the figures about noise, and what their texts say of them."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import of, require_drawn, require_swaps_noticed
from panels import PANELS

import nqm
from nqm import SGD, NoisyQuadratic, noise
from nqm.papers import mori2021, wen2020
from nqm.papers.ours import noise_scales as own
from nqm.papers.zhang2019.constant import POWERS, TARGET, problem

FIGURES = {figure.name: figure for figure in (*wen2020.FIGURES, *mori2021.FIGURES, *own.FIGURES)}


@pytest.fixture(scope="module")
def data():
    return {name: figure.compute(None) for name, figure in FIGURES.items()}


def test_names():
    expected = ["wen2020-1", "wen2020-4", "wen2020-table1", "mori2021-eq11", "nqm-drift", "nqm-scales"]
    assert list(FIGURES) == expected
    assert all(figure.see and figure.differs for figure in FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_pictures_draw_what_was_computed(data, name):
    assert len({len(column) for column in data[name].values()}) == 1
    panels, picture = PANELS[name](data[name]), FIGURES[name].plot(data[name])
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


# --- wen2020 --------------------------------------------------------------------------------------------------------


def one_step():
    """Hessian, mean gradient, and covariances of the gradient in figure 1's four panels, from the data alone."""
    features, _ = wen2020.regression()
    gradients, n, m = wen2020.example_gradients(), wen2020.EXAMPLES, wen2020.SMALL
    fisher, share = gradients.T @ gradients / n, 1.0 / m - 1.0 / n
    covariances = {
        "SGD": np.cov(gradients.T, bias=True) * (n - m) / (m * (n - 1)),
        "isotropic": 0.01 * np.eye(2),
        "full Fisher": share * fisher,
        "diagonal Fisher": share * np.diag(np.diag(fisher)),
    }
    return features.T @ features / n, gradients.mean(axis=0), covariances


def test_figure_1_updates_have_the_moments_they_should(data):
    """Means within 4 standard errors, traces within a quarter (300 updates)."""
    hessian, mean, covariances = one_step()
    assert wen2020.example_gradients().mean(axis=0) == pytest.approx(hessian @ wen2020.POINT, rel=1e-10)
    for name, covariance in covariances.items():
        here = of(data["wen2020-1"], series=name)
        points = np.stack([here["x"], here["y"]], axis=1)
        after, spread = wen2020.POINT - wen2020.RATE_1 * mean, wen2020.RATE_1**2 * covariance
        error = np.sqrt(np.diag(spread) / len(points))
        assert np.all(np.abs(points.mean(axis=0) - after) < 4 * error)
        assert np.trace(np.cov(points.T)) == pytest.approx(np.trace(spread), rel=0.25)
        assert here["loss"] == pytest.approx(0.5 * np.sum(points @ hessian * points, axis=1), rel=1e-12)


def test_figure_1_says_what_is_true():
    hessian, mean, covariances = one_step()
    after = wen2020.POINT - wen2020.RATE_1 * mean
    expected = {
        name: 0.5 * after @ hessian @ after + wen2020.RATE_1**2 / 2 * np.trace(hessian @ covariance)
        for name, covariance in covariances.items()
    }
    assert {name: round(value, 3) for name, value in expected.items() if name != "isotropic"} == {
        "SGD": 0.414, "full Fisher": 0.478, "diagonal Fisher": 0.387
    }  # fmt: skip
    trace = {name: np.trace(covariance) for name, covariance in covariances.items()}
    assert trace["full Fisher"] / trace["SGD"] == pytest.approx(1.4, abs=0.05)
    assert trace["full Fisher"] == pytest.approx(trace["diagonal Fisher"], rel=1e-13)
    top = np.linalg.eigh(covariances["full Fisher"])[1][:, 1]
    assert abs(top @ mean) / np.linalg.norm(mean) > np.cos(np.radians(1.0))  # "to 1 degree here"


def test_noise_is_not_perpendicular_to_contours_everywhere():
    """At points of the same loss as POINT, the angle between the Fisher matrix's first direction and the gradient."""
    features, residuals = wen2020.regression()
    hessian = features.T @ features / wen2020.EXAMPLES
    h, v = np.linalg.eigh(hessian)
    level, angles = 0.5 * wen2020.POINT @ hessian @ wen2020.POINT, []
    for turn in np.linspace(0.0, np.pi, 25):
        point = v @ (np.sqrt(2.0 * level / h) * [np.cos(turn), np.sin(turn)])
        gradients = features * (features @ point - residuals)[:, None]
        top = np.linalg.eigh(gradients.T @ gradients)[1][:, 1]
        cosine = abs(top @ hessian @ point) / np.linalg.norm(hessian @ point)
        angles.append(np.degrees(np.arccos(min(cosine, 1.0))))
    assert min(angles) < 1.0
    assert max(angles) == pytest.approx(88.0, abs=1.0)


def test_figure_4_risk_is_the_recursion_in_theta_space(data):
    found, a = data["wen2020-4"], wen2020.HESSIAN
    step = np.eye(2) - wen2020.RATE_4 * a
    for name, covariance in (("full", a), ("diagonal", np.diag(np.diag(a)))):
        moment, risks = np.outer(wen2020.START, wen2020.START), []
        for _ in range(501):
            risks.append(0.5 * np.sum(a * moment))
            moment = step @ moment @ step.T + wen2020.RATE_4**2 * covariance
        here = of(found, series=name)
        assert here["risk"] == pytest.approx(np.array(risks)[::10], rel=1e-11)
        assert here["loss"][10:].std() > here["loss"][10:].mean()  # "scatters by more than its mean"
    ends = [of(found, series=name)["risk"][-1] for name in ("full", "diagonal")]
    assert np.round(ends, 3).tolist() == [0.122, 0.112]


def families():
    return [(family, a) for family in wen2020.FAMILIES for a in wen2020.matrices(family)]


def test_table_1_matrices_have_equal_traces_and_growing_off_diagonals():
    for family in wen2020.FAMILIES:
        found = wen2020.matrices(family)
        assert [np.trace(a) for a in found] == pytest.approx([np.trace(found[0])] * len(found), rel=1e-12)
        mass = [np.sum(a**2) / np.sum(np.diag(a) ** 2) for a in found]
        assert mass[0] == pytest.approx(1.0, rel=1e-12)
        assert np.all(np.diff(mass) > 0)
    assert np.linalg.cond(wen2020.matrices("rotated")[3]) == pytest.approx(100.0, rel=1e-9)


def test_table_1_steps_are_first_crossings(data):
    """A recursion in theta-space under the theorem's rates, for three cells; the bound by its formula for all."""
    found = data["wen2020-table1"]
    for family, number, name in (
        ("equicorrelated", 6, "full"), ("rotated", 4, "diagonal"), ("equicorrelated", 3, "diagonal, scaled")
    ):  # fmt: skip
        a = wen2020.matrices(family)[number]
        covariance = {"full": a}.get(name, np.diag(np.diag(a)))
        covariance = covariance * (np.sum(a**2) / np.sum(np.diag(a) ** 2) if name == "diagonal, scaled" else 1.0)
        h, moment, steps = np.linalg.eigvalsh(a), np.eye(10), 0
        first = 0.5 * np.trace(a)
        while 0.5 * np.sum(a * moment) > 0.01 * first:
            lr = 2.0 / (steps * h[0] + 2.0 * h[-1])
            move = np.eye(10) - lr * a
            moment, steps = move @ moment @ move + lr**2 * covariance, steps + 1
        cell = of(found, family=family, matrix=number, noise=name, series="decaying", share=0.01)
        assert cell["steps"].tolist() == [steps]
    assert np.all(np.isfinite(found["steps"]))
    bound = of(found, series="bound")
    for i in range(len(bound["steps"])):
        a = wen2020.matrices(bound["family"][i])[bound["matrix"][i]]
        h = np.linalg.eigvalsh(a)
        gamma = 2.0 * h[-1] / h[0]
        nu = max(2.0 * bound["excess"][i] / h[0] ** 2, gamma * 0.5 * np.trace(a))
        assert bound["steps"][i] == pytest.approx(nu / (bound["share"][i] * 0.5 * np.trace(a)) - gamma, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_in_the_long_run_the_variance_decides_not_the_excess(seed):
    """Exact risk times k after 2^19 steps of the theorem's rates, against sum 2 h c / (h_min (4 h - h_min)).

    So full noise leaves no more than diagonal noise, and both between 1/2 and 2/3 of Tr(C^T C) / h_min.
    """
    generator = np.random.default_rng(seed)
    q = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    a = (q * np.geomspace(1.0, 0.1, 5)) @ q.T
    left = []
    for covariance in (a, np.diag(np.diag(a))):
        p = NoisyQuadratic.from_matrices(a, covariance, np.ones(5))
        low, steps = p.curvature[0], 2**19
        decaying = SGD(nqm.schedules.decaying(low, steps, 2.0 * p.condition_number))
        weights = 2.0 * p.curvature / (low * (4.0 * p.curvature - low))
        left.append(nqm.risk(p, decaying, 1, steps) * (steps + 2.0 * p.condition_number))
        assert left[-1] == pytest.approx(weights @ p.noise, rel=1e-4)
        assert 0.5 < left[-1] * low / np.trace(a) < 2.0 / 3.0
    assert left[0] < left[1]


@pytest.mark.parametrize("seed", range(6))
def test_at_a_constant_rate_full_noise_leaves_more_but_at_second_order(seed):
    generator = np.random.default_rng(seed)
    q = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    a = (q * np.geomspace(1.0, 0.01, 5)) @ q.T
    bare, lr = np.diag(np.diag(a)), np.array([1e-3, 1e-2, 0.1, 1.0, 1.8])
    full, diagonal = (
        np.asarray(nqm.steady_state_risk(NoisyQuadratic.from_matrices(a, s, np.ones(5)), SGD(lr), 1)) for s in (a, bare)
    )
    assert np.all(full > diagonal)
    assert full[:2] == pytest.approx(lr[:2] * np.trace(a) / 4, rel=2 * lr[1])
    excess = np.sum(a * a) - np.sum(np.diag(a) ** 2)
    assert (full - diagonal)[0] == pytest.approx(lr[0] ** 2 / 8 * excess, rel=3 * lr[0])


def test_table_1_says_what_is_true(data):
    found = data["wen2020-table1"]
    for family in wen2020.FAMILIES:
        for share in (0.01, 0.001):
            full = of(found, family=family, noise="full", series="decaying", share=share)
            assert np.all(full["ratio"] <= 1.0)  # never more steps, though the bound says
            bound = of(found, family=family, noise="full", series="bound", share=share)
            assert np.all(np.diff(bound["ratio"]) > 0)
            assert bound["ratio"][-1] == pytest.approx(bound["mass"][-1], rel=0.01)
            scaled = of(found, family=family, noise="diagonal, scaled", series="decaying", share=share)
            assert scaled["excess"] == pytest.approx(full["excess"], rel=1e-12)  # the paper: the same steps
            assert scaled["ratio"] == pytest.approx(scaled["mass"], rel=0.15)
            assert full["variance"] == pytest.approx(of(found, family=family, noise="diagonal", series="decaying",
                                                        share=share)["variance"], rel=1e-12)  # fmt: skip
    last = {"family": "equicorrelated", "matrix": 6, "share": 0.001, "series": "decaying"}
    assert of(found, **last, noise="full")["ratio"][0] == pytest.approx(0.80, abs=0.005)
    assert of(found, **last, noise="diagonal, scaled")["ratio"][0] == pytest.approx(8.4, abs=0.05)
    most = {share: of(found, noise="full", series="constant", share=share)["ratio"] for share in wen2020.SHARES}
    assert all(np.all(ratio >= 1.0) for ratio in most.values())
    assert np.sort(most[0.1])[-2] == pytest.approx(1.44, abs=0.01)  # the last is 12 steps against 1
    assert most[0.01].max() == pytest.approx(1.08, abs=0.005)
    assert most[0.001].max() == pytest.approx(1.01, abs=0.005)
    few = {"family": "equicorrelated", "matrix": 6, "share": 0.1, "series": "decaying"}
    assert [of(found, **few, noise=name)["steps"][0] for name in ("full", "diagonal")] == [52, 2]


# --- mori2021 -------------------------------------------------------------------------------------------------------


def test_mori_risk_depends_on_b_over_a_squares_alone(data):
    """The map against the risk at that batch size; cells of equal a^2 + (1 - a)^2 over B have equal risk."""
    found = of(data["mori2021-eq11"], series="map")
    size = found["batch_size"] / (found["a"] ** 2 + (1.0 - found["a"]) ** 2)
    assert found["effective"] == pytest.approx(size, rel=1e-12)
    some = slice(None, None, 97)
    plain = nqm.risk(problem(None), SGD(mori2021.RATE), size[some], mori2021.STEPS)
    assert found["risk"][some] == pytest.approx(plain, rel=1e-8)
    h = 1.0 / np.arange(1.0, 10_001.0)
    steady = [0.5 * np.sum(mori2021.RATE * h / (b * (2.0 - mori2021.RATE * h))) for b in size[some]]
    assert found["steady"][some] == pytest.approx(steady, rel=1e-8)
    lines = of(data["mori2021-eq11"], series="plain")
    assert lines["batch_size"] / (lines["a"] ** 2 + (1 - lines["a"]) ** 2) == pytest.approx(lines["effective"])


def test_mori_steps_grow_with_a_and_what_it_costs(data):
    found = data["mori2021-eq11"]
    plain = of(found, series="tuned", a=1.0)
    for a in mori2021.TUNED_WITH[1:]:
        here, factor = of(found, series="tuned", a=a), a**2 + (1 - a) ** 2
        assert np.all(here["steps"] >= plain["steps"])  # "convergence time increases with a for fixed B"
        assert here["examples"][0] / plain["examples"][0] == pytest.approx(2 * factor, rel=0.01)
        if a <= 2:
            assert here["examples"][-1] / plain["examples"][-1] == pytest.approx(2.0, rel=0.03)
    assert 2 * (10**2 + 9**2) == 362
    assert of(found, series="tuned")["steps"].min() > 1


# --- our own --------------------------------------------------------------------------------------------------------


def test_drift_is_the_formula(data):
    """1 / (1 - lr h / (2 (1 + m))) for a coordinate, its c-weighted mean for the problem."""
    found, h = data["nqm-drift"], 1.0 / np.arange(1.0, 10_001.0)
    for m in own.MOMENTA:
        one, law = (of(found, series=series, momentum=m) for series in ("one coordinate", "power law"))
        assert one["value"] == pytest.approx(1.0 / (1.0 - one["lr"] / (2 * (1 + m))), rel=2e-6)  # limit at lr = 1e-6
        mean = [np.sum(h / (1.0 - lr * h / (2 * (1 + m)))) / np.sum(h) for lr in law["lr"]]
        assert law["value"] == pytest.approx(mean, rel=2e-6)
        assert one["drift"] == pytest.approx(one["value"] - 1.0)


def test_drift_says_what_is_true(data):
    found = data["nqm-drift"]
    course = {(lr, m): of(found, series="course", lr=lr, momentum=m)["value"] for lr, m in own.COURSES}
    assert np.abs(course[0.3, 0.0] - 1.0).max() < 0.03
    assert course[1.0, 0.0][-1] == pytest.approx(1.14, abs=0.005)
    assert course[1.9, 0.0][-1] == pytest.approx(3.0, abs=0.05)
    assert course[1.0, 0.9].max() == pytest.approx(1.6, abs=0.05)
    assert course[0.1, 0.99].max() == pytest.approx(2.8, abs=0.05)
    assert all(abs(course[lr, m][-1] - 1.0) < 0.06 for lr, m in own.COURSES if m > 0.0)  # "holds in the end"


def test_drift_course_against_the_stochastic_differential_equation(data):
    """The limit is the SDE's moment: e^{-2 h t} init + g c / (2 N h) (1 - e^{-2 h t})."""
    h, where = 1.0 / np.arange(1.0, 10_001.0), problem(None)
    batch = own.equally_noisy(1e-6, 0.0)
    for time in (10.0, 1000.0, 1e5):
        decay = np.exp(-2.0 * h * time)
        expected = 0.5 * np.sum(h * decay + 0.01 / 2.0 * h * (1.0 - decay))
        assert nqm.risk(where, SGD(1e-6), batch, round(time * 1e6)) == pytest.approx(expected, rel=2e-6)
    at_10 = of(data["nqm-drift"], series="course", lr=0.3, momentum=0.0)
    steps, lr = round(10.0 / 0.3), 0.3
    assert at_10["x"][0] == pytest.approx(steps * lr)
    decay, size = np.exp(-2.0 * steps * lr * h), own.equally_noisy(lr, 0.0)
    exact = 0.5 * np.sum(h * (1 - lr * h) ** (2 * steps)) + 0.5 * np.sum(
        lr * h / (size * (2 - lr * h)) * (1 - (1 - lr * h) ** (2 * steps))
    )
    assert at_10["value"][0] == pytest.approx(exact / (0.5 * np.sum(h * decay + 0.005 * h * (1 - decay))), rel=3e-6)


def test_drift_course_is_not_sampled_too_coarsely(data):
    """Between two points there is at most 0.4 of the shortest oscillation, as long as there are any: 0.5 would alias.

    Second moments of momentum m at rate lr turn by 2 arccos((1 + m - lr h) / (2 sqrt(m))) a step, h <= 1, and are down
    to 1% of themselves after log(0.01) / log(m) steps.
    """
    for lr, m in own.COURSES:
        if m > 0.0:
            steps = of(data["nqm-drift"], series="course", lr=lr, momentum=m)["x"] * (1.0 - m) / lr
            period = np.pi / np.arccos((1.0 + m - lr) / (2.0 * np.sqrt(m)))
            gaps = np.diff(steps[steps < np.log(0.01) / np.log(m)])
            assert gaps.max() < 0.4 * period


@pytest.mark.parametrize("size", own.SIZES)
def test_drift_finite_data_sets(data, size):
    exact, guess = (of(data["nqm-drift"], series=f"{kind}, N = {size}") for kind in ("exact", "g"))
    batch = np.round(exact["x"] * size)
    assert exact["value"] == pytest.approx((size - batch) / (size - 1), rel=1e-12, abs=1e-15)
    assert guess["value"] == pytest.approx(exact["value"] * (size - 1) / size, rel=1e-9, abs=1e-15)


def test_scales_against_the_sweep_and_explicit_sums(data):
    found = data["nqm-scales"]
    for power in POWERS:
        here = of(found, kind="simple", at="end", power=power, target=TARGET)
        examples = here["batch_size"] * here["steps"]
        assert here["critical"] == pytest.approx(examples.min() / here["steps"].min())
        assert here["ratio"] == pytest.approx(here["scale"] / here["critical"])
    h = 1.0 / np.arange(1.0, 10_001.0)
    sgd = nqm.tune(problem(None), SGD(nqm.FREE), 1024, TARGET)
    second = (1 - sgd.optimizer.lr * h) ** (2 * sgd.steps)
    second = second + sgd.optimizer.lr / (1024 * (2 - sgd.optimizer.lr * h)) * (1 - second)
    for kind, w in (("simple", 0), ("Hessian", 1)):
        cell = of(found, kind=kind, at="end", power=0.0, target=TARGET, batch_size=1024.0)
        assert cell["scale"] == pytest.approx(np.sum(h ** (1 + w)) / np.sum(h ** (2 + w) * second), rel=1e-7)
        first = of(found, kind=kind, at="start", power=0.0, target=TARGET, batch_size=1024.0)
        assert first["scale"] == pytest.approx(np.sum(h ** (1 + w)) / np.sum(h ** (2 + w)), rel=1e-9)


def test_scales_say_what_is_true(data):
    found = data["nqm-scales"]
    start = of(found, at="start")["ratio"]
    assert 1 / start.max() == pytest.approx(20.0, rel=0.05)
    assert 1 / start.min() == pytest.approx(25_000.0, rel=0.05)
    end = of(found, at="end")
    below = end["relative"] <= 1.3  # the critical batch size lies between two of the sweep
    hessian, bare = end["kind"] == "Hessian", end["power"] == 0.0
    ranges = {
        "Hessian": (below & hessian & bare, 0.38, 1.0),
        "Hessian, with": (below & hessian & ~bare, 0.28, 4.3),
        "simple": (below & ~hessian, 2.0, 15.0),
    }
    for here, low, high in ranges.values():
        ratio = end["ratio"][here]
        assert low < ratio.min() < 1.25 * low
        assert 0.9 * high < ratio.max() < high
    assert end["ratio"].max() == pytest.approx(460.0, rel=0.01)
    # at batches far below the critical one the end is a steady state: tr C^2 / (2 target tr(H C)), whatever the start
    small = of(found, kind="simple", at="end", power=0.0, target=0.001, batch_size=4.0)["scale"][0]
    h = 1.0 / np.arange(1.0, 10_001.0)
    assert small == pytest.approx(np.sum(h) ** 2 / (0.002 * np.sum(h * h)), rel=0.15)


def test_quantised_too():
    """compute(bins) follows its argument, where the problem is that of Zhang et al."""
    whole, binned = (mori2021.compute_11(bins) for bins in (None, 100))
    assert not np.array_equal(whole["risk"], binned["risk"])
    assert own.equally_noisy(1.0, 0.0) == pytest.approx(100.0, rel=1e-6)
    assert noise.scale(1.0, 100, own.DATASET) == pytest.approx(own.SCALE, rel=1e-6)
