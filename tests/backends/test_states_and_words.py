"""Filters of any number of states, and words of several step maps: on all backends, from batches as they take them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cupy import COMPILER, FakeCupy
from reference import Rule, exact_filter_risks, filter_risk, step_matrix
from sizes import few_states, thorough

import nqm
from nqm.backends import cupy_backend, numba_backend, reference_backend
from nqm.backends.types import LANES, FilterBatch, Word


@pytest.fixture(params=["numba", "numpy", "cupy"])
def backend(request, monkeypatch):
    """The three backends; the third on a stand-in for a GPU."""
    if request.param == "cupy":
        if COMPILER is None:
            pytest.skip("no C++ compiler: the CUDA source cannot be compiled for the CPU")
        fake = FakeCupy()
        monkeypatch.setattr(cupy_backend, "_cupy", lambda: fake)
        monkeypatch.setattr(cupy_backend, "_kept", {})
        monkeypatch.setattr(cupy_backend, "namespace", lambda: np)
    return {"numba": numba_backend, "numpy": reference_backend, "cupy": cupy_backend}[request.param]


def batch_of(maps, h, c, init, lr, batch_size, lr_scaled=None, averaging=()):
    """A batch of one row per learning rate. maps: (transition, gain, query, readout, start), alike but for the first
    two; averaging: the weight of the average in each."""
    *_, query, readout, start = maps[0]
    k, rows = len(start), len(lr)

    def pairs(parts):
        high = np.array(parts, dtype=float)
        low = np.zeros_like(high)
        return np.repeat(np.stack([high, low], axis=1)[None], rows, axis=0)

    padding = (0, -len(h) % LANES)
    h, c, init = (np.asarray(x, dtype=float) for x in (h, c, init))
    return FilterBatch(
        np.pad(h, padding, mode="edge")[None], np.zeros(rows, dtype=np.int64), np.pad(0.5 * h * init, padding),
        np.pad(0.5 * c / h, padding), np.array(lr, dtype=float), pairs([m[0] for m in maps]),
        pairs([m[1] for m in maps]), pairs(averaging if len(averaging) else np.zeros(len(maps))),
        np.array(query, dtype=float), np.array(readout, dtype=float), tuple(map(float, start)),
        np.full(rows, 1.0 / batch_size),
        np.array(lr_scaled if lr_scaled else [0] * k, dtype=np.int64),
    )  # fmt: skip


def repeated(batch, count):
    return batch.part(np.zeros(count, dtype=np.int64))


def word_of(lr, repeat, maps=None, inverse_batch_size=None):
    """The risk is asked for after each letter."""
    count = len(lr)
    return Word(
        np.array(maps if maps is not None else np.zeros(count), dtype=np.int64), np.array(lr, dtype=float),
        np.ones(count) if inverse_batch_size is None else np.array(inverse_batch_size), np.array(repeat),
        np.arange(count),
    )  # fmt: skip


def random_filter(k, seed, radius):
    """Stable, with all parts at random."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(k, k))
    matrix *= radius / np.abs(np.linalg.eigvals(matrix)).max()
    return matrix, *rng.normal(size=(4, k))


def averages_of_averages(k):
    """Heavy-ball momentum, and k - 2 averages, each of the one before; the last one as backends write it."""
    transition, gain = np.zeros((k, k)), np.zeros(k)
    transition[:2, :2], gain[:2] = [[1.0, 0.9], [0.0, 0.9]], 1.0
    for i in range(2, k):
        decay = 1.0 - 0.5**i  # of what the states before are after the step
        row = 0 if i == 2 else i - 1
        transition[i], gain[i] = (1.0 - decay) * transition[row], (1.0 - decay) * gain[row]
        transition[i, i] += decay
    one, last = np.eye(k)[0], np.eye(k)[-1]
    return (transition, gain, one, last, np.array([1.0, 0.0, *[1.0] * (k - 2)])), 0.5 ** (k - 1)


H, C, INIT = np.array([1.0, 0.2, 0.03]), np.array([0.5, 0.1, 0.2]), np.array([1.0, 2.0, 0.5])
FILTERS = {f"random {k}": random_filter(k, k, 1.0 - 1e-5) for k in range(4, 9)}
FILTERS |= {f"averages {k}": averages_of_averages(k)[0] for k in (4, 6)}
SLOW = 1e-6  # learning rate at which random filters stay about as they are


