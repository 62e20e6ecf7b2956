"""Draw the pictures of this folder again from the data beside them, without torch's training; judge zhang2019's claims
again; and put the other papers' verdicts into CLAIMS.md:

python figures/validation/redraw.py
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nqm._io import save_picture, save_text
from nqm._table import Table
from nqm.plotting import style
from nqm.validation import Measured, Rung, plot_rung
from nqm.validation.document import Report, shown
from nqm.validation.experiments.samples import read_samples
from nqm.validation.papers import PAPERS
from nqm.validation.papers.zhang2019.claims import judge
from nqm.validation.papers.zhang2019.network_rung import FOLLOWED
from nqm.validation.papers.zhang2019.report import write_claims
from nqm.validation.papers.zhang2019.spectra import judge_spectra, plot_power_law, plot_spectra, plot_variance
from nqm.validation.papers.zhang2019.steps import plot_curves, plot_predictions, plot_rates, plot_steps

HERE = Path(__file__).parent
CLAIMS = HERE.parents[1] / "CLAIMS.md"
INTRODUCTION = "Each by the mean over seeds and its 95% interval; numbers, bounds and settings:"
NETS = ("mlp", "cnn", "resnet8")


def read(name: str) -> dict[str, NDArray[Any]]:
    """The columns of a CSV file: whole numbers, numbers, or text."""
    with (HERE / f"{name}.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    return {key: column(values) for key, values in zip(head, zip(*rows, strict=True), strict=True)}


def column(values: tuple[str, ...]) -> NDArray[Any]:
    for kind in (int, float):
        try:
            return np.array([kind(value) for value in values])
        except ValueError:
            continue
    return np.array(values)


def rung(name: str) -> Rung:
    """Title, number of runs and width of the band are in the report."""
    report = (HERE / "README.md").read_text(encoding="utf-8")
    title, part = re.findall(rf"^## Rung {name}: (.*)\n((?:(?!##).*\n)*)", report, re.MULTILINE)[0]
    runs, z = re.findall(r"(\d+) runs: the band is the mean \+- ([\d.]+)", part)[0]
    files = (read(f"rung-{name}{kind}") for kind in ("", "-ratios", "-critical"))
    return Rung(name, title, "matched", int(runs), float(z), *files, "")


def measured(net: str) -> Measured:
    table = read(f"steps-{net}")
    targets = dict(zip(table["metric"].tolist(), table["target"].tolist(), strict=True))
    return Measured(table, {"targets": list(targets.items())})


def draw(name: str, picture: Any) -> None:
    print(save_picture(picture, HERE / f"{name}.png"))


def judged() -> Table:
    """The verdicts; the model's own numbers, which take the measured quadratics, are those in claims.csv."""
    before, verdicts = read("claims"), judge({net: (measured(net), None) for net in NETS})
    model = dict(zip(zip(before["claim"], before["net"], strict=True), before["model"], strict=True))
    primary = verdicts["metric"] == measured("mlp").metrics[0]
    keys = zip(verdicts["claim"], verdicts["net"], strict=True)
    known = [model[key] if first else np.nan for key, first in zip(keys, primary, strict=True)]
    return Table({**verdicts, "model": np.array(known)})


def rewrite_claims() -> None:
    """The report's last part, and its files."""
    spectra = {net: tuple(read(f"zhang2019-{number}-{net}") for number in (9, 10, 12)) for net in NETS}
    part, path = Report(HERE), HERE / "README.md"
    write_claims(part, judged(), judge_spectra(spectra))
    text = path.read_text(encoding="utf-8")
    print(save_text(text[: text.index("## Claims, judged")] + "\n\n".join(part.parts) + "\n", path))


def draw_papers() -> None:
    """Those whose figures are in folders of their own."""
    with style():
        for paper in PAPERS.values():
            for figure in paper.figures:
                for folder in folders_of(paper.name):
                    path = folder / f"{figure.name}.png"
                    if path.exists():
                        print(save_picture(figure.plot(read_samples(path.with_suffix(".csv"))), path))


