"""The runtime that both edges share: clock, transport, flights, lanes and threads.

A flight that an event loop starts gets a thread of its own; one that a blocking caller starts runs in that caller's
thread. The bounds of its lane apply to both. The threads are daemons: a hanging authorization server must not delay the
end of the process, so nothing waits for them longer than :attr:`Runtime.grace`.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from scopeguard.edge.lanes import BOUNDS, Full, Ticket, WorkLane
from scopeguard.edge.single_flight import Flights, Wake
from scopeguard.edge.threads import Threads
from scopeguard.edge.watching import STORE, Watcher, watch
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import (
    Answer,
    CallApp,
    CallHook,
    Clock,
    Effect,
    Flow,
    Lane,
    ReadFile,
    ReadForm,
    Send,
    SingleFlight,
    Store,
    UseStore,
)
from scopeguard.reasons import Reason
from scopeguard.state.fork import renew_after_fork

log: Final = logging.getLogger("scopeguard")

# The seconds for which closing waits for flights: enough for an exchange with a healthy server.
_GRACE: Final = 0.7


class SystemClock:
    """The clocks of the machine."""

    __slots__ = ()

    # Both are read for every request, and a method around them would double the cost.
    wall: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)


class Transport(Protocol):
    """Performs HTTP exchanges.

    Pass your own to :class:`~scopeguard.guard.Guard` to use another client, a proxy, a private certificate authority or
    recorded responses. It is called from several threads at once.
    """

    def send(self, request: Send, /) -> Answer:
        """Return the response, or raise :class:`~scopeguard.errors.AuthorityUnavailable`."""
        ...

    def close(self) -> None:
        """Close the connections; a later :meth:`send` may open new ones."""
        ...


class Runtime:
    """Performs effects for both edges, and holds their flights, lanes and threads."""

    def __init__(
        self,
        *,
        transport: Transport,
        clock: Clock,
        store: Store | None = None,
    ) -> None:
        self.transport = transport
        self.store = store
        self.clock = clock
        self.flights: Flights = Flights()
        self.grace: float = _GRACE
        self.lanes: dict[Lane, WorkLane] = {lane: WorkLane(bounds, clock.monotonic) for lane, bounds in BOUNDS.items()}
        self.watchers: tuple[Watcher, ...] = ()
        self._threads: Threads = Threads()
        self._tickets: dict[str, Ticket] = {}  # by key: the flights that have a thread or wait for one
        _every.add(self)
        renew_after_fork(self)

    def perform(self, flow: Flow[Any], answer_form: Callable[[ReadForm], bytes] | None = None) -> Any:
        """Run *flow* to its end in this thread and return its value."""
        try:
            effect = next(flow)
            while True:
                try:
                    answer = self._answer(effect, answer_form)
                except Exception as error:
                    effect = throw_into(error, flow, effect)
                else:
                    effect = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        finally:
            flow.close()

    def _answer(self, effect: object, answer_form: Callable[[ReadForm], bytes] | None) -> Any:
        match effect:
            case Send():
                return self.transport.send(effect)
            case UseStore(operation=operation) if self.store is not None:
                return self.use_store(operation, self.store)
            case ReadFile(path=path, authority=authority, limit=limit):
                return _read_file(path, authority, limit)
            case CallHook(hook=hook):
                return _call(hook)
            case CallApp(function=function):
                return function()
            case SingleFlight(wait=False):
                self.start_flight(effect, ignore)
            case SingleFlight():
                self._run_or_wait(effect)
            case ReadForm() if answer_form is not None:
                return answer_form(effect)
            case _:
                raise TypeError(f"this edge cannot perform {effect!r}")
        return None

    def _run_or_wait(self, flight: SingleFlight) -> None:
        deadline = time.monotonic() + flight.deadline
        while flight.needed():
            ended = _Signal()
            if self.flights.join(flight.key, ended):
                try:
                    self._run_here(flight, deadline)
                    return
                finally:
                    self.flights.finish(flight.key)
            if not ended.wait(deadline):
                self.abandon(flight, ended)
                raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)

    def _run_here(self, flight: SingleFlight, deadline: float) -> None:
        """Run *flight* in this thread when its lane has a place."""
        turn = _Signal()

        def refuse() -> None:
            turn(_shutdown_error(flight.authority))

        lane = self.lanes[flight.lane]
        ticket = Ticket(flight.account or flight.authority, priority=flight.priority, start=turn.begin, refuse=refuse)
        try:
            try:
                lane.enter(ticket)
            except Full as full:
                raise _too_many(flight, full.seconds) from None
            if not turn.wait(deadline):
                raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)
            if flight.needed():
                self._run(flight)
        finally:
            lane.leave(ticket)

    def use_store(self, operation: Callable[[Store], Any], store: Store) -> Any:
        """Return the result of *operation* with *store*, the shared store."""
        if not self.watchers:
            return operation(store)
        return watch(lambda: operation(store), STORE, "", self.watchers, self.clock)

    def _run(self, flight: SingleFlight) -> None:
        try:
            if self.watchers:
                kind, authority = flight.lane.value, flight.authority
                sentences = watch(lambda: self.perform(flight.flow()), kind, authority, self.watchers, self.clock)
            else:
                sentences = self.perform(flight.flow())
        except AuthorityUnavailable as error:
            if not flight.wait:  # a waiting caller reports the failure itself
                log.warning("%s: %s", flight.title, error)
            raise
        for sentence in sentences:
            log.warning("%s", sentence)

    def start_flight(self, flight: SingleFlight, wake: Wake) -> bool:
        """Start *flight* in a thread, when its lane has a place, unless a flight with the same key is running.

        *wake* is called from any thread when the flight has ended: with the error if this call started it and it
        failed, else without an argument. A caller that stops waiting calls :meth:`abandon`. Returns whether this call
        started the flight.
        """
        if not self.flights.join(flight.key, wake):
            return False
        lane = self.lanes[flight.lane]

        def finish(failure: BaseException | None) -> None:
            self._tickets.pop(flight.key, None)
            self.flights.finish(flight.key)
            wake(failure)

        def run() -> None:
            failure: BaseException | None = None
            try:
                if flight.needed():
                    self._run(flight)
            except AuthorityUnavailable as error:
                failure = error
            except BaseException as error:  # raised in the waiting caller; a background flight only logs it
                failure = error
                log.exception("%s: failed unexpectedly", flight.title)
            finally:
                try:
                    finish(failure)
                finally:
                    lane.leave(ticket)  # last, so that an idle lane has no work left

        def start() -> bool:
            try:
                self._threads.run(run)
            except RuntimeError as error:  # no thread can be started: a system limit, or the process is ending
                log.warning("%s: no thread to fetch in: %s", flight.title, error)
                finish(AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, flight.authority, problem=str(error)))
                return False
            return True

        ticket = Ticket(
            flight.account or flight.authority,
            priority=flight.priority,
            start=start,
            refuse=lambda: finish(_shutdown_error(flight.authority)),
        )
        self._tickets[flight.key] = ticket
        try:
            lane.enter(ticket)
        except Full as full:
            error = _too_many(flight, full.seconds)
            if not flight.wait:
                log.warning("%s: %s", flight.title, error)
            finish(error)
        return True

    def is_queued(self, flight: SingleFlight) -> bool:
        """Return whether *flight* is queued, so that it can still be withdrawn."""
        ticket = self._tickets.get(flight.key)
        return ticket is not None and self.lanes[flight.lane].is_waiting(ticket)

    def abandon(self, flight: SingleFlight, wake: Wake) -> None:
        """Remove the caller that passed *wake*. Drop *flight* if it has not begun and no other caller waits for it."""
        # Look up the ticket first: once this caller has left, the flight may end, and the next one may have its key.
        ticket = self._tickets.get(flight.key)
        if not self.flights.leave(flight.key, wake):
            return
        if ticket is not None and self.lanes[flight.lane].withdraw(ticket):
            self._tickets.pop(flight.key, None)
            self.flights.finish(flight.key)  # wakes callers that joined since

    def end(self, deadline: float | None = None) -> None:
        """Refuse the queued flights, wait a moment for the running ones, then wake all waiting callers.

        Takes until *deadline* at most, in monotonic seconds; the default is ``grace`` seconds from now. If the
        transport has ``abort``, it interrupts exchanges that take longer. New flights may begin at once.
        """
        if deadline is None:
            deadline = time.monotonic() + self.grace
        for lane in self.lanes.values():
            lane.refuse_waiting()
        idle = [lane.wait_until_idle(max(0.0, deadline - time.monotonic())) for lane in self.lanes.values()]
        abort = getattr(self.transport, "abort", None)
        if abort is not None and not all(idle):
            abort()
        self.flights.dismiss(lambda: _shutdown_error("an authorization server"))

    def close(self) -> None:
        """End the flights as :meth:`end` does, and close the transport and the store. Later calls open them again."""
        self.end()
        self._threads.end()
        self.transport.close()
        if self.store is not None:
            self.store.close()

    def after_fork(self) -> None:
        """Drop the tickets of threads that do not exist in the child process."""
        self._tickets = {}


class _Signal:
    """Lets a thread wait for the end of a flight, or for a place in a lane."""

    __slots__ = ("_event", "_failure")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._failure: BaseException | None = None

    def __call__(self, failure: BaseException | None = None) -> None:
        self._failure = failure
        self._event.set()

    def begin(self) -> bool:
        self._event.set()
        return True

    def wait(self, deadline: float) -> bool:
        """Wait until *deadline* (monotonic seconds). Return false if it passes; raise the failure if there is one."""
        came = self._event.wait(max(0.0, deadline - time.monotonic()))
        if self._failure is not None:
            raise self._failure
        return came


def ignore(failure: BaseException | None = None) -> None:
    """Do nothing: the failure of a background flight has been logged, and no caller waits for it."""


def _too_many(flight: SingleFlight, seconds: float) -> AuthorityUnavailable:
    return AuthorityUnavailable(
        Reason.TOO_MANY_WAITING, flight.authority, retry_after=seconds, problem=f"the lane for {flight.lane} is full"
    )


def _shutdown_error(authority: str) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.SHUTTING_DOWN, authority, retry_after=1.0)


def throw_into(error: Exception, flow: Flow[Any], effect: Effect[Any]) -> Effect[Any]:
    """Throw *error*, with which *effect* failed, into *flow*. Return the next effect.

    If the flow continues after the failure of a flight, the failure is logged. Otherwise the flow raises an error.
    """
    try:
        following = flow.throw(error)
    except StopIteration:
        _log_ignored(error, effect)
        raise
    _log_ignored(error, effect)
    return following


def _log_ignored(error: Exception, effect: Effect[Any]) -> None:
    if isinstance(effect, SingleFlight) and isinstance(error, AuthorityUnavailable):
        log.warning("%s: %s", effect.title, error)


_every: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _end_all() -> None:
    """End all flights at the end of the process; the interpreter does not join daemon threads."""
    deadline = time.monotonic() + _GRACE
    for runtime in list(_every):
        runtime.end(deadline)


atexit.register(_end_all)


def _read_file(path: str, authority: str, limit: int) -> bytes:
    from scopeguard.edge.files import open_regular  # noqa: PLC0415 - few configurations name a file

    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, authority, problem=problem) from None
    if len(content) > limit:
        problem = f"{path}: larger than {limit} bytes"
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, authority, problem=problem)
    return content


def _call(hook: Callable[[], Any]) -> Any:
    result = hook()
    return _run_awaitable(result) if inspect.isawaitable(result) else result


def _run_awaitable(result: Awaitable[Any]) -> Any:
    import anyio  # noqa: PLC0415 - a slow import that few configurations need

    async def wait() -> Any:
        return await result

    return anyio.run(wait)
