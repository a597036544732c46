"""A mesh router and overlay network: nodes are public keys, the source chooses the route."""

__version__ = "0.1.0"
