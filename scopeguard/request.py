"""The request as the core sees it: a frozen value that an adapter fills in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, final


class Headers(Protocol):
    """The header fields of a request, as the server received them."""

    def get_all(self, name: str, /) -> Sequence[bytes]:
        """Every field line called *name* (lower case), raw and in order; empty when there is none.

        WSGI servers join repeated fields with a comma before anyone sees them, so there it has one item at most.
        """
        ...  # pragma: no branch - a protocol has no body


class HeaderList:
    """Header fields given as pairs of bytes, as in an ASGI scope; names are compared without regard to case."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs if isinstance(pairs, list | tuple) else tuple(pairs)

    def get_all(self, name: str, /) -> Sequence[bytes]:
        wanted, length = name.encode("ascii"), len(name)
        # bytes.lower() touches ASCII letters only; str.lower() would fold KELVIN SIGN to "k". Most names are
        # not even of that length.
        return [value for key, value in self._pairs if len(key) == length and key.lower() == wanted]


@final
@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class RequestView:
    """One request.

    * ``method``: as sent; the method of the request line, whatever override headers say.
    * ``path``: the decoded path the app routes on, without mount prefix.
    * ``headers``: the header fields.
    * ``query``: the raw query string, without the question mark.
    * ``secure``: whether the request came by TLS as far as the server knows (``https``, ``wss``).
    * ``client``: the address of the peer, ``None`` for a Unix socket.
    * ``is_websocket``: whether it is the handshake of a websocket.
    """

    method: str
    path: str
    headers: Headers
    query: bytes = field(default=b"", repr=False)  # a token may be in it
    secure: bool = True
    client: str | None = None
    is_websocket: bool = False

    def __init__(
        self,
        *,
        method: str,
        path: str,
        headers: Headers,
        query: bytes = b"",
        secure: bool = True,
        client: str | None = None,
        is_websocket: bool = False,
    ) -> None:
        # As in AccessToken: a frozen object is filled while its class is not frozen. One is made for each request.
        target: Any = self
        object.__setattr__(self, "__class__", _Unfrozen)
        target.method = method
        target.path = path
        target.headers = headers
        target.query = query
        target.secure = secure
        target.client = client
        target.is_websocket = is_websocket
        target.__class__ = RequestView


class _Unfrozen:
    __slots__ = tuple(field.name for field in fields(RequestView))
