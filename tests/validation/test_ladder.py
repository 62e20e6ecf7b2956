"""The ladder's rungs, the exact moments under them, and each rung's task against naive versions of itself."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch.func import jvp

import nqm
from nqm import validation
from nqm.validation import load_data, mlp
from nqm.validation.ladder import (
    Rung,
    least_squares_risk,
    linear_regression,
    linearised_network,
    plot_rung,
    softmax_regression,
)
from nqm.validation.ladder.linear import pixels, regression
from nqm.validation.ladder.linearised import jacobian, linearised_gradient, linearised_task
from nqm.validation.ladder.rung import verdict
from nqm.validation.ladder.softmax import (
    images,
    softmax_gradients,
    softmax_hessian,
    softmax_loss,
    softmax_optimum,
    softmax_task,
)
from nqm.validation.ladder.task import crossing, models_of, recorded, train
from nqm.validation.training.functional import flatten, outputs, parameters_of, unflatten

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # of torch.func.jvp itself

OPTIMIZERS = [
    nqm.SGD(0.15),
    nqm.SGD(0.1, momentum=0.7),
    nqm.EMA(nqm.SGD(0.15), decay=0.6),
    nqm.EMA(nqm.SGD(0.1, momentum=0.5), decay=0.8),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """BLAS as well: two threads took six times the processor's time of one, on matrices of a hundred rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1, "blas"):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def first() -> Rung:
    return linear_regression(quick=True)


def tiny(examples=3, dim=2, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((examples, dim)), generator.standard_normal(examples)


def every_course(x, y, start, lr, momentum, decay, batch_size, steps):
    """Mean excess loss over every sequence of batches there is."""
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    losses = []
    for course in product(product(range(len(x)), repeat=batch_size), repeat=steps):
        theta, velocity, average = start.copy(), np.zeros_like(start), start.copy()
        for batch in course:
            gradient = np.mean([x[n] * (x[n] @ theta - y[n]) for n in batch], axis=0)
            velocity = momentum * velocity + gradient
            theta = theta - lr * velocity
            average = decay * average + (1.0 - decay) * theta
        losses.append(0.5 * np.mean((x @ (average - optimum)) ** 2))
    return np.mean(losses)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("batch_size", "steps"), [(1, 5), (2, 3)])
def test_moments_are_the_mean_over_every_course(optimizer, batch_size, steps):
    x, y = tiny()
    start = np.array([0.5, -1.0])
    values = optimizer.hyperparameters
    found = least_squares_risk(x, y, start, optimizer, batch_size, [0, steps])
    expected = [
        every_course(x, y, start, values["lr"], values["momentum"], values.get("decay", 0.0), batch_size, t)
        for t in (0, steps)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_moments_without_noise_are_the_models():
    x, y = tiny(20, 3)
    h, basis = np.linalg.eigh(x.T @ x / len(x))
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    problem = nqm.NoisyQuadratic(h, init=(basis.T @ optimum) ** 2)
    for optimizer in OPTIMIZERS:
        found = least_squares_risk(x, y, np.zeros(3), optimizer, 10**15, [1, 7, 40])
        np.testing.assert_allclose(found, nqm.risk(problem, optimizer, np.inf, [1, 7, 40]), rtol=1e-9, atol=1e-14)


def test_moments_of_many_gaussian_examples_are_those_of_gaussian_features():
    generator = np.random.default_rng(1)
    x = generator.standard_normal((200_000, 2)) * np.sqrt([1.0, 0.3])
    y = x @ [1.0, -1.0] + generator.standard_normal(len(x))
    problem = nqm.NoisyQuadratic([1.0, 0.3], noise_model="gaussian-features", label_noise=1.0)
    found = least_squares_risk(x, y, np.zeros(2), nqm.SGD(0.2), 1, [1, 5, 20])
    np.testing.assert_allclose(
        found, nqm.risk(problem, nqm.SGD(0.2), 1, [1, 5, 20]), rtol=0.03
    )  # 1 / sqrt(N), times 10


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_moments_against_runs(optimizer):
    """5,000 runs; |z| < 4.5 at 8 steps, which chance alone breaks once in 20,000 times."""
    x, y = tiny(30, 4, seed=3)
    steps = np.array([1, 2, 3, 5, 8, 13, 21, 34])
    basis = np.linalg.eigh(x.T @ x)[1]
    task = regression(x @ basis, y)
    losses = train(task, optimizer, 2, steps, 5000, (0,))
    z = (losses.mean(axis=0) - task.exact(optimizer, 2, steps)) / (losses.std(axis=0, ddof=1) / np.sqrt(5000))
    assert np.abs(z).max() < 4.5


def test_divergence_is_inf():
    x, y = tiny(10, 2)
    assert least_squares_risk(x, y, np.zeros(2), nqm.SGD(1e10), 1, [100])[0] == np.inf


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "message"),
    [
        (nqm.SGD(0.1, momentum=0.5, nesterov=True), 1, "heavy-ball"),
        (nqm.SGD(nqm.FREE), 1, "plain numbers"),
        (nqm.SGD([0.1, 0.2]), 1, "plain numbers"),
        (nqm.SGD(nqm.schedules.cosine(0.1, 10)), 1, "plain numbers"),
        (nqm.Preconditioned(nqm.SGD(0.1), power=0.5), 1, "heavy-ball"),
        (nqm.SGD(0.1), 0, "batch_size"),
    ],
)
def test_moments_refuse(optimizer, batch_size, message):
    x, y = tiny()
    with pytest.raises(ValueError, match=message):
        least_squares_risk(x, y, np.zeros(2), optimizer, batch_size, [1])


