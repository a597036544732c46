"""Source-routed paths: set-up, hop tables, the relay step, queues. Floor 1."""
