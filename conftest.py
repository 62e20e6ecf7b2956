"""Where torch is not installed, the tests and doctests of nqm.validation are skipped, each folder with one reason."""

from importlib.util import find_spec
from pathlib import Path

import pytest

NEED_TORCH = [Path(__file__).parent / folder / "validation" for folder in ("nqm", "tests")]


class WithoutTorch(pytest.File):
    """A folder in the place of its tests."""

    def collect(self):
        pytest.skip("needs torch: pip install -e '.[validation]'")


def pytest_collect_directory(path, parent):
    return WithoutTorch.from_parent(parent, path=path) if path in NEED_TORCH and not find_spec("torch") else None
