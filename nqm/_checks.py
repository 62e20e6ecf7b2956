"""Argument checks: one sentence that says what was expected and what came, before any work is done."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatArray",
    "IntArray",
    "broadcast",
    "definite",
    "describe",
    "instance",
    "real",
    "reals",
    "room_for",
    "square",
    "step_numbers",
    "symmetric",
    "whole",
    "wholes",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGE = 2**24  # numbers from which on it is asked whether memory has room for them
WHOLE = 2**53  # up to here float64 holds every whole number


def describe(value: Any) -> str:
    """A short name for a value that came where something else was expected."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def instance(value: Any, kind: type | tuple[type, ...], name: str, expected: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")


def reals(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, closed: str = "", ndim: int | None = None
) -> FloatArray:
    """``value`` as a new float64 array of finite numbers between ``low`` and ``high``.

    ``closed`` names the ends that belong to the range: "", "low", "high" or "both"; inf is a number where it is an end
    that does. ``ndim`` limits the number of dimensions (scalars are always welcome). Raises TypeError for what is not a
    real number, ValueError for numbers out of range, NaN, infinities and empty arrays.
    """
    if type(value) in (float, int) and low < value < high and abs(value) <= WHOLE:  # what is asked thousands of times
        return np.array(value, dtype=np.float64)
    bracket = (
        f"{'[' if closed in ('low', 'both') else '('}{low:g}, {high:g}{']' if closed in ('high', 'both') else ')'}"
    )
    endless = high == math.inf and closed in ("high", "both")
    expected = f"{'' if endless else 'finite '}real numbers in {bracket}"
    try:
        array = np.asarray(value)
    except ValueError:  # ragged lists
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one number, got {describe(value)}")
    if ndim is not None and array.ndim > ndim:
        raise ValueError(f"{name}: expected at most {ndim} dimension, got {describe(value)}")
    if array.size > LARGE:
        room_for(array.shape)
    array = np.array(array, dtype=np.float64)  # a copy: the caller's array is never aliased
    above = array >= low if closed in ("low", "both") else array > low
    below = array <= high if closed in ("high", "both") else array < high
    bad = ~((np.isfinite(array) | endless) & above & below)
    if bad.any():
        raise ValueError(f"{name}: expected {expected}, got {float(array[bad].flat[0]):.16g}{_where(bad)}")
    return array


def wholes(value: Any, name: str, *, low: int = 0, high: int = WHOLE) -> IntArray:
    """``value`` as a new int64 array of whole numbers in [low, high]; 1e6 counts as whole, 0.5 does not."""
    if type(value) is int and low <= value <= high <= WHOLE:
        return np.array(value, dtype=np.int64)
    array = reals(value, name)
    bad = (array != np.floor(array)) | (array < low) | (array > high)
    if bad.any():
        came = f"{float(array[bad].flat[0]):.16g}{_where(bad)}"
        raise ValueError(f"{name}: expected whole numbers from {low} to {high:.4g}, got {came}")
    return array.astype(np.int64)


def step_numbers(value: Any) -> IntArray:
    """Steps to look at, as :func:`wholes`; fractions of a grid are refused with what makes whole ones."""
    try:
        return wholes(value, "steps")
    except ValueError as error:
        array = np.asarray(value, dtype=float)
        if array.ndim == 0 or not array.size:
            raise
        if not (np.isfinite(array).all() and array.min() >= 0.0 and 1.0 <= array.max() <= 2.0**53):
            raise
        remedy = f"nqm.log_steps({math.ceil(array.max())}, {array.size})"
        raise ValueError(f"{error}; {remedy} gives whole ones, spaced evenly on a logarithmic axis") from None


def real(value: Any, name: str, **limits: Any) -> float:
    """A single number, checked as in :func:`reals`."""
    return float(reals(value, name, **limits)[_single(value, name)])


def whole(value: Any, name: str, **limits: Any) -> int:
    """A single whole number, checked as in :func:`wholes`."""
    return int(wholes(value, name, **limits)[_single(value, name)])


