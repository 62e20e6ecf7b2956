"""The readable backend in tiles of rows and of nodes: the same numbers, and no more at once than a tile."""

from __future__ import annotations

import numpy as np
import pytest
from reference_rows import (
    COURSE,
    RAMP,
    ROWS,
    WARM_UP,
    assert_close,
    flat,
    nodes,
    pieces_of,
    rows_of,
    slope_arguments,
    some_optimizer,
)

import nqm
from nqm.backends import reference_backend
from nqm.backends.reference import tiles


@pytest.fixture
def whole_and_in_tiles(monkeypatch):
    """What a function gives in one tile, and in tiles of some size."""

    def both(function, size):
        whole = function()
        monkeypatch.setattr(tiles, "TILE", size)
        return whole, function()

    return both


CALLS = {
    "risk": lambda row: reference_backend.risk(row, np.array([0, 1, 5, 100, 2**40, 3, 77, 1000])),
    "dyadic": lambda row: reference_backend.dyadic_risk(row, 20),
    "chained": lambda row: reference_backend.risk_along(row.in_units(1.0), pieces_of(WARM_UP, RAMP, [5, 100, 3000]), 3),
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("family", ["SGD", "preconditioned", "EMA of momentum"])
def test_rows_are_the_same_in_tiles_of_a_few(family, name, size, whole_and_in_tiles):
    """To the last bit, for tiles of as many rows."""
    rng = np.random.default_rng(9)
    problem = nqm.NoisyQuadratic(*nodes(rng, 13))
    row = rows_of(problem, some_optimizer(family, rng, ROWS), 1e4, ROWS)
    whole, cut = whole_and_in_tiles(lambda: CALLS[name](row), size * row.start_weight.size)
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.parametrize("last", [False, True])
def test_first_passages_are_the_same_in_tiles_of_a_few(last, whole_and_in_tiles):
    problem = nqm.NoisyQuadratic(np.geomspace(0.1, 1.0, 13))
    row = rows_of(problem, nqm.EMA(nqm.SGD(np.linspace(0.01, 1.0, ROWS), 0.8), 0.5), 1e4, ROWS)
    targets = np.geomspace(0.01, 1.0, ROWS)
    whole, cut = whole_and_in_tiles(lambda: reference_backend.first_passage(row, targets, last), 1)
    np.testing.assert_array_equal(whole, cut)
    assert np.isfinite(whole).all()


@pytest.mark.parametrize("name", ["risk", "dyadic", "chained"])
def test_nodes_in_tiles(name, whole_and_in_tiles):
    """Sums over nodes are added in another order."""
    rng = np.random.default_rng(10)
    row = rows_of(nqm.NoisyQuadratic(*nodes(rng, 50)), some_optimizer("EMA of momentum", rng, ROWS), 100.0, ROWS)
    whole, cut = whole_and_in_tiles(lambda: CALLS[name](row), 7)
    assert_close(cut, whole, 1e-14)


def test_gradients_with_nodes_in_tiles(whole_and_in_tiles):
    problem = nqm.NoisyQuadratic(*nodes(np.random.default_rng(11), 50))
    arguments = slope_arguments(problem, nqm.SGD(1.0, 0.9), ["momentum"], *COURSE)
    whole, cut = whole_and_in_tiles(lambda: flat(reference_backend.risk_and_gradient(*arguments)), 21)
    assert_close(cut, whole, 1e-13)


def test_tiles_are_small_however_many_nodes(monkeypatch):
    """No more nodes times rows than a tile are computed at once."""
    seen, one_step = [], tiles.Tile.one_step

    def watching(tile):
        seen.append(tile.h.high.size)
        return one_step(tile)

    monkeypatch.setattr(tiles.Tile, "one_step", watching)
    monkeypatch.setattr(tiles, "TILE", 1000)
    for count, rows in [(5000, 2), (90, 50)]:
        problem = nqm.NoisyQuadratic(np.geomspace(1e-4, 1.0, count))
        reference_backend.risk(rows_of(problem, nqm.SGD(0.5), 10.0, rows), np.full(rows, 3))
    assert max(seen) <= 1000
    assert len(seen) > 10
