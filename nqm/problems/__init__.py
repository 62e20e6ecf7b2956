"""Noisy quadratic problems and their spectra."""
