"""Examples: named sets, files, splits by seed, wrong labels, and what is said of data that does not fit."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import toy_data, toy_task

from nqm.cli import main
from nqm.validation import Data, Task, lenet, load_data, mlp, report, with_label_noise
from nqm.validation.training import data as data_module

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist10k.npz"
mnist = pytest.mark.skipif(not MNIST.exists(), reason="images of MNIST are not part of the project: no ../shared/data")


def parts(data: Data) -> list[torch.Tensor]:
    return [data.x, data.y, data.x_held, data.y_held]


def same(one: Data, other: Data) -> bool:
    return all(torch.equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))


def saved(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def images(n: int = 20, *shape: int) -> dict[str, np.ndarray]:
    """Images that tell which they are: the k-th one's pixels sum to k, its label is k mod 3."""
    x = np.zeros((n, *(shape or (4, 4))))
    x.reshape(n, -1)[:, 1] = np.arange(n)
    return {"x": x, "y": np.arange(n) % 3}


# --- splits -----------------------------------------------------------------------------------------------------------


def test_digits_at_seed_0_by_hand():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)
    data = load_data()
    assert (data.name, data.shape, data.classes, len(data)) == ("digits", (1, 8, 8), 10, 1438)
    assert np.array_equal(torch.cat([data.y, data.y_held]), labels[order])
    train = pixels[order[:1438]]
    scaled = (pixels[order] - train.mean()) / train.std(ddof=1)
    np.testing.assert_allclose(torch.cat([data.x, data.x_held]).flatten(1), scaled, rtol=1e-5, atol=1e-6)
    assert same(data, load_data("digits", seed=0))


def test_another_seed_is_another_split_of_the_same_examples():
    one, other = (load_data(seed=seed, held=0.75) for seed in (0, 1))
    assert len(one) == len(other) == 449
    assert not torch.equal(one.y, other.y)
    assert same(other, load_data(seed=1, held=0.75))
    assert torch.equal(*(torch.cat([d.y, d.y_held]).bincount() for d in (one, other)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_with_a_test_part(monkeypatch, seed):
    """Seed 0 leaves it as it is, another draws as many examples from both parts."""
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    monkeypatch.setattr(data_module, "from_torchvision", lambda name, root: [(x[:7], y[:7]), (x[7:], y[7:])])
    data = load_data("mnist", "somewhere", seed=seed, held=0.5)
    assert (len(data.y), len(data.y_held)) == (7, 3)
    assert (data.y_held.tolist() == [7, 8, 9]) == (seed == 0)
    assert sorted([*data.y.tolist(), *data.y_held.tolist()]) == list(range(10))
    mean, deviation = data.y.double().mean(), data.y.double().std()
    for inputs, labels in ((data.x, data.y), (data.x_held, data.y_held)):
        torch.testing.assert_close(inputs[:, 0], ((labels - mean) / deviation).float())


def test_data_from_loaders():
    """Every example once, in one fixed order of its own."""
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    found = Data.from_loaders(loader, (x[:3], y[:3]), "mine")
    assert found.name == "mine"
    assert torch.equal(found.x[:, 0], found.y.float())
    assert sorted(found.y.tolist()) == list(range(10)) != found.y.tolist()
    assert torch.equal(found.y, Data.from_loaders(loader, (x, y)).y)
    assert sorted(found.y_held.tolist()) == [0, 1, 2]
    assert torch.equal(found.x_held[:, 0], found.y_held.float())
    with pytest.raises(ValueError, match="empty loader"):
        Data.from_loaders([], loader)


def test_fewer_training_examples():
    data = toy_data(60)
    few = data.first(5)
    assert len(few) == 5
    assert torch.equal(few.x, data.x[:5])
    assert torch.equal(few.y, data.y[:5])
    assert torch.equal(few.x_held, data.x_held)
    assert few.name == "toy, first 5"
    assert data.first(1).classes == data.classes == 3  # as the held-out part shows
    for n in (0, 61, 2.0):
        with pytest.raises(ValueError, match="n: expected a whole number from 1 to 60, got"):
            data.first(n)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "imagenet"}, "expected one of digits, mnist, fashion-mnist, cifar10, mnist1d or an .npz file"),
        ({"held": 1.0}, "held: expected a share between 0 and 1, got 1.0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed: expected a whole number of at least 0, got 0.5"),
        ({"root": "here"}, "data 'digits': expected no root"),
        ({"name": "mnist1d", "root": "here"}, "data 'mnist1d': expected no root"),
        ({"name": "mine.npz", "root": "here"}, "data 'mine.npz': expected no root"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        load_data(**options)


# --- mnist1d ----------------------------------------------------------------------------------------------------------


def test_mnist1d():
    """As its package makes it, whatever was drawn before; what is drawn afterwards does not change."""
    made = pytest.importorskip("mnist1d.data", reason="needs mnist1d: pip install mnist1d")
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    ahead = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    data = load_data("mnist1d")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == ahead  # noqa: NPY002
    assert (data.name, data.shape, data.classes, len(data), len(data.y_held)) == ("mnist1d", (1, 40), 10, 4000, 1000)
    theirs = made.make_dataset()
    assert np.array_equal(data.y, theirs["y"])
    assert np.array_equal(data.y_held, theirs["y_test"])
    scaled = (theirs["x_test"] - theirs["x"].mean()) / theirs["x"].std()
    np.testing.assert_allclose(data.x_held[:, 0], scaled, rtol=1e-3, atol=1e-5)
    assert toy_task(net=partial(mlp, data.shape), data=data).build(0)(data.x[:2]).shape == (2, 10)


@pytest.mark.parametrize(("name", "package", "told"), [
    ("mnist1d", "mnist1d", "pip install mnist1d"),
    ("digits", "sklearn", r"pip install 'nqm\[validation\]'"),
])  # fmt: skip
def test_a_missing_package(monkeypatch, name, package, told):
    for part in [part for part in sys.modules if part.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, part)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError, match=told):
        load_data(name)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "found"), [((4, 4), (1, 4, 4)), ((3, 4, 5), (3, 4, 5)), ((7,), (7,))])
