"""Arguments that several commands have, and how numbers are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .. import NoisyQuadratic

__all__ = [
    "add_command",
    "add_objective",
    "add_plot",
    "add_problem",
    "number",
    "number_or",
    "option",
    "problem_of",
    "size",
]


def add_command(
    commands: Any, name: str, run: Callable[[Any], int], summary: str, example: str
) -> argparse.ArgumentParser:
    """The parser of a command; ``run`` takes its parsed arguments and returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print JSON; null stands for what is infinite or not a number"
    )
    return parser


def add_objective(parser: argparse.ArgumentParser) -> None:
    """Either a target for the fewest steps, or steps for the least risk."""
    objective = parser.add_mutually_exclusive_group(required=True)
    objective.add_argument("--target", type=float, metavar="R", help="risk to reach in the fewest steps")
    objective.add_argument("--steps", type=number, metavar="T", help="steps after which the risk is to be least")


def add_problem(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problem: curvatures i^-A, i = 1 ... N, unit start, noise covariance = Hessian")
    group.add_argument("--dim", type=number, default=10_000, metavar="N", help="number of coordinates; default: 10000")
    group.add_argument("--exponent", type=float, default=1.0, metavar="A", help="default: 1")
    group.add_argument(
        "--label-noise",
        type=float,
        metavar="V",
        help="linear regression on Gaussian features instead, whose noise grows with the loss; V: variance of labels",
    )


def problem_of(arguments: argparse.Namespace) -> NoisyQuadratic:
    variance = arguments.label_noise
    features: Any = {} if variance is None else {"noise_model": "gaussian-features", "label_noise": variance}
    return NoisyQuadratic.power_law(arguments.dim, arguments.exponent, **features)


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    text = f"also draw {what} into FILE (png, pdf, svg); makes its folder"
    parser.add_argument("--plot", metavar="FILE", help=text)


def option(name: str) -> str:
    """The option of an argument, as it is typed."""
    return f"--{name.replace('_', '-')}"


def size(text: str) -> float:
    """A number > 0, with k, M, B or T as in a log."""
    from ..scaling.logs.columns import number

    try:
        return number(text, sized=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def number(text: str) -> float:
    """A number, or one with k, M, B or T."""
    try:
        return float(text)
    except ValueError:
        return size(text)


def number_or(*words: str, parse: Callable[[str], float] = float) -> Callable[[str], Any]:
    """Parses a number, or lets one of the words through."""
    quoted = [repr(word) for word in words]

    def read(text: str) -> Any:
        if text in words:
            return text
        try:
            return parse(text)
        except (ValueError, argparse.ArgumentTypeError):
            expected = " or ".join([", ".join(["a number", *quoted[:-1]]), quoted[-1]])
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None

    return read
