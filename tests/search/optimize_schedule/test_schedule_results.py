"""What is reported of the best schedules: their numbers, when they have converged, and what stands in the way."""

from __future__ import annotations

import math
import pickle
from functools import cache

import mpmath
import numpy as np
import pytest
from schedule_problems import PROBLEM, SMALL, TARGET, C, H, S, nodes, sgd
from sizes import every

import nqm
from nqm import EMA, FREE, SGD, NoisyQuadratic, Schedule, optimize_schedule, schedules

# --- what is reported --------------------------------------------------------------------------------------

RESULTS = {
    "steps": (PROBLEM, 256, {"steps": 1000, "pieces": 20}),
    "target": (PROBLEM, 256, {"target": TARGET, "pieces": 10}),
    "preconditioned": (PROBLEM, 1024, {"target": TARGET, "pieces": 10, "optimizer": sgd(0.5)}),
    "momentum": (SMALL, 16, {"target": 0.03, "pieces": 4, "optimizer": SGD(FREE, FREE)}),
    "averages": (SMALL, 16, {"steps": 100, "pieces": 4, "optimizer": EMA(SGD(FREE), FREE)}),
    "batch": (SMALL, FREE, {"steps": 24, "pieces": 4, "examples": 192, "optimizer": SGD(0.3)}),
    "both": (SMALL, FREE, {"target": 0.05, "pieces": 4, "examples": 1000}),
    "ramp": (SMALL, Schedule([2, 8], [50, 50]), {"steps": 100, "pieces": 4}),
    "shape": (SMALL, 4, {"target": 0.02, "pieces": 8, "shape": schedules.cosine}),
    "small bound": (SMALL, 4, {"target": 0.05, "pieces": 4, "max_lr": 0.3}),
    "unbounded": (SMALL, 32, {"steps": 5, "pieces": 5, "max_lr": None}),
    "fewer steps than pieces": (SMALL, 100, {"target": 0.1, "pieces": 10}),
    "cliffs": (PROBLEM, 4096, {"steps": 30, "pieces": 30, "max_lr": None}),
}
CONVERGED = sorted(set(RESULTS) - {"cliffs"})


def fresh(name):
    problem, batch, arguments = RESULTS[name]
    return optimize_schedule(problem, batch, **arguments)


result = cache(fresh)


def bound_of(name):
    """The bound of the learning rates."""
    best, (problem, _, arguments) = result(name), RESULTS[name]
    return arguments.get("max_lr", nqm.max_stable_lr(problem, best.optimizer.with_values(lr=1.0))) or math.inf


@pytest.mark.parametrize("name", RESULTS)
def test_the_reported_numbers(name):
    best, (problem, batch, arguments) = result(name), RESULTS[name]
    assert type(best.steps) is int
    assert best.schedule.steps == best.steps
    assert best.schedule.pieces <= arguments["pieces"]
    assert not best.optimizer.free
    assert best.schedule == (best.batch_size if name == "batch" else best.optimizer.hyperparameters["lr"])
    assert best.batch_size == batch or batch is FREE
    assert best.target == arguments.get("target")
    assert best.steps == arguments.get("steps", best.steps)
    assert best.risk == nqm.risk(problem, best.optimizer, best.batch_size, best.steps)
    if best.target is not None:
        assert best.risk <= best.target
        assert nqm.steps_to_target(problem, best.optimizer, best.batch_size, best.target) <= best.steps


@pytest.mark.parametrize("name", ["target", "preconditioned", "both", "shape", "small bound"])
def test_no_schedule_of_one_step_less_reaches_the_target(name):
    problem, batch, arguments = RESULTS[name]
    more = {key: value for key, value in arguments.items() if key != "target"}
    sooner = optimize_schedule(problem, batch, **more, steps=result(name).steps - 1, restarts=20, seed=3)
    assert sooner.risk > result(name).target


