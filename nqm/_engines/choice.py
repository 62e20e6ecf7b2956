"""The engine in use: by default the compiled one, another only when asked for by name."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from .._checks import FloatArray, describe

NAMES = ("numba", "numpy", "cupy")


class _Choice:
    """What is set: the engine, by the name it was asked for, and the threads of the compiled one."""

    def __init__(self, name: str, engine: ModuleType | None, threads: int) -> None:
        self.name, self.engine, self.threads = name, engine, threads


_chosen: _Choice | None = None

in_this_thread = threading.local()
"""``engine``: one that stands in for the chosen one (:mod:`nqm._engines.together`)."""


class Setting:
    """The choice just made; in a ``with`` statement, until its end."""

    def __init__(self, name: str, before: _Choice | None) -> None:
        self._name, self._before = name, before

    def __enter__(self) -> Setting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._before

    def __repr__(self) -> str:
        return f"set_backend({self._name!r})"


def set_backend(name: str, threads: int | None = None) -> Setting:
    """Choose what computes: for the whole process, or for a ``with`` block.

    "numba": compiled code on the CPU, the default. "numpy": readable NumPy, the reference: some hundred times slower.
    "cupy": a GPU; "cupy:1" the second one. All give the same numbers, numba and numpy to 1e-12, cupy to 1e-10,
    relative, in double precision. A GPU pays for many rows (arrays of hyperparameters, batch sizes, steps) or very
    many eigenvalues, not for a single small problem.

    Computed on the CPU by compiled code whatever is chosen: noise that grows with the loss
    (``noise_model="gaussian-features"``), and crossings of a target along schedules, which follow one course after
    another.

    Args:
        name: "numba", "numpy", "cupy" or "cupy:<index of the device>".
        threads: for "numba", threads that the rows of a call are spread over where it is long enough; default:
            ``NQM_THREADS`` in the environment, else the cores this process may use. Results are the same bits for any
            number.

    Without a call ``NQM_BACKEND`` in the environment decides. The choice
    holds for all threads of a process; :func:`nqm.sweep` hands it on to the workers of its executor.

    Raises:
        ValueError: for another name, a device that is not there, fewer threads than one.
        RuntimeError: where CuPy is missing, cannot be imported or finds no device; the message says which.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(100)
    >>> with nqm.set_backend("numpy"):
    ...     print(nqm.get_backend(), round(nqm.risk(problem, nqm.SGD(0.5), 16, 1000), 12))
    numpy 0.04094562018
    >>> print(nqm.get_backend(), round(nqm.risk(problem, nqm.SGD(0.5), 16, 1000), 12))
    numba 0.04094562018
    """
    global _chosen
    before = _chosen
    _chosen = _made(name, "name", threads)
    return Setting(name, before)


def get_backend() -> str:
    """The name of what computes: "numba", "numpy", "cupy" or "cupy:<index>".

    >>> import nqm
    >>> nqm.get_backend()
    'numba'
    """
    return _current().name


def chosen() -> Any:
    """The engine's functions (:mod:`nqm._engines`); imported now, if not before."""
    stand_in = getattr(in_this_thread, "engine", None)
    if stand_in is not None:
        return stand_in
    choice = _current()
    if choice.engine is None:
        choice.engine = _module(choice.name.partition(":")[0])
    return choice.engine


def threads() -> int:
    """Threads that compiled code may use."""
    return _current().threads


def on_device() -> bool:
    """Whether a GPU computes."""
    return _current().name.startswith("cupy")


def array_module() -> AbstractContextManager[Any]:
    """``with array_module() as xp``: what arrays are made with where the code is the same for both, NumPy or, on a GPU,
    CuPy."""
    found: AbstractContextManager[Any] = _current().engine.device() if on_device() else nullcontext(np)  # type: ignore[union-attr]
    return found


def to_numpy(array: Any) -> FloatArray:
    """A NumPy array as it is, or from a GPU's memory."""
    found: FloatArray = array if isinstance(array, np.ndarray) else array.get()
    return found


def _current() -> _Choice:
    global _chosen
    if _chosen is None:
        _chosen = _made(os.environ.get("NQM_BACKEND", "numba"), "NQM_BACKEND", None)
    return _chosen


def _made(name: object, called: str, count: object) -> _Choice:
    kind, colon, index = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in NAMES or (colon and not (kind == "cupy" and index.isdecimal())):
        raise ValueError(f'{called}: expected "numba", "numpy", "cupy" or "cupy:<index>", got {describe(name)}')
    engine = None
    if kind == "cupy":
        engine = _module(kind)
        engine.check(int(index or 0))
    return _Choice(str(name), engine, _thread_count(count))


def _thread_count(given: object) -> int:
    count, called = (os.environ.get("NQM_THREADS"), "NQM_THREADS") if given is None else (given, "threads")
    if count is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = isinstance(count, int) and not isinstance(count, bool)
    number = count if whole else int(count) if isinstance(count, str) and count.isdecimal() else 0
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{called}: expected a whole number of at least 1, got {describe(count)}")
    return number


def _module(kind: str) -> ModuleType:
    if kind == "numba":
        from . import compiled

        return compiled
    if kind == "numpy":
        from . import arrays

        return arrays
    from . import cuda

    return cuda