def lr_of(name):
    return 0.3 if name.startswith("averages") else SLOW


@pytest.mark.parametrize("name", [thorough(name) for name in FILTERS])
def test_risk_is_exact(name, backend):
    """To 10^6 steps, against 60 digits."""
    parts, times = FILTERS[name], [0, 1, 2, 7, 100, 12_345, 10**6]
    risks = [exact_filter_risks(lr_of(name), parts, *node, 16.0, times) for node in zip(H, C, INIT, strict=True)]
    expected = [float(sum(column)) for column in zip(*risks, strict=True)]
    batch = repeated(batch_of([parts], H, C, INIT, [lr_of(name)], 16.0), len(times))
    np.testing.assert_allclose(backend.risk(batch, np.array(times)), expected, rtol=1e-12)


@pytest.mark.parametrize("k", few_states(4, 8))
def test_an_average_is_what_it_averages_and_a_row_more(k, backend):
    """The last state as an average of what the others read out, and written out."""
    parts, weight = averages_of_averages(k)
    transition, gain, query, _, start = parts
    last = np.eye(k)[-1]
    before = np.eye(k)[k - 2 if k > 3 else 0]
    short = transition.copy()
    short[-1] = (1.0 - weight) * last
    averaged = (short, gain * (1.0 - last), query, before, start)
    times = np.array([0, 1, 5, 300, 10**5])
    whole = repeated(batch_of([parts], H, C, INIT, [0.3], 16.0), times.size)
    parted = repeated(batch_of([averaged], H, C, INIT, [0.3], 16.0, averaging=[weight]), times.size)
    assert parted.averages
    np.testing.assert_allclose(backend.risk(parted, times), numba_backend.risk(whole, times), rtol=1e-12)
    word = word_of([1.0, 0.1, 0.5], [30, 100, 3000])
    found, expected = backend.risk_along(parted, word, 3), numba_backend.risk_along(whole, word, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(
        backend.dyadic_risk(parted.part(slice(1)), 20), numba_backend.dyadic_risk(whole.part(slice(1)), 20), rtol=1e-12
    )


@pytest.mark.parametrize("k", few_states(4, 8))
def test_steps_one_by_one(k, backend):
    """A naive recursion, at learning rates that matter."""
    parts = random_filter(k, 20 + k, 0.97)
    expected = filter_risk(0.01, parts, H, C, INIT, 4.0, 200)
    batch = repeated(batch_of([parts], H, C, INIT, [0.01], 4.0), 201)
    np.testing.assert_allclose(backend.risk(batch, np.arange(201)), expected, rtol=1e-12)


# --- first passages ----------------------------------------------------------------------------------------------


def scanned(risks, target, last):
    above = ~(np.asarray(risks) <= target)
    if last:
        return float(np.flatnonzero(above)[-1] + 1) if above.any() else 0.0
    return float(np.flatnonzero(~above)[0]) if not above.all() else np.inf


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("k", few_states(4, 8))
def test_first_passage_is_where_a_scan_says(k, last, backend):
    parts = random_filter(k, 40 + k, 0.99)
    batch, times = batch_of([parts], H, 1e-3 * C, INIT, [1e-3], 100.0), np.arange(2000)
    risks = numba_backend.risk(repeated(batch, times.size), times)
    targets = risks[[0, 3, 40, 200]] * 1.0001 if last else risks[[0, 3, 40, 200]] * 0.9999
    targets = np.maximum(targets, 1.01 * risks[-1])
    found = backend.first_passage(repeated(batch, targets.size), targets, last)
    np.testing.assert_array_equal(found, [scanned(risks, target, last) for target in targets])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("k", [1, *map(thorough, (2, 3, 8))])
def test_first_passage_along_a_word_is_where_a_scan_says(k, last, backend):
    """Short letters, long ones that begin with noise from earlier ones, and different maps."""
    maps = [random_filter(k, 60 + k, radius) for radius in (0.995, 0.99)]
    maps[1] = (*maps[1][:2], *maps[0][2:])
    batch = batch_of(maps, H, C, INIT, [1e-2], 1e3)
    word = word_of([1.0, 0.3, 0.6], [40, 400, 500], [0, 1, 0], [1.0, 0.1, 0.3])
    each = Word(*(np.repeat(part, word.repeat) for part in word))
    each = each._replace(repeat=np.ones_like(each.repeat), output_column=np.arange(1, each.repeat.size + 1))
    risks = numba_backend.risk_along(batch.in_units(1.0), each, each.repeat.size + 1)[0]
    risks[0] = numba_backend.risk(batch, np.array([0]))[0]
    for at in (0, 20, 100, 300, 700):
        target = max(1.0001 * risks[at], 1.01 * risks[-1])
        expected = scanned(risks[:-1], target, last)
        assert backend.first_passage_along(batch, word, 940, None, target, last) == expected, at


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", few_states(1, 2, 3, 8))
def test_gradients_of_words(k, backend):
    """By learning rates, batch sizes and a number that a map is linear in: central differences of the 32-digit risk."""
    maps = [random_filter(k, 80 + k, radius) for radius in (0.95, 0.9)]
    maps[1] = (*maps[1][:2], *maps[0][2:])
    change, span = 0.01 * np.random.default_rng(k).normal(size=(k, k)), 0.2
    word = word_of([1.0, 0.3, 0.6], [5, 40, 7], [0, 1, 0], [1.0, 0.1, 0.3])

    def at(value=0.0, lr=(1.0, 1.0, 1.0), inverse_batch_size=(1.0, 1.0, 1.0)):
        moved = [(a + value * change, *rest) for a, *rest in maps]
        scaled = word._replace(lr=word.lr * lr, inverse_batch_size=word.inverse_batch_size * inverse_batch_size)
        return batch_of(moved, H, C, INIT, [0.02], 16.0), scaled._replace(output_column=np.array([-1, -1, 0]))

    def risk(**settings):
        return reference_backend.risk_along(*at(**settings), 1)[0, 0]

    rows = [at(value)[0] for value in (0.0, 0.5 * span, -0.5 * span)]
    batch = rows[0]._replace(
        **{name: np.concatenate([getattr(row, name) for row in rows])
           for name in ("power_index", "lr", "transition", "gain", "averaging_weight", "inverse_batch_size")}
    )  # fmt: skip
    found = backend.risk_and_gradient(batch, word, np.array([span]))
    assert found.risk == pytest.approx(risk(), rel=1e-11)
    step, one = 1e-5, np.eye(3)
    for j in range(3):
        by_lr = (risk(lr=np.exp(step * one[j])) - risk(lr=np.exp(-step * one[j]))) / (2.0 * step)
        assert found.by_log_lr[j] == pytest.approx(by_lr, rel=1e-6, abs=1e-9 * found.risk)
        both = [risk(inverse_batch_size=np.exp(sign * step * one[j])) for sign in (1, -1)]
        assert found.by_log_inverse_batch_size[j] == pytest.approx(
            (both[0] - both[1]) / (2 * step), rel=1e-5, abs=1e-9 * found.risk
        )
    by_value = (risk(value=step) - risk(value=-step)) / (2.0 * step)
    assert found.by_value[0] == pytest.approx(by_value, rel=1e-6, abs=1e-9 * found.risk)


# --- words of different maps -------------------------------------------------------------------------------------


def sgd_maps(momenta, decays=None):
    """Step maps of SGD with these momenta and decays of an average, as optimizers make them; and its weights."""
    made = [
        (nqm.SGD(1.0, m) if decays is None else nqm.EMA(nqm.SGD(1.0, m), decays[i])).map_at().packed
        for i, m in enumerate(momenta)
    ]
    maps = [(f.transition[0], f.gain[0], f.query, f.readout, f.start) for f in made]
    return SimpleNamespace(
        maps=maps, weights=[f.averaging_weight[0] for f in made], lr_scaled=made[0].lr_scaled.tolist()
    )


def naive_risks(pieces):
    """Risks after each piece (rule, batch size, steps), step by step; torch's buffer is what goes on."""
    second = np.zeros((len(H), 3, 3))
    second[:, [0, 0, 2, 2], [0, 2, 0, 2]] = INIT[:, None]
    risks = []
    for rule, batch_size, steps in pieces:
        matrices, gains = zip(*(step_matrix(rule, float(h)) for h in H), strict=True)
        m, b = np.array(matrices), np.array(gains)
        for _ in range(steps):
            second = m @ second @ m.transpose(0, 2, 1) + b[:, :, None] * b[:, None, :] * (C / batch_size)[:, None, None]
        read = 0 if rule.decay is None else 2
        risks.append(0.5 * np.sum(H * second[:, read, read]))
    return risks


LETTERS = [(0.5, 1.0, 16.0, 30), (0.9, 0.3, 64.0, 200), (0.5, 1.9, 16.0, 7), (0.9, 1.2, 256.0, 300)]


@pytest.mark.parametrize("decays", [None, (0.9, 0.99)], ids=str)
def test_momentum_that_changes(decays, backend):
    """Learning rates up to where lr h > 1, and the coordinates of a momentum are others."""
    made = sgd_maps((0.5, 0.9), decays)
    index = [0 if momentum == 0.5 else 1 for momentum, *_ in LETTERS]
    pieces = [
        (Rule(lr, momentum, decay=None if decays is None else decays[i]), batch_size, steps)
        for (momentum, lr, batch_size, steps), i in zip(LETTERS, index, strict=True)
    ]
    batch = batch_of(made.maps, H, C, INIT, [1.0], 1.0, made.lr_scaled, made.weights if decays else ())
    word = word_of([p[1] for p in LETTERS], [p[3] for p in LETTERS], index, [1.0 / p[2] for p in LETTERS])
    np.testing.assert_allclose(backend.risk_along(batch.in_units(1.9), word, 4)[0], naive_risks(pieces), rtol=1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_first_passage_while_momentum_changes(last, backend):
    made = sgd_maps((0.5, 0.9), (0.9, 0.95))
    batch = batch_of(made.maps, H, C, INIT, [1.0], 1e4, made.lr_scaled, made.weights)
    pieces = [(Rule(0.3, 0.5, decay=0.9), 1), (Rule(0.1, 0.9, decay=0.95), 1)]
    each = [(rule, 1e4, 1) for (rule, _), count in zip(pieces, (100, 300), strict=True) for _ in range(count)]
    risks = [0.5 * np.sum(H * INIT), *naive_risks(each)[:-1]]
    word = word_of([0.3, 0.1], [100, 300], [0, 1])
    for at in (0, 10, 99, 150, 399):
        target = 1.0001 * risks[at]
        assert backend.first_passage_along(batch, word, 400, 0.9, target, last) == scanned(risks, target, last), at


def test_an_average_that_stands_still(backend):
    """A map of weight 0 leaves the average as it is; what is read is the average all the same."""
    made = sgd_maps((0.5, 0.5), (0.9, 0.9))
    frozen = made.maps[1][0].copy()
    frozen[2] = [0.0, 0.0, 1.0]
    maps = [made.maps[0], (frozen, *made.maps[1][1:])]
    batch = batch_of(maps, H, C, INIT, [1.0], 1e4, made.lr_scaled, [made.weights[0], 0.0])
    word = word_of([0.3, 0.3, 0.3], [50, 80, 20], [0, 1, 0])
    risks = backend.risk_along(batch.in_units(1.0), word, 3)[0]
    assert risks[0] == pytest.approx(risks[1], rel=1e-14)
    assert risks[2] != pytest.approx(risks[1], rel=1e-3)
    above = backend.first_passage_along(batch, word, 150, None, 0.999 * risks[0], False)
    assert 130 < above <= 150
    assert backend.first_passage_along(batch, word, 150, None, 1.001 * risks[0], True) <= 50


def test_a_letter_repeated_is_a_run(backend):
    """Constant runs are words of one letter, of whatever map."""
    maps = [random_filter(3, 3, radius) for radius in (0.9, 0.99)]
    maps[1] = (*maps[1][:2], *maps[0][2:])
    batch, alone = batch_of(maps, H, C, INIT, [1e-3], 16.0), batch_of(maps[1:], H, C, INIT, [1e-3], 16.0)
    found = backend.risk_along(batch.in_units(1.0), word_of([1.0], [1000], [1]), 1)[0]
    np.testing.assert_allclose(found, backend.risk(alone, np.array([1000])), rtol=1e-13)
    word = word_of([1.0], [1000], [1])
    np.testing.assert_array_equal(batch.letter(word, 0).transition, alone.transition)


def test_rules_are_what_the_batches_say():
    """The naive recursion at one piece is the package's own risk."""
    rule = Rule(0.3, 0.9, decay=0.99)
    risk = nqm.risk(nqm.NoisyQuadratic(H, C, INIT), nqm.EMA(nqm.SGD(0.3, 0.9), 0.99), 16.0, 100)
    assert naive_risks([(replace(rule), 16.0, 100)])[0] == pytest.approx(risk, rel=1e-12)
