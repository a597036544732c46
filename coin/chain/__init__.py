"""The rules of the chain, pure: no file, no socket, no clock, no randomness."""
