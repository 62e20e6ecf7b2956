"""What a search over time raises where its leaps prove too little."""

from __future__ import annotations


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
