"""What holds for every optimizer on every problem: the pairs of cases.py.

Against oracles: the update rule step by step, 60 digits, simulations, the reference backend. And changes that must
not change the answer, or change it in a known way.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from building import optimizer_of
from cases import ADDITIVE, BATCH, FEATURES, FEW, LR, OPTIMIZERS, RULES, SETTINGS, batch_along, pairs, pieces_of
from numpy.testing import assert_allclose
from reference import linear_step

import nqm
from nqm import Schedule

# schedules are held here to see what follows
pytestmark = pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")

STEPS = np.array([0, 1, 2, 10, 55, 203, 1000])
LATER = np.array([0, 1, 2, 7, 100, 10_001, 10**7])


def risk(case, setting, steps, problem=None):
    return nqm.risk(setting.problem if problem is None else problem, case.optimizer, setting.batch_size, steps)


def faded(setting):
    """What is lost without noise: a start that has faded has rounding errors of larger ones on its way."""
    quiet = setting.batch_size == np.inf or not np.any(setting.coordinates.c)
    return 1e-13 * setting.problem.initial_risk if quiet else 1e-290


def close(found, expected, setting):
    assert_allclose(found, expected, rtol=setting.rtol, atol=faded(setting))


# --- oracles -----------------------------------------------------------------------------------------------------


@pairs()
def test_the_risk_is_that_of_the_rule_step_by_step(case, setting):
    expected = setting.step_by_step(case.rule, [(case.lr, setting.batch_size, 200)])
    close(risk(case, setting, np.arange(201)), expected, setting)


@pairs(every=5)
def test_along_schedules_too(case, setting):
    """Learning rate, batch size or both change; no step is taken for a while, and momentum goes on."""
    schedules = LR * case.lr, batch_along(setting)
    for lr, batch in ((schedules[0], setting.batch_size), (case.lr, schedules[1]), schedules):
        expected = setting.step_by_step(case.rule, pieces_of(lr, batch, 250))
        close(nqm.risk(setting.problem, case.along(lr), batch, np.arange(251)), expected, setting)


TIMES = [0, 1, 17, 1000, 10**6, 10**9]


@pairs(FEW, every=6, first=2)
def test_the_risk_has_its_digits(case, setting):
    """Of 60. No float64 tells h^(1-p) from its neighbours: what that does to the exact risk is allowed ten times."""
    exact = setting.exact(case.rule, TIMES)
    allowed = np.full(len(TIMES), setting.rtol)
    if getattr(case.rule, "power", 0.0):
        beside = setting.exact(replace(case.rule, lr=float(np.nextafter(case.lr, 0.0))), TIMES)
        moved = [abs(float(b / a - 1)) if a else 0.0 for a, b in zip(exact, beside, strict=True)]
        allowed = np.maximum(allowed, 10.0 * np.array(moved))
    for found, expected, most in zip(risk(case, setting, TIMES), exact, allowed, strict=True):
        if expected > Decimal("1e-280"):
            assert abs(Decimal(float(found)) - expected) <= Decimal(float(most)) * expected


@pairs(FEW, every=7, first=3)
def test_the_reference_backend_agrees(case, setting):
    lr, batch = LR * case.lr, batch_along(setting)

    def everything():
        along = nqm.risk(setting.problem, case.along(lr), batch, STEPS)
        return [risk(case, setting, LATER), along, nqm.steady_state_risk(setting.problem, case.optimizer, 7.0)]

    found = everything()
    with nqm.use_backend("numpy"):
        expected = everything()
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=setting.rtol, atol=1e-290)


SIMULATED = ("weighted", "matrices", "Gaussian features", "Gaussian features, single examples")


@pairs(SIMULATED, every=8, first=6)
@pytest.mark.parametrize("along", [False, True], ids=["constant", "schedules"])
def test_the_mean_of_simulations_is_the_risk(case, setting, along):
    """Within 5 standard errors: of all comparisons a correct program fails one in 10,000 seeds; the seed is fixed."""
    lr, batch, times = case.lr, setting.batch_size, [0, 1, 2, 5, 12] if setting.features else [0, 1, 2, 5, 20, 60]
    if along:
        lr = Schedule([0.0, 0.8, 0.0, 0.1, 0.7], [1, 9, 3, 20, 10]) * case.lr
        batch = Schedule([1.0, 4.0, 2.0], [4, 20, 1]) * setting.batch_size if setting.features else BATCH * 8.0
    runs = 4000 if setting.features else 20_000
    trials = nqm.simulate(setting.problem, case.along(lr), batch, times, runs=runs, seed=1)
    expected = nqm.risk(setting.problem, case.along(lr), batch, times)
    assert np.all(np.abs(trials.mean - expected) <= 5.0 * trials.standard_error)
    assert np.all(trials.standard_error < (0.06 if setting.features else 0.02) * expected)  # so it would notice


# --- ends --------------------------------------------------------------------------------------------------------


@pairs()
def test_before_the_first_step_the_risk_is_the_initial_risk(case, setting):
    readout, start = linear_step(case.rule, 1.0, float)[3:]
    if not np.isclose(np.dot(readout, start), 1.0):
        pytest.skip("reads something else than theta")
    for lr in (1e-300, case.lr, 1e200, LR * case.lr, Schedule(0.0, 3)):
        found = nqm.risk(setting.problem, case.along(lr), setting.batch_size, [0, 5] if lr is case.lr else 0)
        assert np.ravel(found)[0] == pytest.approx(setting.problem.initial_risk, rel=4e-16 if setting.few else 1e-11)


@pairs()
def test_the_risk_goes_to_the_steady_state(case, setting):
    steady = nqm.steady_state_risk(setting.problem, case.optimizer, setting.batch_size)
    last = risk(case, setting, 2**40 if setting.few else 2**50)
    assert_allclose(last, steady, rtol=setting.rtol, atol=1e-290)
    lr, batch = Schedule([0.1 * case.lr, case.lr], 10), batch_along(setting, Schedule([0.5, 4.0, 1.0], [5, 7, 1]))
    for rate, size in ((lr, batch), (lr, setting.batch_size), (case.lr, batch)):
        assert nqm.steady_state_risk(setting.problem, case.along(rate), size) == steady
    ends = nqm.risk(setting.problem, case.along(lr), batch, 2**40 if setting.few else 2**50)
    assert_allclose(ends, steady, rtol=setting.rtol, atol=1e-290)


@pairs()
def test_the_stability_limit_parts_convergence_from_divergence(case, setting):
    limit = nqm.max_stable_lr(setting.problem, case.optimizer, setting.batch_size)
    near, late = (1e-6, 2**50) if setting.features else (1e-9, 2**53)
    assert math.isfinite(nqm.risk(setting.problem, case.along(limit * (1.0 - near)), setting.batch_size, late))
    assert nqm.risk(setting.problem, case.along(limit * (1.0 + near)), setting.batch_size, late) == math.inf


@pairs(FEW, every=5)
def test_what_diverges_is_inf_and_stays_so(case, setting):
    limit = nqm.max_stable_lr(setting.problem, case.optimizer, setting.batch_size)
    for lr in limit * np.array([1.001, 2.0, 1e3]):
        found = nqm.risk(setting.problem, case.along(lr), setting.batch_size, 2 ** np.arange(54))
        first = int(np.argmax(np.isinf(found)))
        assert np.all(found[first:] == math.inf)
        assert found[-1] == math.inf
        assert np.all(found >= 0.0)
        assert nqm.steady_state_risk(setting.problem, case.along(lr), min(8.0, setting.batch_size)) == math.inf
    slow = Schedule([lr, 0.0, 0.1 * case.lr], [2**52, 10, 10**6])  # however it goes on
    ends = nqm.risk(setting.problem, case.along(slow), setting.batch_size, slow.ends)
    assert np.all(ends == math.inf)


# --- crossings ---------------------------------------------------------------------------------------------------

HORIZON = 400


def levels(risks):
    """Levels that the curve crosses within the horizon, none of them where the last digits decide."""
    low, high = risks.min(), risks.max()
    inside = [low + (high - low) * share for share in (0.02, 0.3, 0.7)]
    return [level for level in inside if np.abs(risks / level - 1.0).min() > 1e-6]


@pairs(every=8, first=2)
@pytest.mark.parametrize("along", [False, True], ids=["constant", "schedules"])
def test_first_and_last_crossings_are_those_of_a_scan(case, setting, along):
    """As far as it reaches; and beyond, the risk lies above the target before each and not above it at each."""
    lr, batch = (LR * case.lr, batch_along(setting)) if along else (case.lr, setting.batch_size)
    risks = setting.step_by_step(case.rule, pieces_of(lr, batch, HORIZON))
    for target in levels(risks):
        first, last = (
            nqm.steps_to_target(setting.problem, case.along(lr), batch, target, crossing)
            for crossing in ("first", "last")
        )
        assert first <= last
        assert first == np.argmax(risks <= target)
        assert last >= np.flatnonzero(risks > target)[-1] + 1
        for found in {first, last} - {0, math.inf}:
            before, at = nqm.risk(setting.problem, case.along(lr), batch, [found - 1, found])
            assert at <= target < before
        if last <= HORIZON:
            assert np.all(risks[last:] <= target)


@pairs(every=6)
def test_targets_at_the_ends(case, setting):
    steady = nqm.steady_state_risk(setting.problem, case.optimizer, setting.batch_size)
    start = risk(case, setting, 0)
    assert nqm.steps_to_target(setting.problem, case.optimizer, setting.batch_size, start) == 0
    assert nqm.steps_to_target(setting.problem, case.optimizer, setting.batch_size, 1e300, "last") == 0
    if steady > 0.0:
        above = nqm.steps_to_target(setting.problem, case.optimizer, setting.batch_size, steady * (1.0 + 1e-6), "last")
        assert above < math.inf
        below = nqm.steps_to_target(setting.problem, case.optimizer, setting.batch_size, steady * (1.0 - 1e-6), "last")
        assert below == math.inf


# --- what changes nothing ----------------------------------------------------------------------------------------


WITHOUT = {"momentum": {"momentum": 0.0, "nesterov": False}, "decay": {"decay": None}, "power": {"power": 0.0}}


@pairs(optimizers=tuple(RULES))
def test_a_hyperparameter_of_0_is_as_if_it_were_not_there(case, setting):
    """Momentum 0 is SGD, decay 0 no average, power 0 no preconditioner: to the bit. In an array they keep a state."""
    for name in WITHOUT.keys() & case.optimizer.hyperparameters.keys():
        zero, without = case.optimizer.with_values(**{name: 0.0}), optimizer_of(replace(case.rule, **WITHOUT[name]))
        found, expected = (nqm.risk(setting.problem, o, setting.batch_size, STEPS) for o in (zero, without))
        assert np.array_equal(found, expected)
        arrays = case.optimizer.with_values(**{name: [[0.0], [0.5]]})
        close(nqm.risk(setting.problem, arrays, setting.batch_size, STEPS)[0], expected, setting)
        lr, batch = LR * case.lr, batch_along(setting)
        found, expected = (nqm.risk(setting.problem, o.with_values(lr=lr), batch, STEPS) for o in (zero, without))
        assert np.array_equal(found, expected)


@pairs(optimizers=[name for name, rule in RULES.items() if rule.power and rule.decay])
def test_averaging_and_preconditioning_commute(case, setting):
    inner = optimizer_of(replace(case.rule, power=0.0, decay=None))
    for lr, batch in ((case.lr, setting.batch_size), (LR * case.lr, batch_along(setting))):
        other = nqm.Preconditioned(nqm.EMA(inner, case.rule.decay), case.rule.power).with_values(lr=lr)
        found = nqm.risk(setting.problem, other, batch, STEPS)
        assert np.array_equal(found, nqm.risk(setting.problem, case.along(lr), batch, STEPS))


@pairs(FEW)
def test_splitting_an_eigenvalue_changes_nothing(case, setting):
    """Also where the parts start apart: only the mean of their starts counts."""
    whole = setting.coordinates
    parts = {name: np.repeat(getattr(whole, name), 3) for name in ("h", "c", "init", "multiplicity")}
    parts["multiplicity"] *= np.tile([0.5, 0.3, 0.2], whole.h.size)
    parts["init"] *= np.tile([1.0, 1.4, 0.4], whole.h.size)  # 0.5 + 0.42 + 0.08 = 1
    split = setting.like(**parts)
    assert_allclose(risk(case, setting, LATER, split), risk(case, setting, LATER), rtol=10 * setting.same, atol=1e-290)
    limits = [nqm.max_stable_lr(problem, case.optimizer, setting.batch_size) for problem in (split, setting.problem)]
    assert limits[0] == pytest.approx(limits[1], rel=1e-12, abs=0.0)


@pairs(FEW)
def test_the_order_of_eigenvalues_changes_nothing(case, setting):
    whole = setting.coordinates
    turned = setting.like(**{name: getattr(whole, name)[::-1] for name in ("h", "c", "init", "multiplicity")})
    assert_allclose(risk(case, setting, LATER, turned), risk(case, setting, LATER), rtol=setting.same, atol=1e-290)


@pairs()
def test_one_piece_is_a_number(case, setting):
    for steps in (1, 100, 10**8):
        one = Schedule(setting.batch_size, steps) if np.isfinite(setting.batch_size) else np.inf
        for lr, batch in ((Schedule(case.lr, steps), setting.batch_size), (case.lr, one), (Schedule(case.lr, 9), one)):
            found = nqm.risk(setting.problem, case.along(lr), batch, STEPS)
            assert_allclose(found, risk(case, setting, STEPS), rtol=setting.same, atol=faded(setting))
    coarse = Schedule(np.full(200, case.lr), 1).coarsened(7)
    assert coarse.pieces == 7
    found = nqm.risk(setting.problem, case.along(coarse), setting.batch_size, STEPS)
    assert_allclose(found, risk(case, setting, STEPS), rtol=setting.same, atol=faded(setting))


def halved(schedule):
    """Every piece in two, where it has two steps."""
    first = schedule.lengths // 2
    lengths = np.stack([first, schedule.lengths - first], axis=1).ravel()
    return Schedule(np.repeat(schedule.values, 2)[lengths > 0], lengths[lengths > 0])


SPELLINGS = {
    "split": halved,
    "merged": Schedule.merged,
    "step by step": lambda s: Schedule.from_function(s, s.steps),
    "every step": lambda s: Schedule(s(np.arange(s.steps)), 1),
    "coarsened to its steps": lambda s: Schedule(s(np.arange(s.steps)), 1).coarsened(s.steps),
    "longer": lambda s: s.cut(10**6),
    "in two": lambda s: s.cut(77).then(Schedule(s(np.arange(77, s.steps)), 1)),
}


@pairs(every=5)
def test_the_same_schedule_in_other_pieces(case, setting):
    lr, batch = LR * case.lr, batch_along(setting)
    expected = nqm.risk(setting.problem, case.along(lr), batch, STEPS)
    for respelled in SPELLINGS.values():
        again = respelled(batch) if isinstance(batch, Schedule) else batch
        found = nqm.risk(setting.problem, case.along(respelled(lr)), again, STEPS)
        assert_allclose(found, expected, rtol=setting.same, atol=faded(setting))


# --- units -------------------------------------------------------------------------------------------------------


@pairs(ADDITIVE)
def test_units_of_noise_start_and_number(case, setting):
    """Powers of 2, so that even the last bit must agree."""
    whole, expected = setting.coordinates, risk(case, setting, LATER, setting.like())
    noisier = setting.like(c=2.0 * whole.c)
    assert np.array_equal(nqm.risk(noisier, case.optimizer, 2.0 * setting.batch_size, LATER), expected)
    larger = setting.like(c=4.0 * whole.c, init=4.0 * whole.init)
    assert np.array_equal(risk(case, setting, LATER, larger), 4.0 * expected)
    wider = setting.like(multiplicity=8.0 * whole.multiplicity)
    assert np.array_equal(risk(case, setting, LATER, wider), 8.0 * expected)


@pairs(ADDITIVE)
def test_units_along_schedules(case, setting):
    """A power of 4, of which roots are exact too. More examples are less noise; curvature is learning rate."""
    lr, batch, k = LR * case.lr, batch_along(setting), 4.0**4
    whole, expected = setting.coordinates, nqm.risk(setting.like(), case.along(lr), batch, STEPS)
    quieter = setting.like(c=whole.c / 16.0)
    assert np.array_equal(nqm.risk(quieter, case.along(lr), batch * 0.0625, STEPS), expected)
    sharper = setting.like(h=whole.h * k, c=whole.c * k**2)
    scaled = case.along(lr * k ** (getattr(case.rule, "power", 0.0) - 1.0))
    assert np.array_equal(nqm.risk(sharper, scaled, batch, STEPS), k * expected)


@pairs(FEATURES, first=3)
def test_units_of_start_and_label_noise(case, setting):
    whole, expected = setting.coordinates, risk(case, setting, LATER)
    larger = setting.like(init=4.0 * whole.init, label_noise=4.0 * whole.label_noise)
    assert np.array_equal(risk(case, setting, LATER, larger), 4.0 * expected)


@pairs(FEW)
def test_units_of_curvature(case, setting):
    """With a power, units of lr are curvature^(power - 1)."""
    whole = setting.coordinates
    labels = {} if whole.label_noise is None else {"label_noise": 16.0 * whole.label_noise}
    steeper = setting.like(h=16.0 * whole.h, c=256.0 * whole.c, **labels)
    slower = case.along(case.lr * 16.0 ** (getattr(case.rule, "power", 0.0) - 1.0))
    found = nqm.risk(steeper, slower, setting.batch_size, LATER)
    assert_allclose(found, 16.0 * risk(case, setting, LATER), rtol=setting.rtol, atol=faded(setting))
    limits = [nqm.max_stable_lr(p, case.optimizer, setting.batch_size) for p in (steeper, setting.problem)]
    assert limits[0] / slower.hyperparameters["lr"] == pytest.approx(limits[1] / case.lr, rel=1e-9)


def test_every_optimizer_and_every_problem_is_in_the_default_run():
    """Of each property that is about all of them, whatever is thinned."""
    for test in (test_the_risk_is_that_of_the_rule_step_by_step, test_first_and_last_crossings_are_those_of_a_scan):
        given = next(mark.args[1] for mark in test.pytestmark if mark.args[0] == ("case", "setting"))
        taken = [parameters.id for parameters in given if not parameters.marks]
        assert {name.rpartition("-")[2] for name in taken} == set(SETTINGS)
        assert {name.rpartition("-")[0] for name in taken} == set(OPTIMIZERS)
