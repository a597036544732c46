"""End to end: keys, items, streams, datagrams, loss recovery, congestion control. Floor 1."""
