"""`nqm validate` from end to end on toys: what is written."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from report_toys import EFFORT, shell, toys
from toys import TARGETS, toy_task

from nqm import _io
from nqm.validation import Measured, document, report
from nqm.validation.papers.zhang2019.claims import CLAIMS

WHOLE = {"rungs": ("a", "d"), "nets": ("mlp",), "quick": True, "seed": 3, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with toys():
        return report.validate(tmp_path_factory.mktemp("validate") / "deep" / "down", **WHOLE)


def text_of(finished):
    return (finished.folder / "README.md").read_text()


def section(text, title):
    return text.split(title)[1].split("\n## ")[0]


def rows_of(part):
    """Cells of the last table."""
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    last = max(i for i, line in enumerate(lines) if set(line) <= set("| -"))
    head, body = lines[last - 1], lines[last + 1 :]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in (head, *body)]


def test_every_link_leads_to_a_whole_file(finished):
    links = re.findall(r"\]\(([^)]+)\)", text_of(finished))
    assert len(links) > 15
    for link in links:
        path = finished.folder / link
        assert path.stat().st_size > 0, link
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG"), link
        else:
            rows = list(csv.reader(path.read_text().splitlines()))
            assert len(rows) > 1, link
            assert len({len(row) for row in rows}) == 1, link


def test_nothing_else_is_left(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {path.name for path in finished.written} | {"mlp.jsonl"}
    assert not [name for name in names if name.startswith(".")]
    assert finished.written[-1].name == "README.md"
    linked = set(re.findall(r"\]\(([^)]+)\)", text_of(finished)))
    assert {path.name for path in finished.written} - linked <= {"README.md", "rung-d-critical.csv"}


def test_every_part_is_there(finished):
    text = text_of(finished)
    titles = re.findall(r"^#+ .*", text, re.MULTILINE)
    parts = ("Predictions against", "In short", "Rung a: Toy", "Rung d", "Spectra of mlp", "Steps to target",
             "Claims", "Spectra, judged")  # fmt: skip
    assert len(titles) == len(parts)
    for title, beginning in zip(titles, parts, strict=True):
        assert title.lstrip("# ").startswith(beginning)
    for figure in (5, 6, 7, 8):
        assert f"![Figure {figure}" in text
    for name in ("rung-d", "rung-d-preconditioned", "rung-d-curves-mlp", "zhang2019-9-mlp", "zhang2019-12-mlp"):
        assert f"({name}.png)" in text
    assert "- quick True\n- seed 3" in text
    assert "nan" not in text.lower().replace("nanosecond", "")


def test_the_verdicts_are_numbers_or_nothing(finished):
    head, *rows = rows_of(section(text_of(finished), "## Claims, judged"))
    assert head == ["claim", "number", "steps to", "net", "value", "bound", "verdict", "model"]
    judged = [claim.text for claim in CLAIMS if {*claim.needs} <= {*EFFORT.optimizers}]
    assert [(row[0], row[2]) for row in rows] == [(text, metric) for text in judged for metric in TARGETS]
    for row in rows:
        claim, _, metric, net, interval, bound, verdict, model = row
        assert metric == "training loss" or not model  # predictions are of the first metric
        assert net == "mlp"
        assert verdict in {"**holds**", "**does not hold**", "**undecided**"}
        value = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", interval)
        assert value or verdict == "**undecided**", claim  # a number without an interval decides nothing
        numbers = [*(value.groups() if value else filter(None, [interval])), bound, *filter(None, [model])]
        assert all(math.isfinite(float(number)) for number in numbers), claim
    with (finished.folder / "claims.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(rows)


def test_numbers_in_the_report_are_those_of_the_tables(finished):
    part = section(text_of(finished), "## Rung d")
    with (finished.folder / "rung-d.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    ratios = {(row["optimizer"], int(float(row["batch_size"])), row["noise"]): float(row["ratio"]) for row in rows}
    assert len(ratios) == 9
    for (name, size, noise), ratio in ratios.items():
        (line,) = re.findall(rf"^\| mlp \| {name} \| {noise} \| (.*) \|$", part, re.MULTILINE)
        assert line.split(" | ")[[4, 16].index(size)] == f"{ratio:.3g}"
    measured = Measured.load(finished.folder / "mlp.jsonl")
    with (finished.folder / "steps-mlp.csv").open(newline="") as stream:
        assert [float(row["median"]) for row in csv.DictReader(stream)] == measured.table["median"].tolist()
    assert f"{len((finished.folder / 'mlp.jsonl').read_text().splitlines()) - 1} training runs" in text_of(finished)


def test_trainings_at_the_predicted_rate_are_counted(finished):
    """From the curves, by hand."""
    with (finished.folder / "rung-d-curves-mlp.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    sizes = sorted({row["batch_size"] for row in rows})
    reached = sum(
        any(float(row["mean"]) <= float(row["target"]) for row in rows if row["batch_size"] == size) for size in sizes
    )
    text = text_of(finished)
    assert f"{reached} of 2 trainings (SGD) reach the target within 1.5 times the predicted steps" in text
    assert f": {reached} of 2 on mlp." in text
    (line,) = re.findall(
        r"^\| trained at the predicted rate \| all followed \| 2 \| .* \| (\d) \| (.*) \|$", text, re.MULTILINE
    )
    assert int(line[0]) == 2 - reached
    assert line[1] in ("right", "roughly right") if reached == 2 else line[1] == "wrong"


def test_spectra_are_those_of_the_reference_run(finished):
    """Of the seed that was asked for, where it began."""
    from nqm.validation import measure

    with (finished.folder / "zhang2019-9-mlp.csv").open(newline="") as stream:
        spectrum = [float(row["curvature"]) for row in csv.DictReader(stream) if row["step"] == "0"]
    task = toy_task()
    for seed, equal in ((3, True), (0, False)):
        found = measure(task.build(seed), task.loss, task.data, curvature="ekfac", device="cpu").curvature
        assert np.allclose(np.sort(found)[::-1], spectrum) == equal


def test_again_it_says_the_same_and_trains_nothing(finished, small, monkeypatch):
    from nqm.validation.search import measure_steps as search

    def refuse(*parts):
        raise AssertionError("trained again")

    monkeypatch.setattr(search, "train_batch", refuse)
    before = {path.name: path.read_bytes() for path in finished.folder.iterdir()}
    report.validate(finished.folder, **WHOLE)
    after = {path.name: path.read_bytes() for path in finished.folder.iterdir()}

    def undated(files):
        return re.sub(rb"\nWritten by .*\n", b"\n", files.pop("README.md"))

    assert undated(before) == undated(after)
    assert before == after


def test_results_of_another_configuration_are_refused_before_any_work(finished, small, idle, capsys):
    """Of another seed, here; whatever lies there stays."""
    before = {path.name: path.read_bytes() for path in finished.folder.iterdir()}
    words = ("--quick", "--rung", "a", "d", "--device", "cpu", "--out", str(finished.folder))
    code, out, err = shell(capsys, *words, "--seed", "2")
    assert (code, out) == (2, "")
    assert "holds results of another configuration: seed: expected 2, found 3" in err
    assert "(--out) or delete this one" in err
    assert {path.name: path.read_bytes() for path in finished.folder.iterdir()} == before
    code, _, err = shell(capsys, *words, "--net", "cnn", "mlp")
    assert code == 2
    assert "seed: expected 0, found 3" in err


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are made but not rendered."""
    monkeypatch.setattr(document, "save_picture", lambda picture, path: _io.save_text("a picture", path))


