"""How the second moments of training evolve on a problem under an optimizer."""
