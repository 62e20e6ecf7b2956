"""Examples to train on: the digits that ship with scikit-learn, torchvision's sets where they are, anybody's loader."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Data", "as_examples", "load_data"]

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("digits", *TORCHVISION)


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
        return int(self.y.max()) + 1

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

    def to(self, device: torch.device | str) -> Data:
        return Data(self.name, *(part.to(device) for part in (self.x, self.y, self.x_held, self.y_held)))


def load_data(name: str = "digits", root: str | os.PathLike[str] | None = None, *, held: float = 0.2) -> Data:
    """The named data set, one part in five held out (or the set's own test part), inputs of mean 0 and variance 1 over
    the whole training part.

    name: "digits" (1,797 images of 8 x 8, in scikit-learn), or "mnist", "fashion-mnist", "cifar10" from torchvision's
    files under ``root``; nothing is downloaded. Raises ValueError for an unknown name, RuntimeError where
    scikit-learn, torchvision or its files are missing, saying what to do.
    """
    if name not in NAMES:
        raise ValueError(f"data: expected one of {', '.join(NAMES)}, got {name!r}")
    if not 0.0 < held < 1.0:
        raise ValueError(f"held: expected a share between 0 and 1, got {held}")
    if name == "digits":
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise RuntimeError("data 'digits' comes with scikit-learn: pip install 'nqm[validation]'") from error
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(images))
        x, y = torch.tensor(images[order].reshape(-1, 1, 8, 8)), torch.tensor(labels[order])
        cut = len(x) - round(held * len(x))
        parts = x[:cut], y[:cut], x[cut:], y[cut:]
    else:
        parts = _torchvision(name, root)
    x, y, x_held, y_held = parts
    mean, deviation = x.double().mean(), x.double().std()
    scaled = [((part.double() - mean) / deviation).float() for part in (x, x_held)]
    return Data(name, scaled[0], y.long(), scaled[1], y_held.long())


def _torchvision(name: str, root: str | os.PathLike[str] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    try:
        from torchvision import datasets
    except Exception as error:  # a build for another torch raises RuntimeError
        raise RuntimeError(
            f"data {name!r} is read by torchvision, which cannot be imported here ({type(error).__name__}: {error}); "
            "install the torchvision that belongs to your torch, or take data 'digits', which needs none"
        ) from error
    if root is None:
        raise RuntimeError(f"data {name!r}: expected the folder that holds torchvision's files (--data-root), got none")
    parts: list[Tensor] = []
    for train in (True, False):
        try:
            part = getattr(datasets, TORCHVISION[name])(root, train=train, download=False)
        except RuntimeError as error:
            raise RuntimeError(
                f"data {name!r}: expected torchvision's files under {os.fspath(root)!r}, found none; fetch them once "
                f"with torchvision.datasets.{TORCHVISION[name]}({os.fspath(root)!r}, download=True)"
            ) from error
        images, labels = torch.as_tensor(part.data), torch.as_tensor(part.targets)
        parts += [images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2), labels]
    return parts[0], parts[1], parts[2], parts[3]


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
