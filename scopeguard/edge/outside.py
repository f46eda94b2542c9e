"""What both edges share: the clock, the transport, the flights, and the threads that flights run in."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from scopeguard.edge.flights import Flights
from scopeguard.effects import Answer, CallHook, Clock, Flow, ReadFile, ReadForm, Send, SingleFlight, Store, UseStore
from scopeguard.errors import AuthorityUnavailable, Reason

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

log: Final = logging.getLogger("scopeguard")

# Flights are rare and short; the bound keeps a dead authority from collecting threads.
MOST_THREADS: Final = 16


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

    # Both are asked with every request; a method around them would cost as much again.
    wall: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)


class Transport(Protocol):
    """Performs one HTTP exchange. Give :class:`~scopeguard.guard.Guard` your own to use another client, a proxy, a
    private certificate authority or recorded answers. It is called in threads, from several at once."""

    def send(self, request: Send, /) -> Answer:
        """The answer, or :class:`~scopeguard.errors.AuthorityUnavailable`."""
        ...

    def close(self) -> None:
        """Release what is held; a later :meth:`send` may open it again."""
        ...


class Outside:
    """The shared half of the edges. *after_fork* are called in a child process, which has none of the threads."""

    def __init__(
        self,
        *,
        transport: Transport,
        clock: Clock,
        store: Store | None = None,
        after_fork: Iterable[Callable[[], None]] = (),
    ) -> None:
        self.transport = transport
        self.store = store
        self.clock = clock
        self._callbacks_after_fork = tuple(after_fork)
        self.flights: Flights = Flights()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        _every.add(self)

    def perform(self, flow: Flow[Any], answer_form: Callable[[ReadForm], bytes] | None = None) -> Any:
        """Drive *flow* to its end in this thread and return its value."""
        try:
            effect = next(flow)
            while True:
                try:
                    answer = self._answer(effect, answer_form)
                except Exception as error:  # thrown into the flow, which decides what it means
                    effect = flow.throw(error)
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
                self.launch(effect, lambda error: None)
            case SingleFlight():
                self._fly_or_wait(effect)
            case ReadForm() if answer_form is not None:
                return answer_form(effect)
            case _:
                raise TypeError(f"nobody performs {effect!r} here")
        return None

    def _fly_or_wait(self, flight: SingleFlight) -> None:
        deadline = time.monotonic() + flight.deadline
        while flight.needed():
            landed = threading.Event()
            if self.flights.board(flight.key, landed.set):
                try:
                    if flight.needed():
                        self._fly(flight)
                    return
                finally:
                    self.flights.land(flight.key)
            if not landed.wait(max(0.0, deadline - time.monotonic())):
                raise AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, flight.authority)

    def _fly(self, flight: SingleFlight) -> None:
        try:
            sentences = self.perform(flight.flow())
        except AuthorityUnavailable as error:
            log.warning("%s: %s", flight.title, error)
            raise
        for sentence in sentences:
            log.warning("%s", sentence)

    def launch(self, flight: SingleFlight, wake: Callable[[BaseException | None], None]) -> bool:
        """Start *flight* in a thread of its own unless one is in the air; *wake* is called, in some thread, when it
        has landed, with the error if this call was the one that started it. Whether it was."""
        if not self.flights.board(flight.key, lambda: wake(None)):
            return False

        cancelled = threading.Event()

        def fly() -> None:
            if cancelled.is_set():
                return
            failure: BaseException | None = None
            try:
                if flight.needed():
                    self._fly(flight)
            except AuthorityUnavailable as error:
                failure = error
            except BaseException as error:  # reaches whoever waits; a background flight has nobody but the log
                failure = error
                log.exception("%s: failed unexpectedly", flight.title)
            finally:
                self.flights.land(flight.key)
                wake(failure)

        try:
            self._submit(fly)
        except RuntimeError as error:  # no thread can be had: a limit of the machine, or the end of the process
            cancelled.set()  # it may stand in a queue all the same
            log.warning("%s: no thread to fetch in: %s", flight.title, error)
            self.flights.land(flight.key)
            wake(AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, flight.authority, problem=str(error)))
        return True

    def _submit(self, work: Callable[[], None]) -> None:
        with self._lock:  # all the while, so that no close() comes in between
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - asyncio has it, others are in no hurry

                self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="scopeguard")
            self._threads.submit(work)

    def close(self) -> None:
        """End the threads after their flights and release the transport; both come back when they are needed."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)
        self.transport.close()
        if self.store is not None:
            self.store.close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._threads = None
        for callback in self._callbacks_after_fork:
            callback()


_every: weakref.WeakSet[Outside] = weakref.WeakSet()


def _drop_threads_of_the_parent() -> None:
    for outside in _every:
        outside._after_fork()


os.register_at_fork(after_in_child=_drop_threads_of_the_parent)


def _read_file(path: str, authority: str, limit: int) -> bytes:
    from pathlib import Path  # noqa: PLC0415 - for the few who have such a file

    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, authority, problem=problem) from None
    if len(content) > limit:
        problem = f"{path}: larger than {limit} bytes"
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, authority, problem=problem)
    return content


def _called(hook: Callable[[], Any]) -> Any:
    result = hook()
    return _awaited(result) if inspect.isawaitable(result) else result


def _awaited(result: Awaitable[Any]) -> Any:
    import anyio  # noqa: PLC0415 - takes its time, and most have no use for it

    async def wait() -> Any:
        return await result

    return anyio.run(wait)
