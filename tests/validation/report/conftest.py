"""Toys in place of the rungs, or nothing that may be trained."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("torch"):  # else all is skipped
    from report_toys import toys

    from nqm.validation import report


@pytest.fixture
def small():
    with toys():
        yield


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be trained."""

    def refuse(*parts, **options):
        raise AssertionError("work began")

    monkeypatch.setattr(report, "network", refuse)
    for rung in ("a", "b", "c"):
        monkeypatch.setitem(report.RUNGS, rung, refuse)
