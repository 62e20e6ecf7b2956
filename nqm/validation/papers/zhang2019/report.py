"""Networks in words: where the model is right, figures beside the paper's, the claims' verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .... import FREE, SGD, max_stable_lr
from ...._table import Table
from ...document import Report, shown
from ...training.kfac import FACTOR_EXAMPLES
from .claims import judge
from .network_result import NetworkResult
from .network_rung import FOLLOWED, FURTHER, LONGEST
from .spectra import judge_spectra, plot_power_law, plot_spectra, plot_variance
from .steps import plot_curves, plot_predictions, plot_rates, plot_steps

__all__ = ["write_claims", "write_networks", "write_summary"]

RIGHT, ROUGH = 1.5, 3.0  # times off: up to here right, up to here roughly right, beyond it wrong


def write_summary(report: Report, results: Sequence[NetworkResult]) -> None:
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


def _told_of_trained(trained: Table) -> str:
    """How many trainings reach the target at the rate that the model recommends."""
    reached = np.isfinite(trained["measured"])
    by_net = {net: reached[trained["net"] == net] for net in trained.distinct("net")}
    listed = ", ".join(f"{here.sum()} of {here.size} on {net}" for net, here in by_net.items())
    return (
        "In the other rows model and training each have their own best hyperparameters. **Trained at the predicted "
        "rate**, the learning rate (with momentum and decay) that the model finds best, "
        f"{reached.sum()} of {reached.size} trainings ({', '.join(trained.distinct('optimizer'))}) "
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


def _joined(tables: Sequence[Table]) -> Table:
    return Table({key: np.concatenate([table[key] for table in tables]) for key in tables[0]})


def write_networks(report: Report, results: Sequence[NetworkResult]) -> None:
    """Everything about the networks but the summary."""
    from ....plotting import style

    ratios = _joined([result.ratios() for result in results])
    names = results[0].measured.names
    targets = {result.name: result.predicted.target for result in results}
    report.text("## Rung d: real networks", "", *(f"- {_described(result)}" for result in results))
    _prediction_figures(report, names, ratios, targets)
    _ratio_table(report, ratios)
    _critical_table(report, _joined([result.critical() for result in results]))
    if any(result.elsewhere for result in results):
        _elsewhere_table(report, results)
    for result in results:
        report.figure(f"rung-d-curves-{result.name}", f"{result.name}: training loss at the hyperparameters that the "
                      "model finds best", plot_curves(result.name, result.curves), result.curves)  # fmt: skip
    with style():
        for result in results:
            _spectra(report, result)
    _experiments(report, results)
    _claims(report, results)


def _prediction_figures(report: Report, names: Sequence[str], ratios: Table, targets: Mapping[str, float]) -> None:
    unscaled = [name for name in FOLLOWED if name in names]
    report.figure("rung-d", "Steps to the training loss, predicted (lines; dotted: noise grows with the loss) and "
                  "measured (median and range of the seeds)",
                  plot_predictions(ratios, targets, unscaled), ratios)  # fmt: skip
    others = [name for name in names if name not in unscaled]
    if others:
        report.figure("rung-d-preconditioned", "The same for preconditioned optimizers, whose stand-ins are H^0.5 "
                      "(Adam) and H + damping (K-FAC); without momentum dashed, points hollow",
                      plot_predictions(ratios, targets, others), ratios)  # fmt: skip


def _ratio_table(report: Report, ratios: Table) -> None:
    sizes = sorted(ratios.distinct("batch_size"))
    rows = []
    for noise in ("measured", "growing"):
        for net, name in dict.fromkeys(zip(ratios["net"].tolist(), ratios["optimizer"].tolist(), strict=True)):
            here = ratios.select(net=net, optimizer=name, noise=noise)
            if here.rows:
                by_size = dict(zip(here["batch_size"].tolist(), here["ratio"].tolist(), strict=True))
                rows.append([net, name, noise, *(by_size.get(size, "") for size in sizes)])
    report.text("Predicted over measured steps:")
    report.table(["net", "optimizer", "noise", *(f"B = {size:g}" for size in sizes)], rows)


def _critical_table(report: Report, critical: Table) -> None:
    report.text("Critical batch sizes E_min / S_min in examples (range: from the luckiest and unluckiest seeds):")
    report.data("rung-d-critical", critical)
    report.table(
        ["net", "optimizer", "predicted", "measured", "range", "ratio"],
        [[net, name, p, m, "" if math.isnan(m) else f"{shown(low)} to {shown(high)}", r]
         for net, name, p, m, low, high, r in zip(*(column.tolist() for column in critical.values()), strict=True)],
    )  # fmt: skip


def _elsewhere_table(report: Report, results: Sequence[NetworkResult]) -> None:
    rows = []
    for result in results:
        columns = result.elsewhere or Table({"share": [], "optimizer": []})
        for share in columns.distinct("share"):
            for name in columns.distinct("optimizer"):
                here = columns.select(share=share, optimizer=name)
                ratios = ", ".join(
                    f"{shown(ratio) or 'out of reach'} (B = {size})"
                    for size, ratio in zip(here["batch_size"], here["ratio"].tolist(), strict=True)
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


def _spectra(report: Report, result: NetworkResult) -> None:
    net = result.name
    spectra, variance, law = result.spectra
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
        report.data(f"steps-{result.name}", result.measured.table)
    names = results[0].measured.names
    preconditioned = [name for name in names if name != "SGD with EMA"]
    steps = _joined([_named(result) for result in results])
    report.text(
        "## Steps to target for real (zhang2019 figures 5 to 8)", "",
        "Fewest steps found by quasi-random search for each optimizer at each batch size; drawn is the median over "
        "fresh seeds with their range. All trials' best: " + ", ".join(f"[{n}](steps-{n}.csv)" for n in tables) + ".",
        _how_they_are_read(results[0].task.evaluated, "K-FAC" in " ".join(results[0].measured.names)),
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


def _how_they_are_read(evaluated: int | None, kfac: bool) -> str:
    """What the numbers of steps do not say of themselves."""
    examples = "all examples" if evaluated is None else f"the first {evaluated} examples"
    said = f"Losses and errors are read on {examples} of each part, at steps a tenth apart."
    if not kfac:
        return said
    return (
        f"{said} K-FAC's factors are taken anew at each reading, without a running average, of {FACTOR_EXAMPLES} more "
        "examples that are counted nowhere."
    )


def _claims(report: Report, results: Sequence[NetworkResult]) -> None:
    write_claims(
        report,
        judge({result.name: (result.measured, result.predicted) for result in results}),
        judge_spectra({result.name: result.spectra for result in results}),
    )


def write_claims(report: Report, verdicts: Table, spectra: Table) -> None:
    """The last part of a report, from what :func:`judge` and :func:`judge_spectra` found."""
    report.data("claims", verdicts)
    report.text(
        "## Claims, judged", "",
        "Value: the number that decides, and its 95% interval from the spread over the seeds (the search may have "
        "missed more); model: the same number from the predicted steps ([data](claims.csv)). A verdict needs the whole "
        "interval on one side of the bound. Each claim is judged on the steps to each target: the paper's section 4.1 "
        "is about validation targets, here those on held-out examples, its figures 6 and 8 about the training set. "
        "Hyperparameters were chosen by the first target.",
    )  # fmt: skip
    rows = []
    for claim, number, metric, net, value, low, high, bound, verdict, model in zip(
        *(column.tolist() for column in verdicts.values()), strict=True
    ):
        interval = shown(value) if math.isnan(low) else f"{shown(value)} ({shown(low)} to {shown(high)})"
        rows.append([claim, number, metric, net, interval, bound, f"**{verdict}**", model])
    report.table(["claim", "number", "steps to", "net", "value", "bound", "verdict", "model"], rows)
    report.data("claims-spectra", spectra)
    report.text(
        "## Spectra, judged",
        "",
        "What the paper's appendix E says of spectra, on one run of each network, so that a value has no interval "
        "([data](claims-spectra.csv)). The paper's figure 9 has the eigenvalues of K-FAC's factors along training by "
        "K-FAC at batch size 3,000; ours are those in the Kronecker basis (EKFAC) along plain SGD at batch size 256.",
    )
    columns = list(spectra)
    rows = [list(row) for row in zip(*(column.tolist() for column in spectra.values()), strict=True)]
    report.table(columns, [[*row[:-1], f"**{row[-1]}**"] for row in rows])


def _named(result: NetworkResult) -> Table:
    table = result.measured.table
    return Table({"net": np.full(table.rows, result.name), **table})


def _edges(report: Report, results: Sequence[NetworkResult]) -> None:
    """Which optima lie at an edge of what was searched, cells that failed, trials that diverged."""
    lines = []
    for result in results:
        here = result.measured.table.select(metric=result.measured.metrics[0])
        diverged = int(here["diverged"].sum())
        columns = (here[key].tolist() for key in ("optimizer", "batch_size", "at_edge"))
        at_edge = [f"{name} at {size} ({edge})" for name, size, edge in zip(*columns, strict=True) if edge]
        failed = int((here["status"] != "reached").sum())
        listed = f": {', '.join(at_edge)}" if at_edge else ""
        lines.append(
            f"- {result.name}: {here.rows} cells, {failed} without an answer; {len(at_edge)} optima within a tenth of "
            f"an edge of everything searched{listed}; {diverged} of {int(here['trials'].sum())} trials diverged."
        )
    report.text("Is the optimum inside the search space?", "", *lines)