def network_claims(text: str) -> str:
    """CLAIMS.md with each paper's table of networks as the verdicts of its folders here have it."""
    for paper in PAPERS.values():
        head, folders = f"### {paper.name} on networks", folders_of(paper.name)
        links = ", ".join(f"[{folder.name}](figures/validation/{folder.name}/README.md)" for folder in folders)
        rows = [
            f"{head}\n",
            f"{INTRODUCTION} {links}.\n",
            f"{paper.words}\n",
            "| claim | number | on the noisy quadratic | on networks | shown by |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(shown(cell) for cell in row)} |" for row in told(paper.name)),
        ]
        part = re.compile(rf"(?ms)^{head}\n.*?(?=^## |\Z)")
        if not part.search(text):
            raise ValueError(f"CLAIMS.md: expected a heading {head!r}")
        before, after = part.split(text)
        text = before + "\n".join(rows) + "\n\n" + after
    return text.rstrip("\n") + "\n"


def folders_of(paper: str) -> list[Path]:
    """PAPER and PAPER-DATA."""
    return sorted(path.parent for path in HERE.glob(f"{paper}*/README.md"))


def told(paper: str) -> list[list[str]]:
    """Claim, its number, what the model says of it, the verdicts, and the figure: one row for all networks of a claim,
    which stand before a colon."""
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for folder in folders_of(paper):
        for verdict in rows_of(folder / f"{paper}-verdicts.csv"):
            network, _, claim = verdict["claim"].rpartition(": ")
            if "(" in network:  # the colon is one in brackets
                network, _, claim = verdict["claim"].partition(": ")
            if "(" in network or not claim:
                network, claim = "", verdict["claim"]
            key = claim[0].upper() + claim[1:], verdict["number"], verdict["figure"]
            groups.setdefault(key, []).append((network, verdict["verdict"], verdict["model"]))
    return [
        [
            claim,
            number,
            together((of, model) for of, _, model in own),
            together((of, said) for of, said, _ in own),
            figure,
        ]
        for (claim, number, figure), own in groups.items()
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def together(said: Iterable[tuple[str, str]]) -> str:
    """What is said of networks, each text once, with the networks it is said of."""
    nets: dict[str, list[str]] = {}
    for net, text in said:
        if text:
            nets.setdefault(text, []).append(net)
    return "; ".join(text + (f" ({', '.join(own)})" if any(own) else "") for text, own in nets.items())


def main() -> None:
    rewrite_claims()
    draw_papers()
    print(save_text(network_claims(CLAIMS.read_text(encoding="utf-8")), CLAIMS))
    for name in "abc":
        draw(f"rung-{name}", plot_rung(rung(name)))
    curves = {net: read(f"rung-d-curves-{net}") for net in NETS}
    for net in NETS:
        draw(f"rung-d-curves-{net}", plot_curves(net, curves[net]))
    tables = {net: measured(net) for net in NETS}
    ratios, targets = read("rung-d"), {net: float(curves[net]["target"][0]) for net in NETS}
    names = tables["mlp"].names
    draw("rung-d", plot_predictions(ratios, targets, FOLLOWED))
    draw("rung-d-preconditioned", plot_predictions(ratios, targets, [name for name in names if name not in FOLLOWED]))
    others = [name for name in names if name != "SGD with EMA"]
    draw("zhang2019-5", plot_steps(tables, others, "held-out error"))
    draw("zhang2019-6", plot_steps(tables, ["SGD", "SGD with EMA"], "training loss"))
    draw("zhang2019-7", plot_rates(tables))
    draw("zhang2019-8", plot_steps(tables, others, "training loss"))
    with style():
        for net in NETS:
            for number, plot in ((9, plot_spectra), (10, plot_variance), (12, plot_power_law)):
                draw(f"zhang2019-{number}-{net}", plot(read(f"zhang2019-{number}-{net}")))


if __name__ == "__main__":
    main()
