"""The one compile decorator of the package."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from numba import njit

CACHE = os.environ.get("NQM_CACHE", "1") != "0"


def compiled(function: Callable[..., Any], **extra: Any) -> Any:
    """Compile ``function`` with Numba on its first call and keep the machine code on disk.

    ``NQM_CACHE=0`` in the environment switches the disk cache off. Where no cache directory can be
    written (a read-only install without a home), the function is compiled once a process instead.
    ``error_model="numpy"``: a division by zero is inf or NaN, as in the interpreted reference.
    No ``fastmath``: compensated arithmetic must not be reassociated, and inf must stay inf.
    """
    options = {"error_model": "numpy", "nogil": True, **extra}
    if CACHE:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            pass
    return njit(**options)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """For scalar helpers: a call that is not inlined keeps the loop around it from being vectorised."""
    return compiled(function, forceinline=True)
