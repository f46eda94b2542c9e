"""A check that no request to another API contains the token of the caller.

It recognises the token of the current request by its fingerprint, so it needs no text of the token and no setting of
the guard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from scopeguard.client.errors import ForwardingRefused
from scopeguard.log_values import fingerprint
from scopeguard.tokens import access_token_or_none

_SEPARATORS: Final = re.compile(r'[\s,;="]+')


def refuse_inbound_token(request: Any) -> None:
    """Raise :class:`ForwardingRefused` if *request* contains the token of the request that is being served.

    An event hook for ``httpx.Client``::

        client = httpx.Client(event_hooks={"request": [refuse_inbound_token]})

    Checked: the values of all header fields, and those of the query. Not checked: the body. MCP 2026-07-28 forbids
    passing on the token that a server received: the next API would then be called with a token that is not for it.
    """
    token = access_token_or_none()
    if token is not None and any(fingerprint(value) == token.fingerprint for value in _values(request)):
        raise ForwardingRefused(
            f"the request to {request.url.host} contains the access token of the caller, which is for this API only; "
            "get one for the next API with scopeguard.client.TokenExchange"
        )


async def arefuse_inbound_token(request: Any) -> None:
    """:func:`refuse_inbound_token` for ``httpx.AsyncClient``."""
    refuse_inbound_token(request)


def contains(request: Any, text: str) -> bool:
    """Return whether a header field or the query of *request* contains *text*."""
    return any(value == text for value in _values(request))


def _values(request: Any) -> Iterator[str]:
    """Yield what may be a token in the header fields and the query."""
    for value in (*request.headers.values(), *request.url.params.values()):
        yield value
        words = _SEPARATORS.split(value)
        yield value.rpartition(" ")[2]  # the separators may be part of a token
        if len(words) > 1:
            yield from words
