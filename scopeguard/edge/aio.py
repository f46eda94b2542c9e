"""Runs a flow in a task of asyncio or trio.

Nothing here blocks the event loop. A flight runs in its own thread, because it must outlive the request that started
it, and the task waits for it. One HTTP client thereby serves sync and async apps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.lowlevel import current_token

from scopeguard.edge.runtime import Runtime, ignore, thrown
from scopeguard.edge.single_flight import Wake
from scopeguard.errors import AuthorityUnavailable, Reason, ResponseAborted
from scopeguard.flow.effects import CallHook, Effect, Flow, ReadFile, ReadForm, Send, SingleFlight, UseStore

T = TypeVar("T")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

# How long a running flight is awaited for a client that has disconnected, in seconds.
_LINGER: Final = 1.0

TimedOut = TimeoutError
"""Raised when a :func:`time_limit` is exceeded."""


async def run(
    flow: Flow[T],
    outside: Runtime,
    read_form: Callable[[int], Awaitable[bytes]] | None,
    effect: Effect[Any] | None = None,
    client_gone: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Run *flow* and return its value.

    *read_form* reads at most that many bytes of the request body. *effect* is the first effect of a flow that was
    already started. *client_gone* returns when the client has disconnected. It runs while the request waits for a
    flight, and is cancelled when the wait ends; if it returns first, the request stops waiting.
    """
    try:
        if effect is None:
            effect = next(flow)
        while True:
            try:
                answer = await _answer(effect, outside, read_form, client_gone)
            except Exception as error:
                effect = thrown(error, flow, effect)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


async def in_thread(work: Callable[[], T]) -> T:
    """Call *work* in a thread and return its result."""
    return await anyio.to_thread.run_sync(work)


async def close(outside: Runtime) -> None:
    """Close *outside*, which waits for flights, without blocking the event loop."""
    await anyio.to_thread.run_sync(outside.close)


async def _answer(
    effect: object,
    outside: Runtime,
    read_form: Callable[[int], Awaitable[bytes]] | None,
    client_gone: Callable[[], Awaitable[None]] | None,
) -> Any:
    match effect:
        case SingleFlight(wait=False):
            outside.launch(effect, ignore)
        case SingleFlight():
            await _fly_or_wait(effect, outside, client_gone)
        case ReadForm(limit=limit) if read_form is not None:
            return await read_form(limit)
        case Send() | ReadFile() | UseStore() | CallHook():
            raise TypeError(f"{type(effect).__name__} belongs inside a SingleFlight: it would block the event loop")
        case _:
            raise TypeError(f"this edge cannot perform {effect!r}")
    return None


async def _fly_or_wait(
    flight: SingleFlight, outside: Runtime, client_gone: Callable[[], Awaitable[None]] | None
) -> None:
    deadline = time.monotonic() + flight.deadline
    while flight.needed():
        landed = anyio.Event()
        failures: list[BaseException] = []
        wake = _waker(landed, failures)
        led = outside.launch(flight, wake)
        try:
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                if await _client_goes(landed, client_gone):
                    # A running flight is awaited for a moment: it costs nothing more, and some clients close their half
                    # of the connection after sending the request.
                    if not outside.is_queued(flight):
                        with anyio.move_on_after(_LINGER):
                            await landed.wait()
                    if not landed.is_set():
                        raise AuthorityUnavailable(Reason.CALLER_LEFT, flight.authority)
        finally:
            if not landed.is_set():  # cancelled, or late
                outside.abandon(flight, wake)
        if failures:
            raise failures[0]
        if not landed.is_set():
            raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)
        if led:  # once, even if the work is still needed: it may be impossible now
            return


async def _client_goes(landed: anyio.Event, client_gone: Callable[[], Awaitable[None]] | None) -> bool:
    """Wait for *landed* or until the client has disconnected. Return whether it has disconnected first."""
    if client_gone is None:
        await landed.wait()
        return False
    gone = False

    async def watch() -> None:
        nonlocal gone
        await client_gone()
        gone = True
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await landed.wait()
        group.cancel_scope.cancel()
    return gone and not landed.is_set()


def _waker(landed: anyio.Event, failures: list[BaseException]) -> Wake:
    """Return a function for other threads that sets *landed* in the event loop of the current task."""
    # Before anyio 4.11, the native token was returned without a wrapper.
    token: Any = current_token()
    native: Any = getattr(token, "native_token", token)  # asyncio: the event loop; trio: a TrioToken
    in_loop = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon

    def wake(failure: BaseException | None = None) -> None:
        if failure is not None:
            failures.append(failure)
        try:
            in_loop(landed.set)
        except RuntimeError:
            pass  # the loop has ended, and with it the waiting task

    return wake


