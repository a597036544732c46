"""The REST API of a chain: versions 1 and 2 as the Go node has them, version 3 with what it lacks."""
