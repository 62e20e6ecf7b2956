"""The results file: what was written is read back, torn ends are repaired, other damage and other runs are refused."""

from __future__ import annotations

import copy
import json
import math

import pytest

from nqm.validation import Outcome, Trial
from nqm.validation.search.records import CONFIRMATION, Record, Results, read_results

METRICS = ("loss", "error")
CONFIGURATION = {
    "task": {"name": "toy", "targets": {"loss": 0.1, "error": 0.05}},
    "targets": [["loss", 0.1], ["error", 0.05]],
    "trials": 4,
    "optimizers": {"SGD": {"lr": {"low": 0.1, "limits": (0.0, math.inf)}}, "Adam": {"lr": {"low": 0.01}}},
}


def record(round_, index, first, size, *, batch=8, steps=(3.5, math.inf), status="overtaken"):
    trial = Trial("SGD", batch, 17, {"lr": 0.1 + index / 3})
    return Record(round_, index, first, size, Outcome(trial, status, dict(zip(METRICS, steps, strict=True)), 9))


BATCHES = [
    [record(1, 0, 0, 2), record(1, 1, 0, 2, steps=(math.inf, math.inf), status="diverged")],
    [record(1, 2, 2, 1)],
    [record(1, 0, 0, 1, batch=16)],
    [record(CONFIRMATION, 0, 0, 1)],
    [record(CONFIRMATION, 1, 1, 1)],
]
RECORDS = [entry for trials in BATCHES for entry in trials]


@pytest.fixture
def path(tmp_path):
    goal = tmp_path / "new" / "steps.jsonl"
    with Results(goal, CONFIGURATION) as results:
        for trials in BATCHES:
            results.append(trials)
    return goal


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def test_what_was_written_is_read_back(path):
    configuration, records = read_results(path)
    assert records == RECORDS
    assert configuration["trials"] == 4
    with Results(path, CONFIGURATION) as again:
        assert again.records == RECORDS
    assert read_results(path)[1] == RECORDS


def test_every_line_is_strict_json_with_infinity_as_text(path):
    def refuse(constant):
        raise AssertionError(f"not JSON: {constant}")

    parsed = [json.loads(line, parse_constant=refuse) for line in lines(path)]
    assert parsed[0]["configuration"]["optimizers"]["SGD"]["lr"]["limits"] == [0.0, "inf"]
    assert parsed[1]["steps"] == {"loss": 3.5, "error": "inf"}


def test_without_a_path_records_stay_in_memory():
    with Results(None, CONFIGURATION) as results:
        results.append(BATCHES[0])
    assert results.records == BATCHES[0]


def test_a_file_cut_anywhere_continues_after_its_last_whole_batch(path):
    whole = path.read_bytes()
    ends = [whole.index(b"\n") + 1 + shift for shift in (-1, 0, 1)]
    for cut in (*range(0, len(whole), 37), *ends, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with Results(path, CONFIGURATION) as results:
            kept = len(results.records)
            assert results.records == RECORDS[:kept]
            assert kept in (0, 2, 3, 4, 5)
            for trials in BATCHES:
                if trials[0] not in results.records:
                    results.append(trials)
        assert path.read_bytes() == whole


def test_reading_a_torn_file_changes_nothing(path):
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    assert read_results(path)[1] == RECORDS[:-1]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("number", "damage", "said"),
    [
        (2, lambda line: b"\x00" * 20 + b"\n", "line 2 is damaged"),
        (4, lambda line: line[:30] + b"\n", "line 4 is damaged"),
        (4, lambda line: b"[1]\n", "line 4 is damaged: expected an object with the keys optimizer, "),
        (4, lambda line: line.replace(b'"loss"', b'"lost"'), "line 4 is damaged: steps: expected those of loss, error"),
        (4, lambda line: line.replace(b"3.5", b'"many"'), "line 4 is damaged"),
        (4, lambda line: line.replace(b'"trained": 9', b'"trained": null'), "line 4 is damaged: trained: expected int"),
        (4, lambda line: line.replace(b"SGD", b"SGT"), "line 4 is damaged: optimizer: expected one of SGD, Adam"),
        (3, lambda line: b"", "line 3 is damaged: expected trial 1 of a heat"),
        (2, lambda line: b"", "line 2 is damaged: expected trial 0 of a heat, got 1"),
        (4, lambda line: line + line, "line 5 is damaged: expected trial 3 of this round, got 2"),
        (7, lambda line: line + line, "line 8 is damaged: expected trial 2 of this round, got 1"),
    ],
)
def test_any_other_damage_is_an_error_with_its_line(path, number, damage, said):
    parts = lines(path)
    parts[number - 1] = damage(parts[number - 1])
    path.write_bytes(b"".join(parts))
    for attempt in (lambda: Results(path, CONFIGURATION), lambda: read_results(path)):
        with pytest.raises(ValueError, match="backup, or delete it") as error:
            attempt()
        assert said in str(error.value)
        assert str(path) in str(error.value)
    assert path.read_bytes() == b"".join(parts)


def changed(**parts):
    return {**copy.deepcopy(CONFIGURATION), **parts}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(trials=8), "trials: expected 8, found 4"),
        (changed(task={"name": "toy", "targets": {"loss": 0.2, "error": 0.05}}), "task.targets.loss: expected 0.2"),
        (changed(targets=[["error", 0.05], ["loss", 0.1]]), 'targets: expected [["error", 0.05]'),
        (changed(rounds=2), "rounds: expected 2, found nothing"),
        (changed(optimizers={"SGD": {"lr": {"low": 0.2}}}), "optimizers.SGD.lr.low: expected 0.2, found 0.1"),
    ],
)
def test_another_configuration_is_refused_by_the_key_that_differs(path, other, said):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another configuration") as error:
        Results(path, other)
    assert said in str(error.value)
    assert "(--out) or delete" in str(error.value)
    assert path.read_bytes() == before


def test_spaces_of_optimizers_that_are_not_used_may_differ(path):
    other = changed(optimizers={**CONFIGURATION["optimizers"], "Adam": {}, "new": {}})
    with Results(path, other, ["SGD"]) as results:
        assert results.records == RECORDS
    with pytest.raises(ValueError, match=r"optimizers\.new: expected {}, found nothing"):
        Results(path, other, ["SGD", "new"])


@pytest.mark.parametrize("content", [b"steps\n1\n", b'{"a": 1}', b'{"nqm": 1}\n', b"[]\n", b"\xff\xfe\n"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    for attempt in (lambda: Results(path, CONFIGURATION), lambda: read_results(path)):
        with pytest.raises(ValueError, match="line 1 is not the header of a results file"):
            attempt()
    assert path.read_bytes() == content


def test_a_newer_format_is_refused(path):
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2', 1))
    with pytest.raises(ValueError, match="expected format 1, found 2"):
        read_results(path)


def test_two_writers_of_one_file(path):
    with Results(path, CONFIGURATION), pytest.raises(RuntimeError, match="another run is writing this file"):
        Results(path, CONFIGURATION)
    Results(path, CONFIGURATION).close()
