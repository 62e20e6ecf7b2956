"""Experiments made of many independent pieces of training.

- :mod:`.train`: training that is recorded. :mod:`.verdict`: verdicts on claims, from one number per seed.
- :mod:`.paper`: the figures and verdicts of a paper, and the report of them all.
- :mod:`.jobs`: one function at many settings, on any executor, kept in a file from which an interrupted run goes on.
"""

__all__: list[str] = []
