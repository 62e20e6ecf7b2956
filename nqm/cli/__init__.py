"""The shell command ``nqm``: steps, sweep, schedule, scaling, figures, validate, warmup."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from . import scaling as cli_scaling
from . import warmup as cli_warmup
from .optimizer_options import add_optimizer, optimizer_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

SHAPES = ("constant", "cosine", "linear", "wsd")


class _Parser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that can't show a letter gets a question mark
        sys.stdout.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    arguments.words = list(sys.argv[1:] if argv is None else argv)
    try:
        result: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, and wants to hear no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError) as error:
        print(f"nqm {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"nqm {arguments.command}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    return result


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nqm", description="The noisy quadratic model: how many steps does training take?")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    steps = _command(
        commands, "steps", _steps, "fewest steps to a target risk at one batch size, or least risk after given steps",
        "nqm steps --batch-size 4k --target 0.01 --momentum free",
    )  # fmt: skip
    steps.add_argument("--batch-size", type=_sized, required=True, metavar="B", help="examples a step; 4k is 4000")
    goal = steps.add_mutually_exclusive_group(required=True)
    goal.add_argument("--target", type=float, metavar="R", help="risk to reach in the fewest steps")
    goal.add_argument("--steps", type=_sized, metavar="T", help="steps after which the risk is to be least")
    steps.add_argument(
        "--crossing",
        choices=("first", "last"),
        default="first",
        help="with --lr: first step at or below the target, or step after the last above it",
    )
    add_optimizer(steps)
    _add_problem(steps)

    sweep = _command(
        commands, "sweep", _sweep, "fewest steps at many batch sizes, as a table or a picture",
        "nqm sweep --batch-sizes 16 256 4096 --target 0.01 --momentum free --plot sweep.png",
    )  # fmt: skip
    sweep.add_argument(
        "--batch-sizes",
        type=_sized,
        nargs="+",
        metavar="B",
        default=[2.0**k for k in range(2, 21, 2)],
        help="default: 2^2, 2^4, ... 2^20; 4k is 4000",
    )
    sweep.add_argument("--target", type=float, nargs="+", required=True, metavar="R", help="risk to reach, one or more")
    sweep.add_argument(
        "--plot", metavar="FILE", help="also draw steps against batch size into FILE (png, pdf, svg); makes its folder"
    )
    sweep.add_argument("--workers", type=int, default=1, metavar="N", help="processes to spread the cells over")
    add_optimizer(sweep)
    _add_problem(sweep)

    schedule = _command(
        commands, "schedule", _schedule, "the best schedule: fewest steps to a target, or least risk after given steps",
        "nqm schedule --batch-size 256 --target 0.01 --pieces 50 --plot schedule.png",
    )  # fmt: skip
    schedule.add_argument("--batch-size", type=_number_or("free", parse=_sized), required=True, metavar="B",
                          help="examples a step, or 'free' to find the best ramp of it (with --examples)")  # fmt: skip
    goal = schedule.add_mutually_exclusive_group(required=True)
    goal.add_argument("--target", type=float, metavar="R", help="risk to reach in the fewest steps")
    goal.add_argument("--steps", type=_sized, metavar="T", help="steps after which the risk is to be least")
    schedule.add_argument("--examples", type=_sized, metavar="N", help="with --batch-size free: examples in all")
    schedule.add_argument("--pieces", type=int, metavar="P",
                          help="pieces of equal length; default: 50, or as many as steps")  # fmt: skip
    schedule.add_argument("--shape", choices=SHAPES, help="tune only the peak of this shape instead of every piece")
    schedule.add_argument(
        "--max-lr",
        type=_number_or("stable", "none"),
        default="stable",
        metavar="L",
        help="largest learning rate; 'stable' (default: 2 / h_1 for plain SGD) or 'none'",
    )
    schedule.add_argument(
        "--plot", metavar="FILE", help="also draw the schedule into FILE (png, pdf, svg); makes its folder"
    )
    add_optimizer(schedule)
    _add_problem(schedule)

    scaling = _command(
        commands, "scaling", _scaling, "from training logs to predictions and decisions",
        "nqm scaling example --predict 300M,512,30k --best --compute 1e18 --steps-max 20k --plot fit.png",
    )  # fmt: skip
    cli_scaling.add_options(scaling)

    figures = _command(
        commands, "figures", _figures, "draw figures of the papers, with their data as CSV beside them",
        "nqm figures zhang2019-3a zhang2019-4 --out pictures",
    )  # fmt: skip
    figures.add_argument("names", nargs="*", metavar="NAME", help="figures to draw; default: all")
    figures.add_argument("--list", action="store_true", help="name the figures and stop")
    figures.add_argument("--out", default="nqm-figures", metavar="DIR", help="where to write (default: nqm-figures)")
    figures.add_argument(
        "--bins",
        type=int,
        metavar="N",
        help="quantise the spectrum into N bins, as the paper does with 100; default: exact",
    )

    validate = _command(
        commands, "validate", _validate, "lay predictions beside real training: a report with pictures and tables",
        "nqm validate --quick --out validation",
    )  # fmt: skip
    validate.add_argument("--rung", nargs="+", choices=("a", "b", "c", "d"), default=None, metavar="R",
                          help="a: linear regression, b: softmax regression, c: linearised network, d: real networks; "
                          "default: all (of other data than digits: d)")  # fmt: skip
    validate.add_argument("--net", nargs="+", choices=("mlp", "cnn", "resnet8"), default=None, metavar="NET",
                          help="networks of rung d: mlp, cnn, resnet8; default: all (with --quick: mlp)")  # fmt: skip
    validate.add_argument("--quick", action="store_true",
                          help="fewer runs, trials and batch sizes: up to three minutes instead of hours")  # fmt: skip
    validate.add_argument("--data", choices=("digits", "mnist", "fashion-mnist", "cifar10"), default="digits",
                          help="of rung d; all but digits are read by torchvision from --data-root")  # fmt: skip
    validate.add_argument("--data-root", metavar="DIR", help="folder of torchvision's files; nothing is downloaded")
    validate.add_argument(
        "--out",
        default="validation",
        metavar="DIR",
        help="where to write; an interrupted run goes on from what lies there (default: validation)",
    )
    validate.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random; default: 0")
    validate.add_argument("--device", metavar="D", help="such as cuda; default: a GPU where there is one")
    validate.add_argument("--workers", type=int, default=1, metavar="N", help="processes to spread trials over")

    warmup = _command(
        commands, "warmup", cli_warmup.run, "compile ahead what the first questions would wait for", "nqm warmup"
    )
    cli_warmup.add_options(warmup)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[Any], int], summary: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print JSON; null stands for what is infinite or not a number"
    )
    return parser


def _add_problem(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problem: curvatures i^-A, i = 1 ... N, unit start, noise covariance = Hessian")
    group.add_argument("--dim", type=_sized, default=10_000, metavar="N", help="number of coordinates; default: 10000")
    group.add_argument("--exponent", type=float, default=1.0, metavar="A", help="default: 1")
    group.add_argument(
        "--label-noise",
        type=float,
        metavar="V",
        help="linear regression on Gaussian features instead, whose noise grows with the loss; V: variance of labels",
    )


def _version() -> str:
    from .. import __version__

    return f"nqm {__version__}"


def _sized(text: str) -> float:
    """A number, as in ``nqm scaling`` with k, M, B or T."""
    try:
        return float(text)
    except ValueError:
        return cli_scaling.size(text)


def _number_or(*words: str, parse: Callable[[str], float] = float) -> Callable[[str], Any]:
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


def _print_json(answer: Any) -> None:
    print(json.dumps(_finite(answer), allow_nan=False))


def _check_picture(path: str | None) -> None:
    """Say now that a picture can't be written, not when the work is done."""
    if path is not None:
        from ..files import picture_format

        picture_format(path)
        cli_scaling.require_writable("plot", path)


