"""How a regime looks, the same in all figures."""

from __future__ import annotations

from ....plotting import COLORS
from ...experiments.drawing import Look

__all__ = ["CURVES", "LOOKS"]

LOOKS: dict[str, Look] = {
    "SB": {"color": COLORS[0], "linestyle": "-", "marker": "o"},
    "LB": {"color": COLORS[1], "linestyle": "-", "marker": "s"},
    "LB + full": {"color": COLORS[2], "linestyle": "--", "marker": "^"},
    "LB + true full": {"color": COLORS[3], "linestyle": "-.", "marker": "v"},
    "LB + multiplicative": {"color": "black", "linestyle": ":", "marker": "P"},
    "LB + diagonal": {"color": COLORS[4], "linestyle": "-", "marker": "D"},
    "LB + trace": {"color": "#009e73", "linestyle": "--", "marker": "o"},
    "LB + K-FAC": {"color": "#888888", "linestyle": "-.", "marker": "s"},
}

CURVES: dict[str, Look] = {
    name: {
        **look, "marker": "", "linewidth": 4.5 if name in ("SB", "LB") else 1.6,
        "alpha": 0.45 if name in ("SB", "LB") else 1.0,
    }
    for name, look in LOOKS.items()
}  # fmt: skip
"""Lines without markers; broad ones for SB and LB, on which others may lie."""
