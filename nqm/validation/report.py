"""A whole validation: the ladder, the networks, the verdicts; written as Markdown, CSV and pictures."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import FREE, SGD, max_stable_lr
from .._io import save_picture, save_text
from .._table import write_csv as save_csv
from .claims import judge
from .data import load_data
from .drawing import plot_curves, plot_predictions, plot_rates, plot_steps
from .ladder import Rung, plot_rung, rung_a, rung_b, rung_c
from .measuring import measure
from .networks import FULL, FURTHER, LONGEST, QUICK, NetworkResult, network_task, rung_d
from .prediction import checkpoints
from .results import read_results
from .search import check_results
from .spectra_figures import (
    compute_power_law,
    compute_spectra,
    compute_variance,
    plot_power_law,
    plot_spectra,
    plot_variance,
)
from .training import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNGS: dict[str, Callable[..., Rung]] = {"a": rung_a, "b": rung_b, "c": rung_c}
SPECTRA_AT = (0, 50, 200, 1000)  # steps of the reference run whose spectra are drawn
RIGHT, ROUGH = 1.5, 3.0  # times off: up to here right, up to here roughly right, beyond it wrong
Columns = Mapping[str, NDArray[Any]]


@dataclass
class Report:
    """Parts of a report, in order, and the files they name in ``folder``."""

    folder: Path
    parts: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def text(self, *lines: str) -> None:
        self.parts.append("\n".join(lines))

    def figure(self, name: str, title: str, picture: Figure, data: Columns, note: str = "") -> None:
        """A picture with its data beside it, and where it stands in the report."""
        self.written += [
            save_csv(data, self.folder / f"{name}.csv"),
            save_picture(picture, self.folder / f"{name}.png"),
        ]
        self.text(f"![{title}]({name}.png)", "", f"{title} ([data]({name}.csv)).{' ' + note if note else ''}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self.text(*("| " + " | ".join(_shown(cell) for cell in line) + " |" for line in lines))

    def save(self) -> Path:
        path = save_text("\n\n".join(self.parts) + "\n", self.folder / "README.md")
        self.written.append(path)
        return path


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
        results.append(rung_d(task, effort, seed=seed, results=kept, executor=executor, progress=progress, say=say))
    climbed = [rung() for rung in low]
    from ..plotting import style

    say("pictures and report")
    taken = time.perf_counter() - began
    report.text("# Predictions against real training", "", _origin(command, seed, taken, results, before))
    if results:
        _summary(report, results)
    for rung in climbed:
        _low_part(report, rung)
    if results:
        _network_part(report, results)
        with style():
            for result in results:
                _spectra_part(report, result)
        _experiments(report, results)
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
        future = executor.submit(_climb, RUNGS[name], quick, seed)
        return lambda: future.result()
    found = _climb(RUNGS[name], quick, seed, lambda line: say(f"rung {name}: {line}"))
    return lambda: found


def _climb(rung: Callable[..., Rung], quick: bool, seed: int, progress: Callable[[str], None] | None = None) -> Rung:
    """On one thread: sums over more end in other digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return rung(quick=quick, seed=seed, progress=progress)
    finally:
        torch.set_num_threads(threads)


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
        report.written.append(save_csv(getattr(rung, kind), report.folder / f"{name}-{kind}.csv"))
    report.text(*(f"- {line}" for line in rung.verdict.splitlines()), "",
                f"[Ratios of steps]({name}-ratios.csv), [critical batch sizes]({name}-critical.csv).")  # fmt: skip


