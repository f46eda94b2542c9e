"""The runtime that both edges share: clock, transport, flights, lanes and threads.

A flight of an event loop runs in its own thread; a flight of a blocking caller runs in the caller's thread. The bounds
of its lane apply to both. The threads are daemons: a hanging authorization server must not delay the end of the
process, so nothing waits for them longer than :attr:`Runtime.grace`.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from scopeguard.edge.lanes import BOUNDS, Full, Ticket, WorkLane
from scopeguard.edge.single_flight import Flights, Wake
from scopeguard.edge.threads import Threads
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.flow.effects import (
    Answer,
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
from scopeguard.state.fork import renew_after_fork

log: Final = logging.getLogger("scopeguard")

# How long closing waits for flights, in seconds: enough for an exchange with a healthy server.
_GRACE: Final = 0.7


def warn_of_insecure_hosts(authority: str, hosts: Iterable[str]) -> None:
    """Log a warning for each of *hosts*, which ``insecure_http_dangerously`` names for *authority*."""
    for host in sorted(hosts):
        log.warning(
            "insecure_http_dangerously: http://%s may be asked in cleartext for %s; any machine that can change this "
            "traffic can forge tokens, and any that can read it has the credentials in it",
            host,
            authority,
        )


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
    """The shared half of the edges."""

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
                    effect = thrown(error, flow, effect)
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
                return operation(self.store)
            case ReadFile(path=path, authority=authority, limit=limit):
                return _read_file(path, authority, limit)
            case CallHook(hook=hook):
                return _called(hook)
            case SingleFlight(wait=False):
                self.launch(effect, ignore)
            case SingleFlight():
                self._fly_or_wait(effect)
            case ReadForm() if answer_form is not None:
                return answer_form(effect)
            case _:
                raise TypeError(f"this edge cannot perform {effect!r}")
        return None

    def _fly_or_wait(self, flight: SingleFlight) -> None:
        deadline = time.monotonic() + flight.deadline
        while flight.needed():
            landing = _Landing()
            if self.flights.board(flight.key, landing):
                try:
                    self._fly_here(flight, deadline)
                    return
                finally:
                    self.flights.land(flight.key)
            if not landing.wait(deadline):
                self.abandon(flight, landing)
                raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)

    def _fly_here(self, flight: SingleFlight, deadline: float) -> None:
        """Run *flight* in this thread when its lane has a place."""
        turn = _Landing()

        def refuse() -> None:
            turn(_shutting_down(flight.authority))

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
                self._fly(flight)
        finally:
            lane.leave(ticket)

    def _fly(self, flight: SingleFlight) -> None:
        try:
            sentences = self.perform(flight.flow())
        except AuthorityUnavailable as error:
            if not flight.wait:  # a waiting caller reports the failure itself
                log.warning("%s: %s", flight.title, error)
            raise
        for sentence in sentences:
            log.warning("%s", sentence)

    def launch(self, flight: SingleFlight, wake: Wake) -> bool:
        """Start *flight* in a thread of its own, when its turn has come, unless one is in the air under its key.

        *wake* is called, in some thread, when it has landed: without an argument, or with the error if this call is
        the one that started it. A caller that no longer waits says so with :meth:`abandon`. Returns whether this call
        started it.
        """
        if not self.flights.board(flight.key, wake):
            return False
        lane = self.lanes[flight.lane]

        def land(failure: BaseException | None) -> None:
            self._tickets.pop(flight.key, None)
            self.flights.land(flight.key)
            wake(failure)

        def fly() -> None:
            failure: BaseException | None = None
            try:
                if flight.needed():
                    self._fly(flight)
            except AuthorityUnavailable as error:
                failure = error
            except BaseException as error:  # raised in the waiting caller; a background flight only logs it
                failure = error
                log.exception("%s: failed unexpectedly", flight.title)
            finally:
                try:
                    land(failure)
                finally:
                    lane.leave(ticket)  # last, so that an idle lane has no work left

        def start() -> bool:
            try:
                self._threads.run(fly)
            except RuntimeError as error:  # no thread can be started: a limit of the machine, or the end of the process
                log.warning("%s: no thread to fetch in: %s", flight.title, error)
                land(AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, flight.authority, problem=str(error)))
                return False
            return True

        ticket = Ticket(
            flight.account or flight.authority,
            priority=flight.priority,
            start=start,
            refuse=lambda: land(_shutting_down(flight.authority)),
        )
        self._tickets[flight.key] = ticket
        try:
            lane.enter(ticket)
        except Full as full:
            error = _too_many(flight, full.seconds)
            if not flight.wait:
                log.warning("%s: %s", flight.title, error)
            land(error)
        return True

    def is_queued(self, flight: SingleFlight) -> bool:
        """Whether *flight* still waits for its turn, in a queue that it can be taken out of."""
        ticket = self._tickets.get(flight.key)
        return ticket is not None and self.lanes[flight.lane].is_waiting(ticket)

    def abandon(self, flight: SingleFlight, wake: Wake) -> None:
        """The caller that came with *wake* waits no longer: drop *flight* if it has not begun and no other is left."""
        if not self.flights.leave(flight.key, wake):
            return
        ticket = self._tickets.get(flight.key)
        if ticket is not None and self.lanes[flight.lane].withdraw(ticket):
            self._tickets.pop(flight.key, None)
            self.flights.land(flight.key)  # wakes callers that joined since

    def end(self, deadline: float | None = None) -> None:
        """Refuse what waits for its turn and give what runs a moment to end; then wake every caller that waits for it.

        Takes until *deadline* at most (monotonic seconds), ``grace`` seconds from now unless given. Exchanges that run
        longer are cut off if the transport can do that (``abort``), and else end by themselves. New work may begin at
        once.
        """
        if deadline is None:
            deadline = time.monotonic() + self.grace
        for lane in self.lanes.values():
            lane.refuse_waiting()
        idle = [lane.wait_until_idle(max(0.0, deadline - time.monotonic())) for lane in self.lanes.values()]
        abort = getattr(self.transport, "abort", None)
        if abort is not None and not all(idle):
            abort()
        self.flights.dismiss(lambda: _shutting_down("an authorization server"))

    def close(self) -> None:
        """End the flights, see :meth:`end`, and release the transport; both come back when they are needed."""
        self.end()
        self._threads.end()
        self.transport.close()
        if self.store is not None:
            self.store.close()

    def after_fork(self) -> None:
        """Drop the tickets of threads that do not exist in the child process."""
        self._tickets = {}


class _Landing:
    """What a thread waits for: the end of a flight, or its turn to run one."""

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
        """Whether it came before *deadline* (monotonic seconds). Raises the failure that came instead."""
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


def _shutting_down(authority: str) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.SHUTTING_DOWN, authority, retry_after=1.0)


def thrown(error: Exception, flow: Flow[Any], effect: Effect[Any]) -> Effect[Any]:
    """Throw what *effect* failed with into *flow*, which decides what it means, and return the next effect.

    The log shows the failure of a flight that the flow goes on without; any other ends in what the flow raises.
    """
    try:
        following = flow.throw(error)
    except StopIteration:
        _log_forgiven(error, effect)
        raise
    _log_forgiven(error, effect)
    return following


def _log_forgiven(error: Exception, effect: Effect[Any]) -> None:
    if isinstance(effect, SingleFlight) and isinstance(error, AuthorityUnavailable):
        log.warning("%s: %s", effect.title, error)


_every: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _end_all() -> None:
    """End all flights at the end of the process; the interpreter does not join daemon threads."""
    deadline = time.monotonic() + _GRACE
    for outside in list(_every):
        outside.end(deadline)


atexit.register(_end_all)


def _read_file(path: str, authority: str, limit: int) -> bytes:
    from pathlib import Path  # noqa: PLC0415 - few configurations name a file

    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, authority, problem=problem) from None
    if len(content) > limit:
        problem = f"{path}: larger than {limit} bytes"
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, authority, problem=problem)
    return content


def _called(hook: Callable[[], Any]) -> Any:
    result = hook()
    return _awaited(result) if inspect.isawaitable(result) else result


def _awaited(result: Awaitable[Any]) -> Any:
    import anyio  # noqa: PLC0415 - a slow import that few configurations need

    async def wait() -> Any:
        return await result

    return anyio.run(wait)
