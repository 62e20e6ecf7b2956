"""What to train next in a cell (an optimizer at a batch size), decided from nothing but the cell's earlier outcomes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from ..training.axes import Axis
from ..training.trials import Outcome, Trial
from .records import CONFIRMATION, Record

__all__ = [
    "CANDIDATES",
    "LONGER",
    "Cell",
    "Edge",
    "Settings",
    "TrialBatch",
    "best",
    "best_trials",
    "confirmation_runs",
    "edges",
    "next_batches",
    "points",
    "search_boxes",
    "stable_seed",
]

Box = dict[str, tuple[float, float]]
"""An interval for each hyperparameter, on the line where its axis is even (``Axis.to_line``)."""

CAP = 3  # a round trains at most this many times its budget
EXTRA = 2  # rounds beyond those asked for, while the best lies at an edge
EDGE = 0.1  # of the width of everything searched: that near is at the edge
NARROWER = 3.0  # each later round's box is this many times narrower
CANDIDATES = 4  # best trials that are run again with fresh seeds
LONGER = 3  # confirmation runs may take this many times the steps of the best trial
BITS = 30  # of a quasi-random number


@dataclass(frozen=True)
class Settings:
    """How thoroughly each cell is searched; :func:`nqm.validation.measure_steps` says what each means."""

    trials: int = 32
    rounds: int = 2
    seeds: int = 5
    seed: int = 0
    max_steps: int = 10_000
    max_examples: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            lowest = 0 if name == "seed" else 1
            if name == "max_examples" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{name}: expected a whole number of at least {lowest}, got {value!r}")

    def limit(self, batch_size: int) -> int:
        """The most steps a trial may take."""
        if self.max_examples is None:
            return self.max_steps
        return max(1, min(self.max_steps, self.max_examples // batch_size))


@dataclass(frozen=True)
class Cell:
    """An optimizer at a batch size: its search space, the metrics (the first decides) and the settings."""

    optimizer: str
    batch_size: int
    space: Mapping[str, Axis]
    metrics: tuple[str, ...]
    settings: Settings

    @property
    def key(self) -> tuple[str, int]:
        return self.optimizer, self.batch_size

    def __str__(self) -> str:
        return f"{self.optimizer} at batch size {self.batch_size}"


@dataclass(frozen=True)
class TrialBatch:
    """Trials of one cell that are trained side by side; start: index of the first one in its round."""

    cell: Cell
    round: int
    start: int
    trials: tuple[Trial, ...]
    max_steps: int

    @property
    def key(self) -> tuple[str, int, int, int]:
        return *self.cell.key, self.round, self.start

    def __str__(self) -> str:
        what = "final" if self.round == CONFIRMATION else f"round {self.round}, trial"
        last = self.start + len(self.trials) - 1
        return f"{self.cell}, {what} {self.start}" + (f" to {last}" if last > self.start else "")

    def records(self, outcomes: Sequence[Outcome]) -> list[Record]:
        size = len(self.trials)
        return [Record(self.round, self.start + i, self.start, size, outcome) for i, outcome in enumerate(outcomes)]


class Edge(NamedTuple):
    """side: "low" or "high". natural: the optimum may lie there. limit: nothing lies beyond."""

    side: str
    natural: bool
    limit: bool


def next_batches(cell: Cell, records: Sequence[Record]) -> list[TrialBatch]:
    """What can be trained now; nothing where the cell is finished. records: the cell's own, in order."""
    boxes, ended = search_boxes(cell, records)
    if not ended:
        return [_search_batch(cell, records, len(boxes), boxes[-1])]
    return _confirmation_batch(cell, records)


def best(records: Sequence[Record], metric: str) -> Outcome | None:
    """Fewest steps to the metric's target among the search's trials that did not diverge, the earliest among equals;
    None where none reached it."""
    return next(iter(best_trials(records, metric)), None)


def best_trials(records: Sequence[Record], metric: str) -> list[Outcome]:
    """The search's trials that reached the metric's target, by their steps."""
    search = [record.outcome for record in records if record.round != CONFIRMATION]
    reached = [trial for trial in search if trial.status != "diverged" and trial.steps[metric] < math.inf]
    return sorted(reached, key=lambda outcome: outcome.steps[metric])


def confirmation_runs(records: Sequence[Record], metric: str) -> list[Outcome]:
    """The runs with fresh seeds of the candidate with the least median of steps to the metric's target; none before
    there are any."""
    by_candidate: dict[tuple[float, ...], list[Outcome]] = {}
    for record in records:
        if record.round == CONFIRMATION:
            by_candidate.setdefault(tuple(record.outcome.trial.hyperparameters.values()), []).append(record.outcome)
    return min(by_candidate.values(), key=lambda runs: np.median([run.steps[metric] for run in runs]), default=[])