def test_a_file_of_arrays(tmp_path, given, found):
    data = load_data(saved(tmp_path / "mine.npz", **images(20, *given)), held=0.25)
    assert (data.name, data.shape, data.classes, len(data), len(data.y_held)) == ("mine", found, 3, 15, 5)
    whole = torch.cat([data.x, data.x_held]).flatten(1).sum(1).double()
    ranks = whole.argsort().argsort()  # the pixels' sum tells which image it was
    assert torch.equal(ranks % 3, torch.cat([data.y, data.y_held]))
    assert ranks.tolist() == np.random.default_rng(0).permutation(20).tolist()
    assert data.x.double().mean() == pytest.approx(0, abs=1e-7)
    assert data.x.double().std() == pytest.approx(1)


def test_all_ways_to_name_a_file(tmp_path):
    path = saved(tmp_path / "mine.npz", **images())
    other = path.rename(tmp_path / "archive")  # by its content, where the set has a name
    np.savez(path, **images())
    one = load_data(path, seed=3)
    assert one.name == "mine"
    for name, root in ((str(path), None), ("mnist", path), ("cifar10", str(other))):
        assert same(load_data(name, root, seed=3), one)
    assert load_data("mnist", path).name == "mnist"
    assert not same(load_data(path, seed=4), one)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32, ">f8"])
