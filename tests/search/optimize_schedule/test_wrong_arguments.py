"""What optimize_schedule says to arguments that it cannot take."""

from __future__ import annotations

import math

import numpy as np
import pytest
from schedule_problems import SMALL

from nqm import FREE, SGD, Preconditioned, Schedule, optimize_schedule, schedules

STEPS = {"steps": 10, "pieces": 2}
FREE_BATCH = {"batch_size": FREE, "examples": 100, **STEPS}
UNKNOWN_LR = "optimizer: expected lr nqm.FREE (or batch_size nqm.FREE), got SGD(lr=0.3)"
WRONG = [
    # the aim
    ({"pieces": 2}, ValueError, "expected exactly one of target and steps, got none"),
    ({"pieces": 2, "steps": 10, "target": 0.1}, ValueError, "expected exactly one of target and steps, got both"),
    ({"target": math.nan}, ValueError, "target: expected finite real numbers in (0, inf), got nan"),
    ({"target": math.inf}, ValueError, "target: expected"),
    ({"target": 0.0}, ValueError, "target: expected"),
    ({"target": -1.0}, ValueError, "target: expected"),
    ({"target": "low"}, TypeError, "target: expected"),
    ({"target": True}, TypeError, "target: expected"),
    ({"target": [0.1, 0.2]}, ValueError, "target: expected a single number, got [0.1, 0.2] (list)"),
    ({"steps": 0}, ValueError, "steps: expected whole numbers from 1 to"),
    ({"steps": -5}, ValueError, "steps: expected"),
    ({"steps": 2.5}, ValueError, "steps: expected"),
    ({"steps": math.nan}, ValueError, "steps: expected"),
    ({"steps": 2**53 + 2}, ValueError, "steps: expected"),
    ({"steps": [100, 200]}, ValueError, "steps: expected a single number, got [100, 200] (list)"),
    ({"steps": "100"}, TypeError, "steps: expected"),
    # pieces
    ({"steps": 10}, ValueError, "pieces: expected at most as many as steps, got 50 pieces for 10 steps"),
    ({"steps": 10, "pieces": 11}, ValueError, "pieces: expected at most as many as steps"),
    ({"steps": 10, "pieces": [1] * 11}, ValueError, "pieces: expected at most as many as steps"),
    ({"steps": 10, "pieces": [1, 100]}, ValueError, "pieces: expected relative lengths that leave every piece a step"),
    ({"steps": 10, "pieces": 0}, ValueError, "pieces: expected whole numbers from 1 to 1e+04, got 0"),
    ({"steps": 10, "pieces": -1}, ValueError, "pieces: expected"),
    ({"steps": 10, "pieces": 2.5}, ValueError, "pieces: expected"),
    ({"steps": 10, "pieces": math.nan}, ValueError, "pieces: expected"),
    ({"steps": 10**6, "pieces": 10_001}, ValueError, "pieces: expected"),
    ({"steps": 10**6, "pieces": [1] * 10_001}, ValueError, "pieces: expected at most 10000, got 10001"),
    ({"steps": 10, "pieces": []}, ValueError, "pieces: expected at least one number"),
    ({"steps": 10, "pieces": [1, 0]}, ValueError, "pieces: expected finite real numbers in (0, inf), got 0 at index"),
    ({"steps": 10, "pieces": [1, -1]}, ValueError, "pieces: expected"),
    ({"steps": 10, "pieces": [1, math.nan]}, ValueError, "pieces: expected"),
    ({"steps": 10, "pieces": [[1, 2]]}, ValueError, "pieces: expected at most 1 dimension"),
    ({"steps": 10, "pieces": "2"}, TypeError, "pieces: expected"),
    ({"steps": 10, "pieces": None}, TypeError, "pieces: expected"),
    # the problem and the optimizer
    ({"problem": [1.0, 0.1], **STEPS}, TypeError, "problem: expected a nqm.NoisyQuadratic, got [1.0, 0.1] (list)"),
    ({"optimizer": 0.1, **STEPS}, TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got 0.1 (float)"),
    ({"optimizer": SGD, **STEPS}, TypeError, "optimizer: expected an optimizer such as"),
    ({"optimizer": "sgd", **STEPS}, TypeError, "optimizer: expected an optimizer such as"),
    ({"optimizer": SGD(0.3), **STEPS}, ValueError, UNKNOWN_LR),
    ({"optimizer": SGD(Schedule(0.3, 10)), **STEPS}, ValueError, "optimizer: expected lr nqm.FREE"),
    ({"optimizer": SGD(0.3, FREE), **STEPS}, ValueError, "optimizer: expected lr nqm.FREE"),
    ({"optimizer": SGD([0.1, 0.2]), **STEPS}, ValueError, "optimizer: expected plain numbers beside nqm.FREE"),
    ({"optimizer": SGD(FREE, [0.1, 0.2]), **STEPS}, ValueError, "optimizer: expected plain numbers beside nqm.FREE"),
    # batch sizes and examples
    ({"batch_size": 0, **STEPS}, ValueError, "batch_size: expected"),
    ({"batch_size": -4, **STEPS}, ValueError, "batch_size: expected"),
    ({"batch_size": math.nan, **STEPS}, ValueError, "batch_size: expected"),
    ({"batch_size": "4", **STEPS}, TypeError, "batch_size: expected"),
    ({"batch_size": None, **STEPS}, TypeError, "batch_size: expected"),
    ({"batch_size": [4, 8], **STEPS}, ValueError, "batch_size: expected a single number or a schedule, got an array"),
    ({"batch_size": np.array([4.0]), **STEPS}, ValueError, "batch_size: expected a single number or a schedule"),
    ({"batch_size": [Schedule(4, 10)] * 2, **STEPS}, TypeError, "batch_size: expected"),
    ({"batch_size": Schedule([0, 4], 5), **STEPS}, ValueError, "batch_size: expected a schedule of positive numbers"),
    (
        {"batch_size": FREE, **STEPS},
        ValueError,
        "expected examples together with batch_size=nqm.FREE, got examples None",
    ),
    ({"examples": 100, **STEPS}, ValueError, "expected examples together with batch_size=nqm.FREE, got examples 100"),
    ({**FREE_BATCH, "examples": 9}, ValueError, "examples: expected at least one for each of the 10 steps, got 9"),
    ({**FREE_BATCH, "examples": -9}, ValueError, "examples: expected finite real numbers in [1, inf), got -9"),
    ({**FREE_BATCH, "examples": math.nan}, ValueError, "examples: expected"),
    ({**FREE_BATCH, "examples": "many"}, TypeError, "examples: expected"),
    ({**FREE_BATCH, "examples": [90, 100]}, ValueError, "examples: expected a single number"),
    # the bound
    ({"max_lr": 0.0, **STEPS}, ValueError, "max_lr: expected finite real numbers in (0, inf), got 0"),
    ({"max_lr": -1.0, **STEPS}, ValueError, "max_lr: expected"),
    ({"max_lr": math.inf, **STEPS}, ValueError, "max_lr: expected"),
    ({"max_lr": math.nan, **STEPS}, ValueError, "max_lr: expected"),
    ({"max_lr": [1.0], **STEPS}, ValueError, "max_lr: expected a single number"),
    ({"max_lr": "Stable", **STEPS}, ValueError, "max_lr: expected a number > 0, \"stable\" or None, got 'Stable'"),
    ({"max_lr": FREE, **STEPS}, TypeError, "max_lr: expected"),
    # the shape
    ({"shape": "cosine", **STEPS}, TypeError, "shape: expected a function (value, steps) -> Schedule"),
    ({**FREE_BATCH, "optimizer": SGD(0.3), "shape": schedules.cosine}, TypeError, "with lr nqm.FREE"),
    # the restarts
    ({"restarts": -1, **STEPS}, ValueError, "restarts: expected whole numbers from 0"),
    ({"restarts": 1.5, **STEPS}, ValueError, "restarts: expected"),
    ({"restarts": None, **STEPS}, TypeError, "restarts: expected"),
    ({"seed": -1, **STEPS}, ValueError, "seed: expected whole numbers from 0"),
    ({"seed": None, **STEPS}, TypeError, "seed: expected"),
]


@pytest.mark.parametrize(("arguments", "error", "says"), WRONG, ids=lambda v: str(v)[:80])
def test_wrong_arguments(arguments, error, says, monkeypatch):
    """One sentence that says what was expected and what came, before any risk is computed."""

    def work(*_):
        raise AssertionError("a risk was computed")

    monkeypatch.setattr("nqm.dynamics.additive.Additive.risk_and_gradient", work)
    monkeypatch.setattr("nqm.dynamics.additive.Additive.risk", work)
    arguments = {"problem": SMALL, "batch_size": 4, **arguments}
    with pytest.raises(error) as caught:
        optimize_schedule(**arguments)
    assert says in str(caught.value)


def test_a_free_power_is_refused():
    with pytest.raises(TypeError, match=r"^power: expected numbers in \[0, 1\], got nqm.FREE"):
        optimize_schedule(SMALL, 4, optimizer=Preconditioned(SGD(FREE), FREE), **STEPS)


def test_all_but_problem_and_batch_size_are_named():
    with pytest.raises(TypeError, match="positional"):
        optimize_schedule(SMALL, 4, 0.1)
