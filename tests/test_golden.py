"""The numbers of one commit are those of the next: to the bit where processor and versions are the same."""

from __future__ import annotations

import json

import golden
import numpy as np
import pytest

KEPT = json.loads(golden.FILE.read_text(encoding="utf-8"))
SAME_MACHINE = KEPT["machine"] == golden.machine()

ELSEWHERE = {"searches": 1e-2, "schedules found": 1e-2, "fits": 1e-3, "crossings": 1e-9}
"""Relative tolerance on other machines: searches in rough landscapes may end elsewhere, other numbers may not."""


@pytest.mark.parametrize("group", golden.GROUPS)
def test_numbers_stay(group):
    found, expected = golden.computed(group), KEPT["numbers"][group]
    assert list(found) == list(expected)
    if SAME_MACHINE:
        moved = {name: (expected[name], found[name]) for name in expected if found[name] != expected[name]}
        assert not moved
        return
    for name, values in expected.items():
        numbers = [[float.fromhex(x) for x in some] for some in (found[name], values)]
        np.testing.assert_allclose(*numbers, rtol=ELSEWHERE.get(group, 1e-9), atol=1e-300, err_msg=name)


def test_there_are_enough():
    assert sum(len(values) for group in KEPT["numbers"].values() for values in group.values()) > 300
