"""What every kind of dynamics answers: risks, first passages, steady state, stability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from .._checks import FloatArray, IntArray
from ..backends.types import Word
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..problems.refinement import refine_until_agree

__all__ = ["Dynamics", "Values", "rows_of"]

Values = Mapping[str, Any]
"""Hyperparameters by name: numbers, or arrays of shape (R,) for R rows."""


class Dynamics(ABC):
    """How second moments evolve on the nodes of one problem under one optimizer (of its kind, not its numbers).

    Hyperparameters come as ``values``; ``batch_size`` is a number or (R,), ``target`` (R,). Whoever computes asks
    :func:`nqm.dynamics.select.dynamics_of` for one of these, and nobody asks again what kind of noise it is.
    """

    exact: ClassVar[bool] = True
    """Whether its numbers are the model's own; a closure has False."""

    follows_time: ClassVar[bool] = False
    """Whether rows are followed through time one by one, so that those that differ in their steps only share it."""

    limit_needs_batch_size: ClassVar[bool] = False
    """Whether the stability limit depends on the batch size."""

    has_gradient: ClassVar[bool] = False
    """Whether gradients by the letters of a word are known."""

    most_nodes: ClassVar[float] = float("inf")
    """Finer rules for the spectrum are not tried."""

    steps_agree: ClassVar[float] = 0.0
    """First passages on two rules agree where they differ by no more than this, relative to them."""

    line_points: ClassVar[int] = 6001
    """Points that a search along a single hyperparameter looks at."""

    def __init__(self, problem: NoisyQuadratic, optimizer: Optimizer) -> None:
        self.problem, self.optimizer = problem, optimizer

    # --- what is asked ----------------------------------------------------------------------------------------------

    @abstractmethod
    def risk(self, values: Values, batch_size: Any, steps: IntArray) -> FloatArray:
        """Expected risk after ``steps`` (R,) steps: (R,)."""

    @abstractmethod
    def dyadic_risk(self, values: Values, batch_size: Any, count: int, levels: int) -> FloatArray:
        """Expected risk of ``count`` rows after 2^j steps, j = 0 ... levels - 1: (count, levels)."""

    @abstractmethod
    def risk_along(self, values: Values, batch_size: Any, count: int, word: Word, columns: int) -> FloatArray:
        """Expected risk along a word, (count, columns); values["lr"] and 1 / batch_size multiply those of its letters,
        each a number or (count,)."""

    @abstractmethod
    def first_passage(self, values: Values, batch_size: Any, target: FloatArray, last: bool) -> FloatArray:
        """First step at or below the target, or the one after the last above it (0: none); inf if there is none: (R,).

        Raises:
            TooManyLeaps: where finding out takes too long.
        """

    @abstractmethod
    def first_passage_along(
        self, values: Values, batch_size: float, word: Word, end: int, target: float, last: bool
    ) -> float:
        """The same for one row along a word, for steps before its ``end`` (2^53 where it holds)."""

    @abstractmethod
    def steady_risk(self, values: Values, batch_size: Any, count: int) -> FloatArray:
        """Expected risk in the long run: (count,)."""

    @abstractmethod
    def stability_limit(self, values: Values, batch_size: Any = None) -> Any:
        """The least learning rate that is not stable, for rows of the other hyperparameters."""

    def looks_for_ripples(self, steps: float, dimensions: int) -> bool:
        """Whether a search in so many dimensions can afford to look for ripples of the risk after so many steps."""
        return True

    def risk_tolerance(self, steps: float) -> float:
        """Relative error of a rule's risk after ``steps`` steps that a search can bear: what tells one step from the
        next."""
        return min(1e-5, 0.02 / steps)

    def under(self, optimizer: Optimizer) -> Any:
        """The same dynamics with another optimizer's numbers."""
        return type(self)(self.problem, optimizer)

    # --- rules for the spectrum -------------------------------------------------------------------------------------

    def on(self, problem: NoisyQuadratic) -> Any:
        """The same dynamics on other nodes."""
        return type(self)(problem, self.optimizer)

    def finer(self) -> Any:
        """On the next finer rule; None where this one is exact, or no finer one can be had."""
        nodes = None if self.problem._is_exact() else self.problem._finer()
        return None if nodes is None or nodes.curvature.size > self.most_nodes else self.on(nodes)

    def rule_for_risk(self) -> Dynamics:
        """On the rule that risks start from, to be refined until two agree."""
        return self

    def rule_for_search(self) -> Any:
        """On the rule that searches start from: of very many nodes fewer, that refine to them."""
        return self.on(self.problem._compressed_above(MANY_NODES))

    def coarse_rule(self) -> Any:
        """On a rule to look around with."""
        return self.rule_for_search()

    def refined(self, evaluate: Callable[[Any, Any], FloatArray]) -> FloatArray:
        """``evaluate(dynamics, rows)`` on finer and finer rules until each row agrees with the one before.

        Raises:
            Unresolved: where no rule settles it.
        """
        return refine_until_agree(
            self.problem, lambda nodes, rows: evaluate(self.on(nodes), rows), most_nodes=self.most_nodes
        )


MANY_NODES = 4096
"""Explicit problems with more nodes are searched on a Gauss rule first."""


def rows_of(values: Values, rows: Any) -> dict[str, Any]:
    """Some rows of the hyperparameters."""
    return {name: value[rows] for name, value in values.items()}
