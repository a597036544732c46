"""The mesh as a network of IPv6: every node has an address, and any program reaches it there."""