def _summary(report: Report, results: Sequence[NetworkResult]) -> None:
    """Where the model is right, roughly right and wrong: by optimizer, below and beyond its critical batch size."""
    report.text(
        "## In short: where the model is right, roughly right, wrong", "",
        f"Predicted over measured steps to the training loss on {len(results)} network(s), each measured once where "
        "one reference run has reached half the target. Range over networks and batch sizes; right: all within "
        f"{RIGHT:g} times, roughly right: within {ROUGH:g} times, wrong: some farther off, or only one of the two ever "
        "reaches the target (a measurement does where half of the seeds do).",
    )  # fmt: skip
    rows = []
    for name in results[0].measured.names:
        for where in ("up to", "beyond"):
            pairs = [_pairs_where(result, name, where) for result in results]
            predicted, measured = (np.concatenate(part) for part in zip(*pairs, strict=True))
            if predicted.size:
                rows.append([name, f"{where} its critical one", predicted.size, *_agreement(predicted, measured)])
    trained = _joined([result.trained() for result in results])
    predicted, measured = trained["predicted"], trained["measured"]
    rows.append(["trained at the predicted rate", "all followed", predicted.size, *_agreement(predicted, measured)])
    report.table(["optimizer", "batch sizes", "cells", "predicted / measured", "one out of reach", "verdict"], rows)
    report.text(_told_of_trained(trained))
    report.text(
        "Read with care: (1) measured steps are the median, over seeds, of the first reading at the target; predicted "
        "ones are where the *expected* loss crosses it, which comes later where single runs are noisy: part of the "
        "ratios at small batches is no error of the model. (2) The search has the same budget whatever the number of "
        "hyperparameters: optimizers with more of them are found farther from their best, and the intervals below "
        "know of seeds alone. (3) The share of the target at which to measure, a half, was chosen on the mlp."
    )


def _told_of_trained(trained: Columns) -> str:
    """How many trainings reach the target at the rate that the model recommends."""
    reached = np.isfinite(trained["measured"])
    by_net = {net: reached[trained["net"] == net] for net in dict.fromkeys(trained["net"].tolist())}
    listed = ", ".join(f"{here.sum()} of {here.size} on {net}" for net, here in by_net.items())
    return (
        "In the other rows model and training each have their own best hyperparameters. **Trained at the predicted "
        "rate**, the learning rate (with momentum and decay) that the model finds best, "
        f"{reached.sum()} of {reached.size} trainings ({', '.join(dict.fromkeys(trained['optimizer'].tolist()))}) "
        f"reach the target within {FURTHER:g} times the predicted steps (or {LONGEST:,} steps, if that is less): "
        f"{listed}. A training is the mean loss of the seeds' runs (the figures rung-d-curves)."
    )


