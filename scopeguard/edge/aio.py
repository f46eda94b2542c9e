"""Runs a flow in a task of asyncio or trio.

Nothing here blocks the event loop. A flight runs in its own thread, because it must outlive the request that started
it, and the task waits for it. One HTTP client thereby serves sync and async apps.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar, current_token

from scopeguard.edge.runtime import Runtime, ignore, throw_into
from scopeguard.edge.single_flight import Wake
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import (
    SHARED_STORE,
    CallApp,
    CallHook,
    Effect,
    Flow,
    ReadFile,
    ReadForm,
    Send,
    SingleFlight,
    Store,
    UseStore,
)
from scopeguard.reasons import Reason

T = TypeVar("T")

# The seconds for which a running flight is awaited for a client that has disconnected.
_LINGER: Final = 1.0
# The greatest number of blocking policy functions that run at once. They do not use the app's own worker threads.
_MOST_CALLS: Final = 40
_calls: Final[RunVar[anyio.CapacityLimiter]] = RunVar("scopeguard_calls")  # one limiter for each event loop
# The greatest numbers of requests that use the shared store, and that wait for it. If it hangs, others do not wait.
_MOST_STORE_CALLS: Final = 40
_MOST_WAITING: Final = 400
_store_calls: Final[RunVar[_StoreCalls]] = RunVar("scopeguard_store_calls")


async def run(
    flow: Flow[T],
    runtime: Runtime,
    read_form: Callable[[int], Awaitable[bytes]] | None,
    effect: Effect[Any] | None = None,
    client_gone: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Run *flow* and return its value.

    *read_form* reads the request body, up to the given number of bytes. *effect* is the first effect of a flow that was
    already started. *client_gone* returns when the client has disconnected. It runs while the request waits for a
    flight, and is cancelled when the wait ends; if it returns first, the request stops waiting.
    """
    try:
        if effect is None:
            effect = next(flow)
        while True:
            try:
                answer = await _answer(effect, runtime, read_form, client_gone)
            except Exception as error:
                effect = throw_into(error, flow, effect)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


def prepare() -> None:
    """Import the part of anyio that serves the running event loop. anyio does so when it is first used."""
    anyio.Event()


async def run_in_thread(work: Callable[[], T]) -> T:
    """Call *work* in a thread and return its result."""
    return await anyio.to_thread.run_sync(work)


async def close(runtime: Runtime) -> None:
    """Close *runtime*, which waits for flights, without blocking the event loop."""
    await anyio.to_thread.run_sync(runtime.close)


async def _answer(
    effect: object,
    runtime: Runtime,
    read_form: Callable[[int], Awaitable[bytes]] | None,
    client_gone: Callable[[], Awaitable[None]] | None,
) -> Any:
    match effect:
        case SingleFlight(wait=False):
            runtime.start_flight(effect, ignore)
        case SingleFlight():
            await _run_or_wait(effect, runtime, client_gone)
        case ReadForm(limit=limit) if read_form is not None:
            return await read_form(limit)
        case CallApp():
            return await _call_app(effect)
        case UseStore() if runtime.store is not None:
            return await _use_store(effect, runtime, runtime.store)
        case Send() | ReadFile() | CallHook():
            raise TypeError(f"{type(effect).__name__} belongs inside a SingleFlight: it would block the event loop")
        case _:
            raise TypeError(f"this edge cannot perform {effect!r}")
    return None


async def _call_app(call: CallApp) -> Any:
    if call.is_async:
        return await call.function()
    limiter = _calls.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_MOST_CALLS)
        _calls.set(limiter)
    # In a list, because trio raises an error of its own for a result that can be awaited.
    (answer,) = await anyio.to_thread.run_sync(lambda: [call.function()], limiter=limiter)
    return answer


class _StoreCalls:
    """The requests in one event loop that use the shared store or wait for it."""

    def __init__(self) -> None:
        self.limiter = anyio.CapacityLimiter(_MOST_STORE_CALLS)
        self.count = 0


async def _use_store(effect: UseStore[T], runtime: Runtime, store: Store) -> T:
    calls = _store_calls.get(None)
    if calls is None:
        calls = _StoreCalls()
        _store_calls.set(calls)
    if calls.count >= _MOST_STORE_CALLS + _MOST_WAITING:
        raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, SHARED_STORE, problem="too many requests")
    calls.count += 1
    try:
        result: T = await anyio.to_thread.run_sync(runtime.use_store, effect.operation, store, limiter=calls.limiter)
    finally:
        calls.count -= 1
    return result


async def _run_or_wait(
    flight: SingleFlight, runtime: Runtime, client_gone: Callable[[], Awaitable[None]] | None
) -> None:
    deadline = time.monotonic() + flight.deadline
    while flight.needed():
        ended = anyio.Event()
        failures: list[BaseException] = []
        wake = _waker(ended, failures)
        led = runtime.start_flight(flight, wake)
        try:
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                if await _wait_or_disconnect(ended, client_gone):
                    # A running flight is awaited for a moment: it costs nothing more, and some clients close their half
                    # of the connection after sending the request.
                    if not runtime.is_queued(flight):
                        with anyio.move_on_after(_LINGER):
                            await ended.wait()
                    if not ended.is_set():
                        raise AuthorityUnavailable(Reason.CALLER_LEFT, flight.authority)
        finally:
            if not ended.is_set():  # cancelled, or late
                runtime.abandon(flight, wake)
        if failures:
            raise failures[0]
        if not ended.is_set():
            raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)
        if led:  # Start one flight at most: if the work is still needed, it may be impossible now.
            return


async def _wait_or_disconnect(ended: anyio.Event, client_gone: Callable[[], Awaitable[None]] | None) -> bool:
    """Wait until *ended* is set or the client disconnects. Return whether the client disconnected first."""
    if client_gone is None:
        await ended.wait()
        return False
    gone = False

    async def watch() -> None:
        nonlocal gone
        await client_gone()
        gone = True
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await ended.wait()
        group.cancel_scope.cancel()
    return gone and not ended.is_set()


def loop_caller() -> Callable[[Callable[[], object]], object]:
    """Return a function with which any thread can call a function in the event loop of the current task, soon.

    It raises :class:`RuntimeError` when the loop has ended.
    """
    # Before anyio 4.11, the native token was returned without a wrapper.
    token: Any = current_token()
    native: Any = getattr(token, "native_token", token)  # asyncio: the event loop; trio: a TrioToken
    caller: Callable[[Callable[[], object]], object]
    caller = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon
    return caller


def _waker(ended: anyio.Event, failures: list[BaseException]) -> Wake:
    """Return a function for other threads that sets *ended* in the event loop of the current task."""
    in_loop = loop_caller()

    def wake(failure: BaseException | None = None) -> None:
        if failure is not None:
            failures.append(failure)
        try:
            in_loop(ended.set)
        except RuntimeError:
            pass  # the loop has ended, and with it the waiting task

    return wake
