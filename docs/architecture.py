"""Draw architecture.svg from the imports: packages in the layers of setup.cfg, an arrow to what is imported.

``python docs/architecture.py`` draws it; with ``--check`` it compares what the picture holds with the imports of today.
"""

from __future__ import annotations

import configparser
import html
import json
import re
import sys
from collections import Counter
from pathlib import Path

import grimp

HERE = Path(__file__).parent
PICTURE = HERE / "architecture.svg"
MANY = 8
HIDDEN = {"__main__"}
WIDTHS = {1: 0.6, 2: 1.2, 3: 2.2, 4: 3.6}  # of arrows, by the number of imports: 1, 2 to 3, 4 to 7, more
GREYS = {1: "#9a9a9a", 2: "#7a7a7a", 3: "#505050", 4: "#202020"}

Arrow = tuple[str, str]


def packages() -> list[list[str]]:
    """Packages and modules of nqm that exist, layer by layer, from the top: the law of imports in setup.cfg."""
    law = configparser.ConfigParser()
    law.read(HERE.parent / "setup.cfg", encoding="utf-8")
    lines = law["importlinter:contract:layers"]["layers"].split("\n")
    named = [[name.strip(" ()") for name in line.split("|")] for line in lines if line.strip()]
    there = {path.stem for path in (HERE.parent / "nqm").iterdir()}
    return [kept for names in named if (kept := [name for name in names if name in there - HIDDEN])]


def imports() -> dict[Arrow, int]:
    """How many imports lead from one package to another; those for type checkers alone do not count."""
    graph = grimp.build_graph("nqm", exclude_type_checking_imports=True, cache_dir=None)
    count: Counter[Arrow] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            ends = module.split(".")[1:2], imported.split(".")[1:2]
            if all(ends) and ends[0] != ends[1] and not HIDDEN.intersection(ends[0]):
                count[ends[0][0], ends[1][0]] += 1
    return dict(count)


def common(layers: list[list[str]], count: dict[Arrow, int]) -> set[str]:
    """The tools at the bottom, and what at least half of many packages above import: their arrows would hide others."""
    found = set()
    for layer in layers[::-1]:
        if not all(name.startswith("_") for name in layer):
            break
        found.update(layer)
    for row, layer in enumerate(layers):
        above = {name for upper in layers[:row] for name in upper}
        for name in layer:
            importers = {source for source, goal in count if goal == name} & above
            if len(above) >= MANY and 2 * len(importers) >= len(above):
                found.add(name)
    return found


def content() -> dict[str, list]:
    """All that the picture shows: boxes by layer, which of them are common, arrows and the class of their width."""
    layers, count = packages(), imports()
    shared = common(layers, count)
    arrows = [
        [*arrow, min(n.bit_length(), max(WIDTHS))] for arrow, n in sorted(count.items()) if arrow[1] not in shared
    ]
    return {"layers": layers, "common": sorted(shared), "arrows": arrows}


def places(layers: list[list[str]]) -> dict[str, tuple[float, float]]:
    """Centre of each box; layers of one box stand aside in turn, so that arrows past them stay in sight."""
    found = {}
    for row, layer in enumerate(layers[::-1]):
        aside = 1.6 * (-1.0) ** row if len(layer) == 1 else 0.0
        for column, name in enumerate(layer):
            found[name] = (aside + 2.2 * (column - (len(layer) - 1) / 2), float(row))
    return found


def draw(shown: dict[str, list]) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch

    mpl.rcParams.update({"svg.hashsalt": "nqm", "svg.fonttype": "none", "font.family": "sans-serif"})
    at = places(shown["layers"])
    figure, ax = plt.subplots(figsize=(8.0, 9.5))
    for name, (x, y) in at.items():
        edge, face = (":", "white") if name in shown["common"] else ("-", "#e4e4e4")
        look = {"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": "black", "linestyle": edge}
        ax.text(x, y, name, ha="center", va="center", fontsize=10, bbox=look, zorder=3)
    for source, goal, width in shown["arrows"]:
        (x, y), (to_x, to_y) = at[source], at[goal]
        bend = 0.0 if y - to_y <= 1.0 else 0.25 * (1.0 if x + to_x > 0.0 else -1.0)
        look = {"arrowstyle": "-|>", "mutation_scale": 9, "linewidth": WIDTHS[width], "color": GREYS[width]}
        ends = {"posA": (x, y - 0.3), "posB": (to_x, to_y + 0.3)}
        ax.add_patch(FancyArrowPatch(**ends, connectionstyle=f"arc3,rad={bend}", zorder=1 + width / 10, **look))
    note = "dotted: small tools, and what at least half of all boxes above import; arrows to these are left out"
    ax.text(0.0, -0.8, note, ha="center", va="top", fontsize=8, style="italic")
    ax.set_xlim(-4.4, 4.4)
    ax.set_ylim(-1.0, len(shown["layers"]) - 0.4)
    ax.axis("off")
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None, "Description": json.dumps(shown)})


def main() -> int:
    if "--check" not in sys.argv:
        draw(content())
        return 0
    kept = re.search(r"<dc:description>(.*?)</dc:description>", PICTURE.read_text(encoding="utf-8"), re.DOTALL)
    if kept and html.unescape(kept[1]) == json.dumps(content()):
        return 0
    print("docs/architecture.svg: expected the imports of today; draw it again with python docs/architecture.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
