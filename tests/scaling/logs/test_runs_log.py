"""Logs of runs as they come: columns in any spelling, rows that cannot be used, the example that ships."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import curve
from real_logs import DATA, real_logs
from scipy.special import zeta
from write_example_runs import TRUTH, true_losses, write_example

import nqm
from nqm.scaling.example import example_runs
from nqm.scaling.logs import read_curves, read_runs
from nqm.scaling.logs.columns import NAMES
from nqm.scaling.models.modes import modes

PLAIN = "N,B,K,loss\n1e8,64,1000,3.5\n2e8,128,2000,3.25\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        "# a comment, with commas,,,,,,\n\n" + PLAIN.replace("\n2e8", "\n\n  # another\n2e8"),
        '"N","B","K","loss"\n"1e8","64","1000","3.5"\n"2e8","128","2000","3.25"',
        'N,B,K,loss,note\n1e8,64,1000,3.5,"two\nlines, and a comma"\n2e8,128,2000,3.25,\n',
        "Val-Loss, Training Steps, Global Batch Size (sequences), Non-embedding Params [M]\n"
        "3.5, 1_000, 64, 100M\n3.25, 2_000, 128, 0.2B\n",
        "loss,N,B,K,wall_clock,\n3.5,100 m,64,1000,?,\n3.25,200000k,128,2000,,\n",
        "params,batch,examples,test_loss\n1e8,64,64000,3.5\n2e8,128,256000,3.25\n",
        'N,B,K,loss,note\n1e8,64,1000,3.5,"two\n# lines, and a comma"\n#2e8,1,1,1,"\n2e8,128,2000,3.25,\n',
        'N, B, K, loss, note\n1e8, "64", 1000, 3.5, "with, a comma"\n2e8, 128, 2000, 3.25,\n',
    ],
    ids=["plain", "mark", "crlf", "cr", "tab", "semicolon", "comment", "quote", "note", "words", "order", "examples",
         "quoted comment", "spaces"],
)  # fmt: skip
def test_the_same_runs_however_they_are_written(file, text):
    log = read_runs(file(text))
    assert log.skipped == ()
    assert len(log) == 2
    np.testing.assert_array_equal(log.N, [1e8, 2e8])
    np.testing.assert_array_equal(log.B, [64, 128])
    np.testing.assert_array_equal(log.K, [1000, 2000])
    np.testing.assert_array_equal(log.loss, [3.5, 3.25])
    assert (log.type, log.split) == (None, None)
    assert not log.exclude.any()
    for name in ("N", "B", "K", "loss", "exclude", "line"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(log, name)[0] = 1


def test_sizes_in_millions_are_the_nearest_numbers(file):
    log = read_runs(file("N,B,K,loss\n" + "".join(f"{size},1,1,1\n" for size in ("1.1B", "70m", "2.8b", "1T", "12k"))))
    assert log.N.tolist() == [1.1e9, 70e6, 2.8e9, 1e12, 12e3]  # 1.1 * 1e9 would be 1100000000.0000002


def test_all_sizes_may_have_suffixes_and_losses_may_not(file):
    log = read_runs(file("N,B,K,loss\n1B,4k,100K,3\n1B,4k,100K,3k\n"))
    assert (log.N.item(), log.B.item(), log.K.item()) == (1e9, 4e3, 1e5)
    assert log.skipped == ((3, "loss: expected a finite number above 0, got '3k'"),)
    assert read_runs(file("N,B,tokens,loss\n1B,1k,300B,3\n"), sequence_length=1000).K == 300_000
    assert read_runs(file("N,B,examples,loss\n1B,1k,2M,3\n")).K == 2000
    assert curve(file, "1k,0.1,3\n2k,0.1,2\n").steps.tolist() == [1000, 2000]


@pytest.mark.parametrize(
    ("header", "row", "N", "B", "K"),
    [
        ("Params (M),Batch size (sequences),Steps,Loss (nats)", "125,64,1000,3", 125e6, 64, 1000),
        ("Params (B),Batch size (examples),Steps [k],Loss [nats/token]", "1.3,64,20,3", 1.3e9, 64, 20_000),
        ("Params [in millions],Batch (thousands),Steps,Loss", "1.1e2,4,1000,3", 1.1e8, 4000, 1000),
        ("Params (billions of non-embedding),B,K,Loss", "1.1,64,1000,3", 1.1e9, 64, 1000),
        ("Model size [T],B,K,Loss", "0.07,64,1000,3", 0.07e12, 64, 1000),
        ("Params (M),B,K,Loss", "125k,64,1000,3", 125e3, 64, 1000),  # a cell's own says more
        ("Params (non-embedding),Batch size (B),Steps (T),Loss", "125,64,1000,3", 125, 64, 1000),  # symbols
        ("Params (M),B,Examples (M),Loss", "125,64,0.64,3", 125e6, 64, 10_000),
        ("Params (M),B,Tokens (B),Loss", "125,64,0.64,3", 125e6, 64, 100_000),
    ],
)
def test_units_of_columns(file, header, row, N, B, K):
    log = read_runs(file(f"{header}\n{row}\n"), sequence_length=100)
    assert (log.N.item(), log.B.item(), log.K.item(), log.loss.item()) == (N, B, K, 3)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "N,Batch Size (tokens),K,loss",
            "expected B in examples, got 'Batch Size .tokens.': divide it by the sequence",
        ),
        ("N,B [M tokens],K,loss", "expected B in examples"),
        ("N,B,K,loss (bits)", r"expected loss in nats, got 'loss \(bits\)': multiply it by ln 2 = 0.6931"),
        ("N,B,K,Val loss [Bits/byte]", "expected loss in nats"),
        ("N,B,Steps (K),loss", r"expected steps, or thousands of them, got 'Steps \(K\)'"),
    ],
)
def test_units_that_cannot_be_used(file, header, told):
    path = file(f"{header}\n1e8,64,1000,3\n")
    with pytest.raises(ValueError, match=told) as error:
        read_runs(path)
    assert str(path) in str(error.value)


def test_optional_columns_are_kept(file):
    log = read_runs(file(
        "N,B,K,C,loss,type,filtered,split\n1,2,3,4e9,5,isoflop,False,train\n1,2,3,,5, isotoken ,TRUE,dev\n"
        "1,2,3,x,5,isoflop,maybe,dev\n1,2,3,5,5,isoflop,,dev\n"
    ))  # fmt: skip
    assert log.type.tolist() == ["isoflop", "isotoken", "isoflop"]
    assert log.split.tolist() == ["train", "dev", "dev"]
    assert log.exclude.tolist() == [False, True, False]
    assert log.line.tolist() == [2, 3, 5]
    assert log.skipped == ((4, "filtered: expected true or false, got 'maybe'"),)


def test_of_two_optional_columns_the_first_is_taken(file):
    path = file("N,B,K,loss,kind,type,excluded,filtered\n1,2,3,4,a,b,yes,no\n")
    assert (read_runs(path).type.tolist(), read_runs(path).exclude.tolist()) == (["a"], [True])
    said = read_runs(path, columns={"type": "type", "exclude": "filtered"})
    assert (said.type.tolist(), said.exclude.tolist()) == (["b"], [False])


def test_an_empty_mark_is_no(file):
    log = read_runs(file("N,B,K,loss,filtered\n" + "".join(f"1,2,3,4,{no}\n" for no in ("nan", "None", "null", "NA"))))
    assert log.exclude.tolist() == [False] * 4
    assert log.skipped == ()


def test_a_quote_that_is_not_closed_loses_no_rows(file):
    lines = Path(example_runs().path).read_text().splitlines()
    lines[42] += ',"oops'
    told = r"runs\.csv, line 43: expected comma-separated values, got .*; is a quote not closed"
    with pytest.raises(ValueError, match=told):
        read_runs(file("\n".join(lines)))
    lines[50] += ',"oops'  # closes the first
    with pytest.raises(ValueError, match=told):
        read_runs(file("\n".join(lines)))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1e8,64,1000", "expected 4 cells, got 3"),
        ("1e8,64,1000,3.5,7", "expected 4 cells, got 5"),
        ("1e8,64,1000,", "loss: expected a finite number above 0, got an empty cell"),
        ("1e8,64,1000,diverged", "loss: expected a finite number above 0, got 'diverged'"),
        ("1e8,64,1000,nan", "loss: expected a finite number above 0, got 'nan'"),
        ("1e8,64,1000,inf", "loss: expected a finite number above 0, got 'inf'"),
        ("1e8,64,1000,0", "loss: expected a finite number above 0, got '0'"),
        ("1e8,64,1000,-3.5", "loss: expected a finite number above 0, got '-3.5'"),
        ("0,64,1000,3.5", "N: expected a finite number above 0, got '0'"),
        ("big,64,1000,3.5", "N: expected a finite number above 0, got 'big'"),
        ("1e8,-64,1000,3.5", "B: expected a finite number above 0, got '-64'"),
        ("1e8,64,1e400,3.5", "K: expected a finite number above 0, got '1e400'"),
        ('1e8,64,"1,000",3.5', "K: expected a finite number above 0, got '1,000'"),
        ("1e8,64,1000.5,3.5", "K: expected a whole number of steps, got '1000.5'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(file, row, told):
    log = read_runs(file(f"N,B,K,loss\n\n1,2,3,4\n# comment\n{row}\n5,6,7,8\n"))
    assert log.skipped == ((5, told),)
    assert log.N.tolist() == [1, 5]
    assert log.line.tolist() == [3, 6]
    assert "2 runs of" in repr(log)
    assert "1 row skipped" in repr(log)
    with pytest.raises(ValueError, match=r"at least one usable row, got none \(line 2: ") as error:
        read_runs(file(f"N,B,K,loss\n{row}\n"))
    assert told in str(error.value)


def test_lines_count_those_within_quotes(file):
    log = read_runs(file('N,B,K,loss,note\n1,1,1,1,"a\nb\nc"\nx,1,1,1,"d\ne"\ny,1,1,1,\n'))
    assert log.line.tolist() == [2]
    assert [line for line, _ in log.skipped] == [5, 7]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "got an empty file"),
        ("# only\n\n", "got an empty file"),
        ("N,B,K,loss\n", "no rows below the header"),
        ("1e8,64,1000,3.5\n2e8,64,1000,3.5\n", "expected a first line that names the columns, got numbers"),
        ("N,K,loss\n1,1,1\n", r"missing, B \(batch size in examples\): one of b, batch, batch_size, .*; got 'N', 'K'"),
        ("N,B,K\n1,1,1\n", "missing, loss"),
        ("N,B,D,loss\n1,1,1,1\n", "missing, K"),
        ("N B K loss\n1 1 1 1\n", "got 'N B K loss'"),
        ("step,lr,loss\n1,1,1\n", "is this a loss curve"),
        ("N,B,K,val_loss,test loss\n1,1,1,1,1\n", "one column for loss, got 'val_loss' and 'test loss'"),
        ("N,params,B,K,loss\n1,1,1,1,1\n", "one column for N, got 'N' and 'params'"),
        ("N,B,K,loss,loss\n1,1,1,1,1\n", "different names, got 'loss' twice"),
        ("N,B,tokens,loss\n1,1,1,1\n", "sequence_length to get them from the column 'tokens'"),
        ("N,B,examples,loss\n1,8,3,1\n", "examples: expected at least one batch, got '3'"),
    ],
)
def test_files_that_cannot_be_used(file, text, told):
    path = file(text)
    with pytest.raises(ValueError, match=told) as error:
        read_runs(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(file, tmp_path):
    with pytest.raises(ValueError, match="expected text in UTF-8, got byte 0xff"):
        read_runs(file(PLAIN, encoding="utf-16"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_runs(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="expected a file"):
        read_runs(tmp_path)


def test_columns_can_be_said(file):
    path = file("N,B,K,val_loss,test_loss\n1,2,3,4,5\n")
    assert read_runs(path, columns={"loss": "test_loss"}).loss == 5
    with pytest.raises(ValueError, match="expected the column 'train_loss', got 'N'"):
        read_runs(path, columns={"loss": "train_loss"})
    with pytest.raises(ValueError, match=r"columns: expected quantities out of N, B, .*, got 'size'"):
        read_runs(path, columns={"size": "N"})
    with pytest.raises(ValueError, match=r"columns: expected quantities out of N, .*, exclude, got 'lr'"):
        read_runs(path, columns={"lr": "K"})
    with pytest.raises(ValueError, match="columns: expected quantities out of step, lr, loss, batch_size, got 'N'"):
        read_curves(path, columns={"N": "N"})
    with pytest.raises(TypeError, match="columns: expected a dict"):
        read_runs(path, columns="loss")


def test_steps_from_tokens(file):
    path = file("N,B,tokens,loss\n1,8,1024000,1\n1,16,3e6,1\n")
    assert read_runs(path, sequence_length=128).K.tolist() == [1000, round(3e6 / 16 / 128)]
    with pytest.raises(ValueError, match="sequence_length: expected"):
        read_runs(path, sequence_length=0)
    both = file("N,B,K,tokens,loss\n1,8,7,1024000,1\n")
    assert read_runs(both).K == 7  # steps that are there are not computed
    assert read_runs(both, sequence_length=128, columns={"tokens": "tokens"}).K == 1000  # but if that is asked for


positive, whole = st.floats(1e-300, 1e300), st.integers(1, 2**53).map(float)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(positive, positive, whole, positive), min_size=1, max_size=8), data=st.data())
def test_what_is_written_is_read(rows, data, tmp_path_factory):
    words = {name: data.draw(st.sampled_from(NAMES[name])) for name in ("N", "B", "K", "loss")}
    order = data.draw(st.permutations(list(words)))
    spell = data.draw(st.sampled_from([str.upper, str.title, str.lower, lambda word: word.replace("_", " - ")]))
    separator = data.draw(st.sampled_from(",;\t"))
    lines = [separator.join(spell(words[name]) for name in order)]
    lines += [separator.join(repr(dict(zip(words, row, strict=True))[name]) for name in order) for row in rows]
    path = tmp_path_factory.mktemp("logs") / "runs.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    log = read_runs(path)
    np.testing.assert_array_equal(np.array([log.N, log.B, log.K, log.loss]).T, rows)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("NBK,;\t\n\r\"'#.0123456789eloss \ufeff"), max_size=60))
def test_any_text_is_read_or_refused(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "runs.csv"
    path.write_text("N,B,K,loss\n" + text, encoding="utf-8", newline="")
    try:
        log = read_runs(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert all((column > 0).all() for column in (log.N, log.B, log.K, log.loss))


@real_logs
def test_published_runs():
    log = read_runs(DATA / "llm_runs.csv")
    with (DATA / "llm_runs.csv").open(newline="") as stream:
        flop = np.array([float(row["C"]) for row in csv.DictReader(stream)]) * 1e9  # C is in GFLOP
    assert log.skipped == ()
    assert set(log.type) == {"isoflop", "isotoken"}
    assert set(log.split) == {"train", "dev"}
    assert len(log) == log.line[-1] - 1
    assert np.median(6.0 * log.N * log.B * log.K * 128 / flop) == pytest.approx(1.0, rel=0.05)


# The example that ships


def test_the_example_is_what_the_generator_writes(tmp_path):
    path = write_example(tmp_path / "example.csv")
    shipped = Path(example_runs().path)
    assert path.read_bytes() == shipped.read_bytes()
    assert write_example(tmp_path / "other.csv", seed=1).read_bytes() != path.read_bytes()


def test_the_example_is_the_model_step_by_step():
    log, p, q, P, Q, R, T0, E = example_runs(), *TRUTH.values()
    n, weight = modes()
    exact = []
    for N, B, K in zip(log.N, log.B, log.K.astype(int), strict=True):
        share = weight / (1.0 + np.sqrt(n / N))
        h, start, noise = Q * n**-q, P * n**-p, R / n
        up = round(0.01 * K)
        s = nqm.schedules.warmup(nqm.schedules.cosine(1.0, K - up), up)(np.arange(K))
        norm = 1.0 + (np.cumsum(s * s) - 0.5 * s * s) / T0
        adam = 1.0 + np.sum(share * noise) / np.sum(share * h * start) / B
        problem = nqm.NoisyQuadratic(h, noise, start / h, share)
        trained = nqm.risk(problem, nqm.SGD(nqm.Schedule(s / np.sqrt(norm * adam), 1)), B, K)
        exact.append(E + 0.5 * P * zeta(p) - problem.initial_risk + trained)
    np.testing.assert_allclose(true_losses(log.N, log.B, log.K), exact, rtol=4e-3)  # a run is cut into 25 pieces
    error = np.log(log.loss / exact)
    assert np.sort(np.abs(error))[-2] < 0.02  # all but one within four standard deviations
    assert error.max() == pytest.approx(math.log(1.15), abs=0.02)
    assert np.median(np.abs(error)) == pytest.approx(0.6745 * 0.005, rel=0.4)
