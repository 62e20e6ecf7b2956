"""The backend "cupy": the kernels of ``kernels.cu`` on a GPU, through CuPy.

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
from .numba_backend import (
    effective_lrs,
    first_passage_along,
    gaussian_features_steps,
    mode_sums,
    newton_steps,
    search_one_by_one,
)
from .reference import gradient
from .selection import get_backend
from .types import FilterBatch, RiskGradient, Word

__all__ = [
    "dyadic_risk", "effective_lrs", "first_passage", "first_passage_along", "gaussian_features_steps", "mode_sums",
    "newton_steps", "risk", "risk_along", "risk_and_gradient",
]  # fmt: skip

THREADS, SEARCHERS = 64, 128
"""Threads of a block that sums over nodes, and of one that searches: what ``kernels.cu`` has room for."""

SEGMENT = 512
"""Nodes that a block sums over."""

WINDOW = 2**22
"""Nodes of a launch, and so many at a time are copied to a device that cannot hold them all: whole segments."""

PARTIAL = 2**26
"""Sums over segments that a launch leaves for a row, at most."""

LEVELS = 54
"""Leaps of 2^0 ... 2^53 steps in the search for a first passage."""

LEAPS = 100_000
"""Leaps over time after which a row is left to :class:`nqm.backends.first_passage.FirstPassageSearch`."""

BLOCKS = 1024
"""Blocks that search for first passages at the same time."""

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
def _module(cupy: Any, k: int) -> Any:
    """The kernels for k states, compiled when they are first needed."""
    source = Path(__file__).with_name("kernels.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=source, options=("--std=c++17", "--fmad=false", f"-DSTATES={k}"))


@cache
def _kernel(cupy: Any, k: int, name: str) -> Any:
    return _module(cupy, k).get_function(name)


def _line(error: BaseException) -> str:
    """An error in one line; of CuPy's, which explain at length, the one that they explain."""
    cause = error.__cause__ or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())


# --- the backend --------------------------------------------------------------------------------------------------


