"""wen2020 on networks: figures 2, 3, 5a, 5b, table 2, and what a step costs."""

from __future__ import annotations

from ...experiments.paper import Paper
from . import costs, fisher_norms, generalization, sharpness, speed, variance
from .quadratic import REFERENCE
from .runs import run

__all__ = ["PAPER"]

PAPER = Paper(
    "wen2020",
    "An Empirical Study of Stochastic Gradient Descent with Structured Covariance Noise",
    run,
    (
        variance.FIGURE,
        speed.FIGURE,
        fisher_norms.FIGURE,
        sharpness.FIGURE,
        generalization.FIGURE,
        costs.FIGURE,
    ),
    {"version": 1, "replacement": True, "schedule of end": "linear to 0", "reference of model": REFERENCE},
    "Anything about batch norm, and so about the paper's ghost batches, VGG, AlexNet or ResNet44, or about CIFAR: the "
    "networks here have no batch norm, since with it one example's gradient depends on its batch. How far the gap "
    "closes after thousands of updates of large batches. Differences in accuracy below some 0.3 points, which 20 "
    "splits do not resolve. The paper's hyperparameters are in an appendix that the text at hand lacks.",
    "SB, LB: batches of M_S and of M_L examples. LB + full, diagonal, trace, K-FAC: with noise on each step whose "
    "covariance has the shape of the Fisher matrix (by the examples' labels; true full: by labels drawn from the "
    "model), of its diagonal, of a sphere, of Kronecker factors, and the size that is lacking to SB's "
    "(multiplicative: the full one by weights on the examples). MLP-32: 32 hidden units; CNN-6: 6 filters. The noisy "
    "quadratic's column has the same number on the network's own quadratic, or where it says so on that of softmax "
    "regression.",
    ("digits", "mnist"),
)
