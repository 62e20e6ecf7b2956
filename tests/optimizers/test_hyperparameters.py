"""An optimizer of one's own, in one class, with a hyperparameter that describes itself: everything else follows."""

from __future__ import annotations

import concurrent.futures
import copy
import json
import math
import pickle
import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import mpmath as mp
import numpy as np
import pytest

import nqm
from nqm import FREE
from nqm.cli import main, optimizer_options
from nqm.optimizers import DECAY, LR, MOMENTUM, POWER, SCALES, STANDARD, Hyperparameter, Pair, StepMap

PROBLEM = nqm.NoisyQuadratic.power_law(1000).binned(40)

NU = Hyperparameter("nu", closed="both", default=1.0, help="quasi-hyperbolic discount, nu", metavar="V")


@dataclass(frozen=True, eq=False, repr=False)
class QHM(nqm.Optimizer[Any]):
    """Quasi-hyperbolic momentum, Ma & Yarats (2018):

    v' = momentum v + (1 - momentum) g,   theta' = theta - lr ((1 - nu) g + nu v')
    """

    lr: Any
    momentum: Any = 0.0
    nu: Any = 1.0
    declared: ClassVar = (LR, MOMENTUM, NU)

    def step_map(self, values):
        """z = (theta, -lr v)."""
        m, nu = values["momentum"], values["nu"]
        if not np.any(np.multiply(m, nu)):
            return StepMap([[1.0]], [1.0 - Pair(m * nu)], [1.0], [1.0], (1.0,))
        kept = Pair(nu) * m
        return StepMap(
            [[1.0, kept], [0.0, m]], [1.0 - kept, 1.0 - Pair(m)], [1.0, 0.0], [1.0, 0.0], (1.0, 0.0),
            lr_scaled=(0, 1), iterate_rests_at_zero_lr=True,
        )  # fmt: skip


def exact_risk(optimizer, pieces, h, c, init):
    """With 60 digits, from the update rule: along pieces (lr, batch, steps) of one coordinate."""
    m, nu = (mp.mpf(float(x)) for x in (optimizer.momentum, optimizer.nu))

    def update(theta, v, gradient, lr):
        v = m * v + (1 - m) * gradient
        return theta - lr * ((1 - nu) * gradient + nu * v), v

    h, c, mean, spread = mp.mpf(h), mp.mpf(c), mp.matrix([1, 0]), mp.zeros(2)
    for lr, batch, steps in pieces:
        columns = [update(*state, h * state[0], mp.mpf(float(lr))) for state in ((1, 0), (0, 1))]
        power = mp.matrix(2, 2)
        for j, column in enumerate(columns):
            power[0, j], power[1, j] = column
        noise = mp.matrix(update(0, 0, 1, mp.mpf(float(lr))))
        grown = noise * noise.T * c / mp.mpf(batch)
        while steps:
            if steps & 1:
                mean, spread = power * mean, grown + power * spread * power.T
            grown, power, steps = grown + power * grown * power.T, power * power, steps >> 1
    return float(h * (mp.mpf(init) * mean[0] ** 2 + spread[0, 0]) / 2)


CASES = [QHM(0.5, 0.9, 0.7), QHM(1.0, 0.999, 0.7), QHM(1.5, 0.5, 1.0), QHM(0.3, 0.9, 0.0), QHM(0.3, 0.0, 0.6),
         QHM(0.01, 1.0 - 1e-6, 0.99)]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 10, 1000, 10**6])
@pytest.mark.parametrize("optimizer", CASES, ids=repr)
def test_risk_with_60_digits(optimizer, steps):
    h, c, init = [1.0, 0.3, 0.001], [1.0, 2.0, 0.1], [1.0, 0.5, 2.0]
    found = nqm.risk(nqm.NoisyQuadratic(h, c, init), optimizer, 16, steps)
    expected = sum(exact_risk(optimizer, [(optimizer.lr, 16, steps)], *one) for one in zip(h, c, init, strict=True))
    assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("optimizer", CASES[:3], ids=repr)
