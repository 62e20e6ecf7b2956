"""What both kinds of logs have in their answers: skipped rows, tables, saved fits and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .._table import Table
from .output import draw, writing

__all__ = ["keep", "parameter_lines", "parameters_of", "table_lines", "tell_skipped"]

TOLD = 10  # skipped rows that are told one by one


def tell_skipped(rows: Sequence[tuple[str, str]]) -> None:
    """On stderr: where the rows are, and why they were skipped."""
    for place, reason in rows[:TOLD]:
        print(f"nqm scaling: skipped {place}: {reason}", file=sys.stderr)
    if len(rows) > TOLD:
        print(f"nqm scaling: skipped {len(rows) - TOLD} more rows", file=sys.stderr)


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table, one row per mapping, columns to the right."""
    return Table.from_rows(rows, rows[0]).to_string().split("\n")


def parameters_of(fit: Any, level: float) -> dict[str, Any]:
    """A fit's parameters, their intervals, and the names of those that the data does not determine."""
    return {
        "parameters": fit.parameters,
        "parameter_intervals": fit.parameter_intervals(level),
        "undetermined": fit.undetermined,
    }


def parameter_lines(answer: dict[str, Any]) -> list[str]:
    """Lines of a table of parameters with their intervals."""
    rows = []
    for name, value in answer["parameters"].items():
        low, high = answer["parameter_intervals"][name]
        note = "not determined" if name in answer["undetermined"] else ""
        rows.append({"parameter": name, "value": value, "low": low, "high": high, "": note})
    return [*(line.rstrip() for line in table_lines(rows)), f"intervals: {answer['level']:.0%}, from the bootstrap"]


def keep(arguments: argparse.Namespace, fit: Any, *parts: Any) -> None:
    """Save the fit and draw it and the parts, one panel each, where that was asked."""
    if arguments.save is not None:
        with writing("save", arguments.save):
            fit.save(arguments.save)
    draw(arguments.plot, fit, *parts)
