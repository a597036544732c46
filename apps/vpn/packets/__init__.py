"""IP packets as bytes: read, checked, cut, merged, queued. Nothing here reads a file, a clock or a socket."""
