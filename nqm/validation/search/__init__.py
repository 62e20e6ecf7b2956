"""Fewest steps to target for real: a search of hyperparameters with a fixed budget.

- :mod:`.protocol`: which trials come next, decided from earlier outcomes. :mod:`.records`: outcomes on disk.
- :mod:`.measure_steps`: trains what the protocol asks for. :mod:`.summary`: the table of what was found.
"""

__all__: list[str] = []
