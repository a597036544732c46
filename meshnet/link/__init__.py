"""A link is a neighbour: handshake, records, frames, telemetry. Everything but `driver.py` is sans-IO."""
