"""Made-up results of jastrzebski2021's jobs: what they would be if its claims held, or else as a test has it."""

from __future__ import annotations

import math

import numpy as np

from nqm._table import Table
from nqm.validation.experiments.paper import Effort, Result
from nqm.validation.experiments.verdict import HOLDS
from nqm.validation.papers.jastrzebski2021.protocol import BATCH, BEST_RATE

FULL, QUICK = Effort(False, 0, "digits"), Effort(True, 0, "digits")


def noise_of(settings) -> np.random.Generator:
    """Numbers of one job's own, the same in every run."""
    return np.random.default_rng([ord(letter) for letter in repr(sorted(settings.items()))])


def course(settings, sign=1.0, trace=1.0, alike=True):
    """The slower a run by its rate over its batch size, the larger (sign -1: smaller) its error and largest Tr F (trace
    -1: that the other way round). alike: the traces of batches go with Tr F, else against it."""
    slow = sign * math.log10(BEST_RATE[settings["net"]] / settings["lr"] * settings["batch_size"] / BATCH)
    noise = noise_of(settings)
    first = settings["first"]
    step = np.arange(0, settings["steps"] + 1, -first) if first < 0 else np.geomspace(1, settings["steps"], 40) - 1.0
    loss = 2.3 * np.exp(-6.0 * step / step[-1])
    peak = 100.0 * math.exp(0.5 * trace * slow + noise.normal(0.0, 0.05))
    trace = 2.0 + peak * (loss / 2.3) * (1.0 - loss / 2.4) * 4.0
    accuracy = 0.96 - 0.02 * slow + noise.normal(0.0, 0.001) - 0.2 * loss
    jitter = np.exp(noise.normal(0.0, 0.1, (2, step.size)))
    return Table({
        "step": step, "training loss": loss, "training accuracy": 1.0 - loss / 3.0, "held-out accuracy": accuracy,
        "validation accuracy": accuracy + 0.001, "test accuracy": accuracy - 0.001, "Tr F": trace,
        "Tr F of a batch": trace ** (1 if alike else -1) / settings["batch_size"] * jitter[0],
        "squared gradient of a batch": trace ** (0.9 if alike else -0.9) / settings["batch_size"] * jitter[1],
        "diverged": np.zeros(step.size, dtype=int),
    })  # fmt: skip


def identity(settings, sign=1.0, **others):
    trace = 10.0 + np.arange(len(settings["at"]), dtype=float)
    ratio = 1.0 + (sign < 0.0) + noise_of(settings).normal(0.0, 0.02, trace.size)
    return Table({"step": settings["at"], "Tr F": trace, "Tr F of a batch": trace * ratio / BATCH})


def curvature(settings, sign=1.0, **others):
    step = np.array(settings["at"], dtype=float)
    noise, size = noise_of(settings), {"cnn": 20.0, "mlp": 5.0, "resnet8": 80.0}[settings["net"]]
    trace = size * (1.0 + 10.0 * np.sin(3.0 * np.log1p(step) / np.log1p(step[-1])) ** 2)
    other = trace if sign > 0.0 else 12.0 * size - trace
    loss = 2.3 * np.exp(-6.0 * step / step[-1])
    return Table({
        "step": step, "training loss": loss, "held-out accuracy": 1.0 - loss / 2.5,
        "Tr H": trace * np.exp(noise.normal(0.0, 0.02, step.size)), "Tr F": other,
        "Tr F of a batch": other / BATCH * np.exp(noise.normal(0.0, 0.02, step.size)),
        "diverged": np.zeros(step.size, dtype=int),
    })  # fmt: skip


KINDS = {"course": course, "identity": identity, "curvature": curvature}


def results(figure, effort=FULL, **options):
    """Of a figure's jobs; options: those of the functions above."""
    return [Result(one, KINDS[one["kind"]](one, **options)) for one in figure.jobs(effort)]


def broken(found, seed=100):
    """The same results where the runs of one seed have diverged half way, where they end."""
    ended = []
    for one in found:
        columns = dict(one.columns)
        if one.settings["seed"] == seed and "diverged" in columns:
            rows = one.columns.rows // 2
            last = np.arange(rows) == rows - 1
            columns = {
                name: last.astype(int)
                if name == "diverged"
                else np.where(last & (name != "step"), math.nan, part[:rows])
                for name, part in columns.items()
            }
        ended.append(Result(one.settings, Table(columns)))
    return ended


def mean_and_error(values):
    """Over the seeds, which are the rows."""
    values = np.asarray(values, dtype=float)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(values))


def columns_of(found, column, **settings):
    """(seeds, rows) of one column of the jobs with these settings."""
    own = [one for one in found if all(one.settings[name] == value for name, value in settings.items())]
    assert own
    return np.array([one.columns[column] for one in own], dtype=float)


def require_all_hold(figure, found):
    """Every claim, each told once and in words that a table can hold."""
    verdicts = figure.judge(figure.compute(found))
    assert {verdict.verdict for verdict in verdicts} == {HOLDS}
    assert len({(verdict.claim, verdict.why) for verdict in verdicts}) == len(verdicts)
    assert not any("|" in text for verdict in verdicts for text in (verdict.claim, verdict.why))


def require_quick(figure, found):
    """The quick version, of fewer jobs, is drawn and judged."""
    table = figure.compute(found)
    figure.plot(table).canvas.draw()
    assert figure.judge(table)
    assert len(figure.jobs(QUICK)) < len(figure.jobs(FULL))
