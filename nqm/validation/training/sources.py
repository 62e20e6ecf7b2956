"""Where :func:`nqm.validation.load_data` finds examples: in packages, in torchvision's files, in NumPy's archives."""

from __future__ import annotations

import os
import random
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TORCHVISION", "Examples", "digits", "from_npz", "from_torchvision", "mnist1d"]

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)  # a damaged archive, or objects in it

Examples = tuple[Tensor, Tensor]
"""Inputs (n, ...) and class numbers (n,)."""


def digits() -> Examples:
    """1,797 images (1, 8, 8) of ten classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RuntimeError("data 'digits' comes with scikit-learn: pip install 'nqm[validation]'") from error
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images.reshape(-1, 1, 8, 8)), torch.tensor(labels)


def mnist1d() -> list[Examples]:
    """4,000 signals (1, 40) of ten classes for training and 1,000 to test, as their package makes them by default."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise RuntimeError("data 'mnist1d' is made by the package of this name: pip install mnist1d") from error
    with _random_state_kept():
        made = make_dataset(get_dataset_args())
    signals, labels = ([torch.tensor(made[key + part]) for part in ("", "_test")] for key in "xy")
    return [(x.unsqueeze(1), y) for x, y in zip(signals, labels, strict=True)]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """For code that seeds the generators everybody shares: they go on from where they were."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002


def from_torchvision(name: str, root: str | os.PathLike[str] | None) -> list[Examples]:
    """Images (channels, height, width) for training, and to test."""
    try:
        from torchvision import datasets
    except Exception as error:  # a build for another torch raises RuntimeError
        raise RuntimeError(
            f"data {name!r} is read by torchvision, which cannot be imported here ({type(error).__name__}: {error}); "
            "install the torchvision that belongs to your torch, or take data 'digits' or an .npz file "
            "(--data-root FILE.npz), which need none"
        ) from error
    if root is None:
        raise RuntimeError(
            f"data {name!r}: expected the folder that holds torchvision's files (--data-root), got none; an .npz file "
            "of arrays x and y will do too"
        )
    parts = []
    for train in (True, False):
        try:
            part = getattr(datasets, TORCHVISION[name])(root, train=train, download=False)
        except RuntimeError as error:
            raise RuntimeError(
                f"data {name!r}: expected torchvision's files under {os.fspath(root)!r}, found none; fetch them once "
                f"with torchvision.datasets.{TORCHVISION[name]}({os.fspath(root)!r}, download=True)"
            ) from error
        images, labels = torch.as_tensor(part.data), torch.as_tensor(part.targets)
        parts.append((images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2), labels))
    return parts


def from_npz(path: Path) -> Examples:
    """Arrays x (n, features), (n, height, width) or (n, channels, height, width) and y (n,) of a file that
    ``numpy.savez`` has written; images without channels get one. Raises ValueError for anything else."""
    where = f"data {str(path)!r}"
    x, y = _arrays(path, where)
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3, 4):
        raise ValueError(
            f"{where}: expected numbers x (n, features), (n, height, width) or (n, channels, height, width), "
            f"got shape {x.shape} of {x.dtype}"
        )
    if y.dtype.kind not in "biuf" or y.ndim != 1:
        raise ValueError(f"{where}: expected class numbers y (n,), got shape {y.shape} of {y.dtype}")
    if len(x) != len(y):
        raise ValueError(f"{where}: expected as many inputs as labels, got {len(x)} and {len(y)}")
    if x.size == 0:
        raise ValueError(f"{where}: expected at least one example and one feature, got x of shape {x.shape}")
    with np.errstate(invalid="ignore"):  # NaN is no class number, as the comparison tells
        labels = y.astype(np.int64)
    wrong = y[(labels != y) | (labels < 0)]
    if wrong.size:
        raise ValueError(f"{where}: expected class numbers y that are whole and at least 0, got {wrong[0].item()}")
    if not np.isfinite(x).all():
        raise ValueError(f"{where}: expected finite inputs x, got NaN or infinity")
    if (x == x.flat[0]).all():
        raise ValueError(f"{where}: expected inputs x that differ, got {x.flat[0].item()} everywhere")
    inputs = torch.from_numpy(x.astype(np.float64))
    return inputs.unsqueeze(1) if inputs.ndim == 3 else inputs, torch.from_numpy(labels)


def _arrays(path: Path, where: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """x and y, as they lie there."""
    if not path.is_file():
        raise ValueError(f"{where}: expected an .npz file, found none")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{where}: expected an .npz file as numpy.savez writes it, got something else")
    try:
        with np.load(path, allow_pickle=False) as archive:
            held, arrays = archive.files, [np.asarray(archive[key]) for key in ("x", "y") if key in archive.files]
    except UNREADABLE as error:
        raise ValueError(f"{where}: expected arrays of numbers, got {type(error).__name__}: {error}") from error
    if len(arrays) < 2:
        raise ValueError(f"{where}: expected arrays x and y, found {', '.join(held) or 'none'}")
    return arrays[0], arrays[1]
