"""Networks as noisy quadratics: curvature and noise measured, and what they predict.

- :mod:`.measure`: the measurement; :mod:`.curvature`, :mod:`.ekfac`: its bases; :mod:`.objective`: its loss.
- :mod:`.quadratic`: the result, a NoisyQuadratic that knows the real loss. :mod:`.prediction`: steps to target by it.
- :mod:`.quantities`: single numbers, to be recorded along training.
"""

__all__: list[str] = []
