"""`twist meshnet`: a node as a Twisted service."""

from twisted.application.service import ServiceMaker

meshnet = ServiceMaker("meshnet", "meshnet.cli.tap", "A mesh node of a config file.", "meshnet")