def test_along_a_schedule_that_rests(optimizer):
    pieces = [(0.5, 16, 100), (0.0, 16, 50), (0.05, 16, 200)]
    schedule = nqm.Schedule([lr for lr, _, _ in pieces], [n for *_, n in pieces])
    found = nqm.risk(nqm.NoisyQuadratic(0.7, 2.0, 3.0), optimizer.with_values(lr=schedule), 16, 350)
    assert found == pytest.approx(exact_risk(optimizer, pieces, 0.7, 2.0, 3.0), rel=1e-13)
    scheduled = optimizer.with_values(lr=schedule)
    course = nqm.risk(PROBLEM, scheduled, 64, np.arange(351))
    target = course[300]
    first = int(np.argmax(course <= target))
    assert nqm.steps_to_target(PROBLEM, scheduled, 64, target) == first


def test_with_its_ends_it_is_sgd():
    steps = [1, 100, 10_000]
    damped, plain = QHM(0.5, 0.9, 0.0), nqm.SGD(0.5)
    assert nqm.risk(PROBLEM, damped, 64, steps) == pytest.approx(nqm.risk(PROBLEM, plain, 64, steps), rel=1e-13)
    heavy = nqm.SGD(0.5 * (1.0 - 0.9), 0.9)
    assert nqm.risk(PROBLEM, QHM(0.5, 0.9), 64, steps) == pytest.approx(nqm.risk(PROBLEM, heavy, 64, steps), rel=1e-12)
    assert nqm.max_stable_lr(PROBLEM, QHM(FREE, 0.9)) == pytest.approx(
        10.0 * nqm.max_stable_lr(PROBLEM, nqm.SGD(FREE, 0.9)), rel=1e-12
    )


def test_arrays_broadcast():
    nu, momentum = np.array([0.0, 0.5, 1.0]), np.array([[0.5], [0.9]])
    found = nqm.risk(PROBLEM, QHM(0.5, momentum, nu), 64, 300)
    assert found.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = nqm.risk(PROBLEM, QHM(0.5, momentum[i, 0], nu[j]), 64, 300)
        assert found[i, j] == pytest.approx(alone, rel=1e-11)
    limits = nqm.max_stable_lr(PROBLEM, QHM(FREE, momentum, nu))
    assert limits.shape == (2, 3)
    assert limits[:, 0] == pytest.approx(nqm.max_stable_lr(PROBLEM, nqm.SGD(FREE)), rel=1e-12)


def test_gaussian_features_and_simulation():
    problem = nqm.NoisyQuadratic([2.0, 1.0, 0.3], noise_model="gaussian-features", label_noise=0.1)
    optimizer, heavy = QHM(0.2, 0.8, 0.6), QHM(0.2, 0.8)
    found = nqm.risk(problem, optimizer, 4, 40)
    trials = nqm.simulate(problem, optimizer, 4, 40, runs=4000)
    assert abs(found - trials.mean[0]) < 4.0 * trials.standard_error[0]
    same = nqm.SGD(0.2 * (1.0 - 0.8), 0.8)
    assert nqm.risk(problem, heavy, 4, 40) == pytest.approx(nqm.risk(problem, same, 4, 40), rel=1e-12)
    assert nqm.steady_state_risk(problem, heavy, 4) == pytest.approx(nqm.steady_state_risk(problem, same, 4), rel=1e-10)
    limits = nqm.max_stable_lr(problem, heavy, 4), nqm.max_stable_lr(problem, same, 4) / (1.0 - 0.8)
    assert limits[0] == pytest.approx(limits[1], rel=1e-9)
    assert nqm.max_stable_lr(problem, nqm.EMA(optimizer, 0.9), 4) == nqm.max_stable_lr(problem, optimizer, 4)


