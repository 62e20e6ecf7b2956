"""Calls that once gave wrong answers or none, with the right ones from independent computations."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nqm
from nqm.backends import first_passage, numba_backend
from nqm.dynamics.gaussian_features import first_passage as coupled_first_passage
from nqm.search import objective

ROOT = Path(__file__).parents[1]

# --- nothing times infinity ------------------------------------------------------------------------------------
#
# The first coordinate starts at its optimum, no noise moves it, and M^t overflows; the second one follows 0.7^t.

RESTS = nqm.NoisyQuadratic([1.0, 0.1], init=[0.0, 1.0])
UNSTABLE = {
    "plain": nqm.SGD(3.0),
    "momentum": nqm.SGD(5.0, 0.5),
    "nesterov": nqm.SGD(3.0, 0.5, True),
    "average": nqm.EMA(nqm.SGD(3.0), 0.5),
    "average of momentum": nqm.EMA(nqm.SGD(5.0, 0.5), 0.5),
    "three states": nqm.LinearOptimizer(3.0, np.diag([1.0, 0.5, 0.2]), [1.0, 0.0, 0.0]),
}
ALONE = nqm.NoisyQuadratic([0.1])
LATE = [0, 1, 20, 700, 5000, 2**40]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", UNSTABLE)
def test_a_coordinate_that_nothing_moves_adds_nothing(name, backend):
    """As the other one alone; what is left of it after 5000 steps underflows."""
    optimizer = UNSTABLE[name]
    ramped = nqm.Schedule([2.5, 3.0], [3, 5])
    with nqm.use_backend(backend):
        expected = nqm.risk(ALONE, optimizer, math.inf, LATE)
        assert np.all(np.isfinite(expected))
        assert nqm.risk(RESTS, optimizer, math.inf, LATE) == pytest.approx(expected, rel=1e-13, abs=0.0)
        mixed = nqm.risk(RESTS, optimizer, [[math.inf], [8.0]], LATE)
        assert mixed[0] == pytest.approx(expected, rel=1e-13, abs=0.0)
        assert mixed[1, -1] == math.inf  # where there is noise, it grows
        scheduled = [nqm.risk(p, optimizer.with_values(lr=ramped), math.inf, LATE) for p in (RESTS, ALONE)]
        assert scheduled[0] == pytest.approx(scheduled[1], rel=1e-13, abs=0.0)
        assert nqm.steady_state_risk(RESTS, optimizer, math.inf) == 0.0
        assert nqm.steady_state_risk(RESTS, optimizer, 8.0) == math.inf


@pytest.mark.parametrize("name", UNSTABLE)
@pytest.mark.parametrize("crossing", ["first", "last"])
def test_nor_does_it_hold_up_a_crossing(name, crossing):
    optimizer = UNSTABLE[name]
    for lr in (optimizer.hyperparameters["lr"], nqm.Schedule([2.5, 3.0], [3, 500]), nqm.Schedule([3.0, 0.0], [900, 1])):
        run = optimizer.with_values(lr=lr)
        steps = nqm.steps_to_target(RESTS, run, math.inf, 1e-6, crossing)
        assert math.isfinite(steps)
        assert steps == nqm.steps_to_target(ALONE, run, math.inf, 1e-6, crossing)


def test_plain_descent_on_what_moves_is_its_power():
    for steps in (1, 20, 700):
        expected = 0.05 * 0.7 ** (2 * steps)
        assert nqm.risk(RESTS, nqm.SGD(3.0), math.inf, steps) == pytest.approx(expected, rel=1e-12, abs=0.0)
    assert nqm.risk(RESTS, nqm.SGD(3.0), math.inf, 5000) == 0.0  # 0.7^10000 is below any float
    assert np.all(nqm.simulate(RESTS, nqm.SGD(3.0), math.inf, 5000, runs=3).losses == 0.0)


def test_gaussian_features_without_sampling_too():
    rests = nqm.NoisyQuadratic([1.0, 0.1], init=[0.0, 1.0], noise_model="gaussian-features", label_noise=1.0)
    for optimizer in UNSTABLE.values():
        expected = nqm.risk(ALONE, optimizer, math.inf, LATE)
        assert nqm.risk(rests, optimizer, [[math.inf]], LATE)[0] == pytest.approx(expected, rel=1e-9, abs=1e-300)
        assert nqm.steady_state_risk(rests, optimizer, [math.inf, 8.0]).tolist() == [0.0, math.inf]
    still = nqm.NoisyQuadratic([1.0, 0.1], init=0.0, noise_model="gaussian-features", label_noise=0.0)
    assert nqm.steady_state_risk(still, nqm.SGD(50.0), 8.0) == 0.0


def test_a_state_that_stays_0_is_no_start_and_no_gain_no_noise():
    """z' = 2 z: from 0 it stays there, and without a gain no noise comes in."""
    twice = nqm.LinearOptimizer(0.1, [[2.0]], [0.0], start=[0.0])
    assert nqm.risk(nqm.NoisyQuadratic(1.0), twice, 1.0, 5000) == 0.0
    assert nqm.risk(nqm.NoisyQuadratic(1.0), nqm.LinearOptimizer(0.1, [[2.0]], [0.0]), 1.0, 5000) == math.inf


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_schedules_may_use_the_room_that_a_resting_coordinate_leaves(backend):
    """Without a bound the others want lr near 2 / 0.01, and the first one's (1 - 200)^400 never matters."""
    rests, alone = nqm.NoisyQuadratic([1.0, 0.01, 1e-5], init=[0.0, 1.0, 1.0]), nqm.NoisyQuadratic([0.01, 1e-5])
    with nqm.use_backend(backend):
        best = nqm.optimize_schedule(rests, math.inf, steps=400, pieces=1, max_lr=None)
    grid = nqm.risk(alone, nqm.SGD(np.geomspace(1.0, 250.0, 20_001)), math.inf, 400)
    assert best.schedule.values[0] > 100.0
    assert best.risk <= grid.min() * (1.0 + 1e-9)


