"""Real training logs. They are not part of the project: tests that need them look beside the checkout."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
real_logs = pytest.mark.skipif(
    not DATA.exists(), reason="real training logs are not part of the project: none in ../shared/data"
)
