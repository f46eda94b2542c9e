"""An authority as a transport of ``httpx``: for testing clients of OAuth, which make requests of their own."""

from __future__ import annotations

from urllib.parse import parse_qsl

import httpx

from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Unreachable


def mock_transport(authority: Authority) -> httpx.MockTransport:
    """What sends requests to *authority*, in both colours. Other hosts cannot be reached."""
    origin = httpx.URL(authority.issuer)

    def answer(request: httpx.Request) -> httpx.Response:
        if (request.url.scheme, request.url.netloc) != (origin.scheme, origin.netloc):
            raise httpx.ConnectError("no such host in this test", request=request)
        is_form = request.headers.get("content-type", "").partition(";")[0] == "application/x-www-form-urlencoded"
        form = tuple(parse_qsl(request.content.decode("utf-8"), keep_blank_values=True)) if is_form else None
        try:
            found = authority.respond(
                request.method, request.url.path, form=form, authorization=request.headers.get("authorization")
            )
        except Unreachable:
            raise httpx.ConnectError("the authority is down", request=request) from None
        return httpx.Response(found.status, headers=dict(found.headers), content=found.body)

    return httpx.MockTransport(answer)
