"""Jobs of an experiment: what was returned comes back to the bit, from memory or file, after any interruption."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from job_toys import CONFIGURATION, SEEDS, called, columns_of, counted, interrupted, run, same, toy

from nqm.validation.experiments.jobs import read_jobs, seconds_of


@pytest.fixture(scope="module")
def tables():
    return run()


# What comes back


def test_columns_are_those_of_the_function_in_the_order_of_the_settings(tables):
    assert len(tables) == 5
    for table, one in zip(tables, SEEDS, strict=True):
        for name, column in toy(**one).items():
            np.testing.assert_array_equal(table[name], column)
    assert [column.dtype.kind for column in tables[0].values()] == ["i", "f", "U", "b"]
    same(run(settings=SEEDS[::-1]), tables[::-1])


def test_a_file_gives_the_same_bits_back_without_running(tmp_path, tables):
    path = tmp_path / "new" / "jobs.jsonl"
    assert same(run(results=path), tables)
    before = path.read_bytes()
    assert same(run(counted(tmp_path / "calls"), results=path), tables)
    assert called(tmp_path / "calls") == []
    assert path.read_bytes() == before
    configuration, jobs = read_jobs(path)
    assert configuration == {**CONFIGURATION, "limits": [0.0, "inf"]}
    assert [settings for settings, _ in jobs] == SEEDS
    assert same([table for _, table in jobs], tables)


def test_seconds_are_those_of_the_jobs_that_are_asked_for(tmp_path):
    run(results=tmp_path / "jobs.jsonl")
    took = [json.loads(line)["seconds"] for line in (tmp_path / "jobs.jsonl").read_text().splitlines()[1:]]
    assert seconds_of(tmp_path / "jobs.jsonl", SEEDS[:2]) == sum(took[:2])
    assert min(took) > 0.0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 1 / 3, 5e-324, -0.0, 1.7976931348623157e308], "f"),
        ([math.nan, math.inf, -math.inf], "f"),
        ([math.inf], "f"),
        (["inf", "nan", "-inf"], "U"),
        (["", 'a "quoted" line\n', "Ω"], "U"),
        ([3, -(2**63), 2**63 - 1], "i"),
        (np.array([1, 2], dtype=np.uint8), "i"),
        (np.array([0.1, 2.5], dtype=np.float32), "f"),
        ([1.0, 2.0], "f"),
        ([True, False], "b"),
        (np.array([], dtype=int), "i"),
        (np.array([], dtype=str), "U"),
        (torch.linspace(0.0, 1.0, 3), "f"),
    ],
)
def test_values_of_any_type_come_back(tmp_path, values, kind):
    path = tmp_path / "jobs.jsonl"
    (fresh,) = run(lambda one: columns_of(values), [{"one": 1}], results=path)
    ((_, again),) = read_jobs(path)[1]
    assert same([again], [fresh])
    assert fresh["value"].dtype.kind == kind
    np.testing.assert_array_equal(fresh["value"], np.asarray(values))
    if kind == "f":
        np.testing.assert_array_equal(np.signbit(fresh["value"]), np.signbit(np.asarray(values)))


def test_lines_are_strict_json(tmp_path):
    def refuse(constant):
        raise AssertionError(f"not JSON: {constant}")

    path = tmp_path / "jobs.jsonl"
    run(settings=SEEDS[:1], results=path)
    header, line = (json.loads(text, parse_constant=refuse) for text in path.read_text().splitlines())
    assert header == {"nqm": "jobs of an experiment", "format": 1, "configuration": read_jobs(path)[0]}
    assert list(line) == ["settings", "columns", "seconds"]
    assert line["settings"] == SEEDS[0]
    assert line["columns"]["step"] == {"int": [0, 1, 2]}
    assert line["columns"]["loss"]["float"][2] == "nan"
    assert line["seconds"] >= 0.0


def test_settings_are_compared_as_the_file_has_them(tmp_path):
    path = tmp_path / "jobs.jsonl"
    settings = [{"values": (1, 2)}, {"values": [1.0, 2.0]}, {"values": [True, False]}, {"values": [math.inf, -0.0]}]
    fresh = run(columns_of, settings, results=path)
    assert [table["value"].dtype.kind for table in fresh] == ["i", "f", "b", "f"]
    again = [{"values": [1, 2]}, *settings[1:3], {"values": [math.inf, np.float64(-0.0)]}]
    before = path.read_bytes()
    assert same(run(columns_of, again, results=path), fresh)
    assert path.read_bytes() == before


def test_more_settings_extend_a_file_and_others_stay(tmp_path, tables):
    path, calls = tmp_path / "jobs.jsonl", tmp_path / "calls"
    run(counted(calls), SEEDS[:3], results=path)
    assert same(run(counted(calls), SEEDS[:0:-1], results=path), tables[:0:-1])
    assert called(calls) == [0, 1, 2, 4, 3]
    assert len(read_jobs(path)[1]) == 5


# Going on


def test_a_process_killed_midway_loses_only_what_it_was_at(tmp_path, tables):
    path, calls = tmp_path / "jobs.jsonl", tmp_path / "calls"
    script = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from functools import partial; import job_toys
        job_toys.run(partial(job_toys.killed, calls={str(calls)!r}), results={str(path)!r})"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(read_jobs(path)[1]) == 3
    assert same(run(counted(calls), results=path), tables)
    assert called(calls) == [0, 1, 2, 3, 4]


def test_a_file_cut_anywhere_goes_on(tmp_path, tables):
    path, calls = tmp_path / "jobs.jsonl", tmp_path / "calls"
    run(results=path)
    whole = path.read_bytes()
    ends = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])
    for cut in (*range(0, len(whole), 199), *ends - 1, *ends):
        path.write_bytes(whole[:cut])
        calls.write_text("")
        assert same(run(counted(calls), results=path), tables)
        assert called(calls) == list(range(max(0, np.searchsorted(ends, cut, side="right") - 1), 5))
        assert len(read_jobs(path)[1]) == 5


def test_an_interruption_says_how_to_go_on(tmp_path, tables):
    path = tmp_path / "jobs.jsonl"
    with pytest.raises(KeyboardInterrupt, match=r"3 jobs are kept in .*: the same command goes on"):
        run(interrupted, results=path)
    assert same(run(results=path), tables)
    with pytest.raises(KeyboardInterrupt, match="give a results file"):
        run(interrupted)


def test_a_job_that_is_there_twice_counts_once(tmp_path, tables):
    path = tmp_path / "jobs.jsonl"
    run(results=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    assert same(run(results=path), tables)
    assert len(read_jobs(path)[1]) == 5


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"seconds"', '"second"', "expected an object with the keys settings, columns, seconds"),
        ('"int": [0', '"int": ["0"', "columns.step: expected values of type int"),
        ('"float"', '"double"', "columns.loss: expected values of one of bool, int, float, str"),
        ('"int": [0, ', '"int": [', "expected columns of equal length"),
        ("{", "[", "line 3 is damaged"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, old, new, said):
    path = tmp_path / "jobs.jsonl"
    run(results=path)
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new, 1)
    path.write_text("".join(lines))
    for attempt in (partial(run, results=path), partial(read_jobs, path)):
        with pytest.raises(ValueError, match="line 3 is damaged") as error:
            attempt()
        assert said in str(error.value)
    assert path.read_text() == "".join(lines)


# What is shown


def test_progress_is_shown_on_stderr_alone(capsys, tmp_path):
    run(settings=SEEDS[:2], results=tmp_path / "jobs.jsonl")
    assert capsys.readouterr().err == ""
    run(results=tmp_path / "jobs.jsonl", progress=True)
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert "5/5" in shown.err
    assert "job/s" in shown.err
    assert shown.out == ""


def test_lines_say_what_is_done_and_how_long_the_rest_takes(tmp_path):
    lines = []
    run(settings=SEEDS[:2], results=tmp_path / "jobs.jsonl")
    run(results=tmp_path / "jobs.jsonl", say=lines.append)
    assert [line[:33] for line in lines] == [f"{n + 1} of 5 jobs: seed={n}, name='toy': " for n in range(2, 5)]
    assert lines[-1].endswith(" s; time left: 00:00")