def _pairs_where(result: NetworkResult, name: str, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    critical = result.measured.critical_batch_size()[name].value
    ratios = result.ratios()
    below = ratios["batch_size"] <= critical if math.isfinite(critical) else np.ones(len(ratios["ratio"]), dtype=bool)
    here = (ratios["optimizer"] == name) & (ratios["noise"] == "measured") & (below if where == "up to" else ~below)
    return ratios["predicted"][here], ratios["measured"][here]


def _agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[str, int, str]:
    """Range of the ratios, number of cells in which only one is out of reach, and the word for both."""
    there, really = np.isfinite(predicted), np.isfinite(measured)
    ratios, lost = predicted[there & really] / measured[there & really], int(np.sum(there != really))
    if not ratios.size:
        return "", lost, "wrong" if lost else ""
    off = math.inf if lost else max(ratios.max(), 1.0 / ratios.min())
    word = "right" if off <= RIGHT else "roughly right" if off <= ROUGH else "wrong"
    return f"{ratios.min():.2f} to {ratios.max():.2f}", lost, word


def _joined(tables: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}


def _network_part(report: Report, results: Sequence[NetworkResult]) -> None:
    report.text("## Rung d: real networks", "", *(f"- {_described(result)}" for result in results))
    names = [n for n in ("SGD", "momentum", "SGD with EMA") if n in results[0].measured.names]
    ratios, critical = (_joined([getattr(r, kind)() for r in results]) for kind in ("ratios", "critical"))
    targets = {result.name: result.predicted.target for result in results}
    report.figure("rung-d", "Steps to the training loss, predicted (lines; dotted: noise grows with the loss) and "
                  "measured (median and range of the seeds)",
                  plot_predictions(ratios, targets, names), ratios)  # fmt: skip
    others = [n for n in results[0].measured.names if n not in names]
    if others:
        report.figure("rung-d-preconditioned", "The same for preconditioned optimizers, whose stand-ins are H^0.5 "
                      "(Adam) and H + damping (K-FAC); without momentum dashed, points hollow",
                      plot_predictions(ratios, targets, others), ratios)  # fmt: skip
    sizes = sorted(set(ratios["batch_size"].tolist()))
    rows = []
    for noise in ("measured", "growing"):
        for net, name in dict.fromkeys(zip(ratios["net"].tolist(), ratios["optimizer"].tolist(), strict=True)):
            here = (ratios["net"] == net) & (ratios["optimizer"] == name) & (ratios["noise"] == noise)
            if here.any():
                by_size = dict(zip(ratios["batch_size"][here].tolist(), ratios["ratio"][here].tolist(), strict=True))
                rows.append([net, name, noise, *(by_size.get(size, "") for size in sizes)])
    report.text("Predicted over measured steps:")
    report.table(["net", "optimizer", "noise", *(f"B = {size:g}" for size in sizes)], rows)
    report.text("Critical batch sizes E_min / S_min in examples (range: from the luckiest and unluckiest seeds):")
    report.written.append(save_csv(critical, report.folder / "rung-d-critical.csv"))
    report.table(
        ["net", "optimizer", "predicted", "measured", "range", "ratio"],
        [[net, name, p, m, "" if math.isnan(m) else f"{_shown(low)} to {_shown(high)}", r]
         for net, name, p, m, low, high, r in zip(*(column.tolist() for column in critical.values()), strict=True)],
    )  # fmt: skip
    if any(result.elsewhere for result in results):
        _elsewhere_part(report, results)
    for result in results:
        report.figure(f"rung-d-curves-{result.name}", f"{result.name}: training loss at the hyperparameters that the "
                      "model finds best", plot_curves(result.name, result.curves), result.curves)  # fmt: skip


def _elsewhere_part(report: Report, results: Sequence[NetworkResult]) -> None:
    rows = []
    for result in results:
        columns = result.elsewhere or {}
        for share in dict.fromkeys(columns["share"].tolist()):
            for name in dict.fromkeys(columns["optimizer"].tolist()):
                here = (columns["share"] == share) & (columns["optimizer"] == name)
                ratios = ", ".join(
                    f"{_shown(ratio) or 'out of reach'} (B = {size})"
                    for size, ratio in zip(columns["batch_size"][here], columns["ratio"][here].tolist(), strict=True)
                )
                rows.append([result.name, name, share, ratios])
    report.text("How much hangs on where the network is measured: predicted over measured steps from other points of "
                "the same reference run.")  # fmt: skip
    report.table(["net", "optimizer", "measured at this share of the target", "predicted / measured"], rows)


def _described(result: NetworkResult) -> str:
    q, targets = result.quadratic, result.measured.configuration["targets"]
    growth = "noise that does not grow from there half way to the start"
    if q.noise_growth > 0.0:
        growth = f"noise grows {q.noise_growth:.2g} times as fast as with Gaussian features"
    return (
        f"{result.name}: {q.provenance['parameters']:,} parameters, {len(result.task.data):,} examples of "
        f"{result.task.data.name}; {q.provenance['curvature']} measured at training loss {q.loss_at:.3g} "
        f"(floor of the quadratic {q.floor:.3g}; its loss of the start {q.floor + q.initial_risk:.3g}, really "
        f"{q.loss_start:.3g}); noise scale {q.noise_scale:.3g} examples there, {q.noise_scale_start:.3g} at the start; "
        f"{growth}; plain SGD is stable there up to lr "
        f"{float(max_stable_lr(q, SGD(FREE))):.3g}{_largest_rate(result)}; targets: "
        + ", ".join(f"{metric} {value:g}" for metric, value in targets)
    )


def _largest_rate(result: NetworkResult) -> str:
    if "SGD" not in result.measured.names:
        return ""
    rate = result.measured.rows("SGD")["lr"][-1]
    return f", and its best measured lr at the largest batch size is {rate:.3g}"


def _spectra_part(report: Report, result: NetworkResult) -> None:
    task, net, seed = result.task, result.name, int(result.measured.configuration["seed"])
    start, passed = task.build(seed), checkpoints(task, SPECTRA_AT, seed=seed)
    spectra = compute_spectra(start, task.loss, task.data, passed, device=task.device)
    variance = compute_variance(
        measure(start, task.loss, task.data, at=result.point, curvature="ekfac", device=task.device)
    )
    law = compute_power_law(result.quadratic)
    report.text(f"### Spectra of {net} (zhang2019 figures 9, 10, 12)")
    report.figure(
        f"zhang2019-9-{net}", f"{net}: EKFAC spectrum along the reference run", plot_spectra(spectra), spectra
    )
    report.figure(f"zhang2019-10-{net}", f"{net}: variance of gradients against curvature in the Kronecker basis, and "
                  "their second moment against their variance", plot_variance(variance), variance)  # fmt: skip
    report.figure(f"zhang2019-12-{net}", f"{net}: spectrum of the Gauss-Newton matrix where it was measured",
                  plot_power_law(law), law,
                  f"Fitted exponent {law['exponent'][0]:.2f}, where the model of zhang2019 has 1.")  # fmt: skip


def _experiments(report: Report, results: Sequence[NetworkResult]) -> None:
    tables = {result.name: result.measured for result in results}
    for result in results:
        report.written.append(result.measured.save_csv(report.folder / f"steps-{result.name}.csv"))
    names = results[0].measured.names
    preconditioned = [name for name in names if name != "SGD with EMA"]
    steps = _joined([_named(result) for result in results])
    report.text(
        "## Steps to target for real (zhang2019 figures 5 to 8)", "",
        "Fewest steps found by quasi-random search for each optimizer at each batch size; drawn is the median over "
        "fresh seeds with their range. All trials' best: " + ", ".join(f"[{n}](steps-{n}.csv)" for n in tables) + ".",
    )  # fmt: skip
    metrics = results[0].measured.metrics
    if "held-out error" in metrics:
        report.figure("zhang2019-5", "Figure 5: steps to the held-out error, with the best of the hyperparameters that "
                      "reach the training loss first",
                      plot_steps(tables, preconditioned, "held-out error"), steps)  # fmt: skip
    if "SGD with EMA" in names:
        report.figure("zhang2019-6", "Figure 6: steps to the training loss with and without EMA",
                      plot_steps(tables, ["SGD", "SGD with EMA"], metrics[0]), steps)  # fmt: skip
    report.figure("zhang2019-7", "Figure 7: best learning rates", plot_rates(tables), steps)
    report.figure("zhang2019-8", "Figure 8: steps to the training loss",
                  plot_steps(tables, preconditioned, metrics[0]), steps)  # fmt: skip
    _edges(report, results)
    verdicts = judge({result.name: (result.measured, result.predicted) for result in results})
    report.written.append(save_csv(verdicts, report.folder / "claims.csv"))
    report.text(
        "## Claims, judged", "",
        "Value: the number that decides, and its 95% interval from the spread over the seeds (the search may have "
        "missed more); model: the same number from the predicted steps ([data](claims.csv)). A verdict needs the whole "
        "interval on one side of the bound.",
    )  # fmt: skip
    rows = []
    for claim, number, net, value, low, high, bound, verdict, model in zip(
        *(column.tolist() for column in verdicts.values()), strict=True
    ):
        interval = _shown(value) if math.isnan(low) else f"{_shown(value)} ({_shown(low)} to {_shown(high)})"
        rows.append([claim, number, net, interval, bound, f"**{verdict}**", model])
    report.table(["claim", "number", "net", "value", "bound", "verdict", "model"], rows)


def _named(result: NetworkResult) -> dict[str, NDArray[Any]]:
    table = result.measured.table
    return {"net": np.full(len(table["optimizer"]), result.name), **table}


def _edges(report: Report, results: Sequence[NetworkResult]) -> None:
    """Which optima lie at an edge of what was searched, cells that failed, trials that diverged."""
    lines = []
    for result in results:
        table, metric = result.measured.table, result.measured.metrics[0]
        here = table["metric"] == metric
        cells, diverged = int(here.sum()), int(table["diverged"][here].sum())
        columns = (table[key][here].tolist() for key in ("optimizer", "batch_size", "at_edge"))
        at_edge = [f"{name} at {size} ({edge})" for name, size, edge in zip(*columns, strict=True) if edge]
        failed = int((table["status"][here] != "reached").sum())
        listed = f": {', '.join(at_edge)}" if at_edge else ""
        lines.append(
            f"- {result.name}: {cells} cells, {failed} without an answer; {len(at_edge)} optima within a tenth of an "
            f"edge of everything searched{listed}; {diverged} of {int(table['trials'][here].sum())} trials diverged."
        )
    report.text("Is the optimum inside the search space?", "", *lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value)