def test_types_of_labels(tmp_path, kind):
    arrays = images()
    path = saved(tmp_path / "mine.npz", x=arrays["x"].astype(np.uint8), y=arrays["y"].astype(kind))
    assert same(load_data(path), load_data(saved(tmp_path / "plain.npz", **arrays)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": None}, "expected arrays x and y, found x$"),
        ({"x": None, "inputs": np.ones(3)}, "expected arrays x and y, found"),
        ({"x": np.ones((19, 4))}, "expected as many inputs as labels, got 19 and 20"),
        ({"x": np.ones(20)}, r"expected numbers x .* got shape \(20,\) of float64"),
        ({"x": np.full((20, 2), "a")}, "expected numbers x .* of <U1"),
        ({"y": np.ones((20, 3))}, r"expected class numbers y \(n,\), got shape \(20, 3\)"),
        ({"y": np.full(20, "a")}, r"expected class numbers y \(n,\), got shape \(20,\) of <U1"),
        ({"y": np.arange(20) - 1}, "whole and at least 0, got -1$"),
        ({"y": np.arange(20) / 2}, "whole and at least 0, got 0.5$"),
        ({"y": np.full(20, np.nan)}, "whole and at least 0, got nan$"),
        ({"y": np.full(20, np.inf)}, "whole and at least 0, got inf$"),
        ({"x": np.full((20, 4), np.nan)}, "expected finite inputs x, got NaN or infinity"),
        ({"x": np.full((20, 4), 7.0)}, "expected inputs x that differ, got 7.0 everywhere"),
        ({"x": np.ones((0, 4)), "y": np.ones(0)}, r"expected at least one example .* \(0, 4\)"),
        ({"x": np.array([None] * 20)}, "expected arrays of numbers, got ValueError: Object arrays cannot be loaded"),
    ],
)
def test_files_of_something_else(tmp_path, changes, said):
    arrays = {key: value for key, value in {**images(), **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=said) as caught:
        load_data(saved(tmp_path / "mine.npz", **arrays))
    assert "mine.npz'" in str(caught.value)


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(ValueError, match=r"mine\.npz': expected an .npz file, found none"):
        load_data(path)
    with pytest.raises(ValueError, match=r"mine\.npz': expected an .npz file, found none"):
        load_data("mnist", path)
    for content in (b"", b"x,y\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"as numpy\.savez writes it, got something else"):
            load_data(path)
    np.save(tmp_path / "mine.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"as numpy\.savez writes it, got something else"):
        load_data("mnist", tmp_path / "mine.npy")
    saved(path, **images())
    content = bytearray(path.read_bytes())
    content[200:300] = 100 * b"\xff"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected arrays of numbers, got BadZipFile"):
        load_data(path)


@mnist
def test_mnist_from_a_file(tmp_path):
    data = load_data("mnist", MNIST)
    assert (data.name, data.shape, data.classes, len(data), len(data.y_held)) == ("mnist", (1, 28, 28), 10, 8000, 2000)
    task = Task(lenet, data.first(100), F.cross_entropy, {"held-out error": 0.1})
    assert task.read(task.build(0))["held-out error"] > 0.5


@pytest.mark.parametrize("given", ["a toy", pytest.param("MNIST", marks=mnist)])
def test_the_shell_reads_a_file_without_torchvision(monkeypatch, tmp_path, given):
    class Begun(Exception):
        pass

    def begin(task, *parts, **options):
        raise Begun(task)

    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(report, "network", begin)
    path = MNIST if given == "MNIST" else saved(tmp_path / "mine.npz", **images(20, 8, 8))
    with pytest.raises(Begun) as begun:
        main(["validate", "--data", "mnist", "--data-root", str(path), "--net", "mlp", "--out", str(tmp_path)])
    assert same(begun.value.args[0].data, load_data(path))


def test_the_shell_says_what_is_wrong_with_a_file(capsys, tmp_path):
    for words in (["--data", "mnist", "--data-root", "none.npz"], ["--rung", "d", "--data-root", "none.npz"]):
        assert main(["validate", *words, "--out", str(tmp_path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


# --- labels -----------------------------------------------------------------------------------------------------------


def test_label_noise():
    """Of 3 classes a third of the labels drawn are the old ones; held-out labels stay, and so does everything else."""
    data = toy_data(9000)
    noisy, redrawn = with_label_noise(data, 0.5, seed=1)
    assert redrawn.dtype == torch.bool
    assert int(redrawn.sum()) == 4500
    assert torch.equal(noisy.y[~redrawn], data.y[~redrawn])
    for kept in ("x", "x_held", "y_held"):
        assert torch.equal(getattr(noisy, kept), getattr(data, kept))
    old = float((noisy.y == data.y)[redrawn].double().mean())
    assert old == pytest.approx(1 / 3, abs=5 * (2 / 9 / 4500) ** 0.5)
    shares = noisy.y[redrawn].bincount() / 4500
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=5 * (2 / 9 / 4500) ** 0.5)
    assert noisy.y.dtype == data.y.dtype
    assert noisy.name == "toy, label noise 0.5"


def test_label_noise_by_seed_and_share():
    data = toy_data(100)
    (one, some), (again, _), (more, most) = (with_label_noise(data, share, 4) for share in (0.2, 0.2, 0.7))
    assert same(one, again)
    assert bool(most[some].all())
    assert torch.equal(more.y[some], one.y[some])
    assert not torch.equal(with_label_noise(data, 0.2, 5)[1], some)
    for share, count in ((0.0, 0), (0.256, 26), (1.0, 100)):
        noisy, redrawn = with_label_noise(data, share, 4)
        assert int(redrawn.sum()) == count
        assert share or torch.equal(noisy.y, data.y)


@pytest.mark.parametrize(
    ("y", "share", "said"),
    [
        (torch.arange(4), 1.5, "share: expected a number from 0 to 1, got 1.5"),
        (torch.arange(4), -0.1, "share: expected a number from 0 to 1, got -0.1"),
        (torch.arange(4), float("nan"), "share: expected a number from 0 to 1, got nan"),
        (torch.arange(4.0), 0.5, "expected whole numbers of at least 0"),
        (torch.arange(4) - 1, 0.5, "expected whole numbers of at least 0"),
        (torch.ones(4, 2), 0.5, "expected whole numbers of at least 0"),
    ],
)
def test_label_noise_of_something_else(y, share, said):
    data = Data("some", torch.zeros(4, 2), y, torch.zeros(4, 2), y)
    with pytest.raises(ValueError, match=said):
        with_label_noise(data, share, 0)


@pytest.mark.parametrize("targets", [{"training loss": 0.5}, {"held-out error": 0.3}])
@pytest.mark.parametrize("label", [3, -1, -100], ids=["beyond", "negative", "ignored by torch"])
@pytest.mark.parametrize("place", [0, 50], ids=["first", "later"])
@pytest.mark.parametrize("part", ["training", "held-out"])
def test_labels_outside_the_classes_are_said_before_training(targets, label, place, part):
    data = toy_data()
    labels = data.y if part == "training" else data.y_held
    labels[place] = label
    low, high = min(label, 0), max(label, 2)
    said = f"^data: expected labels from 0 to 2, for a network of 3 outputs, got {low} to {high} in the {part} part$"
    with pytest.raises(ValueError, match=said):
        toy_task(data=data, targets=targets)


def test_whole_numbers_that_are_no_classes_to_the_loss():
    """Counts, of which three quantiles are predicted."""

    def pinball(given, y):
        gap = y[:, None] - given
        return torch.maximum(gap * torch.tensor([0.1, 0.5, 0.9]), gap * torch.tensor([-0.9, -0.5, -0.1])).mean()

    data = toy_data()
    counts = Data("counts", data.x, 7 * data.y, data.x_held, 7 * data.y_held)
    assert toy_task(data=counts, loss=pinball, targets={"training loss": 0.1}).targets == {"training loss": 0.1}
    with pytest.raises(ValueError, match="expected labels from 0 to 2"):
        toy_task(data=counts, loss=pinball, targets={"training error": 0.1})
