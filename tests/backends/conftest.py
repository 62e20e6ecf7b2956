"""A GPU, or the stand-in for one."""

from __future__ import annotations

import pytest
from cuda_rows import put, stand_in


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """CuPy or its stand-in, with nothing on the device yet."""
    if request.param == "fake":
        cupy = stand_in()
    else:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
        if not cupy.cuda.is_available():
            pytest.skip("CuPy finds no CUDA device")
    put(cupy, monkeypatch)
    return cupy
