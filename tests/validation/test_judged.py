"""Claims judged on tables made from a law whose truth is known: the numbers by hand, the verdicts by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from nqm.validation.measurement.prediction import Predicted
from nqm.validation.papers.zhang2019.claims import CLAIMS, judge
from nqm.validation.papers.zhang2019.spectra import judge_spectra
from nqm.validation.search.summary import Measured

SIZES = 4.0 * 2.0 ** np.arange(9)
TEXTS = [claim.text for claim in CLAIMS]
LAW = {
    # steps S (1 + Bc / B): S and Bc
    "SGD": (200.0, 30.0),
    "momentum": (40.0, 150.0),
    "SGD with EMA": (200.0, 20.0),
    "Adam without momentum": (50.0, 60.0),
    "Adam": (20.0, 240.0),
    "K-FAC": (40.0, 70.0),
    "K-FAC with momentum": (16.0, 300.0),
}
WIDE = float(student.ppf(0.975, 4))  # standard errors in half an interval, of five finals
FLAT, EDGE = 1.0, 64.0  # the best rate of SGD grows up to the second, where it is the first


def steps_of(name, size, law):
    fewest, critical = law[name]
    return fewest * (1.0 + critical / size)


def critical_of(name, law):
    """Examples are fewest at the smallest batch size of all, steps at the largest."""
    return steps_of(name, SIZES[0], law) * SIZES[0] / steps_of(name, SIZES[-1], law)


def rate_of(name):
    """SGD's is linear in the batch size up to EDGE, momentum's all the way."""
    return FLAT * (SIZES if name == "momentum" else np.minimum(SIZES, EDGE)) / EDGE


def table(law=LAW, error=0.005, rates=rate_of, missing=()):
    """As it is measured; missing: cells (optimizer, batch size) whose finals did not arrive."""
    cells = [(name, size) for name in law for size in SIZES]
    steps = np.array([steps_of(*cell, law) for cell in cells])
    gone = np.array([cell in missing for cell in cells])
    columns = {
        "optimizer": np.array([name for name, _ in cells]),
        "batch_size": np.array([int(size) for _, size in cells]),
        "metric": np.full(len(cells), "training loss"),
        "finals": np.where(gone, 0, 5),
        "median": np.where(gone, np.nan, steps),
        "error": np.where(gone, np.nan, error),
        "effective_lr": np.where(gone, np.nan, np.concatenate([rates(name) for name in law])),
    }
    return Measured(columns, {"targets": [["training loss", 0.1]]})


def model(law=LAW, rates=rate_of):
    """As it is predicted."""
    measured = table(law, rates=rates).table
    columns = {"optimizer": measured["optimizer"], "batch_size": measured["batch_size"].astype(float)}
    columns |= {"steps": measured["median"], "examples": measured["median"] * measured["batch_size"]}
    return Predicted({**columns, "effective_lr": measured["effective_lr"]}, 0.1)


def judged(measured, predicted=None):
    """Each claim's row, by how its text begins."""
    columns = judge({"net": (measured, predicted)})
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {row[0]: dict(zip(columns, row, strict=True)) for row in rows}


def row_of(rows, beginning):
    (text,) = (text for text in rows if text.startswith(beginning))
    return rows[text]


def saving(slow, quick, sizes, law=LAW):
    return np.exp(np.mean([math.log(steps_of(slow, size, law) / steps_of(quick, size, law)) for size in sizes]))


