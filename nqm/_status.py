"""How a search ended: one status with a sentence; and the errors of questions that have no answer here."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Status", "TooManyLeaps", "Unresolved"]


class Status(StrEnum):
    """A status is its own text: ``result.status == "tuned"``. It has a ``message`` and says whether it is a
    ``success``."""

    TUNED = "tuned"
    FIXED = "fixed"
    ALREADY_THERE = "already there"
    UNREACHABLE = "unreachable"
    AFTER_END = "reached after the schedule's end"
    CONVERGED = "converged"
    STALLED = "stalled"

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        return _MESSAGES[self]

    @property
    def success(self) -> bool:
        """Whether what was asked for was found."""
        return self not in (Status.UNREACHABLE, Status.STALLED)

    def __repr__(self) -> str:
        return repr(self.value)

    def __reduce_ex__(self, protocol: object) -> tuple[type[Status], tuple[str]]:
        return Status, (self.value,)


_MESSAGES = {
    Status.TUNED: "The hyperparameters of the fewest steps were searched for and found.",
    Status.FIXED: "Nothing was free; these are the optimizer's own steps.",
    Status.ALREADY_THERE: "The start lies at or below the target: no step is needed.",
    Status.UNREACHABLE: "No choice that was tried reaches the target; the best found is returned.",
    Status.AFTER_END: "The target is reached only after the schedule has ended, at its last value.",
    Status.CONVERGED: "A local minimum: the slopes along all free directions vanish.",
    Status.STALLED: "The descent stopped before the slopes vanished; the schedule is valid, a better one may be near.",
}


class Unresolved(ArithmeticError):
    """No rule of at most 2^22 nodes settles the risk (a huge spectrum under very long oscillation)."""

    def __init__(self, nodes: int, agreement: float) -> None:
        super().__init__(nodes, agreement)
        self.nodes, self.agreement = nodes, agreement

    def __str__(self) -> str:
        return (
            f"the risk on this spectrum is not settled to {self.agreement:g} with {self.nodes} nodes: the optimizer "
            "oscillates faster over the spectrum than they can follow. Use fewer steps, less momentum, or a smaller dim"
        )


class TooManyLeaps(ArithmeticError):
    """Where the target is reached takes too many leaps over time to tell."""

    def __init__(self, target: float, steps: int, leaps: int) -> None:
        super().__init__(target, steps, leaps)
        self.target, self.steps, self.leaps = target, steps, leaps

    def __str__(self) -> str:
        return (
            f"when the risk crosses {self.target:g} can't be told in {self.leaps:.3g} leaps over time: they got to "
            f"step {self.steps:.6g}, as a risk that swings around the target lets them span a few steps only; nqm.risk "
            "gives it at any step"
        )
