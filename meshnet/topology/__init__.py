"""The network as a node knows it: signed records of links, how they spread, and the ways through them."""