# --- searches that cannot end ----------------------------------------------------------------------------------

ONE = nqm.NoisyQuadratic(1.0)


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize(
    "optimizer",
    [
        nqm.SGD(2.0 * (1.0 + 1e-9)),
        nqm.SGD(3.0 * (1.0 + 1e-9), 0.5),
        nqm.SGD(1.5 * (1.0 + 1e-9), 0.5, nesterov=True),
        nqm.Preconditioned(nqm.SGD(2.0 * (1.0 + 1e-9)), 0.5),
        nqm.SGD(nqm.Schedule([2.0, 2.0 * (1.0 + 1e-9)], [100, 1])),
    ],
    ids=str,
)
def test_what_only_grows_from_its_start_never_gets_below(optimizer, crossing, few_leaps):
    """By 2e-9 a step or less: 0.5 > 0.1 for good."""
    assert nqm.steps_to_target(ONE, optimizer, math.inf, 0.1, crossing) == math.inf


def test_growth_may_come_after_the_crossing(few_leaps):
    """An unstable coordinate of risk 5e-4 beside one that falls: below the target first, above it in the end."""
    problem, optimizer = nqm.NoisyQuadratic([1.0, 1e-3], init=[1e-3, 1e3]), nqm.SGD(2.0 * (1.0 + 1e-9))
    t = np.arange(2000)
    risks = 0.5e-3 * (1.0 + 2e-9) ** (2 * t) + 0.5 * (1.0 - 2e-3) ** (2 * t)
    first = int(np.argmax(risks <= 0.1))
    assert nqm.steps_to_target(problem, optimizer, math.inf, 0.1) == first
    assert nqm.steps_to_target(problem, optimizer, math.inf, 0.1, "last") == math.inf
    assert nqm.steps_to_target(problem, optimizer, math.inf, 4e-4) == math.inf


def two_powers(roots, weights, steps):
    """First and last crossing of 1/2 (A r1^t + B r2^t)^2 over t < steps, in double precision."""
    t = np.arange(steps, dtype=float)
    return 0.5 * np.real(sum(w * np.power(complex(r), t) for w, r in zip(weights, roots, strict=True))) ** 2