def test_moments_refuse_shapes():
    x, y = tiny()
    with pytest.raises(ValueError, match="expected features"):
        least_squares_risk(x, y[:-1], np.zeros(2), nqm.SGD(0.1), 1, [1])


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_have_the_measured_traces():
    generator = np.random.default_rng(0)
    h, start = np.array([2.0, 1.0, 0.1]), np.array([1.0, -1.0, 2.0])
    at = generator.standard_normal((50, 3)), 5.0 * generator.standard_normal((50, 3))
    models = models_of(h, *at, start)
    traces = [part.var(axis=0).sum() for part in at]
    for name in ("additive", "gaussian", "matched"):
        model = models[name]
        assert model.spread * model.problem.noise.sum() == pytest.approx(traces[0])
    matched = models["matched"]
    loss = 0.5 * h @ start**2
    at_start = h.sum() * (matched.problem.label_noise + 2.0 * loss) + (h * start) @ (h * start)
    assert matched.spread * at_start == pytest.approx(traces[1])


def test_noise_that_shrinks_has_no_matched_model():
    generator = np.random.default_rng(0)
    at = 5.0 * generator.standard_normal((50, 2)), generator.standard_normal((50, 2))
    assert set(models_of(np.ones(2), *at, np.ones(2))) == {"additive", "gaussian"}


def test_spread_of_elliptical_features_is_that_of_their_radius():
    """x = sqrt(u) g with E u = 1, E u^2 = 1.25: spread 1.25 within sampling errors of 400,000 examples."""
    generator = np.random.default_rng(0)
    h, optimum = np.ones(20), np.full(20, 0.5)
    x = generator.standard_normal((400_000, 20)) * np.sqrt(generator.choice([0.5, 1.5], 400_000))[:, None]
    errors = generator.standard_normal(len(x))
    models = models_of(h, x * errors[:, None], x * (errors - x @ optimum)[:, None], optimum)
    assert models["matched"].spread == pytest.approx(1.25, rel=0.02)


def test_crossing():
    steps = np.array([1, 2, 4, 8])
    losses = np.array([[8.0, 4.0, 2.0, 1.0], [8.0, 7.0, 6.0, 5.0], [0.5, 1.0, 1.0, 1.0], [8.0, np.inf, 1.0, 1.0]])
    np.testing.assert_array_equal(crossing(steps, losses, 1.5), [6.0, np.inf, 1.0, 4.0])
    np.testing.assert_array_equal(crossing(steps, losses[0], 2.0), 4.0)


