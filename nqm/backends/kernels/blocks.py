"""How numbers of many nodes lie in memory, and how they are added up.

Nodes lie in the inner loop. A block is a one-dimensional array cut into slots of ``BLOCK`` entries, so that every
access is at a constant distance from every other, which is what lets the compiler vectorise. Slots of a power: the
entries of M, high parts (k = 2 in the coordinates of :mod:`setup`: a, b, c; else k^2, row by row), their low parts,
then the upper triangle of G. Slots of a state: u high (k), u low (k), upper triangle of S. Loops run over ``count``
<= BLOCK nodes, a multiple of 8. k is ``len(start)`` of a tuple, hence known to the compiler.
"""

from __future__ import annotations

from ..compilation import internal
from ..types import MOST_STATES

__all__ = ["BLOCK", "OWN_POWER_SLOTS", "POWER_SLOTS", "STATE_SLOTS", "copy", "total"]

BLOCK = 128

# For k = 0, 1, 2, ...: slots of a state, of a power in the filter's own coordinates, and in those of `setup`.
STATE_SLOTS = tuple(2 * k + k * (k + 1) // 2 for k in range(MOST_STATES + 1))
OWN_POWER_SLOTS = tuple(2 * k * k + k * (k + 1) // 2 for k in range(MOST_STATES + 1))
POWER_SLOTS = tuple(9 if k == 2 else slots for k, slots in enumerate(OWN_POWER_SLOTS))


@internal
def copy(source, to):
    """Fill ``to`` from its beginning. In place of ``to[:] = source``, for whose error message Numba compiles a second
    or two of string formatting."""
    for n in range(source.size):
        to[n] = source[n]


@internal
def total(terms):
    """Sum of the BLOCK per-lane sums by halving: a fixed order, whatever the machine."""
    width = BLOCK // 2
    while width > 0:
        for n in range(width):
            terms[n] += terms[n + width]
        width //= 2
    return terms[0]
