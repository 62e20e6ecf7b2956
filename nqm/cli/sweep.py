"""``nqm sweep``: one optimizer at many batch sizes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .. import Sweep, SweepInterrupted, sweep
from .arguments import add_command, add_plot, add_problem, number, problem_of
from .optimizer_options import add_optimizer, optimizer_of
from .output import draw, print_json, require_picture
from .workers import add_workers, processes, require_workers

__all__ = ["add", "run"]

NARROW = " (within this range of batch sizes, which does not reach both ends: take smaller and larger ones)"
LEVEL = 1.1  # ratio of neighbours up to which examples, or steps, have levelled off


def add(commands: Any) -> None:
    parser = add_command(
        commands, "sweep", run, "fewest steps at many batch sizes, as a table or a picture",
        "nqm sweep --batch-sizes 16 256 4096 --target 0.01 --momentum free --plot sweep.png",
    )  # fmt: skip
    parser.add_argument(
        "--batch-sizes",
        type=number,
        nargs="+",
        metavar="B",
        default=[2.0**k for k in range(2, 21, 2)],
        help="default: 2^2, 2^4, ... 2^20; 4k is 4000",
    )
    parser.add_argument(
        "--target", type=float, nargs="+", required=True, metavar="R", help="risk to reach, one or more"
    )
    add_plot(parser, "steps against batch size")
    add_workers(parser, "the cells")
    add_optimizer(parser)
    add_problem(parser)


def run(arguments: argparse.Namespace) -> int:
    problem, optimizer = problem_of(arguments), optimizer_of(arguments)
    require_workers(arguments.workers)
    require_picture(arguments.plot)
    name = str(optimizer)
    try:
        with processes(arguments.workers) as pool:
            result = sweep(problem, {name: optimizer}, arguments.batch_sizes, arguments.target, executor=pool)
    except SweepInterrupted as stop:
        if arguments.json:
            print_json({"cells": _cells(stop.sweep)})
        else:
            print(stop.sweep.to_string())
        raise KeyboardInterrupt(f"interrupted; the table has what is done of {stop.cells} cells") from stop
    draw(arguments.plot, result)
    critical = {f"{t:g}": result.critical_batch_size(t)[name] for t in arguments.target}
    if arguments.json:
        print_json({"cells": _cells(result), "critical_batch_size": critical})
        return 0
    print(result.to_string())
    for target, value in critical.items():
        note = "" if _both_regimes(result.rows(name, float(target))) else NARROW
        print(f"critical batch size at target {target}: {value:.6g}{note}")
    return 0


def _cells(result: Sweep) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in result.table.values()), strict=True)
    return [dict(zip(result.table, row, strict=True)) for row in rows]


def _both_regimes(rows: Mapping[str, NDArray[Any]]) -> bool:
    """Whether examples level off at the smallest batch sizes and steps at the largest, to 10% from one to the next."""
    cells = sorted(zip(rows["batch_size"], rows["steps"], rows["examples"], strict=True))
    steps, examples = [cell[1] for cell in cells], [cell[2] for cell in cells]
    if len(steps) < 3 or not all(map(math.isfinite, steps)):
        return False
    return bool(examples[1] <= LEVEL * examples[0] and steps[-2] <= LEVEL * steps[-1])
