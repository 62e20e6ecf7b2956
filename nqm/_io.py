"""Writing results: to a temporary file beside the goal, then renamed, so that nothing is ever half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = ["picture_format", "save_picture", "save_text", "write_whole"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> Path:
    """Call ``write(temporary)``, then rename the temporary file to ``path``; on failure nothing stays behind."""
    goal = Path(path)
    goal.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=goal.parent, prefix=f".{goal.stem}-", suffix=goal.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
        return temporary.replace(goal)
    finally:
        temporary.unlink(missing_ok=True)


def save_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text file, as UTF-8."""
    return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def picture_format(path: str | os.PathLike[str]) -> str:
    """The format that the file's ending names; a ValueError where there is none."""
    from matplotlib.backend_bases import FigureCanvasBase

    kind = Path(path).suffix.lower().removeprefix(".")
    formats = FigureCanvasBase.get_supported_filetypes()
    if kind not in formats:
        raise ValueError(f"{path}: expected a file name ending in one of {', '.join(sorted(formats))}")
    return kind


def save_picture(picture: Figure, path: str | os.PathLike[str]) -> Path:
    """Save in the format that the file's ending names; without time stamps, so the same data gives the same file."""
    kind = picture_format(path)
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    return write_whole(path, lambda temporary: picture.savefig(temporary, dpi=DPI, metadata=metadata))
