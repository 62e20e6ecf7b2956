"""``nqm figures``: pictures of the papers, with their data."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .arguments import add_command
from .output import require_writable

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    parser = add_command(
        commands, "figures", run, "draw figures of the papers, with their data as CSV beside them",
        "nqm figures zhang2019-3a zhang2019-4 --out pictures",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw; default: all")
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument("--out", default="nqm-figures", metavar="DIR", help="where to write (default: nqm-figures)")
    parser.add_argument(
        "--bins",
        type=int,
        metavar="N",
        help="quantise the spectrum into N bins, as the paper does with 100; default: exact",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..papers import all_figures, gallery

    known = all_figures()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}: expected one of {', '.join(known)}")
    chosen = [known[name] for name in arguments.names or known]
    if arguments.list:
        if arguments.json:
            print(json.dumps({figure.name: figure.title for figure in chosen}))
        else:
            for figure in chosen:
                print(f"{figure.name:15} {figure.title}")
        return 0
    if arguments.bins is not None and arguments.bins < 2:
        raise ValueError(f"--bins: expected at least 2, got {arguments.bins}")
    require_writable("out", arguments.out, kind="folder")
    written = gallery.write_figures(chosen, arguments.out, arguments.bins)
    if arguments.json:
        print(json.dumps([str(path) for path in written]))
    return 0
