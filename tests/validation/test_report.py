"""`nqm validate` from end to end on toys, and what it says to those who ask for what is not there."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import types
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from toys import toy_data, toy_task

from nqm import _io
from nqm.cli import main
from nqm.validation import Measured, Rung, document, report
from nqm.validation.papers.zhang2019 import network_rung
from nqm.validation.papers.zhang2019 import report as network_report
from nqm.validation.papers.zhang2019.claims import CLAIMS
from nqm.validation.papers.zhang2019.network_rung import Effort

EFFORT = Effort(
    batch_sizes=(4, 16), optimizers=("SGD", "momentum", "SGD with EMA", "Adam"), trials=3, seeds=2, growing=(4,),
    followed=(4, 16), max_examples=20_000, elsewhere=(1.0,),
)  # fmt: skip


def first_rung(*, quick, seed, progress):
    """Two steps of two cells."""
    progress("two cells")
    curves = {"cell": np.array(["one", "one", "two", "two"]), "lr": np.full(4, 0.1), "step": np.array([1, 2, 1, 2])}
    models = ("", "_additive", "_gaussian", "_matched", "_exact")
    curves |= {f"predicted{model}": np.array([2.0, 1.0, 3.0, 1.5]) for model in models}
    curves |= {"mean": np.array([2.0, 1.1, 3.0, 1.4]), "standard_error": np.full(4, 0.1), "low": np.full(4, 0.5)}
    ratios = {"cell": np.array(["one"]), "optimizer": np.array(["SGD"]), "batch_size": np.array([4]),
              "learning_rate": np.array(["same"]), "measured": np.array([2.0]), "error": np.array([0.1]),
              "ratio": np.array([1.1])}  # fmt: skip
    curves["high"] = curves["mean"] + 1.0
    critical = {"optimizer": np.array(["SGD"]), "ratio": np.array([1.2])}
    return Rung("a", "Toy regression", "matched", 3, 3.0, curves, ratios, critical, f"quick {quick}\nseed {seed}")


@contextmanager
def toys():
    """Toys instead of rungs and networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(report.RUNGS, "a", first_rung)
        patch.setattr(report, "QUICK", EFFORT)
        patch.setattr(report, "load_data", lambda name, root: toy_data())
        patch.setattr(report, "network_task", lambda net, data, device: toy_task(name=net, device=device))
        patch.setattr(network_report, "SPECTRA_AT", (0, 5))
        patch.setattr(_io, "DPI", 30)
        patch.setattr(network_rung, "FOLLOWED", ("SGD",))
        yield


@pytest.fixture
def small():
    with toys():
        yield


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


# --- what is written --------------------------------------------------------------------------------------------------


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
    parts = ("Predictions against", "In short", "Rung a: Toy", "Rung d", "Spectra of mlp", "Steps to target", "Claims")
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
    assert head == ["claim", "number", "net", "value", "bound", "verdict", "model"]
    assert [row[0] for row in rows] == [claim.text for claim in CLAIMS if {*claim.needs} <= {*EFFORT.optimizers}]
    for row in rows:
        claim, _, net, interval, bound, verdict, model = row
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
    assert {row[2] for row in rows_of(section(text, "## Claims, judged"))[1:]} == {"mlp", "cnn"}


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
    undecided = [row for row in claims if row[3] == ""]
    assert [row[5] for row in undecided] == ["**undecided**"] * len(undecided)
    assert len([row for row in claims if "omentum" in row[0]]) <= len(undecided)
    assert "| mlp | momentum | measured |  |  |" in text
    assert "inf" not in re.sub(r"\binformation\b", "", text)


def test_a_rung_alone(small, tmp_path):
    written = report.validate(tmp_path, rungs=("a",), quick=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "rung-a.png", "rung-a.csv", "rung-a-ratios.csv", "rung-a-critical.csv",
    }  # fmt: skip
    assert "training runs" not in text_of(written)


# --- as a user types it -----------------------------------------------------------------------------------------------