LAST = SIZES[-1:]
EXPECTED = {  # number, standard error of its logarithm in errors of a cell, verdict
    "Below plain SGD's critical": (saving("SGD", "momentum", SIZES[:3]), math.sqrt(6) / 3, "holds"),
    "Beyond it momentum does": (saving("SGD", "momentum", LAST), math.sqrt(2), "holds"),
    "Momentum raises the critical": (critical_of("momentum", LAW) / critical_of("SGD", LAW), 2, "holds"),
    "Preconditioning raises it further: Adam": (critical_of("Adam", LAW) / critical_of("momentum", LAW), 2, "holds"),
    "Preconditioning raises it further: K-FAC": (
        critical_of("K-FAC with momentum", LAW) / critical_of("momentum", LAW), 2, "holds",
    ),
    "Preconditioning helps at small batches: Adam": (saving("SGD", "Adam without momentum", SIZES[:2]), 1, "holds"),
    "Preconditioning helps at small batches: K-FAC": (saving("SGD", "K-FAC", SIZES[:2]), 1, "holds"),
    "Momentum's benefit shrinks with preconditioning: Adam": (
        saving("SGD", "momentum", LAST) / saving("Adam without momentum", "Adam", LAST), 2, "holds",
    ),
    "Momentum's benefit shrinks with preconditioning: K-FAC": (
        saving("SGD", "momentum", LAST) / saving("K-FAC", "K-FAC with momentum", LAST), 2, "holds",
    ),
    "EMA saves steps": (saving("SGD", "SGD with EMA", SIZES[:2]), 1, "holds"),
    "EMA lowers": (critical_of("SGD with EMA", LAW) / critical_of("SGD", LAW), 2, "holds"),
    "The best learning rate": (1.0, 0, "holds"),
    "Then it levels off": (0.0, 0, "holds"),
    "Momentum's effective": (1024 / EDGE, None, "holds"),
    "Their rates part": (128 / 16, None, "does not hold"),  # rates above 1.5 from 128 on, steps above 1.25 from 16 on
}  # fmt: skip


def test_every_claim_is_here():
    rows = judged(table())
    assert list(rows) == TEXTS
    assert [row_of(rows, beginning)["claim"] for beginning in EXPECTED] == TEXTS


@pytest.mark.parametrize("beginning", EXPECTED)
def test_numbers_by_hand(beginning):
    value, errors, verdict = EXPECTED[beginning]
    row = row_of(judged(table(), model()), beginning)
    assert row["value"] == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert row["model"] == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert row["verdict"] == verdict
    if errors is not None:
        width = math.exp(WIDE * 0.005 * errors)
        slope = errors == 0
        assert row["low"] == pytest.approx(value if slope else value / width, abs=1e-9)
        assert row["high"] == pytest.approx(value if slope else value * width, abs=1e-9)


def test_the_models_number_is_the_models():
    other = {**LAW, "momentum": (100.0, 60.0)}
    row = row_of(judged(table(), model(other)), "Beyond it momentum")
    assert row["value"] == pytest.approx(saving("SGD", "momentum", LAST))
    assert row["model"] == pytest.approx(saving("SGD", "momentum", LAST, other))
    assert all(math.isnan(row["model"]) for row in judged(table()).values())
    fewer = model({"SGD": LAW["SGD"]})
    known = [row["claim"] for row in judged(table(), fewer).values() if not math.isnan(row["model"])]
    assert known == [claim.text for claim in CLAIMS if claim.needs == ("SGD",)]


# The law turned round, so that each claim is wrong: (optimizer, its S and Bc)
WRONG = {
    "Below plain SGD's critical": ("momentum", (20.0, 100.0)),
    "Beyond it momentum does": ("momentum", (190.0, 30.0)),
    "Momentum raises the critical": ("momentum", (190.0, 15.0)),
    "Preconditioning raises it further: Adam": ("Adam", (20.0, 100.0)),
    "Preconditioning raises it further: K-FAC": ("K-FAC with momentum", (16.0, 100.0)),
    "Preconditioning helps at small batches: Adam": ("Adam without momentum", (250.0, 30.0)),
    "Preconditioning helps at small batches: K-FAC": ("K-FAC", (250.0, 30.0)),
    "Momentum's benefit shrinks with preconditioning: Adam": ("Adam", (2.0, 240.0)),
    "Momentum's benefit shrinks with preconditioning: K-FAC": ("K-FAC with momentum", (2.0, 300.0)),
    "EMA saves steps": ("SGD with EMA", (250.0, 30.0)),
    "EMA lowers": ("SGD with EMA", (150.0, 40.0)),
}


