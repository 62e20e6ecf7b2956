"""Whether each panel of a picture draws its own columns of the data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

FEW = 2  # points of a line that only guides the eye: a level, a diagonal, an entry of a legend


@dataclass(frozen=True, eq=False)
class Curve:
    """What has to be drawn: points, joined or not, or stairs from each x on; the band or bars (low, high) around it.

    label: a part of its entry in the legend; None where it has none.
    """

    x: np.ndarray
    y: np.ndarray
    label: str | None = None
    around: tuple[np.ndarray, np.ndarray] | None = None
    stairs: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Texts that title and labels of the axes hold, the curves, and the values of a map."""

    texts: tuple[str, ...]
    curves: list[Curve]
    colors: np.ndarray | None = None


def of(data, **conditions):
    """Columns of the rows that meet all conditions."""
    here = np.all([data[key] == value for key, value in conditions.items()], axis=0)
    assert here.any()
    return {key: column[here] for key, column in data.items()}


def curves(data, x, y, by=(), label=None, around=None, **conditions):
    """A curve of column y over x for each value of the columns ``by``; label: a format of those values."""
    rows, found = of(data, **conditions) if conditions else data, []
    for values in dict.fromkeys(zip(*(rows[key].tolist() for key in by), strict=True)) if by else [()]:
        group = dict(zip(by, values, strict=True))
        own = of(rows, **group) if group else rows
        ends = None if around is None else tuple(own[key] for key in around)
        found.append(Curve(own[x], own[y], None if label is None else label.format(**group), ends))
    return found


def require_drawn(panels, picture):
    """The axes, in order, are those panels: they say what they should, and draw all of their curves and no others."""
    drawn = [ax for ax in picture.axes if ax.get_label() != "<colorbar>"]
    assert len(drawn) == len(panels)
    for number, (ax, panel) in enumerate(zip(drawn, panels, strict=True)):
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        said = "\n".join((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))
        assert all(text in said for text in panel.texts), f"panel {number}: {panel.texts} not in {said!r}"
        left = _drawn_in(ax)
        for curve in panel.curves:
            match = next((one for one in left if _same(curve, one)), None)
            assert match is not None, f"panel {number}: {curve.label}, {curve.y[:3]} ... is not drawn"
            left.remove(match)
            assert curve.around is None or _has_around(ax, curve), f"panel {number}: no band around {curve.label}"
        assert not left, f"panel {number}: {[one.label for one in left]} are not in the data"
        if panel.colors is not None:
            maps = [one.get_array() for one in ax.collections if type(one).__name__ == "QuadMesh"]
            assert any(_close(np.ravel(values), panel.colors) for values in maps), f"panel {number}: another map"


def require_swaps_noticed(panels, picture):
    """With what any two panels draw exchanged, the check fails."""
    for i, j in itertools.combinations(range(len(panels)), 2):
        swapped = list(panels)
        swapped[i] = replace(panels[j], texts=panels[i].texts)
        swapped[j] = replace(panels[i], texts=panels[j].texts)
        try:
            require_drawn(swapped, picture)
        except AssertionError:
            continue
        raise AssertionError(f"panels {i} and {j} can be exchanged")


def _drawn_in(ax):
    """The axes' lines and stairs as curves."""
    found = [Curve(*map(np.asarray, line.get_data()), _label(line)) for line in ax.get_lines()]
    found = [curve for curve in found if len(curve.y) > FEW]
    for patch in ax.patches:
        values, edges, _ = patch.get_data()
        found.append(Curve(edges[:-1], values, _label(patch), stairs=True))
    return found


def _label(artist):
    label = artist.get_label()
    return None if not label or label.startswith("_") else label


def _same(curve, other):
    labelled = curve.label is None if other.label is None else curve.label is not None and curve.label in other.label
    return labelled and curve.stairs == other.stairs and _close(curve.x, other.x) and _close(curve.y, other.y)


def _close(a, b):
    return a.shape == b.shape and np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-12, atol=0.0,
                                              equal_nan=True)  # fmt: skip


def _has_around(ax, curve):
    """Whether a band's outline, or the ends of bars, are (x, low) and (x, high)."""
    low, high = curve.around
    wanted = np.stack([np.tile(curve.x, 2), np.concatenate([low, high])], axis=1).astype(float)
    for collection in ax.collections:
        points = [path.vertices for path in collection.get_paths()]
        near = np.isclose(wanted[:, None, :], np.concatenate(points)[None, :, :], rtol=1e-9, atol=0.0) if points else []
        if len(near) and np.all(near.all(axis=2).any(axis=1)):
            return True
    return False
