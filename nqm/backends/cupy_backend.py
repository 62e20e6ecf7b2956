"""The engine "cupy": the kernels of ``kernels.cu`` on a GPU, through CuPy.

A block of threads computes one row on a segment of nodes; the segments of a row are added up in their order. Their
size is fixed, so the bits depend neither on timing nor on how many rows or nodes fit on the device at once.

CuPy is imported when the first number is asked for; all come from :func:`_cupy`.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from .._checks import FloatArray, IntArray
from . import reference_backend
from .selection import get_backend
from .types import Pieces, Rows, Slopes

THREADS, MARCHERS = 64, 128
"""Threads of a block that sums over nodes, and of one that searches a crossing: what ``kernels.cu`` has room for."""

SEGMENT = 512
"""Nodes that a block sums over."""

WINDOW = 2**22
"""Nodes of a launch, and so many at a time are copied to a device that cannot hold them all: whole segments."""

PARTIAL = 2**26
"""Sums over segments that a launch leaves for a row, at most."""

LEVELS = 54
"""Leaps of 2^0 ... 2^53 steps in the search for a crossing."""

LEAPS = 100_000
"""Leaps over time after which a crossing is left to :class:`nqm.backends.first_passage.March`."""

BLOCKS = 1024
"""Blocks that search for crossings at the same time."""

SHARE = 0.25
"""Of the free memory of the device: what a call may work with; twice as much for the nodes."""

_kept: dict[tuple[Any, ...], tuple[Any, Any]] = {}
"""What lies on a device: the host's array, as a weak reference, and the device's."""

_keeping = Lock()


# --- the device --------------------------------------------------------------------------------------------------


def check(index: int) -> None:
    """Refuse what cannot compute here.

    Raises RuntimeError where CuPy is not installed, cannot be imported or finds no device, ValueError where device
    ``index`` is not there.
    """
    other = 'choose "numba" (set_backend, or NQM_BACKEND in the environment)'
    advice = f"pip install 'nqm[gpu]' (for CUDA 12), or {other}"
    try:
        cupy = _cupy()
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise RuntimeError(f"CuPy is installed, but its import fails: {_line(error)}") from error
        raise RuntimeError(f"CuPy is not installed: {advice}") from None
    except Exception as error:
        raise RuntimeError(f"CuPy is installed, but its import fails: {_line(error)}") from error
    try:
        count, reason = cupy.cuda.runtime.getDeviceCount(), "none is visible"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        count, reason = 0, _line(error)
    if count == 0:
        raise RuntimeError(
            f"CuPy is installed, but finds no CUDA device ({reason}): expected an NVIDIA GPU and its driver, which "
            f"nvidia-smi would list; without one, {other}"
        )
    if not 0 <= index < count:
        raise ValueError(f"device: expected an index from 0 to {count - 1}, of {count} CUDA devices here, got {index}")


def free_bytes() -> int:
    """Memory of the device that is free, or that CuPy holds in reserve."""
    with device() as cupy:
        return int(cupy.cuda.runtime.memGetInfo()[0]) + int(cupy.get_default_memory_pool().free_bytes())


def namespace() -> Any:
    """CuPy as a namespace of the Python array API standard."""
    try:
        return importlib.import_module("array_api_compat.cupy")
    except ModuleNotFoundError as error:
        if error.name != "array_api_compat":
            raise
        raise RuntimeError("array-api-compat is not installed: pip install 'nqm[gpu]'") from None


def _cupy() -> Any:
    """The one place that CuPy comes from."""
    return importlib.import_module("cupy")


class device:
    """``with device() as cupy``: on the device that was chosen, in whatever thread."""

    def __enter__(self) -> Any:
        cupy = _cupy()
        self._device = cupy.cuda.Device(int(get_backend().partition(":")[2] or 0))
        self._device.__enter__()
        return cupy

    def __exit__(self, *what: object) -> None:
        self._device.__exit__(*what)


@cache
def _module(cupy: Any) -> Any:
    source = Path(__file__).with_name("kernels.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=source, options=("--std=c++17", "--fmad=false"))


@cache
def _kernel(cupy: Any, name: str) -> Any:
    return _module(cupy).get_function(name)


def _line(error: BaseException) -> str:
    """An error in one line; of CuPy's, which explain at length, the one that they explain."""
    cause = error.__cause__ or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())


# --- the engine --------------------------------------------------------------------------------------------------


