"""A paper's experiments on networks: jobs, figures, verdicts, and the report of them all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._parallel import check_executor
from ..._table import Table
from ...papers.network_figures import NETWORK_FIGURES
from ..document import Report
from .jobs import run_jobs, seconds_of
from .verdict import Verdict

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
    data. plot: the picture. judge: verdicts on the claims that it shows. see: what to look for, with the paper's
    numbers. differs: how the small version differs from the paper's.
    """

    name: str
    jobs: Callable[[Effort], list[dict[str, Any]]]
    compute: Callable[[Sequence[Result]], Table]
    plot: Callable[[Table], Picture]
    judge: Callable[[Table], list[Verdict]]
    see: str
    differs: str

    @property
    def title(self) -> str:
        return NETWORK_FIGURES[self.name].title


@dataclass(frozen=True)
class Paper:
    """name: as cited here. title: the paper's. run: a module-level function of a job's settings and ``data_root``.
    protocol: what the numbers of all jobs depend on beside their settings. cannot: what the small version cannot say.
    """

    name: str
    title: str
    run: Callable[..., Any]
    figures: tuple[NetworkFigure, ...]
    protocol: dict[str, Any]
    cannot: str


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
    from there. Raises ValueError for unknown figures or where none is for this data, before any work.
    """
    from ...plotting import style

    check_executor(executor)
    chosen = _chosen(paper, figures)
    effort = Effort(quick, seed, data)
    wanted = {figure.name: figure.jobs(effort) for figure in chosen}
    chosen = [figure for figure in chosen if wanted[figure.name]]
    if not chosen:
        raise ValueError(f"data: expected a data set that {paper.name}'s figures are for, got {data!r}")
    jobs = {_key(settings): settings for name in wanted for settings in wanted[name]}
    report = Report(Path(folder))
    report.folder.mkdir(parents=True, exist_ok=True)
    results = report.folder / f"{paper.name}{'-quick' if quick else ''}.jsonl"
    tables = run_jobs(
        partial(paper.run, data_root=None if data_root is None else os.fspath(data_root)),
        list(jobs.values()),
        configuration={"paper": paper.name, **paper.protocol},
        results=results,
        executor=executor,
        progress=progress,
        say=None if progress else say,
    )
    found = {key: Result(settings, table) for (key, settings), table in zip(jobs.items(), tables, strict=True)}
    say("pictures and report")
    drawn = {f.name: f.compute([found[_key(settings)] for settings in wanted[f.name]]) for f in chosen}
    verdicts = {figure.name: figure.judge(drawn[figure.name]) for figure in chosen}
    report.text(f"# {paper.name} on networks", "", f"*{paper.title}*", "",
                _origin(command, seed, seconds_of(results, list(jobs.values())), len(jobs)))  # fmt: skip
    _write_verdicts(report, paper, verdicts)
    with style():
        for figure in chosen:
            report.text(f"## {figure.name}: {figure.title}")
            report.figure(figure.name, figure.title, figure.plot(drawn[figure.name]), drawn[figure.name],
                          f"{figure.see} *Here:* {figure.differs}")  # fmt: skip
    report.text("## What these small versions cannot say", "", paper.cannot)
    report.save()
    return report


def _chosen(paper: Paper, names: Sequence[str] | None) -> list[NetworkFigure]:
    known = {figure.name: figure for figure in paper.figures}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}: expected one of {', '.join(known)}")
    return [known[name] for name in (names or known)]


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _origin(command: str, seed: int, seconds: float, jobs: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("nqm", "torch", "numpy"))
    return (
        f"Written by `{command}` (seed {seed}): {jobs} jobs of {seconds / 60:.1f} minutes together, each on one thread "
        f"of {os.cpu_count()} CPU cores ({platform.machine()}; {versions})."
    )


def _write_verdicts(report: Report, paper: Paper, verdicts: dict[str, list[Verdict]]) -> None:
    rows = [(name, verdict) for name, several in verdicts.items() for verdict in several]
    report.text(
        "## Verdicts", "",
        "Each from one number per seed: *holds* where its whole 95% interval (Student's t over the seeds) lies on the "
        "claim's side of the bound, *does not hold* where it lies on the other, else *undecided*; *cannot be judged "
        "here* where the claim's premise is not seen at this size. Settings were chosen before the numbers were seen.",
    )  # fmt: skip
    columns = ("shown by", "claim", "number", "ours", "95% interval", "bound", "paper", "noisy quadratic", "verdict")
    report.table(columns, [
        (name, v.claim, v.why, v.value, f"{v.low:.3g} to {v.high:.3g}", v.bound, v.paper, v.model, f"**{v.verdict}**")
        for name, v in rows
    ])  # fmt: skip
    table = Table.from_rows([{"figure": name, **verdict.row()} for name, verdict in rows], (
        "figure", "claim", "number", "value", "low", "high", "bound", "verdict", "paper", "model"))  # fmt: skip
    report.data(f"{paper.name}-verdicts", table)
