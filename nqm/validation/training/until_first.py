"""Training for real: many runs of one optimizer at once, until the first of them reaches the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .ensemble import EnsembleRun
from .task import EXPLODED, Task
from .trials import Outcome, Trial, check_trials

__all__ = ["train_until_first"]


def train_until_first(task: Task, trials: Sequence[Trial], max_steps: int, to_the_end: bool = False) -> list[Outcome]:
    """Train the trials side by side, step by step; stop once every target has been reached by one of them (with
    ``to_the_end``: every target by all), or after ``max_steps``. Outcomes in the order of the trials.

    All have the same optimizer and batch size. Batches are drawn with replacement, by each trial's own generator, so
    that a trial goes the same way whoever runs beside it (up to rounding: sums over a larger stack of runs may be
    taken in another order). Steps to a target are interpolated linearly between two readings, which lie a tenth of
    the steps apart (:func:`nqm.validation.training.ensemble.readings`). K-FAC's factors are taken anew at each reading,
    of 256 more examples whose labels are drawn from the model, without a running average; those examples are counted
    nowhere.

    Raises ValueError for no trials, unknown optimizers or hyperparameters, or trials of more than one kind.
    """
    runs = EnsembleRun(task, trials, check_trials(trials, max_steps))
    standings = _Standings(task, trials, runs)
    number = 0
    for number in runs.train(max_steps):
        standings.judge(number)
        if not runs.running or (standings.decided() and not to_the_end):
            break
    overtaken = standings.decided() and not to_the_end
    standings.remove("overtaken" if overtaken else "too slow", range(len(runs.running)), number)
    return [standings.outcomes[i] for i in range(len(trials))]


class _Standings:
    """How far the runs have come, as they were read last."""

    def __init__(self, task: Task, trials: Sequence[Trial], runs: EnsembleRun) -> None:
        self.task, self.trials, self.runs = task, trials, runs
        self.outcomes: dict[int, Outcome] = {}
        self.steps: list[dict[str, float]] = [dict.fromkeys(task.targets, math.inf) for _ in trials]
        self.last_read, self.last = 0, runs.read()
        self.start = self.last["training loss"].clone()

    def judge(self, number: int) -> None:
        """Read the metrics, note the targets that were crossed, remove what has arrived or diverged."""
        running, now = self.runs.running, self.runs.read()
        for metric, target in self.task.targets.items():
            before, after = self.last[metric].tolist(), now[metric].tolist()
            for place, run in enumerate(running):
                if after[place] <= target and self.steps[run][metric] == math.inf:
                    share = (before[place] - target) / (before[place] - after[place]) if before[place] > target else 0.0
                    self.steps[run][metric] = self.last_read + share * (number - self.last_read)
        exploded = ~(now["training loss"] <= EXPLODED * self.start)
        self.last_read, self.last = number, now
        self.remove("diverged", exploded.nonzero().flatten().tolist(), number)
        arrived = [p for p, run in enumerate(self.runs.running) if math.inf not in self.steps[run].values()]
        self.remove("reached", arrived, number)

    def decided(self) -> bool:
        """Whether every target has been reached by one of the trials."""
        return all(min(steps[metric] for steps in self.steps) < math.inf for metric in self.task.targets)

    def remove(self, status: str, places: Iterable[int], number: int) -> None:
        """The runs at these places end here, after so many steps."""
        gone = set(places)
        if not gone:
            return
        for place in gone:
            run = self.runs.running[place]
            self.outcomes[run] = Outcome(self.trials[run], status, self.steps[run], number)
        stay = [place for place in range(len(self.runs.running)) if place not in gone]
        self.runs.keep(stay)
        self.start = self.start[stay]
        self.last = {name: value[stay] for name, value in self.last.items()}
