"""What papers say of training networks, tried on networks."""

__all__: list[str] = []
