"""Double-double scalars: unevaluated sums high + low, about 32 digits. Inlined, so that loops around them vectorise."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from ..compilation import inlined

__all__ = ["add", "dot2", "dot3", "fma", "mul", "norm"]


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding: the exact error of a product is fma(a, b, -(a * b))."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), generate


@inlined
def mul(ah, al, bh, bl):
    """(ah + al)(bh + bl), not normalised: the low part may be a few units in the last place of the high."""
    p = ah * bh
    return p, fma(ah, bl, fma(al, bh, fma(ah, bh, -p)))


@inlined
def norm(h, e):
    s = h + e
    return s, e - (s - h)


@inlined
def add(ah, al, bh, bl):
    s = ah + bh
    t = s - ah
    return norm(s, (ah - (s - t)) + (bh - t) + (al + bl))


@inlined
def dot2(ah, al, bh, bl, ch, cl, dh, dl):
    """a b + c d."""
    p, e = mul(ah, al, bh, bl)
    q, f = mul(ch, cl, dh, dl)
    return add(p, e, q, f)


@inlined
def dot3(ah, al, bh, bl, ch, cl, dh, dl, eh, el, fh, fl):
    """a b + c d + e f."""
    p, e = dot2(ah, al, bh, bl, ch, cl, dh, dl)
    q, f = mul(eh, el, fh, fl)
    return add(p, e, q, f)