@pytest.mark.parametrize("name", sorted(set(RESULTS) - {"batch", "unbounded", "cliffs"}))
def test_learning_rates_stay_within_the_bound(name):
    values, bound = result(name).schedule.values, bound_of(name)
    assert values.min() > 0.0
    assert values.max() <= bound * (1.0 + 1e-12)
    if name == "small bound":
        assert values[0] == pytest.approx(bound, rel=1e-12)


def slopes(name):
    """d log risk / d log lr of each piece, by central differences of the exact risk."""
    best, (problem, _, _) = result(name), RESULTS[name]
    logs = []
    for factors in np.exp(1e-5 * np.vstack([np.eye(best.schedule.pieces), -np.eye(best.schedule.pieces)])):
        moved = best.optimizer.with_values(lr=Schedule(best.schedule.values * factors, best.schedule.lengths))
        logs.append(math.log(nqm.risk(problem, moved, best.batch_size, best.steps)))
    up, down = np.split(np.array(logs), 2)
    return (up - down) / 2e-5


@pytest.mark.parametrize("name", CONVERGED)
def test_converged_means_flat_or_on_the_bound(name):
    best = result(name)
    assert best.status == "converged"
    assert 0.0 <= best.gradient_norm <= 1e-4
    if name in ("steps", "target", "preconditioned", "ramp", "small bound", "unbounded"):
        there, slope = best.schedule.values >= bound_of(name) * (1.0 - 1e-9), slopes(name)
        assert np.abs(slope[~there]).max(initial=0.0) < 2e-4
        assert slope[there].max(initial=-1.0) < 0.0  # a higher bound would help


def test_stalled_is_said_where_the_slope_is_not_zero():
    """Thirty learning rates without a bound, some of hundreds: a landscape of cliffs, with cusps some 1e-8 wide where a
    coordinate is left with nothing but noise; hence slopes in 60 digits."""
    best, lengths = result("cliffs"), RESULTS["cliffs"][2]["steps"]
    assert best.status == "stalled"
    assert best.gradient_norm > 1e-4
    assert best.schedule.pieces == lengths
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -25
        rates = [mpmath.mpf(value) for value in best.schedule.values.tolist()]

        def log_risk(factor, piece):
            moved = [lr * factor if j == piece else lr for j, lr in enumerate(rates)]
            total = mpmath.mpf(0)
            for h, c, s in zip(*(v.tolist() for v in nodes(PROBLEM)), strict=True):
                for lr in moved:
                    s = (1 - lr * h) ** 2 * s + lr**2 * c / best.batch_size
                total += h * s / 2
            return mpmath.log(total)

        slope = [(log_risk(1 + step, j) - log_risk(1 - step, j)) / (2 * step) for j in range(len(rates))]
        assert best.gradient_norm == pytest.approx(float(max(abs(value) for value in slope)), rel=1e-6)


@pytest.mark.parametrize("name", every(2, CONVERGED))
def test_the_same_answer_twice_and_after_pickling(name):
    best = result(name)
    for other in (fresh(name), pickle.loads(pickle.dumps(best))):
        assert other == best
        assert other.schedule.values.tobytes() == best.schedule.values.tobytes()
        numbers = (other.steps, other.risk, other.gradient_norm, other.examples)
        assert numbers == (best.steps, best.risk, best.gradient_norm, best.examples)


@pytest.mark.parametrize("name", ["target", "preconditioned", "both", "shape", "small bound"])
def test_another_seed_the_same_answer(name):
    problem, batch, arguments = RESULTS[name]
    other = optimize_schedule(problem, batch, **arguments, seed=7)
    assert other.steps == result(name).steps
    assert other.risk == pytest.approx(result(name).risk, rel=1e-7)


def test_arguments_are_left_alone():
    curvature, noise, pieces = H.copy(), C.copy(), np.array([1.0, 2.0, 1.0])
    problem = NoisyQuadratic(curvature, noise, S)
    optimize_schedule(problem, 4, target=0.05, pieces=pieces)
    assert curvature.tobytes() == H.tobytes()
    assert noise.tobytes() == C.tobytes()
    assert pieces.tolist() == [1.0, 2.0, 1.0]
    assert curvature.flags.writeable
    assert pieces.flags.writeable


