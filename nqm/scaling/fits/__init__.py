"""Fits to training logs, each with what it predicts: the noisy quadratic, and the laws it is compared with.

Modules have the names of their functions, so this package exports none of them: :mod:`nqm.scaling` does.
"""
