"""Fits of the noisy quadratic to loss curves: the model against a plain recursion, recovery, coverage, real curves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from real_logs import read_curve, real_logs
from scipy.special import loggamma

import nqm
from nqm import schedules
from nqm.problems.quadrature import index_rule
from nqm.scaling.fits import curve_residuals
from nqm.scaling.fits import fit_curves as curves
from nqm.scaling.fits.fit_curves import CurvesFit, fit_curves
from nqm.scaling.logs import LossCurve
from nqm.scaling.models import loss_curve_model
from nqm.scaling.models.loss_curve_model import NAMES, CurveLosses, loss_after, natural_parameters
from nqm.scaling.models.modes import LAST, Pieces, modes

MARKS = {"25M": 0.0027, "100M": 0.0037, "400M": 0.0038}  # multi-power law, published, over the test curves given
TRAINING = ("cosine_24000", "constant_24000", "wsdcon_9")
TESTS = ("constant_72000", "wsd_20000_24000", "wsdcon_18")
TRUTH = np.array([2.5, *np.log([0.25, 0.5, 0.05, 0.3, 2.5])])  # E, A, a, Q, R, kappa times the longest curve's steps
TOTAL = 6000.0
PEAK = 3e-4


def shapes(steps=6000, peak=PEAK, up=300):
    rest = steps - up
    return {
        "cosine": schedules.warmup(schedules.cosine(peak, rest, 0.1), up),
        "constant": schedules.warmup(schedules.constant(peak, rest), up),
        "drop": schedules.warmup(
            schedules.constant(peak, rest // 3).then(schedules.constant(0.3 * peak, rest)), up
        ).cut(steps),
    }


def true_loss(schedule, steps, theta=TRUTH, total=TOTAL, peak=PEAK, batch=1.0):
    lr = np.repeat(schedule.values, schedule.lengths)[: int(steps[-1])] / peak
    return CurveLosses([(lr, steps, batch)], total).jacobian(theta)[0]


def synthetic(seed=0, noise=5e-4, every=150, names=("cosine", "constant", "drop"), **options):
    rng, steps, found = np.random.default_rng(seed), np.arange(every, 6001, every), {}
    for name in names:
        schedule = shapes()[name]
        loss = true_loss(schedule, steps, **options) * np.exp(noise * rng.standard_normal(steps.size))
        found[name] = LossCurve(steps, loss, schedule)
    return found


@pytest.fixture(scope="module")
def fit():
    return fit_curves(synthetic())


def test_loss_curve():
    curve = LossCurve([10, 20.0], [3, 2.5], schedules.constant(0.1, 5), batch_size=32)
    assert curve.lr.shape == (20,)  # the schedule holds its last value
    assert repr(curve) == "LossCurve(2 losses, 3 to 2.5, at steps 10 to 20, lr 0.1, batch size 32)"
    np.testing.assert_array_equal(LossCurve([1, 3], [2.0, 1.0], [0.0, 0.5, 1.0, 9.0]).lr, [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="read-only"):
        curve.loss[0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 10], [3.0, 2.0], [1.0] * 10), "steps: expected whole numbers from 1"),
        (([5, 10.5], [3.0, 2.0], [1.0] * 20), "steps: expected whole numbers"),
        (([10, 5], [3.0, 2.0], [1.0] * 20), r"steps that increase, got 10 and then 5 \(entry 1\)"),
        (([5, 5], [3.0, 2.0], [1.0] * 20), "steps that increase"),
        (([5, 10], [3.0, 0.0], [1.0] * 20), "loss: expected"),
        (([5, 10], [3.0, np.nan], [1.0] * 20), "loss: expected"),
        (([5, 10], [3.0, np.inf], [1.0] * 20), "loss: expected"),
        (([5, 10], [3.0], [1.0] * 20), "loss: expected one for each of the 2 steps, got 1"),
        (([5, 10], [3.0, 2.0], [1.0] * 9), "a schedule shorter than the steps: 9 entries, one a step, where 10"),
        (([5, 10], [3.0, 2.0], nqm.Schedule(1.0, 9, "error")), "a schedule shorter than the steps: 9 steps, where 10"),
        (([5, 10], [3.0, 2.0], [0.0] * 10), "some learning rate above 0"),
        (([5, 10], [3.0, 2.0], [-1.0] * 10), "lr: expected"),
        (([5, 10], [3.0, 2.0], [1.0] * 10, 0.0), "batch_size: expected"),
    ],
)
def test_curves_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossCurve(*arguments)


def test_fits_that_cannot_be(fit):
    few = LossCurve([10, 20, 30], [3.0, 2.5, 2.4], schedules.constant(1.0, 30))
    with pytest.raises(ValueError, match=r"more than 6 observations.* got 3: give at least 4 more"):
        fit_curves([few])
    with pytest.raises(ValueError, match="at least one LossCurve, got none"):
        fit_curves({})
    with pytest.raises(TypeError, match="expected a nqm"):
        fit_curves({"a": [1.0, 2.0]})
    with pytest.raises(TypeError, match="expected LossCurves"):
        fit_curves(3)
    with pytest.raises(TypeError, match="names that are strings"):
        fit_curves({1: few})
    lr = shapes()["cosine"]
    for level in (0.0, 1.0, 90):
        with pytest.raises(ValueError, match="level: expected"):
            fit.interval(lr, 6000, level)
    with pytest.raises(ValueError, match=r"shorter than the steps: 50 .* 60"):
        fit.predict(np.full(50, PEAK), 60)
    with pytest.raises(ValueError, match="steps: expected"):
        fit.predict(lr, 0)
    for arguments, message in (
        ({"peak_lr": 0.0}, "peak_lr: expected"),
        ({"steps": 1}, "steps: expected"),
        ({"warmup": 1000}, "warmup: expected"),
        ({"pieces": 0}, "pieces: expected"),
        ({"level": 1.0}, "level: expected"),
        ({"batch_size": 0.0}, "batch_size: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            fit.best_schedule(**({"steps": 1000, "peak_lr": PEAK} | arguments))


def plain_loss(theta, pieces, noise, total):
    """The recursion piece by piece in NumPy, for complex theta; noise 1 / batch size."""
    floor, (start, a, q, r, k) = theta[0], np.exp(theta[1:])
    n, weight = modes()
    half = start * (2.0 * q * total) ** a / np.exp(loggamma(a))
    b, v, norm, found = half * n ** -(1.0 + a) * weight, 0.0 * n, 1.0, []
    tail = half * np.exp(-a * LAST) / a
    for m, s, seen in zip(pieces.lengths, pieces.lrs, pieces.seen, strict=True):
        keep, before = np.exp(-2.0 * k / total * s * m), norm  # of the squared norm
        norm = keep * norm + s * (1.0 - keep) / loss_curve_model.WEIGHT
        g = 2.0 * s / (np.sqrt(before) + np.sqrt(norm))
        x = g * q / n
        d = np.exp(2.0 * m * np.log(1.0 - x))
        b, v = d * b, d * v + 0.5 * g * r * noise * n**-loss_curve_model.NOISE * weight * (1.0 - d) / (2.0 - x)
        if seen:
            found.append(floor + tail + (b + v).sum())
    return np.array(found)


def test_losses_and_jacobian_are_those_of_a_plain_recursion():
    steps = np.array([100, 900, 2500, 6000])
    for name, schedule in shapes().items():
        lr = np.repeat(schedule.values, schedule.lengths) / PEAK
        problem = CurveLosses([(lr[:6000], steps, 4.0)], TOTAL)
        found, slopes = problem.jacobian(TRUTH)
        np.testing.assert_allclose(found, plain_loss(TRUTH, problem.pieces, 0.25, TOTAL), rtol=1e-13, err_msg=name)
        for i in range(TRUTH.size):
            at = TRUTH.astype(complex)
            at[i] += 1e-30j
            exact = plain_loss(at, problem.pieces, 0.25, TOTAL).imag / 1e-30
            np.testing.assert_allclose(slopes[:, i], exact, rtol=1e-9, atol=1e-13)


def test_parameters_mean_what_they_say(fit):
    """The recursion step by step over whole modes, which owes nothing to pieces, nodes or theta."""
    E, P, p, Q, R, kappa = (fit.parameters[name] for name in NAMES)
    n, V, lr = np.arange(1.0, 100_001.0), 1.0, shapes()["cosine"](np.arange(400)) / PEAK
    b, v = 0.5 * P * n**-p, 0.0 * n
    for s in lr:
        x = s / np.sqrt(V) * Q / n
        b, v = (1.0 - x) ** 2 * b, (1.0 - x) ** 2 * v + 0.5 * s / np.sqrt(V) * R / 2.0 * n**-1.3 * x
        V += 2.0 * kappa * s * (s / 0.2 - V)
    untrained = 0.5 * P * 100_000.5 ** (1.0 - p) / (p - 1.0)
    with pytest.warns(UserWarning, match="batch_size: 2 is none of the curves' 1 to 1: they do not say"):
        found = fit.predict(lr * PEAK, 400, batch_size=2.0)
    assert found == pytest.approx(E + untrained + (b + v).sum(), abs=3e-4)


def test_pieces_hardly_matter():
    """Beyond the first tenth; at its end the loss itself falls by 0.001 a step."""
    steps = np.array([600, 1000, 3000, 6000])
    for schedule in shapes().values():
        lr = np.repeat(schedule.values, schedule.lengths)[:6000] / PEAK
        coarse = CurveLosses([(lr, steps, 1.0)], TOTAL)
        seen = np.isin(np.arange(1, 6001), steps).astype(np.int64)
        fine = coarse.pieces._replace(first=np.array([0, 6000]), lengths=np.ones(6000), lrs=lr, seen=seen)
        np.testing.assert_allclose(coarse.jacobian(TRUTH)[0], plain_loss(TRUTH, fine, 1.0, TOTAL), rtol=0, atol=3e-4)


def test_predictions_of_an_unseen_schedule_are_recovered(fit):
    unseen, steps = schedules.warmup(schedules.wsd(PEAK, 8700, 0, 2000), 300), np.arange(1000, 9001, 500)
    true = true_loss(unseen, steps)
    found = fit.predict(unseen, steps)
    low, high = fit.interval(unseen, steps, 0.99)
    assert ((low < true) & (true < high)).all()
    np.testing.assert_allclose(found, true, rtol=2e-3)
    assert ((low < found) & (found < high)).all()
    narrow = fit.interval(unseen, steps, 0.5)
    assert (narrow[0] > low).all()
    assert (narrow[1] < high).all()


def test_parameters_are_recovered_within_their_intervals(fit):
    true = dict(zip(NAMES, natural_parameters(TRUTH, TOTAL), strict=True))
    for name, (low, high) in fit.parameter_intervals(0.99).items():
        assert low < true[name] < high, name
        assert low < fit.parameters[name] < high, name
    assert set(fit.parameters) == set(NAMES)
    assert len(NAMES) <= 7


@pytest.mark.parametrize("count", [10, pytest.param(30, marks=pytest.mark.thorough)])
def test_intervals_cover_what_they_say(count, monkeypatch):
    """90% intervals for new losses under an unseen schedule: within 3 standard errors of 90% over sets of curves."""
    monkeypatch.setattr(curves, "DRAWS", 40)
    monkeypatch.setattr(curves, "STARTS", 3)
    unseen, steps = schedules.warmup(schedules.wsd(PEAK, 5700, 0, 1500), 300), np.array([1500, 3000, 4500, 5500, 6000])
    true, covered = true_loss(unseen, steps), []
    for seed in range(count):
        found = fit_curves(synthetic(seed + 100, every=250))
        low, high = found.interval(unseen, steps)
        new = true * np.exp(5e-4 * np.random.default_rng(seed + 500).standard_normal(steps.size))
        covered.append(((low < new) & (new < high)).mean())
    share, error = np.mean(covered), np.std(covered, ddof=1) / np.sqrt(len(covered))
    assert abs(share - 0.9) < 3.0 * error, (share, error)


def test_an_outlier_changes_little(fit):
    curves = synthetic()
    spoilt = curves["constant"].loss.copy()
    spoilt[[20, 35]] *= 1.1
    other = fit_curves(curves | {"constant": LossCurve(curves["constant"].steps, spoilt, curves["constant"].lr)})
    lr = shapes()["cosine"]
    assert abs(other.predict(lr, 6000) / fit.predict(lr, 6000) - 1.0) < 5e-4


def test_the_same_input_gives_the_same_bits(fit):
    again = fit_curves(list(synthetic().values()))
    assert again.parameters == fit.parameters
    lr = shapes()["drop"]
    assert again.interval(lr, 5000) == fit.interval(lr, 5000)
    assert again.predict(lr, [[5000], [300]]).shape == (2, 1)
    assert isinstance(fit.predict(lr, 5000), float)


ONE = "ignore:curves. one schedule only"


def test_a_single_curve_needs_no_list_but_warns():
    curve = synthetic()["cosine"]
    with pytest.warns(UserWarning, match="one schedule only: how the loss answers to the learning rate, R and kappa"):
        found = fit_curves(curve)
    assert list(found.curves) == ["curve 1"]
    with pytest.warns(UserWarning, match="one schedule only"):
        assert found.parameters == fit_curves([curve]).parameters
    with pytest.warns(UserWarning, match="one schedule only"):
        assert fit_curves({"mine": curve}, seed=5).parameters["E"] == pytest.approx(found.parameters["E"], rel=1e-6)
    assert "not determined: " in repr(found)


def test_curves_of_plain_sgd_are_predicted_three_times_as_far():
    """Made by the engine of the package, weights of a norm that stays: kappa may be as good as 0."""
    n, weight = index_rule(10**6, 8, 1)
    problem = nqm.NoisyQuadratic(0.2 / n, 8.0 * n**-1.3, 20.0 * n**-1.5 / (0.2 / n), weight)
    seen = [schedules.warmup(s, 300) for s in (schedules.constant(1.0, 5700), schedules.cosine(1.0, 5700, end=0.1))]
    steps = np.arange(600, 6001, 50)
    fit = fit_curves([LossCurve(steps, 2.0 + nqm.risk(problem, nqm.SGD(s), 64, steps), s) for s in seen])
    far, at = schedules.warmup(schedules.constant(1.0, 17_700), 300), np.array([1000, 6000, 18_000])
    exact = 2.0 + nqm.risk(problem, nqm.SGD(far), 64, at)
    np.testing.assert_allclose(fit.predict(far, at), exact, rtol=0, atol=1e-3)


def test_steps_within_the_warmup_of_a_known_schedule_are_no_other_peak(fit):
    assert fit.predict(shapes()["cosine"], 100) > 0.0


def test_units_do_not_matter(fit):
    other = fit_curves({name: LossCurve(c.steps, 7.0 * c.loss, 1000.0 * c.lr, 64.0) for name, c in synthetic().items()})
    factors = {"E": 7.0, "P": 7.0, "p": 1.0, "Q": 1.0, "R": 7.0 * 64.0, "kappa": 1.0}
    for name, factor in factors.items():
        assert other.parameters[name] == pytest.approx(factor * fit.parameters[name], rel=1e-4)
    lr = shapes()["cosine"]
    assert other.predict(1000.0 * lr, 5000) == pytest.approx(7.0 * fit.predict(lr, 5000), rel=1e-6)


def test_longer_curves_with_smaller_steps():
    """Ten times the steps at a tenth of the curvature: the same curve."""
    schedule, steps = shapes(60_000, up=3000), np.arange(1500, 60_001, 1500)
    theta = TRUTH.copy()
    theta[3] -= np.log(10.0)
    curves = {name: LossCurve(steps, true_loss(s, steps, theta, 60_000.0), s) for name, s in schedule.items()}
    found = fit_curves(curves)
    assert found.parameters["Q"] == pytest.approx(0.005, rel=0.02)
    assert found.parameters["E"] == pytest.approx(2.5, rel=1e-3)


def test_larger_batches_have_less_noise(fit):
    lr = shapes()["constant"]
    with pytest.warns(UserWarning, match="batch_size: . is none of the curves'"):
        losses = [fit.predict(lr, 6000, batch_size=b) for b in (1.0, 2.0, 4.0)]
    assert losses[0] - losses[1] == pytest.approx(2.0 * (losses[1] - losses[2]), rel=1e-6)
    assert losses[0] > losses[1]


def test_many_observations_are_averaged_in_groups(monkeypatch, fit):
    dense = synthetic(every=5, noise=3e-3)
    assert dense["cosine"].steps.size > curve_residuals.MAX_OBSERVATIONS
    found = fit_curves(dense)
    assert found.search.steps.size == 3 * curve_residuals.MAX_OBSERVATIONS
    lr = shapes()["cosine"]
    assert found.predict(lr, 6000) == pytest.approx(float(true_loss(lr, np.array([6000]))[0]), rel=1e-3)


@pytest.mark.filterwarnings(ONE)
def test_what_curves_do_not_determine_is_named(fit):
    assert "R" not in fit.undetermined
    assert "E" not in fit.undetermined
    late = synthetic(names=("constant",), noise=5e-3)["constant"]
    assert "E" in fit_curves([LossCurve(late.steps[20:], late.loss[20:], late.lr)]).undetermined


def test_saved_fits_give_the_same_answers(fit, tmp_path):
    assert fit.save(tmp_path / "fit.json") == tmp_path / "fit.json"
    back = CurvesFit.load(tmp_path / "fit.json")
    lr = shapes()["cosine"]
    assert repr(back) == repr(fit)
    assert back.interval(lr, [100, 6000])[0].tolist() == fit.interval(lr, [100, 6000])[0].tolist()
    assert back.undetermined == fit.undetermined
    assert (back.scale, back.agreeing, back.followed) == (fit.scale, fit.agreeing, fit.followed)


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "no JSON", '{"kind": "nqm.scaling.CurvesFit 1", "curves": []}'])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"other.json: expected a file that CurvesFit.save wrote"):
        CurvesFit.load(tmp_path / "other.json")


def test_far_from_the_curves_there_is_a_warning(fit):
    with pytest.warns(UserWarning, match="steps: 120000 is 20 times the 6000 steps of the longest curve"):
        fit.predict(schedules.constant(PEAK, 10), 120_000)
    with pytest.warns(UserWarning, match="0.0006 is 2 times that of the curves, 0.0003"):
        fit.predict(schedules.constant(2 * PEAK, 10), 1000)
    with pytest.warns(UserWarning, match=r"0.00015 is 0.5 times that of the curves"):
        fit.interval(schedules.constant(0.5 * PEAK, 10), 1000)


@pytest.mark.parametrize("ask", ["predict", "interval", "best_schedule"])
def test_warnings_point_at_the_caller(fit, ask):
    arguments = (100, 2 * PEAK) if ask == "best_schedule" else (schedules.constant(2 * PEAK, 10), 1000)
    with pytest.warns(UserWarning, match="0.0006 is 2 times that of the curves") as told:
        getattr(fit, ask)(*arguments)
    assert [warning.filename for warning in told] == [__file__]


def test_best_schedule_is_no_worse_than_its_rivals(fit):
    found = fit.best_schedule(5000, PEAK, warmup=200, pieces=30)
    assert found.table["schedule"].tolist() == ["best", "cosine", "wsd"]
    assert found.loss <= found.table["loss"].min()
    assert found.table["above"][1:].min() > 0.0
    for schedule in (found.schedule, found.cosine, found.wsd):
        assert schedule.steps == 5000
        assert schedule.values.max() <= PEAK * (1.0 + 1e-12)
        np.testing.assert_allclose(schedule(np.arange(100)), PEAK * np.arange(100) / 200, rtol=1e-12)
    assert found.loss == pytest.approx(fit.predict(found.schedule, 5000), rel=1e-12)
    assert found.interval[0] < found.loss < found.interval[1]
    assert str(found).splitlines()[0].startswith("schedule")
    assert found.to_pandas()["loss"].tolist() == found.table["loss"].tolist()
    # no schedule near it is better
    rng = np.random.default_rng(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peaks below that of the curves
        for _ in range(30):
            first = found.schedule.values[200:] * np.exp(0.1 * rng.standard_normal(found.schedule.pieces - 200))
            near = nqm.Schedule(
                np.concatenate([found.schedule.values[:200], np.minimum(first, PEAK)]), found.schedule.lengths
            )
            assert fit.predict(near, 5000) > found.loss - 2e-5


def test_short_schedules(fit):
    for steps in (2, 3, 12):
        found = fit.best_schedule(steps, PEAK)
        assert found.schedule.steps == steps
        assert found.loss <= found.table["loss"].min()


def test_gradient_by_learning_rates(fit):
    lengths, lrs = np.append([50.0, 50.0], np.full(12, 100.0)), np.append([0.3, 0.8], np.linspace(0.9, 0.1, 12))

    def loss(lrs):
        return loss_after(fit.theta, TOTAL, 2.0, lengths, lrs, 12)

    found, slopes = loss(lrs)
    assert slopes.shape == (12,)
    for i, slope in enumerate(slopes):
        step = 1e-5 * np.eye(14)[2 + i]
        difference = (loss(lrs + step)[0] - loss(lrs - step)[0]) / 2e-5
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-9)
    pieces = Pieces(np.array([0, 14]), lengths, lrs, np.eye(14)[-1])
    assert found == pytest.approx(plain_loss(fit.theta, pieces, 0.5, TOTAL)[0], rel=1e-12)


def test_pictures(fit):
    import matplotlib.pyplot as plt

    ax = fit.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cosine", "constant", "drop"]
    other = fit.best_schedule(1000, PEAK, pieces=10).plot()
    assert len(other.get_legend().get_texts()) == 3
    plt.close("all")


SHORT = pytest.mark.xfail(reason="0.64 of the multi-power law's error: early losses of its runs differ by a lag")


@real_logs
@pytest.mark.parametrize("size", [pytest.param("25M", marks=SHORT), "100M", "400M"])
def test_real_curves_are_predicted_with_at_most_06_of_the_multi_power_laws_error(size):
    errors = real_errors(size)
    assert np.mean(errors) <= 0.6 * MARKS[size], errors


@real_logs
def test_real_curves_are_predicted_better_than_by_the_multi_power_law():
    """In every size, and on the whole with less than 0.6 of its error."""
    shares = [np.mean(real_errors(size)) / MARKS[size] for size in MARKS]
    assert max(shares) < 0.7
    assert np.mean(shares) < 0.6


def real_errors(size):
    """Mean absolute errors on the test curves given."""
    fit = fit_curves({name: read_curve(size, name) for name in TRAINING})
    curves = [read_curve(size, name) for name in TESTS]
    return [np.abs(fit.predict(curve.lr, curve.steps) - curve.loss).mean() for curve in curves]
