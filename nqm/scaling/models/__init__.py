"""The mathematics of one training run: its loss under a model's parameters, and the exact Jacobian."""

__all__ = ["final_loss", "loss_curve_model", "modes", "relative_lr"]
