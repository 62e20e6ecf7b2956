"""A whole run of the search, once for each file of tests."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("torch"):  # else all is skipped
    from law import Counted, measure


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run: its file, its result, and the batches of trials it trained."""
    path = tmp_path_factory.mktemp("finished") / "steps.jsonl"
    counted = Counted()
    return path, measure(results=path, race=counted), counted.calls
