"""Training for real, with torch.

- :mod:`.data`: examples. :mod:`.networks`: small nets. :mod:`.task`: a net, its data and the targets to reach.
- :mod:`.functional`: a module as a function of its parameters. :mod:`.kfac`: Kronecker factors.
- :mod:`.torch_optimizers`: update rules and the :mod:`.axes` along which their hyperparameters are searched.
- :mod:`.ensemble`: many runs side by side; :mod:`.until_first` trains them until targets are reached.
- :mod:`.reference`: one plain run of one module, to measure a network along it.
"""

__all__: list[str] = []
