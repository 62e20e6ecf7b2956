"""What all tests share: one thread a process, no windows; without torch, nqm.validation is skipped, with a reason."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "agg")
for library in ("OPENBLAS", "MKL", "OMP"):  # as many processes as cores: more threads would wait for one another
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

collect_ignore_glob = ["*/conftest.py"]  # for doctests: several of them would be one module, and an error

NEED_TORCH = [Path(__file__).parent / folder / "validation" for folder in ("nqm", "tests")]


class WithoutTorch(pytest.File):
    """A folder in the place of its tests."""

    def collect(self):
        pytest.skip("needs torch: pip install -e '.[validation]'")


def pytest_collect_directory(path, parent):
    return WithoutTorch.from_parent(parent, path=path) if path in NEED_TORCH and not find_spec("torch") else None
