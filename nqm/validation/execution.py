"""What long work shares: one CPU thread, a bar on stderr, failures and interruptions that say what is kept."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

__all__ = ["error_of", "failure", "one_thread", "progress_bar", "way_back"]

HINTS = {
    "ickl": " (other processes get the {sent} by pickle: give functions of a module, not lambdas or inner functions)",
    "BrokenProcessPool": " (a script that starts processes has to do so under if __name__ == '__main__')",
}


class _OneThread:
    """Work in several threads of this process at a time shares torch's setting, of which each thread has a copy: the
    last that ends puts it back, and a thread that ended before others knows what to put back when it begins again."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, 1
        self.own = threading.local()

    def begin(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = getattr(self.own, "before", None) or torch.get_num_threads()
            self.inside, self.own.before = self.inside + 1, None
            torch.set_num_threads(1)

    def end(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside:
                self.own.before = self.before
            else:
                torch.set_num_threads(self.before)


_ONE_THREAD = _OneThread()


@contextmanager
def one_thread() -> Iterator[None]:
    """torch works on one CPU thread here: sums over more are taken in another order, and end in other digits."""
    _ONE_THREAD.begin()
    try:
        yield
    finally:
        _ONE_THREAD.end()


def progress_bar(total: int, done: int, unit: str, shown: bool) -> tqdm:
    """A bar with the time left on stderr; ``done`` of ``total`` are there already, and say nothing of the speed."""
    return tqdm(total=total, initial=done, unit=unit, smoothing=0.0, file=sys.stderr, disable=not shown)


def error_of(future: Future[Any]) -> BaseException | None:
    """What a future that has ended raises, cancelled ones included."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def failure(what: str, error: Exception, *, sent: str, finished: str, path: Path | None) -> RuntimeError:
    """An error for ``what`` ("training failed: ..."), with a hint and where ``finished`` work is kept; ``sent``: what
    other processes were sent."""
    hint = next((text for name, text in HINTS.items() if name in f"{type(error).__name__}: {error}"), "")
    kept = "" if path is None else f"; finished {finished} are kept in {path}"
    return RuntimeError(f"{what}: {type(error).__name__}: {error}{hint.format(sent=sent)}{kept}")


@contextmanager
def way_back(path: Path | None, kept: Callable[[], str]) -> Iterator[None]:
    """Let an interruption say what is kept ("12 trials") and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if path is None:
            text = "interrupted; nothing is kept: give a results file to be able to go on"
        else:
            text = f"interrupted; {kept()} are kept in {path}: the same command goes on from there"
        raise KeyboardInterrupt(text) from stop
