"""The multi-power law: the published formula step by step, published marks, fits."""

from __future__ import annotations

import numpy as np
import pytest
from real_logs import read_curve, real_logs

from nqm import schedules
from nqm.scaling.fits import multi_power_law as module
from nqm.scaling.fits.multi_power_law import NAMES, MultiPowerLaw, multi_power_law
from nqm.scaling.logs import LossCurve

PUBLISHED = {
    "25M": (3.040, 0.525, 0.508, 363.8, 2.066, 0.583, 0.641),
    "100M": (2.651, 0.601, 0.453, 437.9, 2.132, 0.598, 0.655),
    "400M": (2.375, 0.654, 0.429, 523.4, 2.025, 0.594, 0.635),
}
MARKS = {"25M": 0.0027, "100M": 0.0037, "400M": 0.0038}  # mean absolute error over the three test curves given
TRAINING = ("cosine_24000", "constant_24000", "wsdcon_9")
TESTS = ("constant_72000", "wsd_20000_24000", "wsdcon_18")
VALUES = dict(zip(NAMES, (2.5, 0.5, 0.45, 400.0, 2.0, 0.6, 0.65), strict=True))


def read(size, name):
    """A published curve after its warmup, which the law does not describe."""
    curve = read_curve(size, name)
    after = curve.steps > 2160
    return LossCurve(curve.steps[after], curve.loss[after], curve.lr)


def law_by_steps(lr, steps, theta):
    """The formula as printed, with loops; complex theta welcome."""
    floor, (a, alpha, b, c, beta, gamma) = theta[0], np.exp(theta[1:])
    found = []
    for t in steps:
        loss = floor + a * lr[:t].sum() ** -alpha
        for k in range(1, t):
            if lr[k] != lr[k - 1]:
                x = c * lr[k] ** -gamma * lr[k:t].sum()
                loss = loss - b * (lr[k - 1] - lr[k]) * (1.0 - (1.0 + x) ** -beta)
        found.append(loss)
    return np.array(found)


def some_path():
    """A schedule with fewer changes than are taken together."""
    lr = np.repeat([0.2, 0.6, 1.0, 0.7, 0.3, 0.4], [5, 5, 60, 40, 60, 30])
    return lr, np.array([20, 70, 71, 90, 111, 150, 200])


def test_prediction_is_the_printed_sum():
    lr, steps = some_path()
    theta = np.array([VALUES["L0"], *np.log([VALUES[name] for name in NAMES[1:]])])
    found = MultiPowerLaw(VALUES).predict(lr, steps)
    np.testing.assert_allclose(found, law_by_steps(lr, steps, theta), rtol=1e-12)


def test_gradient_is_that_of_a_complex_step():
    lr, steps = some_path()
    theta = np.array([2.0, 0.3, -0.7, -1.5, 0.8, -0.5, -0.4])
    slopes = module._law(module.Path.along(lr, steps, 1.0), theta)[1]
    for i in range(7):
        at = theta.astype(complex)
        at[i] += 1e-30j
        np.testing.assert_allclose(slopes[:, i], law_by_steps(lr, steps, at).imag / 1e-30, rtol=1e-10, atol=1e-14)


def test_changes_taken_together_hardly_matter():
    lr = schedules.warmup(schedules.cosine(3e-4, 5400, 0.1), 600)(np.arange(6000))
    steps = np.array([700, 1500, 3000, 4500, 5999])
    theta = np.array([3.04, *np.log(PUBLISHED["25M"][1:])])
    exact = law_by_steps(lr, steps, theta)
    law = MultiPowerLaw(dict(zip(NAMES, PUBLISHED["25M"], strict=True)))
    np.testing.assert_allclose(law.predict(lr, steps), exact, rtol=0, atol=3e-5)


def synthetic(noise=1e-4, seed=1, unit=1.0, scale=1.0):
    """Three curves of a known law."""
    rng, law = np.random.default_rng(seed), MultiPowerLaw(VALUES)
    steps = np.arange(300, 6001, 100)
    curves = {}
    for name, rest in (
        ("cosine", schedules.cosine(3e-4, 5800, 0.1)),
        ("constant", schedules.constant(3e-4, 5800)),
        ("drop", schedules.constant(3e-4, 2300).then(schedules.constant(9e-5, 3500))),
    ):
        schedule = schedules.warmup(rest, 200)
        loss = law.predict(schedule, steps) * np.exp(noise * rng.standard_normal(steps.size))
        curves[name] = LossCurve(steps, scale * loss, unit * schedule)
    return curves


