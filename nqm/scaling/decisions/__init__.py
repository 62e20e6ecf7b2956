"""Decisions from fits: the best allocation, time against compute, critical batch sizes, the best schedule.

They ask any object with ``.losses`` and ``.runs``, a :class:`nqm.scaling.decisions.fit.Fit`, and are methods of the
fits. Modules have the names of their functions; this package lists modules only.
"""

__all__ = ["allocation", "best_schedule", "critical_batch_size", "fit", "frontier"]
