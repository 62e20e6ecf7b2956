"""Files that version 0.1.0 wrote: they load, and searches go on from them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from toys import drawn_task

import nqm
from nqm.validation import Measured, load, measure_steps, train_until_first
from nqm.validation.search.records import read_results

SAVED = Path(__file__).parent / "saved"
SEARCH = {"trials": 3, "rounds": 1, "seeds": 2, "max_examples": 8000, "progress": False}


def check_table(measured):
    """Against the table that was written with the file."""
    with (SAVED / "steps.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    assert list(measured.table) == head
    for name, expected in zip(head, zip(*rows, strict=True), strict=True):
        column = measured.table[name]
        if column.dtype.kind == "U":
            assert column.tolist() == list(expected)
        else:
            np.testing.assert_allclose(column, np.array(expected, dtype=float), rtol=1e-12, err_msg=name)


def test_a_results_file_is_read():
    measured = Measured.load(SAVED / "steps.jsonl")
    check_table(measured)
    assert measured.names == ["momentum", "K-FAC"]
    assert measured.metrics == ["training loss", "held-out error"]


def never(*job):
    raise AssertionError("trained again")


def test_a_search_that_is_finished_trains_nothing(tmp_path):
    path = Path(shutil.copy(SAVED / "steps.jsonl", tmp_path))
    check_table(measure_steps(drawn_task(), ["momentum", "K-FAC"], [4, 16], results=path, race=never, **SEARCH))
    assert path.read_bytes() == (SAVED / "steps.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_search_goes_on_where_its_file_ends(tmp_path, cut):
    """Torn in the last line, or in the last but two batches of trials; sums over runs differ between machines."""
    whole, trained = (SAVED / "steps.jsonl").read_bytes(), []
    path = tmp_path / "steps.jsonl"
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-cut]) + lines[-cut][:40])
    (tmp_path / "kept").mkdir()
    kept = read_results(shutil.copy(path, tmp_path / "kept"))[1]

    def train(task, trials, max_steps, to_the_end):
        trained.extend(trials)
        return train_until_first(task, trials, max_steps, to_the_end)

    found = measure_steps(drawn_task(), ["momentum", "K-FAC"], [4, 16], results=path, race=train, **SEARCH)
    records = read_results(path)[1]
    assert records[: len(kept)] == kept
    assert [record.outcome.trial for record in records[len(kept) :]] == trained
    assert 0 < len(trained) == len(lines) - 1 - len(kept)
    np.testing.assert_allclose(found.table["median"], Measured.load(SAVED / "steps.jsonl").table["median"], rtol=1e-2)


def test_a_measured_quadratic_is_read():
    measured = load(SAVED / "measured.npz")
    assert measured.floor == pytest.approx(float.fromhex("0x1.5da7659adf323p-4"), rel=1e-14)
    assert measured.initial_risk == pytest.approx(float.fromhex("0x1.1defba10cf902p+0"), rel=1e-14)
    assert (measured.provenance["data"], measured.provenance["dropped"]["directions"]) == ("drawn", 21)
    assert nqm.tune(measured, nqm.SGD(nqm.FREE), 4, measured.risk_at(0.5)).steps == 1