@pytest.mark.parametrize(
    ("optimizer", "target"),
    [
        (nqm.SGD(3.9999, 0.99999), 1e-7),
        (nqm.SGD(3.9999, 0.99999), 1e-9),
        (nqm.SGD(3.0 * (1.0 - 1e-5), 0.5), 1e-4),
        (nqm.SGD(1.5 * (1.0 - 1.3e-5), 0.5, nesterov=True), 1e-4),
    ],
    ids=str,
)
def test_means_that_change_their_sign_with_every_step(optimizer, target, few_leaps):
    """Roots near -1, against a scan of what they make of the start (1, 0)."""
    matrix = nqm.optimizers.transition_matrix(optimizer, optimizer.lr)
    roots = np.linalg.eigvals(matrix).astype(complex)
    a = (matrix[0, 0] - roots[1]) / (roots[0] - roots[1])
    risks = two_powers(roots, (a, 1.0 - a), 4_000_000)
    first, last = int(np.argmax(risks <= target)), int(np.flatnonzero(risks > target)[-1] + 1)
    assert np.all(np.abs(risks[[first - 1, first, last - 1, last]] / target - 1.0) > 1e-7)  # more than rounding
    assert nqm.steps_to_target(ONE, optimizer, math.inf, target) == first
    assert nqm.steps_to_target(ONE, optimizer, math.inf, target, "last") == last


@pytest.fixture
def few_leaps(monkeypatch):
    """A walk of more than some 100,000 leaps fails."""
    monkeypatch.setattr(first_passage, "MOST", 3e7)


def test_a_proof_that_takes_too_many_leaps_says_how_far_it_got(monkeypatch):
    """Roots near i, and a target that is passed twice in every four steps for some 3e8 steps."""
    monkeypatch.setattr(first_passage, "MOST", 3e7)
    monkeypatch.setattr(first_passage, "LOOK", 1e6)
    swings = nqm.SGD(1.0, momentum=0.9999999)
    with pytest.raises(ArithmeticError, match=r"crosses 1e-12 can't be told in .* leaps over time: they got to step"):
        nqm.steps_to_target(ONE, swings, math.inf, 1e-12, "last")
    later = nqm.SGD(nqm.Schedule([0.5, 1.0], [1000, 1]), momentum=0.9999999)
    with pytest.raises(ArithmeticError, match="they got to step") as caught:
        nqm.steps_to_target(ONE, later, math.inf, 1e-12, "last")
    assert caught.value.steps > 1000
    found = nqm.sweep(ONE, {"swings": swings.with_values(lr=0.3)}, math.inf, [1e-30, 0.5])
    assert found.table["status"].tolist() == ["failed: " + found.table["status"][0][8:], "fixed"]
    assert "they got to step" in found.table["status"][0]


@pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("crossing", ["first", "last"])
def test_looks_at_the_keyboard_change_nothing(monkeypatch, momentum, crossing):
    """Pieces are taken a few at a time; lr h > 1 on the way, where the coordinates of a momentum are others."""
    schedule = nqm.Schedule(np.tile([0.2, 1.5, 0.1], 100), 1 + np.arange(300) % 70)
    ramp = nqm.Schedule(np.geomspace(4.0, 1e5, 50), 100)
    problem, optimizer = nqm.NoisyQuadratic([1.0, 0.2, 0.03]), nqm.SGD(schedule, momentum)
    times = nqm.log_steps(schedule.steps, 30)
    risks, steps = nqm.risk(problem, optimizer, ramp, times), nqm.risk(problem, optimizer, ramp, np.arange(12_000))
    target = float(np.quantile(steps, 0.2))
    monkeypatch.setattr(first_passage, "LOOK", 1.0)
    monkeypatch.setattr(numba_backend, "MANY_LETTERS", 3)
    assert nqm.risk(problem, optimizer, ramp, times) == pytest.approx(risks, rel=1e-12, abs=0.0)
    found = nqm.steps_to_target(problem, optimizer, ramp, target, crossing)
    below = np.flatnonzero(steps <= target)[0], np.flatnonzero(steps > target)[-1] + 1
    assert found == below[crossing == "last"]