def test_fit_finds_the_law_again():
    law = multi_power_law(synthetic())
    unseen = schedules.warmup(schedules.wsd(3e-4, 5800, 0, 1500), 200)
    steps = np.arange(400, 5901, 250)
    np.testing.assert_allclose(law.predict(unseen, steps), MultiPowerLaw(VALUES).predict(unseen, steps), rtol=5e-4)
    assert 0.5e-4 < law.scale < 2e-4
    assert law.observations == 3 * 58


def test_fit_is_deterministic_and_takes_any_order_of_steps():
    curves = synthetic()
    one, two = multi_power_law(curves), multi_power_law(list(curves.values()))
    assert one == two
    steps = np.array([[900, 300], [5000, 900]])
    lr = curves["cosine"].lr
    np.testing.assert_array_equal(one.predict(lr, steps).ravel(), one.predict(lr, [300, 900, 5000])[[1, 0, 2, 1]])
    assert isinstance(one.predict(lr, 900), float)


def test_fit_is_the_same_in_other_units():
    plain, other = multi_power_law(synthetic()), multi_power_law(synthetic(unit=1000.0))
    schedule = schedules.warmup(schedules.cosine(3e-4, 5800), 200)
    np.testing.assert_allclose(other.predict(1000.0 * schedule, 5500), plain.predict(schedule, 5500), rtol=1e-6)


def test_an_outlier_changes_little():
    curves = synthetic()
    bad = curves["cosine"].loss.copy()
    bad[30] *= 1.2
    spoilt = curves | {"cosine": LossCurve(curves["cosine"].steps, bad, curves["cosine"].lr)}
    lr = curves["constant"].lr
    assert abs(multi_power_law(spoilt).predict(lr, 5900) - multi_power_law(curves).predict(lr, 5900)) < 2e-4


def test_many_observations_are_thinned():
    steps = np.arange(1, 4001)
    curve = LossCurve(steps, 2.0 + steps**-0.5, schedules.constant(1.0, 4000))
    assert multi_power_law([curve]).observations == module.MAX_OBSERVATIONS


def test_bad_input():
    curve = LossCurve([10, 20, 30], [3.0, 2.5, 2.4], schedules.constant(1.0, 30))
    with pytest.raises(ValueError, match="more than 7 observations"):
        multi_power_law([curve])
    with pytest.raises(ValueError, match="at least one LossCurve"):
        multi_power_law([])
    with pytest.raises(TypeError, match="expected a nqm"):
        multi_power_law([1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="expected L0, A, alpha, B, C, beta, gamma, got L0"):
        MultiPowerLaw({"L0": 1.0})
    with pytest.raises(ValueError, match="alpha: expected"):
        MultiPowerLaw(VALUES | {"alpha": -1.0})
    law = MultiPowerLaw(VALUES)
    with pytest.raises(ValueError, match="after the warm-up of 100 steps"):
        law.predict(schedules.warmup(schedules.constant(1.0, 900), 100), [100, 200])
    with pytest.raises(ValueError, match=r"shorter than the steps: 50 .* 60"):
        law.predict(np.ones(50), 60)
    with pytest.raises(ValueError, match="whole numbers"):
        law.predict(np.ones(50), 10.5)


@real_logs
@pytest.mark.parametrize("size", PUBLISHED)
def test_published_parameters_give_the_published_errors(size):
    law = MultiPowerLaw(dict(zip(NAMES, PUBLISHED[size], strict=True)))
    curves = [read(size, name) for name in TESTS]
    errors = [np.abs(law.predict(curve.lr, curve.steps) - curve.loss).mean() for curve in curves]
    assert round(float(np.mean(errors)), 4) == pytest.approx(MARKS[size], abs=1.01e-4)  # parameters have 3 or 4 digits


@real_logs
@pytest.mark.parametrize("size", PUBLISHED)
def test_fit_is_no_worse_than_the_published_one(size):
    curves = {name: read(size, name) for name in TRAINING}
    fitted = multi_power_law(curves)

    def cost(law):
        z = np.concatenate([np.log(law.predict(c.lr, c.steps) / c.loss) for c in curves.values()]) / fitted.scale
        return np.where(np.abs(z) < 1.345, 0.5 * z**2, 1.345 * (np.abs(z) - 0.5 * 1.345)).sum()

    assert cost(fitted) <= cost(MultiPowerLaw(dict(zip(NAMES, PUBLISHED[size], strict=True))))
