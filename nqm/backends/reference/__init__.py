"""The readable backend, one subject per file as in :mod:`nqm.backends.kernels`; NumPy only."""

__all__: list[str] = []
