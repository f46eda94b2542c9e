"""One time limit for a whole HTTP exchange: name resolution, every address, TLS, each read and write.

A timeout of httpx applies to one step: a slowly dripping response never exceeds it, a host with twelve silent addresses
takes twelve timeouts, and name resolution has none. Here each step gets the remaining time of the whole exchange.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked

if TYPE_CHECKING:
    import ssl

# A silent address must not use up the time of the addresses after it.
_LONGEST_CONNECT: Final = 2.0
# Concurrent look-ups of names that were not found before, of those that were, and of the latter for one authority. A
# hanging look-up cannot be interrupted, so this bounds the hanging threads. The metadata of one issuer can name any
# hosts, and its name servers can answer once and hang later: they must not keep the others from being looked up.
MOST_LOOKUPS: Final = 8
_MOST_OF_KNOWN_NAMES: Final = 32
MOST_OF_ONE_AUTHORITY: Final = 4
_MOST_FOUND: Final = 1000
# The stream applies the whole timeout to each part that the peer accepts, so large requests are written in pieces.
_PIECE: Final = 4096


class Deadline(threading.local):
    """The exchange that this thread performs, and its end in monotonic seconds."""

    at: float = float("inf")
    authority: str = ""  # with which it is performed, as in AuthorityUnavailable
    sent: bool = False  # whether any part of the request was sent

    def remaining(self, seconds: float | None = None) -> float:
        """Return *seconds*, or the remaining time if that is less. Raises :class:`TimeoutError` if none remains."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if seconds is None else min(seconds, left)


class NameLookups(Locked):
    """Look-ups of host addresses in threads, so that callers can stop waiting.

    ``getaddrinfo`` has no timeout and cannot be interrupted: a resolver that hangs would hold a caller for half a
    minute. Callers that want the same host share one look-up. Safe to use from any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[tuple[str, int], _Lookup] = {}
        self._found: BoundedMap[tuple[str, int], bool] = BoundedMap(_MOST_FOUND)  # whose last look-up was in time

    def addresses(self, host: str, port: int, seconds: float, authority: str = "") -> tuple[str, ...]:
        """Return the addresses of *host*, in the order to try them. Waits for at most *seconds*.

        *authority*: that of the exchange, which has a share of the look-ups.

        Raises :class:`OSError` if there is none, and :class:`TimeoutError` if the look-up takes longer.
        """
        if _is_address(host):
            return (host,)
        with self._lock:
            lookup = self._pending.get((host, port))
            if lookup is None:
                lookup = _Lookup(authority, was_found=(host, port) in self._found)
                if not self._has_room(lookup):
                    raise TimeoutError("too many names are being looked up already, and none of them has been found")
                self._pending[host, port] = lookup
                try:
                    threading.Thread(
                        target=self._look_up, args=(host, port, lookup), name="scopeguard-lookup", daemon=True
                    ).start()
                except RuntimeError as error:  # no thread can be started
                    del self._pending[host, port]
                    raise OSError(str(error)) from None
        in_time = lookup.done.wait(seconds)
        with self._lock:
            if in_time and lookup.failure is None:
                self._found.put((host, port), True)  # noqa: FBT003 - the value of a map that is used as a set
            else:
                self._found.pop((host, port))
        if not in_time:
            raise TimeoutError("the name of the host could not be looked up in time")
        if lookup.failure is not None:
            raise OSError(lookup.failure)
        return lookup.addresses

    def _has_room(self, lookup: _Lookup) -> bool:
        alike = [each for each in self._pending.values() if each.was_found == lookup.was_found]
        if not lookup.was_found:
            return len(alike) < MOST_LOOKUPS
        own = sum(each.authority == lookup.authority for each in alike)
        return own < MOST_OF_ONE_AUTHORITY and len(alike) < _MOST_OF_KNOWN_NAMES

    def _look_up(self, host: str, port: int, lookup: _Lookup) -> None:
        import socket

        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            lookup.addresses = tuple(dict.fromkeys(_format_address(address) for *_, address in found))
        except (OSError, UnicodeError) as error:
            lookup.failure = str(error)
        finally:
            with self._lock:
                self._pending.pop((host, port), None)
            lookup.done.set()

    def after_fork(self) -> None:
        """Replace the lock and drop the look-ups of threads that do not exist in the child process."""
        super().after_fork()
        self._pending = {}


class _Lookup:
    __slots__ = ("addresses", "authority", "done", "failure", "was_found")

    def __init__(self, authority: str, *, was_found: bool) -> None:
        self.authority = authority
        self.was_found = was_found
        self.done = threading.Event()
        self.addresses: tuple[str, ...] = ()
        self.failure: str | None = None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _format_address(address: Any) -> str:
    """Return the text of a socket address, with the interface that a link-local address needs."""
    text, scope = str(address[0]), address[3] if len(address) > 3 else 0
    return f"{text}%{scope}" if scope and "%" not in text else text


class Streams(Locked):
    """The open streams of one transport. Safe to use from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._open: weakref.WeakSet[DeadlineBackend] = weakref.WeakSet()

    def after_fork(self) -> None:
        """Replace the lock and drop the streams, which belong to the parent."""
        super().after_fork()
        self._open = weakref.WeakSet()

    def add(self, stream: DeadlineBackend) -> None:
        """Add *stream*, which was opened. Holds only a weak reference to it."""
        with self._lock:
            self._open.add(stream)

    def cut_off(self) -> None:
        """Shut down all streams, so that each thread that reads or writes one wakes as if the peer had closed it.

        The sockets are not closed: new connections could get their numbers while those threads use them.
        """
        import socket

        with self._lock:
            streams = list(self._open)
        for stream in streams:
            connection = stream.get_extra_info("socket")
            with contextlib.suppress(OSError):  # closed, or handed over to TLS
                # Not SSLSocket.shutdown(), which removes the TLS session that the other thread is using.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class DeadlineBackend:
    """A network backend of httpcore, or one of its streams, bounded by the deadline of the exchange."""

    def __init__(self, inner: Any, deadline: Deadline, lookups: NameLookups, streams: Streams) -> None:
        self._inner = inner
        self._deadline = deadline
        self._lookups = lookups
        self._streams = streams

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> DeadlineBackend:
        """Connect to the first address of *host* that responds. Each gets an equal share of the remaining time."""
        import httpcore

        try:
            addresses = self._lookups.addresses(host, port, self._deadline.remaining(), self._deadline.authority)
        except TimeoutError:
            raise
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        failure: Exception = httpcore.ConnectError("the host has no address")
        for behind, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = min(_LONGEST_CONNECT, self._deadline.remaining(timeout) / behind)
            try:
                return self._wrap(self._inner.connect_tcp(address, port, timeout=share, **options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> DeadlineBackend:
        """Return the stream after a TLS handshake."""
        return self._wrap(self._inner.start_tls(ssl_context, server_hostname, self._deadline.remaining(timeout)))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read at most *max_bytes*."""
        data: bytes = self._inner.read(max_bytes, self._deadline.remaining(timeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        self._deadline.sent = True
        for start in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[start : start + _PIECE], self._deadline.remaining(timeout))

    def _wrap(self, inner: Any) -> DeadlineBackend:
        stream = DeadlineBackend(inner, self._deadline, self._lookups, self._streams)
        self._streams.add(stream)
        return stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
