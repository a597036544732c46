"""A piece of the old internet for demonstrations and tests: a web page and the name server that knows it.

`python -m lab.demos.oldnet --name page.example --address 198.51.100.10 --address 2001:db8:10::10` serves
`PAGE` over HTTP at port 80 of these addresses and answers for the name at port 53 of the same, over UDP and
TCP; it prints `ready`, then a line for each request: `page SOURCE` or `name SOURCE`. All else does not exist.
"""

from __future__ import annotations

import argparse
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.names import dns, error, server
from twisted.web.resource import Resource
from twisted.web.server import Site

PAGE = b"This page lies in the old internet.\n"
_Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


class Page(Resource):
    """The page, at any path."""

    isLeaf = True  # noqa: N815

    def render_GET(self, request: Any) -> bytes:
        """Says whom it was sent to."""
        print(f"page {request.getClientIP()}", flush=True)
        return PAGE


class Zone:
    """Answers for one name."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self._name = name.encode()
        self._records = [
            dns.Record_A(each, 60) if ip_address(each).version == 4 else dns.Record_AAAA(each, 60)
            for each in addresses
        ]

    def query(self, query: dns.Query, timeout: object = None) -> Deferred[_Answer]:
        """The records of that kind; another name does not exist."""
        if query.name.name.lower() != self._name:
            failed: Deferred[_Answer] = Deferred()
            failed.errback(error.DomainError())
            return failed
        fitting = [
            dns.RRHeader(query.name.name, record.TYPE, dns.IN, 60, record, auth=True)
            for record in self._records
            if query.type == record.TYPE
        ]
        return succeed((fitting, [], []))


class Names(server.DNSServerFactory):
    """A name server that tells who asked."""

    def handleQuery(self, message: Any, protocol: Any, address: Any) -> Any:
        """Over UDP `address` is (host, port), over TCP the connection knows it."""
        source = address[0] if address else protocol.transport.getPeer().host
        print(f"name {source}", flush=True)
        return super().handleQuery(message, protocol, address)


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", action="append", required=True)
    options = parser.parse_args()
    reactor: Any = _reactor
    names = Names(clients=[Zone(options.name, options.address)])
    for address in options.address:
        reactor.listenTCP(80, Site(Page()), interface=address)
        reactor.listenTCP(53, names, interface=address)
        reactor.listenUDP(53, dns.DNSDatagramProtocol(names), interface=address)
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