@pytest.mark.parametrize("schedule", [None, nqm.Schedule([0.2, 0.5], [1000, 1])])
def test_noise_that_grows_with_the_loss_says_so_too(monkeypatch, schedule):
    """Two coordinates that swing around the target, out of step, for very long."""
    monkeypatch.setattr(coupled_first_passage, "MOST", 3e7)
    problem = nqm.NoisyQuadratic([1.0, 0.7], init=[1.0, 1.0], noise_model="gaussian-features", label_noise=0.0)
    swings = nqm.SGD(0.5 if schedule is None else schedule, momentum=1.0 - 1e-9)
    with pytest.raises(ArithmeticError, match=r"crosses 1e-09 can't be told in .* leaps .* got to step") as caught:
        nqm.steps_to_target(problem, swings, 1e12, 1e-9, "last")
    assert caught.value.steps > (1000 if schedule else 0)


@pytest.mark.thorough
def test_a_long_swing_is_followed_to_its_end():
    """Some seconds of leaps, well within what is allowed; the answer is where the last swing exceeds the target."""
    problem, swings = nqm.NoisyQuadratic(np.linspace(0.1, 1.0, 20)), nqm.SGD(1.0, momentum=0.999999)
    steps = nqm.steps_to_target(problem, swings, 1e9, 0.3, crossing="last")
    assert nqm.risk(problem, swings, 1e9, steps - 1) > 0.3
    assert np.all(nqm.risk(problem, swings, 1e9, steps + np.arange(20_000)) <= 0.3)


def interrupted(code, seconds=1.0):
    """(exit code, stderr) of a script that gets Ctrl-C so long after it has said that it begins."""
    # what starts these tests in the background may have them ignore Ctrl-C, and what they start as well
    heed = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script = heed + "import nqm, math\nfrom nqm.backends import first_passage\n" + code
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, err


