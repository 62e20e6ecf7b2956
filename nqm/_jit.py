"""The compile decorators of the package."""

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
    ``no_cfunc_wrapper``: nobody passes kernels to kernels, and wrappers take their time to compile.
    """
    options = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, **extra}
    if CACHE:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            pass
    return njit(**options)(function)


class internal:
    """A function that only compiled code calls: Numba finds its dispatcher here, and Python gets an error.

    It has no wrapper for Python: to call the dispatcher itself would crash the process.
    """

    def __init__(self, function: Callable[..., Any], **extra: Any) -> None:
        self.__name__ = function.__name__
        self.dispatcher = compiled(function, no_cpython_wrapper=True, **extra)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.__name__}: expected a call from compiled code, got one from Python: use @compiled there")


def inlined(function: Callable[..., Any]) -> Any:
    """For scalar helpers: a call that is not inlined keeps the loop around it from being vectorised."""
    return internal(function, forceinline=True)
