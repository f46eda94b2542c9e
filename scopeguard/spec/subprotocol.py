"""An access token among the subprotocols that a websocket offers: browsers can set no other field (RFC 6455 §1.9).

Two forms are in use. Kubernetes puts the token, encoded, into a name of its own, which the server never selects:
``base64url.bearer.authorization.k8s.io.<base64url of the token, without padding>``. Elsewhere the token follows a
subprotocol called ``bearer``, which the server then may select: ``new WebSocket(url, ["bearer", token])``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scopeguard.errors import InvalidRequest, Reason
from scopeguard.spec.credentials import TOKEN68, check_token
from scopeguard.spec.jws import decode_base64url

SOURCE: Final = "subprotocol"
_KUBERNETES: Final = "base64url.bearer.authorization.k8s.io."


@dataclass(frozen=True, slots=True)
class Subprotocols:
    """What a client offers: *others* are the subprotocols without those that carry a token, in their order.

    *marker* is the word before the token, as it was written. A browser gives up unless one of the offered subprotocols
    is selected, so this one is where the app selects none.
    """

    others: tuple[str, ...] = ()
    marker: str | None = None
    encoded: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


def parse_subprotocols(values: Sequence[bytes]) -> Subprotocols:
    """The subprotocols in all fields called ``Sec-WebSocket-Protocol``, which are one list (RFC 6455 §11.3.4)."""
    names = [name.strip() for name in b",".join(values).decode("latin-1").split(",")]
    names = [name for name in names if name]
    others: list[str] = []
    encoded: list[str] = []
    plain: list[str] = []
    marker: str | None = None
    position = 0
    while position < len(names):
        name = names[position]
        position += 1
        if name.startswith(_KUBERNETES):
            encoded.append(name.removeprefix(_KUBERNETES))
        elif name.lower() == "bearer":
            marker = name
            plain.append(names[position] if position < len(names) else "")
            position += 1
        else:
            others.append(name)
    return Subprotocols(tuple(others), marker, tuple(encoded), tuple(plain))


def token_from_subprotocols(values: Sequence[bytes], max_bytes: int, form: re.Pattern[bytes] = TOKEN68) -> str | None:
    """The one token among the subprotocols; ``None`` without one.

    Raises :class:`InvalidRequest` for more than one, and for a malformed, empty or oversized one.
    """
    found = parse_subprotocols(values)
    tokens = (*found.encoded, *found.plain)
    if not tokens:
        return None
    if len(tokens) > 1:
        raise InvalidRequest(Reason.SEVERAL_METHODS, methods=" ".join([SOURCE] * len(tokens)))
    if found.plain:
        return check_token(found.plain[0].encode("latin-1"), max_bytes, SOURCE, form)
    if len(found.encoded[0]) > 2 * max_bytes:  # three octets take four characters
        raise InvalidRequest(Reason.TOKEN_TOO_LARGE, source=SOURCE, limit=max_bytes)
    try:
        token = decode_base64url(found.encoded[0])
    except ValueError:
        token = b" "  # no token has this form
    return check_token(token, max_bytes, SOURCE, form)
