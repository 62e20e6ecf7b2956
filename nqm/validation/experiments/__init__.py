"""Experiments made of many independent pieces of training.

- :mod:`.jobs`: one function at many settings, on any executor, kept in a file from which an interrupted run goes on.
"""

__all__: list[str] = []
