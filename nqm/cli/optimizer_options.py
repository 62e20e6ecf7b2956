"""Options for the optimizer's hyperparameters: declared, and made an optimizer of."""

from __future__ import annotations

import argparse
from typing import Any

from .. import EMA, FREE, SGD, Preconditioned
from ..optimizers import Optimizer
from .arguments import number_or


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    group, number = parser.add_argument_group("optimizer (numbers, or 'free' to tune them)"), number_or("free")
    group.add_argument("--lr", type=number, default="free", metavar="L", help="learning rate; default: free")
    group.add_argument("--momentum", type=number, default=0.0, metavar="M", help="in [0, 1); default: 0")
    group.add_argument("--nesterov", action="store_true", help="Nesterov's form of momentum")
    group.add_argument(
        "--power", type=float, default=0.0, metavar="P", help="precondition by H^-P, P in [0, 1]; default: 0"
    )
    group.add_argument(
        "--ema",
        type=number,
        default=None,
        metavar="D",
        help="decay of an average of the iterates, in [0, 1)",
    )


def optimizer_of(arguments: argparse.Namespace) -> Optimizer:
    """The optimizer, with ``nqm.FREE`` where 'free' was given."""

    def value(given: Any) -> Any:
        return FREE if given == "free" else given

    if arguments.nesterov and arguments.momentum == 0.0:
        raise ValueError("--nesterov: expected --momentum with it, got none")

    optimizer: Optimizer = SGD(value(arguments.lr), value(arguments.momentum), arguments.nesterov)
    if arguments.power != 0.0:
        optimizer = Preconditioned(optimizer, arguments.power)
    return optimizer if arguments.ema is None else EMA(optimizer, value(arguments.ema))