@pytest.mark.parametrize("beginning", WRONG)
def test_what_is_wrong_does_not_hold_and_noise_leaves_it_open(beginning):
    name, law = WRONG[beginning]
    assert row_of(judged(table({**LAW, name: law})), beginning)["verdict"] == "does not hold"
    for truth in (LAW, {**LAW, name: law}):
        row = row_of(judged(table(truth, error=3.0)), beginning)
        assert row["verdict"] == "undecided"
        assert row["low"] < row["bound"] < row["high"]


@pytest.mark.parametrize(("error", "verdict"), [(0.9, "holds"), (1.1, "undecided")])
def test_the_interval_decides(error, verdict):
    """Of the ratio of two critical batch sizes, whose error is that of four cells."""
    ratio = critical_of("momentum", LAW) / critical_of("SGD", LAW)
    rows = judged(table(error=error * math.log(ratio) / (2.0 * WIDE)))
    assert row_of(rows, "Momentum raises the critical")["verdict"] == verdict


@pytest.mark.parametrize("trained", [("SGD",), ("SGD", "momentum"), ("momentum", "Adam"), ("K-FAC",)])
def test_claims_about_what_was_not_trained_are_left_out(trained):
    rows = judged(table({name: LAW[name] for name in trained}))
    assert list(rows) == [claim.text for claim in CLAIMS if set(claim.needs) <= set(trained)]


def test_every_network_is_judged_for_itself():
    wrong = {**LAW, "momentum": WRONG["Beyond it momentum does"][1]}
    columns = judge({"one": (table(), None), "two": (table(wrong), model()), "three": (table({"SGD": (9, 9)}), None)})
    here = np.char.startswith(columns["claim"], "Beyond it momentum")
    assert columns["net"][here].tolist() == ["one", "two"]
    assert columns["verdict"][here].tolist() == ["holds", "does not hold"]
    assert set(columns["net"][columns["claim"] == TEXTS[11]]) == {"one", "two", "three"}


# --- cells that did not arrive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", range(3))
@pytest.mark.parametrize("name", LAW)
def test_an_optimizer_that_hardly_ever_arrives_decides_little(name, left):
    """Where it never does nothing is decided; one batch size gives no critical one, two give no slope."""
    missing = {(name, size) for size in SIZES[: SIZES.size - left]}
    for row in judged(table(missing=missing), model()).values():
        claim = next(claim for claim in CLAIMS if claim.text == row["claim"])
        if name not in claim.needs:
            assert row["verdict"] == row_of(judged(table()), row["claim"])["verdict"]
        elif left == 0 or (left == 1 and "critical batch size of" in claim.number) or claim.slope:
            assert row["verdict"] == "undecided", claim.text
        if left == 0 and name in claim.needs:
            assert math.isnan(row["value"])
            assert not math.isnan(row["model"])


def test_nothing_in_common_is_undecided():
    missing = {("SGD", size) for size in SIZES[:5]} | {("momentum", size) for size in SIZES[5:]}
    for row in judged(table(missing=missing)).values():
        if {"SGD", "momentum"} <= set(next(claim for claim in CLAIMS if claim.text == row["claim"]).needs):
            assert (row["verdict"], math.isnan(row["value"])) == ("undecided", True)