def risk(batch: FilterBatch, steps: IntArray) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps: (R,)."""
    return _sums_over_nodes("risk", batch, 1, lambda cupy, rows: (cupy.asarray(steps[rows]),))[:, 0]


def dyadic_risk(batch: FilterBatch, levels: int) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""
    return _sums_over_nodes("dyadic", batch, levels, lambda cupy, rows: (levels,))


def risk_along(batch: FilterBatch, word: Word, columns: int) -> FloatArray:
    """Expected risk along a word, added up where output columns are the same: (R, columns)."""
    asked = word.output_column >= 0
    count, risks = word.repeat.size, int(asked.sum())

    def arguments(cupy: Any, rows: slice) -> tuple[Any, ...]:
        factors = cupy.asarray(np.concatenate([word.lr, word.inverse_batch_size]))
        letters = np.concatenate([word.repeat, asked.astype(np.int64), word.map])
        return factors, cupy.asarray(letters), count, risks

    found = _sums_over_nodes("word", batch, risks, arguments)
    out = np.zeros((batch.lr.size, columns))
    for column, risks_there in zip(word.output_column[asked], found.T, strict=True):
        out[:, column] += risks_there
    return out


def risk_and_gradient(batch: FilterBatch, word: Word, spans: FloatArray) -> RiskGradient:
    """A risk along a word and its derivatives: :mod:`nqm.backends.reference.gradient` on the device."""
    with device():
        return gradient.risk_and_gradient(batch, word, spans, xp=namespace())


def first_passage(batch: FilterBatch, target_risks: FloatArray, last: bool) -> FloatArray:
    """First step with risk at or below the target, or (``last``) the one after the last above it: (R,).

    inf: never within 2^53 steps. Raises TooManyLeaps where a row takes too many leaps over time to tell.
    """
    return search_one_by_one(batch, target_risks, last, in_few_leaps(batch, target_risks, last))


def in_few_leaps(batch: FilterBatch, target_risks: FloatArray, last: bool) -> FloatArray:
    """The same on the device; NaN: not found in LEAPS leaps."""
    k, nodes, rows = len(batch.start), batch.start_weight.size, target_risks.size
    entries, triangle = 3 if k == 2 else k * k, k * (k + 1) // 2
    work = (LEVELS * (2 * entries + triangle + 2 * k) + 2 * (2 * k + triangle)) * nodes
    with device() as cupy:
        host = [batch.curvature, batch.start_weight, batch.noise_weight]
        curvature, start_weight, noise_weight = _on_device(cupy, host) or (cupy.asarray(a) for a in host)
        blocks = max(1, min(rows, BLOCKS, int(SHARE * free_bytes()) // (8 * work)))
        out = cupy.empty(rows)
        _kernel(cupy, k, "first_passage")(
            (blocks,), (SEARCHERS,),
            (curvature, nodes, start_weight, noise_weight, nodes, *_packed(cupy, batch),
             cupy.asarray(target_risks), rows, int(last), LEAPS, cupy.empty(blocks * work), out),
        )  # fmt: skip
        return np.asarray(cupy.asnumpy(out))


def _sums_over_nodes(
    name: str, batch: FilterBatch, columns: int, arguments: Callable[[Any, slice], tuple[Any, ...]]
) -> Any:
    """The sums (R, columns) of a kernel that takes ``arguments(cupy, rows)`` of its own; NaN, from overflow, is inf."""
    rows, k = batch.lr.size, len(batch.start)
    out = np.zeros((rows, columns))
    if out.size == 0:
        return out
    window = SEGMENT * max(1, min(WINDOW // SEGMENT, PARTIAL // columns))
    segments = -(-min(window, batch.start_weight.size) // SEGMENT)
    maps = batch.transition.shape[1]
    bytes_a_row = 8 * (columns * (segments + 1) + maps * 2 * (k + 1) ** 2 + 4)
    with device() as cupy:
        sums, totals = _kernel(cupy, k, name), _kernel(cupy, k, "totals")
        kept = _on_device(cupy, [batch.curvature, batch.start_weight, batch.noise_weight])
        at_once = max(1, min(rows, int(SHARE * free_bytes()) // bytes_a_row, (2**31 - 1) // max(segments, columns)))
        for first in range(0, rows, at_once):
            some = slice(first, min(first + at_once, rows))
            count = some.stop - some.start
            own = *_packed(cupy, batch.part(some)), *arguments(cupy, some)
            partial, total = cupy.empty(count * segments * columns), cupy.zeros((count, columns))
            for nodes in _windows(cupy, batch, kept, window):
                here = -(-nodes[-1] // SEGMENT)
                sums((count * here,), (THREADS,), (*nodes, *own, here, SEGMENT, partial))
                totals((count * columns,), (THREADS,), (partial, here, columns, total))
            out[some] = cupy.asnumpy(total)
    out[np.isnan(out)] = np.inf
    return out


def _packed(cupy: Any, batch: FilterBatch) -> tuple[Any, ...]:
    """Rows, their step maps, how many of them, filter and power index as the kernels have them (``ROWS``)."""
    rows, maps = batch.lr.size, batch.transition.shape[1]
    numbers = np.stack([batch.lr, batch.inverse_batch_size], axis=1)
    parts = [batch.averaging_weight, batch.transition, batch.gain]
    packed = np.concatenate([part.reshape(rows * maps, -1) for part in parts], axis=1)
    filters = np.concatenate([batch.query, batch.readout, batch.start, batch.lr_scaled])
    return (
        cupy.asarray(numbers), cupy.asarray(packed), maps, cupy.asarray(filters), cupy.asarray(batch.power_index),
    )  # fmt: skip


def _windows(cupy: Any, batch: FilterBatch, kept: list[Any] | None, window: int) -> Iterator[tuple[Any, ...]]:
    """curvature, its stride, the two weights, nodes: of so many nodes at a time, on the device or copied."""
    for first in range(0, batch.start_weight.size, window):
        some = slice(first, min(first + window, batch.start_weight.size))
        count = some.stop - some.start
        if kept is not None:
            curvature, *weights = kept
            yield curvature.reshape(-1)[first:], batch.start_weight.size, *(w[some] for w in weights), count
        else:
            curvature = np.ascontiguousarray(batch.curvature[:, some])
            weights = [cupy.asarray(w[some]) for w in (batch.start_weight, batch.noise_weight)]
            yield cupy.asarray(curvature), count, *weights, count


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