def search_boxes(cell: Cell, records: Sequence[Record]) -> tuple[list[Box], bool]:
    """The boxes of the rounds that have begun or can begin, and whether the search has ended."""
    boxes: list[Box] = [{name: (axis.to_line(axis.low), axis.to_line(axis.high)) for name, axis in cell.space.items()}]
    while _missing(cell, records, len(boxes)) == 0:
        done = len(boxes)
        leader = best([record for record in records if record.round <= done], cell.metrics[0])
        if leader is None:
            return boxes, True
        if done < cell.settings.rounds:
            width = NARROWER**-done
        elif done < cell.settings.rounds + EXTRA and any(
            not edge.natural and not edge.limit for edge in edges(cell, boxes, leader.trial.hyperparameters).values()
        ):
            width = 1.0 / NARROWER
        else:
            return boxes, True
        boxes.append(_box_around(cell.space, leader.trial.hyperparameters, width))
    return boxes, False


def edges(cell: Cell, boxes: Sequence[Box], values: Mapping[str, float]) -> dict[str, Edge]:
    """The hyperparameters that lie within a tenth of an edge of everything searched, and which edge."""
    found = {}
    for name, axis in cell.space.items():
        bottom, top = min(box[name][0] for box in boxes), max(box[name][1] for box in boxes)
        place, margin = axis.to_line(values[name]), EDGE * (top - bottom)
        lowest, highest = _line_limits(axis)
        natural = math.nan if axis.natural is None else axis.to_line(axis.natural)
        for side, end, limit, near in (
            ("low", bottom, lowest, place - bottom < margin),
            ("high", top, highest, top - place < margin),
        ):
            if near:
                found[name] = Edge(side, math.isclose(end, natural, abs_tol=1e-9), end == limit)
    return found


def _missing(cell: Cell, records: Sequence[Record], number: int) -> int:
    """How many more trials the round needs, within what it may train in all."""
    statuses = [record.outcome.status for record in records if record.round == number]
    budget = cell.settings.trials
    return min(budget - len(statuses) + statuses.count("diverged"), CAP * budget - len(statuses))


def _search_batch(cell: Cell, records: Sequence[Record], number: int, box: Box) -> TrialBatch:
    start = sum(record.round == number for record in records)
    seed = stable_seed(cell.settings.seed, "search")
    values = points(cell, number, box, start, _missing(cell, records, number))
    trials = tuple(Trial(cell.optimizer, cell.batch_size, seed, value) for value in values)
    found = [best(records, metric) for metric in cell.metrics]
    limit = cell.settings.limit(cell.batch_size)
    fewest = [limit if o is None else o.steps[m] for m, o in zip(cell.metrics, found, strict=True)]
    return TrialBatch(cell, number, start, trials, min(limit, max(1, math.ceil(max(fewest)))))


def _confirmation_batch(cell: Cell, records: Sequence[Record]) -> list[TrialBatch]:
    """The four best with each fresh seed, all trained to the end."""
    leader = best(records, cell.metrics[0])
    if leader is None or any(record.round == CONFIRMATION for record in records):
        return []
    settings = cell.settings
    slowest = max(steps for steps in leader.steps.values() if steps < math.inf)
    candidates = [outcome.trial.hyperparameters for outcome in best_trials(records, cell.metrics[0])[:CANDIDATES]]
    trials = tuple(
        Trial(cell.optimizer, cell.batch_size, stable_seed(settings.seed, "final", k), dict(values))
        for values in candidates
        for k in range(settings.seeds)
    )
    return [TrialBatch(cell, CONFIRMATION, 0, trials, LONGER * max(1, math.ceil(slowest)))]


def _box_around(space: Mapping[str, Axis], values: Mapping[str, float], width: float) -> Box:
    """A box ``width`` times the broad one's width along each axis, cut off at the axis' limits."""
    box = {}
    for name, axis in space.items():
        half = width * (axis.to_line(axis.high) - axis.to_line(axis.low)) / 2.0
        centre, (lowest, highest) = axis.to_line(values[name]), _line_limits(axis)
        box[name] = max(lowest, centre - half), min(highest, centre + half)
    return box


def _line_limits(axis: Axis) -> tuple[float, float]:
    low, high = axis.limits
    bottom = -math.inf if axis.scale == "log" and low <= 0.0 else axis.to_line(low)
    return bottom, math.inf if high >= (math.inf if axis.scale == "log" else 1.0) else axis.to_line(high)


def points(cell: Cell, number: int, box: Box, start: int, count: int) -> list[dict[str, float]]:
    """Hyperparameters number ``start`` to ``start + count - 1`` of the round's sequence: Sobol's, with a random digital
    shift (each point's bits flipped alike), which keeps the spread and depends on seed, optimizer, batch size and
    round only."""
    exponent = (start + count - 1).bit_length()
    cube = qmc.Sobol(len(box), scramble=False, bits=BITS).random_base2(exponent)[start : start + count]
    seed = stable_seed(cell.settings.seed, cell.optimizer, cell.batch_size, number)
    shift = np.random.default_rng(seed).integers(2**BITS, size=len(box))
    shares = (((cube * 2**BITS).astype(np.int64) ^ shift) + 0.5) / 2**BITS
    return [
        {name: _value(axis, box[name], share) for (name, axis), share in zip(cell.space.items(), row, strict=True)}
        for row in shares.tolist()
    ]


def _value(axis: Axis, interval: tuple[float, float], share: float) -> float:
    low, high = interval
    value = axis.from_line(low + share * (high - low))
    return min(max(value, axis.limits[0]), axis.limits[1])


def stable_seed(*parts: Any) -> int:
    """A whole number below 2**31 that depends on the parts alone, in any process and version."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
