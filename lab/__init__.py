"""Demonstrations, benches and simulations. Not installed; nothing installed imports it."""
