"""Some three hundred numbers of the package, each the same to the bit from one commit to the next on one machine.

Run as a script it writes them down: ``python tests/golden.py`` fills ``data/golden.json``, as hex
floats, with the processor and the versions that computed them. That is done on purpose only: where a number is meant to
change, and the commit says why.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import nqm
from nqm import scaling, schedules

FILE = Path(__file__).parent / "data" / "golden.json"

FREE = nqm.FREE
POWER_LAW = nqm.NoisyQuadratic.power_law(10_000)
STEEP = nqm.NoisyQuadratic.power_law(10**7, 1.6)
EXPLICIT = nqm.NoisyQuadratic([4.0, 1.0, 0.3, 0.01], [1.0, 2.0, 0.5, 0.1], [1.0, 0.5, 2.0, 3.0], [1.0, 3.0, 2.0, 10.0])
FEATURES = nqm.NoisyQuadratic(
    [2.0, 1.0, 0.3, 0.01], noise_model="gaussian-features", label_noise=0.1, multiplicity=[1.0, 2.0, 5.0, 20.0]
)
MANY_FEATURES = nqm.NoisyQuadratic.power_law(1000, noise_model="gaussian-features", label_noise=0.01)

OPTIMIZERS: dict[str, Any] = {
    "sgd": nqm.SGD(0.3),
    "momentum": nqm.SGD(0.1, 0.9),
    "critical damping": nqm.SGD(0.25, 0.25),
    "nesterov": nqm.SGD(0.1, 0.95, nesterov=True),
    "preconditioned": nqm.Preconditioned(nqm.SGD(0.2, 0.5), 0.5),
    "ema": nqm.EMA(nqm.SGD(0.3), 0.99),
    "ema of momentum": nqm.EMA(nqm.SGD(0.1, 0.9), 0.97),
    "ema of nesterov": nqm.EMA(nqm.SGD(0.1, 0.7, nesterov=True), 0.9),
    "two states": nqm.LinearOptimizer(0.2, [[1.0, 0.8], [0.0, 0.8]], [1.0, 0.7], query=[1.0, 0.1]),
    "three states": nqm.LinearOptimizer(0.1, [[1.0, 0.9, 0.1], [0.0, 0.9, 0.0], [0.0, 0.0, 0.5]], [1.0, 1.0, 0.3]),
}
PROBLEMS = {"power law": POWER_LAW, "steep": STEEP, "explicit": EXPLICIT, "features": FEATURES}


def _risks() -> Iterator[tuple[str, Any]]:
    for problem_name, problem in PROBLEMS.items():
        for name, optimizer in OPTIMIZERS.items():
            yield f"risk, {problem_name}, {name}", nqm.risk(problem, optimizer, 64, [1, 30, 1000, 10**6])
            yield f"steady, {problem_name}, {name}", nqm.steady_state_risk(problem, optimizer, 64)
    yield "risk, many features", nqm.risk(MANY_FEATURES, nqm.SGD([0.1, 0.5], 0.5), [[8], [64]], 3000)
    yield "risk, no noise", nqm.risk(FEATURES, nqm.SGD(0.1, 0.5), np.inf, [10, 100])
    yield "risk, broadcast", nqm.risk(POWER_LAW, nqm.SGD([[0.1], [1.0]], [0.0, 0.9, 0.99]), 256, 12345)
    with nqm.use_backend("numpy"):
        for name, optimizer in OPTIMIZERS.items():
            yield f"risk, reference, {name}", nqm.risk(EXPLICIT, optimizer, 64, 777)


def _stability() -> Iterator[tuple[str, Any]]:
    for name, optimizer in OPTIMIZERS.items():
        yield f"max_stable_lr, {name}", nqm.max_stable_lr(EXPLICIT, optimizer)
        yield f"max_stable_lr, features, {name}", nqm.max_stable_lr(FEATURES, optimizer, 16)


def _along_schedules() -> Iterator[tuple[str, Any]]:
    lr = nqm.Schedule([0.3, 0.02, 0.0, 0.1], [200, 500, 50, 250])
    cosine = schedules.cosine(0.2, 300)
    ramp = nqm.Schedule([16.0, 64.0], [400, 600])
    for problem_name in ("power law", "explicit", "features"):
        problem = PROBLEMS[problem_name]
        for name in ("sgd", "momentum", "nesterov", "ema", "ema of momentum", "three states"):
            scheduled = OPTIMIZERS[name].with_values(lr=lr)
            yield f"along, {problem_name}, {name}", nqm.risk(problem, scheduled, ramp, [100, 720, 1000])
    for name in ("sgd", "ema of momentum"):
        yield f"along cosine, {name}", nqm.risk(POWER_LAW, OPTIMIZERS[name].with_values(lr=cosine), [16, 64], 300)
    with nqm.use_backend("numpy"):
        yield "along, reference", nqm.risk(EXPLICIT, OPTIMIZERS["ema of momentum"].with_values(lr=lr), ramp, 1000)


def _crossings() -> Iterator[tuple[str, Any]]:
    for name, optimizer in OPTIMIZERS.items():
        for crossing in ("first", "last"):
            found = nqm.steps_to_target(POWER_LAW, optimizer, [256, 4096], 0.05, crossing)  # type: ignore[call-overload]
            yield f"steps, {name}, {crossing}", found
    swinging = nqm.NoisyQuadratic([1.0, 0.5])
    yield "steps, swinging", nqm.steps_to_target(swinging, nqm.SGD(0.5, 0.99), 1e6, [0.3, 0.03], "last")
    yield "steps, features", nqm.steps_to_target(FEATURES, nqm.SGD(0.1), [16, 256], 0.1)
    yield "steps, features, momentum", nqm.steps_to_target(FEATURES, nqm.SGD(0.02, 0.8), 256, 0.1)
    down = nqm.Schedule([0.5, 0.1, 0.0, 0.05], [500, 2000, 100, 10_000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reached after the schedule's end
        for name in ("sgd", "momentum", "ema of momentum"):
            scheduled = OPTIMIZERS[name].with_values(lr=down)
            yield f"steps along, {name}", nqm.steps_to_target(POWER_LAW, scheduled, 2048, 0.1)
    yield "steps along, features", nqm.steps_to_target(FEATURES, nqm.SGD(down), 64, 0.2)


def _searches() -> Iterator[tuple[str, Any]]:
    for name, optimizer in {
        "sgd": nqm.SGD(FREE),
        "momentum": nqm.SGD(FREE, FREE),
        "nesterov": nqm.SGD(FREE, FREE, nesterov=True),
        "ema": nqm.EMA(nqm.SGD(FREE), FREE),
        "preconditioned": nqm.Preconditioned(nqm.SGD(FREE, 0.9), 0.5),
    }.items():
        best = nqm.tune(POWER_LAW, optimizer, 512, 0.02)
        yield f"tune, {name}", [best.steps, best.risk, *best.optimizer.hyperparameters.values()]
    best = nqm.tune(POWER_LAW, nqm.SGD(FREE, FREE), 64, steps=2000)
    yield "tune to steps", [best.risk, *best.optimizer.hyperparameters.values()]
    best = nqm.tune(FEATURES, nqm.SGD(FREE), 16, 0.1)
    yield "tune, features", [best.steps, best.risk, best.optimizer.lr]
    table = nqm.sweep(
        POWER_LAW, {"SGD": nqm.SGD(FREE), "fixed": nqm.SGD(0.5, 0.9)}, [16, 1024, 2**16], [0.1, 0.02], progress=False
    )
    for column in ("steps", "examples", "risk", "lr", "momentum"):
        yield f"sweep, {column}", table.table[column]
    yield "critical batch size", list(table.critical_batch_size(0.02).values())


def _schedules_found() -> Iterator[tuple[str, Any]]:
    best = nqm.optimize_schedule(POWER_LAW, 256, steps=3000, pieces=6)
    yield "schedule, steps", [best.risk, best.gradient_norm, *best.schedule.values]
    best = nqm.optimize_schedule(POWER_LAW, 64, target=0.05, pieces=4)
    yield "schedule, target", [best.steps, best.risk, *best.schedule.values]
    best = nqm.optimize_schedule(POWER_LAW, 64, steps=500, pieces=2, optimizer=nqm.SGD(FREE, FREE))
    yield "schedule, momentum", [best.risk, *best.schedule.values, best.optimizer.momentum]
    batches = nqm.optimize_schedule(POWER_LAW, FREE, steps=1000, pieces=3, optimizer=nqm.SGD(0.3), examples=1e5)
    yield "schedule, batches", [batches.risk, *batches.schedule.values]


def _others() -> Iterator[tuple[str, Any]]:
    generator = np.random.default_rng(0)
    root = generator.standard_normal((4, 4))
    hessian, factor = root @ root.T + np.eye(4), generator.standard_normal((4, 4))
    plain = nqm.NoisyQuadratic.from_matrices(hessian, factor @ factor.T, np.ones(4))
    preconditioned = nqm.NoisyQuadratic.from_matrices(hessian, None, np.eye(4), np.diag([1.0, 2.0, 3.0, 4.0]))
    for name, problem in (("matrices", plain), ("matrices, preconditioner", preconditioned)):
        yield name, [*problem.curvature, *problem.noise, *problem.init, nqm.risk(problem, nqm.SGD(0.05, 0.5), 8, 200)]
    yield "binned", POWER_LAW.binned(20).multiplicity
    yield "compressed", nqm.NoisyQuadratic(1.0 / np.arange(1.0, 2001.0)).compressed(1e-3).curvature[:6]
    yield (
        "bounds",
        [
            nqm.bounds.bayes(POWER_LAW, 1e5),
            nqm.bounds.mle(POWER_LAW, 1e6),
            nqm.bounds.examples_to_target(POWER_LAW, 0.1),
            nqm.bounds.steady_state(EXPLICIT, nqm.SGD(0.1, 0.5), 8),
            nqm.bounds.momentum(EXPLICIT, nqm.SGD(0.1, 0.5), 8, 50),
            nqm.bounds.ema(EXPLICIT, nqm.EMA(nqm.SGD(0.1), 0.9), 8, 50),
        ],
    )
    yield "noise", [
        nqm.noise.without_replacement(64, 1000), nqm.noise.enhanced(64, 1.5), nqm.noise.scale(0.1, 64, 1000, 0.9),
        nqm.noise.simple_noise_scale(EXPLICIT, 0.5, nqm.SGD(0.1), 16, 20), nqm.noise.hessian_noise_scale(EXPLICIT),
    ]  # fmt: skip
    found = nqm.simulate(EXPLICIT, nqm.EMA(nqm.SGD(0.1, 0.5), 0.9), 8, [10, 100], 50, seed=3)
    yield "simulate", np.ravel(found.mean)
    found = nqm.simulate(FEATURES, nqm.SGD(0.05), 8, [10, 100], 20, seed=3)
    yield "simulate, features", np.ravel(found.mean)


def _fits() -> Iterator[tuple[str, Any]]:
    log = scaling.example_runs()
    fit = scaling.fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=0.01)
    yield "fit_runs", [fit.predict(3e8, 512, 30_000), fit.floor(3e8), *fit.effective_lr(3e8, 512, 30_000).values]
    baseline = scaling.chinchilla(log.N, log.B, log.K, log.loss)
    yield "chinchilla", baseline.predict(3e8, 512, 30_000)
    curves = {}
    for name, lr in {"cosine": schedules.cosine(1e-3, 4000), "constant": schedules.constant(5e-4, 4000)}.items():
        steps = np.arange(100, 4001, 100)
        risk = nqm.risk(POWER_LAW, nqm.SGD(nqm.Schedule(100.0 * lr.values, lr.lengths)), 64, steps)
        curves[name] = scaling.LossCurve(steps, 2.0 + risk, lr)
    fitted = scaling.fit_curves(curves)
    yield "fit_curves", fitted.predict(schedules.linear(1e-3, 3000), [1000, 3000])


GROUPS: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "risks": _risks,
    "stability": _stability,
    "along schedules": _along_schedules,
    "crossings": _crossings,
    "searches": _searches,
    "schedules found": _schedules_found,
    "others": _others,
    "fits": _fits,
}


def computed(group: str) -> dict[str, list[str]]:
    """The numbers of a group by name, as hex floats."""
    return {
        name: [float(x).hex() for x in np.atleast_1d(np.asarray(value, dtype=float)).ravel()]
        for name, value in GROUPS[group]()
    }


def machine() -> dict[str, str]:
    """What the last digits depend on."""
    from llvmlite.binding import get_host_cpu_name

    model = platform.processor()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        lines = listed.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    packages = {name: version(name) for name in ("numpy", "scipy", "numba", "llvmlite")}
    compiled_for = os.environ.get("NUMBA_CPU_NAME") or get_host_cpu_name()
    blas = os.environ.get("OPENBLAS_CORETYPE") or "default"
    return {
        "processor": model,
        "compiled for": compiled_for,
        "BLAS": blas,
        "python": platform.python_version(),
        **packages,
    }


if __name__ == "__main__":
    numbers = {group: computed(group) for group in GROUPS}
    FILE.write_text(json.dumps({"machine": machine(), "numbers": numbers}, indent=1) + "\n", encoding="utf-8")
    print(sum(len(values) for group in numbers.values() for values in group.values()), "numbers", file=sys.stderr)