def _problem(arguments: argparse.Namespace) -> Any:
    from .. import NoisyQuadratic

    model = "additive" if arguments.label_noise is None else "gaussian-features"
    return NoisyQuadratic.power_law(arguments.dim, arguments.exponent, model, arguments.label_noise)


def _steps(arguments: argparse.Namespace) -> int:
    from .. import steps_to_target, tune
    from .._risk import risk

    problem, optimizer = _problem(arguments), optimizer_of(arguments)
    batch, target = arguments.batch_size, arguments.target
    if arguments.crossing == "last" and (optimizer.free or target is None):
        told = "some to tune" if optimizer.free else "--steps"
        raise ValueError(f"--crossing last: expected --target and all hyperparameters as numbers, got {told}")
    steps: Any
    if optimizer.free:
        best = tune(problem, optimizer, batch, target, steps=arguments.steps)
        optimizer, steps, reached, status = best.optimizer, best.steps, best.risk, best.status
    elif target is None:
        reached, steps, status = float(risk(problem, optimizer, batch, arguments.steps)), int(arguments.steps), "fixed"
    else:
        steps = steps_to_target(problem, optimizer, batch, target, crossing=arguments.crossing)
        reached = float(risk(problem, optimizer, batch, steps if math.isfinite(steps) else 2**53))
        status = "fixed" if math.isfinite(steps) else "unreachable"
    answer = {
        "steps": steps,
        "examples": steps * batch,
        **optimizer.hyperparameters,
        "risk": reached,
        "batch_size": batch,
        "target": target,
        "status": status,
    }
    if arguments.json:
        _print_json(answer)
        return 0
    if status == "unreachable":
        ends = "it diverges" if math.isinf(reached) else f"the risk ends at {reached:.6g}"
        answer["status"] = f"unreachable: {ends}"
    for name, value in answer.items():
        if value is not None:
            print(f"{name:>10}  {value if isinstance(value, int | str) else format(value, '.6g')}")
    return 0


