"""The VPN as its user sees it: all packets of this machine through an exit."""
