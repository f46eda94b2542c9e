"""A transport that traces the exchanges of a guard: how long each took, with which server, and over which TLS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from scopeguard.config.hosts import origin_of
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Transport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Clock, Send
from scopeguard.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection that was opened. Times are in seconds; those of ``connecting`` include the look-up of the name.

    ``encryption`` is the version of TLS, as in "TLSv1.3", and ``certificate_ends`` the end of the validity of the
    server's certificate. Both are ``None`` for a cleartext connection.
    """

    address: str
    connecting: float
    handshake: float | None = None
    encryption: str | None = None
    certificate_ends: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange. ``connection`` is ``None`` if an open connection was used, or if the transport is not scopeguard's.

    * ``seconds``: the time that it took, with retries.
    * ``at``: the time by the guard's clock, in seconds since the epoch, in the middle of the exchange.
    * ``answer``, ``failure``: the response, or why there is none.
    """

    url: str
    seconds: float
    at: float
    connection: Connection | None = None
    answer: Answer | None = None
    failure: AuthorityUnavailable | None = None

    @property
    def reached(self) -> bool:
        """True if the server sent a response, even one that cannot be used."""
        unreached = (Reason.AUTHORITY_UNREACHABLE, Reason.AUTHORITY_TIMED_OUT)
        return self.failure is None or self.failure.reason not in unreached

    @property
    def origin(self) -> str:
        """The scheme, host and port of the URL."""
        return origin_of(self.url)


class TracingTransport:
    """Sends every request with *inner*, and keeps an :class:`Exchange` for each. For one thread."""

    def __init__(self, inner: Transport, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._begun: dict[str, float] = {}
        self.exchanges: list[Exchange] = []
        if isinstance(inner, HttpxTransport):
            inner.trace = self._note

    def send(self, request: Send, /) -> Answer:
        """Return the response, or raise :class:`AuthorityUnavailable`, as *inner* does."""
        self._connection = None
        begun, wall = self._monotonic(), self._clock.wall()
        answer: Answer | None = None
        failure: AuthorityUnavailable | None = None
        try:
            answer = self._inner.send(request)
        except AuthorityUnavailable as problem:
            failure = problem
            raise
        finally:
            seconds = self._monotonic() - begun
            self.exchanges.append(
                Exchange(
                    url=request.url,
                    seconds=seconds,
                    at=wall + seconds / 2,
                    connection=self._connection,
                    answer=answer,
                    failure=failure,
                )
            )
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the times and the peer of the two events that open a connection; see :attr:`HttpxTransport.trace`."""
        _, step, state = event.split(".")
        if step not in ("connect_tcp", "start_tls"):
            return
        if state == "started":
            self._begun[step] = self._monotonic()
        elif state == "complete":
            seconds, stream = self._monotonic() - self._begun[step], info["return_value"]
            if step == "connect_tcp":
                self._connection = Connection(address=_address(stream), connecting=seconds)
            elif self._connection is not None:
                self._connection = _describe_tls(self._connection, stream, seconds)


def _address(stream: Any) -> str:
    peer = stream.get_extra_info("server_addr")
    return str(peer[0]) if isinstance(peer, tuple) else str(peer)


def _describe_tls(connection: Connection, stream: Any, seconds: float) -> Connection:
    tls = stream.get_extra_info("ssl_object")
    der = tls.getpeercert(True)  # noqa: FBT003 - the object of the ssl module takes no keyword
    ends = None if der is None else x509.load_der_x509_certificate(der).not_valid_after_utc
    return Connection(
        address=connection.address,
        connecting=connection.connecting,
        handshake=seconds,
        encryption=tls.version(),
        certificate_ends=None if ends is None else ends.astimezone(UTC),
    )