def test_first_and_last_crossing():
    optimizer = QHM(0.5, 0.99, 0.9)
    course = nqm.risk(PROBLEM, optimizer, 4096, np.arange(2001))
    target = 0.1 * course[0]
    assert nqm.steps_to_target(PROBLEM, optimizer, 4096, target) == np.argmax(course <= target)
    last = nqm.steps_to_target(PROBLEM, optimizer, 4096, target, crossing="last")
    assert last == np.flatnonzero(course > target)[-1] + 1


@pytest.fixture(scope="module")
def best():
    return nqm.tune(PROBLEM, QHM(FREE, FREE, FREE), 256, 0.05)


def test_tuned_over_three(best):
    assert best.status == "tuned"
    assert not best.optimizer.free
    assert nqm.steps_to_target(PROBLEM, best.optimizer, 256, 0.05) == best.steps
    heavy, plain = (nqm.tune(PROBLEM, one, 256, 0.05).steps for one in (nqm.SGD(FREE, FREE), nqm.SGD(FREE)))
    assert best.steps <= min(heavy, plain)
    rng = np.random.default_rng(0)
    momentum, nu = 1.0 - np.exp(-rng.uniform(0.0, math.log(best.steps), (2, 20_000)))
    limit = nqm.max_stable_lr(PROBLEM, QHM(FREE, momentum, nu))
    cloud = QHM(limit * np.exp(-rng.uniform(0.0, math.log(best.steps), 20_000)), momentum, nu)
    assert nqm.risk(PROBLEM, cloud, 256, best.steps - 1).min() > 0.05


def test_bounds_and_given_steps():
    found = nqm.tune(PROBLEM, QHM(FREE, 0.9, FREE), 256, 0.05, bounds={"nu": (0.5, 1.0)})
    assert 0.5 <= found.optimizer.nu <= 1.0
    scan = QHM(np.geomspace(0.01, 19.0, 400), 0.9, np.linspace(0.5, 1.0, 100)[:, None])
    assert nqm.risk(PROBLEM, scan, 256, found.steps - 1).min() > 0.05
    least = nqm.tune(PROBLEM, QHM(FREE, 0.9, FREE), 256, steps=300)
    assert least.risk <= nqm.risk(PROBLEM, scan, 256, 300).min() * (1.0 + 1e-9)
    with pytest.raises(ValueError, match=r"bounds\['nu'\]: expected finite real numbers in \[0, 1\], got 2"):
        nqm.tune(PROBLEM, QHM(FREE, 0.9, FREE), 256, 0.05, bounds={"nu": (0.5, 2.0)})


def test_schedules_of_it():
    """Momentum and nu a little off, with learning rates at the same parts of the limit, are worse."""
    found = nqm.optimize_schedule(PROBLEM, 256, steps=200, pieces=3, optimizer=QHM(FREE, FREE, FREE))
    assert found.gradient_norm < 1e-4
    best = found.optimizer.hyperparameters
    assert nqm.risk(PROBLEM, found.optimizer, 256, 200) == pytest.approx(found.risk, rel=1e-9)
    for name in ("momentum", "nu"):
        for sign in (-1.0, 1.0):
            moved = best[name] + sign * 1e-3 * min(best[name], 1.0 - best[name])
            other = found.optimizer.with_values(**{name: moved})
            parts = nqm.max_stable_lr(PROBLEM, other) / nqm.max_stable_lr(PROBLEM, found.optimizer)
            other = other.with_values(lr=nqm.Schedule(parts * found.schedule.values, found.schedule.lengths))
            assert nqm.risk(PROBLEM, other, 256, 200) > found.risk * (1.0 - 1e-9)


# --- tables and the shell ------------------------------------------------------------------------------------------

COLUMNS = ["optimizer", "target", "batch_size", "steps", "examples", "risk", "lr", "momentum", "power", "decay"]


