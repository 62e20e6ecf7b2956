"""The parser of all commands, and what becomes of errors: one line, exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from . import figures, scaling, schedule, steps, sweep, validate, warmup

__all__ = ["main"]

COMMANDS = (steps, sweep, schedule, scaling, figures, validate, warmup)
EXPECTED_ERRORS = (ValueError, TypeError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that the terminal lacks becomes a question mark
        sys.stdout.reconfigure(errors="replace")
    arguments = _parsed(argv)
    try:
        result: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED_ERRORS as error:
        print(f"nqm {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"nqm {arguments.command}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    return result


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="nqm", description="The noisy quadratic model: how many steps does training take?")
    parser.add_argument("--version", action="version", version=f"nqm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add(commands)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.error(f"expected a COMMAND out of {', '.join(commands.choices)}, got none")
    arguments.words = list(sys.argv[1:] if argv is None else argv)
    return arguments
