"""Decisions from fits: the best allocation, time against compute, critical batch sizes, the best schedule.

They ask any object with ``.losses`` and ``.runs``, a :class:`nqm.scaling.decisions.fit.Fit`, and are methods of the
fits. Modules have the names of their functions, so this package exports none of them.
"""