def test_a_sweep_has_a_column_for_it():
    optimizers = {"SGD": nqm.SGD(FREE), "QHM": QHM(FREE, 0.9, 0.7), "averaged": nqm.EMA(QHM(0.5, 0.5, 0.5), 0.9)}
    found = nqm.sweep(PROBLEM, optimizers, [64, 4096], 0.1)
    assert list(found.table) == [*COLUMNS, "nu", "status"]
    assert found.table["nu"].tolist() == [1.0, 1.0, 0.7, 0.7, 0.5, 0.5]
    assert found.table["decay"].tolist() == [0.0, 0.0, 0.0, 0.0, 0.9, 0.9]
    lines = str(found).splitlines()
    assert lines[0].split() == ["optimizer", "target", "batch_size", "steps", *COLUMNS[6:], "nu", "status"]
    assert len(lines) == 7
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        spread = nqm.sweep(PROBLEM, optimizers, [64, 4096], 0.1, executor=pool)
    assert str(spread) == str(found)
    assert list(nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.1)}, [64], 0.5).table) == [*COLUMNS, "status"]


def test_one_without_a_default_is_nan_elsewhere():
    odd = replace(NU, default=None)

    class Odd(QHM):
        declared: ClassVar = (LR, MOMENTUM, odd)

    table = nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.1), "odd": Odd(0.1, 0.5, 0.2)}, [64], 0.5).table
    assert np.isnan(table["nu"][0])
    assert table["nu"][1] == 0.2


def test_the_shell_offers_what_is_appended(monkeypatch, capsys):
    monkeypatch.setattr(optimizer_options, "OFFERED", [*optimizer_options.OFFERED, QHM])
    arguments = ["steps", "--batch-size", "64", "--target", "0.5", "--dim", "100", "--lr", "0.5", "--json"]
    assert main([*arguments, "--momentum", "0.9", "--nu", "0.7"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = nqm.steps_to_target(nqm.NoisyQuadratic.power_law(100), QHM(0.5, 0.9, 0.7), 64, 0.5)
    assert (told["steps"], told["nu"]) == (expected, 0.7)
    assert main([*arguments, "--nu", "0.7", "--ema", "0.5", "--power", "0.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nu"], told["decay"], told["power"]) == (0.7, 0.5, 0.5)
    assert main(arguments) == 0  # plain SGD, as ever
    assert "nu" not in json.loads(capsys.readouterr().out)
    assert main([*arguments, "--momentum", "0.5", "--nesterov", "--nu", "0.7"]) == 2
    assert "expected options of one optimizer" in capsys.readouterr().err
    assert main([*arguments, "--nu", "2"]) == 2
    assert "nu: expected finite real numbers in [0, 1], got 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["steps", "--help"])
    assert re.search(r"--nu V\s+quasi-hyperbolic discount, nu in \[0, 1\];\s+default: 1", capsys.readouterr().out)


# --- what all optimizers have --------------------------------------------------------------------------------------


def test_repr_values_equality_and_pickles():
    optimizer = QHM(0.5, 0.9, 0.7)
    assert repr(optimizer) == "QHM(lr=0.5, momentum=0.9, nu=0.7)"
    assert repr(QHM(FREE, nu=1.0)) == "QHM(lr=nqm.FREE)"
    assert repr(QHM(0.5, FREE, [0.1, 0.2])) == "QHM(lr=0.5, momentum=nqm.FREE, nu=<array (2,)>)"
    assert repr(nqm.EMA(optimizer, 0.9)) == "EMA(QHM(lr=0.5, momentum=0.9, nu=0.7), decay=0.9)"
    assert nqm.EMA(QHM(FREE, 0.9), 0.9).with_values(lr=0.5, nu=0.7) == nqm.EMA(optimizer, 0.9)
    assert optimizer != QHM(0.5, 0.9, 0.6)
    assert pickle.loads(pickle.dumps(optimizer)) == copy.deepcopy(optimizer) == optimizer
    assert pickle.loads(pickle.dumps(NU)) == NU
    assert QHM(FREE, FREE, 0.5).free == ("lr", "momentum")
    assert list(nqm.Preconditioned(optimizer, 0.5).described) == ["lr", "momentum", "nu", "power"]
    assert (QHM(0.1).states, QHM(0.1, FREE).states, nqm.EMA(QHM(0.1, FREE), 0.5).states) == (1, 2, 3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: QHM(0.5, nu=1.5), ValueError, "nu: expected finite real numbers in [0, 1], got 1.5"),
        (lambda: QHM(0.5, nu=[0.5, -1.0]), ValueError, "in [0, 1], got -1 at index (1,)"),
        (lambda: QHM(0.5, nu="0.5"), TypeError, "nu: expected finite real numbers in [0, 1], got '0.5' (str)"),
        (lambda: QHM(0.5, nu=nqm.Schedule(0.5, 10)), TypeError, "only lr and batch_size can follow a schedule"),
        (lambda: QHM([0.1, 0.2], nu=[0.1, 0.2, 0.3]), ValueError, "expected arguments whose shapes broadcast"),
        (lambda: QHM(0.5).with_values(mu=0.5), ValueError, "expected hyperparameters of QHM(lr=0.5), got mu"),
        (lambda: nqm.risk(PROBLEM, QHM(0.5, nu=FREE), 4, 1), TypeError, "nu is nqm.FREE"),
        (lambda: nqm.tune(PROBLEM, QHM(0.5), 4, 0.1), ValueError, "at least one of lr, momentum, decay, nu, got QHM"),
    ],
)
def test_what_was_expected_and_what_came(make, error, words):
    with pytest.raises(error) as refused:
        make()
    assert words in str(refused.value)


