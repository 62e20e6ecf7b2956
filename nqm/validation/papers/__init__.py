"""What papers say of training networks, tried on networks."""
