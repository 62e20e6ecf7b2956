"""Gradient rules: what a step descends along. Each in one file, open to a user's own.

- :mod:`.rule`: the base, the plain gradient, weight decay. :mod:`.two_batches`: noise enhancement (mori2021).
- :mod:`.injected`: gradients with noise put in (wen2020). :mod:`.penalties`: gradients with a penalty
  (jastrzebski2021). :mod:`.mixup`: mixed examples. :mod:`.labels`: labels drawn from the model or at random.
"""

__all__: list[str] = []
