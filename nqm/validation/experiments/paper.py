"""A paper's experiments on networks: jobs, figures, verdicts, and the report of them all."""

from __future__ import annotations

import math
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..._parallel import check_executor
from ..._table import Table
from ...papers.network_figures import NETWORK_FIGURES
from ..document import Report
from ..training.data import load_data
from .job import key_of
from .jobs import read_jobs, run_jobs, seconds_of
from .verdict import CANNOT, FAILS, FIELDS, HOLDS, UNDECIDED, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["Effort", "NetworkFigure", "Paper", "Result", "write_paper"]


class Effort(NamedTuple):
    """quick: few seeds and settings, minutes for the paper. seed: of everything random. data: a data set's name."""

    quick: bool
    seed: int
    data: str


class Result(NamedTuple):
    """What came out of one job: its settings, and the columns that it returned."""

    settings: dict[str, Any]
    columns: Table


@dataclass(frozen=True)
class NetworkFigure:
    """A figure or table of a paper, on networks that are small enough for two cores.

    name: as typed, paper and number (its title and cost are in :data:`nqm.papers.network_figures.NETWORK_FIGURES`).
    jobs: settings of the runs behind it; none where it is not for this data. compute: their columns to the figure's
    data, a table of :mod:`.samples`. plot: the picture. judge: verdicts on the claims that it shows. see: what to look
    for, with the paper's numbers. differs: how the small version, of any seed or of the effort, differs from the
    paper's.
    """

    name: str
    jobs: Callable[[Effort], list[dict[str, Any]]]
    compute: Callable[[Sequence[Result]], Table]
    plot: Callable[[Table], Picture]
    judge: Callable[[Table], list[Verdict]]
    see: str
    differs: str | Callable[[Effort], str]

    @property
    def title(self) -> str:
        return NETWORK_FIGURES[self.name].title


@dataclass(frozen=True)
class Paper:
    """name: as cited here. title: the paper's. run: a module-level function of a job's settings and ``data_root``.
    protocol: what the numbers of all jobs depend on beside their settings. cannot: what the small version cannot say.
    words: what the claims' words mean. data: data sets that some figures are for.
    """

    name: str
    title: str
    run: Callable[..., Any]
    figures: tuple[NetworkFigure, ...]
    protocol: dict[str, Any]
    cannot: str
    words: str
    data: tuple[str, ...] = ("digits",)


