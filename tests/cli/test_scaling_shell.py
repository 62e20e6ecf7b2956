"""`nqm scaling` as a user types it."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shlex
import warnings

import numpy as np
import pytest

import nqm
import nqm.scaling.fits.fit_curves
import nqm.scaling.fits.fit_runs
from nqm.cli import main
from nqm.scaling import example_runs, read_curves
from nqm.scaling.fits.fit_curves import CurvesFit, fit_curves
from nqm.scaling.fits.fit_runs import RunsFit, fit_runs
from nqm.scaling.models.relative_lr import SHAPES


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Bootstraps of few draws, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nqm.scaling.fits.fit_runs, "DRAWS", 10)
        patch.setattr(nqm.scaling.fits.fit_curves, "DRAWS", 10)
        yield


def shell(capsys, *words):
    """(exit code, stdout, stderr) of `nqm scaling words`."""
    try:
        code = main(["scaling", *map(str, words)])
    except SystemExit as end:  # argparse's way out
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def fit():
    log = example_runs()
    return fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=0.01)


def test_the_example_tells_what_the_fit_says(capsys, fit, tmp_path):
    saved = tmp_path / "fit.json"
    code, out, err = shell(
        capsys, "example", "--predict", "64M,512,2e4", "--predict", "1e7,64,20000", "--level", "0.8", "--best",
        "--compute", "1e18", "--steps-max", "50k", "--save", saved, "--json",
    )  # fmt: skip
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert (answer["runs"], answer["excluded"], answer["skipped"]) == (66, 0, [])
    assert answer["parameters"] == pytest.approx(dict(fit.parameters), rel=1e-12)
    assert [(row["N"], row["B"], row["K"]) for row in answer["predict"]] == [(64e6, 512, 2e4), (1e7, 64, 2e4)]
    for row in answer["predict"]:
        run = row["N"], row["B"], row["K"]
        assert row["loss"] == fit.predict(*run)
        assert (row["low"], row["high"]) == fit.interval(*run, level=0.8)
        assert row["compute"] == 6 * math.prod(run) * 128
    found = fit.best(compute=1e18, steps_max=50_000, sequence_length=128, level=0.8)
    assert (answer["best"]["params"], answer["best"]["steps"]) == (found.params, found.steps)
    assert answer["best"]["steps"] <= 50_000
    assert answer["best"]["compute"] <= 1e18
    assert answer["best"]["loss"] == pytest.approx(fit.predict(found.params, found.batch_size, found.steps))
    assert RunsFit.load(saved).predict(64e6, 512, 2e4) == answer["predict"][0]["loss"]


def test_text_names_its_units_and_draws(capsys, tmp_path):
    picture = tmp_path / "fit.png"
    code, out, _ = shell(capsys, "example", "--predict", "64M,512,2e4", "--frontier", "3", "--plot", picture)
    assert code == 0
    assert "66 runs of example_runs.csv, 0 excluded, 0 rows skipped" in out
    for told in ("examples a step", "nats", "FLOP = 6 N B K", "here 128", "cosine", "90% intervals of a new run"):
        assert told in out
    assert "Frontier(loss 3" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def synthetic(rows=None):
    """A log's lines, from the example's."""
    log = example_runs()
    columns = zip(log.N.tolist(), log.B.tolist(), log.K.tolist(), log.loss.tolist(), log.type.tolist(), strict=True)
    return [",".join(map(str, row)) for row in columns][:rows]


def test_skipped_rows_go_to_stderr(capsys, tmp_path):
    file = tmp_path / "runs.csv"
    lines = [f"{line},{'dev' if i < 5 else 'train'}" for i, line in enumerate(synthetic())]
    bad = [f"{n},8,1000,nan,isoflop,train" for n in range(1, 13)]
    file.write_text("\n".join(["Params,Batch Size,Steps,Final loss,type,split", *lines[:3], *bad, *lines[3:]]))
    words = "--lr-schedule cosine --warmup 0.01 --split train --level 0.8"
    code, out, err = shell(capsys, file, *words.split())
    assert code == 0
    told = [line for line in err.splitlines() if "skipped" in line]
    assert told[0] == "nqm scaling: skipped line 5: Final loss: expected a finite number above 0, got 'nan'"
    assert told[9].startswith("nqm scaling: skipped line 14: ")
    assert told[10:] == ["nqm scaling: skipped 2 more rows"]
    assert "61 runs of runs.csv, 0 excluded, 12 rows skipped" in out
    assert "held out, isoflop: rms error of log loss" in out
    assert "intervals: 80%, from the bootstrap" in out


def test_rows_are_held_out_by_split_and_excluded(capsys, tmp_path):
    file, lines = tmp_path / "runs.csv", synthetic()
    marked = [f"{line},{'dev' if i % 5 == 0 else 'train'},{i == 1}" for i, line in enumerate(lines)]
    file.write_text("\n".join(["N,B,K,loss,type,split,exclude", *marked]))
    code, out, _ = shell(capsys, file, "--lr-schedule", "cosine", "--warmup", "0.01", "--split", "train", "--json")
    answer = json.loads(out)
    dev = np.arange(len(lines)) % 5 == 0
    log = example_runs()
    used = ~dev & (np.arange(len(lines)) != 1)
    fit = fit_runs(log.N[used], log.B[used], log.K[used], log.loss[used], lr_schedule="cosine", warmup=0.01)
    assert code == 0
    assert (answer["runs"], answer["excluded"]) == (int(used.sum()), 1)
    assert set(answer["held_out"]) == {"isoflop", "isotoken"}
    for kind, told in answer["held_out"].items():
        at = dev & (log.type == kind)
        error = np.log(fit.losses(log.N[at], log.B[at], log.K[at], draws=0)[0] / log.loss[at])
        assert told["runs"] == at.sum()
        assert told["rms_log_error"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)


@pytest.mark.parametrize(
    ("marks", "split", "told"),
    [
        (["train,no"], "train", "rows outside 'train' to compare with, got none; the splits are 'train'"),
        (["train,no", "dev,yes"], "train", "rows outside 'train' to compare with, got none; the splits are 'dev', "
                                           "'train'"),
        (["train,no", "dev,yes"], "dev", "one of 'dev', 'train', with rows that are not excluded, got 'dev'"),
        (["train,no", "dev,no"], "test", "one of 'dev', 'train', with rows that are not excluded, got 'test'"),
    ],
)  # fmt: skip
def test_a_split_with_nothing_to_fit_or_to_compare_is_refused(capsys, tmp_path, marks, split, told):
    file, lines = tmp_path / "runs.csv", synthetic()
    rows = [f"{line},{marks[i % len(marks)]}" for i, line in enumerate(lines)]
    file.write_text("\n".join(["N,B,K,loss,type,split,exclude", *rows]))
    code, out, err = shell(capsys, file, "--split", split)
    assert (code, out) == (2, "")
    assert err == f"nqm scaling: --split: expected {told}\n"


def test_warnings_are_told_before_an_error(capsys, monkeypatch):
    def fail(*_, **__):
        warnings.warn("odd runs", UserWarning, stacklevel=2)
        raise ValueError("no fit")

    monkeypatch.setattr(nqm.scaling, "fit_runs", fail)
    code, out, err = shell(capsys, "example", "--json")
    assert (code, out) == (2, "")
    assert err.splitlines() == ["nqm scaling: warning: odd runs", "nqm scaling: no fit"]


def test_warnings_stay_out_of_json(capsys):
    code, out, err = shell(capsys, "example", "--predict", "1e13,512,1e5", "--json")
    assert code == 0
    assert err.startswith("nqm scaling: warning: far outside the data: N is ")
    assert len(err.splitlines()) == 1  # that of the interval is the same
    assert json.loads(out)["predict"][0]["N"] == 1e13


@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_a_file_that_cannot_be_written_at_the_end_is_named(capsys, monkeypatch, tmp_path, option):
    def replace(self, goal):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr("pathlib.Path.replace", replace)
    goal = tmp_path / "fit.png"
    code, out, err = shell(capsys, "example", option, goal)
    assert (code, out) == (2, "")
    assert err == (
        f"nqm scaling: {option}: expected a file that can be written, got {str(goal)!r} ({os.strerror(errno.ENOSPC)})\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_made(capsys, tmp_path):
    saved = tmp_path / "a" / "b" / "fit.json"
    assert shell(capsys, "example", "--save", saved)[0] == 0
    assert RunsFit.load(saved).runs["N"].size == 66


@pytest.fixture
def folder(tmp_path):
    """Two loss curves, of a constant and of a cosine learning rate."""
    steps = np.arange(100, 2001, 100)
    for name, lr in (("flat", np.full(2001, 0.1)), ("cosine", 0.05 * (1 + np.cos(np.pi * np.arange(2001) / 2000)))):
        loss = 2.0 + 5.0 * np.cumsum(lr)[steps] ** -0.4 + lr[steps]
        rows = [f"{k},{g},{y}" for k, g, y in zip(steps, lr[steps], loss, strict=True)]
        place = tmp_path / "curves" / f"{name}.csv"
        place.parent.mkdir(exist_ok=True)
        place.write_text("\n".join(["step,lr,loss", *rows]))
    return tmp_path / "curves"


def test_curves_tell_what_the_fit_says(capsys, folder, tmp_path):
    saved, picture = tmp_path / "fit.json", tmp_path / "fit.svg"
    code, out, _ = shell(
        capsys, "--curves", folder, "--steps", "1500", "--peak-lr", "0.1", "--warmup-steps", "10", "--level", "0.8",
        "--save", saved, "--plot", picture, "--json",
    )  # fmt: skip
    answer = json.loads(out)
    curves = read_curves(folder, warmup=10)
    fit = fit_curves(curves)
    found = fit.best_schedule(1500, 0.1, level=0.8)
    assert code == 0
    assert answer["parameters"] == fit.parameters
    assert answer["parameter_intervals"] == {name: list(ends) for name, ends in fit.parameter_intervals(0.8).items()}
    assert [row["curve"] for row in answer["curves"]] == ["cosine", "flat"]
    for row in answer["curves"]:
        curve = curves[row["curve"]]
        assert row["mean_error"] == np.abs(fit.predict(curve.lr, curve.steps) - curve.loss).mean()
    told = answer["best_schedule"]
    assert nqm.Schedule(told["values"], told["lengths"]) == found.schedule
    assert (told["steps"], max(told["values"]) <= 0.1) == (1500, True)
    assert told["compared"]["schedule"] == ["best", "cosine", "wsd"]
    assert told["compared"]["loss"] == found.table["loss"].tolist()
    assert CurvesFit.load(saved).parameters == fit.parameters
    assert b"<svg" in picture.read_bytes()


def test_curves_in_text(capsys, folder):
    (folder / "flat.csv").write_text((folder / "flat.csv").read_text().replace("\n500,", "\nfive hundred,"))
    code, out, err = shell(capsys, "--curves", folder)
    assert code == 0
    assert "losses in nats" in out
    assert "kappa" in out
    told = "nqm scaling: skipped flat.csv, line 6: step: expected a finite number of at least 0, got 'five hundred'"
    assert told in err.splitlines()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "expected a file of runs or --curves, got neither"),
        ("example --curves runs", "expected a file of runs or --curves, got both"),
        ("nowhere.csv", "nowhere.csv"),
        ("--curves nowhere", "nowhere"),
        ("example --warmup-steps 0", "--warmup-steps: expected --curves with it, got runs"),
        ("--curves nowhere --warmup 0", "--warmup: expected a file of runs with it, got curves"),
        ("example --steps 100", "--steps: expected --curves with it, got runs"),
        ("--curves nowhere --predict 1,2,3", "--predict: expected a file of runs with it, got curves"),
        ("--curves nowhere --peak-lr 0.1", "--peak-lr: expected --steps with it"),
        ("example --compute 1e18", "--compute: expected --best with it"),
        ("example --step-time 2", "--step-time: expected --best with it"),
        ("example --level 1", "--level: expected a number between 0 and 1, got 1"),
        ("example --plot picture.xyz", "expected a file name ending in"),
        ("example --predict 1,2", "expected N,B,K, three numbers above 0, got '1,2'"),
        ("example --predict 1,2,-3", "expected N,B,K, three numbers above 0, got '1,2,-3'"),
        ("example --column loss", "expected NAME=HEADER, such as loss=val_loss, got 'loss'"),
        ("example --split train", "--split: expected a column 'split'"),
        ("example --column loss=K", "--column: expected a file of your own with it, got 'example'"),
        ("runs.csv --column lr=K", "columns: expected quantities out of N, B, K"),
        ("nowhere.csv --save ''", "--save: expected the name of a file, got ''"),
        ("nowhere.csv --plot ''", "--plot: expected the name of a file, got ''"),
        ("--curves ''", "--curves: expected the name of a file, got ''"),
        ("''", "RUNS.CSV: expected the name of a file, got ''"),
        (
            "nowhere.csv --save runs.csv/new/fit.json",
            "--save: expected a file that can be written, got 'runs.csv/new/fit",
        ),
        (
            "nowhere.csv --plot runs.csv/fit.png",
            "--plot: expected a file that can be written, got 'runs.csv/fit.png' (Not",
        ),
        ("--curves nowhere --save .", "--save: expected a file that can be written, got '.' (it is a folder)"),
        ("runs.csv --save ./runs.csv", "--save: expected another file than the log, got './runs.csv'"),
        ("nowhere.csv --sequence-length 0", "--sequence-length: expected a finite number above 0, got 0"),
        ("example --best --params-max big", "--params-max: expected a finite number above 0, got 'big'"),
        ("example --lr-schedule zigzag", "lr_schedule: expected"),
        ("example --warmup 2", "warmup: expected"),
        ("example --seed -1", "seed: expected"),
        ("runs.csv --column loss=train_loss", "expected the column 'train_loss'"),
        ("runs.csv --best --compute 1e18", "expected --sequence-length"),
        ("runs.csv --frontier 3", "expected --sequence-length"),
        ("runs.csv", "runs.csv: expected at least one usable row, got none (line 2: loss: expected a finite number"),
        ("curves.csv", "is this a loss curve"),
        (".", "expected a file, got a folder"),
        ("--curves curves.csv", "curves.csv, line 3: expected steps that increase"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text("N,B,K,loss\n1,1,1,nan\n")
    (tmp_path / "curves.csv").write_text("step,lr,loss\n2,0.1,3\n2,0.1,3\n")
    code, out, err = shell(capsys, *shlex.split(words))
    assert code == 2
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "runs.csv"]


def test_help_has_an_example(capsys):
    code, out, _ = shell(capsys, "--help")
    assert code == 0
    assert "nqm scaling" in out.split("example:")[1]
    schedules = re.search(r"--lr-schedule NAME\s+([^-]*)", out).group(1)
    assert set(re.findall(r"\w+", schedules)) >= set(SHAPES)
