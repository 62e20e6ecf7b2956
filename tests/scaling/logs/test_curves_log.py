"""Loss curves as they come: learning rates between the rows, and rows that cannot be used."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import curve
from real_logs import DATA, real_logs

from nqm.scaling.logs import read_curves


def rates(found, steps):
    """Its learning rate at steps 0 ... steps - 1."""
    assert found.lr.size == steps
    return found.lr.tolist()


def test_learning_rates_before_the_first_row(file):
    rows = "4,0.4,3\n8,0.4,2\n"
    assert rates(curve(file, rows), 8) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert rates(curve(file, rows, warmup="constant"), 8) == [0.4] * 8
    assert rates(curve(file, rows, warmup=2), 8) == pytest.approx([0.2] + [0.4] * 7)
    assert rates(curve(file, rows, warmup=0), 8) == [0.4] * 8
    assert rates(curve(file, rows, warmup=6), 8) == rates(curve(file, rows), 8)  # it has ended at the first row
    with pytest.raises(ValueError, match="warmup: expected"):
        curve(file, rows, warmup="cosine")
    with pytest.raises(ValueError, match="warmup: expected"):
        curve(file, rows, warmup=-1)


def test_learning_rates_between_rows(file):
    found = curve(file, "2,0.8,4\n4,0.4,3\n8,0.2,2\n")
    assert rates(found, 8)[2:] == pytest.approx([0.8, 0.6, 0.4, 0.35, 0.3, 0.25])
    jump = curve(file, "2,0.8,4\n4,0.8,3.5\n6,0.1,3\n8,0.1,2\n10,0.1,2\n")
    assert rates(jump, 10)[2:] == [0.8] * 4 + [0.1] * 4  # at the later row, whose learning rate is the next step's
    decay = curve(file, "2,0.8,4\n4,0.8,3.5\n6,0.4,3\n8,0.2,2\n")
    assert rates(decay, 8)[2:] == pytest.approx([0.8, 0.8, 0.8, 0.6, 0.4, 0.3])  # no jump: it goes on falling
    stairs = curve(file, "2,0.8,4\n4,0.8,3.5\n6,0.4,3\n8,0.4,2\n10,0.1,2\n12,0.1,2\n")
    assert rates(stairs, 12)[2:] == [0.8] * 4 + [0.4] * 4 + [0.1] * 2


def test_rows_with_one_of_the_two(file):
    found = curve(file, "0,0.4,\n2,0.4,4\n3,,3.5\n4,0.2,\n6,0.2,3\n8,0.1,\n")
    assert found.steps.tolist() == [2, 3, 6]
    assert found.loss.tolist() == [4, 3.5, 3]
    assert rates(found, 6) == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.2, 0.2])  # a jump from step 2 to 4 is at 4


def test_units_of_curves(file):
    text = "Step (k),lr,loss,batch (tokens)\n1,0.1,4,8\n2,0.1,3,8\n"
    with pytest.raises(ValueError, match="expected batch_size in examples"):
        read_curves(file(text))
    assert read_curves(file(text.replace("tokens", "sequences")))["runs"].steps.tolist() == [1000, 2000]


def test_bad_rows_of_curves_are_named(file, tmp_path):
    file("Global Step;Learning Rate;Val loss\n1;0.1;4\nx;0.1;4\n2.5;0.1;4\n4;nan;4\n5;0.1;0\n6;0.1\n8;0;3\n", "a.csv")
    file("step\tlr\tloss\n1\t0.1\t2\n2\t0.1\t1\n", "b.tsv")
    file("no curve", "notes.txt")
    curves = read_curves(tmp_path)
    assert list(curves) == ["a", "b"]
    assert curves["a"].steps.tolist() == [1, 8]
    assert [(name, line) for name, line, _ in curves.skipped] == [("a.csv", line) for line in (3, 4, 5, 6, 7)]
    reasons = [reason for _, _, reason in curves.skipped]
    assert reasons[0] == "Global Step: expected a finite number of at least 0, got 'x'"
    assert reasons[1] == "Global Step: expected a whole number up to 1e+08, got '2.5'"
    assert reasons[2] == "Learning Rate: expected a finite number of at least 0, got 'nan'"
    assert reasons[4] == "expected 3 cells, got 2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("step,loss\n1,1\n", "missing, lr"),
        ("step,lr,loss\n4,0.1,4\n4,0.1,3\n", "line 3: expected steps that increase, got 4 after 4"),
        ("step,lr,loss\n4,0.1,4\n\n2,0.1,3\n", "line 4: expected steps that increase, got 2 after 4"),
        ("step,lr,loss,batch_size\n4,0.1,4,8\n5,0.1,3,16\n", "line 3: expected one batch size all through, got 16"),
        ("step,lr,loss\n4,0.1,\n", "expected rows with a learning rate and with a loss, got none"),
        ("step,lr,loss\n4,0.1,nan\n", "got none .*line 2: loss"),
        ("", "empty file"),
    ],
)
def test_curves_that_cannot_be_used(file, tmp_path, text, told):
    file("step,lr,loss\n1,0.1,4\n2,0.1,3\n", "a.csv")
    file(text, "b.csv")
    with pytest.raises(ValueError, match=told) as error:
        read_curves(tmp_path)
    assert "b.csv" in str(error.value)


def test_folders_of_curves_that_cannot_be_used(file, tmp_path):
    with pytest.raises(ValueError, match=r"folder with files that end in \.csv or \.tsv"):
        read_curves(tmp_path)
    file("step,lr,loss\n1,0.1,4\n2,0.1,3\n", "a.csv")
    file("step,lr,loss\n1,0.1,4\n2,0.1,3\n", "a.tsv")
    with pytest.raises(ValueError, match="two for 'a'"):
        read_curves(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_curves(tmp_path / "nowhere")


def test_batch_size_of_a_curve(file):
    assert read_curves(file("step,lr,loss,Batch\n1,0.1,4,8\n2,0.1,3,\n"))["runs"].batch_size == 8
    assert curve(file, "1,0.1,4\n2,0.1,3\n").batch_size == 1


@settings(max_examples=30, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 50), min_size=4, max_size=12),
    lr=st.lists(st.floats(1e-6, 1.0), min_size=12, max_size=12),
)
def test_curves_keep_what_was_logged(gaps, lr, tmp_path_factory):
    steps = np.cumsum(gaps)
    loss = 3.0 + 1.0 / steps
    path = tmp_path_factory.mktemp("logs") / "run.csv"
    lines = [f"{s},{g!r},{y!r}" for s, g, y in zip(steps, lr, loss.tolist(), strict=False)]
    path.write_text("\n".join(["step,lr,loss", *lines]))
    found = read_curves(path)["run"]
    np.testing.assert_array_equal(found.steps, steps)
    np.testing.assert_array_equal(found.loss, loss)
    every = rates(found, int(steps[-1]))
    assert [every[s] for s in steps[:-1]] == pytest.approx(lr[: steps.size - 1])
    assert min(lr[: steps.size]) * 0.999 <= min(every[steps[0] :], default=1.0)
    assert max(every) <= max(lr[: steps.size]) * 1.001


@real_logs
@pytest.mark.parametrize("size", ["25M", "100M", "400M"])
def test_published_curves(size):
    curves = read_curves(DATA / "lr_curves" / size, warmup=2160)
    assert curves.skipped == ()
    assert {"cosine_24000", "constant_24000", "wsdcon_9"} <= set(curves)
    drop = curves["wsdcon_9"].lr
    np.testing.assert_allclose(drop[:2160], 3e-4 * np.arange(1, 2161) / 2160)
    np.testing.assert_allclose(drop[2160:8000], 3e-4)
    np.testing.assert_allclose(drop[8000:], 9e-5)
    falling = curves["cosine_24000"].lr[2160:]
    k = np.arange(falling.size)
    np.testing.assert_allclose(falling, 3e-5 + 2.7e-4 * (1 + np.cos(math.pi * k / (24_000 - 2160))) / 2, rtol=3e-4)
