"""What is recorded along training runs of classifiers: one subject a file, open to a user's own.

- :mod:`.base`: what a quantity is. :mod:`.losses`: loss and accuracy; a quantity of some examples alone.
- :mod:`.fisher`: traces of the Fisher matrix and gradient norms. :mod:`.fisher_norms`: its size, also against the
  Hessian. :mod:`.hessian`: the Hessian's trace and largest eigenvalue. :mod:`.temperature`: of a network's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .base import Quantity
from .fisher import GradientNorm, MeanGradientNorm, TraceF, TraceFBatch
from .fisher_norms import FisherNorm, TraceHF
from .hessian import TopEigenvalue, TraceH
from .losses import Accuracy, Loss, Subset

__all__ = [
    "QUANTITIES",
    "Accuracy",
    "FisherNorm",
    "GradientNorm",
    "Loss",
    "MeanGradientNorm",
    "Quantity",
    "Subset",
    "TopEigenvalue",
    "TraceF",
    "TraceFBatch",
    "TraceH",
    "TraceHF",
    "find",
]

QUANTITIES: dict[str, Quantity] = {
    "training loss": Loss("training"),
    "held-out loss": Loss("held-out"),
    "training accuracy": Accuracy("training"),
    "held-out accuracy": Accuracy("held-out"),
    "Tr F": TraceF(),
    "Tr F sampled": TraceF("model"),
    "Tr F empirical": TraceF("data"),
    "Tr F of a batch": TraceFBatch(128),
    "gradient norm": GradientNorm("training"),
    "mean gradient norm": MeanGradientNorm("training"),
    "Tr H": TraceH(),
    "largest Hessian eigenvalue": TopEigenvalue(),
    "largest Hessian eigenvalue, tempered": TopEigenvalue(temperature=True),
    "norm of F": FisherNorm("full"),
    "norm of diag F": FisherNorm("diagonal"),
    "Tr HF": TraceHF("full"),
    "Tr H diag F": TraceHF("diagonal"),
    "Tr H Tr F / P": TraceHF("trace"),
}
"""Quantities by name, with the papers' settings."""


def find(quantities: Sequence[str] | Mapping[str, Quantity]) -> dict[str, Quantity]:
    """Quantities by name: of names in :data:`QUANTITIES`, or as they are given.

    Raises ValueError for an unknown name, TypeError for what is no quantity.
    """
    if isinstance(quantities, Mapping):
        for name, quantity in quantities.items():
            if not isinstance(quantity, Quantity):
                raise TypeError(f"quantities: expected a Quantity such as Loss() for {name!r}, got {quantity!r}")
        return dict(quantities)
    names = [quantities] if isinstance(quantities, str) else list(quantities)
    for name in names:
        if name not in QUANTITIES:
            raise ValueError(f"quantities: expected names among {', '.join(QUANTITIES)}, got {name!r}")
    return {name: QUANTITIES[name] for name in names}
