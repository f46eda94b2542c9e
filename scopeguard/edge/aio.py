"""Drives a flow in a task of asyncio or trio.

Nothing here blocks the event loop: a flight runs in a thread of its own, which it needs anyway, since it must outlive
the request that started it; the task only waits to be woken. One implementation of HTTP serves both colours.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from scopeguard.edge.outside import Outside
from scopeguard.effects import CallHook, Effect, Flow, ReadFile, ReadForm, Send, SingleFlight, UseStore
from scopeguard.errors import AuthorityUnavailable, Reason

T = TypeVar("T")

TimedOut = TimeoutError
"""What leaves a :func:`time_limit` that has passed."""


async def run(
    flow: Flow[T],
    outside: Outside,
    read_form: Callable[[int], Awaitable[bytes]] | None,
    effect: Effect[Any] | None = None,
) -> T:
    """The value of *flow*. *read_form* returns the body of the request, at most so many bytes. *effect*: what the flow
    has asked for, if it was begun before."""
    try:
        if effect is None:
            effect = next(flow)
        while True:
            try:
                answer = await _answer(effect, outside, read_form)
            except Exception as error:  # thrown into the flow, which decides what it means
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


async def in_thread(work: Callable[[], T]) -> T:
    """What *work* returns, computed in a thread."""
    return await anyio.to_thread.run_sync(work)


async def close(outside: Outside) -> None:
    """Close *outside*, which waits for flights, without stopping the event loop meanwhile."""
    await anyio.to_thread.run_sync(outside.close)


async def _answer(effect: object, outside: Outside, read_form: Callable[[int], Awaitable[bytes]] | None) -> Any:
    match effect:
        case SingleFlight(wait=False):
            outside.launch(effect, lambda error: None)
        case SingleFlight():
            await _fly_or_wait(effect, outside)
        case ReadForm(limit=limit) if read_form is not None:
            return await read_form(limit)
        case Send() | ReadFile() | UseStore() | CallHook():
            raise TypeError(f"{type(effect).__name__} belongs inside a SingleFlight: it would block the event loop")
        case _:
            raise TypeError(f"nobody performs {effect!r} here")
    return None


async def _fly_or_wait(flight: SingleFlight, outside: Outside) -> None:
    deadline = time.monotonic() + flight.deadline
    while flight.needed():
        landed = anyio.Event()
        failures: list[BaseException] = []
        led = outside.launch(flight, _waker(landed, failures))
        with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
            await landed.wait()
        if failures:
            raise failures[0]
        if not landed.is_set():
            raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)
        if led:  # once: it may have found that nothing can be done now
            return


def _waker(landed: anyio.Event, failures: list[BaseException]) -> Callable[[BaseException | None], None]:
    """A function for other threads that sets *landed* in the event loop of the current task."""
    # Before anyio 4.11, what is now wrapped was handed out as it is.
    token: Any = current_token()
    native: Any = getattr(token, "native_token", token)  # asyncio: the event loop; trio: a TrioToken
    in_loop = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon

    def wake(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
        try:
            in_loop(landed.set)
        except RuntimeError:
            pass  # the loop has ended, and with it whoever waited there

    return wake


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Raise :class:`TimedOut` when the block takes longer than *seconds*."""
    with anyio.fail_after(seconds):
        yield


_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


async def until(
    seconds: float,
    app: Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]],
    scope: MutableMapping[str, Any],
    receive: _Receive,
    send: _Send,
) -> None:
    """Run *app*; after *seconds*, end what it still streams: a websocket with code 1008, a response with its last
    chunk. A response that has not begun by then is left alone: its request was in time (H-04)."""
    open_stream = finished = expired = False
    failure: BaseException | None = None

    async def sending(message: _Message) -> None:
        nonlocal open_stream, finished
        kind = message["type"]
        if kind in ("websocket.close", "http.response.body") and not message.get("more_body", False):
            finished = True
        elif kind in ("websocket.accept", "http.response.body"):
            open_stream = True
        await send(message)
        if expired and open_stream and not finished:
            group.cancel_scope.cancel()

    async def timer() -> None:
        nonlocal expired
        await anyio.sleep(max(0.0, seconds))
        expired = True
        if open_stream and not finished:
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
    if expired and open_stream and not finished:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "The access token expired"})
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
