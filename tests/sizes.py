"""How many of many variants each run of the tests takes; `python -m pytest -m thorough` takes the others."""

from __future__ import annotations

import pytest


def every(count, cases):
    """Every ``count``-th of the cases for each run, the others marked as thorough."""
    return [
        case
        if number % count == 0
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
        for number, case in enumerate(cases)
    ]