@pytest.mark.parametrize("name", ["SGD", "momentum"])
def test_optimizers_are_compared_at_the_same_batch_size(name):
    """The largest at which both have arrived; not each at its own."""
    rows = judged(table(missing={(name, 1024.0), (name, 512.0)}))
    assert row_of(rows, "Beyond it")["value"] == pytest.approx(saving("SGD", "momentum", SIZES[6:7]))
    assert row_of(rows, "Momentum's effective")["value"] == pytest.approx(256 / EDGE)
    cheap, short = SIZES[0], SIZES[6]
    criticals = [
        steps_of(name, cheap, LAW) * cheap / steps_of(name, short, LAW) for name in ("momentum", "SGD")
    ]  # fmt: skip
    assert row_of(rows, "Momentum raises")["value"] == pytest.approx(criticals[0] / criticals[1])


def test_a_cell_with_one_final_has_no_error_and_is_left_out():
    measured = table()
    error = measured.table["error"].copy()
    error[(measured.table["optimizer"] == "momentum") & (measured.table["batch_size"] == 1024)] = math.nan
    rows = judged(Measured({**measured.table, "error": error}, measured.configuration))
    assert row_of(rows, "Beyond it")["value"] == pytest.approx(saving("SGD", "momentum", SIZES[7:8]))


def test_predicted_steps_out_of_reach_are_left_out():
    predicted = model()
    steps = predicted.table["steps"].copy()
    steps[(predicted.table["optimizer"] == "SGD") & (predicted.table["batch_size"] == 1024)] = math.inf
    rows = judged(table(), Predicted({**predicted.table, "steps": steps}, 0.1))
    assert row_of(rows, "Beyond it")["model"] == pytest.approx(saving("SGD", "momentum", SIZES[7:8]))


# --- rates ------------------------------------------------------------------------------------------------------------


def rates_of(slope_before, slope_after, knee=32.0):
    return lambda name: (SIZES / knee) ** np.where(knee >= SIZES, slope_before, slope_after)


@pytest.mark.parametrize(
    ("slopes", "verdicts"),
    [
        ((1.0, 0.0), ("holds", "holds")),
        ((0.75 + 1e-6, 0.25 - 1e-6), ("holds", "holds")),
        ((0.3, 0.9), ("does not hold", "does not hold")),
        ((-1.0, -1.0), ("does not hold", "holds")),
    ],
)
def test_slopes(slopes, verdicts):
    """SGD's critical batch size is 33: slopes are of 4, 8 and 16, and of 128 to 1024."""
    rows = judged(table(rates=rates_of(*slopes)), model(rates=rates_of(*slopes)))
    for beginning, slope, verdict in zip(("The best learning", "Then it levels"), slopes, verdicts, strict=True):
        row = row_of(rows, beginning)
        assert row["value"] == pytest.approx(slope, abs=1e-9)
        assert row["model"] == pytest.approx(slope, abs=1e-9)
        assert (row["bound"], row["verdict"]) == (0.75 if beginning == "The best learning" else 0.25, verdict)


def test_slopes_of_scattered_rates_are_least_squares():
    luck = np.random.default_rng(0).normal(0.0, 0.3, SIZES.size)
    rows = judged(table(rates=lambda name: np.exp(luck) * SIZES))
    row = row_of(rows, "Then it levels off")
    x, y = np.log(SIZES[5:]), (np.log(SIZES) + luck)[5:]
    design = np.stack([np.ones(4), x], axis=1)
    (_, slope), (rest,), *_ = np.linalg.lstsq(design, y, rcond=None)
    error = math.sqrt(rest / 2 * np.linalg.inv(design.T @ design)[1, 1])
    wide = student.ppf(0.975, 2)
    assert row["value"] == pytest.approx(slope)
    assert (row["low"], row["high"]) == pytest.approx((slope - wide * error, slope + wide * error))


@pytest.mark.parametrize(
    ("part", "near"),
    [(4, False), (8, True), (16, True), (32, True), (64, False), (256, False)],
)
def test_where_rates_part(part, near):
    """The law's steps part from 16 on. At most 2 apart, either way."""
    row = row_of(judged(table(rates=lambda n: np.where((n == "momentum") & (part <= SIZES), 2.0, 1.0))), "Their rates")
    assert row["verdict"] == ("holds" if near else "does not hold")
    assert row["value"] == max(part / 16, 16 / part)


