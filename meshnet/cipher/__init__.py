"""Keys, hashing, the two cipher backends, Noise handshakes, the Sphinx onion. Floor 0, no input or output.

Never decides policy and never keeps state beyond the object a caller holds.
"""
