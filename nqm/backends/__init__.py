"""Who computes: compiled code on the CPU's cores, readable NumPy, or a GPU through CuPy; chosen by name.

Every backend is a module of the same functions, NumPy arrays in and out. Of a :class:`~nqm.backends.types.FilterBatch`
of R rows:

    risk(batch, steps)                     (R,)   expected risk of each row after steps (R,)
    dyadic_risk(batch, levels)             (R, levels)   after 1, 2, 4, ... steps
    risk_along(batch, word, columns)       (R, columns)   along a word of step maps
    risk_and_gradient(batch, word, spans)  a risk along a word and its derivatives
    first_passage(batch, target, last)     (R,)   first step at or below the target, or the one after the last above it
    first_passage_along(batch, word, end, resting_decay, target, last)   the same for one row along a word

and what else is compiled:

    newton_steps(values, center, size, radius, low, high)       minima of quadratics through stencils
    gaussian_features_steps(recursion, state, steps, target, last)   second moments that feel each other
    effective_lrs(pieces, growth, decay), mode_sums(...)         fits to training logs

Rows of a call may be many: a backend cuts them up so that its own memory stays bounded.
"""

from .selection import (
    array_module,
    current_backend,
    get_backend,
    on_device,
    set_backend,
    threads,
    to_numpy,
    use_backend,
)

__all__ = [
    "array_module", "current_backend", "get_backend", "on_device", "set_backend", "threads", "to_numpy", "use_backend",
]  # fmt: skip
