"""Questions about steps: when is the target reached, and with which hyperparameters or schedule first?"""

__all__: list[str] = []