def square(value: Any, name: str, size: int | None = None) -> FloatArray:
    """``value`` as a new (d, d) matrix of finite numbers; ``size``: the d it has to have."""
    matrix = reals(value, name)
    wanted = "(d, d)" if size is None else f"({size}, {size})"
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or size not in (None, len(matrix)):
        raise ValueError(f"{name}: expected a {wanted} matrix, got shape {matrix.shape}")
    return matrix


def symmetric(value: Any, name: str, size: int | None = None) -> FloatArray:
    """A :func:`square` matrix that is symmetric but for rounding errors; they are averaged out."""
    matrix = square(value, name, size)
    gap, largest = np.abs(matrix - matrix.T), np.abs(matrix).max()
    if gap.max() > 1e-10 * largest:
        i, j = np.unravel_index(np.argmax(gap), gap.shape)
        raise ValueError(
            f"{name}: expected a symmetric matrix, got entries {matrix[i, j]:.6g} at ({i}, {j}) and {matrix[j, i]:.6g} "
            f"at ({j}, {i}), which differ by {gap.max() / largest:.2g} of the largest entry"
        )
    return 0.5 * (matrix + matrix.T)


def definite(eigenvalues: Any, name: str, semi: bool = False) -> None:
    """Refuse the eigenvalues (ascending) of a symmetric matrix that are not positive (``semi``: not negative)."""
    least, largest = float(eigenvalues[0]), float(np.abs(eigenvalues).max())
    rounding = eigenvalues.size * np.finfo(float).eps * largest
    if least < -rounding or (not semi and least <= rounding):
        raise ValueError(
            f"{name}: expected a positive {'semi' if semi else ''}definite matrix, got eigenvalues from {least:.6g} to "
            f"{eigenvalues[-1]:.6g}" + (", singular to rounding errors" if abs(least) <= rounding else "")
        )


def broadcast(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of several arguments, or a ValueError that names each with its shape; a MemoryError where
    memory has no room for float64 numbers of that shape."""
    if not any(shapes.values()):
        return ()
    try:
        shape = np.broadcast_shapes(*shapes.values())
    except ValueError:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        listed = any(name in ("lr", "optimizer") and shape for name, shape in shapes.items())
        hint = "; an array of lr is one run each: for one run whose lr changes take nqm.Schedule" if listed else ""
        raise ValueError(f"expected arguments whose shapes broadcast together, got {told}{hint}") from None
    if math.prod(shape) > LARGE:
        room_for(shape)
    return shape


def room_for(shape: tuple[int, ...]) -> None:
    """Refuse a result of float64 numbers that memory has no room for, before it is allocated."""
    needed, free = 8.0 * math.prod(shape), _free_bytes()
    if needed > free:
        raise MemoryError(
            f"expected arguments whose result fits into memory, got {math.prod(shape):.4g} numbers, of shape {shape}: "
            f"{needed / 2**30:.3g} GiB where {free / 2**30:.3g} GiB are free; ask for fewer at a time"
        )


def _free_bytes() -> float:
    """Memory that this process may still take: what the system has, within limits on the process and its container."""
    free = math.inf
    try:
        with open("/proc/meminfo") as lines:
            free = 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        limit = _address_space()
        if limit < math.inf:
            with open("/proc/self/statm") as sizes:
                free = min(free, limit - int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
        with open("/sys/fs/cgroup/memory.max") as most, open("/sys/fs/cgroup/memory.stat") as used:  # a container's
            taken = next(float(line.split()[1]) for line in used if line.startswith("anon "))
            free = min(free, float(most.read().replace("max", "inf")) - taken)
    except (OSError, StopIteration, ValueError):  # not Linux, or no such limits
        pass
    return max(free, 0.0)


def _address_space() -> float:
    """Bytes of address space that this process may use; inf: no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)


def _single(value: Any, name: str) -> tuple[()]:
    if np.ndim(value) != 0:
        raise ValueError(f"{name}: expected a single number, got {describe(value)}")
    return ()


def _where(bad: NDArray[np.bool_]) -> str:
    return "" if bad.ndim == 0 else f" at index {tuple(int(i[0]) for i in np.nonzero(bad))}"
