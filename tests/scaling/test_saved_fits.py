"""Fits as earlier versions saved them: they are read, and give the numbers they gave. (Of networks: validation/.)

The files in data/saved are never written anew: a version that changes a format adds one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nqm import scaling, schedules

SAVED = Path(__file__).parents[1] / "data" / "saved"
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


def test_every_file_is_read():
    names = {path.name for path in SAVED.iterdir()}
    assert names == {"runs_fit.json", "curves_fit.json"}
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(text.count(name) > 1 for name in names)
