"""The committed report of a full validation against the data beside it."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from nqm.validation.experiments.paper import Effort
from nqm.validation.experiments.samples import read_samples
from nqm.validation.papers import PAPERS

FOLDER = Path(__file__).parents[2] / "figures" / "validation"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="figures/validation is in the repository only")


@pytest.fixture
def redraw():
    spec = importlib.util.spec_from_file_location("redraw", FOLDER / "redraw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_counts_the_trainings_that_reach_the_target(redraw):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    counts = {}
    for net in redraw.NETS:
        c = redraw.read(f"rung-d-curves-{net}")
        cells = sorted(set(zip(c["optimizer"].tolist(), c["batch_size"].tolist(), strict=True)))
        here = [(c["optimizer"] == name) & (c["batch_size"] == size) for name, size in cells]
        counts[net] = sum(bool(np.any(c["mean"][rows] <= c["target"][rows])) for rows in here), len(cells)
    whole = tuple(sum(column) for column in zip(*counts.values(), strict=True))
    assert whole == (10, 27)
    assert f"{whole[0]} of {whole[1]} trainings" in text
    for net, (reached, cells) in counts.items():
        assert f"{reached} of {cells} on {net}" in text
    assert re.search(r"^\| trained at the predicted rate \|.*\| 27 \| .* \| 17 \| wrong \|$", text, re.MULTILINE)


def test_no_number_in_the_report_is_absurd():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"\d{7,}", text)


def test_every_paper_has_its_report():
    assert {path.parent.name for path in FOLDER.glob("*/README.md")} >= set(PAPERS)


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in FOLDER.glob("*/README.md")), ids=lambda path: path.name
)
def test_verdicts_are_those_of_the_data_beside_them(folder):
    paper = PAPERS[folder.name.partition("-")[0]]
    with (folder / f"{paper.name}-verdicts.csv").open(newline="", encoding="utf-8") as stream:
        told = list(csv.DictReader(stream))
    shown = [figure for figure in paper.figures if (folder / f"{figure.name}.csv").exists()]
    assert len(shown) == (1 if folder.name.endswith("-mnist") else len(paper.figures))
    found = [
        {"figure": figure.name, **verdict.row()}
        for figure in shown
        for verdict in figure.judge(read_samples(folder / f"{figure.name}.csv"))
    ]
    assert [(one["figure"], one["claim"], one["verdict"]) for one in found] == [
        (one["figure"], one["claim"], one["verdict"]) for one in told
    ]
    for name in ("value", "low", "high", "bound", "seeds"):
        np.testing.assert_allclose([one[name] for one in found], [float(one[name]) for one in told], rtol=1e-9)
    report = (folder / "README.md").read_text(encoding="utf-8")
    known = [one for one in found if np.isfinite(one["low"])]
    assert known
    assert all(f"{one['low']:.3g} to {one['high']:.3g} |" in report for one in known)
    for figure in shown:
        assert f"[data]({figure.name}.csv)" in report
        effort = Effort(False, 0, "mnist" if folder.name.endswith("-mnist") else "digits")
        differs = figure.differs if isinstance(figure.differs, str) else figure.differs(effort)
        assert f"{figure.see} *Here:* {differs}" in report


def test_claims_tell_the_verdicts(redraw):
    text = redraw.CLAIMS.read_text(encoding="utf-8")
    assert redraw.network_claims(text) == text
    for paper in PAPERS:
        claims = redraw.told(paper)
        told = [one for at in redraw.folders_of(paper) for one in redraw.rows_of(at / f"{paper}-verdicts.csv")]
        words = [
            word for *_, said, _ in claims for word in re.findall(r"holds|does not hold|undecided|cannot be", said)
        ]
        assert len(claims) <= len(words) <= len(told)
        assert all(any(one["claim"].lower().endswith(claim.lower()) for one in told) for claim, *_ in claims)


@pytest.mark.thorough
def test_all_pictures_can_be_drawn_again(redraw, monkeypatch, tmp_path):
    names = {path.relative_to(FOLDER) for path in FOLDER.glob("**/*.png")}
    save, written = redraw.save_picture, set()

    def noted(picture, path):
        written.add(path.relative_to(FOLDER))
        return save(picture, tmp_path / path.name)

    monkeypatch.setattr(redraw, "save_picture", noted)
    monkeypatch.setattr(redraw, "save_text", lambda text, path: path)
    monkeypatch.setattr(redraw, "write_claims", lambda *_: None)
    redraw.main()
    assert written == names