def _schedule(arguments: argparse.Namespace) -> int:
    from .. import FREE, optimize_schedule, schedules

    _check_picture(arguments.plot)
    batch = FREE if arguments.batch_size == "free" else arguments.batch_size
    best = optimize_schedule(
        _problem(arguments),
        batch,
        target=arguments.target,
        steps=arguments.steps,
        examples=arguments.examples,
        pieces=arguments.pieces if arguments.pieces is not None else _pieces(arguments.steps),
        optimizer=optimizer_of(arguments),
        shape=getattr(schedules, arguments.shape) if arguments.shape else None,
        max_lr=None if arguments.max_lr == "none" else arguments.max_lr,
    )
    if arguments.plot:
        from ..files import save_picture
        from ..plotting import new_figure

        picture, ax = new_figure()
        best.plot(ax)
        with cli_scaling.writing("plot", arguments.plot):
            save_picture(picture, arguments.plot)
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
        for name, value in scheduled.items():
            found = getattr(value, "values", None)
            answer[name] = value if found is None else {"values": found.tolist(), "lengths": value.lengths.tolist()}
        _print_json(answer)
        return 0
    for name, value in answer.items():
        if value is not None:
            print(f"{name:>13}  {value if isinstance(value, int | str) else format(value, '.6g')}")
    for name, value in scheduled.items() if best.steps else ():
        if isinstance(value, float):
            print(f"{name:>13}  {value:.6g}")
        else:
            print(f"{name:>13}  step")
            for number, begin in zip(value.values, value.ends - value.lengths, strict=True):
                print(f"{number:13.6g}  from {begin}")
    return 0


def _pieces(steps: float | None) -> int:
    return 50 if steps is None or not 1.0 <= steps < 50.0 else int(steps)