def test_recorded():
    np.testing.assert_array_equal(recorded(5), [1, 2, 3, 4, 5])
    many = recorded(1000)
    assert many[0] == 1
    assert many[-1] == 1000
    assert np.all(np.diff(many) > 0)


# --- a ----------------------------------------------------------------------------------------------------------------


def test_state_dependent_noise_predicts_linear_regression(first):
    """In every cell, at every recorded step, within the simultaneous 95% band of 200 runs; so are the exact moments."""
    assert first.runs == 200
    assert len(first.cells) == 9
    assert 3.0 < first.z < 4.5
    assert all(first.inside("matched").values())
    assert all(first.inside("exact").values())


def test_additive_noise_does_not_at_batch_size_one(first):
    for cell, inside in first.inside("additive").items():
        if cell.endswith("batch size 1"):
            assert not inside, cell


def test_matched_noise_is_nearer_than_gaussian_than_additive(first):
    c = first.curves
    off = {
        model: np.abs(c[f"predicted_{model}"] / c["predicted_exact"] - 1.0).max()
        for model in ("matched", "gaussian", "additive")
    }
    assert off["matched"] < 0.06
    assert off["matched"] < off["gaussian"] < off["additive"]


def test_steps_and_critical_batch_sizes_of_linear_regression(first):
    assert np.all(np.abs(first.ratios["ratio"] - 1.0) < 0.2)
    assert np.all(np.abs(first.critical["ratio"] - 1.0) < 0.2)
    assert "critical" in first.verdict.lower()
    assert first.verdict in repr(first)


def test_pixels_are_uncorrelated_and_never_constant():
    x, y = pixels("parity")
    covariance = x.T @ x / len(x)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    assert np.diag(covariance).min() > 1e-6
    assert abs(y.mean()) < 1e-12
    with pytest.raises(ValueError, match="labels"):
        pixels("hue")


def test_gradient_of_regression_is_the_mean_over_the_batch():
    x, y = pixels()
    task, theta = regression(x, y), np.random.default_rng(0).standard_normal((2, x.shape[1]))
    chosen = np.array([[3, 3, 7], [0, 1, 2]])
    for run in range(2):
        batch = chosen[run]
        expected = np.mean([x[n] * (x[n] @ theta[run] - y[n]) for n in batch], axis=0)
        np.testing.assert_allclose(task.gradient(theta, chosen)[run], expected, rtol=1e-10)


@pytest.mark.parametrize("rung", [linear_regression, softmax_regression, linearised_network])
def test_rungs_refuse(rung):
    with pytest.raises(ValueError, match="runs: expected at least 2"):
        rung(runs=1)
    with pytest.raises(TypeError, match="runs: expected a whole number"):
        rung(runs=10.0)
    with pytest.raises(TypeError, match="quick"):
        rung(quick="yes")


