"""jastrzebski2021 on networks: figures 1 to 18 and tables 1 to 6, and the claims that they show."""

from __future__ import annotations

from ...experiments.paper import NetworkFigure, Paper
from . import basins, correlation, costs, explosion, late, noisy_labels, penalties, traces, variants
from .runs import PROTOCOL, run

__all__ = ["PAPER"]


def _place(figure: NetworkFigure) -> tuple[bool, int]:
    """Figures, then tables, by number."""
    number = figure.name.partition("-")[2]
    return number.startswith("table"), int(number.removeprefix("table"))


SUBJECTS = (explosion, correlation, penalties, late, noisy_labels, basins, traces, variants, costs)
PAPER = Paper(
    "jastrzebski2021",
    "Catastrophic Fisher Explosion: Early Phase Fisher Matrix Impacts Generalization",
    run,
    tuple(sorted((figure for subject in SUBJECTS for figure in subject.FIGURES), key=_place)),
    PROTOCOL,
    "How large the gaps are on CIFAR and ImageNet (9 points in table 1): 449 digits leave some 1 point between "
    "learning rates, and claims that start from a gap are judged only where it is seen. Anything about batch norm "
    "(TinyImageNet's Wide ResNet), augmentation, weight decay, or learning rates that fall. Whether the penalties "
    "compete with mixup where mixup was made for. What hundreds of epochs do: a run here has some 170.",
    "FP: the Fisher penalty, GP: the same by the examples' labels, GP_r: by uniform ones, GP_x: on the gradient by the "
    "inputs; eta*: the best learning rate; CNN-12: 12 filters, MLP-128: 128 hidden units. The noisy quadratic has no "
    "answer: with constant noise its Fisher matrix is the same everywhere.",
)
