"""How large the Fisher matrix and its diagonal are, alone and against the Hessian (wen2020 figure 5a, Theorem 4.1).

F = 1/n sum_i g_i g_i^T with the examples' own labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...training.data import Data
from ...training.functional import Net
from ...training.per_example import gradients, mean_squares
from .base import OfFirst, check_choice, check_whole
from .hessian import mean_form, quadratic_forms

__all__ = ["FisherNorm", "TraceHF"]


@dataclass(frozen=True)
class FisherNorm(OfFirst):
    """Frobenius norm of F ("full"), by ||F||^2 = 1/n^2 sum_ij (g_i . g_j)^2, or of its diagonal ("diagonal")."""

    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.kind, "kind", ("full", "diagonal"))

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        x, y = self.of(data)
        if self.kind == "diagonal":
            return float(mean_squares(net, theta, x, y).double().norm())
        total = 0.0
        for rows in gradients(net, theta, x, y):
            for columns in gradients(net, theta, x, y):  # anew: all of them at once may not fit
                total += float((rows @ columns.T).double().square().sum())
        return math.sqrt(total) / len(x)


@dataclass(frozen=True)
class TraceHF(OfFirst):
    """Tr(H N) of the Hessian H of the mean loss and the covariance N of noise that is put in: what it adds to the loss.

        full        N = F: mean_i g_i^T H g_i, exact
        diagonal    N = diag F
        trace       N = Tr(F) / P times the identity: Tr(H) Tr(F) / P

    The last two are means of v^T H v over v ~ N(0, N).

    Args:
        kind: one of these.
        vectors: how many v.
        examples: the first so many to train on; None: all.
    """

    kind: str
    vectors: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.kind, "kind", ("full", "diagonal", "trace"))
        check_whole(self.vectors, "vectors", 2)

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        return self.with_error(net, theta, data, generator)[0]

    def with_error(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> tuple[float, float]:
        """The value and its standard error over the v, 0 for the full one."""
        x, y = self.of(data)
        if self.kind == "full":
            sums = [float(quadratic_forms(net, theta, x, y, some).sum()) for some in gradients(net, theta, x, y)]
            return sum(sums) / len(x), 0.0
        squares = mean_squares(net, theta, x, y)
        if self.kind == "trace":
            squares = squares.mean().expand_as(squares)
        return mean_form(net, theta, x, y, squares.sqrt(), self.vectors, generator)
