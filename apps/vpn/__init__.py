"""Multihop VPN: SOCKS5, port forwards, served ports and exits."""
