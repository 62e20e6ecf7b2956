"""A curve as it is read from a file, for the tests beside this one."""

from __future__ import annotations

from pathlib import Path

from nqm.scaling.logs import read_curves


def curve(file, rows, name="run.csv", **options):
    return read_curves(file("step,lr,loss\n" + rows, name), **options)[Path(name).stem]
