"""Powers and states of one, two and three states, written out: 2s steps from s, and what s steps do to a state."""

from __future__ import annotations

from ..compilation import internal
from .blocks import BLOCK
from .double_double import add, dot2, dot3, mul, norm

__all__ = [
    "advance1",
    "advance2",
    "advance2_own",
    "advance3",
    "congruence3",
    "square1",
    "square2",
    "square2_own",
    "square3",
]


@internal
def square1(P, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        P[2 * N + n] += h * h * P[2 * N + n]
        q, e = mul(h, P[N + n], h, P[N + n])
        P[n], P[N + n] = norm(q, e)


@internal
def advance1(P, Z, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        Z[2 * N + n] = P[2 * N + n] + h * h * Z[2 * N + n]
        q, e = mul(h, P[N + n], Z[n], Z[N + n])
        Z[n], Z[N + n] = norm(q, e)


@internal
def square2(P, count):
    """[[a, b], [c, a]]^2 = [[a a + b c, 2 a b], [2 a c, a a + b c]]."""
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        al, bl, cl = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, o, q = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + a * o
        y3 = c * o + a * q
        P[6 * N + n] = g + (y0 * a + y1 * b)
        P[7 * N + n] = o + (y0 * c + y1 * a)
        P[8 * N + n] = q + (y2 * c + y3 * a)
        P[n], P[3 * N + n] = dot2(a, al, a, al, b, bl, c, cl)
        p, e = mul(2.0 * a, 2.0 * al, b, bl)
        P[N + n], P[4 * N + n] = norm(p, e)
        p, e = mul(2.0 * a, 2.0 * al, c, cl)
        P[2 * N + n], P[5 * N + n] = norm(p, e)


@internal
def advance2(P, Z, count):
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        al, bl, cl = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        u, v, ul, vl = Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n]
        g, o, q = Z[4 * N + n], Z[5 * N + n], Z[6 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + a * o
        y3 = c * o + a * q
        Z[4 * N + n] = P[6 * N + n] + (y0 * a + y1 * b)
        Z[5 * N + n] = P[7 * N + n] + (y0 * c + y1 * a)
        Z[6 * N + n] = P[8 * N + n] + (y2 * c + y3 * a)
        Z[n], Z[2 * N + n] = dot2(a, al, u, ul, b, bl, v, vl)
        Z[N + n], Z[3 * N + n] = dot2(c, cl, u, ul, a, al, v, vl)


@internal
def square2_own(P, count):
    """A general [[a, b], [c, d]]; slots: 4 high parts, 4 low parts, upper triangle of G."""
    N = BLOCK
    for n in range(count):
        a, b, c, d = P[n], P[N + n], P[2 * N + n], P[3 * N + n]
        al, bl, cl, dl = P[4 * N + n], P[5 * N + n], P[6 * N + n], P[7 * N + n]
        g, o, q = P[8 * N + n], P[9 * N + n], P[10 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + d * o
        y3 = c * o + d * q
        P[8 * N + n] = g + (y0 * a + y1 * b)
        P[9 * N + n] = o + (y0 * c + y1 * d)
        P[10 * N + n] = q + (y2 * c + y3 * d)
        s, sl = add(a, al, d, dl)
        P[n], P[4 * N + n] = dot2(a, al, a, al, b, bl, c, cl)
        P[3 * N + n], P[7 * N + n] = dot2(d, dl, d, dl, b, bl, c, cl)
        p, e = mul(s, sl, b, bl)
        P[N + n], P[5 * N + n] = norm(p, e)
        p, e = mul(s, sl, c, cl)
        P[2 * N + n], P[6 * N + n] = norm(p, e)


@internal
def advance2_own(P, Z, count):
    N = BLOCK
    for n in range(count):
        a, b, c, d = P[n], P[N + n], P[2 * N + n], P[3 * N + n]
        al, bl, cl, dl = P[4 * N + n], P[5 * N + n], P[6 * N + n], P[7 * N + n]
        u, v, ul, vl = Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n]
        g, o, q = Z[4 * N + n], Z[5 * N + n], Z[6 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + d * o
        y3 = c * o + d * q
        Z[4 * N + n] = P[8 * N + n] + (y0 * a + y1 * b)
        Z[5 * N + n] = P[9 * N + n] + (y0 * c + y1 * d)
        Z[6 * N + n] = P[10 * N + n] + (y2 * c + y3 * d)
        Z[n], Z[2 * N + n] = dot2(a, al, u, ul, b, bl, v, vl)
        Z[N + n], Z[3 * N + n] = dot2(c, cl, u, ul, d, dl, v, vl)


@internal
def square3(P, count):
    congruence3(P[: 18 * BLOCK], P[18 * BLOCK :], 1.0, count)
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        d, e, f = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, h, i = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        al, bl, cl = P[9 * N + n], P[10 * N + n], P[11 * N + n]
        dl, el, fl = P[12 * N + n], P[13 * N + n], P[14 * N + n]
        gl, hl, il = P[15 * N + n], P[16 * N + n], P[17 * N + n]
        P[n], P[9 * N + n] = dot3(a, al, a, al, b, bl, d, dl, c, cl, g, gl)
        P[N + n], P[10 * N + n] = dot3(a, al, b, bl, b, bl, e, el, c, cl, h, hl)
        P[2 * N + n], P[11 * N + n] = dot3(a, al, c, cl, b, bl, f, fl, c, cl, i, il)
        P[3 * N + n], P[12 * N + n] = dot3(d, dl, a, al, e, el, d, dl, f, fl, g, gl)
        P[4 * N + n], P[13 * N + n] = dot3(d, dl, b, bl, e, el, e, el, f, fl, h, hl)
        P[5 * N + n], P[14 * N + n] = dot3(d, dl, c, cl, e, el, f, fl, f, fl, i, il)
        P[6 * N + n], P[15 * N + n] = dot3(g, gl, a, al, h, hl, d, dl, i, il, g, gl)
        P[7 * N + n], P[16 * N + n] = dot3(g, gl, b, bl, h, hl, e, el, i, il, h, hl)
        P[8 * N + n], P[17 * N + n] = dot3(g, gl, c, cl, h, hl, f, fl, i, il, i, il)


@internal
def congruence3(P, S, keep, count):
    """S <- keep S + M S M^T. M and S come as arrays of their own, for the compiler to see that they do not overlap."""
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        d, e, f = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, h, i = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        s00, s01, s02 = S[n], S[N + n], S[2 * N + n]
        s11, s12, s22 = S[3 * N + n], S[4 * N + n], S[5 * N + n]
        y0 = a * s00 + b * s01 + c * s02
        y1 = a * s01 + b * s11 + c * s12
        y2 = a * s02 + b * s12 + c * s22
        y3 = d * s00 + e * s01 + f * s02
        y4 = d * s01 + e * s11 + f * s12
        y5 = d * s02 + e * s12 + f * s22
        y6 = g * s00 + h * s01 + i * s02
        y7 = g * s01 + h * s11 + i * s12
        y8 = g * s02 + h * s12 + i * s22
        S[n] = keep * s00 + (y0 * a + y1 * b + y2 * c)
        S[N + n] = keep * s01 + (y0 * d + y1 * e + y2 * f)
        S[2 * N + n] = keep * s02 + (y0 * g + y1 * h + y2 * i)
        S[3 * N + n] = keep * s11 + (y3 * d + y4 * e + y5 * f)
        S[4 * N + n] = keep * s12 + (y3 * g + y4 * h + y5 * i)
        S[5 * N + n] = keep * s22 + (y6 * g + y7 * h + y8 * i)


@internal
def advance3(P, Z, count):
    N = BLOCK
    congruence3(P[: 18 * N], Z[6 * N :], 0.0, count)
    for slot in range(6):
        for n in range(count):
            Z[(6 + slot) * N + n] += P[(18 + slot) * N + n]
    for n in range(count):
        u, v, w = Z[n], Z[N + n], Z[2 * N + n]
        ul, vl, wl = Z[3 * N + n], Z[4 * N + n], Z[5 * N + n]
        Z[n], Z[3 * N + n] = dot3(
            P[n], P[9 * N + n], u, ul, P[N + n], P[10 * N + n], v, vl, P[2 * N + n], P[11 * N + n], w, wl
        )
        Z[N + n], Z[4 * N + n] = dot3(
            P[3 * N + n], P[12 * N + n], u, ul, P[4 * N + n], P[13 * N + n], v, vl, P[5 * N + n], P[14 * N + n], w, wl
        )
        Z[2 * N + n], Z[5 * N + n] = dot3(
            P[6 * N + n], P[15 * N + n], u, ul, P[7 * N + n], P[16 * N + n], v, vl, P[8 * N + n], P[17 * N + n], w, wl
        )
