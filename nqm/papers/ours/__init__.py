"""Figures that no paper has."""

from . import gaussian_features, noise_scales, scaling_laws, schedules

__all__ = ["FIGURES"]

FIGURES = (*schedules.FIGURES, *noise_scales.FIGURES, *gaussian_features.FIGURES, *scaling_laws.FIGURES)