def test_what_cannot_be_free():
    class Fixed(QHM):
        declared: ClassVar = (LR, MOMENTUM, replace(NU, can_be_free=False))

    with pytest.raises(TypeError, match=r"nu: expected numbers in \[0, 1\], got nqm.FREE; lr, momentum and decay can"):
        Fixed(0.5, nu=FREE)


# --- descriptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [*STANDARD, NU], ids=lambda one: one.name)
def test_descriptions_are_consistent(one):
    inside = one.from_line(np.linspace(*one.search, 101)) if one is not LR else np.geomspace(1e-9, 1e9, 101)
    for value in inside[1:-1].tolist():
        one.checked(value)
        assert float(one.from_line(one.to_line(value))) == pytest.approx(value, rel=1e-12, abs=1e-15)
        step = 1e-6 * max(1.0, abs(one.to_line(value)))
        ends = [float(one.from_line(one.to_line(value) + by)) for by in (-step, step)]
        assert one.slope(value) == pytest.approx((ends[1] - ends[0]) / (2.0 * step), rel=1e-3, abs=1e-9)
        for end in (value - 0.5 * one.span(value), value + 0.5 * one.span(value)):
            if math.isfinite(end):
                one.checked(end)
    if one.default is not None:
        assert one.checked(one.default) == one.default == one.neutral
    one.checked(one.inside)


def test_scalars_and_arrays_alike():
    for scale in SCALES.values():
        for u in (0.0, 0.3, 5.0):
            assert float(scale.from_line(np.array([u]))[0]) == pytest.approx(scale.from_line(u), rel=1e-15)
    assert (MOMENTUM.to_line(1.0), LR.to_line(0.0)) == (math.inf, -math.inf)


def test_the_standard_ones():
    assert [one.name for one in STANDARD] == ["lr", "momentum", "power", "decay"]
    assert [one.domain for one in STANDARD] == ["(0, inf)", "[0, 1)", "[0, 1]", "[0, 1)"]
    assert [one.default for one in (MOMENTUM, POWER, DECAY)] == [0.0, 0.0, 0.0]
