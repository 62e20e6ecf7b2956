"""A whole validation: the ladder, the networks, the verdicts; written as Markdown, CSV and pictures."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path

from .._parallel import check_executor, submit
from .document import Report
from .execution import one_thread
from .ladder import Rung, linear_regression, linearised_network, plot_rung, softmax_regression
from .papers.zhang2019.network_result import NetworkResult
from .papers.zhang2019.network_rung import FULL, QUICK, network, network_task
from .papers.zhang2019.report import write_networks, write_summary
from .search.measure_steps import check_results
from .search.records import read_results
from .training.data import load_data
from .training.task import Task

__all__ = ["RUNGS", "validate"]

RUNGS: dict[str, Callable[..., Rung]] = {
    "a": linear_regression,
    "b": softmax_regression,
    "c": linearised_network,
}


def validate(
    folder: str | os.PathLike[str],
    *,
    rungs: Sequence[str] = ("a", "b", "c", "d"),
    nets: Sequence[str] = ("mlp", "cnn", "resnet8"),
    data: str = "digits",
    data_root: str | os.PathLike[str] | None = None,
    quick: bool = False,
    seed: int = 0,
    device: str | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    command: str = "nqm validate",
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Climb the ladder, compare predictions with training, judge the claims; write README.md, CSVs and pictures.

    rungs: of "a", "b", "c" (on digits' features) and "d" (the ``nets`` on ``data``). quick: fewer runs, batch sizes,
    optimizers and trials. Trials of rung d are kept in NET.jsonl in the folder and not repeated: an interrupted run
    goes on from there. command: what the report says it was written by. say: called with a line before each part.

    Raises ValueError for unknown names, a negative seed or nothing to do, RuntimeError where rung d lacks a package,
    and as :func:`load_data` and :func:`measure_steps`, all before any work.
    """
    _check(rungs, nets, data, seed)
    check_executor(executor)
    began, report = time.perf_counter(), Report(Path(folder))
    report.folder.mkdir(parents=True, exist_ok=True)
    tasks = [network_task(net, load_data(data, data_root), device) for net in nets] if "d" in rungs else []
    effort = QUICK if quick else FULL
    for task in tasks:
        check_results(task, effort.optimizers, _results(report, task), **effort.search(seed))
    low = [_begun(rung, quick, seed, executor, say) for rung in rungs if rung != "d"]
    results, before = [], 0
    for task in tasks:
        kept = _results(report, task)
        before += len(read_results(kept)[1]) if kept.exists() else 0
        results.append(network(task, effort, seed=seed, results=kept, executor=executor, progress=progress, say=say))
    climbed = [rung() for rung in low]
    say("pictures and report")
    taken = time.perf_counter() - began
    report.text("# Predictions against real training", "", _origin(command, seed, taken, results, before))
    if results:
        write_summary(report, results)
    for rung in climbed:
        _low_part(report, rung)
    if results:
        write_networks(report, results)
    report.save()
    return report


def _results(report: Report, task: Task) -> Path:
    """Where the trials of a network are kept."""
    return report.folder / f"{task.name}.jsonl"


def _check(rungs: Sequence[str], nets: Sequence[str], data: str, seed: int) -> None:
    for name, given, known in (("rung", rungs, (*RUNGS, "d")), ("net", nets, ("mlp", "cnn", "resnet8"))):
        wrong = [entry for entry in given if entry not in known]
        if wrong or not given:
            raise ValueError(f"{name}: expected some of {', '.join(known)}, got {wrong or 'none'}")
    if seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed}")
    if data != "digits" and tuple(rungs) != ("d",):
        raise ValueError(f"data {data!r}: expected rung d alone, since the others are about digits, got {list(rungs)}")


def _begun(
    name: str, quick: bool, seed: int, executor: Executor | None, say: Callable[[str], None]
) -> Callable[[], Rung]:
    """A low rung's result to come: from the executor, beside the networks, or else computed here and now."""
    say(f"rung {name}")
    if executor is not None:
        future = submit(executor, _climb, RUNGS[name], quick, seed)
        return future.result
    found = _climb(RUNGS[name], quick, seed, lambda line: say(f"rung {name}: {line}"))
    return lambda: found


def _climb(rung: Callable[..., Rung], quick: bool, seed: int, progress: Callable[[str], None] | None = None) -> Rung:
    with one_thread():
        return rung(quick=quick, seed=seed, progress=progress)


def _origin(command: str, seed: int, seconds: float, results: Sequence[NetworkResult], before: int) -> str:
    """Where the numbers come from; before: trials that lay in the results files already."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("nqm", "torch", "numpy"))
    trials = sum(len(read_results(result.kept)[1]) for result in results if result.kept)
    searched = f" {trials:,} training runs are behind the search of hyperparameters" if results else ""
    if before:
        searched += f", {before:,} of them kept from earlier, interrupted parts of the same command"
    return (
        f"Written by `{command}` (seed {seed}) in {seconds / 60:.1f} minutes on {os.cpu_count()} CPU cores "
        f"({platform.machine()}; {versions}).{searched}{'.' if searched else ''}\n\n"
        "Each part compares what the noisy quadratic predicts with what training does. Ratios are predicted / measured."
    )


def _low_part(report: Report, rung: Rung) -> None:
    name = f"rung-{rung.name}"
    report.text(f"## Rung {rung.name}: {rung.title}")
    report.figure(name, f"Rung {rung.name}", plot_rung(rung), rung.curves, "In the lowest panel points of one batch "
                  "size are moved apart by at most 4%, to be seen.")  # fmt: skip
    for kind in ("ratios", "critical"):
        report.data(f"{name}-{kind}", getattr(rung, kind))
    report.text(*(f"- {line}" for line in rung.verdict.splitlines()), "",
                f"[Ratios of steps]({name}-ratios.csv), [critical batch sizes]({name}-critical.csv).")  # fmt: skip
