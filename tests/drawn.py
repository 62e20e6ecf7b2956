"""Whether a picture draws the numbers that were computed for it."""

from __future__ import annotations

import numpy as np

FEW = 2  # points of a line that only guides the eye: a level, a diagonal, an entry of a legend


def require_drawn(data, picture):
    """Each panel draws some columns: all points of each line and all steps of each stair lie in rows of the data.

    A line's two columns may be any; abscissas may be in thousands. Total risks are sums, and not looked for.
    """
    columns = [column.astype(float) for column in data.values() if column.dtype.kind in "fi"]
    panels = [ax for ax in picture.axes if ax.get_label() != "<colorbar>"]
    assert panels
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in panels)
    for number, ax in enumerate(panels):
        lines = [line for line in ax.get_lines() if len(line.get_ydata()) > FEW and line.get_label() != "total risk"]
        for line in lines:
            x, y = (np.asarray(values, float) for values in line.get_data())
            there = np.isfinite(x) & np.isfinite(y)
            assert there.any()
            found = any(
                rows_of(x[there] * unit, a, y[there], b) for unit in (1.0, 1000.0) for a in columns for b in columns
            )
            assert found, f"panel {number}, line {line.get_label()}: not in the data"
        for stairs in ax.patches:
            assert any(np.isin(stairs.get_data().values, column).all() for column in columns)
        assert lines or ax.patches, f"panel {number} draws nothing"


def rows_of(x, a, y, b):
    """Whether each pair (x, y) is one of (a, b), the abscissa up to rounding."""
    if not np.isin(y, b).all():
        return False
    near = np.isclose(x[:, None], a[None, :], rtol=1e-12, atol=0.0)
    return bool(np.all(np.any(near & (y[:, None] == b[None, :]), axis=1)))
