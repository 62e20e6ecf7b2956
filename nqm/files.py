"""Figures, tables and texts as files, whole or not at all."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ._io import write_whole as write_whole  # public here
from .papers import Data, Figure, all_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


DPI = 160


def picture_format(path: str | os.PathLike[str]) -> str:
    """The format that the file's ending names; a ValueError where there is none."""
    from matplotlib.backend_bases import FigureCanvasBase

    kind = Path(path).suffix.lower().removeprefix(".")
    formats = FigureCanvasBase.get_supported_filetypes()
    if kind not in formats:
        raise ValueError(f"{path}: expected a file name ending in one of {', '.join(sorted(formats))}")
    return kind


def save_picture(picture: Picture, path: str | os.PathLike[str]) -> Path:
    """Save in the format that the file's ending names; without time stamps, so the same data gives the same file."""
    kind = picture_format(path)
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    return write_whole(path, lambda temporary: picture.savefig(temporary, dpi=DPI, metadata=metadata))


def save_csv(data: Data, path: str | os.PathLike[str]) -> Path:
    """Columns as CSV, numbers with all their digits."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(data)
            writer.writerows(zip(*(column.tolist() for column in data.values()), strict=True))

    return write_whole(path, write)


def save_text(text: str, path: str | os.PathLike[str]) -> Path:
    return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def index(figures: Iterable[Figure], folder: Path) -> str:
    """Markdown index of the figures that lie in ``folder``."""
    parts = ["# Figures\n\nWritten by `nqm figures`; the numbers behind each picture lie beside it as CSV.\n"]
    if (folder / "validation" / "README.md").exists():
        parts.append(
            "Predictions beside real networks, and figures 5 to 10 and 12 of zhang2019: "
            "[validation](validation/README.md), written by `nqm validate`.\n"
        )
    for figure in figures:
        if (folder / f"{figure.name}.png").exists():
            paper, number = figure.name.split("-")
            kind = "" if number.startswith(("table", "eq")) else "figure "
            parts.append(
                f"## {paper}, {kind}{number}: {figure.title}\n\n![{figure.title}]({figure.name}.png)\n\n"
                f"- command: `nqm figures {figure.name}`, data: [{figure.name}.csv]({figure.name}.csv)\n"
                f"- what to see: {figure.see}\n- where it differs from the paper: {figure.differs}\n"
            )
    return "\n".join(parts)


def write_figures(figures: Iterable[Figure], folder: str | os.PathLike[str], bins: int | None) -> list[Path]:
    """Compute and draw each figure into ``folder``: NAME.png, NAME.csv and an index; says on stderr what is done."""
    from .plotting import style

    written = []
    chosen = list(figures)
    Path(folder).mkdir(parents=True, exist_ok=True)  # or say so before the work
    for number, figure in enumerate(chosen, 1):
        name = figure.name if bins is None else f"{figure.name}-{bins}bins"
        print(f"[{number}/{len(chosen)}] {name}: {figure.title} ...", file=sys.stderr, end="", flush=True)
        began, ending = time.perf_counter(), ""
        try:
            data = figure.compute(bins)
            written.append(save_csv(data, Path(folder) / f"{name}.csv"))
            with style():
                written.append(save_picture(figure.plot(data), Path(folder) / f"{name}.png"))
            ending = f" {time.perf_counter() - began:.1f} s"
        finally:
            print(ending, file=sys.stderr)
    written.append(save_text(index(all_figures().values(), Path(folder)), Path(folder) / "README.md"))
    return written
