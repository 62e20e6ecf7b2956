"""Draw the pictures of this folder again from the data beside them and judge the claims again, in seconds and without
torch's training:

python figures/validation/redraw.py
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nqm._io import save_picture, save_text
from nqm._table import Table
from nqm.plotting import style
from nqm.validation import Measured, Rung, plot_rung
from nqm.validation.document import Report
from nqm.validation.experiments.samples import read_samples
from nqm.validation.papers import PAPERS
from nqm.validation.papers.zhang2019.claims import judge
from nqm.validation.papers.zhang2019.network_rung import FOLLOWED
from nqm.validation.papers.zhang2019.report import write_claims
from nqm.validation.papers.zhang2019.spectra import judge_spectra, plot_power_law, plot_spectra, plot_variance
from nqm.validation.papers.zhang2019.steps import plot_curves, plot_predictions, plot_rates, plot_steps

HERE = Path(__file__).parent
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
    """Those whose figures are in folders of their own: PAPER, or PAPER-DATA."""
    with style():
        for report in sorted(HERE.glob("*/README.md")):
            for figure in PAPERS[report.parent.name.partition("-")[0]].figures:
                path = report.parent / f"{figure.name}.png"
                if path.exists():
                    print(save_picture(figure.plot(read_samples(path.with_suffix(".csv"))), path))


def main() -> None:
    rewrite_claims()
    draw_papers()
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
