"""jastrzebski2021 on networks: the training and the measurements that its figures and tables are made of.

:mod:`.runs` has them as jobs, by settings that :mod:`.protocol` fixes; its figures and verdicts are still to come.
"""

__all__: list[str] = []
