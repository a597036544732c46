"""IP packets as bytes, pure: read, checked, cut, merged, queued. No file, no clock, no address of our own."""
