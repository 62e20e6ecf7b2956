"""``nqm figures``: pictures of the papers, with their data."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from .arguments import add_command
from .output import require_writable
from .workers import add_workers, processes, require_workers

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    parser = add_command(
        commands, "figures", run, "draw figures of the papers, with their data as CSV beside them",
        "nqm figures zhang2019-3a zhang2019-4 --out pictures",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="figures to draw; default: all that need no training")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument("--out", default="nqm-figures", metavar="DIR", help="where to write (default: nqm-figures)")
    parser.add_argument(
        "--bins",
        type=int,
        metavar="N",
        help="quantise the spectrum into N bins, as the paper does with 100; default: exact",
    )

    parser.add_argument("--quick", action="store_true", help="of networks: fewer seeds and steps")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of networks; default: 0")
    add_workers(parser, "the training of networks")


def run(arguments: argparse.Namespace) -> int:
    from ..papers import all_figures, gallery
    from ..papers.network_figures import NETWORK_FIGURES

    known = all_figures()
    unknown = [name for name in arguments.names if name not in known and name not in NETWORK_FIGURES]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}: expected one of {', '.join([*known, *NETWORK_FIGURES])}")
    if arguments.list:
        _list(arguments)
        return 0
    if arguments.bins is not None and arguments.bins < 2:
        raise ValueError(f"--bins: expected at least 2, got {arguments.bins}")
    require_workers(arguments.workers)
    require_writable("out", arguments.out, kind="folder")
    trained = [name for name in arguments.names if name in NETWORK_FIGURES]
    if trained and arguments.bins is not None:
        raise ValueError(f"--bins: expected without figures of networks, got it with {trained[0]}")
    written = [] if trained and len(trained) == len(arguments.names) else gallery.write_figures(
        [known[name] for name in arguments.names or known if name in known], arguments.out, arguments.bins
    )  # fmt: skip
    written += _train(trained, arguments)
    if arguments.json:
        print(json.dumps([str(path) for path in written]))
    return 0


def _list(arguments: argparse.Namespace) -> None:
    """Names and titles; of those that need networks, minutes of training on one core."""
    from ..papers import all_figures
    from ..papers.network_figures import NETWORK_FIGURES

    titles = {name: figure.title for name, figure in all_figures().items()}
    titles |= {name: figure.title for name, figure in NETWORK_FIGURES.items()}
    chosen = {name: titles[name] for name in arguments.names or titles}
    if arguments.json:
        print(json.dumps(chosen))
        return
    for name, title in chosen.items():
        cost = ""
        if name in NETWORK_FIGURES:
            minutes = NETWORK_FIGURES[name]
            cost = f" (networks: {minutes.full:g} minutes on one core, {minutes.quick:g} with --quick)"
        print(f"{name:22} {title}{cost}")


def _train(names: list[str], arguments: argparse.Namespace) -> list[Path]:
    """Figures that need networks, those of each paper in a folder of its own."""
    if not names:
        return []
    from ..validation.experiments.paper import write_paper
    from ..validation.papers import PAPERS

    written = []
    for paper in dict.fromkeys(name.split("-")[0] for name in names):
        figures = [name for name in names if name.startswith(f"{paper}-")]
        with processes(arguments.workers) as executor:
            report = write_paper(
                PAPERS[paper],
                Path(arguments.out) / paper,
                figures=figures,
                quick=arguments.quick,
                seed=arguments.seed,
                executor=executor,
                command=shlex.join(["nqm", *arguments.words]),
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
        written += report.written
    return written
