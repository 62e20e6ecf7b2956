"""``nqm validate``: predictions beside real training."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import Any

from ..papers.network_figures import NETWORK_FIGURES
from .arguments import add_command
from .output import require_writable
from .workers import add_workers, processes, require_workers

__all__ = ["add", "run"]

RUNGS = ("a", "b", "c", "d")
NETS = ("mlp", "cnn", "resnet8")
DATA = ("digits", "mnist1d", "mnist", "fashion-mnist", "cifar10")


def add(commands: Any) -> None:
    papers = list(dict.fromkeys(name.split("-")[0] for name in NETWORK_FIGURES))
    parser = add_command(
        commands, "validate", run, "lay predictions beside real training: a report with pictures and tables",
        "nqm validate --quick --out validation",
    )  # fmt: skip
    parser.add_argument("--rung", nargs="+", choices=RUNGS, default=None, metavar="R",
                        help="a: linear regression, b: softmax regression, c: linearised network, d: real networks; "
                        "default: all (of other data than digits: d)")  # fmt: skip
    parser.add_argument("--net", nargs="+", choices=NETS, default=None, metavar="NET",
                        help="networks of rung d: mlp, cnn, resnet8; default: all (with --quick: mlp)")  # fmt: skip
    parser.add_argument("--paper", choices=papers, metavar="PAPER",
                        help="instead of the ladder: what a paper says of networks, tried on small ones: "
                        f"{', '.join(papers)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="fewer runs, trials and batch sizes: minutes instead of an hour")  # fmt: skip
    parser.add_argument("--data", choices=DATA, default="digits",
                        help=f"of rung d or of the paper: {', '.join(DATA)}; digits ship with scikit-learn, mnist1d is "
                        "made by its package, the others are read from --data-root")  # fmt: skip
    parser.add_argument("--data-root", metavar="PATH",
                        help="folder of torchvision's files, or an .npz file with arrays x (n, height, width) or "
                        "(n, channels, height, width) and y (n,); nothing is downloaded")  # fmt: skip
    parser.add_argument(
        "--out",
        default="validation",
        metavar="DIR",
        help="where to write; an interrupted run goes on from what lies there (default: validation)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random; default: 0")
    parser.add_argument("--device", metavar="D", help="such as cuda; default: a GPU where there is one")
    add_workers(parser, "trials")


def run(arguments: argparse.Namespace) -> int:
    require_workers(arguments.workers)
    if arguments.paper:
        for name in ("rung", "net", "device"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name}: expected without --paper, which has settings of its own")
    from ..validation.experiments.paper import write_paper
    from ..validation.papers import PAPERS
    from ..validation.report import validate

    require_writable("out", arguments.out, kind="folder")
    common = {
        "data": arguments.data,
        "data_root": arguments.data_root,
        "quick": arguments.quick,
        "seed": arguments.seed,
        "command": shlex.join(["nqm", *arguments.words]),
        "say": lambda line: print(line, file=sys.stderr, flush=True),
    }
    with processes(arguments.workers) as executor:
        if arguments.paper:
            report = write_paper(PAPERS[arguments.paper], arguments.out, executor=executor, **common)
        else:
            report = validate(
                arguments.out,
                rungs=arguments.rung or (RUNGS if arguments.data == "digits" else ("d",)),
                nets=arguments.net or (("mlp",) if arguments.quick else NETS),
                device=arguments.device,
                executor=executor,
                **common,
            )
    if arguments.json:
        print(json.dumps([str(path) for path in report.written]))
    else:
        print(f"report: {report.written[-1]}")
    return 0
