"""Who computes: compiled code on the CPU's cores, readable NumPy, or a GPU through CuPy; chosen by name.

Every engine is a module of the same functions, NumPy arrays in and out:

    risk(row, steps)                    (R,)   expected risk of each row after steps (R,)
    dyadic_risk(row, levels)            (R, levels)   after 1, 2, 4, ... steps
    chained_risk(row, parts, columns)   (R, columns)   along pieces of schedules
    slopes(...)                         a risk along pieces and its derivatives
    crossings(row, targets, last)       (R,)   first step at or below the target, or the one after the last above it

Rows of a call may be many: an engine cuts them up so that its own memory stays bounded.
"""

from .selection import array_module, chosen, get_backend, on_device, set_backend, threads, to_numpy, use_backend

__all__ = [
    "array_module", "chosen", "get_backend", "on_device", "set_backend", "threads", "to_numpy", "use_backend",
]  # fmt: skip
