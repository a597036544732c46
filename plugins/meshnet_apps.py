"""The apps that come with the node."""

from apps.vpn.app import VpnApp
from coin.app import CoinApp

vpn = VpnApp()
coin = CoinApp()
