"""Files as earlier versions wrote them: they are read, and give the numbers they gave.

One of each format lies in data/saved. They are never written anew: a version that changes a format adds a file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import nqm
from nqm import scaling, schedules

SAVED = Path(__file__).parent / "data" / "saved"
CLOSE = 1e-9  # processors differ in the last digits


def test_fit_of_runs():
    fit = scaling.RunsFit.load(SAVED / "runs_fit.json")
    assert fit.predict(3e8, 512, 30_000) == pytest.approx(2.5168132253841993, rel=CLOSE)
    assert fit.interval(3e8, 512, 30_000) == pytest.approx((2.5026468823775714, 2.633879397986573), rel=CLOSE)
    assert fit.floor(3e8) == pytest.approx(1.935592051919478, rel=CLOSE)
    assert (fit.lr_schedule, fit.warmup, fit.runs["N"].size) == ("cosine", 0.01, 14)


def test_fit_of_curves():
    fit = scaling.CurvesFit.load(SAVED / "curves_fit.json")
    found = fit.predict(schedules.linear(1e-3, 300), [100, 300])
    assert found == pytest.approx([4.914118618361716, 4.613081947466278], rel=CLOSE)
    assert {name: curve.steps.size for name, curve in fit.curves.items()} == {"cosine": 20, "constant": 20}
    assert fit.curves["constant"].lr[0] == 5e-4


def test_measured_quadratic():
    validation = pytest.importorskip("nqm.validation", reason="needs torch")
    found = validation.load(SAVED / "measured_quadratic.npz")
    assert found.curvature.tolist() == [1.0, 0.1, 0.03]
    assert found.gradient.tolist() == [0.5, 0.1, -0.02]
    assert found.provenance == {"model": "by hand", "curvature": "exact", "examples": 60}
    assert (found.loss_at, found.loss_start, found.noise_scale, found.noise_scale_start) == (2.0, 3.9, 4.6, 0.3)
    assert (found.noise_growth, found.floor) == (0.7, pytest.approx(1.8183333333333334, rel=1e-14))
    assert nqm.risk(found, nqm.SGD(0.1, 0.5), 8, 100) == pytest.approx(0.02028571515279455, rel=CLOSE)


MEDIANS = [16.98619337, 18.08333346, 6.70055721, 3.54999999, 41.3760571, 37.12500007, 8.66353651, 6.91666683]


def test_measured_steps():
    validation = pytest.importorskip("nqm.validation", reason="needs torch")
    found = validation.Measured.load(SAVED / "steps.jsonl")
    assert found.table["median"] == pytest.approx(np.array(MEDIANS), rel=1e-8)
    assert found.table["batch_size"].tolist() == [4, 4, 16, 16] * 2
    assert found.critical_batch_size()["SGD"].value == pytest.approx(10.140167650734906, rel=CLOSE)


def test_measured_steps_go_on(tmp_path):
    """The same call goes on where the file ends: nothing is left to train."""
    validation = pytest.importorskip("nqm.validation", reason="needs torch")
    path = Path(shutil.copy(SAVED / "steps.jsonl", tmp_path))
    saved = validation.Measured.load(path)

    class Same:
        """A task that nothing tells from the one of the file."""

        def __init__(self):
            self.targets = dict(saved.configuration["targets"])

        def fingerprint(self):
            return saved.configuration["task"]

    def race(*_, **__):
        pytest.fail("trains again")

    found = validation.measure_steps(
        Same(), ["SGD", "momentum"], [4, 16], trials=4, rounds=1, seeds=2, max_steps=300, results=path, progress=False,
        race=race,
    )  # fmt: skip
    assert found.table["median"].tolist() == saved.table["median"].tolist()
    assert path.read_bytes() == (SAVED / "steps.jsonl").read_bytes()


def test_every_file_is_read():
    names = {path.name for path in SAVED.iterdir()}
    assert names == {"runs_fit.json", "curves_fit.json", "measured_quadratic.npz", "steps.jsonl"}
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(text.count(name) > 1 for name in names)
