"""Examples to train on: named sets, a file of one's own, anybody's loader; some of their labels wrong on purpose."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sources import TORCHVISION, Examples, digits, from_npz, from_torchvision, mnist1d

__all__ = ["Data", "as_examples", "digest_of", "load_data", "with_label_noise"]

NAMES = ("digits", *TORCHVISION, "mnist1d")


@dataclass(frozen=True, eq=False)
class Data:
    """Examples in memory: inputs x (n, ...), targets y (n, ...), and a part held out for validation.

    In random order: runs are evaluated on the first ones of each part (:meth:`from_loaders` sees to it).

    Raises ValueError where a part is empty or lengths differ, TypeError for what is no tensor.
    """

    name: str
    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor

    def __post_init__(self) -> None:
        for part, x, y in (("training", self.x, self.y), ("held-out", self.x_held, self.y_held)):
            _check_pair(x, y, f"the {part} part of {self.name!r}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes, where targets are class numbers."""
        return int(max(self.y.max(), self.y_held.max())) + 1

    @property
    def digest(self) -> str:
        """Tells these examples from others."""
        return digest_of([self.x, self.y, self.x_held, self.y_held])

    @classmethod
    def from_loaders(cls, loader: Any, held: Any, name: str = "data") -> Data:
        """From two data loaders (or pairs of tensors): for training, and held out for validation.

        Give loaders that keep their order: the same examples in the same order make the same runs. Examples are then
        put into an order of their own, drawn once, so that the first ones stand for all. Raises as
        :func:`as_examples`.
        """
        parts = []
        for part, where in ((loader, "loader"), (held, "held")):
            x, y = as_examples(part, where)
            order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
            parts += [x[order], y[order]]
        return cls(name, *parts)

    def first(self, n: int) -> Data:
        """The first n training examples, scaled as they are, and all held-out ones."""
        if not isinstance(n, int | np.integer) or not 1 <= n <= len(self):
            raise ValueError(f"n: expected a whole number from 1 to {len(self)}, got {n!r}")
        return replace(self, name=f"{self.name}, first {n}", x=self.x[:n], y=self.y[:n])

    def to(self, device: torch.device | str) -> Data:
        return Data(self.name, *(part.to(device) for part in (self.x, self.y, self.x_held, self.y_held)))


def load_data(
    name: str | os.PathLike[str] = "digits",
    root: str | os.PathLike[str] | None = None,
    *,
    held: float = 0.2,
    seed: int = 0,
) -> Data:
    """The data set, part of it held out, inputs of mean 0 and variance 1 over the whole training part.

    name: one of these, of which nothing is downloaded.

    - "digits": 1,797 images (1, 8, 8), in scikit-learn.
    - "mnist1d": 5,000 signals (1, 40), made by the package mnist1d.
    - "mnist", "fashion-mnist", "cifar10": from torchvision's files in the folder ``root``, or from an .npz file
      ``root``, without torchvision.
    - A path that ends in .npz: arrays x (n, features), (n, height, width) or (n, channels, height, width) and y (n,) of
      whole numbers from 0 on, as ``numpy.savez`` writes them.

    held: share that is held out of digits and of .npz files. The others have a test part, which is held out instead.

    seed: draws the order of the examples and so the split: another seed, another held-out part, which shows how much of
    an error is that of the examples it is read on. At seed 0 test parts are the sets' own. At any other seed both parts
    are put together and split anew, with as many examples in each as before. Such splits compare with one another; with
    seed 0 only where the test part was drawn as the training part was, as mnist1d's but not MNIST's (other writers).

    Raises ValueError for an unknown name, a root where none is read and a file that holds something else, RuntimeError
    where scikit-learn, mnist1d, torchvision or its files are missing, saying what to do.
    """
    if not 0.0 < held < 1.0:
        raise ValueError(f"held: expected a share between 0 and 1, got {held}")
    draw = _generator(seed)
    called, parts = _find(name, root)
    if len(parts) == 2 and seed == 0:
        (x, y), (x_held, y_held) = parts
    else:
        x, y = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
        cut = len(parts[0][0]) if len(parts) == 2 else len(x) - round(held * len(x))
        order = torch.from_numpy(draw.permutation(len(x)))
        (x, x_held), (y, y_held) = ((of_all[order[:cut]], of_all[order[cut:]]) for of_all in (x, y))
    mean, deviation = x.double().mean(), x.double().std()
    scaled = [((part.double() - mean) / deviation).float() for part in (x, x_held)]
    return Data(called, scaled[0], y.long(), scaled[1], y_held.long())


