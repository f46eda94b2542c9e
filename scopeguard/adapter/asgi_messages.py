"""ASGI messages: detect a disconnect, read a form, end a response when its token expires, read the headers of an app.

Works with asyncio and trio. :mod:`scopeguard.asgi` imports this module when a guard is constructed, because anyio takes
longer to import than everything else that a guard needs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from typing import Any, ClassVar, Final, Protocol

import anyio
import anyio.lowlevel

from scopeguard.adapter.asgi_types import ASGIApp, Message, Receive, Scope, Send
from scopeguard.config.token_sources import TokenSources
from scopeguard.errors import InvalidRequest, RequestTimedOut, RequestTooLarge, ResponseAborted
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList
from scopeguard.spec.credentials import declared_length
from scopeguard.spec.websocket_close import POLICY_VIOLATION


class DisconnectDetector:
    """Detects that the client of an ASGI request has disconnected, by reading the next message.

    The detector keeps what it reads for the app, which must receive from :attr:`receive`. It does not detect a
    disconnect in three cases: a body of several messages, because it reads only the first; ``Expect: 100-continue``,
    because reading would request the body; a websocket.

    With asyncio, a receive that has begun is never cancelled: the app waits for the same one. A server may lose the
    message of a cancelled receive, as granian does, and the app would then wait for it forever.
    """

    __slots__ = ("_begun", "_kept", "_receive", "_scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._kept: list[Message] = []
        self._begun: asyncio.Future[Message] | None = None  # a receive that has not ended, with asyncio

    async def wait(self) -> None:
        """Return when the client has disconnected. May be cancelled and called again."""
        may_read = self._scope["type"] == "http" and not any(
            name.lower() == b"expect" for name, _ in self._scope.get("headers") or ()
        )
        while may_read and (not self._kept or (len(self._kept) == 1 and _ends_body(self._kept[0]))):
            try:
                self._kept.append(await self._read())
            except Exception:  # noqa: BLE001 - the app gets the same exception when it receives
                break
        if not self._kept or self._kept[-1]["type"] != "http.disconnect":
            await anyio.sleep_forever()

    @property
    def receive(self) -> Receive:
        """The receive function for the app: that of the server, unless a message is kept or a receive has begun."""
        return self._receive if not self._kept and self._begun is None else self.receive_next

    async def receive_next(self) -> Message:
        """Return the next message: a kept one, else one from the server."""
        if self._kept:
            return self._kept.pop(0)
        return await (self._receive() if self._begun is None else self._read())

    async def _read(self) -> Message:
        """Return the next message of the server. May be cancelled and called again."""
        if self._begun is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:  # trio: servers receive from a channel, so a receive loses nothing if cancelled
                return await self._receive()
            self._begun = asyncio.ensure_future(self._receive())
            # It ends with the response at the latest, with "http.disconnect". Event loops hold tasks weakly.
            _receiving.add(self._begun)
            self._begun.add_done_callback(_forget)
        await asyncio.wait((self._begun,))
        begun, self._begun = self._begun, None
        return begun.result()


_receiving: Final[set[asyncio.Future[Message]]] = set()


def _forget(begun: asyncio.Future[Message]) -> None:
    _receiving.discard(begun)
    if not begun.cancelled():
        begun.exception()  # marks the exception as retrieved, in case the app does not receive


def _ends_body(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


class RequestBody:
    """The body of a request that has to be read for the decision. The app receives the same messages again.

    *receive* is called only when :meth:`read` is.
    """

    __slots__ = ("_receive", "_replay", "_scope", "_timeout", "_was_read")

    too_large: ClassVar[Reason] = Reason.BODY_TOO_LARGE
    too_slow: ClassVar[Reason] = Reason.BODY_TOO_SLOW
    incomplete: ClassVar[Reason] = Reason.BODY_INCOMPLETE

    def __init__(self, scope: Scope, receive: Receive, timeout: float) -> None:
        self._scope = scope
        self._receive = receive
        self._timeout = timeout
        self._replay: deque[Message] = deque()  # a client may send each byte in a message of its own
        self._was_read = False

    async def read(self, limit: int) -> bytes:
        """Return the whole body, of at most *limit* bytes.

        Raises :class:`~scopeguard.errors.RequestTooLarge` for a longer body, without keeping it in memory,
        :class:`~scopeguard.errors.RequestTimedOut` after the timeout, and :class:`~scopeguard.errors.InvalidRequest`
        when the client disconnects before the end of the body.
        """
        for length in HeaderList(self._scope.get("headers") or ()).get_all("content-length"):
            if (declared_length(length.decode("latin-1")) or 0) > limit:
                raise RequestTooLarge(self.too_large, limit=limit)
        self._was_read = True
        try:
            return await _run_within(self._timeout, self._collect(limit))
        except TimeoutError:
            raise RequestTimedOut(self.too_slow, seconds=self._timeout) from None

    async def _collect(self, limit: int) -> bytes:
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise InvalidRequest(self.incomplete)
            self._replay.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                self._replay.clear()
                raise RequestTooLarge(self.too_large, limit=limit)
            if not message.get("more_body", False):
                return b"".join(part.get("body", b"") for part in self._replay)

    @property
    def receive(self) -> Receive:
        """The receive function for the app: that of the server, unless the body was read."""
        return self._receive_again if self._was_read else self._receive

    async def _receive_again(self) -> Message:
        # After the body, the next message comes from the server, because an app may wait for "http.disconnect".
        return self._replay.popleft() if self._replay else await self._receive()


async def _run_within(seconds: float, work: Coroutine[Any, Any, bytes]) -> bytes:
    """Await *work*. Raises :class:`TimeoutError` if it takes more than *seconds* from when it first has to wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio
        with anyio.fail_after(seconds):
            return await work
    return await _Impatient(work, seconds)


