"""Jobs of an experiment: wrong arguments are refused before any work, and what fails is named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from job_toys import CONFIGURATION, SEEDS, called, columns_of, counted, failing, run, same

from nqm.validation.experiments.jobs import read_jobs


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"function": "toy"}, TypeError, "function: expected a function, got 'toy'"),
        ({"settings": []}, ValueError, "settings: expected a list of at least one dict"),
        ({"settings": (one for one in SEEDS)}, ValueError, "settings: expected a list of at least one dict"),
        ({"settings": SEEDS[0]}, ValueError, "settings: expected a list of at least one dict"),
        ({"settings": [*SEEDS, 3]}, TypeError, r"settings\[5\]: expected a dict of keyword arguments, got 3"),
        ({"settings": [*SEEDS, SEEDS[1]]}, ValueError, "each one once, got seed=1, name='toy' twice"),
        ({"settings": [{"seed": 1, "name": "a"}, {"name": "a", "seed": 1}]}, ValueError, "each one once"),
        ({"settings": [{"seed": {1}, "name": ""}]}, TypeError, r"settings\[0\]\['seed'\]: expected strings, numbers"),
        ({"settings": [{"seed": np.arange(2), "name": ""}]}, TypeError, r"settings\[0\]\['seed'\]: expected strings"),
        ({"settings": [{"seed": [{1: 2}], "name": ""}]}, TypeError, r"\['seed'\]\[0\]: expected names that are"),
        ({"settings": [{"seed": 1}]}, TypeError, r"settings\[0\]: expected the keyword arguments of .* 'name'"),
        ({"settings": [{**SEEDS[0], "sed": 1}]}, TypeError, r"settings\[0\]: expected the keyword arguments .* 'sed'"),
        ({"configuration": [1]}, TypeError, r"configuration: expected a dict, got \[1\]"),
        ({"configuration": {"a": {"b": print}}}, TypeError, r"configuration\['a'\]\['b'\]: expected strings"),
        ({"executor": ThreadPoolExecutor}, TypeError, "executor: expected a concurrent.futures.Executor"),
        ({"say": 1}, TypeError, "say: expected a function"),
        ({"results": 3}, TypeError, "results: expected the path of a file or None, got 3"),
    ],
)
def test_wrong_arguments(tmp_path, options, kind, said):
    calls = tmp_path / "calls"
    with pytest.raises(kind, match=said):
        run(**{"function": counted(calls), "results": tmp_path / "jobs.jsonl", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "jobs.jsonl", tmp_path / "file" / "deep" / "jobs.jsonl", tmp_path):
        with pytest.raises(ValueError, match="results: expected a file that can be written, got "):
            run(counted(tmp_path / "calls"), results=path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path):
    path = tmp_path / "jobs.jsonl"
    run(settings=SEEDS[:1], results=path)
    before = path.read_bytes()
    other = {**CONFIGURATION, "nested": {"a": 2}}
    with pytest.raises(ValueError, match=r"another configuration: nested\.a: expected 2, found 1; write to another "):
        run(counted(tmp_path / "calls"), configuration=other, results=path)
    assert path.read_bytes() == before
    assert called(tmp_path / "calls") == []


def test_a_file_of_another_kind_is_refused(tmp_path):
    saved = Path(__file__).parent / "saved" / "steps.jsonl"
    with pytest.raises(ValueError, match="line 1 is not the header of a results file; give another file or delete"):
        read_jobs(saved)


def test_two_writers_of_one_file(tmp_path):
    def again(seed, name):
        return run(results=path)[0]

    path = tmp_path / "jobs.jsonl"
    with pytest.raises(RuntimeError, match=r"seed=0, name='toy': RuntimeError: .* another run is writing this file"):
        run(again, results=path)


# Failures


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, "a"], "TypeError: value: expected numbers of at most 64 bits or strings"),
        ([1j], "TypeError: value: expected numbers"),
        ([None, 1.0], "TypeError: value: expected numbers"),
        (np.array([1.0], dtype=np.longdouble), "TypeError: value: expected numbers"),
        (np.array([2**63], dtype=np.uint64), "ValueError: value: expected integers below"),
        ([[1.0]], "ValueError: expected columns of equal length"),
        (1.0, "ValueError: expected columns of equal length"),
    ],
)
def test_columns_that_a_file_could_not_give_back(values, said):
    with pytest.raises(RuntimeError, match=rf"job failed: one=1: {said}"):
        run(lambda one: columns_of(values), [{"one": 1}])


@pytest.mark.parametrize("columns", [None, {}, {1: [2]}, [1.0]])
def test_what_is_no_columns(columns):
    with pytest.raises(RuntimeError, match="job failed: one=1: TypeError: expected columns by name"):
        run(lambda one: columns, [{"one": 1}])


def test_a_failure_here_names_its_settings_and_keeps_what_was_done(tmp_path):
    path = tmp_path / "jobs.jsonl"
    said = r"job failed: seed=2, name='toy': ZeroDivisionError: no luck; finished jobs are kept in "
    with pytest.raises(RuntimeError, match=said):
        run(failing, results=path)
    assert [settings["seed"] for settings, _ in read_jobs(path)[1]] == [0, 1]
    assert same(run(results=path), run())
