"""Find an access token among the subprotocols of a WebSocket handshake: ``Sec-WebSocket-Protocol`` (RFC 6455).

This is the only field of the handshake that a script in a browser can set. Two conventions are in use:

* Kubernetes: a subprotocol that contains the token, and that the server never selects:
  ``base64url.bearer.authorization.k8s.io.<base64url of the token, without padding>``.
* Others: the subprotocol ``bearer``, followed by the token: ``new WebSocket(url, ["bearer", token])``. The server may
  select ``bearer``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scopeguard.errors import InvalidRequest
from scopeguard.reasons import Reason
from scopeguard.spec.credentials import TOKEN68, check_token
from scopeguard.spec.jws import decode_base64url

SOURCE: Final = "subprotocol"
_KUBERNETES: Final = "base64url.bearer.authorization.k8s.io."


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Subprotocols:
    """The subprotocols that a client offers.

    * ``others``: those that do not contain a token, in their order.
    * ``marker``: ``bearer`` in the spelling of the client, if a token follows it. The server selects it if the app
      selects no subprotocol: browsers close the connection unless one of those that they offer is selected.
    * ``encoded``, ``plain``: the tokens of the two conventions; encoded ones are not decoded yet.
    """

    others: tuple[str, ...] = ()
    marker: str | None = None
    encoded: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


def parse_subprotocols(values: Sequence[bytes]) -> Subprotocols:
    """Return the subprotocols in *values*, the field lines of ``Sec-WebSocket-Protocol``.

    RFC 6455 section 11.3.4: several lines are "logically the same as a single" field with all values.
    """
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
    """Return the token among the subprotocols in *values*, or ``None``.

    Raises :class:`InvalidRequest` for more than one token, and for a token that is empty, longer than *max_bytes*, or
    does not match *form*.
    """
    found = parse_subprotocols(values)
    tokens = (*found.encoded, *found.plain)
    if not tokens:
        return None
    if len(tokens) > 1:
        raise InvalidRequest(Reason.SEVERAL_METHODS, methods=" ".join([SOURCE] * len(tokens)))
    if found.plain:
        return check_token(found.plain[0].encode("latin-1"), max_bytes, SOURCE, form)
    if len(found.encoded[0]) > 2 * max_bytes:  # do not decode it: base64url needs four characters for three bytes
        raise InvalidRequest(Reason.TOKEN_TOO_LARGE, source=SOURCE, limit=max_bytes)
    try:
        token = decode_base64url(found.encoded[0])
    except ValueError:
        token = b" "  # check_token() rejects it as malformed
    return check_token(token, max_bytes, SOURCE, form)
