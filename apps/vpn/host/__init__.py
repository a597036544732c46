"""What the VPN changes in the operating system, and how it is undone. Linux; changes are values."""
