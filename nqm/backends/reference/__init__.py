"""The readable backend, one subject per file as in :mod:`nqm.backends.kernels`; NumPy only."""
