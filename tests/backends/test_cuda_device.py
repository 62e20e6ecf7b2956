"""Which device the backend "cupy" takes, what it says where there is none, and whole questions answered on it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cuda_rows import put, rows_of, stand_in
from fake_cupy import FakeCupy

import nqm
from nqm.backends import cupy_backend as cuda

# --- which device ------------------------------------------------------------------------------------------------


def missing(name):
    def fetch():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fetch


def test_without_cupy(monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", missing("cupy"))
    with pytest.raises(RuntimeError, match=r"CuPy is not installed: pip install 'nqm\[gpu\]'"):
        cuda.check(0)


def test_cupy_that_cannot_be_imported(monkeypatch):
    def fetch():
        try:
            raise ImportError("libcuda.so.1: cannot open shared object file")
        except ImportError as error:
            raise ImportError("=====\nFailed to import CuPy.\n\nSome advice.\n=====") from error

    monkeypatch.setattr(cuda, "_cupy", fetch)
    with pytest.raises(RuntimeError, match=r"its import fails: ImportError: libcuda\.so\.1: cannot") as caught:
        cuda.check(0)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(cuda, "_cupy", missing("fastrlock"))
    with pytest.raises(RuntimeError, match="its import fails: ModuleNotFoundError: No module named 'fastrlock'"):
        cuda.check(0)


@pytest.mark.parametrize("silent", [False, True])
def test_without_a_device(monkeypatch, silent):
    cupy = FakeCupy(devices=0)
    if silent:
        cupy.cuda.runtime.getDeviceCount = lambda: 0
    monkeypatch.setattr(cuda, "_cupy", lambda: cupy)
    with pytest.raises(RuntimeError, match=r"CuPy is installed, but finds no CUDA device .* driver"):
        cuda.check(0)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", lambda: FakeCupy(devices=2))
    cuda.check(0)
    cuda.check(1)
    with pytest.raises(ValueError, match="expected an index from 0 to 1, of 2 CUDA devices here, got 2"):
        cuda.check(2)


def test_the_chosen_device_computes(monkeypatch):
    cupy = stand_in(devices=3)
    put(cupy, monkeypatch)
    row = rows_of(nqm.NoisyQuadratic([1.0]), nqm.SGD(np.array([0.1])), 4.0)
    monkeypatch.setattr(cuda, "get_backend", lambda: "cupy:2")
    on_the_second = cuda.risk(row, np.array([10]))
    assert {device for _, _, device in cupy.launches} == {2}
    assert cupy.current == 0
    monkeypatch.setattr(cuda, "get_backend", lambda: "cupy")
    assert cuda.risk(row, np.array([10])) == on_the_second
    assert {device for _, _, device in cupy.launches} == {0, 2}
    assert {device for device, *_ in cuda._kept} == {0, 2}


def test_free_bytes(device):
    free = cuda.free_bytes()
    assert 0 < free <= device.cuda.runtime.memGetInfo()[1]


def test_cupy_is_not_imported_before_it_is_needed():
    code = "import sys, nqm.backends.cupy_backend; print('cupy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


# --- whole questions on the device -------------------------------------------------------------------------------


@pytest.fixture
def on_the_device(device, monkeypatch):
    """The public functions, with the device chosen; the stand-in's arrays are NumPy's."""
    if isinstance(device, FakeCupy):
        monkeypatch.setattr(cuda, "namespace", lambda: np)
    with nqm.use_backend("cupy"):
        yield


SPECTRUM, TARGET = nqm.NoisyQuadratic.power_law(300), 0.05


def test_steps_to_target(on_the_device):
    optimizer, batch = nqm.SGD(np.geomspace(0.01, 1.9, 7)[:, None], [0.0, 0.9]), np.array([16.0, 1024.0])[:, None, None]
    for crossing in ("first", "last"):
        found = nqm.steps_to_target(SPECTRUM, optimizer, batch, TARGET, crossing)
        with nqm.use_backend("numba"):
            np.testing.assert_array_equal(found, nqm.steps_to_target(SPECTRUM, optimizer, batch, TARGET, crossing))
        assert 0 < np.isinf(found).sum() < found.size


def test_sweeps_of_tuned_cells(on_the_device):
    optimizers = {"SGD": nqm.SGD(nqm.FREE), "half": nqm.Preconditioned(nqm.SGD(nqm.FREE), 0.5), "fixed": nqm.SGD(0.3)}
    found = nqm.sweep(SPECTRUM, optimizers, [16.0, 1024.0], TARGET).table
    with nqm.use_backend("numba"):
        expected = nqm.sweep(SPECTRUM, optimizers, [16.0, 1024.0], TARGET).table
    np.testing.assert_array_equal(found["steps"], expected["steps"])
    np.testing.assert_allclose(found["risk"], expected["risk"], rtol=1e-9)


def test_schedules(on_the_device):
    courses = nqm.SGD(nqm.schedules.cosine(1.0, 500), np.linspace(0.0, 0.9, 5)[:, None])
    along = nqm.risk(SPECTRUM, courses, 64.0, [100, 500])
    best = nqm.optimize_schedule(SPECTRUM, 64.0, steps=50, pieces=4, restarts=0)
    with nqm.use_backend("numba"):
        np.testing.assert_allclose(along, nqm.risk(SPECTRUM, courses, 64.0, [100, 500]), rtol=1e-10)
        np.testing.assert_allclose(
            best.risk, nqm.optimize_schedule(SPECTRUM, 64.0, steps=50, pieces=4, restarts=0).risk, rtol=1e-8
        )


def test_simulations(on_the_device):
    """Five standard errors at three times: a correct program fails one seed in 500,000; the seed is fixed."""
    problem, times = nqm.NoisyQuadratic([1.0, 0.1, 0.01]), [1, 10, 50]
    trials = nqm.simulate(problem, nqm.SGD(0.5, 0.5), 4.0, times, runs=20_000, seed=0)
    assert np.all(np.abs(trials.mean - nqm.risk(problem, nqm.SGD(0.5, 0.5), 4.0, times)) <= 5 * trials.standard_error)


def test_a_large_explicit_spectrum(on_the_device):
    """Against the rule for the same power law, which knows nothing of the device's nodes."""
    explicit = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 200_001.0))
    found = nqm.risk(explicit, nqm.SGD(0.5, 0.5), 16.0, [10, 1000])
    with nqm.use_backend("numba"):
        expected = nqm.risk(nqm.NoisyQuadratic.power_law(200_000), nqm.SGD(0.5, 0.5), 16.0, [10, 1000])
    np.testing.assert_allclose(found, expected, rtol=1e-8)