def write_paper(
    paper: Paper,
    folder: str | os.PathLike[str],
    *,
    figures: Sequence[str] | None = None,
    quick: bool = False,
    seed: int = 0,
    data: str = "digits",
    data_root: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    command: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Train what the figures (names; None: all) need, draw them, judge the claims; write README.md, CSVs, pictures.

    Finished jobs are kept in PAPER.jsonl (PAPER-quick.jsonl) in the folder and not repeated: an interrupted run goes on
    from there, and the report has all figures whose jobs are there. Raises ValueError, before any work, for unknown
    figures, seeds and data, and where the folder has another report that this one would take the place of.
    """
    check_executor(executor)
    effort = Effort(quick, _checked_seed(seed), _checked_data(paper, data))
    chosen = _chosen(paper, figures)
    configuration = {"paper": paper.name, **paper.protocol}
    if data != "digits" or data_root is not None:
        configuration["examples"] = load_data(data, data_root).digest
    report = Report(Path(folder))
    results = report.folder / f"{paper.name}{'-quick' if quick else ''}.jsonl"
    wanted = _with_finished(paper, chosen, effort, results)
    _check_folder(report.folder, list(wanted), quick)
    report.folder.mkdir(parents=True, exist_ok=True)
    jobs = {key_of(settings): settings for own in wanted.values() for settings in own}
    tables = run_jobs(
        partial(paper.run, data_root=None if data_root is None else os.fspath(data_root)),
        list(jobs.values()),
        configuration=configuration,
        results=results,
        executor=executor,
        progress=progress,
        say=None if progress else say,
    )
    found = {key: Result(settings, table) for (key, settings), table in zip(jobs.items(), tables, strict=True)}
    say("pictures and report")
    report.text(f"# {paper.name} on networks", "", f"*{paper.title}*", "",
                _origin(command, effort, seconds_of(results, list(jobs.values())), len(jobs)))  # fmt: skip
    by_figure = {name: [found[key_of(settings)] for settings in own] for name, own in wanted.items()}
    _write(report, paper, effort, by_figure)
    report.save()
    return report


def _write(report: Report, paper: Paper, effort: Effort, results: dict[str, list[Result]]) -> None:
    """Verdicts, then each figure."""
    from ...plotting import style

    shown = [figure for figure in paper.figures if figure.name in results]
    drawn = {figure.name: figure.compute(results[figure.name]) for figure in shown}
    _write_verdicts(report, paper, {figure.name: figure.judge(drawn[figure.name]) for figure in shown})
    with style():
        for figure in shown:
            differs = figure.differs if isinstance(figure.differs, str) else figure.differs(effort)
            own = results[figure.name]
            lost = sum(bool(np.any(one.columns.get("diverged", 0))) for one in own)
            report.text(f"## {figure.name}: {figure.title}")
            report.figure(figure.name, figure.title, figure.plot(drawn[figure.name]), drawn[figure.name],
                          f"{figure.see} *Here:* {differs} *Jobs:* {len(own)}, of which {lost} diverged.")  # fmt: skip
    report.text("## What these small versions cannot say", "", paper.cannot)


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    return seed


def _checked_data(paper: Paper, data: str) -> str:
    if data not in paper.data:
        expected = " or ".join(paper.data)
        raise ValueError(f"data: expected {expected}, which {paper.name}'s figures are for, got {data!r}")
    return data


def _with_finished(
    paper: Paper, chosen: Sequence[NetworkFigure], effort: Effort, results: Path
) -> dict[str, list[dict[str, Any]]]:
    """Jobs by figure: of those chosen, and of those whose jobs have all been run before."""
    kept = {key_of(settings) for settings, _ in read_jobs(results)[1]} if results.exists() else set()
    wanted = {}
    for figure in paper.figures:
        jobs = figure.jobs(effort)
        if jobs and (figure in chosen or kept.issuperset(map(key_of, jobs))):
            wanted[figure.name] = jobs
    if not any(figure.name in wanted for figure in chosen):
        names = ", ".join(figure.name for figure in paper.figures if figure.jobs(effort))
        raise ValueError(f"figures: expected some of those for {effort.data}, {names}, got none of them")
    return wanted


def _check_folder(folder: Path, wanted: Sequence[str], quick: bool) -> None:
    """Refuse to write over a report of other figures, or a full one with a quick one."""
    path = folder / "README.md"
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    others = [name for name in re.findall(r"(?m)^## (\w+-\w+): ", text) if name not in wanted]
    if others or (QUICK in text) != quick:
        other = f"figures {', '.join(others)}" if others else "the quick version" if QUICK in text else "a full run"
        raise ValueError(
            f"folder: expected one without a report of something else, got {path}, of {other}; take another folder"
        )


def _chosen(paper: Paper, names: Sequence[str] | None) -> list[NetworkFigure]:
    known = {figure.name: figure for figure in paper.figures}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}: expected one of {', '.join(known)}")
    return [known[name] for name in (names or known)]


QUICK = "Few seeds, steps and settings (--quick): fewer than the texts below say."


def _origin(command: str, effort: Effort, seconds: float, jobs: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("nqm", "torch", "numpy"))
    told = (
        f"Written by `{command}` (seed {effort.seed}): {jobs} jobs of {seconds / 60:.1f} minutes together, each on one "
        f"thread ({platform.machine()}; {versions})."
    )
    return f"{told} {QUICK}" if effort.quick else told


def _write_verdicts(report: Report, paper: Paper, verdicts: dict[str, list[Verdict]]) -> None:
    rows = [(name, verdict) for name, several in verdicts.items() for verdict in several]
    counts = Counter(verdict.verdict for _, verdict in rows)
    told = ", ".join(f"{counts[name]} {name}" for name in (HOLDS, FAILS, UNDECIDED, CANNOT))
    report.text("## Verdicts", "", f"{len(rows)} verdicts: {told}. {paper.words}", "", HOW)
    columns = ("shown by", "claim", "number", "ours", "95% interval", "seeds", "holds", "paper", "noisy quadratic",
               "verdict")  # fmt: skip
    report.table(columns, [
        (name, v.claim, v.why, v.value, _interval(v), v.seeds, f"{v.side} {v.bound:.3g}", v.paper, v.model,
         f"**{v.verdict}**")
        for name, v in rows
    ])  # fmt: skip
    table = Table.from_rows([{"figure": name, **verdict.row()} for name, verdict in rows], ("figure", *FIELDS))
    report.data(f"{paper.name}-verdicts", table)


HOW = (
    "Each from one number per seed: *holds* where its whole 95% interval (Student's t over the seeds) lies where the "
    "column *holds* has it (within: on either side of 0), *does not hold* where it lies on the other side, else "
    "*undecided*; *cannot be judged here* where the claim's premise is not seen at this size. Settings and bounds "
    "were chosen before the numbers were seen, but for what the texts below name. A seed draws weights, batches and a "
    "split of the same examples into those to train on and those held out: splits overlap, so that intervals are "
    "those of this data set. They are not corrected for their number: of a hundred true ones some five miss, and a "
    "verdict whose interval ends near its bound is a weak one. An interval is not known where a run diverged or did "
    "not come to what is measured."
)


def _interval(verdict: Verdict) -> str:
    if not math.isfinite(verdict.low + verdict.high):
        return "not known"
    return f"{verdict.low:.3g} to {verdict.high:.3g}"
