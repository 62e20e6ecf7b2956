"""Figures in a folder: data as CSV beside each picture, and an index of them all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from .._io import save_picture, save_text
from .._table import write_csv
from . import Figure, all_figures

__all__ = ["index", "write_figures"]


def index(figures: Iterable[Figure], folder: Path) -> str:
    """Markdown index of the figures that lie in ``folder``."""
    parts = ["# Figures\n\nWritten by `nqm figures`; the numbers behind each picture lie beside it as CSV.\n"]
    if (folder / "validation" / "README.md").exists():
        parts.append(
            "Predictions beside real networks, and figures 5 to 10 and 12 of zhang2019: "
            "[validation](validation/README.md), written by `nqm validate`.\n"
        )
    reports = sorted(path.parent.name for path in folder.glob("validation/*/README.md"))
    if reports:
        links = ", ".join(f"[{name}](validation/{name}/README.md)" for name in reports)
        parts.append(f"Papers' figures that need networks, on small ones: {links} (`nqm validate --paper`).\n")
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
    from ..plotting import style

    written = []
    chosen = list(figures)
    Path(folder).mkdir(parents=True, exist_ok=True)  # or say so before the work
    for number, figure in enumerate(chosen, 1):
        name = figure.name if bins is None else f"{figure.name}-{bins}bins"
        print(f"[{number}/{len(chosen)}] {name}: {figure.title} ...", file=sys.stderr, end="", flush=True)
        began, ending = time.perf_counter(), ""
        try:
            data = figure.compute(bins)
            written.append(write_csv(data, Path(folder) / f"{name}.csv"))
            with style():
                written.append(save_picture(figure.plot(data), Path(folder) / f"{name}.png"))
            ending = f" {time.perf_counter() - began:.1f} s"
        finally:
            print(ending, file=sys.stderr)
    written.append(save_text(index(all_figures().values(), Path(folder)), Path(folder) / "README.md"))
    return written
