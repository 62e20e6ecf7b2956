"""`nqm validate` as a user types it, and what it says to those who ask for what is not there."""

from __future__ import annotations

import json
import sys
import types

import pytest
from report_toys import shell

from nqm.cli import main
from nqm.papers.network_figures import NETWORK_FIGURES
from nqm.validation import document, report
from nqm.validation.experiments import paper
from nqm.validation.papers import PAPERS


def figures(capsys, *words):
    """`nqm figures`: code, stdout, stderr."""
    code = main(["figures", *words])
    return code, *capsys.readouterr()


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


def test_a_paper_or_one_of_its_figures(capsys, monkeypatch, tmp_path):
    asked = []

    def noted(known, folder, **options):
        asked.append((known.name, str(folder), options.get("figures"), options["quick"]))
        return document.Report(tmp_path, written=[tmp_path / "README.md"])

    monkeypatch.setattr(paper, "write_paper", noted)
    assert shell(capsys, "--paper", "wen2020", "--quick", "--out", str(tmp_path))[:2] == (
        0, f"report: {tmp_path / 'README.md'}\n")  # fmt: skip
    code, told, _ = figures(capsys, "wen2020-3", "wen2020-5a", "--out", str(tmp_path), "--json")
    assert (code, json.loads(told)) == (0, [str(tmp_path / "README.md")])
    assert asked == [
        ("wen2020", str(tmp_path), None, True),
        ("wen2020", str(tmp_path / "wen2020"), ["wen2020-3", "wen2020-5a"], False),
    ]


def test_every_paper_lists_its_figures():
    listed = [figure.name for known in PAPERS.values() for figure in known.figures]
    assert sorted(listed) == sorted(NETWORK_FIGURES)
    assert all(name.startswith(f"{known.name}-") for known in PAPERS.values() for name in [known.figures[0].name])


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
        ("--paper nobody2020", "invalid choice: 'nobody2020'"),
        ("--paper wen2020 --net mlp", "--net: expected without --paper, which has settings of its own"),
        ("--paper wen2020 --device cpu", "--device: expected without --paper"),
        ("--paper wen2020 --data cifar10 --data-root x", "data: expected digits or mnist, which wen2020's figures are"),
        ("--paper jastrzebski2021 --data mnist1d", "data: expected digits, which jastrzebski2021's figures are for"),
        ("--paper wen2020 --data-root x.npz", "data 'digits': expected no root (--data-root), got 'x.npz'"),
        ("--paper wen2020 --data mnist --data-root none.npz", "none.npz"),
        ("--paper wen2020 --seed -1", "seed: expected a whole number of at least 0, got -1"),
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