def _scaling(arguments: argparse.Namespace) -> int:
    text, answer = cli_scaling.scaling(arguments)
    if arguments.json:
        _print_json(answer)
    else:
        print(text)
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from .._sweep import SweepInterrupted, sweep

    problem, optimizer = _problem(arguments), optimizer_of(arguments)
    if arguments.workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {arguments.workers}")
    _check_picture(arguments.plot)
    optimizers = {str(optimizer): optimizer}
    try:
        with _processes(arguments.workers) as pool:
            result = sweep(problem, optimizers, arguments.batch_sizes, arguments.target, executor=pool)
    except SweepInterrupted as stop:
        if arguments.json:
            _print_json({"cells": _cells(stop.sweep)})
        else:
            print(stop.sweep.to_string())
        raise KeyboardInterrupt(f"interrupted; the table has what is done of {stop.cells} cells") from stop
    if arguments.plot:
        from ..files import save_picture
        from ..plotting import new_figure

        picture, ax = new_figure()
        result.plot(ax)
        with cli_scaling.writing("plot", arguments.plot):
            save_picture(picture, arguments.plot)
    critical = {f"{t:g}": result.critical_batch_size(t)[str(optimizer)] for t in arguments.target}
    if arguments.json:
        _print_json({"cells": _cells(result), "critical_batch_size": critical})
    else:
        print(result.to_string())
        for target, value in critical.items():
            note = "" if _both_regimes(result.rows(str(optimizer), float(target))) else NARROW
            print(f"critical batch size at target {target}: {value:.6g}{note}")
    return 0


def _cells(result: Any) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in result.table.values()), strict=True)
    return [dict(zip(result.table, row, strict=True)) for row in rows]


@contextmanager
def _processes(count: int) -> Iterator[Executor | None]:
    """An executor of so many processes, None for one; Ctrl-C ends what they are doing."""
    if count == 1:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in active_children():
                process.terminate()
            raise


NARROW = " (within this range of batch sizes, which does not reach both ends: take smaller and larger ones)"


def _both_regimes(rows: Any) -> bool:
    """Whether examples level off at the smallest batch sizes and steps at the largest, to 10% from one to the next."""
    cells = sorted(zip(rows["batch_size"], rows["steps"], rows["examples"], strict=True))
    steps, examples = [cell[1] for cell in cells], [cell[2] for cell in cells]
    if len(steps) < 3 or not all(map(math.isfinite, steps)):
        return False
    return bool(examples[1] <= 1.1 * examples[0] and steps[-2] <= 1.1 * steps[-1])


def _figures(arguments: argparse.Namespace) -> int:
    from ..papers import all_figures

    known = all_figures()
    if arguments.list:
        if arguments.json:
            print(json.dumps({name: figure.title for name, figure in known.items()}))
        else:
            for name, figure in known.items():
                print(f"{name:15} {figure.title}")
        return 0
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}: expected one of {', '.join(known)}")
    if arguments.bins is not None and arguments.bins < 2:
        raise ValueError(f"--bins: expected at least 2, got {arguments.bins}")
    from ..files import write_figures

    cli_scaling.require_writable("out", arguments.out, kind="folder")
    chosen = [known[name] for name in arguments.names or known]
    written = write_figures(chosen, arguments.out, arguments.bins)
    if arguments.json:
        print(json.dumps([str(path) for path in written]))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    import shlex

    if arguments.workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {arguments.workers}")
    from ..validation.report import validate

    cli_scaling.require_writable("out", arguments.out, kind="folder")
    rungs = arguments.rung or (("a", "b", "c", "d") if arguments.data == "digits" else ("d",))
    nets = arguments.net or (("mlp",) if arguments.quick else ("mlp", "cnn", "resnet8"))
    with _processes(arguments.workers) as executor:
        report = validate(
            arguments.out,
            rungs=rungs,
            nets=nets,
            data=arguments.data,
            data_root=arguments.data_root,
            quick=arguments.quick,
            seed=arguments.seed,
            device=arguments.device,
            executor=executor,
            command=shlex.join(["nqm", *arguments.words]),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    if arguments.json:
        print(json.dumps([str(path) for path in report.written]))
    else:
        print(f"report: {report.written[-1]}")
    return 0


def _finite(value: Any) -> Any:
    """JSON has no inf and NaN: None stands for them."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
