"""The mathematics of one training run: its loss under a model's parameters, and the exact Jacobian."""
