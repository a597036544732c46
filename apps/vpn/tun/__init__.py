"""TUN devices: opened, set up, read and written under a reactor, joined to streams that carry packets."""
