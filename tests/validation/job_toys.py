"""Functions small enough to be run as jobs by the hundred, and what their tables are compared with."""

from __future__ import annotations

import math
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np

from nqm._table import Table
from nqm.validation.experiments.jobs import run_jobs

CONFIGURATION = {"version": 3, "limits": [0.0, math.inf], "nested": {"a": 1}}
SEEDS = [{"seed": seed, "name": "toy"} for seed in range(5)]


def toy(seed, name, calls=None):
    """Columns of each type; appends its seed to a file."""
    if calls is not None:
        with open(calls, "a") as stream:
            stream.write(f"{seed}\n")
    draw = np.random.default_rng(seed)
    return {
        "step": np.arange(3),
        "loss": [*draw.standard_normal(2), -math.inf if seed % 2 else math.nan],
        "name": [name, "inf", f"{seed}"],
        "ends": [True, False, True],
    }


def failing(seed, name):
    if seed == 2:
        raise ZeroDivisionError("no luck")
    return toy(seed, name)


def interrupted(seed, name):
    if seed == 3:
        raise KeyboardInterrupt
    return toy(seed, name)


def killed(seed, name, calls):
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return toy(seed, name, calls)


def columns_of(values):
    return {"value": values}


def run(function=toy, settings=SEEDS, **options):
    return run_jobs(function, settings, **{"configuration": CONFIGURATION, "progress": False, **options})


def same(found, expected):
    """Names, types and bits; NaN without its sign."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Table)
        assert list(one) == list(other)
        for name, column in one.items():
            assert column.dtype == other[name].dtype
            assert column.tobytes() == other[name].tobytes(), name
    return True


def called(path):
    return [int(line) for line in Path(path).read_text().split()] if Path(path).exists() else []


def counted(path):
    return partial(toy, calls=path)
