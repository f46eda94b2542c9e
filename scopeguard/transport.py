"""Outbound HTTP: the transport of scopeguard, and what a transport of your own needs.

    class Recorded:
        def send(self, request: Send, /) -> Answer:
            return Answer(200, recorded[request.url], {"content-type": "application/json"})

        def close(self) -> None:
            pass

    guard = Guard(issuer, transport=Recorded())

A :class:`Transport` performs each exchange of a guard or a client. It decides about connections, proxies and
certificates, and about nothing else: it does not follow redirects, and returns every response as it is.
"""

from __future__ import annotations

from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Transport
from scopeguard.flow.effects import Answer, Send

__all__ = ["Answer", "HttpxTransport", "Send", "Transport"]
