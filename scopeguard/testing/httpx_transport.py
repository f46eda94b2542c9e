"""A transport for ``httpx`` that calls an authority in process, for tests of OAuth clients."""

from __future__ import annotations

from urllib.parse import parse_qsl

import httpx

from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Unreachable


def mock_transport(authority: Authority) -> httpx.MockTransport:
    """Return a transport, sync and async, whose requests *authority* answers. Requests to other hosts fail."""
    origin = httpx.URL(authority.issuer)

    def respond(request: httpx.Request) -> httpx.Response:
        if (request.url.scheme, request.url.netloc) != (origin.scheme, origin.netloc):
            raise httpx.ConnectError("no such host in this test", request=request)
        is_form = request.headers.get("content-type", "").partition(";")[0] == "application/x-www-form-urlencoded"
        form = tuple(parse_qsl(request.content.decode("utf-8"), keep_blank_values=True)) if is_form else None
        try:
            answer = authority.respond(
                request.method,
                request.url.path,
                form=form,
                authorization=request.headers.get("authorization"),
                proofs=request.headers.get_list("dpop"),
            )
        except Unreachable:
            raise httpx.ConnectError("the authority is down", request=request) from None
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    return httpx.MockTransport(respond)
