"""``nqm warmup``: compile what is usually asked for, ahead of the first question.

Each part asks small questions that need all compiled code of its kind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import EMA, FREE, SGD, NoisyQuadratic, Schedule, optimize_schedule, risk, steps_to_target, tune, use_backend
from .arguments import add_command

__all__ = ["Warmup", "add", "run", "warmup"]

_SMALL = NoisyQuadratic([1.0, 0.1])
_KINDS = {1: SGD(0.1), 2: SGD(0.1, 0.5), 3: EMA(SGD(0.1, 0.5), 0.5)}
"""Optimizers by how many numbers they keep of each coordinate: each has compiled code of its own."""


def _risk() -> None:
    for optimizer in _KINDS.values():
        risk(_SMALL, optimizer, 4, 10)


def _crossing() -> None:
    for optimizer in _KINDS.values():
        for batch_size in (4, [4, 8]):
            steps_to_target(_SMALL, optimizer, batch_size, 0.1)


def _tune() -> None:
    tune(_SMALL, SGD(FREE, FREE), 4, 0.1)


def _ema() -> None:
    for optimizer in (SGD(FREE), SGD(FREE, FREE)):
        tune(_SMALL, EMA(optimizer, FREE), 4, 0.1)


def _schedule(*states: int) -> None:
    lr: Any = Schedule([0.2, 0.1, 0.05], [2, 100, 2])  # a short piece is searched step by step, a long one in leaps
    free: Any = FREE
    for k in states:
        with warnings.catch_warnings():  # that the target is reached after the schedule's end is no matter here
            warnings.simplefilter("ignore", UserWarning)
            steps_to_target(_SMALL, _KINDS[k].with_values(lr=lr), 4, 0.01)
        optimize_schedule(_SMALL, 4, steps=10, pieces=2, optimizer=_KINDS[k].with_values(lr=free), restarts=1)


def _features() -> None:
    problem = NoisyQuadratic([1.0, 0.1], noise_model="gaussian-features", label_noise=0.1)
    for optimizer in _KINDS.values():
        steps_to_target(problem, optimizer, 4, 0.1)


def _scaling() -> None:
    from ..scaling.models.final_loss import FinalLosses
    from ..scaling.models.relative_lr import RelativeLR

    pieces = RelativeLR("cosine", 0.01).pieces(np.array([1000.0]))
    FinalLosses(np.array([1e6]), np.array([64.0]), pieces).losses(np.zeros(7))


PARTS: dict[str, Callable[[], Any]] = {
    "risk": _risk,
    "crossing": _crossing,
    "tune": _tune,
    "ema": _ema,
    "schedule": lambda: _schedule(1),
    "schedule-momentum": lambda: _schedule(2, 3),
    "features": _features,
    "scaling": _scaling,
}
"""What can be compiled: risk, steps to a target, the same tuned without and with averages (a sweep's), schedules,
Gaussian features, fits to training logs."""


ABOUT = """Machine code is compiled when it is first needed, some seconds for each kind of question, and kept on disk;
this compiles it ahead: in a Dockerfile, Binder's postBuild, or before a CI job's cache is saved. NUMBA_CACHE_DIR in the
environment names the folder to keep it in (default: __pycache__ beside the installed package, or Numba's folder in the
user's home); set it to the same folder where nqm runs. Kept code is for one version of nqm, Python and Numba, and for
one kind of processor: where the image runs on others, set NUMBA_CPU_NAME=generic both times, for slower code.
NQM_CACHE=0 keeps nothing."""


def add(commands: Any) -> None:
    parser = add_command(commands, "warmup", run, "compile ahead what the first questions would wait for", "nqm warmup")
    parser.description = ABOUT
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all, about a minute")


def run(arguments: argparse.Namespace) -> int:
    done = warmup(arguments.parts, say=lambda line: print(line, file=sys.stderr, flush=True))
    if arguments.json:
        print(json.dumps(done._asdict()))
    elif done.compiled:
        print(f"{done.compiled} functions compiled in {done.seconds:.0f} s, kept in {done.folder}")
    else:
        print(f"nothing to compile: all is kept in {done.folder}")
    return 0


class Warmup(NamedTuple):
    """folder: where compiled code is kept. compiled: functions that were not there yet. seconds: wall time."""

    folder: str
    compiled: int
    seconds: float


def warmup(parts: Sequence[str] | None = None, say: Callable[[str], None] | None = None) -> Warmup:
    """Compile the code of ``parts`` (keys of :data:`PARTS`; default: all) that is not in the cache yet.

    ``say`` is given a line about each part when it is done.

    Raises:
        ValueError: for an unknown part.
        RuntimeError: where compiled code is not kept: NQM_CACHE=0, or no folder that can be written to.
    """
    chosen = list(PARTS) if not parts else list(parts)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise ValueError(f"unknown part {unknown[0]!r}: expected one of {', '.join(PARTS)}")
    from ..backends import (
        compilation,
        numba_backend,  # noqa: F401  (that there are kernels to ask)
    )

    folder, words = compilation.kept()
    if folder is None:
        raise RuntimeError(f"expected a folder that keeps compiled code, got {words}")
    compilation.first_use.told = True  # each part says so
    first, began = compilation.compilations(), time.perf_counter()
    with use_backend("numba"):
        for number, name in enumerate(chosen, 1):
            before, start = compilation.compilations(), time.perf_counter()
            PARTS[name]()
            if say is not None:
                count = compilation.compilations() - before
                what = f"{count} function{'s' * (count > 1)} compiled" if count else "nothing to compile"
                say(f"[{number}/{len(chosen)}] {name}: {what}, {time.perf_counter() - start:.1f} s")
    return Warmup(folder, compilation.compilations() - first, time.perf_counter() - began)
