"""The backend in use: by default the compiled one, another only when asked for by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np

from .._checks import FloatArray, describe

__all__ = [
    "BackendChoice", "Stopped", "array_module", "current_backend", "current_choice", "get_backend", "on_device",
    "set_backend", "threads", "to_numpy", "until", "use_backend", "using",
]  # fmt: skip

MODULES = {"numba": "numba_backend", "numpy": "reference_backend", "cupy": "cupy_backend"}
MOST_THREADS = 1024


@dataclass(frozen=True)
class BackendChoice:
    """name: as it was asked for. backend: a module of the functions in :mod:`nqm.backends`, or what stands in for one;
    None: not imported yet. requested_threads: of the compiled backend, None for the default."""

    name: str
    backend: Any
    requested_threads: int | None


_everywhere: BackendChoice | None = None
_block: ContextVar[BackendChoice | None] = ContextVar("nqm_backend", default=None)


def set_backend(name: str, threads: int | None = None) -> None:
    """Choose what computes, for the whole process; for a ``with`` block there is :func:`use_backend`.

    "numba": compiled code on the CPU, the default. "numpy": readable NumPy, the reference: some hundred times slower.
    "cupy": a GPU; "cupy:1" the second one. All give the same numbers, numba and numpy to 1e-12, cupy to 1e-10,
    relative, in double precision; but for risks some 70 orders of magnitude below the start or above, and for steps
    to a target that a risk meets to its last digit. A GPU pays for many rows (arrays of hyperparameters, batch sizes,
    steps) or very many eigenvalues, not for a single small problem.

    With "cupy" some things are still computed on the CPU by compiled code: noise that grows with the loss
    (``noise_model="gaussian-features"``), fits to training logs, and crossings of a target along schedules, which
    follow one course after another.

    Args:
        name: "numba", "numpy", "cupy" or "cupy:<index of the device>".
        threads: for "numba", threads that the rows of a call are spread over where it is long enough; default:
            ``NQM_THREADS`` in the environment, else the cores this process may use. Results are the same bits for any
            number.

    Without a call ``NQM_BACKEND`` in the environment decides. :func:`nqm.sweep` hands the choice on to the workers of
    its executor.

    Raises:
        ValueError: for another name, a device that is not there, fewer threads than one.
        RuntimeError: where CuPy is missing, cannot be imported or finds no device; the message says which.

    >>> import nqm
    >>> nqm.set_backend("numba", threads=1)
    >>> nqm.get_backend()
    'numba'
    >>> nqm.set_backend("numba")
    """
    global _everywhere
    _everywhere = _made(name, "name", threads)


@contextmanager
def use_backend(name: str, threads: int | None = None) -> Iterator[None]:
    """:func:`set_backend` for a ``with`` block, in the thread that runs it.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(100)
    >>> with nqm.use_backend("numpy"):
    ...     print(nqm.get_backend(), round(nqm.risk(problem, nqm.SGD(0.5), 16, 1000), 12))
    numpy 0.04448281526
    >>> print(nqm.get_backend(), round(nqm.risk(problem, nqm.SGD(0.5), 16, 1000), 12))
    numba 0.04448281526
    """
    with using(_made(name, "name", threads)):
        yield


@contextmanager
def using(choice: BackendChoice) -> Iterator[None]:
    """``choice`` in this thread, until the end of the block."""
    before = _block.set(choice)
    try:
        yield
    finally:
        _block.reset(before)


class Stopped(BaseException):
    """What a computation in a thread ends with that nobody waits for any more."""


class _Stoppable:
    """A backend whose functions raise Stopped once ``stop`` is set."""

    def __init__(self, backend: Any, stop: Event) -> None:
        self._backend, self._stop = backend, stop

    def __getattr__(self, name: str) -> Any:
        if self._stop.is_set():
            raise Stopped
        return getattr(self._backend, name)


def until(stop: Event) -> AbstractContextManager[None]:
    """What is computed in this block, in this thread, ends at its next question to the backend once ``stop`` is set."""
    return using(replace(current_choice(), backend=_Stoppable(current_backend(), stop)))


def get_backend() -> str:
    """The name of what computes: "numba", "numpy", "cupy" or "cupy:<index>".

    >>> import nqm
    >>> nqm.get_backend()
    'numba'
    """
    return current_choice().name


def current_backend() -> Any:
    """The backend's functions (:mod:`nqm.backends`); imported now, if not before."""
    choice = current_choice()
    return _module(choice.name.partition(":")[0]) if choice.backend is None else choice.backend


def threads() -> int:
    """Threads that compiled code may use."""
    requested = current_choice().requested_threads
    return _default_threads() if requested is None else requested


def on_device() -> bool:
    """Whether a GPU computes."""
    return current_choice().name.startswith("cupy")


def array_module() -> AbstractContextManager[Any]:
    """``with array_module() as xp``: what arrays are made with where the code is the same for both, NumPy or, on a GPU,
    CuPy."""
    found: AbstractContextManager[Any] = current_backend().device() if on_device() else nullcontext(np)
    return found


def to_numpy(array: Any) -> FloatArray:
    """A NumPy array as it is, or from a GPU's memory."""
    found: FloatArray = array if isinstance(array, np.ndarray) else array.get()
    return found


def current_choice() -> BackendChoice:
    """What is chosen here and now."""
    global _everywhere
    here = _block.get()
    if here is not None:
        return here
    if _everywhere is None:
        _everywhere = _made(os.environ.get("NQM_BACKEND") or "numba", "NQM_BACKEND", None)
    return _everywhere


def _made(name: object, called: str, count: object) -> BackendChoice:
    kind, colon, index = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in MODULES or (colon and not (kind == "cupy" and index.isdecimal())):
        raise ValueError(f'{called}: expected "numba", "numpy", "cupy" or "cupy:<index>", got {describe(name)}')
    if count is not None and kind != "numba":
        raise ValueError(f'threads: expected a number with "numba" only, got {describe(count)} with {name!r}')
    requested = None if count is None else _threads(count)
    _default_threads()  # refuses
    backend = None
    if kind == "cupy":
        backend = _module(kind)
        backend.check(int(index or 0))
    return BackendChoice(str(name), backend, requested)


def _threads(given: Any) -> int:
    number = isinstance(given, (int, float, np.integer, np.floating)) and not isinstance(given, bool)
    if not number or given != given // 1 or not 1 <= given <= MOST_THREADS:
        raise ValueError(f"threads: expected a whole number from 1 to {MOST_THREADS}, got {describe(given)}")
    return int(given)


def _default_threads() -> int:
    """Those of the environment, or the cores."""
    named = os.environ.get("NQM_THREADS")
    if not named:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not named.isdecimal() or not 1 <= int(named) <= MOST_THREADS:
        raise ValueError(f"NQM_THREADS: expected a whole number from 1 to {MOST_THREADS}, got {named!r}")
    return int(named)


def _module(kind: str) -> ModuleType:
    return import_module(f".{MODULES[kind]}", __package__)