@pytest.mark.parametrize(
    "momentum", [np.ones(9), np.array([1, 1, 1, 9, 9, 9, 9, 9, 1.0])], ids=["never", "not at the largest"]
)
def test_rates_that_never_part(momentum):
    """Though steps do; where those never do either, there is nothing to judge."""

    def rates(name):
        return momentum if name == "momentum" else np.ones(9)

    row = row_of(judged(table(rates=rates)), "Their rates")
    assert (row["verdict"], row["value"]) == ("does not hold", math.inf)
    row = row_of(judged(table({**LAW, "momentum": LAW["SGD"]}, rates=rates)), "Their rates")
    assert (row["verdict"], math.isnan(row["value"])) == ("undecided", True)


def test_a_lucky_cell_does_not_part_the_rates():
    rates = np.array([9, 9, 1, 1, 9, 9, 9, 9, 9.0])  # 9 times at 4 and 8, but for good from 64 on
    row = row_of(judged(table(rates=lambda name: rates if name == "momentum" else np.ones(9))), "Their rates")
    assert row["value"] == 64 / 16


def test_each_target_is_judged_by_its_own_steps():
    """Momentum saves steps to the one target and not to the other, whose steps are plain SGD's."""
    one, law = table(), {**LAW, "momentum": LAW["SGD"]}
    other = {**table(law).table, "metric": np.full(one.table.rows, "held-out error")}
    both = {name: np.concatenate([column, other[name]]) for name, column in one.table.items()}
    measured = Measured(both, {"targets": [["training loss", 0.1], ["held-out error", 0.05]]})
    found = judge({"net": (measured, None)}).select(claim="Beyond it momentum does (4.1)")
    assert found["metric"].tolist() == ["training loss", "held-out error"]
    assert found["verdict"].tolist() == ["holds", "does not hold"]
    single = judge({"a": (measured, None), "b": (one, None)})
    assert set(single["metric"].tolist()) == {"training loss"}  # what all networks have


def spectra(largest=1.0, bulk=1.0, noise=1.0, exponent=1.0):
    """A spectrum of 101 at steps 200 and 1000, where its ten largest and the others are so many times larger."""
    h = 1.0 / np.arange(1.0, 102.0)
    later = h * np.where(np.arange(101) < 10, largest, bulk)
    at = {
        "step": np.repeat([0, 200, 1000], 101),
        "index": np.tile(np.arange(1, 102), 3),
        "curvature": np.concatenate([7.0 * h, h, later]),
    }
    return at, {"curvature": h, "variance": noise * h}, {"exponent": np.full(101, exponent)}


@pytest.mark.parametrize(
    ("changes", "values", "verdicts"),
    [
        ({}, [1.0, 1.0, 1.0, 0.0], "hhhh"),
        ({"largest": 4.0}, [4.0, 1.0, 1.0, 0.0], "nhhh"),
        ({"bulk": 0.5}, [1.0, 2.0, 1.0, 0.0], "hnhh"),
        ({"noise": 0.4}, [1.0, 1.0, 2.5, 0.0], "hhnh"),
        ({"exponent": 0.8}, [1.0, 1.0, 1.0, 0.2], "hhhn"),
    ],
)
def test_spectra_by_construction(changes, values, verdicts):
    found = judge_spectra({"net": spectra(**changes)})
    np.testing.assert_allclose(found["value"], values, rtol=1e-12, atol=1e-12)
    assert found["verdict"].tolist() == [{"h": "holds", "n": "does not hold"}[word] for word in verdicts]


def test_without_the_step_from_which_spectra_should_stay_nothing_is_decided():
    at, variance, law = spectra()
    early = {name: column[:101] for name, column in at.items()}
    found = judge_spectra({"net": (early, variance, law)})
    assert found["verdict"].tolist() == ["undecided", "undecided", "holds", "holds"]
