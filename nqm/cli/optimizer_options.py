"""The shell's options for optimizers, from the optimizers' own descriptions of their hyperparameters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..optimizers import EMA, FREE, MOMENTUM, SGD, Hyperparameter, Optimizer, Preconditioned, Wrapper
from .arguments import number_or

__all__ = ["OFFERED", "add_optimizer", "optimizer_of"]

OFFERED: list[type[Optimizer]] = [SGD, Preconditioned, EMA]
"""Kinds that the shell builds; what is appended here has an option for each hyperparameter of its own.

The first that has all numbers given is taken; a :class:`Wrapper` goes around it where one of its own numbers is given.
"""


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    group, number = parser.add_argument_group("optimizer (numbers, or 'free' to tune them)"), number_or("free")
    for one in _described():
        group.add_argument(
            f"--{one.option or one.name}",
            dest=one.name,
            type=number if one.can_be_free else float,
            default=_default(one),
            metavar=one.metavar,
            help=_help(one),
        )
        if one is MOMENTUM:
            group.add_argument("--nesterov", action="store_true", help="Nesterov's form of momentum")


def optimizer_of(arguments: argparse.Namespace) -> Any:
    """The optimizer, with ``nqm.FREE`` where 'free' was given."""
    if arguments.nesterov and arguments.momentum == 0.0:
        raise ValueError("--nesterov: expected --momentum with it, got none")
    given = {one.name: getattr(arguments, one.name) for one in _described() if _is_given(one, arguments)}
    values = {name: FREE if value == "free" else value for name, value in given.items()}
    values.update({"nesterov": True} if arguments.nesterov else {})
    around = [kind for kind in OFFERED if issubclass(kind, Wrapper) and _own(kind, values)]
    inner = {name: value for name, value in values.items() if not any(name in _own(kind, values) for kind in around)}
    cores = [kind for kind in OFFERED if not issubclass(kind, Wrapper)]
    fitting = [kind for kind in cores if set(inner) <= set(kind.__dataclass_fields__)]  # type: ignore[attr-defined]
    if not fitting:
        raise ValueError(f"expected options of one optimizer, got {', '.join(inner)}, which none has together")
    optimizer: Any = fitting[0](**inner)
    for kind in around:
        optimizer = kind(optimizer, **_own(kind, values))  # type: ignore[call-arg]
    return optimizer


def _described() -> Iterator[Hyperparameter]:
    """What the kinds offered have, each name once."""
    seen: set[str] = set()
    for kind in OFFERED:
        for one in kind.declared:
            if one.name not in seen:
                seen.add(one.name)
                yield one


def _own(kind: type[Optimizer], values: dict[str, Any]) -> dict[str, Any]:
    return {one.name: values[one.name] for one in kind.declared if one.name in values}


def _default(one: Hyperparameter) -> Any:
    """What an option that is not given stands for; None where it has a name of its own, for what else isn't there."""
    return None if one.option else "free" if one.default is None else one.default


def _is_given(one: Hyperparameter, arguments: argparse.Namespace) -> bool:
    return _default(one) == "free" or getattr(arguments, one.name) != _default(one)


def _help(one: Hyperparameter) -> str:
    domain = "" if one.high == float("inf") else f"in {one.domain}"
    default = _default(one)
    told = "" if default is None else f"; default: {default if default == 'free' else format(default, 'g')}"
    return f"{one.help} {domain}".strip() + told
