"""The file in which measured training runs are kept: one JSON object per line, appended as batches of trials finish.

The first line is the header: format and configuration. Each further line is one trial: its cell (optimizer and batch
size), its round (0: confirmation), its index in the round, the batch of trials it was trained in ("heat": the index of
its first trial, and "size"), and its outcome. Infinity is the string "inf". The trials of a batch are written together,
and a batch of which a part is missing at the end of the file counts as not run: each trial's end depends on the others.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..training.trials import Outcome, Trial

__all__ = ["CONFIRMATION", "Record", "Results", "read_results"]

if sys.platform != "win32":
    import fcntl

FORMAT = 1
KIND = "steps to target, measured"
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

    def line(self) -> bytes:
        """The record as one line of the file."""
        trial, outcome = self.outcome.trial, self.outcome
        fields = {
            "optimizer": trial.optimizer, "batch_size": trial.batch_size, "round": self.round, "index": self.index,
            "heat": self.first, "size": self.size, "seed": trial.seed, "hyperparameters": trial.hyperparameters,
            "status": outcome.status, "steps": outcome.steps, "trained": outcome.trained,
        }  # fmt: skip
        return _line(fields)

    @classmethod
    def from_fields(cls, fields: Any, metrics: Sequence[str]) -> Record:
        """The inverse of :meth:`line`, after JSON; a ValueError that says what is wrong."""
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


class Results:
    """Records of one configuration, in a file that is open for this process alone, or in memory (``path`` None).

    configuration: what the numbers depend on, JSON-able: "targets" (pairs of metric and value), "optimizers" (the
    search space of each) and anything else. A file that is there already is continued if it has the same
    configuration; it may hold spaces of other optimizers than those ``used``. A torn end is cut off.

    While it is open the file is locked (``flock``, which ends with the process; no guard on Windows and on file
    systems without locks). The header is written in place and completed where it was interrupted: a new file renamed
    over the path could take it from a process that holds the lock.

    Raises ValueError for a damaged line (saying which), for a file that is something else, and for another
    configuration (saying which key differs); RuntimeError where another process is writing the file.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, configuration: Mapping[str, Any], used: Sequence[str] = ()
    ) -> None:
        self.path = None if path is None else Path(path)
        self.configuration: dict[str, Any] = json.loads(_line(configuration))
        self.records: list[Record] = []
        self._stream: BinaryIO | None = None
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            _lock(self._stream, self.path)
            self._continue(self._stream, self.path, used)
        except BaseException:
            self.close()
            raise

    def _continue(self, stream: BinaryIO, path: Path, used: Sequence[str]) -> None:
        content = stream.read()
        header = _line({"nqm": KIND, "format": FORMAT, "configuration": self.configuration})
        if header.startswith(content):  # new, or interrupted in its first line
            stream.seek(0)
            stream.write(header)
            _flush(stream)
            return
        found, self.records, good = _parse(content, path)
        _check_same(self.configuration, found, used, path)
        self.configuration = found
        stream.seek(good)
        if good < len(content):
            stream.truncate()
            _flush(stream)

    def append(self, records: Sequence[Record]) -> None:
        """Keep the records of a finished batch of trials, on the disk when this returns."""
        if self._stream is not None:
            self._stream.write(b"".join(record.line() for record in records))
            _flush(self._stream)
        self.records += records

    def close(self) -> None:
        """Unlock and close the file; the records stay in memory."""
        if self._stream is not None:
            if sys.platform != "win32":  # by name: worker processes may have inherited the open file
                fcntl.flock(self._stream, fcntl.LOCK_UN)
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_results(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """Configuration and records of a results file, also while it is being written; changes nothing.

    Raises ValueError for a damaged line or another kind of file, OSError where it cannot be read.
    """
    configuration, records, _ = _parse(Path(path).read_bytes(), Path(path))
    return configuration, records


def _parse(content: bytes, path: Path) -> tuple[dict[str, Any], list[Record], int]:
    """Configuration, records of whole batches, and the number of bytes up to the last of them."""
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    configuration = _header(lines[0] if lines else content, path)
    metrics = [metric for metric, _ in configuration["targets"]]
    batches = _Batches()
    for number, line in enumerate(lines[1:], 2):
        try:
            record = Record.from_fields(json.loads(line), metrics)
            if record.cell[0] not in configuration["optimizers"]:
                raise ValueError(f"optimizer: expected one of {', '.join(configuration['optimizers'])}")
            batches.add(record)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}: line {number} is damaged: {error}; take the file from a backup, or delete it and start again"
            ) from error
    whole = lines[: len(lines) - len(batches.open)]
    return configuration, batches.done, sum(map(len, whole))


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


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
        kind, version, configuration = header["nqm"], header["format"], header["configuration"]
        if kind != KIND or not isinstance(configuration["optimizers"], dict) or not dict(configuration["targets"]):
            raise ValueError(f"expected {KIND!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: line 1 is not the header of a results file; give another file (--out) or delete this one"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT}, found {version}; give another file (--out) or read it with the version "
            "of nqm that wrote it"
        )
    return dict(configuration)


def _check_same(expected: dict[str, Any], found: dict[str, Any], used: Sequence[str], path: Path) -> None:
    def asked(side: dict[str, Any]) -> dict[str, Any]:
        return {**side, "optimizers": {n: s for n, s in side["optimizers"].items() if n in used or not used}}

    difference = _difference(asked(expected), asked(found), "")
    if difference is not None:
        key, mine, theirs = difference
        raise ValueError(
            f"{path} holds results of another configuration: {key}: expected {mine}, found {theirs}; "
            "write to another file (--out) or delete this one"
        )


def _difference(expected: Any, found: Any, key: str) -> tuple[str, str, str] | None:
    """The first key that differs, with both values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in [*expected, *(name for name in found if name not in expected)]:
            inner = f"{key}.{name}" if key else name
            if name not in expected or name not in found:
                mine, theirs = (_shown(side[name]) if name in side else "nothing" for side in (expected, found))
                return inner, mine, theirs
            difference = _difference(expected[name], found[name], inner)
            if difference is not None:
                return difference
        return None
    return None if expected == found else (key, _shown(expected), _shown(found))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=True).encode() + b"\n"


def _plain(value: Any) -> Any:
    """The same with plain JSON types; infinite and undefined numbers as the strings that ``float`` reads."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _lock(stream: BinaryIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RuntimeError(
            f"{path}: another run is writing this file; wait until it ends, or write to another file (--out)"
        ) from error
    except OSError:
        return  # a file system without locks