FOREVER = {
    "a walk": """
first_passage.MOST = math.inf
swings = nqm.SGD(1.0, momentum=1 - 1e-15)
nqm.steps_to_target(nqm.NoisyQuadratic(1.0), nqm.SGD(1.0, 0.5), math.inf, 0.1)
print("begins", flush=True)
nqm.steps_to_target(nqm.NoisyQuadratic(1.0), swings, math.inf, 1e-12, "last")
""",
    "short pieces": """
problem = nqm.NoisyQuadratic.power_law(10**5)._explicit()
schedule = nqm.Schedule([1.0, 0.5] * 10**7, 1)
nqm.steps_to_target(nqm.NoisyQuadratic([1.0, 0.1]), nqm.SGD(nqm.Schedule([1.0, 0.5], 1), 0.5), 4.0, 1e-6)
print("begins", flush=True)
nqm.steps_to_target(problem, nqm.SGD(schedule, 0.5), 4.0, 1e-6)
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
@pytest.mark.parametrize("name", FOREVER)
def test_ctrl_c_ends_a_search(name):
    code, err = interrupted(FOREVER[name])
    assert code == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")


# --- a schedule's end ------------------------------------------------------------------------------------------

FADES = nqm.SGD(nqm.schedules.cosine(1.0, 1000))
LAW = nqm.NoisyQuadratic.power_law(10_000)


def test_a_target_reached_long_after_the_end_of_a_schedule_is_told():
    """At the last rate sin(pi / 2000)^2 = 2.5e-6, held: some 5e9 steps where the schedule has 1000."""
    with pytest.warns(UserWarning, match=r"reached after the schedule's end.* of which the schedule has 1000") as told:
        steps = nqm.steps_to_target(LAW, FADES, 256, 0.01)
    assert [warning.filename for warning in told] == [__file__]
    assert steps > 1e9
    after = nqm.risk(LAW, FADES, 256, [steps - 1, steps])
    assert after[1] <= 0.01 < after[0]
    with pytest.warns(UserWarning, match='2 of 2 cells have status "reached after the schedule\'s end"') as told:
        cells = nqm.sweep(LAW, {"cosine": FADES}, [256, 512], 0.01)
    assert [warning.filename for warning in told] == [__file__]
    assert cells.table["status"].tolist() == ["reached after the schedule's end"] * 2
    assert cells.table["steps"][0] == steps
    with pytest.warns(UserWarning, match="reached after") as told:
        best = nqm.tune(LAW, nqm.SGD(nqm.schedules.cosine(1.0, 20), nqm.FREE), 4096, 0.02)
    assert best.status == "reached after the schedule's end"
    assert [warning.filename for warning in told] == [__file__]


def test_a_schedule_that_ends_does_not_get_there():
    ends = nqm.Schedule(FADES.lr.values, FADES.lr.lengths, beyond="error")
    assert nqm.steps_to_target(LAW, nqm.SGD(ends), 256, 0.01) == math.inf
    assert nqm.sweep(LAW, {"ends": nqm.SGD(ends)}, 256, 0.01).table["status"].tolist() == ["unreachable"]


def test_what_is_held_as_high_as_ever_or_reached_in_time_is_not_told():
    for schedule in (nqm.schedules.warmup(nqm.schedules.constant(0.5, 1), 100), nqm.schedules.cosine(1.0, 10**6)):
        assert math.isfinite(nqm.steps_to_target(LAW, nqm.SGD(schedule), 4096, 0.1))


# --- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0, [0.0, 0.0]])
def test_nesterov_without_momentum_is_refused_as_by_torch(momentum):
    with pytest.raises(ValueError, match="nesterov: expected a momentum above 0 with it, got 0; leave it out"):
        nqm.SGD(0.1, momentum, nesterov=True)


def test_nesterov_whose_momentum_becomes_0_is_plain():
    free = nqm.SGD(0.1, nqm.FREE, nesterov=True)
    assert free.with_values(momentum=0.0) == nqm.SGD(0.1)
    assert nqm.EMA(free, 0.5).with_values(momentum=0.0, lr=0.2) == nqm.EMA(nqm.SGD(0.2), 0.5)
    both = nqm.SGD(0.1, [0.0, 0.9], nesterov=True)
    found = nqm.risk(LAW, both, 64, 300)
    assert found[0] == pytest.approx(nqm.risk(LAW, nqm.SGD(0.1), 64, 300), rel=1e-12)
    assert nqm.steps_to_target(LAW, both, 4096, 0.5)[0] == nqm.steps_to_target(LAW, nqm.SGD(0.1), 4096, 0.5)
    one = nqm.NoisyQuadratic(1.0)  # whose best momentum is 0: one step with lr 1 ends at the optimum
    best = nqm.tune(one, nqm.SGD(nqm.FREE, nqm.FREE, nesterov=True), math.inf, 1e-12)
    assert best.steps == 1
    assert nqm.tune(one, nqm.SGD(nqm.FREE, nqm.FREE, nesterov=True), 1.0, steps=3).risk < 0.5


def test_a_list_of_learning_rates_is_told_from_a_schedule():
    assert "nqm.Schedule(lrs, 1)" in nqm.SGD.__doc__
    rates = [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"broadcast together, got optimizer \(3,\).*one run each.* take nqm.Schedule"):
        nqm.risk(LAW, nqm.SGD(rates), 8, [1, 2])
    for call in (
        lambda: nqm.sweep(LAW, {"SGD": nqm.SGD(rates)}, 8, 0.1),
        lambda: nqm.simulate(nqm.NoisyQuadratic([1.0]), nqm.SGD(rates), 8, 3),
        lambda: nqm.tune(LAW, nqm.SGD(rates, nqm.FREE), 8, 0.1),
    ):
        with pytest.raises(ValueError, match=r"nqm.Schedule\(lrs, 1\)"):
            call()
    in_turn = nqm.SGD(nqm.Schedule(rates, 1))
    left = np.prod(1.0 - np.array(rates)) ** 2
    assert nqm.risk(nqm.NoisyQuadratic(1.0), in_turn, math.inf, 3) == pytest.approx(0.5 * left, rel=1e-12)


def test_steps_of_a_logarithmic_grid_are_refused_with_what_makes_whole_ones():
    with pytest.raises(
        ValueError, match=r"^steps: expected whole numbers .* got 1\.22.*; nqm\.log_steps\(3000, 40\) gives"
    ):
        nqm.risk(LAW, nqm.SGD(0.1), 8, np.geomspace(1, 3000, 40))
    with pytest.raises(ValueError, match=r"nqm\.log_steps\(3000, 40\)"):
        nqm.simulate(nqm.NoisyQuadratic([1.0]), nqm.SGD(0.1), 8, np.geomspace(1, 3000, 40))
    for other in (1.5, [-1, 2.5], [math.nan, 2.5], [2.0**60, 0.5]):
        with pytest.raises(ValueError, match=r"^steps: ") as refused:
            nqm.risk(LAW, nqm.SGD(0.1), 8, other)
        assert "log_steps" not in str(refused.value)


@pytest.mark.parametrize(("last", "count"), [(3000, 40), (1, 1), (1, 5), (7, 100), (10**6, 2), (2**53, 60), (50, 1)])
def test_log_steps(last, count):
    steps = nqm.log_steps(last, count)
    assert steps.dtype == np.int64
    assert np.all(np.diff(steps) > 0)
    assert steps[-1] == last
    assert steps[0] == (1 if count > 1 else last)
    assert steps.size <= count
    if count > 1:  # every one is a rounded member of the geometric grid
        grid = last ** (np.arange(count) / (count - 1))
        assert np.all(np.min(np.abs(steps[:, None] - grid), axis=1) <= 0.5 + 1e-12 * steps)
    assert np.all(np.isfinite(nqm.risk(LAW, nqm.SGD(0.1), 8, steps)))
    for wrong in ((0, 4), (10, 0), (2.5, 3), (10, 2.5)):
        with pytest.raises(ValueError, match=r"last|count"):
            nqm.log_steps(*wrong)


# --- a cell that took for ever ---------------------------------------------------------------------------------


def test_a_search_does_not_step_back_one_step_at_a_time(monkeypatch):
    """It held a minimum that reached the target 0.08% before, and asked for T - 1, T - 2, ... from another one."""
    asked, minimise = [], objective.LogRisk.minimise

    def counting(self, *arguments, **named):
        asked.append(1)
        assert len(asked) < 1000, "goes on and on"
        return minimise(self, *arguments, **named)

    monkeypatch.setattr(objective.LogRisk, "minimise", counting)
    problem, batch = nqm.NoisyQuadratic.power_law(10**5), float(np.geomspace(1, 1e6, 2000)[48])
    best = nqm.tune(problem, nqm.SGD(nqm.FREE, nqm.FREE), batch, 0.01)
    assert best.steps < 45_951_000  # where it crawled
    assert nqm.risk(problem, best.optimizer, batch, best.steps) <= 0.01
    three = nqm.tune(problem, nqm.EMA(nqm.SGD(nqm.FREE, nqm.FREE), nqm.FREE), batch, 0.01)
    assert three.steps < 0.2 * best.steps


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_ctrl_c_ends_a_sweep_in_threads_and_keeps_its_cells():
    code, err = interrupted(
        """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
problem, three = nqm.NoisyQuadratic.power_law(10**5), nqm.EMA(nqm.SGD(nqm.FREE, nqm.FREE), nqm.FREE)
nqm.tune(problem, three, 1e4, 0.3)  # compiles
print("begins", flush=True)
with ThreadPoolExecutor(2) as pool:
    nqm.sweep(problem, {"a": three}, np.geomspace(1, 1e6, 2000), 0.01, executor=pool)
""",
        5.0,
    )
    assert code != 0
    last = err.strip().splitlines()[-1]
    assert re.match(r"nqm._sweep.SweepInterrupted: interrupted; \d+ of 2000 cells are done", last)
