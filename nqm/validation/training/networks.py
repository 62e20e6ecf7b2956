"""The networks of the ladder's last rung, small enough for digits: an MLP, a simple CNN, ResNet8 without batch norm.
For larger images LeNet-5.

Results files know a network by its repr, so the names of its classes stay as they are.

Shapes follow zhang2019 appendix F.2, widths the data: 8 x 8 pixels instead of 28 x 28 or 32 x 32. Nets are built from a
seed, the MLP for inputs of any shape, the others for any image size that their pooling or striding can halve twice, and
raise ValueError for other inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["NETS", "cnn", "lenet", "mlp", "resnet8"]


def mlp(
    shape: Sequence[int] = (1, 8, 8), classes: int = 10, width: int | Sequence[int] = 32, *, seed: int = 0
) -> nn.Module:
    """One hidden layer of ``width`` ReLU units: 2,410 parameters on digits; of several widths, as many layers."""
    widths = [math.prod(shape), *(width if isinstance(width, Sequence) else [width])]

    def build() -> nn.Module:
        hidden = [part for ends in pairwise(widths) for part in (nn.Linear(*ends), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], classes))

    return _seeded(seed, build)


def cnn(shape: Sequence[int] = (1, 8, 8), classes: int = 10, width: int = 6, *, seed: int = 0) -> nn.Module:
    """Two convolutions with 2 x 2 max pooling, then a hidden layer (zhang2019 F.2, "Simple CNN", without dropout);
    3 x 3 filters, ``width`` and 2 ``width`` of them, 4 ``width`` hidden units: 2,146 parameters on digits."""
    channels, height, breadth = _image(shape, 4)
    features = 2 * width * (height // 4) * (breadth // 4)
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(features, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, classes),
        ),
    )


def resnet8(shape: Sequence[int] = (1, 8, 8), classes: int = 10, width: int = 4, *, seed: int = 0) -> nn.Module:
    """Seven convolutions in a stem and three residual blocks, then a linear layer; no batch norm (zhang2019 F.2);
    widths ``width``, 2 ``width``, 4 ``width``: 5,058 parameters on digits."""
    channels, _, _ = _image(shape, 1)
    return _seeded(seed, lambda: _ResNet8(channels, classes, width))


def lenet(shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> nn.Module:
    """LeNet-5 (LeCun et al., 1998) with ReLU and max pooling, its images padded by two pixels: 61,706 parameters on
    MNIST, for images of 12 x 12 or more."""
    channels, height, breadth = _image(shape, 12)
    features = 16 * ((height // 2 - 4) // 2) * ((breadth // 2 - 4) // 2)
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(features, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        ),
    )


NETS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "cnn": cnn, "resnet8": resnet8, "lenet": lenet}


def _image(shape: Sequence[int], least: int) -> tuple[int, int, int]:
    """Channels, height and width, the latter two at least so many."""
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            f"shape: expected images (channels, height, width) of at least {least} x {least}, got {tuple(shape)}; "
            "mlp takes any shape"
        )
    channels, height, breadth = shape
    return channels, height, breadth


class _Block(nn.Module):
    """relu(conv(relu(conv(x))) + x), the sum by a 1 x 1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.around = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.around(x))


class _ResNet8(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(
            _Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(torch.relu(self.stem(x)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """The same weights from the same seed, whatever was drawn before; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
