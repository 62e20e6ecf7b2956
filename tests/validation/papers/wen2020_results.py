"""Made-up results of wen2020's jobs: what they would be if every claim held, or else as a test has it."""

from __future__ import annotations

import math

import numpy as np

from nqm._table import Table
from nqm.validation.experiments.paper import Effort, Result

DIGITS = Effort(False, 0, "digits")
PLACES = {"SB": 1.0, "LB": 0.0, "LB + full": 1.0, "LB + true full": 1.05, "LB + multiplicative": 1.0,
          "LB + diagonal": 0.1, "LB + trace": 0.05, "LB + K-FAC": 0.5}  # fmt: skip
ACCURACIES = {"SB": 96.0, "LB": 94.0, "LB + full": 95.9, "LB + diagonal": 95.7, "LB + trace": 95.0}
LAYERS = {"mlp": ("1", "3", "5"), "cnn": ("0", "3", "7", "9"), "resnet8": ("stem", "blocks.0.first", "head")}


def noise_of(settings) -> np.random.Generator:
    """Numbers of one job's own, the same in every run."""
    return np.random.default_rng([ord(letter) for letter in repr(sorted(settings.items()))])


def curve(settings, places=PLACES):
    """The log loss lies where the regime's place between LB and SB says, 0.3 apart."""
    step = np.arange(0, settings["updates"] + 1, settings["every"])
    seeds = np.random.default_rng(settings["seed"]).normal(0.0, 0.1)
    log_loss = np.log(2.3) - 3.0 * step / step[-1] + seeds + 0.3 * places[settings["regime"]] * (step > 0)
    log_loss = log_loss + noise_of(settings).normal(0.0, 0.01, step.size)
    return {"step": step, "training loss": np.exp(log_loss), "training error": np.exp(log_loss) / 5.0,
            "diverged": np.zeros(step.size, dtype=int)}  # fmt: skip


def model(settings):
    rows = [
        {"regime": regime, "step": step, "training loss": math.exp(-step / 100.0 + 0.2 * PLACES[regime]), "ratio": 20.0}
        for regime in ("SB", "LB", "LB + full", "LB + diagonal", "LB + trace")
        for step in range(0, settings["updates"] + 1, settings["every"])
    ]
    return Table.from_rows(rows, rows[0])


def variance(settings):
    rows = []
    for regime in ("SB", "LB", "LB + full", "LB + diagonal", "LB + trace"):
        for number, layer in enumerate(LAYERS[settings["net"]]):
            exact = 10.0 ** -(3 + number) / (32.0 if regime == "LB" else 1.0) * (3.0 if regime == "LB + trace" else 1.0)
            sampled = exact * (1.0 + 0.02 * noise_of(settings).normal(size=5)[number])
            rows.append({"regime": regime, "layer": layer, "parameters": 10 * (number + 1), "exact": exact,
                         "sampled": sampled})  # fmt: skip
    return Table.from_rows(rows, rows[0])


def norms(settings):
    at = np.array(settings["at"], dtype=float)
    scale = (1.0 + at / 100.0) * (1.0 + 0.05 * noise_of(settings).normal())
    return {"step": at.astype(int), "norm of F": 5.0 * scale, "norm of diag F": scale, "Tr HF": 30.0 * scale,
            "Tr H diag F": 2.0 * scale, "Tr H Tr F / P": 0.5 * scale}  # fmt: skip


def end(settings):
    """Accuracy rises as the loss falls, to the regime's own; weaker noise lies in between."""
    regime, top = settings["regime"], ACCURACIES[settings["regime"]]
    if regime == "LB + diagonal" and settings["small"] > 8 and settings["data"] == "digits":
        top = 94.0 + 1.7 * math.sqrt((1 / settings["small"] - 1 / 256) / (1 / 8 - 1 / 256))
    top += noise_of(settings).normal(0.0, 0.1)
    step = np.unique(np.geomspace(1, 175, settings["readings"]).astype(int))
    loss = 2.3 * np.exp(-3.0 * step / 175.0)
    accuracy = top / 100.0 - 0.2 * (loss - loss[-1])
    last = np.arange(step.size) == step.size - 1
    sharp = {"SB": 2.0, "LB": 9.0}.get(regime, 4.0) * math.exp(noise_of(settings).normal(0.0, 0.05))
    return {
        "step": step, "training loss": loss, "held-out loss": loss + 0.2 - 0.002 * top, "held-out accuracy": accuracy,
        "largest Hessian eigenvalue": np.where(last, 2.0 * sharp, math.nan),
        "largest Hessian eigenvalue, tempered": np.where(last, sharp, math.nan),
        "diverged": np.zeros(step.size, dtype=int),
    }  # fmt: skip


def costs(settings):
    names = ["forward pass", *PLACES]
    seconds = [1.0, 0.5, 3.0, 6.0, 7.0, 3.1, 4.0, 4.0, 9.0]
    return {"regime": names, "seconds": np.array(seconds) * (1.0 + 0.01 * noise_of(settings).normal(size=9))}


KINDS = {"curve": curve, "model": model, "variance": variance, "norms": norms, "end": end, "costs": costs}


def results(figure, effort=DIGITS, change=lambda settings, columns: columns, **options):
    """What the figure's jobs would have returned."""
    found = []
    for settings in figure.jobs(effort):
        columns = dict(KINDS[settings["kind"]](settings, **options))
        found.append(Result(settings, Table(change(settings, columns))))
    return found
