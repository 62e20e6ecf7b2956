"""A stand-in for CuPy on the CPU: what nqm.backends.cupy_backend uses of it, with NumPy's arrays for the device's.

The CUDA source is compiled as C++ behind a few macros, kernels and all. A thread is a thread of the CPU, and
__syncthreads a barrier between them; one thread a block by default, which goes through all that the others would have.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

PRELUDE = r"""
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

using std::fabs;
using std::fma;
using std::sqrt;

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::barrier<> *together;

static void __syncthreads() { if (blockDim.x > 1) together->arrive_and_wait(); }

static double __longlong_as_double(long long bits) {
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
"""

LAUNCH = r"""
// All arguments are pointers or 64-bit integers, which are passed alike; those that a kernel does not have, it ignores.
typedef void Any(whole, whole, whole, whole, whole, whole, whole, whole, whole, whole, whole, whole, whole, whole,
                 whole, whole, whole, whole, whole, whole);

extern "C" void launch(Any *kernel, unsigned blocks, unsigned threads, const whole *a) {
    blockDim.x = threads;
    gridDim.x = blocks;
    std::barrier<> barrier(threads);
    together = &barrier;
    auto work = [&](unsigned thread) {
        threadIdx.x = thread;
        for (unsigned b = 0; b < blocks; b++) {
            blockIdx.x = b;
            kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15],
                   a[16], a[17], a[18], a[19]);
            __syncthreads();  // what is shared is the next block's
        }
    };
    std::vector<std::thread> others;
    for (unsigned t = 1; t < threads; t++) others.emplace_back(work, t);
    work(0);
    for (auto &other : others) other.join();
}
"""

ARGUMENTS = 20

COMPILER = shutil.which(os.environ.get("CXX", "g++"))

_built: dict[str, ctypes.CDLL] = {}


def build(code, options):
    """The compiled source; once a session."""
    defined = [option for option in options if option.startswith("-D")]
    key = code + "".join(defined)
    if key not in _built:
        flags = [
            *defined,
            "-std=c++20",
            "-O2",
            "-ffp-contract=off",
            "-fPIC",
            "-shared",
            "-pthread",
            "-Wno-unknown-pragmas",
        ]
        cpu = Path("/proc/cpuinfo")
        if cpu.exists() and " fma " in cpu.read_text():
            flags.append("-mfma")
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
            source.write_text(PRELUDE + code + LAUNCH)
            subprocess.run([COMPILER, *flags, str(source), "-o", str(library)], check=True)
            _built[key] = ctypes.CDLL(str(library))
    return _built[key]


class Kernel:
    def __init__(self, library, name, most_threads):
        self._library, self._function, self._most_threads = library, getattr(library, name), most_threads

    def __call__(self, grid, block, arguments, shared_mem=0):
        assert len(grid) == len(block) == 1
        assert 1 <= grid[0] < 2**31
        words = (ctypes.c_longlong * ARGUMENTS)()
        for i, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                assert argument.dtype in (np.float64, np.int64)
                assert argument.flags.c_contiguous
                words[i] = argument.ctypes.data
            else:
                assert isinstance(argument, int)
                words[i] = argument
        self._library.launch(self._function, grid[0], min(block[0], self._most_threads), words)


class Error(RuntimeError):
    """In the place of CUDARuntimeError."""


class FakeCupy:
    """``threads``: of a block, at most. ``memory``: of the device, in bytes. ``devices``: how many there are."""

    def __init__(self, threads=1, memory=2**33, devices=1):
        self.threads, self.memory, self.devices = threads, memory, devices
        self.launches, self.copied, self.current = [], 0, 0
        self.cuda = SimpleNamespace(
            Device=self._device,
            is_available=lambda: self.devices > 0,
            runtime=SimpleNamespace(
                memGetInfo=lambda: (self.memory, self.memory),
                getDeviceCount=self._count,
                getDevice=lambda: self.current,
                CUDARuntimeError=Error,
            ),
        )

    def __getattr__(self, name):
        return getattr(np, name)  # the rest is as NumPy has it

    def asarray(self, array):
        array = np.array(array)  # on a device of its own
        self.copied += array.nbytes
        return array

    def asnumpy(self, array):
        return array.copy()

    def empty(self, shape):
        return np.full(shape, np.nan) if np.prod(shape) < 2**20 else np.empty(shape)

    def zeros(self, shape):
        return np.zeros(shape)

    def get_default_memory_pool(self):
        return SimpleNamespace(free_bytes=lambda: 0)

    def RawModule(self, code, options):
        assert "--fmad=false" in options
        library = build(code, options)

        def get_function(name):
            kernel = Kernel(library, name, self.threads)

            def launch(grid, block, arguments):
                self.launches.append((name, grid[0], self.current))
                kernel(grid, block, arguments)

            return launch

        return SimpleNamespace(get_function=get_function)

    def _count(self):
        if self.devices == 0:
            raise Error("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.devices

    @contextlib.contextmanager
    def _device(self, index):
        before, self.current = self.current, index
        yield
        self.current = before