def test_examples_are_those_of_the_steps_taken():
    assert result("target").examples == 256 * result("target").steps
    assert result("both").examples == pytest.approx(1000, rel=1e-12)
    ramp = Schedule([2, 8], [50, 50])
    for steps, examples in ((40, 80), (100, 500), (120, 660)):
        assert optimize_schedule(SMALL, ramp, steps=steps, pieces=1).examples == examples


# --- statuses ----------------------------------------------------------------------------------------------

THERE = [
    (4, {}),
    (4, {"optimizer": SGD(FREE, FREE)}),
    (4, {"optimizer": EMA(SGD(FREE), FREE)}),
    (4, {"max_lr": None}),
    (4, {"shape": schedules.cosine}),
    (Schedule([2, 4], [3, 3]), {}),
    (FREE, {"examples": 100}),
    (FREE, {"examples": 100, "optimizer": SGD(0.3)}),
    (FREE, {"examples": 2}),
]


def named(value):
    """The name of a case, the same in every process: no function by its address."""
    return str({k: getattr(v, "__name__", v) for k, v in value.items()}) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("batch", "more"), THERE, ids=named)
@pytest.mark.parametrize("target", [SMALL.initial_risk, 10.0])
def test_already_there(batch, more, target):
    best = optimize_schedule(SMALL, batch, target=target, pieces=4, **more)
    assert (best.status, best.steps) == ("already there", 0)
    assert best.risk == pytest.approx(SMALL.initial_risk, rel=1e-15)
    assert best.examples == 0.0
    assert best.gradient_norm == 0.0
    assert not best.optimizer.free


@pytest.mark.parametrize("examples", [20, 40])
def test_unreachable_with_too_few_examples(examples):
    """Below Bayes' bound; what is reported is as good as any number of steps gets."""
    assert examples < nqm.bounds.examples_to_target(SMALL, 0.05)
    best = optimize_schedule(SMALL, FREE, target=0.05, pieces=4, examples=examples)
    assert (best.status, best.steps, best.examples) == ("unreachable", math.inf, math.inf)
    assert best.risk == nqm.risk(SMALL, best.optimizer, best.batch_size, best.schedule.steps) > 0.05
    for steps in (4, examples // 2, examples):
        fixed = optimize_schedule(SMALL, FREE, steps=steps, pieces=4, examples=examples)
        assert best.risk <= fixed.risk * (1.0 + 1e-7)


def test_unreachable_reports_the_best_found():
    best = optimize_schedule(SMALL, FREE, target=1e-4, pieces=4, examples=1000, optimizer=SGD(1.0))
    fixed = optimize_schedule(SMALL, FREE, steps=40, pieces=4, examples=1000, optimizer=SGD(1.0))
    assert best.status == "unreachable"
    assert best.risk <= fixed.risk


def test_unreachable_in_any_number_of_steps_reports_the_best_found():
    best = optimize_schedule(SMALL, 1, target=1e-18, pieces=4)
    assert (best.status, best.steps) == ("unreachable", math.inf)
    assert best.risk <= optimize_schedule(SMALL, 1, steps=10**6, pieces=4).risk


def test_a_given_learning_rate_that_diverges():
    best = optimize_schedule(SMALL, FREE, target=0.05, pieces=4, examples=1000, optimizer=SGD(3.0))
    assert (best.status, best.steps) == ("unreachable", math.inf)


def test_a_ramp_that_ends_is_refused_where_steps_are_searched():
    """As ``tune`` does."""
    with pytest.raises(ValueError, match="expected a schedule that holds its last value"):
        optimize_schedule(SMALL, Schedule([2, 4], [3, 3], "error"), target=TARGET, pieces=2)
