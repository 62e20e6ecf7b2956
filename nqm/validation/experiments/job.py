"""Jobs that have ended, as a journal holds them.

Each line after the header is one job: {"settings": ..., "columns": {name: {type: values}}, "seconds": ...}, where type
is "bool", "int", "float" or "str". Lines may come in any order, and a job that is there twice counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._table import Table
from ..journal import Configuration, Form, as_line

__all__ = ["FORM", "Job", "checked_columns", "first_of_each", "key_of", "told"]

FIELDS: dict[str, type] = {"settings": dict, "columns": dict, "seconds": float}
TYPES: dict[str, tuple[type, type]] = {
    "bool": (bool, np.bool_), "int": (int, np.int64), "float": (float, np.float64), "str": (str, np.str_),
}  # fmt: skip
"""Of the values of a column, in JSON and in an array."""
KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str"}  # by the kind of an array's dtype
WIDEST = 8  # bytes of a number: float64 and int64


@dataclass(frozen=True, eq=False)
class Job:
    """A job that has ended: settings as JSON has them, and seconds that it took."""

    settings: dict[str, Any]
    table: Table
    seconds: float

    def fields(self) -> dict[str, Any]:
        """The job as one line of the file holds it."""
        columns = {name: {KINDS[column.dtype.kind]: column.tolist()} for name, column in self.table.items()}
        return {"settings": self.settings, "columns": columns, "seconds": self.seconds}

    @classmethod
    def from_fields(cls, fields: Any) -> Job:
        """The inverse of :meth:`fields`, after JSON; a ValueError or TypeError that says what is wrong."""
        if not isinstance(fields, dict) or set(fields) != set(FIELDS):
            raise ValueError(f"expected an object with the keys {', '.join(FIELDS)}")
        for key, kind in FIELDS.items():
            if not isinstance(fields[key], kind):
                raise ValueError(f"{key}: expected {kind.__name__}, got {fields[key]!r:.200}")
        table = Table({name: _column(name, typed) for name, typed in fields["columns"].items()})
        return cls(fields["settings"], table, fields["seconds"])


def _decode(configuration: Configuration, lines: Iterable[Any]) -> list[Job]:
    return [Job.from_fields(line) for line in lines]


FORM = Form("jobs of an experiment", 1, encode=Job.fields, decode=_decode)


def checked_columns(columns: Any) -> Table:
    """What a function returned, as a table; a TypeError or ValueError for what a file could not give back."""
    if not isinstance(columns, Mapping) or not columns or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"expected columns by name, got {columns!r:.200}")
    table = Table({name: np.asarray(column) for name, column in columns.items()})
    for name, column in table.items():
        given, kind = columns[name], column.dtype.kind
        mixed = kind == "U" and not isinstance(given, np.ndarray) and not all(isinstance(v, str) for v in given)
        if mixed or kind not in KINDS or (kind != "U" and column.itemsize > WIDEST):
            raise TypeError(f"{name}: expected numbers of at most 64 bits or strings, got {given!r:.200}")
        if kind == "u" and (column > np.iinfo(np.int64).max).any():
            raise ValueError(f"{name}: expected integers below 2^63, got {column.max()}")
    return table


def _column(name: str, typed: Any) -> NDArray[Any]:
    """A column as the file holds it."""
    if not isinstance(typed, dict) or len(typed) != 1 or not TYPES.keys() >= typed.keys():
        raise ValueError(f"columns.{name}: expected values of one of {', '.join(TYPES)}, got {typed!r:.200}")
    ((kind, values),) = typed.items()
    plain, array = TYPES[kind]
    if kind == "float":
        values = [float(value) for value in values]
    if any(type(value) is not plain for value in values):
        raise ValueError(f"columns.{name}: expected values of type {kind}, got {values!r:.200}")
    return np.array(values, dtype=array)


def first_of_each(jobs: Iterable[Job]) -> dict[str, Job]:
    """Jobs by the key of their settings."""
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(key_of(job.settings), job)
    return found


def key_of(settings: Mapping[str, Any]) -> str:
    """The same for the same settings, before and after they have been in a file."""
    return json.dumps(json.loads(as_line(settings)), sort_keys=True)


def told(settings: Mapping[str, Any]) -> str:
    """Settings as messages name them."""
    text = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return text if len(text) <= 400 else f"{text[:400]} ..."
