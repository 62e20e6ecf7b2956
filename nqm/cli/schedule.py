"""``nqm schedule``: the best schedule of learning rates or batch sizes."""

from __future__ import annotations

import argparse
from typing import Any

from .. import FREE, optimize_schedule, schedules
from .arguments import add_command, add_objective, add_plot, add_problem, number, number_or, problem_of
from .optimizer_options import add_optimizer, optimizer_of
from .output import draw, print_answer, print_json, require_picture

__all__ = ["add", "run"]

SHAPES = ("constant", "cosine", "linear", "wsd")
PIECES = 50  # by default, or as many as steps


def add(commands: Any) -> None:
    parser = add_command(
        commands, "schedule", run, "the best schedule: fewest steps to a target, or least risk after given steps",
        "nqm schedule --batch-size 256 --target 0.01 --pieces 50 --plot schedule.png",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=number_or("free", parse=number), required=True, metavar="B",
                        help="examples a step, or 'free' to find the best ramp of it (with --examples)")  # fmt: skip
    add_objective(parser)
    parser.add_argument("--examples", type=number, metavar="N", help="with --batch-size free: examples in all")
    parser.add_argument("--pieces", type=int, metavar="P",
                        help="pieces of equal length; default: 50, or as many as steps")  # fmt: skip
    parser.add_argument("--shape", choices=SHAPES, help="tune only the peak of this shape instead of every piece")
    parser.add_argument(
        "--max-lr",
        type=number_or("stable", "none"),
        default="stable",
        metavar="L",
        help="largest learning rate; 'stable' (default: 2 / h_1 for plain SGD) or 'none'",
    )
    add_plot(parser, "the schedule")
    add_optimizer(parser)
    add_problem(parser)


def run(arguments: argparse.Namespace) -> int:
    require_picture(arguments.plot)
    best = optimize_schedule(
        problem_of(arguments),
        FREE if arguments.batch_size == "free" else arguments.batch_size,
        target=arguments.target,
        steps=arguments.steps,
        examples=arguments.examples,
        pieces=_pieces(arguments.steps) if arguments.pieces is None else arguments.pieces,
        optimizer=optimizer_of(arguments),
        shape=getattr(schedules, arguments.shape) if arguments.shape else None,
        max_lr=None if arguments.max_lr == "none" else arguments.max_lr,
    )
    draw(arguments.plot, best)
    values = best.optimizer.hyperparameters
    answer: dict[str, Any] = {
        "steps": best.steps,
        "examples": best.examples,
        "risk": best.risk,
        "target": best.target,
        "status": best.status,
        "gradient_norm": best.gradient_norm,
        **{name: value for name, value in values.items() if name != "lr"},
    }
    scheduled: dict[str, Any] = {"lr": values["lr"], "batch_size": best.batch_size}
    if arguments.json:
        print_json({**answer, **{name: _as_json(value) for name, value in scheduled.items()}})
        return 0
    print_answer(answer, 13)
    if best.steps:
        _print_schedules(scheduled)
    return 0


def _pieces(steps: float | None) -> int:
    return PIECES if steps is None or not 1.0 <= steps < PIECES else int(steps)


def _as_json(value: Any) -> Any:
    """A number, or a schedule's values and lengths."""
    values = getattr(value, "values", None)
    return value if values is None else {"values": values.tolist(), "lengths": value.lengths.tolist()}


def _print_schedules(scheduled: dict[str, Any]) -> None:
    for name, value in scheduled.items():
        if isinstance(value, float):
            print(f"{name:>13}  {value:.6g}")
        else:
            print(f"{name:>13}  step")
            for each, begin in zip(value.values, value.ends - value.lengths, strict=True):
                print(f"{each:13.6g}  from {begin}")
