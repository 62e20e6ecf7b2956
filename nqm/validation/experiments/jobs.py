"""One function at many settings: each a job whose columns are kept in a file as soon as it ends."""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from tqdm import tqdm

from ..._parallel import cancelled_at_the_end, check_executor, submit
from ..._table import Table
from ..execution import error_of, failure, one_thread, progress_bar, way_back
from ..journal import Configuration, Journal, as_line, read_journal
from .job import FORM, Job, checked_columns, first_of_each, key_of, told

__all__ = ["read_jobs", "run_jobs", "seconds_of"]

Function = Callable[..., Mapping[str, Any]]
Keywords = Mapping[str, Any]
Pending = dict[Future[tuple[Table, float]], str]  # keys of jobs


def run_jobs(
    function: Function,
    settings: Sequence[Keywords],
    *,
    configuration: Mapping[str, Any],
    results: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> list[Table]:
    """``function(**one)`` for each ``one`` of the settings, as tables in the order of the settings.

    Each job runs torch on one CPU thread, and columns are those of the file (float64, int64, bool, strings; NaN without
    its sign), so that the tables depend neither on the executor nor on interruptions.

    Args:
        function: returns columns of equal length, numbers or strings, by name (a mapping or a Table). Executors of
            processes have to be able to import it.
        settings: keyword arguments for each job, JSON-able and no two the same; 1 and 1.0 are not the same.
        configuration: everything else that the numbers depend on, JSON-able.
        results: a file (JSON lines) in which jobs are kept as soon as they end. The same call again runs what is not
            there yet, also with more settings; jobs that it does not ask for stay. None: kept in memory only.
        executor: any ``concurrent.futures.Executor``, of threads, processes or machines; jobs are its units of work.
            None: run them here, in order.
        progress: show a bar with the time left on stderr.
        say: called with a line of text after each job: how many are done, its settings, its time, the time left.

    Raises:
        TypeError, ValueError: for wrong arguments, or a results file that is damaged or of another configuration,
            before any work.
        RuntimeError: where another process writes the results file, or where a job failed, with its settings; jobs that
            have not begun are cancelled.
        KeyboardInterrupt: says how to go on; jobs that have ended are kept.

    >>> def powers(base, count):
    ...     return {"exponent": range(count), "power": [base**n for n in range(count)]}
    >>> tables = run_jobs(powers, [{"base": 2.0, "count": 3}, {"base": 0.5, "count": 2}], configuration={},
    ...                   progress=False)
    >>> print(tables[1])
    exponent  power
           0      1
           1    0.5
    """
    asked = _by_key(function, settings)
    _check_plain(configuration, "configuration")
    if not isinstance(configuration, Mapping):
        raise TypeError(f"configuration: expected a dict, got {configuration!r:.200}")
    check_executor(executor)
    if say is not None and not callable(say):
        raise TypeError(f"say: expected a function of a line of text or None, got {say!r:.200}")
    with _open(results, configuration) as kept, way_back(kept.path, lambda: f"{len(kept.entries)} jobs"):
        with _Work(function, asked, kept, progress, say) as work:
            if executor is None:
                work.here()
            else:
                work.on(executor)
        return [work.done[key].table for key in asked]


def read_jobs(path: str | os.PathLike[str]) -> tuple[Configuration, list[tuple[dict[str, Any], Table]]]:
    """Configuration, and settings and table of each job, of a file of :func:`run_jobs`, in the order in which they
    ended; also while it is being written. Infinite and undefined numbers among settings are strings.

    Raises ValueError for a damaged line or another kind of file, OSError where it cannot be read.
    """
    configuration, jobs = read_journal(path, FORM)
    return configuration, [(job.settings, job.table) for job in first_of_each(jobs).values()]


def seconds_of(path: str | os.PathLike[str], settings: Sequence[Keywords]) -> float:
    """Seconds that the jobs of these settings took, one with another, by a file of :func:`run_jobs`."""
    _, jobs = read_journal(path, FORM)
    known, asked = first_of_each(jobs), {key_of(one) for one in settings}
    return sum(job.seconds for key, job in known.items() if key in asked)


class _Work:
    """Runs the jobs that are not kept yet. done: those asked for that are, by key."""

    def __init__(
        self,
        function: Function,
        asked: Mapping[str, Keywords],
        kept: Journal[Job],
        progress: bool,
        say: Callable[[str], None] | None,
    ) -> None:
        self.function, self.asked, self.kept, self.say = function, asked, kept, say
        self.done = {key: job for key, job in first_of_each(kept.entries).items() if key in asked}
        self.left = [key for key in asked if key not in self.done]
        self.began, self.earlier = time.perf_counter(), len(self.done)
        self.bar = progress_bar(len(asked), len(self.done), "job", progress)

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def here(self) -> None:
        """One job after the other."""
        for key in self.left:
            try:
                ended = _run(self.function, self.asked[key])
            except Exception as error:
                raise self._failure(key, error) from error
            self._keep(key, *ended)

    def on(self, executor: Executor) -> None:
        """All jobs at once, as far as the executor allows; what is written is written here."""
        pending: Pending = {}
        with cancelled_at_the_end(pending):
            try:
                for key in self.left:
                    self._submit(executor, key, pending)
                while pending:
                    wait(pending, return_when=FIRST_COMPLETED)
                    for key, error in self._take(pending):
                        if isinstance(error, Exception):
                            raise self._failure(key, error) from error
                        raise error
            except KeyboardInterrupt:
                self._take(pending)
                raise

    def _submit(self, executor: Executor, key: str, pending: Pending) -> None:
        try:
            pending[submit(executor, _run, self.function, self.asked[key])] = key
        except RuntimeError as error:  # a pool that has broken or been shut down
            self._take(pending)
            raise self._failure(key, error) from error

    def _take(self, pending: Pending) -> list[tuple[str, BaseException]]:
        """Keep the jobs that have ended well; the others with their errors."""
        failed: list[tuple[str, BaseException]] = []
        for future in [future for future in pending if future.done()]:
            error = error_of(future)
            if error is None:
                self._keep(pending[future], *future.result())
            else:
                failed.append((pending[future], error))
            del pending[future]  # not before it is kept: an interruption may come between
        return failed

    def _keep(self, key: str, table: Table, seconds: float) -> None:
        settings = json.loads(as_line(self.asked[key]))
        job = Job.from_fields(json.loads(as_line(Job(settings, table, seconds).fields())))
        self.kept.append([job])
        self.done[key] = job
        shown = told(self.asked[key])
        self.bar.set_postfix_str(shown if len(shown) <= 60 else f"{shown[:57]}...", refresh=False)
        self.bar.update(1)
        if self.say is not None:
            count, total, elapsed = len(self.done), len(self.asked), time.perf_counter() - self.began
            left = tqdm.format_interval(elapsed * (total - count) / (count - self.earlier))
            self.say(f"{count} of {total} jobs: {shown}: {seconds:.1f} s; time left: {left}")

    def _failure(self, key: str, error: Exception) -> RuntimeError:
        what = f"job failed: {told(self.asked[key])}"
        return failure(what, error, sent="function", finished="jobs", path=self.kept.path)


def _run(function: Function, settings: Keywords) -> tuple[Table, float]:
    """One job: its columns as the file can hold them, and seconds."""
    began = time.perf_counter()
    with one_thread():
        columns = function(**settings)
    return checked_columns(columns), time.perf_counter() - began


def _by_key(function: Any, settings: Any) -> dict[str, Keywords]:
    if not callable(function):
        raise TypeError(f"function: expected a function, got {function!r:.200}")
    if isinstance(settings, str) or not isinstance(settings, Sequence) or not settings:
        raise ValueError(f"settings: expected a list of at least one dict of keyword arguments, got {settings!r:.200}")
    asked: dict[str, Keywords] = {}
    for number, one in enumerate(settings):
        where = f"settings[{number}]"
        if not isinstance(one, Mapping):
            raise TypeError(f"{where}: expected a dict of keyword arguments, got {one!r:.200}")
        _check_plain(one, where)
        _check_keywords(function, one, where)
        key = key_of(one)
        if key in asked:
            raise ValueError(f"settings: expected each one once, got {told(one)} twice")
        asked[key] = one
    return asked


def _check_plain(value: Any, where: str) -> None:
    """Refuse what JSON does not have, or does not tell apart from something else."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: expected names that are strings, got {key!r:.200}")
            _check_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            _check_plain(entry, f"{where}[{number}]")
    elif value is not None and not isinstance(value, str | int | float):
        raise TypeError(
            f"{where}: expected strings, numbers, True, False, None, and lists and dicts of these, got {value!r:.200}"
        )


def _check_keywords(function: Any, one: Keywords, where: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of something compiled
        return
    try:
        signature.bind(**one)
    except TypeError as error:
        raise TypeError(f"{where}: expected the keyword arguments of {signature}, got {told(one)}: {error}") from None


def _open(results: Any, configuration: Mapping[str, Any]) -> Journal[Job]:
    if results is not None and not isinstance(results, str | os.PathLike):
        raise TypeError(f"results: expected the path of a file or None, got {results!r:.200}")
    try:
        return Journal(results, FORM, configuration)
    except OSError as error:
        raise ValueError(f"results: expected a file that can be written, got {str(results)!r}: {error}") from error
