"""The command and the twist plugin; the only files that import the reactor. Floor 4."""