def shell(capsys, *words):
    """(exit code, stdout, stderr) of `nqm validate words`."""
    try:
        code = main(["validate", *words])
    except SystemExit as end:  # argparse's way out
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be trained."""

    def refuse(*parts, **options):
        raise AssertionError("work began")

    monkeypatch.setattr(report, "network", refuse)
    for rung in ("a", "b", "c"):
        monkeypatch.setitem(report.RUNGS, rung, refuse)


def test_the_command_writes_a_report(small, capsys, tmp_path):
    out = tmp_path / "it's here"
    code, told, err = shell(capsys, "--rung", "a", "--quick", "--seed", "7", "--out", str(out))
    assert code == 0
    assert told == f"report: {out / 'README.md'}\n"
    assert err.splitlines() == ["rung a", "rung a: two cells", "pictures and report"]
    assert "--rung a --quick --seed 7 --out " in (out / "README.md").read_text().split("`")[1]
    code, told, _ = shell(capsys, "--rung", "a", "--out", str(out), "--json")
    assert code == 0
    assert json.loads(told)[-1] == str(out / "README.md")


def test_what_is_asked_for_by_default(capsys, monkeypatch, tmp_path):
    asked = []

    def noted(folder, **options):
        asked.append(options)
        return report.Report(tmp_path, written=[tmp_path / "README.md"])

    monkeypatch.setattr(report, "validate", noted)
    for words in ([], ["--quick"], ["--data", "cifar10", "--data-root", "here"]):
        assert shell(capsys, *words)[0] == 0
    assert [a["rungs"] for a in asked] == [("a", "b", "c", "d"), ("a", "b", "c", "d"), ("d",)]
    assert [a["nets"] for a in asked] == [("mlp", "cnn", "resnet8"), ("mlp",), ("mlp", "cnn", "resnet8")]
    assert asked[2]["data_root"] == "here"
    assert all(a["executor"] is None for a in asked)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--rung e", "invalid choice: 'e'"),
        ("--net vgg", "invalid choice: 'vgg'"),
        ("--data imagenet", "invalid choice: 'imagenet'"),
        ("--workers 0", "--workers: expected at least 1, got 0"),
        ("--workers two", "--workers"),
        ("--seed -1", "seed: expected a whole number of at least 0, got -1"),
        ("--seed 1.5", "--seed"),
        ("--data mnist --rung a", "data 'mnist': expected rung d alone"),
        ("--data mnist --rung a d", "data 'mnist': expected rung d alone"),
        ("--device cuda:77", "device: expected one that is here (cpu"),
        ("--device tpu?", "device: expected one that is here (cpu"),
    ],
)
def test_bad_input_is_one_line_and_code_2(idle, capsys, tmp_path, words, told):
    code, out, err = shell(capsys, "--out", str(tmp_path / "new"), *words.split())
    assert code == 2
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("there", [True, False], ids=["broken", "missing"])
def test_torchvision_that_cannot_be_imported(idle, capsys, monkeypatch, tmp_path, there):
    """Broken: as that of another torch, which raises RuntimeError while it is imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    if there:
        (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "torchvision", None)
    code, _, err = shell(capsys, "--data", "mnist", "--data-root", str(tmp_path), "--out", str(tmp_path / "new"))
    assert code == 2
    assert "data 'mnist' is read by torchvision, which cannot be imported here" in err
    assert "install the torchvision that belongs to your torch, or take data 'digits'" in err
    assert len(err.strip().splitlines()) == 1


def test_files_of_torchvision_that_are_not_there(idle, capsys, monkeypatch, tmp_path):
    class MNIST:
        def __init__(self, root, train, download):
            assert not download
            raise RuntimeError("Dataset not found. You can use download=True to download it")

    fake = types.ModuleType("torchvision")
    fake.datasets = types.SimpleNamespace(MNIST=MNIST)
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    code, _, err = shell(capsys, "--data", "mnist", "--out", str(tmp_path / "new"))
    assert code == 2
    assert "expected the folder that holds torchvision's files (--data-root), got none" in err
    code, _, err = shell(capsys, "--data", "mnist", "--data-root", str(tmp_path), "--out", str(tmp_path / "new"))
    assert code == 2
    assert f"expected torchvision's files under '{tmp_path}', found none; fetch them once with" in err


@pytest.mark.parametrize("options", [[], ["--workers", "2", "--rung", "a"]])
def test_without_torch(capsys, monkeypatch, tmp_path, options):
    for name in [name for name in sys.modules if name.startswith("nqm.validation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = shell(capsys, "--out", str(tmp_path / "new"), *options)
    assert (code, out) == (2, "")
    assert "nqm.validation needs torch: pip install 'nqm[validation]'" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_without_what_rung_d_needs_beside_torch(idle, capsys, monkeypatch, tmp_path):
    """Not after hours of training."""
    for part in [part for part in sys.modules if part.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, part)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, _, err = shell(capsys, "--out", str(tmp_path / "new"), "--rung", "d")
    assert code == 2
    assert "pip install 'nqm[validation]'" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("inner", ["", "deeper/down"])
def test_a_folder_that_cannot_be_made(idle, capsys, tmp_path, inner):
    (tmp_path / "taken").write_text("mine")
    code, _, err = shell(capsys, "--out", str(tmp_path / "taken" / inner))
    assert code == 2
    assert str(tmp_path / "taken") in err
    assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "taken").read_text() == "mine"


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


def test_a_damaged_results_file_is_refused_before_any_work(small, idle, capsys, tmp_path):
    (tmp_path / "mlp.jsonl").write_text("my notes\n")
    code, _, err = shell(capsys, "--quick", "--rung", "a", "d", "--out", str(tmp_path))
    assert code == 2
    assert "mlp.jsonl: line 1 is not the header of a results file" in err
    assert (tmp_path / "mlp.jsonl").read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt("interrupted; 8 trials are kept in here"), 130, "interrupted; 8 trials are kept in here"),
        (KeyboardInterrupt(), 130, "nqm validate: interrupted"),
        (RuntimeError("training failed: SGD at batch size 4; finished heats are kept"), 2, "finished heats are kept"),
    ],
)
def test_what_ends_the_training_says_how_to_go_on(small, capsys, monkeypatch, tmp_path, error, code, told):
    def stopped(*parts, **options):
        raise error

    monkeypatch.setattr(report, "network", stopped)
    found, out, err = shell(capsys, "--quick", "--rung", "d", "--out", str(tmp_path))
    assert (found, out) == (code, "")
    assert told in err
    assert "interrupted: interrupted" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rungs": ()}, "rung: expected some of a, b, c, d, got none"),
        ({"rungs": ("a", "x")}, r"rung: expected some of a, b, c, d, got \['x'\]"),
        ({"nets": ("vgg",)}, r"net: expected some of mlp, cnn, resnet8, got \['vgg'\]"),
        ({"data": "imagenet", "rungs": ("d",)}, "data: expected one of digits, mnist"),
    ],
)
def test_bad_arguments_are_refused(idle, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        report.validate(tmp_path, **options)