class _Impatient:
    """Awaits a coroutine with asyncio, and starts a timer when it first has to wait.

    The body of most requests is there when it is read. A timer for each would take as long as everything else that is
    done with the body.
    """

    __slots__ = ("_seconds", "_work")

    def __init__(self, work: Coroutine[Any, Any, bytes], seconds: float) -> None:
        self._work = work
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, bytes]:
        try:
            waits_for = self._work.send(None)
        except StopIteration as done:
            result: bytes = done.value
            return result
        return (yield from self._finish(waits_for).__await__())

    async def _finish(self, waits_for: Any) -> bytes:
        async with asyncio.timeout(self._seconds):
            return await _Resumed(self._work, waits_for)


class _Resumed:
    """Awaits the rest of a coroutine that waits for *waits_for*."""

    __slots__ = ("_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, bytes], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, bytes]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    given = yield waits_for
                except BaseException as error:  # noqa: BLE001 - passed on, such as a cancellation
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(given)
        except StopIteration as done:
            result: bytes = done.value
            return result


class FormBody(RequestBody):
    """The body of a request whose form may carry the token. It must arrive within ``form_timeout`` of *sources*."""

    __slots__ = ()

    too_large = Reason.FORM_TOO_LARGE
    too_slow = Reason.FORM_TOO_SLOW
    incomplete = Reason.FORM_INCOMPLETE

    def __init__(self, scope: Scope, receive: Receive, sources: TokenSources) -> None:
        super().__init__(scope, receive, sources.form_timeout)


class _ResponseState:
    """Whether a response or websocket is open, according to the messages that the app has sent."""

    __slots__ = ("_has_trailers", "ends_cleanly", "is_open")

    def __init__(self) -> None:
        self.is_open = False  # it has started and is not complete
        self.ends_cleanly = False
        self._has_trailers = False

    def update(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._has_trailers = bool(message.get("trailers", False))
                self.ends_cleanly = not self._has_trailers and _is_event_stream(message.get("headers", ()))
                self.is_open = self.ends_cleanly  # it may stay silent for long
            case "http.response.body" | "http.response.zerocopysend":
                self.is_open = bool(message.get("more_body", False)) or self._has_trailers
            case "http.response.trailers":
                self.is_open = bool(message.get("more_trailers", False))
            case "websocket.accept":
                self.is_open = True
            case "websocket.close" | "http.response.pathsend":
                self.is_open = False


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a response with *headers* is a stream of server-sent events without a length.

    Its client expects an end at any time, drops an incomplete event, and reconnects (HTML, section 9.2).
    """
    fields = {name.lower(): value for name, value in headers}
    media = fields.get(b"content-type", b"").partition(b";")[0].strip(b" \t").lower()
    return media == b"text/event-stream" and b"content-length" not in fields


class InProgress(Protocol):
    """What :func:`run_until_ended` needs of a connection: see :class:`scopeguard.adapter.streams.Connection`.

    ``open`` is called when a response that may last has begun, and ``close`` when it is complete. ``ending`` says why
    the connection has ended, and the text is for the client; ``cancel_scope`` is cancelled then.
    """

    cancel_scope: anyio.CancelScope

    @property
    def ending(self) -> str | None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...


async def run_until_ended(connection: InProgress, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run *app*. When *connection* ends, because its access token does, end a response that is not complete.

    A websocket is closed with code 1008, and server-sent events end with a last, empty chunk. Any other response is
    aborted, so that the client does not take the part for the whole: this function raises
    :class:`~scopeguard.errors.ResponseAborted`, and the server closes the connection without ending the message
    (RFC 9112 section 8). A response in one piece is sent even after the expiry, because its request was in time.
    """
    response = _ResponseState()

    async def send_and_watch(message: Message) -> None:
        was_open = response.is_open
        response.update(message)
        await send(message)
        if response.is_open is not was_open:
            if was_open:
                connection.close()
            else:
                connection.open()

    try:
        with connection.cancel_scope:
            await app(scope, receive, send_and_watch)
    finally:
        connection.close()
    if connection.ending is None or not response.is_open:
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": str(connection.ending)})
    elif response.ends_cleanly:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        raise ResponseAborted(f"the response was not complete: {connection.ending}")


async def get_response_start(app: ASGIApp, scope: Scope, seconds: float) -> Message | None:
    """Run *app* for a request without a body and return the message that starts its response.

    Returns ``None`` if the app returns without a response. The app is cancelled when the response starts, because it
    may stream without end. It receives one empty body, and then nothing until it is cancelled, as from a client that
    stays connected. A task that it leaves behind finds the client disconnected: it receives ``http.disconnect``, and
    sending raises ``OSError``.

    Raises :class:`TimeoutError` when no response has started after *seconds*, and any exception that the app raises
    before the start. Code that cannot be cancelled, such as a thread that the app waits for, is awaited all the same.
    """
    started: list[Message] = []
    ended = anyio.Event()
    requests: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and not started:
            started.append(message)
            limit.cancel()
        if started:
            await ended.wait()
            raise OSError("the client has disconnected")
        await anyio.lowlevel.checkpoint()

    try:
        with anyio.move_on_after(seconds) as limit:
            await app(scope, receive, send)
    except Exception:
        if not started:  # after the start, the exception is a consequence of the cancellation
            raise
    finally:
        ended.set()
    if not started and limit.cancelled_caught:
        raise TimeoutError(f"no response has started after {seconds} s")
    return started[0] if started else None
