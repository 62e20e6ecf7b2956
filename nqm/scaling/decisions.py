"""What to train, from a fitted scaling law: the best allocation, time against compute, the critical batch size.

For any fit that has ``losses(N, B, K, draws=None)`` and ``runs``, such as a RunsFit.
"""

from .allocation import Allocation, best
from .critical import CriticalBatchSize, critical_batch_size
from .frontier import Frontier, frontier

__all__ = ["Allocation", "CriticalBatchSize", "Frontier", "best", "critical_batch_size", "frontier"]