def test_two_networks_stand_side_by_side(small, undrawn, tmp_path, monkeypatch):
    sizes = {"batch_sizes": (16,), "growing": (16,), "followed": (16,)}
    one = replace(EFFORT, optimizers=("SGD", "momentum"), elsewhere=(), **sizes)
    monkeypatch.setattr(report, "QUICK", one)
    written = report.validate(tmp_path, rungs=("d",), nets=("mlp", "cnn"), quick=True, device="cpu", progress=False)
    text = text_of(written)
    assert "2 network(s)" in text
    for net in ("mlp", "cnn"):
        assert f"- {net}: 53 parameters" in text
        assert (tmp_path / f"{net}.jsonl").exists()
        assert f"### Spectra of {net}" in text
    assert "zhang2019-6" not in text  # no EMA
    assert {row[3] for row in rows_of(section(text, "## Claims, judged"))[1:]} == {"mlp", "cnn"}
    assert {row[2] for row in rows_of(section(text, "## Spectra, judged"))[1:]} == {"mlp", "cnn"}


def test_cells_that_did_not_arrive_are_blanks(small, undrawn, tmp_path, monkeypatch):
    """No finals of momentum: its claims are undecided, its ratios empty, and nothing warns."""
    network = report.network

    def late(task, effort, **options):
        result = network(task, effort, **options)
        table = {key: column.copy() for key, column in result.measured.table.items()}
        momentum = table["optimizer"] == "momentum"
        for key in ("median", "low", "high", "error", "effective_lr"):
            table[key][momentum] = math.nan
        table["median"][momentum & (table["batch_size"] == 4)] = math.inf
        return replace(result, measured=Measured(table, result.measured.configuration))

    monkeypatch.setattr(report, "network", late)
    few = replace(EFFORT, optimizers=("SGD", "momentum"), elsewhere=())
    monkeypatch.setattr(report, "QUICK", few)
    text = text_of(report.validate(tmp_path, rungs=("d",), nets=("mlp",), quick=True, device="cpu", progress=False))
    claims = rows_of(section(text, "## Claims, judged"))[1:]
    undecided = [row for row in claims if row[4] == ""]
    assert [row[6] for row in undecided] == ["**undecided**"] * len(undecided)
    assert len([row for row in claims if "omentum" in row[0]]) <= len(undecided)
    assert "| mlp | momentum | measured |  |  |" in text
    assert "inf" not in re.sub(r"\binformation\b", "", text)


def test_a_rung_alone(small, tmp_path):
    written = report.validate(tmp_path, rungs=("a",), quick=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "rung-a.png", "rung-a.csv", "rung-a-ratios.csv", "rung-a-critical.csv",
    }  # fmt: skip
    assert "training runs" not in text_of(written)
