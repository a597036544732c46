"""Transports move bytes between two neighbours; each is one file behind `interface.py`."""
