"""What commands print and write: answers as text and JSON, pictures, and whether a file can be written at all."""

from __future__ import annotations

import errno
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._io import picture_format, save_picture
from .arguments import option

__all__ = ["draw", "print_answer", "print_json", "require_picture", "require_writable", "writing"]


def print_json(answer: Any) -> None:
    print(json.dumps(_finite(answer), allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no inf and NaN: None stands for them."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_answer(answer: Mapping[str, Any], width: int) -> None:
    """One line for each entry that is not None, names justified to ``width``."""
    for name, value in answer.items():
        if value is not None:
            print(f"{name:>{width}}  {value if isinstance(value, int | str) else format(value, '.6g')}")


@contextmanager
def writing(name: str, path: str, kind: str = "file") -> Iterator[None]:
    """Errors name the file or folder that was asked for, not a temporary one."""
    try:
        yield
    except OSError as error:
        told = f"expected a {kind} that can be written, got {path!r} ({error.strerror or error})"
        raise ValueError(f"{option(name)}: {told}") from None


def require_writable(name: str, path: str, log: str | None = None, kind: str = "file") -> None:
    """A ValueError where no file (or no file in that folder) can be written, or the log is; nothing is made."""
    goal = Path(path)
    with writing(name, path, kind):
        if kind == "file" and goal.is_dir():
            raise OSError(errno.EISDIR, "it is a folder")
        if log is not None and goal.exists() and Path(log).exists() and goal.samefile(log):
            raise ValueError(f"{option(name)}: expected another file than the log, got {path!r}")
        above = goal.absolute().parents if kind == "file" else [goal.absolute(), *goal.absolute().parents]
        with tempfile.TemporaryFile(dir=next(folder for folder in above if folder.exists())):
            pass


def require_picture(path: str | None) -> None:
    """A ValueError before the work where ``--plot`` names no format, or what can't be written."""
    if path is not None:
        picture_format(path)
        require_writable("plot", path)


def draw(path: str | None, *results: Any) -> None:
    """Save a picture of the results, a panel for each, where ``--plot`` asks for it."""
    if path is None:
        return
    from ..plotting import new_figure

    picture, axes = new_figure(len(results), width=6.4 * len(results), squeeze=False)
    for result, ax in zip(results, axes.flat, strict=True):
        result.plot(ax)
    with writing("plot", path):
        save_picture(picture, path)