def test_same_seed_same_bits():
    x, y = pixels()
    task, steps = regression(x, y), recorded(20)
    runs = [train(task, nqm.SGD(0.01, momentum=0.5), 4, steps, 10, (seed, 1)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.all(runs[0][:, -1] != runs[2][:, -1])


def test_plot(first):
    figure = plot_rung(first)
    assert len(figure.axes) == 10
    figure.canvas.draw()


def many_series(first):
    """The rung's curves with ratios of three tasks of two optimizers, at one batch size."""
    rows = list(product(("one", "two", "three"), ("SGD", "momentum"), ("same", "tuned")))
    ratios = {
        key: np.array(column)
        for key, column in zip(("cell", "optimizer", "learning_rate"), zip(*rows, strict=True), strict=True)
    }
    ratios |= {"batch_size": np.full(12, 64.0), "ratio": np.linspace(0.5, 2.0, 12), "measured": np.full(12, 9.0)}
    return replace(first, ratios=ratios | {"error": np.full(12, 0.1)})


def test_points_of_ratios_differ_and_stand_at_their_batch_size(first):
    points = [bars.lines[0] for bars in plot_rung(many_series(first)).axes[-1].containers]
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in points}
    assert len(looks) == len(points) == 12
    places = [float(line.get_xdata()[0]) for line in points]
    assert 64.0 / 1.05 < min(places) < max(places) < 64.0 * 1.05


def test_a_prediction_that_diverges_is_told_and_drawn_to_the_edge(first):
    cell = first.cells[0]
    curves = {key: column.copy() for key, column in first.curves.items()}
    here = np.flatnonzero(curves["cell"] == cell)
    curves["predicted_gaussian"][here[-3:]] = [1e10, 1e25, np.inf]
    rung = replace(first, curves=curves)
    (line,) = (line for line in verdict(rung).splitlines() if line.startswith("gaussian"))
    assert "diverges (beyond 100 times the measured loss) in 1" in line
    numbers = [float(number) for number in re.findall(r"[\d.]+(?=%| standard)", line)]
    assert len(numbers) == 3
    assert max(numbers) < 1000.0
    ax = plot_rung(rung).axes[0]
    (drawn,) = (line for line in ax.get_lines() if line.get_label() == "gaussian")
    np.testing.assert_array_equal(drawn.get_ydata(), curves["predicted_gaussian"][here])
    assert ax.get_ylim()[1] == pytest.approx(10.0 * curves["high"][here].max())
    assert ax.get_title().endswith("(gaussian: up to inf)")


# --- b ----------------------------------------------------------------------------------------------------------------


def softmax_example():
    generator = np.random.default_rng(0)
    return generator.standard_normal((40, 3)), generator.integers(0, 4, 40), 0.3 * generator.standard_normal((3, 4))


def naive_softmax_loss(weights, x, y, penalty):
    logits = x @ weights
    likelihood = [np.exp(row[label]) / np.exp(row).sum() for row, label in zip(logits, y, strict=True)]
    return -np.mean(np.log(likelihood)) + 0.5 * penalty * np.sum(weights**2)


def test_softmax_loss_gradient_and_hessian_against_differences():
    x, y, weights = softmax_example()
    assert softmax_loss(x, y, weights[None], 0.1)[0] == pytest.approx(naive_softmax_loss(weights, x, y, 0.1), rel=1e-12)

    def gradient(w):
        return softmax_gradients(x, y, w, 0.1).mean(axis=0)

    width = 1e-5
    for i in range(weights.size):
        move = np.zeros(weights.size)
        move[i] = width
        up, down = weights + move.reshape(weights.shape), weights - move.reshape(weights.shape)
        slope = (naive_softmax_loss(up, x, y, 0.1) - naive_softmax_loss(down, x, y, 0.1)) / (2.0 * width)
        assert gradient(weights)[i] == pytest.approx(slope, abs=1e-8)
        row = (gradient(up) - gradient(down)) / (2.0 * width)
        np.testing.assert_allclose(softmax_hessian(x, weights, 0.1)[i], row, atol=1e-8)


def test_softmax_optimum():
    x, y, _ = softmax_example()
    weights = softmax_optimum(x, y, 0.05)
    assert np.linalg.norm(softmax_gradients(x, y, weights, 0.05).mean(axis=0)) < 1e-10
    with pytest.raises(ValueError, match="penalty"):
        softmax_optimum(x, y, 0.0)


def test_softmax_task_starts_where_asked_and_descends_its_own_gradient():
    x, y = images(averaged=True)
    weights = softmax_optimum(x, y, 0.01)
    task = softmax_task(x, y, weights, 0.1)
    assert task.excess(task.start[None])[0] == pytest.approx(0.1, rel=1e-6)
    chosen = np.array([[5, 5, 9]])
    expected = softmax_gradients(x[chosen[0]], y[chosen[0]], task.start.reshape(weights.shape), 0.01).mean(axis=0)
    np.testing.assert_allclose(task.gradient(task.start[None], chosen)[0], expected, rtol=1e-10, atol=1e-14)


def test_softmax_prediction_is_exact_close_to_the_optimum():
    """At an excess of 1e-6, 400 runs: |z| < 4.5 at every step for additive noise, from the first step to the last."""
    x, y = images(averaged=True)
    task = softmax_task(x, y, softmax_optimum(x, y, 0.01), 1e-6)
    optimizer, steps = nqm.SGD(1e-3), recorded(40)
    losses = train(task, optimizer, 64, steps, 400, (0,))
    z = (task.models["additive"].risk(optimizer, 64, steps) - losses.mean(axis=0)) / losses.std(axis=0, ddof=1) * 20.0
    assert np.abs(z).max() < 4.5


# --- c ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    return mlp((1, 8, 8), 10, width=4, seed=1).double()


def test_jacobian_and_gradient_against_jvp(net):
    data = load_data("digits")
    parameters, x = parameters_of(net), data.x[:6].double()
    targets = torch.nn.functional.one_hot(data.y[:6], 10).double()
    size = flatten(parameters).numel()
    delta = torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = jacobian(net, parameters, x)
        found = linearised_gradient(net, parameters, delta, x.reshape(2, 3, 1, 8, 8), targets.reshape(2, 3, 10))
    for run in range(2):
        batch = slice(3 * run, 3 * run + 3)
        plain, change = jvp(
            lambda p, batch=batch: outputs(net, p, x[batch]), (parameters,), (unflatten(delta[run], parameters),)
        )
        torch.testing.assert_close(slope[batch] @ delta[run], change, rtol=1e-10, atol=1e-12)
        errors = plain + change - targets[batch]
        expected = torch.einsum("nkp,nk->p", slope[batch], errors) / 3
        torch.testing.assert_close(found[run], expected, rtol=1e-10, atol=1e-12)


def test_linearised_excess_is_the_loss_less_the_least(net):
    data = load_data("digits")
    task = linearised_task(net, data)
    parameters = parameters_of(net)
    y = torch.nn.functional.one_hot(data.y, 10).double()
    delta = 0.1 * np.random.default_rng(0).standard_normal((3, task.start.size))

    def loss(direction):
        tangent = unflatten(torch.from_numpy(direction), parameters)
        plain, change = jvp(lambda p: outputs(net, p, data.x.double()), (parameters,), (tangent,))
        return 0.5 * float(((plain + change - y) ** 2).sum(dim=1).mean().detach())

    losses = np.array([loss(direction) for direction in delta])
    excess = task.excess(delta)
    np.testing.assert_allclose(losses - losses[0], excess - excess[0], atol=1e-9)
    assert np.all(excess > 0.0)
    assert task.models["additive"].problem.initial_risk == pytest.approx(task.excess(task.start[None])[0], rel=1e-9)


def test_outputs_share_the_noise(net):
    """Ten outputs: noise grows about a tenth as fast as that of one with all of the loss."""
    spread = linearised_task(net, load_data("digits")).models["matched"].spread
    assert 0.05 < spread < 0.25


def test_state_dependent_noise_predicts_the_linearised_network(net):
    """Additive noise is off by more than the matched model at batch size 1, near the largest stable learning rate."""
    task = linearised_task(net, load_data("digits"))
    lr = 0.25 * nqm.max_stable_lr(task.model.problem, nqm.SGD(nqm.FREE), 1 / task.model.spread)
    optimizer, steps = nqm.SGD(lr), np.array([10, 20, 40, 80])
    losses = train(task, optimizer, 1, steps, 200, (0,))
    off = {
        name: np.abs(model.risk(optimizer, 1, steps) / losses.mean(axis=0) - 1.0).max()
        for name, model in task.models.items()
    }
    assert off["matched"] < 0.15
    assert off["matched"] < off["additive"]
    assert off["matched"] < off["gaussian"]


def test_rungs_go_by_their_letters_too():
    names = {"a": linear_regression, "b": softmax_regression, "c": linearised_network, "d": validation.network}
    for letter, rung in names.items():
        assert getattr(validation, f"rung_{letter}") is rung
    assert validation.race is validation.train_until_first
    assert all(hasattr(validation, name) for name in validation.__all__)
