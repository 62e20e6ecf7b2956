"""Noisy quadratic problems, their noise and their spectra."""

from .quadratic import NoisyQuadratic

__all__ = ["NoisyQuadratic"]
