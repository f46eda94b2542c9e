"""The request in the form that a guard checks: a frozen value that adapters create."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, final

from scopeguard.log_values import printable


class Headers(Protocol):
    """The header fields of a request, as the server received them."""

    def get_all(self, name: str, /) -> Sequence[bytes]:
        """Return the raw value of each field line called *name* (lower case), in order; empty if there is none.

        WSGI servers join repeated fields with a comma, so under WSGI there is at most one value.
        """
        ...  # pragma: no branch - a protocol has no body


class HeaderList:
    """Header fields as pairs of bytes, as in an ASGI scope. Names are compared without regard to case.

    Pass it as the ``headers`` of a :class:`RequestView`: ``HeaderList([(b"authorization", b"Bearer " + token)])``.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs if isinstance(pairs, list | tuple) else tuple(pairs)

    def get_all(self, name: str, /) -> Sequence[bytes]:
        """Return the raw value of each field line called *name* (ASCII, lower case), in order."""
        wanted, length = name.encode("ascii"), len(name)
        # bytes.lower() changes ASCII letters only; str.lower() would turn KELVIN SIGN into "k". The length differs
        # for most names, and is faster to compare.
        found: list[bytes] = []  # a comprehension would cost one more call
        for key, value in self._pairs:
            if len(key) == length and key.lower() == wanted:
                found.append(value)
        return found


@dataclass(slots=True, eq=False, repr=False)
class ProofNotes:
    """What several checks of one request share about its proof of possession.

    ``accepted``: the memories and proofs of the claims that were made, so that a second check of the same request is
    not a replay. ``nonce``: the next nonce, for the response; ``None`` if none is due. ``vary``: the header field in
    which the certificate of the client was found, for ``Vary``.
    """

    accepted: set[tuple[int | None, bytes]] = field(default_factory=set)
    nonce: str | None = None
    vary: str | None = None

    @property
    def changes_response(self) -> bool:
        """Whether the checks add header fields to the response."""
        return self.nonce is not None or self.vary is not None


@final
@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class RequestView:
    """One HTTP request, as passed to :meth:`Guard.check <scopeguard.Guard.check>`. Adapters create it.

    * ``method``: the method of the request line, as sent. Headers that override it are ignored.
    * ``path``: the decoded path that the app routes on, without the prefix of a mount.
    * ``headers``: the header fields: a :class:`HeaderList`, or any object with its ``get_all``.
    * ``query``: the raw query string, without the question mark.
    * ``secure``: whether the request came over TLS (``https``, ``wss``), as far as the server knows.
    * ``client``: the address of the peer; ``None`` for a Unix socket.
    * ``is_websocket``: whether this is the handshake of a WebSocket.
    * ``raw_path``: the path of the URL as sent, with the prefix of a mount, without the query; ``None`` if the server
      does not say. A DPoP proof is compared with it.
    * ``certificate``: the thumbprint (``x5t#S256``) of the client certificate of the connection, if TLS ends here.
    * ``proofs``: what adapters note about DPoP proofs of this request; ``None`` if none is expected.

    Nothing is checked. ``repr`` omits ``query``, which may contain a token.

    Example::

        request = RequestView(method="GET", path="/rows", headers=HeaderList(pairs))
        decision = guard.check(request, all_of("rows.read"))
    """

    method: str
    path: str
    headers: Headers
    query: bytes = field(default=b"", repr=False)  # the value may contain a token
    secure: bool = True
    client: str | None = None
    is_websocket: bool = False
    raw_path: bytes | None = None
    proofs: ProofNotes | None = field(default=None, repr=False)
    certificate: str | None = None

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
        raw_path: bytes | None = None,
        proofs: ProofNotes | None = None,
        certificate: str | None = None,
    ) -> None:
        # As in AccessToken: assignments to a frozen object are slow, and there is a RequestView for each request.
        target: Any = self
        object.__setattr__(self, "__class__", _Unfrozen)
        target.method = method
        target.path = path
        target.headers = headers
        target.query = query
        target.secure = secure
        target.client = client
        target.is_websocket = is_websocket
        target.raw_path = raw_path
        target.proofs = proofs
        target.certificate = certificate
        target.__class__ = RequestView


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRequest:
    """One HTTP request, as passed to a function that decides about it (``decide`` of a rule).

    * ``method``: the method of the request line, as sent.
    * ``path``: the decoded path that the app routes on, without the prefix of a mount.
    * ``route``: the path template of the rule.
    * ``query``: the raw query string, without the question mark and without an access token.
    * ``client``: the address of the peer; ``None`` for a Unix socket.
    * ``is_websocket``: whether this is the handshake of a WebSocket.

    It has no header fields, because they contain the token.
    """

    method: str
    path: str
    route: str
    query: bytes = b""
    client: str | None = None
    is_websocket: bool = False


class _Unfrozen:
    __slots__ = tuple(field.name for field in fields(RequestView))


def describe_request(request: RequestView | None) -> str:
    """Return the beginning of a line in the log, ``"GET /path: "``, escaped and bounded; ``""`` without a request."""
    return "" if request is None else f"{printable(request.method, 20)} {printable(request.path)}: "
