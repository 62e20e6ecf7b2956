"""Labels for the Fisher matrix: drawn from the model's own probabilities, or at random."""

from __future__ import annotations

import torch
from torch import Tensor

from ..batches import Batch
from ..functional import Net, drawn_from

__all__ = ["KINDS", "labels_of"]

KINDS = ("data", "model", "uniform")
"""Where labels come from: the examples' own (empirical Fisher), the model's probabilities (true Fisher), chance."""


def labels_of(kind: str, net: Net, thetas: Tensor, batch: Batch) -> Tensor:
    """Labels (R, B) of a batch, of one of :data:`KINDS`; those that are drawn are constants to every derivative."""
    if kind == "data":
        return batch.y
    u = batch.uniform("labels", batch.size)
    with torch.no_grad():
        logits: Tensor = net.each(net.outputs, thetas, batch.x)
    return drawn_from(logits if kind == "model" else torch.zeros_like(logits), u)
