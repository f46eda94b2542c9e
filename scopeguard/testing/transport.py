"""The way from a guard to a fake authority: what performs :class:`~scopeguard.flow.effects.Send` without a socket."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from scopeguard.config.checks import function, instance
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Unreachable
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.flow.effects import Answer, Send

_PATIENCE: Final = 30.0
"""Seconds of real time after which a test that waits here is taken for stuck."""


class Hold:
    """Requests that wait: inside the ``with`` block every one that is sent stays unanswered until :meth:`release`.

    ``held.arrived()`` returns when one has come in, so that a test knows that it hangs and need not sleep.

    >>> from scopeguard.testing import FakeAuthority
    >>> with FakeAuthority().hold() as held:
    ...     held.waiting
    0
    """

    def __init__(self, let_go: Callable[[Hold], None]) -> None:
        self._let_go = let_go
        self._changed = threading.Condition()
        self._waiting = 0
        self._open = False

    @property
    def waiting(self) -> int:
        """How many requests have come in since the block was entered."""
        return self._waiting

    def arrived(self, count: int = 1) -> None:
        """Wait until *count* requests have come in; :class:`TimeoutError` after half a minute of real time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= count, _PATIENCE):
                raise TimeoutError(f"{self._waiting} requests came in, not {count}")

    async def aarrived(self, count: int = 1) -> None:
        """:meth:`arrived` for a task."""
        await anyio.to_thread.run_sync(self.arrived, count, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))

    def release(self) -> None:
        """Let all requests go on, those to come as well. Leaving the block does the same."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def pass_by(self) -> None:
        """For the transport: come in, and go on when allowed to."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._open, _PATIENCE):
                raise TimeoutError("hold: nobody released this request")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go(self)
        self.release()


class FakeTransport:
    """Performs exchanges by asking an :class:`~scopeguard.devserver.authority.Authority` in this process.

    What is asked is remembered before it is answered, so a request to a host that does not exist shows as well:
    ``requests`` are the URLs in order, ``sends`` the requests themselves (they hold secrets).

    A transport may be used from any thread, and from any event loop by ``asend``.
    """

    def __init__(self, authority: Authority, *, sleep: Callable[[float], None] | None = None) -> None:
        instance(
            authority, Authority, "authority", "an Authority; the one of a FakeAuthority is its attribute authority"
        )
        if sleep is not None:
            function(sleep, "sleep", "a function that takes seconds")
        self._authority = authority
        self._sleep = sleep
        self._lock = threading.Lock()
        self._holds: list[Hold] = []
        self.sends: list[Send] = []

    @property
    def requests(self) -> list[str]:
        """The URLs that were asked for, in order."""
        return [request.url for request in self.sends]

    def count(self, endpoint: Endpoint | str) -> int:
        """How often *endpoint* (``"metadata"``, ``"jwks"``, ``"introspection"``, ``"token"`` ...) was asked."""
        wanted = Endpoint(endpoint)
        return sum(
            self.serves(request.url) and self._authority.endpoint_at(urlsplit(request.url).path) is wanted
            for request in self.sends
        )

    def serves(self, url: str) -> bool:
        """Whether *url* is of this authority's scheme, host and port."""
        mine, asked = urlsplit(self._authority.issuer), urlsplit(url)
        return (mine.scheme, mine.netloc) == (asked.scheme, asked.netloc)

    def hold(self) -> Hold:
        """Requests wait from here on: see :class:`Hold`."""
        hold = Hold(self._let_go)
        with self._lock:
            self._holds.append(hold)
        return hold

    def _let_go(self, hold: Hold) -> None:
        with self._lock:
            if hold in self._holds:
                self._holds.remove(hold)

    def send(self, request: Send, /) -> Answer:
        """The answer, or :class:`~scopeguard.errors.AuthorityUnavailable` as a real transport raises it.

        A slow authority costs no time here: a delay of ``request.timeout`` or more is a timeout at once, a shorter one
        is given to ``sleep``, if there is one. Faults are looked at when the request goes on after a :class:`Hold`.
        """
        with self._lock:
            self.sends.append(request)
            holds = list(self._holds)
        for hold in holds:
            hold.pass_by()
        delay = self._authority.faults.delay
        if delay >= request.timeout:
            raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, request.authority, seconds=request.timeout)
        if delay and self._sleep is not None:
            self._sleep(delay)
        if not self.serves(request.url):
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url)
        try:
            answer = self._authority.respond(
                "GET" if request.form is None else "POST",
                urlsplit(request.url).path,
                form=request.form,
                authorization=request.authorization,
            )
        except Unreachable:
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority) from None
        return _bounded(answer, request)

    async def asend(self, request: Send, /) -> Answer:
        """:meth:`send` for a task: it does not block the event loop, and can be cancelled while it is held."""
        return await anyio.to_thread.run_sync(
            self.send, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )

    def close(self) -> None:
        """Nothing is open."""


def _bounded(answer: Answer, request: Send) -> Answer:
    """*answer*, unless it is larger than ``request.limit`` bytes or compressed, which the guard never offers."""
    if "content-encoding" in answer.headers:
        problem = "the answer is compressed although that was not offered"
    elif len(answer.body) > request.limit:
        problem = f"the answer is larger than {request.limit} bytes"
    else:
        return answer
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, request.authority, url=request.url, problem=problem)


class _Carrier(Protocol):
    @property
    def transport(self) -> FakeTransport: ...


class Network:
    """One transport for several authorities: each request goes to the one whose host it names.

    >>> from scopeguard.testing import FakeAuthority
    >>> one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    >>> network = Network(one, two)     # Guard(one.issuer, two.issuer, transport=network, clock=one.clock)
    """

    def __init__(self, *authorities: _Carrier) -> None:
        for authority in authorities:
            instance(getattr(authority, "transport", None), FakeTransport, "authorities", "FakeAuthority objects")
        self._transports = [authority.transport for authority in authorities]
        self._strays: list[str] = []

    @property
    def requests(self) -> list[str]:
        """The URLs that were asked for: those of each authority in order, then those of no known authority."""
        return [url for transport in self._transports for url in transport.requests] + self._strays

    def send(self, request: Send, /) -> Answer:
        """As :meth:`FakeTransport.send` of the authority concerned."""
        for transport in self._transports:
            if transport.serves(request.url):
                return transport.send(request)
        self._strays.append(request.url)
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url)

    async def asend(self, request: Send, /) -> Answer:
        """:meth:`send` for a task."""
        return await anyio.to_thread.run_sync(
            self.send, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )

    def close(self) -> None:
        """Nothing is open."""
