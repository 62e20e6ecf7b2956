# mypy: warn-return-any
"""What a user writes, for the type checker: mypy, strict, finds nothing here but the errors that are marked."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import nqm
from nqm import scaling
from nqm.optimizers import Optimizer

problem = nqm.NoisyQuadratic.power_law(100)
rates = np.geomspace(0.01, 1.0, 5)


def risks() -> float:
    after: float = nqm.risk(problem, nqm.SGD(0.1), 256, 100)
    lowest: float = nqm.risk(problem, nqm.SGD(rates), 256, 100).min()
    lists: NDArray[np.float64] = nqm.risk(problem, nqm.SGD([0.1, 1.0]), nqm.Schedule([4.0, 8.0], 50), 100).round(4)
    for value in nqm.risk(problem, nqm.EMA(nqm.SGD(0.1, momentum=0.9), decay=0.99), 256, [1, 2, 3]):
        after += float(value)
    wide: NDArray[np.float64] = nqm.risk(problem, nqm.SGD(0.1), np.array([4, 8]), 100)
    return after + lowest + float(lists[0] + wide[0]) + nqm.steady_state_risk(problem, nqm.SGD(0.1), 256)


def steps() -> float:
    count = nqm.steps_to_target(problem, nqm.Preconditioned(nqm.SGD(0.1), power=0.5), batch_size=256, target=0.1)
    many = nqm.steps_to_target(problem, nqm.SGD(rates[:, None], rates * 0.5), 256, target=0.1)
    limit: float = nqm.max_stable_lr(problem, nqm.SGD(nqm.FREE, momentum=0.9))
    limits = nqm.max_stable_lr(problem, nqm.SGD(nqm.FREE, momentum=rates * 0.5)).tolist()
    return count + float(many.min()) + limit + len(limits)


def tuned() -> int:
    best = nqm.tune(problem, nqm.SGD(lr=nqm.FREE, momentum=nqm.FREE), batch_size=256, target=0.1)
    lr: float = best.optimizer.lr
    after: float = nqm.risk(problem, best.optimizer, 256, int(best.steps))  # steps may be inf, and is then no int
    power: float = nqm.tune(problem, nqm.Preconditioned(nqm.SGD(nqm.FREE), 0.5), 256, 0.1).optimizer.power
    print(nqm.SGD(best.optimizer.lr * 2, momentum=best.optimizer.momentum), lr, after, power)
    return int(best.steps)


def saved(folder: Path, optimizer: nqm.SGD, others: dict[str, Optimizer]) -> None:
    result = nqm.sweep(problem, {"SGD": optimizer, **others}, batch_sizes=[4, 16], target=0.1)
    result.plot().figure.savefig(folder / "sweep.png")


def fits() -> float:
    log = scaling.example_runs()
    fit = scaling.fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=0.01)
    loss: float = fit.predict(3e8, 512, 30_000)
    losses: NDArray[np.float64] = fit.predict(3e8, [256, 512], 30_000)
    low, high = fit.interval(3e8, 512, 30_000)
    curves = scaling.fit_curves(scaling.read_curves("folder"))
    end: float = curves.predict(nqm.schedules.cosine(1e-3, 100), 100)
    course: NDArray[np.float64] = curves.predict(nqm.schedules.cosine(1e-3, 100), np.arange(1, 101))
    return loss + float(losses[0]) + (high - low) + end + float(course[0])


def refused() -> None:
    nqm.SGD("0.1")  # type: ignore
    nqm.SGD(None)  # type: ignore
    nqm.SGD(0.1, momentum=nqm.schedules.cosine(0.9, 100))  # type: ignore
    nqm.EMA(nqm.SGD(0.1), decay="0.9")  # type: ignore
    print(nqm.optimise)  # type: ignore
