"""``nqm steps``: one optimizer at one batch size."""

from __future__ import annotations

import argparse
import math
from typing import Any

from .. import NoisyQuadratic, risk, steps_to_target, tune
from ..optimizers import Optimizer
from .arguments import add_command, add_objective, add_problem, number, problem_of
from .optimizer_options import add_optimizer, optimizer_of
from .output import print_answer, print_json

__all__ = ["add", "run"]

LONG = 2**53  # steps after which the risk of an optimizer that never reaches the target is told


def add(commands: Any) -> None:
    parser = add_command(
        commands, "steps", run, "fewest steps to a target risk at one batch size, or least risk after given steps",
        "nqm steps --batch-size 4k --target 0.01 --momentum free",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=number, required=True, metavar="B", help="examples a step; 4k is 4000")
    add_objective(parser)
    parser.add_argument(
        "--crossing",
        choices=("first", "last"),
        default="first",
        help="with --lr: first step at or below the target, or step after the last above it",
    )
    add_optimizer(parser)
    add_problem(parser)


def run(arguments: argparse.Namespace) -> int:
    problem, optimizer = problem_of(arguments), optimizer_of(arguments)
    if arguments.crossing == "last" and (optimizer.free or arguments.target is None):
        told = "some to tune" if optimizer.free else "--steps"
        raise ValueError(f"--crossing last: expected --target and all hyperparameters as numbers, got {told}")
    answer = (_tuned if optimizer.free else _given)(problem, optimizer, arguments)
    if arguments.json:
        print_json(answer)
        return 0
    if answer["status"] == "unreachable":
        ends = "it diverges" if math.isinf(answer["risk"]) else f"the risk ends at {answer['risk']:.6g}"
        answer["status"] = f"unreachable: {ends}"
    print_answer(answer, 10)
    return 0


def _tuned(problem: NoisyQuadratic, optimizer: Optimizer, arguments: argparse.Namespace) -> dict[str, Any]:
    best = tune(problem, optimizer, arguments.batch_size, arguments.target, steps=arguments.steps)
    return _answer(arguments, best.optimizer, best.steps, best.risk, best.status)


def _given(problem: NoisyQuadratic, optimizer: Optimizer, arguments: argparse.Namespace) -> dict[str, Any]:
    batch, target = arguments.batch_size, arguments.target
    if target is None:
        reached = float(risk(problem, optimizer, batch, arguments.steps))
        return _answer(arguments, optimizer, int(arguments.steps), reached, "fixed")
    steps = steps_to_target(problem, optimizer, batch, target, crossing=arguments.crossing)
    reaches = math.isfinite(steps)
    reached = float(risk(problem, optimizer, batch, steps if reaches else LONG))
    return _answer(arguments, optimizer, steps, reached, "fixed" if reaches else "unreachable")


def _answer(
    arguments: argparse.Namespace, optimizer: Optimizer, steps: float, reached: float, status: str
) -> dict[str, Any]:
    return {
        "steps": steps,
        "examples": steps * arguments.batch_size,
        **optimizer.hyperparameters,
        "risk": reached,
        "batch_size": arguments.batch_size,
        "target": arguments.target,
        "status": status,
    }
