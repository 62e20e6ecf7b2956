"""How many of many variants each run of the tests takes; `python -m pytest -m thorough` takes the others."""

from __future__ import annotations

import pytest


def every(count, cases):
    """Every ``count``-th of the cases for each run, the others marked as thorough."""
    return [case if number % count == 0 else thorough(case) for number, case in enumerate(cases)]


def few_states(*numbers):
    """Numbers of states: up to three in each run. Every further one compiles kernels of its own, for half a minute."""
    return [k if k <= 3 else thorough(k) for k in numbers]


def thorough(case):
    """A case of the thorough run only."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
