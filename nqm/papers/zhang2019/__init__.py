"""Zhang et al. (2019), Which Algorithmic Choices Matter at Which Batch Sizes?: the figures that need no networks.

Every number comes from the public functions of nqm.
"""

from . import constant, decay

__all__ = ["FIGURES"]

FIGURES = tuple(sorted(constant.FIGURES + decay.FIGURES, key=lambda figure: figure.order))