def _find(name: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> tuple[str, list[Examples]]:
    """What the data is called, and its one part, or its own two."""
    path = Path(name)
    if name not in NAMES and path.suffix.lower() != ".npz":
        raise ValueError(f"data: expected one of {', '.join(NAMES)} or an .npz file, got {os.fspath(name)!r}")
    if name in TORCHVISION:
        if root is not None and (Path(root).suffix.lower() == ".npz" or Path(root).is_file()):
            return str(name), [from_npz(Path(root))]
        return str(name), from_torchvision(str(name), root)
    if root is not None:
        raise ValueError(f"data {os.fspath(name)!r}: expected no root (--data-root), got {os.fspath(root)!r}")
    if name == "digits":
        return "digits", [digits()]
    return ("mnist1d", mnist1d()) if name == "mnist1d" else (path.stem, [from_npz(path)])


def with_label_noise(data: Data, share: float, seed: int = 0) -> tuple[Data, Tensor]:
    """The data with a share of its training labels drawn anew, uniformly from all classes, and which they are.

    round(share n) of the n examples, and a mask (n,) that is True for them. A label drawn may be the old one, as in
    jastrzebski2021, section 4.1: of C classes, a share (1 - 1 / C) changes on average. Those of a smaller share are
    among those of a larger one, with the same new labels, where the seed is the same. Held-out labels stay.

    Raises ValueError for a share outside 0 to 1 and for targets that are no class numbers.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    y = data.y
    if y.ndim != 1 or y.is_floating_point() or int(y.min()) < 0:
        raise ValueError(
            f"data: expected whole numbers of at least 0 (n,) as targets, got {y[:3].tolist()!r:.80} ... of {y.dtype}"
        )
    draw = _generator(seed)
    order, labels = draw.permutation(len(y)), draw.integers(data.classes, size=len(y))
    redrawn = torch.zeros(len(y), dtype=torch.bool)
    redrawn[torch.from_numpy(order[: round(share * len(y))])] = True
    redrawn = redrawn.to(y.device)
    noisy = torch.where(redrawn, torch.from_numpy(labels).to(y), y)
    return replace(data, name=f"{data.name}, label noise {share:g}", y=noisy), redrawn


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Tells these numbers from others."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _generator(seed: int) -> np.random.Generator:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    return np.random.default_rng(seed)


def as_examples(data: Any, name: str = "data") -> tuple[Tensor, Tensor]:
    """Training inputs and targets in memory, from :class:`Data`, a pair of tensors or an iterable of batches (x, y)."""
    if isinstance(data, Data):
        return data.x, data.y
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        x, y = data
    elif isinstance(data, Iterable):
        batches = [_batch(batch, name) for batch in data]
        if not batches:
            raise ValueError(f"{name}: expected at least one batch, got an empty loader")
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    else:
        raise TypeError(
            f"{name}: expected a data loader, a pair of tensors (x, y) or nqm.validation.Data, "
            f"got {type(data).__name__}"
        )
    _check_pair(x, y, name)
    return x, y


def _batch(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise TypeError(f"{name}: expected batches (inputs, targets) of two tensors, got {type(batch).__name__}")
    return batch[0], batch[1]


def _check_pair(x: Any, y: Any, name: str) -> None:
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise TypeError(f"{name}: expected two tensors, got {type(x).__name__} and {type(y).__name__}")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"{name}: expected as many inputs as targets, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) == 0:
        raise ValueError(f"{name}: expected at least one example, got none")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: expected finite inputs, got NaN or infinity")