class Presence:
    """Detects that the client of an ASGI request has disconnected, by reading the next message.

    A message that is read for this is kept for the app. A disconnect is not detected in three cases: a body of several
    messages, which is not read further; ``Expect: 100-continue``, because reading would request the body; a websocket.

    With asyncio, a receive that has begun is never cancelled: the app waits for the same one. A server may lose the
    message of a cancelled receive, as granian does, and the app would then wait for it forever.
    """

    __slots__ = ("_begun", "_held", "_receive", "_scope")

    def __init__(self, scope: _Message, receive: _Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._held: list[_Message] = []
        self._begun: asyncio.Future[_Message] | None = None  # a receive that is not over, with asyncio

    async def gone(self) -> None:
        """Return when the client has disconnected. May be cancelled and called again."""
        reads = self._scope["type"] == "http" and not any(
            name.lower() == b"expect" for name, _ in self._scope.get("headers") or ()
        )
        while reads and (not self._held or (len(self._held) == 1 and _ends_body(self._held[0]))):
            try:
                self._held.append(await self._read())
            except Exception:  # the app gets it again when it receives
                break
        if not self._held or self._held[-1]["type"] != "http.disconnect":
            await anyio.sleep_forever()

    @property
    def receive(self) -> _Receive:
        """The receive function for the app: that of the server, unless a message is kept or a receive has begun."""
        return self._receive if not self._held and self._begun is None else self.next

    async def next(self) -> _Message:
        """Return the next message: a kept one, else one from the server."""
        if self._held:
            return self._held.pop(0)
        return await (self._receive() if self._begun is None else self._read())

    async def _read(self) -> _Message:
        """Return the next message of the server. May be cancelled and called again."""
        if self._begun is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:  # trio, whose servers receive from channels
                return await self._receive()
            self._begun = asyncio.ensure_future(self._receive())
            # It ends with the response at the latest, with "http.disconnect". Event loops hold tasks weakly.
            _receiving.add(self._begun)
            self._begun.add_done_callback(_received)
        await asyncio.wait((self._begun,))
        begun, self._begun = self._begun, None
        return begun.result()


_receiving: set[asyncio.Future[_Message]] = set()


def _received(begun: asyncio.Future[_Message]) -> None:
    _receiving.discard(begun)
    if not begun.cancelled():
        begun.exception()  # marks the exception as retrieved, in case the app does not receive


def _ends_body(message: _Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Raise :class:`TimedOut` when the block takes longer than *seconds*."""
    with anyio.fail_after(seconds):
        yield


async def response_start(
    app: Callable[[_Message, _Receive, _Send], Awaitable[None]], scope: _Message, seconds: float
) -> _Message | None:
    """Run *app* for a request without a body and return the message that starts its response.

    The app is cancelled there: it may stream without end. ``None`` if it returns without an answer. The app receives
    one empty body, and then nothing until it is cancelled, as from a client that stays. A task that it leaves behind
    finds the client gone: it receives ``http.disconnect``, and to send raises ``OSError``.

    Raises :class:`TimedOut` when no response has started after *seconds*, and whatever the app raises before that. Code
    that cannot be cancelled (a thread that the app waits for) is waited for all the same.
    """
    started: list[_Message] = []
    over = anyio.Event()
    requests: list[_Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> _Message:
        if requests:
            return requests.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: _Message) -> None:
        if message["type"] == "http.response.start" and not started:
            started.append(message)
            limit.cancel()
        if started:
            await over.wait()
            raise OSError("the client has gone")
        await anyio.lowlevel.checkpoint()

    try:
        with anyio.move_on_after(seconds) as limit:
            await app(scope, receive, send)
    except Exception:
        if not started:  # else it is about the cancellation
            raise
    finally:
        over.set()
    if not started and limit.cancelled_caught:
        raise TimedOut(f"no response has started after {seconds} s")
    return started[0] if started else None


class _Stream:
    """The state of a response or websocket, from the messages that the app has sent."""

    __slots__ = ("_has_trailers", "ends_cleanly", "is_open")

    def __init__(self) -> None:
        self.is_open = False  # started, and not complete
        self.ends_cleanly = False
        self._has_trailers = False

    def note(self, message: _Message) -> None:
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
    given = {name.lower(): value for name, value in headers}
    media = given.get(b"content-type", b"").partition(b";")[0].strip(b" \t").lower()
    return media == b"text/event-stream" and b"content-length" not in given


async def until(
    seconds: float,
    app: Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]],
    scope: MutableMapping[str, Any],
    receive: _Receive,
    send: _Send,
) -> None:
    """Run *app*; after *seconds*, end what it still streams.

    A websocket is closed with code 1008, and server-sent events end with a last, empty chunk. Any other response is
    aborted, so that the client does not take the part for the whole: :class:`ResponseAborted` goes to the server, which
    closes the connection without ending the message (RFC 9112 section 8). A response in one piece
    is not aborted, however late: its request was in time.
    """
    stream = _Stream()
    expired = False
    failure: BaseException | None = None

    async def sending(message: _Message) -> None:
        stream.note(message)
        await send(message)
        if expired and stream.is_open:
            group.cancel_scope.cancel()

    async def timer() -> None:
        nonlocal expired
        await anyio.sleep(max(0.0, seconds))
        expired = True
        if stream.is_open:
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(timer)
        try:
            await app(scope, receive, sending)
        except Exception as error:  # raised below, outside the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not expired or not stream.is_open:
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "The access token expired"})
    elif stream.ends_cleanly:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        raise ResponseAborted("the access token expired before the response was complete")
