"""The compile decorators of the package, and what they say when something is compiled."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from numba import njit

__all__ = ["FirstUse", "compilations", "compiled", "inlined", "internal", "kept", "kernels", "source_stamp"]

CACHE = os.environ.get("NQM_CACHE", "1") != "0"

kernels: list[Any] = []
"""All that is compiled on its first call."""

stamped = True
"""Whether what is kept can be told from what older sources were compiled to."""


def compiled(function: Callable[..., Any], **extra: Any) -> Any:
    """Compile ``function`` with Numba on its first call and keep the machine code on disk.

    ``NQM_CACHE=0`` in the environment switches the disk cache off. Where no cache directory can be
    written (a read-only install without a home), the function is compiled once a process instead.
    ``error_model="numpy"``: a division by zero is inf or NaN, as in the interpreted reference.
    No ``fastmath``: compensated arithmetic must not be reassociated, and inf must stay inf.
    ``no_cfunc_wrapper``: nobody passes kernels to kernels, and a wrapper takes its time to compile.
    """
    options = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, **extra}
    kernel = njit(**options)(function)
    if CACHE:
        with contextlib.suppress(RuntimeError):  # "cannot cache function ...: no locator available"
            cached = njit(cache=True, **options)(function)
            kernel = cached if _stamped(cached) else kernel
    kernels.append(kernel)
    return kernel


def _stamped(kernel: Any) -> bool:
    """Tie what is kept of a kernel to the sources of all; False where that cannot be done.

    Numba looks at the kernel's own file only: code that calls a function of another file would stay as it was when that
    file changes. The stamp is private to Numba, so it is only replaced where it is found.
    """
    global stamped
    index: Any
    index, stamp = getattr(getattr(kernel, "_cache", None), "_cache_file", None), source_stamp()
    stamped = stamp is not None and hasattr(index, "_source_stamp")
    if stamped:
        index._source_stamp = stamp
    return stamped


@cache
def source_stamp() -> str | None:
    """A hash of everything that is compiled and of how it is compiled; None where the sources are not there."""
    package = files(__package__)
    sources = [package / "compilation.py", package / "types.py"]
    with contextlib.suppress(OSError):
        sources += sorted(
            (f for f in (package / "kernels").iterdir() if f.name.endswith(".py")), key=lambda source: source.name
        )
        digest = hashlib.sha256()
        for source in sources:
            code = source.read_bytes()
            digest.update(f"{source.name} {len(code)} ".encode() + code)
        return digest.hexdigest()
    return None


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
        raise TypeError(f"{self.__name__}: expected a call from compiled code, got one from Python (see @compiled)")


def inlined(function: Callable[..., Any]) -> Any:
    """For scalar helpers: a call that is not inlined keeps the loop around it from being vectorised."""
    return internal(function, forceinline=True)


def compilations() -> int:
    """Functions that this process has compiled, rather than found in the cache."""
    return sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels)


def kept() -> tuple[str | None, str]:
    """Directory that keeps the compiled code, None if nothing does; and the same in words."""
    folder = kernels[0].stats.cache_path if kernels else None
    if folder is not None:
        return folder, f"kept in {folder}"
    if not CACHE:
        return None, "not kept: NQM_CACHE=0"
    if not stamped:
        return None, "not kept: this version of Numba cannot tell it from what older sources were compiled to"
    return None, "not kept: no folder to write to, set NUMBA_CACHE_DIR"


class FirstUse:
    """Listens to Numba, and tells people at a terminal, once a process, why the first answer takes so long."""

    told = False

    def notify(self, event: Any) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):  # such as no stderr, or a closed one
            ours = event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}.")
            if ours and not self.told and sys.stderr.isatty():
                self.told = True
                self.write(f"nqm: compiling for the first use, about ten seconds; {kept()[1]}")

    @staticmethod
    def write(line: str) -> None:
        """On a line of its own, also where a progress bar is shown."""
        bars = sys.modules.get("tqdm")
        if bars is None:
            print(line, file=sys.stderr, flush=True)
        else:
            bars.tqdm.write(line, file=sys.stderr)


first_use = FirstUse()
with contextlib.suppress(ImportError, AttributeError):  # a Numba without events compiles without a word
    events: Any = importlib.import_module("numba.core.event")
    events.Listener.register(FirstUse)
    events.register("numba:compile", first_use)
