"""Files to read."""

from __future__ import annotations

import pytest


@pytest.fixture
def file(tmp_path):
    """Writes a file and returns its path."""

    def write(text, name="runs.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write
