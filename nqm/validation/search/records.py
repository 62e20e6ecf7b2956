"""The file in which measured training runs are kept: one JSON object per line, appended as batches of trials finish.

The first line is the header: format and configuration. Each further line is one trial: its cell (optimizer and batch
size), its round (0: confirmation), its index in the round, the batch of trials it was trained in ("heat": the index of
its first trial, and "size"), and its outcome. Infinity is the string "inf". The trials of a batch are written together,
and a batch of which a part is missing at the end of the file counts as not run: each trial's end depends on the others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..journal import Configuration, Form, Journal, read_journal
from ..training.trials import Outcome, Trial

__all__ = ["CONFIRMATION", "Record", "Results", "read_results"]

CONFIRMATION = 0  # the round that runs the best hyperparameters again, with fresh seeds
FIELDS: dict[str, type] = {
    "optimizer": str, "batch_size": int, "round": int, "index": int, "heat": int, "size": int, "seed": int,
    "hyperparameters": dict, "status": str, "steps": dict, "trained": int,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One trial's outcome and its place: round (0: confirmation), index in the round, first (index of the first trial
    of its batch) and size of the batch (trials)."""

    round: int
    index: int
    first: int
    size: int
    outcome: Outcome

    @property
    def cell(self) -> tuple[str, int]:
        """Optimizer and batch size."""
        return self.outcome.trial.optimizer, self.outcome.trial.batch_size

    def fields(self) -> dict[str, Any]:
        """The record as one line of the file holds it."""
        trial, outcome = self.outcome.trial, self.outcome
        return {
            "optimizer": trial.optimizer, "batch_size": trial.batch_size, "round": self.round, "index": self.index,
            "heat": self.first, "size": self.size, "seed": trial.seed, "hyperparameters": trial.hyperparameters,
            "status": outcome.status, "steps": outcome.steps, "trained": outcome.trained,
        }  # fmt: skip

    @classmethod
    def from_fields(cls, fields: Any, metrics: Sequence[str]) -> Record:
        """The inverse of :meth:`fields`, after JSON; a ValueError that says what is wrong."""
        if not isinstance(fields, dict) or set(fields) != set(FIELDS):
            raise ValueError(f"expected an object with the keys {', '.join(FIELDS)}")
        for key, kind in FIELDS.items():
            if not isinstance(fields[key], kind):
                raise ValueError(f"{key}: expected {kind.__name__}, got {fields[key]!r}")
        if set(fields["steps"]) != set(metrics):
            raise ValueError(f"steps: expected those of {', '.join(metrics)}, got {', '.join(fields['steps'])}")
        steps = {metric: float(fields["steps"][metric]) for metric in metrics}
        values = {name: float(value) for name, value in fields["hyperparameters"].items()}
        trial = Trial(fields["optimizer"], fields["batch_size"], fields["seed"], values)
        outcome = Outcome(trial, fields["status"], steps, fields["trained"])
        return cls(fields["round"], fields["index"], fields["heat"], fields["size"], outcome)


class _Batches:
    """Collects records into batches, and insists on their order. done: those of whole batches; open: of one begun."""

    def __init__(self) -> None:
        self.done: list[Record] = []
        self.open: list[Record] = []
        self.counts: Counter[tuple[str, int, int]] = Counter()

    def add(self, record: Record) -> None:
        """The next record; a ValueError where it does not follow from those before."""
        head = self.open[0] if self.open else record
        if _batch_of(record) != _batch_of(head) or record.index != head.first + len(self.open):
            raise ValueError(f"expected trial {head.first + len(self.open)} of a heat, got {record.index}")
        self.open.append(record)
        if len(self.open) >= record.size:
            self._check_next(record)
            self.done += self.open
            self.open = []

    def _check_next(self, record: Record) -> None:
        key = (*record.cell, record.round)
        if record.first != self.counts[key]:
            raise ValueError(f"expected trial {self.counts[key]} of this round, got {record.first}")
        self.counts[key] += record.size


def _batch_of(record: Record) -> tuple[tuple[str, int], int, int, int]:
    return record.cell, record.round, record.first, record.size


def _check_configuration(configuration: Any) -> None:
    if not isinstance(configuration["optimizers"], dict) or not dict(configuration["targets"]):
        raise ValueError("expected search spaces of optimizers, and targets")


def _whole_batches(configuration: Configuration, lines: Iterable[Any]) -> list[Record]:
    metrics = [metric for metric, _ in configuration["targets"]]
    batches = _Batches()
    for fields in lines:
        record = Record.from_fields(fields, metrics)
        if record.cell[0] not in configuration["optimizers"]:
            raise ValueError(f"optimizer: expected one of {', '.join(configuration['optimizers'])}")
        batches.add(record)
    return batches.done


def _of_optimizers(used: Sequence[str], configuration: Configuration) -> Configuration:
    """The configuration with the spaces of these alone; none: of all."""
    spaces = {name: space for name, space in configuration["optimizers"].items() if name in used or not used}
    return {**configuration, "optimizers": spaces}


FORM = Form(
    "steps to target, measured",
    1,
    encode=Record.fields,
    decode=_whole_batches,
    check=_check_configuration,
    elsewhere="another file (--out)",
)


class Results(Journal[Record]):
    """Records of one configuration, in a file that is open for this process alone, or in memory (``path`` None).

    A :class:`Journal` whose configuration has "targets" (pairs of metric and value), "optimizers" (the search space of
    each) and anything else that the numbers depend on. The file may hold spaces of other optimizers than those
    ``used``. What is appended at once is a finished batch of trials.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, configuration: Mapping[str, Any], used: Sequence[str] = ()
    ) -> None:
        super().__init__(path, FORM, configuration, partial(_of_optimizers, used))

    @property
    def records(self) -> list[Record]:
        """Those of whole batches, in the order of the file."""
        return self.entries


def read_results(path: str | os.PathLike[str]) -> tuple[Configuration, list[Record]]:
    """Configuration and records of a results file, also while it is being written; changes nothing.

    Raises ValueError for a damaged line or another kind of file, OSError where it cannot be read.
    """
    return read_journal(path, FORM)
