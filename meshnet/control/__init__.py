"""How another process uses a node. Floor 2."""
