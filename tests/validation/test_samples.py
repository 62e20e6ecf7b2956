"""Numbers of seeds, their means, and verdicts that two things are alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nqm.validation.experiments.samples import MEAN, Row, by_seed, means, paired, read_samples, table_of
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED, judge_claim, judge_within, mean_interval

ROWS = [Row("net", "loss", name, 1.0, seed, value) for name, seed, value in
        (("a", 1, 2.0), ("b", 1, 5.0), ("a", 2, 4.0), ("b", 3, 7.0))]  # fmt: skip
COURSE = [Row("net", "course", "a", float(x), seed, x * seed) for seed in (1, 3) for x in range(2)]


def test_samples_come_with_their_means():
    table = table_of(ROWS, COURSE)
    assert by_seed(table, quantity="loss", series="a") == {1: 2.0, 2: 4.0}
    mean = means(table, quantity="loss", series="a")
    assert (mean.rows, mean["value"][0], mean["seeds"][0]) == (1, 3.0, 2)
    assert mean["error"][0] == pytest.approx(1.0)  # sqrt(2) / sqrt(2)
    assert table.select(quantity="course")["seed"].tolist() == [MEAN, MEAN]
    assert means(table, quantity="course")["value"].tolist() == [0.0, 2.0]


def test_a_file_gives_the_same_bits_back(tmp_path):
    table = table_of([*ROWS, Row("", "loss", "0.05", 1 / 3, 9, math.nan)], COURSE)
    found = read_samples(table.to_csv(tmp_path / "samples.csv"))
    for name, column in table.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype.kind == column.dtype.kind


def test_a_run_that_has_diverged_leaves_no_mean():
    table = table_of([*ROWS, Row("net", "loss", "a", 1.0, 9, math.nan)])
    assert math.isnan(means(table, series="a")["value"][0])
    assert math.isnan(by_seed(table, series="a")[9])


def test_one_number_of_each_seed_or_an_error():
    table = table_of(ROWS, COURSE)
    for conditions in ({"quantity": "none"}, {"quantity": "loss"}, {"quantity": "course"}):
        with pytest.raises(ValueError, match="one number of each seed"):
            by_seed(table, **conditions)


def test_pairs_are_of_seeds_that_both_have():
    first, second = (by_seed(table_of(ROWS), series=name) for name in "ab")
    assert paired(first, second).tolist() == [-3.0]
    assert paired(second, first, lambda a, b: a / b).tolist() == [2.5]
    assert paired(first, {}).size == 0


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.0, HOLDS), (0.7, HOLDS), (-0.7, HOLDS), (0.9, UNDECIDED), (1.3, FAILS), (-1.3, FAILS)]
)
def test_two_are_alike_where_the_whole_interval_is_within(mean, expected):
    samples = mean + 0.2 * np.array([-1.0, 0.0, 0.0, 1.0])  # half an interval: 0.26
    found = judge_within("claim", "number", samples, 1.0, paper="p", model="m")
    assert found.verdict == expected
    assert (found.value, found.low, found.high) == pytest.approx(mean_interval(samples))
    assert (found.bound, found.paper, found.model) == (1.0, "p", "m")
    assert (found.side, found.seeds) == ("within", 4)
    assert judge_within("claim", "number", samples, 1.0, premise=False).verdict == CANNOT


@pytest.mark.parametrize("samples", [[math.nan, 0.0, 0.1], [0.0], []])
def test_an_unknown_interval_decides_nothing(samples):
    assert judge_within("claim", "number", samples, 1.0).verdict == UNDECIDED
    assert judge_claim("claim", "number", samples).verdict == UNDECIDED