def risk(row: Rows, steps: IntArray) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps: (R,)."""
    return _sums_over_nodes("risk", row, 1, lambda cupy, rows: (cupy.asarray(steps[rows]),))[:, 0]


def dyadic_risk(row: Rows, levels: int) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""
    return _sums_over_nodes("dyadic", row, levels, lambda cupy, rows: (levels,))


def chained_risk(row: Rows, parts: Pieces, columns: int) -> FloatArray:
    """Expected risk along pieces, added up where their column is the same: (R, columns)."""
    asked = parts.column >= 0
    count, risks = parts.lengths.size, int(asked.sum())

    def arguments(cupy: Any, rows: slice) -> tuple[Any, ...]:
        factors = cupy.asarray(np.concatenate([parts.lr, parts.inverse_batch]))
        return factors, cupy.asarray(np.concatenate([parts.lengths, asked.astype(np.int64)])), count, risks

    found = _sums_over_nodes("chain", row, risks, arguments)
    out = np.zeros((row.lr.size, columns))
    for column, risks_there in zip(parts.column[asked], found.T, strict=True):
        out[:, column] += risks_there
    return out


def slopes(*arguments: Any) -> Slopes:
    """A risk along pieces and its derivatives: :func:`nqm.backends.reference_backend.slopes` on the device."""
    compute: Callable[..., Slopes] = reference_backend.slopes
    with device():
        return compute(*arguments, xp=namespace())


def crossings(row: Rows, targets: FloatArray, last: bool) -> FloatArray:
    """First step at or below the target, or the one after the last above it; inf: never, NaN: not found in LEAPS."""
    k, nodes, rows = len(row.start), row.bias.size, targets.size
    entries, triangle = 3 if k == 2 else k * k, k * (k + 1) // 2
    work = (LEVELS * (2 * entries + triangle + 2 * k) + 2 * (2 * k + triangle)) * nodes
    with device() as cupy:
        kept = _on_device(cupy, [row.curvature, row.bias, row.noise])
        curvature, bias, noise = kept or (cupy.asarray(a) for a in (row.curvature, row.bias, row.noise))
        blocks = max(1, min(rows, BLOCKS, int(SHARE * free_bytes()) // (8 * work)))
        out = cupy.empty(rows)
        _kernel(cupy, f"crossing{k}")(
            (blocks,), (MARCHERS,),
            (curvature, nodes, bias, noise, nodes, *_packed(cupy, row), cupy.asarray(targets), rows, int(last), LEAPS,
             cupy.empty(blocks * work), out),
        )  # fmt: skip
        return np.asarray(cupy.asnumpy(out))


def _sums_over_nodes(name: str, row: Rows, columns: int, arguments: Callable[[Any, slice], tuple[Any, ...]]) -> Any:
    """The sums (R, columns) of a kernel that takes ``arguments(cupy, rows)`` of its own; NaN, from overflow, is inf."""
    rows, k = row.lr.size, len(row.start)
    out = np.zeros((rows, columns))
    if out.size == 0:
        return out
    window = SEGMENT * max(1, min(WINDOW // SEGMENT, PARTIAL // columns))
    segments = -(-min(window, row.bias.size) // SEGMENT)
    bytes_a_row = 8 * (columns * (segments + 1) + 2 * (k + 1) ** 2 + 4)
    with device() as cupy:
        sums, totals = _kernel(cupy, f"{name}{k}"), _kernel(cupy, "totals")
        kept = _on_device(cupy, [row.curvature, row.bias, row.noise])
        at_once = max(1, min(rows, int(SHARE * free_bytes()) // bytes_a_row, (2**31 - 1) // max(segments, columns)))
        for first in range(0, rows, at_once):
            some = slice(first, min(first + at_once, rows))
            count = some.stop - some.start
            own = *_packed(cupy, row.part(some)), *arguments(cupy, some)
            partial, total = cupy.empty(count * segments * columns), cupy.zeros((count, columns))
            for nodes in _windows(cupy, row, kept, window):
                here = -(-nodes[-1] // SEGMENT)
                sums((count * here,), (THREADS,), (*nodes, *own, here, SEGMENT, partial))
                totals((count * columns,), (THREADS,), (partial, here, columns, total))
            out[some] = cupy.asnumpy(total)
    out[np.isnan(out)] = np.inf
    return out


def _packed(cupy: Any, row: Rows) -> tuple[Any, ...]:
    """Rows, filter and powers as ``Row``, ``Filter`` and ``which`` of the kernels."""
    rows = row.lr.size
    numbers = [row.lr, row.inverse_batch, row.fresh, row.transition, row.gain]
    filters = np.concatenate([row.query, row.readout, row.start, row.scaled])
    packed = np.concatenate([n.reshape(rows, -1) for n in numbers], axis=1)
    return cupy.asarray(packed), cupy.asarray(filters), cupy.asarray(row.which)


def _windows(cupy: Any, row: Rows, kept: list[Any] | None, window: int) -> Iterator[tuple[Any, ...]]:
    """curvature, its stride, bias, noise, nodes: of so many nodes at a time, out of what is on the device or copied."""
    for first in range(0, row.bias.size, window):
        some = slice(first, min(first + window, row.bias.size))
        count = some.stop - some.start
        if kept is not None:
            curvature, bias, noise = kept
            yield curvature.reshape(-1)[first:], row.bias.size, bias[some], noise[some], count
        else:
            curvature = np.ascontiguousarray(row.curvature[:, some])
            yield cupy.asarray(curvature), count, cupy.asarray(row.bias[some]), cupy.asarray(row.noise[some]), count


def _on_device(cupy: Any, wanted: list[FloatArray]) -> list[Any] | None:
    """The arrays on the device, where they stay as long as the host's live; None if they do not fit.

    They are known by where they lie on the host. A table made for one call dies with it, on the device too.
    """
    device = cupy.cuda.runtime.getDevice()
    keys = [(device, a.ctypes.data, a.shape, a.strides) for a in wanted]
    with _keeping:
        missing = sum(a.nbytes for key, a in zip(keys, wanted, strict=True) if key not in _kept)
        if missing > 2 * SHARE * free_bytes():
            _kept.clear()
            if sum(a.nbytes for a in wanted) > 2 * SHARE * free_bytes():
                return None
        for key, array in zip(keys, wanted, strict=True):
            if key not in _kept:
                owner = array if array.base is None else array.base
                _kept[key] = weakref.ref(owner, partial(_forget, key)), cupy.asarray(np.ascontiguousarray(array))
        return [_kept[key][1] for key in keys]


def _forget(key: tuple[Any, ...], _: object) -> None:
    _kept.pop(key, None)
