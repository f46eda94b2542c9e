"""Transports that send the outbound requests of a guard to fake authorities, without sockets."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from scopeguard.config.checks import function, instance
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Unreachable
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.reasons import Reason

_PATIENCE: Final = 30.0
"""Seconds of real time after which a waiting test fails."""


class Hold:
    """Holds requests back: inside the ``with`` block none is answered before :meth:`release`.

    :meth:`wait_for_requests` returns when a request is waiting, so that a test need not sleep.

    >>> from scopeguard.testing import FakeAuthority
    >>> with FakeAuthority().hold() as held:
    ...     held.waiting
    0
    """

    def __init__(self, remove: Callable[[Hold], None]) -> None:
        self._remove = remove
        self._changed = threading.Condition()
        self._waiting = 0
        self._open = False

    @property
    def waiting(self) -> int:
        """The number of requests since the block was entered."""
        return self._waiting

    def wait_for_requests(self, count: int = 1) -> None:
        """Wait until *count* requests have arrived. Raises :class:`TimeoutError` after 30 seconds of real time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= count, _PATIENCE):
                raise TimeoutError(f"hold: {self._waiting} requests arrived, not {count}")

    async def await_requests(self, count: int = 1) -> None:
        """:meth:`wait_for_requests` for a task."""
        await anyio.to_thread.run_sync(
            self.wait_for_requests, count, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )

    def release(self) -> None:
        """Let all requests proceed, later ones too. The end of the block does the same."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait(self) -> None:
        """Register a request and wait for :meth:`release`. The transport calls it."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._open, _PATIENCE):
                raise TimeoutError("hold: this request was not released within 30 seconds")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove(self)
        self.release()


class RecordingTransport(ABC):
    """A transport that records each request, and holds it back if a test says so, before it is answered in process.

    ``requests`` has the URLs in order, and ``sends`` the requests, which contain secrets. Any thread may use it, and
    any event loop through :meth:`asend`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._holds: list[Hold] = []
        self.sends: list[Send] = []

    @abstractmethod
    def respond(self, request: Send) -> Answer:
        """Return the answer. Raises :class:`~scopeguard.errors.AuthorityUnavailable`, as a real transport does."""

    @property
    def requests(self) -> list[str]:
        """The requested URLs, in order."""
        return [request.url for request in self.sends]

    def serves(self, url: str) -> bool:
        """Return whether *url* has the scheme, host and port of this server."""
        own, target = urlsplit(self._url), urlsplit(url)
        return (own.scheme, own.netloc) == (target.scheme, target.netloc)

    def hold(self) -> Hold:
        """Hold requests back from now on: see :class:`Hold`."""
        hold = Hold(self._remove)
        with self._lock:
            self._holds.append(hold)
        return hold

    def _remove(self, hold: Hold) -> None:
        with self._lock:
            if hold in self._holds:
                self._holds.remove(hold)

    def send(self, request: Send, /) -> Answer:
        """Return the answer. Raises :class:`~scopeguard.errors.AuthorityUnavailable`, as a real transport does.

        A request that a :class:`Hold` releases meets the faults of that moment.
        """
        with self._lock:
            self.sends.append(request)
            holds = list(self._holds)
        for hold in holds:
            hold.wait()
        return _check_size(self.respond(request), request)

    async def asend(self, request: Send, /) -> Answer:
        """:meth:`send` for asyncio and trio. It can be cancelled while the request is held back."""
        return await anyio.to_thread.run_sync(
            self.send, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )

    def close(self) -> None:  # noqa: B027 - not abstract: no transport of this module has connections
        """Do nothing: no connection is open."""


class FakeTransport(RecordingTransport):
    """Sends requests to an :class:`~scopeguard.devserver.authority.Authority` in process.

    It records requests to unknown hosts as well. *sleep* is called with the seconds of a delay.
    """

    def __init__(self, authority: Authority, *, sleep: Callable[[float], None] | None = None) -> None:
        instance(authority, Authority, "authority", "an Authority, such as the attribute authority of a FakeAuthority")
        if sleep is not None:
            function(sleep, "sleep", "a function that takes seconds")
        super().__init__(authority.issuer)
        self._authority = authority
        self._sleep = sleep

    def count(self, endpoint: Endpoint | str) -> int:
        """Return the number of requests to *endpoint*: ``"metadata"``, ``"jwks"``, ``"introspection"``, ``"token"``
        or ``"revocation"``."""
        wanted = Endpoint(endpoint)
        return sum(
            self.serves(request.url) and self._authority.endpoint_at(urlsplit(request.url).path) is wanted
            for request in self.sends
        )

    def respond(self, request: Send) -> Answer:
        """Return the answer of the authority.

        Delays take no time: one of ``request.timeout`` or more is a timeout at once, a shorter one is passed to
        ``sleep``, if given.
        """
        delay = self._authority.faults.delay
        if delay >= request.timeout:
            raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, request.authority, seconds=request.timeout)
        if delay and self._sleep is not None:
            self._sleep(delay)
        if not self.serves(request.url):
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url)
        try:
            return self._authority.respond(
                "GET" if request.form is None and request.content is None else "POST",
                urlsplit(request.url).path,
                form=request.form,
                authorization=request.authorization,
                proofs=[value for name, value in request.headers if name == "dpop"],
            )
        except Unreachable:
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url) from None


def _check_size(answer: Answer, request: Send) -> Answer:
    """Return *answer*. Raise if it is compressed, or larger than ``request.limit`` bytes."""
    if "content-encoding" in answer.headers:
        problem = "the answer is compressed although that was not offered"
    elif len(answer.body) > request.limit:
        problem = f"the answer is larger than {request.limit} bytes"
    else:
        return answer
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, request.authority, url=request.url, problem=problem)


class _HasTransport(Protocol):
    @property
    def transport(self) -> RecordingTransport: ...


class Network:
    """A transport for several authorities and decision points. Each request goes to the one with the host of its URL.

    >>> from scopeguard.testing import FakeAuthority
    >>> one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    >>> network = Network(one, two)     # Guard(one.issuer, two.issuer, transport=network, clock=one.clock)
    """

    def __init__(self, *authorities: _HasTransport) -> None:
        for authority in authorities:
            wanted = "FakeAuthority or FakeDecisionPoint objects"
            instance(getattr(authority, "transport", None), RecordingTransport, "authorities", wanted)
        self._transports = [authority.transport for authority in authorities]
        self._unknown: list[str] = []

    @property
    def requests(self) -> list[str]:
        """The requested URLs: those of each authority in order, then those for unknown hosts."""
        return [url for transport in self._transports for url in transport.requests] + self._unknown

    def send(self, request: Send, /) -> Answer:
        """Return the answer of the authority at the URL. Raises as :meth:`FakeTransport.send` does."""
        for transport in self._transports:
            if transport.serves(request.url):
                return transport.send(request)
        self._unknown.append(request.url)
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url)

    async def asend(self, request: Send, /) -> Answer:
        """:meth:`send` for asyncio and trio."""
        return await anyio.to_thread.run_sync(
            self.send, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )

    def close(self) -> None:
        """Do nothing: no connection is open."""
