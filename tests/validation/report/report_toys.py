"""Toys instead of rungs and networks, and the shell, for the tests beside this file."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from toys import toy_data, toy_task

from nqm import _io
from nqm.cli import main
from nqm.validation import Rung, report
from nqm.validation.papers.zhang2019 import network_result, network_rung
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
        patch.setattr(network_result, "SPECTRA_AT", (0, 5))
        patch.setattr(_io, "DPI", 30)
        patch.setattr(network_rung, "FOLLOWED", ("SGD",))
        yield


def shell(capsys, *words):
    """(exit code, stdout, stderr) of `nqm validate words`."""
    try:
        code = main(["validate", *words])
    except SystemExit as end:  # argparse's way out
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err
