"""The apps that come with the node."""

from apps.vpn.app import VpnApp

vpn = VpnApp()
