"""Every wrong argument is refused, before any work, by one sentence that says what was expected and what came."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nqm
from nqm import EMA, FREE, SGD, LinearOptimizer, NoisyQuadratic, Preconditioned

PROBLEM = NoisyQuadratic([1.0, 0.1])
OPT = SGD(0.1)
EYE = np.eye(2)


def risk(problem=PROBLEM, optimizer=OPT, batch_size=4, steps=10):
    return nqm.risk(problem, optimizer, batch_size, steps)


def crossing(problem=PROBLEM, optimizer=OPT, batch_size=4, target=0.1, **more):
    return nqm.steps_to_target(problem, optimizer, batch_size, target, **more)


def tune(problem=PROBLEM, optimizer=SGD(FREE), batch_size=4, target=0.1, bounds=None):  # noqa: B008 - immutable
    return nqm.tune(problem, optimizer, batch_size, target, bounds)


NOT_NUMBERS = {
    "string": ("0.1", "'0.1' (str)"),
    "complex": (0.1 + 0j, "(0.1+0j) (complex)"),
    "boolean": (True, "True (bool)"),
    "None": (None, "None (NoneType)"),
    "dict": ({"lr": 0.1}, "{'lr': 0.1} (dict)"),
    "ragged": ([[1.0], [1.0, 2.0]], "[[1.0], [1.0, 2.0]] (list)"),
    "array of strings": (np.array(["a"]), "an array of shape (1,) and dtype <U1"),
}
OUT_OF_RANGE = {
    "nan": (math.nan, "nan"),
    "inf": (math.inf, "inf"),
    "minus inf": (-math.inf, "-inf"),
    "negative": (-1.0, "-1"),
    "empty": ([], "[] (list)"),
}

# name of the argument -> a call that passes `value` for it
POSITIVE = {
    "curvature": lambda value: NoisyQuadratic(value),
    "multiplicity": lambda value: NoisyQuadratic(1.0, multiplicity=value),
    "exponent": lambda value: NoisyQuadratic.power_law(10, value),
    "rtol": lambda value: PROBLEM.compressed(value),
    "lr": lambda value: SGD(value),
    "batch_size": lambda value: risk(batch_size=value),
    "target": lambda value: crossing(target=value),
}
NOT_NEGATIVE = {
    "noise": lambda value: NoisyQuadratic([1.0, 1.0, 1.0], noise=value),
    "init": lambda value: NoisyQuadratic([1.0, 1.0, 1.0], init=value),
    "momentum": lambda value: SGD(0.1, value),
    "power": lambda value: Preconditioned(OPT, value),
    "decay": lambda value: EMA(OPT, value),
}
WHOLE = {
    "dim": lambda value: NoisyQuadratic.power_law(value),
    "bins": lambda value: PROBLEM.binned(value),
    "steps": lambda value: risk(steps=value),
}
NUMBERS = {**POSITIVE, **NOT_NEGATIVE, **WHOLE}


# noise=None means C = H
PAIRS = [(name, kind) for name in NUMBERS for kind in NOT_NUMBERS if (name, NOT_NUMBERS[kind][0]) != ("noise", None)]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_what_is_not_a_number(name, kind):
    value, came = NOT_NUMBERS[kind]
    with pytest.raises(TypeError) as caught:
        NUMBERS[name](value)
    assert str(caught.value).startswith(f"{name}: expected ")
    assert str(caught.value).endswith(f"got {came}")


# an infinite batch is gradient descent
WRONG = [(name, kind) for name in NUMBERS for kind in OUT_OF_RANGE if (name, kind) != ("batch_size", "inf")]


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_numbers_out_of_range(name, kind):
    value, came = OUT_OF_RANGE[kind]
    with pytest.raises(ValueError, match=rf"^{name}: expected ") as caught:
        NUMBERS[name](value)
    assert str(caught.value).endswith(f"got {came}")


@pytest.mark.parametrize("name", NUMBERS)
def test_the_place_of_a_wrong_entry_is_told(name):
    good = 0.5 if name in POSITIVE else 0.0 if name in NOT_NEGATIVE else 2.0
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got -3 at index \(1,\)$"):
        NUMBERS[name]([good, -3.0, good])


SAYS = [
    # zero, where it has no meaning
    (lambda: NoisyQuadratic(0.0), ValueError, "curvature: expected finite real numbers in (0, inf), got"),
    (lambda: NoisyQuadratic(1.0, multiplicity=0), ValueError, "multiplicity: expected finite real numbers in (0, inf)"),
    (lambda: NoisyQuadratic.power_law(0), ValueError, "dim: expected whole numbers from 1 to 1e+12, got"),
    (lambda: NoisyQuadratic.power_law(10, 0.0), ValueError, "exponent: expected finite real numbers in (0, inf), got"),
    (lambda: SGD(0.0), ValueError, "lr: expected finite real numbers in (0, inf), got"),
    (lambda: risk(batch_size=0), ValueError, "batch_size: expected real numbers in (0, inf], got"),
    (lambda: nqm.steady_state_risk(PROBLEM, OPT, 0), ValueError, "batch_size: expected"),
    (lambda: crossing(batch_size=0), ValueError, "batch_size: expected"),
    (lambda: crossing(target=0.0), ValueError, "target: expected finite real numbers in (0, inf), got"),
    (lambda: tune(batch_size=0), ValueError, "batch_size: expected"),
    (lambda: tune(target=0.0), ValueError, "target: expected"),
    (lambda: LinearOptimizer(0.0, EYE, [1, 1]), ValueError, "lr: expected"),
    # the upper ends
    (lambda: SGD(0.1, 1.0), ValueError, "momentum: expected finite real numbers in [0, 1), got"),
    (lambda: SGD(0.1, [0.5, 1.5]), ValueError, "momentum: expected finite real numbers in [0, 1), got"),
    (lambda: EMA(OPT, 1.0), ValueError, "decay: expected finite real numbers in [0, 1), got"),
    (lambda: Preconditioned(OPT, 1.01), ValueError, "power: expected finite real numbers in [0, 1], got"),
    (lambda: NoisyQuadratic.power_law(10**12 + 1), ValueError, "dim: expected whole numbers from 1 to 1e+12, got"),
    (lambda: risk(steps=2**53 + 2), ValueError, "steps: expected whole numbers from 0 to 9.007e+15, got"),
    (lambda: PROBLEM.compressed(1.0), ValueError, "rtol: expected finite real numbers in [1e-14, 1), got"),
    (lambda: PROBLEM.binned(1), ValueError, "bins: expected whole numbers from 2 to"),
    # fractions
    (lambda: risk(steps=2.5), ValueError, "steps: expected whole numbers from 0 to 9.007e+15, got"),
    (lambda: risk(steps=[1, 2, 0.5]), ValueError, "at index (2,)"),
    (lambda: NoisyQuadratic.power_law(10.5), ValueError, "dim: expected whole numbers"),
    (lambda: PROBLEM.binned(10.5), ValueError, "bins: expected whole numbers"),
    # shapes
    (lambda: NoisyQuadratic(EYE + 1), ValueError, "at most 1 dimension, got an array of shape (2, 2)"),
    (lambda: NoisyQuadratic([1.0], init=EYE), ValueError, "init: expected at most 1 dimension"),
    (lambda: NoisyQuadratic([1.0, 2.0], [1.0, 2.0, 3.0]), ValueError, "got curvature (2,), noise (3,)"),
    (lambda: SGD([0.1, 0.2], [0.1, 0.2, 0.3]), ValueError, "broadcast together, got lr (2,), momentum (3,)"),
    (lambda: EMA(SGD([0.1, 0.2]), [0.1] * 3), ValueError, "broadcast together, got lr (2,), decay (3,)"),
    (lambda: risk(batch_size=[1, 2], steps=[1, 2, 3]), ValueError, "got batch_size (2,), steps (3,)"),
    (lambda: risk(optimizer=SGD([0.1, 0.2]), steps=[1, 2, 3]), ValueError, "got optimizer (2,), steps (3,)"),
    (lambda: crossing(batch_size=[1, 2], target=[1, 2, 3]), ValueError, "got batch_size (2,), target (3,)"),
    (lambda: NoisyQuadratic.power_law([10, 20]), ValueError, "dim: expected a single number, got [10, 20] (list)"),
    (lambda: NoisyQuadratic.power_law(10, [1.0]), ValueError, "exponent: expected a single number, got"),
    (lambda: PROBLEM.binned([10]), ValueError, "bins: expected a single number, got"),
    (
        lambda: tune(batch_size=[4, 8]),
        ValueError,
        "batch_size: expected a single number or a schedule, got an array of shape (2,)",
    ),
    (lambda: tune(target=[0.1]), ValueError, "target: expected a single number, got"),
    # other things than a problem or an optimizer
    (lambda: risk(problem=[1.0, 0.1]), TypeError, "problem: expected a nqm.NoisyQuadratic, got [1.0, 0.1] (list)"),
    (lambda: risk(problem=np.ones(3)), TypeError, "a nqm.NoisyQuadratic, got an array of shape (3,) and dtype"),
    (lambda: risk(problem=OPT), TypeError, "expected a nqm.NoisyQuadratic, got SGD(lr=0.1) (SGD)"),
    (lambda: risk(optimizer=0.1), TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got 0.1 (float)"),
    (lambda: risk(optimizer=SGD), TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got"),
    (lambda: nqm.steady_state_risk([1.0], OPT, 4), TypeError, "problem: expected a nqm.NoisyQuadratic, got"),
    (lambda: nqm.max_stable_lr([1.0], OPT), TypeError, "problem: expected a nqm.NoisyQuadratic, got"),
    (lambda: nqm.max_stable_lr(PROBLEM, 0.1), TypeError, "optimizer: expected an optimizer"),
    (lambda: crossing(problem=[1.0]), TypeError, "problem: expected a nqm.NoisyQuadratic, got"),
    (lambda: crossing(optimizer="sgd"), TypeError, "an optimizer such as nqm.SGD(0.1), got 'sgd' (str)"),
    (lambda: tune(problem=[1.0]), TypeError, "problem: expected a nqm.NoisyQuadratic, got"),
    (lambda: tune(optimizer=FREE), TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got nqm.FREE"),
    (lambda: EMA(0.1, 0.9), TypeError, "EMA: expected an optimizer such as nqm.SGD(0.1) as first"),
    (lambda: Preconditioned(PROBLEM, 0.5), TypeError, "Preconditioned: expected an optimizer"),
    (lambda: SGD(0.1, 0.9, nesterov=1), TypeError, "nesterov: expected True or False, got 1 (int)"),
    # wrappers twice
    (lambda: EMA(EMA(OPT, 0.9), 0.9), ValueError, "optimizer without decay, got EMA(SGD(lr=0.1), decay=0.9)"),
    (lambda: Preconditioned(EMA(Preconditioned(OPT, 0.5), 0.9), 0.5), ValueError, "optimizer without power"),
    # FREE where a number is needed, and the other way round
    (lambda: risk(optimizer=SGD(FREE)), TypeError, "expected numbers for all hyperparameters, got SGD(lr=nqm.FREE)"),
    (lambda: risk(optimizer=EMA(OPT, FREE)), TypeError, "decay is nqm.FREE"),
    (lambda: risk(batch_size=FREE), TypeError, "batch_size: expected"),
    (lambda: risk(steps=FREE), TypeError, "steps: expected"),
    (lambda: NoisyQuadratic(FREE), TypeError, "curvature: expected"),
    (lambda: nqm.steady_state_risk(PROBLEM, SGD(FREE), 4), TypeError, "lr is nqm.FREE"),
    (lambda: nqm.max_stable_lr(PROBLEM, SGD(FREE, FREE)), TypeError, "momentum is nqm.FREE"),
    (lambda: crossing(optimizer=SGD(0.1, FREE)), TypeError, "momentum is nqm.FREE"),
    (lambda: Preconditioned(OPT, FREE), TypeError, "power: expected numbers in [0, 1], got nqm.FREE"),
    (lambda: SGD(0.1, nesterov=True), ValueError, "nesterov: expected a momentum above 0 with it, got 0"),
    (lambda: SGD(0.1, nesterov=FREE), TypeError, "nesterov: expected True or False, got nqm.FREE"),
    (lambda: tune(optimizer=OPT), ValueError, "FREE for at least one of lr, momentum, decay, got SGD(lr=0.1)"),
    (lambda: tune(optimizer=SGD(FREE, [0.1, 0.9])), ValueError, "plain numbers beside nqm.FREE, got arrays of"),
    # bounds
    (lambda: tune(bounds=[("lr", 0, 1)]), TypeError, "bounds: expected a dict such as"),
    (lambda: tune(bounds={"momentum": (0, 0.5)}), ValueError, "free hyperparameters (lr), got 'momentum'"),
    (lambda: tune(bounds={"lr": 0.5}), ValueError, "expected (low, high) with low < high, got 0.5 (float)"),
    (lambda: tune(bounds={"lr": (0.5, 0.1)}), ValueError, "expected (low, high) with low < high, got"),
    (lambda: tune(bounds={"lr": (0.1, 0.2, 0.3)}), ValueError, "expected (low, high) with low < high, got"),
    (lambda: tune(bounds={"lr": (0.0, 1.0)}), ValueError, "bounds['lr']: expected finite real numbers in (0, inf)"),
    (lambda: tune(bounds={"lr": ("a", "b")}), TypeError, "bounds['lr']: expected finite real numbers"),
    (
        lambda: tune(optimizer=SGD(FREE, FREE), bounds={"momentum": (0.5, 1.0)}),
        ValueError,
        "bounds['momentum']: expected finite real numbers in [0, 1), got",
    ),
    # the rest
    (lambda: crossing(crossing="second"), ValueError, 'crossing: expected "first" or "last", got \'second\' (str)'),
    (lambda: OPT.with_values(decay=0.5), ValueError, "expected hyperparameters of SGD(lr=0.1), got decay"),
    (lambda: OPT.with_values(lr=-1.0), ValueError, "lr: expected"),
    (lambda: LinearOptimizer(0.1, [1.0, 2.0], [1, 1]), ValueError, "expected a (k, k) matrix with k = 1, 2 ... 8"),
    (lambda: LinearOptimizer(0.1, np.eye(9), np.ones(9)), ValueError, "with k = 1, 2 ... 8, got shape (9, 9)"),
    (lambda: LinearOptimizer(0.1, EYE, [1.0]), ValueError, "gain: expected a vector of length 2, got shape (1,)"),
    (lambda: LinearOptimizer(0.1, EYE, [1.0, math.nan]), ValueError, "gain: expected finite real numbers"),
    (lambda: LinearOptimizer(0.1, EYE, None), TypeError, "gain: expected"),
    (lambda: LinearOptimizer(0.1, EYE, [1, 0], readout=[1, 0, 0]), ValueError, "readout: expected a vector"),
    (lambda: LinearOptimizer(0.1, "ab", [1, 0]), TypeError, "transition: expected"),
    (lambda: risk(optimizer=EMA(LinearOptimizer(0.1, np.eye(8), [1] * 8), 0.9)), ValueError, "at most 7 state"),
]


@pytest.mark.parametrize(("call", "kind", "words"), SAYS, ids=[words for _, _, words in SAYS])
def test_what_was_expected_and_what_came(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_computed_before_the_check(monkeypatch):
    """Also where the last argument is the wrong one."""
    from nqm.dynamics import additive

    monkeypatch.setattr(additive, "rows", lambda *_: pytest.fail("worked before it checked"))
    for call in (
        lambda: risk(steps=-1),
        lambda: crossing(target=-1.0),
        lambda: crossing(crossing="never"),
        lambda: tune(target=-1.0),
        lambda: tune(bounds={"lr": (1.0, 0.5)}),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


@pytest.mark.parametrize("steps", [1e6, np.float32(3.0), np.int8(3), [1, 2], (3,), range(4), 2**53])
def test_whole_numbers_of_any_type_are_welcome(steps):
    assert np.all(np.isfinite(risk(steps=steps)))


def test_numbers_of_any_type_are_welcome():
    expected = nqm.risk(NoisyQuadratic([2.0, 1.0]), SGD(0.5), 4.0, 3)
    assert nqm.risk(NoisyQuadratic([2, 1]), SGD(np.float32(0.5)), np.int64(4), np.uint8(3)) == expected
    assert nqm.risk(NoisyQuadratic(np.array([2, 1], np.int16)), SGD(np.array(0.5)), 4, [3])[0] == expected
